/* test_attention.c - full attention against the oracle by the 2x rule: shapes, types, layouts, positions, magnitudes */
#include "oracle.h"

/* The narrow output against the same call's f32 output: the 2x rule would not see a wrong rounding. */
static int rounds_as_it_should(prob *p)
{
    const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
    tensor wide;
    int ok = 1;
    ssa_attn a = p->a;
    tensor_make(&wide, SSA_F32, p->s.n_q, p->s.HQ, p->s.DV, LAY_ZERO);
    a.out = wide.view;
    FOR_LEVELS(l) {
        ok &= ssa_attention(&p->a, SSA_FULL, &one) == SSA_OK && ssa_attention(&a, SSA_FULL, &one) == SSA_OK;
        tensor_load(&p->o);
        tensor_load(&wide);
        for (int64_t i = 0; i < tensor_count(&wide); i++) {
            uint16_t rounded;
            type_put(p->s.to, &rounded, (double)wide.val[i]);
            ok &= p->o.val[i] == type_get(p->s.to, &rounded);
        }
    }
    tensor_free(&wide);
    return ok;
}

static void check_full(const shape *s)
{
    const ssa_exec one = { 1, NULL, NULL, NULL, 0 };        /* OpenMP's threads, where there are any, once a case */
    two_x out = { 0 }, lse = { 0 };
    prob p;
    prob_make(&p, s);
    int reps = two_x_reps(p.n_lse, p.n_lse * p.s.n_kv * (p.s.D + p.s.DV)), status_ok = 1, gaps_ok = 1, rest_ok = 1,
        round_ok = 1;
    for (int rep = 0; rep < reps; rep++) {
        o_result r;
        if (rep) prob_refill(&p, s->seed + 100 + 10 * (uint64_t)rep);
        uint64_t inputs = bytes_hash(p.q.mem, p.q.mem_bytes,
                                     bytes_hash(p.k.mem, p.k.mem_bytes, bytes_hash(p.v.mem, p.v.mem_bytes, 1)));
        o_solve(&p, NULL, &r, &out, &lse);
        FOR_LEVELS(l) {
            prob_clear(&p);
            status_ok &= ssa_attention(&p.a, SSA_FULL, rep || l ? &one : NULL) == SSA_OK;
            o_compare(&p, &r, l, &out, &lse);
            gaps_ok &= tensor_gaps_ok(&p.o);
        }
        if (!rep && p.s.to != SSA_F32 && p.n_lse) round_ok &= rounds_as_it_should(&p);
        rest_ok &= inputs
                   == bytes_hash(p.q.mem, p.q.mem_bytes,
                                 bytes_hash(p.k.mem, p.k.mem_bytes, bytes_hash(p.v.mem, p.v.mem_bytes, 1)));
        o_result_free(&r);
    }
    const char *text = shape_text(&p.s);
    CHECK(status_ok, "status: %s", text);
    CHECK(gaps_ok, "bytes between and around the rows of out are untouched: %s", text);
    CHECK(round_ok, "an f16 or bf16 output is the f32 output, rounded to nearest even: %s", text);
    CHECK(rest_ok, "inputs are unchanged: %s", text);
    two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    if (p.a.lse) two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    prob_free(&p);
}

#define F4 SSA_F32
#define H2 SSA_F16
#define B2 SSA_BF16
#define R(n, hq, h, d, dv, nq, nkv, pos, q, k, v, o, layout_, scale_, amp_, noncausal_) \
    { .name = n, .HQ = hq, .H = h, .D = d, .DV = dv, .n_q = nq, .n_kv = nkv, .q_pos = pos, .tq = q, .tk = k, .tv = v, \
      .to = o, .lay = layout_, .scale = scale_, .amp = amp_, .noncausal = noncausal_ }
static const shape fixed[] = {
    /* name              HQ  H    D   DV  n_q  n_kv  pos  types (q k v out)  layout  scale  amp  noncausal */
    R("one of all"      ,   1,  1,    1,    1,   1,    1, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 0),
    R("no keys"         ,   4,  2,   16,   16,   3,    0,  0, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 0),
    R("no keys, at -3"  ,   4,  2,   16,   16,   3,    0, -1, B2, B2, B2, B2, LAY_TOKEN,      0,     0, 0),
    R("no queries"      ,   4,  2,   16,   16,   0,   20, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 0),
    R("decode"          ,  16,  1,   64,   64,   1,  700, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 0),
    R("decode bf16"     ,  32,  8,  128,  128,   1,  513, -1, F4, B2, B2, F4,  LAY_HEAD,      0,     0, 0),
    R("decode f16"      ,   8,  8,   80,   80,   1,  300, -1, H2, H2, H2, H2,   LAY_ODD,      0,     0, 0),
    R("decode MQA 71"   ,  71,  1,   64,   64,   1,  257, -1, F4, H2, H2, F4,   LAY_PAD,      0,     0, 0),
    R("prefill"         ,   8,  2,   64,   64, 100,  100, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 0),
    R("prefill bf16"    ,   8,  2,   64,   64, 100,  100, -1, B2, B2, B2, B2, LAY_TOKEN,      0,     0, 0),
    R("prefill f16"     ,   4,  4,   96,   96,  64,   64, -1, H2, H2, H2, H2,   LAY_PAD,      0,     0, 0),
    R("second half"     ,   4,  1,   40,   40,  64,  128, -1, F4, B2, B2, B2,   LAY_MIX,      0,     0, 0),
    R("in the middle"   ,   6,  2,   33,   31,  17,  333, 50, F4, F4, F4, F4,   LAY_ODD,      0,     0, 0),
    R("past the end"    ,   6,  2,   32,   32,   5,   77, 90, F4, H2, H2, F4,  LAY_ZERO,      0,     0, 0),
    R("crosses the end" ,   2,  1,   16,   48,  17,   40, 30, F4, F4, B2, F4,  LAY_ZERO,      0,     0, 0),
    R("n_q over n_kv"   ,   4,  2,   24,   24,  17,    5, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 0),
    R("n_q over n_kv"   ,   4,  1,   64,   64, 100,   33, -1, B2, B2, B2, F4,   LAY_ODD,      0,     0, 0),
    R("query 0 alone"   ,   3,  3,    7,    9,   1,   50,  0, F4, F4, F4, F4,   LAY_ODD,      0,     0, 0),
    R("dims 576/512"    ,  16,  1,  576,  512,   2,   40, -1, F4, B2, B2, F4,  LAY_ZERO,      0,     0, 0),
    R("dims 1024"       ,   2,  1, 1024, 1024,   3,   37, -1, B2, B2, B2, B2,   LAY_PAD,      0,     0, 0),
    R("dims 1/1024"     ,   2,  2,    1, 1024,   3,   37, -1, F4, F4, F4, F4,   LAY_ODD,      0,     0, 0),
    R("dims 1024/1"     ,   2,  2, 1024,    1,   3,   37, -1, F4, H2, F4, F4,   LAY_ODD,      0,     0, 0),
    R("dims 300"        ,   4,  2,  300,  300,   5,   40, -1, F4, F4, F4, F4,  LAY_HEAD,      0,     0, 0),
    R("scale given"     ,   4,  2,   64,   64,  17,  100, -1, F4, F4, F4, F4,  LAY_ZERO,   0.3f,     0, 0),
    R("scale negative"  ,   4,  2,   64,   64,  17,  100, -1, F4, B2, B2, F4,  LAY_ZERO,  -0.2f,     0, 0),
    R("scale tiny"      ,   4,  2,   64,   64,   5,  100, -1, F4, F4, F4, F4,  LAY_ZERO, 1e-30f,     0, 0),
    R("peaked"          ,   4,  2,   64,   64,  17,  200, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     8, 0),
    R("very peaked"     ,   4,  2,   64,   64,  17,  200, -1, F4, B2, B2, F4,  LAY_ZERO,      0,    40, 0),
    R("scores of 1e6"   ,   4,  2,   64,   64,  17,  200, -1, F4, F4, F4, F4,  LAY_ZERO,    1.f,   300, 0),
    R("scores of 1e30"  ,   2,  1,   16,   16,   5,   60, -1, F4, F4, F4, F4,  LAY_ZERO,    1.f, 3e14f, 0),
    R("noncausal"       ,   8,  2,   64,   64,  17,  150, -1, F4, F4, F4, F4,  LAY_ZERO,      0,     0, 1),
    R("noncausal at 0"  ,   4,  4,   40,   72,  64,  100,  0, B2, B2, B2, B2,   LAY_MIX,      0,     0, 1),
    R("noncausal long"  ,   5,  5,   16,   16,   5,   33,  9, H2, H2, H2, H2,   LAY_ODD,      0,     2, 1),
    R("noncausal over"  ,   3,  1,    5,    5, 100,    3, -1, F4, F4, F4, F4,   LAY_ODD,      0,     0, 1),
    R("noncausal empty" ,   3,  1,    5,    5,   4,    0, -1, F4, F4, F4, F4,   LAY_ODD,      0,     0, 1),
    R("long decode"     ,   8,  1,   64,   64,   1, 5000, -1, F4, B2, B2, F4,  LAY_ZERO,      0,     0, 0),
    R("long decode f32" ,   4,  2,   32,   64,   2, 4099, -1, F4, F4, F4, F4,   LAY_ODD,      0,     3, 0),
    R("long, 17 rows"   ,   2,  1,   40,   40,  17, 3001, -1, F4, H2, H2, F4,   LAY_PAD,      0,     0, 0),
};
#undef R

/* Scores without a rounding error that rise along the keys: an error of the weights cannot hide behind theirs. The last
 * keys, a share of their own in a decode, weigh about as much as the share before. */
static void check_rising(ssa_type type, int n_q, double slope)
{
    const shape s = { .name = "rising", .HQ = 4, .H = 1, .D = 16, .n_q = n_q, .n_kv = 11 * 512 + 48, .q_pos = -1,
                      .tq = type, .tk = SSA_F32, .tv = type };
    two_x out = { 0 }, lse = { 0 };
    prob p;
    prob_make(&p, &s);
    for (uint64_t rep = 0; rep < 4; rep++) {
        o_result r;
        prob_fill(&p, 50 + rep);
        for (int64_t i = 0; i < tensor_count(&p.q); i++) p.q.val[i] = i % s.D ? 0.0f : 32.0f;
        for (int64_t i = 0; i < tensor_count(&p.k); i++) p.k.val[i] = i % s.D ? 0.0f : (float)(slope / 8 * (i / s.D));
        tensor_store(&p.q);
        tensor_store(&p.k);
        o_solve(&p, NULL, &r, &out, &lse);
        FOR_LEVELS(l) {
            CHECK(ssa_attention(&p.a, SSA_FULL, NULL) == SSA_OK, "status: %s", shape_text(&s));
            o_compare(&p, &r, l, &out, &lse);
        }
        o_result_free(&r);
    }
    two_x_check(&out, SSA_F32, "out", shape_text(&s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "lse", shape_text(&s), __FILE__, __LINE__);
    prob_free(&p);
}

void test_attention(void)
{
    static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };
    static const int dims[] = { 1, 3, 5, 16, 31, 33, 40, 64, 80, 96, 100, 128, 160, 192, 256, 300, 576, 1024 };
    static const int groups[] = { 1, 2, 3, 4, 5, 7, 8, 16, 20, 71 };
    static const int queries[] = { 1, 1, 2, 3, 5, 17, 64, 100 };
    static const int keys[] = { 0, 1, 2, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191,
                                192, 193, 255, 256, 257, 288, 289, 511, 513, 700 };
    static const float scales[] = { 0, 0, 0, 0.25f, -0.1f, 1 };
    static const float amps[] = { 1, 1, 1, 3, 10 };

    for (int i = 0; i < COUNT(fixed); i++) if (test_some(i, 13)) check_full(&fixed[i]);
    for (int i = 0; i < 6; i++)
        check_rising(i % 2 ? SSA_F16 : SSA_F32, i < 4 ? 1 + i / 2 * 3 : 40, i % 3 ? 0.03 : 0.004);

    for (int i = 0; i < 81; i++) {                            /* every combination of types */
        if (!test_some(i, 17)) continue;
        shape s = { .name = "types", .HQ = 6, .H = 2, .D = 37, .DV = 21, .n_q = 9, .n_kv = 70, .q_pos = -1,
                    .lay = LAY_MIX, .tq = types[i % 3], .tk = types[i / 3 % 3], .tv = types[i / 9 % 3],
                    .to = types[i / 27], .seed = (uint64_t)i };
        check_full(&s);
    }
    for (int i = 0; i < COUNT(dims); i++)                     /* every dimension, decode and a few rows */
        for (int t = 0; t < 3; t++) {
            if (!test_some(i * 3 + t, 13)) continue;
            shape s = { .name = "dims", .HQ = 4, .H = 2, .D = dims[i], .DV = dims[(i * 7 + t) % COUNT(dims)],
                        .n_q = t ? 5 : 1, .n_kv = 53 + i, .q_pos = -1, .lay = t == 1 ? LAY_ODD : LAY_ZERO,
                        .tq = t == 1 ? types[i % 3] : SSA_F32, .tk = types[t], .tv = types[t],
                        .to = t == 1 ? types[i % 3] : SSA_F32, .seed = 7 };
            check_full(&s);
        }
    for (int i = 0; i < COUNT(groups); i++)                   /* every group size, one token and several */
        for (int t = 0; t < 4; t++) {
            if (!test_some(i * 4 + t, 13)) continue;
            shape s = { .name = "groups", .HQ = groups[i] * (t == 2 ? 3 : 1), .H = t == 2 ? 3 : 1, .D = 20, .DV = 36,
                        .n_q = t == 0 ? 1 : t == 1 ? 3 : 19, .n_kv = 90, .q_pos = -1, .tk = types[i % 3],
                        .tv = types[i % 3], .noncausal = t == 3, .seed = 9 };
            check_full(&s);
        }
    for (int i = 0; i < COUNT(keys); i++) {                   /* every length of the cache */
        if (!test_some(i, 11)) continue;
        shape s = { .name = "keys", .HQ = 3, .H = 1, .D = 24, .n_q = 4, .n_kv = keys[i], .q_pos = -1, .seed = 11 };
        check_full(&s);
        s.n_q = 1; s.tk = s.tv = SSA_BF16; s.HQ = 16;
        check_full(&s);
    }
    rng r = { 20240, 0 };
    for (int i = 0; i < 300; i++) { /* whatever else: at most about 4e6 multiply-adds a case */
        if (!test_some(i, 150)) continue;
        int g = RNG_PICK(&r, groups), kv = rng_int(&r, 1, 4);
        while (g * kv > 72) kv--;
        shape s = { .name = "random", .HQ = g * kv, .H = kv, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = RNG_PICK(&r, queries), .n_kv = rng_int(&r, 0, 2) ? rng_int(&r, 1, 300) : RNG_PICK(&r, keys),
                    .tq = RNG_PICK(&r, types), .tk = RNG_PICK(&r, types), .tv = RNG_PICK(&r, types),
                    .to = RNG_PICK(&r, types), .lay = (layout)rng_int(&r, LAY_ZERO, LAY_MIX),
                    .scale = RNG_PICK(&r, scales), .amp = RNG_PICK(&r, amps), .noncausal = rng_int(&r, 0, 3) == 0,
                    .no_gate = rng_int(&r, 0, 1), .no_lse = rng_int(&r, 0, 4) == 0, .seed = (uint64_t)i * 16 + 1000 };
        if (rng_int(&r, 0, 1)) s.DV = s.D;
        if (rng_int(&r, 0, 1)) s.tv = s.tk;
        while ((double)s.n_q * s.n_kv * s.HQ * (s.D + s.DV) > 4e6) { s.n_q = (s.n_q + 1) / 2; s.n_kv = s.n_kv * 3 / 4; }
        s.q_pos = rng_int(&r, 0, 1) ? -1 : rng_int(&r, 0, s.n_kv + 20);
        check_full(&s);
    }
}

/* test_sparse.c - block selection and block-sparse attention against the oracle */
#include "oracle.h"

/* Ties in the data: blocks that repeat with this period, so that a cut may fall between equal importances. */
static void repeat_blocks(prob *p, int period)
{
    int64_t block = (int64_t)p->s.B * p->s.H * p->s.D, from = period * block;
    for (int64_t e = from; e < tensor_count(&p->k); e++) p->k.val[e] = p->k.val[e - from];
    tensor_store(&p->k);
}

/* ssa_select_blocks and ssa_attention at every level: the same blocks, the oracle's blocks, the oracle's output on
 * them. */
static void check_sparse(const shape *s, int period)
{
    two_x out = { 0 }, lse = { 0 };
    prob p;
    prob_make(&p, s);
    int64_t nb = p.s.n_kv / p.s.B, size = p.n_blocks * (int64_t)sizeof(int32_t), cost;
    int reps, ok = 1, alone = 1, same = 1, gaps = 1;
    double *pooled = xalloc(nb * p.s.H * p.s.D, sizeof *pooled), clear = 1;
    int32_t *before = xalloc(p.n_blocks, sizeof *before);
    const char *text = shape_text(&p.s);
    p.a.blocks = p.blocks;
    cost = p.n_lse * (p.s.D + p.s.DV) * (p.s.n_kv < p.s.B * p.s.top_k ? p.s.n_kv : p.s.B * p.s.top_k);
    reps = two_x_reps(p.n_lse, cost);
    for (int rep = 0; rep < reps; rep++) {
        if (rep) prob_refill(&p, s->seed + 100 + 10 * (uint64_t)rep);
        if (period) repeat_blocks(&p, period);
        o_call c;
        o_result r = { 0 };
        o_call_of(&c, &p);
        o_pool(&c, pooled);
        FOR_LEVELS(l) {
            prob_clear(&p);
            uint64_t outputs = bytes_hash(p.o.mem, p.o.mem_bytes, bytes_hash(p.lse, p.n_lse * 4, 1));
            ssa_attn a = p.a;
            const ssa_exec one = { 1, NULL, NULL, NULL, 0 }, *x = rep || l ? &one : NULL;    /* NULL: OpenMP, if any */
            if (l & 1) a.v.data = a.out.data = NULL;
            ok &= ssa_select_blocks(&a, x) == SSA_OK;
            alone &= outputs == bytes_hash(p.o.mem, p.o.mem_bytes, bytes_hash(p.lse, p.n_lse * 4, 1));
            uint64_t chosen = bytes_hash(p.blocks, size, 1);
            prob_clear(&p);
            ok &= ssa_attention(&p.a, SSA_SPARSE, x) == SSA_OK;
            same &= chosen == bytes_hash(p.blocks, size, 1);
            gaps &= tensor_gaps_ok(&p.o);
            if (l == 0 || memcmp(before, p.blocks, (size_t)size)) {      /* levels may differ in near ties */
                double share = o_check_blocks(&p, pooled, period != 0, text);
                if (share < clear) clear = share;
                if (l) o_result_free(&r);
                o_solve(&p, p.blocks, &r, &out, &lse);
                memcpy(before, p.blocks, (size_t)size);
            }
            o_compare(&p, &r, l, &out, &lse);
        }
        o_result_free(&r);
    }
    CHECK(ok, "status: %s", text);
    CHECK(alone, "ssa_select_blocks writes blocks only: %s", text);
    CHECK(same, "ssa_select_blocks gives the blocks of ssa_attention: %s", text);
    CHECK(gaps, "bytes between and around the rows of out are untouched: %s", text);
    CHECK(clear >= (p.s.amp > 3 || p.s.n_q < 20 ? 0 : 0.5), "most rows have a clear selection, %.2f: %s", clear, text);
    two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    if (p.a.lse) two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    free(pooled); free(before);
    prob_free(&p);
}

/* GIVEN: lists in any order, with duplicates, gaps, negative and far blocks, and a row with none. */
static void check_given(const shape *s, rng *r)
{
    two_x out = { 0 }, lse = { 0 };
    o_result res;
    prob p;
    prob_make(&p, s);
    p.a.blocks = p.blocks;
    for (int64_t e = 0; e < p.n_blocks; e++) {
        int64_t row = e / p.s.top_k / p.s.H, cur = (p.q0 + row) / p.s.B;
        static const int32_t odd[] = { -1, -1, -2, INT32_MIN, INT32_MAX, INT32_MAX / 16 };
        int what = rng_int(r, 0, 9);
        p.blocks[e] = row == 3 ? -1 : what == 0 ? RNG_PICK(r, odd) : what == 1 ? (int32_t)cur + rng_int(r, 1, 3)
                    : what == 2 && e ? p.blocks[e - 1] : rng_int(r, 0, (int)cur);
    }
    uint64_t lists = bytes_hash(p.blocks, p.n_blocks * 4, 1);
    const char *text = shape_text(&p.s);
    o_solve(&p, p.blocks, &res, &out, &lse);
    FOR_LEVELS(l) {
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "given: %s", text);
        CHECK(lists == bytes_hash(p.blocks, p.n_blocks * 4, 1), "given blocks are unchanged: %s", text);
        CHECK(tensor_gaps_ok(&p.o), "bytes between the rows: %s", text);
        CHECK(ssa_select_blocks(&p.a, NULL) == SSA_ERR_SELECT, "nothing to select: %s", text);
        o_compare(&p, &res, l, &out, &lse);
    }
    two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    o_result_free(&res);
    prob_free(&p);
}

/* A budget that covers every block is full attention. */
static void check_covering(const shape *s)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r;
    prob p;
    prob_make(&p, s);
    o_solve(&p, NULL, &r, &out, &lse);
    FOR_LEVELS(l) {
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "%s", shape_text(&p.s));
        o_compare(&p, &r, l, &out, &lse);
    }
    two_x_check(&out, p.s.to, "covering out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "covering lse", shape_text(&p.s), __FILE__, __LINE__);
    o_result_free(&r);
    prob_free(&p);
}

/* A NaN key, or value: the queries before it keep their bits; the block that holds such a key is not chosen while
 * others are left. */
static void check_nan(ssa_select select, ssa_type tk, int nan_key, int top_k, float amp, int value)
{
    shape s = { .name = "nan key", .HQ = 4, .H = 2, .D = 32, .n_q = 200, .n_kv = 200, .q_pos = -1, .tk = tk, .tv = tk,
                .B = 8, .top_k = top_k, .select = select, .amp = amp, .seed = 77 };
    prob p;
    prob_make(&p, &s);
    p.a.blocks = p.blocks;
    int64_t head = (int64_t)nan_key * s.HQ * p.s.DV, listed = (int64_t)nan_key * s.H * top_k;   /* before the key */
    FOR_LEVELS(l) {
        prob_fill(&p, s.seed);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "status");
        uint64_t clean = bytes_hash(p.o.view.data, head * 4, bytes_hash(p.blocks, listed * 4, 1));
        for (int d = 0; d < s.D; d += value ? 1 : 5)
            (value ? &p.v : &p.k)->val[((int64_t)nan_key * s.H + 1) * s.D + d] = NAN; /* of key/value head 1 */
        tensor_store(value ? &p.v : &p.k);
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "status");
        CHECK(clean == bytes_hash(p.o.view.data, head * 4, bytes_hash(p.blocks, listed * 4, 1)),
              "queries before the NaN");
        tensor_load(&p.o);
        int bad = 0, wrong = 0;
        for (int i = 0; i < s.n_q; i++)
            for (int j = 0; j < s.H; j++) {
                int has = 0, cur = i / s.B;
                for (int e = 0; e < top_k; e++) has |= p.blocks[(i * s.H + j) * top_k + e] == nan_key / s.B;
                if (!value && j == 1 && i >= nan_key && cur > nan_key / s.B && cur >= top_k) bad += has;
                for (int d = 0; d < s.HQ / s.H * s.D; d++)
                    wrong += isnan(p.o.val[(i * s.HQ + j * (s.HQ / s.H)) * s.D + d]) != (j == 1 && has && i >= nan_key);
            }
        CHECK(bad == 0, "a block with a NaN key ranks below all others: chosen %d times", bad);
        CHECK(wrong == 0, "NaN exactly in the queries that read the %s: %d elements differ", value ? "value" : "key",
              wrong);
    }
    prob_free(&p);
}

void test_sparse(void)
{
    static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };
    static const int sizes[] = { 1, 2, 3, 7, 16, 32, 64, 100, 128, 4096 };
    static const int budgets[] = { 1, 2, 5, 8, 16, 33, 1000 };
    static const int dims[] = { 1, 5, 16, 31, 40, 64, 80, 128, 192, 300 };
    static const int groups[] = { 1, 2, 3, 4, 7, 8, 16, 20 };

    for (int i = 0; i < COUNT(sizes) * COUNT(budgets); i++) {
        if (!test_some(i, 23)) continue;
        int b = sizes[i % COUNT(sizes)], k = budgets[i / COUNT(sizes)];
        shape s = { .name = "sizes", .HQ = 6, .H = 2, .D = 24 + 3 * (i % 7), .DV = 32, .n_q = b == 4096 ? 3 : 24,
                    .n_kv = b == 4096 ? 4098 : b > 30 ? b * 7 + 11 : b * 41 + 5, .q_pos = -1, .tk = types[i % 3],
                    .tv = types[i % 3], .lay = (layout)(i % 6), .B = b, .top_k = k, .seed = (uint64_t)i };
        if (b == 4096) s.HQ = 2;
        check_sparse(&s, 0);
        s.q_pos = b == 4096 ? 4094 : b * (i % 5); /* also where few blocks, or none, are complete */
        check_sparse(&s, 0);
        s.q_pos = -1;
        s.select = SSA_SELECT_REFERENCE;
        if (b > 1 && (b & (b - 1)) == 0 && k <= b) check_sparse(&s, 0);
    }
    static const struct { int B, top_k, n_kv; } reference[] = { { 2, 1, 40 }, { 2, 2, 41 }, { 4, 3, 201 },
        { 4, 4, 150 }, { 8, 4, 333 }, { 8, 5, 300 }, { 8, 8, 700 }, { 16, 9, 800 }, { 16, 16, 1100 }, { 32, 20, 1500 },
        { 32, 32, 2200 } };
    for (int i = 0; i < COUNT(reference); i++)                            /* several chunks of blocks */
        for (int n_q = 1; n_q <= 40; n_q += 39) {
            if (!test_some(i, 5)) continue;
            shape s = { .name = "reference", .HQ = 4, .H = 2, .D = 32, .n_q = n_q, .n_kv = reference[i].n_kv,
                        .q_pos = -1, .tk = types[i % 3], .tv = types[i % 3], .B = reference[i].B,
                        .top_k = reference[i].top_k, .select = SSA_SELECT_REFERENCE, .seed = 300 };
            check_sparse(&s, 0);
            check_sparse(&s, 3);
        }
    for (int i = 0; i < 24; i++) {                                        /* exact ties go to the lower index */
        if (!test_some(i, 23)) continue;
        shape s = { .name = "ties", .HQ = 2 * groups[i % 8], .H = 2, .D = dims[1 + i % 9], .n_q = 40,
                    .n_kv = 300 + 7 * i, .q_pos = -1, .tk = types[i % 3], .tv = types[i % 3], .B = 8,
                    .top_k = 2 + i % 7, .select = i & 1 ? SSA_SELECT_REFERENCE : SSA_SELECT_TOPK,
                    .amp = i % 4 ? 1 : 1e-30f, .seed = 500 };
        if (i % 4 == 0) s.tk = s.tv = SSA_F32;
        check_sparse(&s, i % 4 ? 1 + i % 11 : 1);                         /* period 1: every block ties */
    }
    for (int i = 0; i < 4; i++) { /* queries before key 0 see and choose nothing */
        shape s = { .name = "n_q over n_kv", .HQ = 4, .H = 2, .D = 24, .n_q = 50, .n_kv = i ? 12 + 7 * i : 0,
                    .q_pos = -1, .B = 4, .top_k = 3, .select = i & 1 ? SSA_SELECT_REFERENCE : SSA_SELECT_TOPK };
        check_sparse(&s, 0);
    }
    for (int i = 0; i < 6; i++) {                                         /* so many keys that they are shared out */
        if (!test_some(i, 6)) continue;
        shape s = { .name = "long", .HQ = 4, .H = 1 + i % 2, .D = 40, .n_q = 1 + i % 3, .n_kv = 6000 + 700 * i,
                    .q_pos = -1, .tk = types[i % 3], .tv = types[i % 3], .B = i & 1 ? 64 : 16,
                    .top_k = i & 1 ? 80 : 350, .no_gate = i > 3 };
        check_sparse(&s, 0);
    }
    rng r = { 31337, 0 };
    for (int i = 0; i < 150; i++) {
        if (!test_some(i, 70)) continue;
        int g = RNG_PICK(&r, groups), kv = rng_int(&r, 1, 3), b = sizes[rng_int(&r, 0, COUNT(sizes) - 2)],
            nq = rng_int(&r, 1, 40);
        shape s = { .name = "random", .HQ = g * kv, .H = kv, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = nq, .n_kv = nq + rng_int(&r, 0, 500), .q_pos = -1, .tq = RNG_PICK(&r, types),
                    .tk = RNG_PICK(&r, types), .tv = RNG_PICK(&r, types), .to = RNG_PICK(&r, types),
                    .lay = (layout)rng_int(&r, LAY_ZERO, LAY_MIX), .scale = rng_int(&r, 0, 2) ? 0 : 0.2f,
                    .amp = rng_int(&r, 0, 3) ? 1 : 4, .no_gate = rng_int(&r, 0, 1), .no_lse = rng_int(&r, 0, 3) == 0,
                    .B = b, .top_k = RNG_PICK(&r, budgets), .seed = (uint64_t)i * 16 + 9000 };
        if (s.D == 1) s.D = 2;        /* in one dimension distinct blocks tie */
        if (b > 1 && (b & (b - 1)) == 0 && s.top_k <= b && rng_int(&r, 0, 1)) s.select = SSA_SELECT_REFERENCE;
        if (rng_int(&r, 0, 2) == 0) s.q_pos = rng_int(&r, 0, s.n_kv - s.n_q);
        check_sparse(&s, 0);
    }
    for (int i = 0; i < 18; i++) { /* so many queries that rows are gathered by the blocks they chose */
        if (!test_some(i, 5)) continue;
        int g = groups[i % 6], kv = 1 + i % 3, b = sizes[i % 9], nq = rng_int(&r, 32, 100), more = rng_int(&r, 0, 150);
        shape s = { .name = "gathered", .HQ = g * kv, .H = kv, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = nq, .n_kv = nq + more, .q_pos = -1, .tq = RNG_PICK(&r, types), .tk = RNG_PICK(&r, types),
                    .tv = RNG_PICK(&r, types), .to = RNG_PICK(&r, types), .lay = (layout)rng_int(&r, LAY_ZERO, LAY_MIX),
                    .scale = rng_int(&r, 0, 2) ? 0 : -0.2f, .amp = rng_int(&r, 0, 2) ? 1 : 6,
                    .no_gate = rng_int(&r, 0, 1), .no_lse = rng_int(&r, 0, 3) == 0, .B = b,
                    .seed = (uint64_t)i + 4000 };
        if (s.D == 1) s.D = 2;
        s.top_k = 6 * ((nq + more) / b + 1) / nq + 1 + i % 4;
        if (i % 4 == 3) s.q_pos = rng_int(&r, 0, more);
        check_sparse(&s, 0);
        s.select = SSA_SELECT_GIVEN;
        check_given(&s, &r);
    }
    for (int i = 0; i < 40; i++) {
        if (!test_some(i, 39)) continue;
        shape s = { .name = "given", .HQ = 4, .H = 2, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = rng_int(&r, 1, 9), .n_kv = rng_int(&r, 10, 400), .q_pos = -1, .tk = RNG_PICK(&r, types),
                    .tv = RNG_PICK(&r, types), .to = RNG_PICK(&r, types), .lay = (layout)rng_int(&r, LAY_ZERO, LAY_MIX),
                    .B = sizes[rng_int(&r, 0, 7)], .top_k = rng_int(&r, 1, 20), .select = SSA_SELECT_GIVEN,
                    .seed = (uint64_t)i + 70 };
        check_given(&s, &r);
    }
    for (int i = 0; i < 12; i++) {
        if (!test_some(i, 5)) continue;
        shape s = { .name = "covering", .HQ = 4, .H = 1 + i % 2, .D = 48, .n_q = i % 4 ? 60 : 1, .n_kv = 60 + 50 * i,
                    .q_pos = -1, .tk = types[i % 3], .tv = types[i % 3], .B = i & 1 ? 64 : 16, .top_k = 64,
                    .seed = 40 };
        if (i & 1) s.select = SSA_SELECT_REFERENCE;
        if (s.n_kv <= s.B * (s.select == SSA_SELECT_REFERENCE ? s.B : s.top_k)) check_covering(&s);
    }
    for (int t = 0; t < 3; t++) {
        check_nan(SSA_SELECT_TOPK, types[t], 70, 4, 1, 0);
        check_nan(SSA_SELECT_TOPK, types[t], 9, 6, 1, 0);
        check_nan(SSA_SELECT_TOPK, types[t], 9, 6, 60, 0);       /* underflowing importances rank above NaN */
        check_nan(SSA_SELECT_REFERENCE, types[t], 9, 4, 1, 0);
        check_nan(SSA_SELECT_REFERENCE, types[t], 100, 8, 1, 0);
        check_nan(SSA_SELECT_TOPK, types[t], 101, 6, 1, 1);
        check_nan(SSA_SELECT_TOPK, types[t], 193, 12, 1, 1);
    }
}

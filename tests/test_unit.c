/* test_unit.c - shapes that reach every path of the matrix unit: packed sparse prefill, selection by the unit, few and
 * many rows; and the host's own use of the unit. All levels run them; without level amx they are shapes like any. */
#include "oracle.h"
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#include <immintrin.h>
#define HAVE_TILES 1
#else
#define HAVE_TILES 0
#endif

static const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
static const ssa_type halves[] = { SSA_BF16, SSA_F16 };

/* Invariants are for the levels above scalar, whose own other groups test, and which would take half of the time. */
static int vectors(int l) { return l > 0 || level_count() == 1; }
#define FOR_VECTORS(l) FOR_LEVELS(l) if (vectors(l))

static int at_amx(void) { return ssa_isa_get() == SSA_ISA_AMX; }

/* ---- data whose scores are not just noise ------------------------------------------------------------------------ */
enum { NOISE, SLOPE, STAIRS, PEAKS, FALL, DEEP, SPIKE, ALIKE };

/* How far above the noise the scores of key j are, in natural units. */
static double rise_of(int fill, int64_t j, const shape *s)
{
    int64_t block = j / s->B, stair = block / 37;
    switch (fill) {
    case SLOPE:  return 130.0 * (double)j / s->n_kv;              /* the maximum moves late and often */
    case STAIRS: return 11.0 * (double)(j / 150);
    case PEAKS:  return block % 37 == 20 ? 9.0 * (double)(stair + 1) : 0; /* blocks, before and after, far below */
    case FALL:   return -40.0 * (double)j / s->n_kv;             /* the maximum comes first */
    case SPIKE:  return j == 32 + (int64_t)(s->seed % 32) ? 120 : 0; /* one key alone */
    case DEEP:   return -110;                                    /* e^-110 is 0: padding may not be the maximum */
    default:     return 0;
    }
}

static void fill(prob *p, int how, uint64_t seed)
{
    const shape *s = &p->s;
    prob_fill(p, seed);
    if (how == NOISE) return;
    if (how == ALIKE) { /* what the weights of a row add up to shows */
        for (int64_t e = 0; e < tensor_count(&p->v); e++) p->v.val[e] = 1.37f;
        tensor_store(&p->v);
        return;
    }
    double a = 4, scale = s->scale != 0 ? (double)s->scale : 1 / sqrt((double)s->D), len = 1 / sqrt((double)s->D);
    for (int64_t e = 0; e < tensor_count(&p->q); e++) p->q.val[e] += (float)(e % s->D % 3 ? a * len : -a * len);
    for (int64_t e = 0; e < tensor_count(&p->k); e++) {
        double b = rise_of(how, e / s->D / s->H, s) / (scale * a) * len;
        p->k.val[e] += (float)(e % s->D % 3 ? b : -b);
    }
    tensor_store(&p->q);
    tensor_store(&p->k);
}

/* ---- ways to run ------------------------------------------------------------------------------------------------- */
/* By nth workers, one after the other, however little there is to do for each; in a workspace full of NaN. */
static int run_by(const prob *p, ssa_mode mode, int nth)
{
    ssa_plan plan;
    size_t size = ssa_workspace_size(&p->a, 1, mode, nth);
    void *ws = xalloc((int64_t)size, 1);
    memset(ws, 0xFF, size);
    int ok = ssa_plan_make(&plan, &p->a, 1, mode, nth, ws, size) == SSA_OK;
    for (int phase = 0; ok && phase < ssa_plan_phases(&plan); phase++)
        for (int i = 0; i < nth; i++) ssa_plan_run(&plan, phase, i, nth);
    free(ws);
    return ok;
}

/* At the level in use: what one thread gave is what 2, 3 and 5 workers give. */
static int same_by_all(prob *p, ssa_mode mode)
{
    uint64_t want = prob_hash(p);
    int same = 1;
    for (int nth = 2; nth <= 5; nth += nth < 3 ? 1 : 2) {
        prob_clear(p);
        same &= run_by(p, mode, nth) && prob_hash(p) == want;
    }
    return same;
}

/* Bits of query i: its rows of out and lse; out is f32 and contiguous. */
static uint64_t query_hash(const prob *p, int64_t i)
{
    int64_t row = (int64_t)p->s.HQ * p->s.DV * 4;
    return bytes_hash((const char *)p->o.view.data + i * row, row, bytes_hash(p->lse + i * p->s.HQ, p->s.HQ * 4, 1));
}

/* Rising scores are there to move the unit's maximum: a unit alone is measured on them. In f32 each move rounds once
 * more than the naive program does. */
static void unit_alone(two_x *t, const shape *s, int how)
{
    for (int l = 0; how != NOISE && l < level_count(); l++)
        if (level_at(l) != SSA_ISA_AMX && !level_rounds(level_at(l), s->tq, s->tk, s->tv))
            t->ours[l] = 0, t->exact_bad[l] = 0;
}

/* ---- every kind of tile, in little time, for slow machines ------------------------------------------------------ */
/* Attention of halves against the scalar level, which keeps p in f32: weights may differ by its rounding, 2^-8. */
static void check_halves(const shape *s, int window, float softcap, int broken)
{
    prob p;
    prob_make(&p, s);
    int64_t n = tensor_count(&p.o);
    float *want = xalloc(n, sizeof *want), *lse = xalloc(p.n_lse, sizeof *lse), top = 0;
    p.a.window = window;
    p.a.softcap = softcap;
    for (int64_t e = 0; e < tensor_count(&p.v); e++) top = fmaxf(top, fabsf(p.v.val[e]));
    if (broken) { /* the first value of the last key: in sight of the last query alone, where the call is causal */
        p.v.val[tensor_count(&p.v) - p.s.DV] = INFINITY;
        tensor_store(&p.v);
    }
    FOR_LEVELS(l) {
        int bad = 0;
        prob_clear(&p);
        CHECK(run_by(&p, SSA_FULL, 1), "status: %s", shape_text(s));
        tensor_load(&p.o);
        if (l == 0) memcpy(want, p.o.val, (size_t)n * sizeof *want);
        if (l == 0) memcpy(lse, p.lse, (size_t)p.n_lse * sizeof *lse);
        for (int64_t e = 0; e < n; e++)
            bad += isfinite(want[e]) ? !(fabsf(p.o.val[e] - want[e]) <= top / 256) : !!isfinite(p.o.val[e]);
        for (int64_t e = 0; e < p.n_lse; e++)
            bad += p.lse[e] != lse[e] && !(fabsf(p.lse[e] - lse[e]) <= 1.0f / 256);
        CHECK(!bad, "%d differ from the scalar level's, window %d softcap %g broken %d: %s", bad, window,
              (double)softcap, broken, shape_text(s));
    }
    free(want); free(lse);
    prob_free(&p);
}

void test_halves(void)
{
    static const layout lays[] = { LAY_ZERO, LAY_HEAD, LAY_PAD, LAY_ODD, LAY_MIX };
    rng r = { 77, 0 };
    for (int i = 0; i < 72; i++) {
        int group = rng_int(&r, 1, 20), n_q = i % 3 ? rng_int(&r, 1, 40) : 1;
        int n_kv = n_q + rng_int(&r, 0, i % 8 ? 90 : 700);
        ssa_type type = halves[i % 4 == 3];
        shape s = { .name = "halves", .HQ = 2 * group, .H = 2, .D = rng_int(&r, 1, 100), .DV = rng_int(&r, 1, 100),
                    .n_q = n_q, .n_kv = n_kv, .q_pos = -1, .tq = type, .tk = type, .tv = type, .lay = lays[i % 5],
                    .scale = i % 6 == 5 ? -0.4f : 0, .amp = i % 2 ? 1 : 16, .noncausal = i % 7 == 6,
                    .seed = 9000 + (uint64_t)i };
        check_halves(&s, i % 5 == 4 && !s.noncausal ? rng_int(&r, 1, n_kv) : 0, i % 9 == 8 ? 3.0f : 0, i % 4 == 1);
    }
    for (int i = 0; i < 2; i++) { /* most rows of a tile are before the first key */
        shape s = { .name = "halves, no key", .HQ = 2, .H = 2, .D = 32, .n_q = 100, .n_kv = 40, .q_pos = -1,
                    .tq = halves[i], .tk = halves[i], .tv = halves[i], .seed = 9100 + (uint64_t)i };
        check_halves(&s, 0, 0, 0);
    }
}

/* ---- dense ------------------------------------------------------------------------------------------------------- */
static void check_dense(const shape *s, int how, int threads)
{
    two_x out = { 0 }, lse = { 0 };
    prob p;
    prob_make(&p, s);
    int reps = two_x_reps(p.n_lse, p.n_lse * s->n_kv * (p.s.D + p.s.DV)), ok = 1, gaps = 1, same = 1;
    const char *text = shape_text(&p.s);
    for (int rep = 0; rep < reps; rep++) {
        o_result r;
        fill(&p, how, s->seed + 10 * (uint64_t)rep);
        o_solve(&p, NULL, &r, &out, &lse);
        FOR_LEVELS(l) {
            prob_clear(&p);
            ok &= ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK;
            gaps &= tensor_gaps_ok(&p.o);
            o_compare(&p, &r, l, &out, &lse);
            if (threads && rep == 0 && vectors(l)) same &= same_by_all(&p, SSA_FULL);
        }
        o_result_free(&r);
    }
    CHECK(ok, "status: %s", text);
    CHECK(gaps, "bytes between and around the rows of out are untouched: %s", text);
    CHECK(same, "the same bits by 1, 2, 3 and 5 workers: %s", text);
    unit_alone(&out, s, how);
    two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    prob_free(&p);
}

/* The queries of a prefill, one at a time, as a decode sees them: within the tolerance of the same results. */
static void check_decode(const shape *s, int how)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r;
    prob p;
    int64_t i = 0;
    prob_make(&p, s);
    fill(&p, how, s->seed);
    o_solve(&p, NULL, &r, &out, &lse);
    FOR_LEVELS(l) {
        prob_clear(&p);
        for (i = 0; i < s->n_q; i++) {
            ssa_attn a = p.a;
            a.n_q = 1;
            a.q_pos = p.q0 + i;
            a.n_kv = p.q0 + i + 1;
            a.q.data = (char *)p.q.view.data + i * p.q.ts;
            a.out.data = (char *)p.o.view.data + i * p.o.ts;
            a.gate = p.gate + i * s->HQ; a.lse = p.lse + i * s->HQ;
            CHECK(ssa_attention(&a, SSA_FULL, &one) == SSA_OK, "status: %s", shape_text(&p.s));
        }
        o_compare(&p, &r, l, &out, &lse);
    }
    unit_alone(&out, s, how);
    two_x_check(&out, p.s.to, "decode, out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "decode, lse", shape_text(&p.s), __FILE__, __LINE__);
    o_result_free(&r);
    prob_free(&p);
}

/* ---- what is not finite ------------------------------------------------------------------------------------------ */
/* Puts what is not finite into key or value `token` of the first or last key/value head. Queries that do not see it
 * keep every bit; of those that see it, the heads of that key/value head become not finite: in the dims that were
 * spoilt (values), or in all (keys); dims next to them stay finite. Sparse: with the lists given, so that only their
 * contents count. */
static void check_broken(const shape *s, ssa_mode mode, const int64_t *tokens, int n_tokens)
{
    static const float bads[] = { NAN, INFINITY, -INFINITY };
    prob p;
    prob_make(&p, s);
    p.a.blocks = p.blocks;
    if (mode == SSA_SPARSE) {
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "select: %s", shape_text(&p.s));
        p.a.select = p.s.select = SSA_SELECT_GIVEN;
    }
    uint64_t *want = xalloc(s->n_q, sizeof *want);
    int G = s->HQ / s->H, DV = p.s.DV;
    FOR_VECTORS(l) {
        prob_fill(&p, s->seed);
        prob_clear(&p);
        CHECK(run_by(&p, mode, 1), "status: %s", shape_text(&p.s));
        for (int64_t i = 0; i < s->n_q; i++) want[i] = query_hash(&p, i);
        for (int what = 0; what < n_tokens * 2; what++) {
            tensor *t = what & 1 ? &p.v : &p.k;
            int h = what / 2 % 2 ? s->H - 1 : 0; /* the first one's tiles find nothing but NaN in the workspace */
            int64_t token = tokens[what / 2], head = token * s->H + h, moved = 0, spared = 0, spoilt = 0;
            float bad = bads[what % 3];
            prob_fill(&p, s->seed);
            for (int d = t->dim / 2; d < t->dim; d += 7) t->val[head * t->dim + d] = bad;
            tensor_store(t);
            prob_clear(&p);
            CHECK(run_by(&p, mode, 1), "status: %s", shape_text(&p.s));
            tensor_load(&p.o);
            for (int64_t i = 0; i < s->n_q; i++) {
                int sees = p.q0 + i >= token || s->noncausal, listed = mode == SSA_FULL;
                for (int e = 0; e < p.s.top_k && !listed; e++)
                    listed |= p.blocks[(i * s->H + h) * p.s.top_k + e] == token / p.s.B;
                sees = sees && listed;
                if (!sees) moved += want[i] != query_hash(&p, i);
                for (int g = 0; g < s->HQ; g++)
                    for (int d = 0; d < DV; d++) {
                        int hit = sees && g / G == h && (!(what & 1) || (d >= DV / 2 && (d - DV / 2) % 7 == 0));
                        float x = p.o.val[(i * s->HQ + g) * DV + d];
                        if (hit && (what & 1 || isnan(bad))) spared += isfinite(x) != 0;
                        if (!hit) spoilt += !isfinite(x);
                    }
            }
            CHECK(moved == 0, "%d queries that do not see %s %d, %g, keep their bits: %s", (int)moved,
                  what & 1 ? "value" : "key", (int)token, (double)bad, shape_text(&p.s));
            CHECK(spared == 0 && spoilt == 0, "%s %d, %g: %d spared, %d spoilt: %s", what & 1 ? "value" : "key",
                  (int)token, (double)bad, (int)spared, (int)spoilt, shape_text(&p.s));
        }
    }
    free(want);
    prob_free(&p);
}

/* ---- packed sparse prefill --------------------------------------------------------------------------------------- */
/* Lists as a caller may give them: any order, far and negative blocks, duplicates, some without the own block. */
static void make_lists(prob *p, rng *r)
{
    for (int64_t e = 0; e < p->n_blocks; e++) {
        int64_t row = e / p->s.top_k / p->s.H;
        int cur = (int)((p->q0 + row) / p->s.B), what = rng_int(r, 0, 9);
        p->blocks[e] = row % 29 == 3 || row == 0 || what == 0 ? -1 - (int)(row % 2) : what == 1 ? cur + rng_int(r, 1, 3)
                       : what == 2 && e ? p->blocks[e - 1] : row % 5 == 0 ? cur : rng_int(r, 0, cur);
    }
}

static void check_packed(const shape *s, int how, int threads)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r = { 0 };
    o_call c;
    rng lists = { s->seed, 0 };
    prob p;
    prob_make(&p, s);
    const char *text = shape_text(&p.s);
    int64_t size = p.n_blocks * (int64_t)sizeof(int32_t);
    int32_t *before = xalloc(p.n_blocks, sizeof *before);
    int given = s->select == SSA_SELECT_GIVEN, ok = 1, gaps = 1, same = 1, packed = 1;
    int budget = s->B * s->top_k, keys = budget < s->n_kv ? budget : s->n_kv,
        reps = two_x_reps(p.n_lse, p.n_lse * (p.s.D + p.s.DV) * keys);
    double *pooled = xalloc((int64_t)(s->n_kv / s->B + 1) * s->H * s->D, sizeof *pooled);
    p.a.blocks = p.blocks;
    for (int rep = 0; rep < reps; rep++) {
        fill(&p, how, s->seed + 10 * (uint64_t)rep);
        if (given) make_lists(&p, &lists);
        o_call_of(&c, &p);
        o_pool(&c, pooled);
        FOR_LEVELS(l) {
            prob_clear(&p);
            int64_t done = unit_products();
            if (rep == 0 && given) ok &= run_by(&p, SSA_SPARSE, 1); /* in a workspace of NaN */
            else ok &= ssa_attention(&p.a, SSA_SPARSE, &one) == SSA_OK;
            if (at_amx() && given && budget <= 512)          /* a larger one may be split, and is not packed then */
                packed &= done < 0 || unit_products() > done || s->HQ / s->H > 16;
            gaps &= tensor_gaps_ok(&p.o);
            if (l == 0 || memcmp(before, p.blocks, (size_t)size)) {
                if (l) o_result_free(&r);
                if (!given) o_check_blocks(&p, pooled, 0, text);
                o_solve(&p, p.blocks, &r, &out, &lse);
                memcpy(before, p.blocks, (size_t)size);
            }
            o_compare(&p, &r, l, &out, &lse);
            if (threads && rep == 0 && vectors(l)) same &= same_by_all(&p, SSA_SPARSE);
        }
        o_result_free(&r);
    }
    CHECK(ok, "status: %s", text);
    CHECK(gaps, "bytes between and around the rows of out are untouched: %s", text);
    CHECK(packed, "the unit has done it: %s", text);
    CHECK(same, "the same bits by 1, 2, 3 and 5 workers: %s", text);
    unit_alone(&out, s, how);
    two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    free(before); free(pooled);
    prob_free(&p);
}

/* Keys and values that end where a page traps: nothing past the last one is packed. */
static void check_packed_end(const shape *s)
{
    guard k, v;
    prob p;
    prob_make(&p, s);
    guard_make(&k, p.k.span);
    guard_make(&v, p.v.span);
    p.a.blocks = p.blocks;
    FOR_VECTORS(l) {
        p.a.k = p.k.view; p.a.v = p.v.view;
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, &one) == SSA_OK, "status: %s", shape_text(&p.s));
        uint64_t want = prob_hash(&p);
        p.a.k.data = guard_at(&k, p.k.span, 1);
        p.a.v.data = guard_at(&v, p.v.span, 1);
        memcpy(p.a.k.data, p.k.view.data, (size_t)p.k.span);
        memcpy(p.a.v.data, p.v.view.data, (size_t)p.v.span);
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, &one) == SSA_OK && prob_hash(&p) == want,
              "the same bits at the end of memory: %s", shape_text(&p.s));
    }
    guard_free(&k); guard_free(&v);
    prob_free(&p);
}

/* A batch on one worker: after a call on packed blocks the unit is as other calls expect it. */
static void check_after_packed(int group)
{
    shape s = { .name = "packed, then not", .HQ = group, .H = 1, .D = 64, .n_q = 80, .n_kv = 300, .q_pos = -1,
                .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .B = 16, .top_k = 3, .seed = 9 };
    prob p[2];
    prob_make(&p[0], &s);
    s.n_q = group < 16 ? 1 : 3;
    s.HQ = 16;
    prob_make(&p[1], &s);
    FOR_VECTORS(l) {
        ssa_attn two[2] = { p[0].a, p[1].a };
        uint64_t want[2];
        for (int i = 0; i < 2; i++) {
            prob_clear(&p[i]);
            CHECK(ssa_attention(two + i, SSA_SPARSE, &one) == SSA_OK, "status: %s", shape_text(&s));
            want[i] = prob_hash(&p[i]);
            prob_clear(&p[i]);
        }
        CHECK(ssa_attention_batch(two, 2, SSA_SPARSE, &one) == SSA_OK && prob_hash(&p[0]) == want[0]
                  && prob_hash(&p[1]) == want[1], "both as alone: %s", shape_text(&s));
    }
    prob_free(&p[0]);
    prob_free(&p[1]);
}

static void test_packed(void)
{
    static const int groups[] = { 1, 2, 3, 4, 7, 12, 16 }, dims[] = { 16, 40, 64, 80, 128 },
                     sizes[] = { 16, 32, 48, 64 }, budgets[] = { 1, 2, 5, 16, 20 };
    static const ssa_select selects[] = { SSA_SELECT_TOPK, SSA_SELECT_REFERENCE, SSA_SELECT_GIVEN };
    static const layout lays[] = { LAY_ZERO, LAY_PAD, LAY_ODD, LAY_HEAD, LAY_MIX };
    static const int hows[] = { NOISE, SLOPE, STAIRS, DEEP, FALL };
    for (int i = 0; i < 105; i++) {
        if (!test_some(i, 13)) continue;
        int g = groups[i % 7], h = g < 4 ? 2 : 1, b = sizes[i % 4], k = budgets[i % 5];
        shape s = { .name = "packed", .HQ = g * h, .H = h, .D = dims[i / 3 % 5], .DV = dims[i / 7 % 5],
                    .n_q = i % 6 == 1 ? 150 + i % 50 : 64 + i % 17, .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16,
                    .tv = SSA_BF16, .lay = lays[i / 2 % 5], .scale = i % 8 == 7 ? -0.1f : 0, .no_gate = i % 3 == 0,
                    .B = b, .top_k = k, .select = selects[i % 3], .seed = (uint64_t)i * 1000 };
        if (s.select == SSA_SELECT_REFERENCE && b == 48) s.B = 16;
        if (s.select == SSA_SELECT_REFERENCE && s.top_k > s.B) s.B = 32;
        s.n_kv = s.n_q + (i % 4 ? s.B * (k < 16 ? 2 * k + 3 : 22) + i % 13 : 0);
        if (i % 5 == 2) { s.q_pos = s.n_kv - s.n_q; s.n_kv += 1 + 7 * (i % 11); } /* keys that no query sees */
        check_packed(&s, hows[i / 4 % 5], i % 4 == 1);
    }
    for (int i = 0; i < 6; i++) {                            /* just too few queries, and just enough */
        if (!test_some(i, 4)) continue;
        shape s = { .name = "packed or not", .HQ = i < 3 ? 16 : 17, .H = 1, .D = 32, .n_q = 63 + i % 3, .n_kv = 200,
                    .q_pos = 3, .tq = SSA_BF16, .tk = SSA_BF16, .tv = i == 4 ? SSA_F16 : SSA_BF16, .to = SSA_BF16,
                    .B = 16, .top_k = 3, .seed = 70 };
        check_packed(&s, NOISE, 1);
    }
    for (int i = 0; i < 8; i++) {
        if (!test_some(i, 5)) continue;
        shape s = { .name = "packed, end", .HQ = 4, .H = 1 + i % 2, .D = dims[i % 5], .DV = dims[i / 2], .n_q = 64 + i,
                    .n_kv = 130 + i, .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .lay = lays[i % 5],
                    .B = 16, .top_k = 3, .seed = (uint64_t)i };
        check_packed_end(&s);
    }
    for (int g = 4; g <= 16; g += 12) check_after_packed(g);
    shape many = { .name = "packed, 20 of 64", .HQ = 16, .H = 1, .D = 64, .DV = 32, .n_q = 128, .n_kv = 1600,
                   .q_pos = 1449, .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .B = 64, .top_k = 20, .seed = 5 };
    check_packed(&many, SLOPE, 0);
    shape least = { .name = "packed, the least products the largest scores", .HQ = 16, .H = 1, .D = 32, .n_q = 100,
                    .n_kv = 240, .q_pos = 139, .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .B = 16, .top_k = 3,
                    .scale = -30, .seed = 6 }; /* more than a float's powers of 2 between them */
    check_packed(&least, SLOPE, 0);
    static const int64_t tokens[] = { 100, 111, 112, 119, 127, 128, 158, 159, 160, 191, 207, 215, 229 };
    for (int i = 0; i < 8; i++) {
        if (!test_some(i, 7)) continue;
        shape s = { .name = "packed, broken", .HQ = i % 2 ? 16 : 6, .H = 2, .D = i & 2 ? 40 : 64, .DV = i & 2 ? 72 : 32,
                    .n_q = 100 + i, .n_kv = 240, .q_pos = 110, .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16,
                    .B = sizes[i % 4], .top_k = 2 + i % 2, .seed = (uint64_t)i * 100 };
        check_broken(&s, SSA_SPARSE, tokens, COUNT(tokens));
    }
}

/* ---- selection --------------------------------------------------------------------------------------------------- */
/* pool: 0 none, 1 f32, 2 bf16, whose pooled keys end where a page traps. broken: the block with keys that are not
 * finite, an even one in its first dim alone, so that scores are infinite of either sign; -1: none. share: of the rows,
 * how many must have a clear selection, to be worth the test. */
static void check_rank(const shape *s, int how, int pool, int broken, double share, guard *end)
{
    prob p;
    ssa_pool x;
    o_call c;
    prob_make(&p, s);
    fill(&p, how, s->seed);
    for (int64_t e = 0; broken >= 0 && e < (int64_t)s->H * s->D; e += broken % 2 ? 3 : s->D)
        p.k.val[((int64_t)broken * s->B + s->B / 2) * s->H * s->D + e] = e % 2 ? NAN : INFINITY;
    tensor_store(&p.k);
    const char *text = shape_text(&p.s);
    int64_t nb = s->n_kv / s->B, size = p.n_blocks * (int64_t)sizeof(int32_t);
    double *pooled = xalloc((nb + 1) * s->H * s->D, sizeof *pooled), clear = 1;
    int32_t *before = xalloc(p.n_blocks, sizeof *before);
    ssa_type type = pool == 1 ? SSA_F32 : SSA_BF16;
    size_t bytes = ssa_pool_size(s->H, s->D, s->B, s->n_kv, type);
    void *memory = xalloc((int64_t)bytes, 1);
    p.a.blocks = p.blocks;
    p.a.v.data = p.a.out.data = NULL;
    o_call_of(&c, &p);
    o_pool(&c, pooled);
    FOR_LEVELS(l) {
        int64_t done = unit_products();
        if (pool) {
            CHECK(ssa_pool_init(&x, s->H, s->D, s->B, s->n_kv, type, memory, bytes) == SSA_OK
                      && ssa_pool_append(&x, &p.k.view, s->n_kv) == SSA_OK, "pool: %s", text);
            int64_t rows = s->H * x.max_blocks * s->D, es = type_size(type);
            void *moved = guard_at(end, rows * es, 1);
            memcpy(moved, x.pooled, (size_t)(rows * es));
            x.pooled = moved;
            p.a.pool = &x;
            for (int64_t e = 0; e < rows; e++) pooled[e] = (double)type_get(type, (char *)moved + e * es);
        }
        prob_clear(&p);
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status: %s", text);
        if (at_amx() && done >= 0 && s->n_q >= 64 && s->tq != SSA_F32)
            CHECK(unit_products() > done, "the unit has ranked: %s", text);
        if (l == 0 || memcmp(before, p.blocks, (size_t)size)) {
            double now = o_check_blocks(&p, pooled, 0, text);
            if (now < clear) clear = now;
            memcpy(before, p.blocks, (size_t)size);
        }
    }
    CHECK(clear >= share, "most rows have a clear selection, %.2f: %s", clear, text);
    free(memory); free(pooled); free(before);
    prob_free(&p);
}

/* Pooled keys that differ in their last bits alone, from 2^-16 of their size down: two bf16 of three would not tell
 * them apart. Blocks of one key, all dims alike, so that every sum is exact; equal ones are ties. misled: two bf16
 * would take top - 1 blocks with a little more in one dim for better than one with still less in every dim. */
static void check_digits(int group, int pool, int dim, int top, int misled)
{
    shape s = { .name = "rank, digits", .HQ = group, .H = 1, .D = dim, .n_q = 64, .n_kv = 90 + 2 * top, .q_pos = -1,
                .tq = SSA_BF16, .tk = SSA_F32, .scale = 32.0f / (float)dim, .B = 1, .top_k = top };
    prob p;
    ssa_pool x;
    prob_make(&p, &s);
    for (int64_t e = 0; e < tensor_count(&p.q); e++) /* misled: small queries do not tell how far large ones are */
        p.q.val[e] = misled && e / (dim * group) % 4 == 0 ? 0x1p-3f : 1;
    for (int64_t e = 0; e < tensor_count(&p.k); e++) {
        int64_t j = e / dim, d = e % dim;
        p.k.val[e] = 1 + 0x1p-8f + 0x1p-18f * (float)(j * 5 % 8);
        if (!misled) continue;
        p.k.val[e] = 1 + 0x1p-9f; /* 3/8 of the second bf16's last digit, and 8 of these for each 32 dims */
        if (j == top) p.k.val[e] += 0x3p-19f;
        else if (j < top - 1 && d == 0) p.k.val[e] += 0x1p-18f * (float)dim;
    }
    tensor_store(&p.q);
    tensor_store(&p.k);
    size_t bytes = ssa_pool_size(1, s.D, 1, s.n_kv, SSA_F32);
    void *memory = xalloc((int64_t)bytes, 1);
    double *pooled = xalloc((int64_t)s.n_kv * s.D, sizeof *pooled);
    for (int64_t e = 0; e < tensor_count(&p.k); e++) pooled[e] = (double)p.k.val[e];
    CHECK(ssa_pool_init(&x, 1, s.D, 1, s.n_kv, SSA_F32, memory, bytes) == SSA_OK
              && ssa_pool_append(&x, &p.k.view, s.n_kv) == SSA_OK, "pool: %s", shape_text(&p.s));
    p.a.blocks = p.blocks;
    p.a.pool = pool ? &x : NULL;
    FOR_LEVELS(l) {
        prob_clear(&p);
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status: %s", shape_text(&p.s));
        CHECK(o_check_blocks(&p, pooled, 1, shape_text(&p.s)) >= 1, "every selection is clear: %s", shape_text(&p.s));
    }
    free(memory); free(pooled);
    prob_free(&p);
}

/* Blocks whose scores are equal but for the order of their sums, which the unit and the vectors do differently: a key
 * that is not finite must not change how queries are scored that do not see it. */
static void check_unseen_nan(int group, int heads, float bad)
{
    shape s = { .name = "rank, unseen NaN", .HQ = group * heads, .H = heads, .D = 32, .n_q = 64, .n_kv = 100,
                .q_pos = -1, .tq = SSA_BF16, .tk = SSA_F32, .B = 1, .top_k = 6, .seed = (uint64_t)group };
    enum { BROKEN = 90 };
    prob p;
    prob_make(&p, &s);
    for (int64_t e = 0; e < tensor_count(&p.q); e++) p.q.val[e] = 1;
    for (int64_t j = 0; j < s.n_kv * heads; j++)
        for (int64_t d = 0; d < s.D; d++) p.k.val[j * s.D + d] = p.k.val[(d * 7 + j * 5) % s.D];
    tensor_store(&p.q);
    tensor_store(&p.k);
    int32_t *before = xalloc(p.n_blocks, sizeof *before);
    int64_t row = p.n_blocks / s.n_q;
    p.a.blocks = p.blocks;
    FOR_VECTORS(l) {
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status: %s", shape_text(&p.s));
        memcpy(before, p.blocks, (size_t)p.n_blocks * sizeof *before);
        float kept = p.k.val[BROKEN * heads * s.D];
        p.k.val[BROKEN * heads * s.D] = bad;
        tensor_store(&p.k);
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status: %s", shape_text(&p.s));
        int64_t blind = BROKEN - (s.n_kv - s.n_q);
        CHECK(memcmp(before, p.blocks, (size_t)(blind * row) * sizeof *before) == 0,
              "a key of %g changes nothing before it: %s", (double)bad, shape_text(&p.s));
        p.k.val[BROKEN * heads * s.D] = kept;
        tensor_store(&p.k);
    }
    free(before);
    prob_free(&p);
}

static void test_rank(void)
{
    for (int i = 0; i < 12; i++) {
        static const int of[] = { 1, 2, 3, 4, 16, 20 };
        check_unseen_nan(of[i % 6], 1 + i % 2, i < 6 ? NAN : -INFINITY);
    }
    for (int i = 0; i < 6; i++) {
        check_digits(i < 2 ? 1 : i < 4 ? 4 : 16, i % 2, 32, 6, 0);
        check_digits(i < 2 ? 5 : i < 4 ? 4 : 16, i % 2, 64, i % 2 ? 6 : 70, 0);
        check_digits(i < 2 ? 5 : i < 4 ? 4 : 16, i % 2, i % 2 ? 64 : 32, 6, 1);
    }
    static const int groups[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 17, 20, 40 };
    static const int dims[] = { 32, 64, 40, 128, 16, 96, 80 };
    static const int blocks[] = { 31, 32, 33, 47, 48, 49, 63, 64, 65, 16, 17, 15 };
    guard end;
    guard_make(&end, 1 << 22);
    if (!end.traps) SKIP("unit", "no traps here: reads past the pooled keys show only in results");
    for (int i = 0; i < 144; i++) {
        if (!test_some(i, 17)) continue;
        int g = groups[i % 16], h = i % 3 == 0 && g < 9 ? 2 : 1, b = i % 4 ? 4 : i % 8 ? 1 : 16;
        int more = halves[i / 4 % 2] == SSA_F16 ? 48 : 0;    /* fewer blocks are not ranked by the unit */
        shape s = { .name = "rank", .HQ = g * h, .H = h, .D = dims[i / 3 % 7],
                    .n_q = i % 5 == 0 ? 4 : i % 5 == 1 ? 64 : 33 + i % 9, .q_pos = -1,
                    .n_kv = (blocks[i / 2 % 12] + more) * b + i % b, .tq = halves[i / 4 % 2],
                    .tk = i % 9 == 4 ? SSA_F32 : halves[i % 2], .lay = (layout)(i % 6),
                    .scale = i % 7 == 6 ? -0.2f : 0, .amp = i % 3 ? 2 : 1, .B = b,
                    .top_k = 1 + i % 9, .select = i / 16 % 2 && b > 1 ? SSA_SELECT_REFERENCE : SSA_SELECT_TOPK,
                    .seed = (uint64_t)i * 100 };
        if (s.select == SSA_SELECT_REFERENCE && s.top_k > b) s.top_k = b;
        if (s.n_q > s.n_kv) s.n_kv = s.n_q + s.n_kv;
        check_rank(&s, i % 9 == 4 ? DEEP : NOISE, i / 2 % 3, i % 12 == 5 ? 7 : -1, 0.5, &end);
    }
    for (int i = 0; i < 24; i++) {                           /* hundreds of blocks, whose maximum moves repeatedly */
        if (!test_some(i, 7)) continue;
        int g = groups[i * 5 % 16];
        shape s = { .name = "rank, peaks", .HQ = g, .H = 1, .D = dims[i % 7], .n_q = 33 + i % 7, .q_pos = -1,
                    .n_kv = 4 * 220 + 31 * i, .tq = halves[i % 2], .tk = i % 3 ? halves[i % 2] : SSA_F32, .amp = 2,
                    .scale = i % 5 == 4 ? -0.1f : 0, .B = 4, .top_k = 8 + i, .seed = (uint64_t)i * 100 };
        check_rank(&s, PEAKS, i % 3, i % 6 == 5 ? 170 : -1, 0.3, &end);
    }
    for (int i = 0; i < 4; i++) {                            /* so many blocks that fewer rows meet them at once */
        if (!test_some(i, 3)) continue;
        shape s = { .name = "rank, far", .HQ = i < 2 ? 4 : 40, .H = 1, .D = 32, .n_q = 40, .q_pos = -1, .n_kv = 4120,
                    .tq = SSA_BF16, .tk = SSA_BF16, .B = 1, .top_k = 5, .seed = (uint64_t)i };
        check_rank(&s, NOISE, i % 2 ? 2 : 0, -1, 0.3, &end);
    }
    for (int i = 0; i < 24; i++) {                           /* blocks out of a query's sight outweigh those in it */
        int g = groups[1 + i % 8];
        shape s = { .name = "rank, unseen", .HQ = g, .H = 1, .D = dims[i % 7], .n_q = 33 + i % 16, .n_kv = 50 + 7 * i,
                    .q_pos = -1, .tq = halves[i % 2], .tk = halves[i % 2], .amp = 4, .B = 1, .top_k = 2 + i % 5,
                    .top_p = i % 3 == 2 ? 0.5f : 0, .seed = (uint64_t)i * 100 };
        check_rank(&s, NOISE, i % 3, -1, 0.3, &end);
    }
    for (int i = 0; i < 12; i++) {                           /* a row alone, whose scores are ranked as they are */
        static const int broken[] = { 0, 20, 6, 0, 38, 15 };
        shape s = { .name = "rank, alone", .HQ = 2, .H = 2, .D = dims[i % 7], .n_q = 33 + i, .n_kv = 70 * 4 + i,
                    .q_pos = -1, .tq = halves[i % 2], .tk = halves[i % 2], .amp = 2, .scale = i % 4 == 3 ? -0.2f : 0,
                    .B = 4, .top_k = 2 + i % 5, .top_p = i % 3 ? 0 : 0.6f, .seed = (uint64_t)i * 100 };
        check_rank(&s, NOISE, i / 2 % 3, i % 3 ? broken[i % 6] : -1, 0.3, &end);
    }
    for (int i = 0; i < 12; i++) {                           /* pooled keys as they lie, up to where a page traps */
        shape s = { .name = "rank, end", .HQ = 4 + i % 3 * 4, .H = 1 + i % 3, .D = i % 4 ? 32 : 96, .n_q = 4,
                    .n_kv = blocks[i] * 4, .q_pos = -1, .tq = halves[i % 2], .tk = halves[i % 2], .B = 4, .top_k = 3,
                    .seed = (uint64_t)i * 100 };
        check_rank(&s, NOISE, 2, -1, 0.3, &end);
    }
    guard_free(&end);
}

/* ---- few and many rows ------------------------------------------------------------------------------------------- */
/* Keys from one position on are made large, so that the maxima of the queries which see them move: the others, which
 * share their tiles, keep every bit. */
static void check_neighbours(ssa_type type, int group, int change)
{
    shape s = { .name = "neighbours", .HQ = group, .H = 1, .D = 64, .n_q = 96, .n_kv = 320, .q_pos = -1, .tq = type,
                .tk = type, .tv = type, .seed = 5 };
    const int64_t row = (int64_t)group * s.D, before = change - (s.n_kv - s.n_q); /* queries that do not see a change */
    prob p;
    prob_make(&p, &s);
    FOR_VECTORS(l) {
        prob_fill(&p, s.seed);
        prob_clear(&p);
        int ok = ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK;
        tensor_load(&p.o);
        uint64_t hash = bytes_hash(p.o.val, before * row * 4, bytes_hash(p.lse, before * group * 4, 1)), all;
        all = bytes_hash(p.o.val, s.n_q * row * 4, 1);
        for (int64_t e = (int64_t)change * s.D; e < tensor_count(&p.k); e++) p.k.val[e] *= 40.0f;
        tensor_store(&p.k);
        ok &= ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK;
        tensor_load(&p.o);
        CHECK(ok && bytes_hash(p.o.val, before * row * 4, bytes_hash(p.lse, before * group * 4, 1)) == hash,
              "%s %s: keys out of sight changed bits, group %d, from %d", ssa_isa_name(level_at(l)), type_name(type),
              group, change);
        CHECK(bytes_hash(p.o.val, s.n_q * row * 4, 1) != all, "keys in sight change something");
    }
    prob_free(&p);
}

static void test_forms(void)
{
    /* rows of a key/value head: group times queries */
    static const struct { int G, n_q; } rows[] = { { 8, 1 }, { 9, 1 }, { 1, 9 }, { 16, 1 }, { 4, 4 }, { 17, 1 },
        { 1, 32 }, { 3, 11 }, { 7, 9 }, { 1, 64 }, { 5, 13 }, { 1, 128 }, { 3, 43 }, { 1, 1 }, { 4, 1 }, { 1, 3 },
        { 2, 2 }, { 5, 1 }, { 2, 4 }, { 1, 7 } };
    static const struct { int G, n_q; } large[] = { { 5, 51 }, { 8, 32 }, { 1, 257 }, { 16, 64 }, { 25, 41 },
        { 5, 205 }, { 1, 268 } };
    static const int keys[] = { 31, 32, 33, 127, 128, 129, 511, 512, 513, 1100 };
    static const int dims[] = { 16, 64, 40, 128, 80, 33 };
    static const layout lays[] = { LAY_ZERO, LAY_HEAD, LAY_ODD, LAY_PAD, LAY_ZERO };
    static const int hows[] = { NOISE, SLOPE, STAIRS, FALL, DEEP };
    for (int i = 0; i < 10 * COUNT(rows); i++) {
        if (!test_some(i, 9)) continue;
        int n = keys[i % 10], r = i / 10;
        if (n > 511 && r % 2 == 0 && i % 3) continue;         /* costly */
        shape s = { .name = "unit", .HQ = rows[r].G, .H = 1, .D = dims[i % 6], .DV = dims[i / 2 % 6],
                    .n_q = rows[r].n_q, .n_kv = n, .q_pos = i % 3 == 1 && n > rows[r].n_q ? (n - rows[r].n_q) / 2 : -1,
                    .tq = halves[(i / 3) % 2], .tk = halves[(i / 3 + i % 7 / 6) % 2], .tv = halves[(i / 3) % 2],
                    .to = i % 9 == 8 ? SSA_BF16 : SSA_F32, .lay = lays[i % 5], .scale = i % 6 == 5 ? -0.15f : 0,
                    .noncausal = i % 11 == 10, .no_gate = i % 2, .B = 16, .seed = (uint64_t)i * 100 };
        check_dense(&s, hows[(i / 10 + i) % 5], i % 5 == 0);
    }
    for (int i = 0; i < 2 * COUNT(large); i++) {
        if (!test_some(i, 7)) continue;
        int n = keys[(i * 3 + 5) % 10], r = i % COUNT(large);
        shape s = { .name = "unit, large", .HQ = large[r].G, .H = 1, .D = dims[i % 6], .DV = dims[i % 4],
                    .n_q = large[r].n_q, .n_kv = n, .q_pos = i % 3 == 1 ? 9 : -1, .tq = halves[i / 2 % 2],
                    .tk = halves[i / 2 % 2], .tv = halves[i / 2 % 2], .scale = i % 5 == 4 ? -0.15f : 0,
                    .noncausal = i % 4 == 3, .B = 16, .seed = (uint64_t)i * 100 };
        check_dense(&s, hows[i % 5], i % 2);
    }
    for (int t = 0; t < 2; t++) {                            /* a tile of the most rows, and one of few after it */
        if (!test_some(t, 2)) continue;
        shape s = { .name = "unit, tile of 1024", .HQ = 16, .H = 1, .D = 16, .DV = 20, .n_q = 4097, .n_kv = 70,
                    .q_pos = 0, .tq = halves[t], .tk = halves[t], .tv = halves[t], .B = 16, .seed = 8 };
        check_dense(&s, SLOPE, t);
    }
    for (int i = 0; i < 5; i++) {                            /* 32 tiles: chunk after chunk, no shares */
        if (!test_some(i, 3)) continue;
        shape s = { .name = "unit, chunks", .HQ = 16, .H = i == 1 ? 8 : 16, .D = i % 2 ? 40 : 16, .DV = i % 2 ? 8 : 24,
                    .n_q = i == 1 ? 400 : 257 + i, .n_kv = i == 2 ? 1090 : 600 + 60 * i, .q_pos = i == 4 ? 500 : -1,
                    .tq = halves[i / 2 % 2], .tk = halves[i / 2 % 2], .tv = halves[i / 2 % 2], .lay = lays[i % 5],
                    .noncausal = i == 3, .B = 16, .seed = (uint64_t)i * 100 };
        check_dense(&s, hows[i % 5], i == 0);
    }
    for (int i = 0; i < 9; i++) {                            /* up to 16 rows: heads go along the keys side by side */
        if (!test_some(i, 6)) continue;
        static const struct { int G, n_q, H, D, DV; } some[] = { { 16, 1, 8, 64, 64 }, { 4, 4, 8, 32, 64 },
            { 8, 2, 13, 32, 32 }, { 16, 1, 9, 40, 24 }, { 5, 3, 8, 64, 32 }, { 16, 1, 8, 32, 96 },
            { 16, 1, 8, 64, 32 }, { 9, 1, 9, 32, 64 }, { 3, 4, 8, 96, 32 } };
        const ssa_type type = i < 6 ? SSA_BF16 : SSA_F16;
        shape s = { .name = "unit, side by side", .HQ = some[i].G * some[i].H, .H = some[i].H, .D = some[i].D,
                    .DV = some[i].DV, .n_q = some[i].n_q, .n_kv = 4160 + 20 * (i / 2), .q_pos = -1,
                    .tq = i == 7 ? SSA_BF16 : type, .tk = type, .tv = type, .lay = lays[i % 5], .B = 16,
                    .seed = (uint64_t)i * 100 };
        check_dense(&s, hows[i % 5], i < 3 || i == 6);
    }
    for (int i = 0; i < 6; i++) {                            /* up to 32 rows: keys may stay in the cache */
        if (!test_some(i, 4)) continue;
        static const struct { int G, n_q, D, DV; } some[] = { { 17, 1, 64, 32 }, { 4, 8, 32, 128 }, { 16, 2, 64, 64 },
            { 5, 1, 96, 32 }, { 7, 3, 32, 64 }, { 6, 1, 64, 64 } };
        shape s = { .name = "unit, in place", .HQ = some[i].G * 2, .H = 2, .D = some[i].D, .DV = some[i].DV,
                    .n_q = some[i].n_q, .n_kv = 1300 + 31 * i, .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16,
                    .tv = SSA_BF16, .lay = lays[i % 5], .B = 16, .seed = (uint64_t)i * 100 };
        check_dense(&s, hows[i % 5], i < 3);
    }
    for (int i = 0; i < 60; i++) {                           /* no key of a step may be left out of its maximum */
        static const int low[] = { 4, 7, 16 };
        const ssa_type type = i < 48 ? SSA_BF16 : SSA_F16;
        if (!test_some(i, 5)) continue;
        shape s = { .name = "unit, spike", .HQ = i < 48 ? low[i % 3] : i < 54 ? 12 : 80, .H = 1, .D = 32, .n_q = 1,
                    .n_kv = 95, .q_pos = -1, .tq = type, .tk = type, .tv = type, .B = 16, .seed = (uint64_t)i * 2 };
        if (i >= 24) s.seed++;
        check_dense(&s, SPIKE, 1);
    }
    for (int i = 0; i < 10; i++) {
        static const int heads[] = { 4, 8, 12, 16, 80 };
        shape s = { .name = "unit, alike", .HQ = heads[i / 2], .H = 1, .D = 32, .n_q = 1, .n_kv = 64 + 83 * (i / 4),
                    .q_pos = -1, .tq = halves[i % 2], .tk = halves[i % 2], .tv = halves[i % 2], .B = 16,
                    .seed = (uint64_t)i * 100 };
        check_dense(&s, ALIKE, 0);
    }
    for (int i = 0; i < 8; i++) {                            /* a step's end between what the first and the last see */
        shape s = { .name = "unit, straddle", .HQ = i % 2 ? 2 : 1, .H = 1, .D = 64, .DV = 32, .n_q = i % 2 ? 4 : 3,
                    .n_kv = (i < 4 ? 33 : 129) + i % 4 / 2, .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16,
                    .tv = SSA_BF16, .B = 16, .seed = (uint64_t)i * 100 };
        check_dense(&s, NOISE, 0);
    }
    for (int t = 0; t < 4; t++) {
        if (!test_some(t, 3)) continue;
        shape s = { .name = "unit, decode", .HQ = t < 2 ? 4 : 18, .H = 2, .D = 64, .n_q = 40, .n_kv = 530, .q_pos = -1,
                    .tq = halves[t % 2], .tk = halves[t % 2], .tv = halves[t % 2], .B = 16, .seed = 12 };
        check_decode(&s, t ? STAIRS : NOISE);
    }
    static const int64_t tokens[] = { 30, 60, 64, 75, 77, 79, 91, 96, 97, 100, 127, 128, 139 };
    for (int i = 0; i < 12; i++) {
        if (!test_some(i, 5)) continue;
        static const int groups[] = { 1, 2, 7, 16, 33, 4 };
        shape s = { .name = "unit, broken", .HQ = 2 * groups[i % 6], .H = 2, .D = i % 4 ? 32 : 48, .DV = dims[i % 6],
                    .n_q = i == 9 ? 16 : groups[i % 6] > 6 ? 23 : 70, .n_kv = 140, .q_pos = i < 8 ? 64 : 0,
                    .tq = halves[i / 6], .tk = halves[i / 6], .tv = halves[i / 6], .noncausal = i == 5, .B = 16,
                    .top_k = 1, .seed = (uint64_t)i * 100 };
        check_broken(&s, SSA_FULL, tokens, COUNT(tokens));
    }
    for (int i = 0; i < 6; i++) {                            /* tiles as low as the rows: 4, 8, 3, 6, 2, 7 */
        if (!test_some(i, 3)) continue;
        static const struct { int G, n_q; } low[] = { { 2, 2 }, { 2, 4 }, { 1, 3 }, { 3, 2 }, { 1, 2 }, { 1, 7 } };
        shape s = { .name = "unit, low broken", .HQ = 2 * low[i].G, .H = 2, .D = 64, .DV = i % 2 ? 32 : 64,
                    .n_q = low[i].n_q, .n_kv = 140, .q_pos = 80 - low[i].n_q, .tq = SSA_BF16, .tk = SSA_BF16,
                    .tv = SSA_BF16, .B = 16, .top_k = 1, .seed = (uint64_t)i * 100 };
        check_broken(&s, SSA_FULL, tokens, COUNT(tokens));
    }
    for (int i = 0; i < 10; i++) {                           /* few rows, of several queries; from 4 on whole chunks */
        if (!test_some(i, 3)) continue;
        static const int64_t last[] = { 93, 94, 95, 126, 127 };
        const ssa_type type = i < 8 ? SSA_BF16 : SSA_F16;
        shape s = { .name = "unit, few broken", .HQ = i % 2 ? 8 : 2, .H = 2, .D = 32, .DV = i < 2 ? 40 : 64,
                    .n_q = i % 2 ? 4 : 13, .n_kv = 140, .q_pos = i % 2 ? 75 : 67, .tq = type, .tk = type, .tv = type,
                    .B = 16, .top_k = 1, .seed = (uint64_t)i * 100 };
        if (i >= 4) s.q_pos = (i < 6 ? 96 : 128) - s.n_q;
        check_broken(&s, SSA_FULL, tokens, COUNT(tokens));
        if (i >= 4) check_broken(&s, SSA_FULL, last, COUNT(last));
    }
}

/* ---- chunks laid out once ---------------------------------------------------------------------------------------- */
/* A copy of a cache of n tokens, contiguous, whose pages are in reverse. */
static void *paged(const tensor *t, int64_t n, int64_t token, int64_t page_tokens, int32_t *pages)
{
    const int64_t page = page_tokens * token, count = (n + page_tokens - 1) / page_tokens;
    char *copy = xalloc(count, page);
    for (int64_t i = 0; i < count; i++) {
        pages[i] = (int32_t)(count - 1 - i);
        memcpy(copy + pages[i] * page, (const char *)t->view.data + i * page,
               (size_t)(i < count - 1 ? page : n * token - i * page));
    }
    return copy;
}

/* A full call of many tiles lays its keys and values out before them; with more keys than rows it does not, and gives
 * the same bits when these are out of sight. So does a cache in pages. */
static void check_laid(const shape *s, int how, int terms)
{
    prob p;
    prob_make(&p, s);
    fill(&p, how, s->seed);
    float *slopes = xalloc(s->HQ, sizeof *slopes);
    for (int h = 0; h < s->HQ; h++) slopes[h] = 0.01f * (float)(h + 1);
    if (terms) { p.a.softcap = 30.0f; p.a.alibi = slopes; }
    FOR_VECTORS(l) {
        const int64_t sees = p.q0 + s->n_q;
        const size_t bytes = (size_t)(s->H * sees * (p.s.D + p.s.DV)) * 2;
        size_t all = ssa_workspace_size(&p.a, 1, SSA_FULL, 1);
        prob_clear(&p);
        int ok = run_by(&p, SSA_FULL, 2);
        uint64_t want = prob_hash(&p);
        p.a.q_pos = p.q0;
        p.a.n_kv = sees;
        size_t laid = ssa_workspace_size(&p.a, 1, SSA_FULL, 1);
        prob_clear(&p);
        ok &= run_by(&p, SSA_FULL, 3);
        CHECK(ok && prob_hash(&p) == want, "%s: laid out or not: %s", ssa_isa_name(level_at(l)), shape_text(&p.s));
        if (s->lay == LAY_ZERO) {
            const ssa_attn a = p.a;
            int32_t pages[64];
            p.a.pages = pages;
            p.a.page_tokens = 48;
            p.a.k.data = paged(&p.k, sees, s->H * row_bytes(s->tk, p.s.D), 48, pages);
            p.a.v.data = paged(&p.v, sees, s->H * row_bytes(s->tv, p.s.DV), 48, pages);
            prob_clear(&p);
            ok &= run_by(&p, SSA_FULL, 2);
            CHECK(ok && prob_hash(&p) == want, "%s: laid out from pages: %s", ssa_isa_name(level_at(l)),
                  shape_text(&p.s));
            free(p.a.k.data);
            free(p.a.v.data);
            p.a = a;
        }
        p.a.n_kv = s->n_kv;
        if (all < laid) { /* what serves these keys without laying them out serves fewer of them */
            const ssa_exec x = { 1, NULL, NULL, xalloc((int64_t)all, 1), all };
            p.a.n_kv = sees;
            prob_clear(&p);
            ok &= ssa_attention(&p.a, SSA_FULL, &x) == SSA_OK;
            CHECK(ok && prob_hash(&p) == want, "%s: no room to lay out: %s", ssa_isa_name(level_at(l)),
                  shape_text(&p.s));
            free(x.workspace);
            p.a.n_kv = s->n_kv;
        }
        if (at_amx() || !level_rounds(level_at(l), s->tq, s->tk, s->tv))
            CHECK(laid >= all + bytes, "%d bytes with what is laid out, %d without: %s", (int)laid, (int)all,
                  shape_text(&p.s));
    }
    free(slopes);
    prob_free(&p);
}

/* ---- where keys and values lie ----------------------------------------------------------------------------------- */
/* A few rows read keys where they lie, in one piece or in two halves of a chunk: any pages give the bits of none. */
static void check_places(const shape *s)
{
    static const int sizes[] = { 8, 16, 24, 32, 40, 48, 256, 264 };
    prob p;
    prob_make(&p, s);
    const int64_t k_token = s->H * row_bytes(s->tk, p.s.D), v_token = s->H * row_bytes(s->tv, p.s.DV);
    int32_t *pages = xalloc(s->n_kv, sizeof *pages);
    FOR_VECTORS(l) {
        const ssa_attn a = p.a;
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK, "status: %s", shape_text(&p.s));
        const uint64_t want = prob_hash(&p);
        for (int i = 0; i < COUNT(sizes); i++) {
            p.a.pages = pages;
            p.a.page_tokens = sizes[i];
            p.a.k.data = paged(&p.k, s->n_kv, k_token, sizes[i], pages);
            p.a.v.data = paged(&p.v, s->n_kv, v_token, sizes[i], pages);
            prob_clear(&p);
            CHECK(ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK && prob_hash(&p) == want,
                  "%s: the same bits from pages of %d tokens: %s", ssa_isa_name(level_at(l)), sizes[i],
                  shape_text(&p.s));
            free(p.a.k.data);
            free(p.a.v.data);
            p.a = a;
        }
    }
    free(pages);
    prob_free(&p);
}

/* Lists of blocks of 8 whose gaps cut chunks of 32 keys anywhere: 16 + 8 + 8, 8 + 16 + 8, 16 + 16, and so on. */
static void check_short_blocks(int heads, int dim)
{
    static const int32_t lists[][12] = { { 0, 1, 3, 5, 7, 8, 9, 10, 12, 13, 15, 16 }, { 1, 3, 4, 6, 8, 10, 12, 14 },
                                         { 0, 2, 3, 5, 6, 7, 9, 11, 12, 14, 16, 18 } };
    for (int i = 0; i < COUNT(lists); i++) {
        const int n = i == 1 ? 8 : 12;
        shape s = { .name = "unit, blocks of 8", .HQ = heads, .H = 1, .D = dim, .n_q = 1, .n_kv = 160, .q_pos = -1,
                    .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .select = SSA_SELECT_GIVEN, .B = 8, .top_k = n,
                    .seed = (uint64_t)(10 * i + heads) };
        two_x out = { 0 }, lse = { 0 };
        o_result r;
        prob p;
        prob_make(&p, &s);
        p.a.blocks = p.blocks;
        memcpy(p.blocks, lists[i], (size_t)n * sizeof *p.blocks);
        o_solve(&p, p.blocks, &r, &out, &lse);
        FOR_LEVELS(l) {
            prob_clear(&p);
            memcpy(p.blocks, lists[i], (size_t)n * sizeof *p.blocks);
            CHECK(ssa_attention(&p.a, SSA_SPARSE, &one) == SSA_OK, "status: %s", shape_text(&p.s));
            o_compare(&p, &r, l, &out, &lse);
        }
        two_x_check(&out, p.s.to, "out", shape_text(&p.s), __FILE__, __LINE__);
        two_x_check(&lse, SSA_F32, "lse", shape_text(&p.s), __FILE__, __LINE__);
        o_result_free(&r);
        prob_free(&p);
    }
}

static void test_places(void)
{
    static const int groups[] = { 4, 5, 16, 17, 32, 1, 3, 9, 12, 16 };
    for (int i = 0; i < COUNT(groups); i++) {
        const ssa_type type = i < 8 ? SSA_BF16 : SSA_F16;
        shape s = { .name = "unit, places", .HQ = groups[i] * 2, .H = 2, .D = i % 3 == 2 ? 40 : 64, .DV = 32, .n_q = 1,
                    .n_kv = i % 2 ? 1100 : 545, .q_pos = -1, .tq = type, .tk = type, .tv = type, .B = 16,
                    .lay = LAY_ZERO, .seed = (uint64_t)i };
        if (test_some(i, 3)) check_places(&s);
        s.D = 96;
        s.noncausal = 1;
        s.n_q = 3;
        if (test_some(i, 5)) check_places(&s);
    }
    for (int i = 0; i < 3; i++) check_short_blocks(i == 2 ? 9 : 16, i ? 64 : 96);
}

static void test_laid(void)
{
    static const int dims[] = { 16, 40, 32, 80, 64, 33 };
    static const layout lays[] = { LAY_ZERO, LAY_HEAD, LAY_ODD, LAY_PAD };
    static const int hows[] = { NOISE, SLOPE, STAIRS, FALL, DEEP };
    static const int from[] = { 488, 88, 1, 512, 0, 265, 128, 479 };
    for (int i = 0; i < 16; i++) {                           /* 4 tiles of 256 rows, 8 heads */
        if (!test_some(i, 5)) continue;
        static const ssa_type types[] = { SSA_BF16, SSA_F16, SSA_BF16, SSA_Q8_0, SSA_F32, SSA_BF16 };
        const ssa_type type = types[i % 6];
        const int whole = type == SSA_F16 || type == SSA_Q8_0;
        shape s = { .name = "unit, laid", .HQ = 16, .H = 8, .D = whole ? 64 : dims[i % 6],
                    .DV = whole ? 32 : dims[i / 2 % 6], .n_q = 512, .n_kv = 1100, .q_pos = from[i % 8],
                    .tq = type == SSA_Q8_0 ? SSA_F32 : type, .tk = type, .tv = i == 7 ? SSA_BF16 : type,
                    .to = i % 3 ? SSA_F32 : SSA_BF16, .lay = lays[i % 4], .scale = i % 6 == 5 ? -0.15f : 0, .B = 16,
                    .seed = (uint64_t)i * 100 };
        check_laid(&s, hows[i % 5], i % 3 == 2);
        if (i % 4) continue;
        s.n_kv = i < 8 ? 600 : 1024;
        s.q_pos = i == 4 ? 11 : -1;
        s.noncausal = i == 8;
        check_dense(&s, hows[i % 5], 0);
    }
    static const int64_t tokens[] = { 0, 31, 63, 490, 511, 512, 550, 599 };
    for (int i = 0; i < 4; i++) {
        if (!test_some(i, 4)) continue;
        shape s = { .name = "unit, laid, broken", .HQ = 16, .H = 8, .D = i / 2 ? 64 : 16, .DV = 32, .n_q = 512,
                    .n_kv = i == 3 ? 620 : 600, .q_pos = i == 3 ? 80 : -1, .tq = halves[i / 2], .tk = halves[i / 2],
                    .tv = halves[i / 2], .noncausal = i == 1, .B = 16, .top_k = 1, .seed = (uint64_t)i * 100 };
        check_broken(&s, SSA_FULL, tokens, COUNT(tokens));
    }
}

/* ---- the host's own tiles ---------------------------------------------------------------------------------------- */
#if HAVE_TILES
#define TILES __attribute__((target("amx-tile")))
TILES static void host_load(const unsigned char *config) { _tile_loadconfig(config); }
TILES static void host_store(unsigned char *config) { _tile_storeconfig(config); }
TILES static void host_release(void) { _tile_release(); }

static void test_host(void)
{
    if (level_at(level_count() - 1) != SSA_ISA_AMX) {
        SKIP("unit", "level amx does not run here: the host's tile configuration is not tested");
        return;
    }
    for (int i = 0; i < 24; i++) {
        int what = i % 4, own = i / 4 % 3;                   /* own: none, odd shapes, one tile */
        shape s = { .name = "host's tiles", .HQ = 16, .H = 1, .D = 64, .n_q = i < 12 ? 70 : 1, .n_kv = 300, .q_pos = -1,
                    .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .B = 16, .top_k = 4, .seed = 3 };
        unsigned char want[64] = { 0 }, got[64];
        prob p;
        prob_make(&p, &s);
        p.a.blocks = p.blocks;
        FOR_LEVELS(l) {
            memset(want, 0, sizeof want);
            if (own) want[0] = 1;
            for (int t = 0; t < (own == 1 ? 8 : own == 2); t++) {
                want[16 + 2 * t] = (unsigned char)(own == 1 ? 8 * (t + 1) : 12);
                want[48 + t] = (unsigned char)(own == 1 ? 16 - t : 3);
            }
            if (own) host_load(want);
            else host_release();
            memset(got, 0xEE, sizeof got);
            ssa_status status = what == 3 ? ssa_select_blocks(&p.a, &one)
                                          : ssa_attention(&p.a, what ? SSA_SPARSE : SSA_FULL, &one);
            if (what == 2) run_by(&p, SSA_SPARSE, 3);
            host_store(got);
            CHECK(status == SSA_OK && !memcmp(want, got, sizeof want),
                  "the host's tile configuration (%d) is as it was: %s", own, shape_text(&p.s));
            host_release();
        }
        prob_free(&p);
    }
}
#else
static void test_host(void) { SKIP("unit", "no tiles in this build: the host's configuration is not tested"); }
#endif

void test_unit(void)
{
    test_packed();
    test_rank();
    test_forms();
    test_laid();
    test_places();
    for (int type = SSA_F32; type <= SSA_BF16; type++)
        for (int change = 233; change < 300; change += 11) check_neighbours((ssa_type)type, 1 + change % 4, change);
    test_host();
}

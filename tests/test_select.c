/* test_select.c - what a selection can be asked for beside the best k: raw scores, lists for each query head, blocks
 * that are always kept, a share of the importance, budgets, short contexts that run full */
#include "oracle.h"

static const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };

static int lists_of(const shape *s) { return s->per_head ? s->HQ : s->H; }

/* By nth workers, one after the other, however little there is to do for each. */
static int run_by(const ssa_attn *a, int32_t n, ssa_mode mode, int nth)
{
    ssa_plan plan;
    size_t size = ssa_workspace_size(a, n, mode, nth);
    void *ws = xalloc((int64_t)size, 1);
    int ok = ssa_plan_make(&plan, a, n, mode, nth, ws, size) == SSA_OK;
    for (int phase = 0; ok && phase < ssa_plan_phases(&plan); phase++)
        for (int i = 0; i < nth; i++) ssa_plan_run(&plan, phase, i, nth);
    free(ws);
    return ok;
}

/* ---- against the oracle ------------------------------------------------------------------------------------------ */
/* Queries and keys that point away from each other, raw scores well below zero; but for each 97th block, 2: so that few
 * are above zero. */
static void turn_away(prob *p, int how)
{
    const int64_t block = (int64_t)p->s.B * p->s.H * p->s.D;
    for (int64_t e = 0; e < tensor_count(&p->q); e++) p->q.val[e] += 0.5f;
    for (int64_t e = 0; e < tensor_count(&p->k); e++)
        p->k.val[e] += how == 2 && e / block % 97 == 60 ? 1.5f : -1.5f;
    tensor_store(&p->q);
    tensor_store(&p->k);
}

/* Ties in the data: blocks that repeat with this period. */
static void repeat_blocks(prob *p, int period)
{
    int64_t from = (int64_t)period * p->s.B * p->s.H * p->s.D;
    for (int64_t e = from; e < tensor_count(&p->k); e++) p->k.val[e] = p->k.val[e - from];
    tensor_store(&p->k);
}

enum { NO_POOL, POOL_F32, POOL_BF16 };
typedef struct { int pool, away, period, attend; double share; } kind;

/* Every level: the oracle's blocks, the same from ssa_select_blocks and ssa_attention and by any number of workers, the
 * oracle's output on them, and the same bits when the lists are given back. */
static void check_select(const shape *s, kind how)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r = { 0 };
    o_call c;
    ssa_pool x;
    prob p;
    prob_make(&p, s);
    if (how.away) turn_away(&p, how.away);
    if (how.period) repeat_blocks(&p, how.period);
    const char *text = shape_text(&p.s);
    int64_t nb = p.s.n_kv / p.s.B, size = p.n_blocks * (int64_t)sizeof(int32_t);
    double *pooled = xalloc((nb + 1) * s->H * s->D, sizeof *pooled), clear = 1;
    int32_t *before = xalloc(p.n_blocks, sizeof *before);
    ssa_type type = how.pool == POOL_BF16 ? SSA_BF16 : SSA_F32;
    size_t bytes = ssa_pool_size(s->H, s->D, p.s.B, s->n_kv, type);
    void *memory = xalloc((int64_t)bytes, 1);
    int reps = how.attend ? two_x_reps(p.n_lse, p.n_lse * (p.s.D + p.s.DV) * s->n_kv) : 1;
    int ok = 1, alone = 1, same = 1, workers = 1, back = 1, gaps = 1;
    p.a.blocks = p.blocks;
    for (int rep = 0; rep < reps; rep++) {
        if (rep) prob_refill(&p, s->seed + 100 + 10 * (uint64_t)rep);
        if (rep && how.away) turn_away(&p, how.away);
        if (rep && how.period) repeat_blocks(&p, how.period);
        o_call_of(&c, &p);
        o_pool(&c, pooled);
        FOR_LEVELS(l) {
            if (how.pool) {
                ok &= ssa_pool_init(&x, s->H, s->D, p.s.B, s->n_kv, type, memory, bytes) == SSA_OK
                      && ssa_pool_append(&x, &p.k.view, s->n_kv) == SSA_OK;
                for (int64_t e = 0; e < nb * s->H * s->D; e++)
                    pooled[e] = (double)type_get(type, (char *)x.pooled + e * type_size(type));
                p.a.pool = &x;
            }
            prob_clear(&p);
            uint64_t outputs = bytes_hash(p.o.mem, p.o.mem_bytes, bytes_hash(p.lse, p.n_lse * 4, 1));
            ssa_attn a = p.a;
            if (l & 1) a.v.data = a.out.data = NULL;
            ok &= ssa_select_blocks(&a, rep ? &one : NULL) == SSA_OK;
            alone &= outputs == bytes_hash(p.o.mem, p.o.mem_bytes, bytes_hash(p.lse, p.n_lse * 4, 1));
            uint64_t chosen = bytes_hash(p.blocks, size, 1);
            if (l == 0 || memcmp(before, p.blocks, (size_t)size)) {       /* levels may differ in near ties */
                double now = o_check_blocks(&p, pooled, how.period != 0, text);
                if (now < clear) clear = now;
                if (how.attend && r.out) o_result_free(&r);
                if (how.attend) o_solve(&p, p.blocks, &r, &out, &lse);
                memcpy(before, p.blocks, (size_t)size);
            }
            if (!how.attend) continue;
            prob_clear(&p);
            ok &= ssa_attention(&p.a, SSA_SPARSE, &one) == SSA_OK;
            same &= chosen == bytes_hash(p.blocks, size, 1);
            gaps &= tensor_gaps_ok(&p.o);
            o_compare(&p, &r, l, &out, &lse);
            if (rep) continue;
            uint64_t want = prob_hash(&p);
            for (int nth = 2; nth <= 5; nth += 3) {
                prob_clear(&p);
                workers &= run_by(&p.a, 1, SSA_SPARSE, nth) && prob_hash(&p) == want;
            }
            prob_clear(&p);
            a = p.a;
            a.blocks = NULL;
            ok &= ssa_attention(&a, SSA_SPARSE, &one) == SSA_OK;         /* lists in the workspace */
            memcpy(p.blocks, before, (size_t)size);
            back &= prob_hash(&p) == want;
            a.blocks = p.blocks;
            a.select = SSA_SELECT_GIVEN; a.score = SSA_SCORE_SOFTMAX; a.top_p = 0; a.top_k_per_head = NULL;
            a.sink_blocks = a.local_blocks = 0;
            tensor_paint(&p.o);
            ok &= ssa_attention(&a, SSA_SPARSE, &one) == SSA_OK;
            back &= prob_hash(&p) == want;
        }
        if (r.out) o_result_free(&r);
        r.out = NULL;
    }
    CHECK(ok, "status: %s", text);
    CHECK(alone, "ssa_select_blocks writes blocks only: %s", text);
    CHECK(same, "ssa_select_blocks gives the blocks of ssa_attention: %s", text);
    CHECK(workers, "the same bits by 1, 2 and 5 workers: %s", text);
    CHECK(back, "the same bits without a place for the lists, and when the lists are given: %s", text);
    CHECK(gaps, "bytes between and around the rows of out are untouched: %s", text);
    CHECK(clear >= how.share, "most rows have a clear selection, %.2f: %s", clear, text);
    if (how.attend) two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    if (how.attend) two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    free(memory); free(pooled); free(before);
    prob_free(&p);
}

/* A top_k for each of n lists, no smaller than what is always kept. */
static const int32_t *budgets_for(int32_t *k, int n, int top_k, const shape *s, rng *r)
{
    for (int j = 0; j < n; j++) k[j] = rng_int(r, s->sinks + s->locals + 1, top_k);
    return k;
}

static void test_random(void)
{
    static const int sizes[] = { 1, 3, 16, 64 }, groups[] = { 1, 3, 4, 16, 20 }, dims[] = { 2, 16, 31, 40, 64, 80 },
                     budgets[] = { 1, 2, 4, 7, 16, 40 };
    static const float shares[] = { 0.02f, 0.3f, 0.6f, 0.9f, 0.999f };
    rng r = { 20260, 0 };
    for (int i = 0; i < 240; i++) {
        if (!test_some(i, 79)) continue;
        int g = groups[i % 5], kv = g > 4 ? 1 : rng_int(&r, 1, 3), b = sizes[i / 5 % 4],
            nq = i % 3 ? rng_int(&r, 2, 24) : 1;
        int32_t k_of[64];
        shape s = { .name = "select", .HQ = g * kv, .H = kv, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = nq, .n_kv = nq + rng_int(&r, 0, b < 16 ? 60 * b : 14 * b), .q_pos = -1,
                    .tq = RNG_PICK(&r, types), .tk = RNG_PICK(&r, types), .tv = RNG_PICK(&r, types),
                    .to = RNG_PICK(&r, types), .lay = (layout)rng_int(&r, LAY_ZERO, LAY_MIX),
                    .scale = rng_int(&r, 0, 3) ? 0 : 0.2f, .amp = rng_int(&r, 0, 3) ? 1 : 3, .no_gate = i & 1, .B = b,
                    .top_k = RNG_PICK(&r, budgets), .per_head = rng_int(&r, 0, 2) > 0, .seed = (uint64_t)i * 16 + 500 };
        kind how = { .pool = rng_int(&r, 0, 2), .attend = 1 };
        if (rng_int(&r, 0, 2) == 0 && s.per_head && b > 1 && (b & (b - 1)) == 0 && s.top_k <= b)
            s.select = SSA_SELECT_REFERENCE;
        else {
            s.score = rng_int(&r, 0, 1) ? SSA_SCORE_DOT : SSA_SCORE_SOFTMAX;
            if (rng_int(&r, 0, 1)) s.sinks = rng_int(&r, 0, s.top_k - 1 < 9 ? s.top_k - 1 : 9);
            if (rng_int(&r, 0, 1)) s.locals = rng_int(&r, 0, s.top_k - 1 - s.sinks);
            if (!s.score && rng_int(&r, 0, 2)) s.top_p = RNG_PICK(&r, shares);
            how.away = s.score && rng_int(&r, 0, 1);
        }
        if (rng_int(&r, 0, 2) == 0) s.k_of = budgets_for(k_of, lists_of(&s), s.top_k, &s, &r);
        if (rng_int(&r, 0, 2) == 0) s.q_pos = rng_int(&r, 0, s.n_kv - s.n_q);
        how.share = s.n_q < 20 || s.amp > 1 || s.n_kv > 2000 ? 0 : 0.5;
        check_select(&s, how);
    }
}

/* Hundreds of blocks, where the ranking takes its short cuts. */
static void test_many(void)
{
    for (int i = 0; i < 30; i++) {
        int32_t k_of[64];
        rng r = { (uint64_t)i, 0 };
        shape s = { .name = "many blocks", .HQ = i % 5 == 4 ? 20 : 4, .H = i % 2 ? 2 : 1, .D = 32 + i, .DV = 16,
                    .n_q = 1 + i % 4 * 7, .n_kv = 900 + 71 * i, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3],
                    .tv = types[i % 3], .B = 1 + i % 3, .top_k = 4 + i % 9 * 4, .score = (ssa_score)(i % 4 != 3),
                    .per_head = i / 2 % 2, .sinks = i % 4, .locals = i % 3 != 1 && i % 4 != 3,
                    .top_p = i % 4 == 3 ? 0.2f : 0, .seed = (uint64_t)i * 100 };
        if (s.sinks + s.locals + 1 > s.top_k) s.sinks = 0;
        if (i % 5 == 0) s.k_of = budgets_for(k_of, lists_of(&s), s.top_k, &s, &r);
        check_select(&s, (kind){ .pool = i % 4 ? POOL_F32 : NO_POOL, .away = i % 3, .attend = i % 7 == 0 });
    }
}

/* Exact ties go to the lower index, whatever ranks. */
static void test_ties(void)
{
    for (int i = 0; i < 32; i++) {
        shape s = { .name = "ties", .HQ = i % 4 == 3 ? 20 : 4, .H = 1 + i % 2, .D = 16 + 5 * (i % 7), .n_q = 24,
                    .n_kv = i % 8 == 7 ? 900 : 200 + 11 * i, .q_pos = -1, .tq = types[i % 3], .tk = types[i / 2 % 3],
                    .B = i % 8 == 7 ? 1 : 4, .top_k = 3 + i % 8, .per_head = i / 4 % 2, .sinks = i % 3 == 2,
                    .locals = i % 5 == 4, .score = i % 2 ? SSA_SCORE_DOT : SSA_SCORE_SOFTMAX, .seed = 70 };
        check_select(&s, (kind){ .period = 1 + i % 7, .away = i % 4 == 1, .share = 0.9 });
    }
    for (int i = 0; i < 12; i++) {                           /* each block twice; a list ends between the two */
        shape s = { .name = "ties, pairs", .HQ = i % 3 == 2 ? 20 : 4, .H = 1 + i % 2, .D = 16 + 8 * (i % 4), .n_q = 7,
                    .n_kv = 700 + 13 * i, .q_pos = -1, .tq = types[i % 3], .tk = types[i / 2 % 3], .B = 1,
                    .top_k = 4 + 2 * (i % 5), .per_head = i / 4 % 2,
                    .score = i % 2 ? SSA_SCORE_DOT : SSA_SCORE_SOFTMAX, .seed = 80 + (uint64_t)i };
        check_select(&s, (kind){ .period = 300, .away = i % 4 == 1, .share = 0.9 });
    }
}

/* The same where scores are far apart, so that maxima move between equal blocks. */
static void test_far_ties(void)
{
    for (int i = 0; i < 24; i++) {
        if (!test_some(i, 7)) continue;
        shape s = { .name = "ties, far apart", .HQ = i % 4 == 3 ? 16 : 4, .H = 1, .D = 32, .n_q = i % 2 ? 17 : 1,
                    .n_kv = 1000 + 30 * i, .q_pos = -1, .tq = types[1 + i % 2], .tk = types[i / 2 % 3],
                    .amp = 2 + i % 4, .B = 1, .top_k = 3 + i % 8, .per_head = i / 4 % 2, .seed = 90 + (uint64_t)i };
        check_select(&s, (kind){ .pool = i % 3, .period = 330, .share = 0.9 });
    }
}

/* ---- MoBA -------------------------------------------------------------------------------------------------------- */
/* The gate as its authors give it, for every query head alone: the score of a block is q . mean of its keys; of its own
 * block +infinity, of later ones -infinity; the best top_k of all. */
static void moba_gate(const prob *p, int64_t i, int head, int32_t *chosen, int *clear)
{
    const shape *s = &p->s;
    int kv = head / (s->HQ / s->H), n_blocks = (s->n_kv + s->B - 1) / s->B, own = (int)((p->q0 + i) / s->B);
    double *gate = xalloc(n_blocks, sizeof *gate), last = INFINITY, size = 0;
    for (int c = 0; c < n_blocks; c++) {
        int end = (c + 1) * s->B < s->n_kv ? (c + 1) * s->B : s->n_kv;
        for (int d = 0; d < s->D; d++) {
            double mean = 0, q = (double)p->q.val[(i * s->HQ + head) * s->D + d];
            for (int j = c * s->B; j < end; j++) mean += (double)p->k.val[((int64_t)j * s->H + kv) * s->D + d];
            gate[c] += q * (mean / (end - c * s->B));
            size += fabs(q * mean);
        }
        if (c >= own) gate[c] = c == own ? INFINITY : -INFINITY;
    }
    *clear = 1;
    for (int e = 0; e < s->top_k; e++) {
        int best = -1;
        for (int c = 0; c < n_blocks; c++) if (gate[c] > -INFINITY && (best < 0 || gate[c] > gate[best])) best = c;
        chosen[e] = best;
        if (best < 0) continue;
        last = gate[best];
        gate[best] = -INFINITY;
    }
    for (int c = 0; c < n_blocks; c++)
        if (gate[c] > -INFINITY && !(last - gate[c] > 1e-6 * size / n_blocks)) *clear = 0;
    free(gate);
}

static void check_moba(const shape *s, int away)
{
    prob p;
    prob_make(&p, s);
    if (away) turn_away(&p, 1);
    p.a.blocks = p.blocks;
    int32_t *want = xalloc(s->top_k, sizeof *want);
    FOR_LEVELS(l) {
        int wrong = 0, compared = 0, clear;
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "status: %s", shape_text(&p.s));
        for (int64_t row = 0; row < p.n_lse; row++) {
            const int32_t *got = p.blocks + row * s->top_k;
            int found = 0, n = 0;
            moba_gate(&p, row / s->HQ, (int)(row % s->HQ), want, &clear);
            if (!clear) continue;
            compared++;
            for (int e = 0; e < s->top_k; e++) {
                n += want[e] >= 0;
                for (int f = 0; f < s->top_k; f++) found += want[e] >= 0 && got[f] == want[e];
                wrong += got[e] >= 0 && e && got[e] <= got[e - 1];
            }
            for (int e = n; e < s->top_k; e++) wrong += got[e] != -1;
            wrong += found != n;
        }
        CHECK(wrong == 0 && compared > p.n_lse / 2, "MoBA's gate: %d of %d differ: %s", wrong, compared,
              shape_text(&p.s));
    }
    free(want);
    prob_free(&p);
}

static void test_moba(void)
{
    static const int groups[] = { 1, 3, 4, 16, 20 };
    for (int i = 0; i < 20; i++) {
        shape s = { .name = "MoBA", .HQ = groups[i % 5] * (1 + i % 2), .H = 1 + i % 2, .D = 16 + 8 * (i % 8),
                    .n_q = i % 3 ? 30 + i : 1, .n_kv = 150 + 20 * i, .q_pos = -1, .tq = types[i % 3],
                    .tk = types[i / 2 % 3], .tv = types[i % 3], .B = i % 4 == 3 ? 16 : 5 + i % 4, .top_k = 1 + i % 7,
                    .score = SSA_SCORE_DOT, .per_head = 1, .seed = (uint64_t)i * 40 };
        check_moba(&s, i / 3 % 2);
    }
}

/* ---- the same bits ----------------------------------------------------------------------------------------------- */
/* The hash of what a call gives; blocks in the hash where they are asked for. */
static uint64_t result_of(prob *p, const ssa_attn *a, ssa_mode mode, const char *what)
{
    prob_clear(p);
    CHECK(ssa_attention(a, mode, &one) == SSA_OK, "%s: %s", what, shape_text(&p->s));
    return prob_hash(p);
}

static void test_same(void)
{
    for (int i = 0; i < 18; i++) {
        int32_t k_of[32];
        shape s = { .name = "same", .HQ = i % 3 ? 6 : 2, .H = i % 2 ? 1 : 2, .D = 32, .n_q = i % 4 ? 66 : 1,
                    .n_kv = 280 + i, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3], .tv = types[i % 3],
                    .B = i % 2 ? 16 : 8, .top_k = 4 + i % 5, .per_head = i / 2 % 2,
                    .amp = i / 3 % 2 ? 20 : 1, .seed = (uint64_t)i }; /* 20: importances of 0 */
        if (i % 5 == 0) s.H = s.HQ;
        prob p;
        prob_make(&p, &s);
        p.a.blocks = p.blocks;
        FOR_LEVELS(l) {
            uint64_t want = result_of(&p, &p.a, SSA_SPARSE, "plain");
            ssa_attn a = p.a;
            a.top_p = 1;
            CHECK(result_of(&p, &a, SSA_SPARSE, "top_p 1") == want, "top_p 1 keeps all: %s", shape_text(&p.s));
            a = p.a;
            for (int j = 0; j < lists_of(&s); j++) k_of[j] = s.top_k;
            a.top_k_per_head = k_of;
            CHECK(result_of(&p, &a, SSA_SPARSE, "k_of") == want, "the same top_k for all: %s", shape_text(&p.s));
            a = p.a;
            a.top_k = 77;
            a.budget = (int64_t)s.top_k * s.B + s.B - 1;
            CHECK(result_of(&p, &a, SSA_SPARSE, "budget") == want, "a budget of keys: %s", shape_text(&p.s));
            a.top_k = 0;
            CHECK(result_of(&p, &a, SSA_SPARSE, "budget") == want, "a budget alone: %s", shape_text(&p.s));
            a = p.a;
            a.min_context = s.n_kv;
            CHECK(result_of(&p, &a, SSA_SPARSE, "min_context") == want, "a context just long enough: %s",
                  shape_text(&p.s));
            if (s.HQ != s.H) continue;
            a = p.a;
            for (int dot = 0; dot < 2; dot++) {
                a.score = dot ? SSA_SCORE_DOT : SSA_SCORE_SOFTMAX;
                a.select_per_head = 0;
                want = result_of(&p, &a, SSA_SPARSE, "shared");
                a.select_per_head = 1;
                CHECK(result_of(&p, &a, SSA_SPARSE, "per head") == want, "a group of one: %s", shape_text(&p.s));
            }
        }
        prob_free(&p);
    }
    /* Budgets of less than a block, and of more than there are. */
    shape s = { .name = "budget", .HQ = 4, .H = 2, .D = 16, .n_q = 5, .n_kv = 90, .q_pos = -1, .B = 16, .top_k = 1 };
    prob p;
    prob_make(&p, &s);
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        uint64_t want = result_of(&p, &p.a, SSA_SPARSE, "one block");
        ssa_attn a = p.a;
        for (a.budget = 1; a.budget <= 31; a.budget += 15)
            CHECK(result_of(&p, &a, SSA_SPARSE, "one block") == want, "a budget of %d keys", (int)a.budget);
        a.blocks = NULL;
        a.budget = 6 * 16;
        want = result_of(&p, &a, SSA_SPARSE, "all blocks");
        a.budget = INT64_MAX;
        CHECK(result_of(&p, &a, SSA_SPARSE, "all blocks") == want, "a budget above all");
        a.budget = 0;
        a.top_k = 6;
        CHECK(result_of(&p, &a, SSA_SPARSE, "all blocks") == want, "top_k of as many");
    }
    prob_free(&p);
}

/* Lists that hold every block are full attention, also where each head has its own. */
static void test_covering(void)
{
    for (int i = 0; i < 12; i++) {
        shape s = { .name = "covering", .HQ = i % 2 ? 4 : 20, .H = 1, .D = 48, .n_q = i % 3 ? 70 : 1,
                    .n_kv = 80 + 9 * i, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3], .tv = types[i % 3],
                    .B = 16, .top_k = 12, .per_head = 1, .score = (ssa_score)(i / 3 % 2),
                    .sinks = i % 4, .locals = i % 5, .seed = 4 };
        two_x out = { 0 }, lse = { 0 };
        o_result r;
        prob p;
        prob_make(&p, &s);
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
}

/* ---- short contexts ---------------------------------------------------------------------------------------------- */
static void test_short(void)
{
    shape shapes[4];
    prob p[4];
    ssa_attn a[4];
    for (int i = 0; i < 4; i++) {                            /* two calls below 200 keys, two not */
        shape s = { .name = "short", .HQ = 8, .H = 2, .D = 64, .n_q = i % 2 ? 70 : 1, .q_pos = -1,
                    .n_kv = i < 2 ? 150 + 49 * i : 200 + i, .tq = types[i % 3], .tk = types[i % 3],
                    .tv = types[i % 3], .B = 16, .top_k = 3,
                    .per_head = i / 2 % 2, .seed = (uint64_t)i };
        shapes[i] = s;
    }
    for (int given = 0; given < 2; given++) {
        for (int i = 0; i < 4; i++) {
            if (given) shapes[i].select = SSA_SELECT_GIVEN;
            prob_make(&p[i], &shapes[i]);
            for (int64_t e = 0; given && e < p[i].n_blocks; e++) p[i].blocks[e] = (int32_t)(e % 7) - 1;
        }
        FOR_LEVELS(l) {
            uint64_t full[4], want[4];
            for (int i = 0; i < 4; i++) {
                a[i] = p[i].a;
                full[i] = result_of(&p[i], &a[i], SSA_FULL, "full");
                a[i].blocks = p[i].blocks;
                a[i].min_context = 200;
                want[i] = result_of(&p[i], &a[i], SSA_SPARSE, "short");
                int empty = 1;
                for (int64_t e = 0; e < p[i].n_blocks; e++) empty &= p[i].blocks[e] == -1;
                CHECK(given || empty == (i < 2), "lists of a call that runs full are empty: %s",
                      shape_text(&shapes[i]));
                ssa_attn none = a[i];
                if (!given) none.blocks = NULL;
                uint64_t bits = result_of(&p[i], &none, SSA_SPARSE, "no lists");
                CHECK((bits == full[i]) == (i < 2), "full below min_context alone: %s", shape_text(&shapes[i]));
                if (given) continue;
                prob_clear(&p[i]);
                CHECK(ssa_select_blocks(&a[i], NULL) == SSA_OK && p[i].blocks[0] >= 0,
                      "ssa_select_blocks selects however few there are: %s", shape_text(&shapes[i]));
            }
            for (int nth = 1; nth <= 5; nth += 2) {
                int same = 1;
                for (int i = 0; i < 4; i++) prob_clear(&p[i]);
                CHECK(run_by(a, 4, SSA_SPARSE, nth), "a batch of mixed lengths");
                for (int i = 0; i < 4; i++) same &= prob_hash(&p[i]) == want[i];
                CHECK(same, "a batch of mixed lengths is its calls, %d workers", nth);
            }
        }
        for (int i = 0; i < 4; i++) prob_free(&p[i]);
    }
}

/* ---- what is not finite ------------------------------------------------------------------------------------------ */
/* A block with a key that is not finite is chosen last, or where it is always kept; blocks before it change nothing. */
static void check_broken(const shape *s, float bad, int block, int pool)
{
    prob p;
    ssa_pool x;
    o_call c;
    prob_make(&p, s);
    if (s->score) turn_away(&p, 1);
    for (int64_t e = 0; e < (int64_t)s->H * s->D; e += 3)
        p.k.val[((int64_t)block * s->B + s->B - 1) * s->H * s->D + e] = bad;
    tensor_store(&p.k);
    int64_t nb = s->n_kv / s->B;
    double *pooled = xalloc(nb * s->H * s->D, sizeof *pooled);
    ssa_type type = pool == POOL_BF16 ? SSA_BF16 : SSA_F32;
    size_t bytes = ssa_pool_size(s->H, s->D, s->B, s->n_kv, type);
    void *memory = xalloc((int64_t)bytes, 1);
    p.a.blocks = p.blocks;
    o_call_of(&c, &p);
    o_pool(&c, pooled);
    FOR_LEVELS(l) {
        if (pool) {
            CHECK(ssa_pool_init(&x, s->H, s->D, s->B, s->n_kv, type, memory, bytes) == SSA_OK
                      && ssa_pool_append(&x, &p.k.view, s->n_kv) == SSA_OK, "pool");
            for (int64_t e = 0; e < nb * s->H * s->D; e++)
                pooled[e] = (double)type_get(type, (char *)x.pooled + e * type_size(type));
            p.a.pool = &x;
        }
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "status: %s", shape_text(&p.s));
        o_check_blocks(&p, pooled, 0, shape_text(&p.s));
        tensor_load(&p.o);
        int wrong = 0, lists = lists_of(s);
        for (int64_t row = 0; row < p.n_lse; row++) {
            int64_t i = row / s->HQ, pos = p.q0 + i;
            const int32_t *list = p.blocks + (i * lists + row % s->HQ * lists / s->HQ) * s->top_k;
            int sees = 0, nan = 0;
            for (int e = 0; e < s->top_k; e++) sees |= list[e] == block;
            sees = sees && pos >= (block + 1) * (int64_t)s->B - 1;
            for (int d = 0; d < p.s.DV; d++) nan |= isnan(p.o.val[row * p.s.DV + d]) != 0;
            wrong += isnan(bad) ? nan != sees : nan && !sees;
        }
        CHECK(wrong == 0, "%g reaches the rows that read it alone: %d: %s", (double)bad, wrong, shape_text(&p.s));
    }
    free(memory); free(pooled);
    prob_free(&p);
}

static void test_broken(void)
{
    static const float bads[] = { NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 48; i++) {
        shape s = { .name = "broken", .HQ = i % 4 == 3 ? 20 : 4, .H = 1 + i % 2, .D = 32, .n_q = i % 5 ? 60 : 1,
                    .n_kv = i % 8 == 5 ? 900 : 160, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3],
                    .tv = types[i % 3], .B = i % 8 == 5 ? 2 : 8, .top_k = i % 6 == 5 ? 19 : 5, .per_head = i / 2 % 2,
                    .score = (ssa_score)(i / 4 % 2), .sinks = i % 7 == 6 ? 2 : 0, .locals = i % 7 == 5 ? 2 : 0,
                    .seed = (uint64_t)i };
        if (!s.score && i % 3 == 1) s.top_p = 0.7f;
        check_broken(&s, bads[i % 3], i % 9 == 8 ? 0 : i % 9 == 7 ? 12 : 3, i / 3 % 2);
    }
    for (int i = 0; i < 9; i++) { /* the pooled key right before it in memory is as good as any */
        shape s = { .name = "broken, the next row", .HQ = 20 * (1 + i % 2), .H = 1 + i % 2, .D = 30 + i % 4,
                    .n_q = i % 3 ? 60 : 1, .n_kv = 160, .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16,
                    .B = 8, .top_k = 5, .seed = (uint64_t)i };
        check_broken(&s, bads[i % 3], 3 + i % 5, POOL_BF16);
    }
    /* A query that is NaN: its own lists alone suffer, a shared one with its group. */
    for (int i = 0; i < 36; i++) {
        static const int heads[] = { 6, 40, 32 };
        shape s = { .name = "NaN query", .HQ = heads[i / 12], .H = 2, .D = 24, .n_q = 20, .n_kv = 200, .q_pos = -1,
                    .tq = types[i % 3], .tk = types[i / 3 % 3], .B = 4, .top_k = 6, .per_head = i % 2,
                    .score = (ssa_score)(i / 2 % 2),
                    .seed = 8 };
        int lists = lists_of(&s), group = s.HQ / lists, row = 9 * s.HQ + 4;
        prob p;
        prob_make(&p, &s);
        p.a.blocks = p.blocks;
        int32_t *want = xalloc(p.n_blocks, sizeof *want);
        FOR_LEVELS(l) {
            prob_fill(&p, s.seed);
            CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status");
            memcpy(want, p.blocks, (size_t)p.n_blocks * 4);
            p.q.val[(int64_t)row * s.D + 3] = NAN;
            tensor_store(&p.q);
            CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status");
            int moved = 0, own = 0, count = 0;
            for (int64_t e = 0; e < p.n_blocks; e++) {
                int64_t list = e / s.top_k;
                if (list != row / group) moved += want[e] != p.blocks[e];
                else { own |= p.blocks[e] == (180 + 9) / s.B; count += p.blocks[e] >= 0; }
            }
            CHECK(moved == 0 && own && count == s.top_k, "%d slots of others moved; own %d, %d chosen: %s", moved, own,
                  count, shape_text(&p.s));
        }
        free(want);
        prob_free(&p);
    }
}

/* ---- large groups ------------------------------------------------------------------------------------------------ */
/* Groups of more heads than a tile has rows, whose shared list is scored a part of the group at a time. */
static void test_large_groups(void)
{
    static const int groups[] = { 65, 80, 129, 200 };
    for (int i = 0; i < 16; i++) {
        if (!test_some(i, 5)) continue;
        shape s = { .name = "large group", .HQ = groups[i % 4], .H = 1, .D = 16 + 8 * (i % 3),
                    .n_q = i % 8 < 4 ? 1 : 17, .n_kv = 300 + i, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3],
                    .tv = types[i % 3], .B = 4, .top_k = 6 + i,
                    .score = i % 5 == 4 ? SSA_SCORE_DOT : SSA_SCORE_SOFTMAX, .seed = 300 + (uint64_t)i };
        check_select(&s, (kind){ .pool = i / 2 % 3, .attend = i % 2 });
        if (i % 4 == 1) check_broken(&s, i & 8 ? INFINITY : NAN, 20, i / 8);
    }
}

/* So many blocks, and heads of a group, that the unit keeps p as halves and looks at those near the best once more:
 * few; or too many, for they repeat or are nearly alike; in shares, and scores so far apart that the maxima of these
 * differ; or for up to 15 queries at a time. */
static void test_near(void)
{
    static const int groups[] = { 16, 9, 12, 15 }, top_k[] = { 16, 5, 25, 24, 2 }, periods[] = { 0, 1500, 40, 0 };
    static const float amps[] = { 1, 0.3f, 0.05f, 4, 2 };
    for (int i = 0; i < 50; i++) {
        int kv = i % 5 == 3 ? 2 : 1, shares = i < 25;
        shape s = { .name = "near the best", .HQ = groups[i % 4] * kv, .H = kv, .D = i % 3 ? 64 : 40,
                    .n_q = 1 + i % (shares ? 5 : 15), .n_kv = shares ? 4100 * kv + 333 * i : 1050 + 50 * i,
                    .q_pos = -1, .tq = i % 6 == 5 ? SSA_F16 : SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16,
                    .amp = amps[i / 2 % 5], .B = 1, .top_k = top_k[i % 5], .sinks = i % 7 == 1,
                    .locals = i % 7 == 2, .seed = 300 + (uint64_t)i };
        kind how = { .pool = POOL_BF16, .period = periods[i / 4 % 4], .attend = s.n_q > 2 };
        if (test_some(i, 4)) check_select(&s, how);
    }
}

/* The score of query head g and a key, for queries that take it from three dims: as exact as a float. */
static void put_score(prob *p, int64_t key, int g, double x)
{
    for (int i = 0; i < 3; i++, x *= 128) {
        uint16_t part;
        type_put(SSA_BF16, &part, x);
        p->k.val[key * p->s.D + g + 16 * i] = type_get(SSA_BF16, &part);
        x -= (double)type_get(SSA_BF16, &part);
    }
}

/* 24 blocks of odd heads are a little below 24 of even heads, of which 15 are to be chosen; but in halves they are 1.5%
 * above them: 1 / l of an odd head rounds up and that of an even one down, by nearly half a unit, and p likewise, or,
 * cut, an even one's by nearly a unit. Scores are 0 for all heads at first, and what is then missing from a head's l
 * comes from keys that it sees alone. l is near `sum`, a power of 2. With p near 256 the three of a head, 16 apart, are
 * below what moves m where they are; put side by side, to be looked at once more, they would move it. */
static void check_halves_in_doubt(int cut, int sum, int high)
{
    const int64_t first = sum - 58 - 3 * high, keys = first + 301;
    const double u = 1.0 / 128, d = 1e-5;
    shape s = { .name = "halves in doubt", .HQ = 16, .H = 1, .D = 64, .DV = 1, .n_q = 1, .n_kv = keys, .q_pos = -1,
                .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .scale = 1, .B = 1, .top_k = 16 };
    int64_t size = (int64_t)ssa_pool_size(1, s.D, 1, keys, SSA_BF16);
    unsigned char *memory = xalloc(size, 1);
    ssa_pool pool;
    prob p;
    prob_make(&p, &s);
    for (int64_t e = 0; e < tensor_count(&p.q); e++) p.q.val[e] = 0;
    for (int64_t e = 0; e < tensor_count(&p.k); e++) p.k.val[e] = 0;
    for (int g = 0; g < 16; g++) {
        const int odd = g % 2;
        const double w = odd ? 1 + 2.5 * u + d : 1 + 1.5 * u - d;             /* 1 / l is w / sum, a unit of it u */
        const double top = high * (cut ? odd ? 1 + d : 1 + u - d : odd ? 1 + 0.5 * u + d : 1 + 1.5 * u - d);
        double left = sum / w - (double)(first + 1) - 3 * top;                /* 1: the own block */
        int64_t key = 0;
        for (int i = 0; i < 3; i++) p.q.val[g * s.D + g + 16 * i] = i == 0 ? 1 : i == 1 ? 1.0f / 128 : 1.0f / 16384;
        for (int64_t k = first; k < keys - 1; k++) put_score(&p, k, g, -30);
        for (int i = 0; i < 3; i++) put_score(&p, first + 16 * i + g, g, log(top));
        for (; left < 0; left++) put_score(&p, 100 + key++, g, -30);
        for (key = first + 50; left > 1; left--) put_score(&p, key++, g, 0);
        put_score(&p, key, g, log(left));
    }
    tensor_store(&p.q);
    tensor_store(&p.k);
    CHECK(ssa_pool_init(&pool, 1, s.D, 1, keys, SSA_BF16, memory, (size_t)size) == SSA_OK, "status");
    CHECK(ssa_pool_append(&pool, &p.a.k, keys) == SSA_OK, "status");
    p.a.pool = &pool;
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        int even = 0;
        prob_clear(&p);
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status");
        for (int i = 0; i < 15; i++)
            even += p.blocks[i] >= first && p.blocks[i] < first + 48 && (p.blocks[i] - first) % 2 == 0;
        CHECK(even == 15 && p.blocks[15] == keys - 1, "%d of the 15 best: %s", even, shape_text(&p.s));
    }
    free(memory);
    prob_free(&p);
}

/* ---- long contexts ----------------------------------------------------------------------------------------------- */
/* Thousands of blocks for few queries: scored in shares. Far apart: scores of dozens, so that the shares' largest
 * differ; with period blocks repeat in other shares, and ties must go to the lower index all the same. */
static void test_long(void)
{
    static const int groups[] = { 1, 16, 4, 20, 5, 40, 3 }, queries[] = { 1, 3, 2, 1, 5 };
    for (int i = 0; i < 28; i++) {
        if (!test_some(i, 11)) continue;
        int32_t k_of[80];
        int g = groups[i % 7], kv = i % 4 == 3 ? 2 : 1, nq = queries[i % 5], b = 1 + i / 7 % 2;
        rng r = { (uint64_t)i, 0 };
        shape s = { .name = "long", .HQ = g * kv, .H = kv, .D = i % 3 ? 32 : 24, .DV = 16, .n_q = nq,
                    .n_kv = b * (4100 * kv * (nq * g > 64 ? 2 : 1) + 37 * i), .q_pos = -1,
                    .tq = types[i % 3], .tk = types[i / 3 % 3], .tv = types[i % 3],
                    .amp = i % 6 > 3 ? 8 : i % 6 == 3 ? 3 : 1, .B = b, .top_k = 3 + i % 17,
                    .per_head = i / 3 % 3 == 2, .score = i % 5 == 4 ? SSA_SCORE_DOT : SSA_SCORE_SOFTMAX,
                    .sinks = i % 8 == 1, .locals = i % 8 == 2, .seed = (uint64_t)i * 50 };
        kind how = { .pool = i % 4 == 3 ? POOL_BF16 : i % 4, .away = s.score && i % 2,
                     .period = i % 3 == 2 ? 1500 + i : 0, .attend = i % 4 == 0 };
        if (!s.score && i % 7 == 3) s.top_p = 0.3f;
        if (i % 7 == 2 && !s.score) {
            s.B = 4;
            s.n_kv = 4 * (4100 * kv + i);
            s.top_k = 3;
            s.sinks = s.locals = 0;
            s.select = SSA_SELECT_REFERENCE;
        }
        if (i % 9 == 4) s.k_of = budgets_for(k_of, lists_of(&s), s.top_k, &s, &r);
        check_select(&s, how);
    }
    for (int i = 0; i < 12; i++) {
        if (!test_some(i, 7)) continue;
        static const float bads[] = { NAN, INFINITY, -INFINITY };
        shape s = { .name = "long, broken", .HQ = groups[i % 4], .H = 1, .D = 16, .n_q = queries[i / 4 % 3],
                    .n_kv = 4300, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3], .tv = types[i % 3], .B = 1,
                    .top_k = 9, .per_head = i / 2 % 2, .score = (ssa_score)(i / 4 % 2), .seed = (uint64_t)i,
                    .amp = i % 2 ? 4 : 1 };                   /* 4: the unit's m lags behind its scores */
        check_broken(&s, bads[i % 3], i % 5 == 4 ? 4299 - s.n_q : i % 5 == 3 ? 40 : 2000,
                     i % 3 ? POOL_BF16 : i / 3 % 2);
    }
}

/* ---- shares ------------------------------------------------------------------------------------------------------ */
/* 8 blocks before the own one, of equal importance: sums of equal numbers are exact, so that a share of n / 8 takes
 * exactly n blocks, the lowest. */
static void test_share(void)
{
    for (int per_head = 0; per_head < 2; per_head++)
        for (int keep = 0; keep < 3; keep++) {               /* sinks, locals */
            shape s = { .name = "share", .HQ = 4, .H = 2, .D = 16, .n_q = 1, .n_kv = 33, .q_pos = -1, .B = 4,
                        .top_k = 9, .per_head = per_head, .sinks = keep, .locals = keep, .seed = 3 };
            prob p;
            prob_make(&p, &s);
            repeat_blocks(&p, 1);
            p.a.blocks = p.blocks;
            FOR_LEVELS(l)
                for (int n = 1; n <= 16; n++) {
                    int wrong = 0, past = (n + 1) / 2 < 2 * keep ? 2 * keep : (n + 1) / 2;
                    p.a.top_p = (float)n / 16;
                    prob_clear(&p);
                    CHECK(ssa_select_blocks(&p.a, NULL) == SSA_OK, "status");
                    for (int64_t e = 0; e < p.n_blocks; e++) {
                        int x = (int)(e % s.top_k), first = past - keep; /* 0 .. first - 1, the locals, the own one */
                        int want = x < first ? x : x < past ? 8 - keep + x - first : x == past ? 8 : -1;
                        wrong += p.blocks[e] != want;
                    }
                    CHECK(wrong == 0, "a share of %d/16 takes %d of 8 blocks: %s", n, past, shape_text(&p.s));
                }
            prob_free(&p);
        }
}

/* ---- the matrix unit --------------------------------------------------------------------------------------------- */
static void test_unit_lists(void)
{
    static const int groups[] = { 1, 3, 4, 16, 20 };
    for (int i = 0; i < 30; i++) {
        int g = groups[i % 5];
        /* f16: fewer blocks are not ranked by the unit */
        shape s = { .name = "unit", .HQ = g, .H = 1, .D = i % 2 ? 64 : 40, .n_q = i % 3 == 2 ? 64 + i : g < 8 ? 33 : 17,
                    .n_kv = (i % 3 == 2 ? 300 : 200) + (i % 2 ? 0 : 600), .q_pos = -1, .tq = types[1 + i % 2],
                    .tk = types[1 + i % 2], .tv = types[1 + i % 2], .B = 16, .top_k = 3 + i % 4,
                    .per_head = i % 4 != 3, .sinks = i / 5 % 2, .top_p = i % 7 == 6 ? 0.6f : 0,
                    .select = i % 7 == 5 ? SSA_SELECT_REFERENCE : SSA_SELECT_TOPK,
                    .seed = (uint64_t)i * 10 };
        if (s.select == SSA_SELECT_REFERENCE) s.sinks = 0;
        check_select(&s, (kind){ .pool = i % 3, .attend = 1 });
        prob p;
        prob_make(&p, &s);
        p.a.blocks = p.blocks;
        FOR_LEVELS(l) {
            int64_t done = unit_products();
            CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "status");
            if (ssa_isa_get() == SSA_ISA_AMX && done >= 0)
                CHECK(unit_products() > done, "the unit has ranked: %s", shape_text(&p.s));
        }
        prob_free(&p);
    }
}

void test_select(void)
{
    test_random();
    test_many();
    test_large_groups();
    test_ties();
    test_far_ties();
    test_moba();
    test_same();
    test_covering();
    test_short();
    test_broken();
    test_long();
    test_near();
    for (int i = 0; i < 6; i++) check_halves_in_doubt(i % 2, i / 2 ? 2048 : 8192, i / 2 == 2 ? 256 : 64);
    test_share();
    test_unit_lists();
}

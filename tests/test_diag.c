/* test_diag.c - ssa_diagnose against the oracle, the paper's Theorem 1, and what its contract says of every field */
#include "oracle.h"

static const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
static const ssa_type all_types[] = { SSA_F32, SSA_F16, SSA_BF16, SSA_Q8_0 };
enum { FIELDS = 4 };
static const char *const field_name[FIELDS] = { "entropy", "sparsity", "delta", "bound" };

/* The four results of a problem, [n_q][HQ] each. */
typedef struct { float *all; ssa_diagnosis d; int64_t n; } result;

static void result_make(result *r, const prob *p)
{
    r->n = p->n_lse;
    r->all = xalloc(FIELDS * r->n, sizeof *r->all);
    r->d = (ssa_diagnosis){ r->all, r->all + r->n, r->all + 2 * r->n, r->all + 3 * r->n };
}
static void result_clear(result *r) { memset(r->all, 0x5A, (size_t)(FIELDS * r->n) * sizeof *r->all); }
static uint64_t result_hash(const result *r)
{
    return bytes_hash(r->all, FIELDS * r->n * (int64_t)sizeof *r->all, 1);
}

/* Terms of the scores, from the seed: some of them; the mask in any type, with holes, NaN past causality. */
typedef struct { float alibi[32], sinks[32]; unsigned char *mask; } terms;

static void terms_make(terms *t, prob *p, uint64_t seed)
{
    static const float caps[] = { 0, 0, 0.3f, 20, 1e6f, 1e30f };
    rng r = { seed + 900, 0 };
    int which = rng_int(&r, 0, 15), kind = rng_int(&r, 0, 3), hq = p->s.HQ;
    ssa_type type = all_types[rng_int(&r, 0, 2)];
    memset(t, 0, sizeof *t);
    p->a.softcap = RNG_PICK(&r, caps);
    for (int h = 0; h < hq; h++) {
        t->alibi[h] = ldexpf(1, -1 - h % 8);
        t->sinks[h] = kind == 3 && h % 2 ? -INFINITY : rng_f(&r) * (kind == 2 ? 90.0f : 3.0f);
    }
    if (which & 1) p->a.alibi = t->alibi;
    if (which & 2) p->a.sinks = t->sinks;
    if (!(which & 4)) return;
    int64_t size = type_size(type), row = p->s.n_kv * size + (which & 8 ? 3 : 0);
    t->mask = xalloc(p->s.n_q * row + 1, 1);
    for (int64_t i = 0; i < p->s.n_q; i++)
        for (int64_t j = 0; j < p->s.n_kv; j++) {
            int hole = rng_int(&r, 0, 3) == 0 || (kind == 1 && i % 3 == 1) || (kind == 2 && j / p->s.B % 2 == 0);
            double x = j > p->q0 + i ? (double)NAN : hole ? -(double)INFINITY : 3 * (double)rng_f(&r);
            if (kind == 3 && i % 4 == 2 && x < 0 && !isinf(x)) x = j % 2 ? -3e38 : -3.3e38;   /* f16: hidden */
            if (kind == 3 && i % 4 == 3 && x < 0 && !isinf(x)) x = -6e4;
            type_put(type, t->mask + i * row + j * size, x);
        }
    p->a.mask = t->mask;
    p->a.mask_type = type;
    p->a.mask_stride = which & 8 ? row : 0;
}

/* The problem's own definition of list for query i and a head. */
static const int32_t *list_of(const prob *p, int64_t i, int h)
{
    int lists = p->s.per_head ? p->s.HQ : p->s.H;
    return p->blocks + (i * lists + (p->s.per_head ? h : h / (p->s.HQ / p->s.H))) * p->s.top_k;
}

/* All fields of all rows against the oracle. Both start from the same floats, so only the end is rounded. Returns how
 * many rows dropped something. */
static int compare(const prob *p, const result *r, int full, const char *text)
{
    double *f = xalloc(p->s.DV, sizeof *f), *s = xalloc(p->s.DV, sizeof *s), worst = 0;
    int bad[FIELDS] = { 0 }, theorem = 0, dropping = 0;
    int32_t *every = xalloc(p->s.n_kv / p->s.B + 1, sizeof *every);
    o_call c;
    o_call_of(&c, p);
    c.scale = (double)(float)c.scale;
    for (int b = 0; b <= p->s.n_kv / p->s.B; b++) every[b] = b;
    for (int64_t i = 0; i < p->s.n_q; i++)
        for (int h = 0; h < p->s.HQ; h++) {
            double x[FIELDS], apart = 0;
            int64_t at = i * p->s.HQ + h;
            if (full) o_diagnose(&c, i, h, every, p->s.n_kv / p->s.B + 1, f, s, x);
            else o_diagnose(&c, i, h, list_of(p, i, h), p->s.top_k, f, s, x);
            for (int k = 0; k < FIELDS; k++)
                bad[k] += !(fabs((double)r->all[k * r->n + at] - x[k]) <= 2e-7 * fabs(x[k]) + (k ? 1e-40 : 1e-12));
            for (int d = 0; d < p->s.DV; d++) apart += (f[d] - s[d]) * (f[d] - s[d]);
            theorem += !(sqrt(apart) <= (double)r->d.bound[at] * (1 + 1e-5) + 1e-13);
            if (x[3] > 0) worst = fmax(worst, sqrt(apart) / x[3]);
            dropping += x[2] > 0;
        }
    for (int k = 0; k < FIELDS; k++)
        CHECK(!bad[k], "%s: %d rows differ from the oracle's: %s", field_name[k], bad[k], text);
    CHECK(!theorem, "Theorem 1: %d rows are farther apart than their bound: %s", theorem, text);
    CHECK(worst <= 1 + 1e-9, "the oracle keeps to Theorem 1: %g: %s", worst, text);
    free(f); free(s); free(every);
    return dropping;
}

/* sparsity is the share that the two lse of real calls give. */
static void compare_lse(prob *p, const result *r, int level, const char *text)
{
    const int rounds = level_rounds(level_at(level), p->s.tq, p->s.tk, p->s.tv);
    float *full = xalloc(p->n_lse, sizeof *full), *share = xalloc(p->n_lse, sizeof *share);
    int bad = 0;
    CHECK(ssa_attention(&p->a, SSA_FULL, &one) == SSA_OK, "full: %s", text);
    memcpy(full, p->lse, (size_t)p->n_lse * sizeof *full);
    CHECK(ssa_attention(&p->a, SSA_SPARSE, &one) == SSA_OK, "sparse: %s", text);
    ssa_attention_sparsity(p->lse, full, p->n_lse, share);
    for (int64_t e = 0; e < p->n_lse; e++)
        bad += !(fabs((double)share[e] - (double)r->d.sparsity[e])
                 <= (rounds ? 2e-2 : 1e-4));
    CHECK(!bad, "%d of %d shares of ssa_attention_sparsity differ: %s", bad, (int)p->n_lse, text);
    free(full); free(share);
}

/* One problem, with what `more` adds: 1 min_context, 2 budget. Returns how many rows dropped something. */
static int check_one(const shape *given, int more)
{
    shape s = *given;
    result r, again;
    terms t;
    prob p;
    int dropping = 0, full = more & 1;
    uint64_t lists, first = 0;
    prob_make(&p, &s);
    terms_make(&t, &p, s.seed);
    result_make(&r, &p);
    result_make(&again, &p);
    const char *text = shape_text(&p.s);
    if (full) p.a.min_context = s.n_kv + 1;
    if (more & 2) { p.a.budget = (int64_t)s.top_k * s.B + s.B / 2; p.a.top_k = 1; }
    if (s.select == SSA_SELECT_GIVEN) { /* any order, holes, duplicates, blocks that are not there */
        rng q = { s.seed + 5, 0 };
        for (int64_t e = 0; e < p.n_blocks; e++) p.blocks[e] = rng_int(&q, -1, s.n_kv / s.B + 1);
    }
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        prob_clear(&p);
        result_clear(&r);
        uint64_t before = bytes_hash(p.o.mem, p.o.mem_bytes, bytes_hash(p.lse, p.n_lse * 4, 1));
        CHECK(ssa_diagnose(&p.a, &r.d, l ? &one : NULL) == SSA_OK, "status: %s", text);
        CHECK(bytes_hash(p.o.mem, p.o.mem_bytes, bytes_hash(p.lse, p.n_lse * 4, 1)) == before,
              "out and lse are left alone: %s", text);
        lists = bytes_hash(p.blocks, p.n_blocks * 4, 1);
        dropping = compare(&p, &r, full, text);
        if (!full) compare_lse(&p, &r, l, text);
        else CHECK(ssa_attention(&p.a, SSA_SPARSE, &one) == SSA_OK, "sparse: %s", text);
        CHECK(bytes_hash(p.blocks, p.n_blocks * 4, 1) == lists, "the lists are those of ssa_attention: %s", text);
        if (s.select == SSA_SELECT_GIVEN) {
            if (l == 0) first = result_hash(&r);
            CHECK(result_hash(&r) == first, "every level gives the same bits: %s", text);
        }
        ssa_attn bare = p.a; /* what it does not look at, and lists that are not wanted */
        if (s.select != SSA_SELECT_GIVEN) bare.blocks = NULL;
        bare.gate = bare.lse = NULL;
        bare.out.data = NULL;
        bare.out.type = SSA_Q8_0;
        result_clear(&again);
        CHECK(ssa_diagnose(&bare, &again.d, &one) == SSA_OK && result_hash(&again) == result_hash(&r),
              "without out, gate, lse, blocks: %s", text);
    }
    free(t.mask); free(r.all); free(again.all);
    prob_free(&p);
    return dropping;
}

static void check_random(void)
{
    static const int groups[] = { 1, 2, 3, 4, 8 }, dims[] = { 1, 5, 16, 24, 32, 64, 96 },
                     sizes[] = { 1, 2, 4, 5, 8, 16 }, queries[] = { 1, 1, 2, 7, 40 };
    int dropping = 0;
    rng r = { 2024, 0 };
    for (int i = 0; i < 240; i++) {
        int g = RNG_PICK(&r, groups), h = rng_int(&r, 1, 3), B = RNG_PICK(&r, sizes), n_q = RNG_PICK(&r, queries);
        shape s = { .name = "random", .HQ = g * h, .H = h, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = n_q, .n_kv = rng_int(&r, n_q, 130), .q_pos = -1, .tq = all_types[rng_int(&r, 0, 2)],
                    .tk = RNG_PICK(&r, all_types), .tv = RNG_PICK(&r, all_types), .lay = (layout)rng_int(&r, 0, 5),
                    .scale = i % 4 ? 0 : -0.3f, .amp = i % 3 ? 1 : 4, .B = B, .top_k = rng_int(&r, 1, 6),
                    .seed = (uint64_t)(i * 20) };
        int32_t of[32];
        if (s.D % 32 && s.tk == SSA_Q8_0) s.D = 32;
        if (s.DV % 32 && s.tv == SSA_Q8_0) s.DV = 64;
        if (i % 7 == 3) s.q_pos = rng_int(&r, 0, s.n_kv - n_q);              /* keys after the last query */
        if (i % 9 == 4) s.per_head = 1;
        for (int k = 0; k < 32; k++) of[k] = rng_int(&r, 1, s.top_k);
        switch (i % 6) {
        case 1: s.select = SSA_SELECT_GIVEN; break;
        case 2: if (B >= 2 && (B & (B - 1)) == 0 && s.top_k <= B) s.select = SSA_SELECT_REFERENCE; break;
        case 3: s.score = SSA_SCORE_DOT; s.k_of = of; break;
        case 4: s.top_p = 0.6f; break;
        case 5: if (s.top_k > 2) s.sinks = s.locals = 1; break;
        default: break;
        }
        dropping += check_one(&s, i % 11 == 5 ? 1 : i % 5 == 2 ? 2 : 0);
    }
    CHECK(dropping > 3000, "only %d rows dropped anything", dropping);
    shape early = { .name = "queries before the first key", .HQ = 4, .H = 2, .D = 8, .n_q = 9, .n_kv = 5, .q_pos = -1,
                    .B = 2, .top_k = 1 };
    check_one(&early, 0);
    early.n_q = 0;
    check_one(&early, 0);
    shape prefill = { .name = "prefill in halves", .HQ = 8, .H = 1, .D = 32, .n_q = 90, .n_kv = 200, .q_pos = -1,
                      .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16, .top_k = 3 };
    check_one(&prefill, 0);
    prefill.name = "shares of the keys"; prefill.n_q = 1; prefill.n_kv = 3000; prefill.top_k = 100;
    check_one(&prefill, 0);
}

/* ---- known answers ----------------------------------------------------------------------------------------------- */
static void check_known(void)
{
    shape s = { .name = "known", .HQ = 6, .H = 2, .D = 16, .n_q = 50, .n_kv = 50, .q_pos = -1, .B = 4, .top_k = 13 };
    result r;
    prob p;
    prob_make(&p, &s);
    result_make(&r, &p);
    int kept = 1, even = 1, far = 1;
    CHECK(ssa_diagnose(&p.a, &r.d, &one) == SSA_OK, "a budget of all blocks");
    for (int64_t e = 0; e < r.n; e++) kept &= r.d.sparsity[e] == 1 && r.d.delta[e] == 0 && r.d.bound[e] == 0;
    CHECK(kept, "a budget of all blocks drops nothing");
    p.a.top_k = 2;
    for (int64_t e = 0; e < tensor_count(&p.k); e++) p.k.val[e] = 0.5f;
    tensor_store(&p.k);
    CHECK(ssa_diagnose(&p.a, &r.d, &one) == SSA_OK, "equal keys");
    for (int64_t e = 0; e < r.n; e++) { /* a query at i sees i + 1 keys, and attends its block and a whole one */
        int64_t n = e / s.HQ + 1, in = n <= 8 ? n : 4 + (n - 1) % 4 + 1;
        even &= fabs((double)r.d.entropy[e] - log((double)n)) <= 1e-6;
        even &= fabs((double)r.d.sparsity[e] - (double)in / (double)n) <= 1e-7;
        even &= fabs((double)r.d.delta[e] - (double)(n - in) / (double)n) <= 1e-7;
    }
    CHECK(even, "equal keys have the entropy log n, and blocks their share of keys");
    /* a share too small to be told from 1 - sparsity; all that is inside too small to be told from nothing */
    p.a.n_q = 1; p.a.q_pos = 49; p.a.top_k = 1; p.a.select = SSA_SELECT_GIVEN; p.a.blocks = p.blocks;
    p.a.scale = 1;
    p.blocks[0] = p.blocks[1] = 12;                          /* keys 48 and 49 */
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int64_t e = 0; e < tensor_count(&p.q); e++) p.q.val[e] = 1;
        for (int64_t e = 0; e < tensor_count(&p.k); e++)
            p.k.val[e] = e / (s.H * s.D) < 48 ? 0 : (float)sign * 900.0f / 16 / (sign > 0 ? 20 : 1);
        for (int64_t e = 0; e < tensor_count(&p.v); e++) p.v.val[e] = e / (s.H * s.D) < 48 ? 1 : 3;
        tensor_store(&p.q); tensor_store(&p.k); tensor_store(&p.v);
        CHECK(ssa_diagnose(&p.a, &r.d, &one) == SSA_OK, "extreme scores");
        double delta = sign > 0 ? 24 * exp(-45) : 1;
        for (int h = 0; h < s.HQ; h++) { /* |v| is 4 outside, |s| is 12 */
            far &= fabs((double)r.d.delta[h] - delta) <= 1e-6 * delta;
            far &= r.d.sparsity[h] == (sign > 0 ? 1.0f : 0.0f);
            far &= fabs((double)r.d.bound[h] - delta * 16) <= 1e-6 * delta * 16;
        }
    }
    CHECK(far, "delta 2e-18 keeps its digits; a sparse output of weight exp(-900) counts in the bound");
    free(r.all);
    prob_free(&p);
}

/* What is out of sight may hold anything; what is seen and not finite shows. */
static void check_spoilt(void)
{
    shape s = { .name = "spoilt", .HQ = 4, .H = 2, .D = 8, .n_q = 6, .n_kv = 60, .q_pos = 30, .B = 4, .top_k = 2,
                .select = SSA_SELECT_GIVEN };
    float *mask = xalloc(6 * 60, sizeof *mask), sinks[4] = { 0, NAN, 0, INFINITY };
    result r;
    prob p;
    prob_make(&p, &s);
    result_make(&r, &p);
    for (int64_t e = 0; e < p.n_blocks; e++) p.blocks[e] = (int32_t)(e % 7);
    for (int i = 0; i < 6; i++) mask[i * 60 + 3] = mask[i * 60 + 17] = -INFINITY;
    p.a.blocks = p.blocks; p.a.mask = mask;
    FOR_LEVELS(l) {
        prob_fill(&p, 1);
        CHECK(ssa_diagnose(&p.a, &r.d, &one) == SSA_OK, "status");
        uint64_t want = result_hash(&r);
        for (int j = 0; j < s.n_kv; j++)
            for (int e = 0; (j == 3 || j == 17 || j > 35) && e < s.H * s.D; e++)
                p.k.val[j * s.H * s.D + e] = p.v.val[j * s.H * s.D + e] = (float)(j % 2 ? NAN : INFINITY);
        tensor_store(&p.k); tensor_store(&p.v);
        CHECK(ssa_diagnose(&p.a, &r.d, &one) == SSA_OK && result_hash(&r) == want, "out of sight");
        prob_fill(&p, 1);
        p.v.val[20 * s.H * s.D + 3] = INFINITY;              /* of head 0 */
        p.k.val[(34 * s.H + 1) * s.D] = NAN;                 /* of head 1, for queries 4 and 5 */
        tensor_store(&p.k); tensor_store(&p.v);
        int good = ssa_diagnose(&p.a, &r.d, &one) == SSA_OK;
        for (int64_t e = 0; e < r.n; e++)
            for (int k = 0; k < FIELDS; k++)
                good &= isnan(r.all[k * r.n + e]) == (e % 4 < 2 ? k == 3 : e / 4 >= 4);
        CHECK(good, "a value spoils its heads' bounds, a score all of its queries'");
        prob_fill(&p, 1);                                    /* a score of -infinity, finite ones before and after */
        for (int64_t e = 0; e < 6 * 4; e++) p.q.val[e * s.D] = 1;
        p.k.val[(20 * s.H + 1) * s.D] = -INFINITY;           /* of head 1 */
        tensor_store(&p.q); tensor_store(&p.k);
        good = ssa_diagnose(&p.a, &r.d, &one) == SSA_OK;
        for (int64_t e = 0; e < FIELDS * r.n; e++) good &= isnan(r.all[e]) == (e % 4 >= 2);
        CHECK(good, "an infinite score spoils its queries");
        prob_fill(&p, 1);
        p.a.sinks = sinks;
        good = ssa_diagnose(&p.a, &r.d, &one) == SSA_OK;
        for (int64_t e = 0; e < r.n; e++) good &= isnan(r.d.entropy[e]) == e % 2;
        CHECK(good, "a sink spoils its head");
        p.a.sinks = NULL;
        mask[2 * 60 + 31] = mask[4 * 60 + 2] = (float)(l ? NAN : INFINITY);
        good = ssa_diagnose(&p.a, &r.d, &one) == SSA_OK;
        for (int64_t e = 0; e < FIELDS * r.n; e++) good &= isnan(r.all[e]) == (e % r.n / 4 == 2 || e % r.n / 4 == 4);
        CHECK(good, "a mask spoils its queries");
        mask[2 * 60 + 31] = mask[4 * 60 + 2] = 0;
    }
    free(mask); free(r.all);
    prob_free(&p);
}

/* A cache in pages, the last first, is the contiguous one; workspace and results fit exactly; threads do not matter. */
static void check_places(void)
{
    shape s = { .name = "places", .HQ = 4, .H = 2, .D = 32, .n_q = 5, .n_kv = 80, .q_pos = -1, .tk = SSA_Q8_0,
                .tv = SSA_F16, .B = 8, .top_k = 3 };
    int32_t pages[5] = { 4, 3, 2, 1, 0 };
    result r;
    guard ws, out[FIELDS];
    prob p;
    prob_make(&p, &s);
    result_make(&r, &p);
    int64_t bytes = r.n * (int64_t)sizeof(float), page_k = 16 * s.H * row_bytes(s.tk, s.D),
            page_v = 16 * s.H * row_bytes(s.tv, s.D);
    unsigned char *k = xalloc(5 * page_k, 1), *v = xalloc(5 * page_v, 1);
    for (int i = 0; i < 5; i++) {
        memcpy(k + (4 - i) * page_k, (unsigned char *)p.k.view.data + i * page_k, (size_t)page_k);
        memcpy(v + (4 - i) * page_v, (unsigned char *)p.v.view.data + i * page_v, (size_t)page_v);
    }
    for (int f = 0; f < FIELDS; f++) guard_make(&out[f], bytes);
    guard_make(&ws, 1 << 20);
    FOR_LEVELS(l) {
        result_clear(&r);
        CHECK(ssa_diagnose(&p.a, &r.d, &one) == SSA_OK, "contiguous");
        uint64_t want = result_hash(&r);
        ssa_attn a = p.a;
        a.k.data = k; a.v.data = v;
        a.pages = pages; a.page_tokens = 16;
        result_clear(&r);
        CHECK(ssa_diagnose(&a, &r.d, &one) == SSA_OK && result_hash(&r) == want, "pages");
        size_t size = ssa_workspace_size(&p.a, 1, SSA_SPARSE, 1);
        for (int which = 0; which < 16; which++) { /* any of the four; a workspace for one thread, asked for three */
            float *at[FIELDS];
            ssa_exec x = { 3, NULL, NULL, guard_at(&ws, (int64_t)size, which % 2), size };
            for (int f = 0; f < FIELDS; f++) at[f] = which >> f & 1 ? guard_at(&out[f], bytes, which % 3 > 0) : NULL;
            ssa_diagnosis d = { at[0], at[1], at[2], at[3] };
            int same = ssa_diagnose(&p.a, &d, &x) == SSA_OK;
            for (int f = 0; f < FIELDS; f++) same &= !at[f] || !memcmp(at[f], r.all + f * r.n, (size_t)bytes);
            CHECK(same, "results %d in exact memory", which);
            x.workspace_size--;
            if (at[0]) memset(at[0], 0x11, (size_t)bytes);
            CHECK(ssa_diagnose(&p.a, &d, &x) == SSA_ERR_WORKSPACE && (!at[0] || (at[0][0] > 0 && at[0][0] < 1e-27f)),
                  "a byte too few");
        }
    }
    ssa_exec x = { -1, NULL, NULL, NULL, 0 };
    result_clear(&r);
    uint64_t clean = result_hash(&r);
    CHECK(ssa_diagnose(NULL, &r.d, NULL) == SSA_ERR_NULL && ssa_diagnose(&p.a, NULL, NULL) == SSA_ERR_NULL
              && ssa_diagnose(&p.a, &r.d, &x) == SSA_ERR_THREADS,
          "NULL, threads");
    p.a.window = 5;
    CHECK(ssa_diagnose(&p.a, &r.d, NULL) == SSA_ERR_WINDOW && result_hash(&r) == clean, "a window is full attention's");
    for (int f = 0; f < FIELDS; f++) guard_free(&out[f]);
    guard_free(&ws);
    free(k); free(v); free(r.all);
    prob_free(&p);
}

void test_diag(void)
{
    check_random();
    check_known();
    check_spoilt();
    check_places();
}

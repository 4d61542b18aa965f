/* test_terms.c - what a call may add to its scores: window, softcap, ALiBi, mask, sinks, in any combination, against
 * the oracle by the 2x rule; and what each must leave alone */
#include "oracle.h"

static const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };

/* ---- calls with terms -------------------------------------------------------------------------------------------- */
typedef enum { NO_MASK, NOISE, HOLES, ROWS, ZEROS, LOW, MASKS } mask_kind;
typedef struct {
    int       window, alibi, sinks;   /* sinks: 1 small ones, 2 large, 3 some of -infinity */
    float     softcap;
    mask_kind mask;
    ssa_type  mask_type;
    int       mask_gap;               /* bytes between the rows of the mask; odd ones too */
} terms;

typedef struct { float *alibi, *sinks; unsigned char *mask; int64_t row, bytes; } arrays;

static const char *terms_text(const shape *s, const terms *t)
{
    static char text[480];
    snprintf(text, sizeof text, "window %d softcap %g alibi %d sinks %d mask %d %s +%d: %s", t->window,
             (double)t->softcap, t->alibi, t->sinks, (int)t->mask, type_name(t->mask_type), t->mask_gap,
             shape_text(s));
    return text;
}

/* Whether query i of the problem sees key j, blocks aside. */
static int sees(const prob *p, int64_t i, int64_t j)
{
    int64_t at = p->q0 + i, stride = p->a.mask_stride;
    if (p->a.causal && j > at) return 0;
    if (p->a.window > 0 && at - j >= p->a.window) return 0;
    if (!p->a.mask) return 1;
    if (stride == 0) stride = p->s.n_kv * type_size(p->a.mask_type);
    float x = type_get(p->a.mask_type,
                       (const char *)p->a.mask + i * stride + j * type_size(p->a.mask_type));
    return !(isinf(x) && x < 0);
}

/* The mask's number for query i and key j. What causality or the window hide is NaN: nobody may look. */
static float mask_value(const prob *p, const terms *t, rng *r, int64_t i, int64_t j)
{
    int64_t at = p->q0 + i;
    float noise = rng_f(r) * 3;
    int hole = rng_int(r, 0, 9);
    if (p->a.causal && (j > at || (t->window > 0 && at - j >= t->window))) return NAN;
    switch (t->mask) {
    case HOLES: return hole < 4 || (j / 16 + i) % 3 == 1 ? -INFINITY : noise;
    case ROWS:  return i % 3 == 1 || j % 64 < 40 ? -INFINITY : noise;
    case LOW:   return i % 3 == 1 ? -3e38f : hole < 4 ? -3.3e38f : noise;
    case ZEROS: return 0;
    default:    return noise;
    }
}

static void add_terms(prob *p, const terms *t, arrays *x, uint64_t seed)
{
    rng r = { seed + 77, 0 };
    int size = type_size(t->mask_type), hq = p->s.HQ;
    x->alibi = xalloc(hq, sizeof(float));
    x->sinks = xalloc(hq, sizeof(float));
    for (int h = 0; h < hq; h++) {
        x->alibi[h] = ldexpf(1 + 0.25f * rng_f(&r), -1 - h % 8) * (h % 5 == 4 ? -0.01f : 1);
        x->sinks[h] = rng_f(&r) * (t->sinks == 2 ? 90.0f : 2.0f);
        if (t->sinks == 3 && h % 2 == 0) x->sinks[h] = -INFINITY;
    }
    p->a.window = t->window; p->a.softcap = t->softcap;
    p->a.alibi = t->alibi ? x->alibi : NULL;
    p->a.sinks = t->sinks ? x->sinks : NULL;
    x->row = p->s.n_kv * (int64_t)size + t->mask_gap;
    x->bytes = p->s.n_q > 0 ? (p->s.n_q - 1) * x->row + p->s.n_kv * (int64_t)size : 0;
    x->mask = xalloc(x->bytes + 1, 1);
    if (t->mask == NO_MASK) return;
    for (int64_t i = 0; i < p->s.n_q; i++)
        for (int64_t j = 0; j < p->s.n_kv; j++) {
            float v = mask_value(p, t, &r, i, j);
            if (t->mask_type == SSA_F16 && isfinite(v) && v < -60000) v = -60000;
            type_put(t->mask_type, x->mask + i * x->row + j * size, (double)v);
        }
    p->a.mask = x->mask;
    p->a.mask_type = t->mask_type;
    p->a.mask_stride = t->mask_gap ? x->row : 0;
}
static void free_terms(arrays *x) { free(x->alibi); free(x->sinks); free(x->mask); }

/* What one thread gave is what 2, 3 and 5 workers give. */
static int same_by_all(prob *p, ssa_mode mode)
{
    uint64_t want = prob_hash(p);
    int same = 1;
    for (int nth = 2; nth <= 5; nth += nth < 3 ? 1 : 2) {
        ssa_plan plan;
        size_t size = ssa_workspace_size(&p->a, 1, mode, nth);
        void *ws = xalloc((int64_t)size, 1);
        prob_clear(p);
        same &= ssa_plan_make(&plan, &p->a, 1, mode, nth, ws, size) == SSA_OK;
        for (int phase = 0; same && phase < ssa_plan_phases(&plan); phase++)
            for (int i = 0; i < nth; i++) ssa_plan_run(&plan, phase, i, nth);
        same &= prob_hash(p) == want;
        free(ws);
    }
    return same;
}

/* ---- the 2x rule ------------------------------------------------------------------------------------------------- */
static void check_terms(const shape *s, const terms *t, ssa_mode mode)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r = { 0 };
    arrays x;
    prob p;
    prob_make(&p, s);
    add_terms(&p, t, &x, s->seed);
    if (mode == SSA_SPARSE) p.a.blocks = p.blocks;
    int64_t size = p.n_blocks * (int64_t)sizeof(int32_t),
            span = mode == SSA_SPARSE ? (int64_t)p.s.B * p.s.top_k : t->window ? t->window + p.s.n_q : p.s.n_kv;
    if (span > p.s.n_kv) span = p.s.n_kv;
    int reps = two_x_reps(p.n_lse, p.n_lse * span * (p.s.D + p.s.DV)), ok = 1, gaps = 1, same = 1;
    int32_t *before = xalloc(p.n_blocks, sizeof *before);
    const char *text = terms_text(&p.s, t);
    for (int rep = 0; rep < reps; rep++) {
        if (rep) { /* the terms too: their rounding is part of the measure */
            prob_refill(&p, s->seed + 100 + 10 * (uint64_t)rep);
            free_terms(&x);
            add_terms(&p, t, &x, s->seed + 100 + 10 * (uint64_t)rep);
        }
        FOR_LEVELS(l) {
            prob_clear(&p);
            ok &= ssa_attention(&p.a, mode, rep || l ? &one : NULL) == SSA_OK;
            gaps &= tensor_gaps_ok(&p.o);
            if (l == 0 || (mode == SSA_SPARSE && memcmp(before, p.blocks, (size_t)size))) {
                if (l) o_result_free(&r);
                o_solve(&p, mode == SSA_SPARSE ? p.blocks : NULL, &r, &out, &lse);
                memcpy(before, p.blocks, (size_t)size);
            }
            o_compare(&p, &r, l, &out, &lse);
            for (int64_t i = 0; i < p.n_lse; i++) /* a query that sees nothing: 0, and the sink alone */
                for (int d = 0; p.a.lse && isinf(r.lse[i]) && d < p.s.DV; d++) ok &= p.o.val[i * p.s.DV + d] == 0;
            if (rep == 0) same &= same_by_all(&p, mode);
        }
        o_result_free(&r);
    }
    CHECK(ok, "status, nothing seen is 0: %s", text);
    CHECK(gaps, "bytes between and around the rows of out are untouched: %s", text);
    CHECK(same, "the same bits by 1, 2, 3 and 5 workers: %s", text);
    two_x_check(&out, p.s.to, "out", text, __FILE__, __LINE__);
    if (p.a.lse) two_x_check(&lse, SSA_F32, "lse", text, __FILE__, __LINE__);
    free(before);
    free_terms(&x);
    prob_free(&p);
}

static terms random_terms(rng *r, const shape *s, ssa_mode mode)
{
    static const float caps[] = { 0, 0, 0.3f, 2, 30, 50, 1e6f };
    static const int windows[] = { 0, 0, 1, 2, 5, 16, 31, 64, 100, 333 };
    terms t = { .softcap = RNG_PICK(r, caps), .alibi = rng_int(r, 0, 1), .sinks = rng_int(r, 0, 3),
                .mask = (mask_kind)rng_int(r, 0, LOW - 1), .mask_type = RNG_PICK(r, types) };
    if (t.mask && rng_int(r, 0, 1)) t.mask_gap = rng_int(r, 1, 9);
    if (mode == SSA_FULL && !s->noncausal) t.window = RNG_PICK(r, windows);
    return t;
}

/* ---- keys out of sight ------------------------------------------------------------------------------------------- */
/* Puts what is not finite, or just large, into some keys, or values, or both. Queries that see none of them keep every
 * bit; those that see a broken value are not finite, in all of its dims. */
static void check_hidden(const shape *s, const terms *t, ssa_mode mode)
{
    static const float bads[] = { NAN, INFINITY, -INFINITY, 40 };
    arrays x;
    prob p;
    prob_make(&p, s);
    add_terms(&p, t, &x, s->seed);
    if (mode == SSA_SPARSE) {
        p.a.blocks = p.blocks;
        CHECK(ssa_select_blocks(&p.a, &one) == SSA_OK, "select: %s", terms_text(s, t));
        p.a.select = p.s.select = SSA_SELECT_GIVEN;
    }
    int64_t row = (int64_t)s->HQ * p.s.DV;
    float *want = xalloc(s->n_q * row, sizeof *want), *lse = xalloc(p.n_lse, sizeof *lse);
    char *broken = xalloc(s->n_kv, 1);
    rng r = { s->seed + 5, 0 };
    int G = s->HQ / s->H;
    FOR_LEVELS(l)
        for (int what = 0; what < 12; what++) { /* keys, values, both; a few, many, one, all that no query sees */
            int64_t moved = 0, spared = 0, kept = 0, few = what / 3;
            int k = what % 3 != 1, v = what % 3 != 0, every = few == 0 ? 20 : few == 1 ? 3 : s->n_kv;
            float bad = bads[rng_int(&r, 0, 3)];
            prob_fill(&p, s->seed);
            prob_clear(&p);
            CHECK(ssa_attention(&p.a, mode, &one) == SSA_OK, "status: %s", terms_text(s, t));
            tensor_load(&p.o);
            memcpy(want, p.o.val, (size_t)(s->n_q * row) * sizeof *want);
            memcpy(lse, p.lse, (size_t)p.n_lse * sizeof *lse);
            for (int64_t j = 0; j < s->n_kv; j++) {
                broken[j] = rng_int(&r, 0, every - 1) == 0;
                if (few == 3) {
                    broken[j] = 1;
                    for (int64_t i = 0; i < s->n_q; i++) broken[j] = broken[j] && !sees(&p, i, j);
                }
                for (int h = 0; broken[j] && h < s->H; h++) {
                    for (int d = 0; k && d < p.s.D; d++)
                        p.k.val[(j * s->H + h) * p.s.D + d] = isfinite(bad) ? rng_f(&r) * bad : bad;
                    for (int d = 0; v && d < p.s.DV; d++) p.v.val[(j * s->H + h) * p.s.DV + d] = bad;
                }
            }
            tensor_store(&p.k);
            tensor_store(&p.v);
            prob_clear(&p);
            CHECK(ssa_attention(&p.a, mode, &one) == SSA_OK, "status: %s", terms_text(s, t));
            tensor_load(&p.o);
            for (int64_t i = 0; i < s->n_q; i++)
                for (int h = 0; h < s->HQ; h++) {
                    const int32_t *list = p.blocks + (i * s->H + h / G) * p.s.top_k;
                    int64_t at = i * s->HQ + h;
                    int hit = 0;
                    for (int64_t j = 0; j < s->n_kv && !hit; j++) {
                        int listed = mode == SSA_FULL;
                        if (!broken[j] || !sees(&p, i, j)) continue;
                        for (int e = 0; e < p.s.top_k && !listed; e++) listed |= list[e] == j / p.s.B;
                        hit |= listed;
                    }
                    if (!hit) {
                        kept++;
                        moved += memcmp(want + at * p.s.DV, p.o.val + at * p.s.DV, (size_t)p.s.DV * 4) != 0
                                 || memcmp(&lse[at], &p.lse[at], 4) != 0;
                    }
                    for (int d = 0; hit && !isfinite(bad) && (v || isnan(bad)) && d < p.s.DV; d++)
                        spared += isfinite(p.o.val[at * p.s.DV + d]) != 0;
                }
            CHECK(moved == 0, "%d of %d rows that see no broken key or value moved, %g, %d: %s", (int)moved, (int)kept,
                  (double)bad, what, terms_text(s, t));
            CHECK(spared == 0, "%d numbers that a broken key or value should have spoilt, %g, %d: %s", (int)spared,
                  (double)bad, what, terms_text(s, t));
        }
    free(want); free(lse); free(broken);
    free_terms(&x);
    prob_free(&p);
}

/* A batch on one worker: a call whose hidden values are NaN leaves nothing behind for the next, which has no terms. */
static void check_after_hidden(const shape *s, ssa_mode mode)
{
    terms t = { .mask = HOLES };
    arrays x;
    prob p;
    prob_make(&p, s);
    add_terms(&p, &t, &x, s->seed);
    int64_t row = (int64_t)s->HQ * p.s.DV, size = s->n_q * row;
    float *want = xalloc(size, sizeof *want), *got = xalloc(size, sizeof *got);
    for (int64_t j = 0; j < s->n_kv; j += 3)
        for (int d = 0; d < s->H * p.s.DV; d++) p.v.val[j * s->H * p.s.DV + d] = NAN;
    tensor_store(&p.v);
    FOR_LEVELS(l) {
        ssa_attn two[2] = { p.a, p.a };
        two[1].mask = NULL;
        two[1].lse = NULL;
        two[1].out = (ssa_view){ want, SSA_F32, 0, 0 };
        CHECK(ssa_attention(two + 1, mode, &one) == SSA_OK, "status: %s", terms_text(s, &t));
        two[1].out.data = got;
        CHECK(ssa_attention_batch(two, 2, mode, &one) == SSA_OK, "status: %s", terms_text(s, &t));
        CHECK(memcmp(want, got, (size_t)size * sizeof *want) == 0, "a call after one with a mask: %s",
              terms_text(s, &t));
    }
    free(want); free(got);
    free_terms(&x);
    prob_free(&p);
}

/* NaN in a mask spoils the query that it belongs to and no other; +infinity likewise. */
static void check_broken_mask(const shape *s, ssa_mode mode)
{
    terms t = { .mask = NOISE, .mask_gap = 4 };
    arrays x;
    prob p;
    prob_make(&p, s);
    add_terms(&p, &t, &x, 3);
    int64_t row = (int64_t)s->HQ * p.s.DV, at = s->n_q / 2, key = p.q0 + at;     /* the query's own key */
    float *want = xalloc(s->n_q * row, sizeof *want), bads[2] = { NAN, INFINITY };
    FOR_LEVELS(l)
        for (int b = 0; b < 2; b++) {
            int same = 1, spoilt = 1;
            float was;
            CHECK(ssa_attention(&p.a, mode, &one) == SSA_OK, "status: %s", terms_text(s, &t));
            tensor_load(&p.o);
            memcpy(want, p.o.val, (size_t)(s->n_q * row) * 4);
            memcpy(&was, x.mask + at * x.row + key * 4, 4);
            memcpy(x.mask + at * x.row + key * 4, &bads[b], 4);
            CHECK(ssa_attention(&p.a, mode, &one) == SSA_OK, "status: %s", terms_text(s, &t));
            memcpy(x.mask + at * x.row + key * 4, &was, 4);
            tensor_load(&p.o);
            for (int64_t i = 0; i < s->n_q; i++)
                for (int64_t e = 0; e < row; e++) {
                    float got = p.o.val[i * row + e];
                    if (i == at) spoilt &= isnan(got) != 0;
                    else same &= memcmp(&got, &want[i * row + e], 4) == 0;
                }
            CHECK(same && spoilt, "%g in a mask spoils its query, %d, and no other, %d: %s", (double)bads[b], spoilt,
                  same, terms_text(s, &t));
        }
    free(want);
    free_terms(&x);
    prob_free(&p);
}

/* ---- what is the same thing said in two ways --------------------------------------------------------------------- */
/* The call against another problem's oracle. */
static void check_as(prob *p, const prob *like, const char *what)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r;
    o_solve(like, NULL, &r, &out, &lse);
    FOR_LEVELS(l) {
        prob_clear(p);
        CHECK(ssa_attention(&p->a, SSA_FULL, NULL) == SSA_OK, "status: %s", what);
        o_compare(p, &r, l, &out, &lse);
    }
    two_x_check(&out, p->s.to, what, shape_text(&p->s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, what, shape_text(&p->s), __FILE__, __LINE__);
    o_result_free(&r);
}

static void check_equivalents(const shape *s)
{
    terms zeros = { .mask = ZEROS, .mask_type = SSA_BF16 };
    arrays x;
    prob p, plain;
    prob_make(&p, s);
    prob_make(&plain, s);
    FOR_LEVELS(l) { /* a window that hides nothing: every bit is the same */
        static const int64_t more[] = { 0, 1, 1000, INT64_MAX / 2 };
        prob_clear(&plain);
        CHECK(ssa_attention(&plain.a, SSA_FULL, &one) == SSA_OK, "plain: %s", shape_text(s));
        for (int i = 0; i < COUNT(more); i++) {
            prob_clear(&p);
            p.a.window = p.q0 + s->n_q + more[i];
            CHECK(ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK && prob_hash(&p) == prob_hash(&plain),
                  "a window of all keys and %d is none: %s", (int)i, shape_text(s));
        }
        float none[64];
        for (int h = 0; h < 64; h++) none[h] = -INFINITY;
        p.a.window = 0;
        p.a.sinks = none;
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_FULL, &one) == SSA_OK && prob_hash(&p) == prob_hash(&plain),
              "sinks of -infinity are none: %s", shape_text(s));
        p.a.sinks = NULL;
    }
    add_terms(&p, &zeros, &x, 1);
    check_as(&p, &plain, "a mask of zeros is none");
    free_terms(&x);

    /* The causal edge, or a window, as a mask of a call without. */
    for (int w = 0; w <= 40; w += 20) {
        float *mask = xalloc((int64_t)s->n_q * s->n_kv, sizeof *mask);
        plain.a.window = w;
        for (int64_t i = 0; i < s->n_q; i++)
            for (int64_t j = 0; j < s->n_kv; j++) mask[i * s->n_kv + j] = sees(&plain, i, j) ? 0 : -INFINITY;
        p.a.mask = mask; p.a.mask_type = SSA_F32; p.a.mask_stride = 0; p.a.causal = 0;
        check_as(&p, &plain, w ? "a window's mask" : "a causal mask");
        free(mask);
    }
    prob_free(&p);
    prob_free(&plain);
}

/* A window of 1: every query returns its own value, times the gate; lse is its own score. */
static void check_own_key(const shape *s)
{
    prob p;
    prob_make(&p, s);
    p.a.window = 1;
    p.a.gate = NULL;
    FOR_LEVELS(l) {
        double worst = 0;
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, SSA_FULL, NULL) == SSA_OK, "status");
        tensor_load(&p.o);
        for (int64_t i = 0; i < s->n_q; i++)
            for (int h = 0; h < s->HQ; h++)
                for (int d = 0; d < p.s.DV; d++) {
                    float want = p.v.val[((p.q0 + i) * s->H + h / (s->HQ / s->H)) * p.s.DV + d];
                    double off = fabs((double)p.o.val[(i * s->HQ + h) * p.s.DV + d] - (double)want);
                    if (!(off <= worst)) worst = off;
                }
        CHECK(worst <= 2e-7, "a window of 1 returns the own value, off by %g: %s", worst, shape_text(s));
    }
    prob_free(&p);
}

/* A decode with a window is the call on these keys alone, bit for bit; and keys before it are not read. */
static void check_window_decode(const shape *s, int window)
{
    int64_t from = s->n_kv - window;
    guard k, v;
    prob p;
    prob_make(&p, s);
    guard_make(&k, p.k.span - from * p.k.ts);
    guard_make(&v, p.v.span - from * p.v.ts);
    memcpy(guard_at(&k, p.k.span - from * p.k.ts, 0), (char *)p.k.view.data + from * p.k.ts,
           (size_t)(p.k.span - from * p.k.ts));
    memcpy(guard_at(&v, p.v.span - from * p.v.ts, 0), (char *)p.v.view.data + from * p.v.ts,
           (size_t)(p.v.span - from * p.v.ts));
    FOR_LEVELS(l)
        for (int nth = 1; nth <= 4; nth += 3) {
            ssa_exec x = { nth, NULL, NULL, NULL, 0 };
            ssa_attn a = p.a;
            a.k.data = (void *)((uintptr_t)k.base - (uintptr_t)(from * p.k.ts));
            a.v.data = (void *)((uintptr_t)v.base - (uintptr_t)(from * p.v.ts));
            a.window = window;
            prob_clear(&p);
            CHECK(ssa_attention(&a, SSA_FULL, &x) == SSA_OK, "status");
            uint64_t got = prob_hash(&p);
            a.k.data = k.base;
            a.v.data = v.base;
            a.n_kv = window;
            a.window = 0;
            prob_clear(&p);
            CHECK(ssa_attention(&a, SSA_FULL, &x) == SSA_OK && prob_hash(&p) == got,
                  "a decode with a window of %d is the call on its keys: %s", window, shape_text(s));
        }
    guard_free(&k); guard_free(&v);
    prob_free(&p);
}

/* A sink is a key of zero value: q's element 0 is 1, that of the keys 0, and the key more has the sink there. */
static void check_virtual_key(const shape *s, float sink)
{
    shape more = *s;
    float sinks[64];
    prob p, like;
    more.n_kv++;
    more.noncausal = 1;
    prob_make(&p, &more);
    prob_make(&like, &more);
    for (int64_t e = 0; e < tensor_count(&p.q); e += p.s.D) p.q.val[e] = 1;
    for (int64_t e = 0; e < tensor_count(&p.k); e += p.s.D) p.k.val[e] = 0;
    for (int64_t e = (int64_t)s->n_kv * s->H * p.s.D; e < tensor_count(&p.k); e++)
        p.k.val[e] = e % p.s.D ? 0 : sink / p.s.scale;
    for (int64_t e = (int64_t)s->n_kv * s->H * p.s.DV; e < tensor_count(&p.v); e++) p.v.val[e] = 0;
    tensor_store(&p.q); tensor_store(&p.k); tensor_store(&p.v);
    memcpy(like.q.val, p.q.val, (size_t)tensor_count(&p.q) * 4);
    memcpy(like.k.val, p.k.val, (size_t)tensor_count(&p.k) * 4);
    memcpy(like.v.val, p.v.val, (size_t)tensor_count(&p.v) * 4);
    for (int h = 0; h < s->HQ; h++) sinks[h] = sink;
    p.a.n_kv = s->n_kv;
    p.a.sinks = sinks;
    check_as(&p, &like, "a sink is a key without a value");
    prob_free(&p);
    prob_free(&like);
}

/* Two halves of the keys, the first with the sinks and the second without, merged: the whole with sinks. */
static void check_merge(const shape *s, const terms *t)
{
    arrays x;
    prob p;
    prob_make(&p, s);
    p.a.gate = NULL;
    add_terms(&p, t, &x, s->seed);
    float *o2 = xalloc(tensor_count(&p.o), sizeof(float)), *l2 = xalloc(p.n_lse, sizeof(float));
    two_x out = { 0 }, lse = { 0 };
    o_result r;
    o_solve(&p, NULL, &r, &out, &lse);
    FOR_LEVELS(l) {
        double worst = 0, worst_lse = 0;
        ssa_attn a = p.a, b = p.a;
        int64_t half = s->n_kv / 3;
        prob_clear(&p);
        a.n_kv = half;
        b.n_kv -= half;
        b.k.data = (char *)a.k.data + half * p.k.ts;
        b.v.data = (char *)a.v.data + half * p.v.ts;
        if (a.mask) {
            a.mask_stride = b.mask_stride = x.row;
            b.mask = x.mask + half * type_size(t->mask_type);
        }
        b.out.data = o2;
        b.lse = l2;
        b.sinks = NULL;
        CHECK(ssa_attention(&a, SSA_FULL, NULL) == SSA_OK && ssa_attention(&b, SSA_FULL, NULL) == SSA_OK, "status");
        ssa_merge(p.o.view.data, p.lse, o2, l2, p.n_lse, p.s.DV);
        tensor_load(&p.o);
        for (int64_t i = 0; i < tensor_count(&p.o); i++) {
            double off = fabs((double)p.o.val[i] - r.out[i]);
            if (!(off <= worst)) worst = off;
        }
        for (int64_t i = 0; i < p.n_lse; i++) {
            double off = isinf(r.lse[i]) && (double)p.lse[i] == r.lse[i] ? 0 : fabs((double)p.lse[i] - r.lse[i]);
            if (!(off <= worst_lse)) worst_lse = off;
        }
        CHECK(worst <= 3 * two_x_bound(&out, l, SSA_F32) && worst_lse <= 3 * two_x_bound(&lse, l, SSA_F32),
              "halves with and without sinks merge to the whole, off by %g and %g: %s", worst, worst_lse,
              terms_text(s, t));
    }
    o_result_free(&r);
    free(o2); free(l2);
    free_terms(&x);
    prob_free(&p);
}

/* Calls with different terms in one batch: the bits of each alone, on any number of threads. */
static void check_batch(ssa_mode mode)
{
    enum { N = 5 };
    prob p[N];
    arrays x[N];
    ssa_attn a[N];
    uint64_t want[N];
    for (int i = 0; i < N; i++) {
        rng r = { (uint64_t)(mode * 50 + i), 0 };
        shape s = { .name = "batch", .HQ = 4 * (1 + i % 2), .H = 2, .D = 24 + 8 * i, .n_q = i == 3 ? 1 : 20 + 30 * i,
                    .n_kv = i == 3 ? 3000 : 170, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3],
                    .tv = types[i % 3], .B = 16, .top_k = 4, .seed = (uint64_t)i };
        terms t = random_terms(&r, &s, mode);
        if (i == 4) memset(&t, 0, sizeof t);
        prob_make(&p[i], &s);
        add_terms(&p[i], &t, &x[i], 9);
        p[i].a.blocks = p[i].blocks;
        a[i] = p[i].a;
    }
    FOR_LEVELS(l) {
        for (int i = 0; i < N; i++) {
            prob_clear(&p[i]);
            CHECK(ssa_attention(&a[i], mode, &one) == SSA_OK, "status");
            want[i] = prob_hash(&p[i]);
        }
        for (int nth = 1; nth <= 4; nth++) {
            ssa_exec e = { nth, NULL, NULL, NULL, 0 };
            int same = 1;
            for (int i = 0; i < N; i++) prob_clear(&p[i]);
            CHECK(ssa_attention_batch(a, N, mode, &e) == SSA_OK, "status");
            for (int i = 0; i < N; i++) same &= prob_hash(&p[i]) == want[i];
            CHECK(same, "a batch of calls with terms, %d threads, mode %d", nth, (int)mode);
        }
    }
    for (int i = 0; i < N; i++) { free_terms(&x[i]); prob_free(&p[i]); }
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */
/* Mask, sinks and slopes between pages that trap; the mask's gaps hold NaN. */
static void check_guards(const shape *s, const terms *t, ssa_mode mode)
{
    guard g[3];
    arrays x;
    prob p;
    prob_make(&p, s);
    add_terms(&p, t, &x, s->seed);
    guard_make(&g[0], x.bytes + 1);
    guard_make(&g[1], s->HQ * 4);
    guard_make(&g[2], s->HQ * 4);
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "status: %s", terms_text(s, t));
        uint64_t want = prob_hash(&p);
        for (int end = 0; end < 2; end++) {
            ssa_attn a = p.a;
            a.mask = memcpy(guard_at(&g[0], x.bytes, end), x.mask, (size_t)x.bytes);
            a.sinks = memcpy(guard_at(&g[1], s->HQ * 4, end), x.sinks, (size_t)s->HQ * 4);
            a.alibi = memcpy(guard_at(&g[2], s->HQ * 4, end), x.alibi, (size_t)s->HQ * 4);
            prob_clear(&p);
            CHECK(ssa_attention(&a, mode, NULL) == SSA_OK && prob_hash(&p) == want, "guarded: %s", terms_text(s, t));
        }
    }
    for (int i = 0; i < 3; i++) guard_free(&g[i]);
    free_terms(&x);
    prob_free(&p);
}

/* What a window costs is the window: of a prefill as planned, and no merging of shares where one is enough. */
static void check_cost(void)
{
    shape s = { .name = "cost", .HQ = 4, .H = 2, .D = 16, .n_q = 4096, .n_kv = 4096, .q_pos = -1, .tq = SSA_BF16,
                .tk = SSA_BF16, .tv = SSA_BF16 };
    prob p;
    prob_make(&p, &s);
    FOR_LEVELS(l) {
        ssa_plan all, some;
        p.a.window = 0;
        p.a.n_q = s.n_q;
        size_t size = ssa_workspace_size(&p.a, 1, SSA_FULL, 1);
        void *ws = xalloc((int64_t)size, 1);
        CHECK(ssa_plan_make(&all, &p.a, 1, SSA_FULL, 1, ws, size) == SSA_OK, "plan");
        p.a.window = 128;
        CHECK(ssa_workspace_size(&p.a, 1, SSA_FULL, 1) <= size + 65536, "a window needs no more workspace");
        free(ws);
        size = ssa_workspace_size(&p.a, 1, SSA_FULL, 1);
        ws = xalloc((int64_t)size, 1);
        CHECK(ssa_plan_make(&some, &p.a, 1, SSA_FULL, 1, ws, size) == SSA_OK, "plan");
        CHECK(some.cost * 4 < all.cost, "a window of 128 keys costs %lld, all %lld", (long long)some.cost,
              (long long)all.cost);
        free(ws);
        p.a.n_q = 1;
        size = ssa_workspace_size(&p.a, 1, SSA_FULL, 1);
        ws = xalloc((int64_t)size, 1);
        CHECK(ssa_plan_make(&some, &p.a, 1, SSA_FULL, 1, ws, size) == SSA_OK && ssa_plan_phases(&some) == 1,
              "a decode of 128 keys is not shared out");
        free(ws);
    }
    prob_free(&p);
}

void test_terms(void)
{
    static const int dims[] = { 1, 5, 16, 31, 40, 64, 80, 100, 128 };
    static const int groups[] = { 1, 3, 4, 16, 20 };
    static const int queries[] = { 1, 1, 2, 17, 64, 100, 130 };
    static const terms each[] = {
        { .window = 20 }, { .softcap = 5 }, { .alibi = 1 }, { .sinks = 1 }, { .sinks = 2 },
        { .mask = NOISE }, { .mask = HOLES, .mask_type = SSA_F16 },
        { .mask = ROWS, .mask_type = SSA_BF16, .mask_gap = 3 },
        { .mask = LOW }, { .mask = LOW, .mask_type = SSA_BF16, .sinks = 1 },
        { .window = 33, .softcap = 20, .alibi = 1, .sinks = 3, .mask = HOLES, .mask_type = SSA_BF16, .mask_gap = 7 } };
    for (int i = 0; i < 8; i++) { /* queries that see nothing in any share of the keys */
        shape s = { .name = "hidden from all shares", .HQ = 4 * (1 + i % 2), .H = 2, .D = 32, .n_q = 2 + i % 3,
                    .n_kv = 1500 + 60 * i, .q_pos = -1, .no_gate = i % 4 > 1, .tq = types[i % 3], .tk = types[i % 3],
                    .tv = types[i % 3], .seed = 40 + (uint64_t)i };
        terms t = { .mask = ROWS, .mask_type = types[i / 2 % 3], .sinks = i / 2 };
        check_terms(&s, &t, SSA_FULL);
    }
    for (int i = 0; i < COUNT(each) * 10; i++) { /* each term, each kind of tile */
        if (!test_some(i, 31)) continue;
        int g = groups[i / COUNT(each) % 5], n_q = i / COUNT(each) < 5 ? 1 : 45;
        for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++)
            for (int ty = 0; ty < 3; ty += 1 + mode) {
                shape s = { .name = "each", .HQ = 2 * g, .H = 2, .D = 40, .DV = 24, .n_q = n_q, .n_kv = 150,
                            .q_pos = -1, .tq = types[ty], .tk = types[ty], .tv = types[ty], .B = 16, .top_k = 5,
                            .seed = (uint64_t)i * 8 };
                terms t = each[i % COUNT(each)];
                if (mode == SSA_SPARSE) t.window = 0;
                check_terms(&s, &t, (ssa_mode)mode);
            }
    }
    rng r = { 4711, 0 };
    for (int i = 0; i < 160; i++) {
        if (!test_some(i, 79)) continue;
        int g = RNG_PICK(&r, groups), kv = rng_int(&r, 1, 3), sparse = rng_int(&r, 0, 2) == 0;
        ssa_mode mode = sparse ? SSA_SPARSE : SSA_FULL;
        shape s = { .name = "random", .HQ = g * kv, .H = kv, .D = RNG_PICK(&r, dims), .DV = RNG_PICK(&r, dims),
                    .n_q = RNG_PICK(&r, queries), .n_kv = rng_int(&r, 1, 400), .tq = RNG_PICK(&r, types),
                    .tk = RNG_PICK(&r, types), .tv = RNG_PICK(&r, types), .to = RNG_PICK(&r, types),
                    .lay = (layout)rng_int(&r, LAY_ZERO, LAY_MIX), .scale = rng_int(&r, 0, 3) ? 0 : -0.2f,
                    .amp = rng_int(&r, 0, 3) ? 1 : 4, .noncausal = !sparse && rng_int(&r, 0, 2) == 0,
                    .no_gate = rng_int(&r, 0, 1), .B = rng_int(&r, 0, 2) ? 16 : rng_int(&r, 1, 20),
                    .top_k = rng_int(&r, 1, 12), .seed = (uint64_t)i * 16 + 5000 };
        if (rng_int(&r, 0, 1)) s.tq = s.tk = s.tv = types[rng_int(&r, 1, 2)];
        while ((double)s.n_q * s.n_kv * s.HQ * (s.D + s.DV) > 4e6) {
            s.n_q = (s.n_q + 1) / 2;
            s.n_kv = s.n_kv * 3 / 4;
        }
        if (sparse && s.n_kv < s.n_q) s.n_kv = s.n_q;
        s.q_pos = rng_int(&r, 0, 1) ? -1 : rng_int(&r, 0, sparse ? s.n_kv - s.n_q : s.n_kv + 20);
        terms t = random_terms(&r, &s, mode);
        if (t.softcap > 0 && t.softcap < 1) s.amp = 1; /* else most keys have one of two weights: rounding is luck */
        check_terms(&s, &t, mode);
    }
    static const struct { int HQ, H, D, n_q, n_kv, window; ssa_type t; } large[] = { /* shares, and tiles of the unit */
        { 8, 2, 32, 1, 9000, 0, SSA_F32 },       { 8, 2, 32, 1, 9000, 5000, SSA_BF16 },
        { 16, 1, 64, 1, 20000, 7001, SSA_F16 },  { 8, 8, 16, 3, 5000, 3000, SSA_BF16 },
        { 2, 1, 40, 40, 3001, 1500, SSA_F32 },   { 1, 1, 64, 1100, 1100, 100, SSA_BF16 },
        { 4, 4, 32, 300, 900, 260, SSA_BF16 },   { 4, 1, 24, 280, 280, 0, SSA_BF16 },
        { 2, 2, 20, 500, 700, 70, SSA_F16 },     { 1, 1, 16, 700, 1500, 1, SSA_BF16 } };
    for (int i = 0; i < COUNT(large); i++)
        for (int all = 0; all < 3; all++) { /* the window alone; with all others; sparse, with the mask */
            shape s = { .name = "large", .HQ = large[i].HQ, .H = large[i].H, .D = large[i].D, .n_q = large[i].n_q,
                        .n_kv = large[i].n_kv, .q_pos = -1, .tq = large[i].t, .tk = large[i].t, .tv = large[i].t,
                        .B = 16, .top_k = large[i].n_q == 1 ? 200 : 9, .seed = 900 + (uint64_t)i };
            terms t = { .window = large[i].window, .sinks = 1, .alibi = all > 0, .softcap = all == 1 ? 15 : 0,
                        .mask = all ? HOLES : NO_MASK, .mask_type = types[(i + all) % 3] };
            if (all == 2) t.window = 0;
            check_terms(&s, &t, all == 2 ? SSA_SPARSE : SSA_FULL);
        }
    for (int i = 0; i < 40; i++) { /* what hidden keys and values hold */
        if (!test_some(i, 9)) continue;
        static const struct { int HQ, H, n_q, n_kv; } sizes[] = { { 1, 1, 30, 60 }, { 8, 2, 1, 90 }, { 16, 1, 9, 70 },
            { 40, 2, 5, 100 }, { 6, 2, 90, 90 }, { 4, 1, 270, 300 }, { 2, 2, 3, 3000 }, { 16, 1, 80, 160 } };
        ssa_mode mode = i % 5 >= 3 ? SSA_SPARSE : SSA_FULL;
        ssa_type ty = types[i % 3], other = i % 7 == 6 ? SSA_F32 : ty;
        shape s = { .name = "hidden", .HQ = sizes[i % 8].HQ, .H = sizes[i % 8].H, .D = 24 + i, .DV = 16 + 3 * (i % 7),
                    .n_q = sizes[i % 8].n_q, .n_kv = sizes[i % 8].n_kv, .q_pos = -1, .tq = other, .tk = ty, .tv = ty,
                    .B = 16, .top_k = 4, .noncausal = mode == SSA_FULL && i % 4 == 1, .seed = 40 + (uint64_t)i };
        terms t = { .window = mode == SSA_FULL && !s.noncausal && i % 3 != 1 ? 11 + 5 * (i % 6) : 0,
                    .mask = i % 3 ? (i % 2 ? HOLES : ROWS) : NO_MASK, .mask_type = types[i / 3 % 3],
                    .softcap = i % 4 == 3 ? 10 : 0, .alibi = i % 5 == 2, .sinks = i % 2 };
        check_hidden(&s, &t, mode);
    }
    for (int i = 0; i < 8; i++) { /* up to 16 rows, whole chunks: a unit may leave the keys in the cache */
        if (!test_some(i, 4)) continue;
        shape s = { .name = "hidden, few", .HQ = i % 2 ? 8 : 16, .H = i % 2 ? 2 : 1, .D = 64, .DV = 32,
                    .n_q = i % 2 ? 4 : 1, .n_kv = i / 2 % 2 ? 320 : 64, .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16,
                    .tv = SSA_BF16, .B = 16, .top_k = 4, .seed = 90 + (uint64_t)i };
        terms t = { .window = i >= 4 ? s.n_kv - 24 : 0, .mask = i < 4 ? HOLES : NO_MASK, .mask_type = types[i % 3] };
        check_hidden(&s, &t, SSA_FULL);
    }
    for (int i = 0; i < 18; i++) { /* a unit takes q8_0 in chunks, whose scales round what is beside them */
        if (!test_some(i, 9)) continue;
        static const int keys[] = { 203, 256, 330 }, heads[] = { 2, 16, 4, 5, 8, 1 };
        int g = heads[i % 6], n_q = i % 4 == 3 || g > 8 ? 1 : g > 4 ? 2 : g > 2 ? 3 : 8;
        shape s = { .name = "hidden, q8_0", .HQ = 2 * g, .H = 2, .D = i % 2 ? 64 : 96, .DV = i % 3 ? 32 : 64,
                    .n_q = n_q, .n_kv = keys[i % 3], .q_pos = -1, .tq = types[i % 3],
                    .tk = i % 5 ? SSA_Q8_0 : SSA_BF16, .tv = i % 7 ? SSA_Q8_0 : SSA_F32, .B = 16, .top_k = 4,
                    .lay = i % 2 ? LAY_TOKEN : LAY_ODD, .seed = 190 + (uint64_t)i };
        terms t = { .window = i % 3 == 1 ? 40 : 0, .mask = i % 3 == 1 ? NO_MASK : i % 2 ? HOLES : ROWS,
                    .mask_type = types[i % 3], .softcap = i % 6 == 5 ? 8 : 0, .sinks = i % 2 };
        check_hidden(&s, &t, SSA_FULL);
        t.window = 0;
        check_hidden(&s, &t, SSA_SPARSE);
    }
    for (int i = 0; i < 6; i++)
        for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
            shape s = { .name = "broken mask", .HQ = i & 1 ? 4 : 16, .H = i & 1 ? 4 : 1, .D = 32,
                        .n_q = i < 2 ? 3 : 70, .n_kv = 100, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3],
                        .tv = types[i % 3], .B = 8, .top_k = 3 };
            check_broken_mask(&s, (ssa_mode)mode);
            check_after_hidden(&s, (ssa_mode)mode);
        }
    for (int i = 0; i < 6; i++) {
        shape s = { .name = "two ways", .HQ = i & 1 ? 4 : 16, .H = 2, .D = 32 + i, .n_q = i < 2 ? 1 : 40 + 30 * i,
                    .n_kv = 200, .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3], .tv = types[i % 3],
                    .seed = 70 + (uint64_t)i };
        check_equivalents(&s);
        check_own_key(&s);
        s.scale = 0.25f;
        for (int k = 0; k < 4; k++) check_virtual_key(&s, k == 0 ? -20.0f : k == 1 ? 0.5f : k == 2 ? 7.0f : 40.0f);
    }
    for (int i = 0; i < 12; i++) {
        shape s = { .name = "merge", .HQ = 4, .H = 2, .D = 40, .n_q = i % 3 ? 50 : 1, .n_kv = 300, .q_pos = 10,
                    .tq = types[i % 3], .tk = types[i % 3], .tv = types[i % 3], .noncausal = 1, .seed = 8 };
        terms t = { .sinks = 1 + i % 3, .softcap = i % 2 ? 9 : 0, .mask = i % 4 == 3 ? ROWS : NO_MASK };
        check_merge(&s, &t);
    }
    for (int i = 0; i < 9; i++) {
        static const int windows[] = { 1, 40, 513, 1500, 4100 };
        shape s = { .name = "window decode", .HQ = i % 2 ? 8 : 32, .H = 2, .D = 48, .n_q = 1, .n_kv = 9000,
                    .q_pos = -1, .tq = types[i % 3], .tk = types[i % 3], .tv = types[i % 3],
                    .lay = i % 4 == 3 ? LAY_ODD : LAY_TOKEN };
        check_window_decode(&s, windows[i % 5]);
    }
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
        check_batch((ssa_mode)mode);
        for (int n = 1; n <= 140; n += n < 40 ? 1 : 9) {
            shape s = { .name = "guard", .HQ = n % 2 ? 3 : 16, .H = 1, .D = 16, .n_q = n % 3 ? (n < 30 ? n : 30) : 1,
                        .n_kv = n, .q_pos = -1, .tq = types[n % 3], .tk = types[n % 3], .tv = types[n % 3], .B = 4,
                        .top_k = 3, .noncausal = mode == SSA_FULL && n % 2, .seed = 6 };
            terms t = { .sinks = 1, .alibi = 1, .mask = HOLES, .mask_type = types[n / 2 % 3], .mask_gap = n % 4 };
            check_guards(&s, &t, (ssa_mode)mode);
        }
    }
    check_cost();
}

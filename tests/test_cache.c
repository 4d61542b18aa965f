/* test_cache.c - what engines' caches need: keys and values in q8_0, caches in pages, and writing to them */
#include "oracle.h"

static const ssa_type all_types[] = { SSA_F32, SSA_F16, SSA_BF16, SSA_Q8_0 };

static uint64_t run(prob *p, const ssa_attn *a, ssa_mode mode, const ssa_exec *x)
{
    prob_clear(p);
    CHECK(ssa_attention(a, mode, x) == SSA_OK, "status: %s", shape_text(&p->s));
    return prob_hash(p);
}

/* ---- q8_0 -------------------------------------------------------------------------------------------------------- */

/* Against the oracle on the dequantised values, by the 2x rule; and, since a q8_0 element is exact in f32, the bits of
 * a cache that holds these values as floats. */
static void check_q8(const shape *s, ssa_mode mode)
{
    const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
    two_x out = { 0 }, lse = { 0 };
    prob p;
    prob_make(&p, s);
    int reps = two_x_reps(p.n_lse, p.n_lse * p.s.n_kv * (p.s.D + p.s.DV)), status = 1, same = 1, gaps = 1;
    double *pooled = xalloc((int64_t)p.s.H * (p.s.n_kv / p.s.B + 1) * p.s.D, sizeof *pooled);
    tensor k, v;
    tensor_make(&k, s->tk == SSA_Q8_0 ? SSA_F32 : s->tk, p.s.n_kv, p.s.H, p.s.D, LAY_TOKEN);
    tensor_make(&v, s->tv == SSA_Q8_0 ? SSA_F32 : s->tv, p.s.n_kv, p.s.H, p.s.DV, LAY_ODD);
    for (int rep = 0; rep < reps; rep++) {
        o_result r = { NULL, NULL };
        o_call c;
        if (rep) prob_refill(&p, s->seed + 100 + 10 * (uint64_t)rep);
        memcpy(k.val, p.k.val, (size_t)tensor_count(&k) * sizeof(float));
        memcpy(v.val, p.v.val, (size_t)tensor_count(&v) * sizeof(float));
        tensor_store(&k); tensor_store(&v);
        o_call_of(&c, &p);
        o_pool(&c, pooled);
        p.a.blocks = mode == SSA_SPARSE ? p.blocks : NULL;
        FOR_LEVELS(l) {
            ssa_attn a = p.a;
            a.k = k.view; a.v = v.view;
            uint64_t floats = run(&p, &a, mode, &one);
            prob_clear(&p);
            status &= ssa_attention(&p.a, mode, rep || l ? &one : NULL) == SSA_OK;
            int int8 = level_at(l) == SSA_ISA_AMX && mode == SSA_FULL && p.s.n_kv >= 192;
            same &= prob_hash(&p) == floats || int8;
            gaps &= tensor_gaps_ok(&p.o);
            if (mode == SSA_SPARSE && !rep) o_check_blocks(&p, pooled, 0, shape_text(&p.s));
            if (mode == SSA_SPARSE || l == 0) {
                if (r.out) o_result_free(&r);
                o_solve(&p, mode == SSA_SPARSE ? p.blocks : NULL, &r, &out, &lse);
            }
            o_compare(&p, &r, l, &out, &lse);
        }
        o_result_free(&r);
    }
    CHECK(status && gaps, "status, gaps: %s", shape_text(&p.s));
    CHECK(same, "q8_0 is f32 of the dequantised values, bit for bit: %s", shape_text(&p.s));
    two_x_check(&out, p.s.to, "q8_0, out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "q8_0, lse", shape_text(&p.s), __FILE__, __LINE__);
    free(pooled);
    tensor_free(&k); tensor_free(&v);
    prob_free(&p);
}

static void check_q8_shapes(void)
{
    static const int dims[] = { 32, 64, 96, 128, 160, 192, 224, 256 }, groups[] = { 1, 3, 4, 16 },
                     queries[] = { 1, 1, 2, 3, 17, 70 };
    rng r = { 8080, 0 };
    for (int i = 0; i < 90; i++) { /* k, v or both; all layouts */
        if (!test_some(i, 89)) continue;
        int g = groups[i % 4], n_q = RNG_PICK(&r, queries);
        shape s = { .name = "q8_0", .HQ = g * (1 + i % 3), .H = 1 + i % 3, .D = RNG_PICK(&r, dims),
                    .DV = RNG_PICK(&r, dims), .n_q = n_q, .n_kv = rng_int(&r, n_q, n_q > 17 ? 150 : 400), .q_pos = -1,
                    .tq = all_types[i % 3], .tk = i % 5 ? SSA_Q8_0 : RNG_PICK(&r, all_types),
                    .tv = i % 5 == 0 || i % 2 ? SSA_Q8_0 : RNG_PICK(&r, all_types), .to = all_types[i / 3 % 3],
                    .lay = (layout)(i % 6), .B = i % 7 ? 8 : 5, .top_k = 4, .amp = i % 4 ? 1 : 3,
                    .seed = (uint64_t)(i * 16) };
        while ((double)s.n_q * s.n_kv * s.HQ * (s.D + s.DV) > 3e6) s.n_q = (s.n_q + 1) / 2, s.n_kv = s.n_kv * 3 / 4;
        check_q8(&s, SSA_FULL);
        check_q8(&s, SSA_SPARSE);
    }
    shape split = { .name = "q8_0, shares of the keys", .HQ = 8, .H = 8, .D = 32, .n_q = 1, .n_kv = 4200, .q_pos = -1,
                    .tk = SSA_Q8_0, .tv = SSA_Q8_0 };
    check_q8(&split, SSA_FULL);
    split.H = 2; split.lay = LAY_HEAD; split.n_kv = 2100;
    check_q8(&split, SSA_FULL);
}

/* 64 keys whose weights are smaller and smaller beside those of the others: they may count for nothing, never more. */
static void check_q8_faint(void)
{
    enum { N = 192, D = 32 };
    static float k[N * D], v[N * D], q[2 * D], out[2 * D];
    static unsigned char keys[N * 34], values[N * 34];
    ssa_view from_k = { k, SSA_F32, 0, 0 }, from_v = { v, SSA_F32, 0, 0 };
    const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
    ssa_attn a = ssa_attn_default(2, 1, D);
    a.n_q = 1; a.n_kv = N; a.scale = 1;
    a.q.data = q; a.out.data = out;
    a.k.data = keys; a.v.data = values;
    a.k.type = a.v.type = SSA_Q8_0;
    for (int j = 0; j < N; j++) {
        k[j * D] = j < 128 ? 0.0f : -127.0f; /* exact in q8_0 */
        for (int e = 0; e < D; e++) v[j * D + e] = j < 128 ? 127.0f : 254.0f;
    }
    CHECK(ssa_kv_append(&a, 0, &from_k, &from_v, N, NULL) == SSA_OK, "status");
    FOR_LEVELS(l) {
        int bad = 0;
        for (int i = 0; i < 320; i++) {
            double p = 64 * exp(-(30 + 0.25 * i));
            q[0] = q[D] = (float)(30 + 0.25 * i) / 127;
            CHECK(ssa_attention(&a, SSA_FULL, &one) == SSA_OK, "status");
            for (int e = 0; e < 2 * D; e++) bad += !(fabs((double)out[e] / 127 - (128 + 2 * p) / (128 + p)) <= 1e-6);
        }
        CHECK(bad == 0, "%d outputs are off beside keys of little weight", bad);
    }
}

/* Heads so wide on one side that the scratch for it is the larger one, in a workspace that ends at a trap. */
static void check_q8_wide(void)
{
    static const int dims[][2] = { { 1024, 32 }, { 32, 1024 }, { 1024, 1024 } }, groups[] = { 4, 1, 7, 16 };
    for (int i = 0; i < 12; i++) {
        if (!test_some(i, 5)) continue;
        shape s = { .name = "q8_0, wide", .HQ = groups[i % 4], .H = 1, .D = dims[i % 3][0], .DV = dims[i % 3][1],
                    .n_q = 1, .n_kv = i % 2 ? 256 : 199, .q_pos = -1, .tq = all_types[i % 3], .tk = SSA_Q8_0,
                    .tv = SSA_Q8_0, .B = 16, .top_k = 3, .seed = 3000 + (uint64_t)i };
        check_q8(&s, SSA_FULL);
        check_q8(&s, SSA_SPARSE);
        FOR_LEVELS(l) {
            prob p;
            guard g;
            prob_make(&p, &s);
            size_t size = ssa_workspace_size(&p.a, 1, SSA_FULL, 1);
            guard_make(&g, (int64_t)size);
            ssa_exec x = { 1, NULL, NULL, guard_at(&g, (int64_t)size, 1), size };
            CHECK(ssa_attention(&p.a, SSA_FULL, &x) == SSA_OK, "status: %s", shape_text(&s));
            guard_free(&g);
            prob_free(&p);
        }
    }
}

/* Blocks of 32 through ssa_kv_append, against the steps of ggml's reference, and against what rounding allows. */
static void check_rounding(void)
{
    float x[32], y[32];
    unsigned char got[34], want[34];
    ssa_attn a = ssa_attn_default(1, 1, 32);
    ssa_view row = { x, SSA_F32, 0, 0 };
    rng r = { 17, 0 };
    int bits = 1, near_ = 1;
    a.k.data = got; a.k.type = SSA_Q8_0;
    for (int i = 0; i < 3000; i++) {
        if (!test_some(i, 101)) continue;
        static const double scale[] = { 0, 1, 1, 1, 1e-3, 1e-6, 1e-9, 1e-37, 1e-40, 1e4, 1e7, 1e30, 3e38 };
        double amp = RNG_PICK(&r, scale);
        for (int e = 0; e < 32; e++) x[e] = (float)(rng_f(&r) * amp);
        if (i % 3 == 0) { /* halves: in units of 1 */
            for (int e = 0; e < 32; e++) x[e] = (float)rng_int(&r, -253, 253) / 2;
            x[i % 32] = i % 2 ? 127 : -127;
        }
        if (i % 50 == 7) x[i % 31] = i % 100 == 7 ? (float)NAN : -INFINITY;
        FOR_LEVELS(l) {
            double top = 0, unit;
            memset(got, 0x77, sizeof got);
            CHECK(ssa_kv_append(&a, 0, &row, NULL, 1, NULL) == SSA_OK, "one row");
            row_put(SSA_Q8_0, want, x, 32);
            row_get(SSA_Q8_0, got, y, 32);
            bits &= !memcmp(got, want, 34);
            for (int e = 0; e < 32; e++) top = fmax(top, isfinite(x[e]) ? fabs((double)x[e]) : 1e300);
            unit = top / 127;
            for (int e = 0; e < 32; e++)
                if (top > 1e299) near_ &= isnan(y[e]);
                else if (unit < 65000) /* half a step, and the f16's rounding of the scale */
                    near_ &= fabs((double)y[e] - (double)x[e]) <= unit * 0.50001 + 127 * type_half_ulp(SSA_F16, unit);
        }
    }
    CHECK(bits, "q8_0 is rounded as ggml's reference rounds it");
    CHECK(near_, "a q8_0 value is within half a step of what was stored, NaN where that was not finite");
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

/* A tensor's rows in pages. Ways: tokens then heads, strides 0; heads then tokens, odd strides and address; heads, then
 * pages, then tokens. Where no row is, NaN. */
typedef struct { unsigned char *mem; ssa_view view; int64_t stride; } paged;
enum { WAYS = 3 };

static void paged_make(paged *g, const tensor *t, const int32_t *pages, int n_pages, int64_t T, int way)
{
    int64_t row = row_bytes(t->type, t->dim), ts = way ? row : t->heads * row,
            hs = way == 0 ? row : way == 1 ? T * row + 1 : n_pages * T * row,
            stride = way == 0 ? T * ts : way == 1 ? t->heads * hs + 3 : T * row,
            bytes = n_pages * (way == 2 ? t->heads * T * row : stride);
    g->mem = xalloc(bytes + 1, 1);
    memset(g->mem, 0xFF, (size_t)bytes + 1);
    g->view.data = g->mem + (way == 1);
    g->view.type = t->type;
    g->view.token_stride = way ? ts : 0;
    g->view.head_stride = way ? hs : 0;
    g->stride = way ? stride : 0;
    for (int64_t j = 0; j < t->n; j++)
        for (int h = 0; pages[j / T] >= 0 && h < t->heads; h++)
            memcpy((unsigned char *)g->view.data + pages[j / T] * stride + j % T * ts + h * hs,
                   (const unsigned char *)t->view.data + j * t->ts + h * t->hs, (size_t)row);
}

/* Page numbers: shuffled; in order; in order with a few exchanged. */
static void shuffle(int32_t *pages, int n, int n_pages, int how, rng *r)
{
    int32_t *all = xalloc(n_pages, sizeof *all);
    for (int i = 0; i < n_pages; i++) all[i] = i;
    for (int i = n_pages - 1; i > 0; i--) {
        int j = how == 0 ? rng_int(r, 0, i) : how == 2 && i % 5 == 0 ? rng_int(r, 0, i) : i;
        int32_t x = all[i];
        all[i] = all[j];
        all[j] = x;
    }
    memcpy(pages, all + (how ? 1 : 0), (size_t)n * sizeof *pages); /* in order: not from the first of memory on */
    free(all);
}

/* The call p->a, whose cache is contiguous, against the same cache in pages of T tokens. */
static void check_paged(prob *p, ssa_mode mode, int64_t T, int way, int how, rng *r)
{
    int n = (int)((p->s.n_kv + T - 1) / T), n_pages = n + 2;
    int64_t seen = p->s.noncausal ? p->s.n_kv : p->q0 + p->s.n_q; /* pages of later keys are not followed */
    int32_t *pages = xalloc(n, sizeof *pages);
    paged k, v;
    ssa_attn a = p->a;
    shuffle(pages, n, n_pages, how, r);
    for (int i = 0; i < n; i++) if (i * T >= seen) pages[i] = -1;
    paged_make(&k, &p->k, pages, n_pages, T, way);
    paged_make(&v, &p->v, pages, n_pages, T, how == 2 ? (way + 1) % WAYS : way);
    for (int i = 0; i < n; i++) if (i * T >= seen) pages[i] = INT32_MAX;
    a.k = k.view; a.v = v.view;
    a.pages = pages; a.page_tokens = T; a.page_stride_k = k.stride; a.page_stride_v = v.stride;
    FOR_LEVELS(l) {
        ssa_exec one = { 1, NULL, NULL, NULL, 0 }, four = { 4, NULL, NULL, NULL, 0 };
        uint64_t want = run(p, &p->a, mode, &one);
        CHECK(run(p, &a, mode, &one) == want, "pages of %d, way %d %d = contiguous, %s%s: %s", (int)T, way, how,
              mode ? "sparse" : "full", p->a.pool ? ", pool" : "", shape_text(&p->s));
        CHECK(run(p, &a, mode, &four) == want, "pages of %d, way %d %d, threads, %s%s: %s", (int)T, way, how,
              mode ? "sparse" : "full", p->a.pool ? ", pool" : "", shape_text(&p->s));
        if (mode == SSA_FULL) continue;
        prob_clear(p);
        CHECK(ssa_select_blocks(&p->a, &one) == SSA_OK, "select");
        want = prob_hash(p);
        prob_clear(p);
        CHECK(ssa_select_blocks(&a, &one) == SSA_OK && prob_hash(p) == want, "select, pages of %d: %s", (int)T,
              shape_text(&p->s));
    }
    free(pages); free(k.mem); free(v.mem);
}

static const shape page_shapes[] = {
    { .name = "decode", .HQ = 8, .H = 2, .D = 64, .n_q = 1, .n_kv = 700 },
    { .name = "decode, heads side by side", .HQ = 8, .H = 8, .D = 32, .n_q = 1, .n_kv = 4200 },
    { .name = "group of 16", .HQ = 16, .H = 1, .D = 64, .DV = 96, .n_q = 1, .n_kv = 600 },
    { .name = "shares, wide", .HQ = 32, .H = 1, .D = 32, .n_q = 2, .n_kv = 1500 },
    { .name = "few rows at the edge", .HQ = 3, .H = 3, .D = 32, .n_q = 3, .n_kv = 90 },
    { .name = "few rows, a group", .HQ = 4, .H = 2, .D = 32, .n_q = 2, .n_kv = 45 },
    { .name = "prefill", .HQ = 4, .H = 2, .D = 64, .DV = 32, .n_q = 70, .n_kv = 150 },
    { .name = "prefill in bf16", .HQ = 4, .H = 1, .D = 64, .n_q = 100, .n_kv = 260, .tq = SSA_BF16 },
    { .name = "later keys", .HQ = 6, .H = 2, .D = 32, .n_q = 5, .n_kv = 130, .q_pos = 60 },
    { .name = "later keys, prefill", .HQ = 6, .H = 1, .D = 32, .n_q = 40, .n_kv = 300, .q_pos = 60 },
    { .name = "noncausal", .HQ = 2, .H = 2, .D = 32, .n_q = 9, .n_kv = 200, .noncausal = 1 },
};

static void check_pages(void)
{
    static const int sizes[] = { 1, 3, 16, 17, 64 };
    rng r = { 31337, 0 };
    for (int i = 0; i < COUNT(page_shapes); i++)
        for (int t = 0; t < COUNT(sizes); t++)
            for (int type = 0; type < 4; type++) {
                shape s = page_shapes[i];
                const int T = sizes[t];
                prob p;
                s.tk = all_types[type];
                s.tv = type == 2 || (i + t) % 2 ? s.tk : all_types[(type + t + i) % 4];
                if (s.q_pos == 0) s.q_pos = -1;
                s.B = T == 64 || (T == 16 && i % 3 == 0) ? 16 : T == 3 ? 1 + 2 * (i % 2) : T == 16 ? 8 : T;
                s.top_k = s.B > 8 ? 4 : 9;
                s.select = i % 4 == 2 && (s.B & (s.B - 1)) == 0 && s.B >= s.top_k ? SSA_SELECT_REFERENCE
                                                                                   : SSA_SELECT_TOPK;
                s.seed = (uint64_t)(i * 100 + t * 10 + type);
                s.lay = (layout)((i + t) % 2 ? LAY_ZERO : LAY_ODD);
                prob_make(&p, &s);
                if (type != SSA_Q8_0 && i % 2) { /* values that some queries see and others do not; all of a key's */
                    float *x = p.v.val + ((p.q0 + s.n_q / 2) * s.H) * p.s.DV;
                    for (int e = 0; p.q0 + s.n_q / 2 < s.n_kv && e < p.s.DV; e++)
                        x[e] = (float)(e % 2 ? NAN : INFINITY);
                    tensor_store(&p.v);
                }
                for (int way = 0; way < WAYS; way++) {
                    int how = (way + t + type) % 3;
                    p.a.blocks = NULL; p.a.pool = NULL;
                    check_paged(&p, SSA_FULL, T, way, how, &r);
                    if (s.noncausal) continue;
                    p.a.blocks = p.blocks;
                    check_paged(&p, SSA_SPARSE, T, way, how, &r);
                    if (way != type % WAYS) continue;
                    size_t size = ssa_pool_size(s.H, s.D, s.B, s.n_kv, t % 2 ? SSA_F32 : SSA_BF16);
                    void *memory = xalloc((int64_t)size, 1);
                    ssa_pool pool;
                    CHECK(ssa_pool_init(&pool, s.H, s.D, s.B, s.n_kv, t % 2 ? SSA_F32 : SSA_BF16, memory, size)
                                  == SSA_OK
                              && ssa_pool_append(&pool, &p.k.view, s.n_kv) == SSA_OK,
                          "pool");
                    p.a.pool = &pool;
                    check_paged(&p, SSA_SPARSE, T, way, how, &r);
                    free(memory);
                }
                prob_free(&p);
            }
}

/* The cache and its page table end at a page that traps, and start right after one. */
static void check_guarded(void)
{
    guard g[3];
    for (int i = 0; i < 3; i++) guard_make(&g[i], 1 << 18);
    for (int type = 0; type < 4; type++)
        for (int n = 1; n < 150; n += n < 70 ? 1 : 11)
            for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
                shape s = { .name = "guard", .HQ = n % 3 ? 4 : 16, .H = n % 3 ? 2 : 1, .D = 32 + n % 2 * 64,
                            .DV = 64 - n % 2 * 32, .n_q = n % 4 ? 1 : n < 20 ? n : 20, .n_kv = n, .q_pos = -1,
                            .tk = all_types[type], .tv = all_types[(type + n) % 4], .lay = n % 2 ? LAY_ODD : LAY_ZERO,
                            .B = 4, .top_k = 3 };
                prob p;
                prob_make(&p, &s);
                p.a.blocks = p.blocks;
                FOR_LEVELS(l) {
                    const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
                    uint64_t want = run(&p, &p.a, (ssa_mode)mode, &one);
                    for (int end = 0; end < 2; end++) {
                        ssa_attn a = p.a;
                        a.k.data = guard_at(&g[0], p.k.span, end); memcpy(a.k.data, p.k.view.data, (size_t)p.k.span);
                        a.v.data = guard_at(&g[1], p.v.span, end); memcpy(a.v.data, p.v.view.data, (size_t)p.v.span);
                        CHECK(run(&p, &a, (ssa_mode)mode, &one) == want, "guarded: %s", shape_text(&p.s));
                        /* pages of 4, in order: the same bytes, of which the last page has only what is there */
                        int32_t *pages = guard_at(&g[2], (n + 3) / 4 * 4, end);
                        for (int i = 0; i < (n + 3) / 4; i++) pages[i] = i;
                        a.pages = pages; a.page_tokens = 4;
                        CHECK(run(&p, &a, (ssa_mode)mode, &one) == want, "guarded, pages: %s", shape_text(&p.s));
                    }
                }
                prob_free(&p);
            }
    for (int i = 0; i < 3; i++) guard_free(&g[i]);
}

/* ---- writing a cache --------------------------------------------------------------------------------------------- */

/* Appends piece by piece to a contiguous and to a paged cache; every byte of both is as converting by hand leaves it,
 * and the pool is that of ssa_pool_append. */
static void check_append(ssa_type from, ssa_type tk, ssa_type tv, int way, int64_t T, int B, int most, rng *r)
{
    enum { H = 3, DK = 64, DV = 32, N = 70 };
    char text[160];
    snprintf(text, sizeof text, "append %s to %s, %s, way %d, pages of %d, blocks of %d, up to %d", type_name(from),
             type_name(tk), type_name(tv), way, (int)T, B, most);
    tensor nk, nv, ck, cv;                                   /* the new rows; the cache as it should be */
    tensor_make(&nk, from, N, H, DK, way == 1 ? LAY_ODD : LAY_ZERO);
    tensor_make(&nv, from, N, H, DV, way == 1 ? LAY_HEAD : LAY_ZERO);
    tensor_fill(&nk, rng_u64(r), 2);
    tensor_fill(&nv, rng_u64(r), 50);
    tensor_make(&ck, tk, N, H, DK, way == 2 ? LAY_PAD : LAY_ZERO);
    tensor_make(&cv, tv, N, H, DV, way == 2 ? LAY_ODD : LAY_ZERO);
    memcpy(ck.val, nk.val, (size_t)tensor_count(&ck) * sizeof(float));
    memcpy(cv.val, nv.val, (size_t)tensor_count(&cv) * sizeof(float));
    tensor_store(&ck); tensor_store(&cv);
    int n = (int)((N + T - 1) / T);
    int32_t *pages = xalloc(n, sizeof *pages);
    shuffle(pages, n, n + 2, 0, r);
    FOR_LEVELS(l) {
        ssa_type pool_type = (l + B) % 2 ? SSA_F32 : SSA_BF16;
        size_t size = ssa_pool_size(H, DK, B, N, pool_type);
        unsigned char *memory[3];
        ssa_pool pool[3];                        /* beside the contiguous cache, beside the paged one; appended to */
        for (int i = 0; i < 3; i++) {
            memory[i] = xalloc((int64_t)size, 1);
            CHECK(ssa_pool_init(&pool[i], H, DK, B, N, pool_type, memory[i], size) == SSA_OK, "pool");
        }
        tensor k, v;
        paged pk, pv, wk, wv;
        tensor_make(&k, tk, N, H, DK, way == 2 ? LAY_PAD : LAY_ZERO);
        tensor_make(&v, tv, N, H, DV, way == 2 ? LAY_ODD : LAY_ZERO);
        paged_make(&wk, &ck, pages, n + 2, T, way);          /* what it should be */
        paged_make(&wv, &cv, pages, n + 2, T, (way + 1) % WAYS);
        tensor none = ck;
        none.n = 0;
        paged_make(&pk, &none, pages, n + 2, T, way);        /* empty */
        none = cv;
        none.n = 0;
        paged_make(&pv, &none, pages, n + 2, T, (way + 1) % WAYS);
        for (int at = 0, step; at < N; at += step) {
            ssa_attn a = ssa_attn_default(-7, H, DK), b;     /* n_heads is not looked at */
            ssa_view rk = nk.view, rv = nv.view;
            step = rng_int(r, 1, most);
            if (step > N - at) step = N - at;
            rk.data = (char *)nk.view.data + at * nk.ts;
            rv.data = (char *)nv.view.data + at * nv.ts;
            a.value_dim = DV;
            a.k = k.view; a.v = v.view;
            b = a;
            b.k = pk.view; b.v = pv.view;
            b.pages = pages; b.page_tokens = T; b.page_stride_k = pk.stride; b.page_stride_v = pv.stride;
            if (at % 2) CHECK(ssa_kv_append(&a, at, &rk, &rv, step, &pool[0]) == SSA_OK, "%s", text);
            else                                             /* one half after the other */
                CHECK(ssa_kv_append(&a, at, NULL, &rv, step, NULL) == SSA_OK
                          && ssa_kv_append(&a, at, &rk, NULL, step, &pool[0]) == SSA_OK, "%s, halves", text);
            CHECK(ssa_kv_append(&b, at, &rk, &rv, step, &pool[1]) == SSA_OK, "%s, paged", text);
            ssa_view stored = ck.view;
            stored.data = (char *)ck.view.data + at * ck.ts;
            CHECK(ssa_pool_append(&pool[2], &stored, step) == SSA_OK, "pool");
            for (int i = 0; i < 2; i++)
                CHECK(pool[i].n_tokens == at + step && !memcmp(pool[i].open_sum, pool[2].open_sum, H * DK * 4),
                      "%s: the open block of pool %d at %d", text, i, at);
        }
        CHECK(!memcmp(k.mem, ck.mem, (size_t)k.mem_bytes) && !memcmp(v.mem, cv.mem, (size_t)v.mem_bytes), "%s", text);
        int64_t kb = (n + 2) * (wk.stride ? wk.stride : T * H * row_bytes(tk, DK)),
                vb = (n + 2) * (wv.stride ? wv.stride : T * H * row_bytes(tv, DV));
        if (way == 2) kb *= H;
        if ((way + 1) % WAYS == 2) vb *= H;
        CHECK(!memcmp(pk.mem, wk.mem, (size_t)kb + 1) && !memcmp(pv.mem, wv.mem, (size_t)vb + 1), "%s, paged", text);
        for (int i = 0; i < 2; i++)
            CHECK(!memcmp(pool[i].pooled, pool[2].pooled, (size_t)(H * (N / B) * row_bytes(pool_type, DK))),
                  "%s: pool %d", text, i);
        for (int i = 0; i < 3; i++) free(memory[i]);
        free(pk.mem); free(pv.mem); free(wk.mem); free(wv.mem);
        tensor_free(&k); tensor_free(&v);
    }
    free(pages);
    tensor_free(&nk); tensor_free(&nv); tensor_free(&ck); tensor_free(&cv);
}

/* An engine: a prefill's tokens appended at once, then one by one; sparse and full, with and without a pool, from pages
 * and contiguous. The pool is rolled back with the rows of the last open block alone in reach. */
static void check_engine(ssa_type type)
{
    enum { HQ = 8, H = 2, D = 64, B = 16, T = 32, N = 200, PAGES = 9 };
    shape s = { .name = "engine", .HQ = HQ, .H = H, .D = D, .n_q = 1, .n_kv = N, .q_pos = -1, .tk = SSA_F32, .B = B,
                .top_k = 3 };
    prob p;
    prob_make(&p, &s);
    FOR_LEVELS(l) {
        const ssa_exec one = { 1, NULL, NULL, NULL, 0 };
        int64_t row = row_bytes(type, D);
        static const int32_t pages[] = { 8, 3, 4, 0, 7, 2, 5 };
        size_t size = ssa_pool_size(H, D, B, N, SSA_F32);
        unsigned char *flat = xalloc(N * H * row, 2), *cache = xalloc(PAGES * T * H * row, 2);
        unsigned char *memory = xalloc((int64_t)size, 1);
        ssa_pool pool;
        ssa_attn a = p.a, b;
        CHECK(ssa_pool_init(&pool, H, D, B, N, SSA_F32, memory, size) == SSA_OK, "pool");
        a.blocks = p.blocks;
        a.k.type = a.v.type = type;
        a.k.data = flat; a.v.data = flat + N * H * row;
        a.k.token_stride = a.v.token_stride = 0; a.k.head_stride = a.v.head_stride = 0;
        b = a;
        b.pages = pages; b.page_tokens = T;
        b.page_stride_k = b.page_stride_v = 2 * T * H * row;             /* keys and values of a page side by side */
        b.k.data = cache; b.v.data = cache + T * H * row;
        for (int at = 0, step; at < N; at += step) {
            ssa_view k = p.k.view, v = p.v.view;
            step = at ? 1 : 120;
            k.data = (char *)k.data + at * p.k.ts; v.data = (char *)v.data + at * p.v.ts;
            CHECK(ssa_kv_append(&a, at, &k, &v, step, NULL) == SSA_OK
                      && ssa_kv_append(&b, at, &k, &v, step, &pool) == SSA_OK,
                  "append");
            a.n_kv = b.n_kv = at + step;
            uint64_t full = run(&p, &a, SSA_FULL, &one), sparse = run(&p, &a, SSA_SPARSE, &one);
            CHECK(run(&p, &b, SSA_FULL, &one) == full, "full at %d, %s", at, type_name(type));
            CHECK(run(&p, &b, SSA_SPARSE, &one) == sparse, "sparse at %d, %s", at, type_name(type));
            b.pool = &pool;
            CHECK(run(&p, &b, SSA_SPARSE, &one) == sparse, "pooled at %d, %s", at, type_name(type));
            if (at % 13 == 5) {                              /* a token too many, and back */
                int64_t block = (at + step) / B * B, page = block / T;
                unsigned char *block_at = cache + pages[page] * b.page_stride_k + block % T * H * row;
                unsigned char before[H * D * 4];
                ssa_view open = b.k;
                memcpy(before, pool.open_sum, sizeof before);
                open.data = (void *)((uintptr_t)block_at - (uintptr_t)(block * H * row)); /* token 0, if all lay so */
                if (at + 2 < N && (at + step + 1) % B)
                    CHECK(ssa_kv_append(&b, at + 1, &k, &v, 1, &pool) == SSA_OK
                              && ssa_pool_truncate(&pool, &open, at + 1) == SSA_OK
                              && !memcmp(before, pool.open_sum, sizeof before), "rolled back at %d", at);
            }
            b.pool = NULL;
        }
        free(flat); free(cache); free(memory);
    }
    prob_free(&p);
}

/* Many tokens of pages far apart: nothing is 32 bits wide on the way. Only the pages that are used have memory. */
static void check_far(void)
{
    static float k[2][32], v[2][32];
    const int32_t pages[2] = { 1 << 30, (1 << 30) + 1 };
    float q[32], out[32], near_[32];
    ssa_attn a = ssa_attn_default(1, 1, 32);
    if (sizeof(void *) < 8) return;
    for (int e = 0; e < 32; e++) {
        q[e] = (float)e / 32;
        k[0][e] = 1; k[1][e] = -(float)e;
        v[0][e] = 2; v[1][e] = (float)e;
    }
    a.n_q = 1; a.n_kv = 2;
    a.q.data = q; a.k.data = k; a.v.data = v; a.out.data = near_;
    CHECK(ssa_attention(&a, SSA_FULL, NULL) == SSA_OK, "near");
    a.pages = pages; a.page_tokens = 1; a.out.data = out;
    a.k.data = (void *)((uintptr_t)k - ((uintptr_t)1 << 30) * 128);
    a.v.data = (void *)((uintptr_t)v - ((uintptr_t)1 << 30) * 128);
    CHECK(ssa_attention(&a, SSA_FULL, NULL) == SSA_OK && !memcmp(out, near_, sizeof out), "pages 128 GiB away");
}

void test_cache(void)
{
    rng r = { 99, 0 };
    check_rounding();
    check_q8_shapes();
    check_q8_wide();
    check_q8_faint();
    check_pages();
    check_guarded();
    for (int from = 0; from < 3; from++)
        for (int tk = 0; tk < 4; tk++)
            for (int tv = 0; tv < 4; tv++) {
                static const int sizes[] = { 1, 3, 16, 17, 64 }, blocks[] = { 16, 1, 7 };
                int i = from * 16 + tk * 4 + tv;
                if (!test_some(i, 13)) continue;
                check_append(all_types[from], all_types[tk], all_types[tv], i % WAYS, sizes[i % 5], blocks[i / 3 % 3],
                             i % 2 ? 3 : 50, &r);
            }
    for (int type = 0; type < 4; type++) check_engine(all_types[type]);
    check_far();
}

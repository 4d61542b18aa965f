/* test_invariants.c - what holds between calls: the same bits however a call is run, the workspace, the exact relation
 * of full and sparse attention, keys out of sight */
#include "oracle.h"
#if (defined(__unix__) || defined(__APPLE__)) && (!defined(__EMSCRIPTEN__) || defined(__EMSCRIPTEN_PTHREADS__))
#include <pthread.h>
#define HAVE_THREADS 1
#else
#define HAVE_THREADS 0
#endif

/* ---- ways to run ------------------------------------------------------------------------------------------------- */
static int workers_run;                                                  /* the most workers of any phase */
static void run_reversed(void *user, ssa_task fn, void *task, int nth)
{
    int *most = user;
    if (nth < 1 || nth > *most) *most = nth;
    for (int i = nth - 1; i >= 0; i--) fn(task, i, nth);
}

#if HAVE_THREADS
typedef struct { ssa_task fn; void *task; int ith, nth; } worker;
static void *worker_main(void *arg) { worker *w = arg; w->fn(w->task, w->ith, w->nth); return NULL; }
static void run_threads(void *user, ssa_task fn, void *task, int nth)
{
    pthread_t id[16];
    worker w[16];
    int *most = user;
    if (nth < 1 || nth > *most) *most = nth;
    for (int i = 0; i < nth && i < 16; i++) {
        w[i].fn = fn; w[i].task = task; w[i].ith = i; w[i].nth = nth;
        if (pthread_create(&id[i], NULL, worker_main, &w[i])) { printf("pthread_create\n"); exit(2); }
    }
    for (int i = 0; i < nth && i < 16; i++) pthread_join(id[i], NULL);
}
#endif

static void run_plan(const ssa_plan *p, int nth, int order) /* order: 0 forward, 1 backward, 2 another nth each phase */
{
    for (int phase = 0; phase < ssa_plan_phases(p); phase++) {
        int n = order == 2 ? 1 + (phase + nth) % nth : nth;
        for (int i = 0; i < n; i++) ssa_plan_run(p, phase, order ? n - 1 - i : i, n);
    }
}

#define MAX_BATCH 8
typedef struct { prob p[MAX_BATCH]; ssa_attn a[MAX_BATCH]; int n; ssa_mode mode; } batch;
static uint64_t batch_hash(const batch *b)
{
    uint64_t h = 1;
    for (int i = 0; i < b->n; i++) h = h * 31 + prob_hash(&b->p[i]);
    return h;
}
static void batch_clear(batch *b) { for (int i = 0; i < b->n; i++) prob_clear(&b->p[i]); }

/* Every way to run b gives the bits of one call after the other, single-threaded. */
static int several;                                                      /* runs that really had more than one worker */
static void check_ways(batch *b, const char *text)
{
    FOR_LEVELS(l) {
        ssa_exec one = { 1, NULL, NULL, NULL, 0 };
        batch_clear(b);
        for (int i = 0; i < b->n; i++) CHECK(ssa_attention(&b->a[i], b->mode, &one) == SSA_OK, "alone: %s", text);
        uint64_t want = batch_hash(b);
        batch_clear(b);
        CHECK(ssa_attention_batch(b->a, b->n, b->mode, NULL) == SSA_OK && batch_hash(b) == want, "NULL exec: %s", text);
        for (int nth = 1; nth <= 5; nth++) {
            ssa_exec x = { nth, NULL, NULL, NULL, 0 };
            batch_clear(b);
            CHECK(ssa_attention_batch(b->a, b->n, b->mode, &x) == SSA_OK && batch_hash(b) == want, "%d threads: %s",
                  nth, text);
            x.parallel = run_reversed; x.user = &workers_run;
            workers_run = 0;
            batch_clear(b);
            CHECK(ssa_attention_batch(b->a, b->n, b->mode, &x) == SSA_OK && batch_hash(b) == want,
                  "%d workers backwards: %s", nth, text);
            CHECK(workers_run >= 0 && workers_run <= nth, "%d workers of at most %d", workers_run, nth);
            if (workers_run > 1) several++;
#if HAVE_THREADS
            x.parallel = run_threads;
            batch_clear(b);
            CHECK(ssa_attention_batch(b->a, b->n, b->mode, &x) == SSA_OK && batch_hash(b) == want,
                  "%d threads of ours: %s", nth, text);
#endif
            size_t size = ssa_workspace_size(b->a, b->n, b->mode, nth);
            unsigned char *ws = xalloc((int64_t)size + 64, 1);
            ssa_attn *calls = xalloc(b->n, sizeof *calls);
            CHECK(size > 0, "workspace size: %s", text);
            for (int use = 1; use <= nth; use++)                         /* plans, with all workers or fewer */
                for (int order = 0; order < 3; order++) {
                    if (nth > 3 && use != nth && use != 2) continue;
                    ssa_plan plan;
                    int off = (use * 7 + order) % 17;                    /* any alignment */
                    memset(ws, 0x5A, size + 64);
                    batch_clear(b);
                    memcpy(calls, b->a, (size_t)b->n * sizeof *calls);
                    CHECK(ssa_plan_make(&plan, calls, b->n, b->mode, nth, ws + 16 + off, size) == SSA_OK
                              && ssa_plan_phases(&plan) >= 0,
                          "plan: %s", text);
                    memset(calls, 0xEE, (size_t)b->n * sizeof *calls);   /* a plan does not need them any more */
                    ssa_plan_run(NULL, 0, 0, 1);                         /* all of these do nothing */
                    ssa_plan_run(&plan, -1, 0, 1);
                    ssa_plan_run(&plan, ssa_plan_phases(&plan), 0, 1);
                    ssa_plan_run(&plan, 99, 0, 1);
                    ssa_plan_run(&plan, 0, -1, nth); ssa_plan_run(&plan, 0, nth, nth); ssa_plan_run(&plan, 0, 0, 0);
                    ssa_plan_run(&plan, 0, 0, -1); ssa_plan_run(&plan, 0, nth, nth + 1);
                    run_plan(&plan, use, order);
                    CHECK(batch_hash(b) == want, "plan for %d, run by %d, order %d: %s", nth, use, order, text);
                    for (int again = 0; order == 0 && again < 3; again++) {
                        int by = again < 2 ? use : nth + 1 - use;
                        batch_clear(b);
                        run_plan(&plan, by, order);
                        CHECK(batch_hash(b) == want, "plan for %d, run by %d, again by %d, order %d: %s", nth, use, by,
                              order, text);
                    }
                    int canary = 1;
                    for (size_t i = 0; i < size + 64; i++)
                        if (i < 16 + (size_t)off || i >= 16 + (size_t)off + size) canary &= ws[i] == 0x5A;
                    CHECK(canary, "a plan stays inside its workspace: %s", text);
                }
            free(ws); free(calls);
        }
        CHECK(ssa_plan_phases(NULL) <= 0, "a NULL plan has no phases");
    }
}

static void batch_add(batch *b, const shape *s)
{
    prob *p = &b->p[b->n];
    prob_make(p, s);
    p->a.blocks = p->blocks;
    if (s->select == SSA_SELECT_GIVEN)
        for (int64_t e = 0; e < p->n_blocks; e++)
            p->blocks[e] = (int32_t)((e * 7 + 3) % (2 + (p->q0 + e / p->s.top_k / s->H) / p->s.B)) - 1;
    b->a[b->n++] = p->a;
}
static void batch_free(batch *b) { for (int i = 0; i < b->n; i++) prob_free(&b->p[i]); }

static const shape ways[] = {
    { .name = "prefill", .HQ = 4, .H = 2, .D = 40, .n_q = 90, .n_kv = 90, .q_pos = -1, .select = SSA_SELECT_TOPK,
      .top_k = 3 },
    { .name = "prefill bf16", .HQ = 8, .H = 1, .D = 64, .n_q = 70, .n_kv = 200, .q_pos = -1, .tq = SSA_BF16,
      .tk = SSA_BF16, .tv = SSA_BF16, .to = SSA_BF16, .lay = LAY_MIX, .select = SSA_SELECT_REFERENCE, .B = 8,
      .top_k = 8 },
    { .name = "decode", .HQ = 16, .H = 2, .D = 64, .n_q = 1, .n_kv = 3000, .q_pos = -1, .tk = SSA_BF16,
      .tv = SSA_BF16 },
    { .name = "decode f16", .HQ = 71, .H = 1, .D = 33, .DV = 20, .n_q = 1, .n_kv = 700, .q_pos = -1, .tk = SSA_F16,
      .tv = SSA_F16, .lay = LAY_ODD },
    { .name = "few rows", .HQ = 3, .H = 3, .D = 80, .n_q = 5, .n_kv = 1100, .q_pos = -1, .select = SSA_SELECT_GIVEN,
      .B = 32, .top_k = 6 },
    { .name = "no rows", .HQ = 3, .H = 3, .D = 80, .n_q = 0, .n_kv = 11, .q_pos = -1 },
    { .name = "one key", .HQ = 2, .H = 1, .D = 5, .n_q = 1, .n_kv = 1, .q_pos = -1 },
};

static void check_all_ways(void)
{
    batch b;
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
        for (int i = 0; i < COUNT(ways); i++) {
            if (!test_some(i, 5)) continue;
            b.n = 0; b.mode = (ssa_mode)mode;
            batch_add(&b, &ways[i]);
            check_ways(&b, shape_text(&ways[i]));
            batch_free(&b);
        }
        b.n = 0; b.mode = (ssa_mode)mode;
        for (int i = 0; i < COUNT(ways); i++) batch_add(&b, &ways[i]);
        check_ways(&b, mode ? "batch of all, sparse" : "batch of all, full");
        batch_free(&b);
    }
    unsigned char ws[4096];
    ssa_plan plan;
    CHECK(ssa_attention_batch(b.a, 0, SSA_FULL, NULL) == SSA_OK, "a batch of none");
    CHECK(ssa_plan_make(&plan, b.a, 0, SSA_FULL, 2, ws, sizeof ws) == SSA_OK, "a plan for none");
    run_plan(&plan, 2, 0);
}

/* ---- the workspace ----------------------------------------------------------------------------------------------- */
static void check_workspace(const shape *s, ssa_mode mode)
{
    prob p;
    prob_make(&p, s);
    p.a.blocks = p.blocks;
    FOR_LEVELS(l)
        for (int nth = 1; nth <= 4; nth += 3) {
            prob_clear(&p);
            uint64_t clean = prob_hash(&p);
            CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "own memory");
            uint64_t want = prob_hash(&p);
            size_t size = ssa_workspace_size(&p.a, 1, mode, nth);
            unsigned char *ws = xalloc((int64_t)size + 192, 1);
            for (int off = 0; off < 70; off += off < 4 ? 1 : 13) {
                ssa_exec x = { nth, run_reversed, &workers_run, ws + 64 + off, size };
                memset(ws, 0xFF, size + 192);
                prob_clear(&p);
                CHECK(ssa_attention(&p.a, mode, &x) == SSA_OK && prob_hash(&p) == want, "workspace at +%d: %s", off,
                      shape_text(&p.s));
                int canary = 1;
                for (size_t i = 0; i < size + 192; i++)
                    if (i < 64 + (size_t)off || i >= 64 + (size_t)off + size) canary &= ws[i] == 0xFF;
                CHECK(canary, "nothing outside the workspace at +%d: %s", off, shape_text(&p.s));
                memset(ws, 0xFF, size + 192);
                prob_clear(&p);
                x.workspace_size = size - 1;
                CHECK(ssa_attention(&p.a, mode, &x) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean, "one byte less: %s",
                      shape_text(&p.s));
                ssa_plan plan;
                CHECK(ssa_plan_make(&plan, &p.a, 1, mode, nth, ws + 64 + off, size - 1) == SSA_ERR_WORKSPACE,
                      "one byte less: %s", shape_text(&p.s));
                CHECK(ssa_attention_batch(&p.a, 1, mode, &x) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean,
                      "one byte less: %s", shape_text(&p.s));
                x.workspace_size = 0;
                CHECK(ssa_attention(&p.a, mode, &x) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean, "no byte: %s",
                      shape_text(&p.s));
            }
            ssa_exec any = { 0, NULL, NULL, ws, ssa_workspace_size(&p.a, 1, mode, 0) };
            prob_clear(&p);
            CHECK(ssa_attention(&p.a, mode, &any) == SSA_OK && prob_hash(&p) == want, "as many threads as fit");
            CHECK(ssa_workspace_size(&p.a, 1, mode, 0) == ssa_workspace_size(&p.a, 1, mode, 1),
                  "n_threads below 1 counts as 1");
            CHECK(ssa_workspace_size(&p.a, 1, mode, -7) == ssa_workspace_size(&p.a, 1, mode, 1),
                  "n_threads below 1 counts as 1");
            CHECK(size >= ssa_workspace_size(&p.a, 1, mode, 1), "more workers do not need less");
            ssa_attn other = p.a;                                        /* depends on shapes, not on data */
            other.q.data = other.k.data;
            CHECK(ssa_workspace_size(&other, 1, mode, nth) == size, "the size does not depend on data");
            if (mode == SSA_SPARSE && s->select != SSA_SELECT_GIVEN) {   /* a call's workspace serves the selection */
                ssa_exec x = { nth, run_reversed, &workers_run, ws, size };
                int32_t *chosen = xalloc(p.n_blocks, sizeof *chosen);
                prob_clear(&p);
                CHECK(ssa_select_blocks(&p.a, NULL) == SSA_OK, "select");
                memcpy(chosen, p.blocks, (size_t)p.n_blocks * 4);
                prob_clear(&p);
                CHECK(ssa_select_blocks(&p.a, &x) == SSA_OK && !memcmp(chosen, p.blocks, (size_t)p.n_blocks * 4),
                      "select in a workspace");
                free(chosen);
            }
            free(ws);
        }
    prob_free(&p);
}

/* ---- queries alone and together ---------------------------------------------------------------------------------- */
static void check_alone(const shape *s, ssa_mode mode)
{
    two_x out = { 0 }, lse = { 0 };
    o_result r;
    prob p;
    prob_make(&p, s);
    if (mode == SSA_SPARSE) {                                            /* one selection for all levels and ways */
        p.a.blocks = p.blocks;
        CHECK(ssa_select_blocks(&p.a, NULL) == SSA_OK, "select");
        p.a.select = SSA_SELECT_GIVEN;
        p.s.select = SSA_SELECT_GIVEN;
    }
    o_solve(&p, mode == SSA_SPARSE ? p.blocks : NULL, &r, &out, &lse);
    FOR_LEVELS(l)
        for (int step = 1; step <= p.s.n_q; step = step * 3 + 1) {       /* slices of 1, 4, 13, .. queries */
            prob_clear(&p);
            for (int i = 0; i < p.s.n_q; i += step) {
                ssa_attn a = p.a;
                a.n_q = i + step <= p.s.n_q ? step : p.s.n_q - i;
                a.q_pos = p.q0 + i;
                if (i % 2)
                    a.n_kv = p.q0 + i + a.n_q < p.s.n_kv ? p.q0 + i + a.n_q : p.s.n_kv; /* later keys not there yet */
                a.q.data = (char *)p.q.view.data + i * p.q.ts; a.q.token_stride = p.q.ts; a.q.head_stride = p.q.hs;
                a.out.data = (char *)p.o.view.data + i * p.o.ts;
                a.out.token_stride = p.o.ts;
                a.out.head_stride = p.o.hs;
                a.gate = p.gate + i * p.s.HQ; a.lse = p.lse + i * p.s.HQ;
                if (a.blocks) a.blocks = p.blocks + (int64_t)i * p.s.H * p.s.top_k;
                CHECK(ssa_attention(&a, mode, NULL) == SSA_OK, "slice: %s", shape_text(&p.s));
            }
            o_compare(&p, &r, l, &out, &lse);
        }
    two_x_check(&out, p.s.to, "slices, out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "slices, lse", shape_text(&p.s), __FILE__, __LINE__);
    o_result_free(&r);
    prob_free(&p);
}

/* ---- f - s = delta * (h - s), with h the attention over the dropped keys; and Theorem 1 -------------------------- */
static void check_theorem(const shape *s)
{
    two_x bf = { 0 }, bs = { 0 }, bl = { 0 };
    o_result rf, rs;
    prob p;
    o_call c;
    prob_make(&p, s);
    o_call_of(&c, &p);
    p.a.gate = NULL; c.gate = NULL;
    int DV = p.s.DV, G = c.HQ / c.H, n_dropping = 0, identity = 1, theorem = 1, share = 1;
    float *f = xalloc(tensor_count(&p.o), sizeof *f), *lf = xalloc(p.n_lse, sizeof *lf),
          *sparsity = xalloc(p.n_lse, sizeof *sparsity);
    double *h = xalloc(DV, sizeof *h);
    int32_t *dropped = xalloc(p.s.n_kv / p.s.B + 1, sizeof *dropped);
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        CHECK(ssa_attention(&p.a, SSA_FULL, NULL) == SSA_OK, "full");
        tensor_load(&p.o);
        memcpy(f, p.o.val, (size_t)tensor_count(&p.o) * sizeof *f);
        memcpy(lf, p.lse, (size_t)p.n_lse * sizeof *lf);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "sparse");
        tensor_load(&p.o);
        ssa_attention_sparsity(p.lse, lf, p.n_lse, sparsity);
        o_solve(&p, NULL, &rf, &bf, &bl);
        o_solve(&p, p.blocks, &rs, &bs, &bl);
        /* rounding of f, of s, and of the two lse, by the 2x rule */
        double ef = two_x_bound(&bf, l, SSA_F32), es = two_x_bound(&bs, l, SSA_F32),
               el = 2 * two_x_bound(&bl, l, SSA_F32) + 1e-7;
        for (int64_t row = 0; row < p.n_lse; row++) {
            int64_t cur = (p.q0 + row / c.HQ) / c.B;
            const int32_t *chosen = p.blocks + (row / c.HQ * c.H + row % c.HQ / G) * c.top_k;
            int n = 0;
            for (int32_t b = 0; b <= cur; b++) {
                int kept = 0;
                for (int e = 0; e < c.top_k; e++) kept |= chosen[e] == b;
                if (!kept) dropped[n++] = b;
            }
            double lse, delta = 1 - (double)sparsity[row], worst = 0, norm_s = 0, norm_fs = 0, v_max = 0;
            share &= delta >= -el && delta <= 1;
            if (!n) { share &= fabs(delta) <= el; continue; }
            n_dropping++;
            o_row(&c, row / c.HQ, (int)(row % c.HQ), dropped, n, h, &lse);
            for (int d = 0; d < DV; d++) {
                double fd = (double)f[row * DV + d], sd = (double)p.o.val[row * DV + d];
                double off =
                    fabs((fd - sd) - delta * (h[d] - sd)) - (ef + es * (1 + fabs(delta)) + el * fabs(h[d] - sd));
                if (off > worst) worst = off;
                norm_s += sd * sd;
                norm_fs += (fd - sd) * (fd - sd);
            }
            identity &= worst <= 0;
            for (int e = 0; e < n; e++)
                for (int64_t t = (int64_t)dropped[e] * c.B; t < ((int64_t)dropped[e] + 1) * c.B; t++) {
                    double norm = 0;
                    const float *v = c.v + (t * c.H + row % c.HQ / G) * DV;
                    for (int d = 0; d < DV; d++) norm += (double)v[d] * (double)v[d];
                    if (norm > v_max) v_max = norm;
                }
            double bound = sqrt(v_max) + sqrt(norm_s);
            theorem &= sqrt(norm_fs) <= (delta + el) * bound + (ef + es) * sqrt((double)DV);
        }
        o_result_free(&rf); o_result_free(&rs);
    }
    CHECK(n_dropping > 0, "some rows drop keys: %s", shape_text(&p.s));
    CHECK(share, "delta is a share, 0 where nothing is dropped: %s", shape_text(&p.s));
    CHECK(identity, "f - s = delta * (h - s): %s", shape_text(&p.s));
    CHECK(theorem, "|f - s| <= delta * (max |v| + |s|): %s", shape_text(&p.s));
    free(f); free(lf); free(sparsity); free(h); free(dropped);
    prob_free(&p);
}

/* ---- keys and values out of sight may hold anything -------------------------------------------------------------- */
static void check_out_of_sight(const shape *s, ssa_mode mode)
{
    prob p;
    prob_make(&p, s);
    p.a.blocks = p.blocks;
    static const char *const what_text[] = { "keys", "keys and values", "values" };
    int64_t first = p.q0 + s->n_q;                                       /* no query sees this key or a later one */
    FOR_LEVELS(l) {
        for (int what = 0; what < 6; what++) { /* keys, values or both; past all queries or past the first half */
            int half = what & 1, k = what <= 3, v = what >= 2;
            int64_t from = half ? p.q0 + s->n_q / 2 : first, rows = half ? s->n_q / 2 : s->n_q;
            prob_fill(&p, s->seed);
            CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "status");
            uint64_t want = bytes_hash(p.o.view.data, rows * p.o.ts, bytes_hash(p.lse, rows * s->HQ * 4, 1));
            for (int64_t e = k ? from * p.s.H * p.s.D : INT64_MAX; e < tensor_count(&p.k); e++)
                p.k.val[e] = e % 3 ? NAN : INFINITY;
            for (int64_t e = v ? from * p.s.H * p.s.DV : INT64_MAX; e < tensor_count(&p.v); e++)
                p.v.val[e] = e % 5 ? NAN : INFINITY;
            tensor_store(&p.k);
            tensor_store(&p.v);
            prob_clear(&p);
            CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "status");
            CHECK(want == bytes_hash(p.o.view.data, rows * p.o.ts, bytes_hash(p.lse, rows * s->HQ * 4, 1)),
                  "NaN in %s past %s of the queries has no effect, %s: %s", what_text[what / 2],
                  half ? "the first half" : "all", mode ? "sparse" : "full", shape_text(&p.s));
        }
    }
    prob_free(&p);
}

/* A NaN in one query's row is that query's own affair, and where its group selects with it, that query's group's. */
static void check_nan_query(const shape *s, ssa_mode mode)
{
    prob p;
    prob_make(&p, s);
    int64_t row = (int64_t)(s->n_q / 2) * s->HQ + s->HQ - 1, group = s->HQ / s->H, n = p.n_lse;
    float *want = xalloc(tensor_count(&p.o), sizeof *want), *lse = xalloc(n, sizeof *lse);
    FOR_LEVELS(l) {
        prob_fill(&p, s->seed);
        CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "status");
        tensor_load(&p.o);
        memcpy(want, p.o.val, (size_t)tensor_count(&p.o) * sizeof *want);
        memcpy(lse, p.lse, (size_t)n * sizeof *lse);
        p.q.val[row * p.s.D] = NAN;
        tensor_store(&p.q);
        CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "status");
        tensor_load(&p.o);
        int same = 1, spoilt = isnan(p.lse[row]) != 0;
        for (int64_t r = 0; r < n; r++) {
            if (mode == SSA_SPARSE ? r > row - group && r <= row : r == row) continue;
            same &= lse[r] == p.lse[r];
            same &= !memcmp(want + r * p.s.DV, p.o.val + r * p.s.DV, (size_t)p.s.DV * sizeof *want);
        }
        for (int d = 0; d < p.s.DV; d++) spoilt &= isnan(p.o.val[row * p.s.DV + d]) != 0;
        CHECK(same, "a NaN query leaves the others alone, %s: %s", mode ? "sparse" : "full", shape_text(&p.s));
        CHECK(spoilt, "a NaN query gives NaN, %s: %s", mode ? "sparse" : "full", shape_text(&p.s));
    }
    free(want); free(lse);
    prob_free(&p);
}

static void check_long_decode(ssa_type t, int n_kv, ssa_mode mode)
{
    shape s = { .name = "long decode", .HQ = 16, .H = 2, .D = 64, .n_q = 1, .n_kv = n_kv, .q_pos = -1, .tk = t, .tv = t,
                .seed = 99 };
    two_x out = { 0 }, lse = { 0 };
    o_result r = { 0 };
    prob p;
    prob_make(&p, &s);
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        uint64_t want = 0;
        for (int nth = 1; nth <= 5; nth += 2) {
            ssa_exec x = { nth, run_reversed, &workers_run, NULL, 0 };
            prob_clear(&p);
            CHECK(ssa_attention(&p.a, mode, &x) == SSA_OK, "status");
            if (nth == 1) want = prob_hash(&p);
            CHECK(want == prob_hash(&p), "%d workers: %s", nth, shape_text(&p.s));
        }
        if (l == 0 || mode == SSA_SPARSE) {
            if (r.out) o_result_free(&r);
            o_solve(&p, mode == SSA_SPARSE ? p.blocks : NULL, &r, &out, &lse);
        }
        o_compare(&p, &r, l, &out, &lse);
    }
    two_x_check(&out, SSA_F32, "long decode, out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "long decode, lse", shape_text(&p.s), __FILE__, __LINE__);
    o_result_free(&r);
    prob_free(&p);
}

/* Which phases a call has: pool, pack, score and weigh, select, attend, merge, each only where there is something to
 * do. Keys that many tiles read are laid out before these, where there are as many rows. A long decode, full or sparse
 * with a large budget, must be split over the cache, and so must the scores of many blocks for few queries; else the
 * threads would have nothing to share. */
static void check_phases(void)
{
    static const struct { ssa_mode mode; int n_q, n_kv, top_k; ssa_select select; int phases; } cases[] = {
        { SSA_FULL, 1, 300, 16, SSA_SELECT_TOPK, 1 },       { SSA_FULL, 1, 20011, 16, SSA_SELECT_TOPK, 2 },
        { SSA_FULL, 1000, 1000, 16, SSA_SELECT_TOPK, 2 },   { SSA_FULL, 1000, 8001, 16, SSA_SELECT_TOPK, 1 },
        { SSA_FULL, 24, 1000, 16, SSA_SELECT_TOPK, 2 },     { SSA_SPARSE, 1, 300, 4, SSA_SELECT_TOPK, 3 },
        { SSA_SPARSE, 1, 300, 1000, SSA_SELECT_TOPK, 2 },   { SSA_SPARSE, 1, 300, 4, SSA_SELECT_GIVEN, 2 },
        { SSA_SPARSE, 1, 32768, 1000, SSA_SELECT_TOPK, 4 }, { SSA_SPARSE, 1, 32768, 16, SSA_SELECT_REFERENCE, 3 },
        { SSA_SPARSE, 1, 131071, 16, SSA_SELECT_TOPK, 3 },  { SSA_SPARSE, 1, 131072, 16, SSA_SELECT_TOPK, 5 },
        { SSA_SPARSE, 4, 131072, 16, SSA_SELECT_TOPK, 5 },  { SSA_SPARSE, 40, 131072, 16, SSA_SELECT_TOPK, 3 } };
    for (int i = 0; i < COUNT(cases); i++) {
        shape s = { .name = "phases", .HQ = 16, .H = 2, .D = 8, .n_q = cases[i].n_q, .n_kv = cases[i].n_kv,
                    .q_pos = -1, .top_k = cases[i].top_k, .select = cases[i].select };
        ssa_plan plan;
        size_t size;
        void *ws;
        prob p;
        prob_make(&p, &s);
        if (s.select == SSA_SELECT_GIVEN) p.a.blocks = p.blocks;
        size = ssa_workspace_size(&p.a, 1, cases[i].mode, 3);
        ws = xalloc((int64_t)size, 1);
        CHECK(ssa_plan_make(&plan, &p.a, 1, cases[i].mode, 3, ws, size) == SSA_OK, "status: %s", shape_text(&s));
        CHECK(ssa_plan_phases(&plan) == cases[i].phases, "%d phases, not %d, mode %d: %s", ssa_plan_phases(&plan),
              cases[i].phases, (int)cases[i].mode, shape_text(&s));
        free(ws);
        prob_free(&p);
    }
}

void test_invariants(void)
{
    check_phases();
    check_all_ways();
    CHECK(test_brief || several >= 20 * level_count(), "calls are large enough to be shared between workers: %d",
          several);
    if (!HAVE_THREADS) SKIP("threads", "no threads here: workers ran one after the other only");
#ifndef _OPENMP
    SKIP("openmp", "compiled without OpenMP");
#endif
    for (int i = 0; i < COUNT(ways); i++) {
        if (!test_some(i, 4)) continue;
        if (ways[i].select != SSA_SELECT_GIVEN) check_workspace(&ways[i], SSA_SPARSE);
        check_workspace(&ways[i], SSA_FULL);
        if (ways[i].n_q > 1 && ways[i].select != SSA_SELECT_GIVEN)
            for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) check_alone(&ways[i], (ssa_mode)mode);
    }
    static const shape theorem[] = {
        { .name = "theorem", .HQ = 4, .H = 2, .D = 32, .n_q = 60, .n_kv = 300, .q_pos = -1, .top_k = 4 },
        { .name = "theorem, peaked", .HQ = 4, .H = 2, .D = 32, .n_q = 30, .n_kv = 300, .q_pos = -1, .top_k = 2,
          .amp = 4 },
        { .name = "theorem, reference", .HQ = 8, .H = 1, .D = 64, .DV = 17, .n_q = 40, .n_kv = 600, .q_pos = -1, .B = 8,
          .top_k = 8, .tk = SSA_BF16, .tv = SSA_F16, .select = SSA_SELECT_REFERENCE },
        { .name = "theorem, one block", .HQ = 3, .H = 3, .D = 16, .n_q = 50, .n_kv = 50, .q_pos = -1, .B = 4,
          .top_k = 1 } };
    for (int i = 0; i < COUNT(theorem); i++) check_theorem(&theorem[i]);
    static const shape sight[] = {
        { .name = "sight", .HQ = 4, .H = 2, .D = 40, .n_q = 40, .n_kv = 100, .q_pos = 20, .top_k = 3 },
        { .name = "sight bf16", .HQ = 8, .H = 1, .D = 64, .n_q = 33, .n_kv = 130, .q_pos = 50, .tk = SSA_BF16,
          .tv = SSA_BF16, .top_k = 4 },
        { .name = "sight f16", .HQ = 1, .H = 1, .D = 7, .n_q = 2, .n_kv = 17, .q_pos = 3, .tk = SSA_F16, .tv = SSA_F16,
          .B = 2, .top_k = 2 },
        { .name = "sight decode", .HQ = 20, .H = 1, .D = 64, .n_q = 1, .n_kv = 300, .q_pos = 150, .tk = SSA_F16,
          .tv = SSA_BF16 } };
    for (int i = 0; i < COUNT(sight); i++)
        for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
            check_out_of_sight(&sight[i], (ssa_mode)mode);
            check_nan_query(&sight[i], (ssa_mode)mode);
        }
    if (test_brief) return;
    check_long_decode(SSA_F32, 20011, SSA_FULL);
    check_long_decode(SSA_BF16, 32768, SSA_FULL);
    check_long_decode(SSA_F16, 65537, SSA_SPARSE);
}

/* test_recipes.c - the README's code for other engines, as it stands there, on stand-ins with these engines' layouts
 * and names. Each is held against a loop over heads and keys as that engine writes it, with double accumulators. */
#include "test.h"
#if defined(_OPENMP)
#include <omp.h>
#endif

/* One query head over the keys of a list: where each key's and value's row lies, or NULL where it is hidden. */
typedef const void *(*row_of)(const void *engine, int k, int64_t j, int kv_head);
static void loop(double *out, const float *q, int64_t n, int dim, ssa_type tk, ssa_type tv, row_of row,
                 const void *engine, int kv_head)
{
    double *w = xalloc(n + 1, sizeof *w), top = -1e300, sum = 0;
    float x[SSA_MAX_DIM];
    for (int64_t j = 0; j < n; j++) {
        const unsigned char *k = row(engine, 1, j, kv_head);
        w[j] = -INFINITY;
        if (!k) continue;
        row_get(tk, k, x, dim);
        w[j] = 0;
        for (int e = 0; e < dim; e++) w[j] += (double)q[e] * (double)x[e];
        w[j] /= sqrt(dim);
        if (w[j] > top) top = w[j];
    }
    for (int e = 0; e < dim; e++) out[e] = 0;
    for (int64_t j = 0; j < n; j++) {
        const unsigned char *v = row(engine, 0, j, kv_head);
        if (!v) continue;
        row_get(tv, v, x, dim);
        sum += w[j] = exp(w[j] - top);
        for (int e = 0; e < dim; e++) out[e] += w[j] * (double)x[e];
    }
    for (int e = 0; e < dim; e++) out[e] /= sum;
    free(w);
}

/* Within 1e-5 of the row's largest value. */
static int row_ok(const float *got, const double *want, int dim)
{
    double largest = 0;
    int ok = 1;
    for (int e = 0; e < dim; e++) largest = fmax(largest, fabs(want[e]));
    for (int e = 0; e < dim; e++) ok &= fabs((double)got[e] - want[e]) <= 1e-5 * largest; /* NaN is not */
    return ok && largest > 0;
}

static float *floats(int64_t n, uint64_t seed)
{
    rng r = { seed, 0 };
    float *x = xalloc(n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = 2 * rng_f(&r);
    return x;
}

/* Is this the pool, in f32 and of 16-key blocks, that appending the first n keys to an empty one gives? */
static int pool_ok(const ssa_pool *p, const float *keys, int64_t n)
{
    ssa_view k = { (void *)(uintptr_t)keys, SSA_F32, 0, 0 };
    size_t size = ssa_pool_size(p->n_kv_heads, p->head_dim, 16, n, SSA_F32);
    void *memory = xalloc((int64_t)size, 1);
    ssa_pool fresh;
    int ok = !ssa_pool_init(&fresh, p->n_kv_heads, p->head_dim, 16, n, SSA_F32, memory, size)
             && !ssa_pool_append(&fresh, &k, n) && p->n_tokens == n;
    for (int h = 0; ok && h < p->n_kv_heads; h++)
        ok &= !memcmp((float *)p->pooled + h * p->max_blocks * p->head_dim,
                      (float *)fresh.pooled + h * fresh.max_blocks * p->head_dim, (size_t)(n / 16 * p->head_dim * 4));
    ok &= n % 16 == 0 || !memcmp(p->open_sum, fresh.open_sum, (size_t)(p->n_kv_heads * p->head_dim) * 4);
    free(memory);
    return ok;
}

/* ---- llama2.c, qwen3.c: qwen3's head_dim is its own, so that n_heads * head_dim need not be dim ------------------ */
typedef struct { int dim, n_layers, n_heads, n_kv_heads, head_dim, seq_len; } Config;
typedef struct { float *q, *xb, *att, *key_cache, *value_cache; } RunState;

static void llama2_recipe(const Config *p, RunState *s, int64_t loff, int pos, int head_size)
{
#include "recipes/llama2.h"
}
static void llama2_loop(const Config *p, RunState *s, int64_t loff, int pos, int head_size, double *xb)
{
    int kv_dim = p->n_kv_heads * head_size, kv_mul = p->n_heads / p->n_kv_heads;
    for (int h = 0; h < p->n_heads; h++) {
        const float *q = s->q + h * head_size;
        double top = -1e300, sum = 0;
        for (int t = 0; t <= pos; t++) {
            const float *k = s->key_cache + loff + (int64_t)t * kv_dim + (h / kv_mul) * head_size;
            double score = 0;
            for (int i = 0; i < head_size; i++) score += (double)q[i] * (double)k[i];
            s->att[t] = (float)(score / sqrt(head_size));
            if ((double)s->att[t] > top) top = (double)s->att[t];
        }
        for (int i = 0; i < head_size; i++) xb[h * head_size + i] = 0;
        for (int t = 0; t <= pos; t++) {
            const float *v = s->value_cache + loff + (int64_t)t * kv_dim + (h / kv_mul) * head_size;
            double a = exp((double)s->att[t] - top);
            sum += a;
            for (int i = 0; i < head_size; i++) xb[h * head_size + i] += a * (double)v[i];
        }
        for (int i = 0; i < head_size; i++) xb[h * head_size + i] /= sum;
    }
}
static void check_llama2(const Config *p)
{
    int kv_dim = p->n_kv_heads * p->head_dim, q_dim = p->n_heads * p->head_dim, ok = 1;
    int64_t cache = (int64_t)p->n_layers * p->seq_len * kv_dim;
    RunState s = { floats(q_dim, 1), xalloc(q_dim, sizeof(float)), xalloc(p->seq_len, sizeof(float)), floats(cache, 2),
                   floats(cache, 3) };
    double *xb = xalloc(q_dim, sizeof *xb);
    for (int l = 0; l < p->n_layers; l++)
        for (int pos = 0; pos < p->seq_len; pos += pos < 3 ? 1 : 37) {
            int64_t loff = (int64_t)l * p->seq_len * kv_dim;
            memset(s.xb, 0xFF, (size_t)q_dim * sizeof(float));
            llama2_loop(p, &s, loff, pos, p->head_dim, xb);
            llama2_recipe(p, &s, loff, pos, p->head_dim);
            for (int at = 0; at < q_dim; at += p->head_dim) ok &= row_ok(s.xb + at, xb + at, p->head_dim);
        }
    CHECK(ok, "llama2.c, qwen3.c: %d heads on %d of dim %d", p->n_heads, p->n_kv_heads, p->head_dim);
    free(s.q); free(s.xb); free(s.att); free(s.key_cache); free(s.value_cache); free(xb);
}

/* ---- voxtral.c: a cache [layer][max][kv_dim] that grows, moves and forgets its front ----------------------------- */
enum { VOX_LAYERS = 2, VOX_HEADS = 8, VOX_KV_HEADS = 2, VOX_DIM = 32, VOX_DEC_WINDOW = 64, VOX_ROOM = 200 };
typedef struct { float *kv_cache_k, *kv_cache_v; int kv_cache_len, kv_cache_max; } vox_ctx_t;

static float *kv_cache_k_at(vox_ctx_t *ctx, int layer, int pos)
{
    return ctx->kv_cache_k + ((int64_t)layer * ctx->kv_cache_max + pos) * VOX_KV_HEADS * VOX_DIM;
}
static float *kv_cache_v_at(vox_ctx_t *ctx, int layer, int pos)
{
    return ctx->kv_cache_v + ((int64_t)layer * ctx->kv_cache_max + pos) * VOX_KV_HEADS * VOX_DIM;
}
static void vox_grow(vox_ctx_t *ctx, int max)
{
    const int64_t row = VOX_KV_HEADS * VOX_DIM;
    vox_ctx_t old = *ctx;
    ctx->kv_cache_k = floats(VOX_LAYERS * max * row, 4); /* what no token was stored in is not zero */
    ctx->kv_cache_v = floats(VOX_LAYERS * max * row, 5);
    ctx->kv_cache_max = max;
    for (int l = 0; l < VOX_LAYERS && old.kv_cache_k; l++) {
        size_t bytes = (size_t)(old.kv_cache_len * row) * sizeof(float);
        memcpy(kv_cache_k_at(ctx, l, 0), kv_cache_k_at(&old, l, 0), bytes);
        memcpy(kv_cache_v_at(ctx, l, 0), kv_cache_v_at(&old, l, 0), bytes);
    }
    free(old.kv_cache_k); free(old.kv_cache_v);
}
static void vox_compact(vox_ctx_t *ctx, ssa_pool *pool, int keep)
{
    const size_t bytes = (size_t)keep * VOX_KV_HEADS * VOX_DIM * sizeof(float);
    int discard = ctx->kv_cache_len - keep;
    for (int l = 0; l < VOX_LAYERS; l++) {
        float *k_base = kv_cache_k_at(ctx, l, 0);
        memmove(k_base, kv_cache_k_at(ctx, l, discard), bytes);
        memmove(kv_cache_v_at(ctx, l, 0), kv_cache_v_at(ctx, l, discard), bytes);
#include "recipes/voxtral_compact.h"
    }
    ctx->kv_cache_len = keep;
}
/* Windowed into attn_out, sparse into attn_sparse. */
static void vox_recipe(vox_ctx_t *ctx, ssa_pool *pool, int layer, float *q, int seq_len, float *attn_out,
                       float *attn_sparse)
{
    int n_heads = VOX_HEADS, n_kv_heads = VOX_KV_HEADS, head_dim = VOX_DIM, start_pos = ctx->kv_cache_len;
#include "recipes/voxtral.h"
    a.out.data = attn_sparse;
#include "recipes/voxtral_sparse.h"
}
typedef struct { vox_ctx_t *ctx; int layer, from; } vox_keys;
static const void *vox_row(const void *engine, int k, int64_t j, int kv_head)
{
    const vox_keys *x = engine;
    if (j < x->from) return NULL;
    return (k ? kv_cache_k_at(x->ctx, x->layer, (int)j) : kv_cache_v_at(x->ctx, x->layer, (int)j)) + kv_head * VOX_DIM;
}
/* Up to 256 keys, 16 blocks of 16 are all there are: the sparse call is then attention over all. */
static void check_voxtral(void)
{
    static const int steps[] = { 70, 1, 1, 17, 1, 60, 1, 5, 1, 1, 40, 1 };
    const int64_t q_dim = VOX_HEADS * VOX_DIM, kv_dim = VOX_KV_HEADS * VOX_DIM;
    size_t size = ssa_pool_size(VOX_KV_HEADS, VOX_DIM, 16, VOX_ROOM, SSA_F32);
    vox_ctx_t ctx = { NULL, NULL, 0, 0 };
    ssa_pool pool[VOX_LAYERS];
    void *memory[VOX_LAYERS];
    int ok = 1, sparse_ok = 1, pools = 1;
    for (int l = 0; l < VOX_LAYERS; l++) {
        memory[l] = xalloc((int64_t)size, 1);
        CHECK(!ssa_pool_init(&pool[l], VOX_KV_HEADS, VOX_DIM, 16, VOX_ROOM, SSA_F32, memory[l], size), "pool");
    }
    vox_grow(&ctx, 80);
    for (int i = 0; i < COUNT(steps); i++) {
        int n = steps[i], start = ctx.kv_cache_len;
        float *out = xalloc(n * q_dim, sizeof *out), *sparse = xalloc(n * q_dim, sizeof *out);
        if (start + n > ctx.kv_cache_max) vox_grow(&ctx, 2 * ctx.kv_cache_max);
        for (int l = 0; l < VOX_LAYERS; l++) {
            uint64_t seed = (uint64_t)(100 + 10 * i + l);
            float *q = floats(n * q_dim, seed), *k = floats(n * kv_dim, 1000 + seed),
                  *v = floats(n * kv_dim, 2000 + seed);
            memcpy(kv_cache_k_at(&ctx, l, start), k, (size_t)(n * kv_dim) * sizeof *k);
            memcpy(kv_cache_v_at(&ctx, l, start), v, (size_t)(n * kv_dim) * sizeof *v);
            vox_recipe(&ctx, pool, l, q, n, out, sparse);
            for (int t = 0; t < n; t++)
                for (int h = 0; h < VOX_HEADS; h++) {
                    vox_keys x = { &ctx, l, start + t + 1 - VOX_DEC_WINDOW };
                    const int64_t at = t * q_dim + h * VOX_DIM;
                    double want[VOX_DIM];
                    loop(want, q + at, start + t + 1, VOX_DIM, SSA_F32, SSA_F32, vox_row, &x, h / 4);
                    ok &= row_ok(out + at, want, VOX_DIM);
                    x.from = 0;
                    loop(want, q + at, start + t + 1, VOX_DIM, SSA_F32, SSA_F32, vox_row, &x, h / 4);
                    sparse_ok &= row_ok(sparse + at, want, VOX_DIM);
                }
            free(q); free(k); free(v);
        }
        ctx.kv_cache_len += n;
        if (i == 4) vox_compact(&ctx, pool, ctx.kv_cache_len - 16); /* whole blocks */
        if (i == 7) vox_compact(&ctx, pool, VOX_DEC_WINDOW + 3);    /* any number */
        for (int l = 0; l < VOX_LAYERS; l++)
            pools &= pool_ok(&pool[l], kv_cache_k_at(&ctx, l, 0), ctx.kv_cache_len);
        free(out); free(sparse);
    }
    CHECK(ok, "voxtral.c, window");
    CHECK(sparse_ok, "voxtral.c, sparse over all blocks");
    CHECK(pools, "voxtral.c, the pools after appends and compactions");
    for (int l = 0; l < VOX_LAYERS; l++) free(memory[l]);
    free(ctx.kv_cache_k); free(ctx.kv_cache_v);
}

/* ---- flux2.c: [seq][heads * dim], text before image -------------------------------------------------------------- */
static void flux_recipe(float *out, float *lse, float *out_img, float *lse_img, const float *q, int n_q,
                        const float *img_k, const float *img_v, const float *txt_k, const float *txt_v, int img_seq,
                        int txt_seq, int heads, int head_dim)
{
#include "recipes/flux.h"
}
typedef struct { const float *k, *v; int dim, hidden; } flux_keys;
static const void *flux_row(const void *engine, int k, int64_t j, int kv_head)
{
    const flux_keys *x = engine;
    return (k ? x->k : x->v) + j * x->hidden + kv_head * x->dim;
}
static void check_flux(int img_seq, int txt_seq, int heads, int dim)
{
    const int hidden = heads * dim, seq = txt_seq + img_seq;
    float *q = floats(seq * hidden, 1), *cat_k = floats(seq * hidden, 2), *cat_v = floats(seq * hidden, 3);
    float *img_k = xalloc(img_seq * hidden, 4), *img_v = xalloc(img_seq * hidden, 4);
    float *out = xalloc(seq * hidden, 4), *lse = xalloc(seq * heads, 4), *out2 = xalloc(seq * hidden, 4),
          *lse2 = xalloc(seq * heads, 4);
    flux_keys x = { cat_k, cat_v, dim, hidden };
    int ok = 1;
    memcpy(img_k, cat_k + txt_seq * hidden, (size_t)(img_seq * hidden) * 4);
    memcpy(img_v, cat_v + txt_seq * hidden, (size_t)(img_seq * hidden) * 4);
    for (int image = 0; image < 2; image++) {
        int at = image ? txt_seq : 0, n = image ? img_seq : txt_seq;
        flux_recipe(out + at * hidden, lse, out2, lse2, q + at * hidden, n, img_k, img_v, cat_k, cat_v, img_seq,
                    txt_seq, heads, dim);
    }
    for (int i = 0; i < seq; i++)
        for (int h = 0; h < heads; h++) {
            double want[SSA_MAX_DIM];
            loop(want, q + i * hidden + h * dim, seq, dim, SSA_F32, SSA_F32, flux_row, &x, h);
            ok &= row_ok(out + i * hidden + h * dim, want, dim);
        }
    CHECK(ok, "flux2.c: text %d, image %d, %d heads of dim %d", txt_seq, img_seq, heads, dim);
    free(q); free(cat_k); free(cat_v); free(img_k); free(img_v); free(out); free(lse); free(out2); free(lse2);
}

/* ---- ggml: tensors with ne and nb, workers with a barrier -------------------------------------------------------- */
enum ggml_type { GGML_TYPE_F32 = 0, GGML_TYPE_F16 = 1, GGML_TYPE_Q8_0 = 8, GGML_TYPE_BF16 = 30 };
struct ggml_tensor { enum ggml_type type; int64_t ne[4]; size_t nb[4]; void *data; };
struct ggml_compute_params { int ith, nth; size_t wsize; void *wdata; void *threadpool; };

static ssa_type ssa_of(enum ggml_type t)
{
    return t == GGML_TYPE_F16 ? SSA_F16 : t == GGML_TYPE_Q8_0 ? SSA_Q8_0 : t == GGML_TYPE_BF16 ? SSA_BF16 : SSA_F32;
}
#define GGML_ASSERT(x) CHECK(x, "%s", #x)

/* The workers are OpenMP's threads, and each has a call of its own, as ggml's have. Without OpenMP one thread plays all
 * of them in each phase, the last first. */
#if defined(_OPENMP)
static void ggml_barrier(void *threadpool)
{
    (void)threadpool;
    #pragma omp barrier
}
#else
#define ggml_barrier(pool) ((void)(pool))
#define ssa_plan_run(p, phase, ith, nth) for (int w_ = (nth) + 0 * (ith); w_-- > 0;) (ssa_plan_run)(p, phase, w_, nth)
#endif

typedef struct {                                           /* flash attention's node, and what the cache's user knows */
    struct ggml_tensor *q, *k, *v, *mask, *dst;
    float scale;
    const int32_t *cell_blocks;                            /* NULL: order is the mask's */
    int64_t n_past;
} ggml_node;

static ssa_attn ggml_call(const ggml_node *x)
{
    const struct ggml_tensor *q = x->q, *k = x->k, *v = x->v, *mask = x->mask, *dst = x->dst;
    const int32_t *cell_blocks = x->cell_blocks;
    const int64_t n_past = x->n_past;
    const float scale = x->scale;
#include "recipes/ggml.h"
    if (cell_blocks) {
#include "recipes/ggml_cells.h"
    }
    return a;
}
static void ggml_worker(const struct ggml_compute_params *params, const ggml_node *x)
{
    const ssa_attn a = ggml_call(x);
#include "recipes/ggml_run.h"
}
#if !defined(_OPENMP)
#undef ssa_plan_run
#endif

static void ggml_compute(const ggml_node *x, int n_tasks)
{
    const ssa_attn a = ggml_call(x);
    struct ggml_compute_params params = { 0, n_tasks, 0, NULL, NULL };
    params.wsize = sizeof(ssa_plan) + ssa_workspace_size(&a, 1, SSA_FULL, n_tasks);
    params.wdata = xalloc((int64_t)params.wsize, 1);
#if defined(_OPENMP)
    #pragma omp parallel num_threads(n_tasks)
    {
        struct ggml_compute_params own = params;
        own.ith = omp_get_thread_num();
        own.nth = omp_get_num_threads();
        ggml_worker(&own, x);
    }
#else
    ggml_worker(&params, x);
#endif
    free(params.wdata);
}

static void ggml_strides(struct ggml_tensor *t, enum ggml_type type, int64_t a, int64_t b, int64_t c)
{
    const int64_t ne[4] = { a, b, c, 1 };
    t->type = type;
    memcpy(t->ne, ne, sizeof ne);
    t->nb[0] = (size_t)row_bytes(ssa_of(type), type == GGML_TYPE_Q8_0 ? 32 : 1);
    t->nb[1] = (size_t)row_bytes(ssa_of(type), a);
    t->nb[2] = t->nb[1] * (size_t)b;
    t->nb[3] = t->nb[2] * (size_t)c;
}
typedef struct { const struct ggml_tensor *k, *v; const int *seen; int dim; } ggml_keys;
static const void *ggml_row(const void *engine, int k, int64_t j, int kv_head)
{
    const ggml_keys *x = engine;
    const struct ggml_tensor *t = k ? x->k : x->v;
    return x->seen[j] ? (const char *)t->data + (size_t)j * t->nb[1] + (size_t)kv_head * t->nb[2] : NULL;
}
/* A cache of 16-cell blocks in another order than their tokens'; in cells of no token NaN, where the type has it. */
static void check_ggml(enum ggml_type tk, enum ggml_type tv, int64_t past, int64_t n_tokens)
{
    enum { D = 64, HQ = 8, H = 2, BLOCKS = 80, CELLS = 16 * BLOCKS, MASK_ROWS = 64 };
    const int64_t n = past + n_tokens;
    int32_t cell_blocks[BLOCKS];
    struct ggml_tensor q, k, v, mask, dst;
    int32_t pos[CELLS];
    int seen[CELLS], masked = 1, paged = 1;
    float *out, *q_data = floats(n_tokens * HQ * D, 6);
    uint16_t *rows = xalloc(CELLS * MASK_ROWS, 2);
    for (int i = 0; i < BLOCKS; i++) cell_blocks[i] = (27 * i + 5) % BLOCKS;
    for (int c = 0; c < CELLS; c++) pos[c] = -1;
    for (int j = 0; j < n; j++) pos[16 * cell_blocks[j / 16] + j % 16] = j;

    /* q is a permuted view of [token][head][dim]; k and v are views of rows [cell][head * dim], as llama.cpp makes */
    ggml_strides(&q, GGML_TYPE_F32, D, n_tokens, HQ);
    q.nb[1] = HQ * D * 4; q.nb[2] = D * 4; q.data = q_data;
    ggml_strides(&dst, GGML_TYPE_F32, D, HQ, n_tokens);
    dst.data = out = xalloc(n_tokens * HQ * D, sizeof *out);
    for (int i = 0; i < 2; i++) {
        struct ggml_tensor *t = i ? &v : &k;
        ssa_type type = ssa_of(i ? tv : tk);
        size_t row = (size_t)row_bytes(type, D);
        float *x = floats(CELLS * H * D, 7 + (uint64_t)i);
        ggml_strides(t, i ? tv : tk, D, CELLS, H);
        t->nb[1] = H * row; t->nb[2] = row;
        t->data = xalloc(CELLS * H, row);
        for (int c = 0; c < CELLS * H; c++) {
            for (int e = 0; e < D && pos[c / H] < 0; e++) x[c * D + e] = NAN;
            row_put(type, (unsigned char *)t->data + (size_t)c * row, x + c * D, D);
        }
        free(x);
    }
    ggml_strides(&mask, GGML_TYPE_F16, CELLS, MASK_ROWS, 1);
    mask.data = rows;
    for (int64_t i = 0; i < MASK_ROWS; i++)
        for (int c = 0; c < CELLS; c++)
            type_put(SSA_F16, rows + i * CELLS + c, pos[c] >= 0 && pos[c] <= past + i ? 0 : -INFINITY);

    for (int nth = 1; nth <= 3; nth += 2)
        for (int cells = 0; cells < 2; cells++) {
            ggml_node x = { &q, &k, &v, &mask, &dst, 1 / sqrtf(D), cells ? cell_blocks : NULL, past };
            int *ok = cells ? &paged : &masked;
            memset(out, 0xFF, (size_t)(n_tokens * HQ * D) * sizeof *out);
            ggml_compute(&x, nth);
            for (int64_t i = 0; i < n_tokens; i++)
                for (int h = 0; h < HQ; h++) {
                    ggml_keys keys = { &k, &v, seen, D };
                    double want[D];
                    for (int c = 0; c < CELLS; c++) seen[c] = pos[c] >= 0 && pos[c] <= past + i;
                    loop(want, q_data + (i * HQ + h) * D, CELLS, D, ssa_of(tk), ssa_of(tv), ggml_row, &keys, h / 4);
                    *ok &= row_ok(out + (i * HQ + h) * D, want, D);
                }
        }
    CHECK(masked, "ggml, mask: k %s, v %s, %d tokens", type_name(ssa_of(tk)), type_name(ssa_of(tv)), (int)n_tokens);
    CHECK(paged, "ggml, cells: k %s, v %s, %d tokens", type_name(ssa_of(tk)), type_name(ssa_of(tv)), (int)n_tokens);
    free(q_data); free(out); free(rows); free(k.data); free(v.data);
}

/* ---- vLLM's layout: [block][token][head][dim] in bf16, a table of blocks a sequence ------------------------------ */
enum { P_SEQS = 7, P_BLOCKS = 64, P_TOKENS = 16, P_HEADS = 8, P_KV_HEADS = 2, P_DIM = 32, P_MAX = 8 };

static void paged_recipe(ssa_attn *a, int n_seqs, float *query, float *key, float *value, uint16_t *key_cache,
                         uint16_t *value_cache, const int32_t *block_tables, const int32_t *seq_lens, float *out)
{
    int n_heads = P_HEADS, n_kv_heads = P_KV_HEADS, head_dim = P_DIM, block_size = P_TOKENS, max_blocks = P_MAX;
    int q_dim = n_heads * head_dim, kv_dim = n_kv_heads * head_dim;
#include "recipes/paged.h"
}
typedef struct { const float *k, *v; } paged_keys;
static const void *paged_row(const void *engine, int k, int64_t j, int kv_head)
{
    const paged_keys *x = engine;
    return (k ? x->k : x->v) + (j * P_KV_HEADS + kv_head) * P_DIM;
}
/* The loop reads what was given, rounded to bf16, from memory of its own: writing is tested along with reading. */
static void check_paged_batch(void)
{
    enum { LONGEST = P_MAX * P_TOKENS, KV = P_KV_HEADS * P_DIM, Q = P_HEADS * P_DIM };
    static const int32_t first[P_SEQS] = { 0, 1, 15, 16, 50, 100, 108 };
    const int64_t cache = (int64_t)P_BLOCKS * P_TOKENS * KV;
    int32_t block_tables[P_SEQS * P_MAX], lens[P_SEQS], order[P_BLOCKS];
    uint16_t *key_cache = xalloc(cache, 2), *value_cache = xalloc(cache, 2);
    float *mine_k = xalloc(P_SEQS * LONGEST * KV, 4), *mine_v = xalloc(P_SEQS * LONGEST * KV, 4), out[P_SEQS * Q];
    ssa_attn a[P_SEQS];
    rng r = { 5, 0 };
    int ok = 1;
    memset(key_cache, 0xFF, (size_t)cache * 2); /* NaN */
    memset(value_cache, 0xFF, (size_t)cache * 2);
    for (int i = 0; i < P_BLOCKS; i++) order[i] = i;
    for (int i = P_BLOCKS - 1; i > 0; i--) {
        int j = rng_int(&r, 0, i);
        int32_t x = order[i];
        order[i] = order[j]; order[j] = x;
    }
    memcpy(block_tables, order, sizeof block_tables);
    memset(lens, 0, sizeof lens);
    for (int step = 0; step < 128; step++) { /* first the sequences get their first tokens, then one each a step */
        float *query = floats(P_SEQS * Q, (uint64_t)(3 * step)), *key = floats(P_SEQS * KV, (uint64_t)(3 * step + 1)),
              *value = floats(P_SEQS * KV, (uint64_t)(3 * step + 2));
        int n = 0;
        if (step < 108) {
            for (int s = 0; s < P_SEQS; s++)
                for (int e = 0; e < KV && step < first[s]; e++) {
                    int64_t block = block_tables[s * P_MAX + step / P_TOKENS];
                    int64_t at = (block * P_TOKENS + step % P_TOKENS) * KV + e;
                    type_put(SSA_BF16, key_cache + at, (double)key[s * KV + e]);
                    type_put(SSA_BF16, value_cache + at, (double)value[s * KV + e]);
                }
        } else n = P_SEQS;
        for (int s = 0; s < P_SEQS; s++)
            for (int e = 0; e < KV && (n || step < first[s]); e++) {
                uint16_t x;
                type_put(SSA_BF16, &x, (double)key[s * KV + e]);
                mine_k[(s * LONGEST + lens[s]) * KV + e] = type_get(SSA_BF16, &x);
                type_put(SSA_BF16, &x, (double)value[s * KV + e]);
                mine_v[(s * LONGEST + lens[s]) * KV + e] = type_get(SSA_BF16, &x);
            }
        for (int s = 0; s < P_SEQS; s++) lens[s] += n || step < first[s];
        if (n) {
            memset(out, 0xFF, sizeof out);
            paged_recipe(a, n, query, key, value, key_cache, value_cache, block_tables, lens, out);
            for (int s = 0; s < n; s++)
                for (int h = 0; h < P_HEADS; h++) {
                    paged_keys x = { mine_k + s * LONGEST * KV, mine_v + s * LONGEST * KV };
                    double want[P_DIM];
                    loop(want, query + s * Q + h * P_DIM, lens[s], P_DIM, SSA_F32, SSA_F32, paged_row, &x, h / 4);
                    ok &= row_ok(out + s * Q + h * P_DIM, want, P_DIM);
                }
        }
        free(query); free(key); free(value);
    }
    CHECK(ok, "paged engines: a ragged batch that writes its rows");
    free(key_cache); free(value_cache); free(mine_k); free(mine_v);
}

/* ---- trees of drafts --------------------------------------------------------------------------------------------- */
enum { T_HEADS = 8, T_KV_HEADS = 2, T_DIM = 64, T_PAST = 200, T_DRAFTS = 7, T_MAX = 256 };

static void speculative_recipe(ssa_attn *call, ssa_pool *of, const ssa_view *drafts, int64_t n_past, int64_t n_draft,
                               uint16_t *tree_mask)
{
    ssa_attn a = *call;
    ssa_pool pool = *of;
    ssa_view k_drafts = *drafts;
#include "recipes/speculative.h"
    *of = pool;
}
static void accept_recipe(ssa_pool *of, const ssa_view *cache, const ssa_view *drafts, int64_t n_past,
                          int64_t n_accepted)
{
    ssa_pool pool = *of;
    ssa_view k_cache = *cache, k_drafts = *drafts;
#include "recipes/speculative_accept.h"
    *of = pool;
}
typedef struct { const float *k, *v; const int *on; int64_t past; } tree_keys;
static const void *tree_row(const void *engine, int k, int64_t j, int kv_head)
{
    const tree_keys *x = engine;
    if (j >= x->past && !x->on[j - x->past]) return NULL;
    return (k ? x->k : x->v) + (j * T_KV_HEADS + kv_head) * T_DIM;
}
/* Rounds of drafting a tree, accepting one of its paths, and going on. top_k covers all blocks, so that the loop over
 * the draft's path is what a sparse call must give; the pool is that of the tokens kept. */
static void check_speculative(void)
{
    enum { KV = T_KV_HEADS * T_DIM, Q = T_HEADS * T_DIM };
    static const int parent[T_DRAFTS] = { -1, 0, 0, 1, 2, 4, -1 };
    static const int accepted[][T_DRAFTS] = { { 0, 2, 4, 5, -1 }, { 6, -1 }, { -1 }, { 0, 1, 3, -1 }, { 0, 2, -1 } };
    size_t size = ssa_pool_size(T_KV_HEADS, T_DIM, 16, T_MAX, SSA_F32);
    float *k = floats(T_MAX * KV, 11), *v = floats(T_MAX * KV, 12), *out = xalloc(T_DRAFTS * Q, 4);
    void *memory = xalloc((int64_t)size, 1);
    ssa_view cache = { k, SSA_F32, 0, 0 };
    int64_t past = T_PAST;
    ssa_pool pool;
    int ok = 1, pools = 1;
    CHECK(!ssa_pool_init(&pool, T_KV_HEADS, T_DIM, 16, T_MAX, SSA_F32, memory, size)
              && !ssa_pool_append(&pool, &cache, past), "pool");
    for (int round = 0; round < COUNT(accepted); round++) {
        ssa_attn a = ssa_attn_default(T_HEADS, T_KV_HEADS, T_DIM);
        ssa_view drafts = { k + past * KV, SSA_F32, 0, 0 };
        int64_t n_kv = past + T_DRAFTS, n = 0;
        float *q = floats(T_DRAFTS * Q, (uint64_t)(20 + round)),
              *new_k = floats(T_DRAFTS * KV, (uint64_t)(40 + round)),
              *new_v = floats(T_DRAFTS * KV, (uint64_t)(60 + round));
        uint16_t *tree_mask = xalloc(T_DRAFTS * n_kv, 2);
        int on[T_DRAFTS][T_DRAFTS] = { { 0 } };
        memcpy(k + past * KV, new_k, T_DRAFTS * KV * 4);
        memcpy(v + past * KV, new_v, T_DRAFTS * KV * 4);
        for (int i = 0; i < T_DRAFTS; i++) {
            for (int up = i; up >= 0; up = parent[up]) on[i][up] = 1;
            for (int j = 0; j < T_DRAFTS; j++)
                type_put(SSA_F16, tree_mask + i * n_kv + past + j, on[i][j] ? 0 : -INFINITY);
        }
        a.q.data = q; a.k.data = k; a.v.data = v; a.out.data = out;
        memset(out, 0xFF, T_DRAFTS * Q * 4);
        speculative_recipe(&a, &pool, &drafts, past, T_DRAFTS, tree_mask);
        pools &= pool_ok(&pool, k, n_kv);
        for (int i = 0; i < T_DRAFTS; i++)
            for (int h = 0; h < T_HEADS; h++) {
                tree_keys x = { k, v, on[i], past };
                double want[T_DIM];
                loop(want, q + i * Q + h * T_DIM, n_kv, T_DIM, SSA_F32, SSA_F32, tree_row, &x, h / 4);
                ok &= row_ok(out + i * Q + h * T_DIM, want, T_DIM);
            }
        for (; accepted[round][n] >= 0; n++) {
            memcpy(k + (past + n) * KV, new_k + accepted[round][n] * KV, KV * 4);
            memcpy(v + (past + n) * KV, new_v + accepted[round][n] * KV, KV * 4);
        }
        accept_recipe(&pool, &cache, &drafts, past, n);
        past += n;
        pools &= pool_ok(&pool, k, past);
        free(q); free(new_k); free(new_v); free(tree_mask);
    }
    CHECK(ok, "speculative decoding: each draft sees its own path");
    CHECK(pools, "speculative decoding: the pool with drafts, and after rejections");
    free(k); free(v); free(out); free(memory);
}

void test_recipes(void)
{
    static const Config configs[] = { { 128, 2, 4, 4, 32, 200, }, { 256, 3, 8, 2, 32, 130 }, { 96, 2, 6, 3, 40, 77 } };
    static const enum ggml_type types[] = { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0 };
    FOR_LEVELS(l) {
        for (int i = 0; i < COUNT(configs); i++) check_llama2(&configs[i]);
        check_voxtral();
        check_flux(50, 17, 3, 64);
        check_flux(9, 40, 2, 128);
        for (int i = 0; i < COUNT(types); i++) {
            check_ggml(types[i], types[i], 1200, 1); /* a plan of more than one phase: shares of the keys */
            check_ggml(types[i], types[(i + 2) % COUNT(types)], 75, 21);
        }
        check_paged_batch();
        check_speculative();
    }
}

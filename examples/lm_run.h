/* lm_run.h - running a model: KV cache, forward pass, scoring and sampling. Attention is ssa.h's alone.
 *
 * A session is one stream of tokens: its KV cache, the pooled keys beside it, and the scratch of a chunk of
 * tokens. It attends either fully or sparsely. Functions return NULL when all is well, else a sentence; nothing
 * here prints or exits. */
#ifndef LM_RUN_H
#define LM_RUN_H

#include "lm_model.h"

typedef struct {
    ssa_mode mode;
    ssa_select select;              /* sparse: SSA_SELECT_REFERENCE is what released checkpoints were trained with */
    int32_t top_k;
    ssa_type kv_type;               /* f32, f16 or bf16 */
    int64_t context;                /* most tokens in the cache */
    int32_t chunk;                  /* tokens of one forward pass of a prefill */
    int threads;
    bool measure_sparsity;          /* sparse: attend fully to the same queries too, for the share of attention kept */
    void (*progress)(void *user, int64_t tokens);   /* called after each forward pass, or NULL */
    const char *(*inspect)(void *user, int32_t layer, const ssa_attn *a);  /* shown the call of each layer before it */
                                    /* runs, or NULL; what it returns stops the pass, unless NULL */
    void *user;
} lm_options;

typedef struct {
    const lm_model *model;
    lm_options opt;
    int64_t n;                      /* tokens in the cache */
    unsigned char *k, *v;           /* [layers][context][kv_heads][head_dim] in kv_type, keys rotated */
    ssa_pool *pools;                /* sparse: [layers] */
    unsigned char *pool_memory;
    float *inv_freq;                /* [head_dim/2] radians per token */
    float *cosines, *sines;         /* [chunk][head_dim/2] */
    float *x, *normed;              /* [chunk][hidden]: the residual stream, its normalised copy */
    float *q, *attended;            /* [chunk][heads][head_dim] */
    float *kv;                      /* [chunk][kv_heads][head_dim] */
    float *gates, *gate;            /* [chunk][heads][3] before the sigmoid; [chunk][heads] */
    float *lse, *lse_full;          /* [chunk][heads] */
    float *up, *act;                /* [chunk][ffn] */
    float *logits;                  /* [logit_rows][vocab] */
    int64_t logit_rows;
    void *workspace;
    size_t workspace_size;
    double attention_seconds;       /* time inside ssa_attention and ssa_pool_append so far */
    double *kept;                   /* [layers] sums of exp(lse_sparse - lse_full) over kept_n queries and heads */
    int64_t kept_n;
} lm_session;

/* a * b * c * size bytes, NULL when that does not fit or is not there. */
static inline void *lm_alloc(int64_t a, int64_t b, int64_t c, size_t size) {
    const size_t factors[] = { (size_t)a, (size_t)b, (size_t)c };
    for (int i = 0; i < 3; i++) {
        if (factors[i] != 0 && size > (size_t)PTRDIFF_MAX / factors[i]) return NULL;
        size *= factors[i];
    }
    return malloc(size ? size : 1);
}

static inline void lm_session_close(lm_session *s) {
    void *const owned[] = { s->k, s->v, s->pools, s->pool_memory, s->inv_freq, s->cosines, s->sines, s->x, s->normed,
                            s->q, s->attended, s->kv, s->gates, s->gate, s->lse, s->lse_full, s->up, s->act, s->logits,
                            s->workspace, s->kept };
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    *s = (lm_session){ 0 };
}

static inline ssa_view lm_cache_view(const lm_session *s, unsigned char *cache, int32_t layer, int64_t position) {
    const lm_config *c = &s->model->config;
    const int64_t row = (int64_t)c->kv_heads * c->head_dim * (int64_t)lm_type_size(s->opt.kv_type);
    return (ssa_view){ .data = cache + (layer * s->opt.context + position) * row, .type = s->opt.kv_type };
}

/* The attention call of n new tokens in layer `layer`, whose keys are already in the cache. */
static inline ssa_attn lm_attention_call(const lm_session *s, int32_t layer, int64_t n) {
    const lm_config *c = &s->model->config;
    ssa_attn a = ssa_attn_default(c->heads, c->kv_heads, c->head_dim);
    a.n_q = n;
    a.n_kv = s->n + n;
    a.q_pos = s->n;
    a.q.data = s->q;
    a.out.data = s->attended;
    a.k = lm_cache_view(s, s->k, layer, 0);
    a.v = lm_cache_view(s, s->v, layer, 0);
    a.gate = s->gate;
    a.block_size = c->block_size;
    a.top_k = s->opt.top_k;
    a.select = s->opt.select;
    a.pool = s->pools ? &s->pools[layer] : NULL;
    return a;
}

/* RoPE's frequencies, in the f32 steps of the models' own code. llama3 scaling: wavelengths that are long beside
 * the original context are stretched by factor, short ones kept, those between blended. */
static inline void lm_rope_frequencies(const lm_config *c, float *inv_freq) {
    const double pi = 3.14159265358979323846;
    for (int32_t i = 0; i < c->head_dim / 2; i++) {
        const double f = (double)(1.0f / (float)pow(c->rope_theta, 2.0 * i / c->head_dim));
        double scaled = f;
        if (c->rope_llama3) {
            const double turns = c->rope_original * f / (2 * pi);       /* full turns within the original context */
            const double blend = (turns - c->rope_low) / (c->rope_high - c->rope_low);
            if (turns < c->rope_low) scaled = f / c->rope_factor;
            else if (turns <= c->rope_high) scaled = (1 - blend) * f / c->rope_factor + blend * f;
        }
        inv_freq[i] = (float)scaled;
    }
}

static inline const char *lm_session_pools(lm_session *s) {
    const lm_config *c = &s->model->config;
    const ssa_type type = s->opt.kv_type == SSA_BF16 ? SSA_BF16 : SSA_F32;
    const size_t size = ssa_pool_size(c->kv_heads, c->head_dim, c->block_size, s->opt.context, type);
    s->pools = lm_alloc(c->layers, 1, 1, sizeof *s->pools);
    s->pool_memory = size ? lm_alloc(c->layers, 1, 1, size) : NULL;
    if (!s->pools || !s->pool_memory) return "out of memory for the pooled keys";
    for (int32_t i = 0; i < c->layers; i++) {
        const ssa_status status = ssa_pool_init(&s->pools[i], c->kv_heads, c->head_dim, c->block_size, s->opt.context,
                                                type, s->pool_memory + (size_t)i * size, size);
        if (status != SSA_OK) return ssa_status_string(status);
    }
    return NULL;
}

/* Starts an empty stream on a model, which must stay. */
static inline const char *lm_session_open(lm_session *s, const lm_model *m, const lm_options *opt) {
    const lm_config *c = &m->config;
    const int64_t n = opt->chunk, hd = c->head_dim, dim_k = (int64_t)c->kv_heads * hd;
    const size_t cell = lm_type_size(opt->kv_type), f = sizeof(float);
    *s = (lm_session){ .model = m, .opt = *opt };
    if (opt->select == SSA_SELECT_TOPK && opt->top_k > opt->context / c->block_size)
        s->opt.top_k = (int32_t)(opt->context / c->block_size) + 1;     /* all blocks: more would only cost memory */
    if (opt->chunk < 1 || opt->context < 1 || opt->threads < 1) return "chunk, context and threads are at least 1";
    s->logit_rows = ((int64_t)1 << 23) / c->vocab;
    if (s->logit_rows < 1) s->logit_rows = 1;
    if (s->logit_rows > n) s->logit_rows = n;
    s->k = lm_alloc(c->layers * dim_k, opt->context, 1, cell);
    s->v = lm_alloc(c->layers * dim_k, opt->context, 1, cell);
    s->inv_freq = lm_alloc(hd / 2, 1, 1, f);
    s->cosines = lm_alloc(n, hd / 2, 1, f);
    s->sines = lm_alloc(n, hd / 2, 1, f);
    s->x = lm_alloc(n, c->hidden, 1, f);
    s->normed = lm_alloc(n, c->hidden, 1, f);
    s->q = lm_alloc(n, c->heads, hd, f);
    s->attended = lm_alloc(n, c->heads, hd, f);
    s->kv = lm_alloc(n, dim_k, 1, f);
    s->gates = lm_alloc(n, c->heads, 3, f);
    s->gate = lm_alloc(n, c->heads, 1, f);
    s->lse = lm_alloc(n, c->heads, 1, f);
    s->lse_full = lm_alloc(n, c->heads, 1, f);
    s->up = lm_alloc(n, c->ffn, 1, f);
    s->act = lm_alloc(n, c->ffn, 1, f);
    s->logits = lm_alloc(s->logit_rows, c->vocab, 1, f);
    s->kept = calloc((size_t)c->layers, sizeof *s->kept);
    const char *error = NULL;
    if (!s->k || !s->v || !s->inv_freq || !s->cosines || !s->sines || !s->x || !s->normed || !s->q || !s->attended ||
        !s->kv || !s->gates || !s->gate || !s->lse || !s->lse_full || !s->up || !s->act || !s->logits || !s->kept)
        error = "out of memory: try a smaller --context";
    if (!error && opt->mode == SSA_SPARSE) error = lm_session_pools(s);
    if (!error) {
        lm_rope_frequencies(c, s->inv_freq);
        const ssa_attn a = lm_attention_call(s, 0, 1);
        ssa_attn filled = a;
        filled.pool = NULL;         /* still empty, which a call would refuse */
        const ssa_status status = ssa_check(&filled, opt->mode);
        if (status != SSA_OK) error = ssa_status_string(status);
    }
    if (error) lm_session_close(s);
    return error;
}

/* Forgets the tokens from position n on (0: all of them). */
static inline const char *lm_session_rewind(lm_session *s, int64_t n) {
    if (n < 0 || n > s->n) return "a rewind to tokens that were never there";
    for (int32_t i = 0; s->pools && i < s->model->config.layers; i++) {
        const ssa_view k = lm_cache_view(s, s->k, i, 0);
        const ssa_status status = ssa_pool_truncate(&s->pools[i], &k, n);
        if (status != SSA_OK) return ssa_status_string(status);
    }
    s->n = n;
    return NULL;
}

/* One ssa_attention call in a workspace that grows when needed, so that steady decoding allocates nothing. */
static inline ssa_status lm_attend(lm_session *s, const ssa_attn *a, ssa_mode mode) {
    const size_t size = ssa_workspace_size(a, 1, mode, s->opt.threads);
    if (size > s->workspace_size) {
        free(s->workspace);
        s->workspace = malloc(size + size / 2);         /* decoding needs a little more every few tokens */
        s->workspace_size = s->workspace ? size + size / 2 : 0;
    }
    const ssa_exec x = { .n_threads = s->opt.threads, .workspace = s->workspace, .workspace_size = s->workspace_size };
    return ssa_attention(a, mode, &x);
}

/* Attention of n new tokens whose rotated q is in s->q, and whose rotated keys and values are in the cache. */
static inline const char *lm_layer_attention(lm_session *s, int32_t layer, int64_t n) {
    const lm_config *c = &s->model->config;
    const double start = lm_seconds();
    ssa_status status = SSA_OK;
    if (s->pools) {
        const ssa_view fresh = lm_cache_view(s, s->k, layer, s->n);
        status = ssa_pool_append(&s->pools[layer], &fresh, n);
    }
    ssa_attn a = lm_attention_call(s, layer, n);
    if (s->opt.inspect && status == SSA_OK) {
        const char *error = s->opt.inspect(s->opt.user, layer, &a);
        if (error) return error;
    }
    const bool measure = s->opt.measure_sparsity && s->opt.mode == SSA_SPARSE;
    if (measure && status == SSA_OK) {
        a.lse = s->lse_full;                            /* its output is overwritten by the sparse one */
        status = lm_attend(s, &a, SSA_FULL);
        a.lse = s->lse;
    }
    if (status == SSA_OK) status = lm_attend(s, &a, s->opt.mode);
    s->attention_seconds += lm_seconds() - start;
    if (status != SSA_OK) return ssa_status_string(status);
    if (measure) {
        ssa_attention_sparsity(s->lse, s->lse_full, n * c->heads, s->lse);
        for (int64_t i = 0; i < n * c->heads; i++) s->kept[layer] += (double)s->lse[i];
        if (layer == 0) s->kept_n += n * c->heads;
    }
    return NULL;
}

/* Runs the layers over n <= chunk tokens; s->x then holds their residual stream. */
static inline const char *lm_layers(lm_session *s, const int32_t *ids, int64_t n) {
    const lm_model *m = s->model;
    const lm_config *c = &m->config;
    const int threads = s->opt.threads;
    const int64_t hidden = c->hidden, half = c->head_dim / 2, dim_k = (int64_t)c->kv_heads * c->head_dim;
    for (int64_t t = 0; t < n; t++) {
        lm_weight_row(s->x + t * hidden, &m->embed, ids[t], 0, hidden);
        for (int64_t i = 0; i < half; i++) {    /* the angle is rounded to f32 first, as in the models' own code */
            const float angle = (float)(s->n + t) * s->inv_freq[i];
            s->cosines[t * half + i] = cosf(angle);
            s->sines[t * half + i] = sinf(angle);
        }
    }
    for (int32_t layer = 0; layer < c->layers; layer++) {
        const lm_layer *l = &m->layers[layer];
        lm_rmsnorm(s->normed, s->x, l->attn_norm, n, hidden, c->rms_eps);
        lm_matmul(s->q, s->normed, n, &l->q, threads);
        lm_rope(s->q, s->cosines, s->sines, n, c->heads, c->head_dim);
        lm_matmul(s->kv, s->normed, n, &l->k, threads);
        lm_rope(s->kv, s->cosines, s->sines, n, c->kv_heads, c->head_dim);
        lm_narrow(lm_cache_view(s, s->k, layer, s->n).data, s->opt.kv_type, s->kv, n * dim_k);
        lm_matmul(s->kv, s->normed, n, &l->v, threads);
        lm_narrow(lm_cache_view(s, s->v, layer, s->n).data, s->opt.kv_type, s->kv, n * dim_k);
        lm_matmul(s->gates, s->normed, n, &l->g, threads);
        for (int64_t i = 0; i < n * c->heads; i++) s->gate[i] = lm_sigmoid(s->gates[i * 3 + 1]);

        const char *error = lm_layer_attention(s, layer, n);
        if (error) return error;
        lm_matmul(s->normed, s->attended, n, &l->o, threads);
        for (int64_t i = 0; i < n * hidden; i++) s->x[i] += s->normed[i];

        lm_rmsnorm(s->normed, s->x, l->ffn_norm, n, hidden, c->rms_eps);
        lm_matmul(s->act, s->normed, n, &l->gate, threads);
        lm_matmul(s->up, s->normed, n, &l->up, threads);
        LM_PARALLEL_FOR(n < LM_TOKENS ? 1 : threads)
        for (int64_t i = 0; i < n * c->ffn; i++) s->act[i] *= lm_sigmoid(s->act[i]) * s->up[i];
        lm_matmul(s->normed, s->act, n, &l->down, threads);
        for (int64_t i = 0; i < n * hidden; i++) s->x[i] += s->normed[i];
    }
    s->n += n;
    return NULL;
}

/* Feeds n tokens, any number, in chunks. targets, nll: NULL, or [n]: nll[i] = -log p(targets[i]) after ids[i], in nats.
 * logits: NULL, or [vocab]: those after the last token. */
static inline const char *lm_feed(lm_session *s, const int32_t *ids, int64_t n, const int32_t *targets, float *nll,
                                  float *logits) {
    const lm_model *m = s->model;
    const int64_t hidden = m->config.hidden, vocab = m->config.vocab;
    if (n > s->opt.context - s->n) return "more tokens than the context holds: try a larger --context";
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= vocab || (targets && (targets[i] < 0 || targets[i] >= vocab)))
            return "a token id outside the vocabulary";
    for (int64_t from = 0; from < n; from += s->opt.chunk) {
        const int64_t count = n - from < s->opt.chunk ? n - from : s->opt.chunk;
        const char *error = lm_layers(s, ids + from, count);
        if (error) return error;
        /* logits only where they are asked for, a few rows at a time: with a large vocabulary they are large */
        const int64_t last = from + count == n && logits ? count - 1 : count;
        const int64_t first = targets ? 0 : last;
        for (int64_t row = first; row < count; row += s->logit_rows) {
            const int64_t rows = count - row < s->logit_rows ? count - row : s->logit_rows;
            lm_rmsnorm(s->normed, s->x + row * hidden, m->norm, rows, hidden, m->config.rms_eps);
            lm_matmul(s->logits, s->normed, rows, &m->lm_head, s->opt.threads);
            for (int64_t i = 0; targets && i < rows; i++) {
                const float *of = s->logits + i * vocab;
                nll[from + row + i] = (float)(lm_logsumexp(of, vocab) - (double)of[targets[from + row + i]]);
            }
            if (logits && last < row + rows)
                memcpy(logits, s->logits + (last - row) * vocab, (size_t)vocab * sizeof *logits);
        }
        if (s->opt.progress) s->opt.progress(s->opt.user, count);
    }
    return NULL;
}

/* Sum of -log p over n_targets = n - 1 targets ids[1..n-1], in independent windows of `window` tokens. */
static inline const char *lm_score(lm_session *s, const int32_t *ids, int64_t n, int64_t window, double *mean_nats) {
    float *nll = lm_alloc(window, 1, 1, sizeof *nll);
    if (!nll) return "out of memory";
    const char *error = NULL;
    double sum = 0;
    for (int64_t from = 0; !error && from < n - 1; from += window) {
        const int64_t count = n - 1 - from < window ? n - 1 - from : window;
        error = lm_session_rewind(s, 0);
        if (!error) error = lm_feed(s, ids + from, count, ids + from + 1, nll, NULL);
        for (int64_t i = 0; !error && i < count; i++) sum += (double)nll[i];
    }
    free(nll);
    *mean_nats = n > 1 ? sum / (double)(n - 1) : 0;
    return error;
}

/* ---- sampling -------------------------------------------------------------------------------------------------- */

typedef struct { float p; int32_t id; } lm_candidate;
typedef struct { float temperature, top_p; uint64_t state; lm_candidate *scratch; } lm_sampler;    /* scratch [vocab] */

/* A number in [0, 1): splitmix64's mixing of a counter, so that every seed works. */
static inline double lm_random(uint64_t *state) {
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static inline int lm_candidate_order(const void *a, const void *b) {
    const lm_candidate *x = a, *y = b;
    return x->p != y->p ? (x->p > y->p ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

static inline int32_t lm_argmax(const float *logits, int64_t n) {
    int32_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = (int32_t)i;
    return best;
}

/* The next token: the likeliest at temperature 0 or without scratch, else drawn from the fewest likeliest tokens that
 * reach top_p together. */
static inline int32_t lm_sample(lm_sampler *s, const float *logits, int64_t vocab) {
    const float top = logits[lm_argmax(logits, vocab)];
    if (s->temperature <= 0 || !s->scratch) return lm_argmax(logits, vocab);
    double total = 0, cut = 0;
    for (int64_t i = 0; i < vocab; i++) {
        const float p = expf((logits[i] - top) / s->temperature);
        s->scratch[i] = (lm_candidate){ p > 0 ? p : 0, (int32_t)i };        /* NaN counts as 0 */
        total += (double)s->scratch[i].p;
    }
    qsort(s->scratch, (size_t)vocab, sizeof *s->scratch, lm_candidate_order);
    int64_t kept = 0;
    while (kept < vocab && (kept == 0 || cut < (double)s->top_p * total)) cut += (double)s->scratch[kept++].p;
    double draw = lm_random(&s->state) * cut;
    for (int64_t i = 0; i < kept; i++) {
        draw -= (double)s->scratch[i].p;
        if (draw < 0) return s->scratch[i].id;
    }
    return s->scratch[kept - 1].id;
}

static inline bool lm_is_eos(const lm_config *c, int32_t id) {
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id) return true;
    return false;
}

#endif /* LM_RUN_H */

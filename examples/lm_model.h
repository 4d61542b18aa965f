/* lm_model.h - a checkpoint of the LlamaNSAForCausalLM layout: config.json and model.safetensors (or its shards)
 *
 * Weights stay in the mapped files; only norms and biases are copied. Every function returns NULL when all is
 * well, else a sentence "FILE: what is wrong", and then leaves nothing to free. Nothing here prints or exits. */
#ifndef LM_MODEL_H
#define LM_MODEL_H

#include "lm_math.h"

enum { LM_MAX_SIZE = 1 << 24, LM_MAX_LAYERS = 4096, LM_MAX_SHARDS = 1024, LM_MAX_EOS = 8 };

typedef struct {
    int32_t vocab, hidden, layers, heads, kv_heads, head_dim, ffn;
    int32_t block_size, top_k;      /* sparse attention as the model was trained: block_size, block_counts */
    int64_t max_positions;
    float rms_eps;
    double rope_theta;
    bool rope_llama3;               /* the long-context scaling of RoPE's frequencies, by these: */
    double rope_factor, rope_low, rope_high, rope_original;
    bool attention_bias, mlp_bias;
    int tied;                       /* lm_head is the embedding: 1 yes, 0 no, -1 not said */
    int32_t eos[LM_MAX_EOS];
    int n_eos;
    char error[LM_ERROR_SIZE];
} lm_config;

typedef struct {
    float *attn_norm, *ffn_norm;    /* [hidden] */
    lm_weight q, k, v, o, g;        /* g: [heads * 3][hidden], the output gates: compressed, selected, window */
    lm_weight gate, up, down;       /* SwiGLU */
} lm_layer;

typedef struct { char *path; lm_file file; lm_st st; } lm_shard;

typedef struct {
    lm_config config;
    lm_shard *shards;
    int32_t n_shards;
    lm_layer *layers;
    lm_weight embed, lm_head;
    float *norm;                    /* [hidden], before lm_head */
    char error[LM_ERROR_SIZE + 4096];
} lm_model;

/* ---- config.json ----------------------------------------------------------------------------------------------- */

/* A whole number low..high; fallback when it is absent or null (fallback < low: required). */
static inline const char *lm_config_int(lm_config *c, const lm_json *j, int32_t object, const char *key, int64_t low,
                                        int64_t high, int64_t fallback, int64_t *value) {
    const int32_t node = lm_json_get(j, object, key);
    if (node < 0 || lm_json_is(j, node, LM_JSON_NULL)) {
        *value = fallback;
        return fallback < low ? lm_error(c->error, "\"%s\" is missing", key) : NULL;
    }
    if (!lm_json_int(j, node, value) || *value < low || *value > high)
        return lm_error(c->error, "\"%s\" is not a whole number from %lld to %lld", key, (long long)low,
                        (long long)high);
    return NULL;
}

static inline const char *lm_config_number(lm_config *c, const lm_json *j, int32_t object, const char *key, double low,
                                           double high, double fallback, double *value) {
    const int32_t node = lm_json_get(j, object, key);
    if (node < 0 || lm_json_is(j, node, LM_JSON_NULL)) {
        *value = fallback;
        return fallback < low ? lm_error(c->error, "\"%s\" is missing", key) : NULL;
    }
    if (!lm_json_double(j, node, value) || *value < low || *value > high)
        return lm_error(c->error, "\"%s\" is not a number from %g to %g", key, low, high);
    return NULL;
}

static inline const char *lm_config_bool(lm_config *c, const lm_json *j, const char *key, bool *value) {
    const int32_t node = lm_json_get(j, 0, key);
    *value = lm_json_is(j, node, LM_JSON_TRUE);
    if (node < 0 || *value || lm_json_is(j, node, LM_JSON_FALSE) || lm_json_is(j, node, LM_JSON_NULL)) return NULL;
    return lm_error(c->error, "\"%s\" is neither true nor false", key);
}

/* rope_scaling, or the newer name rope_parameters, which may hold rope_theta too. */
static inline const char *lm_config_rope(lm_config *c, const lm_json *j) {
    const char *error = lm_config_number(c, j, 0, "rope_theta", 1, 1e30, 10000, &c->rope_theta);
    int32_t node = lm_json_get(j, 0, "rope_scaling");
    if (node < 0 || lm_json_is(j, node, LM_JSON_NULL)) node = lm_json_get(j, 0, "rope_parameters");
    if (error || node < 0 || lm_json_is(j, node, LM_JSON_NULL)) return error;
    if (!lm_json_is(j, node, LM_JSON_OBJECT)) return lm_error(c->error, "\"rope_scaling\" is not an object");
    error = lm_config_number(c, j, node, "rope_theta", 1, 1e30, c->rope_theta, &c->rope_theta);
    if (error) return error;
    int32_t type = lm_json_get(j, node, "rope_type");
    if (type < 0) type = lm_json_get(j, node, "type");
    if (type < 0 || lm_json_equals(j, type, "default")) return NULL;
    if (!lm_json_equals(j, type, "llama3"))
        return lm_error(c->error, "a rope_scaling other than llama3 is not supported");
    c->rope_llama3 = true;
    error = lm_config_number(c, j, node, "factor", 1e-6, 1e6, -1, &c->rope_factor);
    if (!error) error = lm_config_number(c, j, node, "low_freq_factor", 1e-6, 1e6, -1, &c->rope_low);
    if (!error) error = lm_config_number(c, j, node, "high_freq_factor", 1e-6, 1e6, -1, &c->rope_high);
    if (!error)
        error = lm_config_number(c, j, node, "original_max_position_embeddings", 1, 1e12, -1, &c->rope_original);
    if (!error && c->rope_high <= c->rope_low)
        error = lm_error(c->error, "rope_scaling: high_freq_factor is not above low_freq_factor");
    return error;
}

/* eos_token_id: absent, null, a number, or a list of numbers. Generation stops at any of them. */
static inline const char *lm_config_eos(lm_config *c, const lm_json *j) {
    const int32_t node = lm_json_get(j, 0, "eos_token_id");
    if (node < 0 || lm_json_is(j, node, LM_JSON_NULL)) return NULL;
    const bool list = lm_json_is(j, node, LM_JSON_ARRAY);
    for (int32_t i = list ? node + 1 : node; i < j->nodes[node].end; i = j->nodes[i].end) {
        int64_t id;
        if (!lm_json_int(j, i, &id) || id < -1 || id > INT32_MAX || c->n_eos == LM_MAX_EOS)
            return lm_error(c->error, "\"eos_token_id\" is not a token id or a short list of them");
        c->eos[c->n_eos++] = (int32_t)id;
    }
    return NULL;
}

static inline const char *lm_config_read(lm_config *c, const lm_json *j) {
    if (!lm_json_is(j, 0, LM_JSON_OBJECT)) return lm_error(c->error, "not a JSON object");
    const int32_t names = lm_json_get(j, 0, "architectures"), act = lm_json_get(j, 0, "hidden_act");
    if (names >= 0 && !(lm_json_is(j, names, LM_JSON_ARRAY) && j->nodes[names].end > names + 1 &&
                        lm_json_equals(j, names + 1, "LlamaNSAForCausalLM")))
        return lm_error(c->error, "the architecture is not LlamaNSAForCausalLM");
    if (act >= 0 && !lm_json_equals(j, act, "silu")) return lm_error(c->error, "\"hidden_act\" is not \"silu\"");

    const struct { const char *key; int64_t high, fallback; int32_t *to; } sizes[] = {
        { "vocab_size", LM_MAX_SIZE, -1, &c->vocab },
        { "hidden_size", LM_MAX_SIZE, -1, &c->hidden },
        { "num_hidden_layers", LM_MAX_LAYERS, -1, &c->layers },
        { "num_attention_heads", 65536, -1, &c->heads },
        { "intermediate_size", LM_MAX_SIZE, -1, &c->ffn },
        { "block_size", SSA_MAX_BLOCK, 16, &c->block_size },
        { "block_counts", LM_MAX_SIZE, 16, &c->top_k },
    };
    const char *error = NULL;
    int64_t value = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        error = lm_config_int(c, j, 0, sizes[i].key, 1, sizes[i].high, sizes[i].fallback, &value);
        if (error) return error;
        *sizes[i].to = (int32_t)value;
    }
    error = lm_config_int(c, j, 0, "num_key_value_heads", 1, c->heads, c->heads, &value);
    if (error) return error;
    c->kv_heads = (int32_t)value;
    if (c->heads % c->kv_heads != 0)
        return lm_error(c->error, "\"num_attention_heads\" is not a multiple of \"num_key_value_heads\"");
    error = lm_config_int(c, j, 0, "head_dim", 1, SSA_MAX_DIM, c->hidden / c->heads, &value);
    if (error) return error;
    if (value > SSA_MAX_DIM || value % 2 != 0)
        return lm_error(c->error, "a head_dim of %lld is odd or above %d", (long long)value, SSA_MAX_DIM);
    c->head_dim = (int32_t)value;
    error = lm_config_int(c, j, 0, "max_position_embeddings", 1, (int64_t)1 << 40, 2048, &c->max_positions);
    if (error) return error;
    error = lm_config_int(c, j, 0, "window_size", 0, INT64_MAX, 0, &value);
    if (error) return error;
    if (value != 0) return lm_error(c->error, "a window beside the selected blocks (window_size) is not supported");
    double eps = 0;
    error = lm_config_number(c, j, 0, "rms_norm_eps", 0, 1, 1e-6, &eps);
    if (error) return error;
    c->rms_eps = (float)eps;
    error = lm_config_bool(c, j, "attention_bias", &c->attention_bias);
    if (!error) error = lm_config_bool(c, j, "mlp_bias", &c->mlp_bias);
    bool tied = false;
    if (!error) error = lm_config_bool(c, j, "tie_word_embeddings", &tied);
    c->tied = lm_json_get(j, 0, "tie_word_embeddings") < 0 ? -1 : tied;
    if (!error) error = lm_config_rope(c, j);
    if (!error) error = lm_config_eos(c, j);
    return error;
}

/* Reads the n bytes of a config.json. NULL, or what is wrong (in c->error). */
static inline const char *lm_config_parse(lm_config *c, const char *text, size_t n) {
    *c = (lm_config){ 0 };
    lm_json json;
    const char *error = lm_json_parse(&json, text, n);
    if (error) return lm_error(c->error, "%s", error);
    error = lm_config_read(c, &json);
    lm_json_free(&json);
    return error;
}

/* ---- tensors into weights -------------------------------------------------------------------------------------- */

static inline void lm_model_close(lm_model *m) {
    for (int32_t i = 0; m->layers && i < m->config.layers; i++) {
        lm_layer *l = &m->layers[i];
        float *const owned[] = { l->attn_norm, l->ffn_norm, l->q.bias, l->k.bias, l->v.bias, l->o.bias, l->g.bias,
                                 l->gate.bias, l->up.bias, l->down.bias };
        for (size_t k = 0; k < sizeof owned / sizeof *owned; k++) free(owned[k]);
    }
    for (int32_t i = 0; i < m->n_shards; i++) {
        lm_st_free(&m->shards[i].st);
        lm_file_close(&m->shards[i].file);
        free(m->shards[i].path);
    }
    free(m->shards);
    free(m->layers);
    free(m->norm);
    m->shards = NULL;
    m->layers = NULL;
    m->norm = NULL;
    m->n_shards = 0;
}

/* Keeps a message "path: what", as m->error. */
static inline const char *lm_model_error(lm_model *m, const char *path, const char *what) {
    snprintf(m->error, sizeof m->error, "%.4000s: %.500s", path, what);
    lm_printable(m->error);
    return m->error;
}

/* The floating-point tensor `name` of shape [rows][cols] (cols 0: [rows]). */
static inline const char *lm_model_tensor(lm_model *m, const char *name, int64_t rows, int64_t cols,
                                          lm_tensor **found) {
    char text[LM_ERROR_SIZE];
    *found = NULL;
    for (int32_t i = 0; i < m->n_shards; i++) {
        lm_tensor *t = lm_st_find(&m->shards[i].st, name);
        if (!t) continue;
        const char *path = m->shards[i].path;
        if (*found) return lm_model_error(m, path, lm_error(text, "tensor %s is in another shard too", name));
        if (t->dtype != LM_BF16 && t->dtype != LM_F16 && t->dtype != LM_F32)
            return lm_model_error(m, path, lm_error(text, "tensor %s is neither BF16 nor F16 nor F32", name));
        if (t->rank != (cols ? 2 : 1) || t->shape[0] != rows || (cols && t->shape[1] != cols))
            return lm_model_error(m, path, lm_error(text, "tensor %s does not have the config's shape", name));
        t->used = true;
        *found = t;
    }
    if (!*found) return lm_model_error(m, m->shards[0].path, lm_error(text, "tensor %s is missing", name));
    return NULL;
}

static inline const char *lm_model_vector(lm_model *m, const char *name, int64_t n, float **to) {
    lm_tensor *t;
    const char *error = lm_model_tensor(m, name, n, 0, &t);
    if (error) return error;
    *to = malloc((size_t)n * sizeof **to);
    if (!*to) return lm_model_error(m, name, "out of memory");
    lm_widen(*to, t->data, t->dtype, n);
    return NULL;
}

static inline const char *lm_model_matrix(lm_model *m, const char *name, int64_t rows, int64_t cols, lm_weight *w) {
    lm_tensor *t;
    const char *error = lm_model_tensor(m, name, rows, cols, &t);
    if (!error) *w = (lm_weight){ .data = t->data, .dtype = t->dtype, .rows = rows, .cols = cols };
    return error;
}

/* The weights of layer i. */
static inline const char *lm_model_layer(lm_model *m, int32_t i) {
    const lm_config *c = &m->config;
    lm_layer *l = &m->layers[i];
    const int64_t hidden = c->hidden, dq = (int64_t)c->heads * c->head_dim, dk = (int64_t)c->kv_heads * c->head_dim;
    const struct { const char *name; int64_t rows, cols; lm_weight *to; bool bias; } matrices[] = {
        { "self_attn.q_proj", dq, hidden, &l->q, c->attention_bias },
        { "self_attn.k_proj", dk, hidden, &l->k, c->attention_bias },
        { "self_attn.v_proj", dk, hidden, &l->v, c->attention_bias },
        { "self_attn.o_proj", hidden, dq, &l->o, c->attention_bias },
        { "self_attn.g_proj", (int64_t)c->heads * 3, hidden, &l->g, false },
        { "mlp.gate_proj", c->ffn, hidden, &l->gate, c->mlp_bias },
        { "mlp.up_proj", c->ffn, hidden, &l->up, c->mlp_bias },
        { "mlp.down_proj", hidden, c->ffn, &l->down, c->mlp_bias },
    };
    char name[128];
    const char *error;
    for (size_t k = 0; k < sizeof matrices / sizeof *matrices; k++) {
        snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, matrices[k].name);
        error = lm_model_matrix(m, name, matrices[k].rows, matrices[k].cols, matrices[k].to);
        if (error) return error;
        if (!matrices[k].bias) continue;
        snprintf(name, sizeof name, "model.layers.%d.%s.bias", i, matrices[k].name);
        error = lm_model_vector(m, name, matrices[k].rows, &matrices[k].to->bias);
        if (error) return error;
    }
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", i);
    error = lm_model_vector(m, name, hidden, &l->attn_norm);
    if (error) return error;
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", i);
    return lm_model_vector(m, name, hidden, &l->ffn_norm);
}

/* Finds every weight that the config asks for in the shards. A tensor that the layout does not know would change
 * what the model computes, so it is refused. */
static inline const char *lm_model_bind(lm_model *m) {
    lm_config *c = &m->config;
    m->layers = calloc((size_t)c->layers, sizeof *m->layers);
    if (!m->layers) return lm_model_error(m, m->shards[0].path, "out of memory");
    const char *error = lm_model_matrix(m, "model.embed_tokens.weight", c->vocab, c->hidden, &m->embed);
    for (int32_t i = 0; !error && i < c->layers; i++) error = lm_model_layer(m, i);
    if (!error) error = lm_model_vector(m, "model.norm.weight", c->hidden, &m->norm);
    if (error) return error;
    if (c->tied < 0) {
        c->tied = 1;
        for (int32_t i = 0; i < m->n_shards; i++)
            if (lm_st_find(&m->shards[i].st, "lm_head.weight")) c->tied = 0;
    }
    m->lm_head = m->embed;
    if (!c->tied) error = lm_model_matrix(m, "lm_head.weight", c->vocab, c->hidden, &m->lm_head);
    for (int32_t i = 0; !error && i < m->n_shards; i++)
        for (int32_t k = 0; !error && k < m->shards[i].st.n; k++) {
            const lm_tensor *t = &m->shards[i].st.tensors[k];
            char text[LM_ERROR_SIZE];
            if (!t->used && !strstr(t->name, "rotary_emb.inv_freq") && strcmp(t->name, "lm_head.weight") != 0)
                error = lm_model_error(m, m->shards[i].path,
                                       lm_error(text, "tensor %.200s is not part of this architecture", t->name));
        }
    return error;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static inline char *lm_join(const char *dir, const char *name) {
    const size_t n = strlen(dir), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (!path) return NULL;
    memcpy(path, dir, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m + 1);
    return path;
}

/* Room for n shards. */
static inline bool lm_model_room(lm_model *m, int32_t n) {
    m->shards = calloc((size_t)n, sizeof *m->shards);
    return m->shards != NULL;
}

/* Adds a shard: n bytes at data, which stay. file: what to close with the model, all zero for memory of the
 * caller's. */
static inline const char *lm_model_add(lm_model *m, const char *path, const void *data, size_t n, lm_file file) {
    lm_shard *shard = &m->shards[m->n_shards++];
    shard->file = file;
    shard->path = malloc(strlen(path) + 1);
    if (!shard->path) return lm_model_error(m, path, "out of memory");
    memcpy(shard->path, path, strlen(path) + 1);
    const char *error = lm_st_parse(&shard->st, data, n);
    return error ? lm_model_error(m, path, error) : NULL;
}

static inline const char *lm_model_add_file(lm_model *m, const char *path) {
    lm_file file;
    const char *error = lm_file_open(&file, path);
    return error ? lm_model_error(m, path, error) : lm_model_add(m, path, file.data, file.size, file);
}

/* A name out of an index, to be opened in the model's directory and nowhere else. */
static inline bool lm_plain_name(const char *name) {
    return *name && !strpbrk(name, "/\\:") && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* All files that weight_map names, once each; then every tensor must be in the file it is said to be in. */
static inline const char *lm_model_add_indexed(lm_model *m, const char *dir, const char *index_path, const lm_json *j) {
    const int32_t map = lm_json_get(j, 0, "weight_map");
    if (!lm_json_is(j, map, LM_JSON_OBJECT)) return lm_model_error(m, index_path, "no \"weight_map\" object");
    if (!lm_model_room(m, LM_MAX_SHARDS)) return lm_model_error(m, index_path, "out of memory");
    for (int32_t i = map + 1; i < j->nodes[map].end; i = j->nodes[i + 1].end) {
        char tensor[256], file[256], text[LM_ERROR_SIZE];
        if (!lm_json_string(j, i, tensor, sizeof tensor) || !lm_json_string(j, i + 1, file, sizeof file) ||
            !lm_plain_name(file))
            return lm_model_error(m, index_path, "\"weight_map\" does not map tensors to plain file names");
        char *path = lm_join(dir, file);
        if (!path) return lm_model_error(m, index_path, "out of memory");
        int32_t shard = 0;
        while (shard < m->n_shards && strcmp(m->shards[shard].path, path) != 0) shard++;
        const char *error = NULL;
        if (shard == LM_MAX_SHARDS) error = lm_model_error(m, index_path, "too many files");
        else if (shard == m->n_shards) error = lm_model_add_file(m, path);
        if (!error && !lm_st_find(&m->shards[shard].st, tensor))
            error = lm_model_error(m, path, lm_error(text, "tensor %.200s is not in it, as the index says", tensor));
        free(path);
        if (error) return error;
    }
    return m->n_shards ? NULL : lm_model_error(m, index_path, "\"weight_map\" is empty");
}

static inline const char *lm_model_load_config(lm_model *m, const char *path) {
    lm_file file;
    const char *error = lm_file_open(&file, path);
    if (error) return lm_model_error(m, path, error);
    error = lm_config_parse(&m->config, (const char *)file.data, file.size);
    lm_file_close(&file);
    return error ? lm_model_error(m, path, error) : NULL;
}

static inline const char *lm_model_load_index(lm_model *m, const char *dir, const char *path) {
    lm_file file;
    lm_json json;
    const char *error = lm_file_open(&file, path);
    if (error) return lm_model_error(m, path, error);
    error = lm_json_parse(&json, (const char *)file.data, file.size);
    if (error) error = lm_model_error(m, path, error);
    else {
        error = lm_model_add_indexed(m, dir, path, &json);
        lm_json_free(&json);
    }
    lm_file_close(&file);
    return error;
}

static inline bool lm_exists(const char *path) {
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

/* Loads the model of a directory. Free with lm_model_close(). */
static inline const char *lm_model_load(lm_model *m, const char *dir) {
    *m = (lm_model){ 0 };
    char *config = lm_join(dir, "config.json"), *single = lm_join(dir, "model.safetensors"),
         *index = lm_join(dir, "model.safetensors.index.json");
    const char *error = NULL;
    if (!config || !single || !index) error = lm_model_error(m, dir, "out of memory");
    if (!error) error = lm_model_load_config(m, config);
    if (!error) {
        if (!lm_exists(single) && lm_exists(index)) error = lm_model_load_index(m, dir, index);
        else error = lm_model_room(m, 1) ? lm_model_add_file(m, single) : lm_model_error(m, single, "out of memory");
    }
    if (!error) error = lm_model_bind(m);
    free(config);
    free(single);
    free(index);
    if (error) lm_model_close(m);
    return error;
}

/* The same from two buffers, which must stay: for tests and fuzzers. */
static inline const char *lm_model_load_memory(lm_model *m, const char *config, size_t config_n, const void *st,
                                               size_t st_n) {
    *m = (lm_model){ 0 };
    const char *error = lm_config_parse(&m->config, config, config_n);
    if (error) return lm_model_error(m, "config.json", error);
    error = lm_model_room(m, 1) ? lm_model_add(m, "model.safetensors", st, st_n, (lm_file){ 0 })
                                : lm_model_error(m, "model.safetensors", "out of memory");
    if (!error) error = lm_model_bind(m);
    if (error) lm_model_close(m);
    return error;
}

#endif /* LM_MODEL_H */

/* test_lm.c - the example language model: its reader of files, its arithmetic, and the tiny model's reference values */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L         /* mkdtemp under -std=c11 */
#endif
#if defined(_WIN32) || (defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
#include "test.h"
void test_lm(void) { SKIP("lm", "the example is for little-endian machines with POSIX"); }
#else
#include "../examples/lm_run.h"
#include "test.h"

#ifndef LM_TEST_MODEL
#define LM_TEST_MODEL "examples/tiny-ssa"
#endif

static double lm_max(double a, double b) { return a > b || a != a ? a : b; }    /* NaN wins, so that it fails */
static const char *said(const char *error) { return error ? error : "no error"; }

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

/* Parses a copy without a terminating zero, in memory of exactly its size, so that a sanitizer sees any over-read. */
static const char *json_try(const char *text, size_t n)
{
    lm_json j;
    char *copy = xalloc((int64_t)n, 1);
    memcpy(copy, text, n);
    const char *error = lm_json_parse(&j, copy, n);
    CHECK(error || (j.n > 0 && j.nodes[0].end == j.n), "the first node spans the text");
    if (!error) lm_json_free(&j);
    free(copy);
    return error;
}

static void test_json(void)
{
    static const char *const good[] = { "0", "-0", "12", "-1.5e+3", "1E9", "true", "false", "null", "\"\"", "[]",
        "{}", " [ ] ",
        "\t{\"a\"\r\n: [1,2 , {\"b\":null}],\"\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"} ", "\"\\ud83d\\ude00\"",
            "\"\xff\"" };
    static const char *const bad[] = { "", " ", "01", "+1", ".5", "1.", "1e", "--1", "0x1", "NaN", "Infinity", "tru",
        "nul",
        "True", "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"", "[", "]", "[1", "[1,", "[1,]",
            "[,1]", "[1 2]",
        "{", "}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:2}", "{\"a\" 1}", "[}", "{]", "1 2", "[] []",
            "'a'", "//" };
    for (int i = 0; i < COUNT(good); i++) CHECK(!json_try(good[i], strlen(good[i])), "%s is JSON", good[i]);
    for (int i = 0; i < COUNT(bad); i++) CHECK(json_try(bad[i], strlen(bad[i])), "%s is not JSON", bad[i]);
    CHECK(json_try("1\0", 2) && json_try("\0", 1) && json_try("\"\0\"", 3), "a zero byte is not JSON");
    for (size_t n = 0; n < strlen(good[12]) - 1; n++) CHECK(json_try(good[12], n), "its first %d bytes are not",
                                                            (int)n);

    for (int depth = 1; depth <= 2 * LM_JSON_MAX_DEPTH; depth++) {
        char text[4 * LM_JSON_MAX_DEPTH];
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        CHECK(!json_try(text, (size_t)depth * 2) == (depth <= LM_JSON_MAX_DEPTH), "%d brackets", depth);
    }
    char *long_text = xalloc(1 << 20, 1);
    memset(long_text, '[', 1 << 20);
    CHECK(json_try(long_text, 1 << 20), "a million brackets");
    free(long_text);

    static const char text[] = "{\"i\":-9223372036854775808,\"big\":9223372036854775808,\"f\":2.5e-3,\"e\":1e999,"
        "\"s\":\"\\u0041\\n\\ud83d\\ude00\\u00e9\","
        "\"z\":\"\\u0000\",\"l\":[1,[2,3],4],\"\\u006b\":7,\"i\":5,\"frac\":1.0}";
    lm_json j;
    int64_t i = 0;
    double d = 0;
    char s[64];
    CHECK(!lm_json_parse(&j, text, strlen(text)), "the text of values");
    CHECK(lm_json_int(&j, lm_json_get(&j, 0, "i"), &i) && i == INT64_MIN, "the smallest number, the first of two");
    CHECK(!lm_json_int(&j, lm_json_get(&j, 0, "big"), &i), "a number too large for 64 bits");
    CHECK(!lm_json_int(&j, lm_json_get(&j, 0, "frac"), &i), "a number with a fraction is no whole number");
    CHECK(lm_json_double(&j, lm_json_get(&j, 0, "f"), &d) && d == 2.5e-3, "a fraction");
    CHECK(!lm_json_double(&j, lm_json_get(&j, 0, "e"), &d), "an infinite number");
    CHECK(lm_json_string(&j, lm_json_get(&j, 0, "s"), s, sizeof s) &&
          !strcmp(s, "A\n\xF0\x9F\x98\x80\xC3\xA9"), "escapes");
    CHECK(!lm_json_string(&j, lm_json_get(&j, 0, "s"), s, 4), "a string that does not fit");
    CHECK(!lm_json_string(&j, lm_json_get(&j, 0, "z"), s, sizeof s), "a string with a zero");
    CHECK(lm_json_int(&j, lm_json_get(&j, 0, "k"), &i) && i == 7, "an escaped key");
    CHECK(lm_json_get(&j, 0, "none") == -1 && lm_json_get(&j, 1, "i") == -1 &&
          lm_json_get(&j, -1, "i") == -1, "no such key");
    CHECK(!lm_json_int(&j, -1, &i) && !lm_json_double(&j, -1, &d) &&
          !lm_json_string(&j, -1, s, sizeof s), "absent values");
    lm_json_free(&j);
}

/* ---- safetensors ----------------------------------------------------------------------------------------------- */

typedef struct { unsigned char *bytes; size_t n; } buffer;

/* A file of a header and data_n bytes of data. The header's length may be given a lie to tell. */
static buffer st_build(const char *header, int64_t data_n, int64_t lie)
{
    const size_t n = strlen(header);
    buffer b = { xalloc((int64_t)(8 + n) + data_n, 1), 8 + n + (size_t)data_n };
    const uint64_t length = (uint64_t)n + (uint64_t)lie;
    for (int i = 0; i < 8; i++) b.bytes[i] = (unsigned char)(length >> 8 * i);
    memcpy(b.bytes + 8, header, n);
    return b;
}

static void test_safetensors(void)
{
#define T(name, dtype, dims, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" dims "],\"data_offsets\":[" #from "," #to "]}"
    static const struct { const char *header; int data; const char *says; } bad[] = {
        { "", 0, "header" }, { "[]", 0, "not a JSON object" }, { "{", 0, "header" }, { "{\"a\":1}", 0, "dtype" },
        { "{\"a\":{}}", 0, "dtype" }, { "{" T("a", "F31", "1", 0, 4) "}", 4, "dtype" },
        { "{\"a\":{\"dtype\":5,\"shape\":[],\"data_offsets\":[0,0]}}", 0, "dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4, "no shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[[0],4]}}", 4, "data_offsets" },
        { "{" T("a", "F32", "1", -4, 0) "}", 4, "data_offsets" },
        { "{" T("a", "F32", "1", 4, 0) "}", 4, "data_offsets" },
        { "{" T("a", "F32", "1", 0, 18446744073709551620) "}", 4, "data_offsets" },
        { "{" T("a", "F32", "1", 0, 4) "}", 3, "truncated" },
        { "{" T("a", "F32", "1", 0, 9223372036854775807) "}", 4, "truncated" },
        { "{" T("a", "F32", "2", 0, 4) "}", 4, "where its shape needs" },
        { "{" T("a", "F32", "", 0, 0) "}", 0, "where its shape" },
        { "{" T("a", "F32", "-1", 0, 4) "}", 4, "whole numbers" },
        { "{" T("a", "F32", "1.5", 0, 4) "}", 4, "whole numbers" },
        { "{" T("a", "F32", "\"1\"", 0, 4) "}", 4, "whole numbers" },
        { "{" T("a", "F32", "[1]", 0, 4) "}", 4, "whole numbers" },
        { "{" T("a", "F32", "99999999999999999999", 0, 4) "}", 4, "whole numbers" },
        { "{" T("a", "F32", "4611686018427387905", 0, 4) "}", 4, "too large" },     /* times 4: wraps around to 4 */
        { "{" T("a", "F32", "2147483648,2147483648,2147483648", 0, 0) "}", 0, "too large" },
        { "{" T("a", "F32", "1,1,1,1,1,1,1,1,1", 0, 4) "}", 4, "too many dimensions" },
        { "{" T("a", "F32", "1", 0, 4) "," T("b", "F32", "1", 0, 4) "}", 4, "overlaps" },
        { "{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "1", 4, 8) "}", 8, "overlaps" },
        { "{" T("a", "F32", "1", 0, 4) "," T("b", "F32", "1", 8, 12) "}", 12, "gap" },
        { "{" T("a", "F32", "1", 4, 8) "}", 8, "gap" },
        { "{" T("a", "F32", "1", 0, 4) "}", 5, "after the last" }, { "{}", 1, "after the last" },
        { "{" T("a", "F32", "1", 0, 4) "," T("a", "F32", "1", 4, 8) "}", 8, "twice" },
        { "{" T("a", "F32", "1", 0, 4) "," T("\\u0061", "F32", "1", 4, 8) "}", 8, "twice" },
        { "{" T("a\\u0000b", "F32", "1", 0, 4) "}", 4, "zero" },
    };
    lm_st st;
    for (int i = 0; i < COUNT(bad); i++) {
        buffer b = st_build(bad[i].header, bad[i].data, 0);
        const char *error = lm_st_parse(&st, b.bytes, b.n);
        CHECK(error && strstr(error, bad[i].says), "header %s: %s", bad[i].header, said(error));
        CHECK(!st.tensors && !st.names, "header %s: nothing left to free", bad[i].header);
        if (!error) lm_st_free(&st);
        free(b.bytes);
    }
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"}," T("b", "F16", "3,1", 4, 10) ","
        T("a\\n", "F32", "", 0, 4) "," T("none", "F64", "5,0", 4, 4) "," T("u8", "U8", "2", 10, 12) "}";
    for (int data = 0; data <= 12; data++)
        for (size_t cut = 0; cut < sizeof header; cut++) {  /* the header cut short, its length with it or not */
            char text[sizeof header];
            memcpy(text, header, cut);
            text[cut] = 0;
            for (int lie = -3; lie <= 3; lie++) {
                buffer b = st_build(text, data, lie);
                const char *error = lm_st_parse(&st, b.bytes, b.n);
                const int whole = cut == sizeof header - 1 && data == 12 && lie == 0;
                CHECK((error == NULL) == whole, "header cut at %d, %d bytes of data, %d off: %s", (int)cut, data, lie,
                      said(error));
                if (!error) lm_st_free(&st);
                free(b.bytes);
            }
        }
    static const uint64_t lies[] = { 1, 4096, (uint64_t)1 << 32, UINT64_MAX / 2, UINT64_MAX - 8, UINT64_MAX - 7,
        UINT64_MAX };
    buffer b = st_build(header, 12, 0);
    for (int i = 0; i < COUNT(lies); i++) {
        buffer liar = st_build(header, 12, (int64_t)(lies[i] - (uint64_t)strlen(header)));
        CHECK(lm_st_parse(&st, liar.bytes, liar.n), "a header of %llu bytes", (unsigned long long)lies[i]);
        free(liar.bytes);
    }
    CHECK(lm_st_parse(&st, b.bytes, 0) && lm_st_parse(&st, b.bytes, 7) &&
          lm_st_parse(&st, b.bytes, 8), "almost nothing");
    CHECK(!lm_st_parse(&st, b.bytes, b.n) && st.n == 4, "the whole file");
    const lm_tensor *t = lm_st_find(&st, "b");
    CHECK(t && t->dtype == LM_F16 && t->rank == 2 && t->shape[0] == 3 && t->shape[1] == 1 && t->bytes == 6 &&
          t->data == b.bytes + b.n - 8, "tensor b");
    t = lm_st_find(&st, "a\n");
    CHECK(t && t->dtype == LM_F32 && t->rank == 0 && t->bytes == 4, "tensor a, a scalar");
    t = lm_st_find(&st, "none");
    CHECK(t && t->bytes == 0 && t->dtype == LM_OTHER, "an empty tensor");
    CHECK(!lm_st_find(&st, "c") && !lm_st_find(&st, "__metadata__") &&
          !lm_st_find(&st, ""), "tensors that are not there");
    lm_st_free(&st);
    free(b.bytes);
}

/* ---- arithmetic ------------------------------------------------------------------------------------------------ */

static void test_numbers(void)
{
    int f16 = 0, bf16 = 0, back = 0, narrow = 0;
    for (uint32_t i = 0; i < 65536; i++) {
        const uint16_t h = (uint16_t)i;
        const float a = type_get(SSA_F16, &h), x = lm_from_f16(h), b = type_get(SSA_BF16, &h), y = lm_from_bf16(h);
        f16 += a != a ? x == x : memcmp(&a, &x, 4) != 0;
        bf16 += b != b ? y == y : memcmp(&b, &y, 4) != 0;
        back += (a == a && lm_to_f16(a) != h) + (b == b && lm_to_bf16(b) != h);
    }
    CHECK(f16 == 0 && bf16 == 0 && back == 0, "conversions of 65536 values: %d, %d, %d wrong", f16, bf16, back);
    rng r = { 7, 0 };
    for (int i = 0; i < 200000; i++) {
        uint32_t u = (uint32_t)(rng_u64(&r) >> 32);
        if (i % 2) u = (u & 0x80000000u) | ((100u + u % 46u) << 23) | (uint32_t)(rng_u64(&r) >> 41);
            /* near f16's range */
        const float f = lm_from_bits(u);
        uint16_t a, b;
        if (f != f) continue;
        type_put(SSA_F16, &a, (double)f);
        type_put(SSA_BF16, &b, (double)f);
        narrow += lm_to_f16(f) != a || lm_to_bf16(f) != b;
    }
    CHECK(narrow == 0, "%d of 200000 values rounded wrongly", narrow);
}

static void test_matmul(void)
{
    static const struct { int64_t rows, cols; } sizes[] = { { 1, 1 }, { 31, 33 }, { 32, 256 }, { 33, 257 },
        { 70, 600 } };
    static const lm_dtype types[] = { LM_F32, LM_F16, LM_BF16 };
    rng r = { 11, 0 };
    for (int i = 0; i < COUNT(sizes); i++)
        for (int type = 0; type < COUNT(types); type++) {
            const int64_t rows = sizes[i].rows, cols = sizes[i].cols, cell = types[type] == LM_F32 ? 4 : 2;
            unsigned char *raw = xalloc(rows * cols * cell + 1, 1), *data = raw + 1;            /* at an odd address */
            double *wide = xalloc(rows * cols, sizeof *wide);
            float *bias = xalloc(rows, sizeof *bias), *x = xalloc(9 * cols, sizeof *x),
                *y = xalloc(9 * rows, sizeof *y);
            for (int64_t k = 0; k < rows * cols; k++) {
                const ssa_type as = types[type] == LM_F32 ? SSA_F32 : types[type] == LM_F16 ? SSA_F16 : SSA_BF16;
                type_put(as, data + k * cell, (double)rng_f(&r));
                wide[k] = (double)type_get(as, data + k * cell);
            }
            for (int64_t k = 0; k < rows; k++) bias[k] = rng_f(&r);
            for (int64_t k = 0; k < 9 * cols; k++) x[k] = rng_f(&r);
            for (int64_t n = 1; n <= 9; n++) {
                const lm_weight w = { .data = data, .dtype = types[type], .rows = rows, .cols = cols,
                    .bias = n % 2 ? bias : NULL };
                double off = 0;
                lm_matmul(y, x, n, &w, 1 + (int)(n % 3));
                for (int64_t t = 0; t < n; t++)
                    for (int64_t o = 0; o < rows; o++) {
                        double sum = w.bias ? (double)bias[o] : 0;
                        for (int64_t k = 0; k < cols; k++) sum += (double)x[t * cols + k] * wide[o * cols + k];
                        off = lm_max(off, fabs(sum - (double)y[t * rows + o]));
                    }
                CHECK(off <= 1e-6 * (double)(cols + 4), "matmul %d x %d, %d tokens: off by %g", (int)rows, (int)cols,
                      (int)n, off);
            }
            free(raw); free(wide); free(bias); free(x); free(y);
        }
}

static void test_rope(void)
{
    lm_config c = { .head_dim = 64, .rope_theta = 500000, .rope_llama3 = true, .rope_factor = 32, .rope_low = 1,
        .rope_high = 4,
                    .rope_original = 8192 };
    float got[32];
    double off = 0;
    int kept = 0, stretched = 0;
    lm_rope_frequencies(&c, got);
    for (int i = 0; i < 32; i++) {          /* by wavelengths, as the scaling is usually told */
        const double f = pow(500000.0, -2.0 * i / 64), wave = 6.283185307179586 / f,
            smooth = (8192 / wave - 1) / (4 - 1);
        const double want = wave > 8192.0 / 1 ? f / 32 : wave < 8192.0 / 4 ? f : (1 - smooth) * f / 32 + smooth * f;
        kept += want == f;
        stretched += want == f / 32;
        off = lm_max(off, fabs((double)got[i] / want - 1));
    }
    CHECK(off < 1e-6 && kept > 5 && stretched > 5 && kept + stretched < 32, "llama3 RoPE: off by %g, %d, %d", off,
          kept, stretched);
    float x[4] = { 1, 2, 3, 4 };
    const float cosines[2] = { 0.6f, 0 }, sines[2] = { 0.8f, 1 };
    lm_rope(x, cosines, sines, 1, 1, 4);
    CHECK(fabsf(x[0] + 1.8f) < 1e-6f && fabsf(x[2] - 2.6f) < 1e-6f && x[1] == -4 &&
          x[3] == 2, "a head rotated by hand");
}

static void test_sampler(void)
{
    const float logits[5] = { 0, 2, 1, -1, 2 };
    lm_candidate scratch[5];
    lm_sampler s = { .temperature = 0, .top_p = 1, .state = 1, .scratch = scratch };
    CHECK(lm_sample(&s, logits, 5) == 1, "temperature 0 takes the likeliest, the first of equals");
    s.temperature = 0.7f;
    s.top_p = 0;
    CHECK(lm_sample(&s, logits, 5) == 1, "top-p 0 takes the likeliest");
    s.top_p = 0.75f;
    double count[5] = { 0 }, p[5], total = 0;
    for (int i = 0; i < 40000; i++) count[lm_sample(&s, logits, 5)]++;
    CHECK(count[0] == 0 && count[2] == 0 && count[3] == 0, "top-p 0.75 keeps two");
    CHECK(fabs(count[1] / 40000 - 0.5) < 0.015, "the two are equally likely: %g", count[1] / 40000);
    s.top_p = 1;
    memset(count, 0, sizeof count);
    for (int i = 0; i < 40000; i++) count[lm_sample(&s, logits, 5)]++;
    for (int i = 0; i < 5; i++) total += p[i] = exp((double)logits[i] / (double)s.temperature);
    for (int i = 0; i < 5; i++) CHECK(fabs(count[i] / 40000 - p[i] / total) < 0.015, "token %d: %g of the draws", i,
                                      count[i] / 40000);
    const float broken[3] = { NAN, NAN, INFINITY };
    const int32_t id = lm_sample(&s, broken, 3);
    CHECK(id >= 0 && id < 3, "logits that are no numbers still give a token");
}

/* ---- a model of random weights, small enough for a naive forward pass in double -------------------------------- */

enum { TOY_MAX = 40, TOY_TOKENS = 40 };
typedef struct { char name[80]; int64_t rows, cols; double *w; } toy_tensor;        /* cols 0: a vector */
typedef struct {
    int vocab, hidden, layers, heads, kv_heads, dim, ffn, tied, bias, llama3;
    lm_dtype dtype;
    toy_tensor t[TOY_MAX];
    int n;
    char config[1024];
} toy;

static toy_tensor *toy_find(toy *m, const char *name)
{
    for (int i = 0; i < m->n; i++) if (!strcmp(m->t[i].name, name)) return &m->t[i];
    return NULL;
}
static toy_tensor *toy_in(toy *m, int layer, const char *name)
{
    char full[120];
    snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    return toy_find(m, full);
}
static void toy_add(toy *m, rng *r, const char *name, int64_t rows, int64_t cols)
{
    toy_tensor *t = &m->t[m->n++];
    const ssa_type as = m->dtype == LM_F32 ? SSA_F32 : m->dtype == LM_F16 ? SSA_F16 : SSA_BF16;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->cols = cols;
    t->w = xalloc(rows * (cols ? cols : 1), sizeof *t->w);
    for (int64_t i = 0; i < rows * (cols ? cols : 1); i++) {
        uint32_t bits = 0;
        type_put(as, &bits, cols ? (double)rng_f(r) : 1 + 0.3 * (double)rng_f(r));      /* rounded to the file's type */
        t->w[i] = (double)type_get(as, &bits);
    }
}
static void toy_make(toy *m, uint64_t seed)
{
    rng r = { seed, 0 };
    const int64_t dq = m->heads * m->dim, dk = m->kv_heads * m->dim;
    const struct { const char *name; int64_t rows, cols; int bias; } per_layer[] = {
        { "self_attn.q_proj", dq, m->hidden, 1 }, { "self_attn.k_proj", dk, m->hidden, 1 },
        { "self_attn.v_proj", dk, m->hidden, 1 },
        { "self_attn.o_proj", m->hidden, dq, 1 }, { "self_attn.g_proj", 3 * m->heads, m->hidden, 0 },
        { "mlp.gate_proj", m->ffn, m->hidden, 1 }, { "mlp.up_proj", m->ffn, m->hidden, 1 },
        { "mlp.down_proj", m->hidden, m->ffn, 1 },
        { "input_layernorm", m->hidden, 0, 0 }, { "post_attention_layernorm", m->hidden, 0, 0 },
    };
    m->n = 0;
    toy_add(m, &r, "model.embed_tokens.weight", m->vocab, m->hidden);
    for (int layer = 0; layer < m->layers; layer++)
        for (int i = 0; i < COUNT(per_layer); i++) {
            char name[80];
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, per_layer[i].name);
            toy_add(m, &r, name, per_layer[i].rows, per_layer[i].cols);
            if (!m->bias || !per_layer[i].bias) continue;
            snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, per_layer[i].name);
            toy_add(m, &r, name, per_layer[i].rows, 0);
        }
    toy_add(m, &r, "model.norm.weight", m->hidden, 0);
    if (!m->tied) toy_add(m, &r, "lm_head.weight", m->vocab, m->hidden);
    snprintf(m->config, sizeof m->config,
             "{\"architectures\":[\"LlamaNSAForCausalLM\"],\"vocab_size\":%d,\"hidden_size\":%d,"
             "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
             "\"intermediate_size\":%d,\"rms_norm_eps\":1e-05,\"rope_theta\":10000.0,\"block_size\":4,"
             "\"block_counts\":3,\"tie_word_embeddings\":%s,\"attention_bias\":%s,\"mlp_bias\":%s,"
             "\"max_position_embeddings\":64,\"rope_scaling\":%s}",
             m->vocab, m->hidden, m->layers, m->heads, m->kv_heads, m->dim, m->ffn, m->tied ? "true" : "false",
             m->bias ? "true" : "false", m->bias ? "true" : "false",
             m->llama3 ? "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                         "\"original_max_position_embeddings\":16}" : "null");
}
static void toy_free(toy *m) { for (int i = 0; i < m->n; i++) free(m->t[i].w); m->n = 0; }

/* The safetensors file of the tensors i with keep[i] (NULL: all). */
static buffer toy_file(const toy *m, const char *keep)
{
    static const char *const names[] = { "BF16", "F16", "F32" };
    const ssa_type as = m->dtype == LM_F32 ? SSA_F32 : m->dtype == LM_F16 ? SSA_F16 : SSA_BF16;
    const int64_t cell = type_size(as);
    char *header = xalloc(m->n + 1, 200);
    size_t at = 0;
    int64_t offset = 0;
    for (int i = 0; i < m->n; i++) {
        if (keep && !keep[i]) continue;
        const int64_t count = m->t[i].rows * (m->t[i].cols ? m->t[i].cols : 1);
        char dims[48];
        snprintf(dims, sizeof dims, m->t[i].cols ? "%d,%d" : "%d", (int)m->t[i].rows, (int)m->t[i].cols);
        at += (size_t)sprintf(header + at, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%d,%d]}",
                              at ? ',' : '{',
                              m->t[i].name, names[m->dtype], dims, (int)offset, (int)(offset + count * cell));
        offset += count * cell;
    }
    memcpy(header + at, at ? "}" : "{}", at ? 2 : 3);
    buffer b = st_build(header, offset, 0);
    unsigned char *to = b.bytes + 8 + strlen(header);
    for (int i = 0; i < m->n; i++)
        for (int64_t k = 0; (!keep || keep[i]) && k < m->t[i].rows * (m->t[i].cols ? m->t[i].cols : 1); k++, to += cell)
            type_put(as, to, m->t[i].w[k]);
    free(header);
    return b;
}

static void toy_norm(double *y, const double *x, const toy_tensor *w)
{
    double sum = 0;
    for (int64_t i = 0; i < w->rows; i++) sum += x[i] * x[i];
    for (int64_t i = 0; i < w->rows; i++) y[i] = x[i] / sqrt(sum / (double)w->rows + 1e-5) * w->w[i];
}
static void toy_linear(toy *m, double *y, const double *x, int layer, const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    const toy_tensor *w = layer < 0 ? toy_find(m, name) : toy_in(m, layer, full);
    snprintf(full, sizeof full, "%s.bias", name);
    const toy_tensor *bias = layer < 0 ? NULL : toy_in(m, layer, full);
    for (int64_t o = 0; o < w->rows; o++) {
        y[o] = bias ? bias->w[o] : 0;
        for (int64_t i = 0; i < w->cols; i++) y[o] += w->w[o * w->cols + i] * x[i];
    }
}
static void toy_rotate(const toy *m, double *x, int position)
{
    for (int i = 0; i < m->dim / 2; i++) {
        double f = pow(10000.0, -2.0 * i / m->dim);
        const double wave = 6.283185307179586 / f, smooth = (16 / wave - 1) / 3;
        if (m->llama3) f = wave > 16 ? f / 8 : wave < 4 ? f : (1 - smooth) * f / 8 + smooth * f;
        const double a = x[i], b = x[i + m->dim / 2], c = cos(position * f), s = sin(position * f);
        x[i] = a * c - b * s;
        x[i + m->dim / 2] = b * c + a * s;
    }
}
static double toy_sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* Logits [n][vocab] with full attention. */
static void toy_forward(toy *m, const int32_t *ids, int n, double *logits)
{
    enum { MAX = 64 };
    static double k[TOY_TOKENS][MAX], v[TOY_TOKENS][MAX], x[TOY_TOKENS][MAX];
    double h[MAX] = { 0 }, q[MAX] = { 0 }, g[MAX] = { 0 }, o[MAX] = { 0 }, up[MAX] = { 0 }, out[MAX] = { 0 },
           p[TOY_TOKENS] = { 0 };
    const toy_tensor *embed = toy_find(m, "model.embed_tokens.weight");
    for (int t = 0; t < n; t++) memcpy(x[t], embed->w + ids[t] * m->hidden, (size_t)m->hidden * sizeof(double));
    for (int layer = 0; layer < m->layers; layer++)
        for (int t = 0; t < n; t++) {
            toy_norm(h, x[t], toy_in(m, layer, "input_layernorm.weight"));
            toy_linear(m, q, h, layer, "self_attn.q_proj");
            toy_linear(m, k[t], h, layer, "self_attn.k_proj");
            toy_linear(m, v[t], h, layer, "self_attn.v_proj");
            toy_linear(m, g, h, layer, "self_attn.g_proj");
            for (int i = 0; i < m->kv_heads; i++) toy_rotate(m, k[t] + i * m->dim, t);
            for (int i = 0; i < m->heads; i++) {
                const int kv = i / (m->heads / m->kv_heads) * m->dim;
                double sum = 0;
                toy_rotate(m, q + i * m->dim, t);
                for (int j = 0; j <= t; j++) {
                    double dot = 0;
                    for (int d = 0; d < m->dim; d++) dot += q[i * m->dim + d] * k[j][kv + d];
                    sum += p[j] = exp(dot / sqrt(m->dim));
                }
                for (int d = 0; d < m->dim; d++) {
                    double acc = 0;
                    for (int j = 0; j <= t; j++) acc += p[j] / sum * v[j][kv + d];
                    o[i * m->dim + d] = acc * toy_sigmoid(g[3 * i + 1]);
                }
            }
            toy_linear(m, out, o, layer, "self_attn.o_proj");
            for (int i = 0; i < m->hidden; i++) x[t][i] += out[i];
            toy_norm(h, x[t], toy_in(m, layer, "post_attention_layernorm.weight"));
            toy_linear(m, g, h, layer, "mlp.gate_proj");
            toy_linear(m, up, h, layer, "mlp.up_proj");
            for (int i = 0; i < m->ffn; i++) up[i] *= g[i] * toy_sigmoid(g[i]);
            toy_linear(m, out, up, layer, "mlp.down_proj");
            for (int i = 0; i < m->hidden; i++) x[t][i] += out[i];
        }
    for (int t = 0; t < n; t++) {
        toy_norm(h, x[t], toy_find(m, "model.norm.weight"));
        toy_linear(m, logits + t * m->vocab, h, -1, m->tied ? "model.embed_tokens.weight" : "lm_head.weight");
    }
}

static const toy toys[] = {
    { .vocab = 11, .hidden = 12, .layers = 2, .heads = 4, .kv_heads = 2, .dim = 6, .ffn = 10, .tied = 1,
        .dtype = LM_BF16 },
    { .vocab = 11, .hidden = 12, .layers = 1, .heads = 3, .kv_heads = 3, .dim = 4, .ffn = 33, .bias = 1,
        .dtype = LM_F32 },
    { .vocab = 50, .hidden = 8, .layers = 2, .heads = 4, .kv_heads = 1, .dim = 8, .ffn = 16, .llama3 = 1,
        .dtype = LM_F16 },
};

static void test_toys(void)
{
    static double want[TOY_TOKENS * 64];
    int32_t ids[TOY_TOKENS];
    rng r = { 5, 0 };
    for (int i = 0; i < COUNT(toys); i++) {
        toy t = toys[i];
        lm_model m;
        lm_session s;
        float logits[64];
        toy_make(&t, (uint64_t)i + 1);
        buffer file = toy_file(&t, NULL);
        const char *error = lm_model_load_memory(&m, t.config, strlen(t.config), file.bytes, file.n);
        CHECK(!error, "toy %d: %s", i, said(error));
        if (error) return;
        for (int k = 0; k < TOY_TOKENS; k++) ids[k] = rng_int(&r, 0, t.vocab - 1);
        toy_forward(&t, ids, TOY_TOKENS, want);
        for (int sparse = 0; sparse < 2; sparse++) {
            /* a budget that covers every block is full attention too */
            const lm_options opt = { .mode = sparse ? SSA_SPARSE : SSA_FULL, .top_k = TOY_TOKENS,
                .context = TOY_TOKENS, .chunk = 7,
                                     .threads = 1 };
            double off = 0;
            error = lm_session_open(&s, &m, &opt);
            CHECK(!error, "toy %d: %s", i, said(error));
            for (int n = 0; !error && n < TOY_TOKENS; n += 5) {
                error = lm_feed(&s, ids + n, 5, NULL, NULL, logits);
                for (int k = 0; k < t.vocab; k++) off = lm_max(off,
                                                            fabs((double)logits[k] - want[(n + 4) * t.vocab + k]));
            }
            CHECK(!error && off < 1e-4, "toy %d, %s: logits off by %g", i, sparse ? "sparse" : "full", off);
            const int32_t wrong[] = { -1, t.vocab, INT32_MAX };
            CHECK(lm_feed(&s, ids, 1, NULL, NULL, NULL), "toy %d: a full context", i);
            CHECK(lm_session_rewind(&s, TOY_TOKENS + 1) && lm_session_rewind(&s, -1), "toy %d: a rewind forwards", i);
            CHECK(!lm_session_rewind(&s, 3) && s.n == 3, "toy %d: a rewind", i);
            for (int k = 0; k < COUNT(wrong); k++) CHECK(lm_feed(&s, &wrong[k], 1, NULL, NULL, NULL), "a token of %d",
                                                         wrong[k]);
            lm_session_close(&s);
        }
        lm_model_close(&m);
        free(file.bytes);
        toy_free(&t);
    }
}

/* Loads a model from its two parts and says what is wrong; when nothing is, feeds it a few tokens. */
static const char *load_and_run(const char *config, size_t config_n, const buffer *file)
{
    static lm_model m;
    lm_session s;
    const char *error = lm_model_load_memory(&m, config, config_n, file->bytes, file->n);
    if (error) return error;
    for (int sparse = 0; sparse < 2; sparse++) {
        const int32_t ids[7] = { 0 };
        const lm_options opt = { .mode = sparse ? SSA_SPARSE : SSA_FULL, .top_k = m.config.top_k, .context = 8,
            .chunk = 3,
                                 .threads = 1 };
        if (lm_session_open(&s, &m, &opt)) continue;
        CHECK(!lm_feed(&s, ids, 7, NULL, NULL, NULL), "what can be loaded can be run");
        lm_session_close(&s);
    }
    lm_model_close(&m);
    return NULL;
}

/* The config with the value of a key replaced (NULL: the key renamed away). */
static void config_with(char out[2048], const char *config, const char *key, const char *value)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(config, quoted);
    if (!at) {
        snprintf(out, 2048, "{%s%s,%s", quoted, value ? value : "null", config + 1);
        return;
    }
    const char *from = at + strlen(quoted), *to = from;
    int depth = 0;
    while (depth || (*to != ',' && *to != '}')) { depth += (*to == '{' || *to == '[') - (*to == '}' ||
                                                            *to == ']'); to++; }
    if (value) snprintf(out, 2048, "%.*s%s%s", (int)(from - config), config, value, to);
    else snprintf(out, 2048, "%.*s\"not_%s", (int)(at - config), config, at + 1);
}

static void test_damage(void)
{
    toy t = toys[0];
    char config[2048], keep[TOY_MAX];
    toy_make(&t, 1);
    buffer file = toy_file(&t, NULL);
    const char *error = load_and_run(t.config, strlen(t.config), &file);
    CHECK(!error, "the undamaged model: %s", said(error));

    static const struct { const char *key, *value; int fine; } changes[] = {
        { "vocab_size", "0", 0 }, { "vocab_size", "10", 0 }, { "vocab_size", "-11", 0 },
        { "vocab_size", "4294967307", 0 },
        { "vocab_size", "\"11\"", 0 }, { "vocab_size", "11.0", 0 }, { "vocab_size", NULL, 0 },
        { "vocab_size", "null", 0 },
        { "hidden_size", "0", 0 }, { "hidden_size", "24", 0 }, { "hidden_size", "1e9", 0 },
        { "hidden_size", "16777216", 0 },
        { "num_hidden_layers", "0", 0 }, { "num_hidden_layers", "1", 0 }, { "num_hidden_layers", "3", 0 },
        { "num_hidden_layers", "4096", 0 }, { "num_hidden_layers", "2147483647", 0 },
        { "num_attention_heads", "0", 0 }, { "num_attention_heads", "3", 0 }, { "num_attention_heads", "65536", 0 },
        { "num_key_value_heads", "0", 0 }, { "num_key_value_heads", "4", 0 }, { "num_key_value_heads", "3", 0 },
        { "num_key_value_heads", "null", 0 }, { "head_dim", "0", 0 }, { "head_dim", "5", 0 }, { "head_dim", "8", 0 },
        { "head_dim", "1025", 0 }, { "head_dim", "null", 0 }, { "intermediate_size", "9", 0 },
        { "intermediate_size", NULL, 0 },
        { "rms_norm_eps", "-1", 0 }, { "rms_norm_eps", "\"x\"", 0 }, { "rms_norm_eps", "1e-6", 1 },
        { "rms_norm_eps", NULL, 1 },
        { "rope_theta", "0", 0 }, { "rope_theta", "-5", 0 }, { "rope_theta", "1e400", 0 }, { "rope_theta", NULL, 1 },
        { "block_size", "0", 0 }, { "block_size", "4097", 0 }, { "block_size", "1", 1 }, { "block_size", "4096", 1 },
        { "block_size", NULL, 1 }, { "block_counts", "0", 0 }, { "block_counts", "16777216", 1 },
        { "block_counts", "99999999999", 0 },
        { "tie_word_embeddings", "false", 0 }, { "tie_word_embeddings", "1", 0 }, { "tie_word_embeddings", NULL, 1 },
        { "attention_bias", "true", 0 }, { "mlp_bias", "true", 0 }, { "attention_bias", "null", 1 },
        { "max_position_embeddings", "0", 0 }, { "max_position_embeddings", "1", 1 },
        { "rope_scaling", "{}", 1 }, { "rope_scaling", "{\"type\":\"default\"}", 1 },
        { "rope_scaling", "{\"type\":\"linear\"}", 0 },
        { "rope_scaling", "[]", 0 }, { "rope_scaling", "{\"rope_type\":\"llama3\"}", 0 },
        { "rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                          "\"original_max_position_embeddings\":16}", 1 },
        { "rope_scaling", "{\"type\":\"llama3\",\"factor\":0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                          "\"original_max_position_embeddings\":16}", 0 },
        { "rope_scaling", "{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
                          "\"original_max_position_embeddings\":16}", 0 },
        { "architectures", "[\"LlamaForCausalLM\"]", 0 }, { "architectures", "[]", 0 }, { "architectures", "7", 0 },
        { "architectures", NULL, 1 }, { "hidden_act", "\"gelu\"", 0 }, { "hidden_act", "\"silu\"", 1 },
        { "window_size", "0", 1 },
        { "window_size", "512", 0 }, { "eos_token_id", "3", 1 }, { "eos_token_id", "[1,2]", 1 },
        { "eos_token_id", "[[1]]", 0 },
        { "eos_token_id", "\"x\"", 0 }, { "eos_token_id", "[1,2,3,4,5,6,7,8,9]", 0 },
        { "unknown_key", "{\"a\":[1]}", 1 },
    };
    for (int i = 0; i < COUNT(changes); i++) {
        config_with(config, t.config, changes[i].key, changes[i].value);
        error = load_and_run(config, strlen(config), &file);
        CHECK((error == NULL) == changes[i].fine, "%s = %s: %s", changes[i].key,
              changes[i].value ? changes[i].value : "left out",
              said(error));
        CHECK(!error || !strchr(error, '\n'), "one line: %s", said(error));
    }
    for (size_t n = 0; n < strlen(t.config); n++)
        CHECK(load_and_run(t.config, n, &file), "config.json cut after %d bytes", (int)n);
    for (size_t n = 0; n < file.n; n += n < 64 || n > file.n - 64 ? 1 : 37) {
        buffer cut = { xalloc((int64_t)n, 1), n };
        memcpy(cut.bytes, file.bytes, n);
        CHECK(load_and_run(t.config, strlen(t.config), &cut), "model cut after %d bytes", (int)n);
        free(cut.bytes);
    }
    for (int i = 0; i < t.n; i++) {
        memset(keep, 1, sizeof keep);
        keep[i] = 0;
        buffer part = toy_file(&t, keep);
        error = load_and_run(t.config, strlen(t.config), &part);
        CHECK(error && strstr(error, t.t[i].name) && strstr(error, "missing"), "without %s: %s", t.t[i].name,
              said(error));
        free(part.bytes);

        toy_tensor whole = t.t[i];                                  /* another shape of as many elements or fewer */
        if (whole.cols) { t.t[i].rows = whole.cols; t.t[i].cols = whole.rows; } else t.t[i].rows--;
        part = toy_file(&t, NULL);
        error = load_and_run(t.config, strlen(t.config), &part);
        CHECK((error && strstr(error, whole.name)) || whole.rows == whole.cols, "%s in another shape: %s", whole.name,
              said(error));
        free(part.bytes);
        t.t[i] = whole;
        snprintf(t.t[i].name, sizeof t.t[i].name, "%.60s_too", whole.name);
        part = toy_file(&t, NULL);
        CHECK(load_and_run(t.config, strlen(t.config), &part), "%s renamed", whole.name);
        free(part.bytes);
        t.t[i] = whole;
    }
    rng r = { 99, 0 };
    toy_add(&t, &r, "model.layers.0.self_attn.q_norm.weight", 6, 0);
    buffer more = toy_file(&t, NULL);
    error = load_and_run(t.config, strlen(t.config), &more);
    CHECK(error && strstr(error, "q_norm"), "a tensor that the layout does not know: %s", said(error));
    free(more.bytes);
    snprintf(t.t[t.n - 1].name, sizeof t.t[0].name, "model.layers.0.self_attn.rotary_emb.inv_freq");
    more = toy_file(&t, NULL);
    error = load_and_run(t.config, strlen(t.config), &more);
    CHECK(!error, "a table of frequencies is not needed, and no harm: %s", said(error));
    free(more.bytes);

    /* Damage at random: whatever it does, it must be refused or run, under a sanitizer too. */
    size_t header = 0;
    for (int i = 7; i >= 0; i--) header = header << 8 | file.bytes[i];
    for (int i = 0; i < 4000; i++) {
        static const char likely[] = "0123456789\"{}[],:-.e\\ \xff";
        buffer bad = { xalloc((int64_t)file.n, 1), file.n };
        memcpy(bad.bytes, file.bytes, file.n);
        snprintf(config, sizeof config, "%s", t.config);
        for (int k = rng_int(&r, 1, 3); k > 0; k--) {
            const unsigned char c = (unsigned char)(rng_int(&r, 0,
                                                            3) ? likely[rng_int(&r, 0,
                                                            COUNT(likely) - 2)] : rng_int(&r, 0, 255));
            if (i % 2) config[rng_int(&r, 0, (int)strlen(t.config) - 1)] = (char)c;
            else bad.bytes[rng_int(&r, 0, (int)header + 15)] = c;
        }
        load_and_run(config, strlen(t.config), &bad);
        free(bad.bytes);
    }
    free(file.bytes);
    toy_free(&t);
}

/* ---- a folder of shards ---------------------------------------------------------------------------------------- */

#if LM_HAVE_MMAP
static void put_file(const char *dir, const char *name, const void *data, size_t n)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n, "writing %s", path);
    if (f) fclose(f);
}

static void test_shards(void)
{
    static const char *const names[] = { "config.json", "model.safetensors", "model.safetensors.index.json",
        "a.safetensors",
                                         "b.safetensors" };
    static const char *const bad[] = { "", "{}", "{\"weight_map\":[]}", "{\"weight_map\":{}}",
        "{\"weight_map\":{\"x\":1}}",
        "{\"weight_map\":{\"x\":\"../a.safetensors\"}}", "{\"weight_map\":{\"x\":\"/etc/passwd\"}}",
            "{\"weight_map\":{\"x\":\"\"}}",
        "{\"weight_map\":{\"x\":\"..\"}}", "{\"weight_map\":{\"x\":\"none.safetensors\"}}",
            "{\"weight_map\":{\"x\":\"a.safetensors\"}}",
        "{\"weight_map\":{\"model.norm.weight\":\"config.json\"}}",
            "{\"weight_map\":{\"model.norm.weight\":\"b.safetensors\"}}" };
    const char *tmp = getenv("TMPDIR");
    char dir[256], keep[TOY_MAX] = { 0 }, *index = xalloc(TOY_MAX, 128);
    toy t = toys[0];
    lm_model m;
    snprintf(dir, sizeof dir, "%.200s/lm-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        SKIP("lm shards", "no folder for temporary files");
        free(index);
        return;
    }
    toy_make(&t, 1);
    size_t at = (size_t)sprintf(index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < t.n; i++) {
        keep[i] = i % 3 == 0;
        at += (size_t)sprintf(index + at, "%s\"%s\":\"%s\"", i ? "," : "", t.t[i].name, keep[i] ? names[3] : names[4]);
    }
    sprintf(index + at, "}}");
    buffer whole = toy_file(&t, NULL), a = toy_file(&t, keep), b;
    for (int i = 0; i < t.n; i++) keep[i] = !keep[i];
    b = toy_file(&t, keep);

    CHECK(lm_model_load(&m, dir), "an empty folder");
    put_file(dir, names[0], t.config, strlen(t.config));
    CHECK(lm_model_load(&m, dir), "a folder without weights");
    put_file(dir, names[3], a.bytes, a.n);
    put_file(dir, names[4], b.bytes, b.n);
    for (int i = 0; i < COUNT(bad); i++) {
        put_file(dir, names[2], bad[i], strlen(bad[i]));
        CHECK(lm_model_load(&m, dir), "the index %s", bad[i]);
    }
    put_file(dir, names[2], index, strlen(index));
    const char *error = lm_model_load(&m, dir);
    CHECK(!error, "shards: %s", said(error));
    if (!error) {
        CHECK(m.n_shards == 2, "%d shards", (int)m.n_shards);
        float first = 0;
        lm_weight_row(&first, &m.embed, 0, 0, 1);
        CHECK(first == (float)t.t[0].w[0], "the embedding's first value");
        lm_model_close(&m);
    }
    put_file(dir, names[4], whole.bytes, whole.n);
    error = lm_model_load(&m, dir);
    CHECK(error && strstr(error, "another shard"), "a tensor in two shards: %s", said(error));
    put_file(dir, names[4], b.bytes, b.n / 2);
    CHECK(lm_model_load(&m, dir), "a shard cut short");
    put_file(dir, names[1], whole.bytes, whole.n);
    error = lm_model_load(&m, dir);
    CHECK(!error, "a single file goes before shards: %s", said(error));
    if (!error) lm_model_close(&m);
    CHECK(lm_model_load(&m, "no/such/folder") && strstr(m.error, "no/such/folder/config.json"), "no folder: %s",
          m.error);
    lm_file file;
    CHECK(lm_file_open(&file, dir) != NULL, "a folder is no file");
    for (int i = 0; i < COUNT(names); i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        error = lm_file_read(&(lm_file){ 0 }, "no/such/file");
        CHECK(error != NULL, "no file");
        lm_file mapped, read = { 0 };
        CHECK(!lm_file_open(&mapped, path) && !lm_file_read(&read, path) && mapped.size == read.size &&
              memcmp(mapped.data, read.data, read.size) == 0, "%s mapped and read", names[i]);
        lm_file_close(&mapped);
        lm_file_close(&read);
        remove(path);
    }
    remove(dir);
    free(whole.bytes); free(a.bytes); free(b.bytes); free(index);
    toy_free(&t);
}
#else
static void test_shards(void) { SKIP("lm shards", "no folders for temporary files here"); }
#endif

/* ---- the tiny model against its reference values --------------------------------------------------------------- */

enum { IDS = 2048, PROMPT = 512, GREEDY = 128, VOCAB = 256, SHORT = 400, SHORTEST = 288 };

typedef struct { const char *name, *nll, *logits, *greedy; ssa_mode mode; ssa_select select; double mean; } tiny_case;
static const tiny_case tiny_cases[] = {
    { "full", "nll_full", "last_logits_full", "greedy_full", SSA_FULL, SSA_SELECT_TOPK, 0.957074 },
    { "reference", "nll_sparse_official", "last_logits_sparse_official", "greedy_sparse_official", SSA_SPARSE,
      SSA_SELECT_REFERENCE, 0.961619 },
    { "topk", "nll_sparse_exact", "last_logits_sparse_exact", NULL, SSA_SPARSE, SSA_SELECT_TOPK, 0.959801 },
};

/* Tolerances. The arithmetic is f32 on both sides, in another order of additions: roundings of 2^-24, some hundreds of
 * them one after another, on logits of up to 20, add up to 1e-4 when none cancel (7e-6 is measured). Sparse attention
 * is allowed more: a block whose importance nearly ties with another's may change places by such an error, and then
 * moves the logits of that query by the little that it weighs. */
static double logit_tolerance(const tiny_case *c) { return c->mode == SSA_FULL ? 1e-4 : 2e-3; }
static double mean_tolerance(const tiny_case *c) { return c->mode == SSA_FULL ? 2e-5 : 2e-4; }

static int tensor_copy(const lm_st *st, const char *name, lm_dtype dtype, int64_t n, void *to)
{
    const lm_tensor *t = lm_st_find(st, name);
    const int ok = t && t->dtype == dtype && t->rank == 1 && t->shape[0] == n;
    CHECK(ok, "%s is in reference.safetensors", name);
    if (ok) memcpy(to, t->data, (size_t)n * 4);
    return ok;
}

static double mean_of(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i];
    return sum / n;
}

static double apart(const float *a, const float *b, int n)
{
    double off = 0;
    for (int i = 0; i < n; i++) off = lm_max(off, fabs((double)a[i] - (double)b[i]));
    return off;
}

/* n: the bytes to compare. All of them: the last logits and the greedy bytes too. */
static void tiny_reference(const lm_model *m, const lm_st *st, const int32_t *ids, const tiny_case *c, int n)
{
    static float nll[IDS], want[IDS], logits[VOCAB], want_logits[VOCAB];
    int32_t made[GREEDY];
    lm_session s;
    const lm_options opt = { .mode = c->mode, .select = c->select, .top_k = m->config.top_k, .context = IDS,
                             .chunk = 256, .threads = 1 };
    if (!tensor_copy(st, c->nll, LM_F32, IDS - 1, want)) return;
    if (!tensor_copy(st, c->logits, LM_F32, VOCAB, want_logits)) return;
    const char *error = lm_session_open(&s, m, &opt);
    if (!error) error = lm_feed(&s, ids, n - 1, ids + 1, nll, NULL);
    if (!error) error = lm_feed(&s, ids + n - 1, 1, NULL, NULL, logits);
    CHECK(!error, "%s: %s", c->name, said(error));
    if (error) return;
    const double mean = mean_of(nll, n - 1), want_mean = mean_of(want, n - 1);
    CHECK(fabs(mean - want_mean) < mean_tolerance(c), "%s: mean -log p %.6f, reference %.6f", c->name, mean, want_mean);
    if (n == IDS) {
        const double off = apart(logits, want_logits, VOCAB);
        CHECK(fabs(mean - c->mean) < mean_tolerance(c), "%s: mean -log p %.6f, published %.6f", c->name, mean, c->mean);
        CHECK(off < logit_tolerance(c), "%s: last logits off by %g", c->name, off);
    }
    /* greedy bytes after the first 512 of what is already in the cache: a rewind is as good as a new session */
    if (n == IDS && c->greedy && tensor_copy(st, c->greedy, LM_I32, GREEDY, made)) {
        int same = 0;
        error = lm_session_rewind(&s, PROMPT - 1);
        int32_t id = ids[PROMPT - 1];
        for (; !error && same < GREEDY; same++) {
            error = lm_feed(&s, &id, 1, NULL, NULL, logits);
            id = lm_argmax(logits, VOCAB);
            if (id != made[same]) break;
        }
        CHECK(!error && same == GREEDY, "%s: %d of %d greedy bytes equal", c->name, same, GREEDY);
    }
    lm_session_close(&s);
}

/* Whether this build is so slow (sanitizers, -O0, an emulator) that the long runs would take minutes. */
static int tiny_slow(const lm_model *m, const int32_t *ids)
{
    lm_session s;
    const lm_options opt = { .mode = SSA_FULL, .context = 64, .chunk = 64, .threads = 1 };
    const clock_t start = clock();
    if (lm_session_open(&s, m, &opt)) return 0;
    CHECK(!lm_feed(&s, ids, 64, NULL, NULL, NULL), "64 tokens");
    lm_session_close(&s);
    return (double)(clock() - start) / CLOCKS_PER_SEC > 64 * 3e-3;
}

/* -log p of the first SHORT tokens under some options, the last logits too. step: tokens of one call. */
static int tiny_run(const lm_model *m, const int32_t *ids, lm_options opt, int step, float *nll, float *logits,
                    lm_session *keep)
{
    lm_session s;
    opt.top_k = opt.top_k ? opt.top_k : m->config.top_k;
    opt.context = opt.context ? opt.context : SHORT;
    const char *error = lm_session_open(&s, m, &opt);
    for (int at = 0; !error && at < SHORT; at += step) {
        const int n = SHORT - at < step ? SHORT - at : step;
        error = lm_feed(&s, ids + at, n, ids + at + 1, nll + at, at + n == SHORT ? logits : NULL);
    }
    CHECK(!error, "a run: %s", said(error));
    if (keep && !error) *keep = s;
    else lm_session_close(&s);
    return !error;
}

static void tiny_invariants(const lm_model *m, const lm_st *st, const int32_t *ids)
{
    static float base[SHORT], nll[SHORT], logits[VOCAB], other[VOCAB], full[SHORT], full_logits[VOCAB], want[IDS];
    lm_session s;
    for (int i = 0; i < COUNT(tiny_cases); i++) {
        const tiny_case *c = &tiny_cases[i];
        const lm_options opt = { .mode = c->mode, .select = c->select, .chunk = 256, .threads = 1 };
        lm_options o = opt;
        if (!tiny_run(m, ids, o, SHORT, base, logits, NULL)) return;
        if (i == 0) { memcpy(full, base, sizeof base); memcpy(full_logits, logits, sizeof logits); }
        o.threads = 2;
        tiny_run(m, ids, o, SHORT, nll, other, NULL);
        CHECK(!memcmp(base, nll, sizeof base) && !memcmp(logits, other, sizeof logits),
              "%s: 2 threads give the bits of 1", c->name);
        o.threads = 1;
        o.chunk = 77;
        tiny_run(m, ids, o, SHORT, nll, other, NULL);
        CHECK(apart(base, nll, SHORT) < logit_tolerance(c), "%s: chunks of 77: -log p off by %g", c->name,
              apart(base, nll, SHORT));
        CHECK(apart(logits, other, VOCAB) < logit_tolerance(c), "%s: chunks of 77: logits off", c->name);
        tiny_run(m, ids, o, 1, nll, other, NULL);
        CHECK(apart(base, nll, SHORT) < logit_tolerance(c), "%s: decode is prefill: off by %g", c->name,
              apart(base, nll, SHORT));
        CHECK(apart(logits, other, VOCAB) < logit_tolerance(c), "%s: decode is prefill: logits off", c->name);

        /* a narrower cache: the keys' and values' own rounding, 2^-11 and 2^-8, averages out over the tokens */
        o = opt;
        o.kv_type = SSA_F16;
        tiny_run(m, ids, o, SHORT, nll, other, NULL);
        CHECK(fabs(mean_of(nll, SHORT) - mean_of(base, SHORT)) < 1e-3, "%s: f16 cache: %g", c->name,
              mean_of(nll, SHORT));
        o.kv_type = SSA_BF16;
        tiny_run(m, ids, o, SHORT, nll, other, NULL);
        CHECK(fabs(mean_of(nll, SHORT) - mean_of(base, SHORT)) < 5e-3, "%s: bf16 cache: %g", c->name,
              mean_of(nll, SHORT));
        CHECK(memcmp(base, nll, sizeof base) != 0, "%s: a bf16 cache does change something", c->name);

        if (tensor_copy(st, c->nll, LM_F32, IDS - 1, want))
            FOR_LEVELS(l) {
                tiny_run(m, ids, opt, SHORT, nll, other, NULL);
                CHECK(fabs(mean_of(nll, SHORT) - mean_of(want, SHORT)) < mean_tolerance(c), "%s: level %s: %g", c->name,
                      ssa_isa_name(ssa_isa_get()), mean_of(nll, SHORT));
            }
    }
    /* A budget of all blocks is full attention, and holds all of its weight; a smaller one holds less. */
    lm_options o = { .mode = SSA_SPARSE, .chunk = 128, .threads = 1, .top_k = 1000, .measure_sparsity = true };
    for (int pass = 0; pass < 2; pass++) {
        if (!tiny_run(m, ids, o, SHORT, nll, other, &s)) return;
        CHECK(s.kept_n == (int64_t)SHORT * m->config.heads, "every query and head is counted");
        for (int i = 0; i < m->config.layers; i++) {
            const double share = s.kept[i] / (double)s.kept_n;
            CHECK(pass == 0 ? fabs(share - 1) < 1e-5 : share > 0.2 && share < 1 - 1e-3, "layer %d keeps %g", i, share);
        }
        if (pass == 0) {
            const double off = apart(full, nll, SHORT), logits_off = apart(full_logits, other, VOCAB);
            CHECK(off < logit_tolerance(&tiny_cases[0]) && logits_off < logit_tolerance(&tiny_cases[0]),
                  "all blocks are full attention: off by %g, %g", off, logits_off);
        }
        lm_session_close(&s);
        o.top_k = 8;
    }
    double whole = 0, halves = 0;
    const lm_options windows = { .mode = SSA_FULL, .chunk = 256, .threads = 1, .context = 320 };
    if (!lm_session_open(&s, m, &windows)) {
        static float a[321], b[321];
        CHECK(!lm_score(&s, ids, 321, 320, &whole) && fabs(whole - mean_of(full, 320)) < 1e-4, "one window: %g", whole);
        CHECK(!lm_session_rewind(&s, 0) && !lm_feed(&s, ids, 200, ids + 1, a, NULL) && !lm_session_rewind(&s, 0) &&
              !lm_feed(&s, ids + 200, 120, ids + 201, b, NULL) && !lm_score(&s, ids, 321, 200, &halves) &&
              fabs(halves - (200 * mean_of(a, 200) + 120 * mean_of(b, 120)) / 320) < 1e-6, "two windows: %g", halves);
        lm_session_close(&s);
    }
}

static void test_refused_sessions(const lm_model *m)
{
    const lm_options good = { .mode = SSA_SPARSE, .select = SSA_SELECT_REFERENCE, .top_k = 16, .context = 64,
                              .chunk = 16, .threads = 1 };
    lm_session s;
    for (int i = 0; i < 7; i++) {
        lm_options o = good;
        if (i == 1) o.top_k = 17;                       /* the reference selection has no more than its block size */
        if (i == 2) o.top_k = 0;
        if (i == 3) o.context = 0;
        if (i == 4) o.context = INT64_MAX / 8;
        if (i == 5) o.chunk = 0;
        if (i == 6) o.threads = 0;
        const char *error = lm_session_open(&s, m, &o);
        CHECK((error == NULL) == (i == 0), "session %d: %s", i, said(error));
        if (!error) lm_session_close(&s);
    }
}

static void test_tiny(void)
{
    lm_model m;
    lm_st st;
    lm_file file;
    static int32_t ids[IDS];
    const char *error = lm_model_load(&m, LM_TEST_MODEL);
    CHECK(!error, "%s", said(error));
    if (error) return;
    error = lm_file_open(&file, LM_TEST_MODEL "/reference.safetensors");
    if (!error) error = lm_st_parse(&st, file.data, file.size);
    CHECK(!error, "reference.safetensors: %s", said(error));
    if (!error && tensor_copy(&st, "ids", LM_I32, IDS, ids)) {
        const int slow = tiny_slow(&m, ids);
        for (int i = 0; i < COUNT(tiny_cases); i++) tiny_reference(&m, &st, ids, &tiny_cases[i], slow ? SHORTEST : IDS);
        if (slow) SKIP("lm, long runs", "this build is too slow; the first 288 bytes were compared");
        else tiny_invariants(&m, &st, ids);
        test_refused_sessions(&m);
        lm_st_free(&st);
    }
    lm_file_close(&file);
    lm_model_close(&m);
}

void test_lm(void)
{
    test_json();
    test_safetensors();
    test_numbers();
    test_matmul();
    test_rope();
    test_sampler();
    test_toys();
    test_damage();
    test_shards();
    test_tiny();
}
#endif

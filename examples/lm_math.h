/* lm_math.h - the arithmetic of a language model around its attention: number formats, matrix products, norms,
 * RoPE
 *
 * Activations are f32, [token][channel]. Weights stay in the file's type and are widened to f32 in small pieces as
 * they are used; all sums are f32. Portable C: the loops are written so that a compiler vectorises them without
 * -ffast-math. */
#ifndef LM_MATH_H
#define LM_MATH_H

#include "lm_safetensors.h"
#include "../ssa.h"

#include <time.h>

/* A parallel loop over independent iterations; one thread when OpenMP is off. */
#ifdef _OPENMP
#include <omp.h>
#define LM_DO_PRAGMA(x) _Pragma(#x)
#define LM_PARALLEL_FOR(threads) LM_DO_PRAGMA(omp parallel for num_threads(threads) schedule(static) if ((threads) > 1))
#else
#define LM_PARALLEL_FOR(threads)
#endif

/* The inner loops of the matrix product gain 2-6x from wider vectors than the baseline x86-64's. GCC with
 * glibc compiles a function for several CPUs and chooses at load time; elsewhere -O3 -march=native does the same. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define LM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LM_CLONES
#endif

static inline double lm_seconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- number formats -------------------------------------------------------------------------------------------- */

static inline float lm_from_bits(uint32_t bits) { float f; memcpy(&f, &bits, sizeof f); return f; }
static inline uint32_t lm_bits(float f) { uint32_t bits; memcpy(&bits, &f, sizeof bits); return bits; }

static inline float lm_from_bf16(uint16_t h) { return lm_from_bits((uint32_t)h << 16); }

static inline float lm_from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = (uint32_t)(h & 0x7FFFu) << 13;
    const uint32_t exponent = h & 0x7C00u, up = exponent == 0x7C00u ? 224u << 23 : 112u << 23;
    /* a subnormal: as if its leading bit were there, which is then taken off again */
    const float subnormal = lm_from_bits(magnitude + (113u << 23)) - lm_from_bits(113u << 23);
    return lm_from_bits(sign | (exponent ? magnitude + up : lm_bits(subnormal)));
}

/* To nearest, ties to even; overflow gives infinity, NaN stays NaN. */
static inline uint16_t lm_to_bf16(float f) {
    const uint32_t u = lm_bits(f);
    if ((u & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7FFFu + (u >> 16 & 1u)) >> 16);
}

static inline uint16_t lm_to_f16(float f) {
    const uint32_t sign = lm_bits(f) >> 16 & 0x8000u, a = lm_bits(f) & 0x7FFFFFFFu;
    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);                    /* 65520 and above */
    if (a < 0x38800000u)                        /* below 2^-14: adding 0.5 rounds to the subnormals' unit, 2^-24 */
        return (uint16_t)(sign | (lm_bits(lm_from_bits(a) + 0.5f) - lm_bits(0.5f)));
    return (uint16_t)(sign | ((a - (112u << 23) + 0xFFFu + (a >> 13 & 1u)) >> 13));
}

/* n numbers of a file, at any alignment, as f32. Loops of a constant length are what compilers vectorise best. */
LM_CLONES static void lm_widen(float *restrict out, const unsigned char *restrict in, lm_dtype dtype, int64_t n) {
    enum { PIECE = 32 };
    uint16_t h[PIECE];
    int64_t i = 0;
    if (dtype == LM_F32) memcpy(out, in, (size_t)n * sizeof *out);
    else if (dtype == LM_BF16) {
        for (; i + PIECE <= n; i += PIECE) {
            memcpy(h, in + 2 * i, sizeof h);
            for (int l = 0; l < PIECE; l++) out[i + l] = lm_from_bf16(h[l]);
        }
        for (; i < n; i++) { memcpy(h, in + 2 * i, 2); out[i] = lm_from_bf16(h[0]); }
    } else {
        for (; i + PIECE <= n; i += PIECE) {
            memcpy(h, in + 2 * i, sizeof h);
            for (int l = 0; l < PIECE; l++) out[i + l] = lm_from_f16(h[l]);
        }
        for (; i < n; i++) { memcpy(h, in + 2 * i, 2); out[i] = lm_from_f16(h[0]); }
    }
}

static inline size_t lm_type_size(ssa_type type) { return type == SSA_F32 ? 4 : 2; }

/* n f32 numbers into the cache's type. */
static inline void lm_narrow(unsigned char *restrict out, ssa_type type, const float *restrict in, int64_t n) {
    if (type == SSA_F32) { memcpy(out, in, (size_t)n * sizeof *in); return; }
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = type == SSA_BF16 ? lm_to_bf16(in[i]) : lm_to_f16(in[i]);
        memcpy(out + 2 * i, &h, 2);
    }
}

/* ---- y = x . W^T (+ bias) -------------------------------------------------------------------------------------- */

typedef struct {
    const unsigned char *data;      /* [rows][cols] in the file */
    lm_dtype dtype;
    int64_t rows, cols;             /* outputs, inputs */
    float *bias;                    /* [rows] f32, or NULL */
} lm_weight;

/* A tile: LM_TOKENS tokens x LM_ROWS outputs, over LM_DEPTH inputs at a time: the widened piece of W, 32 KiB,
 * stays in L1. */
enum { LM_TOKENS = 4, LM_ROWS = 32, LM_DEPTH = 256 };

/* y[token][row] += sum over i < depth of x[token][i] * panel[i][row] */
LM_CLONES static void lm_tile(float *const y[LM_TOKENS], const float *const x[LM_TOKENS], const float *panel,
                              int64_t depth) {
    float acc[LM_TOKENS][LM_ROWS] = { { 0 } };
    for (int64_t i = 0; i < depth; i++)
        for (int t = 0; t < LM_TOKENS; t++) {
            const float xi = x[t][i];
            for (int r = 0; r < LM_ROWS; r++) acc[t][r] += xi * panel[i * LM_ROWS + r];
        }
    for (int t = 0; t < LM_TOKENS; t++)
        for (int r = 0; r < LM_ROWS; r++) y[t][r] += acc[t][r];
}

/* Many independent sums, joined in pairs: the order of additions is fixed, and any width of vectors can be used. */
LM_CLONES static float lm_dot(const float *x, const float *w, int64_t n) {
    enum { LANES = 32 };
    float acc[LANES] = { 0 };
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) acc[l] += x[i + l] * w[i + l];
    for (int l = 0; i < n; i++, l++) acc[l] += x[i] * w[i];
    for (int l = 0; l < 16; l++) acc[l] += acc[l + 16];
    for (int l = 0; l < 8; l++) acc[l] += acc[l + 8];
    for (int l = 0; l < 4; l++) acc[l] += acc[l + 4];
    return (acc[0] + acc[2]) + (acc[1] + acc[3]);
}

static inline const unsigned char *lm_weight_at(const lm_weight *w, int64_t row, int64_t col) {
    return w->data + (row * w->cols + col) * (w->dtype == LM_F32 ? 4 : 2);
}

static inline void lm_weight_row(float *out, const lm_weight *w, int64_t row, int64_t col, int64_t n) {
    lm_widen(out, lm_weight_at(w, row, col), w->dtype, n);
}

/* Outputs row0 .. row0 + LM_ROWS - 1 (fewer at the end) of n tokens. */
static inline void lm_matmul_panel(float *y, const float *x, int64_t n, const lm_weight *w, int64_t row0) {
    float panel[LM_DEPTH * LM_ROWS], row[LM_DEPTH], out[LM_TOKENS][LM_ROWS];
    const int64_t rows = w->rows - row0 < LM_ROWS ? w->rows - row0 : LM_ROWS;
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = 0; r < rows; r++) y[t * w->rows + row0 + r] = w->bias ? w->bias[row0 + r] : 0;
    for (int64_t col = 0; col < w->cols; col += LM_DEPTH) {
        const int64_t depth = w->cols - col < LM_DEPTH ? w->cols - col : LM_DEPTH;
        if (rows < LM_ROWS) memset(panel, 0, sizeof panel);
        for (int64_t r = 0; r < rows; r++) {
            lm_weight_row(row, w, row0 + r, col, depth);
            for (int64_t i = 0; i < depth; i++) panel[i * LM_ROWS + r] = row[i];
        }
        for (int64_t t0 = 0; t0 < n; t0 += LM_TOKENS) {
            /* a tile always has LM_TOKENS tokens: the last token stands in for those that are missing */
            const float *xs[LM_TOKENS];
            float *ys[LM_TOKENS];
            for (int64_t t = 0; t < LM_TOKENS; t++) {
                xs[t] = x + (t0 + t < n ? t0 + t : n - 1) * w->cols + col;
                ys[t] = out[t];
            }
            memset(out, 0, sizeof out);
            lm_tile(ys, xs, panel, depth);
            for (int64_t t = 0; t < LM_TOKENS && t0 + t < n; t++)
                for (int64_t r = 0; r < rows; r++) y[(t0 + t) * w->rows + row0 + r] += out[t][r];
        }
    }
}

/* Output `row` of a few tokens: the row is read once, and widened piece by piece. */
static inline void lm_matmul_row(float *y, const float *x, int64_t n, const lm_weight *w, int64_t row) {
    float piece[LM_DEPTH];
    for (int64_t t = 0; t < n; t++) y[t * w->rows + row] = w->bias ? w->bias[row] : 0;
    for (int64_t col = 0; col < w->cols; col += LM_DEPTH) {
        const int64_t depth = w->cols - col < LM_DEPTH ? w->cols - col : LM_DEPTH;
        lm_weight_row(piece, w, row, col, depth);
        for (int64_t t = 0; t < n; t++) y[t * w->rows + row] += lm_dot(x + t * w->cols + col, piece, depth);
    }
}

/* y [n][rows] = x [n][cols] . W^T + bias. A batch reuses each widened piece of W for all its tokens; a few tokens
 * are bound by reading W. Small products stay on one thread, which is faster than waking others. */
static inline void lm_matmul(float *y, const float *x, int64_t n, const lm_weight *w, int threads) {
    const int use = n * w->rows * w->cols < 500000 ? 1 : threads;
    (void)use;                                  /* without OpenMP */
    if (n < LM_TOKENS) {
        LM_PARALLEL_FOR(use)
        for (int64_t row = 0; row < w->rows; row++) lm_matmul_row(y, x, n, w, row);
    } else {
        const int64_t panels = (w->rows + LM_ROWS - 1) / LM_ROWS;
        LM_PARALLEL_FOR(use)
        for (int64_t panel = 0; panel < panels; panel++) lm_matmul_panel(y, x, n, w, panel * LM_ROWS);
    }
}

/* ---- the rest of a layer --------------------------------------------------------------------------------------- */

/* y = x / sqrt(mean(x^2) + eps) * weight, a token at a time */
static inline void lm_rmsnorm(float *y, const float *x, const float *weight, int64_t n, int64_t dim, float eps) {
    for (int64_t t = 0; t < n; t++, x += dim, y += dim) {
        const float scale = 1.0f / sqrtf(lm_dot(x, x, dim) / (float)dim + eps);
        for (int64_t i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
    }
}

static inline float lm_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/* Rotates the halves of each head: (a, b) -> (a cos - b sin, b cos + a sin) with a = x[i], b = x[i + dim/2].
 * x [n][heads][dim]; cosines and sines [n][dim/2]. */
static inline void lm_rope(float *x, const float *cosines, const float *sines, int64_t n, int64_t heads, int64_t dim) {
    const int64_t half = dim / 2;
    for (int64_t t = 0; t < n; t++, cosines += half, sines += half)
        for (int64_t h = 0; h < heads; h++, x += dim)
            for (int64_t i = 0; i < half; i++) {
                const float a = x[i], b = x[i + half];
                x[i] = a * cosines[i] - b * sines[i];
                x[i + half] = b * cosines[i] + a * sines[i];
            }
}

/* log of the sum of exponentials of n logits */
static inline double lm_logsumexp(const float *logits, int64_t n) {
    float top = logits[0];
    double sum = 0;
    for (int64_t i = 1; i < n; i++) top = logits[i] > top ? logits[i] : top;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(logits[i] - top);
    return (double)top + log(sum);
}

#endif /* LM_MATH_H */

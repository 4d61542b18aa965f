/* bench.c - measures what this machine can do at best, then how close ssa.h comes to it
 *
 *   build/bench [--quick | --long] [--threads N,N..] [--level NAME,NAME.. | all] [--filter TEXT,TEXT..] [--json FILE]
 *
 * The limits come first: the rate of f32 multiply-adds of each level, and the rate of reading memory. Both are measured
 * again around each case, since machines drift, the latter for as many bytes as the case reads. A case's limit is the
 * longer of its multiply-adds at the first rate and its bytes at the second; "limit" is that time over the median's.
 *
 * What is counted. Multiply-adds: 4 * head_dim flops for each pair of a query head and a key that it sees (or that its
 * selected blocks hold), 2 * head_dim for each pair of a query head and a pooled key that it scores. Bytes: the keys
 * and values that any query uses, once for each key/value head, and the pooled keys. Queries and outputs are f32 and
 * not counted; keys and values are token-major, in the type that a line names. exp, selection and the like cost time
 * but count for nothing, so no case can reach 100%.
 *
 * err: the largest difference from an evaluation in double of the same inputs, over sampled rows, each row's difference
 * divided by the largest output of that row. For selection: "exact", or WRONG where a better block was left out. */
#define SSA_IMPLEMENTATION
#include "../ssa.h"
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define X86 1
#include <immintrin.h>
#define TARGET(t) __attribute__((target(t)))
#else
#define X86 0
#endif

#if defined(__VERSION__)
#define COMPILER __VERSION__
#else
#define COMPILER "unknown"
#endif

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define BLOCK    16             /* the paper's block size and budget: 16 blocks of 16 keys */
#define TOP_K    16
#define MAX_REPS 1001

static volatile float    sink_f;        /* results go here so that no loop is dropped */
static volatile uint64_t sink_u;

static double now(void)                 /* seconds since the first call: small, so a double keeps the nanoseconds */
{
    static time_t start;
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    if (!start) start = t.tv_sec;
    return (double)(t.tv_sec - start) + 1e-9 * (double)t.tv_nsec;
}

static void *need(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p) { fprintf(stderr, "bench: no memory for %zu bytes\n", bytes); exit(2); }
    return p;
}

static int max_threads(void)
{
#if defined(_OPENMP)
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static void on_threads(int n, void (*fn)(void *arg, int ith, int nth), void *arg)
{
#if defined(_OPENMP)
    #pragma omp parallel num_threads(n)
    fn(arg, omp_get_thread_num(), omp_get_num_threads());
#else
    (void)n;
    fn(arg, 0, 1);
#endif
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- limits ---------------------------------------------------------------------------------------------------------
 * Peak of multiply-adds: 12 chains of c = c*a + b, more than latency times ports of today's cores (4 cycles, 2 ports);
 * the values settle near 1: no zeros, no denormals, which would run at other speeds. Each returns its flops. */
#define CHAINS 12

static double peak_scalar(int64_t n, float x)
{
    float c[4 * CHAINS], a = 1.0f - x, sum = 0;
    for (int j = 0; j < 4 * CHAINS; j++) c[j] = 1.0f + x * (float)j;
    for (int64_t i = 0; i < n; i++)
        for (int j = 0; j < 4 * CHAINS; j++) c[j] = c[j] * a + x;       /* whatever the compiler makes of plain C */
    for (int j = 0; j < 4 * CHAINS; j++) sum += c[j];
    sink_f = sum;
    return 2.0 * 4 * CHAINS * (double)n;
}

static uint64_t read_scalar(const unsigned char *p, size_t bytes)
{
    uint64_t s[8] = { 0 }, w[8], all = 0;
    for (size_t i = 0; i + 64 <= bytes; i += 64) {
        memcpy(w, p + i, 64);
        for (int j = 0; j < 8; j++) s[j] ^= w[j];
    }
    for (int j = 0; j < 8; j++) all ^= s[j];
    return all;
}

#if X86
#define EACH_CHAIN(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

TARGET("avx2,fma") static double peak_avx2(int64_t n, float x)
{
    __m256 a = _mm256_set1_ps(1.0f - x), b = _mm256_set1_ps(x);
    float out[8];
#define X(i) __m256 c##i = _mm256_set1_ps(1.0f + x * (float)i);
    EACH_CHAIN(X)
#undef X
#define X(i) c##i = _mm256_fmadd_ps(c##i, a, b);
    for (int64_t i = 0; i < n; i++) { EACH_CHAIN(X) }
#undef X
#define X(i) a = _mm256_add_ps(a, c##i);
    EACH_CHAIN(X)
#undef X
    _mm256_storeu_ps(out, a);
    sink_f = out[0];
    return 2.0 * 8 * CHAINS * (double)n;
}

TARGET("avx512f") static double peak_avx512(int64_t n, float x)
{
    __m512 a = _mm512_set1_ps(1.0f - x), b = _mm512_set1_ps(x);
    float out[16];
#define X(i) __m512 c##i = _mm512_set1_ps(1.0f + x * (float)i);
    EACH_CHAIN(X)
#undef X
#define X(i) c##i = _mm512_fmadd_ps(c##i, a, b);
    for (int64_t i = 0; i < n; i++) { EACH_CHAIN(X) }
#undef X
#define X(i) a = _mm512_add_ps(a, c##i);
    EACH_CHAIN(X)
#undef X
    _mm512_storeu_ps(out, a);
    sink_f = out[0];
    return 2.0 * 16 * CHAINS * (double)n;
}

TARGET("avx2") static uint64_t read_avx2(const unsigned char *p, size_t bytes)
{
    __m256i s[4];
    uint64_t out[4];
    for (int j = 0; j < 4; j++) s[j] = _mm256_setzero_si256();
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        const __m256i *q = (const __m256i *)(const void *)(p + i);
        for (int j = 0; j < 8; j++) s[j % 4] = _mm256_xor_si256(s[j % 4], _mm256_loadu_si256(q + j));
    }
    s[0] = _mm256_xor_si256(_mm256_xor_si256(s[0], s[1]), _mm256_xor_si256(s[2], s[3]));
    _mm256_storeu_si256((__m256i *)(void *)out, s[0]);
    return out[0] ^ out[1] ^ out[2] ^ out[3];
}

TARGET("avx512f") static uint64_t read_avx512(const unsigned char *p, size_t bytes)
{
    __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
    uint64_t out[8], all = 0;
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        s0 = _mm512_xor_si512(s0, _mm512_loadu_si512(p + i));
        s1 = _mm512_xor_si512(s1, _mm512_loadu_si512(p + i + 64));
        s2 = _mm512_xor_si512(s2, _mm512_loadu_si512(p + i + 128));
        s3 = _mm512_xor_si512(s3, _mm512_loadu_si512(p + i + 192));
    }
    s0 = _mm512_xor_si512(_mm512_xor_si512(s0, s1), _mm512_xor_si512(s2, s3));
    _mm512_storeu_si512(out, s0);
    for (int j = 0; j < 8; j++) all ^= out[j];
    return all;
}
#endif

static int runs(ssa_isa level)          /* compiled in, and does this CPU have it? Leaves the level in use as it was. */
{
    ssa_isa old = ssa_isa_get();
    int ok = ssa_isa_set(level) == level;
    ssa_isa_set(old);
    return ok;
}

typedef double   (*peak_fn)(int64_t, float);
typedef uint64_t (*read_fn)(const unsigned char *, size_t);

/* The loop whose rate bounds a level. A level without one of its own here is held against the best that there is. */
static peak_fn peak_of(ssa_isa level)
{
#if X86
    if (level >= SSA_ISA_AVX512 && level != SSA_ISA_NEON && runs(SSA_ISA_AVX512)) return peak_avx512;
    if (level >= SSA_ISA_AVX2   && level != SSA_ISA_NEON && runs(SSA_ISA_AVX2))   return peak_avx2;
#endif
    (void)level;
    return peak_scalar;
}
static read_fn read_best(void)          /* of the machine, whatever levels ssa.h was given */
{
#if X86
    if (__builtin_cpu_supports("avx512f")) return read_avx512;
    if (__builtin_cpu_supports("avx2"))    return read_avx2;
#endif
    return read_scalar;
}

typedef struct { peak_fn fn; int64_t n; double flops[256]; } peak_arg;
static void peak_worker(void *arg, int ith, int nth)
{
    peak_arg *p = (peak_arg *)arg;
    (void)nth;
    p->flops[ith % 256] = p->fn(p->n, 1e-3f);
}
/* GFLOP/s: the best of 12 runs of about 2 ms. A limit is what the machine can do: the best and not the median, and runs
 * so short that some escape whatever else the machine is doing. */
static double peak_gflops(ssa_isa level, int threads)
{
    peak_arg p = { 0 };
    double best = 0;
    p.fn = peak_of(level);
    p.n = 20000;
    for (int rep = 0; rep < 13; rep++) {
        memset(p.flops, 0, sizeof p.flops);
        double t = now(), flops = 0;
        on_threads(threads, peak_worker, &p);
        t = now() - t;
        for (int i = 0; i < 256; i++) flops += p.flops[i];
        if (rep > 0 && flops / t > best) best = flops / t;
        if (rep == 0) p.n = (int64_t)((double)p.n * 0.002 / (t > 1e-6 ? t : 1e-6)) + 1000;
    }
    return best * 1e-9;
}

typedef struct { read_fn fn; const unsigned char *mem; size_t bytes; int times; } read_arg;
static void read_worker(void *arg, int ith, int nth)
{
    const read_arg *r = (const read_arg *)arg;
    size_t each = r->bytes / (size_t)nth / 256 * 256;
    uint64_t s = 0;
    for (int i = 0; i < r->times; i++) s ^= r->fn(r->mem + (size_t)ith * each, each);
    if (s == 12345) sink_u = s;
}
/* GB/s of reading the same `bytes` again and again, shared by the threads: from whatever cache holds them. */
#define READ_MAX ((size_t)512 << 20)
static double read_gbs(double bytes, int threads)
{
    static unsigned char *mem;
    static size_t filled;
    read_arg r;
    double best = 0, total = 0;
    if (!mem) mem = (unsigned char *)need(READ_MAX + 4096);
    r.bytes = bytes > (double)READ_MAX ? READ_MAX : (size_t)bytes;
    if (r.bytes < 256 * (size_t)threads) r.bytes = 256 * (size_t)threads;
    for (; filled < r.bytes + 4096; filled++) mem[filled] = (unsigned char)(filled * 2654435761u >> 7);
    r.fn = read_best();
    r.mem = mem + (64 - (uintptr_t)mem % 64);
    r.times = 1;
    for (int rep = 0; rep < 3 || (rep < 100 && total < 0.025); rep++) {    /* short runs, the best of them, as above */
        double t = now(), done = (double)(r.bytes / (size_t)threads / 256 * 256) * threads * r.times;
        on_threads(threads, read_worker, &r);
        total += t = now() - t;
        if (rep > 0 && done / t > best) best = done / t;
        if (rep == 0 && t < 5e-4) r.times = (int)(5e-4 / (t > 2e-8 ? t : 2e-8)) + 1;
    }
    return best * 1e-9;
}

static double expf_ns(void)
{
    static float x[4096];
    double best = 1e9;
    for (int i = 0; i < 4096; i++) x[i] = -10.0f * (float)i / 4096;
    for (int rep = 0; rep < 20; rep++) {
        float s = 0;
        double t = now();
        for (int i = 0; i < 4096; i++) s += expf(x[i]);
        t = now() - t;
        sink_f = s;
        if (t < best) best = t;
    }
    return best / 4096 * 1e9;
}

/* ---- inputs ---------------------------------------------------------------------------------------------------------
 * Normal values, since zeros and constants run faster on some units and make softmax trivial. Rows are windows, at
 * random places, of a table of 2^20 numbers: a gigabyte of cache is then filled at the speed of memory. */
#define TABLE (1 << 20)

static uint64_t rng_state = 1;
static uint64_t rng(void)
{
    uint64_t z = rng_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static int64_t type_size(ssa_type t) { return t == SSA_F32 ? 4 : 2; }
static const char *type_name(ssa_type t) { return t == SSA_F32 ? "f32" : t == SSA_F16 ? "f16" : "bf16"; }

static void type_put(ssa_type t, void *p, float x)          /* |x| < 16; f16 below 2^-14 becomes 0 */
{
    uint32_t u;
    uint16_t h;
    memcpy(&u, &x, 4);
    if (t == SSA_F32) { memcpy(p, &x, 4); return; }
    if (t == SSA_BF16) h = (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    else if ((u & 0x7fffffffu) < 0x38800000u) h = 0;
    else h = (uint16_t)((u >> 16 & 0x8000u) | (((u & 0x7fffffffu) - 0x38000000u + 0x0fffu + (u >> 13 & 1u)) >> 13));
    memcpy(p, &h, 2);
}
static double type_get(ssa_type t, const void *p, int64_t i)
{
    float f;
    uint16_t h;
    if (t == SSA_F32) { memcpy(&f, (const char *)p + 4 * i, 4); return (double)f; }
    memcpy(&h, (const char *)p + 2 * i, 2);
    if (t == SSA_BF16) { uint32_t u = (uint32_t)h << 16; memcpy(&f, &u, 4); return (double)f; }
    double m = h >> 10 & 31 ? 1024 + (h & 1023) : 2 * (h & 1023);
    return ldexp(h & 0x8000 ? -m : m, (h >> 10 & 31) - 25);
}

static void fill(ssa_type t, void *data, int64_t rows, int64_t dim)
{
    static float *normal;
    static void *table[3];
    int64_t size = type_size(t);
    if (!normal) {
        normal = (float *)need(sizeof(float) * TABLE);
        for (int i = 0; i < TABLE; i++) {                   /* the sum of 12 uniforms has variance 1 */
            double s = -6;
            for (int j = 0; j < 12; j++) s += (double)(rng() >> 11) * (1.0 / 9007199254740992.0);
            normal[i] = (float)s;
        }
    }
    if (!table[t]) {
        table[t] = need((size_t)(size * TABLE));
        for (int i = 0; i < TABLE; i++) type_put(t, (char *)table[t] + i * size, normal[i]);
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = (int64_t)(rng() % (uint64_t)(TABLE - dim));
        memcpy((char *)data + r * dim * size, (char *)table[t] + from * size, (size_t)(dim * size));
    }
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */
typedef struct { const char *name; int32_t hq, h, d; } shape;
static const shape shapes[] = {
    { "S1", 32,  2,  64 },              /* the setting of the paper's checkpoints: 16 query heads a key/value head */
    { "S2", 32,  8, 128 },              /* the common 8B model */
    { "G1", 16, 16,  64 },              /* no grouping */
};
enum { FULL, SPARSE, SELECT };
static const char *const mode_names[] = { "full", "sparse", "select" };

typedef struct {
    const shape *s;
    const char  *phase;                 /* prefill, decode, call */
    int          mode;
    ssa_type     type;
    int64_t      n_q, n_kv;
    ssa_isa      level;
    int          threads, reps, wrong;
    double       ms, flops, bytes, peak, gbs, share, err, ratio;      /* ratio: full time / sparse time, 0: not known */
    int          read_bound;
} result;

static result  *results;
static int      n_results, n_wrong;
static FILE    *json;                   /* one object a line, so that awk can read it too */
static double   box = 0.7;              /* seconds to spend on a case */
static char    *filters;                /* comma-separated, or NULL */

static void json_line(const char *fmt, ...)
{
    static int lines;
    va_list ap;
    if (!json) return;
    fprintf(json, "%s  {", lines++ ? ",\n" : "[\n");
    va_start(ap, fmt);
    vfprintf(json, fmt, ap);
    va_end(ap);
    fprintf(json, "}");
    fflush(json);
}

/* The memory of one shape and type, grown to the longest context asked for. */
static struct {
    const shape *s;
    ssa_type type;
    int64_t n_kv, n_q, pool_tokens;
    void *k, *v, *pool_mem;
    float *q, *out;
    ssa_pool pool;
} data;

static void prepare(const shape *s, ssa_type type, int64_t n_q, int64_t n_kv, int want_pool)
{
    if (data.s != s || data.type != type || data.n_kv < n_kv || data.n_q < n_q) {
        size_t kv_bytes = (size_t)(n_kv * s->h * s->d * type_size(type));
        size_t q_bytes = (size_t)(n_q * s->hq * s->d) * sizeof(float);
        free(data.k); free(data.v); free(data.q); free(data.out);
        data.s = s; data.type = type; data.n_kv = n_kv; data.n_q = n_q; data.pool_tokens = 0;
        data.k = need(kv_bytes);
        data.v = need(kv_bytes);
        data.q = (float *)need(q_bytes);
        data.out = (float *)need(q_bytes);
        fill(type, data.k, n_kv * s->h, s->d);
        fill(type, data.v, n_kv * s->h, s->d);
        fill(SSA_F32, data.q, n_q * s->hq, s->d);
    }
    if (want_pool && data.pool_tokens != n_kv) {            /* a 16-bit cache has bf16 pooled keys, as officially */
        ssa_type pool_type = type == SSA_F32 ? SSA_F32 : SSA_BF16;
        ssa_view k = { data.k, type, 0, 0 };
        size_t size = ssa_pool_size(s->h, s->d, BLOCK, n_kv, pool_type);
        ssa_status st;
        free(data.pool_mem);
        data.pool_mem = need(size);
        st = ssa_pool_init(&data.pool, s->h, s->d, BLOCK, n_kv, pool_type, data.pool_mem, size);
        if (st == SSA_OK) st = ssa_pool_append(&data.pool, &k, n_kv);
        if (st != SSA_OK) { fprintf(stderr, "bench: pool: %s\n", ssa_status_string(st)); exit(2); }
        data.pool_tokens = n_kv;
    }
}

typedef struct { const ssa_attn *a; const ssa_exec *x; int mode; } call;
static void run_call(const call *c)
{
    ssa_status st = c->mode == SELECT ? ssa_select_blocks(c->a, c->x)
                                      : ssa_attention(c->a, c->mode == FULL ? SSA_FULL : SSA_SPARSE, c->x);
    if (st != SSA_OK) { fprintf(stderr, "bench: %s\n", ssa_status_string(st)); exit(2); }
}

/* Median seconds of one call. At least 3 samples, more until the time box is full; a call too short for the clock is
 * repeated within each sample. The first call warms up, and counts only where it is long enough not to need that. */
static double measure(const call *c, int *reps)
{
    static double t[MAX_REPS];
    double begin = now(), first, total = 0;
    int n = 0, inner = 1;
    run_call(c);
    first = now() - begin;
    for (int i = 0; i < 3 && first < 5e-3; i++) {           /* caches and threads are awake only now: look again */
        double t0 = now(), t1;
        run_call(c);
        t1 = now() - t0;
        if (t1 < first) first = t1;
    }
    if (first < 5e-5) inner = (int)(5e-5 / (first > 1e-8 ? first : 1e-8)) + 1;
    if (first > 1.0) { t[n++] = first; total = first; }
    while (n < 3 || (total < box && n < MAX_REPS)) {
        begin = now();
        for (int i = 0; i < inner; i++) run_call(c);
        total += t[n] = now() - begin;
        t[n++] /= inner;
    }
    qsort(t, (size_t)n, sizeof *t, by_value);
    *reps = n * inner;
    return n % 2 ? t[n / 2] : (t[n / 2 - 1] + t[n / 2]) / 2;
}

/* ---- the oracle: one query head in double, over the visible keys, or over those of the listed blocks ------------- */
static double dot(const float *q, ssa_type t, const void *k, int32_t d)
{
    double s = 0;
    for (int32_t i = 0; i < d; i++) s += (double)q[i] * type_get(t, k, i);
    return s;
}

static double row_error(const ssa_attn *a, int64_t i, int32_t hq, const int32_t *blocks)
{
    int32_t d = a->head_dim, h = hq / (a->n_heads / a->n_kv_heads);
    int64_t p = a->n_kv - a->n_q + i, row = d * type_size(a->k.type), n = 0;
    const float *q = (const float *)a->q.data + (i * a->n_heads + hq) * d;
    const float *got = (const float *)a->out.data + (i * a->n_heads + hq) * d;
    double *s = (double *)need(sizeof(double) * (size_t)(p + 1)), out[SSA_MAX_DIM] = { 0 };
    int64_t *key = (int64_t *)need(sizeof(int64_t) * (size_t)(p + 1));
    double max = -DBL_MAX, sum = 0, largest = 0, err = 0;
    if (!blocks) for (n = 0; n <= p; n++) key[n] = n;
    else for (int32_t b = 0; b < a->top_k; b++) {
        int64_t from = (int64_t)blocks[b] * a->block_size, to = from + a->block_size - 1;
        if (to > p) to = p;
        for (int64_t j = from; blocks[b] >= 0 && j <= to && n <= p; j++) key[n++] = j;
    }
    for (int64_t j = 0; j < n; j++) {
        s[j] = dot(q, a->k.type, (const char *)a->k.data + (key[j] * a->n_kv_heads + h) * row, d) / sqrt((double)d);
        if (s[j] > max) max = s[j];
    }
    for (int64_t j = 0; j < n; j++) {
        const void *v = (const char *)a->v.data + (key[j] * a->n_kv_heads + h) * row;
        double w = exp(s[j] - max);
        sum += w;
        for (int32_t e = 0; e < d; e++) out[e] += w * type_get(a->v.type, v, e);
    }
    for (int32_t e = 0; e < d; e++) {
        double want = out[e] / sum, diff = fabs((double)got[e] - want);
        if (fabs(want) > largest) largest = fabs(want);
        if (!(diff <= err)) err = diff;                     /* NaN must not pass */
    }
    free(s);
    free(key);
    return err / largest;
}

/* Are these the best blocks? Each left-out block's importance must not exceed the least chosen one's by more than the
 * rounding of f32 scores can explain. Pooled keys as the library keeps them, or means in double. */
static int blocks_ok(const ssa_attn *a, int64_t i, int32_t h, const int32_t *blocks)
{
    int32_t d = a->head_dim, G = a->n_heads / a->n_kv_heads, n_chosen = 0;
    int64_t p = a->n_kv - a->n_q + i, cur = p / a->block_size, nc = (p + 1) / a->block_size;
    int64_t row = d * type_size(a->k.type);
    double *imp  = (double *)need(sizeof(double) * (size_t)(cur + 1));
    double *s    = (double *)need(sizeof(double) * (size_t)(nc + 1));
    double *kbar = (double *)need(sizeof(double) * (size_t)((nc + 1) * d)), least = DBL_MAX;
    char *chosen = (char *)need((size_t)(cur + 1));
    int ok = 1;
    memset(chosen, 0, (size_t)(cur + 1));
    for (int64_t c = 0; c < nc; c++)
        for (int32_t e = 0; e < d; e++) {
            double m = 0;
            if (a->pool) m = type_get(a->pool->type, a->pool->pooled, (h * a->pool->max_blocks + c) * d + e);
            else for (int64_t j = c * a->block_size; j < (c + 1) * a->block_size; j++)
                m += type_get(a->k.type, (const char *)a->k.data + (j * a->n_kv_heads + h) * row, e) / a->block_size;
            kbar[c * d + e] = m;
        }
    for (int64_t c = 0; c <= cur; c++) imp[c] = 0;
    for (int32_t g = 0; g < G; g++) {
        const float *q = (const float *)a->q.data + (i * a->n_heads + h * G + g) * d;
        double max = -DBL_MAX, sum = 0;
        for (int64_t c = 0; c < nc; c++) {
            s[c] = 0;
            for (int32_t e = 0; e < d; e++) s[c] += (double)q[e] * kbar[c * d + e];
            s[c] /= sqrt((double)d);
            if (s[c] > max) max = s[c];
        }
        for (int64_t c = 0; c < nc; c++) sum += s[c] = exp(s[c] - max);
        for (int64_t c = 0; c < cur; c++) imp[c] += s[c] / sum;
    }
    imp[cur] = G;
    for (int32_t b = 0; b < a->top_k; b++) {
        if (blocks[b] < 0) continue;
        if (blocks[b] > cur || chosen[blocks[b]]) { ok = 0; break; }
        chosen[blocks[b]] = 1;
        n_chosen++;
        if (imp[blocks[b]] < least) least = imp[blocks[b]];
    }
    if (ok && (!chosen[cur] || n_chosen != (cur + 1 < a->top_k ? cur + 1 : a->top_k))) ok = 0;
    for (int64_t c = 0; c < cur && ok; c++) if (!chosen[c] && imp[c] > least * (1 + 1e-4)) ok = 0;
    free(imp); free(s); free(kbar); free(chosen);
    return ok;
}

static void verify(const ssa_attn *a, const ssa_exec *x, result *r)
{
    int32_t *blocks = NULL;
    const int64_t at[3] = { a->n_q - 1, a->n_q / 2, a->n_q / 7 };
    const int32_t heads[3] = { 0, a->n_heads / 2 + 1 < a->n_heads ? a->n_heads / 2 + 1 : 0, a->n_heads - 1 };
    if (r->mode != FULL) {
        ssa_attn b = *a;
        call c = { &b, x, SELECT };
        b.blocks = blocks = (int32_t *)need(sizeof(int32_t) * (size_t)(a->n_q * a->n_kv_heads * a->top_k));
        run_call(&c);
    }
    for (int i = 0; i < (a->n_q > 1 ? 3 : 1); i++)
        for (int j = 0; j < 3; j++) {
            int32_t h = heads[j] / (a->n_heads / a->n_kv_heads);
            const int32_t *b = blocks ? blocks + (at[i] * a->n_kv_heads + h) * a->top_k : NULL;
            if (b && !blocks_ok(a, at[i], h, b)) r->wrong = 1;
            if (r->mode != SELECT) {
                double e = row_error(a, at[i], heads[j], b);
                if (!(e <= r->err)) r->err = e;
            }
        }
    if (!(r->err < 0.1)) r->wrong = 1;
    n_wrong += r->wrong;
    free(blocks);
}

/* ---- what a case computes and reads ------------------------------------------------------------------------------ */
static void count_work(result *r)
{
    double d = r->s->d, pairs = 0, scored = 0, keys = (double)r->n_kv;
    double kv = 2 * d * r->s->h * (double)type_size(r->type);           /* bytes of a token's key and value */
    for (int64_t i = 0; i < r->n_q; i++) {
        int64_t p = r->n_kv - r->n_q + i, cur = p / BLOCK;
        if (r->mode == FULL) pairs += (double)(p + 1);
        else {
            pairs += (double)((cur < TOP_K - 1 ? cur : TOP_K - 1) * BLOCK + p % BLOCK + 1);
            scored += (double)cur;
        }
    }
    if (r->mode == SELECT) pairs = 0;
    if (r->mode != FULL && r->n_q == 1 && pairs < keys) keys = pairs;
    r->flops = r->s->hq * d * (4 * pairs + 2 * scored);
    r->bytes = keys * kv;
    if (r->mode != FULL) {
        double pooled = (double)(r->n_kv / BLOCK) * r->s->h * d * (r->type == SSA_F32 ? 4 : 2);
        if (r->n_q == 1)            r->bytes += pooled;
        else if (r->mode == SELECT) r->bytes /= 2;          /* a prefill reads the keys and pools them itself */
    }
}

static void print_result(const result *r)
{
    char time[32], rate[32] = "-", share[32] = "-", err[32], ratio[32] = "";
    double gflops = r->flops / r->ms * 1e-6, gbs = r->bytes / r->ms * 1e-6;
    int is_call = !strcmp(r->phase, "call");
    if (r->ms < 1) snprintf(time, sizeof time, "%.2f us", r->ms * 1e3);
    else           snprintf(time, sizeof time, "%.3f ms", r->ms);
    if (!is_call) {
        if (r->n_q > 1) snprintf(rate, sizeof rate, "%.1f GFLOP/s", gflops);
        else            snprintf(rate, sizeof rate, "%.2f GB/s", gbs);
        snprintf(share, sizeof share, "%3.0f%% of %s", 100 * r->share, r->read_bound ? "read" : "fma");
    }
    if (r->wrong)               snprintf(err, sizeof err, "WRONG %.0e", r->err);
    else if (r->mode == SELECT) snprintf(err, sizeof err, "exact");
    else                        snprintf(err, sizeof err, "%.1e", r->err);
    if (r->ratio > 0) snprintf(ratio, sizeof ratio, "%.2fx", r->ratio);
    printf("%-3s %-8s %-7s %-5s %6lld %7lld  %-7s %3d  %12s %15s  %-13s %-10s %s\n", r->s->name, r->phase,
           mode_names[r->mode], type_name(r->type), (long long)r->n_q, (long long)r->n_kv, ssa_isa_name(r->level),
           r->threads, time, rate, share, err, ratio);
    fflush(stdout);
    json_line("\"impl\": \"ssa\", \"case\": \"%s\", \"heads\": %d, \"kv_heads\": %d, \"dim\": %d, \"phase\": \"%s\", "
              "\"mode\": \"%s\", \"type\": \"%s\", \"n_q\": %lld, \"n_kv\": %lld, \"level\": \"%s\", \"threads\": %d, "
              "\"ms\": %.6g, \"gflops\": %.5g, \"gbs\": %.5g, \"limit\": \"%s\", \"limit_gflops\": %.5g, "
              "\"limit_gbs\": %.5g, \"share\": %.4g, \"max_err\": %.3g, \"wrong\": %d, \"repeats\": %d",
              r->s->name, (int)r->s->hq, (int)r->s->h, (int)r->s->d, r->phase,
              mode_names[r->mode], type_name(r->type), (long long)r->n_q, (long long)r->n_kv, ssa_isa_name(r->level),
              r->threads, r->ms, gflops, gbs, r->read_bound ? "read" : "fma", r->peak,
              r->gbs, r->share, r->err < 1e30 ? r->err : 1e30, r->wrong, r->reps);
}

static int wanted(const result *r)
{
    char text[160], list[256], *word;
    if (!filters) return 1;
    snprintf(text, sizeof text, "%s %s %s %s %lld %lld %s %dt", r->s->name, r->phase, mode_names[r->mode],
             type_name(r->type), (long long)r->n_q, (long long)r->n_kv, ssa_isa_name(r->level), r->threads);
    snprintf(list, sizeof list, "%s", filters);
    for (word = strtok(list, ","); word; word = strtok(NULL, ",")) if (strstr(text, word)) return 1;
    return 0;
}

typedef struct { const shape *s; ssa_type type; ssa_isa level; int threads; } setting;

static void run_case(const setting *on, const char *phase, int mode, int64_t n_q, int64_t n_kv)
{
    const shape *s = on->s;
    ssa_type type = on->type;
    ssa_isa level = on->level;
    int threads = on->threads;
    result r = { 0 };
    ssa_attn a = ssa_attn_default(s->hq, s->h, s->d);
    ssa_exec x = { 0 };
    call c = { &a, &x, mode };
    double gflops, gbs;
    r.s = s; r.phase = phase; r.mode = mode; r.type = type;
    r.n_q = n_q; r.n_kv = n_kv; r.level = level; r.threads = threads;
    if (!wanted(&r)) return;
    prepare(s, type, n_q, n_kv, mode != FULL && n_q == 1);
    a.n_q = n_q; a.n_kv = n_kv; a.block_size = BLOCK; a.top_k = TOP_K;
    a.q.data = data.q; a.out.data = data.out;
    a.k.data = data.k; a.v.data = data.v; a.k.type = a.v.type = type;
    if (mode != FULL && n_q == 1) a.pool = &data.pool;
    if (mode == SELECT) a.blocks = (int32_t *)need(sizeof(int32_t) * (size_t)(n_q * s->h * TOP_K));
    ssa_isa_set(level);
    x.n_threads = threads;
    x.workspace_size = ssa_workspace_size(&a, 1, mode == FULL ? SSA_FULL : SSA_SPARSE, threads);
    x.workspace = need(x.workspace_size);
    count_work(&r);
    r.peak = peak_gflops(level, threads);
    r.gbs = read_gbs(r.bytes, threads);
    r.ms = 1e3 * measure(&c, &r.reps);
    gflops = peak_gflops(level, threads);                   /* before and after: the better one is nearer the limit */
    gbs = read_gbs(r.bytes, threads);
    if (gflops > r.peak) r.peak = gflops;
    if (gbs > r.gbs) r.gbs = gbs;
    r.read_bound = r.bytes / r.gbs > r.flops / r.peak;
    r.share = (r.read_bound ? r.bytes / r.gbs : r.flops / r.peak) * 1e-6 / r.ms;
    verify(&a, &x, &r);
    for (int i = 0; i < n_results && mode == SPARSE; i++) {
        const result *f = results + i;
        if (f->mode == FULL && f->s == s && f->type == type && f->n_q == n_q && f->n_kv == n_kv && f->level == level
            && f->threads == threads && !strcmp(f->phase, phase)) r.ratio = f->ms / r.ms;
    }
    print_result(&r);
    results = (result *)realloc(results, sizeof(result) * (size_t)(n_results + 1));
    if (!results) exit(2);
    results[n_results++] = r;
    free(x.workspace);
    free(a.blocks);
}

/* ---- the whole run ----------------------------------------------------------------------------------------------- */
static void machine(char *name, size_t size)
{
    char line[256], *colon;
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown CPU");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "model name", 10) && (colon = strchr(line, ':')) != NULL) {
            line[strcspn(line, "\n\"\\")] = 0;
            snprintf(name, size, "%s", colon + 2);
            break;
        }
    if (f) fclose(f);
}

static void limits(const int *threads, int n_threads, const ssa_isa *levels, int n_levels)
{
    static const struct { const char *what; double bytes; } sizes[] = {
        { "16 KiB", 16384 }, { "512 KiB", 524288 }, { "8 MiB", 8388608 }, { "256 MiB", 268435456 } };
    double ns = expf_ns();
    printf("limits, measured now:\n");
    for (int t = 0; t < n_threads; t++)
        for (int l = 0; l < n_levels; l++) {
            const char *name = ssa_isa_name(levels[l]);
            double g = peak_gflops(levels[l], threads[t]);
            printf("  %3d thread%s f32 multiply-add, %-10s %9.1f GFLOP/s\n", threads[t], threads[t] > 1 ? "s," : ", ",
                   name, g);
            json_line("\"limit\": \"fma\", \"level\": \"%s\", \"threads\": %d, \"gflops\": %.5g", name, threads[t], g);
        }
    for (int t = 0; t < n_threads; t++)
        for (int i = 0; i < COUNT(sizes); i++) {
            double g = read_gbs(sizes[i].bytes * threads[t], threads[t]);
            printf("  %3d thread%s reading %-7s each         %9.1f GB/s\n", threads[t], threads[t] > 1 ? "s," : ", ",
                   sizes[i].what, g);
            json_line("\"limit\": \"read\", \"bytes_each\": %.0f, \"threads\": %d, \"gbs\": %.5g", sizes[i].bytes,
                      threads[t], g);
        }
    printf("    1 thread,  libm expf, one at a time    %9.2f ns\n\n", ns);
    json_line("\"limit\": \"expf\", \"ns\": %.4g", ns);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench [--quick | --long] [--threads N,N..] [--level NAME,NAME.. | all]"
            " [--filter TEXT,TEXT..] [--json FILE]\n"
            "  --quick    under a minute: short contexts, one thread count\n"
            "  --long     longer contexts, f16 too\n"
            "  --filter   cases whose line holds one of the texts, as in 'S1 decode full bf16 1 32768 avx512 2t'\n");
    return 2;
}

int main(int argc, char **argv)
{
    int threads[16] = { 1 }, n_threads = 1, n_levels = 0, quick = 0, is_long = 0;
    ssa_isa levels[8];
    char *threads_arg = NULL, *level_arg = NULL, *json_arg = NULL, *word, cpu[128];
    for (int i = 1; i < argc; i++) {
        char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--quick")) quick = 1;
        else if (!strcmp(argv[i], "--long")) is_long = 1;
        else if (!next) return usage();
        else if (!strcmp(argv[i], "--threads")) threads_arg = argv[++i];
        else if (!strcmp(argv[i], "--level")) level_arg = argv[++i];
        else if (!strcmp(argv[i], "--filter")) filters = argv[++i];
        else if (!strcmp(argv[i], "--json")) json_arg = argv[++i];
        else return usage();
    }
    if (quick) { box = 0.15; threads[0] = max_threads(); }
    else if (max_threads() > 1) threads[n_threads++] = max_threads();
    if (is_long) box = 1.5;
    if (threads_arg)
        for (n_threads = 0, word = strtok(threads_arg, ","); word && n_threads < COUNT(threads);
             word = strtok(NULL, ",")) {
            int n = atoi(word);
#if !defined(_OPENMP)
            if (n != 1) { printf("SKIP %d threads: compiled without OpenMP\n", n); continue; }
#endif
            if (n < 1 || n > 256) return usage();
            threads[n_threads++] = n;
        }
    if (!level_arg) levels[n_levels++] = ssa_isa_get();
    else for (int l = SSA_ISA_SCALAR; l <= SSA_ISA_NEON; l++) {
        char list[128];
        int named = 0;
        snprintf(list, sizeof list, "%s", level_arg);
        for (word = strtok(list, ","); word; word = strtok(NULL, ",")) {
            if (!strcmp(word, "all") && runs((ssa_isa)l)) named = 1;
            if (!strcmp(word, ssa_isa_name((ssa_isa)l))) named = 1;
        }
        if (named && runs((ssa_isa)l)) levels[n_levels++] = (ssa_isa)l;
        else if (named) printf("SKIP level %s: not compiled in, or this CPU lacks it\n", ssa_isa_name((ssa_isa)l));
    }
    if (n_levels == 0 || n_threads == 0) { fprintf(stderr, "bench: nothing to run\n"); return 2; }
    machine(cpu, sizeof cpu);
    if (json_arg && (json = fopen(json_arg, "w")) == NULL) { perror(json_arg); return 2; }
    json_line("\"machine\": \"%s\", \"compiler\": \"%s\", \"version\": \"%d.%d.%d\"", cpu, COMPILER, SSA_VERSION_MAJOR,
              SSA_VERSION_MINOR, SSA_VERSION_PATCH);
    printf("%s, best level %s\n", cpu, ssa_isa_name(ssa_isa_detected()));
    limits(threads, n_threads, levels, n_levels);
    printf("%-3s %-8s %-7s %-5s %6s %7s  %-7s %3s  %12s %15s  %-13s %-10s %s\n", "", "", "mode", "type", "n_q", "n_kv",
           "level", "thr", "median", "rate", "limit", "err", "full/sparse");

    static const ssa_type types[] = { SSA_F32, SSA_BF16, SSA_F16 };
    static const int64_t prefills[] = { 1024, 4096, 8192 }, decodes[] = { 4096, 32768, 131072 };
    int n_prefills = quick ? 1 : is_long ? 3 : 2, n_decodes = quick ? 2 : 3, n_types = is_long ? 3 : 2;
    for (int si = 0; si < COUNT(shapes); si++)
        for (int ty = 0; ty < n_types; ty++)
            for (int l = 0; l < n_levels; l++)
                for (int t = 0; t < n_threads; t++) {
                    const setting on = { shapes + si, types[ty], levels[l], threads[t] };
                    for (int i = n_prefills; i-- > 0;)      /* the longest first, so that memory is filled once */
                        for (int m = FULL; m <= SELECT; m++) run_case(&on, "prefill", m, prefills[i], prefills[i]);
                    for (int i = n_decodes; i-- > 0;)
                        for (int m = FULL; m <= SELECT; m++) run_case(&on, "decode", m, 1, decodes[i]);
                    for (int m = FULL; m <= SPARSE; m++) run_case(&on, "decode", m, 1, 512);
                    for (int m = FULL; m <= SPARSE; m++) run_case(&on, "call", m, 1, 1);    /* what calling costs */
                }
    if (json) { fprintf(json, "\n]\n"); fclose(json); }
    printf("%d cases, %d wrong\n", n_results, n_wrong);
    return n_wrong > 0;
}

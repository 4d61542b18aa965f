/* bench.c - measures what this machine can do at best, then how close ssa.h comes to it
 *
 *   build/bench [--quick | --long | --sweep] [--threads N,N..] [--level NAME,NAME.. | all] [--f32-queries]
 *               [--filter TEXT,TEXT..] [--json FILE]
 *
 * The limits come first: the rate of f32 multiply-adds of each level, the rate of AMX's bf16 tile products, and the
 * rate of reading memory. They are measured again around each case, since machines drift, the last for as many bytes as
 * the case reads. A case's limit is the longer of its multiply-adds at the level's rate (level amx with 16-bit inputs:
 * the tile products') and its bytes at the reading rate; "limit" is that time over the median's.
 *
 * What is counted. Multiply-adds: 4 * head_dim flops for each pair of a query head and a key that it sees (or that its
 * selected blocks hold), 2 * head_dim for each pair of a query head and a pooled key that it scores; once, also where a
 * unit needs several products for one. Bytes: the keys and values that any query uses, once for each key/value head,
 * and the pooled keys. Keys and values are token-major, in the type that a line names; where pooled keys are kept,
 * their type follows after a slash. Queries, of the keys' type or with --f32-queries f32, and outputs, f32, are not
 * counted. exp, selection and the like cost time but count for nothing, so no case can reach 100%.
 *
 * Modes: full; sparse (exact selection included); select (exact selection alone); reference (the reference selection
 * alone). A decode has its pooled keys kept and a new query each time, for the blocks that the last one chose are in
 * the caches. A prefill pools its keys itself; where a type follows the slash, as an engine does that keeps pooled keys
 * for the decode to come: all keys are appended to them first, in the time shown. The last column tells how many times
 * faster a sparse call is than the full one, the reference selection than the exact one, in the same run.
 *
 * err: the largest difference from an evaluation in double of the same inputs, over sampled rows, each row's difference
 * divided by the largest output of that row. For selection: "exact", or WRONG where a better block was left out. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE                     /* syscall, also with -std=c11 */
#endif
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
#if defined(__EMSCRIPTEN__)
#include <emscripten.h>
#endif

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define X86 1
#include <immintrin.h>
#define TARGET(t) __attribute__((target(t)))
#else
#define X86 0
#endif
#if X86 && defined(__linux__) && defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 12) \
                                                        || (!defined(__clang__) && __GNUC__ >= 11))
#define TILES 1                         /* the compiler knows AMX; whether the machine has it, amx_ready tells */
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#define TILES 0
#endif

#if defined(__VERSION__)
#define COMPILER __VERSION__
#else
#define COMPILER "unknown"
#endif

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define BLOCK    16             /* the paper's block size and budget: 16 blocks of 16 keys */
#define TOP_K    16
#define QUERIES  64             /* of a decode, in turn */
#define MAX_REPS 1001

static volatile float    sink_f;        /* results go here so that no loop is dropped */
static volatile uint64_t sink_u;

static double now(void)                 /* seconds since the first call: small, so a double keeps the nanoseconds */
{
#if defined(__EMSCRIPTEN__)
    return 1e-3 * emscripten_get_now(); /* timespec_get knows milliseconds alone there */
#else
    static time_t start;
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    if (!start) start = t.tv_sec;
    return (double)(t.tv_sec - start) + 1e-9 * (double)t.tv_nsec;
#endif
}

/* Memory at a multiple of 64, where ggml and PyTorch have their tensors: rows of whole cache lines lie in as many. */
static void *need(size_t bytes)
{
    unsigned char *raw = (unsigned char *)malloc(bytes + 128), *p;
    if (!raw) { fprintf(stderr, "bench: no memory for %zu bytes\n", bytes); exit(2); }
    p = raw + 128 - (uintptr_t)raw % 64;
    memcpy(p - sizeof raw, &raw, sizeof raw);
    return p;
}

static void drop(void *p)
{
    void *raw;
    if (!p) return;
    memcpy(&raw, (unsigned char *)p - sizeof raw, sizeof raw);
    free(raw);
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

#if TILES
static _Alignas(64) uint16_t amx_panel[32][512];            /* 32 tiles of 16 rows of 64 bytes: 32 KiB, stays in L1 */

/* Does the CPU have AMX with bf16, does the OS save its registers, may this process use them? Asked from one thread
 * first: the permission is the process's. */
static int amx_ready(void)
{
    static int ready = -1;
    unsigned a, b, c, d, lo, hi;
    uint32_t z = 1;
    if (ready >= 0) return ready;
    ready = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0;                    /* OSXSAVE: xgetbv may run */
    __asm__ __volatile__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if ((lo >> 17 & 3) != 3) return 0;                                                  /* tile configuration, data */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 22 & 1)) return 0;     /* TILE, BF16 */
    if (syscall(SYS_arch_prctl, 0x1023, 18L) != 0) return 0;                /* ARCH_REQ_XCOMP_PERM, the tile data */
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 512; j++) {                     /* random bf16 in +-[0.5, 2): zeros would run faster */
            z = z * 1664525u + 1013904223u;
            amx_panel[i][j] = (uint16_t)((z >> 16 & 0x80ffu) | 0x3f00u);
        }
    return ready = 1;
}

/* A block of 32 rows x 32 columns over 8 steps of 32 dims: 4 accumulators, 4 products for 4 loads from L1. */
TARGET("amx-tile,amx-bf16") static double peak_amx(int64_t n, float x)
{
    struct { uint8_t palette, start_row, zero[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } config;
    float out[256];
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int i = 0; i < 8; i++) { config.row_bytes[i] = 64; config.rows[i] = 16; }
    __asm__ __volatile__("" : : "r"(&config), "r"(amx_panel) : "memory");   /* gcc's intrinsics do not say they read */
    _tile_loadconfig(&config);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (int64_t i = 0; i < n; i++)
        for (int step = 0; step < 32; step += 4) {
            _tile_loadd(4, amx_panel[step],     64);
            _tile_loadd(6, amx_panel[step + 1], 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, amx_panel[step + 2], 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, amx_panel[step + 3], 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    _tile_stored(3, out, 64);
    _tile_release();
    __asm__ __volatile__("" : : "r"(out) : "memory");
    sink_f = out[0] + x;
    return 2.0 * 16 * 16 * 32 * 4 * 8 * (double)n;
}

/* Does the CPU multiply bf16 in vectors, and is it one where level avx512 uses that: not Intel's? */
static int pairs_ready(void)
{
    unsigned a, b, c, d, vendor = 0;
    return __get_cpuid(0, &a, &vendor, &c, &d) && vendor != 0x756e6547                  /* "Genu" */
           && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1) && __builtin_cpu_supports("avx512f");
}

TARGET("avx512f,avx512bf16") static double peak_pairs(int64_t n, float x)
{
    const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f5a3fa3), b = (__m512bh)_mm512_set1_epi32((int)0xbf8b3f91);
    __m512 all = _mm512_set1_ps(x);
    float out[16];
#define X(i) __m512 c##i = _mm512_set1_ps(1.0f + x * (float)i);
    EACH_CHAIN(X)
#undef X
#define X(i) c##i = _mm512_dpbf16_ps(c##i, a, b);
    for (int64_t i = 0; i < n; i++) { EACH_CHAIN(X) }
#undef X
#define X(i) all = _mm512_add_ps(all, c##i);
    EACH_CHAIN(X)
#undef X
    _mm512_storeu_ps(out, all);
    sink_f = out[0];
    return 2.0 * 32 * CHAINS * (double)n;
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

/* The loop whose rate bounds a level on inputs of a type, and what "limit" calls it. A level without one of its own is
 * held against the best that there is. */
static const char *peak_name(peak_fn fn)
{
#if TILES
    if (fn == peak_amx) return "amx";
    if (fn == peak_pairs) return "bf16";
#endif
    (void)fn;
    return "fma";
}
static peak_fn peak_of(ssa_isa level, ssa_type type)
{
#if TILES
    if (level == SSA_ISA_AMX && type != SSA_F32 && amx_ready()) return peak_amx;
    if (level == SSA_ISA_AVX512 && type == SSA_BF16 && pairs_ready()) return peak_pairs;
#endif
#if X86
    if (level >= SSA_ISA_AVX512 && level != SSA_ISA_NEON && runs(SSA_ISA_AVX512)) return peak_avx512;
    if (level >= SSA_ISA_AVX2   && level != SSA_ISA_NEON && runs(SSA_ISA_AVX2))   return peak_avx2;
#endif
    (void)level;
    (void)type;
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
 * so short that some escape whatever else the machine is doing. How much work that is, one thread finds out alone:
 * together they may wait for a core most of the time. */
static double peak_gflops(peak_fn fn, int threads)
{
    peak_arg p = { 0 };
    double best = 0, alone = 1;
    p.fn = fn;
    for (int rep = 0; rep < 3; rep++) {
        double t = now();
        fn(10000, 1e-3f);
        t = now() - t;
        if (t < alone) alone = t;
    }
    p.n = (int64_t)(10000 * 0.002 / (alone > 1e-6 ? alone : 1e-6)) + 1;
    for (int rep = 0; rep < 13; rep++) {
        memset(p.flops, 0, sizeof p.flops);
        double t = now(), flops = 0;
        on_threads(threads, peak_worker, &p);
        t = now() - t;
        for (int i = 0; i < 256; i++) flops += p.flops[i];
        if (rep > 0 && flops / t > best) best = flops / t;
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
    double best = 0, total = 0, alone = 1;
    if (!mem) mem = (unsigned char *)need(READ_MAX + 4096);
    r.bytes = bytes > (double)READ_MAX ? READ_MAX : (size_t)bytes;
    if (r.bytes < 256 * (size_t)threads) r.bytes = 256 * (size_t)threads;
    for (; filled < r.bytes + 4096; filled++) mem[filled] = (unsigned char)(filled * 2654435761u >> 7);
    r.fn = read_best();
    r.mem = mem + (64 - (uintptr_t)mem % 64);
    r.times = 1;
    for (int rep = 0; rep < 3 && r.bytes / (size_t)threads < (4u << 20); rep++) {       /* more takes long enough */
        double t = now();
        read_worker(&r, 0, threads);
        t = now() - t;
        if (t < alone) alone = t;
    }
    if (alone < 5e-4) r.times = (int)(5e-4 / (alone > 2e-8 ? alone : 2e-8)) + 1;
    for (int rep = 0; rep < 3 || (rep < 100 && total < 0.04); rep++) {     /* short runs, the best of them, as above */
        double t = now(), done = (double)(r.bytes / (size_t)threads / 256 * 256) * threads * r.times;
        on_threads(threads, read_worker, &r);
        total += t = now() - t;
        if (rep > 0 && done / t > best) best = done / t;
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

static int64_t row_bytes(ssa_type t, int64_t n)             /* of n elements; q8_0: a multiple of 32 */
{
    return t == SSA_Q8_0 ? n / 32 * 34 : t == SSA_F32 ? 4 * n : 2 * n;
}
static const char *type_name(ssa_type t)
{
    return t == SSA_F32 ? "f32" : t == SSA_F16 ? "f16" : t == SSA_BF16 ? "bf16" : "q8_0";
}

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
    if (t == SSA_Q8_0) {
        const signed char *block = (const signed char *)p + i / 32 * 34;
        return type_get(SSA_F16, block, 0) * block[2 + i % 32];
    }
    if (t == SSA_F32) { memcpy(&f, (const char *)p + 4 * i, 4); return (double)f; }
    memcpy(&h, (const char *)p + 2 * i, 2);
    if (t == SSA_BF16) { uint32_t u = (uint32_t)h << 16; memcpy(&f, &u, 4); return (double)f; }
    double m = h >> 10 & 31 ? 1024 + (h & 1023) : 2 * (h & 1023);
    m *= (double)(1u << (h >> 10 & 31)) * (1.0 / (1 << 25));            /* finite values only */
    return h & 0x8000 ? -m : m;
}

static void put_q8_0(char *p, const float *x)               /* 32 numbers to a block */
{
    float top = 1e-3f;                                      /* its scale is a normal f16 */
    for (int i = 0; i < 32; i++) top = fmaxf(top, fabsf(x[i]));
    type_put(SSA_F16, p, top / 127);
    for (int i = 0; i < 32; i++) p[2 + i] = (char)lrintf(x[i] * (127 / top));
}

static void fill(ssa_type t, void *data, int64_t rows, int64_t dim)
{
    static float *normal;
    static void *table[4];
    const int64_t row = row_bytes(t, dim), unit = t == SSA_Q8_0 ? 32 : 1; /* windows begin at blocks */
    if (!normal) {
        normal = (float *)need(sizeof(float) * TABLE);
        for (int i = 0; i < TABLE; i++) {                   /* the sum of 12 uniforms has variance 1 */
            double s = -6;
            for (int j = 0; j < 12; j++) s += (double)(rng() >> 11) * (1.0 / 9007199254740992.0);
            normal[i] = (float)s;
        }
    }
    if (!table[t]) {
        table[t] = need((size_t)row_bytes(t, TABLE));
        for (int64_t i = 0; i < TABLE; i += unit) {
            char *to = (char *)table[t] + row_bytes(t, i);
            if (t == SSA_Q8_0) put_q8_0(to, normal + i);
            else               type_put(t, to, normal[i]);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t from = (int64_t)(rng() % (uint64_t)(TABLE - dim)) / unit * unit;
        memcpy((char *)data + r * row, (char *)table[t] + row_bytes(t, from), (size_t)row);
    }
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */
typedef struct { const char *name; int32_t hq, h, d; } shape;
static const shape shapes[] = {
    { "S1", 32,  2,  64 },              /* the setting of the paper's checkpoints: 16 query heads a key/value head */
    { "S2", 32,  8, 128 },              /* the common 8B model */
    { "G1", 16, 16,  64 },              /* no grouping */
};
static const shape smallest = { "-", 1, 1, 16 };           /* one key of this is the least that a call can do */

enum { FULL, SPARSE, SELECT, REFERENCE };                   /* the last two: selection alone */
static const char *const mode_names[] = { "full", "sparse", "select", "reference" };

typedef struct {
    const shape *s;
    ssa_type type, pool;
    ssa_isa  level;
    int      threads, kept;                                 /* kept: a prefill, too, has pooled keys kept */
} setting;


typedef struct {
    setting     on;
    const char *phase, *bound;          /* prefill, decode, call; read, fma, bf16, amx */
    int         mode, kept, reps, wrong;                    /* kept: pooled keys are, in the setting's type */
    int64_t     n_q, n_kv;
    double      ms, flops, bytes, peak, gbs, peak_ms, read_ms, limit_ms, err, ratio;    /* ratio 0: not known */
} result;

static result  *results;
static int      n_results, n_wrong, n_skipped;
static FILE    *json;                   /* one object a line, so that awk can read it too */
static int      f32_queries;            /* else queries have the type of the keys, as in a model of that type */
static double   box = 0.3;              /* seconds to spend on a case */
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
    ssa_type type, pool_type;
    int64_t n_kv, n_q, pool_tokens;
    void *k, *v, *q, *pool_mem;
    float *out;
    ssa_pool pool;
    size_t pool_size;
} data;

static ssa_type query_type(ssa_type keys) { return f32_queries || keys == SSA_Q8_0 ? SSA_F32 : keys; }

static double memory_left(void)         /* bytes to be had without swapping; where Linux does not tell, no bound */
{
    char line[128];
    double kib = 1e18;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f)) if (sscanf(line, "MemAvailable: %lf", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}

static void fill_pool(void)             /* pooled keys of all keys, from none on */
{
    const ssa_view k = { data.k, data.type, 0, 0 };
    ssa_status st = ssa_pool_init(&data.pool, data.s->h, data.s->d, BLOCK, data.pool_tokens, data.pool_type,
                                  data.pool_mem, data.pool_size);
    if (st == SSA_OK) st = ssa_pool_append(&data.pool, &k, data.pool_tokens);
    if (st != SSA_OK) { fprintf(stderr, "bench: pool: %s\n", ssa_status_string(st)); exit(2); }
}

static int prepare(const setting *on, int64_t n_q, int64_t n_kv, int want_pool)     /* 0: not enough memory, said so */
{
    const shape *s = on->s;
    if (data.s != s || data.type != on->type || data.n_kv < n_kv || data.n_q < n_q) {
        size_t kv_bytes = (size_t)(n_kv * s->h * row_bytes(on->type, s->d));
        const int64_t queries = n_q > QUERIES ? n_q : QUERIES;
        size_t out_bytes = (size_t)(queries * s->hq * s->d) * sizeof(float);
        double bytes = 2.2 * ((double)kv_bytes + (double)out_bytes) + 1e8;      /* with pooled keys and workspace */
        drop(data.k); drop(data.v); drop(data.q); drop(data.out); drop(data.pool_mem);
        memset(&data, 0, sizeof data);
        if (bytes > memory_left()) {
            printf("SKIP %s with %lld keys, %lld queries: needs %.0f MiB of memory, %.0f MiB are left\n", s->name,
                   (long long)n_kv, (long long)n_q, bytes / 1048576, memory_left() / 1048576);
            return 0;
        }
        data.k = need(kv_bytes);
        data.v = need(kv_bytes);
        data.q = need(out_bytes);                           /* 16-bit queries take half of it */
        data.out = (float *)need(out_bytes);
        data.s = s; data.type = on->type; data.n_kv = n_kv; data.n_q = n_q;
        fill(on->type, data.k, n_kv * s->h, s->d);
        fill(on->type, data.v, n_kv * s->h, s->d);
        fill(query_type(on->type), data.q, queries * s->hq, s->d);
    }
    if (want_pool && (data.pool_tokens != n_kv || data.pool_type != on->pool)) {
        data.pool_size = ssa_pool_size(s->h, s->d, BLOCK, n_kv, on->pool);
        drop(data.pool_mem);
        data.pool_mem = need(data.pool_size);
        data.pool_tokens = n_kv;
        data.pool_type = on->pool;
        fill_pool();
    }
    return 1;
}

/* queries: so many single ones in turn; appends: to pooled keys, all keys, first; next: run after it */
typedef struct call { ssa_attn a; ssa_exec x; int mode, queries, appends; const struct call *next; } call;

/* A decode has its pooled keys kept, a prefill where the setting says so. 0: not enough memory. To be closed if 1. */
static int open_call(call *c, const setting *on, int mode, int64_t n_q, int64_t n_kv)
{
    const shape *s = on->s;
    int pooled = mode != FULL && (n_q == 1 || on->kept);
    if (!prepare(on, n_q, n_kv, pooled)) return 0;
    memset(c, 0, sizeof *c);
    c->mode = mode;
    c->queries = n_q == 1 && mode != FULL ? QUERIES : 1;
    c->a = ssa_attn_default(s->hq, s->h, s->d);
    c->a.n_q = n_q; c->a.n_kv = n_kv; c->a.block_size = BLOCK; c->a.top_k = TOP_K;
    c->a.q.data = data.q; c->a.q.type = query_type(on->type); c->a.out.data = data.out;
    c->a.k.data = data.k; c->a.v.data = data.v; c->a.k.type = c->a.v.type = on->type;
    if (pooled) c->a.pool = &data.pool;
    c->appends = pooled && n_q > 1;
    if (mode == REFERENCE) c->a.select = SSA_SELECT_REFERENCE;
    if (mode >= SELECT) c->a.blocks = (int32_t *)need(sizeof(int32_t) * (size_t)(n_q * s->h * TOP_K));
    ssa_isa_set(on->level);
    c->x.n_threads = on->threads;
    c->x.workspace_size = ssa_workspace_size(&c->a, 1, mode == FULL ? SSA_FULL : SSA_SPARSE, on->threads);
    c->x.workspace = need(c->x.workspace_size);
    return 1;
}
static void close_call(call *c)
{
    drop(c->x.workspace);
    drop(c->a.blocks);
}

static void run_call(const call *c)
{
    static int turn;
    for (; c; c = c->next) {
        ssa_attn a = c->a;
        ssa_status st;
        if (c->appends) fill_pool();
        if (c->queries > 1)
            a.q.data = (char *)a.q.data + turn++ % c->queries * row_bytes(a.q.type, (int64_t)a.n_heads * a.head_dim);
        st = c->mode >= SELECT ? ssa_select_blocks(&a, &c->x)
                               : ssa_attention(&a, c->mode == FULL ? SSA_FULL : SSA_SPARSE, &c->x);
        if (st != SSA_OK) { fprintf(stderr, "bench: %s\n", ssa_status_string(st)); exit(2); }
    }
}

/* Median seconds of one call. At least 3 samples, more until the box of seconds is full; a call too short for the clock
 * is repeated within each sample. The first call warms up, and counts only where it is long enough not to need that;
 * where it takes longer than ONCE it is the only one. */
#define ONCE 3.0
static double measure(const call *c, double seconds, int *reps)
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
    while (first < ONCE && (n < 3 || (total < seconds && n < MAX_REPS))) {
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
static double dot(const double *q, ssa_type t, const void *k, int32_t d)
{
    double s = 0;
    for (int32_t i = 0; i < d; i++) s += q[i] * type_get(t, k, i);
    return s;
}

static void get_query(const ssa_attn *a, int64_t i, int32_t hq, double q[SSA_MAX_DIM])
{
    for (int32_t e = 0; e < a->head_dim; e++)
        q[e] = type_get(a->q.type, a->q.data, (i * a->n_heads + hq) * a->head_dim + e);
}

static double row_error(const ssa_attn *a, int64_t i, int32_t hq, const int32_t *blocks)
{
    int32_t d = a->head_dim, h = hq / (a->n_heads / a->n_kv_heads);
    int64_t p = a->n_kv - a->n_q + i, row = row_bytes(a->k.type, d), n = 0;
    const float *got = (const float *)a->out.data + (i * a->n_heads + hq) * d;
    double *s = (double *)need(sizeof(double) * (size_t)(p + 1)), out[SSA_MAX_DIM] = { 0 }, q[SSA_MAX_DIM];
    int64_t *key = (int64_t *)need(sizeof(int64_t) * (size_t)(p + 1));
    double max = -DBL_MAX, sum = 0, largest = 0, err = 0;
    get_query(a, i, hq, q);
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
    drop(s);
    drop(key);
    return err / largest;
}

/* Are these the best blocks? Each left-out block's importance must not exceed the least chosen one's by more than the
 * rounding of f32 scores can explain. Pooled keys as the library keeps them, or means in double. The reference
 * selection is two such choices, of BLOCK / 2 each: among the blocks of the query's own chunk of BLOCK blocks, and
 * among those before it. Since BLOCK is TOP_K, the two together are the answer. */
static int blocks_ok(const ssa_attn *a, int64_t i, int32_t h, const int32_t *blocks)
{
    int32_t d = a->head_dim, G = a->n_heads / a->n_kv_heads;
    int64_t p = a->n_kv - a->n_q + i, cur = p / a->block_size, nc = (p + 1) / a->block_size;
    int64_t row = row_bytes(a->k.type, d);
    double *imp  = (double *)need(sizeof(double) * (size_t)(cur + 1));
    double *s    = (double *)need(sizeof(double) * (size_t)(nc + 1));
    double *kbar = (double *)need(sizeof(double) * (size_t)((nc + 1) * d));
    char *chosen = (char *)need((size_t)(cur + 1));
    int ok = 1, halves = a->select == SSA_SELECT_REFERENCE && cur >= BLOCK;
    int64_t cut = halves ? cur / BLOCK * BLOCK : 0;
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
        double max = -DBL_MAX, sum = 0, q[SSA_MAX_DIM];
        get_query(a, i, h * G + g, q);
        for (int64_t c = 0; c < nc; c++) {
            s[c] = 0;
            for (int32_t e = 0; e < d; e++) s[c] += q[e] * kbar[c * d + e];
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
    }
    if (!chosen[cur]) ok = 0;
    for (int part = !halves; part < 2; part++) {
        int64_t from = part ? cut : 0, to = part ? cur + 1 : cut, most = halves ? BLOCK / 2 : a->top_k, n = 0;
        double least = DBL_MAX;
        for (int64_t c = from; c < to; c++) {
            n += chosen[c];
            if (chosen[c] && imp[c] < least) least = imp[c];
        }
        if (n != (to - from < most ? to - from : most)) ok = 0;
        for (int64_t c = from; c < to; c++) if (!chosen[c] && imp[c] > least * (1 + 1e-4)) ok = 0;
    }
    drop(imp); drop(s); drop(kbar); drop(chosen);
    return ok;
}

static void verify(const call *done, result *r)
{
    const ssa_attn *a = &done->a;
    int32_t *blocks = NULL;
    const int64_t at[3] = { a->n_q - 1, a->n_q / 2, a->n_q / 7 };
    const int32_t heads[3] = { 0, a->n_heads / 2 + 1 < a->n_heads ? a->n_heads / 2 + 1 : 0, a->n_heads - 1 };
    if (r->mode != FULL) {
        call c = *done;
        c.queries = 1;
        if (c.mode == SPARSE) run_call(&c);                 /* the output of the first query, not of the last one run */
        if (c.mode == SPARSE) c.mode = SELECT;
        c.a.blocks = blocks = (int32_t *)need(sizeof(int32_t) * (size_t)(a->n_q * a->n_kv_heads * a->top_k));
        run_call(&c);
    }
    for (int i = 0; i < (a->n_q > 1 ? 3 : 1); i++)
        for (int j = 0; j < 3; j++) {
            int32_t h = heads[j] / (a->n_heads / a->n_kv_heads);
            const int32_t *b = blocks ? blocks + (at[i] * a->n_kv_heads + h) * a->top_k : NULL;
            if (b && !blocks_ok(a, at[i], h, b)) r->wrong = 1;
            if (r->mode < SELECT) {
                double e = row_error(a, at[i], heads[j], b);
                if (!(e <= r->err)) r->err = e;
            }
        }
    if (!(r->err < 0.1)) r->wrong = 1;
    n_wrong += r->wrong;
    drop(blocks);
}

/* ---- what a case computes and reads ------------------------------------------------------------------------------ */
static void count_work(result *r)
{
    const shape *s = r->on.s;
    double d = s->d, pairs = 0, scored = 0, keys = (double)r->n_kv;
    double kv = 2.0 * s->h * (double)row_bytes(r->on.type, s->d);       /* bytes of a token's key and value */
    for (int64_t i = 0; i < r->n_q; i++) {
        int64_t p = r->n_kv - r->n_q + i, cur = p / BLOCK;
        if (r->mode == FULL) pairs += (double)(p + 1);
        else {
            pairs += (double)((cur < TOP_K - 1 ? cur : TOP_K - 1) * BLOCK + p % BLOCK + 1);
            scored += (double)cur;
        }
    }
    if (r->mode >= SELECT) pairs = 0;
    if (r->kept && pairs < keys) keys = pairs;
    r->flops = s->hq * d * (4 * pairs + 2 * scored);
    r->bytes = keys * kv;
    if (r->kept)                r->bytes += (double)(r->n_kv / BLOCK) * s->h * (double)row_bytes(r->on.pool, s->d);
    else if (r->mode >= SELECT) r->bytes /= 2;              /* a prefill reads the keys and pools them itself */
}

static void print_result(const result *r)
{
    const setting *on = &r->on;
    const char *pool = r->kept ? type_name(on->pool) : "none";
    const char *rival = r->mode == FULL ? "bf16" : r->mode == REFERENCE ? "select" : "full";
    char type[16], time[32], rate[32] = "-", share[32] = "-", err[32], ratio[32] = "";
    double gflops = r->flops / r->ms * 1e-6, gbs = r->bytes / r->ms * 1e-6;
    int is_call = !strcmp(r->phase, "call");
    snprintf(type, sizeof type, r->kept ? "%s/%s" : "%s", type_name(on->type), pool);
    if (r->ms < 1) snprintf(time, sizeof time, "%.2f us", r->ms * 1e3);
    else           snprintf(time, sizeof time, "%.3f ms", r->ms);
    if (!is_call) {
        if (r->n_q > 1) snprintf(rate, sizeof rate, "%.1f GFLOP/s", gflops);
        else            snprintf(rate, sizeof rate, "%.2f GB/s", gbs);
        snprintf(share, sizeof share, "%3.0f%% of %s", 100 * r->limit_ms / r->ms, r->bound);
    }
    if (r->wrong)               snprintf(err, sizeof err, "WRONG %.0e", r->err);
    else if (r->mode >= SELECT) snprintf(err, sizeof err, "exact");
    else                        snprintf(err, sizeof err, "%.1e", r->err);
    if (r->ratio > 0) snprintf(ratio, sizeof ratio, "  %.2fx %s", r->ratio, rival);
    printf("%-3s %-8s %-9s %-9s %6lld %7lld  %-6s %3d  %13s %14s  %-12s %-7s%s\n", on->s->name, r->phase,
           mode_names[r->mode], type, (long long)r->n_q, (long long)r->n_kv, ssa_isa_name(on->level), on->threads, time,
           rate, share, err, ratio);
    fflush(stdout);
    json_line("\"impl\": \"ssa\", \"case\": \"%s\", \"heads\": %d, \"kv_heads\": %d, \"dim\": %d, \"phase\": \"%s\", "
              "\"mode\": \"%s\", \"type\": \"%s\", \"pool\": \"%s\", \"q_type\": \"%s\", \"n_q\": %lld, "
              "\"n_kv\": %lld, \"level\": \"%s\", \"threads\": %d, \"ms\": %.6g, \"gflops\": %.5g, \"gbs\": %.5g, "
              "\"limit\": \"%s\", \"limit_ms\": %.6g, \"peak_ms\": %.6g, \"read_ms\": %.6g, \"limit_gflops\": %.5g, "
              "\"limit_gbs\": %.5g, \"share\": %.4g, \"speedup\": %.4g, \"speedup_over\": \"%s\", "
              "\"max_err\": %.3g, \"wrong\": %d, \"repeats\": %d",
              on->s->name, (int)on->s->hq, (int)on->s->h, (int)on->s->d, r->phase, mode_names[r->mode],
              type_name(on->type), pool, type_name(query_type(on->type)), (long long)r->n_q, (long long)r->n_kv,
              ssa_isa_name(on->level), on->threads, r->ms, gflops, gbs, r->bound, r->limit_ms, r->peak_ms, r->read_ms,
              r->peak, r->gbs, r->limit_ms / r->ms, r->ratio, r->ratio > 0 ? rival : "",
              r->err < 1e30 ? r->err : 1e30, r->wrong, r->reps);
}

static int wanted(const char *text)
{
    char list[256], *word;
    if (!filters) return 1;
    snprintf(list, sizeof list, "%s", filters);
    for (word = strtok(list, ","); word; word = strtok(NULL, ",")) if (strstr(text, word)) return 1;
    return 0;
}

static int same_inputs(const result *x, const result *y)
{
    return x->on.s == y->on.s && x->on.type == y->on.type && x->n_q == y->n_q && x->n_kv == y->n_kv
           && x->on.threads == y->on.threads && !strcmp(x->phase, y->phase);
}

static void bounds(result *r)           /* the limits, as measured now, unless better ones are known */
{
    peak_fn fn = peak_of(r->on.level, query_type(r->on.type));
    double peak = peak_gflops(fn, r->on.threads), gbs = read_gbs(r->bytes, r->on.threads);
    if (peak > r->peak) r->peak = peak;
    if (gbs > r->gbs) r->gbs = gbs;
    r->peak_ms = r->flops / r->peak * 1e-6;
    r->read_ms = r->bytes / r->gbs * 1e-6;
    r->limit_ms = r->read_ms > r->peak_ms ? r->read_ms : r->peak_ms;
    r->bound = r->read_ms > r->peak_ms ? "read" : peak_name(fn);
}

static void run_case(const setting *on, const char *phase, int mode, int64_t n_q, int64_t n_kv)
{
    result r = { 0 };
    call c;
    char text[160];
    r.on = *on; r.phase = phase; r.mode = mode; r.n_q = n_q; r.n_kv = n_kv;
    r.kept = mode != FULL && (n_q == 1 || on->kept);
    snprintf(text, sizeof text, "%s %s %s %s %lld %lld %s %dt pool %s", on->s->name, phase, mode_names[mode],
             type_name(on->type), (long long)n_q, (long long)n_kv, ssa_isa_name(on->level), on->threads,
             r.kept ? type_name(on->pool) : "none");
    if (!wanted(text)) return;
    if (!open_call(&c, on, mode, n_q, n_kv)) { n_skipped++; return; }
    count_work(&r);
    bounds(&r);
    if (r.limit_ms > 1e3 * ONCE) fprintf(stderr, "bench: %s takes at least %.0f s\n", text, r.limit_ms * 1e-3);
    r.ms = 1e3 * measure(&c, box, &r.reps);
    bounds(&r);                         /* before and after: the better one is nearer the limit */
    verify(&c, &r);
    for (int i = 0; i < n_results; i++) {
        const result *o = results + i;
        if (o->on.level != on->level) continue;
        if (mode == FULL && on->type == SSA_Q8_0 && o->mode == FULL && o->on.type == SSA_BF16) { /* but for the type */
            result as = r;
            as.on.type = SSA_BF16;
            if (same_inputs(o, &as)) r.ratio = o->ms / r.ms;
        }
        if (!same_inputs(o, &r)) continue;
        if ((mode == SPARSE && o->mode == FULL) || (mode == REFERENCE && o->mode == SELECT && o->on.pool == on->pool))
            r.ratio = o->ms / r.ms;
    }
    print_result(&r);
    results = (result *)realloc(results, sizeof(result) * (size_t)(n_results + 1));
    if (!results) exit(2);
    results[n_results++] = r;
    close_call(&c);
}

/* Where several levels ran: the cases that a level does more slowly than the one below it. */
static void compare_levels(void)
{
    int compared = 0, slower = 0;
    for (int i = 0; i < n_results; i++) {
        const result *r = results + i, *below = NULL;
        for (int j = 0; j < n_results; j++) {
            const result *o = results + j;
            if (same_inputs(o, r) && o->mode == r->mode && o->kept == r->kept
                && (!r->kept || o->on.pool == r->on.pool) && o->on.level < r->on.level
                && (!below || o->on.level > below->on.level)) below = o;
        }
        if (!below) continue;
        compared++;
        if (r->ms < 1.05 * below->ms) continue;
        slower++;
        printf("slower than %s, %.2f times the time: %s %s %s %s %lld %lld %s %dt\n", ssa_isa_name(below->on.level),
               r->ms / below->ms, r->on.s->name, r->phase, mode_names[r->mode], type_name(r->on.type),
               (long long)r->n_q, (long long)r->n_kv, ssa_isa_name(r->on.level), r->on.threads);
    }
    if (compared) printf("%d of %d cases more than 5%% slower than on the level below\n", slower, compared);
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
            double g = peak_gflops(peak_of(levels[l], SSA_F32), threads[t]);
            printf("  %3d thread%s f32 multiply-add, %-10s %9.1f GFLOP/s\n", threads[t], threads[t] > 1 ? "s," : ", ",
                   name, g);
            json_line("\"limit\": \"fma\", \"level\": \"%s\", \"threads\": %d, \"gflops\": %.5g", name, threads[t], g);
        }
#if TILES
    for (int t = 0; t < n_threads && amx_ready(); t++) {                /* whether or not ssa.h has the level */
        double g = peak_gflops(peak_amx, threads[t]);
        printf("  %3d thread%s AMX bf16 tile products         %9.1f GFLOP/s\n", threads[t],
               threads[t] > 1 ? "s," : ", ", g);
        json_line("\"limit\": \"amx\", \"threads\": %d, \"gflops\": %.5g", threads[t], g);
    }
    for (int t = 0; t < n_threads && pairs_ready(); t++) {
        double g = peak_gflops(peak_pairs, threads[t]);
        printf("  %3d thread%s AVX512_BF16 products          %9.1f GFLOP/s\n", threads[t],
               threads[t] > 1 ? "s," : ", ", g);
        json_line("\"limit\": \"bf16\", \"threads\": %d, \"gflops\": %.5g", threads[t], g);
    }
#endif
    for (int t = 0; t < n_threads; t++)
        for (int i = 0; i < COUNT(sizes); i++) {
            double g = read_gbs(sizes[i].bytes * threads[t], threads[t]);
            printf("  %3d thread%s reading %-7s each         %9.1f GB/s\n", threads[t], threads[t] > 1 ? "s," : ", ",
                   sizes[i].what, g);
            json_line("\"limit\": \"read\", \"bytes_each\": %.0f, \"threads\": %d, \"gbs\": %.5g", sizes[i].bytes,
                      threads[t], g);
        }
    printf("    1 thread,  libm expf, one at a time    %9.2f ns\n", ns);
    json_line("\"limit\": \"expf\", \"ns\": %.4g", ns);
}

/* What keeping pooled keys costs in memory: bytes a token and layer, and their share of what K and V take. */
static void pool_memory(void)
{
    const int64_t tokens = 1 << 20;
    printf("pooled keys of blocks of %d, kept beside a cache:\n", BLOCK);
    for (int i = 0; i < COUNT(shapes); i++) {
        const shape *s = shapes + i;
        double f32 = (double)ssa_pool_size(s->h, s->d, BLOCK, tokens, SSA_F32) / (double)tokens;
        double bf16 = (double)ssa_pool_size(s->h, s->d, BLOCK, tokens, SSA_BF16) / (double)tokens;
        double kv = 4.0 * s->h * s->d;                      /* bytes of a token's key and value in 16 bits */
        printf("  %s  bf16 %6.2f bytes a token, %.2f%% of K and V in 16 bits;  f32 %6.2f, %.2f%% (%.2f%% in f32)\n",
               s->name, bf16, 100 * bf16 / kv, f32, 100 * f32 / kv, 50 * f32 / kv);
        json_line("\"pool_memory\": \"%s\", \"block_size\": %d, \"bf16_bytes\": %.5g, \"f32_bytes\": %.5g, "
                  "\"kv_bytes_16bit\": %.5g", s->name, BLOCK, bf16, f32, kv);
    }
    printf("\n");
}

/* What the smallest call costs, on one thread: plan and dispatch. */
static void overhead_call(ssa_type type, ssa_isa level)
{
    const setting on = { &smallest, type, SSA_F32, level, 1, 0 };
    double us[2];
    for (int m = FULL; m <= SPARSE; m++) {
        int reps;
        call c;
        if (!open_call(&c, &on, m, 1, 1)) return;
        us[m] = 1e6 * measure(&c, box / 2, &reps);
        close_call(&c);
    }
    printf("overhead, 1 thread, %-6s  1 head, dim 16, 1 key, %-4s: %.2f us full, %.2f us sparse\n",
           ssa_isa_name(level), type_name(type), us[FULL], us[SPARSE]);
    json_line("\"overhead\": \"call\", \"type\": \"%s\", \"level\": \"%s\", \"threads\": 1, \"full_us\": %.4g, "
              "\"sparse_us\": %.4g", type_name(type), ssa_isa_name(level), us[FULL], us[SPARSE]);
}

/* A decode over 512 keys, on one thread, against what 512 keys cost without a call around them: t(1024) - t(512), which
 * stands for the sum of the tile operations without knowing how the library cuts them. Both halves of the 1024 keys are
 * called in turn for t(512), so that the same caches hold the keys of both; 5 times each, in turns. */
static void overhead_decode(const shape *s, ssa_type type, ssa_isa level)
{
    enum { KEYS = 512, ROUNDS = 5 };
    const setting on = { s, type, SSA_F32, level, 1, 0 };
    size_t half = (size_t)(KEYS * s->h * row_bytes(type, s->d));
    double t[2][ROUNDS], us, more;
    int reps, ok;
    call c[3];                          /* first the longest, so that the others have a part of its keys */
    ok = open_call(c + 2, &on, FULL, 1, 2 * KEYS) && open_call(c, &on, FULL, 1, KEYS)
         && open_call(c + 1, &on, FULL, 1, KEYS);
    if (!ok) exit(2);
    c[1].a.k.data = (char *)data.k + half;
    c[1].a.v.data = (char *)data.v + half;
    c[0].next = c + 1;
    for (int r = 0; r < ROUNDS; r++) {
        t[0][r] = 1e6 * measure(c, box / (2 * ROUNDS), &reps) / 2;
        t[1][r] = 1e6 * measure(c + 2, box / (2 * ROUNDS), &reps);
    }
    for (int j = 0; j < 2; j++) qsort(t[j], ROUNDS, sizeof t[j][0], by_value);
    for (int j = 0; j < 3; j++) close_call(c + j);
    us = t[0][ROUNDS / 2];
    more = t[1][ROUNDS / 2] - us;       /* not above 0: drowned in noise */
    printf("overhead, 1 thread, %-6s  %s decode, %d keys, %-4s: %.2f us, %d keys more: %.2f us, ratio %.2f\n",
           ssa_isa_name(level), s->name, KEYS, type_name(type), us, KEYS, more, more > 0 ? us / more : 0);
    json_line("\"overhead\": \"decode\", \"case\": \"%s\", \"type\": \"%s\", \"level\": \"%s\", \"threads\": 1, "
              "\"n_kv\": %d, \"us\": %.5g, \"more_us\": %.5g, \"ratio\": %.4g", s->name, type_name(type),
              ssa_isa_name(level), KEYS, us, more, more > 0 ? us / more : 0);
}

static void overheads(const ssa_isa *levels, int n_levels)
{
    static const ssa_type types[] = { SSA_F32, SSA_BF16 };
    char text[80];
    for (int l = 0; l < n_levels; l++)
        for (int s = -1; s < 2; s++)
            for (int y = 0; y < COUNT(types); y++) {
                snprintf(text, sizeof text, "overhead %s %s %s", s < 0 ? "call" : shapes[s].name, type_name(types[y]),
                         ssa_isa_name(levels[l]));
                if (!wanted(text)) continue;
                if (s < 0) overhead_call(types[y], levels[l]);
                else       overhead_decode(shapes + s, types[y], levels[l]);
            }
}

/* A ragged batch: a decode of one token in each of 32 sequences, of 1/64 of the longest to all of it, in no order.
 * Their caches lie one after the other. The ideal: the longer of what the same calls take one by one on one thread,
 * divided by the threads, and of reading their bytes as fast as so many threads can. In turns, medians of rounds. */
static void batch_case(const shape *s, ssa_type type, ssa_isa level, int threads, int64_t longest)
{
    enum { CALLS = 32, ROUNDS = 7 };
    static const int part[CALLS] = { 5, 64, 1, 12, 33, 2, 8, 48, 1, 3, 20, 1, 6, 57, 2, 16,
                                     1, 40, 4, 10, 2, 28, 1, 7, 3, 64, 1, 14, 24, 2, 9, 1 };
    const setting on = { s, type, SSA_F32, level, threads, 0 };
    const int64_t token = s->h * row_bytes(type, s->d);
    double t[2][ROUNDS] = { { 0 } }, ideal, ms, err = 0; /* the batch, the calls */
    double gbs, again, read_ms;
    const char *bound;
    int64_t tokens = 0;
    ssa_attn a[CALLS];
    call c;
    ssa_exec one;
    for (int i = 0; i < CALLS; i++) tokens += part[i] * longest / 64;
    if (!open_call(&c, &on, FULL, CALLS, tokens)) { n_skipped++; return; } /* room for as many queries */
    tokens = 0;
    for (int i = 0; i < CALLS; i++) {
        a[i] = c.a;
        a[i].n_q = 1;
        a[i].n_kv = part[i] * longest / 64;
        a[i].q.data = (char *)data.q + i * s->hq * row_bytes(query_type(type), s->d);
        a[i].out.data = data.out + (int64_t)i * s->hq * s->d;
        a[i].k.data = (char *)data.k + tokens * token;
        a[i].v.data = (char *)data.v + tokens * token;
        tokens += a[i].n_kv;
    }
    drop(c.x.workspace);
    c.x.workspace_size = ssa_workspace_size(a, CALLS, SSA_FULL, threads);
    for (int i = 0; i < CALLS; i++) {
        size_t size = ssa_workspace_size(a + i, 1, SSA_FULL, 1);
        if (size > c.x.workspace_size) c.x.workspace_size = size;
    }
    c.x.workspace = need(c.x.workspace_size);
    one = c.x;
    one.n_threads = 1;
    gbs = read_gbs(2.0 * (double)(tokens * token), threads);
    for (int r = -1; r < ROUNDS; r++)                       /* the first warms up */
        for (int alone = 0; alone < 2; alone++) {
            double begin = now();
            ssa_status st = alone ? SSA_OK : ssa_attention_batch(a, CALLS, SSA_FULL, &c.x);
            for (int i = 0; alone && i < CALLS; i++) st = st ? st : ssa_attention(a + i, SSA_FULL, &one);
            if (st != SSA_OK) { fprintf(stderr, "bench: %s\n", ssa_status_string(st)); exit(2); }
            if (r >= 0) t[alone][r] = 1e3 * (now() - begin);
            for (int i = 0; i < CALLS && r < 0 && !alone; i += 7) {
                double e = row_error(a + i, 0, i % s->hq, NULL);
                if (!(e <= err)) err = e;
            }
        }
    for (int j = 0; j < 2; j++) qsort(t[j], ROUNDS, sizeof t[j][0], by_value);
    ms = t[0][ROUNDS / 2];
    again = read_gbs(2.0 * (double)(tokens * token), threads);
    read_ms = 2e-6 * (double)(tokens * token) / (again > gbs ? again : gbs);
    ideal = t[1][ROUNDS / 2] / threads;
    bound = ideal > read_ms ? "calls" : "read";
    if (read_ms > ideal) ideal = read_ms;
    printf("%s batch of %d decodes, %lld to %lld keys, %lld in all, %s, %s, %d thread%s: %.3f ms, ideal %.3f ms (%s), "
           "ratio %.2f; err %.1e%s\n", s->name, CALLS, (long long)(longest / 64),
           (long long)longest, (long long)tokens, type_name(type), ssa_isa_name(level), threads, threads > 1 ? "s" : "",
           ms, ideal, bound, ms / ideal, err, err < 0.1 ? "" : " WRONG");
    json_line("\"batch\": \"%s\", \"calls\": %d, \"type\": \"%s\", \"level\": \"%s\", \"threads\": %d, "
              "\"longest\": %lld, \"keys\": %lld, \"ms\": %.6g, \"ideal_ms\": %.6g, \"ideal\": \"%s\", "
              "\"ratio\": %.4g, \"max_err\": %.3g", s->name, CALLS, type_name(type), ssa_isa_name(level), threads,
              (long long)longest, (long long)tokens, ms, ideal, bound, ms / ideal, err);
    fflush(stdout);
    n_wrong += !(err < 0.1);
    close_call(&c);
}

/* Speculative decoding: a tree of n_q drafts over a long cache, two children each, whose mask hides the branches that a
 * draft is not on. Against a decode of one token with no mask. */
static void speculative_case(const shape *s, ssa_type type, ssa_isa level, int threads, int64_t n_kv)
{
    static const int drafts[] = { 64, 32, 16, 8, 4, 2, 1 }; /* the most first: memory is filled once */
    enum { N = COUNT(drafts), ROUNDS = 3 };
    const setting on = { s, type, SSA_F32, level, threads, 0 };
    double t[N][ROUNDS];
    call c[N];
    uint16_t *mask[N];
    int reps;
    for (int j = 0; j < N; j++) {
        const int n = drafts[j];
        mask[j] = NULL;
        if (!open_call(c + j, &on, FULL, n, n_kv)) { n_skipped++; return; }
        if (n == 1) continue;
        mask[j] = (uint16_t *)need(sizeof(uint16_t) * (size_t)(n * n_kv));
        memset(mask[j], 0, sizeof(uint16_t) * (size_t)(n * n_kv));
        for (int i = 0; i < n; i++) {                       /* f16: 0 is 0, 0xFC00 -infinity */
            uint16_t *row = mask[j] + i * n_kv + n_kv - n;
            for (int k = 0; k < n; k++) row[k] = 0xFC00u;
            for (int k = i; ; k = (k - 1) / 2) { row[k] = 0; if (k == 0) break; }
        }
        c[j].a.mask = mask[j];
        c[j].a.mask_type = SSA_F16;
        drop(c[j].x.workspace);
        c[j].x.workspace_size = ssa_workspace_size(&c[j].a, 1, SSA_FULL, threads);
        c[j].x.workspace = need(c[j].x.workspace_size);
    }
    for (int r = 0; r < ROUNDS; r++)
        for (int j = 0; j < N; j++) t[j][r] = 1e3 * measure(c + j, box / ROUNDS, &reps);
    for (int j = N - 1; j >= 0; j--) qsort(t[j], ROUNDS, sizeof t[j][0], by_value);
    for (int j = N - 1; j >= 0; j--) {
        double ms = t[j][ROUNDS / 2], ratio = ms / t[N - 1][ROUNDS / 2];
        printf("%s tree of %2d drafts, %lld keys, %s, %s, %d thread%s: %.3f ms, %.2f times one token's, %.3f a draft\n",
               s->name, drafts[j], (long long)n_kv, type_name(type), ssa_isa_name(level), threads,
               threads > 1 ? "s" : "", ms, ratio, ratio / drafts[j]);
        json_line("\"speculative\": \"%s\", \"drafts\": %d, \"n_kv\": %lld, \"type\": \"%s\", "
                  "\"level\": \"%s\", \"threads\": %d, \"ms\": %.6g, \"ratio\": %.4g", s->name, drafts[j],
                  (long long)n_kv, type_name(type), ssa_isa_name(level), threads, ms, ratio);
    }
    fflush(stdout);
    for (int j = 0; j < N; j++) { drop(mask[j]); close_call(c + j); }
}

static void batches(const int *threads, int n_threads, const ssa_isa *levels, int n_levels, int quick)
{
    const shape *s = shapes + 1;
    char text[96];
    for (int l = 0; l < n_levels; l++)
        for (int kind = 0; kind < 2; kind++)
            for (int t = 0; t < n_threads; t++) {
                snprintf(text, sizeof text, "%s %s bf16 %s %dt", kind ? "speculative" : "batch", s->name,
                         ssa_isa_name(levels[l]), threads[t]);
                if (!wanted(text)) continue;
                if (kind) speculative_case(s, SSA_BF16, levels[l], threads[t], quick ? 8192 : 32768);
                else      batch_case(s, SSA_BF16, levels[l], threads[t], quick ? 16384 : 65536);
            }
}

/* The cases: which shapes, key types and modes at which length, and in which run; a longer run has the shorter one's
 * too. Longest first within a phase, so that memory is filled once. A prefill of MOST_ONLY tokens and more, minutes on
 * one core, is run on the largest number of threads alone. */
enum { QUICK, NORMAL, LONG };
#define MOST_ONLY 32768
#define S1 1
#define S2 2
#define G1 4
#define ALL (S1 | S2 | G1)
#define F32 (1 << SSA_F32)
#define F16 (1 << SSA_F16)
#define BF16 (1 << SSA_BF16)
#define Q8 (1 << SSA_Q8_0)
#define F (1 << FULL)
#define S (1 << SPARSE)
#define C (1 << SELECT)
#define R (1 << REFERENCE)
#define P (1 << (REFERENCE + 1))        /* sparse again: decode with f32 pooled keys, prefill with kept bf16 ones */

static const struct { const char *phase; int64_t n_kv; int shapes, types, modes, run; } cases[] = {
    { "prefill",  131072, ALL,     BF16,       F | S | C | P,     LONG   },
    { "prefill",   32768, ALL,     BF16,       F | S | C | P,     NORMAL },
    { "prefill",    8192, ALL,     BF16,       F | S | C | P | R, NORMAL },
    { "prefill",    8192, S1 | S2, F32 | F16,  F,                 NORMAL },
    { "prefill",    8192, S1 | S2, F32 | F16,  S | C,             LONG   },
    { "prefill",    8192, G1,      F32 | F16,  F | S | C,         LONG   },
    { "prefill",    4096, ALL,     F32 | BF16, F | S | C,         NORMAL },
    { "prefill",    4096, S1 | S2, F16,        F,                 NORMAL },
    { "prefill",    4096, S1 | S2, F16,        S | C,             LONG   },
    { "prefill",    4096, G1,      F16,        F | S | C,         LONG   },
    { "prefill",    1024, ALL,     F32 | BF16, F | S | C,         QUICK  },
    { "prefill",    1024, ALL,     F16,        F | S | C,         LONG   },
    { "decode",  1048576, S1,      BF16,       F | S | C | P,     NORMAL },      /* S1, bf16: the curve of the plots */
    { "decode",  1048576, S2 | G1, BF16,       F | S | C,         LONG   },
    { "decode",  1048576, S1,      F32,        F | S | C,         LONG   },
    { "decode",   524288, S1,      BF16,       F | S | C | P,     NORMAL },
    { "decode",   262144, S1,      BF16,       F | S | C | P,     NORMAL },
    { "decode",   131072, ALL,     F32 | BF16, F | S | C,         NORMAL },
    { "decode",   131072, S1,      BF16,       P,                 NORMAL },
    { "decode",   131072, ALL,     Q8,         F | S,             NORMAL },
    { "decode",   131072, S1 | S2, F16,        F,                 NORMAL },
    { "decode",   131072, S1 | S2, F16,        S | C,             LONG   },
    { "decode",   131072, G1,      F16,        F | S | C,         LONG   },
    { "decode",    65536, S1,      BF16,       F | S | C | P,     NORMAL },
    { "decode",    32768, ALL,     F32,        F | S | C,         QUICK  },
    { "decode",    32768, ALL,     BF16,       F | S | C | R,     QUICK  },
    { "decode",    32768, S1,      BF16,       P,                 NORMAL },
    { "decode",    32768, S2,      Q8,         F | S,             QUICK  },
    { "decode",    32768, S1 | G1, Q8,         F | S,             NORMAL },
    { "decode",    32768, S1 | S2, F16,        F,                 NORMAL },
    { "decode",    32768, S1 | S2, F16,        S | C,             LONG   },
    { "decode",    32768, G1,      F16,        F | S | C,         LONG   },
    { "decode",    16384, S1,      BF16,       F | S | C | P,     NORMAL },
    { "decode",     8192, S1,      BF16,       F | S | C | P,     NORMAL },
    { "decode",     4096, ALL,     F32 | BF16, F | S | C,         QUICK  },
    { "decode",     4096, S1,      BF16,       P,                 NORMAL },
    { "decode",     4096, ALL,     F16,        F | S | C,         LONG   },
    { "decode",      512, ALL,     F32 | BF16, F | S,             QUICK  },
    { "decode",      512, ALL,     F16,        F | S,             LONG   },
    { "call",          1, ALL,     F32 | BF16, F | S,             QUICK  },      /* what calling costs */
};
#undef S1
#undef S2
#undef G1
#undef ALL
#undef F32
#undef F16
#undef BF16
#undef Q8
#undef F
#undef S
#undef C
#undef R
#undef P

static void run_cases(const int *threads, int n_threads, const ssa_isa *levels, int n_levels, int run)
{
    static const ssa_type types[] = { SSA_F32, SSA_BF16, SSA_F16, SSA_Q8_0 };
    int most = 0;
    for (int t = 0; t < n_threads; t++) if (threads[t] > most) most = threads[t];
    for (int s = 0; s < COUNT(shapes); s++)
        for (int y = 0; y < COUNT(types); y++)
            for (int i = 0; i < COUNT(cases); i++) {
                int prefill = !strcmp(cases[i].phase, "prefill");
                if (cases[i].run > run || !(cases[i].shapes >> s & 1) || !(cases[i].types >> types[y] & 1)) continue;
                for (int t = 0; t < n_threads; t++)
                    for (int m = FULL; m <= REFERENCE + 1; m++)
                        for (int l = 0; l < n_levels; l++) {            /* innermost: compared with each other */
                            setting on = { shapes + s, types[y], SSA_F32, levels[l], threads[t], 0 };
                            if (!(cases[i].modes >> m & 1)) continue;
                            on.kept = prefill && m > REFERENCE;
                            if (prefill && cases[i].n_kv >= MOST_ONLY && threads[t] != most) continue;
                            if (types[y] != SSA_F32 && (prefill || m <= REFERENCE))
                                on.pool = SSA_BF16;                     /* as officially */
                            run_case(&on, cases[i].phase, m <= REFERENCE ? m : SPARSE, prefill ? cases[i].n_kv : 1,
                                     cases[i].n_kv);
                        }
            }
}

/* ---- shapes: is the best level anywhere slower than the one below? ----------------------------------------------- */
/* Median microseconds of a call on two levels, in turns. */
static void in_turns(const call *c, const ssa_isa *level, int rounds, double *us)
{
    static double t[2][256];
    double once = 0;
    int inner = 1;
    ssa_isa_set(level[0]);
    for (int i = 0; i < 2; i++) {                           /* the first one warms up */
        once = now();
        run_call(c);
        once = now() - once;
    }
    if (once < 3e-5) inner = (int)(3e-5 / (once > 1e-8 ? once : 1e-8)) + 1;
    if (once > 2e-3) rounds /= 3;
    for (int n = 0; n < rounds; n++)
        for (int l = 0; l < 2; l++) {
            ssa_isa_set(level[l]);
            run_call(c);
            t[l][n] = now();
            for (int i = 0; i < inner; i++) run_call(c);
            t[l][n] = 1e6 * (now() - t[l][n]) / inner;
        }
    for (int l = 0; l < 2; l++) {
        qsort(t[l], (size_t)rounds, sizeof t[l][0], by_value);
        us[l] = t[l][rounds / 2];
    }
}

typedef struct { ssa_type type; int group, dim, n_kv, n_q, block; } sweep_shape;     /* block 0: full */
static struct { char *q, *k, *v, *pooled; ssa_pool pool; int type; } sweep_data; /* type: of what it holds; -1: none */
#define SWEEP_ROOM ((size_t)256 << 20)

/* Median microseconds of both levels, `reps` calls in turns. */
static void sweep_one(call *c, const sweep_shape *of, const ssa_isa *level, int reps, double *us)
{
    const int h = 2;
    const int64_t most = 16000 * h;
    if (sweep_data.type != (int)of->type) {
        fill(query_type(of->type), sweep_data.q, 130 * 32 * h, 256);
        fill(of->type, sweep_data.k, most, 256);
        fill(of->type, sweep_data.v, most, 256);
        sweep_data.type = (int)of->type;
    }
    void *out = c->a.out.data;
    c->a = ssa_attn_default(of->group * h, h, of->dim);
    c->a.n_q = of->n_q;             c->a.n_kv = of->n_kv;
    c->a.q.data = sweep_data.q;     c->a.q.type = query_type(of->type);
    c->a.k.data = sweep_data.k;     c->a.v.data = sweep_data.v;     c->a.k.type = c->a.v.type = of->type;
    c->a.out.data = out;
    c->mode = of->block ? SPARSE : FULL;
    if (of->block) {
        c->a.block_size = of->block;
        c->a.top_k = 256 / of->block;
    }
    if (of->block && of->n_q == 1) {
        ssa_pool *x = &sweep_data.pool;
        ssa_status s = ssa_pool_init(x, h, of->dim, of->block, of->n_kv, SSA_BF16, sweep_data.pooled, SWEEP_ROOM);
        if (s == SSA_OK) s = ssa_pool_append(x, &c->a.k, of->n_kv);
        if (s != SSA_OK) { fprintf(stderr, "bench: pool: %s\n", ssa_status_string(s)); exit(2); }
        c->a.pool = x;
    }
    in_turns(c, level, reps, us);
}

/* Thousands of shapes on one thread: every group, dim, number of keys and of queries below; with every third size of
 * blocks the sparse calls too, a single query's with pooled keys kept. What seems slower is measured again, more often,
 * and at the end, when whatever disturbed it has gone. */
static void sweep(void)
{
    static const int groups[] = { 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 32 }, queries[] = { 1, 2, 5, 9, 40, 130 },
                     dims[] = { 16, 32, 40, 64, 80, 96, 128, 192, 256 }, keys[] = { 40, 100, 300, 1000, 4000, 16000 },
                     blocks[] = { 0, 8, 16, 32, 64 };
    static const ssa_type types[] = { SSA_BF16, SSA_F16, SSA_BF16, SSA_Q8_0, SSA_BF16 };
    static sweep_shape slow[10000];
    const ssa_isa level[2] = { (ssa_isa)(ssa_isa_detected() - 1), ssa_isa_detected() };
    int all = 0, slower = 0, n = 0, n_slow = 0;
    double worst = 0, us[2];
    call c = { 0 };
    if (level[1] == SSA_ISA_SCALAR || !runs(level[0])) { printf("SKIP the sweep: one level alone\n"); return; }
    c.x.n_threads = 1;
    c.x.workspace = need(c.x.workspace_size = SWEEP_ROOM);
    c.a.out.data = need(SWEEP_ROOM);
    sweep_data.q = (char *)need(SWEEP_ROOM);
    sweep_data.k = (char *)need(SWEEP_ROOM);
    sweep_data.v = (char *)need(SWEEP_ROOM);
    sweep_data.pooled = (char *)need(SWEEP_ROOM);
    sweep_data.type = -1;
    printf("\n%s against %s, 1 thread, shapes that take longer\n", ssa_isa_name(level[1]), ssa_isa_name(level[0]));
    for (int ti = 0; ti < COUNT(types); ti++) for (int gi = 0; gi < COUNT(groups); gi++)
    for (int di = 0; di < COUNT(dims); di++) for (int ni = 0; ni < COUNT(keys); ni++)
    for (int qi = 0; qi < COUNT(queries); qi++) for (int bi = 0; bi < COUNT(blocks); bi++) {
        const sweep_shape of = { types[ti], groups[gi], dims[di], keys[ni], queries[qi], blocks[bi] };
        if (of.n_q > of.n_kv || (double)of.n_q * of.n_kv * of.group * of.dim > 3e8) continue;
        if (of.type == SSA_Q8_0 && of.dim % 32) continue;
        if (n++ % COUNT(types) != ti || (bi && n / COUNT(types) % 3)) continue;
        all++;
        sweep_one(&c, &of, level, 15, us);
        if (us[1] > 1.05 * us[0]) in_turns(&c, level, 61, us);
        if (us[1] > 1.05 * us[0] && n_slow < COUNT(slow)) slow[n_slow++] = of;
    }
    for (int i = 0; i < n_slow; i++) {
        const sweep_shape *of = slow + i;
        sweep_one(&c, of, level, 201, us);
        if (us[1] / us[0] > worst) worst = us[1] / us[0];
        if (us[1] <= 1.05 * us[0]) continue;
        slower++;
        printf("%-4s group %2d dim %3d keys %5d queries %3d %-6s %2d: %9.2f us, below %9.2f: %.2f\n",
               type_name(of->type), of->group, of->dim, of->n_kv, of->n_q, of->block ? "blocks" : "full", of->block,
               us[1], us[0], us[1] / us[0]);
    }
    printf("%d of %d shapes take more than 1.05 times as long, the worst %.2f times\n", slower, all, worst);
    drop(sweep_data.q); drop(sweep_data.k); drop(sweep_data.v); drop(sweep_data.pooled);
    drop(c.a.out.data); drop(c.x.workspace);
}

static int usage(void)
{
    fprintf(stderr, "usage: bench [--quick | --long | --sweep] [--threads N,N..] [--level NAME,NAME.. | all]"
            " [--f32-queries]\n             [--filter TEXT,TEXT..] [--json FILE]\n"
            "  --quick    under a minute: short contexts, all threads only\n"
            "  --long     everything: f16 in all cases, prefills of 128k tokens (minutes each, run once)\n"
            "  --sweep    instead: thousands of shapes, the best level against the one below (minutes)\n"
            "  --threads  how many, in turn; default 1 and all. Prefills of 32k tokens and more: the largest only\n"
            "  --level    of those that this machine has; default the best\n"
            "  --f32-queries  f32 queries on 16-bit keys too, instead of queries of the keys' type\n"
            "  --filter   cases whose line holds one of the texts, as in 'S1 decode full bf16 1 32768 avx512 2t pool"
            " none', or\n"
            "             'overhead call f32 avx512', 'overhead S1 bf16 avx512', 'batch S2 bf16 avx512 2t',\n"
            "             'speculative S2 bf16 avx512 2t'\n");
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
        else if (!strcmp(argv[i], "--sweep")) { sweep(); return 0; }
        else if (!strcmp(argv[i], "--f32-queries")) f32_queries = 1;
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
    else for (int l = SSA_ISA_SCALAR; l <= SSA_ISA_SIMD128; l++) {
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
    pool_memory();
    printf("%-3s %-8s %-9s %-9s %6s %7s  %-6s %3s  %13s %14s  %-12s %-7s  %s\n", "", "", "mode", "keys/pool", "n_q",
           "n_kv", "level", "thr", "median", "rate", "limit", "err", "speed-up over");
    run_cases(threads, n_threads, levels, n_levels, quick ? QUICK : is_long ? LONG : NORMAL);
    printf("\n");
    compare_levels();
    overheads(levels, n_levels);
    batches(threads, n_threads, levels, n_levels, quick);
    if (json) { fprintf(json, "\n]\n"); fclose(json); }
    printf("%d cases, %d wrong, %d skipped\n", n_results, n_wrong, n_skipped);
    return n_wrong > 0;
}

/* test.c - the harness, see test.h */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE             /* MAP_ANONYMOUS under -std=c11 */
#endif
#include "test.h"
#include <stdarg.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define CPU_BF16 (getauxval(AT_HWCAP2) >> 14 & 1)
#elif defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 9 : defined(__GNUC__) && __GNUC__ >= 10)
#include <cpuid.h>
/* AVX512_BF16, on CPUs whose vectors make more of these products than of multiply-adds: not Intel's */
static int cpu_bf16(void)
{
    unsigned a, b, c, d, vendor = 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0;
#ifndef SSA__B16_ALWAYS
    __get_cpuid(0, &b, &vendor, &c, &d);
#endif
    return vendor != 0x756e6547; /* "Genu" */
}
#define CPU_BF16 cpu_bf16()
#else
#define CPU_BF16 0
#endif
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__EMSCRIPTEN__)    /* whose mprotect protects nothing */
#include <sys/mman.h>
#include <unistd.h>
#define HAVE_MMAP 1
#else
#define HAVE_MMAP 0
#if defined(_WIN32)
#include <windows.h>
#endif
#endif

#ifndef TEST_SHOWN
#define TEST_SHOWN 25                /* failures printed of one test */
#endif
int64_t test_passed, test_failed, test_skipped;
int     test_shown;
int     test_brief;

int test_some(int i, int n) { return !test_brief || i % n == 0; }

void test_check(int ok, const char *file, int line, const char *fmt, ...)
{
    if (ok) { test_passed++; return; }
    test_failed++;
    if (++test_shown > TEST_SHOWN && !getenv("TEST_STOP")) {
        if (test_shown == TEST_SHOWN + 1) printf("  .. further failures of this test are not shown\n");
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    printf("  FAIL %s:%d  [%s] ", file, line, ssa_isa_name(ssa_isa_get()));
    vprintf(fmt, ap);
    printf("\n");
    fflush(stdout);
    va_end(ap);
    if (getenv("TEST_STOP")) _Exit(1);                       /* whichever thread this is */
}

void test_skip(const char *name, const char *reason)
{
    test_skipped++;
    printf("  SKIP %s: %s\n", name, reason);
    fflush(stdout);
}

uint64_t rng_u64(rng *r)
{
    uint64_t z = r->seed + ++r->i * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}
float rng_f(rng *r) { return (float)((double)(rng_u64(r) >> 40) * (1.0 / 8388608.0) - 1.0); }
int rng_int(rng *r, int lo, int hi) { return lo + (int)((rng_u64(r) >> 33) % (uint64_t)(hi - lo + 1)); }

void *xalloc(int64_t n, size_t size)
{
    void *p = calloc(n > 0 ? (size_t)n : 1, size);
    if (!p) { printf("out of memory\n"); exit(2); }
    return p;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */
int type_size(ssa_type t) { return t == SSA_F32 ? 4 : 2; }
const char *type_name(ssa_type t)
{
    return t == SSA_F32 ? "f32" : t == SSA_F16 ? "f16" : t == SSA_BF16 ? "bf16" : t == SSA_Q8_0 ? "q8_0" : "?";
}

static int type_mant(ssa_type t) { return t == SSA_F32 ? 23 : t == SSA_F16 ? 10 : 7; }
static int type_emin(ssa_type t) { return t == SSA_F16 ? -14 : -126; } /* exponent of the smallest normal number */

double type_half_ulp(ssa_type t, double x)
{
    int e = 0;
    frexp(x, &e);                                            /* |x| in [2^(e-1), 2^e) */
    e = x == 0 || e - 1 < type_emin(t) ? type_emin(t) : e - 1;
    return ldexp(0.5, e - type_mant(t));
}

static float widened[2][65536];      /* f16, bf16: all of them, made once, as ldexp takes its time */
static float widen(ssa_type t, int u)
{
    int mbits = type_mant(t), emask = t == SSA_F16 ? 31 : 255, m = u & ((1 << mbits) - 1), e = (u >> mbits) & emask;
    double x = e == emask ? (m ? (double)NAN : (double)INFINITY)
             : e ? ldexp(m + (1 << mbits), e - 1 + type_emin(t) - mbits) : ldexp(m, type_emin(t) - mbits);
    return (float)(u & 0x8000 ? -x : x);
}

float type_get(ssa_type t, const void *p)
{
    if (t == SSA_F32) { float f; memcpy(&f, p, 4); return f; }
    float *all = widened[t == SSA_BF16];
    uint16_t u;
    memcpy(&u, p, 2);
    if (all[1] == 0) for (int i = 0; i < 65536; i++) all[i] = widen(t, i);
    return all[u];
}

void type_put(ssa_type t, void *p, double x)
{
    if (t == SSA_F32) { float f = (float)x; memcpy(p, &f, 4); return; }
    static double power[400];                                /* 2^(i - 150) */
    int mbits = type_mant(t), emask = t == SSA_F16 ? 31 : 255, e = 0, bits;
    double a = fabs(x);
    if (power[0] == 0) for (int i = 0; i < 400; i++) power[i] = ldexp(1, i - 150);
    if (isnan(x)) bits = emask << mbits | 1 << (mbits - 1);
    else if (a >= power[278]) bits = emask << mbits;         /* 2^128 is infinity in every type */
    else {
        frexp(a, &e);
        e = a == 0 || e - 1 < type_emin(t) ? type_emin(t) : e - 1;
        bits = (int)nearbyint(a * power[mbits - e + 150])
               + ((e - type_emin(t)) << mbits); /* a carry lands in the exponent */
        if (bits > emask << mbits) bits = emask << mbits;
    }
    uint16_t u = (uint16_t)(bits | (signbit(x) ? 0x8000 : 0));
    memcpy(p, &u, 2);
}

int64_t row_bytes(ssa_type t, int64_t dim) { return t == SSA_Q8_0 ? dim / 32 * 34 : dim * type_size(t); }

void row_get(ssa_type t, const unsigned char *row, float *x, int dim)
{
    for (int e = 0; e < dim; e++) {
        const unsigned char *block = row + e / 32 * 34;
        x[e] = t != SSA_Q8_0 ? type_get(t, row + e * type_size(t))
                             : type_get(SSA_F16, block) * (float)(signed char)block[2 + e % 32];
    }
}

void row_put(ssa_type t, unsigned char *row, const float *x, int dim)
{
    for (int e = 0; t != SSA_Q8_0 && e < dim; e++) type_put(t, row + e * type_size(t), (double)x[e]);
    for (int e = 0; t == SSA_Q8_0 && e < dim; e += 32, row += 34) {
        float top = 0, unit, inv;
        int broken = 0;
        for (int i = 0; i < 32; i++) { top = fmaxf(top, fabsf(x[e + i])); broken |= !isfinite(x[e + i]); }
        unit = top / 127.0f;
        inv = unit < FLT_MIN ? 0.0f : 1.0f / unit;
        type_put(SSA_F16, row, broken ? (double)NAN : (double)unit);
        for (int i = 0; i < 32; i++) row[2 + i] = broken ? 0 : (unsigned char)(int)roundf(x[e + i] * inv);
    }
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */
#define MARGIN 64
#define PAINT  0xA5

void tensor_shape(tensor *t, ssa_type type, int64_t n, int heads, int dim, layout lay)
{
    int64_t es = type_size(type), row = row_bytes(type, dim);
    memset(t, 0, sizeof *t);
    t->type = type; t->n = n; t->heads = heads; t->dim = dim;
    t->hs = lay == LAY_HEAD  ? row * (n ? n : 1)
            : lay == LAY_PAD ? row + 3 * es
            : lay == LAY_ODD ? row + (row & 1) + 1
                             : row;
    t->ts = lay == LAY_HEAD ? row : lay == LAY_PAD ? heads * t->hs + 5 * es
          : lay == LAY_ODD ? heads * t->hs + ((heads * t->hs) & 1) + 1 : heads * t->hs;
    t->span = n ? (n - 1) * t->ts + (heads - 1) * t->hs + row : 0;
    t->view.type = type;
    t->view.token_stride = lay == LAY_ZERO ? 0 : t->ts;
    t->view.head_stride = lay == LAY_ZERO ? 0 : t->hs;
}

void tensor_make(tensor *t, ssa_type type, int64_t n, int heads, int dim, layout lay)
{
    tensor_shape(t, type, n, heads, dim, lay);
    t->mem_bytes = t->span + 2 * MARGIN;
    t->mem = xalloc(t->mem_bytes, 1);
    t->val = xalloc(tensor_count(t), sizeof(float));
    t->view.data = t->mem + MARGIN - (lay == LAY_ODD);
    tensor_paint(t);
}

void tensor_free(tensor *t) { free(t->mem); free(t->val); memset(t, 0, sizeof *t); }
int64_t tensor_count(const tensor *t) { return t->n * t->heads * t->dim; }
void tensor_paint(tensor *t) { memset(t->mem, PAINT, (size_t)t->mem_bytes); }

static unsigned char *tensor_row(const tensor *t, int64_t i, int h)
{
    return (unsigned char *)t->view.data + i * t->ts + h * t->hs;
}

void tensor_store(tensor *t)
{
    float *x = t->val;
    for (int64_t i = 0; i < t->n; i++)
        for (int h = 0; h < t->heads; h++, x += t->dim) {
            row_put(t->type, tensor_row(t, i, h), x, t->dim);
            row_get(t->type, tensor_row(t, i, h), x, t->dim);
        }
}

void tensor_load(tensor *t)
{
    float *x = t->val;
    for (int64_t i = 0; i < t->n; i++)
        for (int h = 0; h < t->heads; h++, x += t->dim) row_get(t->type, tensor_row(t, i, h), x, t->dim);
}

void tensor_fill(tensor *t, uint64_t seed, double amp)
{
    rng r = { seed, 0 };
    for (int64_t i = 0; i < tensor_count(t); i++) t->val[i] = (float)(rng_f(&r) * amp);
    tensor_store(t);
}

int tensor_gaps_ok(const tensor *t)
{
    unsigned char *used = xalloc(t->mem_bytes, 1);
    for (int64_t i = 0; i < t->n; i++)
        for (int h = 0; h < t->heads; h++)
            memset(used + (tensor_row(t, i, h) - t->mem), 1, (size_t)row_bytes(t->type, t->dim));
    int ok = 1;
    for (int64_t i = 0; i < t->mem_bytes; i++) ok &= used[i] || t->mem[i] == PAINT;
    free(used);
    return ok;
}

/* ---- attention calls --------------------------------------------------------------------------------------------- */
void prob_make(prob *p, const shape *given)
{
    memset(p, 0, sizeof *p);
    p->s = *given;
    shape *s = &p->s;
    if (!s->DV) s->DV = s->D;
    if (s->amp == 0) s->amp = 1;
    if (!s->B) s->B = 16;
    if (!s->top_k) s->top_k = 16;
    layout lay[4] = { s->lay, s->lay, s->lay, s->lay };
    if (s->lay == LAY_MIX) { lay[0] = LAY_ODD; lay[1] = LAY_HEAD; lay[2] = LAY_PAD; lay[3] = LAY_HEAD; }
    tensor_make(&p->q, s->tq, s->n_q, s->HQ, s->D, lay[0]);
    tensor_make(&p->k, s->tk, s->n_kv, s->H, s->D, lay[1]);
    tensor_make(&p->v, s->tv, s->n_kv, s->H, s->DV, lay[2]);
    tensor_make(&p->o, s->to, s->n_q, s->HQ, s->DV, lay[3]);
    p->n_lse = (int64_t)s->n_q * s->HQ;
    p->n_blocks = (int64_t)s->n_q * (s->per_head ? s->HQ : s->H) * s->top_k;
    p->gate = xalloc(p->n_lse, sizeof(float));
    p->lse = xalloc(p->n_lse, sizeof(float));
    p->blocks = xalloc(p->n_blocks, sizeof(int32_t));
    p->q0 = s->q_pos < 0 ? (int64_t)s->n_kv - s->n_q : s->q_pos;
    p->a = ssa_attn_default(s->HQ, s->H, s->D);
    p->a.value_dim = s->DV;
    p->a.n_q = s->n_q; p->a.n_kv = s->n_kv; p->a.q_pos = s->q_pos;
    p->a.q = p->q.view; p->a.k = p->k.view; p->a.v = p->v.view; p->a.out = p->o.view;
    p->a.scale = s->scale; p->a.causal = !s->noncausal;
    p->a.gate = s->no_gate ? NULL : p->gate;
    p->a.lse = s->no_lse ? NULL : p->lse;
    p->a.block_size = s->B; p->a.top_k = s->top_k; p->a.select = s->select;
    p->a.score = s->score; p->a.select_per_head = s->per_head; p->a.top_p = s->top_p; p->a.top_k_per_head = s->k_of;
    p->a.sink_blocks = s->sinks; p->a.local_blocks = s->locals;
    prob_fill(p, s->seed);
    prob_clear(p);
}

void prob_fill(prob *p, uint64_t seed)
{
    rng r = { seed + 4, 0 };
    tensor_fill(&p->q, seed + 1, (double)p->s.amp);
    tensor_fill(&p->k, seed + 2, (double)p->s.amp);
    tensor_fill(&p->v, seed + 3, 1);
    for (int64_t i = 0; i < p->n_lse; i++) p->gate[i] = rng_f(&r) * 0.5f + 0.5f;
}

void prob_refill(prob *p, uint64_t seed)
{
    if (tensor_count(&p->k) + tensor_count(&p->v) < 16384) prob_fill(p, seed);
    else tensor_fill(&p->q, seed + 1, (double)p->s.amp);
}

void prob_clear(prob *p)
{
    tensor_paint(&p->o);
    memset(p->lse, PAINT, (size_t)p->n_lse * sizeof(float));
    if (p->s.select != SSA_SELECT_GIVEN) memset(p->blocks, PAINT, (size_t)p->n_blocks * sizeof(int32_t));
}

void prob_free(prob *p)
{
    tensor_free(&p->q); tensor_free(&p->k); tensor_free(&p->v); tensor_free(&p->o);
    free(p->gate); free(p->lse); free(p->blocks);
}

uint64_t bytes_hash(const void *data, int64_t n, uint64_t h)
{
    const unsigned char *b = data;
    int64_t i = 0;
    for (uint64_t word; i + 8 <= n; i += 8) {
        memcpy(&word, b + i, 8);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
    }
    for (; i < n; i++) h = (h ^ b[i]) * 0x100000001B3u;
    return h ^ (h >> 29);
}

uint64_t prob_hash(const prob *p)
{
    uint64_t h = bytes_hash(p->o.mem, p->o.mem_bytes, 1469598103934665603u);
    h = bytes_hash(p->lse, p->n_lse * (int64_t)sizeof(float), h);
    return bytes_hash(p->blocks, p->n_blocks * (int64_t)sizeof(int32_t), h);
}

const char *shape_text(const shape *s)
{
    static char text[400];
    int n = snprintf(text, sizeof text,
             "%s: heads %d/%d dim %d/%d n_q %d n_kv %d q_pos %d %s,%s,%s->%s layout %d scale %g amp %g%s B %d "
             "top_k %d select %d seed %d",
             s->name ? s->name : "case", s->HQ, s->H, s->D, s->DV, s->n_q, s->n_kv, s->q_pos, type_name(s->tq),
             type_name(s->tk), type_name(s->tv), type_name(s->to), (int)s->lay, (double)s->scale, (double)s->amp,
             s->noncausal ? " noncausal" : "", s->B, s->top_k, (int)s->select, (int)s->seed);
    if (s->score || s->per_head || s->sinks || s->locals || s->top_p != 0 || s->k_of)
        snprintf(text + n, sizeof text - (size_t)n, " score %d per_head %d sinks %d locals %d top_p %g%s",
                 (int)s->score, s->per_head, s->sinks, s->locals, (double)s->top_p, s->k_of ? " top_k per head" : "");
    return text;
}

/* ---- levels ------------------------------------------------------------------------------------------------------ */
static ssa_isa levels[MAX_LEVELS], level_first;
static int n_levels = -1;

int level_count(void)
{
    if (n_levels < 0) {
        level_first = ssa_isa_get();
        n_levels = 0;
        for (int i = SSA_ISA_SCALAR; i <= SSA_ISA_SIMD128; i++)
            if (ssa_isa_set((ssa_isa)i) == (ssa_isa)i) levels[n_levels++] = (ssa_isa)i;
        ssa_isa_set(level_first);
    }
    return n_levels;
}
ssa_isa level_at(int i) { return levels[i]; }
const char *level_use(int i) { ssa_isa_set(levels[i]); return ssa_isa_name(levels[i]); }
void level_restore(void) { ssa_isa_set(level_first); }

int level_rounds(ssa_isa isa, ssa_type q, ssa_type k, ssa_type v)
{
    if (q == SSA_F32 || k == SSA_F32 || v == SSA_F32 || k == SSA_Q8_0 || v == SSA_Q8_0) return 0;
    if (isa == SSA_ISA_NEON || isa == SSA_ISA_AVX512)
        return CPU_BF16 && q == SSA_BF16 && k == SSA_BF16 && v == SSA_BF16;
    return isa == SSA_ISA_AMX;
}

int64_t unit_products(void)
{
#ifdef SSA__AMX_EMULATED
    return emu_products;
#else
    return -1;
#endif
}

/* ---- guarded memory ---------------------------------------------------------------------------------------------- */
#define MARGIN 64                    /* bytes of NaN, in every type, on both sides of memory that cannot trap */

void guard_make(guard *g, int64_t size)
{
    memset(g, 0, sizeof *g);
#if HAVE_MMAP
    g->page = (int64_t)sysconf(_SC_PAGESIZE);
    g->size = (size + g->page - 1) / g->page * g->page;
    void *m = mmap(NULL, (size_t)(g->size + 2 * g->page), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m != MAP_FAILED && mprotect((char *)m + g->page, (size_t)g->size, PROT_READ | PROT_WRITE) == 0) {
        g->base = (unsigned char *)m + g->page;
        g->traps = 1;
        return;
    }
#elif defined(_WIN32)
    SYSTEM_INFO system;
    DWORD before;
    GetSystemInfo(&system);
    g->page = (int64_t)system.dwPageSize;
    g->size = (size + g->page - 1) / g->page * g->page;
    unsigned char *m = VirtualAlloc(NULL, (size_t)(g->size + 2 * g->page), MEM_RESERVE | MEM_COMMIT, PAGE_NOACCESS);
    if (m && VirtualProtect(m + g->page, (size_t)g->size, PAGE_READWRITE, &before)) {
        g->base = m + g->page;
        g->traps = 1;
        return;
    }
#endif
    g->size = size;
    g->base = (unsigned char *)xalloc(size + 2 * MARGIN, 1) + MARGIN;
    memset(g->base - MARGIN, 0xff, MARGIN);
    memset(g->base + size, 0xff, MARGIN);
}

void *guard_at(const guard *g, int64_t n, int at_end)
{
    if (n > g->size) { printf("guard_at: %lld of %lld bytes\n", (long long)n, (long long)g->size); exit(2); }
    return at_end ? g->base + g->size - n : g->base;
}

void guard_free(guard *g)
{
#if HAVE_MMAP
    if (g->traps) { munmap(g->base - g->page, (size_t)(g->size + 2 * g->page)); return; }
#elif defined(_WIN32)
    if (g->traps) { VirtualFree(g->base - g->page, 0, MEM_RELEASE); return; }
#endif
    int intact = 1;
    for (int i = 0; i < MARGIN; i++) intact &= g->base[-1 - i] == 0xff && g->base[g->size + i] == 0xff;
    CHECK(intact, "nothing is written around guarded memory");
    free(g->base - MARGIN);
}

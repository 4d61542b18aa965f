/* test_hosts.c - programs and machines that differ: floating-point modes, signals, small stacks, many threads, fork, a
 * kernel that refuses the matrix unit; and one workload that has the same bits however many threads run it */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE                                                  /* MAP_ANONYMOUS, setitimer under -std=c11 */
#endif
#include "oracle.h"
#include <fenv.h>
#if (defined(__unix__) || defined(__APPLE__)) && !defined(__EMSCRIPTEN__)
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(_OPENMP)
#include <omp.h>
#endif
#define HAVE_POSIX 1
#else
#define HAVE_POSIX 0
#endif
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#include <xmmintrin.h>
#define HAVE_MXCSR 1
#else
#define HAVE_MXCSR 0
#endif
#if defined(__linux__) && defined(__x86_64__) && defined(__has_include)
#if __has_include(<linux/seccomp.h>)
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#define HAVE_SECCOMP 1
#endif
#endif
#ifndef HAVE_SECCOMP
#define HAVE_SECCOMP 0
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_FORK 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define NO_FORK 1
#endif
#ifndef NO_FORK
#define NO_FORK 0
#endif

/* ---- one workload: all modes, types and features, small ---------------------------------------------------------- */
enum { WINDOW = 1, SOFTCAP = 2, ALIBI = 4, MASK = 8, SINKS = 16, PAGES = 32, POOL = 64, BUDGET = 128, SHORT = 256 };
typedef struct { shape s; ssa_mode mode; int with; } item;
typedef struct {
    prob     p;
    ssa_attn a;
    ssa_mode mode;
    float   *alibi, *sinks, *mask;
    int32_t *pages;
    ssa_pool pool;
    void    *memory;
} job;

#define ROWS(q, kv) .n_q = q, .n_kv = kv, .q_pos = -1
#define TYPES(q, k, v) .tq = SSA_##q, .tk = SSA_##k, .tv = SSA_##v, .to = SSA_##q
static const item items[] = {
    { { .HQ = 4, .H = 2, .D = 40, ROWS(96, 96) }, SSA_FULL, 0 },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(60, 130), TYPES(F16, F16, F16), .lay = LAY_MIX }, SSA_FULL, 0 },
    { { .HQ = 4, .H = 1, .D = 64, ROWS(70, 150), TYPES(BF16, BF16, BF16) }, SSA_FULL, 0 },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(50, 120), TYPES(F32, Q8_0, Q8_0) }, SSA_FULL, 0 },
    { { .HQ = 6, .H = 2, .D = 33, .DV = 20, ROWS(40, 90), .noncausal = 1 }, SSA_FULL, MASK | SOFTCAP },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(64, 200), TYPES(BF16, BF16, BF16) }, SSA_FULL, WINDOW | ALIBI | SINKS | PAGES },
    { { .HQ = 16, .H = 2, .D = 64, ROWS(1, 1900), TYPES(F32, BF16, BF16) }, SSA_FULL, 0 },
    { { .HQ = 8, .H = 1, .D = 64, ROWS(1, 1500), TYPES(BF16, BF16, BF16) }, SSA_FULL, PAGES },
    { { .HQ = 8, .H = 2, .D = 96, ROWS(1, 1300), TYPES(F32, Q8_0, F16) }, SSA_FULL, ALIBI | SINKS },
    { { .HQ = 4, .H = 2, .D = 40, ROWS(90, 300), .B = 8, .top_k = 3 }, SSA_SPARSE, 0 },
    { { .HQ = 4, .H = 1, .D = 64, ROWS(80, 240), TYPES(BF16, BF16, BF16), .top_k = 4 }, SSA_SPARSE, 0 },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(80, 200), TYPES(F16, F16, F16), .B = 8, .top_k = 8,
        .select = SSA_SELECT_REFERENCE }, SSA_SPARSE, SINKS | POOL },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(33, 300), TYPES(F32, Q8_0, Q8_0), .top_k = 5, .sinks = 1, .locals = 1,
        .top_p = 0.5f }, SSA_SPARSE, MASK | PAGES },
    { { .HQ = 6, .H = 2, .D = 32, ROWS(40, 260), .B = 4, .top_k = 6, .score = SSA_SCORE_DOT, .per_head = 1 },
      SSA_SPARSE, SOFTCAP | ALIBI },
    { { .HQ = 16, .H = 2, .D = 64, ROWS(1, 2400), TYPES(BF16, BF16, BF16) }, SSA_SPARSE, POOL },
    { { .HQ = 8, .H = 2, .D = 64, ROWS(1, 2000), TYPES(F32, F16, F16) }, SSA_SPARSE, BUDGET },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(30, 100) }, SSA_SPARSE, SHORT },
    { { .HQ = 4, .H = 2, .D = 64, ROWS(30, 200), .select = SSA_SELECT_GIVEN, .top_k = 3 }, SSA_SPARSE, 0 },
};
#undef ROWS
#undef TYPES
static job jobs[COUNT(items)];

static void job_make(job *j, const item *from)
{
    memset(j, 0, sizeof *j);
    prob_make(&j->p, &from->s);
    j->mode = from->mode;
    ssa_attn *a = &j->p.a;
    rng r = { 77, 0 };
    if (from->mode == SSA_SPARSE) a->blocks = j->p.blocks;
    if (from->s.select == SSA_SELECT_GIVEN)
        for (int64_t e = 0; e < j->p.n_blocks; e++) j->p.blocks[e] = (int32_t)(e * 5 % 11) - 1;
    if (from->with & WINDOW) a->window = 50;
    if (from->with & SOFTCAP) a->softcap = 3;
    if (from->with & (ALIBI | SINKS)) {
        j->alibi = xalloc(a->n_heads, sizeof(float));
        j->sinks = xalloc(a->n_heads, sizeof(float));
        for (int h = 0; h < a->n_heads; h++) { j->alibi[h] = rng_f(&r) * 0.1f; j->sinks[h] = rng_f(&r); }
        if (from->with & ALIBI) a->alibi = j->alibi;
        if (from->with & SINKS) a->sinks = j->sinks;
    }
    if (from->with & MASK) {
        j->mask = xalloc(a->n_q * a->n_kv, sizeof(float));
        for (int64_t e = 0; e < a->n_q * a->n_kv; e++) j->mask[e] = e % 5 == 3 ? -INFINITY : rng_f(&r);
        a->mask = j->mask;
        a->mask_type = SSA_F32;
    }
    if (from->with & PAGES) {                                            /* the same rows, named page by page */
        int n = (int)a->n_kv / 16;                                       /* the last page is a short one */
        a->page_tokens = 16;
        j->pages = xalloc(n + 1, sizeof *j->pages);
        for (int i = 0; i <= n; i++) j->pages[i] = i;
        a->pages = j->pages;
    }
    if (from->with & POOL) {
        size_t size = ssa_pool_size(a->n_kv_heads, a->head_dim, a->block_size, a->n_kv, SSA_BF16);
        j->memory = xalloc((int64_t)size, 1);
        CHECK(ssa_pool_init(&j->pool, a->n_kv_heads, a->head_dim, a->block_size, a->n_kv, SSA_BF16, j->memory, size)
                  == SSA_OK && ssa_pool_append(&j->pool, &a->k, a->n_kv) == SSA_OK, "pool");
        a->pool = &j->pool;
    }
    if (from->with & BUDGET) a->budget = 16 * a->block_size;
    if (from->with & SHORT) a->min_context = 1000;
    j->a = *a;
}

static void jobs_make(void) { for (int i = 0; i < COUNT(items); i++) job_make(&jobs[i], &items[i]); }
static void jobs_free(void)
{
    for (job *j = jobs; j < jobs + COUNT(jobs); j++) {
        prob_free(&j->p);
        free(j->alibi); free(j->sinks); free(j->mask); free(j->pages); free(j->memory);
    }
}

static void job_run(job *j, const ssa_exec *x)
{
    prob_clear(&j->p);
    if (ssa_attention(&j->a, j->mode, x) != SSA_OK) CHECK(0, "%s", shape_text(&j->p.s));
}

static const ssa_exec one = { 1, NULL, NULL, NULL, 0 };

/* The checksum of all jobs of a mode, run as one batch. */
static uint64_t batch_bits(ssa_mode mode, const ssa_exec *x, int plan_workers)
{
    ssa_attn a[COUNT(items)];
    int n = 0;
    uint64_t h = 1;
    for (int i = 0; i < COUNT(jobs); i++)
        if (jobs[i].mode == mode) { prob_clear(&jobs[i].p); a[n++] = jobs[i].a; }
    if (plan_workers) {
        ssa_plan plan;
        size_t size = ssa_workspace_size(a, n, mode, plan_workers);
        void *ws = xalloc((int64_t)size, 1);
        CHECK(ssa_plan_make(&plan, a, n, mode, plan_workers, ws, size) == SSA_OK, "plan");
        for (int phase = 0; phase < ssa_plan_phases(&plan); phase++)
            for (int i = plan_workers - 1; i >= 0; i--) ssa_plan_run(&plan, phase, i, plan_workers);
        free(ws);
    } else CHECK(ssa_attention_batch(a, n, mode, x) == SSA_OK, "batch");
    for (int i = 0; i < COUNT(jobs); i++) if (jobs[i].mode == mode) h = h * 31 + prob_hash(&jobs[i].p);
    return h;
}

#if HAVE_POSIX
typedef struct { ssa_task fn; void *task; int ith, nth; } worker;
static void *worker_main(void *arg) { worker *w = arg; w->fn(w->task, w->ith, w->nth); return NULL; }
static int most_workers;
static void run_threads(void *user, ssa_task fn, void *task, int nth)
{
    pthread_t id[16];
    worker w[16];
    (void)user;
    if (nth > most_workers) most_workers = nth;
    for (int i = 0; i < nth && i < 16; i++) {
        w[i] = (worker){ fn, task, i, nth };
        if (pthread_create(&id[i], NULL, worker_main, &w[i])) { printf("pthread_create\n"); exit(2); }
    }
    for (int i = 0; i < nth && i < 16; i++) pthread_join(id[i], NULL);
}
#endif

/* 1 to 16 workers, of OpenMP, of the caller and in phases: one checksum a level. Levels agree only where amx works as
 * avx512 does, which is where queries are f32 and, in full mode, keys and values not q8_0. */
static void check_same_bits(void)
{
    uint64_t of_avx512[COUNT(items)] = { 0 };
    jobs_make();
    FOR_LEVELS(l) {
        for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
            uint64_t want = batch_bits((ssa_mode)mode, &one, 0);
            for (int nth = 1; nth <= 16; nth++) {
                ssa_exec x = { nth, NULL, NULL, NULL, 0 };
                CHECK(batch_bits((ssa_mode)mode, &x, 0) == want, "%d threads, mode %d", nth, mode);
#if HAVE_POSIX
                x.parallel = run_threads;
                CHECK(batch_bits((ssa_mode)mode, &x, 0) == want, "%d threads of ours, mode %d", nth, mode);
#endif
                CHECK(batch_bits((ssa_mode)mode, NULL, nth) == want, "%d workers in phases, mode %d", nth, mode);
            }
        }
        for (int i = 0; i < COUNT(items); i++) {
            const shape *s = &items[i].s;
            int unit = s->tq == SSA_F16 || s->tq == SSA_BF16 ||
                       (jobs[i].mode == SSA_FULL && (s->tk == SSA_Q8_0 || s->tv == SSA_Q8_0));
            job_run(&jobs[i], &one);
            uint64_t h = prob_hash(&jobs[i].p);
            if (level_at(l) == SSA_ISA_AVX512) of_avx512[i] = h;
            if (level_at(l) == SSA_ISA_AMX && !unit)
                CHECK(h == of_avx512[i], "amx = avx512 for f32 queries: %s", shape_text(s));
        }
    }
#if HAVE_POSIX
    CHECK(most_workers == 16, "the workload is worth 16 workers, not %d", most_workers);
#else
    SKIP("threads of ours", "no POSIX threads here");
#endif
    jobs_free();
}

/* ---- floating-point modes ---------------------------------------------------------------------------------------- */
#if HAVE_MXCSR
#define MODE_BITS() (_mm_getcsr() & ~0x3fu)                              /* all but the flags of what has happened */
#define SET_MODE_BITS(bits) _mm_setcsr(bits)
#else
#define MODE_BITS() 0u
#define SET_MODE_BITS(bits) ((void)(bits))
#endif
static const struct { const char *name; int round; unsigned set; } float_modes[] = {
#ifdef FE_UPWARD
    { "upward", FE_UPWARD, 0 },
#endif
#ifdef FE_DOWNWARD
    { "downward", FE_DOWNWARD, 0 },
#endif
#ifdef FE_TOWARDZERO
    { "toward zero", FE_TOWARDZERO, 0 },
#endif
    { "denormals are zero", FE_TONEAREST, 0x8040 },                      /* MXCSR's FTZ and DAZ */
};

/* The job in a mode: 4 digits of f32 with another rounding, all of them without denormals; and the mode stays. */
static void check_mode(job *j, int m)
{
    int64_t n = tensor_count(&j->p.o);
    float *want = xalloc(n, sizeof *want);
    double worst = 0, top = 0, share = float_modes[m].set ? 1e-6 : 1e-4;
    job_run(j, &one);
    tensor_load(&j->p.o);
    memcpy(want, j->p.o.val, (size_t)n * sizeof *want);
    unsigned plain = MODE_BITS();
    fesetround(float_modes[m].round);
    SET_MODE_BITS(MODE_BITS() | float_modes[m].set);
    unsigned before = MODE_BITS();
    job_run(j, &one);
    unsigned after = MODE_BITS();
    int round = fegetround();
    fesetround(FE_TONEAREST);
    SET_MODE_BITS(plain);
    CHECK(round == float_modes[m].round && after == before, "%s: a call changes the mode", float_modes[m].name);
    tensor_load(&j->p.o);
    for (int64_t e = 0; e < n; e++) {
        double x = fabs((double)want[e]), d = fabs((double)want[e] - (double)j->p.o.val[e]);
        if (x > top) top = x;
        if (!(d <= worst)) worst = d;
    }
    CHECK(worst <= share * top + (j->p.s.to == SSA_F32 ? 0 : 3 * type_half_ulp(j->p.s.to, top)), "%s: %g off of %g: %s",
          float_modes[m].name, worst, top, shape_text(&j->p.s));
    free(want);
}

static void check_float_modes(void)
{
    static const item small = { { .name = "denormal", .HQ = 4, .H = 2, .D = 64, .n_q = 20, .n_kv = 40, .q_pos = -1,
                                  .amp = 1e-39f }, SSA_FULL, 0 };
    job denormal;
    jobs_make();
    job_make(&denormal, &small);
    for (int m = 0; m < COUNT(float_modes); m++) {
        if (float_modes[m].set && !HAVE_MXCSR) { SKIP(float_modes[m].name, "no MXCSR here"); continue; }
        int there = fesetround(float_modes[m].round) == 0 && fegetround() == float_modes[m].round;
        fesetround(FE_TONEAREST);
        if (!there) { SKIP(float_modes[m].name, "this machine does not round so"); continue; }
        FOR_LEVELS(l) {
            for (int i = 0; i < COUNT(items); i++) check_mode(&jobs[i], m);
            check_mode(&denormal, m);
            /* What is stored in half precision is rounded to nearest even in every mode. */
            ssa_attn cache = ssa_attn_default(2, 2, 64);
            uint64_t hash[2];
            unsigned char halves[40 * 2 * 64 * 2];
            ssa_view k = jobs[0].p.k.view;                               /* 96 tokens of 2 heads of 40 floats */
            cache.head_dim = cache.value_dim = 40;
            for (int t = SSA_F16; t <= SSA_BF16; t++) {
                cache.k.data = halves; cache.k.type = (ssa_type)t;
                for (int mode = 0; mode < 2; mode++) {
                    memset(halves, 0, sizeof halves);
                    if (mode) fesetround(float_modes[m].round);
                    ssa_status st = ssa_kv_append(&cache, 0, &k, NULL, 60, NULL);
                    fesetround(FE_TONEAREST);
                    CHECK(st == SSA_OK, "append");
                    hash[mode] = bytes_hash(halves, 60 * 2 * 40 * 2, 1);
                }
                CHECK(hash[0] == hash[1], "%s: %s is rounded to nearest even", float_modes[m].name,
                      type_name((ssa_type)t));
            }
        }
    }
    jobs_free();
    prob_free(&denormal.p);
}

#if HAVE_POSIX
/* ---- signals ----------------------------------------------------------------------------------------------------- */
/* The handler computes too, with the vector registers and, where the tiles are the CPU's, with the library: a call that
 * was given its workspace and runs on one thread takes no lock. */
static struct { job j; ssa_exec x; uint64_t want; volatile int calls, bad, own; volatile double sum; } alarm_;
static void on_alarm(int signal_)
{
    (void)signal_;
    alarm_.calls++;
    for (int i = 1; i < 50; i++) alarm_.sum += 1.0 / i;
    if (!alarm_.own) return;
    if (ssa_attention(&alarm_.j.a, SSA_FULL, &alarm_.x) != SSA_OK) alarm_.bad++;
    if (bytes_hash(alarm_.j.p.o.mem, alarm_.j.p.o.mem_bytes, 1) != alarm_.want) alarm_.bad++;
}

/* OpenMP's threads, which would get the signals too, leave them to this one. */
static void signals_here(void)
{
#if defined(_OPENMP)
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
#pragma omp parallel num_threads(omp_get_max_threads() > 16 ? omp_get_max_threads() : 16)
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
#endif
}

static void check_signals(void)
{
    static const item small = { { .HQ = 4, .H = 2, .D = 40, .n_q = 6, .n_kv = 30, .q_pos = -1 }, SSA_FULL, 0 };
    struct sigaction act, old;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_alarm;
    act.sa_flags = SA_RESTART;
    jobs_make();
    job_make(&alarm_.j, &small);
    signals_here();
    FOR_LEVELS(l) {
        uint64_t want[COUNT(items)];
        alarm_.x = one;
        alarm_.x.workspace_size = ssa_workspace_size(&alarm_.j.a, 1, SSA_FULL, 1);
        alarm_.x.workspace = xalloc((int64_t)alarm_.x.workspace_size, 1);
        alarm_.calls = alarm_.bad = 0;
#ifdef SSA__AMX_EMULATED                                                 /* its tiles are not saved for a handler */
        alarm_.own = level_at(l) != SSA_ISA_AMX;
#else
        alarm_.own = 1;
#endif
        job_run(&alarm_.j, &alarm_.x);
        alarm_.want = bytes_hash(alarm_.j.p.o.mem, alarm_.j.p.o.mem_bytes, 1);
        for (int i = 0; i < COUNT(items); i++) { job_run(&jobs[i], &one); want[i] = prob_hash(&jobs[i].p); }
        struct itimerval every = { { 0, 300 }, { 0, 300 } }, never = { { 0, 0 }, { 0, 0 } };
        CHECK(sigaction(SIGALRM, &act, &old) == 0 && setitimer(ITIMER_REAL, &every, NULL) == 0, "a timer");
        int same = 1;
        for (int rep = 0; rep < 200 && (rep < 3 || alarm_.calls < 50); rep++)
            for (int i = 0; i < COUNT(items); i++) {
                job_run(&jobs[i], &one);
                same &= prob_hash(&jobs[i].p) == want[i];
            }
        setitimer(ITIMER_REAL, &never, NULL);
        sigaction(SIGALRM, &old, NULL);
        CHECK(alarm_.calls >= 50, "%d signals came", alarm_.calls);
        CHECK(same, "calls that signals interrupt have the same bits");
        CHECK(alarm_.bad == 0, "%d of %d calls in the handler went wrong", alarm_.bad, alarm_.calls);
        free(alarm_.x.workspace);
    }
    prob_free(&alarm_.j.p);
    jobs_free();
}

/* ---- small stacks ------------------------------------------------------------------------------------------------ */
#ifdef SSA__AMX_EMULATED                                                 /* the tiles of each file lie in every stack */
enum { STACK = 65536 + (1 << 18), STACK_MOST = 16384 };
#else
enum { STACK = 65536, STACK_MOST = 16384 };
#endif
static struct { job *j; int what; int64_t used; } deep;
static ssa_pool deep_pool;

/* Each public function on the current job. */
enum { RUN, RUN_OWN, CHECK_ONLY, PLAN, SELECT, DIAGNOSE, POOLS, APPEND, LOSS, SMALL, DEEP_KINDS };
static void go_deep(job *j, int what)
{
    static unsigned char cache[64 * 2 * 1024 * 4];
    static float lse[4096], lse_full[4096];
    ssa_attn *a = &j->a, c;
    ssa_plan plan;
    ssa_alignment loss;
    ssa_status s = SSA_OK;
    ssa_view k = a->k, v = a->v;
    int64_t n = a->n_kv < 50 ? a->n_kv : 50;
    static unsigned char ws[1 << 24];
    const ssa_exec given = { 1, NULL, NULL, ws, sizeof ws };
    const ssa_diagnosis d = { lse, lse_full, NULL, NULL };
    switch (what) {
    case RUN:        s = ssa_attention(a, j->mode, &one); break;
    case RUN_OWN:    s = ssa_attention(a, j->mode, &given); break;
    case CHECK_ONLY: s = ssa_check(a, j->mode); (void)ssa_workspace_size(a, 1, j->mode, 3); break;
    case PLAN:
        s = ssa_plan_make(&plan, a, 1, j->mode, 2, ws, sizeof ws);
        for (int phase = 0; phase < ssa_plan_phases(&plan); phase++)
            for (int i = 0; i < 2; i++) ssa_plan_run(&plan, phase, i, 2);
        break;
    case SELECT:
        if (j->mode == SSA_SPARSE && a->select != SSA_SELECT_GIVEN) s = ssa_select_blocks(a, &given);
        break;
    case DIAGNOSE:
        if (j->mode == SSA_SPARSE && a->n_q * a->n_heads <= COUNT(lse)) s = ssa_diagnose(a, &d, &given);
        break;
    case POOLS:
        s = ssa_pool_append(&deep_pool, &k, n);
        if (s == SSA_OK) s = ssa_pool_truncate(&deep_pool, &k, n - 3);
        if (s == SSA_OK) s = ssa_pool_drop_front(&deep_pool, &k, 7);
        break;
    case APPEND:
        c = ssa_attn_default(a->n_kv_heads, a->n_kv_heads, a->head_dim);
        c.value_dim = a->value_dim;
        c.k.data = c.v.data = cache;
        if (k.type == SSA_Q8_0 || v.type == SSA_Q8_0) break;
        c.k.type = a->head_dim % 32 ? SSA_F16 : SSA_Q8_0;
        s = ssa_kv_append(&c, 0, &k, &v, n, NULL);
        break;
    case LOSS:
        v = k = a->q;
        s = ssa_alignment_loss(&k, &v, a->n_q, a->n_heads, a->head_dim, 1, &loss, 1, NULL, NULL);
        break;
    case SMALL:
        for (int i = 0; i < 64; i++) lse[i] = lse_full[i] = (float)i;
        ssa_merge(lse, lse + 60, lse_full, lse_full + 60, 2, 30);
        ssa_attention_sparsity(lse, lse_full, 64, lse);
        (void)ssa_isa_set(ssa_isa_get());
        (void)ssa_isa_detected();
        (void)ssa_status_string(s);
        break;
    }
    if (s != SSA_OK) CHECK(0, "small stack, function %d: %s", what, ssa_status_string(s));
}

static unsigned char *stack_;
static void *deep_main(void *arg)
{
    volatile unsigned char here = 0;
    (void)arg;
    (void)here;
    go_deep(deep.j, deep.what);
    int64_t low = 0, top = (int64_t)((uintptr_t)&here - (uintptr_t)stack_);
    while (low < top && stack_[low] == 0xA5) low++;
    deep.used = top - low;
    return NULL;
}

static void check_small_stacks(void)
{
#if SANITIZED || !defined(__OPTIMIZE__)
    (void)deep_main;
    SKIP("small stacks", "sanitizers and -O0 take a stack of their own");
#else
    static const char *const names[] = { "attention", "attention in a workspace", "check", "plan", "select", "diagnose",
                                         "pool", "append", "loss", "the small ones" };
    pthread_attr_t attr;
    pthread_t id;
    unsigned char *memory = xalloc(1 << 20, 1);
    stack_ = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack_ != MAP_FAILED && pthread_attr_init(&attr) == 0 && pthread_attr_setstack(&attr, stack_, STACK) == 0,
          "a thread with a stack of 64 KiB");
    jobs_make();
    FOR_LEVELS(l) {
        int64_t most[DEEP_KINDS] = { 0 };
        for (int i = 0; i < COUNT(items); i++)
            for (int what = 0; what < DEEP_KINDS; what++)
                for (int warm = 1; warm >= 0; warm--) {                  /* first here: the linker's own stack */
                    job *j = &jobs[i];
                    CHECK(ssa_pool_init(&deep_pool, j->a.n_kv_heads, j->a.head_dim, 8, 64, SSA_F32, memory, 1 << 20)
                              == SSA_OK, "pool");
                    if (warm) { go_deep(j, what); continue; }
                    memset(stack_, 0xA5, STACK);
                    deep.j = j; deep.what = what;
                    int made = pthread_create(&id, &attr, deep_main, NULL);
                    CHECK(made == 0 && pthread_join(id, NULL) == 0, "a thread: %d", made);
                    if (deep.used > most[what]) most[what] = deep.used;
                }
        for (int what = 0; what < DEEP_KINDS; what++)
            CHECK(most[what] > 100 && most[what] < STACK_MOST, "%s takes %d bytes of stack", names[what],
                  (int)most[what]);
    }
    jobs_free();
    pthread_attr_destroy(&attr);
    munmap(stack_, STACK);
    free(memory);
#endif
}

/* ---- many threads, each with calls of its own -------------------------------------------------------------------- */
enum { THREADS = 8, ROUNDS = 4 };
typedef struct { job *j; int first, bad; const uint64_t *want; } caller;
static void *caller_main(void *arg)
{
    caller *c = arg;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < COUNT(items); i++) {
            job *j = &c->j[(i + c->first) % COUNT(items)];
            prob_clear(&j->p);
            if (ssa_attention(&j->a, j->mode, &one) != SSA_OK) c->bad++;
            if (prob_hash(&j->p) != c->want[(i + c->first) % COUNT(items)]) c->bad++;
        }
    return NULL;
}

static void check_callers(void)
{
    static job own[THREADS][COUNT(items)];
    uint64_t want[COUNT(items)];
    for (int t = 0; t < THREADS; t++) for (int i = 0; i < COUNT(items); i++) job_make(&own[t][i], &items[i]);
    FOR_LEVELS(l) {
        pthread_t id[THREADS];
        caller c[THREADS];
        for (int i = 0; i < COUNT(items); i++) { job_run(&own[0][i], &one); want[i] = prob_hash(&own[0][i].p); }
        for (int t = 0; t < THREADS; t++) {
            c[t] = (caller){ own[t], t * 5, 0, want };
            CHECK(pthread_create(&id[t], NULL, caller_main, &c[t]) == 0, "thread");
        }
        for (int t = 0; t < THREADS; t++) {
            pthread_join(id[t], NULL);
            CHECK(c[t].bad == 0, "thread %d of %d: %d calls differ from serial ones", t, THREADS, c[t].bad);
        }
    }
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < COUNT(items); i++) {
            job *j = &own[t][i];
            prob_free(&j->p);
            free(j->alibi); free(j->sinks); free(j->mask); free(j->pages); free(j->memory);
        }
}

/* ---- other processes --------------------------------------------------------------------------------------------- */
/* Runs body in a child; its return value, or 1000 and the signal that ended it. It may not hang: an alarm ends it. */
static int in_child(int (*body)(const void *), const void *arg)
{
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        _exit(body(arg));
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int child_runs_jobs(const void *arg)
{
    const uint64_t *want = arg;
    int bad = 0;
    for (int i = 0; i < COUNT(items); i++) {
        job_run(&jobs[i], &one);
        bad += prob_hash(&jobs[i].p) != want[i];
    }
    ssa_exec x = { 3, run_threads, NULL, NULL, 0 };                      /* threads of the child's own */
    job_run(&jobs[0], &x);
    return bad + (prob_hash(&jobs[0].p) != want[0]);
}

/* A child of a process that has used the library, OpenMP's threads too, calls it on one thread, or on its own. */
static void check_fork(void)
{
    if (NO_FORK) {
        SKIP("fork", "the thread sanitizer lets no child start threads");
        return;
    }
    jobs_make();
    FOR_LEVELS(l) {
        uint64_t want[COUNT(items)];
        for (int i = 0; i < COUNT(items); i++) { job_run(&jobs[i], NULL); want[i] = prob_hash(&jobs[i].p); }
        int result = in_child(child_runs_jobs, want);
        CHECK(result == 0, "a forked process: %d", result);
        CHECK(batch_bits(SSA_FULL, NULL, 0) == batch_bits(SSA_FULL, &one, 0), "the parent goes on");
    }
    jobs_free();
}

/* The kernel refuses the tiles: nothing above avx512 can be set, and that works. */
static int child_without_tiles(const void *arg)
{
    const uint64_t *want = arg;
#if defined(SSA__AMX_EMULATED)
    emu_permitted = 0;
#elif HAVE_SECCOMP
    struct sock_filter filter[] = {                                      /* arch_prctl with 0x1023: EPERM */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1023, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { COUNT(filter), filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 77;
#else
    return 77;
#endif
    if (ssa_isa_detected() > SSA_ISA_AVX512) return 1;
    if (ssa_isa_set(SSA_ISA_AMX) > SSA_ISA_AVX512 || ssa_isa_get() > SSA_ISA_AVX512) return 2;
    for (int i = 0; i < COUNT(items); i++) {
        job_run(&jobs[i], &one);
        if (prob_hash(&jobs[i].p) != want[i]) return 3;
    }
    return 0;
}

static void check_refused_tiles(void)
{
    uint64_t want[COUNT(items)];
    if (level_at(level_count() - 1) != SSA_ISA_AMX) { SKIP("tiles refused by the kernel", "no level amx"); return; }
    jobs_make();
    ssa_isa_set(SSA_ISA_AVX512);
    for (int i = 0; i < COUNT(items); i++) { job_run(&jobs[i], &one); want[i] = prob_hash(&jobs[i].p); }
    int result = in_child(child_without_tiles, want);
    if (result == 77) SKIP("tiles refused by the kernel", "seccomp does not take the filter");
    else CHECK(result == 0, "a kernel that refuses the tiles: %d", result);
    jobs_free();
}
#endif

void test_hosts(void)
{
    check_same_bits();
    check_float_modes();
#if HAVE_POSIX
    check_signals();
    check_small_stacks();
    check_callers();
    check_fork();
    check_refused_tiles();
#else
    SKIP("signals, small stacks, many threads, fork, refused tiles", "not a POSIX system");
#endif
}

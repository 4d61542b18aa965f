/* ssa.h - v0.1.0 - attention for C inference engines: full, block-sparse, and the loss that aligns the two
 *
 *   #define SSA_IMPLEMENTATION            // in ONE .c or .cpp file, before the include
 *   #include "ssa.h"
 *
 *   ssa_attn a = ssa_attn_default(32, 8, 128);         // query heads, key/value heads, head_dim
 *   a.n_q    = 1;                                      // a decode step; any number for a prefill
 *   a.n_kv   = pos + 1;                                // keys in the cache, the new token's included
 *   a.q.data = q;          a.out.data = out;           // [n_q][32][128], f32 unless .type says otherwise
 *   a.k.data = key_cache;  a.k.type = SSA_BF16;        // [n_kv][8][128]; other layouts: strides in bytes
 *   a.v.data = val_cache;  a.v.type = SSA_BF16;
 *   ssa_attention(&a, SSA_FULL, NULL);                 // softmax attention over every visible key
 *
 *   a.top_k  = 16;                                     // the 16 most important blocks of 16 keys, a query
 *   a.pool   = &pool;                                  // optional: pooled keys kept beside the cache
 *   ssa_attention(&a, SSA_SPARSE, NULL);               // cost: n_kv / 16 pooled keys + 256 keys, not n_kv
 *
 * One file, C11 or C++11, no dependency beyond the standard library's headers; OpenMP if the compiler has it on. The
 * best level of the CPU (scalar, avx2, avx512, amx; on ARM neon) is chosen at run time: compile with plain -O2, no
 * -march needed. WebAssembly has no such choice: its level simd128 is there where -msimd128 is given.
 * Keys are stored after RoPE; the library never rotates. Nothing is allocated in a call that was given its workspace.
 *
 * SSA (Sparse Sparse Attention, arXiv 2511.20102) trains one model to give nearly the same output with full and with
 * block-sparse attention by aligning the two at every layer. Such a model then runs sparse at any budget. Full
 * attention here serves every transformer; sparse attention serves SSA models, and any model that tolerates block
 * selection.
 *
 * CONTENTS                                                           a section may touch
 *    1  options                                                      macros only
 *    2  version, types, errors                                       stdint, stddef
 *    3  prototypes and their contracts                               -
 *   -- #ifdef SSA_IMPLEMENTATION --
 *    4  compiler and platform                                        the only tests of the compiler's own macros
 *    5  scalar helpers: f16, bf16, q8_0, exp, log, checked sizes     plain C
 *    6  the table of tile operations and the contract of each        plain C
 *    7  scalar operations: the readable definition of each entry     plain C
 *    8  primitives of AVX2, AVX-512, NEON, SIMD128, then 15         intrinsics
 *    9  products of bf16, AMX, BFMMLA: forms of their own            intrinsics
 *   10  detection and choice of a level                              CPUID, XCR0, arch_prctl, getauxval, getenv
 *   11  validation, plan, workspace                                  the only place that makes error codes
 *   12  block selection: pooled keys, importance, top-k              plain C over the table
 *   13  the attention loop, diagnosis, the alignment loss            plain C over the table
 *   14  public bodies, threads                                       the only OpenMP, the only SSA_MALLOC
 *   15  the vector pass: tile operations over section 8's primitives, re-included once per vector level
 *   16  licence
 *
 * To add a vector ISA: its primitives in 8, its detection in 10. A special unit: section 9. A key type: its reader in
 * 5, 7 and 15. A feature of the attention call: a field in 2, its check in 11, its line in 12 or 13.
 *
 * COMPLETE EXAMPLE: a sparse decode step with a pooled cache. Builds as it stands: cc -O2 example.c
 *
 *   #define SSA_IMPLEMENTATION
 *   #include "ssa.h"
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *   enum { HQ = 8, H = 2, D = 64, N = 1024 };
 *   static float q[HQ * D], k[N * H * D], v[N * H * D], out[HQ * D];
 *   int main(void)
 *   {
 *       for (int i = 0; i < N * H * D; i++) { k[i] = (float)(i * 7 % 31) / 31; v[i] = (float)(i * 5 % 13) / 13; }
 *       for (int i = 0; i < HQ * D; i++) q[i] = (float)(i * 3 % 19) / 19;
 *       ssa_view keys = { k, SSA_F32, 0, 0 };               // strides 0: contiguous [token][head][dim]
 *       size_t size = ssa_pool_size(H, D, 16, N, SSA_F32);
 *       void *memory = malloc(size);
 *       ssa_pool pool;                                      // one a layer, for as long as the cache lives
 *       ssa_status s = ssa_pool_init(&pool, H, D, 16, N, SSA_F32, memory, size);
 *       if (s == SSA_OK) s = ssa_pool_append(&pool, &keys, N);  // later: the new keys of each step
 *       ssa_attn a = ssa_attn_default(HQ, H, D);
 *       a.n_q = 1;       a.n_kv = N;
 *       a.q.data = q;    a.k.data = k;    a.v.data = v;    a.out.data = out;
 *       a.pool = &pool;
 *       if (s == SSA_OK) s = ssa_attention(&a, SSA_SPARSE, NULL);
 *       printf("%s, out[0] = %g\n", ssa_status_string(s), (double)out[0]);
 *       free(memory);
 *       return s != SSA_OK;
 *   }
 */
#ifndef SSA__VECTOR_PASS /* this file includes itself for section 15 alone */
#ifndef SSA_H
#define SSA_H

#include <stddef.h>
#include <stdint.h>

/* =====================================================================================================================
 * 1  OPTIONS. Each is 0 or 1 unless it says otherwise. Define before the include; "impl" = read only where
 *    SSA_IMPLEMENTATION is defined, "all" = must be the same in every file that includes ssa.h.
 * ================================================================================================================== */
#ifndef SSA_STATIC            /* all:  every function static: a private copy in this file */
#define SSA_STATIC 0
#endif
#ifndef SSA_NO_SIMD           /* impl: the scalar level only */
#define SSA_NO_SIMD 0
#endif
#ifndef SSA_NO_AVX2           /* impl: leave the avx2 level out */
#define SSA_NO_AVX2 0
#endif
#ifndef SSA_NO_AVX512         /* impl: leave the avx512 level out */
#define SSA_NO_AVX512 0
#endif
#ifndef SSA_NO_AMX            /* impl: leave the amx level out (x86-64 Linux has it) */
#define SSA_NO_AMX 0
#endif
#ifndef SSA_NO_NEON           /* impl: leave the neon level out (little-endian AArch64 has it) */
#define SSA_NO_NEON 0
#endif
#ifndef SSA_NO_SIMD128        /* impl: leave the simd128 level out (WebAssembly compiled with -msimd128 has it) */
#define SSA_NO_SIMD128 0
#endif
#ifndef SSA_NO_DISPATCH       /* impl: no CPU detection: the highest level compiled in is used, unconditionally */
#define SSA_NO_DISPATCH 0      /*       (not amx, which the OS must grant at run time, nor AVX512_BF16) */
#endif
#ifndef SSA_NO_OPENMP         /* impl: no OpenMP even when the compiler has it on: one thread, or ssa_exec's parallel */
#define SSA_NO_OPENMP 0
#endif
#ifndef SSA_NO_MALLOC         /* impl: no allocation: a call without a workspace returns SSA_ERR_WORKSPACE */
#define SSA_NO_MALLOC 0
#endif
#ifndef SSA_NO_GETENV         /* impl: the environment variable SSA_ISA is not read */
#define SSA_NO_GETENV 0
#endif
#ifndef SSA_CHECKED           /* impl: SSA_SELECT_GIVEN returns SSA_ERR_BLOCKS for duplicates and blocks out of range */
#define SSA_CHECKED 0         /*       (0: ignores them); SSA_ERR_PAGES for negative page numbers (0: trusts them) */
#endif
/* SSA_MALLOC(size), SSA_FREE(p)  impl: both or neither; default malloc and free
 * SSA_ASSERT(x)                  impl: internal consistency checks; default nothing
 * SSA_HEADER_FILENAME            impl: the name this file has, for its inclusion of itself; default "ssa.h" */

/* =====================================================================================================================
 * 2  VERSION, TYPES, ERRORS
 * ================================================================================================================== */
#define SSA_VERSION_MAJOR 0
#define SSA_VERSION_MINOR 1
#define SSA_VERSION_PATCH 0

#define SSA_MAX_DIM   1024          /* largest head_dim and value_dim */
#define SSA_MAX_BLOCK 4096          /* largest block_size */

/* SSA_Q8_0 is ggml's, for keys and values: a row of dim elements, a multiple of 32, is dim/32 blocks of 34 bytes, each
 * an f16 scale and then 32 int8. An element is scale * int8. Numbers of all types are in the machine's own byte order:
 * files are little-endian as a rule, which a big-endian machine swaps as it loads them. */
typedef enum { SSA_F32, SSA_F16, SSA_BF16, SSA_Q8_0 } ssa_type;
typedef enum { SSA_FULL, SSA_SPARSE } ssa_mode;
typedef enum { SSA_SELECT_TOPK, SSA_SELECT_REFERENCE, SSA_SELECT_GIVEN } ssa_select;
typedef enum { SSA_SCORE_SOFTMAX, SSA_SCORE_DOT } ssa_score;

typedef enum {
    SSA_OK               =   0,
    SSA_ERR_NULL         =  -1,     /* a required pointer is NULL */
    SSA_ERR_MODE         =  -2,     /* the mode is neither SSA_FULL nor SSA_SPARSE */
    SSA_ERR_HEADS        =  -3,     /* head counts below 1, or n_heads not a multiple of n_kv_heads */
    SSA_ERR_HEAD_DIM     =  -4,     /* head_dim outside 1..SSA_MAX_DIM, or k in q8_0: not a multiple of 32 */
    SSA_ERR_VALUE_DIM    =  -5,     /* value_dim outside 1..SSA_MAX_DIM, or v in q8_0: not a multiple of 32 */
    SSA_ERR_LENGTH       =  -6,     /* a token count or row count is negative */
    SSA_ERR_POSITION     =  -7,     /* sparse: a query lies past the last key; q_pos or at is 2^61 or more; at < 0 */
    SSA_ERR_TYPE         =  -8,     /* a type that this operand cannot have */
    SSA_ERR_STRIDE       =  -9,     /* a negative stride, or rows that are written overlap */
    SSA_ERR_SCALE        = -10,     /* scale is NaN or infinite */
    SSA_ERR_CAUSAL       = -11,     /* causal is neither 0 nor 1, or sparse without causal */
    SSA_ERR_BLOCK_SIZE   = -12,     /* block_size outside 1..SSA_MAX_BLOCK */
    SSA_ERR_TOP_K        = -13,     /* top_k below 1; a top_k_per_head outside 1 .. top_k, or with GIVEN */
    SSA_ERR_SELECT       = -14,     /* select is not an ssa_select */
    SSA_ERR_REFERENCE    = -15,     /* REFERENCE: block_size is not a power of two, or below 2, or below top_k */
    SSA_ERR_BLOCKS       = -16,     /* blocks: NULL where needed; with SSA_CHECKED also duplicates or out of range */
    SSA_ERR_POOL         = -17,     /* the pool is not initialised, has another shape, or fewer tokens than n_kv */
    SSA_ERR_POOL_FULL    = -18,     /* append: more than max_tokens */
    SSA_ERR_POOL_RANGE   = -19,     /* truncate, drop_front: more tokens than the pool holds; kv_append: not as many */
    SSA_ERR_POOL_MEMORY  = -20,     /* init: the memory is smaller than ssa_pool_size says */
    SSA_ERR_WORKSPACE    = -21,     /* the workspace is smaller than ssa_workspace_size says, or missing */
    SSA_ERR_MEMORY       = -22,     /* the allocation of the workspace failed */
    SSA_ERR_THREADS      = -23,     /* n_threads below 0, or a parallel callback without n_threads */
    SSA_ERR_BATCH        = -24,     /* the number of calls is negative */
    SSA_ERR_OVERFLOW     = -25,     /* a size or stride is too large for 63-bit arithmetic, or for size_t */
    SSA_ERR_BETA         = -26,     /* alignment loss: beta or grad_scale is negative (beta), NaN or infinite */
    SSA_ERR_UNSUPPORTED  = -27,     /* the call asks for something this version does not compute */
    SSA_ERR_WINDOW       = -28,     /* window is negative, or given in sparse mode or without causal */
    SSA_ERR_SOFTCAP      = -29,     /* softcap is negative, NaN or infinite */
    SSA_ERR_MASK         = -30,     /* the mask's type or stride */
    SSA_ERR_PAGES        = -31,     /* page_tokens below 1, or sparse: not a multiple of block_size; a negative page */
                                    /* stride; with SSA_CHECKED also a negative page number */
    SSA_ERR_SCORE        = -32,     /* score is not an ssa_score, or DOT without TOPK; select_per_head is not 0 or 1 */
    SSA_ERR_KEEP         = -33,     /* sink_blocks or local_blocks: negative, with the own block above top_k, or */
                                    /* without TOPK */
    SSA_ERR_TOP_P        = -34,     /* top_p is outside 0 .. 1, or NaN; or not 0 without TOPK and SOFTMAX */
    SSA_ERR_BUDGET       = -35      /* budget or min_context is negative */
} ssa_status;

/* Levels, in the order in which one is preferred within an architecture. A level is one complete table of operations.
 * */
typedef enum { SSA_ISA_SCALAR, SSA_ISA_AVX2, SSA_ISA_AVX512, SSA_ISA_AMX, SSA_ISA_NEON, SSA_ISA_SIMD128 } ssa_isa;

/* A tensor [token][head][dim] in the caller's memory; dim is always contiguous. Strides in BYTES; head_stride 0 means
 * the bytes of a row, token_stride 0 means heads * head_stride: contiguous [token][head][dim]. Rows need not be
 * aligned. */
typedef struct { void *data; ssa_type type; int64_t token_stride, head_stride; } ssa_view;

/* Pooled keys beside a KV cache, in the caller's memory: the mean key of each finished block, and the running sum of
 * the open one. Holds no pointer into the cache. Fields are read-only for callers; see ssa_pool_init. */
typedef struct {
    void    *pooled;                  /* [n_kv_heads][max_blocks][head_dim], f32 or bf16 */
    float   *open_sum;                /* [n_kv_heads][head_dim], the sum of the open block's keys */
    int64_t  n_tokens, max_tokens, max_blocks;
    int32_t  n_kv_heads, head_dim, block_size;
    ssa_type type;
} ssa_pool;

/* One attention call. Start from ssa_attn_default(): fields added later are then right by themselves.
 *
 * HQ = n_heads query heads, H = n_kv_heads, G = HQ / H query heads share one key/value head (query head h reads
 * key/value head h / G). Query i sits at position p = q_pos + i, key j at position j. Causal: key j is visible to query
 * i when j <= p. Example, n_q = 3, n_kv = 5, q_pos = -1 (so 2):  query 0 sees keys 0 1 2, query 1 sees 0 1 2 3, query 2
 * sees 0 1 2 3 4. A query that sees no key gives out = 0 and lse = -infinity. Block c holds keys c*block_size ..
 * (c+1)*block_size - 1.
 *
 * The score of a key, before the softmax, is made in this order, each step only where its field is set:
 *   s = scale * q.k;   s = softcap * tanh(s / softcap);   s += alibi * (j - p);   s += mask
 * and hidden keys (causal, window, a mask of -infinity) count for nothing, whatever they hold. In sparse mode block
 * selection looks at scale * q.k alone; the terms act on the keys of the selected blocks. */
typedef struct {
    int32_t  n_heads, n_kv_heads, head_dim, value_dim;
    int64_t  n_q, n_kv, q_pos;        /* q_pos < 0: n_kv - n_q, the last n_q positions */
    ssa_view q, k, v, out;            /* q [n_q][HQ][head_dim], k [n_kv][H][head_dim], v [n_kv][H][value_dim], */
                                      /* out [n_q][HQ][value_dim]; each f32, f16 or bf16, k and v also q8_0 */
    float    scale;                   /* 0: 1/sqrt(head_dim) */
    int32_t  causal;                  /* default 1; sparse needs 1 */
    const float *gate;                /* optional [n_q][HQ], multiplies the output */
    float   *lse;                     /* optional out [n_q][HQ]: log of the sum of exp(score), the sink's included */
    int64_t  window;                  /* full and causal: a query sees keys p-window+1 .. p, the last `window` up to */
                                      /* its own (Mistral, Gemma), and costs no more than these; 0: all of them */
    float    softcap;                 /* bounds the scores by +-softcap (Gemma 2); 0: none */
    const float *sinks;               /* optional [HQ]: a score without a key, which joins the softmax's denominator */
                                      /* (attention sinks: StreamingLLM, gpt-oss); -infinity: none for that head. A */
                                      /* query that sees no key gives out = 0 and lse = the sink. Give them to one of */
                                      /* the calls that ssa_merge joins, not to each */
    const void *mask;                 /* optional [n_q][n_kv], added to the scores of all heads; f32, f16 or bf16, */
    ssa_type mask_type;               /* else SSA_ERR_MASK. Rows mask_stride BYTES apart, 0: contiguous; any */
    int64_t  mask_stride;             /* alignment. -infinity hides the key from the query; a finite value below */
                                      /* -1e38 counts as -1e38; NaN or +infinity spoils the query, unless causality */
                                      /* or the window hides the key from it */
    const int32_t *pages;             /* NULL: the cache is contiguous; else token j is row j % page_tokens of page */
                                      /* pages[j / page_tokens], for all n_kv tokens, whatever order the pages have */
    int64_t  page_tokens;             /* at least 1; sparse: a multiple of block_size, which is the smallest */
    int64_t  page_stride_k, page_stride_v;     /* bytes from a page to the next; 0: page_tokens * token_stride. k and */
                                      /* v are the views of page 0. Page numbers are the caller's promise; those of */
                                      /* keys that no query sees are not followed */
    int32_t  block_size, top_k;       /* sparse: defaults 16, 16; top_k counts the query's own block */
    ssa_select select;                /* default SSA_SELECT_TOPK */
    ssa_score score;                  /* default SSA_SCORE_SOFTMAX; DOT: the raw scores rank blocks (MoBA) */
    int32_t  select_per_head;         /* 0: the heads of a group share their lists of blocks, L = H; 1: L = HQ */
    int32_t  sink_blocks, local_blocks; /* so many of the first blocks, and of those right before the own one, are */
                                      /* always kept; both and the own one within top_k. Default 0, 0 */
    float    top_p;                   /* 0 (or 1): off. Else in 0 .. 1: no more blocks than reach this share of the */
                                      /* importance of all */
    const int32_t *top_k_per_head;    /* optional [L]: a top_k for each list, 1 .. top_k */
    int32_t *blocks;                  /* [n_q][L][top_k] chosen blocks, -1 = empty slot. In for GIVEN (any order); */
                                      /* else an optional output: ascending, the empty slots last */
    const ssa_pool *pool;             /* pooled keys of k; NULL: pooled inside the call, in f32, by reading all of k */
    const float *alibi;               /* optional [HQ]: a slope each; adds slope * (j - p) to key j's score (ALiBi) */
    int64_t  budget;                  /* sparse, 0: off. Keys that a query may attend: max(1, budget / block_size) */
                                      /* stands in for top_k everywhere, in the shape of blocks too */
    int64_t  min_context;             /* sparse, 0: off. With n_kv below this ssa_attention runs the call as SSA_FULL */
                                      /* does, bit for bit; lists that it would have written are all -1 */
} ssa_attn;

/* fn(task, ith, nth): the share of worker ith of nth. Every ith in 0..nth-1 must run once, in any order, on any thread.
 * */
typedef void (*ssa_task)(void *task, int ith, int nth);

/* Where to run. A NULL ssa_exec: OpenMP's threads if compiled in, else one; workspace from malloc. In a process
 * forked from one that had OpenMP's threads these are gone, and may be waited for: n_threads 1, or a parallel of its
 * own. */
typedef struct {
    int    n_threads;                                                  /* 0: OpenMP's default, or 1 */
    void (*parallel)(void *user, ssa_task fn, void *task, int nth);    /* the engine's threads: runs fn for 0..nth-1, */
                                                                       /* returns when all are done; NULL: OpenMP */
    void  *user;                                                       /* handed to parallel */
    void  *workspace; size_t workspace_size;                           /* NULL: SSA_MALLOC inside the call. Too small */
                                                                       /* with n_threads 0: as many as fit */
} ssa_exec;

/* A prepared run. Fields are private; read-only after ssa_plan_make, so that every worker may share it. What workers
 * write is in the workspace. */
typedef struct {
    const void *table; unsigned char *calls, *scratch; size_t scratch_stride;
    int64_t cost, width; int32_t n, what, n_threads, n_phases, phase[7];
} ssa_plan;

typedef struct { double sparsity, commitment, total; } ssa_alignment;

/* What ssa_diagnose measures, each [n_q][n_heads], contiguous; NULL: not wanted. */
typedef struct { float *entropy, *sparsity, *delta, *bound; } ssa_diagnosis;
typedef struct { ssa_view d_out, d_q, d_k, d_v; float *d_gate; } ssa_grad;

/* =====================================================================================================================
 * 3  PROTOTYPES AND CONTRACTS
 *    All functions are thread-safe for calls on different data. A function that returns an ssa_status writes nothing
 *    unless it returns SSA_OK. The one global is the chosen level: read by every call, written by the first call of the
 *    process (the same value by whichever thread) and by ssa_isa_set. 16 KiB of stack are enough for each of them.
 *    They expect the floating-point modes that a program starts with, and leave them alone. With another rounding f32
 *    results keep 4 digits; where denormals are zero they lose no more than these; a call's threads need one mode.
 * ================================================================================================================== */
#if SSA_STATIC
#define SSA_API static inline
#elif defined(__cplusplus)
#define SSA_API extern "C"
#else
#define SSA_API extern
#endif

/* A call with every field at its default: value_dim = head_dim, f32 views, contiguous, causal, blocks of 16, top 16.
 * The caller sets n_q, n_kv and the four data pointers. Any argument is accepted; ssa_check judges it. */
SSA_API ssa_attn    ssa_attn_default(int32_t n_heads, int32_t n_kv_heads, int32_t head_dim);

/* Says what is wrong with a call, runs nothing. a: NULL gives SSA_ERR_NULL. Everything that ssa_attention would refuse
 * for the call's sake is refused here, with the same status: also a pool that does not hold n_kv tokens yet, so check
 * options at start-up without one. A sparse call that min_context runs full is checked as a sparse one. O(1), except
 * top_k_per_head: O(L); and with SSA_CHECKED: O(n_q * L * top_k^2) for GIVEN, and the page table is read. */
SSA_API ssa_status  ssa_check(const ssa_attn *a, ssa_mode mode);

/* Bytes of workspace for ssa_attention_batch(a, n, mode, x) or ssa_plan_make with n_threads workers (below 1 counts as
 * 1). 0 when a call is invalid or the size overflows. Depends on shapes, strides, types, positions, the selection's
 * fields, window, on whether softcap, alibi, a mask, a pool or blocks are given, and on the level in use; not on data.
 * What serves n_kv keys serves fewer, but not always fewer queries: a decode splits a long cache into shares, a prefill
 * does not; take the maximum over the shapes you use. Sparse without a pool needs n_kv_heads * head_dim * 4 bytes for
 * each block of the cache; a sparse prefill some MiB for each worker, for the rows that it gathers, and with bf16 on
 * level amx another copy of the keys and values that it reads. So does a full prefill of at least as many query rows
 * (n_q * n_heads / n_kv_heads) as keys, as floats where halves are not multiplied as such; it goes without where a
 * workspace has no room for that. Any alignment will do. */
SSA_API size_t      ssa_workspace_size(const ssa_attn *a, int32_t n, ssa_mode mode, int n_threads);

/* out = gate * softmax(scores) . V over the visible keys (SSA_FULL), or over those in the selected blocks
 * (SSA_SPARSE); the scores are scale * q.K^T with the terms that ssa_attn describes. x: NULL for defaults. Same bits
 * for any number of threads and any way to run, on one level; levels differ within the tolerance of the types, but for
 * amx, which has avx512's bits where q is f32 and neither k nor v is q8_0. Accumulates in f32. Level amx multiplies
 * halves as they are: where q, k and v are f16 or bf16, exp(score) is rounded to v's precision before it meets v, as
 * programs in that type do, and lse is that of the rounded ones; give f32 queries to keep it in f32. It multiplies q8_0
 * as int8, by q and weights rounded to 30 bits. Level neon does with bf16 as amx, where the CPU has instructions for it
 * (Neoverse N2 and V1, Apple M2, and later). A key or value that a query does not see has no effect on it, NaN and
 * infinity included; one that it sees and that is NaN spoils it. Inputs may overlap each other; out, lse and blocks may
 * overlap nothing.
 * Source: the paper's full and sparse attention streams; the selection as described at ssa_select_blocks. */
SSA_API ssa_status  ssa_attention(const ssa_attn *a, ssa_mode mode, const ssa_exec *x);

/* A ragged batch: n calls of any shapes, a[0..n-1], run as one, the work balanced over the threads. The outputs of the
 * calls must not overlap. n = 0 does nothing. Checked first as a whole: one invalid call and nothing is written. */
SSA_API ssa_status  ssa_attention_batch(const ssa_attn *a, int32_t n, ssa_mode mode, const ssa_exec *x);

/* Writes a->blocks [n_q][L][top_k] only (L = n_kv_heads, or n_heads with select_per_head); v and out are not touched
 * and may be NULL. The query at position p, in block cur = p / block_size, always chooses cur; of the blocks before it,
 * those whose mean key the group's heads like most:
 *   importance(c) = sum over the group's g of exp(scale * q_g.kbar_c - lse_g),  lse_g = log sum over complete blocks c
 *   of exp(scale * q_g.kbar_c), where block c is complete for the query when (c+1) * block_size <= p + 1.
 * SSA_SELECT_TOPK (the paper): the top_k blocks of highest importance, exactly; ties to the lower index. A block whose
 *   mean key is NaN or infinite ranks below all others, which rank as if it were not there.
 * SSA_SELECT_REFERENCE (the official GPU kernel, which the released checkpoints were trained with): its running list of
 *   block_size candidates is exact only in its upper half. What it keeps amounts to: with the blocks cut in chunks of
 *   block_size blocks, the exact best block_size/2 of all chunks before the one that holds cur, and the best
 *   block_size/2 of that one; of these the best top_k. While cur < block_size, or when top_k <= block_size/2: the same
 *   as TOPK.
 * SSA_SELECT_GIVEN: refused with SSA_ERR_SELECT: there is nothing to select.
 * What the other fields change, here and in ssa_attention:
 *   select_per_head  each query head chooses by its own importance alone, the same blocks it would choose as a group of
 *                    one. With every select; GIVEN then reads a list for each query head.
 *   SSA_SCORE_DOT    importance(c) = sum over the group's g of scale * q_g.kbar_c: no softmax, may be negative. With
 *                    select_per_head this is MoBA's gate (arXiv 2502.13189). Importance that is not finite ranks below
 *                    all other. TOPK only, else SSA_ERR_SCORE.
 *   sink_blocks, local_blocks   blocks 0 .. sink_blocks - 1 and cur - local_blocks .. cur - 1 are kept first. Where
 *                    they overlap, or there are not so many, the others get their slots. They and the own block may not
 *                    exceed top_k, nor a top_k of a list: SSA_ERR_KEEP. TOPK only, else SSA_ERR_KEEP.
 *   top_p            after sinks and locals the best follow only until those kept have the share top_p of the
 *                    importance of all blocks before cur (the own block counts for neither); top_k still holds. Sums
 *                    are in double. 1 keeps as many as 0. TOPK with SOFTMAX only, else SSA_ERR_TOP_P.
 *   top_k_per_head   list l keeps at most top_k_per_head[l] blocks; the slots after them are -1. A value outside 1 ..
 *                    top_k, or GIVEN: SSA_ERR_TOP_K. With REFERENCE: the best so many of what it amounts to.
 *   budget           as the field says, with every select.
 *   min_context      has no effect here: lists are selected however few the keys.
 * Importance is rounded to f32, differently by each level: near ties, of two blocks or with the share, may be cut
 * differently by levels, and in a prefill and a decode.
 * A query at a negative position (n_q > n_kv) sees nothing: all its slots are -1. */
SSA_API ssa_status  ssa_select_blocks(const ssa_attn *a, const ssa_exec *x);

/* For engines whose workers cannot be called back: one thread makes a plan, then every worker ith of nth runs phase 0,
 * 1, .. ssa_plan_phases(p) - 1, each once, with a barrier of the engine's own between phases. nth may be anything from
 * 1 to n_threads, the same for all workers of a phase; who is quick, or there early, does more of it. After the last
 * phase all may be run again; a plan that was left half-way must be made anew. ws, and what the calls point to, must
 * stay until the last phase ends. ws: at least ssa_workspace_size(a, n, mode, n_threads) bytes. ssa_plan_run ignores
 * NULL, phases and workers out of range. */
SSA_API ssa_status  ssa_plan_make(ssa_plan *p, const ssa_attn *a, int32_t n, ssa_mode mode, int n_threads,
                                  void *ws, size_t size);
SSA_API int         ssa_plan_phases(const ssa_plan *p);
SSA_API void        ssa_plan_run(const ssa_plan *p, int phase, int ith, int nth);

/* Pooled keys beside a KV cache, kept up token by token: O(head_dim) a token and head, so that a sparse decode never
 * reads the keys it does not choose. type: SSA_F32, or SSA_BF16 (half the bytes; what the official code keeps for bf16
 * models). ssa_pool_size: the bytes of memory for max_tokens tokens; 0 for invalid arguments or overflow.
 * ssa_pool_init: an empty pool in the caller's memory (any alignment); which must outlive the pool and not move.
 * One pool is one writer's: do not change it while a call reads it. k's views are [token][n_kv_heads][head_dim], of the
 * cache's type: f32, f16, bf16 or q8_0. */
SSA_API size_t      ssa_pool_size(int32_t n_kv_heads, int32_t head_dim, int32_t block_size, int64_t max_tokens,
                                  ssa_type type);
SSA_API ssa_status  ssa_pool_init(ssa_pool *p, int32_t n_kv_heads, int32_t head_dim, int32_t block_size,
                                  int64_t max_tokens, ssa_type type, void *memory, size_t size);
/* Adds the next n_tokens keys; k->data is the first NEW key, not the start of the cache. Keys of several pages: a call
 * for each piece that lies together, or ssa_kv_append. SSA_ERR_POOL_FULL past max_tokens. */
SSA_API ssa_status  ssa_pool_append(ssa_pool *p, const ssa_view *k, int64_t n_tokens);
/* Rolls back to the first n_tokens tokens (speculative decoding); k->data is the START of the cache, whose last open
 * block is summed again. Bit for bit the pool that n_tokens appends would give. SSA_ERR_POOL_RANGE when it holds fewer.
 * Of the cache only rows n_tokens - n_tokens % block_size .. n_tokens - 1 are read: where it is paged, and these lie in
 * one page, give the address at which token 0 would lie if all lay as they do. */
SSA_API ssa_status  ssa_pool_truncate(ssa_pool *p, const ssa_view *k, int64_t n_tokens);
/* Forgets the first n_tokens tokens after the cache was compacted: k->data is the START of the compacted cache, whose
 * token 0 is the old token n_tokens. A multiple of block_size moves the pooled keys and reads none of the cache's, so
 * that pages may be dropped; any other number pools the cache again, which then must be contiguous. */
SSA_API ssa_status  ssa_pool_drop_front(ssa_pool *p, const ssa_view *k, int64_t n_tokens);

/* Writes n_tokens new keys and values to a cache, as its tokens at .. at + n_tokens - 1, in its types. a describes the
 * cache as a call of attention does: n_kv_heads, head_dim, value_dim, k, v, pages, page_tokens, page_stride_k and _v;
 * its other fields are not looked at. k_new [n_tokens][n_kv_heads][head_dim], v_new [n_tokens][n_kv_heads][value_dim]:
 * f32, f16 or bf16, rounded to nearest even. To q8_0 as ggml's quantize_row_q8_0_ref rounds: for each 32, scale = max
 * |x| / 127, int8 = x / scale, halves away from zero, the scale itself kept in f16; 32 values with a NaN or an infinity
 * among them all become NaN. They may not overlap the cache. NULL: that half of the cache is left alone.
 * pool: NULL, or the cache's, which gets the keys as they were stored, bit for bit what ssa_pool_append of the cache's
 * new rows gives. It needs k_new (SSA_ERR_NULL), the cache's shape (SSA_ERR_POOL), to hold `at` tokens
 * (SSA_ERR_POOL_RANGE) and to have room (SSA_ERR_POOL_FULL). at below 0 or above 2^61: SSA_ERR_POSITION. New rows in
 * q8_0: SSA_ERR_TYPE. Rows of the cache, or of a page, that overlap: SSA_ERR_STRIDE; that pages do not is the caller's
 * promise. Other statuses as of attention. Runs on one thread, beside calls that read other tokens. */
SSA_API ssa_status  ssa_kv_append(const ssa_attn *a, int64_t at, const ssa_view *k_new, const ssa_view *v_new,
                                  int64_t n_tokens, ssa_pool *pool);

/* Joins attention over two disjoint sets of keys: a becomes the attention over both. out [rows][dim] ungated, lse
 * [rows], all f32 and contiguous; b may not overlap a. A row with lse = -infinity counts for nothing. NULL or rows, dim
 * < 1: does nothing. lse_a NULL or lse_b NULL is not meaningful and does nothing. */
SSA_API void        ssa_merge(float *out_a, float *lse_a, const float *out_b, const float *lse_b, int64_t rows,
                              int32_t dim);

/* sparsity[i] = exp(lse_sparse[i] - lse_full[i]): the share of full attention's mass inside the selected blocks (the
 * paper's Definition 1), for the lse of the same query and head from a sparse and a full call. 1 where nothing was
 * visible. A sink that both calls had counts as mass inside. NULL, n < 1: does nothing. sparsity may be one of the
 * inputs. */
SSA_API void        ssa_attention_sparsity(const float *lse_sparse, const float *lse_full, int64_t n, float *sparsity);

/* How full attention's weights p of a call lie, and what its sparse selection would drop of them; for each query and
 * head, in one pass in double over the inputs widened to f32:
 *   entropy   -sum p log p, in natural units: 0 for one key, log n for n keys of equal weight
 *   sparsity  the sum of p inside the selected blocks: what ssa_attention_sparsity gives (the paper's Definition 1)
 *   delta     the sum of p outside: 1 - sparsity, without the digits that this subtraction would lose
 *   bound     delta * (max over dropped keys of |v| + |s|), the paper's Theorem 1: |f - s| is not above it, where f and
 *             s are the full and the sparse output without gate, before they are rounded; 0 when nothing is dropped
 * a is a call as for SSA_SPARSE, all of whose fields count but gate, lse and out, which are not looked at: softcap,
 * alibi, mask, pages, select, min_context (where the call would run full nothing is dropped). blocks is read with
 * GIVEN, and else an optional output, as in ssa_attention. A sink is one more outcome of the entropy, and for the
 * others mass inside, as in ssa_attention_sparsity. A query that sees no key has 0, 1, 0, 0. A sink or a visible score
 * that is not finite makes all four NaN, a visible value the bound alone; what is hidden has no effect. Refused with
 * the same statuses as in a sparse ssa_attention (SSA_ERR_WINDOW for a window); a or d NULL: SSA_ERR_NULL. What is
 * written may overlap nothing.
 * Slow: O(n_q * n_heads * n_kv * (head_dim + value_dim)), on the calling thread; n_threads and parallel are checked and
 * not used, so the bits are always the same. Takes ssa_workspace_size(a, 1, SSA_SPARSE, 1) bytes of workspace (that
 * function does want a valid out).
 * Source: the paper's Definition 1 and Theorem 1. */
SSA_API ssa_status  ssa_diagnose(const ssa_attn *a, const ssa_diagnosis *d, const ssa_exec *x);

/* The bidirectional alignment loss of one layer (the paper's L_alignment; the official code takes gated outputs):
 *   sparsity = mean SmoothL1(full - stop(sparse)), commitment = mean SmoothL1(sparse - stop(full)), total = their sum,
 *   SmoothL1(d) = |d| < beta ? d*d / (2*beta) : |d| - beta/2.  The means are over all n_tokens * n_heads * dim
 *   elements.
 * full, sparse: [n_tokens][n_heads][dim] views, f32, f16 or bf16. beta: 1 in the official code; 0 is the plain |d|.
 * loss: the three values, summed in double; NULL: not wanted. d_full, d_sparse: views that receive grad_scale * d
 * total/d full (from the first term alone) and d total/d sparse (from the second alone), in their own type; NULL: not
 * wanted. They may be the inputs' own memory when shape, type and strides agree. No elements: all 0. */
SSA_API ssa_status  ssa_alignment_loss(const ssa_view *full, const ssa_view *sparse, int64_t n_tokens, int32_t n_heads,
                                       int32_t dim, float beta, ssa_alignment *loss, float grad_scale,
                                       ssa_view *d_full, ssa_view *d_sparse);

/* Gradients through attention. This version returns SSA_ERR_UNSUPPORTED for a valid call. */
SSA_API ssa_status  ssa_attention_backward(const ssa_attn *a, ssa_mode mode, const ssa_grad *g, const ssa_exec *x);

/* A sentence about a status; never NULL. */
SSA_API const char *ssa_status_string(ssa_status s);

/* Levels. detected: the best that is compiled in and that this CPU and OS run. get: the one in use; at first detected,
 * or what the environment variable SSA_ISA names (scalar, avx2, ..) if it can run. set: uses wanted, or the best
 * available below it, for calls and plans made afterwards, and returns what is now in use. name: "scalar", "avx2", ..;
 * "unknown" for no level. */
SSA_API ssa_isa     ssa_isa_detected(void);
SSA_API ssa_isa     ssa_isa_set(ssa_isa wanted);
SSA_API ssa_isa     ssa_isa_get(void);
SSA_API const char *ssa_isa_name(ssa_isa isa);

#endif /* SSA_H */

#ifdef SSA_IMPLEMENTATION
#ifndef SSA__IMPLEMENTED
#define SSA__IMPLEMENTED

/* =====================================================================================================================
 * 4  COMPILER AND PLATFORM. What the sections below may use of the compiler, under names of our own.
 *    SSA__TARGET_x marks a function that may use ISA x; SSA__HAVE_x is 1 when level x is compiled in.
 * ================================================================================================================== */
#include <float.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define SSA__FORCE_INLINE static inline __attribute__((always_inline))
#define SSA__NO_INLINE    static __attribute__((noinline, unused))
#define SSA__RESTRICT     __restrict__
#define SSA__PREFETCH(p)  __builtin_prefetch((const void *)(p))
#define SSA__PREFETCH_L2(p) __builtin_prefetch((const void *)(p), 0, 2)
#define SSA__TARGET_AVX2   __attribute__((target("avx2,fma,f16c")))
#define SSA__TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define SSA__TARGET_B16 __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define SSA__TARGET_AMX \
    __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define SSA__BARRIER() __asm__ __volatile__("" ::: "memory")
#define SSA__LOWEST(bits) __builtin_ctz(bits) /* index of the lowest bit set; bits != 0 */
#define SSA__COUNT(bits)  __builtin_popcount(bits)
#define SSA__ATOMIC_GET(p)    __atomic_load_n((p), __ATOMIC_RELAXED)
#define SSA__ATOMIC_SET(p, x) __atomic_store_n((p), (x), __ATOMIC_RELAXED)
#define SSA__ATOMIC_NEXT(p)   __atomic_fetch_add((p), 1, __ATOMIC_ACQ_REL) /* counts up; what it was */
#define SSA__CAN_COUNT 1
#define SSA__TARGET_NEON /* a part of AArch64 */
#define SSA__TARGET_SIMD128 /* a module uses it or does not */
#define SSA__TARGET_BFMM __attribute__((target("+bf16")))
#define SSA__CAN_SIMD 1
#elif defined(_MSC_VER)
#define SSA__FORCE_INLINE static __forceinline
#define SSA__NO_INLINE    static __declspec(noinline)
#define SSA__RESTRICT     __restrict
#define SSA__PREFETCH(p)  ((void)(p))
#define SSA__PREFETCH_L2(p) ((void)(p))
#define SSA__TARGET_AVX2
#define SSA__TARGET_AVX512
#define SSA__TARGET_B16
#define SSA__TARGET_AMX
#define SSA__BARRIER() _ReadWriteBarrier()
#define SSA__LOWEST(bits) ((int)_tzcnt_u32(bits))
#define SSA__COUNT(bits)  ((int)_mm_popcnt_u32(bits))
#define SSA__ATOMIC_GET(p)    (*(const volatile int *)(p)) /* an aligned int is read and written whole */
#define SSA__ATOMIC_SET(p, x) (*(volatile int *)(p) = (x))
#define SSA__ATOMIC_NEXT(p)   ((int)_InterlockedIncrement((volatile long *)(p)) - 1)
#define SSA__CAN_COUNT 1
#define SSA__CAN_SIMD 1
#else
#define SSA__FORCE_INLINE static inline
#define SSA__NO_INLINE    static
#define SSA__RESTRICT
#define SSA__PREFETCH(p)  ((void)(p))
#define SSA__PREFETCH_L2(p) ((void)(p))
#define SSA__ATOMIC_GET(p)    (*(const volatile int *)(p))
#define SSA__ATOMIC_SET(p, x) (*(volatile int *)(p) = (x))
#define SSA__ATOMIC_NEXT(p)   ((*(p))++)
#define SSA__CAN_COUNT 0 /* threads together */
#define SSA__CAN_SIMD 0
#endif

/* Two false alarms of gcc 12 over its own AVX-512 intrinsics: it takes their deliberately undefined operands for uses
 * of uninitialised variables; and at -O0, where some are macros, their masks of -1 convert signs. */
#if defined(__GNUC__) && !defined(__clang__)
#define SSA__DIAG_PUSH _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"") \
    _Pragma("GCC diagnostic ignored \"-Wuninitialized\"")
#define SSA__DIAG_SIGN _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wsign-conversion\"")
#define SSA__DIAG_POP  _Pragma("GCC diagnostic pop")
#else
#define SSA__DIAG_PUSH
#define SSA__DIAG_SIGN
#define SSA__DIAG_POP
#endif
SSA__DIAG_PUSH

/* Before a loop with constant bounds after inlining, over an array of vectors that must end up in registers. */
#if defined(__clang__)
#define SSA__UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define SSA__UNROLL _Pragma("GCC unroll 16")
#else
#define SSA__UNROLL
#endif

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64) || defined(_M_IX86)
#define SSA__X86 SSA__CAN_SIMD
#else
#define SSA__X86 0
#endif
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__) && !defined(_MSC_VER)
#define SSA__ARM64 SSA__CAN_SIMD
#else
#define SSA__ARM64 0
#endif
#if defined(__wasm_simd128__) && defined(__clang__)
#define SSA__WASM SSA__CAN_SIMD
#else
#define SSA__WASM 0
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#define SSA__CPUID_MSVC 1
#else
#define SSA__CPUID_MSVC 0
#endif
#define SSA__HAVE_AVX2   (SSA__X86 && !SSA_NO_SIMD && !SSA_NO_AVX2)
#define SSA__HAVE_AVX512 (SSA__X86 && !SSA_NO_SIMD && !SSA_NO_AVX512)
#define SSA__HAVE_NEON   (SSA__ARM64 && !SSA_NO_SIMD && !SSA_NO_NEON)
#define SSA__HAVE_SIMD128 (SSA__WASM && !SSA_NO_SIMD && !SSA_NO_SIMD128)
/* Products of bf16: on x86-64, with compilers that know them. */
#if defined(__clang__)
#define SSA__B16_COMPILER (__clang_major__ >= 9)
#elif defined(__GNUC__)
#define SSA__B16_COMPILER (__GNUC__ >= 10)
#else
#define SSA__B16_COMPILER 0
#endif
#if defined(__x86_64__)
#define SSA__HAVE_B16 (SSA__HAVE_AVX512 && SSA__B16_COMPILER && !SSA_NO_DISPATCH)
#else
#define SSA__HAVE_B16 0
#endif

/* AMX: on x86-64 Linux, where a system call asks for the permission to use it, and with compilers that know it. */
#if defined(__clang__)
#define SSA__AMX_COMPILER (__clang_major__ >= 12)
#elif defined(__GNUC__)
#define SSA__AMX_COMPILER (__GNUC__ >= 11)
#else
#define SSA__AMX_COMPILER 0
#endif
#if defined(__x86_64__) && defined(__linux__) && SSA__AMX_COMPILER
#define SSA__HAVE_AMX (SSA__HAVE_AVX512 && !SSA_NO_AMX && !SSA_NO_DISPATCH)
#else
#define SSA__HAVE_AMX 0
#endif

/* BFMMLA, which the CPU may lack: with compilers that know it, and where the build or the OS says that it is there. */
#if defined(__clang__)
#define SSA__BFMM_COMPILER (__clang_major__ >= 16)
#elif defined(__GNUC__)
#define SSA__BFMM_COMPILER (__GNUC__ >= 10)
#else
#define SSA__BFMM_COMPILER 0
#endif
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define SSA__BFMM_GIVEN 1
#else
#define SSA__BFMM_GIVEN 0
#endif
#if defined(__linux__) && !SSA_NO_DISPATCH
#define SSA__AUXV 1
#else
#define SSA__AUXV 0
#endif
#if defined(__APPLE__) && !SSA_NO_DISPATCH
#define SSA__SYSCTL 1
#else
#define SSA__SYSCTL 0
#endif
#define SSA__HAVE_BFMM (SSA__HAVE_NEON && SSA__BFMM_COMPILER && (SSA__BFMM_GIVEN || SSA__AUXV || SSA__SYSCTL))

#ifndef SSA_HEADER_FILENAME
#define SSA_HEADER_FILENAME "ssa.h"
#endif
#ifndef SSA_ASSERT
#define SSA_ASSERT(x) ((void)0)
#endif
#if defined(SSA_MALLOC) != defined(SSA_FREE)
#error "ssa.h: define both SSA_MALLOC and SSA_FREE, or neither"
#endif
#if !SSA_NO_GETENV || (!SSA_NO_MALLOC && !defined(SSA_MALLOC))
#include <stdlib.h>
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h> /* _InterlockedIncrement, without any level too */
#endif
#if SSA__HAVE_AVX2 || SSA__HAVE_AVX512
#include <immintrin.h>
#if SSA__CPUID_MSVC
#include <intrin.h>
#elif !SSA_NO_DISPATCH
#include <cpuid.h>
#endif
#endif
#if SSA__HAVE_NEON
#include <arm_neon.h>
#endif
#if SSA__HAVE_SIMD128
#include <wasm_simd128.h>
#endif
#if SSA__HAVE_BFMM && SSA__AUXV
#include <sys/auxv.h>
#elif SSA__HAVE_BFMM && SSA__SYSCTL
#include <sys/sysctl.h>
#endif

/* =====================================================================================================================
 * 5  SCALAR HELPERS: conversions, exp and log without libm, checked arithmetic.
 *    NaN and infinity are told by their bits: -ffast-math lets a compiler assume that comparisons never meet them.
 * ================================================================================================================== */
/* The bits of a float, and the float of bits: memcpy is the one way both languages allow. */
static inline uint32_t ssa__bits(float x)    { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline float    ssa__float(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }
static inline int      ssa__is_nan(float x)  { return (ssa__bits(x) & 0x7fffffffu) > 0x7f800000u; }
static inline int      ssa__is_finite(float x) { return (ssa__bits(x) & 0x7f800000u) != 0x7f800000u; }
#define SSA__INF_BITS     0x7f800000u
#define SSA__NEG_INF_BITS 0xff800000u

/* IEEE half: 1 sign, 5 exponent (bias 15), 10 mantissa bits; all subnormals, infinities and NaN. */
static inline float ssa__f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    if (e == 0) return ssa__float(sign | ssa__bits((float)m * 5.9604644775390625e-8f)); /* m * 2^-24 */
    return ssa__float(sign | (e == 31 ? 0x7f800000u : (e + 112) << 23) | m << 13);
}

static inline uint16_t ssa__f32_to_f16(float x) /* to nearest even; NaN stays NaN */
{
    uint32_t u = ssa__bits(x), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);                     /* 65520 and above round to infinity */
    if (a <= 0x33000000u) return (uint16_t)sign;                                 /* 2^-25 and below round to zero */
    if (a < 0x38800000u) {                                                       /* subnormal: units of 2^-24 */
        uint32_t m = (a & 0x7fffffu) | 0x800000u, shift = 126 - (a >> 23), r = m >> shift;
        uint32_t rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
        return (uint16_t)(sign | (r + (rest > half || (rest == half && (r & 1)))));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + ((a >> 13) & 1)) >> 13));
}

/* bfloat16: the upper half of a float. */
static inline float ssa__bf16_to_f32(uint16_t b) { return ssa__float((uint32_t)b << 16); }

static inline uint16_t ssa__f32_to_bf16(float x) /* to nearest even; NaN stays NaN */
{
    uint32_t u = ssa__bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

#define SSA__TYPES 4     /* the types with an entry in the table: all */
#define SSA__Q8_DIM 32   /* elements of a q8_0 block: int8, after the f16 by which they are multiplied; */
#define SSA__Q8_BYTES 34 /* and its bytes */

/* Bytes of the first n elements of a row; of q8_0 whole blocks. */
static inline int64_t ssa__row_bytes(ssa_type t, int64_t n)
{
    return t == SSA_Q8_0 ? n / SSA__Q8_DIM * SSA__Q8_BYTES : t == SSA_F32 ? 4 * n : 2 * n;
}

/* Element i of a row of type t; p need not be aligned. Exact: a q8_0 element has 11 + 7 bits. */
static inline float ssa__load(ssa_type t, const unsigned char *p, int64_t i)
{
    float x; uint16_t h;
    if (t == SSA_F32) { memcpy(&x, p + 4 * i, 4); return x; }
    if (t == SSA_Q8_0) {
        int8_t q;
        p += ssa__row_bytes(t, i);
        memcpy(&h, p, 2);
        memcpy(&q, p + 2 + i % SSA__Q8_DIM, 1);
        return ssa__f16_to_f32(h) * (float)q;
    }
    memcpy(&h, p + 2 * i, 2);
    return t == SSA_F16 ? ssa__f16_to_f32(h) : ssa__bf16_to_f32(h);
}

/* Rounds x to element i of a row of type t. */
static inline void ssa__store(ssa_type t, unsigned char *p, int64_t i, float x)
{
    uint16_t h;
    if (t == SSA_F32) { memcpy(p + 4 * i, &x, 4); return; }
    h = t == SSA_F16 ? ssa__f32_to_f16(x) : ssa__f32_to_bf16(x);
    memcpy(p + 2 * i, &h, 2);
}

/* A q8_0 block from SSA__Q8_DIM floats, as ggml's reference has it: the largest becomes 127, the others are rounded,
 * halves away from zero, in units of the scale before it is an f16 itself. Quotients in double round as in float, and
 * -ffast-math cannot tell. A block with a NaN or an infinity becomes all NaN. */
static inline void ssa__store_q8_0(unsigned char *p, const float *x)
{
    float top = 0.0f, unit, inv = 0.0f;
    int finite = 1;
    uint16_t h;
    for (int i = 0; i < SSA__Q8_DIM; i++) {
        float size = x[i] < 0.0f ? -x[i] : x[i];
        finite &= ssa__is_finite(x[i]);
        if (size > top) top = size;
    }
    unit = (float)((double)top / 127.0);
    if (finite && unit >= FLT_MIN) inv = (float)(1.0 / (double)unit); /* below: zeros, as the scale is */
    h = finite ? ssa__f32_to_f16(unit) : (uint16_t)0x7e00u;
    memcpy(p, &h, 2);
    for (int i = 0; i < SSA__Q8_DIM; i++) {
        float y = finite ? x[i] * inv : 0.0f;
        p[2 + i] = (unsigned char)(int)((double)y + (y < 0.0f ? -0.5 : 0.5));
    }
}

#define SSA__LOG2E 1.4426950408889634
#define SSA__LN2   0.6931471805599453

/* The kernels' exponential: exp(x) = 2^n * 2^f with n = round(x log2 e) and f in [-0.5, 0.5]; 2^f is a minimax
 * polynomial of degree 6, relative error 8e-8. The vector pass has the same one. */
#define SSA__EXP_LOW (-88.0f) /* below: 0 */
#define SSA__LN2_1 0.693359375f      /* ln 2 is this, of 9 bits, .. */
#define SSA__LN2_2 (-2.12194440e-4f) /* .. and this */
#define SSA__EXP_C1 0.693147182f
#define SSA__EXP_C2 0.240226477f
#define SSA__EXP_C3 0.0555033237f
#define SSA__EXP_C4 0.00961843692f
#define SSA__EXP_C5 0.0013398875f
#define SSA__EXP_C6 0.00015353362f

static inline float ssa__expf(float x) /* above 88: exp(88); NaN: NaN */
{
    float f, p;
    int32_t n;
    if (ssa__is_nan(x)) return x;
    if (x < SSA__EXP_LOW) return 0.0f;
    if (x > 88.0f) x = 88.0f;
    n = (int32_t)(x * (float)SSA__LOG2E + (x < 0.0f ? -0.5f : 0.5f));
    /* f = x log2 e - n through x - n ln 2, with ln 2 in two parts: n times the first is exact, so no digit is lost */
    f = ((x - (float)n * SSA__LN2_1) - (float)n * SSA__LN2_2) * (float)SSA__LOG2E;
    p = SSA__EXP_C6;
    p = p * f + SSA__EXP_C5;
    p = p * f + SSA__EXP_C4;
    p = p * f + SSA__EXP_C3;
    p = p * f + SSA__EXP_C2;
    p = p * f + SSA__EXP_C1;
    p = p * f + 1.0f;
    return p * ssa__float((uint32_t)(n + 127) << 23); /* n >= -127, where the factor is 0 */
}

/* tanh, relative error 2e-7: an odd polynomial below 0.625, where 1 - exp(-2|x|) would lose its digits. The vector pass
 * has the same one. */
#define SSA__TANH_SMALL 0.625f
#define SSA__TANH_C1 (-0.333332819f)
#define SSA__TANH_C2 0.133314422f
#define SSA__TANH_C3 (-0.0537397155f)
#define SSA__TANH_C4 0.0206390888f
#define SSA__TANH_C5 (-0.00570498873f)

static inline float ssa__tanhf(float x) /* NaN: NaN */
{
    float size = x < 0.0f ? -x : x, e, p, z = x * x;
    if (ssa__is_nan(x)) return x;
    if (size < SSA__TANH_SMALL) {
        p = SSA__TANH_C5;
        p = p * z + SSA__TANH_C4;
        p = p * z + SSA__TANH_C3;
        p = p * z + SSA__TANH_C2;
        p = p * z + SSA__TANH_C1;
        return p * z * x + x;
    }
    e = ssa__expf(-2.0f * size);
    e = (1.0f - e) / (1.0f + e);
    return x < 0.0f ? -e : e;
}

static inline double ssa__exp(double x) /* relative error 1e-15; for the few uses outside the kernels; NaN: NaN */
{
    static const double over[] = { 1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
                                   1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0 };
    double r, p = over[13];
    int32_t n, i;
    uint64_t u;
    if (ssa__is_nan((float)x)) return x;
    if (x < -700.0) return 0.0;
    if (x > 700.0) x = 700.0;
    n = (int32_t)(x * SSA__LOG2E + (x < 0 ? -0.5 : 0.5));
    r = x - n * SSA__LN2;
    for (i = 12; i >= 0; i--) p = over[i] + p * r;
    u = (uint64_t)(int64_t)(n + 1023) << 52;
    memcpy(&x, &u, 8);
    return p * x;
}

static inline double ssa__log(double x) /* x positive and normal; absolute error 1e-15 + 1e-16 |log x|; NaN: NaN */
{
    static const double over[] = { 1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17,
                                   1.0 / 19, 1.0 / 21 };
    double m, s, s2, p = 0.0;
    int32_t e, i;
    uint64_t u;
    if (ssa__is_nan((float)x)) return x;
    memcpy(&u, &x, 8);
    e = (int32_t)(u >> 52) - 1023;
    u = (u & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    memcpy(&m, &u, 8);
    if (m > 1.4142135623730951) { m *= 0.5; e++; }
    s = (m - 1) / (m + 1);                             /* log m = 2 atanh(s), |s| < 0.172 */
    s2 = s * s;
    for (i = 10; i >= 0; i--) p = p * s2 + over[i];
    return e * SSA__LN2 + 2 * s * p;
}

static inline double ssa__sqrt(double x) /* 0, or x normal; relative error 1e-15; below 0: 0 */
{
    double r;
    if (x <= 0.0) return 0.0;
    r = ssa__exp(0.5 * ssa__log(x));
    return 0.5 * (r + x / r);
}

static inline double ssa__tanh(double x) /* relative error 6e-14; NaN: NaN */
{
    double size = x < 0 ? -x : x, z = x * x, e;
    if (size < 0.01) return x * (1.0 - z * (1.0 / 3 - z * (2.0 / 15))); /* 1 - e would lose digits */
    e = ssa__exp(-2.0 * size);
    e = (1.0 - e) / (1.0 + e);
    return x < 0 ? -e : e;
}

/* Arithmetic on sizes: nonnegative operands; on overflow *bad becomes 1 and the result is 0. */
static inline int64_t ssa__mul(int64_t a, int64_t b, int *bad)
{
    if (a != 0 && b > INT64_MAX / a) { *bad = 1; return 0; }
    return a * b;
}
static inline int64_t ssa__add(int64_t a, int64_t b, int *bad)
{
    if (a > INT64_MAX - b) { *bad = 1; return 0; }
    return a + b;
}
static inline int64_t ssa__min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ssa__max(int64_t a, int64_t b) { return a > b ? a : b; }
/* Of nonnegative numbers, rounded up; written so that a + b - 1 need not fit. */
static inline int64_t ssa__ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
static inline int32_t ssa__round_up(int32_t a, int32_t b) { return (a + b - 1) / b * b; }

/* =====================================================================================================================
 * 6  THE TABLE OF TILE OPERATIONS
 *    A tile is up to SSA__TILE_ROWS query rows of one key/value head: row r of a call is head r % G of query r / G.
 *    The attention loop walks the keys in chunks of up to SSA__CHUNK: scores of a chunk, online softmax, values of a
 *    chunk. An entry does thousands of multiply-adds, so the indirect call is noise. There are two forms of a tile:
 *
 *    wide    many rows. Rows lie along the vector lanes, so maximum, exp and sum need no horizontal step; K and V keep
 *            their natural layout and are read one element at a time (broadcast); and scores and values are the same
 *            matrix product, C[m][row] = sum over t of A(m, t) * B[t][row]. The chunk is first packed: f32, contiguous.
 *              q [dk][ld]   s [key][ld]   o [dv][ld]   with ld = rows rounded up to SSA__LANES_MAX
 *    narrow  few rows (decode). The head dimension lies along the lanes; K and V are read in the cache, in their own
 *            type.
 *              q [row][dk_pad]   s [row][ld]   o [row][dv_pad]   with dk_pad, dv_pad rounded up to SSA__LANES_MAX
 *            A level may keep the dims of q and o in an order that suits k_type and v_type: q_prep and finish know it.
 *    unit    for a matrix unit that multiplies bf16. The chunk's rows are first taken as bf16 terms whose sum is the
 *            row: one for bf16, two for f16. Then one entry does the chunk whole, and overlaps what it can. few: up to
 *            SSA__LANES_MAX rows, for which whole chunks may stay in the cache as they are. The layouts are the unit's
 *            own; o has room for whole SSA__UNIT_DIM dims, q and o for whole pairs of SSA__LANES_MAX rows.
 *              k [term][keys_max][dk_unit]   v likewise, with dk_unit, dv_unit rounded up to SSA__UNIT_DIM
 *
 *    A sparse prefill gathers the rows of many queries by the blocks they chose. These then meet a block together,
 *    while it is in L1: entry meet, or bring and gather of a unit.
 *
 *    Running state per row: m, the maximum of the scores scale * q.k so far; l, the sum of p = exp(s - m); and fix, the
 *    factor by which the last softmax shrank what came before. A score is rounded before the maximum is taken, so that
 *    the largest key's p is exactly 1. Every pointer of a tile is 64-byte aligned scratch with room for whole vectors;
 *    n <= SSA__CHUNK unless an entry says otherwise.
 * ================================================================================================================== */
#define SSA__TILE_ROWS 64
#define SSA__UNIT_ROWS 1024 /* rows of a tile of the unit form: what it costs to bring in a chunk is shared by these */
#define SSA__UNIT_KEYS 512  /* a chunk of the unit form, to stay in L2 .. */
#define SSA__UNIT_DIM  32
#define SSA__UNIT_FEW  128  /* .. and with few rows: steps of SSA__UNIT_DIM keys, of which one begins as one ends */
#define SSA__UNIT_RUN  16   /* keys of a step that lie in one piece */
#define SSA__Q8_KEYS   64   /* a chunk of q8: values that are multiplied at once */
#ifndef SSA__Q8_LEAST
#define SSA__Q8_LEAST  192  /* keys for which that pays; the blocks of a sparse call are too short, too */
#endif
#define SSA__UNIT_BLOCK 16  /* keys packed together for sparse prefill, and how many of these at once */
#define SSA__UNIT_BLOCKS 16
#define SSA__FLAT_DOUBT 0.016f /* flat importances nearer than this, relatively, may be in wrong order: 4 roundings */
#define SSA__UNIT_PARTS 4   /* of rows that meet pooled keys together; the scores of .. */
#define SSA__UNIT_NEAR 4096 /* .. so many blocks for each stay in L2: beyond, only keys of three terms are worth it */
#define SSA__RANK_FLOATS 2560 /* scores of two parts and 32 blocks, of this step and the next; of one, turned */
#define SSA__UNIT_SUMS  8   /* parts in which l of a gathered row is summed */
#define SSA__CHUNK     96
#define SSA__CHUNK_FEW 32   /* for tiles of up to SSA__LANES_MAX rows: little to compute, the chunk must stay in L1 */
#define SSA__LANES_MAX 16
#define SSA__TOPS      32
#define SSA__RUNNERS   96 /* room for candidates that are compared with one another */
#define SSA__PIECE     64   /* keys whose biases are made at a time */
#define SSA__BIAS_LOW  (-1e38f) /* the lowest finite one: a score must stay finite in powers of 2 */

typedef struct ssa__tile_of ssa__tile;
struct ssa__tile_of {
    int32_t rows, dk, dv;            /* query rows in use; head_dim; value_dim */
    ssa_type k_type, v_type;         /* narrow: of the rows that qk and pv will be given */
    int32_t dk_pad, dv_pad;          /* the dims rounded up to SSA__LANES_MAX */
    int64_t ld;                      /* wide: rows rounded up; narrow: floats between two rows of s */
    float   scale;
    float  *q, *s, *o, *m, *l, *fix; /* see above; m, l, fix have an element for each row, padding included */
    double  m_unit;                  /* natural units in one of m's: 1, or ln 2 in a form that keeps m in powers of 2 */
    uint16_t *k, *v;                 /* unit: the rows taken */
    const unsigned char *k_rows, *v_rows; /* unit: where to read them, k_stride and v_stride bytes apart: there, */
    int64_t k_stride, v_stride;      /* or in the cache when nothing is to be changed or padded */
    const unsigned char *const *k_runs, *const *v_runs; /* few: where each SSA__UNIT_RUN of them begin */
    const uint16_t *v_laid;          /* unit: the chunk's values as lay_values leaves them; NULL: attend does that */
    int32_t fresh;                   /* unit, form->starts: o holds nothing yet, and attend begins it */
    int32_t columns;                 /* few: 4, 8 or SSA__LANES_MAX rows are multiplied; m, l, fix repeat 4 or 8 */
    int32_t dk_unit, dv_unit, q_terms, k_terms, v_terms, keys_max; /* keys_max: what k and v have room for */
    unsigned char *work;             /* unit: scratch of ssa__unit_work bytes */
    uint16_t *turned;                /* unit: SSA__UNIT_DIM pooled keys; the queries of each part, turned */
    float   *steps;                  /* unit, rank: scratch of SSA__RANK_FLOATS */
    int32_t flat;                    /* unit, rank: 1: s is left as bf16, [pair of blocks][SSA__LANES_MAX rows][2] */
    const uint16_t *queries;         /* unit, gathered rows: [row][dk_unit]; rank: [term][SSA__LANES_MAX][dk_unit] */
    const unsigned char *q_rows;     /* unit, attend_blocks: where to read queries, q_stride bytes apart: there, or */
    int64_t q_stride;                /* where the call has them when nothing is to be padded */
    float   *sums;                   /* likewise: l in parts, [row][SSA__UNIT_SUMS] */
    const int32_t *limit;            /* row r sees the chunk's first limit[r] keys, never fewer than the row before: */
                                     /* wide qk and pv may leave out the rest; NULL: all rows see all */
    const unsigned char *ahead;      /* the rows of the cache that are read next, for qk and pv to prefetch as they */
    int64_t ahead_stride;            /* compute: ahead_rows (may be 0) of ahead_bytes, ahead_stride bytes apart */
    int32_t ahead_rows, ahead_bytes;
    const unsigned char *ahead_v;    /* unit: ahead are keys, and as many values ahead_v_stride apart */
    int64_t ahead_v_stride;
    int32_t ahead_v_bytes;
    /* Terms of the scores; NULL: none. Makes scores of products, in place, before the softmax: n keys from `key` of the
     * chunk on, key_step floats apart, of `rows` rows from `row` on, row_step apart; one of the steps is 1. A score of
     * -infinity gives p = 0. unit: while scale is 0, scores become powers of 2 here. */
    void (*adjust)(const ssa__tile *t, float *s, int64_t key_step, int64_t row_step, int32_t key, int32_t n,
                   int32_t row, int32_t rows);
    /* Whether a row sees a key of the chunk; set when values of hidden keys may be NaN or infinite, which 0 * v must
     * not bring into the row; NULL: only limit hides. */
    int (*sees)(const ssa__tile *t, int32_t row, int32_t key);
    const void *shaper;              /* what these two work with; NULL: the call has no such terms */
    const int32_t *start;            /* unit: row r sees no key of the chunk below start[r], never fewer than the row */
                                     /* before: attend may leave them out; NULL: nothing is left out */
};

/* Prefetches rows from .. to-1 of the rows ahead: their bytes lo .. hi-1. */
SSA__FORCE_INLINE void ssa__prefetch(const ssa__tile *t, int32_t from, int32_t to, int32_t lo, int32_t hi)
{
    if (to > t->ahead_rows) to = t->ahead_rows;
    for (; from < to; from++) {
        uintptr_t row = (uintptr_t)t->ahead + (uintptr_t)(from * t->ahead_stride);
        for (int32_t b = lo; b < hi; b += 64) SSA__PREFETCH(row + (uintptr_t)b);
    }
}

/* The rows ahead, for an entry to prefetch evenly while it computes: `part` cache lines at each of its steps. Into L2:
 * prefetches into L1 would take the buffers for missing lines from the entry's own loads. */
typedef struct { uintptr_t row, at, end; int64_t stride; int32_t rows, part; } ssa__lines;
SSA__FORCE_INLINE ssa__lines ssa__lines_of(const unsigned char *at, int64_t stride, int32_t rows, int32_t bytes,
                                           int64_t steps)
{
    ssa__lines l;
    const int64_t joined = stride == bytes ? rows : 1; /* adjacent rows are as one */
    l.row = l.at = (uintptr_t)at;
    l.end = l.at + (uintptr_t)(joined * bytes);
    l.stride = stride;
    l.rows = joined > 1 ? 1 : rows;
    l.part = 0;
    if (l.rows > 0 && steps > 0) l.part = (int32_t)ssa__ceil_div(l.rows * ssa__ceil_div(joined * bytes, 64), steps);
    return l;
}
SSA__FORCE_INLINE ssa__lines ssa__lines_ahead(const ssa__tile *t, int64_t steps)
{
    return ssa__lines_of(t->ahead, t->ahead_stride, t->ahead_rows, t->ahead_bytes, steps);
}
SSA__FORCE_INLINE void ssa__fetch_lines(ssa__lines *l, int32_t steps)
{
    for (int32_t n = steps * l->part; n > 0 && l->rows > 0; n--) {
        SSA__PREFETCH_L2(l->at);
        l->at += 64;
        if (l->at < l->end) continue;
        l->row += (uintptr_t)l->stride;
        l->end += (uintptr_t)l->stride;
        l->at = l->row;
        l->rows--;
    }
}

/* Rows from .. to-1 of the n that lie ahead into L2: they are read a chunk later. */
SSA__FORCE_INLINE void ssa__fetch_rows(const unsigned char *ahead, int64_t stride, int32_t from, int32_t to, int32_t n,
                                       int32_t bytes)
{
    for (; from < to && from < n; from++)
        for (int32_t b = 0; b < bytes; b += 64) SSA__PREFETCH_L2((uintptr_t)ahead + (uintptr_t)(from * stride + b));
}

/* Up to SSA__LANES_MAX rows of a tile that chose the same packed block. */
typedef struct {
    const unsigned char *block;
    int32_t n, row[SSA__LANES_MAX], seen[SSA__LANES_MAX]; /* which row of the tile; keys of the block that it sees */
    float   m[SSA__LANES_MAX];               /* what m was for its p */
} ssa__gathered;
#define SSA__GATHER_STEPS 5 /* of work on gathered rows */

/* Rows that a unit's rows come from or go to soon, SSA__LANES_MAX of them, to be brought in meanwhile. */
typedef struct { const unsigned char *at; int64_t stride; int32_t bytes; } ssa__beside;

typedef struct {
    int packs;                                       /* 1: qk and pv take packed f32 rows, in entry [SSA_F32] alone */
    /* q from rows [rows rounded up][dk_pad], the padding zero. */
    void (*q_prep)(ssa__tile *t, float *rows);
    /* unit, in place of q_prep for bf16 queries, or NULL: n <= SSA__LANES_MAX rows [row][dk_unit] to q as its rows from
     * `at` on, a multiple of SSA__LANES_MAX; zeros for rows that there are not. */
    void (*q_turn)(ssa__tile *t, const uint16_t *rows, int32_t at, int32_t n);
    /* s(key at + j) = scale * q.k_j for n rows of dk elements, stride bytes apart. May write 15 scores more. */
    void (*qk[SSA__TYPES])(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n, int32_t at);
    /* s(0..n-1) becomes p = exp(s - m) with the new m; updates m, l, fix. limit: row r sees the first limit[r] only,
     * p = 0 for the rest; NULL: all rows see all. Any n (block selection runs it over all blocks). */
    void (*softmax)(const ssa__tile *t, int32_t n, const int32_t *limit);
    /* wide, pairs: gathered rows meet n <= SSA__LANES_MAX keys, which lie as q_prep or q_turn leave so many rows, and
     * their values v [n][dv_pad]: m, l and o [row][dv_pad] of each go on. q is [row][dk_pad], or, of pairs, as q_turn
     * takes it; seen is at most n. */
    void (*meet)(const ssa__tile *t, const ssa__gathered *g, const float *k, const float *v, int32_t n);
    int32_t meet_rows; /* lists of up to so many rows gain by it */
    /* o = o * fix + sum over j of p(at + j) * v_j for n rows of dv elements; without fix when first is 0. */
    void (*pv[SSA__TYPES])(const ssa__tile *t, const unsigned char *v, int64_t stride, int32_t n, int32_t at,
                           int first);
    /* rows[r][e] = o(r, e) * factor[r], rows [rows rounded up][dv_pad]. unit: up to SSA__LANES_MAX rows, o theirs. */
    void (*finish)(const ssa__tile *t, const float *factor, float *rows);
    /* imp[i * ld + j] += sum over the `group` rows r of list i of s(j, r) * fix[r], for j < n, any n, and i < lists.
     * The first list's rows start at lo, the next one's follow. */
    void (*importance)(const ssa__tile *t, int32_t n, int32_t lo, int32_t group, int32_t lists, float *imp, int64_t ld);
    /* unit, in place of qk, softmax and pv: the n keys and values taken, 1 <= n <= chunk. May change k and v. Where
     * v_laid is set there may be more keys than n, all of them finite. */
    void (*attend)(const ssa__tile *t, int32_t n, const int32_t *limit);
    int starts;                                      /* unit: 1: attend needs no zeros in o where fresh is set */
    /* unit: the n values at v_rows to [term][keys_max][dv_unit] as attend multiplies them, zeros up to whole steps of
     * SSA__UNIT_DIM keys; NULL: there is nothing to lay out once for all tiles. Returns 1 when one is not finite. */
    int (*lay_values)(const ssa__tile *t, int32_t n, uint16_t *dst);
    int32_t chunk;                                   /* most keys of a chunk */
    int32_t in_place;  /* up to this many rows: k_rows and v_rows lie in the cache, not yet as terms, for dims and n */
                       /* that are multiples of SSA__UNIT_DIM, and rows that see all keys; elsewhere they are k and v */
    int      runs;                                   /* and SSA__UNIT_RUN of these may lie apart: k_runs, v_runs */
    int      columns;                                /* few: 1: tile->columns may be less than SSA__LANES_MAX */
    int      halves;                                 /* few: 1: keys and values may be in f16 too, for 9 rows or more */
    /* unit: n <= SSA__UNIT_BLOCK pooled keys of d elements as terms that add up to them, each of a term side by side:
     * [term][32 dims]([pair of dims][key][2]); zeros for keys and dims that there are not. Returns the largest norm of
     * a key's third term, or where one is not finite whatever comes. */
    float (*lay)(uint16_t *dst, ssa_type type, int32_t terms, const unsigned char *rows, int64_t stride, int32_t n,
                 int32_t d);
    /* unit: s = exp(scale * q.pooled - m) for n pooled keys, l with it; row r counts the first limit[r]. m starts where
     * it is, for whole parts, and moves only when a score is far above it. The rows go in parts of `part` <=
     * SSA__LANES_MAX, each with queries [SSA__LANES_MAX] and an s of n rounded up to SSA__UNIT_DIM keys of its own:
     * [SSA__UNIT_DIM blocks][row of the part][SSA__UNIT_DIM]. laid: [SSA__UNIT_BLOCK blocks] as lay leaves them, the
     * blocks rounded up to SSA__UNIT_DIM, of whose terms the first `used` count; NULL: pooled has them as bf16 rows.
     * raw: s = scale * q.pooled, and l is 1, or NaN where one is not finite. flat: not with laid or raw; the rows of a
     * part count as many blocks, and its s is bf16, [pair of blocks][SSA__LANES_MAX][2]. fix becomes the norms of the
     * queries' first terms. Returns 1 when m moved on the way: then all is to be done again from there, which also
     * gives equal blocks equal bits. */
    int (*rank)(const ssa__tile *t, int32_t part, const uint16_t *laid, const unsigned char *pooled, int32_t terms,
                int32_t used, int32_t n, const int32_t *limit, int raw);
    /* unit: the importance of n blocks for some of a part's queries, a group of rows each, from what rank left; s and
     * fix start at the first one's: imp[query][j] = sum over the group's rows of s(j, r) * fix[r], queries ld apart.
     * flat: one query; an importance is not the larger where it ought to be SSA__FLAT_DOUBT smaller. */
    void (*importances)(const ssa__tile *t, int32_t n, int32_t group, int32_t queries, float *imp, int64_t ld);
    /* unit: n <= SSA__UNIT_BLOCK bf16 keys and values into the unit's own packed layout of
     * SSA__UNIT_BLOCK * (dk_unit + dv_unit) * 2 bytes, zeros for keys that there are not. Returns 1 when a value is not
     * finite. */
    int (*bring)(unsigned char *dst, const unsigned char *k, int64_t k_stride, const unsigned char *v, int64_t v_stride,
                 int32_t n, int32_t dk, int32_t dv);
    /* unit: five gathered sets of rows take a step each, so that none waits for another: queries of g[0], scores of
     * g[1], softmax of g[2], values of g[3], and those of g[4] to the output. Any of them may be NULL; each set goes
     * through all steps, in order. o as few has it, m and sums of each row; l is the sum of its sums. */
    void (*gather)(const ssa__tile *t, ssa__gathered *const *g);
    /* unit: as gather, for SSA__LANES_MAX rows that chose the same n <= SSA__UNIT_BLOCKS blocks, all steps at once. Of
     * the last block they see `last` keys. The tile is of these rows alone, and l is whole; fresh: o holds nothing yet.
     * beside: two of them. */
    void (*attend_blocks)(const ssa__tile *t, const unsigned char *const *block, int32_t n, int32_t last,
                          const ssa__beside *beside);
    /* dst = the packed block src with the values of keys from `seen` on taken out. */
    void (*hide)(unsigned char *dst, const unsigned char *src, int32_t seen, int32_t dk, int32_t dv);
    void (*shape)(int how); /* 1: before gather, attend_blocks and the entries of q8; columns: before few; 0: others */
} ssa__form;

typedef struct {
    ssa_isa   isa;
    int32_t   narrow_rows;                           /* tiles of up to this many rows are narrow */
    ssa__form narrow, wide;
    ssa__form pairs; /* wide for pooled keys and queries that are both bf16, of dims in fours: q_turn in place of
                      * q_prep, and qk reads the rows. Without these there is none */
    ssa__form few, many;                             /* unit forms; without an attend entry there is no unit */
    ssa__form q8; /* narrow for up to SSA__LANES_MAX rows, on a unit that multiplies int8: for keys or values in q8_0.
                   * pv does a chunk's values whole, and minds limit and sees. chunk 0: there is none */
    /* Terms of n rows of d elements: dst[term][j][0..ld-1], terms lie `term` elements apart, zero past d. */
    void (*take[SSA__TYPES])(uint16_t *dst, int64_t term, int32_t ld, const unsigned char *src,
                             int64_t stride, int32_t n, int32_t d);
    void (*enter)(unsigned char *kept), (*leave)(const unsigned char *kept); /* around a worker's tasks: sets the unit
                                                      * up; kept: 64 bytes for what the host had set. NULL: nothing */
    /* dst[j][0..d-1] = row j as f32, dst[j][d..ld-1] = 0, for n rows stride bytes apart. */
    void (*pack[SSA__TYPES])(float *dst, int64_t ld, const unsigned char *src, int64_t stride, int32_t n, int32_t d);
    /* d elements of src to the row dst of the type. */
    void (*unpack[SSA__TYPES])(unsigned char *dst, const float *src, int32_t d);
    /* sum[0..d-1] += row 0, then row 1, .. : in this order, plain additions, so that every level and slicing gives the
     * same bits. */
    void (*pool[SSA__TYPES])(float *sum, const unsigned char *src, int64_t stride, int64_t n, int32_t d);
    /* The first i in from..n-1 with x[i] > bar, else n. NaN is not above anything. */
    int64_t (*above)(const float *x, int64_t from, int64_t n, float bar);
    /* index[0..] = the i in from..n-1 with x[i] > bar, ascending; index has room for SSA__RUNNERS. Returns how many; -1
     * when it has no room for all, which more than SSA__RUNNERS - 2 * SSA__LANES_MAX may be. */
    int32_t (*all_above)(const float *x, int64_t from, int64_t n, float bar, int32_t *index);
    /* rank[i] = how many of x[0..n-1] are above x[i]; n is a multiple of SSA__LANES_MAX. */
    void (*ranks)(const float *x, int32_t n, int32_t *rank);
    /* Maxima of the elements i with the same i % SSA__TOPS, or -FLT_MAX where nothing is above that; NaN is not. */
    void (*tops)(const float *x, int64_t n, float *top);
    /* acc[0..d-1] += w * x[0..d-1] */
    void (*axpy)(float *acc, float w, const float *x, int32_t d);
    /* x[i] = cap * tanh(factor * x[i]), i < n */
    void (*cap)(float *x, int64_t n, float factor, float cap);
    /* b[j] += slope * (first + j), j < n */
    void (*ramp)(float *b, float slope, float first, int32_t n);
    /* s(j, r) = (scale * s(j, r) + b[r][j]) * unit, with a finite b at least SSA__BIAS_LOW, for n keys key_step floats
     * apart and rows row_step apart; -infinity where b is that. One of the steps is 1: when it is row_step, b has
     * SSA__LANES_MAX rows ld apart, of whole vectors, and whole vectors of rows of s may be written. b NULL: the same
     * bits as for zeros. */
    void (*bias)(float *s, int64_t key_step, int64_t row_step, float scale, float unit, const float *b, int64_t ld,
                 int32_t n, int32_t rows);
} ssa__table;


/* bf16 terms that hold an element of the type; 0: the unit has no form for it. */
static inline int32_t ssa__terms(ssa_type t) { return t == SSA_BF16 ? 1 : t == SSA_F16 ? 2 : 0; }

/* Bytes of scratch that the unit's forms need: values once more in its layout, and 24 KiB a term for scores and p. */
static inline int64_t ssa__unit_work(int32_t keys, int32_t dv_unit, int32_t terms)
{
    return ((int64_t)keys * dv_unit * 2 + 24576) * terms;
}
/* Tiles that hold four digits of each row. */
static inline int32_t ssa__q8_tiles(int32_t rows) { return rows <= 4 ? 1 : rows <= 8 ? 2 : 4; }
/* The same for q8, in KiB: for a block of dims products with 16 keys, twice, these keys turned, twice, and as they are,
 * and scales; or a chunk's scales and for a block, twice, lines of p, values and products. */
static inline int64_t ssa__q8_work(int32_t dk_unit, int32_t dv_unit, int32_t tiles)
{
    const int64_t k = dk_unit / SSA__UNIT_DIM * (2 * tiles + 2), v = dv_unit / SSA__UNIT_DIM + 6 * tiles + 4;
    return 1024 * (k > v ? k : v);
}
/* The same for packed blocks: queries, scores, p, and additions to the output of gathered rows; or the scores and p of
 * a row of blocks. */
static inline int64_t ssa__packed_work(int32_t dk_unit, int32_t dv_unit)
{
    return 32 * ((int64_t)dk_unit + 2 * dv_unit) + SSA__UNIT_BLOCKS * 1536;
}

/* =====================================================================================================================
 * 7  SCALAR OPERATIONS: the readable definition of each entry
 * ================================================================================================================== */
/* The entries of one type: the generic ones below with the type as a constant. */
#define SSA__SCALAR_PER_TYPE(t, T)                                                                                    \
    static void ssa__scalar_pack_##t(float *dst, int64_t ld, const unsigned char *src, int64_t stride, int32_t n,     \
                                     int32_t d)                                                                       \
    { ssa__scalar_pack(T, dst, ld, src, stride, n, d); }                                                              \
    static void ssa__scalar_unpack_##t(unsigned char *dst, const float *src, int32_t d)                               \
    { ssa__scalar_unpack(T, dst, src, d); }                                                                           \
    static void ssa__scalar_pool_##t(float *sum, const unsigned char *src, int64_t stride, int64_t n, int32_t d)      \
    { ssa__scalar_pool(T, sum, src, stride, n, d); }                                                                  \
    static void ssa__scalar_narrow_qk_##t(const ssa__tile *a, const unsigned char *k, int64_t stride, int32_t n,      \
                                          int32_t at)                                                                 \
    { ssa__scalar_narrow_qk(T, a, k, stride, n, at); }                                                                \
    static void ssa__scalar_narrow_pv_##t(const ssa__tile *a, const unsigned char *v, int64_t stride, int32_t n,      \
                                          int32_t at, int first)                                                      \
    { ssa__scalar_narrow_pv(T, a, v, stride, n, at, first); }

/* -- rows: read one element at a time, from any address -- */
SSA__FORCE_INLINE void ssa__scalar_pack(ssa_type type, float *dst, int64_t ld, const unsigned char *src, int64_t stride,
                                        int32_t n, int32_t d)
{
    for (int32_t j = 0; j < n; j++, dst += ld, src += stride) {
        for (int32_t e = 0; e < d; e++) dst[e] = ssa__load(type, src, e);
        for (int64_t e = d; e < ld; e++) dst[e] = 0.0f;
    }
}

SSA__FORCE_INLINE void ssa__scalar_unpack(ssa_type type, unsigned char *dst, const float *src, int32_t d)
{
    if (type == SSA_Q8_0)
        for (int32_t e = 0; e < d; e += SSA__Q8_DIM) ssa__store_q8_0(dst + ssa__row_bytes(type, e), src + e);
    else for (int32_t e = 0; e < d; e++) ssa__store(type, dst, e, src[e]);
}

SSA__FORCE_INLINE void ssa__scalar_pool(ssa_type type, float *sum, const unsigned char *src, int64_t stride,
                                        int64_t n, int32_t d)
{
    for (int64_t j = 0; j < n; j++, src += stride)
        for (int32_t e = 0; e < d; e++) sum[e] += ssa__load(type, src, e);
}

static int64_t ssa__scalar_above(const float *x, int64_t from, int64_t n, float bar)
{
    for (; from < n; from++)
        if (!ssa__is_nan(x[from]) && x[from] > bar) break;
    return from;
}

static int32_t ssa__scalar_all_above(const float *x, int64_t from, int64_t n, float bar, int32_t *index)
{
    int32_t m = 0;
    for (; from < n; from++) {
        if (ssa__is_nan(x[from]) || !(x[from] > bar)) continue;
        if (m == SSA__RUNNERS - SSA__LANES_MAX) return -1;
        index[m++] = (int32_t)from;
    }
    return m;
}

static void ssa__scalar_ranks(const float *x, int32_t n, int32_t *rank)
{
    for (int32_t i = 0; i < n; i++) {
        rank[i] = 0;
        for (int32_t j = 0; j < n; j++) rank[i] += x[j] > x[i];
    }
}

static void ssa__scalar_tops(const float *x, int64_t n, float *top)
{
    for (int i = 0; i < SSA__TOPS; i++) top[i] = -FLT_MAX;
    for (int64_t i = 0; i < n; i++)
        if (!ssa__is_nan(x[i]) && x[i] > top[i % SSA__TOPS]) top[i % SSA__TOPS] = x[i];
}

static void ssa__scalar_axpy(float *acc, float w, const float *x, int32_t d)
{
    for (int32_t e = 0; e < d; e++) acc[e] += w * x[e];
}

/* -- terms of the scores -- */
static void ssa__scalar_cap(float *x, int64_t n, float factor, float cap)
{
    for (int64_t i = 0; i < n; i++) x[i] = cap * ssa__tanhf(factor * x[i]);
}

static void ssa__scalar_ramp(float *b, float slope, float first, int32_t n)
{
    for (int32_t j = 0; j < n; j++) b[j] += slope * (first + (float)j);
}

static void ssa__scalar_bias(float *s, int64_t key_step, int64_t row_step, float scale, float unit, const float *b,
                             int64_t ld, int32_t n, int32_t rows)
{
    for (int32_t r = 0; b == NULL && r < rows; r++)
        for (int32_t j = 0; j < n; j++) s[j * key_step + r * row_step] = s[j * key_step + r * row_step] * scale * unit;
    for (int32_t r = 0; b && r < rows; r++)
        for (int32_t j = 0; j < n; j++) {
            float x = b[r * ld + j], *at = s + j * key_step + r * row_step;
            if (!ssa__is_nan(x) && x < SSA__BIAS_LOW) x = SSA__BIAS_LOW;
            *at = ssa__bits(b[r * ld + j]) == SSA__NEG_INF_BITS ? b[r * ld + j] : (*at * scale + x) * unit;
        }
}

/* -- narrow: s and o are row by row -- */

/* The rows are in the form's layout already. */
static void ssa__narrow_q_prep(ssa__tile *t, float *rows)
{
    memcpy(t->q, rows, (size_t)t->rows * (size_t)t->dk_pad * sizeof(float));
}

SSA__FORCE_INLINE void ssa__scalar_narrow_qk(ssa_type type, const ssa__tile *t, const unsigned char *k, int64_t stride,
                                             int32_t n, int32_t at)
{
    for (int32_t j = 0; j < n; j++, k += stride)
        for (int32_t r = 0; r < t->rows; r++) {
            const float *q = t->q + (int64_t)r * t->dk_pad;
            float dot = 0.0f;
            for (int32_t e = 0; e < t->dk; e++) dot += q[e] * ssa__load(type, k, e);
            t->s[r * t->ld + at + j] = dot * t->scale;
        }
}

SSA__FORCE_INLINE void ssa__scalar_narrow_pv(ssa_type type, const ssa__tile *t, const unsigned char *v, int64_t stride,
                                             int32_t n, int32_t at, int first)
{
    for (int32_t r = 0; r < t->rows; r++) {
        float *o = t->o + (int64_t)r * t->dv_pad;
        if (first) for (int32_t e = 0; e < t->dv; e++) o[e] *= t->fix[r];
        for (int32_t j = 0; j < n; j++) {
            float p = t->s[r * t->ld + at + j];
            for (int32_t e = 0; e < t->dv; e++) o[e] += p * ssa__load(type, v + j * stride, e);
        }
    }
}

/* One row of the online softmax; the n scores lie step floats apart. A NaN score is not a maximum, but its p is NaN and
 * so spoils the row, as it must. */
static void ssa__scalar_softmax_row(const ssa__tile *t, int32_t r, float *s, int64_t step, int32_t n, int32_t visible)
{
    float m = t->m[r];
    double sum = 0.0; /* as good as the vector levels' many short sums */
    for (int32_t j = 0; j < visible; j++) if (!ssa__is_nan(s[j * step]) && s[j * step] > m) m = s[j * step];
    t->fix[r] = ssa__expf(t->m[r] - m);
    for (int32_t j = 0; j < visible; j++) {
        s[j * step] = ssa__expf(s[j * step] - m);
        sum += (double)s[j * step];
    }
    for (int32_t j = visible; j < n; j++) s[j * step] = 0.0f;
    t->m[r] = m;
    t->l[r] = (float)((double)t->l[r] * (double)t->fix[r] + sum);
}

static void ssa__scalar_narrow_softmax(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    for (int32_t r = 0; r < t->rows; r++) ssa__scalar_softmax_row(t, r, t->s + r * t->ld, 1, n, limit ? limit[r] : n);
}

static void ssa__scalar_narrow_finish(const ssa__tile *t, const float *factor, float *rows)
{
    for (int32_t r = 0; r < t->rows; r++)
        for (int64_t e = (int64_t)r * t->dv_pad; e < (int64_t)r * t->dv_pad + t->dv; e++) rows[e] = t->o[e] * factor[r];
}

static void ssa__scalar_narrow_importance(const ssa__tile *t, int32_t n, int32_t lo, int32_t group, int32_t lists,
                                          float *imp, int64_t ld)
{
    for (int32_t r = 0; r < group * lists; r++)
        for (int32_t j = 0; j < n; j++) imp[r / group * ld + j] += t->s[(lo + r) * t->ld + j] * t->fix[lo + r];
}

/* -- wide: q, s and o are transposed, the row index runs fastest; compilers vectorise its loops as they stand -- */
static void ssa__scalar_wide_q_prep(ssa__tile *t, float *rows)
{
    for (int32_t e = 0; e < t->dk; e++)
        for (int64_t r = 0; r < t->ld; r++) t->q[e * t->ld + r] = r < t->rows ? rows[r * t->dk_pad + e] : 0.0f;
}

static void ssa__scalar_wide_qk(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n, int32_t at)
{
    for (int32_t j = 0; j < n; j++, k += stride) {
        float *s = t->s + (at + j) * t->ld;
        for (int64_t r = 0; r < t->ld; r++) s[r] = 0.0f;
        for (int32_t e = 0; e < t->dk; e++) {
            float x = ssa__load(SSA_F32, k, e);
            for (int64_t r = 0; r < t->ld; r++) s[r] += x * t->q[e * t->ld + r];
        }
        for (int64_t r = 0; r < t->ld; r++) s[r] *= t->scale;
    }
}

static void ssa__scalar_wide_softmax(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    for (int32_t r = 0; r < t->rows; r++) ssa__scalar_softmax_row(t, r, t->s + r, t->ld, n, limit ? limit[r] : n);
}

static void ssa__scalar_wide_pv(const ssa__tile *t, const unsigned char *v, int64_t stride, int32_t n, int32_t at,
                                int first)
{
    for (int32_t e = 0; e < t->dv; e++) {
        float *o = t->o + e * t->ld;
        if (first) for (int64_t r = 0; r < t->rows; r++) o[r] *= t->fix[r];
        for (int32_t j = 0; j < n; j++) {
            float x = ssa__load(SSA_F32, v + j * stride, e);
            for (int64_t r = 0; r < t->rows; r++) o[r] += x * t->s[(at + j) * t->ld + r];
        }
    }
}

static void ssa__scalar_wide_finish(const ssa__tile *t, const float *factor, float *rows)
{
    for (int32_t r = 0; r < t->rows; r++)
        for (int32_t e = 0; e < t->dv; e++) rows[(int64_t)r * t->dv_pad + e] = t->o[e * t->ld + r] * factor[r];
}

static void ssa__scalar_wide_importance(const ssa__tile *t, int32_t n, int32_t lo, int32_t group, int32_t lists,
                                        float *imp, int64_t ld)
{
    for (int32_t j = 0; j < n; j++)
        for (int32_t r = 0; r < group * lists; r++)
            imp[r / group * ld + j] += t->s[j * t->ld + lo + r] * t->fix[lo + r];
}

/* -- gathered rows -- */
static void ssa__scalar_meet(const ssa__tile *t, const ssa__gathered *g, const float *k, const float *v, int32_t n)
{
    for (int32_t i = 0; i < g->n; i++) {
        const int32_t r = g->row[i];
        const float *q = t->q + (int64_t)r * t->dk_pad;
        float s[SSA__LANES_MAX] = { 0.0f }, *o = t->o + (int64_t)r * t->dv_pad, fix;
        ssa__tile one = *t;
        one.m = t->m + r;
        one.l = t->l + r;
        one.fix = &fix; /* fix has no room for all rows */
        for (int32_t e = 0; e < t->dk; e++)
            for (int j = 0; j < SSA__LANES_MAX; j++) s[j] += q[e] * k[e * SSA__LANES_MAX + j];
        for (int j = 0; j < SSA__LANES_MAX; j++) s[j] *= t->scale;
        ssa__scalar_softmax_row(&one, 0, s, 1, n, g->seen[i]);
        for (int32_t e = 0; e < t->dv; e++) o[e] *= fix;
        for (int32_t j = 0; j < n; j++)
            for (int32_t e = 0; e < t->dv; e++) o[e] += s[j] * v[(int64_t)j * t->dv_pad + e];
    }
}

SSA__SCALAR_PER_TYPE(f32, SSA_F32)
SSA__SCALAR_PER_TYPE(f16, SSA_F16)
SSA__SCALAR_PER_TYPE(bf16, SSA_BF16)
SSA__SCALAR_PER_TYPE(q8_0, SSA_Q8_0)

static void ssa__fill_scalar(ssa__table *t)
{
    memset(t, 0, sizeof *t);
    t->isa = SSA_ISA_SCALAR;
    t->narrow_rows = 4;
    t->narrow.q_prep     = ssa__narrow_q_prep;
    t->narrow.softmax    = ssa__scalar_narrow_softmax;
    t->narrow.finish     = ssa__scalar_narrow_finish;
    t->narrow.importance = ssa__scalar_narrow_importance;
    t->wide.packs        = 1;
    t->wide.q_prep       = ssa__scalar_wide_q_prep;
    t->wide.qk[SSA_F32]  = ssa__scalar_wide_qk;
    t->wide.softmax      = ssa__scalar_wide_softmax;
    t->wide.pv[SSA_F32]  = ssa__scalar_wide_pv;
    t->wide.finish       = ssa__scalar_wide_finish;
    t->wide.importance   = ssa__scalar_wide_importance;
    t->wide.meet         = ssa__scalar_meet;
    t->wide.meet_rows    = 4;
    t->above             = ssa__scalar_above;
    t->all_above         = ssa__scalar_all_above;
    t->ranks             = ssa__scalar_ranks;
    t->tops              = ssa__scalar_tops;
    t->axpy              = ssa__scalar_axpy;
    t->cap               = ssa__scalar_cap;
    t->ramp              = ssa__scalar_ramp;
    t->bias              = ssa__scalar_bias;
#define SSA__PER_TYPE(t_, T)                                                                    \
    t->pack[T] = ssa__scalar_pack_##t_; t->unpack[T] = ssa__scalar_unpack_##t_;                 \
    t->pool[T] = ssa__scalar_pool_##t_; t->narrow.qk[T] = ssa__scalar_narrow_qk_##t_;           \
    t->narrow.pv[T] = ssa__scalar_narrow_pv_##t_;
    SSA__PER_TYPE(f32, SSA_F32)
    SSA__PER_TYPE(f16, SSA_F16)
    SSA__PER_TYPE(bf16, SSA_BF16)
    SSA__PER_TYPE(q8_0, SSA_Q8_0)
#undef SSA__PER_TYPE
}

/* =====================================================================================================================
 * 8  VECTOR LEVELS. Per ISA: a vector V of L floats, the inline primitives that section 15 is written over, then the
 *    inclusion of section 15, which leaves ssa__<isa>_fill(table) behind. NV: vectors of rows that one register tile of
 *    the wide product spans; NM(nv): elements of m it spans when it has nv vectors: nv*NM(nv) accumulators, nv operands
 *    and a broadcast.
 *
 *    zero set1 load store mul add sub div max   as named; fma a*b+c; max(a, b) returns b when either is NaN
 *    load_n store_n                         the first n lanes, the rest zero / untouched; never touch memory past n
 *    load_f16 load_bf16 (.._n)              L halves widened to f32
 *    load_i8                                L int8 to f32;  set1_f16: the half at p in all lanes
 *    store_f16 store_bf16                   rounded to nearest even, NaN kept
 *    log2e(x, t)                            x log2 e - n for the nearest integer n, NaN for NaN; *t = n + SSA__ROUND
 *    scale2(a, t)                           a * 2^n for t = n + SSA__ROUND, n of -126..127; 0 for n = -127
 *    first(n, a, b)                         lanes < n of a, the others of b
 *    below(limit, j, a, b)                  lanes with j < limit[lane] of a, the others of b
 *    pick(x, y, a, b)                       lanes with x > y (false for NaN) of a, the others of b
 *    above_bits(a, b)                       bit per lane: a > b, false for NaN
 *    lanes(dst, bits, at)                   the numbers at + lane of the bits set, ascending; may write L; how many
 *    load2_bf16(p, x)                       2 L halves at once: x[0] the even ones, x[1] the odd ones
 *    deinterleave(x) interleave(x)          2 L floats in x[0], x[1] to even and odd ones, and back
 *    hmax hsum                              over the lanes;  hsum4: four sums times scale to p[0..3]
 *    hsums(m, n, a, scale, p, ld)           hsum4 of each of a[m * n][4], those of a[i] to p + i / n * ld + i % n * 4;
 *                                           the same order of additions for any m and n
 *    transpose(V r[L])                      L x L in place
 * ================================================================================================================== */
#define SSA__ROUND 12583039.0f /* 1.5 * 2^23 + 127: its last bit is worth 1, so that adding x rounds x to an integer n,
                                * to nearest even, and the low bits of the sum are n + 127 */
#if SSA__HAVE_AVX2
/* AVX2, FMA, F16C: 16 registers of 8 floats. Latency in cycles and how many a cycle, about, on Haswell to Zen 5:
 *   vfmadd213ps       4-5   2    the products
 *   vbroadcastss m32  load  2-3  a key's or value's element to all rows
 *   vcvtph2ps         5-7   1    f16 to f32;  bf16: vpmovzxwd (3-5, 1) and vpslld (1, 1-2)
 *   vhaddps           5-7   1/2  hsum4: four sums at a time, so that a score costs less than one
 *   vmaskmovps        load  1-2  tails of f32 rows; tails of halves go through 16 bytes of stack
 * 6 x 2 accumulators, 2 operands and a broadcast fill 15 of the 16 registers: 12 FMA for 8 loads. */
#define SSA__AVX2 SSA__FORCE_INLINE SSA__TARGET_AVX2
SSA__AVX2 __m256 ssa__avx2_zero(void) { return _mm256_setzero_ps(); }
SSA__AVX2 __m256 ssa__avx2_set1(float x) { return _mm256_set1_ps(x); }
SSA__AVX2 __m256 ssa__avx2_load(const float *p) { return _mm256_loadu_ps(p); }
SSA__AVX2 void   ssa__avx2_store(float *p, __m256 v) { _mm256_storeu_ps(p, v); }
SSA__AVX2 __m256 ssa__avx2_mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
SSA__AVX2 __m256 ssa__avx2_add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
SSA__AVX2 __m256 ssa__avx2_sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
SSA__AVX2 __m256 ssa__avx2_div(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }
SSA__AVX2 __m256 ssa__avx2_fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
SSA__AVX2 __m256 ssa__avx2_max(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
SSA__AVX2 __m256 ssa__avx2_log2e(__m256 x, __m256 *t)
{
    const __m256 log2e = _mm256_set1_ps((float)SSA__LOG2E), round = _mm256_set1_ps(SSA__ROUND);
    *t = _mm256_fmadd_ps(x, log2e, round);
    return _mm256_fmsub_ps(x, log2e, _mm256_sub_ps(*t, round));
}
SSA__AVX2 __m256 ssa__avx2_scale2(__m256 a, __m256 t)
{
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
SSA__AVX2 __m256i ssa__avx2_first_mask(int32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SSA__AVX2 __m256 ssa__avx2_first(int32_t n, __m256 a, __m256 b)
{
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(ssa__avx2_first_mask(n)));
}
SSA__AVX2 __m256 ssa__avx2_below(const int32_t *limit, int32_t j, __m256 a, __m256 b)
{
    __m256i m = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)(const void *)limit), _mm256_set1_epi32(j));
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(m));
}
SSA__AVX2 __m256 ssa__avx2_pick(__m256 x, __m256 y, __m256 a, __m256 b)
{
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_GT_OQ));
}
SSA__AVX2 uint32_t ssa__avx2_above_bits(__m256 a, __m256 b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
SSA__AVX2 int32_t ssa__avx2_lanes(int32_t *dst, uint32_t bits, int32_t at)
{
    int32_t n = 0;
    for (; bits; bits &= bits - 1) dst[n++] = at + SSA__LOWEST(bits);
    return n;
}
SSA__AVX2 __m256 ssa__avx2_load_n(const unsigned char *p, int32_t n)
{
    return _mm256_maskload_ps((const float *)(const void *)p, ssa__avx2_first_mask(n));
}
SSA__AVX2 void ssa__avx2_store_n(float *p, __m256 v, int32_t n) { _mm256_maskstore_ps(p, ssa__avx2_first_mask(n), v); }
SSA__AVX2 __m128i ssa__avx2_load_half_n(const unsigned char *p, int32_t n)
{
    uint16_t h[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
    memcpy(h, p, (size_t)n * 2);
    return _mm_loadu_si128((const __m128i *)(const void *)h);
}
SSA__AVX2 __m256 ssa__avx2_widen_bf16(__m128i h)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
SSA__AVX2 __m256 ssa__avx2_load_f16(const unsigned char *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
SSA__AVX2 __m256 ssa__avx2_load_bf16(const unsigned char *p)
{
    return ssa__avx2_widen_bf16(_mm_loadu_si128((const __m128i *)(const void *)p));
}
SSA__AVX2 __m256 ssa__avx2_load_f16_n(const unsigned char *p, int32_t n)
{
    return _mm256_cvtph_ps(ssa__avx2_load_half_n(p, n));
}
SSA__AVX2 __m256 ssa__avx2_load_bf16_n(const unsigned char *p, int32_t n)
{
    return ssa__avx2_widen_bf16(ssa__avx2_load_half_n(p, n));
}
SSA__AVX2 __m256 ssa__avx2_load_i8(const unsigned char *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
SSA__AVX2 __m256 ssa__avx2_set1_f16(const unsigned char *p)
{
    short h;
    memcpy(&h, p, 2);
    return _mm256_cvtph_ps(_mm_set1_epi16(h));
}
SSA__AVX2 void ssa__avx2_load2_bf16(const unsigned char *p, __m256 *x)
{
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);
    x[0] = _mm256_castsi256_ps(_mm256_slli_epi32(h, 16));
    x[1] = _mm256_castsi256_ps(_mm256_and_si256(h, _mm256_set1_epi32(-65536)));
}
SSA__AVX2 void ssa__avx2_deinterleave(__m256 *x)
{
    __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(x[0], x[1], 0x88));
    __m256d odd = _mm256_castps_pd(_mm256_shuffle_ps(x[0], x[1], 0xdd));
    x[0] = _mm256_castpd_ps(_mm256_permute4x64_pd(even, 0xd8));
    x[1] = _mm256_castpd_ps(_mm256_permute4x64_pd(odd, 0xd8));
}
SSA__AVX2 void ssa__avx2_interleave(__m256 *x)
{
    __m256 lo = _mm256_unpacklo_ps(x[0], x[1]), hi = _mm256_unpackhi_ps(x[0], x[1]);
    x[0] = _mm256_permute2f128_ps(lo, hi, 0x20);
    x[1] = _mm256_permute2f128_ps(lo, hi, 0x31);
}
SSA__AVX2 void ssa__avx2_store_f16(unsigned char *p, __m256 v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
SSA__AVX2 void ssa__avx2_store_bf16(unsigned char *p, __m256 v)
{
    __m256i u = _mm256_castps_si256(v), top = _mm256_srli_epi32(u, 16);
    __m256i even = _mm256_and_si256(top, _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    r = _mm256_blendv_epi8(r, _mm256_or_si256(top, _mm256_set1_epi32(0x40)), nan);
    r = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(r));
}
SSA__AVX2 float ssa__avx2_hsum(__m256 v)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
SSA__AVX2 float ssa__avx2_hmax(__m256 v)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
SSA__AVX2 void ssa__avx2_hsum4(__m256 a, __m256 b, __m256 c, __m256 d, float scale, float *p)
{
    __m256 x = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    _mm_storeu_ps(p, _mm_mul_ps(y, _mm_set1_ps(scale)));
}
SSA__AVX2 void ssa__avx2_hsums(const int m, const int n, __m256 (*a)[4], float scale, float *p, int64_t ld)
{
    SSA__UNROLL
    for (int i = 0; i < m * n; i++)
        ssa__avx2_hsum4(a[i][0], a[i][1], a[i][2], a[i][3], scale, p + i / n * ld + i % n * 4);
}
SSA__AVX2 void ssa__avx2_transpose(__m256 *r)
{
    __m256 t[8];
    SSA__UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i += 4) {
        r[i]     = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    SSA__UNROLL
    for (int i = 0; i < 4; i++) {
        t[i]     = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

#define SSA__FN(x)      ssa__avx2_##x
#define SSA__V          __m256
#define SSA__L          8
#define SSA__NV         2
#define SSA__NM(nv)     ((nv) == 2 ? 6 : 12)
#define SSA__NR         2
#define SSA__NQ         2
#define SSA__NARROW     4
#define SSA__NG         4
#define SSA__TARGET     SSA__TARGET_AVX2
#define SSA__VECTOR_PASS
#include SSA_HEADER_FILENAME
#endif /* SSA__HAVE_AVX2 */

#if SSA__HAVE_AVX512
/* AVX-512 F, BW, DQ, VL: 32 registers of 16 floats. Latency and how many a cycle, about, on Skylake-X to Zen 5:
 *   vfmadd213ps       4     2    the products; an operand may be a broadcast from memory, at the price of a load
 *   vcvtph2ps         7     1    f16 to f32;  bf16: vpmovzxwd (3, 1) and vpslld (1, 1-2)
 *   vmovups {k}{z}    load  1-2  every tail, f32 and halves: lanes that are masked off are not touched
 *   vshuff32x4        3     1    blocks of 4 in the 16 x 16 transpose
 * 6 x 4 accumulators, 4 operands and a broadcast fill 29 of the 32 registers: 24 FMA for 10 loads. With one vector of
 * rows (a group of 16 heads) every FMA needs a load: 12 x 1, and about three quarters of the peak. */
#define SSA__AVX512 SSA__FORCE_INLINE SSA__TARGET_AVX512
SSA__DIAG_SIGN
SSA__AVX512 __m512 ssa__avx512_zero(void) { return _mm512_setzero_ps(); }
SSA__AVX512 __m512 ssa__avx512_set1(float x) { return _mm512_set1_ps(x); }
SSA__AVX512 __m512 ssa__avx512_load(const float *p) { return _mm512_loadu_ps(p); }
SSA__AVX512 void   ssa__avx512_store(float *p, __m512 v) { _mm512_storeu_ps(p, v); }
SSA__AVX512 __m512 ssa__avx512_mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
SSA__AVX512 __m512 ssa__avx512_add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
SSA__AVX512 __m512 ssa__avx512_sub(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
SSA__AVX512 __m512 ssa__avx512_div(__m512 a, __m512 b) { return _mm512_div_ps(a, b); }
SSA__AVX512 __m512 ssa__avx512_fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
SSA__AVX512 __m512 ssa__avx512_max(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
SSA__AVX512 __m512 ssa__avx512_log2e(__m512 x, __m512 *t)
{
    const __m512 log2e = _mm512_set1_ps((float)SSA__LOG2E), round = _mm512_set1_ps(SSA__ROUND);
    *t = _mm512_fmadd_ps(x, log2e, round);
    return _mm512_fmsub_ps(x, log2e, _mm512_sub_ps(*t, round));
}
SSA__AVX512 __m512 ssa__avx512_scale2(__m512 a, __m512 t)
{
    return _mm512_mul_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
SSA__AVX512 __mmask16 ssa__avx512_first_mask(int32_t n) /* any n; the lanes below it */
{
    return (__mmask16)(n >= 16 ? 0xffffu : n > 0 ? (1u << n) - 1 : 0u);
}
SSA__AVX512 __m512 ssa__avx512_first(int32_t n, __m512 a, __m512 b)
{
    return _mm512_mask_mov_ps(b, ssa__avx512_first_mask(n), a);
}
SSA__AVX512 __m512 ssa__avx512_below(const int32_t *limit, int32_t j, __m512 a, __m512 b)
{
    return _mm512_mask_mov_ps(
        b, _mm512_cmpgt_epi32_mask(_mm512_loadu_si512((const void *)limit), _mm512_set1_epi32(j)), a);
}
SSA__AVX512 __m512 ssa__avx512_pick(__m512 x, __m512 y, __m512 a, __m512 b)
{
    return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), a);
}
SSA__AVX512 uint32_t ssa__avx512_above_bits(__m512 a, __m512 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
SSA__AVX512 int32_t ssa__avx512_lanes(int32_t *dst, uint32_t bits, int32_t at)
{
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    lane = _mm512_add_epi32(lane, _mm512_set1_epi32(at));
    _mm512_storeu_si512((void *)dst, _mm512_maskz_compress_epi32((__mmask16)bits, lane));
    return SSA__COUNT(bits);
}
SSA__AVX512 __m512 ssa__avx512_load_n(const unsigned char *p, int32_t n)
{
    return _mm512_maskz_loadu_ps(ssa__avx512_first_mask(n), (const void *)p);
}
SSA__AVX512 void ssa__avx512_store_n(float *p, __m512 v, int32_t n)
{
    _mm512_mask_storeu_ps(p, ssa__avx512_first_mask(n), v);
}
SSA__AVX512 __m512 ssa__avx512_widen_bf16(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
SSA__AVX512 __m512 ssa__avx512_load_f16(const unsigned char *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SSA__AVX512 __m512 ssa__avx512_load_bf16(const unsigned char *p)
{
    return ssa__avx512_widen_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SSA__AVX512 __m512 ssa__avx512_load_f16_n(const unsigned char *p, int32_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(ssa__avx512_first_mask(n), (const void *)p));
}
SSA__AVX512 __m512 ssa__avx512_load_bf16_n(const unsigned char *p, int32_t n)
{
    return ssa__avx512_widen_bf16(_mm256_maskz_loadu_epi16(ssa__avx512_first_mask(n), (const void *)p));
}
SSA__AVX512 __m512 ssa__avx512_load_i8(const unsigned char *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
SSA__AVX512 __m512 ssa__avx512_set1_f16(const unsigned char *p)
{
    short h;
    memcpy(&h, p, 2);
    return _mm512_cvtph_ps(_mm256_set1_epi16(h));
}
SSA__AVX512 void ssa__avx512_load2_bf16(const unsigned char *p, __m512 *x)
{
    __m512i h = _mm512_loadu_si512((const void *)p);
    x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(h, 16));
    x[1] = _mm512_castsi512_ps(_mm512_and_si512(h, _mm512_set1_epi32(-65536)));
}
SSA__AVX512 void ssa__avx512_deinterleave(__m512 *x)
{
    const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512 even = _mm512_permutex2var_ps(x[0], at, x[1]);
    x[1] = _mm512_permutex2var_ps(x[0], _mm512_add_epi32(at, _mm512_set1_epi32(1)), x[1]);
    x[0] = even;
}
SSA__AVX512 void ssa__avx512_interleave(__m512 *x)
{
    const __m512i at = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    __m512 lo = _mm512_permutex2var_ps(x[0], at, x[1]);
    x[1] = _mm512_permutex2var_ps(x[0], _mm512_add_epi32(at, _mm512_set1_epi32(8)), x[1]);
    x[0] = lo;
}
SSA__AVX512 void ssa__avx512_store_f16(unsigned char *p, __m512 v)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
SSA__AVX512 void ssa__avx512_store_bf16(unsigned char *p, __m512 v)
{
    __m512i u = _mm512_castps_si512(v), top = _mm512_srli_epi32(u, 16);
    __m512i even = _mm512_and_si512(top, _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff))), 16);
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), top, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(r));
}
SSA__AVX512 __m256 ssa__avx512_fold(__m512 v)
{
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}
SSA__AVX512 float ssa__avx512_hsum(__m512 v)
{
    __m256 y = ssa__avx512_fold(v);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
SSA__AVX512 float ssa__avx512_hmax(__m512 v)
{
    __m256 y = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
SSA__AVX512 void ssa__avx512_hsum4(__m512 a, __m512 b, __m512 c, __m512 d, float scale, float *p)
{
    __m256 x = _mm256_hadd_ps(_mm256_hadd_ps(ssa__avx512_fold(a), ssa__avx512_fold(b)),
                              _mm256_hadd_ps(ssa__avx512_fold(c), ssa__avx512_fold(d)));
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    _mm_storeu_ps(p, _mm_mul_ps(y, _mm_set1_ps(scale)));
}
SSA__AVX512 __m512 ssa__avx512_hadd(__m512 a, __m512 b) /* as _mm256_hadd_ps, in each 128 bits */
{
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}
SSA__AVX512 void ssa__avx512_hsums(const int m, const int n, __m512 (*a)[4], float scale, float *p, int64_t ld)
{
    __m512 x[8], y;
    if (m * n < 3) {
        SSA__UNROLL
        for (int i = 0; i < m * n; i++)
            ssa__avx512_hsum4(a[i][0], a[i][1], a[i][2], a[i][3], scale, p + i / n * ld + i % n * 4);
        return;
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i++) { /* sixteen as hsum4 does four; the halves of x[i]: a[j][i % 4] and a[j + 1][i % 4] */
        const int j = i / 4 * 2;
        const __m512 u = a[j][i % 4], v = a[j + 1 < m * n ? j + 1 : j][i % 4];
        x[i] = _mm512_add_ps(_mm512_shuffle_f32x4(u, v, 0x44), _mm512_shuffle_f32x4(u, v, 0xee));
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i += 4) x[i] = ssa__avx512_hadd(ssa__avx512_hadd(x[i], x[i + 1]),
                                                           ssa__avx512_hadd(x[i + 2], x[i + 3]));
    y = _mm512_add_ps(_mm512_shuffle_f32x4(x[0], x[4], 0x88), _mm512_shuffle_f32x4(x[0], x[4], 0xdd));
    y = _mm512_mul_ps(y, _mm512_set1_ps(scale));
    _mm_storeu_ps(p, _mm512_castps512_ps128(y));
    _mm_storeu_ps(p + 1 / n * ld + 1 % n * 4, _mm512_extractf32x4_ps(y, 1));
    _mm_storeu_ps(p + 2 / n * ld + 2 % n * 4, _mm512_extractf32x4_ps(y, 2));
    if (m * n > 3) _mm_storeu_ps(p + 3 / n * ld + 3 % n * 4, _mm512_extractf32x4_ps(y, 3));
}
SSA__AVX512 void ssa__avx512_transpose(__m512 *r)
{
    __m512 t[16];
    SSA__UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    SSA__UNROLL
    for (int i = 0; i < 16; i += 4) {
        r[i]     = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    SSA__UNROLL
    for (int i = 0; i < 4; i++) { /* 4 x 4 blocks of 4: gather the even and the odd ones, then again */
        t[i]      = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4]  = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8]  = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i++) {
        r[i]     = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    }
}

SSA__DIAG_POP

#define SSA__FN(x)      ssa__avx512_##x
#define SSA__V          __m512
#define SSA__L          16
#define SSA__NV         4
#define SSA__NM(nv)     ((nv) == 4 ? 6 : (nv) == 3 ? 8 : (nv) == 2 ? 12 : 16)
#define SSA__NR         4
#define SSA__NQ         4
#define SSA__NARROW     8
#define SSA__NG         8
#define SSA__TARGET     SSA__TARGET_AVX512
#define SSA__VECTOR_PASS
#include SSA_HEADER_FILENAME
#endif /* SSA__HAVE_AVX512 */

#if SSA__HAVE_NEON
/* NEON of AArch64: 32 registers of 4 floats. Latency and how many a cycle, about, on Cortex-A76 to Neoverse V2:
 *   fmla              4     2-4  the products; one of the factors may be a single lane, which ldr s brings for nothing
 *   fcvtl             3-4   1-2  f16 to f32;  bf16: shl (2, 1-2) and and (1-2, 2-4) for two vectors
 *   faddp             2-3   2-4  hsum4: three for four sums
 *   fcmgt, bsl        2     2-4  max: fmax would keep a NaN of either side
 * 4 x 4 accumulators, 4 operands and as many broadcasts: 16 FMA for 8 loads, which leave the FMA units busy. With 6 x 4
 * gcc loads the broadcasts ahead, runs out of registers and spills. Tails go lane by lane. 32-bit ARM has the scalar
 * level: its NEON flushes subnormals to zero and has no division. */
#define SSA__NEON SSA__FORCE_INLINE SSA__TARGET_NEON
SSA__NEON float32x4_t ssa__neon_zero(void) { return vdupq_n_f32(0.0f); }
SSA__NEON float32x4_t ssa__neon_set1(float x) { return vdupq_n_f32(x); }
SSA__NEON float32x4_t ssa__neon_load(const float *p) { return vld1q_f32(p); }
SSA__NEON void        ssa__neon_store(float *p, float32x4_t v) { vst1q_f32(p, v); }
SSA__NEON float32x4_t ssa__neon_mul(float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }
SSA__NEON float32x4_t ssa__neon_add(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
SSA__NEON float32x4_t ssa__neon_sub(float32x4_t a, float32x4_t b) { return vsubq_f32(a, b); }
SSA__NEON float32x4_t ssa__neon_div(float32x4_t a, float32x4_t b) { return vdivq_f32(a, b); }
SSA__NEON float32x4_t ssa__neon_fma(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
SSA__NEON float32x4_t ssa__neon_pick(float32x4_t x, float32x4_t y, float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(x, y), a, b);
}
SSA__NEON float32x4_t ssa__neon_max(float32x4_t a, float32x4_t b) { return ssa__neon_pick(a, b, a, b); }
SSA__NEON float32x4_t ssa__neon_log2e(float32x4_t x, float32x4_t *t)
{
    const float32x4_t log2e = vdupq_n_f32((float)SSA__LOG2E), round = vdupq_n_f32(SSA__ROUND);
    *t = vfmaq_f32(round, x, log2e);
    return vnegq_f32(vfmsq_f32(vsubq_f32(*t, round), x, log2e)); /* -(n - a*b): the compilers make it fmla with -n */
}
SSA__NEON float32x4_t ssa__neon_scale2(float32x4_t a, float32x4_t t)
{
    return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(vreinterpretq_s32_f32(t), 23)));
}
SSA__NEON uint32x4_t ssa__neon_first_mask(int32_t n)
{
    static const int32_t lane[4] = { 0, 1, 2, 3 };
    return vcgtq_s32(vdupq_n_s32(n), vld1q_s32(lane));
}
SSA__NEON float32x4_t ssa__neon_first(int32_t n, float32x4_t a, float32x4_t b)
{
    return vbslq_f32(ssa__neon_first_mask(n), a, b);
}
SSA__NEON float32x4_t ssa__neon_below(const int32_t *limit, int32_t j, float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_s32(vld1q_s32(limit), vdupq_n_s32(j)), a, b);
}
SSA__NEON uint32_t ssa__neon_above_bits(float32x4_t a, float32x4_t b)
{
    static const uint32_t bit[4] = { 1, 2, 4, 8 };
    return vaddvq_u32(vandq_u32(vcgtq_f32(a, b), vld1q_u32(bit)));
}
SSA__NEON int32_t ssa__neon_lanes(int32_t *dst, uint32_t bits, int32_t at)
{
    int32_t n = 0;
    for (; bits; bits &= bits - 1) dst[n++] = at + SSA__LOWEST(bits);
    return n;
}
SSA__NEON float32x4_t ssa__neon_load_n(const unsigned char *p, int32_t n)
{
    float x[4] = { 0, 0, 0, 0 };
    if (n > 0) memcpy(x, p, 4);
    if (n > 1) memcpy(x + 1, p + 4, 4);
    if (n > 2) memcpy(x + 2, p + 8, 4);
    if (n > 3) memcpy(x + 3, p + 12, 4);
    return vld1q_f32(x);
}
SSA__NEON void ssa__neon_store_n(float *p, float32x4_t v, int32_t n)
{
    if (n > 0) vst1q_lane_f32(p, v, 0);
    if (n > 1) vst1q_lane_f32(p + 1, v, 1);
    if (n > 2) vst1q_lane_f32(p + 2, v, 2);
    if (n > 3) vst1q_lane_f32(p + 3, v, 3);
}
SSA__NEON uint16x4_t ssa__neon_load_half(const unsigned char *p) { return vreinterpret_u16_u8(vld1_u8(p)); }
SSA__NEON uint16x4_t ssa__neon_load_half_n(const unsigned char *p, int32_t n)
{
    uint16_t h[4] = { 0, 0, 0, 0 };
    if (n > 0) memcpy(h, p, 2);
    if (n > 1) memcpy(h + 1, p + 2, 2);
    if (n > 2) memcpy(h + 2, p + 4, 2);
    if (n > 3) memcpy(h + 3, p + 6, 2);
    return vld1_u16(h);
}
SSA__NEON float32x4_t ssa__neon_widen_f16(uint16x4_t h) { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }
SSA__NEON float32x4_t ssa__neon_widen_bf16(uint16x4_t h) { return vreinterpretq_f32_u32(vshll_n_u16(h, 16)); }
SSA__NEON float32x4_t ssa__neon_load_f16(const unsigned char *p) { return ssa__neon_widen_f16(ssa__neon_load_half(p)); }
SSA__NEON float32x4_t ssa__neon_load_bf16(const unsigned char *p)
{
    return ssa__neon_widen_bf16(ssa__neon_load_half(p));
}
SSA__NEON float32x4_t ssa__neon_load_f16_n(const unsigned char *p, int32_t n)
{
    return ssa__neon_widen_f16(ssa__neon_load_half_n(p, n));
}
SSA__NEON float32x4_t ssa__neon_load_bf16_n(const unsigned char *p, int32_t n)
{
    return ssa__neon_widen_bf16(ssa__neon_load_half_n(p, n));
}
SSA__NEON float32x4_t ssa__neon_load_i8(const unsigned char *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(x))))));
}
SSA__NEON float32x4_t ssa__neon_set1_f16(const unsigned char *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return ssa__neon_widen_f16(vdup_n_u16(h));
}
SSA__NEON void ssa__neon_load2_bf16(const unsigned char *p, float32x4_t *x)
{
    uint32x4_t h = vreinterpretq_u32_u8(vld1q_u8(p));
    x[0] = vreinterpretq_f32_u32(vshlq_n_u32(h, 16));
    x[1] = vreinterpretq_f32_u32(vandq_u32(h, vdupq_n_u32(0xffff0000u)));
}
SSA__NEON void ssa__neon_deinterleave(float32x4_t *x)
{
    float32x4_t even = vuzp1q_f32(x[0], x[1]);
    x[1] = vuzp2q_f32(x[0], x[1]);
    x[0] = even;
}
SSA__NEON void ssa__neon_interleave(float32x4_t *x)
{
    float32x4_t lo = vzip1q_f32(x[0], x[1]);
    x[1] = vzip2q_f32(x[0], x[1]);
    x[0] = lo;
}
SSA__NEON void ssa__neon_store_f16(unsigned char *p, float32x4_t v)
{
    vst1_u8(p, vreinterpret_u8_f16(vcvt_f16_f32(v)));
}
SSA__NEON void ssa__neon_store_bf16(unsigned char *p, float32x4_t v)
{
    uint32x4_t u = vreinterpretq_u32_f32(v), top = vshrq_n_u32(u, 16);
    uint32x4_t r = vaddq_u32(u, vaddq_u32(vandq_u32(top, vdupq_n_u32(1)), vdupq_n_u32(0x7fff)));
    uint32x4_t nan = vcgtq_u32(vandq_u32(u, vdupq_n_u32(0x7fffffffu)), vdupq_n_u32(0x7f800000u));
    r = vbslq_u32(nan, vorrq_u32(top, vdupq_n_u32(0x40)), vshrq_n_u32(r, 16));
    vst1_u8(p, vreinterpret_u8_u16(vmovn_u32(r)));
}
SSA__NEON float ssa__neon_hsum(float32x4_t v) { return vaddvq_f32(v); }
SSA__NEON float ssa__neon_hmax(float32x4_t v) { return vmaxvq_f32(v); }
SSA__NEON void ssa__neon_hsum4(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d, float scale, float *p)
{
    vst1q_f32(p, vmulq_n_f32(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)), scale));
}
SSA__NEON void ssa__neon_hsums(const int m, const int n, float32x4_t (*a)[4], float scale, float *p, int64_t ld)
{
    SSA__UNROLL
    for (int i = 0; i < m * n; i++)
        ssa__neon_hsum4(a[i][0], a[i][1], a[i][2], a[i][3], scale, p + i / n * ld + i % n * 4);
}
SSA__NEON void ssa__neon_transpose(float32x4_t *r)
{
    float32x4_t a = vzip1q_f32(r[0], r[2]), b = vzip1q_f32(r[1], r[3]); /* columns 0 and 1 of every other row */
    float32x4_t c = vzip2q_f32(r[0], r[2]), d = vzip2q_f32(r[1], r[3]); /* columns 2 and 3 */
    r[0] = vzip1q_f32(a, b);
    r[1] = vzip2q_f32(a, b);
    r[2] = vzip1q_f32(c, d);
    r[3] = vzip2q_f32(c, d);
}

#define SSA__FN(x)      ssa__neon_##x
#define SSA__V          float32x4_t
#define SSA__L          4
#define SSA__NV         4
#define SSA__NM(nv)     4
#define SSA__NR         4
#define SSA__NQ         4
#define SSA__NARROW     8
#define SSA__NG         4
#define SSA__TARGET     SSA__TARGET_NEON
#define SSA__VECTOR_PASS
#include SSA_HEADER_FILENAME
#endif /* SSA__HAVE_NEON */

#if SSA__HAVE_SIMD128
/* SIMD128 of WebAssembly: as many registers of 4 floats as the CPU has, 16 or 32. What V8 makes of it:
 *   f32x4.mul, add        mulps, addps; fmul, fadd: there is no FMA, a product is rounded before it is added
 *   v128.load32_splat     vbroadcastss; ld1r
 *   f32x4.pmax            maxps; fcmgt and bsl: f32x4.max would keep a NaN of either side
 *   v128.bitselect        3; bsl
 *   i8x16.shuffle         unpcklps, unpckhps, shufps; zip1, zip2, uzp1, uzp2: those used here are one instruction
 * 4 x 2 accumulators, 2 operands, a broadcast and a product: 12 of x86's 16 registers, of which V8 keeps one. 6 x 2 and
 * 4 x 4 are a quarter slower there. f16 is widened by hand, which costs as much as four products. */
#define SSA__SIMD128 SSA__FORCE_INLINE SSA__TARGET_SIMD128
SSA__SIMD128 v128_t ssa__simd128_zero(void) { return wasm_i32x4_const_splat(0); }
SSA__SIMD128 v128_t ssa__simd128_set1(float x) { return wasm_f32x4_splat(x); }
SSA__SIMD128 v128_t ssa__simd128_load(const float *p) { return wasm_v128_load(p); }
SSA__SIMD128 void   ssa__simd128_store(float *p, v128_t v) { wasm_v128_store(p, v); }
SSA__SIMD128 v128_t ssa__simd128_mul(v128_t a, v128_t b) { return wasm_f32x4_mul(a, b); }
SSA__SIMD128 v128_t ssa__simd128_add(v128_t a, v128_t b) { return wasm_f32x4_add(a, b); }
SSA__SIMD128 v128_t ssa__simd128_sub(v128_t a, v128_t b) { return wasm_f32x4_sub(a, b); }
SSA__SIMD128 v128_t ssa__simd128_div(v128_t a, v128_t b) { return wasm_f32x4_div(a, b); }
SSA__SIMD128 v128_t ssa__simd128_fma(v128_t a, v128_t b, v128_t c)
{
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
}
SSA__SIMD128 v128_t ssa__simd128_pick(v128_t x, v128_t y, v128_t a, v128_t b)
{
    return wasm_v128_bitselect(a, b, wasm_f32x4_gt(x, y));
}
SSA__SIMD128 v128_t ssa__simd128_max(v128_t a, v128_t b) { return wasm_f32x4_pmax(b, a); } /* b < a ? a : b */
/* Without FMA x log2 e is rounded: its fraction comes from x - n ln 2, as in ssa__expf. n not through SSA__ROUND and
 * back, which -ffast-math leaves out where no FMA is in between. */
SSA__SIMD128 v128_t ssa__simd128_log2e(v128_t x, v128_t *t)
{
    const v128_t log2e = wasm_f32x4_const_splat((float)SSA__LOG2E), n = wasm_f32x4_nearest(wasm_f32x4_mul(x, log2e));
    v128_t r = wasm_f32x4_sub(x, wasm_f32x4_mul(n, wasm_f32x4_const_splat(SSA__LN2_1)));
    r = wasm_f32x4_sub(r, wasm_f32x4_mul(n, wasm_f32x4_const_splat(SSA__LN2_2)));
    *t = wasm_f32x4_add(n, wasm_f32x4_const_splat(SSA__ROUND));
    return wasm_f32x4_mul(r, log2e);
}
SSA__SIMD128 v128_t ssa__simd128_scale2(v128_t a, v128_t t) { return wasm_f32x4_mul(a, wasm_i32x4_shl(t, 23)); }
SSA__SIMD128 v128_t ssa__simd128_first(int32_t n, v128_t a, v128_t b)
{
    return wasm_v128_bitselect(a, b, wasm_i32x4_gt(wasm_i32x4_splat(n), wasm_i32x4_const(0, 1, 2, 3)));
}
SSA__SIMD128 v128_t ssa__simd128_below(const int32_t *limit, int32_t j, v128_t a, v128_t b)
{
    return wasm_v128_bitselect(a, b, wasm_i32x4_gt(wasm_v128_load(limit), wasm_i32x4_splat(j)));
}
SSA__SIMD128 uint32_t ssa__simd128_above_bits(v128_t a, v128_t b)
{
    return (uint32_t)wasm_i32x4_bitmask(wasm_f32x4_gt(a, b));
}
SSA__SIMD128 int32_t ssa__simd128_lanes(int32_t *dst, uint32_t bits, int32_t at)
{
    int32_t n = 0;
    for (; bits; bits &= bits - 1) dst[n++] = at + SSA__LOWEST(bits);
    return n;
}
SSA__SIMD128 v128_t ssa__simd128_load_n(const unsigned char *p, int32_t n)
{
    float x[4] = { 0, 0, 0, 0 };
    if (n > 0) memcpy(x, p, 4);
    if (n > 1) memcpy(x + 1, p + 4, 4);
    if (n > 2) memcpy(x + 2, p + 8, 4);
    if (n > 3) memcpy(x + 3, p + 12, 4);
    return wasm_v128_load(x);
}
SSA__SIMD128 void ssa__simd128_store_n(float *p, v128_t v, int32_t n)
{
    if (n > 0) wasm_v128_store32_lane(p, v, 0);
    if (n > 1) wasm_v128_store32_lane(p + 1, v, 1);
    if (n > 2) wasm_v128_store32_lane(p + 2, v, 2);
    if (n > 3) wasm_v128_store32_lane(p + 3, v, 3);
}
SSA__SIMD128 v128_t ssa__simd128_load_half(const unsigned char *p) { return wasm_i32x4_load16x4(p); }
SSA__SIMD128 v128_t ssa__simd128_load_half_n(const unsigned char *p, int32_t n)
{
    uint16_t h[4] = { 0, 0, 0, 0 };
    if (n > 0) memcpy(h, p, 2);
    if (n > 1) memcpy(h + 1, p + 2, 2);
    if (n > 2) memcpy(h + 2, p + 4, 2);
    if (n > 3) memcpy(h + 3, p + 6, 2);
    return wasm_i32x4_load16x4(h);
}
/* h: halves whose sign fills the upper 16 bits. Read as a float, exponent and mantissa at their places are the number
 * times 2^-112, subnormals too; infinity and NaN then get all bits of the exponent. */
SSA__SIMD128 v128_t ssa__simd128_widen_f16(v128_t h)
{
    const v128_t e31 = wasm_i32x4_const_splat(0x0f800000);
    v128_t x = wasm_v128_and(wasm_i32x4_shl(h, 13), wasm_i32x4_const_splat((int32_t)0x8fffe000u));
    v128_t top = wasm_i32x4_eq(wasm_v128_and(x, e31), e31);
    x = wasm_f32x4_mul(x, wasm_f32x4_const_splat(5.192296858534828e33f)); /* 2^112 */
    return wasm_v128_or(x, wasm_v128_and(top, wasm_i32x4_const_splat(0x7f800000)));
}
SSA__SIMD128 v128_t ssa__simd128_widen_bf16(v128_t h) { return wasm_i32x4_shl(h, 16); }
SSA__SIMD128 v128_t ssa__simd128_load_f16(const unsigned char *p)
{
    return ssa__simd128_widen_f16(ssa__simd128_load_half(p));
}
SSA__SIMD128 v128_t ssa__simd128_load_bf16(const unsigned char *p)
{
    return ssa__simd128_widen_bf16(ssa__simd128_load_half(p));
}
SSA__SIMD128 v128_t ssa__simd128_load_f16_n(const unsigned char *p, int32_t n)
{
    return ssa__simd128_widen_f16(ssa__simd128_load_half_n(p, n));
}
SSA__SIMD128 v128_t ssa__simd128_load_bf16_n(const unsigned char *p, int32_t n)
{
    return ssa__simd128_widen_bf16(ssa__simd128_load_half_n(p, n));
}
SSA__SIMD128 v128_t ssa__simd128_load_i8(const unsigned char *p)
{
    v128_t x = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(p));
    return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(x));
}
SSA__SIMD128 v128_t ssa__simd128_set1_f16(const unsigned char *p)
{
    int16_t h;
    memcpy(&h, p, 2);
    return ssa__simd128_widen_f16(wasm_i32x4_splat(h));
}
SSA__SIMD128 void ssa__simd128_load2_bf16(const unsigned char *p, v128_t *x)
{
    v128_t h = wasm_v128_load(p);
    x[0] = wasm_i32x4_shl(h, 16);
    x[1] = wasm_v128_and(h, wasm_i32x4_const_splat(-65536));
}
SSA__SIMD128 v128_t ssa__simd128_even(v128_t a, v128_t b) { return wasm_i32x4_shuffle(a, b, 0, 2, 4, 6); }
SSA__SIMD128 v128_t ssa__simd128_odd(v128_t a, v128_t b) { return wasm_i32x4_shuffle(a, b, 1, 3, 5, 7); }
SSA__SIMD128 v128_t ssa__simd128_zip_low(v128_t a, v128_t b) { return wasm_i32x4_shuffle(a, b, 0, 4, 1, 5); }
SSA__SIMD128 v128_t ssa__simd128_zip_high(v128_t a, v128_t b) { return wasm_i32x4_shuffle(a, b, 2, 6, 3, 7); }
SSA__SIMD128 void ssa__simd128_deinterleave(v128_t *x)
{
    v128_t even = ssa__simd128_even(x[0], x[1]);
    x[1] = ssa__simd128_odd(x[0], x[1]);
    x[0] = even;
}
SSA__SIMD128 void ssa__simd128_interleave(v128_t *x)
{
    v128_t low = ssa__simd128_zip_low(x[0], x[1]);
    x[1] = ssa__simd128_zip_high(x[0], x[1]);
    x[0] = low;
}
/* The lower 16 bits of each lane. */
SSA__SIMD128 void ssa__simd128_store_half(unsigned char *p, v128_t h)
{
    wasm_v128_store64_lane(p, wasm_u16x8_narrow_i32x4(h, h), 0);
}
/* As ssa__f32_to_f16: above 65520 as that is, below 2^-14 rounded by an addition whose last bit is worth 2^-24. */
SSA__SIMD128 void ssa__simd128_store_f16(unsigned char *p, v128_t v)
{
    const v128_t half = wasm_f32x4_const_splat(0.5f), infinity = wasm_i32x4_const_splat(0x7f800000);
    const v128_t sign = wasm_v128_and(v, wasm_i32x4_const_splat((int32_t)0x80000000u)), a = wasm_v128_xor(v, sign);
    v128_t m = wasm_u32x4_min(a, wasm_i32x4_const_splat(0x477ff000));
    v128_t even = wasm_v128_and(wasm_u32x4_shr(m, 13), wasm_i32x4_const_splat(1));
    v128_t r = wasm_i32x4_add(wasm_i32x4_add(m, even), wasm_i32x4_const_splat(0xfff - 0x38000000));
    v128_t small = wasm_i32x4_sub(wasm_f32x4_add(a, half), half);
    v128_t nan = wasm_v128_or(wasm_v128_and(wasm_u32x4_shr(a, 13), wasm_i32x4_const_splat(0x3ff)),
                              wasm_i32x4_const_splat(0x7e00));
    r = wasm_v128_bitselect(small, wasm_u32x4_shr(r, 13), wasm_i32x4_lt(a, wasm_i32x4_const_splat(0x38800000)));
    r = wasm_v128_bitselect(nan, r, wasm_i32x4_gt(a, infinity));
    ssa__simd128_store_half(p, wasm_v128_or(r, wasm_u32x4_shr(sign, 16)));
}
SSA__SIMD128 void ssa__simd128_store_bf16(unsigned char *p, v128_t v)
{
    v128_t top = wasm_u32x4_shr(v, 16), even = wasm_v128_and(top, wasm_i32x4_const_splat(1));
    v128_t r = wasm_i32x4_add(v, wasm_i32x4_add(even, wasm_i32x4_const_splat(0x7fff)));
    v128_t a = wasm_v128_and(v, wasm_i32x4_const_splat(0x7fffffff));
    v128_t nan = wasm_i32x4_gt(a, wasm_i32x4_const_splat(0x7f800000));
    r = wasm_v128_bitselect(wasm_v128_or(top, wasm_i32x4_const_splat(0x40)), wasm_u32x4_shr(r, 16), nan);
    ssa__simd128_store_half(p, r);
}
SSA__SIMD128 float ssa__simd128_hsum(v128_t v)
{
    v = wasm_f32x4_add(ssa__simd128_even(v, v), ssa__simd128_odd(v, v));
    return wasm_f32x4_extract_lane(wasm_f32x4_add(v, ssa__simd128_odd(v, v)), 0);
}
SSA__SIMD128 float ssa__simd128_hmax(v128_t v)
{
    v = ssa__simd128_max(ssa__simd128_even(v, v), ssa__simd128_odd(v, v));
    return wasm_f32x4_extract_lane(ssa__simd128_max(v, ssa__simd128_odd(v, v)), 0);
}
SSA__SIMD128 void ssa__simd128_hsum4(v128_t a, v128_t b, v128_t c, v128_t d, float scale, float *p)
{
    v128_t x = wasm_f32x4_add(ssa__simd128_even(a, b), ssa__simd128_odd(a, b));
    v128_t y = wasm_f32x4_add(ssa__simd128_even(c, d), ssa__simd128_odd(c, d));
    x = wasm_f32x4_add(ssa__simd128_even(x, y), ssa__simd128_odd(x, y));
    wasm_v128_store(p, wasm_f32x4_mul(x, wasm_f32x4_splat(scale)));
}
SSA__SIMD128 void ssa__simd128_hsums(const int m, const int n, v128_t (*a)[4], float scale, float *p, int64_t ld)
{
    SSA__UNROLL
    for (int i = 0; i < m * n; i++)
        ssa__simd128_hsum4(a[i][0], a[i][1], a[i][2], a[i][3], scale, p + i / n * ld + i % n * 4);
}
SSA__SIMD128 void ssa__simd128_transpose(v128_t *r)
{
    v128_t a = ssa__simd128_zip_low(r[0], r[2]), b = ssa__simd128_zip_low(r[1], r[3]); /* columns 0, 1 of other rows */
    v128_t c = ssa__simd128_zip_high(r[0], r[2]), d = ssa__simd128_zip_high(r[1], r[3]); /* columns 2, 3 */
    r[0] = ssa__simd128_zip_low(a, b);
    r[1] = ssa__simd128_zip_high(a, b);
    r[2] = ssa__simd128_zip_low(c, d);
    r[3] = ssa__simd128_zip_high(c, d);
}

#define SSA__FN(x)      ssa__simd128_##x
#define SSA__V          v128_t
#define SSA__L          4
#define SSA__NV         2
#define SSA__NM(nv)     4
#define SSA__NR         2
#define SSA__NQ         2
#define SSA__NARROW     8
#define SSA__NG         4
#define SSA__TARGET     SSA__TARGET_SIMD128
#define SSA__VECTOR_PASS
#include SSA_HEADER_FILENAME
#endif /* SSA__HAVE_SIMD128 */

/* =====================================================================================================================
 * 9  SPECIAL UNITS. A level here starts from the table of the level below and overrides or adds the entries it does
 *    better; AVX512_BF16 and BFMMLA do so within a level.
 *
 *    Many rows, on AMX, and all tiles of more than narrow's, on AVX512_BF16, go through one loop (ssa__b16_many_of):
 *      scores  S^T = K.Q^T:  16 keys as they lie, Q packed once a tile, C = [key][row]: rows along the lanes, so that
 *              maximum and sum are vertical
 *      values  O^T = V^T.P^T:  p of key pairs as the softmax leaves them; V laid out once a chunk for all rows of the
 *              tile, or of the call.  o [group of 16 rows][dv_unit][16]
 *
 *    AVX512_BF16: C [16] f32 += A [16][2] bf16 * B [2] bf16, twice the multiply-adds of f32 on AMD's CPUs, for bf16
 *    alone: A = pairs of dims of 16 rows, or p of a pair of keys; B = a pair from memory, to all lanes: of a key as it
 *    lies, or of two values interleaved. pairs: scores of pooled keys in bf16 likewise, as wide leaves them; and of 16
 *    turned keys for gathered rows, whose p and values stay f32's. narrow: A = pairs of dims of a key, B = a query's.
 *
 *    AMX: eight tiles of 16 rows of 64 bytes; C [16][16] f32 += A [16][32] bf16 * B [32][16] bf16, where B holds pairs
 *    of its rows interleaved: [16 pairs][16][2]. Tails are zeros in what is taken; up to 8 rows have lower tiles.
 *      many    A = keys, B = queries; B = p, A = V transposed
 *      few     O = P.V:  A = p transposed; B = V with key pairs interleaved, the cheaper of the two to prepare when
 *              there are 16 rows. Interleaving leaves the dims of 32 in the order that ssa__amx_o tells; finish
 *              restores it.  o [row][dv_unit]. f16 in the cache is split into its terms a step at a time
 *      rank    S = Q.K^T of all blocks: A = queries as they are, pooled keys turned, as three terms when they are
 *              floats, so that importance is exact to a float, of which two are used where it is seen that a third
 *              changes no list; s [part][32 blocks][16 rows][32], p stays in f32. Blocks along the lanes: summed over
 *              the group's rows at the end without a shuffle. Two parts of 16 rows at a time meet the same 32 blocks
 *      gather  S = Q.K^T, O += P.V for 16 rows that chose a block, whose keys were transposed and whose values were
 *              interleaved when it was packed: A = queries as they are, and p as the softmax leaves it, a row's 16 keys
 *              along the lanes. Products over 16 keys take half a tile's width of p and half its height of values.
 *              Groups of whole tiles stay a query at a time: all its blocks, with the output in tiles
 *
 *    AMX for q8_0: C [16][16] int32 += A [16][64] int8 * B [64][16] int8, where B holds fours of its rows interleaved:
 *    [16 fours][16][4]. A = digits of q, and of p times the values' scales; B = 32 dims of 16 keys, turned, and 64 keys
 *    of 16 dims of values. All of it is exact but for the digits: 2^-30 of the largest.
 *
 *    BFMMLA of ARM: C [2][2] f32 += A [2][4] bf16 * B [2][4]^T: sixteen multiply-adds, where fmla has four. One form
 *    for few and many rows, bf16 alone; 4 x 4 results from 4 and 4 operands a step, 16 rows at a time:
 *      scores  S = K.Q^T:  A = 2 keys x 4 dims, B = 2 rows x 4 dims, stored with rows along the lanes
 *      values  O^T = V^T.P^T:  A = 2 dims x 4 keys, transposed once a chunk; B = 2 rows x 4 keys of p. o stays as the
 *              products leave it, as ssa__bfmm_o tells
 *
 *    All: p is rounded to a bf16 (two terms when V has two), and l sums what p was rounded to: so the weights of a row
 *    add up to 1. m is in powers of 2. With one term, BFMMLA's aside, it follows the maximum only when that is 8 ahead:
 *    p may reach 2^8, or in the loop for many rows 32 times that, which costs no accuracy, and the output is rarely
 *    rescaled.
 * ================================================================================================================== */
#if SSA__HAVE_B16
#define SSA__B16  SSA__FORCE_INLINE SSA__TARGET_B16
#define SSA__B16F static SSA__TARGET_B16
#define SSA__B16_LAG  8.0f /* how far, in powers of 2, a maximum may run ahead of m */
SSA__DIAG_SIGN

/* Keys in whole steps of 32: what a product of values takes at a time, and two tiles of scores. */
static int32_t ssa__b16_keys(int32_t n) { return (n + 31) & ~31; }

/* -- rows to terms -- */
SSA__B16F void ssa__b16_take_bf16(uint16_t *dst, int64_t term, int32_t ld,
                                  const unsigned char *src, int64_t stride, int32_t n, int32_t d)
{
    (void)term;
    for (int32_t j = 0; j < n; j++, dst += ld, src += stride) {
        int32_t e = 0;
        for (; e + 32 <= d; e += 32) _mm512_storeu_si512(dst + e, _mm512_loadu_si512(src + 2 * e));
        if (e < d) _mm512_storeu_si512(dst + e, _mm512_maskz_loadu_epi16((1u << (d - e)) - 1, src + 2 * e));
    }
}

/* x = hi + lo, exact for halves: 8 of 11 bits, and the rest. */
SSA__B16 void ssa__b16_split(__m512 x, __m256i *hi, __m256i *lo)
{
    __m512i h = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32((int)0xffff0000u));
    __m512 rest = _mm512_maskz_sub_ps(_mm512_cmp_ps_mask(x, _mm512_castsi512_ps(h), _CMP_NEQ_UQ), x,
                                      _mm512_castsi512_ps(h)); /* inf - inf is not wanted */
    *hi = _mm512_cvtepi32_epi16(_mm512_srli_epi32(h, 16));
    *lo = _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_castps_si512(rest), 16));
}

/* rows [row][dk_pad], exact in q_terms terms, to q [16 rows][term][32 dims]([pair][row][2]): a tile is 1 KiB. A
 * negative scale is moved into q, so that the largest product is the largest score. */
SSA__B16F void ssa__b16_q_prep(ssa__tile *t, float *rows)
{
    const __m512 sign = _mm512_set1_ps(t->scale < 0.0f ? -0.0f : 0.0f);
    const int32_t groups = (t->rows + 15) / 16, steps = t->dk_unit / 32;
    unsigned char *q = (unsigned char *)t->q;
    for (int32_t g = 0; g < groups; g++)
        for (int32_t k = 0; k < steps; k++)
            for (int32_t a = 0; a < t->q_terms; a++) {
                unsigned char *tile = q + (((int64_t)g * t->q_terms + a) * steps + k) * 1024;
                __m512 x[16];
                for (int32_t r = 0; r < 16; r++) x[r] = _mm512_setzero_ps();
                for (int32_t r = 0; r < 16 && g * 16 + r < t->rows; r++) {
                    const float *row = rows + (int64_t)(g * 16 + r) * t->dk_pad + k * 32;
                    __m256i half[2][2];
                    for (int i = 0; i < 2; i++) {
                        __m512 y = k * 32 + i * 16 < t->dk_pad ? _mm512_loadu_ps(row + i * 16) : _mm512_setzero_ps();
                        ssa__b16_split(_mm512_xor_ps(y, sign), &half[0][i], &half[1][i]);
                    }
                    x[r] = _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(half[a][0]), half[a][1], 1));
                }
                ssa__avx512_transpose(x);
                for (int32_t i = 0; i < 16; i++) _mm512_storeu_ps((float *)(void *)(tile + i * 64), x[i]);
            }
    if (groups > 1 && groups % 2) /* rows go in pairs of groups */
        memset(q + (int64_t)groups * t->q_terms * steps * 1024, 0, (size_t)(t->q_terms * steps) * 1024);
}

/* n <= 16 bf16 rows of d dims to dst [32 dims]([pair][row][2]), the rest zero. */
SSA__B16F void ssa__b16_turn(uint16_t *dst, const unsigned char *rows, int64_t stride, int32_t n, int32_t d)
{
    for (int32_t e = 0; e < d; e += 32) {
        const __mmask32 some = d - e >= 32 ? 0xffffffffu : (1u << (d - e)) - 1;
        __m512 x[16];
        for (int32_t j = 0; j < 16; j++)
            x[j] = j < n ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(some, rows + j * stride + 2 * e))
                         : _mm512_setzero_ps();
        ssa__avx512_transpose(x);
        for (int32_t i = 0; i < 16; i++) _mm512_storeu_ps((float *)(void *)(dst + 16 * e + 32 * i), x[i]);
    }
}

/* The same for bf16 queries, 16 rows at a time; of a few [columns], for which all is bf16. */
SSA__B16F void ssa__b16_q_turn(ssa__tile *t, const uint16_t *rows, int32_t at, int32_t n)
{
    uint16_t *q = (uint16_t *)(void *)t->q + (int64_t)at * t->dk_unit;
    ssa__b16_turn(q, (const unsigned char *)rows, t->dk_unit * 2, n, t->dk_unit);
    for (int32_t i = 0; t->scale < 0.0f && i < 16 * t->dk_unit; i += 32)
        _mm512_storeu_si512(q + i, _mm512_xor_si512(_mm512_loadu_si512(q + i), _mm512_set1_epi16((short)0x8000)));
    for (int32_t i = 0; t->columns < 16 && i < t->dk_unit / 2; i++)
        _mm512_mask_storeu_epi32(q + (int64_t)i * t->columns * 2, (__mmask16)((1u << t->columns) - 1),
                                 _mm512_loadu_si512(q + (int64_t)i * 32));
}

/* From products to powers of 2. A negative scale's sign is in q. 0: adjust has done it. */
SSA__B16 __m512 ssa__b16_scale(const ssa__tile *t)
{
    if (ssa__bits(t->scale) << 1 == 0) return _mm512_set1_ps(1.0f);
    return _mm512_set1_ps((t->scale < 0.0f ? -t->scale : t->scale) * (float)SSA__LOG2E);
}

/* -- the exponential: 2^x = 2^floor(x) * poly(x - floor(x)), any x. For one term the error is 8e-5, and half a unit of
 * a bf16's last digit is on top, so that cutting rounds; for two terms it is 1e-7. -- */
SSA__B16 __m512 ssa__b16_exp2_of(const int terms, const float up, __m512 x)
{
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), p;
    if (terms == 1) {
        p = _mm512_fmadd_ps(_mm512_set1_ps(0.0780245227f), f, _mm512_set1_ps(0.226067155f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.695833541f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999925219f + up));
    } else {
        p = _mm512_fmadd_ps(_mm512_set1_ps(0.00187757668f), f, _mm512_set1_ps(0.0089893401f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0558263181f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.240153617f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.693153073f));
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    }
    return _mm512_scalef_ps(p, x);
}
SSA__B16 __m512 ssa__b16_exp2(const int terms, __m512 x) { return ssa__b16_exp2_of(terms, 0.00390625f, x); }

/* How far scores are below m. For two terms rounded twice, as m was: the largest key's p is exactly 1. */
SSA__B16 __m512 ssa__b16_below(const int terms, __m512 s, __m512 scale, __m512 m)
{
    if (terms == 1) return _mm512_fmsub_ps(s, scale, m);
    return _mm512_sub_ps(_mm512_mul_round_ps(s, scale, _MM_FROUND_CUR_DIRECTION), m); /* not to be made an fmsub */
}

/* bf16 of two vectors by cutting, a in the low halves and b in the high ones. */
SSA__B16 __m512i ssa__b16_pair(__m512 a, __m512 b)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}
SSA__B16 __m512 ssa__b16_nearest(__m512 a) /* to bf16; a >= 0 or NaN */
{
    const __m512i u = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000u)));
}
SSA__B16 __m512 ssa__b16_sum(__m512 sum, __m512i pair) /* sum + both halves */
{
    return _mm512_dpbf16_ps(sum, (__m512bh)pair, (__m512bh)_mm512_set1_epi32(0x3f803f80));
}

/* p of keys j and j + 1 for 16 rows, from s [key][16]: term a to p[a]. hidden: keys from limit[row] on have p = 0. */
SSA__B16 __m512 ssa__b16_p(const int terms, const int hidden, const float *s, int32_t j, __m512 scale, __m512 m,
                           __m512i limit, __m512i *p, __m512 sum)
{
    __m512 a = ssa__b16_exp2(terms, ssa__b16_below(terms, _mm512_loadu_ps(s), scale, m));
    __m512 b = ssa__b16_exp2(terms, ssa__b16_below(terms, _mm512_loadu_ps(s + 16), scale, m));
    if (hidden) {
        a = _mm512_maskz_mov_ps(_mm512_cmpgt_epi32_mask(limit, _mm512_set1_epi32(j)), a);
        b = _mm512_maskz_mov_ps(_mm512_cmpgt_epi32_mask(limit, _mm512_set1_epi32(j + 1)), b);
    }
    if (terms == 2) {
        const __m512 hi_a = ssa__b16_nearest(a), hi_b = ssa__b16_nearest(b);
        p[1] = ssa__b16_pair(_mm512_sub_ps(a, hi_a), _mm512_sub_ps(b, hi_b));
        sum = ssa__b16_sum(sum, p[1]);
        a = hi_a;
        b = hi_b;
    }
    p[0] = ssa__b16_pair(a, b);
    sum = ssa__b16_sum(sum, p[0]);
    return sum;
}

/* The maximum of the scores s [n][16] of n keys from `key` on for 16 rows, times scale: m moves up to it where it is
 * more than SSA__B16_LAG above, or above at all for two terms, where the largest key's p must be exactly 1. Leaves the
 * factor for what came before in fix; returns whether it is not 1 for some row. */
SSA__B16 int ssa__b16_max(const int terms, const float *s, int32_t key, int32_t n, int hidden, __m512i limit,
                          __m512 scale, float *m, float *l, float *fix)
{
    __m512 top[4], old = _mm512_loadu_ps(m), f;
    __mmask16 moved;
    int32_t j = 0;
    top[0] = top[1] = top[2] = top[3] = _mm512_set1_ps(-FLT_MAX);
    if (hidden) {
        for (; j < n; j++)
            top[0] = _mm512_mask_max_ps(top[0], _mm512_cmpgt_epi32_mask(limit, _mm512_set1_epi32(key + j)),
                                        _mm512_loadu_ps(s + j * 16), top[0]);
    } else {
        for (; j + 4 <= n; j += 4) {
            SSA__UNROLL
            for (int i = 0; i < 4; i++) top[i] = _mm512_max_ps(_mm512_loadu_ps(s + (j + i) * 16), top[i]);
        }
        for (; j < n; j++) top[0] = _mm512_max_ps(_mm512_loadu_ps(s + j * 16), top[0]);
    }
    top[0] = _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
    moved = _mm512_cmp_ps_mask(top[0], _mm512_set1_ps(-FLT_MAX), _CMP_NEQ_UQ); /* sees a key of these */
    top[0] = _mm512_mul_ps(top[0], scale);
    moved &= _mm512_cmp_ps_mask(top[0], _mm512_add_ps(old, _mm512_set1_ps(terms == 1 ? SSA__B16_LAG : 0.0f)),
                                _CMP_NLE_UQ);
    if (!moved) return 0;
    f = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), moved, ssa__b16_exp2(2, _mm512_sub_ps(old, top[0])));
    _mm512_storeu_ps(m, _mm512_mask_mov_ps(old, moved, top[0]));
    _mm512_storeu_ps(fix, f);
    _mm512_storeu_ps(l, _mm512_mul_ps(_mm512_loadu_ps(l), f));
    return 1;
}

/* Zeros past the n keys taken, up to whole steps of 32. */
static void ssa__b16_pad(const ssa__tile *t, int32_t n)
{
    const size_t rows = (size_t)(ssa__b16_keys(n) - n);
    for (int32_t a = 0; rows > 0 && a < t->k_terms; a++)
        memset(t->k + ((int64_t)a * t->keys_max + n) * t->dk_unit, 0, rows * (size_t)t->dk_unit * 2);
    for (int32_t a = 0; rows > 0 && a < t->v_terms; a++)
        memset(t->v + ((int64_t)a * t->keys_max + n) * t->dv_unit, 0, rows * (size_t)t->dv_unit * 2);
}

/* Where dim e of row r lies in o. */
static float *ssa__b16_o(const ssa__tile *t, int many, int32_t r, int32_t e)
{
    int32_t i = e % 32;
    if (many) return t->o + ((int64_t)(r / 16) * t->dv_unit + e) * 16 + r % 16;
    return t->o + (int64_t)r * t->dv_unit + (e - i) + (i & 4) * 4 + i / 8 * 4 + i % 4; /* as interleaving leaves them */
}

/* Whether any of the values at keys from .. n-1 is not finite: the exponent of a term is all ones. */
SSA__B16F int ssa__b16_broken(const ssa__tile *t, int32_t from, int32_t n)
{
    const uint16_t *v = t->v + (int64_t)from * t->dv_unit, *end = t->v + (int64_t)n * t->dv_unit;
    const __m512i ones = _mm512_set1_epi16(0x7f80);
    __mmask32 bad = 0;
    for (; v < end; v += 32)
        bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(_mm512_loadu_si512(v), ones), ones);
    return bad != 0;
}

/* Values that are not finite, at keys from `from` on that not every row sees: 0 * v would spoil the others. They are
 * taken out and added to the rows that see them, which they make not finite all the same. */
static void ssa__b16_edge(const ssa__tile *t, int many, int32_t from, int32_t n, const int32_t *limit)
{
    for (int32_t j = from; j < n; j++) {
        uint16_t *hi = t->v + (int64_t)j * t->dv_unit;
        if (!ssa__b16_broken(t, j, j + 1)) continue;
        for (int32_t r = 0; r < t->rows; r++) {
            if ((limit && j >= limit[r]) || (t->sees && !t->sees(t, r, j))) continue;
            for (int32_t e = 0; e < t->dv; e++)
                if (!ssa__is_finite(ssa__bf16_to_f32(hi[e]))) *ssa__b16_o(t, many, r, e) += ssa__bf16_to_f32(hi[e]);
        }
        for (int32_t e = 0; e < t->dv; e++) {
            if (ssa__is_finite(ssa__bf16_to_f32(hi[e]))) continue;
            for (int32_t a = 0; a < t->v_terms; a++) hi[(int64_t)a * t->keys_max * t->dv_unit + e] = 0;
        }
    }
}

/* The first key that some row may not see. */
static int32_t ssa__b16_unseen(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    return t->sees ? 0 : limit ? limit[0] : n;
}

/* Keys whose p is collected before values are multiplied, as the output comes and goes with them: what ssa__unit_work
 * has room for. */
#define SSA__B16_SPAN 256

/* The two products of the loop below, and how many groups of 16 rows they make at a time: 2, or 1. */
typedef struct {
    int32_t groups, span; /* span: keys whose p is collected, at most SSA__B16_SPAN */
    /* Keeps the groups' queries of 33 to 64 dims, of one term, until values are multiplied; NULL: nothing to keep. */
    void (*hold)(const unsigned char *q);
    /* Scores of 32 keys from `key` on: s [group][32][16]. held: as hold left it. One group's brings in keys ahead. */
    void (*scores)(const ssa__tile *t, int32_t key, const unsigned char *q, int held, float *s, ssa__lines *ahead);
    /* Values of n keys, padded to whole steps of 32, as the next multiplies them. */
    void (*lay)(const ssa__tile *t, int32_t n, uint16_t *vt);
    /* All dims of the groups: o += V^T.P^T over n keys from `key` on; where o is fresh it holds nothing yet.
     * p [group][term][SSA__B16_SPAN / 2 pairs of keys][16][2]. One group's brings in values ahead. */
    void (*values)(const ssa__tile *t, int32_t key, int32_t n, const uint16_t *vt, const uint16_t *p, float *o,
                   int fresh, ssa__lines *ahead);
} ssa__b16_unit;

/* p of 32 keys, from j on, for the one or two groups of rows that start at row at: s [group][32][16], p as values has
 * it. The keys after the next 32 are brought into L1 meanwhile, two with every two, up to 128 dims of them and without
 * a loop. 0: a row's p are more than 2^SSA__B16_LAG on average, or NaN, and l stays as it was: then one is more. Not
 * where that is sure not to happen. */
SSA__B16 int ssa__b16_many_p(const int groups, const int terms, const int hidden, const int sure, const ssa__tile *t,
                             int32_t at, int32_t j, const float *s, __m512 scale, const __m512i *limit, uint16_t *p)
{
    const __m512 most = _mm512_set1_ps(32.0f * (1 << (int)SSA__B16_LAG));
    const int64_t stride = t->k_stride;
    const unsigned char *next = t->k_rows + (j + 64) * stride;
    const int wide = t->dk_unit > 64;
    __m512 m[2], sum[2];
    __mmask16 above = 0;
    SSA__UNROLL
    for (int g = 0; g < groups; g++) {
        m[g] = _mm512_loadu_ps(t->m + at + g * 16);
        sum[g] = _mm512_setzero_ps();
    }
    for (int32_t i = 0; i < 32; i += 2, next += 2 * stride) {
        if (groups > 1) {
            SSA__PREFETCH(next);
            SSA__PREFETCH(next + 64);
            SSA__PREFETCH(next + stride);
            SSA__PREFETCH(next + stride + 64);
        }
        if (groups > 1 && wide) {
            SSA__PREFETCH(next + 128);
            SSA__PREFETCH(next + 192);
            SSA__PREFETCH(next + stride + 128);
            SSA__PREFETCH(next + stride + 192);
        }
        SSA__UNROLL
        for (int g = 0; g < groups; g++) {
            __m512i x[2];
            sum[g] = ssa__b16_p(terms, hidden, s + (g * 32 + i) * 16, j + i, scale, m[g], limit[g], x, sum[g]);
            for (int a = 0; a < terms; a++)
                _mm512_storeu_si512(p + (g * terms + a) * SSA__B16_SPAN * 16 + i * 16, x[a]);
        }
    }
    SSA__UNROLL
    for (int g = 0; g < groups; g++) above |= _mm512_cmp_ps_mask(sum[g], most, _CMP_NLE_UQ);
    if (!sure && above) return 0;
    SSA__UNROLL
    for (int g = 0; g < groups; g++)
        _mm512_storeu_ps(t->l + at + g * 16, _mm512_add_ps(_mm512_loadu_ps(t->l + at + g * 16), sum[g]));
    return 1;
}

/* The scores of n keys from j on, for the groups of rows that start at row at. */
SSA__NO_INLINE void ssa__b16_many_adjust(const ssa__tile *t, float *s, int32_t j, int32_t n, int32_t at)
{
    for (int32_t r = at; r < at + 32 && r < t->rows; r += 16, s += 512)
        t->adjust(t, s, 16, 1, j, n, r, t->rows - r < 16 ? t->rows - r : 16);
}

/* Groups of rows go through the chunk together, so that their queries, output, scores and p stay in L1, while keys and
 * values come from L2: scores of 32 keys, a step ahead, their p, and after `span` keys their values. With one term p is
 * made first, and looked at whether m is too low for it; two terms look for the maximum. When it moves, the values so
 * far are added to the output before that is rescaled. */
SSA__B16 void ssa__b16_many_of(const ssa__b16_unit *u, const int terms, const ssa__tile *t, int32_t n,
                               const int32_t *limit, int start)
{
    const int groups = u->groups;
    const int32_t step = groups * 16, sets = (t->rows + step - 1) / step;
    const int64_t q_set = (int64_t)groups * t->q_terms * (t->dk_unit / 32) * 1024, o_set = (int64_t)t->dv_unit * step;
    const int held = u->hold && t->dk_unit == 64 && t->q_terms * t->k_terms == 1;
    const __m512 scale = ssa__b16_scale(t);
    const uint16_t *vt = t->v_laid;
    uint16_t *own = (uint16_t *)(void *)t->work;
    float *s = (float *)(void *)(own + (int64_t)t->keys_max * t->dv_unit * terms); /* of this step and the next */
    uint16_t *p = (uint16_t *)(void *)(s + 2048);
    int32_t fetched = groups > 1 ? 0 : t->ahead_rows, steps = 0;
    ssa__lines keys = ssa__lines_ahead(t, (int64_t)n * t->dk_unit / 32); /* of one group: as often as it multiplies */
    ssa__lines values = ssa__lines_of(t->ahead_v, t->ahead_v_stride, t->ahead_rows, t->ahead_v_bytes,
                                      (int64_t)n * t->dv_unit / 32);
    if (vt == NULL) {
        ssa__b16_pad(t, n);
        u->lay(t, n, own);
        vt = own;
    }
    for (int32_t i = 0; i < sets; i++) {
        const int32_t at = i * step;
        const unsigned char *q = (const unsigned char *)t->q + i * q_set;
        float *o = t->o + i * o_set;
        const int32_t first = t->start ? t->start[at] / 32 * 32 : 0;
        int32_t sees = n, hidden = n, done = first; /* keys that some row sees, that all see, whose values are added */
        int fresh = start;
        __m512i lim[2];
        lim[0] = lim[1] = _mm512_set1_epi32(n);
        if (limit) {
            lim[0] = lim[1] = _mm512_loadu_si512(limit + at);
            if (groups > 1) lim[1] = _mm512_loadu_si512(limit + at + 16);
            sees = _mm512_reduce_max_epi32(_mm512_max_epi32(lim[0], lim[1]));
            hidden = _mm512_reduce_min_epi32(_mm512_min_epi32(lim[0], lim[1]));
        }
        if (held) u->hold(q);
        if (sees > done) u->scores(t, done, q, held, s + (done & 32) * 32, &keys);
        for (int32_t j = done; j < sees; j += 32) {
            const int32_t left = sees - j, some = hidden < j + 32;
            const int last = left <= 32 || j + 32 - done == u->span;
            float *s_j = s + (j & 32) * 32;
            uint16_t *p_j = p + (j - done) * 16;
            int made = 0;
            SSA__BARRIER();
            if (left > 32) u->scores(t, j + 32, q, held, s + (~j & 32) * 32, &keys);
            if (t->adjust) ssa__b16_many_adjust(t, s_j, j, left < 32 ? left : 32, at);
            if (terms == 1 && (j > first || !start))
                made = some ? ssa__b16_many_p(groups, 1, 1, 0, t, at, j, s_j, scale, lim, p_j)
                            : ssa__b16_many_p(groups, 1, 0, 0, t, at, j, s_j, scale, lim, p_j);
            for (int g = 0; g < groups && !made; g++) {
                float *o_g = o + g * t->dv_unit * 16, *fix = t->fix + at + g * 16;
                if (!ssa__b16_max(terms, s_j + g * 512, j, left < 32 ? left : 32, some, lim[g], scale,
                                  t->m + at + g * 16, t->l + at + g * 16, fix)) continue;
                if (done < j) {
                    u->values(t, done, j - done, vt, p, o, fresh, &values);
                    if (held) u->hold(q);
                    fresh = 0;
                }
                done = j;
                p_j = p;
                SSA__BARRIER();
                for (int32_t e = 0; e < t->dv_unit && !fresh; e++)
                    _mm512_storeu_ps(o_g + e * 16, _mm512_mul_ps(_mm512_loadu_ps(o_g + e * 16), _mm512_loadu_ps(fix)));
            }
            if (!made && (terms == 1 || some)) ssa__b16_many_p(groups, terms, 1, 1, t, at, j, s_j, scale, lim, p_j);
            else if (!made) ssa__b16_many_p(groups, terms, 0, 1, t, at, j, s_j, scale, lim, p_j);
            SSA__BARRIER();
            if (last) {
                u->values(t, done, j + 32 - done, vt, p, o, fresh, &values);
                if (held) u->hold(q);
                fresh = 0;
                done = j + 32;
            }
            steps++;
            if (fetched < t->ahead_rows) { /* of two: spread over the sets */
                const int32_t to = (int32_t)((int64_t)t->ahead_rows * steps * 32 / ((int64_t)n * sets)) + 1;
                ssa__fetch_rows(t->ahead, t->ahead_stride, fetched, to, t->ahead_rows, t->ahead_bytes);
                ssa__fetch_rows(t->ahead_v, t->ahead_v_stride, fetched, to, t->ahead_rows, t->ahead_v_bytes);
                fetched = to;
            }
        }
        if (fresh) memset(o, 0, (size_t)o_set * sizeof(float));
    }
    SSA__BARRIER();
}

/* To be called with a constant u, whose calls are direct then. */
SSA__B16 void ssa__b16_many(const ssa__b16_unit *u, const int terms, const ssa__tile *t, int32_t n,
                            const int32_t *limit)
{
    const int32_t from = t->v_laid ? n : ssa__b16_unseen(t, n, limit);
    int start = t->fresh;
    if (from < n && ssa__b16_broken(t, from, n)) {
        if (start) memset(t->o, 0, (size_t)(ssa__round_up(t->rows, u->groups * 16) * t->dv_unit) * sizeof(float));
        start = 0;
        ssa__b16_edge(t, 1, from, n, limit);
    }
    ssa__b16_many_of(u, terms, t, n, limit, start);
}

SSA__B16F void ssa__b16_many_finish(const ssa__tile *t, const float *factor, float *rows)
{
    const __m512 f = _mm512_loadu_ps(factor);
    for (int32_t e = 0; e < t->dv_pad; e += 16) {
        __m512 x[16];
        for (int i = 0; i < 16; i++) x[i] = _mm512_mul_ps(f, _mm512_loadu_ps(t->o + (int64_t)(e + i) * 16));
        ssa__avx512_transpose(x);
        for (int i = 0; i < 16; i++) _mm512_storeu_ps(rows + (int64_t)i * t->dv_pad + e, x[i]);
    }
}

/* -- products by AVX512_BF16: what comes from memory to all lanes is used for two groups of rows where there are two;
 * 16 results hide the latency -- */

/* v of n keys to vt [pair of keys][dv_unit][2], 32 dims as 0-3 8-11 16-19 24-27 4-7 12-15 20-23 28-31. */
SSA__B16 void ssa__b16_lay_pairs(const int runs, const ssa__tile *t, int32_t n, uint16_t *vt)
{
    for (int32_t j = 0; j < ssa__b16_keys(n); j += 2) {
        const unsigned char *v = runs ? t->v_runs[j / 16] + j % 16 * t->v_stride : t->v_rows + j * t->v_stride;
        for (int32_t e = 0; e < t->dv_unit; e += 32, vt += 64) {
            const __m512i x = _mm512_loadu_si512(v + 2 * e), y = _mm512_loadu_si512(v + t->v_stride + 2 * e);
            _mm512_storeu_si512(vt, _mm512_unpacklo_epi16(x, y));
            _mm512_storeu_si512(vt + 32, _mm512_unpackhi_epi16(x, y));
        }
    }
}

SSA__B16 __m512bh ssa__b16_to_all(const unsigned char *pair)
{
    int32_t x;
    memcpy(&x, pair, 4);
    return (__m512bh)_mm512_set1_epi32(x);
}
SSA__B16 __m512bh ssa__b16_each(const unsigned char *pairs) { return (__m512bh)_mm512_loadu_si512(pairs); }

/* Products of 8 keys with one or two groups of rows: acc [key][group], queries [dk_unit / 2 pairs][16][2] a group. */
SSA__B16 void ssa__b16_dot_8(const int groups, const ssa__tile *t, int32_t dk, const unsigned char *const *key,
                             const unsigned char *q, __m512 (*acc)[2], ssa__lines *ahead)
{
    const int64_t second = groups == 1 ? 64 : (int64_t)t->dk_unit * 32; /* of one: odd pairs of dims apart */
    SSA__UNROLL
    for (int i = 0; i < 8; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
    for (int32_t e = 0; e < dk * 2; e += groups == 1 ? 8 : 4) {
        const __m512bh a = ssa__b16_each(q + e * 16), b = ssa__b16_each(q + e * 16 + second);
        SSA__UNROLL
        for (int i = 0; i < 8; i++) {
            const __m512bh x = ssa__b16_to_all(key[i] + e), y = groups == 1 ? ssa__b16_to_all(key[i] + e + 4) : x;
            acc[i][0] = _mm512_dpbf16_ps(acc[i][0], a, x);
            acc[i][1] = _mm512_dpbf16_ps(acc[i][1], b, y);
        }
        if (groups == 1 && ahead) ssa__fetch_lines(ahead, 1);
    }
    if (groups == 2) return;
    SSA__UNROLL
    for (int i = 0; i < 8; i++) acc[i][0] = _mm512_add_ps(acc[i][0], acc[i][1]);
}

SSA__B16 void ssa__b16_dot_scores(const int groups, const ssa__tile *t, int32_t key, const unsigned char *q, float *s,
                                  ssa__lines *ahead)
{
    for (int32_t j = 0; j < 32; j += 8) {
        const unsigned char *row[8];
        __m512 acc[8][2];
        row[0] = groups == 1 ? t->k_runs[(key + j) / 16] + (key + j) % 16 * t->k_stride
                             : t->k_rows + (key + j) * t->k_stride;
        SSA__UNROLL
        for (int i = 1; i < 8; i++) row[i] = row[i - 1] + t->k_stride;
        ssa__b16_dot_8(groups, t, t->dk_unit, row, q, acc, ahead);
        SSA__UNROLL
        for (int i = 0; i < 8; i++) {
            _mm512_storeu_ps(s + (j + i) * 16, acc[i][0]);
            if (groups == 2) _mm512_storeu_ps(s + (32 + j + i) * 16, acc[i][1]);
        }
    }
}

/* 8 dims of two groups at a time, or 16 of one. */
SSA__B16 void ssa__b16_dot_values(const int groups, const ssa__tile *t, int32_t key, int32_t n, const uint16_t *vt,
                                  const uint16_t *p, float *o, int fresh, ssa__lines *ahead)
{
    const int64_t group = (int64_t)t->dv_unit * 16, ld = (int64_t)t->dv_unit * 4;
    const int64_t back = groups == 1 ? 128 : group; /* from the first 8 results to the others */
    const unsigned char *v0 = (const unsigned char *)(vt + (int64_t)key * t->dv_unit);
    for (int32_t e = 0; e < t->dv_unit; e += 16 / groups, o += 256 / groups) {
        const unsigned char *v = v0 + e / 32 * 128 + e / 8 % 4 * 16, *at = (const unsigned char *)p;
        __m512 acc[16];
        SSA__UNROLL
        for (int i = 0; i < 16; i++)
            acc[i] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(o + i % 8 * 16 + i / 8 * back);
        for (int32_t j = 0; j < n; j += 2, v += ld, at += 64) {
            const __m512bh a = ssa__b16_each(at), b = groups == 1 ? a : ssa__b16_each(at + SSA__B16_SPAN * 32);
            SSA__UNROLL
            for (int i = 0; i < 8; i++) { /* of 8 dims 4 lie in the other half */
                const unsigned char *pair = v + i % 4 * 4 + i / 4 * 64;
                const __m512bh x = ssa__b16_to_all(pair), y = groups == 1 ? ssa__b16_to_all(pair + 16) : x;
                acc[i] = _mm512_dpbf16_ps(acc[i], a, x);
                acc[i + 8] = _mm512_dpbf16_ps(acc[i + 8], b, y);
            }
            if (groups == 1) ssa__fetch_lines(ahead, 1);
        }
        SSA__UNROLL
        for (int i = 0; i < 16; i++)
            _mm512_storeu_ps(o + i % 8 * 16 + i / 8 * back, acc[i]);
    }
}

#define SSA__B16_DOT(name, groups_) \
    SSA__B16F void ssa__b16_##name##_lay(const ssa__tile *t, int32_t n, uint16_t *vt) \
    { ssa__b16_lay_pairs(groups_ == 1, t, n, vt); } \
    SSA__B16F void ssa__b16_##name##_scores(const ssa__tile *t, int32_t key, const unsigned char *q, int held, \
                                            float *s, ssa__lines *ahead) \
    { (void)held; ssa__b16_dot_scores(groups_, t, key, q, s, ahead); } \
    SSA__B16F void ssa__b16_##name##_values(const ssa__tile *t, int32_t key, int32_t n, const uint16_t *vt, \
                                            const uint16_t *p, float *o, int fresh, ssa__lines *ahead) \
    { ssa__b16_dot_values(groups_, t, key, n, vt, p, o, fresh, ahead); } \
    static const ssa__b16_unit ssa__b16_##name = { groups_, 64, NULL, ssa__b16_##name##_scores, \
                                                   ssa__b16_##name##_lay, ssa__b16_##name##_values }; \
    SSA__B16F void ssa__b16_##name##_attend(const ssa__tile *t, int32_t n, const int32_t *limit) \
    { ssa__b16_many(&ssa__b16_##name, 1, t, n, limit); }
SSA__B16_DOT(dot_few, 1)
SSA__B16_DOT(dot_many, 2)
#undef SSA__B16_DOT

/* -- narrow: where queries are bf16 too, of which q_prep knows, they lie as bf16 [row][dk_unit] -- */
SSA__B16F void ssa__b16_narrow_q_prep(ssa__tile *t, float *rows)
{
    const int32_t ld = ssa__round_up(t->dk, 32);
    uint16_t *q = (uint16_t *)(void *)t->q;
    if (t->k_type != SSA_BF16 || t->q_terms != 1) {
        ssa__avx512_narrow_q_prep(t, rows);
        return;
    }
    for (int32_t r = 0; r < t->rows; r++)
        for (int32_t e = 0; e < ld; e += 16) {
            const __m512 x = e < t->dk_pad ? _mm512_loadu_ps(rows + (int64_t)r * t->dk_pad + e) : _mm512_setzero_ps();
            const __m512i half = _mm512_srli_epi32(_mm512_castps_si512(x), 16);
            _mm256_storeu_si256((__m256i *)(void *)(q + (int64_t)r * ld + e), _mm512_cvtepi32_epi16(half));
        }
}

/* Scores of nr rows x ng groups of 4 keys, of which n count, as narrow_qk_tile has them. */
SSA__B16 void ssa__b16_narrow_tile(const int nr, const int ng, const ssa__tile *t, int32_t r0, const unsigned char *k,
                                   int64_t stride, int32_t n, int32_t at, ssa__lines *ahead)
{
    const int32_t ld = ssa__round_up(t->dk, 32) * 2, d = t->dk * 2; /* bytes */
    const unsigned char *q = (const unsigned char *)t->q + (int64_t)r0 * ld;
    __m512 acc[4][4];
    SSA__UNROLL
    for (int g = 0; g < ng; g++, n -= 4) {
        const unsigned char *row[4];
        row[0] = n > 0 ? k + 4 * g * stride : k; /* past the end a key again */
        row[1] = n > 1 ? row[0] + stride : row[0];
        row[2] = n > 2 ? row[1] + stride : row[1];
        row[3] = n > 3 ? row[2] + stride : row[2];
        SSA__UNROLL
        for (int r = 0; r < nr; r++) {
            SSA__UNROLL
            for (int j = 0; j < 4; j++) acc[r * ng + g][j] = _mm512_setzero_ps();
        }
        for (int32_t e = 0; e < d; e += 64) {
            const __mmask32 some = d - e >= 64 ? 0xffffffffu : (1u << (d - e) / 2) - 1;
            __m512bh w[4];
            if (ahead) ssa__fetch_lines(ahead, 1);
            SSA__UNROLL
            for (int r = 0; r < nr; r++) w[r] = ssa__b16_each(q + r * ld + e);
            SSA__UNROLL
            for (int j = 0; j < 4; j++) {
                const __m512bh x = d - e >= 64 ? ssa__b16_each(row[j] + e)
                                               : (__m512bh)_mm512_maskz_loadu_epi16(some, row[j] + e);
                SSA__UNROLL
                for (int r = 0; r < nr; r++) acc[r * ng + g][j] = _mm512_dpbf16_ps(acc[r * ng + g][j], w[r], x);
            }
        }
    }
    ssa__avx512_hsums(nr, ng, acc, t->scale, t->s + r0 * t->ld + at, t->ld);
}

/* Four rows at a time; of fewer more keys, so that there are as many sums to take together. */
SSA__B16 void ssa__b16_narrow_rows(const int nr, const ssa__tile *t, int32_t r0, const unsigned char *k, int64_t stride,
                                   int32_t n, int32_t at, ssa__lines *ahead)
{
    const int ng = 4 / nr;
    int32_t j = 0;
    for (; ng > 1 && j + 4 < n; j += 4 * ng)
        ssa__b16_narrow_tile(nr, ng, t, r0, k + j * stride, stride, n - j, at + j, ahead);
    for (; j < n; j += 4) ssa__b16_narrow_tile(nr, 1, t, r0, k + j * stride, stride, n - j, at + j, ahead);
}

SSA__B16F void ssa__b16_narrow_qk(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n, int32_t at)
{
    ssa__lines lines = ssa__lines_ahead(t, (n + 3) / 4 * (ssa__round_up(t->dk, 32) / 32));
    if (t->q_terms != 1) {
        ssa__avx512_narrow_qk_bf16(t, k, stride, n, at);
        return;
    }
    for (int32_t r = 0; r < t->rows; r += 4) {
        const int32_t left = t->rows - r;
        ssa__lines *ahead = r == 0 && lines.part > 0 ? &lines : NULL;
        if (left >= 4) ssa__b16_narrow_rows(4, t, r, k, stride, n, at, ahead);
        else if (left == 3) ssa__b16_narrow_rows(3, t, r, k, stride, n, at, ahead);
        else if (left == 2) ssa__b16_narrow_rows(2, t, r, k, stride, n, at, ahead);
        else ssa__b16_narrow_rows(1, t, r, k, stride, n, at, ahead);
    }
}

/* s(key) of wide for one or two groups of rows; past the last key it is the last one's. */
SSA__B16 void ssa__b16_pairs_scores(const int groups, const ssa__tile *t, const unsigned char *k, int64_t stride,
                                    int32_t n, const unsigned char *q, float *s)
{
    const __m512 scale = _mm512_set1_ps(t->scale < 0.0f ? -t->scale : t->scale); /* the sign is in q */
    for (int32_t j = 0; j < n; j += 8) {
        const unsigned char *row[8];
        __m512 acc[8][2];
        SSA__UNROLL
        for (int i = 0; i < 8; i++) row[i] = k + (j + i < n ? j + i : n - 1) * stride;
        ssa__b16_dot_8(groups, t, t->dk, row, q, acc, NULL);
        SSA__UNROLL
        for (int i = 0; i < 8; i++)
            for (int g = 0; g < groups; g++)
                _mm512_storeu_ps(s + (j + i) * t->ld + g * 16, _mm512_mul_ps(scale, acc[i][g]));
    }
}

SSA__B16F void ssa__b16_pairs_qk(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n, int32_t at)
{
    const unsigned char *q = (const unsigned char *)t->q;
    int64_t r = 0;
    for (; r + 32 <= t->ld; r += 32)
        ssa__b16_pairs_scores(2, t, k, stride, n, q + r * t->dk_unit * 2, t->s + at * t->ld + r);
    if (r < t->ld) ssa__b16_pairs_scores(1, t, k, stride, n, q + r * t->dk_unit * 2, t->s + at * t->ld + r);
}

/* Eight gathered rows at a time. The scale's sign is in the keys. */
SSA__B16F void ssa__b16_pairs_meet(const ssa__tile *t, const ssa__gathered *g, const float *k, const float *v,
                                   int32_t n)
{
    const __m512 scale = _mm512_set1_ps(t->scale < 0.0f ? -t->scale : t->scale);
    for (int32_t at = 0; at < g->n; at += 8) {
        const unsigned char *q[8];
        __m512 acc[8][2], s[8][1];
        SSA__UNROLL
        for (int r = 0; r < 8; r++)
            q[r] = (const unsigned char *)t->q + (int64_t)g->row[at + r < g->n ? at + r : g->n - 1] * t->dk_unit * 2;
        ssa__b16_dot_8(1, t, t->dk_unit, q, (const unsigned char *)k, acc, NULL);
        SSA__UNROLL
        for (int r = 0; r < 8; r++) s[r][0] = _mm512_mul_ps(scale, acc[r][0]);
        ssa__avx512_meet_rows(t, g, at, s, v, n);
    }
}

SSA__B16F int ssa__b16_dot_lay_values(const ssa__tile *t, int32_t n, uint16_t *dst)
{
    ssa__b16_pad(t, n);
    ssa__b16_lay_pairs(0, t, n, dst);
    return ssa__b16_broken(t, 0, n);
}

/* On top of a filled avx512 table. */
static void ssa__b16_fill(ssa__table *t)
{
    t->take[SSA_BF16] = ssa__b16_take_bf16;
    t->narrow.q_prep = ssa__b16_narrow_q_prep;
    t->narrow.qk[SSA_BF16] = ssa__b16_narrow_qk;
    t->pairs = t->wide;
    t->pairs.packs = 0;
    t->pairs.q_turn = ssa__b16_q_turn;
    t->pairs.qk[SSA_BF16] = ssa__b16_pairs_qk;
    t->pairs.meet = ssa__b16_pairs_meet;
    t->pairs.meet_rows = 8;
    t->few.chunk = SSA__UNIT_FEW;
    t->few.in_place = SSA__LANES_MAX;
    t->few.runs = 1;
    t->few.starts = t->many.starts = 1;
    t->few.q_prep = t->many.q_prep = ssa__b16_q_prep;
    t->few.q_turn = t->many.q_turn = ssa__b16_q_turn;
    t->few.attend = ssa__b16_dot_few_attend;
    t->few.finish = t->many.finish = ssa__b16_many_finish;
    t->many.chunk = SSA__UNIT_KEYS;
    t->many.in_place = 2 * SSA__LANES_MAX;
    t->many.attend = ssa__b16_dot_many_attend;
    t->many.lay_values = ssa__b16_dot_lay_values;
}
SSA__DIAG_POP
#endif /* SSA__HAVE_B16 */

#if SSA__HAVE_AMX
#define SSA__AMX  SSA__FORCE_INLINE SSA__TARGET_AMX
#define SSA__AMXF static SSA__TARGET_AMX
SSA__DIAG_SIGN

/* All tiles whole; or tile 5 half as wide and tile 7 half as high, for products over 16 bf16 or 32 int8; or for 2, 4 or
 * 8 rows: p in tile 4, output in 0 and 1, queries along the columns of tile 6, scores in 2 and 3. Constants: to gcc 12
 * the instruction reads but 8 bytes, and what else was written there for it might be left out. */
typedef struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } ssa__amx_config;
static const ssa__amx_config ssa__amx_configs[5] = {
    { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 } },
    { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 32, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 8 } },
    { 1, 0, { 0 }, { 64, 64, 8, 8, 64, 64, 8, 64 }, { 2, 2, 16, 16, 2, 16, 16, 16 } },
    { 1, 0, { 0 }, { 64, 64, 16, 16, 64, 64, 16, 64 }, { 4, 4, 16, 16, 4, 16, 16, 16 } },
    { 1, 0, { 0 }, { 64, 64, 32, 32, 64, 64, 32, 64 }, { 8, 8, 16, 16, 8, 16, 16, 16 } },
};
SSA__AMXF void ssa__amx_shape(int how)
{
    _tile_loadconfig(&ssa__amx_configs[how == 2 ? 2 : how == 4 ? 3 : how == 8 ? 4 : how == 1]);
}

/* A host may use tiles too: its configuration is kept, the tiles' contents are nobody's across a call. */
SSA__AMXF void ssa__amx_enter(unsigned char *kept)
{
    _tile_storeconfig(kept);
    ssa__amx_shape(0);
}

SSA__AMXF void ssa__amx_leave(const unsigned char *kept)
{
    if (kept[0]) _tile_loadconfig(kept);
    else _tile_release(); /* the host had none */
}

/* The same for 32 halves. */
SSA__NO_INLINE SSA__TARGET_AMX void ssa__amx_split_any(__m512i x, __m512i *hi, __m512i *lo)
{
    __m256i h[2], l[2];
    ssa__b16_split(_mm512_cvtph_ps(_mm512_castsi512_si256(x)), &h[0], &l[0]);
    ssa__b16_split(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(x, 1)), &h[1], &l[1]);
    *hi = _mm512_inserti64x4(_mm512_castsi256_si512(h[0]), h[1], 1);
    *lo = _mm512_inserti64x4(_mm512_castsi256_si512(l[0]), l[1], 1);
}

/* And by their bits: +-2^e (1 + a/2^7 + b/2^10) = +-2^e (1 + (a - 1)/2^7) +- 2^(e-7) (1 + b/2^3). Where a is 0
 * the first has the next lower exponent. The constants stay in memory: gcc would make them anew for each vector. */
typedef struct { __m512i top, first, a, one, second, b, next, carry; } ssa__amx_splitter;
SSA__AMX void ssa__amx_split_with(ssa__amx_splitter *w)
{
    w->top    = _mm512_set1_epi16((short)0x8fff);
    w->first  = _mm512_set1_epi16(0x37ff); /* e from a half's bias to a float's, and 1 less in a */
    w->a      = _mm512_set1_epi16(0x03f8);
    w->one    = _mm512_set1_epi16(1);
    w->second = _mm512_set1_epi16(0x3480); /* .. and 7 less in e */
    w->b      = _mm512_set1_epi16(0x007f);
    w->next   = _mm512_set1_epi16(0x0400);
    w->carry  = _mm512_set1_epi16(0x7800);
    __asm__("" : "+r"(w) : : "memory");
}
SSA__AMX void ssa__amx_split_f16(const ssa__amx_splitter *w, __m512i x, __m512i *hi, __m512i *lo)
{
    const __m512i u = _mm512_and_si512(_mm512_srai_epi16(x, 3), w->top), h = _mm512_add_epi16(u, w->first);
    /* e + 1 is 0 or 1: zeros, what is below 2^-14, infinities and NaN */
    const __mmask32 rare = _mm512_testn_epi16_mask(_mm512_add_epi16(x, w->next), w->carry);
    *hi = _mm512_mask_sub_epi16(h, _mm512_testn_epi16_mask(x, w->a), h, w->one);
    *lo = _mm512_ternarylogic_epi32(w->b, _mm512_slli_epi16(x, 4), _mm512_add_epi16(u, w->second), 0xca);
    if (rare) {
        __m512i any_hi, any_lo;
        ssa__amx_split_any(x, &any_hi, &any_lo);
        *hi = _mm512_mask_mov_epi16(*hi, rare, any_hi);
        *lo = _mm512_mask_mov_epi16(*lo, rare, any_lo);
    }
}

SSA__AMXF void ssa__amx_take_f16(uint16_t *dst, int64_t term, int32_t ld, const unsigned char *src,
                                 int64_t stride, int32_t n, int32_t d)
{
    ssa__amx_splitter w;
    ssa__amx_split_with(&w);
    for (int32_t j = 0; j < n; j++, dst += ld, src += stride) {
        for (int32_t e = 0; e < ld; e += 32) {
            __m512i hi, lo;
            const __mmask32 some = e + 32 <= d ? 0xffffffffu : e < d ? (1u << (d - e)) - 1 : 0;
            ssa__amx_split_f16(&w, _mm512_maskz_loadu_epi16(some, src + 2 * e), &hi, &lo);
            _mm512_storeu_si512(dst + e, hi);
            _mm512_storeu_si512(dst + term + e, lo);
        }
    }
}

/* -- many rows -- */

/* v [key][dv_unit] of a term to vt [term][32 keys][16 dims]([dim][key]), a tile's KiB each. */
SSA__AMXF void ssa__amx_v_transposed(const ssa__tile *t, int32_t n, uint16_t *vt)
{
    for (int32_t a = 0; a < t->v_terms; a++)
        for (int32_t j = 0; j < n; j += 32)
            for (int32_t e = 0; e < t->dv_unit; e += 32) {
                const unsigned char *v =
                    t->v_rows + (int64_t)a * t->keys_max * t->dv_unit * 2 + j * t->v_stride + e * 2;
                uint16_t *dst = vt + ((int64_t)a * t->keys_max + j) * t->dv_unit + e * 32;
                __m512 lo[16], hi[16];
                for (int i = 0; i < 16; i++) {
                    __m512i x = _mm512_loadu_si512(v + 2 * i * t->v_stride);
                    __m512i y = _mm512_loadu_si512(v + (2 * i + 1) * t->v_stride);
                    lo[i] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(x, y));
                    hi[i] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(x, y));
                }
                ssa__avx512_transpose(lo);
                ssa__avx512_transpose(hi);
                for (int i = 0; i < 16; i++) { /* vector i of lo holds dim 8 * (i / 4) + i % 4, of hi the one 4 later */
                    int32_t dim = i / 4 * 8 + i % 4;
                    _mm512_storeu_ps((float *)(void *)(dst + dim * 32), lo[i]);
                    _mm512_storeu_ps((float *)(void *)(dst + (dim + 4) * 32), hi[i]);
                }
            }
}

/* Scores of 32 keys, from `key` on, for two groups of 16 rows: s [group][32][16]. Four results from four operands a
 * step: tiles 0 to 3 are the results, 4 and 5 the keys, 6 and 7 the groups' queries. */
SSA__AMX void ssa__amx_many_scores(const ssa__tile *t, int32_t key, const unsigned char *q, float *s)
{
    const int64_t stride = t->k_stride, size = (int64_t)t->dk_unit * 32; /* of a group's queries, one term */
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int32_t ab = t->k_terms * t->q_terms - 1; ab >= 0; ab--) { /* the small products first */
        const unsigned char *k = t->k_rows + (ab >= t->q_terms) * (int64_t)t->keys_max * t->dk_unit * 2 + key * stride;
        const unsigned char *q0 = q + (t->q_terms == 2 && ab & 1) * size, *q1 = q0 + t->q_terms * size;
        for (const unsigned char *end = q0 + size; q0 < end; q0 += 1024, q1 += 1024, k += 64) {
            _tile_loadd(4, k, stride);
            _tile_loadd(6, q0, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, k + 16 * stride, stride);
            _tile_dpbf16ps(1, 5, 6);
            _tile_loadd(7, q1, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, s, 64);
    _tile_stored(1, s + 256, 64);
    _tile_stored(2, s + 512, 64);
    _tile_stored(3, s + 768, 64);
}

/* The same for queries of one term and 33 to 64 dims, which stay in tiles 4 to 7 until values are multiplied. */
SSA__AMXF void ssa__amx_held_queries(const unsigned char *q)
{
    _tile_loadd(4, q, 64);
    _tile_loadd(5, q + 1024, 64);
    _tile_loadd(6, q + 2048, 64);
    _tile_loadd(7, q + 3072, 64);
}
SSA__AMX void ssa__amx_held_scores(const ssa__tile *t, int32_t key, float *s)
{
    const unsigned char *k = t->k_rows + key * t->k_stride;
    SSA__UNROLL
    for (int i = 0; i < 2; i++, k += 16 * t->k_stride, s += 256) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(2, k, t->k_stride);
        _tile_dpbf16ps(0, 2, 4);
        _tile_dpbf16ps(1, 2, 6);
        _tile_loadd(3, k + 64, t->k_stride);
        _tile_dpbf16ps(0, 3, 5);
        _tile_dpbf16ps(1, 3, 7);
        _tile_stored(0, s, 64);
        _tile_stored(1, s + 512, 64);
    }
}

/* All dims of two groups of rows: o += V^T.P^T over n keys from `key` on, 32 dims at a time; tiles as for scores. Where
 * o is fresh it holds nothing yet. p [group][term][pair of keys][16][2] */
SSA__AMX void ssa__amx_many_values(const int terms, const ssa__tile *t, int32_t key, int32_t n, const uint16_t *vt,
                                   const uint16_t *p, float *o, int fresh)
{
    const int64_t group = (int64_t)t->dv_unit * 16, term = SSA__B16_SPAN * 16;
    for (int32_t e = 0; e < t->dv_unit; e += 32) {
        float *o0 = o + e * 16, *o1 = o0 + group;
        if (fresh) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        } else {
            _tile_loadd(0, o0, 64);
            _tile_loadd(1, o0 + 256, 64);
            _tile_loadd(2, o1, 64);
            _tile_loadd(3, o1 + 256, 64);
        }
        for (int32_t j = 0; j < n; j += 32) /* terms inside: a row's order does not depend on when values are added */
            for (int32_t ab = terms * terms - 1; ab >= 0; ab--) {
                const int32_t a = ab / terms, b = ab % terms;
                const uint16_t *p0 = p + b * term + j * 16, *p1 = p0 + terms * term;
                const uint16_t *v = vt + ((int64_t)a * t->keys_max + key + j) * t->dv_unit + e * 32;
                _tile_loadd(4, v, 64);
                _tile_loadd(6, p0, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, v + 512, 64);
                _tile_dpbf16ps(1, 5, 6);
                _tile_loadd(7, p1, 64);
                _tile_dpbf16ps(2, 4, 7);
                _tile_dpbf16ps(3, 5, 7);
            }
        _tile_stored(0, o0, 64);
        _tile_stored(1, o0 + 256, 64);
        _tile_stored(2, o1, 64);
        _tile_stored(3, o1 + 256, 64);
    }
}

SSA__AMXF void ssa__amx_scores(const ssa__tile *t, int32_t key, const unsigned char *q, int held, float *s,
                               ssa__lines *ahead)
{
    (void)ahead;
    if (held) ssa__amx_held_scores(t, key, s);
    else ssa__amx_many_scores(t, key, q, s);
}
SSA__AMXF void ssa__amx_values(const ssa__tile *t, int32_t key, int32_t n, const uint16_t *vt, const uint16_t *p,
                               float *o, int fresh, ssa__lines *ahead)
{
    (void)ahead;
    if (t->v_terms == 1) ssa__amx_many_values(1, t, key, n, vt, p, o, fresh);
    else ssa__amx_many_values(2, t, key, n, vt, p, o, fresh);
}
static const ssa__b16_unit ssa__amx_unit = { 2, SSA__B16_SPAN, ssa__amx_held_queries, ssa__amx_scores,
                                             ssa__amx_v_transposed, ssa__amx_values };

SSA__AMXF void ssa__amx_many(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    if (t->v_terms == 1) ssa__b16_many(&ssa__amx_unit, 1, t, n, limit);
    else ssa__b16_many(&ssa__amx_unit, 2, t, n, limit);
}

SSA__AMXF int ssa__amx_lay_values(const ssa__tile *t, int32_t n, uint16_t *dst)
{
    ssa__b16_pad(t, n);
    ssa__amx_v_transposed(t, n, dst);
    return ssa__b16_broken(t, 0, n);
}

/* -- few rows: a step of 32 keys at a time. Of 4 or 8 rows vectors hold 4 or 2 keys, and tiles of p and output are as
 * low. Its scores are multiplied before the values of the step before, so that neither waits. Each head's rows lie far
 * apart; the next ones are brought in all along: keys beside the scores and while pairs of values are interleaved,
 * values beside p and the products. The weights are about what each part takes. -- */
SSA__AMX __m512 ssa__amx_join(const int most, __m512 a, __m512 b)
{
    return most ? _mm512_max_ps(a, b) : _mm512_add_ps(a, b);
}

/* The sum over the keys of a vector [key][columns], or the maximum, for each of them. */
SSA__AMX __m512 ssa__amx_over_keys(const int columns, const int most, __m512 x)
{
    if (columns == 4) x = ssa__amx_join(most, x, _mm512_shuffle_f32x4(x, x, 0xb1));
    if (columns < 16) x = ssa__amx_join(most, x, _mm512_shuffle_f32x4(x, x, 0x4e));
    return x;
}

/* Which key each element of the first vector is of; and how many keys each may see, of n where limit is NULL. */
SSA__AMX __m512i ssa__amx_few_keys(const int columns)
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_srli_epi32(lanes, columns == 4 ? 2 : columns == 8 ? 3 : 4);
}
SSA__AMX __m512i ssa__amx_few_limit(const int columns, const int32_t *limit, int32_t n)
{
    if (limit == NULL) return _mm512_set1_epi32(n);
    if (columns == 4) return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)limit));
    if (columns == 8) return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)limit));
    return _mm512_loadu_si512(limit);
}

/* Keys of f16 in the cache, of the step from key j on, to the first 32 taken. */
SSA__AMX void ssa__amx_few_split(const ssa__tile *t, int32_t j, ssa__lines *ahead)
{
    const int64_t rest = (int64_t)t->keys_max * t->dk_unit;
    const int32_t dk = t->dk_unit;
    ssa__amx_splitter w;
    ssa__amx_split_with(&w);
    for (int32_t i = 0; i < 32; i++) {
        const unsigned char *k = t->k_runs[(j + i) / 16] + i % 16 * t->k_stride;
        uint16_t *dst = t->k + (int64_t)i * dk;
        for (int32_t e = 0; e < dk; e += 32) {
            __m512i hi, lo;
            ssa__amx_split_f16(&w, _mm512_loadu_si512(k + 2 * e), &hi, &lo);
            _mm512_storeu_si512(dst + e, hi);
            _mm512_storeu_si512(dst + rest + e, lo);
        }
        ssa__fetch_lines(ahead, 1);
    }
    SSA__BARRIER();
}

/* Scores of the step from key j on: s [32][columns]. */
SSA__AMX void ssa__amx_few_scores(const int columns, const int terms, const ssa__tile *t, int32_t j, float *s,
                                  ssa__lines *ahead)
{
    const unsigned char *q = (const unsigned char *)t->q;
    const int two = terms == 2 && t->q_terms == 2, raw = t->k_rows != (const unsigned char *)t->k;
    const int64_t stride = terms == 1 ? t->k_stride : t->dk_unit * 2;
    if (terms == 2 && raw) ssa__amx_few_split(t, j, ahead);
    _tile_zero(2);
    _tile_zero(3);
    for (int32_t e = 0; e < t->dk_unit; e += 32) {
        _tile_loadd(6, q + e * columns * 2, columns * 4);
        if (two) _tile_loadd(4, q + (t->dk_unit + e) * columns * 2, columns * 4);
        for (int a = terms - 1; a >= 0; a--) { /* the small products first */
            const unsigned char *k = t->k_runs[j / 16], *k_half = t->k_runs[j / 16 + 1];
            if (terms == 2) {
                k = (const unsigned char *)(t->k + ((int64_t)a * t->keys_max + (raw ? 0 : j)) * t->dk_unit);
                k_half = k + 16 * stride;
            }
            _tile_loadd(5, k + e * 2, stride);
            if (two) _tile_dpbf16ps(2, 5, 4);
            _tile_dpbf16ps(2, 5, 6);
            _tile_loadd(7, k_half + e * 2, stride);
            if (two) _tile_dpbf16ps(3, 7, 4);
            _tile_dpbf16ps(3, 7, 6);
        }
        if (terms == 1) ssa__fetch_lines(ahead, 3);
    }
    _tile_stored(2, s, columns * 4);
    _tile_stored(3, s + 16 * columns, columns * 4);
}

/* Its values to pairs [16][dv_unit][2], of keys 16 apart and in the order that p comes in; the second term after the
 * first. */
SSA__AMX void ssa__amx_few_pairs(const int columns, const int terms, const ssa__tile *t, int32_t j, uint16_t *pairs,
                                 ssa__lines *ahead)
{
    const int raw = t->v_rows != (const unsigned char *)t->v;
    const int64_t term = 32 * t->dv_unit, rest = (int64_t)t->keys_max * t->dv_unit * 2;
    ssa__amx_splitter w;
    if (terms == 2 && raw) ssa__amx_split_with(&w);
    for (int32_t i = 0; i < 16; i++) {
        const int32_t key = columns == 4 ? i % 4 * 4 + i / 4 : columns == 8 ? i / 8 * 8 + i % 4 * 2 + i / 4 % 2 : i;
        const unsigned char *v = t->v_runs[j / 16] + key * t->v_stride,
                            *v_half = t->v_runs[j / 16 + 1] + key * t->v_stride;
        uint16_t *dst = pairs + (int64_t)i * 2 * t->dv_unit;
        ssa__fetch_lines(ahead, t->dv_unit / 32);
        for (int32_t e = 0; e < t->dv_unit; e += 32) {
            __m512i x = _mm512_loadu_si512(v + 2 * e), y = _mm512_loadu_si512(v_half + 2 * e);
            __m512i a = _mm512_unpacklo_epi16(x, y), b = _mm512_unpackhi_epi16(x, y), a_rest, b_rest;
            if (terms == 2) {
                if (raw) {
                    ssa__amx_split_f16(&w, a, &a, &a_rest);
                    ssa__amx_split_f16(&w, b, &b, &b_rest);
                } else {
                    x = _mm512_loadu_si512(v + rest + 2 * e);
                    y = _mm512_loadu_si512(v_half + rest + 2 * e);
                    a_rest = _mm512_unpacklo_epi16(x, y);
                    b_rest = _mm512_unpackhi_epi16(x, y);
                }
                _mm512_storeu_si512(dst + term + 2 * e, a_rest);
                _mm512_storeu_si512(dst + term + 2 * e + 32, b_rest);
            }
            _mm512_storeu_si512(dst + 2 * e, a);
            _mm512_storeu_si512(dst + 2 * e + 32, b);
        }
    }
}

/* The maximum of its scores, of which row r counts those below limit[r]: m moves up to it where it is more than
 * SSA__B16_LAG above. Then what came before shrinks. */
SSA__AMX void ssa__amx_few_max(const int columns, const int terms, const ssa__tile *t, int hidden, __m512i limit,
                               const float *s)
{
    const __m512i keys = ssa__amx_few_keys(columns);
    __m512 top[4], old = _mm512_loadu_ps(t->m), f;
    __mmask16 moved;
    top[0] = top[1] = top[2] = top[3] = _mm512_set1_ps(-FLT_MAX);
    for (int i = 0; i < 2 * columns; i += 4) {
        SSA__UNROLL
        for (int u = 0; u < 4; u++) {
            const __m512 x = _mm512_loadu_ps(s + (i + u) * 16);
            if (hidden) {
                const __m512i key = _mm512_add_epi32(keys, _mm512_set1_epi32((i + u) * 16 / columns));
                top[u] = _mm512_mask_max_ps(top[u], _mm512_cmpgt_epi32_mask(limit, key), x, top[u]);
            } else top[u] = _mm512_max_ps(x, top[u]);
        }
    }
    top[0] = _mm512_max_ps(_mm512_max_ps(top[0], top[1]), _mm512_max_ps(top[2], top[3]));
    top[0] = ssa__amx_over_keys(columns, 1, top[0]);
    moved = _mm512_cmp_ps_mask(top[0], _mm512_set1_ps(-FLT_MAX), _CMP_NEQ_UQ); /* sees a key of these */
    top[0] = _mm512_mul_ps(top[0], ssa__b16_scale(t));
    moved &= _mm512_cmp_ps_mask(top[0], _mm512_add_ps(old, _mm512_set1_ps(terms == 1 ? SSA__B16_LAG : 0.0f)),
                                _CMP_NLE_UQ);
    if (!moved) return;
    f = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), moved, ssa__b16_exp2(2, _mm512_sub_ps(old, top[0])));
    _mm512_storeu_ps(t->m, _mm512_mask_mov_ps(old, moved, top[0]));
    _mm512_storeu_ps(t->fix, f);
    _mm512_storeu_ps(t->l, _mm512_mul_ps(_mm512_loadu_ps(t->l), f));
    for (int32_t r = 0; r < t->rows; r++)
        for (int32_t e = 0; e < t->dv_unit; e += 16) {
            float *o = t->o + (int64_t)r * t->dv_unit + e;
            _mm512_storeu_ps(o, _mm512_mul_ps(_mm512_loadu_ps(o), _mm512_set1_ps(t->fix[r])));
        }
}

/* x: p of pairs of keys, [columns] vectors [key][row]; they become a row's pairs each. */
SSA__AMX void ssa__amx_few_turn(const int columns, __m512 *x)
{
    if (columns == 16) {
        ssa__avx512_transpose(x);
        return;
    }
    SSA__UNROLL
    for (int i = 0; i < columns; i += 4) {
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[i], x[i + 1])),
                      b = _mm512_castps_pd(_mm512_unpackhi_ps(x[i], x[i + 1])),
                      c = _mm512_castps_pd(_mm512_unpacklo_ps(x[i + 2], x[i + 3])),
                      d = _mm512_castps_pd(_mm512_unpackhi_ps(x[i + 2], x[i + 3]));
        x[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        x[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        x[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        x[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; columns == 8 && i < 4; i++) {
        const __m512 a = x[i], b = x[i + 4];
        x[i] = _mm512_shuffle_f32x4(a, b, 0x88);
        x[i + 4] = _mm512_shuffle_f32x4(a, b, 0xdd);
    }
}

/* p [term][columns][16 pairs] of the step from key j on, of which there are n, from s. */
SSA__AMX void ssa__amx_few_p(const int columns, const int terms, const int hidden, const ssa__tile *t, int32_t j,
                             int32_t n, __m512i limit, float *s, uint16_t *p, ssa__lines *ahead)
{
    const __m512 scale = ssa__b16_scale(t);
    const __m512i keys = ssa__amx_few_keys(columns);
    __m512 m, sum = _mm512_setzero_ps(), x[16];
    if (columns == 16 && t->adjust) t->adjust(t, s, 16, 1, j, n, 0, t->rows);
    ssa__amx_few_max(columns, terms, t, hidden, limit, s);
    m = _mm512_loadu_ps(t->m);
    for (int32_t i = 0; i < columns; i++) {
        __m512 a = ssa__b16_exp2(terms, ssa__b16_below(terms, _mm512_loadu_ps(s + i * 16), scale, m));
        __m512 b = ssa__b16_exp2(terms, ssa__b16_below(terms, _mm512_loadu_ps(s + (columns + i) * 16), scale, m));
        __m512i pair;
        if (hidden) {
            const __m512i key = _mm512_add_epi32(keys, _mm512_set1_epi32(i * (16 / columns)));
            a = _mm512_maskz_mov_ps(_mm512_cmpgt_epi32_mask(limit, key), a);
            b = _mm512_maskz_mov_ps(_mm512_cmpgt_epi32_mask(limit, _mm512_add_epi32(key, _mm512_set1_epi32(16))), b);
        }
        if (terms == 2) {
            const __m512 hi_a = ssa__b16_nearest(a), hi_b = ssa__b16_nearest(b);
            pair = ssa__b16_pair(_mm512_sub_ps(a, hi_a), _mm512_sub_ps(b, hi_b));
            _mm512_storeu_si512(p + (columns + i) * 32, pair);
            sum = ssa__b16_sum(sum, pair);
            a = hi_a;
            b = hi_b;
        }
        pair = ssa__b16_pair(a, b);
        sum = ssa__b16_sum(sum, pair);
        x[i] = _mm512_castsi512_ps(pair);
        ssa__fetch_lines(ahead, 1);
    }
    for (int32_t a = 0; a < terms; a++, p += columns * 32) {
        for (int i = 0; a > 0 && i < columns; i++) x[i] = _mm512_loadu_ps((const float *)(const void *)(p + i * 32));
        ssa__amx_few_turn(columns, x);
        for (int i = 0; i < columns; i++) _mm512_storeu_ps((float *)(void *)(p + i * 32), x[i]);
    }
    _mm512_storeu_ps(t->l, _mm512_add_ps(_mm512_loadu_ps(t->l), ssa__amx_over_keys(columns, 0, sum)));
}

/* o += p * pairs, the small products first. */
SSA__AMX void ssa__amx_few_values(const int columns, const int terms, const ssa__tile *t, const uint16_t *p,
                                  const uint16_t *pairs, ssa__lines *ahead)
{
    const int32_t ld = t->dv_unit * 4;
    const uint16_t *rest = pairs + 32 * t->dv_unit;
    _tile_loadd(4, p, 64);
    if (terms == 2) _tile_loadd(3, p + columns * 32, 64);
    for (int32_t e = 0; e < t->dv_unit; e += 32) {
        _tile_loadd(0, t->o + e, ld);
        _tile_loadd(1, t->o + e + 16, ld);
        if (terms == 2) {
            _tile_loadd(5, rest + 2 * e, ld);
            _tile_dpbf16ps(0, 3, 5);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(7, rest + 2 * e + 32, ld);
            _tile_dpbf16ps(1, 3, 7);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_loadd(5, pairs + 2 * e, ld);
        if (terms == 2) _tile_dpbf16ps(0, 3, 5);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(7, pairs + 2 * e + 32, ld);
        if (terms == 2) _tile_dpbf16ps(1, 3, 7);
        _tile_dpbf16ps(1, 4, 7);
        ssa__fetch_lines(ahead, 2);
        _tile_stored(0, t->o + e, ld);
        _tile_stored(1, t->o + e + 16, ld);
        ssa__fetch_lines(ahead, 2);
    }
}

SSA__AMX void ssa__amx_few_of(const int columns, const int terms, const ssa__tile *t, int32_t n, const int32_t *limit)
{
    const int32_t from = ssa__b16_unseen(t, n, limit), steps = (n + 31) / 32, dims = t->dv_unit / 32;
    uint16_t *pairs = (uint16_t *)(void *)t->work, *p = pairs + 32 * t->dv_unit * terms;
    float *s = (float *)(void *)(p + 32 * 16 * terms);
    const __m512i sees = ssa__amx_few_limit(columns, limit, n);
    ssa__lines keys = ssa__lines_ahead(t, steps * ((terms == 1 ? t->dk_unit / 32 * 3 : 32) + 16 * dims));
    ssa__lines values = ssa__lines_of(t->ahead_v, t->ahead_v_stride, t->ahead_rows, t->ahead_v_bytes,
                                      steps * (columns + 4 * dims));
    if (from < n && ssa__b16_broken(t, from, n)) ssa__b16_edge(t, 0, from, n, limit);
    if (n % 32) ssa__b16_pad(t, n);
    SSA__BARRIER();
    ssa__amx_few_scores(columns, terms, t, 0, s, &keys);
    for (int32_t j = 0; j < n; j += 32) {
        const int32_t left = n - j < 32 ? n - j : 32;
        const __m512i lim = _mm512_sub_epi32(sees, _mm512_set1_epi32(j));
        ssa__amx_few_pairs(columns, terms, t, j, pairs, &keys);
        SSA__BARRIER();
        if (limit || left < 32) ssa__amx_few_p(columns, terms, 1, t, j, left, lim, s, p, &values);
        else ssa__amx_few_p(columns, terms, 0, t, j, left, lim, s, p, &values);
        SSA__BARRIER();
        if (j + 32 < n) ssa__amx_few_scores(columns, terms, t, j + 32, s, &keys);
        ssa__amx_few_values(columns, terms, t, p, pairs, &values);
        SSA__BARRIER();
    }
}
#define SSA__AMX_FEW(columns, terms) \
    SSA__AMXF void ssa__amx_few_##columns##_##terms(const ssa__tile *t, int32_t n, const int32_t *limit) \
    { \
        ssa__amx_few_of(columns, terms, t, n, limit); \
    }
SSA__AMX_FEW(4, 1)
SSA__AMX_FEW(8, 1)
SSA__AMX_FEW(16, 1)
SSA__AMX_FEW(16, 2)
#undef SSA__AMX_FEW
SSA__AMXF void ssa__amx_few(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    if (t->v_terms == 2) ssa__amx_few_16_2(t, n, limit);
    else if (t->columns == 4) ssa__amx_few_4_1(t, n, limit);
    else if (t->columns == 8) ssa__amx_few_8_1(t, n, limit);
    else ssa__amx_few_16_1(t, n, limit);
}

/* 32 dims lie as 0-3 8-11 16-19 24-27 and 4-7 12-15 20-23 28-31. */
SSA__AMXF void ssa__amx_few_finish(const ssa__tile *t, const float *factor, float *rows)
{
    const __m512i lo = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i hi = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    for (int32_t r = 0; r < t->rows; r++) {
        const __m512 f = _mm512_set1_ps(factor[r]);
        const float *o = t->o + (int64_t)r * t->dv_unit;
        float *dst = rows + (int64_t)r * t->dv_pad;
        for (int32_t e = 0; e < t->dv_pad; e += 32) {
            __m512 a = _mm512_loadu_ps(o + e), b = _mm512_loadu_ps(o + e + 16);
            _mm512_storeu_ps(dst + e, _mm512_mul_ps(f, _mm512_permutex2var_ps(a, lo, b)));
            if (e + 16 < t->dv_pad) _mm512_storeu_ps(dst + e + 16, _mm512_mul_ps(f, _mm512_permutex2var_ps(a, hi, b)));
        }
    }
}

/* -- block selection -- */

/* The sums over the lanes of 16 vectors, or their maxima, in a vector. */
SSA__AMX __m512 ssa__amx_fold(const int most, __m512 *x)
{
    SSA__UNROLL
    for (int i = 0; i < 8; i++)
        x[i] = ssa__amx_join(most, _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]),
                             _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
    SSA__UNROLL
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(x[2 * i]), b = _mm512_castps_pd(x[2 * i + 1]);
        x[i] = ssa__amx_join(most, _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    SSA__UNROLL
    for (int i = 0; i < 2; i++)
        x[i] = ssa__amx_join(most, _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xdd));
    return ssa__amx_join(most, _mm512_shuffle_f32x4(x[0], x[1], 0x88), _mm512_shuffle_f32x4(x[0], x[1], 0xdd));
}

/* n <= 16 keys of a float type in terms of bf16, each the rest rounded, so that three hold a float. A NaN or an
 * infinity is left in some term, and so is what rounds to one. */
SSA__AMXF float ssa__amx_lay(uint16_t *dst, ssa_type type, int32_t terms, const unsigned char *rows, int64_t stride,
                             int32_t n, int32_t d)
{
    const int32_t part = 16 * ssa__round_up(d, 32), size = type == SSA_F32 ? 4 : 2;
    __m512 rest[16];
    for (int32_t j = 0; j < 16; j++) rest[j] = _mm512_setzero_ps();
    for (int32_t e = 0; e < d; e += 32) {
        __m512 x[3][16];
        for (int32_t j = 0; j < 16; j++) {
            __m256i half[3][2];
            for (int32_t i = 0; i < 2; i++) {
                const int32_t left = j < n ? d - e - i * 16 : 0;
                const unsigned char *from = rows + j * stride + (int64_t)(e + i * 16) * size;
                __m512 y = _mm512_setzero_ps();
                if (left > 0) y = type == SSA_F32   ? ssa__avx512_load_n(from, left)
                                  : type == SSA_F16 ? ssa__avx512_load_f16_n(from, left)
                                                    : ssa__avx512_load_bf16_n(from, left);
                for (int32_t a = 0; a < terms; a++) {
                    if (a == 2) rest[j] = _mm512_fmadd_ps(y, y, rest[j]);
                    half[a][i] = (__m256i)_mm512_cvtneps_pbh(y);
                    y = _mm512_sub_ps(y, ssa__avx512_widen_bf16(half[a][i]));
                }
            }
            for (int32_t a = 0; a < terms; a++)
                x[a][j] = _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(half[a][0]), half[a][1], 1));
        }
        for (int32_t a = 0; a < terms; a++) {
            ssa__avx512_transpose(x[a]);
            for (int32_t i = 0; i < 16; i++)
                _mm512_storeu_ps((float *)(void *)(dst + a * part + 16 * e + 32 * i), x[a][i]);
        }
    }
    return _mm512_reduce_max_ps(_mm512_sqrt_ps(ssa__amx_fold(0, rest)));
}

/* s [part][16 rows][32] of the pooled keys j .. j+31, laid out, for a part's queries [term][16 rows][dk_unit]; with
 * two, for the next part's too: then four sums hide how long a product takes. */
SSA__AMX void ssa__amx_rank_laid(const int two, const ssa__tile *t, const uint16_t *queries, const uint16_t *laid,
                                 int32_t terms, int32_t used, int32_t j, float *s)
{
    const int32_t dk = t->dk_unit, block = 16 * dk;
    laid += (int64_t)j * terms * dk;
    _tile_zero(0);
    _tile_zero(1);
    if (two) { _tile_zero(2); _tile_zero(3); }
    for (int32_t ab = used * t->q_terms - 1; ab >= 0; ab--) { /* the small products first */
        const uint16_t *q = queries + ab % t->q_terms * block, *k = laid + ab / t->q_terms * block;
        for (int32_t e = 0; e < dk; e += 32) {
            _tile_loadd(4, q + e, dk * 2);
            _tile_loadd(6, k + 16 * e, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, k + terms * block + 16 * e, 64);
            _tile_dpbf16ps(1, 4, 7);
            if (!two) continue;
            _tile_loadd(5, q + t->q_terms * block + e, dk * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, s, 128);
    _tile_stored(1, s + 16, 128);
    if (two) { _tile_stored(2, s + 512, 128); _tile_stored(3, s + 528, 128); }
}

/* The same for two parts' queries of one term and 64 dims, which stay in tiles 4 to 7. */
SSA__AMX void ssa__amx_rank_hold(const uint16_t *queries)
{
    _tile_loadd(4, queries, 128);
    _tile_loadd(5, queries + 32, 128);
    _tile_loadd(6, queries + 1024, 128);
    _tile_loadd(7, queries + 1056, 128);
}
SSA__AMX void ssa__amx_rank_held(const uint16_t *laid, int32_t terms, int32_t used, int32_t j, float *s)
{
    laid += (int64_t)j * terms * 64;
    SSA__UNROLL
    for (int i = 0; i < 2; i++, laid += terms * 1024, s += 16) {
        _tile_zero(0);
        _tile_zero(1);
        for (int32_t a = used - 1; a >= 0; a--) {
            _tile_loadd(2, laid + a * 1024, 64);
            _tile_dpbf16ps(0, 4, 2);
            _tile_dpbf16ps(1, 6, 2);
            _tile_loadd(3, laid + a * 1024 + 512, 64);
            _tile_dpbf16ps(0, 5, 3);
            _tile_dpbf16ps(1, 7, 3);
        }
        _tile_stored(0, s, 128);
        _tile_stored(1, s + 512, 128);
    }
}

/* The same of bf16 rows as they lie, with turned queries, s [32][16 rows]: it is turned where p is made, which is less
 * than turning the rows. Never reads past the last row. */
SSA__AMX void ssa__amx_rank_rows(const ssa__tile *t, const uint16_t *turned, const unsigned char *pooled, int32_t j,
                                 int32_t n, float *s)
{
    const int32_t dk = t->dk_unit, block = 16 * dk;
    const unsigned char *rows = pooled + (int64_t)j * t->dk * 2;
    if (n - j < 32 || t->dk < dk) {
        memset(t->turned, 0, (size_t)block * 4);
        ssa__b16_take_bf16(t->turned, 0, dk, rows, t->dk * 2, n - j < 32 ? n - j : 32, t->dk);
        rows = (const unsigned char *)t->turned;
        SSA__BARRIER();
    }
    _tile_zero(0);
    _tile_zero(1);
    for (int32_t b = t->q_terms - 1; b >= 0; b--)
        for (int32_t e = 0; e < dk; e += 32) {
            _tile_loadd(6, turned + b * block + 16 * e, 64);
            _tile_loadd(4, rows + 2 * e, dk * 2);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, rows + 2 * (block + e), dk * 2);
            _tile_dpbf16ps(1, 5, 6);
        }
    _tile_stored(0, s, 64);
    _tile_stored(1, s + 256, 64);
}
SSA__AMX const float *ssa__amx_rank_turn(int turned, const float *s, float *dst) /* s [16 rows][32], in dst if turned */
{
    if (!turned) return s;
    for (int32_t i = 0; i < 32; i += 16) {
        __m512 x[16];
        for (int32_t k = 0; k < 16; k++) x[k] = _mm512_loadu_ps(s + (i + k) * 16);
        ssa__avx512_transpose(x);
        for (int32_t r = 0; r < 16; r++) _mm512_storeu_ps(dst + r * 32 + i, x[r]);
    }
    return dst;
}

/* What rank knows of a part: where its arrays are, and the sums so far [row][16 lanes]. */
typedef struct {
    float *s, *m;
    const int32_t *limit;
    int32_t rows;
    __m512 *sums;
    int *moved; /* set when blocks had been counted before: p and sums are of no use then */
    const unsigned char *pooled; /* n rows to bring in while p is made; NULL: none, or another part does */
    int32_t n;
} ssa__ranked;
#define SSA__RANK_AHEAD 64 /* pooled rows between those whose p is made and those that are brought in */

/* Which of 16 blocks from j on count for a row. */
SSA__AMX __mmask16 ssa__amx_counted(int32_t limit, int32_t j) { return ssa__avx512_first_mask(limit - j); }

/* p of the blocks j .. j+31 of row r, from the scores s; returns their sum by lanes. hidden: it may count fewer. */
SSA__AMX __m512 ssa__amx_rank_row(const int hidden, const ssa__ranked *p, int32_t r, int32_t j, const float *s,
                                  __m512 scale, __m512 *x)
{
    const __m512 m = _mm512_set1_ps(p->m[r]);
    for (int i = 0; i < 2; i++) {
        x[i] = ssa__b16_exp2(2, _mm512_fmsub_ps(_mm512_loadu_ps(s + i * 16), scale, m));
        if (hidden) x[i] = _mm512_maskz_mov_ps(ssa__amx_counted(p->limit[r], j + i * 16), x[i]);
    }
    return _mm512_add_ps(x[0], x[1]);
}

/* Where two p add up to more than 2 * 2^SSA__B16_LAG, or to NaN. p >= 0, so their bits compare as they do. */
SSA__AMX __mmask16 ssa__amx_rank_high(__m512i sums)
{
    return _mm512_cmpgt_epu32_mask(sums, _mm512_castps_si512(_mm512_set1_ps(2 * (1 << (int)SSA__B16_LAG))));
}

/* m of the rows whose p of the blocks j .. j+31 are high moves to the maximum of their scores s: then all is done
 * again. At first, before there is a p, it does where that is SSA__B16_LAG above. A row moves by what it sees alone,
 * whichever row asked. */
SSA__AMXF void ssa__amx_rank_rise(const ssa__tile *t, const ssa__ranked *p, int32_t j, const float *s, int turned)
{
    const float to_log2 = t->scale * (float)SSA__LOG2E;
    const __m512 sign = _mm512_set1_ps(to_log2 < 0.0f ? -0.0f : 0.0f);
    const __m512 scale = _mm512_set1_ps(to_log2 < 0.0f ? -to_log2 : to_log2);
    __m512 old = _mm512_loadu_ps(p->m), top, x[16], y[2];
    __mmask16 high = 0, moved;
    s = ssa__amx_rank_turn(turned, s, t->steps + 2048);
    for (int32_t r = 0; r < 16; r++) x[r] = _mm512_set1_ps(ssa__float(SSA__NEG_INF_BITS));
    for (int32_t r = 0; r < p->rows; r++) {
        const __m512 sum = ssa__amx_rank_row(1, p, r, j, s + r * 32, _mm512_set1_ps(to_log2), y);
        if (ssa__amx_rank_high(_mm512_castps_si512(sum))) high |= (__mmask16)(1u << r);
        for (int32_t i = 0; i < 32; i += 16) /* a NaN leaves what is there */
            x[r] = _mm512_mask_max_ps(x[r], ssa__amx_counted(p->limit[r], j + i),
                                      _mm512_xor_ps(_mm512_loadu_ps(s + r * 32 + i), sign), x[r]);
    }
    top = _mm512_mul_ps(ssa__amx_fold(1, x), scale);
    if (j > 0) moved = high & _mm512_cmp_ps_mask(top, old, _CMP_GT_OQ);
    else moved = _mm512_cmp_ps_mask(top, _mm512_add_ps(old, _mm512_set1_ps(SSA__B16_LAG)), _CMP_GT_OQ);
    _mm512_storeu_ps(p->m, _mm512_mask_mov_ps(old, moved, top)); /* the next part's first rows stay as they are */
    *p->moved |= j > 0 && moved;
}

/* p of the blocks j .. j+31 from their scores s. Returns whether some are high: then m is too low. */
SSA__AMX int ssa__amx_rank_p(const int hidden, const ssa__tile *t, const ssa__ranked *p, int32_t j, const float *s)
{
    const __m512 scale = _mm512_set1_ps(t->scale * (float)SSA__LOG2E);
    float *dst = p->s + (int64_t)j * 16;
    __m512i top = _mm512_setzero_si512();
    for (int32_t r = 0; r < p->rows; r++, s += 32, dst += 32) {
        __m512 x[2], sum = ssa__amx_rank_row(hidden, p, r, j, s, scale, x);
        _mm512_storeu_ps(dst, x[0]);
        _mm512_storeu_ps(dst + 16, x[1]);
        p->sums[r] = _mm512_add_ps(p->sums[r], sum);
        top = _mm512_max_epu32(top, _mm512_castps_si512(sum));
    }
    return ssa__amx_rank_high(top) != 0;
}

/* The pooled rows j .. j+15 of n into L1: in a long context each is read once, from afar. */
SSA__AMX void ssa__amx_rank_ahead(const ssa__tile *t, const unsigned char *pooled, int32_t j, int32_t n)
{
    const uintptr_t from = (uintptr_t)pooled + (uintptr_t)((int64_t)j * t->dk * 2);
    const int32_t bytes = (n - j < 16 ? n - j : 16) * t->dk * 2;
    for (int32_t b = 0; b < bytes; b += 256) { /* a few lines past the last do no harm */
        SSA__PREFETCH(from + (uintptr_t)b);
        SSA__PREFETCH(from + (uintptr_t)b + 64);
        SSA__PREFETCH(from + (uintptr_t)b + 128);
        SSA__PREFETCH(from + (uintptr_t)b + 192);
    }
}

/* The same from s [32][16 rows], which is turned on the way. */
SSA__AMX int ssa__amx_rank_p_turned(const int hidden, const ssa__tile *t, const ssa__ranked *p, int32_t j,
                                    const float *s)
{
    const __m512 scale = _mm512_set1_ps(t->scale * (float)SSA__LOG2E);
    __m512i top = _mm512_setzero_si512();
    __m512 first[16];
    for (int32_t i = 0; i < 32; i += 16) {
        float *dst = p->s + (int64_t)j * 16 + i;
        __m512 x[16];
        if (p->pooled) ssa__amx_rank_ahead(t, p->pooled, j + SSA__RANK_AHEAD + i, p->n);
        for (int32_t k = 0; k < 16; k++) x[k] = _mm512_loadu_ps(s + (i + k) * 16);
        ssa__avx512_transpose(x);
        SSA__UNROLL
        for (int32_t r = 0; r < 16; r++, dst += 32) {
            if (r >= p->rows) break;
            x[r] = ssa__b16_exp2(2, _mm512_fmsub_ps(x[r], scale, _mm512_set1_ps(p->m[r])));
            if (hidden) x[r] = _mm512_maskz_mov_ps(ssa__amx_counted(p->limit[r], j + i), x[r]);
            _mm512_storeu_ps(dst, x[r]);
            if (i == 0) { first[r] = x[r]; continue; }
            x[r] = _mm512_add_ps(first[r], x[r]);
            p->sums[r] = _mm512_add_ps(p->sums[r], x[r]);
            top = _mm512_max_epu32(top, _mm512_castps_si512(x[r]));
        }
    }
    return ssa__amx_rank_high(top) != 0;
}

/* The same as it lies, cut to bf16 [pair of blocks][16 rows][2], zeros for rows that there are not. All rows count as
 * many blocks; their sums are one vector. */
SSA__AMX int ssa__amx_rank_p_flat(const int hidden, const ssa__tile *t, const ssa__ranked *p, int32_t j,
                                  const float *s)
{
    const __m512 scale = _mm512_set1_ps(t->scale * (float)SSA__LOG2E);
    const __m512 m = _mm512_mask_loadu_ps(_mm512_set1_ps(FLT_MAX), ssa__avx512_first_mask(p->rows), p->m);
    uint16_t *dst = (uint16_t *)(void *)p->s + (int64_t)j * 16;
    __m512i top = _mm512_setzero_si512();
    __m512 sums = p->sums[0];
    for (int32_t i = 0; i < 32; i += 16) {
        if (p->pooled) ssa__amx_rank_ahead(t, p->pooled, j + SSA__RANK_AHEAD + i, p->n);
        SSA__UNROLL
        for (int32_t k = i; k < i + 16; k += 2) {
            __m512 sum, x = ssa__b16_exp2(2, _mm512_fmsub_ps(_mm512_loadu_ps(s + k * 16), scale, m));
            __m512 y = ssa__b16_exp2(2, _mm512_fmsub_ps(_mm512_loadu_ps(s + k * 16 + 16), scale, m));
            if (hidden) {
                x = _mm512_maskz_mov_ps(j + k < p->limit[0] ? (__mmask16)0xffff : (__mmask16)0, x);
                y = _mm512_maskz_mov_ps(j + k + 1 < p->limit[0] ? (__mmask16)0xffff : (__mmask16)0, y);
            }
            sum = _mm512_add_ps(x, y);
            sums = _mm512_add_ps(sums, sum);
            top = _mm512_max_epu32(top, _mm512_castps_si512(sum));
            _mm512_storeu_si512(dst + k * 16, ssa__b16_pair(x, y));
        }
    }
    p->sums[0] = sums;
    return ssa__amx_rank_high(top) != 0;
}

/* The scores of the blocks j .. j+31 as they are; sums become NaN where one that counts is not finite. */
SSA__AMX void ssa__amx_rank_raw(const ssa__tile *t, const ssa__ranked *p, int32_t j, const float *s, int turned)
{
    const __m512 scale = _mm512_set1_ps(t->scale), zero = _mm512_setzero_ps();
    float *dst = p->s + (int64_t)j * 16;
    s = ssa__amx_rank_turn(turned, s, t->steps + 2048);
    for (int32_t r = 0; r < p->rows; r++, s += 32, dst += 32)
        for (int32_t i = 0; i < 32; i += 16) {
            const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(s + i), scale);
            p->sums[r] = _mm512_mask3_fmadd_ps(x, zero, p->sums[r], ssa__amx_counted(p->limit[r], j + i));
            _mm512_storeu_ps(dst + i, x);
        }
}

/* A part meets the blocks j .. j+31, whose scores are s, or turned. p is made first, and looked at whether m is too low
 * for it. */
SSA__AMX void ssa__amx_rank_step(const ssa__tile *t, const ssa__ranked *p, int32_t j, const float *s, int turned,
                                 int raw)
{
    int high;
    if (raw) {
        ssa__amx_rank_raw(t, p, j, s, turned);
        return;
    }
    if (j == 0) ssa__amx_rank_rise(t, p, j, s, turned); /* m is of nothing yet */
    if (t->flat)
        high = p->limit[0] >= j + 32 ? ssa__amx_rank_p_flat(0, t, p, j, s) : ssa__amx_rank_p_flat(1, t, p, j, s);
    else if (p->limit[0] >= j + 32)
        high = turned ? ssa__amx_rank_p_turned(0, t, p, j, s) : ssa__amx_rank_p(0, t, p, j, s);
    else high = turned ? ssa__amx_rank_p_turned(1, t, p, j, s) : ssa__amx_rank_p(1, t, p, j, s);
    if (high) ssa__amx_rank_rise(t, p, j, s, turned);
}

/* Up to two parts, the first of which is number i, meet the blocks from .. to-1, 32 at a time, scores a step ahead of
 * p. */
SSA__AMX void ssa__amx_rank_parts(const ssa__tile *t, const ssa__ranked *of, int32_t i, int32_t parts,
                                  const uint16_t *laid, const unsigned char *pooled, int32_t terms, int32_t used,
                                  int32_t n, int32_t from, int32_t to, int raw)
{
    const int32_t block = 16 * t->dk_unit * t->q_terms;
    const int two = i + 1 < parts, held = laid && two && t->q_terms == 1 && t->dk_unit == 64;
    const uint16_t *q = t->queries + i * block;
    float *s = t->steps;
    if (held) ssa__amx_rank_hold(q);
    for (int32_t j = from - 32; j < to; j += 32) {
        float *s_j = s + (j & 32) * 32, *next = s + (~j & 32) * 32;
        SSA__BARRIER();
        if (j + 32 >= to) {
        } else if (held) ssa__amx_rank_held(laid, terms, used, j + 32, next);
        else if (laid && two) ssa__amx_rank_laid(1, t, q, laid, terms, used, j + 32, next);
        else if (laid) ssa__amx_rank_laid(0, t, q, laid, terms, used, j + 32, next);
        for (int g = 0; g <= two && j + 32 < to && !laid; g++)
            ssa__amx_rank_rows(t, t->turned + 32 * t->dk_unit + (i + g) * block, pooled, j + 32, n, next + g * 512);
        SSA__BARRIER();
        for (int g = 0; g <= two && j >= from; g++)
            ssa__amx_rank_step(t, of + i + g, j, s_j + g * 512, laid == NULL, raw);
    }
}

/* Parts meet the blocks in pairs, and all parts the same SSA__B16_SPAN before the next, while these are in L2. Each
 * lane has a sum of its own. */
SSA__AMXF int ssa__amx_rank(const ssa__tile *t, int32_t part, const uint16_t *laid, const unsigned char *pooled,
                            int32_t terms, int32_t used, int32_t n, const int32_t *limit, int raw)
{
    const int32_t parts = (t->rows + part - 1) / part, block = 16 * t->dk_unit * t->q_terms;
    const int64_t s_part = (int64_t)16 * ssa__b16_keys(n);
    __m512 sums[SSA__UNIT_PARTS * 16];
    ssa__ranked of[SSA__UNIT_PARTS];
    int moved = 0;
    for (int32_t i = 0; i < parts; i++) {
        ssa__ranked p = { t->s + i * s_part, t->m + i * part, limit + i * part,
                          t->rows - i * part < part ? t->rows - i * part : part, &sums[i * 16], &moved,
                          laid || i % 2 ? NULL : pooled, n };
        __m512 norm[16];
        for (int32_t r = 0; r < 16; r++) {
            p.sums[r] = norm[r] = _mm512_setzero_ps();
            for (int32_t e = 0; e < t->dk_unit; e += 32) {
                const __m512i q = _mm512_loadu_si512(t->queries + i * block + r * t->dk_unit + e);
                norm[r] = _mm512_dpbf16_ps(norm[r], (__m512bh)q, (__m512bh)q);
            }
        }
        _mm512_storeu_ps(t->fix + i * part, _mm512_sqrt_ps(ssa__amx_fold(0, norm)));
        for (int32_t a = 0; !laid && a < t->q_terms; a++)
            ssa__b16_turn(t->turned + 32 * t->dk_unit + i * block + a * 16 * t->dk_unit,
                          (const unsigned char *)(t->queries + i * block + a * 16 * t->dk_unit), t->dk_unit * 2, 16,
                          t->dk);
        of[i] = p;
    }
    for (int32_t j = 0; j < n; j += SSA__B16_SPAN)
        for (int32_t i = 0; i < parts; i += 2)
            ssa__amx_rank_parts(t, of, i, parts, laid, pooled, terms, used, n, j,
                                n - j < SSA__B16_SPAN ? n : j + SSA__B16_SPAN, raw);
    for (int32_t i = 0; i < parts; i++) {
        const ssa__ranked *p = of + i;
        if (raw) for (int32_t r = 0; r < 16; r++) p->sums[r] = _mm512_add_ps(p->sums[r], _mm512_set1_ps(0.0625f));
        _mm512_storeu_ps(t->l + i * part, t->flat ? p->sums[0] : ssa__amx_fold(0, p->sums));
    }
    return moved;
}

/* importances of one query from flat p, which is up to 2^-7 too small, and weights rounded by up to 2^-8. A product
 * takes 16 pairs of blocks to two columns: the weights of one are for the first of each pair, of the other for the
 * second. */
SSA__AMXF void ssa__amx_importances_flat(const ssa__tile *t, int32_t n, int32_t group, float *imp)
{
    const __m512 fix = _mm512_maskz_loadu_ps(ssa__avx512_first_mask(group), t->fix);
    const __m512i even = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(fix)), odd = _mm512_slli_epi32(even, 16);
    const float *s = t->s;
    float some[32];
    uint32_t w[32];
    for (int i = 0; i < 2; i++) {
        const __m512i order = i ? _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
                                : _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        _mm512_storeu_si512(w + 16 * i, _mm512_permutex2var_epi32(even, order, odd));
    }
    SSA__BARRIER();
    ssa__amx_shape(2);
    _tile_loadd(6, w, 8);
    for (int32_t j = 0; j < n; j += 32, s += 256) {
        _tile_zero(2);
        _tile_loadd(5, s, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (n - j >= 32) _tile_stored(2, imp + j, 8);
        else _tile_stored(2, some, 8);
    }
    SSA__BARRIER();
    if (n % 32) memcpy(imp + n / 32 * 32, some, (size_t)(n % 32) * sizeof *some);
    ssa__amx_shape(0);
}

SSA__AMXF void ssa__amx_importances(const ssa__tile *t, int32_t n, int32_t group, int32_t queries, float *imp,
                                    int64_t ld)
{
    if (t->flat) {
        ssa__amx_importances_flat(t, n, group, imp);
        return;
    }
    for (int32_t q = 0; q < queries; q++, imp += ld)
        for (int32_t j = 0; j < n; j += 32) {
            const float *s = t->s + (int64_t)j * 16 + q * group * 32;
            __m512 a = _mm512_setzero_ps(), b = a;
            for (int32_t r = 0; r < group; r++, s += 32) {
                const __m512 w = _mm512_set1_ps(t->fix[q * group + r]);
                a = _mm512_fmadd_ps(w, _mm512_loadu_ps(s), a);
                b = _mm512_fmadd_ps(w, _mm512_loadu_ps(s + 16), b);
            }
            _mm512_mask_storeu_ps(imp + j, ssa__avx512_first_mask(n - j), a);
            _mm512_mask_storeu_ps(imp + j + 16, ssa__avx512_first_mask(n - j - 16), b);
        }
}

/* -- packed blocks: 16 keys [32 dims]([pair of dims][key][2]), then their values [pair of keys][dv_unit][2] -- */

/* Two rows of values are interleaved as few does, which leaves their dims in the order that finish restores. */
SSA__AMXF int ssa__amx_bring(unsigned char *dst, const unsigned char *k, int64_t k_stride, const unsigned char *v,
                             int64_t v_stride, int32_t n, int32_t dk, int32_t dv)
{
    const int32_t dk_unit = ssa__round_up(dk, 32), dv_unit = ssa__round_up(dv, 32);
    const __m512i ones = _mm512_set1_epi16(0x7f80);
    uint16_t *values = (uint16_t *)(void *)dst + 16 * dk_unit;
    __mmask32 bad = 0;
    ssa__b16_turn((uint16_t *)(void *)dst, k, k_stride, n, dk);
    memset(values, 0, (size_t)(16 * dv_unit) * 2);
    for (int32_t j = 0; j < n; j += 2)
        for (int32_t e = 0; e < dv; e += 32) {
            const __mmask32 some = dv - e >= 32 ? 0xffffffffu : (1u << (dv - e)) - 1;
            __m512i x = _mm512_maskz_loadu_epi16(some, v + j * v_stride + 2 * e), y = _mm512_setzero_si512();
            if (j + 1 < n) y = _mm512_maskz_loadu_epi16(some, v + (j + 1) * v_stride + 2 * e);
            bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(x, ones), ones);
            bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(y, ones), ones);
            _mm512_storeu_si512(values + j * dv_unit + 2 * e, _mm512_unpacklo_epi16(x, y));
            _mm512_storeu_si512(values + j * dv_unit + 2 * e + 32, _mm512_unpackhi_epi16(x, y));
        }
    return bad != 0;
}

static void ssa__amx_hide(unsigned char *dst, const unsigned char *src, int32_t seen, int32_t dk, int32_t dv)
{
    const int32_t dk_unit = ssa__round_up(dk, 32), dv_unit = ssa__round_up(dv, 32);
    uint16_t *values = (uint16_t *)(void *)dst + 16 * dk_unit;
    memcpy(dst, src, (size_t)(16 * (dk_unit + dv_unit)) * 2);
    for (int32_t j = seen; j < 16; j++)
        for (int32_t e = 0; e < dv_unit; e++) values[(j / 2 * dv_unit + e) * 2 + j % 2] = 0;
}

/* m of a row moves up to the largest of the scores s (in powers of 2) of the keys in `seen`, and what came before
 * shrinks. A NaN may keep it from moving: that row's output is NaN. */
SSA__AMXF void ssa__amx_gather_rise(const ssa__tile *t, int32_t row, __mmask16 seen, __m512 s)
{
    float *o = t->o + (int64_t)row * t->dv_unit, *sums = t->sums + (int64_t)row * SSA__UNIT_SUMS, m;
    __m512 f;
    m = _mm512_mask_reduce_max_ps(seen, s);
    if (!seen || !(m > t->m[row])) return;
    f = ssa__b16_exp2(2, _mm512_sub_ps(_mm512_set1_ps(t->m[row]), _mm512_set1_ps(m)));
    t->m[row] = m;
    for (int32_t e = 0; e < t->dv_unit; e += 16) _mm512_storeu_ps(o + e, _mm512_mul_ps(f, _mm512_loadu_ps(o + e)));
    _mm256_storeu_ps(sums, _mm256_mul_ps(_mm512_castps512_ps256(f), _mm256_loadu_ps(sums)));
}

/* p [16 rows][16 keys] of gathered rows from their scores s [16][16]; adds up sums. As elsewhere m follows a maximum
 * only when that is SSA__B16_LAG above. */
SSA__AMX void ssa__amx_gather_p(const ssa__tile *t, ssa__gathered *g, const float *s, uint16_t *p)
{
    const __m512 scale = _mm512_set1_ps(t->scale * (float)SSA__LOG2E), lag = _mm512_set1_ps(SSA__B16_LAG);
    for (int32_t r = 0; r < g->n; r++) {
        const __mmask16 seen = ssa__avx512_first_mask(g->seen[r]);
        float *sums = t->sums + (int64_t)g->row[r] * SSA__UNIT_SUMS;
        __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(s + r * 16), scale, _mm512_set1_ps(t->m[g->row[r]]));
        __m256i y;
        if (_mm512_mask_cmp_ps_mask(seen, x, lag, _CMP_NLE_UQ)) {
            ssa__amx_gather_rise(t, g->row[r], seen, _mm512_mul_ps(_mm512_loadu_ps(s + r * 16), scale));
            x = _mm512_fmsub_ps(_mm512_loadu_ps(s + r * 16), scale, _mm512_set1_ps(t->m[g->row[r]]));
        }
        g->m[r] = t->m[g->row[r]];
        y = (__m256i)_mm512_maskz_cvtneps_pbh(seen, ssa__b16_exp2_of(1, 0.0f, x));
        _mm256_storeu_si256((__m256i *)(void *)(p + r * 16), y);
        _mm256_storeu_ps(sums, _mm256_dpbf16_ps(_mm256_loadu_ps(sums), (__m256bh)y,
                                                (__m256bh)_mm256_set1_epi16(0x3f80)));
    }
}

/* P.V of 16 rows: out [16][dv_unit]. Two pairs of results in turn, so that one is stored while the next is made. */
SSA__AMX void ssa__amx_gather_values(const ssa__tile *t, const unsigned char *values, const uint16_t *p, float *out)
{
    const int32_t ld = t->dv_unit * 4;
    _tile_loadd(5, p, 32);
    for (int32_t e = 0; e < t->dv_unit; e += 32, values += 128, out += 32) {
        if (e & 32) {
            _tile_zero(2);
            _tile_loadd(7, values, ld);
            _tile_dpbf16ps(2, 5, 7);
            _tile_zero(3);
            _tile_loadd(7, values + 64, ld);
            _tile_dpbf16ps(3, 5, 7);
            _tile_stored(2, out, ld);
            _tile_stored(3, out + 16, ld);
        } else {
            _tile_zero(0);
            _tile_loadd(7, values, ld);
            _tile_dpbf16ps(0, 5, 7);
            _tile_zero(1);
            _tile_loadd(7, values + 64, ld);
            _tile_dpbf16ps(1, 5, 7);
            _tile_stored(0, out, ld);
            _tile_stored(1, out + 16, ld);
        }
    }
}

/* Tiles: 0 to 3 results, 4 queries, 5 p, 6 keys, 7 values. Rows past the last hold what was there, for nobody. The last
 * step goes first, so that what a call leaves for the next one has one place, and stays in L1 beside the rows of the
 * output. Nothing is prefetched: the processor's own reading ahead does as well. */
SSA__AMXF void ssa__amx_gather(const ssa__tile *t, ssa__gathered *const *g)
{
    const int32_t dk = t->dk_unit, dv = t->dv_unit;
    uint16_t *queries = (uint16_t *)(void *)t->work, *p = queries + 16 * dk; /* [16][dk_unit]; [16][16] */
    float *scores = (float *)(void *)(p + 256), *out = scores + 256;         /* [16][16]; [16][dv_unit] */
    if (g[4]) { /* p may be those of a lower m than the output's by now */
        float fix[16];
        for (int32_t r = 0; r < 16; r++) fix[r] = r < g[4]->n ? g[4]->m[r] - t->m[g[4]->row[r]] : 0.0f;
        _mm512_storeu_ps(fix, ssa__b16_exp2(2, _mm512_loadu_ps(fix)));
        for (int32_t r = 0; r < g[4]->n; r++) {
            float *o = t->o + (int64_t)g[4]->row[r] * dv;
            const __m512 f = _mm512_set1_ps(fix[r]);
            for (int32_t e = 0; e < dv; e += 16)
                _mm512_storeu_ps(o + e, _mm512_fmadd_ps(f, _mm512_loadu_ps(out + r * dv + e), _mm512_loadu_ps(o + e)));
        }
    }
    SSA__BARRIER();
    if (g[3]) ssa__amx_gather_values(t, g[3]->block + 32 * dk, p, out);
    SSA__BARRIER();
    if (g[2]) ssa__amx_gather_p(t, g[2], scores, p);
    SSA__BARRIER();
    if (g[1]) {
        _tile_zero(0);
        for (int32_t e = 0; e < dk; e += 32) {
            _tile_loadd(4, queries + e, dk * 2);
            _tile_loadd(6, g[1]->block + 32 * e, 64);
            _tile_dpbf16ps(0, 4, 6);
        }
        _tile_stored(0, scores, 64);
    }
    SSA__BARRIER();
    for (int32_t r = 0; g[0] && r < g[0]->n; r++) {
        const uint16_t *row = t->queries + (int64_t)g[0]->row[r] * dk;
        for (int32_t e = 0; e < dk; e += 32) _mm512_storeu_si512(queries + r * dk + e, _mm512_loadu_si512(row + e));
    }
}

/* s [block][16 rows][16 keys] of n blocks. These are not prefetched: the processor's own reading ahead does as well. */
SSA__AMX void ssa__amx_blocks_scores(const ssa__tile *t, const unsigned char *const *block, int32_t n, float *s)
{
    SSA__BARRIER();
    for (int32_t b = 0; b < n; b++) {
        const unsigned char *k = block[b], *q = t->q_rows;
        if (b & 1) _tile_zero(1);
        else _tile_zero(0);
        for (int32_t e = 0; e < t->dk_unit; e += 32, k += 1024, q += 64) {
            _tile_loadd(4, q, t->q_stride);
            _tile_loadd(6, k, 64);
            if (b & 1) _tile_dpbf16ps(1, 4, 6);
            else _tile_dpbf16ps(0, 4, 6);
        }
        if (b & 1) _tile_stored(1, s + b * 256, 64);
        else _tile_stored(0, s + b * 256, 64);
    }
    SSA__BARRIER();
}

/* m of the 16 rows moves up to the largest of their scores s where that is SSA__B16_LAG above, and what came before
 * shrinks. A NaN is passed over: it makes its row's output NaN. */
SSA__AMX void ssa__amx_blocks_max(const ssa__tile *t, const float *s, int32_t n, __mmask16 last)
{
    const float to_log2 = t->scale * (float)SSA__LOG2E;
    const __m512 old = _mm512_loadu_ps(t->m);
    __m512 x[16], top, f;
    __mmask16 moved;
    for (int32_t r = 0; r < 16; r++) {
        const float *s_r = s + r * 16;
        const __m512 end = _mm512_loadu_ps(s_r + (n - 1) * 256);
        if (to_log2 < 0.0f) { /* the least, its sign changed */
            x[r] = _mm512_set1_ps(FLT_MAX);
            for (int32_t b = 0; b < n - 1; b++) x[r] = _mm512_min_ps(_mm512_loadu_ps(s_r + b * 256), x[r]);
            x[r] = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mask_min_ps(x[r], last, end, x[r]));
        } else {
            x[r] = _mm512_set1_ps(-FLT_MAX);
            for (int32_t b = 0; b < n - 1; b++) x[r] = _mm512_max_ps(_mm512_loadu_ps(s_r + b * 256), x[r]);
            x[r] = _mm512_mask_max_ps(x[r], last, end, x[r]);
        }
    }
    top = _mm512_mul_ps(ssa__amx_fold(1, x), _mm512_set1_ps(to_log2 < 0.0f ? -to_log2 : to_log2));
    moved = _mm512_cmp_ps_mask(top, _mm512_add_ps(old, _mm512_set1_ps(SSA__B16_LAG)), _CMP_NLE_UQ) &
            _mm512_cmp_ps_mask(top, old, _CMP_GT_OQ);
    if (!moved) return;
    f = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), moved, ssa__b16_exp2(2, _mm512_sub_ps(old, top)));
    _mm512_storeu_ps(t->m, _mm512_mask_mov_ps(old, moved, top));
    _mm512_storeu_ps(t->l, _mm512_mul_ps(f, _mm512_loadu_ps(t->l)));
    _mm512_storeu_ps(t->fix, f);
    for (int32_t r = 0; r < 16 && !t->fresh; r++) {
        float *o = t->o + (int64_t)r * t->dv_unit;
        for (int32_t e = 0; e < t->dv_unit; e += 16)
            _mm512_storeu_ps(o + e, _mm512_mul_ps(_mm512_set1_ps(t->fix[r]), _mm512_loadu_ps(o + e)));
    }
}

/* p [16 rows][16 blocks][16 keys] from s; adds to l. */
SSA__AMX void ssa__amx_blocks_p(const ssa__tile *t, const float *s, int32_t n, __mmask16 last, uint16_t *p,
                                const ssa__beside *beside)
{
    const __m512 scale = _mm512_set1_ps(t->scale * (float)SSA__LOG2E);
    __m512 sums[16];
    for (int32_t r = 0; r < 16; r++, s += 16, p += 256) {
        const __m512 m = _mm512_set1_ps(t->m[r]);
        sums[r] = _mm512_setzero_ps();
        for (int i = 0; i < 2; i++)
            for (int32_t e = 0; e < beside[i].bytes; e += 64) SSA__PREFETCH(beside[i].at + r * beside[i].stride + e);
        for (int32_t b = 0; b < n; b += 2) {
            const float *next = s + (b + 1 < n ? b + 1 : b) * 256;
            __m512 x = ssa__b16_exp2_of(1, 0.0f, _mm512_fmsub_ps(_mm512_loadu_ps(s + b * 256), scale, m));
            __m512 y = ssa__b16_exp2_of(1, 0.0f, _mm512_fmsub_ps(_mm512_loadu_ps(next), scale, m));
            __m512i both;
            if (b + 2 >= n) { /* of a pair's second there may be none */
                x = _mm512_maskz_mov_ps(b + 1 < n ? (__mmask16)0xffff : last, x);
                y = _mm512_maskz_mov_ps(b + 1 < n ? last : (__mmask16)0, y);
            }
            both = (__m512i)_mm512_cvtne2ps_pbh(y, x);
            _mm512_storeu_si512(p + b * 16, both);
            sums[r] = ssa__b16_sum(sums[r], both);
        }
    }
    _mm512_storeu_ps(t->l, _mm512_add_ps(_mm512_loadu_ps(t->l), ssa__amx_fold(0, sums)));
}

/* o += P.V, 64 dims at a time, whose four sums hide how long a product takes. */
SSA__AMX void ssa__amx_blocks_values(const ssa__tile *t, const unsigned char *const *block, int32_t n,
                                     const uint16_t *p)
{
    const int32_t ld = t->dv_unit * 4;
    SSA__BARRIER();
    for (int32_t e = 0; e < t->dv_unit; e += 64) {
        const int more = e + 32 < t->dv_unit;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        if (!t->fresh) {
            _tile_loadd(0, t->o + e, ld);
            _tile_loadd(1, t->o + e + 16, ld);
            if (more) _tile_loadd(2, t->o + e + 32, ld);
            if (more) _tile_loadd(3, t->o + e + 48, ld);
        }
        for (int32_t b = 0; b < n; b++) {
            const unsigned char *v = block[b] + 32 * t->dk_unit + 4 * e;
            _tile_loadd(5, p + b * 16, 512);
            _tile_loadd(7, v, ld);
            _tile_dpbf16ps(0, 5, 7);
            _tile_loadd(7, v + 64, ld);
            _tile_dpbf16ps(1, 5, 7);
            if (!more) continue;
            _tile_loadd(7, v + 128, ld);
            _tile_dpbf16ps(2, 5, 7);
            _tile_loadd(7, v + 192, ld);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, t->o + e, ld);
        _tile_stored(1, t->o + e + 16, ld);
        if (more) _tile_stored(2, t->o + e + 32, ld);
        if (more) _tile_stored(3, t->o + e + 48, ld);
    }
    SSA__BARRIER();
}

SSA__AMXF void ssa__amx_attend_blocks(const ssa__tile *t, const unsigned char *const *block, int32_t n, int32_t last,
                                      const ssa__beside *beside)
{
    const __mmask16 seen = ssa__avx512_first_mask(last);
    float *s = (float *)(void *)t->work;
    uint16_t *p = (uint16_t *)(void *)(s + SSA__UNIT_BLOCKS * 256);
    ssa__amx_blocks_scores(t, block, n, s);
    ssa__amx_blocks_max(t, s, n, seen);
    ssa__amx_blocks_p(t, s, n, seen, p, beside);
    ssa__amx_blocks_values(t, block, n, p);
}

/* -- q8_0: products of int8 are exact, and q and p become integers of four digits to the base 256: q relative to its
 * row's largest element, p * scale to the row's largest of the chunk and block. A line holds one digit of a row:
 * those of 4, 8 or 16 rows, digit * rows + row, fill 1, 2 or 4 tiles. What is made here would drive keys and values out
 * of L1 if it lay there for long: each step uses what the one before has made -- */

/* Bits of the larger of |top| and |x|, by lane; a NaN's are the largest. */
SSA__AMX __m512i ssa__amx_q8_top(__m512i top, __m512 x)
{
    return _mm512_max_epu32(top, _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)));
}

/* f = 2^i with f * x below 2^30, for the largest x of top, and back = 1 / f, NaN where x is not finite. */
SSA__AMX float ssa__amx_q8_fit(__m512i top, float *back)
{
    uint32_t e = _mm512_reduce_max_epu32(top) >> 23;
    if (e < 37) e = 37;
    *back = e == 255 ? ssa__float(0x7fc00000) : ssa__float((e - 29) << 23);
    return ssa__float((283 - e) << 23);
}

/* The digits of 16 integers, from -128 to 127, those of 4 integers side by side, the lowest first: y + 0x80808080 has
 * digits from 0 to 255, less 128 each is y. */
SSA__AMX __m512i ssa__amx_q8_digits(__m512 y)
{
    const __m512i middle = _mm512_set1_epi32((int)0x80808080u);
    const __m128i order = _mm_setr_epi32(0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703);
    const __m512i x = _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(y), middle), middle);
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(order));
}

/* Behind the queries: their lines [block][tile][16 lines][32 dims], and what makes a row's products floats. */
static unsigned char *ssa__amx_q8_lines(const ssa__tile *t)
{
    return (unsigned char *)(t->q + SSA__LANES_MAX * t->dk_pad);
}
static float *ssa__amx_q8_back(const ssa__tile *t) { return t->q + 2 * SSA__LANES_MAX * t->dk_pad; }

SSA__AMXF void ssa__amx_q8_prep(ssa__tile *t, float *rows)
{
    const int32_t tiles = ssa__q8_tiles(t->rows), n = 4 * tiles;
    const __m512i size = _mm512_set1_epi32(n * 32);
    const __m512i digit = _mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
    const __m512i dim = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    ssa__avx512_narrow_q_prep(t, rows);
    if (t->k_type != SSA_Q8_0) return;
    for (int32_t r = 0; r < n; r++) { /* past the last row zeros */
        unsigned char *q = ssa__amx_q8_lines(t) + r * 32;
        const float *row = rows + (int64_t)r * t->dk_pad;
        __m512i top = _mm512_setzero_si512();
        float f;
        for (int32_t e = 0; e < t->dk; e += 16) top = ssa__amx_q8_top(top, _mm512_loadu_ps(row + e));
        f = ssa__amx_q8_fit(top, ssa__amx_q8_back(t) + r);
        for (int32_t e = 0; e < t->dk; e += 16) {
            const __m512i y = ssa__amx_q8_digits(_mm512_mul_ps(_mm512_loadu_ps(row + e), _mm512_set1_ps(f)));
            _mm512_i32scatter_epi32(q + e / 32 * tiles * 512 + e % 32,
                                    _mm512_add_epi32(_mm512_mullo_epi32(digit, size), dim), y, 1);
        }
    }
}

/* The scales of a block of 16 rows, offsets [2][8 rows] bytes apart. Reads 4 bytes of each. */
SSA__AMX __m512 ssa__amx_q8_scales(const unsigned char *block, const __m512i *offsets)
{
    const __m256i a = _mm512_i64gather_epi32(offsets[0], block, 1), b = _mm512_i64gather_epi32(offsets[1], block, 1);
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1)));
}
SSA__AMX void ssa__amx_q8_offsets(__m512i *offsets, int64_t stride)
{
    const __m512i step = _mm512_set1_epi64(stride);
    offsets[0] = _mm512_mullo_epi64(step, _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    offsets[1] = _mm512_mullo_epi64(step, _mm512_setr_epi64(8, 9, 10, 11, 12, 13, 14, 15));
}

/* 32 dims of 16 keys, turned: dst [4 dims][key][4]. */
SSA__AMX void ssa__amx_q8_turn(const unsigned char *k, int64_t stride, unsigned char *dst, ssa__lines *ahead)
{
    __m512i x[8], y[8];
    SSA__UNROLL
    for (int i = 0; i < 8; i++) { /* keys j and j + 4, 8 keys in four vectors */
        const unsigned char *row = k + (i / 4 * 8 + i % 4) * stride;
        if (i % 2) ssa__fetch_lines(ahead, 1);
        x[i] = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)row)),
            _mm256_loadu_si256((const __m256i *)(const void *)(row + 4 * stride)), 1);
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    SSA__UNROLL
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    SSA__UNROLL
    for (int i = 0; i < 4; i++) {
        _mm512_storeu_si512(dst + i * 64, _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88));
        _mm512_storeu_si512(dst + i * 64 + 256, _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd));
    }
}

/* c [block][tile][line][16 keys] from turned keys [block][512]. */
SSA__AMX void ssa__amx_q8_products(const int tiles, const ssa__tile *t, const unsigned char *turned, int32_t *c,
                                   ssa__lines *ahead)
{
    const unsigned char *q = ssa__amx_q8_lines(t);
    for (int32_t b = 0; b < t->dk / SSA__Q8_DIM; b++, q += tiles * 512, c += tiles * 256, turned += 512) {
        ssa__fetch_lines(ahead, 2);
        _tile_loadd(7, turned, 64);
        _tile_loadd(5, q, 32);
        if (tiles == 1 && b & 1) { /* one is stored while the next is made */
            _tile_zero(1);
            _tile_dpbssd(1, 5, 7);
            _tile_stored(1, c, 64);
            continue;
        }
        _tile_zero(0);
        _tile_dpbssd(0, 5, 7);
        if (tiles > 1) {
            _tile_zero(1);
            _tile_loadd(5, q + 512, 32);
            _tile_dpbssd(1, 5, 7);
        }
        if (tiles > 2) {
            _tile_zero(2);
            _tile_loadd(5, q + 1024, 32);
            _tile_dpbssd(2, 5, 7);
            _tile_zero(3);
            _tile_loadd(5, q + 1536, 32);
            _tile_dpbssd(3, 5, 7);
        }
        _tile_stored(0, c, 64);
        if (tiles > 1) _tile_stored(1, c + 256, 64);
        if (tiles > 2) { _tile_stored(2, c + 512, 64); _tile_stored(3, c + 768, 64); }
    }
}

/* The four lines of a row, `rows` lines apart, as one. */
SSA__AMX __m512 ssa__amx_q8_sum(const int32_t *c, int32_t rows)
{
    __m512i lo = _mm512_slli_epi32(_mm512_loadu_si512(c + rows * 16), 8);
    __m512i hi = _mm512_slli_epi32(_mm512_loadu_si512(c + rows * 48), 8);
    lo = _mm512_add_epi32(lo, _mm512_loadu_si512(c));
    hi = _mm512_add_epi32(hi, _mm512_loadu_si512(c + rows * 32));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(hi), _mm512_set1_ps(65536.0f), _mm512_cvtepi32_ps(lo));
}

/* s of 16 keys from their products and scales [block][16]. */
SSA__AMX void ssa__amx_q8_scores(const int tiles, const ssa__tile *t, const int32_t *c, const float *scales, int32_t at,
                                 ssa__lines *ahead)
{
    const float *back = ssa__amx_q8_back(t);
    __m512 acc[16];
    SSA__UNROLL
    for (int r = 0; r < 4 * tiles; r++) acc[r] = _mm512_setzero_ps();
    for (int32_t b = 0; b < t->dk / SSA__Q8_DIM; b++, c += tiles * 256) {
        const __m512 scale = _mm512_loadu_ps(scales + b * 16);
        ssa__fetch_lines(ahead, 3);
        SSA__UNROLL
        for (int r = 0; r < 4 * tiles; r++)
            acc[r] = _mm512_fmadd_ps(ssa__amx_q8_sum(c + r * 16, 4 * tiles), scale, acc[r]);
    }
    SSA__UNROLL
    for (int r = 0; r < 4 * tiles; r++) {
        const __m512 x = _mm512_mul_ps(_mm512_mul_ps(acc[r], _mm512_set1_ps(t->scale)), _mm512_set1_ps(back[r]));
        if (r < t->rows) _mm512_storeu_ps(t->s + r * t->ld + at, x);
    }
}

/* 16 keys are turned, multiplied while the next ones are turned, and become scores a step later. How many keys come at
 * once does not show in a score. */
SSA__AMX void ssa__amx_q8_qk_of(const int tiles, const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n,
                                int32_t at)
{
    const int32_t blocks = t->dk / SSA__Q8_DIM;
    const int64_t bytes = ssa__row_bytes(SSA_Q8_0, t->dk);
    int32_t *c = (int32_t *)(void *)t->work;                                    /* [side][block][tile][256] */
    float *scales = (float *)(void *)(c + 2 * blocks * tiles * 256);            /* [side][block][16] */
    unsigned char *turned = (unsigned char *)(scales + 2 * blocks * 16), *copy = turned + 2 * blocks * 512;
    ssa__lines ahead = ssa__lines_ahead(t, (int64_t)(n + 15) / 16 * blocks * 9); /* 2 + 3 + 4 */
    __m512i offsets[2];
    ssa__amx_q8_offsets(offsets, stride);
    for (int32_t j = -32, side = 0; j < n; j += 16, side = !side) {
        const int32_t left = n - j - 32; /* keys to turn */
        SSA__BARRIER();
        if (j >= -16 && j + 16 < n)
            ssa__amx_q8_products(tiles, t, turned + !side * blocks * 512, c + !side * blocks * tiles * 256, &ahead);
        SSA__BARRIER();
        if (j >= 0)
            ssa__amx_q8_scores(tiles, t, c + side * blocks * tiles * 256, scales + side * blocks * 16, at + j, &ahead);
        if (left <= 0) continue;
        if (left < 16) { /* the last ones, and one of these again past them */
            for (int32_t i = 0; i < 16; i++) memcpy(copy + i * bytes, k + (i < left ? i : 0) * stride, (size_t)bytes);
            k = copy;
            stride = bytes;
            ssa__amx_q8_offsets(offsets, stride);
        }
        for (int32_t b = 0; b < blocks; b++) {
            const unsigned char *block = k + b * SSA__Q8_BYTES;
            ssa__amx_q8_turn(block + 2, stride, turned + (side * blocks + b) * 512, &ahead);
            _mm512_storeu_ps(scales + (side * blocks + b) * 16, ssa__amx_q8_scales(block, offsets));
        }
        if (left > 16) k += 16 * stride;
    }
}

SSA__AMXF void ssa__amx_q8_qk(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n, int32_t at)
{
    const int32_t tiles = ssa__q8_tiles(t->rows);
    if (tiles == 1) ssa__amx_q8_qk_of(1, t, k, stride, n, at);
    else if (tiles == 2) ssa__amx_q8_qk_of(2, t, k, stride, n, at);
    else ssa__amx_q8_qk_of(4, t, k, stride, n, at);
}

/* A block's values of n keys to [2][16 steps of 4 keys][16 dims][4]. Keys 16 * i + 4 * l to + 3 are step 4 * l + i, as
 * lines of p have them; other steps are left as they are. Dims are in an order that ssa__amx_q8_add restores. */
SSA__AMX void ssa__amx_q8_values(const unsigned char *v, int64_t stride, int32_t n, unsigned char *dst,
                                 ssa__lines *ahead)
{
    for (int32_t j = 0; j < n; j += 8) {
        unsigned char *lo = dst + (j / 4 % 4 * 4 + j / 16) * 64, *hi = lo + 256; /* 4 keys in each half of a vector */
        __m512i x[4], y[4];
        SSA__UNROLL
        for (int i = 0; i < 4; i++) {
            const unsigned char *row = v + (j + i) * stride;
            __m256i a = _mm256_setzero_si256(), b = a;
            if (i % 2) ssa__fetch_lines(ahead, 1);
            if (j + i < n) a = _mm256_loadu_si256((const __m256i *)(const void *)row);
            if (j + i + 4 < n) b = _mm256_loadu_si256((const __m256i *)(const void *)(row + 4 * stride));
            x[i] = _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
        }
        y[0] = _mm512_unpacklo_epi8(x[0], x[1]);
        y[1] = _mm512_unpackhi_epi8(x[0], x[1]);
        y[2] = _mm512_unpacklo_epi8(x[2], x[3]);
        y[3] = _mm512_unpackhi_epi8(x[2], x[3]);
        x[0] = _mm512_unpacklo_epi16(y[0], y[2]); /* dims 0 to 3 and 16 to 19 */
        x[1] = _mm512_unpackhi_epi16(y[0], y[2]); /* 4 and 20 on */
        x[2] = _mm512_unpacklo_epi16(y[1], y[3]); /* 8 and 24 on */
        x[3] = _mm512_unpackhi_epi16(y[1], y[3]); /* 12 and 28 on */
        SSA__UNROLL
        for (int i = 0; i < 4; i++) {
            const int to = i / 2 * 1024 + i % 2 * 32;
            _mm256_storeu_si256((__m256i *)(void *)(lo + to), _mm512_castsi512_si256(x[i]));
            _mm256_storeu_si256((__m256i *)(void *)(hi + to), _mm512_extracti64x4_epi64(x[i], 1));
        }
    }
}

/* A row's p times the scales [64] of a block, as lines, from dst on and `rows` lines of 64 keys apart; back becomes
 * what makes their products floats. Only the keys that the row has seen have a say in that. */
SSA__AMX void ssa__amx_q8_p(const float *p, uint64_t seen, const float *scales, int32_t rows, unsigned char *dst,
                            float *back)
{
    __m512 x[4];
    __m512i y[4], z[4], top = _mm512_setzero_si512();
    float f;
    SSA__UNROLL
    for (int i = 0; i < 4; i++) {
        x[i] = _mm512_maskz_mul_ps((__mmask16)(seen >> (i * 16)), _mm512_loadu_ps(p + i * 16),
                                   _mm512_loadu_ps(scales + i * 16));
        top = ssa__amx_q8_top(top, x[i]);
    }
    f = ssa__amx_q8_fit(top, back);
    SSA__UNROLL
    for (int i = 0; i < 4; i++) y[i] = ssa__amx_q8_digits(_mm512_mul_ps(x[i], _mm512_set1_ps(f)));
    SSA__UNROLL
    for (int i = 0; i < 4; i += 2) {
        z[i] = _mm512_unpacklo_epi32(y[i], y[i + 1]);
        z[i + 1] = _mm512_unpackhi_epi32(y[i], y[i + 1]);
    }
    _mm512_storeu_si512(dst, _mm512_unpacklo_epi64(z[0], z[2]));
    _mm512_storeu_si512(dst + rows * 64, _mm512_unpackhi_epi64(z[0], z[2]));
    _mm512_storeu_si512(dst + rows * 128, _mm512_unpacklo_epi64(z[1], z[3]));
    _mm512_storeu_si512(dst + rows * 192, _mm512_unpackhi_epi64(z[1], z[3]));
}

/* c [half of the dims][tile][line][16 dims] of a block, from lines of p and values. */
SSA__AMX void ssa__amx_q8_outputs(const int tiles, int odd, const unsigned char *p, const unsigned char *v, int32_t *c)
{
    if (tiles == 1 && odd) { /* a block's are stored while the next one's are made */
        _tile_zero(2);
        _tile_zero(3);
        _tile_loadd(4, p, 64);
        _tile_loadd(6, v, 64);
        _tile_dpbssd(2, 4, 6);
        _tile_loadd(6, v + 1024, 64);
        _tile_dpbssd(3, 4, 6);
        _tile_stored(2, c, 64);
        _tile_stored(3, c + 256, 64);
        return;
    }
    for (int a = 0; a < tiles; a += 2) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(4, p + a * 1024, 64);
        _tile_loadd(6, v, 64);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(6, v + 1024, 64);
        _tile_dpbssd(1, 4, 6);
        if (tiles > 1) {
            _tile_zero(2);
            _tile_zero(3);
            _tile_loadd(4, p + (a + 1) * 1024, 64);
            _tile_dpbssd(3, 4, 6);
            _tile_loadd(6, v, 64);
            _tile_dpbssd(2, 4, 6);
        }
        _tile_stored(0, c + a * 256, 64);
        _tile_stored(1, c + (tiles + a) * 256, 64);
        if (tiles > 1) { _tile_stored(2, c + (a + 1) * 256, 64); _tile_stored(3, c + (tiles + a + 1) * 256, 64); }
    }
}

/* o = o * fix + a block's products * back. */
SSA__AMX void ssa__amx_q8_add(const int tiles, const ssa__tile *t, int32_t b, const int32_t *c, const float *back,
                              int first)
{
    for (int32_t r = 0; r < t->rows; r++, c += 16) {
        const __m512 w = _mm512_set1_ps(back[r]), fix = _mm512_set1_ps(first ? t->fix[r] : 1.0f);
        const __m512 x = ssa__amx_q8_sum(c, 4 * tiles), y = ssa__amx_q8_sum(c + tiles * 256, 4 * tiles);
        const __m512 lo = _mm512_shuffle_f32x4(x, y, 0x88), hi = _mm512_shuffle_f32x4(x, y, 0xdd);
        float *o = t->o + (int64_t)r * t->dv_pad + b * SSA__Q8_DIM;
        _mm512_storeu_ps(o, _mm512_fmadd_ps(lo, w, _mm512_mul_ps(fix, _mm512_loadu_ps(o))));
        _mm512_storeu_ps(o + 16, _mm512_fmadd_ps(hi, w, _mm512_mul_ps(fix, _mm512_loadu_ps(o + 16))));
    }
}

/* A block's scales of n keys: s [64]. */
SSA__AMX void ssa__amx_q8_v_scales(const unsigned char *block, int64_t stride, const __m512i *offsets, int32_t n,
                                   float *s, ssa__lines *ahead)
{
    uint16_t last[16] = { 0 };
    for (; n >= 16; n -= 16, s += 16) {
        ssa__fetch_lines(ahead, 3);
        _mm512_storeu_ps(s, ssa__amx_q8_scales(block, offsets));
        if (n > 16) block += 16 * stride;
    }
    for (int32_t j = 0; j < n; j++) memcpy(last + j, block + j * stride, 2);
    if (n > 0) _mm512_storeu_ps(s, ssa__avx512_load_f16((const unsigned char *)last));
}

/* Which of n keys row r sees, a bit for each. */
static uint64_t ssa__amx_q8_seen(const ssa__tile *t, int32_t r, int32_t n)
{
    uint64_t seen = 0;
    if (t->limit && t->limit[r] < n) n = t->limit[r];
    if (!t->sees) return n > 0 ? ~(uint64_t)0 >> (64 - n) : 0;
    for (int32_t j = 0; j < n; j++) seen |= (uint64_t)(t->sees(t, r, j) != 0) << j;
    return seen;
}

/* A block's values are interleaved and its p become lines; it is multiplied while the next one is prepared, and added
 * to the output a step later. */
SSA__AMX void ssa__amx_q8_pv_of(const int tiles, const ssa__tile *t, const unsigned char *v, int64_t stride, int32_t n,
                                int32_t at, int first)
{
    const int32_t blocks = t->dv / SSA__Q8_DIM;
    unsigned char *lines = t->work, *values = lines + tiles * 2048;       /* [side][tile][1024]; [side][2048] */
    int32_t *c = (int32_t *)(void *)(values + 4096);                      /* [side][2][tile][256] */
    float *scales = (float *)(void *)(c + tiles * 1024);                  /* [block][64] */
    ssa__lines ahead = ssa__lines_ahead(t, (int64_t)blocks * 34);         /* 12 + 6 + 16 */
    float back[2][SSA__LANES_MAX];
    uint64_t seen[SSA__LANES_MAX];
    __m512i offsets[2];
    ssa__amx_q8_offsets(offsets, stride);
    for (int32_t b = 0; b < blocks; b++)
        ssa__amx_q8_v_scales(v + b * SSA__Q8_BYTES, stride, offsets, n, scales + b * SSA__Q8_KEYS, &ahead);
    for (int32_t r = 0; r < t->rows; r++) seen[r] = ssa__amx_q8_seen(t, r, n);
    for (int32_t b = 0, side = 0; b < blocks + 2; b++, side = !side) {
        SSA__BARRIER();
        if (b > 0 && b <= blocks) {
            ssa__fetch_lines(&ahead, 6);
            ssa__amx_q8_outputs(tiles, side, lines + !side * tiles * 1024, values + !side * 2048,
                                c + !side * tiles * 512);
        }
        SSA__BARRIER();
        if (b > 1) ssa__amx_q8_add(tiles, t, b - 2, c + side * tiles * 512, back[side], first);
        if (b >= blocks) continue;
        if (n == SSA__Q8_KEYS)
            ssa__amx_q8_values(v + b * SSA__Q8_BYTES + 2, stride, SSA__Q8_KEYS, values + side * 2048, &ahead);
        else ssa__amx_q8_values(v + b * SSA__Q8_BYTES + 2, stride, n, values + side * 2048, &ahead);
        for (int32_t r = 0; r < t->rows; r++)
            ssa__amx_q8_p(t->s + r * t->ld + at, seen[r], scales + b * SSA__Q8_KEYS, 4 * tiles,
                          lines + side * tiles * 1024 + r * 64, &back[side][r]);
    }
}

SSA__AMXF void ssa__amx_q8_pv(const ssa__tile *t, const unsigned char *v, int64_t stride, int32_t n, int32_t at,
                              int first)
{
    const int32_t tiles = ssa__q8_tiles(t->rows);
    if (tiles == 1) ssa__amx_q8_pv_of(1, t, v, stride, n, at, first);
    else if (tiles == 2) ssa__amx_q8_pv_of(2, t, v, stride, n, at, first);
    else ssa__amx_q8_pv_of(4, t, v, stride, n, at, first);
}

/* On top of a filled avx512 table. */
static void ssa__amx_fill(ssa__table *t)
{
    t->isa = SSA_ISA_AMX;
    t->enter = ssa__amx_enter;
    t->leave = ssa__amx_leave;
    t->take[SSA_F16] = ssa__amx_take_f16;
    t->take[SSA_BF16] = ssa__b16_take_bf16;
    t->few.chunk = SSA__UNIT_FEW;
    t->few.in_place = SSA__LANES_MAX;
    t->few.runs = t->few.columns = t->few.halves = 1;
    t->few.q_prep = t->many.q_prep = ssa__b16_q_prep;
    t->few.q_turn = t->many.q_turn = ssa__b16_q_turn;
    t->few.attend = ssa__amx_few;
    t->few.finish = ssa__amx_few_finish;
    t->few.lay = ssa__amx_lay;
    t->few.rank = ssa__amx_rank;
    t->few.bring = ssa__amx_bring;
    t->few.gather = ssa__amx_gather;
    t->few.attend_blocks = ssa__amx_attend_blocks;
    t->few.shape = ssa__amx_shape;
    t->few.hide = ssa__amx_hide;
    t->few.importances = ssa__amx_importances;
    t->many.chunk = SSA__UNIT_KEYS;
    t->many.in_place = 2 * SSA__LANES_MAX;
    t->many.attend = ssa__amx_many;
    t->many.starts = 1;
    t->many.lay_values = ssa__amx_lay_values;
    t->many.finish = ssa__b16_many_finish;
    t->q8 = t->narrow;
    t->q8.chunk = SSA__Q8_KEYS;
    t->q8.q_prep = ssa__amx_q8_prep;
    t->q8.qk[SSA_Q8_0] = ssa__amx_q8_qk;
    t->q8.pv[SSA_Q8_0] = ssa__amx_q8_pv;
    t->q8.shape = ssa__amx_shape;
}
SSA__DIAG_POP
#endif /* SSA__HAVE_AMX */

#if SSA__HAVE_BFMM
#define SSA__BFMM  SSA__FORCE_INLINE SSA__TARGET_BFMM
#define SSA__BFMMF static SSA__TARGET_BFMM
#define SSA__BFMM_KEYS 256 /* a chunk: its scores and p for 16 rows, 24 KiB, stay in L1 */

/* Not the intrinsics: gcc has them in functions for ARMv8.2 alone, which -mcpu may make unfit to call our own. */
SSA__BFMM float32x4_t ssa__bfmm_mul(float32x4_t c, uint16x8_t a, uint16x8_t b)
{
    __asm__("bfmmla %0.4s, %1.8h, %2.8h" : "+w"(c) : "w"(a), "w"(b));
    return c;
}
SSA__BFMM uint16x8_t ssa__bfmm_round(float32x4_t a, float32x4_t b)
{
    uint16x8_t x;
    __asm__("bfcvtn %0.4h, %1.4s\n\tbfcvtn2 %0.8h, %2.4s" : "=&w"(x) : "w"(a), "w"(b));
    return x;
}
/* The first or the last half of a, then that of b. */
SSA__BFMM float32x4_t ssa__bfmm_firsts(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}
SSA__BFMM float32x4_t ssa__bfmm_lasts(float32x4_t a, float32x4_t b)
{
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

static void ssa__bfmm_take(uint16_t *dst, int64_t term, int32_t ld, const unsigned char *src, int64_t stride, int32_t n,
                           int32_t d)
{
    (void)term;
    for (; n > 0; n--, dst += ld, src += stride) {
        memcpy(dst, src, (size_t)d * 2);
        memset(dst + d, 0, (size_t)(ld - d) * 2);
    }
}

/* rows [row][dk_pad], exact in bf16, to q [8 rows][dk_unit / 4]([row][4 dims]), padding to 16 rows included. A negative
 * scale is moved into q, so that the largest product is the largest score. */
SSA__BFMMF void ssa__bfmm_q_prep(ssa__tile *t, float *rows)
{
    const uint16x4_t sign = vdup_n_u16(t->scale < 0.0f ? 0x8000 : 0);
    for (int32_t r = 0; r < ssa__round_up(t->rows, 16); r++) {
        const float *row = rows + (int64_t)r * t->dk_pad;
        uint16_t *q = (uint16_t *)(void *)t->q + (int64_t)(r / 8) * t->dk_unit * 8 + r % 8 * 4;
        for (int32_t e = 0; e < t->dk_unit; e += 4, q += 32) {
            float32x4_t x = e < t->dk_pad ? vld1q_f32(row + e) : vdupq_n_f32(0.0f);
            vst1_u16(q, veor_u16(vshrn_n_u32(vreinterpretq_u32_f32(x), 16), sign));
        }
    }
}

/* Element e of row r of the output: o [8 rows][dv_unit / 8]([pair of dims][pair of rows][2 dims][2 rows]). */
static float *ssa__bfmm_o(const ssa__tile *t, int32_t r, int32_t e)
{
    return t->o + (int64_t)(r / 8) * t->dv_unit * 8 + e / 8 * 64 + e % 8 / 2 * 16 + r % 8 / 2 * 4 + e % 2 * 2 + r % 2;
}

/* Values that are not finite, at keys from `from` on that not every row sees: 0 * v would spoil the others. They are
 * taken out and added to the rows that see them, which they make not finite all the same. */
static void ssa__bfmm_edge(const ssa__tile *t, int32_t from, int32_t n, const int32_t *limit)
{
    for (int32_t j = from; j < n; j++) {
        uint16_t *v = t->v + (int64_t)j * t->dv_unit;
        int broken = 0;
        for (int32_t e = 0; e < t->dv; e++) broken |= !ssa__is_finite(ssa__bf16_to_f32(v[e]));
        for (int32_t r = 0; broken && r < t->rows; r++) {
            if ((limit && j >= limit[r]) || (t->sees && !t->sees(t, r, j))) continue;
            for (int32_t e = 0; e < t->dv; e++)
                if (!ssa__is_finite(ssa__bf16_to_f32(v[e]))) *ssa__bfmm_o(t, r, e) += ssa__bf16_to_f32(v[e]);
        }
        for (int32_t e = 0; broken && e < t->dv; e++) if (!ssa__is_finite(ssa__bf16_to_f32(v[e]))) v[e] = 0;
    }
}

/* Pairs of keys, in place: of 8 dims x of the first and y of the second, x becomes the first 4 of both, y the last. */
static void ssa__bfmm_pair_keys(const ssa__tile *t, int32_t n)
{
    for (int32_t j = 0; j < n; j += 2) {
        uint16_t *k = t->k + (int64_t)j * t->dk_unit;
        for (int32_t e = 0; e < t->dk_unit; e += 8) {
            uint64x2_t x = vreinterpretq_u64_u16(vld1q_u16(k + e));
            uint64x2_t y = vreinterpretq_u64_u16(vld1q_u16(k + t->dk_unit + e));
            vst1q_u16(k + e, vreinterpretq_u16_u64(vzip1q_u64(x, y)));
            vst1q_u16(k + t->dk_unit + e, vreinterpretq_u16_u64(vzip2q_u64(x, y)));
        }
    }
}

/* v [key][dv_unit] to vt [8 dims][keys_max / 4]([dim][4 keys]). */
static void ssa__bfmm_v_transposed(const ssa__tile *t, int32_t n, uint16_t *vt)
{
    const int64_t ld = t->dv_unit;
    for (int32_t j = 0; j < n; j += 4)
        for (int32_t e = 0; e < t->dv_unit; e += 8) {
            const uint16_t *v = t->v + j * ld + e;
            uint16_t *dst = vt + (int64_t)e * t->keys_max + j * 8;
            uint16x8_t x0 = vld1q_u16(v), x1 = vld1q_u16(v + ld), x2 = vld1q_u16(v + 2 * ld);
            uint16x8_t x3 = vld1q_u16(v + 3 * ld);
            uint16x8_t a = vzip1q_u16(x0, x2), b = vzip1q_u16(x1, x3); /* dims 0 to 3 of keys 0 and 2, of 1 and 3 */
            uint16x8_t c = vzip2q_u16(x0, x2), d = vzip2q_u16(x1, x3); /* dims 4 to 7 */
            vst1q_u16(dst, vzip1q_u16(a, b));
            vst1q_u16(dst + 8, vzip2q_u16(a, b));
            vst1q_u16(dst + 16, vzip1q_u16(c, d));
            vst1q_u16(dst + 24, vzip2q_u16(c, d));
        }
}

/* s [8 keys][16 rows], half of its rows: products times scale of keys from j on with 8 rows of q. */
SSA__BFMM void ssa__bfmm_scores(const ssa__tile *t, int32_t j, const uint16_t *q, float scale, float *s)
{
    const int64_t ld = t->dk_unit;
    const uint16_t *k = t->k + j * ld;
    float32x4_t acc[4][4];
    SSA__UNROLL
    for (int i = 0; i < 4; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = vdupq_n_f32(0.0f);
    for (int32_t e = 0; e < t->dk_unit; e += 8, k += 8) {
        SSA__UNROLL
        for (int h = 0; h < 2; h++, q += 32) {
            uint16x8_t b[4];
            SSA__UNROLL
            for (int r = 0; r < 4; r++) b[r] = vld1q_u16(q + r * 8);
            SSA__UNROLL
            for (int i = 0; i < 4; i++) {
                uint16x8_t a = vld1q_u16(k + (2 * i + h) * ld);
                SSA__UNROLL
                for (int r = 0; r < 4; r++) acc[i][r] = ssa__bfmm_mul(acc[i][r], a, b[r]);
            }
        }
    }
    SSA__UNROLL
    for (int i = 0; i < 4; i++) {
        SSA__UNROLL
        for (int r = 0; r < 4; r += 2) {
            vst1q_f32(s + i * 32 + r * 2, vmulq_n_f32(ssa__bfmm_firsts(acc[i][r], acc[i][r + 1]), scale));
            vst1q_f32(s + i * 32 + 16 + r * 2, vmulq_n_f32(ssa__bfmm_lasts(acc[i][r], acc[i][r + 1]), scale));
        }
    }
}

/* o = o * fix + P.V for 8 rows and 8 dims over n groups of 4 keys. */
SSA__BFMM void ssa__bfmm_values(float *o, const float *fix, const uint16_t *vt, const uint16_t *p, int32_t n)
{
    float32x4_t acc[4][4];
    SSA__UNROLL
    for (int r = 0; r < 4; r++) {
        const float32x4_t f = vcombine_f32(vld1_f32(fix + 2 * r), vld1_f32(fix + 2 * r));
        SSA__UNROLL
        for (int i = 0; i < 4; i++) acc[i][r] = vmulq_f32(vld1q_f32(o + i * 16 + r * 4), f);
    }
    for (; n > 0; n--, vt += 32, p += 32) {
        uint16x8_t b[4];
        SSA__UNROLL
        for (int r = 0; r < 4; r++) b[r] = vld1q_u16(p + r * 8);
        SSA__UNROLL
        for (int i = 0; i < 4; i++) {
            uint16x8_t a = vld1q_u16(vt + i * 8);
            SSA__UNROLL
            for (int r = 0; r < 4; r++) acc[i][r] = ssa__bfmm_mul(acc[i][r], a, b[r]);
        }
    }
    SSA__UNROLL
    for (int i = 0; i < 4; i++) {
        SSA__UNROLL
        for (int r = 0; r < 4; r++) vst1q_f32(o + i * 16 + r * 4, acc[i][r]);
    }
}

/* 2^x for x of at most 0: ssa__expf's polynomial, which may end early: 5e-5 is little in a bf16. NaN stays NaN. */
SSA__BFMM float32x4_t ssa__bfmm_exp2(float32x4_t x)
{
    float32x4_t n, f, p;
    x = ssa__neon_max(vdupq_n_f32(-127.0f), x); /* in this order NaN stays NaN */
    n = vrndnq_f32(x); /* not through SSA__ROUND and back, which -ffast-math leaves out where no FMA is in between */
    f = vsubq_f32(x, n);
    p = vfmaq_f32(vdupq_n_f32(SSA__EXP_C3), f, vdupq_n_f32(SSA__EXP_C4));
    p = vfmaq_f32(vdupq_n_f32(SSA__EXP_C2), f, p);
    p = vfmaq_f32(vdupq_n_f32(SSA__EXP_C1), f, p);
    p = vfmaq_f32(vdupq_n_f32(1.0f), f, p);
    return ssa__neon_scale2(p, vaddq_f32(n, vdupq_n_f32(SSA__ROUND)));
}

/* s [key][16 rows], keys from .. n-1, to p [8 rows][SSA__BFMM_KEYS / 4]([row][4 keys]), from's first and padded with
 * zeros; m, l and fix with it, l the sum of what p was rounded to. hidden: row r sees the first limit[r] alone. */
SSA__BFMM void ssa__bfmm_softmax(const int hidden, const ssa__tile *t, int32_t at, const int32_t *limit, int32_t from,
                                 int32_t n, const float *s, uint16_t *p)
{
    const uint16x8_t ones = vdupq_n_u16(0x3f80);
    float32x4_t top[4], old[4];
    SSA__UNROLL
    for (int i = 0; i < 4; i++) top[i] = old[i] = vld1q_f32(t->m + at + i * 4);
    for (int32_t j = from; j < n; j++) {
        SSA__UNROLL
        for (int i = 0; i < 4; i++) {
            float32x4_t x = vld1q_f32(s + j * 16 + i * 4);
            if (hidden) x = ssa__neon_below(limit + i * 4, j, x, old[i]);
            top[i] = ssa__neon_max(x, top[i]);
        }
    }
    for (int i = 0; i < 4; i++) {
        const float32x4_t fix = ssa__bfmm_exp2(vsubq_f32(old[i], top[i]));
        uint16_t *dst = p + i / 2 * (SSA__BFMM_KEYS * 8) + i % 2 * 16;
        float32x4_t sum[2], l = vmulq_f32(vld1q_f32(t->l + at + i * 4), fix);
        sum[0] = sum[1] = vdupq_n_f32(0.0f);
        for (int32_t j = from; j < n; j += 4, dst += 32) {
            float32x4_t x[4];
            uint16x8_t a, b, c, d;
            SSA__UNROLL
            for (int k = 0; k < 4; k++) {
                x[k] = ssa__bfmm_exp2(vsubq_f32(vld1q_f32(s + (j + k) * 16 + i * 4), top[i]));
                if (hidden) x[k] = ssa__neon_below(limit + i * 4, j + k, x[k], vdupq_n_f32(0.0f));
            }
            a = ssa__bfmm_round(x[0], x[1]); /* 4 rows of key 0, then of key 1 */
            b = ssa__bfmm_round(x[2], x[3]);
            c = vzip1q_u16(a, b); /* keys 0 and 2 of each row, then 1 and 3 */
            d = vzip2q_u16(a, b);
            a = vzip1q_u16(c, d);
            b = vzip2q_u16(c, d);
            vst1q_u16(dst, a);
            vst1q_u16(dst + 8, b);
            sum[0] = ssa__bfmm_mul(sum[0], a, ones);
            sum[1] = ssa__bfmm_mul(sum[1], b, ones);
        }
        vst1q_f32(t->m + at + i * 4, top[i]);
        vst1q_f32(t->fix + at + i * 4, fix);
        vst1q_f32(t->l + at + i * 4, vaddq_f32(l, vuzp1q_f32(sum[0], sum[1])));
    }
}

/* 16 rows at a time go through the chunk: all scores, their p, all values. */
SSA__BFMMF void ssa__bfmm_attend(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    const int32_t n8 = ssa__round_up(n, 8), unseen = t->sees ? 0 : limit ? limit[0] : n;
    const float scale = ssa__bits(t->scale) << 1 == 0 ? 1.0f /* adjust makes powers of 2 */
                        : (t->scale < 0.0f ? -t->scale : t->scale) * (float)SSA__LOG2E;
    uint16_t *vt = (uint16_t *)(void *)t->work;
    float *s = (float *)(void *)(vt + (int64_t)t->keys_max * t->dv_unit); /* [key][16 rows] */
    uint16_t *p = (uint16_t *)(void *)(s + SSA__BFMM_KEYS * 16);
    ssa__bfmm_edge(t, unseen, n, limit);
    memset(t->k + (int64_t)n * t->dk_unit, 0, (size_t)(n8 - n) * (size_t)t->dk_unit * 2);
    memset(t->v + (int64_t)n * t->dv_unit, 0, (size_t)(n8 - n) * (size_t)t->dv_unit * 2);
    ssa__bfmm_pair_keys(t, n8);
    ssa__bfmm_v_transposed(t, n8, vt);
    for (int32_t at = 0; at < t->rows; at += 16) {
        const int32_t rows = t->rows - at < 16 ? t->rows - at : 16, from = t->start ? t->start[at] / 8 * 8 : 0;
        const int32_t sees = limit ? limit[at + rows - 1] : n;
        const int32_t ahead = (int32_t)((int64_t)t->ahead_rows * at / t->rows);
        const int32_t ahead_to = (int32_t)((int64_t)t->ahead_rows * (at + rows) / t->rows);
        int32_t lim[16];
        ssa__fetch_rows(t->ahead, t->ahead_stride, ahead, ahead_to, t->ahead_rows, t->ahead_bytes);
        ssa__fetch_rows(t->ahead_v, t->ahead_v_stride, ahead, ahead_to, t->ahead_rows, t->ahead_v_bytes);
        for (int32_t j = from; j < sees; j += 8)
            for (int32_t r = at; r < at + 16; r += 8)
                ssa__bfmm_scores(t, j, (const uint16_t *)(const void *)t->q + (int64_t)r * t->dk_unit, scale,
                                 s + j * 16 + r % 16);
        if (from >= sees) continue;
        if (t->adjust) t->adjust(t, s + from * 16, 16, 1, from, sees - from, at, rows);
        for (int32_t r = 0; r < 16; r++) lim[r] = r >= rows ? 0 : limit ? limit[at + r] : n;
        if (limit || n % 4) ssa__bfmm_softmax(1, t, at, lim, from, sees, s, p);
        else ssa__bfmm_softmax(0, t, at, lim, from, sees, s, p);
        for (int32_t r = 0; r < rows; r += 8)
            for (int32_t e = 0; e < t->dv_unit; e += 8)
                ssa__bfmm_values(ssa__bfmm_o(t, at + r, e), t->fix + at + r, vt + (int64_t)e * t->keys_max + from * 8,
                                 p + r * SSA__BFMM_KEYS, (sees - from + 3) / 4);
    }
}

SSA__BFMMF void ssa__bfmm_finish(const ssa__tile *t, const float *factor, float *rows)
{
    for (int32_t r = 0; r < t->rows; r += 2)
        for (int32_t e = 0; e < t->dv_pad; e += 4) {
            const float *o = ssa__bfmm_o(t, r, e);
            float32x4_t x = vld1q_f32(o), y = vld1q_f32(o + 16);
            float *row = rows + (int64_t)r * t->dv_pad + e;
            vst1q_f32(row, vmulq_n_f32(vuzp1q_f32(x, y), factor[r]));
            vst1q_f32(row + t->dv_pad, vmulq_n_f32(vuzp2q_f32(x, y), factor[r + 1]));
        }
}

/* On top of a filled neon table. */
static void ssa__bfmm_fill(ssa__table *t)
{
    t->take[SSA_BF16] = ssa__bfmm_take;
    t->few.chunk  = t->many.chunk  = SSA__BFMM_KEYS;
    t->few.q_prep = t->many.q_prep = ssa__bfmm_q_prep;
    t->few.attend = t->many.attend = ssa__bfmm_attend;
    t->few.finish = t->many.finish = ssa__bfmm_finish;
}
#endif /* SSA__HAVE_BFMM */

/* =====================================================================================================================
 * 10  DETECTION AND CHOICE OF A LEVEL
 * ================================================================================================================== */
#if SSA__HAVE_AVX2 || SSA__HAVE_AVX512
#if SSA_NO_DISPATCH
static int ssa__cpu_has(ssa_isa isa) { (void)isa; return 1; } /* what was compiled in is trusted to run */
#else

/* eax ebx ecx edx of a leaf; zeros for a leaf that the CPU lacks */
static void ssa__cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
#if SSA__CPUID_MSVC
    int x[4];
    __cpuid(x, 0);
    r[0] = r[1] = r[2] = r[3] = 0;
    if ((uint32_t)x[0] < leaf) return;
    __cpuidex(x, (int)leaf, (int)sub);
    for (int i = 0; i < 4; i++) r[i] = (uint32_t)x[i];
#else
    r[0] = r[1] = r[2] = r[3] = 0;
    (void)__get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]);
#endif
}

static uint64_t ssa__xcr0(void) /* the register state the OS saves; only after OSXSAVE is seen */
{
#if SSA__CPUID_MSVC
    return _xgetbv(0);
#else
    uint32_t lo, hi;
    __asm__ __volatile__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
#endif
}

#if SSA__HAVE_AMX && !defined(SSA__AMX_EMULATED)
/* Linux saves the tiles of a process only after it has asked: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), once
 * for all threads. Denied or unknown: no AMX. */
static int ssa__amx_permitted(void)
{
    long result = 158; /* SYS_arch_prctl */
    __asm__ __volatile__("syscall" : "+a"(result) : "D"(0x1023L), "S"(18L) : "rcx", "r11", "memory");
    return result == 0;
}
#elif !defined(SSA__AMX_EMULATED)
static int ssa__amx_permitted(void) { return 0; }
#endif

/* Whether CPU and operating system run an x86 level: the CPU has the instructions, and the OS saves the registers. */
static int ssa__cpu_has(ssa_isa isa)
{
    uint32_t a[4], b[4];
    uint64_t os;
    ssa__cpuid(1, 0, a);
    ssa__cpuid(7, 0, b);
    if (!(a[2] >> 27 & 1)) return 0;                       /* OSXSAVE: without it xgetbv faults */
    os = ssa__xcr0();
    if ((os & 0x6) != 0x6) return 0;                       /* the OS saves xmm and ymm */
    if (!(a[2] >> 12 & 1) || !(a[2] >> 29 & 1) || !(b[1] >> 5 & 1)) return 0;              /* FMA, F16C, AVX2 */
    if (isa == SSA_ISA_AVX2) return 1;
    if ((os & 0xe0) != 0xe0) return 0;                     /* the OS saves the masks and all of zmm */
    if (!((b[1] >> 16 & 1) && (b[1] >> 17 & 1) && (b[1] >> 30 & 1) && (b[1] >> 31 & 1))) return 0; /* F, DQ, BW, VL */
    if (isa == SSA_ISA_AVX512) return 1;
    ssa__cpuid(7, 1, a);
    if (!(a[0] >> 5 & 1)) return 0;                        /* AVX512_BF16 */
#ifdef SSA__AMX_EMULATED /* the tests bring the instructions along, and the permission */
    return SSA__AMX_EMULATED;
#else
    if (!((b[3] >> 22 & 1) && (b[3] >> 24 & 1) && (b[3] >> 25 & 1))) return 0; /* AMX_BF16, AMX_TILE, AMX_INT8 */
    return (os & 0x60000) == 0x60000 && ssa__amx_permitted();
#endif
}
#endif
#endif

/* Whether the CPU has products of bf16 that are worth a form within level avx512 or neon: BFMMLA and BFCVTN, where
 * somebody says so; AVX512_BF16 but of Intel's CPUs, on which it makes no more products than multiply-adds do. */
static int ssa__cpu_has_bf16(ssa_isa isa)
{
#if SSA__HAVE_B16
    if (isa == SSA_ISA_AVX512) {
#ifdef SSA__B16_ALWAYS /* tests, on any CPU that has them */
        uint32_t vendor[4] = { 0 }, a[4];
#else
        uint32_t vendor[4], a[4];
        ssa__cpuid(0, 0, vendor);
#endif
        ssa__cpuid(7, 1, a);
        return a[0] >> 5 & 1 && vendor[1] != 0x756e6547; /* "Genu" */
    }
#endif
#if SSA__HAVE_BFMM
#if SSA__BFMM_GIVEN
    if (isa == SSA_ISA_NEON) return 1;
#elif SSA__AUXV
    if (isa == SSA_ISA_NEON) return (int)(getauxval(26) >> 14 & 1); /* AT_HWCAP2, HWCAP2_BF16 */
#elif SSA__SYSCTL
    int has = 0;
    size_t size = sizeof has;
    if (isa == SSA_ISA_NEON) return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, NULL, 0) == 0 && has;
#endif
#endif
    (void)isa;
    return 0;
}

/* 1 when the level is compiled in and this machine runs it. */
static int ssa__available(ssa_isa isa)
{
    if (isa == SSA_ISA_SCALAR) return 1;
#if SSA__HAVE_AVX2
    if (isa == SSA_ISA_AVX2) return ssa__cpu_has(isa);
#endif
#if SSA__HAVE_AVX512
    if (isa == SSA_ISA_AVX512) return ssa__cpu_has(isa);
#endif
#if SSA__HAVE_AMX
    if (isa == SSA_ISA_AMX) return ssa__cpu_has(isa);
#endif
#if SSA__HAVE_NEON
    if (isa == SSA_ISA_NEON) return 1; /* every AArch64 CPU has it */
#endif
#if SSA__HAVE_SIMD128
    if (isa == SSA_ISA_SIMD128) return 1; /* an engine without it would not have loaded the module */
#endif
    return 0;
}

/* An available level as it is kept: to ask the CPU about bf16 takes too long for each call. */
#define SSA__WITH_BF16 16
static int ssa__level_of(ssa_isa isa) { return (int)isa | (ssa__cpu_has_bf16(isa) ? SSA__WITH_BF16 : 0); }

/* The complete table of a level that ssa__level_of made, or of one as it is without products of bf16. */
static void ssa__fill(ssa__table *t, int level)
{
    const ssa_isa isa = (ssa_isa)(level % SSA__WITH_BF16);
    ssa__fill_scalar(t);
#if SSA__HAVE_AVX2
    if (isa == SSA_ISA_AVX2) ssa__avx2_fill(t, isa);
#endif
#if SSA__HAVE_AVX512
    if (isa == SSA_ISA_AVX512 || isa == SSA_ISA_AMX) ssa__avx512_fill(t, isa);
#endif
#if SSA__HAVE_B16
    if (isa == SSA_ISA_AVX512 && level & SSA__WITH_BF16) ssa__b16_fill(t);
#endif
#if SSA__HAVE_AMX
    if (isa == SSA_ISA_AMX) ssa__amx_fill(t);
#endif
#if SSA__HAVE_NEON
    if (isa == SSA_ISA_NEON) ssa__neon_fill(t, isa);
#endif
#if SSA__HAVE_BFMM
    if (isa == SSA_ISA_NEON && level & SSA__WITH_BF16) ssa__bfmm_fill(t);
#endif
#if SSA__HAVE_SIMD128
    if (isa == SSA_ISA_SIMD128) ssa__simd128_fill(t, isa);
#endif
    (void)isa; /* unused when only the scalar level is compiled in */
    SSA_ASSERT(t->isa == isa);
}

static const char *const ssa__isa_names[] = { "scalar", "avx2", "avx512", "amx", "neon", "simd128" };
#define SSA__ISA_COUNT 6

/* The best available level that is not above wanted; wanted may be any number. */
static ssa_isa ssa__best_up_to(ssa_isa wanted)
{
    int i = (int)wanted;
    if (i >= SSA__ISA_COUNT) i = SSA__ISA_COUNT - 1;
    while (i > 0 && !ssa__available((ssa_isa)i)) i--;
    return i < 0 ? SSA_ISA_SCALAR : (ssa_isa)i;
}

static int ssa__level = -1; /* what ssa__level_of made; -1 until the first call. Every thread would store the same. */

/* The level in use, as it is kept; the first call of the process chooses it. */
static int ssa__level_get(void)
{
    int level = SSA__ATOMIC_GET(&ssa__level);
    if (level < 0) {
#if !SSA_NO_GETENV /* first: a level below amx must not ask for the permission that amx needs */
        const char *name = getenv("SSA_ISA");
        for (int i = 0; name && i < SSA__ISA_COUNT; i++)
            if (strcmp(name, ssa__isa_names[i]) == 0 && ssa__available((ssa_isa)i)) level = i;
#endif
        if (level < 0) level = (int)ssa__best_up_to((ssa_isa)(SSA__ISA_COUNT - 1));
        level = ssa__level_of((ssa_isa)level);
        SSA__ATOMIC_SET(&ssa__level, level);
    }
    return level;
}

/* =====================================================================================================================
 * 11  VALIDATION, PLAN, WORKSPACE
 *     A plan resolves every call (strides, positions, defaults), cuts it into tasks and lays out the workspace. The
 *     kinds of task, in the order of their phases; a phase without tasks is left out:
 *       POOL    pooled keys of a call that brought none    task = SSA__POOL_BLOCKS blocks, one key/value head
 *       PACK    keys and values laid out for all tiles     task = SSA__POOL_BLOCKS * SSA__UNIT_BLOCK keys, one head;
 *                                                          full: SSA__UNIT_KEYS keys
 *       SCORE   few queries against many pooled keys       task = a share of them, one key/value head, one tile
 *       WEIGH   the importance of these blocks             task = a share of them, one key/value head, one query
 *       SELECT  the blocks of each query                   task = the queries of one tile, one key/value head
 *       ATTEND  the attention loop                         task = a share of the keys, some key/value heads, one tile
 *       MERGE   joins the shares of the keys               task = SSA__MERGE_ROWS rows of the output
 *     How a call is cut depends on the call alone, never on the number of workers or who does what: that makes the
 *     bits the same.
 * ================================================================================================================== */
enum { SSA__POOL, SSA__PACK, SSA__SCORE, SSA__WEIGH, SSA__SELECT, SSA__ATTEND, SSA__MERGE, SSA__KINDS };
typedef enum { SSA__RUN_FULL, SSA__RUN_SPARSE, SSA__RUN_SELECT } ssa__what;

#define SSA__POOL_BLOCKS    64
#define SSA__PACK_QUERIES   64     /* queries that are worth packing all keys and values for, where .. */
#define SSA__PACK_USES      6      /* .. a block is chosen so often on average */
#ifndef SSA__LAY_TILES             /* smaller only for fuzzing */
#define SSA__LAY_TILES      4      /* tiles of a key/value head, and .. */
#define SSA__LAY_KEYS       512    /* .. keys, from which on a full call's chunks are laid out once for all tiles */
#endif
#ifndef SSA__GATHER_USES           /* smaller only for fuzzing */
#define SSA__GATHER_USES    3      /* lists of a task that hold a block, on average, for their rows to be gathered .. */
#define SSA__GATHER_LEAST   32     /* .. in a call of so many queries */
#endif
#define SSA__GATHER_MANY    8      /* such lists that tasks are made long enough for, where there are as many */
#define SSA__GATHER_FLOATS  262144 /* of output in a task of gathered rows: 1 MiB, to stay in L2 .. */
#define SSA__GATHER_LIST    131072 /* .. and pairs of a query and a part of a block .. */
#define SSA__GATHER_TASKS   64     /* .. but so many tasks in a call, while a task has .. */
#define SSA__GATHER_SHARE   32     /* .. so many queries */
#define SSA__GATHER_AHEAD   16     /* lists whose first line is prefetched */
#define SSA__MERGE_ROWS     16
#define SSA__SPLIT_TASKS    32     /* ATTEND tasks that a decode is cut into for its threads .. */
#define SSA__SPLIT_MIN      512    /* .. of at least this many keys each .. */
#define SSA__SPLIT_STEP     64     /* .. and of whole steps of the forms for few rows */
#define SSA__ASIDE_BYTES    (128 << 10) /* of keys and values of a chunk of all its heads */
#ifndef SSA__SHARE_LEAST           /* smaller only for fuzzing, which has no time for long contexts */
#define SSA__SHARE_LEAST    4096   /* pooled keys for each SELECT task from which on they are scored in shares, up to as
                                    * many tasks as a decode has .. */
#define SSA__SHARE_MIN      2048   /* .. of at least this many keys each */
#endif
#define SSA__FLAT_LEAST     1024   /* pooled keys from which on p is flat */
#define SSA__FLAT_LOW       1e-30f /* flat importances below this are nothing */
#define SSA__SHARE_SAMPLE   32     /* the first pooled keys tell where m of all shares starts: at their maximum .. */
#define SSA__SHARE_ABOVE    8.0f   /* .. and so much more, for the others not to be above it */
#define SSA__NO_LSE         (-DBL_MAX)
#define SSA__ROUNDS         5      /* in which workers are handed the pieces of a phase */
#define SSA__THREAD_WORK    1000000 /* multiply-adds that are worth waking a thread for */
#define SSA__ALIGN          64

/* What the workers of a phase share: how many pieces were handed out besides the first ones, and who is done. One of
 * each kind lies before the calls, on a cache line that nothing else is on. */
typedef struct { int pieces, ended; } ssa__counts;
#define SSA__COUNTS_ROOM    SSA__ALIGN

/* What a SCORE task leaves of a query: s and the form it is in; ld, or in the unit's form the keys of a part; which of
 * its rows is the query's first; whether a pooled key is broken; and m and l of each row of the query. */
typedef struct {
    const ssa__form *form;
    float   *s;
    int64_t  step;
    int32_t  first, broken;
    float    m[SSA__TILE_ROWS], l[SSA__TILE_ROWS];
} ssa__share;

typedef struct {
    ssa_attn a;                    /* strides, scale and q_pos resolved */
    int32_t  group;                /* query heads per key/value head */
    int32_t  unit;                 /* 1: the attention loop takes the unit's forms */
    int32_t  tile_rows;            /* query rows per ATTEND tile in full mode */
    int32_t  tile_tokens;          /* queries per SELECT task */
    int32_t  task_tokens;          /* queries per ATTEND task in sparse mode */
    int64_t  n_rows, n_tiles;      /* query rows per key/value head, ATTEND tiles per key/value head */
    int64_t  n_keys;               /* bound on the keys that a query attends */
    int32_t  shaped;               /* 1: softcap, alibi or mask change every score */
    int64_t  n_splits, split_keys; /* shares of the keys, counted from the first that the tile sees */
    int32_t  task_heads;           /* key/value heads of an ATTEND task */
    int32_t  n_blocks;             /* blocks that some query sees, the open one included */
    int32_t  n_pooled;             /* complete blocks that some query sees */
    int32_t  keep;                 /* min(top_k, n_blocks): slots per list */
    int32_t  lists, list_group;    /* lists of a query and key/value head, and the query heads that share one: 1 and */
                                   /* group, or with select_per_head group and 1 */
    int32_t  scored;               /* 1: some query has more blocks than it may keep: they are pooled and scored */
    int32_t  nucleus;              /* 1: top_p cuts lists short */
    int32_t  n_shares, share_blocks; /* of the pooled keys, each scored on its own; 0: SELECT scores */
    int32_t  joined;               /* 1: SELECT scores and weighs the shares, for its tasks keep all threads at work */
    int32_t  flat;                 /* 1: shares leave p in bf16; what that leaves open SELECT scores once more */
    int32_t  share_rows;           /* rows that s of a query and share has room for */
    ssa__share *shares;            /* [query][key/value head][share] */
    float   *share_s, *share_imp;  /* [key/value head][share][query], their s; [query][key/value head][lists][imp_ld] */
    int32_t  blank;                /* 1: a sparse call that runs full: its lists stay empty */
    ssa__what what;                /* what is run: a sparse call may be full */
    int32_t *chosen; int64_t chosen_stride;          /* [query][key/value head][lists], ascending, -1 at the end */
    const unsigned char *pooled; ssa_type pooled_type; int64_t pooled_head_stride;
    float   *pooled_own;           /* where the POOL phase writes when the call brought no pool */
    int32_t  q8;                   /* 1: keys or values are in q8_0, and the unit multiplies these */
    int32_t  rank, rank_terms;     /* 1: the unit scores blocks; terms of a pooled key */
    int32_t  rank_used;            /* how many of these are used at first: a third one rarely changes a list */
    int32_t  lays;                 /* 1: the POOL phase lays the terms out for all queries */
    uint16_t *laid; int64_t laid_head_stride;        /* [head][SSA__UNIT_BLOCK blocks][term], each turned */
    float   *left_out;             /* the largest norm of a key's third term, for each POOL task */
    unsigned char *packed;         /* [head][SSA__UNIT_BLOCK keys, or a chunk]; NULL: none */
    unsigned char *packed_broken;  /* likewise: 1 where a value is not finite */
    int64_t  n_packed, packed_bytes;  /* for each head, and of each */
    int32_t  gathers;              /* 1: rows are gathered by the blocks they chose, and meet these together .. */
    int32_t  packs;                /* .. and 1: in the unit's packed layout, made of all keys first */
    int32_t  parts, part_keys;     /* of a block, that they meet one at a time; the last may have fewer keys */
    int32_t  lays_kv;              /* 1: a full call of many tiles: packed holds what all of these read, chunks with */
                                   /* keys as taken and values as lay_values leaves them; or, without a unit, a */
                                   /* head's keys and then its values, as floats side by side */
    float   *part_o;               /* [split][query][query head][value_dim]: output of each share */
    double  *part_lse;             /* [split][query][query head]: its lse; a float's rounding would be as large an */
                                   /* error of the share's weight; SSA__NO_LSE where a row saw nothing */
    int64_t  n_tasks[SSA__KINDS], cost[SSA__KINDS];  /* cost: multiply-adds, roughly */
} ssa__call;

static int ssa__type_ok(ssa_type t) { return t == SSA_F32 || t == SSA_F16 || t == SSA_BF16 || t == SSA_Q8_0; }

/* Fills in the strides of a view of n tokens of `heads` rows of dim elements; its extent must fit in 63 bits. */
static ssa_status ssa__resolve_view(ssa_view *v, int64_t n, int32_t heads, int32_t dim)
{
    int bad = 0;
    int64_t row, extent;
    if (!ssa__type_ok(v->type)) return SSA_ERR_TYPE;
    if (v->type == SSA_Q8_0 && dim % SSA__Q8_DIM != 0) return SSA_ERR_HEAD_DIM;
    row = ssa__row_bytes(v->type, dim);
    if (v->token_stride < 0 || v->head_stride < 0) return SSA_ERR_STRIDE;
    if (v->head_stride == 0) v->head_stride = row;
    if (v->token_stride == 0) v->token_stride = ssa__mul(heads, v->head_stride, &bad);
    extent = ssa__mul(n > 0 ? n - 1 : 0, v->token_stride, &bad);
    extent = ssa__add(extent, ssa__mul(heads - 1, v->head_stride, &bad), &bad);
    extent = ssa__add(extent, row, &bad);
    if (bad || (uint64_t)extent > PTRDIFF_MAX) return SSA_ERR_OVERFLOW;
    return SSA_OK;
}

/* A resolved view that is written: its rows may not overlap. */
static ssa_status ssa__check_apart(const ssa_view *v, int64_t n, int32_t heads, int32_t dim)
{
    int64_t row = ssa__row_bytes(v->type, dim), hs = v->head_stride, ts = v->token_stride;
    if ((heads > 1 && hs < row) || (n > 1 && ts < row)) return SSA_ERR_STRIDE;
    if (heads > 1 && n > 1 && ts < (heads - 1) * hs + row && hs < (n - 1) * ts + row) return SSA_ERR_STRIDE;
    return SSA_OK;
}

static ssa_status ssa__resolve_output(ssa_view *v, int64_t n, int32_t heads, int32_t dim)
{
    ssa_status s;
    if (v->type == SSA_Q8_0) return SSA_ERR_TYPE;
    s = ssa__resolve_view(v, n, heads, dim);
    return s != SSA_OK ? s : ssa__check_apart(v, n, heads, dim);
}

/* K or V of a cache of n tokens, in pages if the call has them: the view is then that of a page. written: the rows of a
 * page may not overlap. How far apart pages lie is known, not how many of them there are besides the call's. */
static ssa_status ssa__resolve_cache(const ssa_attn *a, ssa_view *v, int64_t *page_stride, int64_t n, int32_t dim,
                                     int written)
{
    const int64_t rows = a->pages ? ssa__min(n, a->page_tokens) : n;
    ssa_status s = ssa__resolve_view(v, rows, a->n_kv_heads, dim);
    int bad = 0;
    if (s == SSA_OK && written) s = ssa__check_apart(v, rows, a->n_kv_heads, dim);
    if (s != SSA_OK || a->pages == NULL) return s;
    if (*page_stride == 0) *page_stride = ssa__mul(a->page_tokens, v->token_stride, &bad);
    if (n > 0) {
        int64_t extent = ssa__mul((n - 1) / a->page_tokens, *page_stride, &bad);
        extent = ssa__add(extent, ssa__mul(rows - 1, v->token_stride, &bad), &bad);
        extent = ssa__add(extent, ssa__mul(a->n_kv_heads - 1, v->head_stride, &bad), &bad);
        extent = ssa__add(extent, ssa__row_bytes(v->type, dim), &bad);
        if (bad || (uint64_t)extent > PTRDIFF_MAX) return SSA_ERR_OVERFLOW;
    }
    return bad ? SSA_ERR_OVERFLOW : SSA_OK;
}

/* The page table of tokens from .. to-1. SSA_CHECKED: its entries too. */
static ssa_status ssa__check_pages(const ssa_attn *a, int64_t from, int64_t to)
{
    if (a->pages == NULL) return SSA_OK;
    if (a->page_tokens < 1 || a->page_stride_k < 0 || a->page_stride_v < 0) return SSA_ERR_PAGES;
#if SSA_CHECKED
    for (int64_t i = from / a->page_tokens; from < to && i <= (to - 1) / a->page_tokens; i++)
        if (a->pages[i] < 0) return SSA_ERR_PAGES;
#else
    (void)from;
    (void)to;
#endif
    return SSA_OK;
}

/* SSA_CHECKED: every list of GIVEN blocks must be in range and free of duplicates. */
static ssa_status ssa__check_given(const ssa_attn *a)
{
#if SSA_CHECKED
    const int32_t heads = a->select_per_head ? a->n_heads : a->n_kv_heads;
    for (int64_t i = 0; i < a->n_q; i++)
        for (int32_t h = 0; h < heads; h++) {
            const int32_t *list = a->blocks + (i * heads + h) * a->top_k;
            int64_t p = a->q_pos + i;
            for (int32_t x = 0; x < a->top_k; x++) {
                if (list[x] == -1) continue;
                if (list[x] < 0 || p < 0 || list[x] > p / a->block_size) return SSA_ERR_BLOCKS;
                for (int32_t y = 0; y < x; y++) if (list[y] == list[x]) return SSA_ERR_BLOCKS;
            }
        }
#else
    (void)a;
#endif
    return SSA_OK;
}

/* How many blocks a list keeps, and which ones always. Replaces top_k by what the budget amounts to; *least becomes the
 * smallest top_k of any list. */
static ssa_status ssa__resolve_budget(ssa_attn *a, int32_t *least)
{
    const int32_t lists = a->select_per_head ? a->n_heads : a->n_kv_heads;
    const int off = ssa__bits(a->top_p) << 1 == 0;
    int64_t always = (int64_t)a->sink_blocks + a->local_blocks + 1;
    *least = a->top_k;
    if (a->top_k_per_head && a->select == SSA_SELECT_GIVEN) return SSA_ERR_TOP_K;
    for (int32_t h = 0; a->top_k_per_head && h < lists; h++) {
        if (a->top_k_per_head[h] < 1 || a->top_k_per_head[h] > a->top_k) return SSA_ERR_TOP_K;
        if (a->top_k_per_head[h] < *least) *least = a->top_k_per_head[h];
    }
    if (a->sink_blocks < 0 || a->local_blocks < 0 || (always > 1 && a->select != SSA_SELECT_TOPK)) return SSA_ERR_KEEP;
    if (always > *least) return SSA_ERR_KEEP;
    if (!ssa__is_finite(a->top_p) || a->top_p < 0.0f || a->top_p > 1.0f) return SSA_ERR_TOP_P;
    if (!off && (a->select != SSA_SELECT_TOPK || a->score != SSA_SCORE_SOFTMAX)) return SSA_ERR_TOP_P;
    return SSA_OK;
}

/* Bytes of a pool, and where in them its open sums lie. */
static ssa_status ssa__pool_layout(int32_t n_kv_heads, int32_t head_dim, int32_t block_size, int64_t max_tokens,
                                   ssa_type type, int64_t *sum_at, int64_t *total)
{
    int bad = 0;
    int64_t rows;
    if (n_kv_heads < 1) return SSA_ERR_HEADS;
    if (head_dim < 1 || head_dim > SSA_MAX_DIM) return SSA_ERR_HEAD_DIM;
    if (block_size < 1 || block_size > SSA_MAX_BLOCK) return SSA_ERR_BLOCK_SIZE;
    if (max_tokens < 0) return SSA_ERR_LENGTH;
    if (type != SSA_F32 && type != SSA_BF16) return SSA_ERR_TYPE;
    rows = ssa__mul(n_kv_heads, max_tokens / block_size, &bad);
    rows = ssa__mul(rows, ssa__row_bytes(type, head_dim), &bad);
    *sum_at = ssa__mul(ssa__ceil_div(rows, SSA__ALIGN), SSA__ALIGN, &bad);
    *total = ssa__add(*sum_at, (int64_t)n_kv_heads * head_dim * (int64_t)sizeof(float) + SSA__ALIGN - 1, &bad);
    return bad || (uint64_t)*total > (uint64_t)PTRDIFF_MAX ? SSA_ERR_OVERFLOW : SSA_OK;
}

/* Whether the fields of a pool fit together, as ssa_pool_init leaves them: no memory tells how large it is. */
static int ssa__pool_ok(const ssa_pool *p)
{
    int64_t sum_at, total;
    return p->pooled && p->open_sum && p->n_tokens >= 0 && p->n_tokens <= p->max_tokens &&
           ssa__pool_layout(p->n_kv_heads, p->head_dim, p->block_size, p->max_tokens, p->type, &sum_at, &total) ==
               SSA_OK &&
           p->max_blocks == p->max_tokens / p->block_size;
}

/* The part of a call that only block selection reads. */
static ssa_status ssa__resolve_sparse(ssa__call *c, ssa__what what)
{
    ssa_attn *a = &c->a;
    ssa_status s;
    int64_t blocks, last;
    int32_t least = 0;
    int bad = 0;
    if (a->block_size < 1 || a->block_size > SSA_MAX_BLOCK) return SSA_ERR_BLOCK_SIZE;
    if (a->budget < 0 || a->min_context < 0) return SSA_ERR_BUDGET;
    if (a->budget > 0) a->top_k = (int32_t)ssa__max(1, ssa__min(a->budget / a->block_size, INT32_MAX));
    if (a->pages && a->page_tokens % a->block_size != 0) return SSA_ERR_PAGES; /* a block lies in one page */
    if (a->top_k < 1) return SSA_ERR_TOP_K;
    if (a->select != SSA_SELECT_TOPK && a->select != SSA_SELECT_REFERENCE && a->select != SSA_SELECT_GIVEN)
        return SSA_ERR_SELECT;
    if (what == SSA__RUN_SELECT && a->select == SSA_SELECT_GIVEN) return SSA_ERR_SELECT;
    if (a->select == SSA_SELECT_REFERENCE &&
        (a->block_size < 2 || (a->block_size & (a->block_size - 1)) != 0 || a->top_k > a->block_size))
        return SSA_ERR_REFERENCE;
    if ((a->score != SSA_SCORE_SOFTMAX && a->score != SSA_SCORE_DOT) ||
        (a->select_per_head != 0 && a->select_per_head != 1) ||
        (a->score == SSA_SCORE_DOT && a->select != SSA_SELECT_TOPK))
        return SSA_ERR_SCORE;
    if ((s = ssa__resolve_budget(a, &least)) != SSA_OK) return s;
    if (a->n_q > 0 && a->q_pos + a->n_q > a->n_kv) return SSA_ERR_POSITION;
    if (a->blocks == NULL && (what == SSA__RUN_SELECT || a->select == SSA_SELECT_GIVEN) && a->n_q > 0)
        return SSA_ERR_BLOCKS;

    last = a->n_q > 0 ? a->q_pos + a->n_q - 1 : -1;  /* the last query's position */
    blocks = last < 0 ? 0 : last / a->block_size + 1;
    if (blocks > INT32_MAX - 1) return SSA_ERR_OVERFLOW;
    c->n_blocks = (int32_t)blocks;
    c->n_pooled = last < 0 ? 0 : (int32_t)((last + 1) / a->block_size);
    c->keep = (int32_t)ssa__max(1, ssa__min(a->top_k, blocks));
    c->lists = a->select_per_head ? c->group : 1;
    c->list_group = c->group / c->lists;
    c->nucleus = a->top_p > 0.0f && a->top_p < 1.0f;
    c->scored = a->select != SSA_SELECT_GIVEN && blocks > (c->nucleus ? 1 : least);
    c->n_keys = ssa__min(ssa__max(last + 1, 0), (int64_t)c->keep * a->block_size);
    if (a->blocks) {
        int64_t lists = ssa__mul(a->n_q, a->select_per_head ? a->n_heads : a->n_kv_heads, &bad);
        int64_t bytes = ssa__mul(ssa__mul(lists, a->top_k, &bad), 4, &bad);
        if (bad || (uint64_t)bytes > PTRDIFF_MAX) return SSA_ERR_OVERFLOW;
    }
    if (a->pool && a->select != SSA_SELECT_GIVEN) {
        const ssa_pool *p = a->pool;
        if (!ssa__pool_ok(p) || p->n_kv_heads != a->n_kv_heads || p->head_dim != a->head_dim ||
            p->block_size != a->block_size || p->n_tokens < a->n_kv)
            return SSA_ERR_POOL;
        c->pooled = (const unsigned char *)p->pooled;
        c->pooled_type = p->type;
        c->pooled_head_stride = p->max_blocks * ssa__row_bytes(p->type, p->head_dim);
    }
    return a->select == SSA_SELECT_GIVEN && a->n_q > 0 ? ssa__check_given(a) : SSA_OK;
}

/* First position past the last key that query i sees. */
static int64_t ssa__visible(const ssa__call *c, int64_t i)
{
    if (!c->a.causal) return c->a.n_kv;
    return ssa__min(ssa__max(c->a.q_pos + i + 1, 0), c->a.n_kv);
}

/* The first key that query i sees, as far as the window says. */
static int64_t ssa__first(const ssa__call *c, int64_t i)
{
    if (c->a.window == 0) return 0;
    return ssa__min(ssa__max(c->a.q_pos + i + 1 - c->a.window, 0), c->a.n_kv);
}

/* The terms of the scores. A window that hides nothing becomes 0. */
static ssa_status ssa__resolve_terms(ssa__call *c, ssa__what what)
{
    ssa_attn *a = &c->a;
    int bad = 0;
    if (a->window < 0 || (a->window > 0 && (what != SSA__RUN_FULL || !a->causal))) return SSA_ERR_WINDOW;
    if (!ssa__is_finite(a->softcap) || a->softcap < 0.0f) return SSA_ERR_SOFTCAP;
    if (a->window >= a->q_pos + a->n_q) a->window = 0;
    if (a->mask) {
        int64_t row, extent;
        if (!ssa__type_ok(a->mask_type) || a->mask_type == SSA_Q8_0 || a->mask_stride < 0) return SSA_ERR_MASK;
        row = ssa__mul(a->n_kv, ssa__row_bytes(a->mask_type, 1), &bad);
        if (!bad && a->mask_stride > 0 && a->mask_stride < row) return SSA_ERR_MASK;
        if (a->mask_stride == 0) a->mask_stride = row;
        extent = ssa__add(ssa__mul(a->n_q > 0 ? a->n_q - 1 : 0, a->mask_stride, &bad), row, &bad);
        if (bad || (uint64_t)extent > PTRDIFF_MAX) return SSA_ERR_OVERFLOW;
    }
    c->shaped = a->softcap > 0.0f || a->alibi || a->mask;
    return SSA_OK;
}

/* A call with few rows (decode) has its keys split into shares, so that the threads have something to do. The heads of
 * a share are one task where there are enough shares: they lie side by side in a token-major cache, whose pages are
 * then read once, in order. More rows go through larger chunks, which would not stay in L2 for all heads. Depends on
 * the call alone. */
static void ssa__resolve_splits(ssa__call *c, ssa__what what)
{
    const int aside = c->n_rows <= SSA__LANES_MAX && what == SSA__RUN_FULL;
    int64_t tasks = c->n_tiles * c->a.n_kv_heads, most, keys;
    c->n_splits = c->task_heads = 1;
    c->split_keys = ssa__max(c->n_keys, 1);
    if (c->n_tiles < 1 || c->gathers || (c->n_tiles > 1 && tasks >= SSA__SPLIT_TASKS)) return;
    most = aside ? SSA__SPLIT_TASKS : ssa__ceil_div(SSA__SPLIT_TASKS, tasks);
    keys = ssa__max(ssa__ceil_div(c->n_keys, most), SSA__SPLIT_MIN);
    keys = ssa__ceil_div(keys, SSA__SPLIT_STEP) * SSA__SPLIT_STEP;
    if (keys >= c->n_keys) return;
    c->split_keys = keys;
    c->n_splits = ssa__ceil_div(c->n_keys, keys);
    if (aside)
        c->task_heads = (int32_t)ssa__max(1, c->a.n_kv_heads * c->n_splits / SSA__SPLIT_TASKS);
}

/* Whether the best blocks by softmax are asked for, and nothing else of their importance counts. */
static int ssa__best_alone(const ssa__call *c)
{
    return c->a.select == SSA_SELECT_TOPK && !c->nucleus && c->a.score == SSA_SCORE_SOFTMAX;
}

/* Whether the unit scores blocks: rows enough, and queries enough to lay out the terms of the pooled keys first; fewer
 * take pooled keys that are bf16 as they lie. Of several terms there is more to lay out: more queries or more rows. Few
 * blocks do not pay for what the unit prepares, the less with queries of two terms. Where lists are of the best blocks,
 * and scored in one go, it can be told whether a third term might change one. */
static void ssa__resolve_rank(const ssa__table *t, ssa__call *c, ssa__what what)
{
    const int bf16 = c->pooled && c->pooled_type == SSA_BF16;
    const int best = ssa__best_alone(c) && c->list_group > 1 && c->list_group <= SSA__LANES_MAX;
    const int lays = c->a.n_q >= SSA__LANES_MAX;
    if (lays ? c->n_pooled < 12 && c->a.n_q < 4 * SSA__LANES_MAX
             : c->n_rows <= SSA__LANES_MAX / 2 && (c->n_pooled < 96 || c->a.head_dim % SSA__UNIT_DIM)) return;
    if (ssa__terms(c->a.q.type) > 1 && c->n_pooled < 48) return;
    if (t->few.rank == NULL || what == SSA__RUN_FULL || !c->scored || !ssa__terms(c->a.q.type) || c->n_rows < 4 ||
        (!bf16 && c->a.n_q < (c->n_rows < 8 * SSA__LANES_MAX ? 2 : 1) * SSA__LANES_MAX))
        return;
    c->rank = 1;
    c->lays = lays;
    c->flat = bf16 && best && !lays && c->lists == 1 && c->list_group > SSA__LANES_MAX / 2 &&
              c->keep <= SSA__TOPS * 3 / 4 && c->n_pooled >= SSA__FLAT_LEAST;
    c->rank_terms = bf16 ? 1 : 3;
    c->rank_used = bf16 ? 1 : best ? 2 : 3;
}

/* The rows of a part of a tile whose blocks the unit scores: of whole lists. */
static int32_t ssa__share_part(const ssa__call *c)
{
    return SSA__LANES_MAX / c->list_group * c->list_group;
}

/* Whether the pooled keys of a long context are scored in shares, for a tile or so of queries, so that the threads have
 * something to do. Depends on the call alone. */
static void ssa__resolve_shares(ssa__call *c)
{
    const int64_t tasks = ssa__ceil_div(c->a.n_q, c->tile_tokens) * c->a.n_kv_heads;
    const int32_t part = c->rank ? ssa__share_part(c) : SSA__LANES_MAX;
    int64_t blocks;
    if (!c->scored || c->what == SSA__RUN_FULL || c->lays || c->group > SSA__TILE_ROWS || part == 0 ||
        tasks > SSA__SPLIT_TASKS / 2 || c->n_pooled < SSA__SHARE_LEAST * tasks ||
        (c->rank && ssa__min(c->n_rows, c->tile_tokens * c->group) > SSA__UNIT_PARTS * part))
        return;
    blocks = ssa__max(ssa__ceil_div(c->n_pooled, SSA__SPLIT_TASKS / tasks), SSA__SHARE_MIN);
    c->share_blocks = (int32_t)(ssa__ceil_div(blocks, SSA__UNIT_DIM) * SSA__UNIT_DIM);
    c->n_shares = (int32_t)ssa__ceil_div(c->n_pooled, c->share_blocks);
    c->share_rows = (int32_t)ssa__ceil_div(c->group, part) * SSA__LANES_MAX;
}

/* Floats of s of a query and share: whole register tiles of keys, and a narrow row's padding. */
static int64_t ssa__share_floats(const ssa__call *c)
{
    return ((int64_t)c->share_blocks + 2 * SSA__LANES_MAX) * c->share_rows;
}

static int ssa__all_bf16(const ssa_attn *a)
{
    return a->q.type == SSA_BF16 && a->k.type == SSA_BF16 && a->v.type == SSA_BF16;
}

/* Keys that a chunk of the unit has room for. */
static int32_t ssa__chunk_keys(const ssa__call *c)
{
    return ssa__round_up((int32_t)ssa__max(1, ssa__min(c->n_keys, SSA__UNIT_KEYS)), SSA__UNIT_DIM);
}

/* Bytes of a row of terms. */
static int64_t ssa__laid_bytes(ssa_type type, int32_t dim)
{
    return (int64_t)ssa__terms(type) * ssa__round_up(dim, SSA__UNIT_DIM) * 2;
}

/* Whether the unit pays for these dims: numbers of two terms take four products, too many to spend on padding. Vectors
 * make two products at once, which padding of dims and keys may cost as much as. */
static int ssa__unit_pays(const ssa__table *t, const ssa__call *c)
{
    const ssa_attn *a = &c->a;
    int64_t dims = (int64_t)a->head_dim + a->value_dim;
    int64_t padded = ssa__round_up(a->head_dim, SSA__UNIT_DIM) + ssa__round_up(a->value_dim, SSA__UNIT_DIM);
    int64_t keys = ssa__ceil_div(c->n_keys, SSA__UNIT_DIM) * SSA__UNIT_DIM;
    if (!ssa__all_bf16(a)) return 4 * padded <= 5 * dims;
    return t->few.columns || !t->few.runs || (double)keys * (double)padded <= 1.9 * (double)c->n_keys * (double)dims;
}

/* The most rows of bf16 that a unit leaves to other forms. One whose tiles can be low leaves 8 or 16 where keys are so
 * few that what lies past whole steps counts; else 4 where dims need padding or blocks end within runs, and rows are
 * copied; else 2 of keys that are few or come in blocks; else more the more dims there are. */
static int32_t ssa__least(const ssa__table *t, const ssa__call *c)
{
    const int32_t dims = c->a.head_dim + c->a.value_dim;
    const int padded = c->a.head_dim % SSA__UNIT_DIM || c->a.value_dim % SSA__UNIT_DIM, full = c->what == SSA__RUN_FULL;
    if (!t->few.columns) return t->narrow_rows;
    if (padded && c->n_keys < 64) return SSA__LANES_MAX;
    if (c->n_keys < (padded ? 128 : 64) || c->n_keys * 3 < dims) return SSA__LANES_MAX / 2;
    if (padded || (!full && c->a.block_size % SSA__UNIT_RUN)) return 4;
    return !full || dims > 384 || c->n_keys < 128 ? 2 : dims > 192;
}

/* How many rows a tile of full mode has. The unit's tiles are large, for a chunk is brought in once for each; but not
 * so large that there are fewer than 64. */
static int32_t ssa__tile_rows(const ssa__call *c)
{
    int64_t rows = c->n_rows * c->a.n_kv_heads / 64 / SSA__UNIT_DIM * SSA__UNIT_DIM;
    return c->unit ? (int32_t)ssa__max(ssa__min(rows, SSA__UNIT_ROWS), SSA__UNIT_ROWS / 4) : SSA__TILE_ROWS;
}

/* Queries whose lists hold each block n times on average. */
static int64_t ssa__gather_uses(const ssa__call *c, int32_t n)
{
    return ssa__ceil_div((int64_t)n * c->n_blocks, c->keep);
}

/* Queries of a task whose rows are gathered: as many as there is room for, so that many share a block. */
static int32_t ssa__gather_tokens(const ssa__call *c)
{
    int64_t lists = (int64_t)c->lists * c->keep * c->parts;
    int64_t room = ssa__min(SSA__GATHER_FLOATS / ssa__round_up(c->a.value_dim, SSA__UNIT_DIM) / c->group,
                            SSA__GATHER_LIST / lists);
    int64_t share = ssa__ceil_div(c->a.n_q * c->a.n_kv_heads, SSA__GATHER_TASKS);
    int64_t least = c->packs ? SSA__GATHER_SHARE : ssa__gather_uses(c, SSA__GATHER_MANY);
    return (int32_t)ssa__max(1, ssa__min(ssa__min(room, c->a.n_q), ssa__max(share, least)));
}

/* The plain form in which gathered rows meet blocks. */
static const ssa__form *ssa__meet_form(const ssa__table *t, const ssa__call *c)
{
    return t->pairs.meet && c->a.q.type == SSA_BF16 && c->a.k.type == SSA_BF16 ? &t->pairs : &t->wide;
}

/* Whether the rows of many queries are gathered by the blocks they chose: for the unit's packed blocks, where it has
 * such a layout and a block is chosen often enough to make it; else, in a plain form, where lists have few rows, which
 * alone would read a block for little. */
static void ssa__resolve_gather(const ssa__table *t, ssa__call *c, ssa__what what)
{
    const ssa_attn *a = &c->a;
    const int64_t size = a->block_size;
    int32_t rows = ssa__meet_form(t, c)->meet_rows;
    if (what != SSA__RUN_SPARSE || c->shaped || a->n_q < SSA__GATHER_LEAST) return;
    c->packs = c->unit && t->few.bring && a->n_q >= SSA__PACK_QUERIES &&
               c->group <= SSA__UNIT_ROWS && /* all rows of a query are kept at a time */
               a->n_q >= ssa__ceil_div((int64_t)SSA__PACK_USES * c->n_blocks, c->keep) && ssa__all_bf16(a) &&
               size % SSA__UNIT_BLOCK == 0;
    c->part_keys = (int32_t)(c->packs ? SSA__UNIT_BLOCK : ssa__min(size, SSA__LANES_MAX));
    c->parts = (int32_t)ssa__ceil_div(size, c->part_keys);
    if (a->k.type == SSA_Q8_0 || a->v.type == SSA_Q8_0) rows = SSA__LANES_MAX / 2; /* to widen them costs more */
    c->gathers = c->packs || (c->list_group <= rows && c->group <= SSA__TILE_ROWS &&
                              ssa__gather_tokens(c) >= ssa__gather_uses(c, SSA__GATHER_USES));
}

/* A full call whose keys are met by many tiles lays them out once, before these, where there are as many rows: then its
 * queries and output take as much room. Few tiles meet a key that only a window sees. */
static void ssa__resolve_laid(const ssa__table *t, ssa__call *c, ssa__what what)
{
    if (what != SSA__RUN_FULL || (c->unit && !t->many.lay_values) || c->a.window > 0 || c->n_splits > 1 ||
        c->n_tiles < SSA__LAY_TILES || c->n_rows < c->a.n_kv || c->a.n_kv < SSA__LAY_KEYS)
        return;
    c->lays_kv = 1;
    c->n_packed = ssa__ceil_div(ssa__max(ssa__visible(c, c->a.n_q - 1), 0), SSA__UNIT_KEYS);
    c->packed_bytes = SSA__UNIT_KEYS * (int64_t)sizeof(float) * ((int64_t)c->a.head_dim + c->a.value_dim);
    if (c->unit)
        c->packed_bytes = ssa__chunk_keys(c) * (ssa__laid_bytes(c->a.k.type, c->a.head_dim) +
                                                ssa__laid_bytes(c->a.v.type, c->a.value_dim));
}

/* Everything that can be wrong with a call, and everything about it that can be known without its data. */
static ssa_status ssa__resolve(const ssa__table *t, ssa__call *c, const ssa_attn *attn, ssa__what what)
{
    ssa_attn *a = &c->a;
    ssa_status s;
    int bad = 0;
    int64_t work;
    memset(c, 0, sizeof *c);
    if (attn == NULL) return SSA_ERR_NULL;
    *a = *attn;
    if (a->n_heads < 1 || a->n_kv_heads < 1 || a->n_heads % a->n_kv_heads != 0) return SSA_ERR_HEADS;
    if (a->head_dim < 1 || a->head_dim > SSA_MAX_DIM) return SSA_ERR_HEAD_DIM;
    if (what == SSA__RUN_SELECT) a->value_dim = 1;
    if (a->value_dim < 1 || a->value_dim > SSA_MAX_DIM) return SSA_ERR_VALUE_DIM;
    if (a->n_q < 0 || a->n_kv < 0) return SSA_ERR_LENGTH;
    if (a->q_pos < 0) a->q_pos = a->n_kv - a->n_q;
    if (a->n_q > INT64_MAX / 4 || a->n_kv > INT64_MAX / 4) return SSA_ERR_OVERFLOW;
    if (a->q_pos > INT64_MAX / 4) return SSA_ERR_POSITION;
    if (a->causal != 0 && a->causal != 1) return SSA_ERR_CAUSAL;
    if (what != SSA__RUN_FULL && !a->causal) return SSA_ERR_CAUSAL;
    if (!ssa__is_finite(a->scale)) return SSA_ERR_SCALE;
    if (a->q.type == SSA_Q8_0) return SSA_ERR_TYPE;
    if ((s = ssa__resolve_view(&a->q, a->n_q, a->n_heads, a->head_dim)) != SSA_OK) return s;
    if ((s = ssa__check_pages(a, 0, a->n_kv)) != SSA_OK) return s;
    if ((s = ssa__resolve_cache(a, &a->k, &a->page_stride_k, a->n_kv, a->head_dim, 0)) != SSA_OK) return s;
    if (a->n_q > 0 && a->q.data == NULL) return SSA_ERR_NULL;
    if (a->n_q > 0 && a->n_kv > 0 && a->k.data == NULL && !(what == SSA__RUN_SELECT && a->pool)) return SSA_ERR_NULL;
    if (what != SSA__RUN_SELECT) {
        if (a->v.type == SSA_Q8_0 && a->value_dim % SSA__Q8_DIM != 0) return SSA_ERR_VALUE_DIM;
        if ((s = ssa__resolve_cache(a, &a->v, &a->page_stride_v, a->n_kv, a->value_dim, 0)) != SSA_OK) return s;
        if ((s = ssa__resolve_output(&a->out, a->n_q, a->n_heads, a->value_dim)) != SSA_OK) return s;
        if (a->n_q > 0 && ((a->n_kv > 0 && a->v.data == NULL) || a->out.data == NULL)) return SSA_ERR_NULL;
    }
    if ((s = ssa__resolve_terms(c, what)) != SSA_OK) return s;

    c->group = a->n_heads / a->n_kv_heads;
    c->n_rows = ssa__mul(a->n_q, c->group, &bad);
    work = ssa__mul(ssa__mul(ssa__mul(a->n_q, a->n_heads, &bad), a->n_kv + 1024, &bad), a->head_dim + a->value_dim,
                    &bad);
    if (bad || work > INT64_MAX / 64) return SSA_ERR_OVERFLOW;  /* costs fit; so do sizes of anything [n_q][n_heads] */
    if (ssa__bits(a->scale) << 1 == 0) { /* 1/sqrt(head_dim), by Newton's iteration */
        double root = 1.0;
        for (int i = 0; i < 14; i++) root = 0.5 * (root + a->head_dim / root);
        a->scale = (float)(1.0 / root);
    }
    c->n_keys = a->n_kv;
    if (what != SSA__RUN_FULL && (s = ssa__resolve_sparse(c, what)) != SSA_OK) return s;
    if (what == SSA__RUN_SPARSE && a->n_kv < a->min_context) { /* checked as what it is, run as a full one */
        what = SSA__RUN_FULL;
        c->blank = a->blocks != NULL && a->select != SSA_SELECT_GIVEN;
        c->n_keys = a->n_kv;
    }
    c->what = what;

    c->unit = t->few.attend && what != SSA__RUN_SELECT && t->take[a->q.type] && t->take[a->k.type] &&
              t->take[a->v.type] && ssa__unit_pays(t, c);
    ssa__resolve_rank(t, c, what);
    ssa__resolve_gather(t, c, what);
    if (c->n_rows <= ssa__least(t, c)) c->unit = 0;
    c->tile_rows = ssa__tile_rows(c);
    c->tile_tokens = (int32_t)ssa__max(1, SSA__TILE_ROWS / c->group);
    ssa__resolve_shares(c);
    c->task_tokens = c->gathers ? ssa__gather_tokens(c) : c->tile_tokens;
    c->n_tiles =
        what == SSA__RUN_FULL ? ssa__ceil_div(c->n_rows, c->tile_rows) : ssa__ceil_div(a->n_q, c->task_tokens);
    if (a->window > 0) { /* what the queries of a tile see together */
        int64_t tokens = ssa__min(a->n_q, (c->tile_rows - 1) / c->group + 2);
        c->n_keys = ssa__min(a->n_kv, a->window < a->n_kv ? a->window + tokens : a->n_kv);
        if (c->n_tiles == 1) c->n_keys = ssa__max(ssa__visible(c, a->n_q - 1) - ssa__first(c, 0), 0);
    }
    c->q8 = t->q8.chunk && what == SSA__RUN_FULL && c->n_keys >= SSA__Q8_LEAST &&
            (a->k.type == SSA_Q8_0 || a->v.type == SSA_Q8_0);
    ssa__resolve_splits(c, what);
    ssa__resolve_laid(t, c, what);
    return SSA_OK;
}

/* What is wrong with the arguments that are not calls: where to run, how many calls, in which mode. */
static ssa_status ssa__check_mode(ssa_mode mode, ssa__what *what)
{
    if (mode != SSA_FULL && mode != SSA_SPARSE) return SSA_ERR_MODE;
    *what = mode == SSA_FULL ? SSA__RUN_FULL : SSA__RUN_SPARSE;
    return SSA_OK;
}

static ssa_status ssa__check_pointers(const void *p, const void *q) { return p && q ? SSA_OK : SSA_ERR_NULL; }

static ssa_status ssa__check_exec(const ssa_exec *x) /* NULL is fine: defaults */
{
    if (x == NULL) return SSA_OK;
    return x->n_threads < 0 || (x->parallel && x->n_threads < 1) ? SSA_ERR_THREADS : SSA_OK;
}

/* What ssa_pool_init was given, against the bytes that the layout needs. */
static ssa_status ssa__check_pool_memory(const ssa_pool *p, const void *memory, size_t size, int64_t total)
{
    if (p == NULL || memory == NULL) return SSA_ERR_NULL;
    return size < (size_t)total ? SSA_ERR_POOL_MEMORY : SSA_OK;
}

/* What append, truncate and drop_front check alike: the pool, and n_tokens, which may not exceed what the pool has room
 * for (append) or holds. v becomes k with its strides resolved for n rows of keys. */
static ssa_status ssa__check_pool(const ssa_pool *p, const ssa_view *k, int64_t n_tokens, int appends, int64_t n,
                                  ssa_view *v)
{
    ssa_status s;
    if (p == NULL || k == NULL) return SSA_ERR_NULL;
    if (!ssa__pool_ok(p)) return SSA_ERR_POOL;
    if (n_tokens < 0) return SSA_ERR_LENGTH;
    if (appends && n_tokens > p->max_tokens - p->n_tokens) return SSA_ERR_POOL_FULL;
    if (!appends && n_tokens > p->n_tokens) return SSA_ERR_POOL_RANGE;
    *v = *k;
    s = ssa__resolve_view(v, n, p->n_kv_heads, p->head_dim);
    return s == SSA_OK && n > 0 && k->data == NULL ? SSA_ERR_NULL : s;
}

/* ssa_kv_append: c becomes a with the strides of its cache resolved, k and v the new rows'. */
static ssa_status ssa__check_append(const ssa_attn *a, int64_t at, const ssa_view *k_new, const ssa_view *v_new,
                                    int64_t n, const ssa_pool *p, ssa_attn *c, ssa_view *k, ssa_view *v)
{
    ssa_status s;
    if (a == NULL || (p && k_new == NULL)) return SSA_ERR_NULL;
    *c = *a;
    if (c->n_kv_heads < 1) return SSA_ERR_HEADS;
    if (k_new && (c->head_dim < 1 || c->head_dim > SSA_MAX_DIM)) return SSA_ERR_HEAD_DIM;
    if (v_new && (c->value_dim < 1 || c->value_dim > SSA_MAX_DIM)) return SSA_ERR_VALUE_DIM;
    if (n < 0) return SSA_ERR_LENGTH;
    if (at < 0 || at > INT64_MAX / 4) return SSA_ERR_POSITION;
    if (n > INT64_MAX / 4) return SSA_ERR_OVERFLOW;
    if ((s = ssa__check_pages(c, at, at + n)) != SSA_OK) return s;
    if (k_new) {
        *k = *k_new;
        if (k->type == SSA_Q8_0) return SSA_ERR_TYPE;
        if ((s = ssa__resolve_view(k, n, c->n_kv_heads, c->head_dim)) != SSA_OK) return s;
        if ((s = ssa__resolve_cache(c, &c->k, &c->page_stride_k, at + n, c->head_dim, 1)) != SSA_OK) return s;
        if (n > 0 && (k->data == NULL || c->k.data == NULL)) return SSA_ERR_NULL;
    }
    if (v_new) {
        *v = *v_new;
        if (v->type == SSA_Q8_0) return SSA_ERR_TYPE;
        if (c->v.type == SSA_Q8_0 && c->value_dim % SSA__Q8_DIM != 0) return SSA_ERR_VALUE_DIM;
        if ((s = ssa__resolve_view(v, n, c->n_kv_heads, c->value_dim)) != SSA_OK) return s;
        if ((s = ssa__resolve_cache(c, &c->v, &c->page_stride_v, at + n, c->value_dim, 1)) != SSA_OK) return s;
        if (n > 0 && (v->data == NULL || c->v.data == NULL)) return SSA_ERR_NULL;
    }
    if (p == NULL) return SSA_OK;
    if (!ssa__pool_ok(p) || p->n_kv_heads != c->n_kv_heads || p->head_dim != c->head_dim) return SSA_ERR_POOL;
    if (p->n_tokens != at) return SSA_ERR_POOL_RANGE;
    return n > p->max_tokens - p->n_tokens ? SSA_ERR_POOL_FULL : SSA_OK;
}

/* No gradients through attention yet: a valid call is told so. */
static ssa_status ssa__check_backward(const ssa_grad *g) { return g == NULL ? SSA_ERR_NULL : SSA_ERR_UNSUPPORTED; }

/* ssa_diagnose: c becomes the sparse call that is diagnosed. It writes no output; out is there to be valid. */
static ssa_status ssa__check_diagnosis(const ssa_attn *a, const ssa_diagnosis *d, ssa_attn *c, void *out)
{
    if (a == NULL || d == NULL) return SSA_ERR_NULL;
    *c = *a;
    memset(&c->out, 0, sizeof c->out);
    c->out.data = out;
    return SSA_OK;
}

/* The alignment loss: the four views with their strides resolved; *count becomes the number of elements. */
static ssa_status ssa__check_loss(ssa_view *full, ssa_view *sparse, ssa_view *d_full, ssa_view *d_sparse,
                                  int64_t n_tokens, int32_t n_heads, int32_t dim, float beta, float grad_scale,
                                  int64_t *count)
{
    ssa_status s;
    int bad = 0;
    if (n_tokens < 0) return SSA_ERR_LENGTH;
    if (n_heads < 1) return SSA_ERR_HEADS;
    if (dim < 1) return SSA_ERR_VALUE_DIM;
    if (!ssa__is_finite(beta) || beta < 0 || !ssa__is_finite(grad_scale)) return SSA_ERR_BETA;
    *count = ssa__mul(ssa__mul(n_tokens, n_heads, &bad), dim, &bad);
    if (bad) return SSA_ERR_OVERFLOW;
    if (full->type == SSA_Q8_0 || sparse->type == SSA_Q8_0) return SSA_ERR_TYPE;
    if ((s = ssa__resolve_view(full, n_tokens, n_heads, dim)) != SSA_OK) return s;
    if ((s = ssa__resolve_view(sparse, n_tokens, n_heads, dim)) != SSA_OK) return s;
    if (d_full && (s = ssa__resolve_output(d_full, n_tokens, n_heads, dim)) != SSA_OK) return s;
    if (d_sparse && (s = ssa__resolve_output(d_sparse, n_tokens, n_heads, dim)) != SSA_OK) return s;
    if (n_tokens > 0 && (!full->data || !sparse->data || (d_full && !d_full->data) || (d_sparse && !d_sparse->data)))
        return SSA_ERR_NULL;
    return SSA_OK;
}

/* Tasks of a kind are numbered with the tile fastest, then the head, then the split: neighbours share their keys. */
static int64_t ssa__count_tasks(const ssa__call *c, ssa__what what, int kind)
{
    if (c->a.n_q == 0) return 0;
    switch (kind) {
    case SSA__POOL:
        if (what == SSA__RUN_FULL || !c->scored || (c->pooled && !c->pooled_own && !c->lays)) return 0;
        return ssa__ceil_div(c->n_pooled, SSA__POOL_BLOCKS) * c->a.n_kv_heads;
    case SSA__PACK:
        if (c->lays_kv) return c->n_packed * c->a.n_kv_heads;
        if (!c->packs) return 0;
        return ssa__ceil_div(ssa__ceil_div(c->a.q_pos + c->a.n_q, SSA__UNIT_BLOCK), SSA__POOL_BLOCKS) * c->a.n_kv_heads;
    case SSA__SCORE:
        return c->joined ? 0 : c->n_shares * ssa__ceil_div(c->a.n_q, c->tile_tokens) * c->a.n_kv_heads;
    case SSA__WEIGH:
        return c->joined ? 0 : c->n_shares * c->a.n_q * c->a.n_kv_heads;
    case SSA__SELECT:
        if (what == SSA__RUN_FULL && !c->blank) return 0;
        return ssa__ceil_div(c->a.n_q, c->tile_tokens) * c->a.n_kv_heads;
    case SSA__ATTEND:
        return what == SSA__RUN_SELECT ? 0 : c->n_splits * ssa__ceil_div(c->a.n_kv_heads, c->task_heads) * c->n_tiles;
    default:
        if (what == SSA__RUN_SELECT || c->n_splits == 1) return 0;
        return ssa__ceil_div(c->a.n_q * c->a.n_heads, SSA__MERGE_ROWS);
    }
}

/* Multiply-adds of a task, roughly, to share tasks out by. Every worker must get the same number for the same task. */
static int64_t ssa__task_cost(const ssa__call *c, ssa__what what, int kind, int64_t task)
{
    const int64_t fixed = 1000, reading = 8; /* of a task; of a key: reading it costs as much as some rows */
    int64_t dims = c->a.head_dim + c->a.value_dim, tile, keys, last;
    switch (kind) {
    case SSA__POOL:   return SSA__POOL_BLOCKS * (int64_t)c->a.block_size * c->a.head_dim;
    case SSA__PACK:   return (c->lays_kv ? SSA__UNIT_KEYS : SSA__POOL_BLOCKS * SSA__UNIT_BLOCK) * dims;
    case SSA__SCORE:
        return fixed + (ssa__min(c->n_rows, c->tile_tokens * c->group) + reading) * c->share_blocks * c->a.head_dim;
    case SSA__WEIGH:  return fixed + c->group * (int64_t)c->share_blocks;
    case SSA__SELECT:
        if (c->n_shares && !c->joined) return fixed + (int64_t)c->lists * c->n_pooled;
        tile = task % ssa__ceil_div(c->a.n_q, c->tile_tokens);
        last = ssa__min((tile + 1) * c->tile_tokens, c->a.n_q) - 1;
        return fixed + ((last + 1 - tile * c->tile_tokens) * c->group + reading) *
               (ssa__visible(c, last) / c->a.block_size) * c->a.head_dim;
    case SSA__ATTEND:
        tile = task % c->n_tiles;
        if (what == SSA__RUN_FULL) {
            int64_t split = task / c->n_tiles / ssa__ceil_div(c->a.n_kv_heads, c->task_heads);
            int64_t from = ssa__first(c, tile * c->tile_rows / c->group) + split * c->split_keys;
            last = ssa__min((tile + 1) * c->tile_rows, c->n_rows) - 1;
            keys = ssa__min(ssa__visible(c, last / c->group), from + c->split_keys) - from;
            return c->task_heads *
                   (fixed + (last + 1 - tile * c->tile_rows + reading) * (ssa__max(keys, 0) + 8) * dims);
        }
        last = ssa__min((tile + 1) * c->task_tokens, c->a.n_q) - 1;
        keys = ssa__min(ssa__visible(c, last), c->split_keys);
        return fixed + (last + 1 - tile * c->task_tokens) * (c->group + reading) * (keys + 8) * dims;
    default:          return SSA__MERGE_ROWS * c->n_splits * c->a.value_dim;
    }
}

/* A workspace laid out by bumping an offset; with base NULL only the size is found. */
typedef struct { unsigned char *base; int64_t at; int bad; } ssa__bump;

/* count elements of size bytes, aligned; NULL while sizing. */
static void *ssa__take(ssa__bump *b, int64_t count, int64_t size)
{
    int64_t here = b->at, bytes = ssa__mul(count, size, &b->bad);
    b->at = ssa__add(here, bytes, &b->bad);
    b->at = ssa__mul(ssa__ceil_div(b->at, SSA__ALIGN), SSA__ALIGN, &b->bad);
    return b->base && !b->bad ? (void *)(b->base + here) : NULL;
}

/* What makes scores of the products of a chunk. */
typedef struct {
    const ssa__table *t;
    const ssa__call  *c;
    const struct ssa__keys_of *keys; int64_t at; /* the chunk starts at virtual key `at` */
    int64_t h, r0;                 /* key/value head; the tile's first row */
    float   scale, unit;           /* of the products, 1 where the form applies it; and of the scores, at the end */
    int32_t careful;               /* 1: values of hidden keys may be NaN or infinite */
    float  *bias;                  /* [SSA__LANES_MAX + 1][SSA__PIECE]: of some rows, and what a query's heads share */
} ssa__shaper;

/* Scratch of one worker: a tile with its arrays, and the lists of block selection. */
typedef struct {
    ssa__tile *tiles;              /* of each head of the task, which share s, k, v and work */
    ssa__tile *tile;               /* the one that is worked on */
    const unsigned char *runs[2][SSA__UNIT_FEW / SSA__UNIT_RUN]; /* k_runs and v_runs */
    float   *rows;                 /* [rows rounded up][larger dim, padded]: queries coming in, outputs going out */
    float   *kv;                   /* [SSA__CHUNK][dim]: packed keys or values of a chunk */
    float   *factor;               /* [row]: gate / l */
    int32_t *limit;                /* [row]: keys of the chunk, or pooled keys, that the row sees */
    int32_t  rows_max;             /* what the arrays of rows have room for */
    unsigned char *hidden;         /* a packed block for each step of gathered rows, without the values out of sight */
    uint16_t *take;                /* queries as the unit takes them: of a tile that it ranks, of a task of rows */
    int32_t *start, *asked;        /* gathered rows: for each part of a block where its list of lists starts; these */
    ssa__shaper shaper;
    int32_t *low;                  /* [row]: the start of ssa__tile */
    int32_t part, part_keys;       /* what the unit scored: rows of a part, pooled keys of its s */
    int32_t flat;                  /* how it is to score: flat of ssa__tile */
    unsigned char *near_rows;      /* flat: pooled keys near the best .. */
    float   *near_s;               /* .. and p of these, as it is */
    float   doubt;                 /* by how much two importances may each be wrong, together and at most, relatively */
    float   *imp;                  /* [list][imp_ld]: importance of blocks, of SSA__LANES_MAX rows' lists, or of one */
    int64_t  imp_ld;
    float   *heap_key, *pick_key;  /* candidates' importance and block: the best of the past, and of the best */
    int32_t *heap, *pick;
} ssa__scratch;

/* Floats between the importances of two lists. */
static int64_t ssa__imp_ld(const ssa__call *c)
{
    return ssa__ceil_div(c->n_blocks, SSA__LANES_MAX) * SSA__LANES_MAX;
}

/* What of the workspace is one worker's, for this call: arrays for a tile, for its unit's chunk and for selection. */
static void ssa__take_scratch(ssa__bump *b, const ssa__call *c, ssa__what what, ssa__scratch *x)
{
    const int64_t f = (int64_t)sizeof(float);
    const int32_t round = c->unit || c->rank ? SSA__UNIT_DIM : SSA__LANES_MAX;
    int32_t dk = ssa__round_up(c->a.head_dim, round), dv = ssa__round_up(c->a.value_dim, round);
    int32_t dim = dk > dv ? dk : dv;
    int32_t rows = (int32_t)ssa__min(ssa__max(c->n_rows, 1), ssa__max(c->tile_rows, SSA__TILE_ROWS));
    int32_t all = c->gathers ? c->task_tokens * c->group : rows; /* rows whose output and state are kept at a time */
    int64_t scores = SSA__CHUNK;
    ssa__tile tile;
    memset(x, 0, sizeof *x);
    memset(&tile, 0, sizeof tile);
    rows = x->rows_max = ssa__round_up(rows, round);
    all = ssa__round_up(all > rows ? all : rows, round);
    if (what != SSA__RUN_FULL && c->scored)
        scores = ssa__max(scores, c->n_shares ? c->share_blocks : c->n_pooled);
    scores += 2 * SSA__LANES_MAX;  /* whole register tiles of keys, and a narrow row's padding */
    x->tile = x->tiles = (ssa__tile *)ssa__take(b, c->task_heads, (int64_t)sizeof(ssa__tile));
    tile.s   = (float *)ssa__take(b, ssa__mul(scores, ssa__min(rows, SSA__TILE_ROWS), &b->bad), f);
    x->factor   = (float *)ssa__take(b, rows, f);
    x->limit    = (int32_t *)ssa__take(b, ssa__max(rows, SSA__TILE_ROWS), (int64_t)sizeof(int32_t));
    x->rows     = (float *)ssa__take(b, (int64_t)rows * dim, f);
    x->kv       = (float *)ssa__take(b, (int64_t)(SSA__CHUNK + 2 * SSA__LANES_MAX) * dim, f);
    if (c->gathers) {
        int64_t lists = (int64_t)c->lists * c->keep * c->parts;
        x->start = (int32_t *)ssa__take(b, (int64_t)c->n_blocks * c->parts + 2, (int64_t)sizeof(int32_t));
        x->asked = (int32_t *)ssa__take(b, ssa__mul(c->task_tokens, lists, &b->bad), (int64_t)sizeof(int32_t));
    }
    if (c->packs) {
        x->hidden = (unsigned char *)ssa__take(b, SSA__GATHER_STEPS, c->packed_bytes);
        x->take = (uint16_t *)ssa__take(b, (int64_t)all * dk, 2);
        tile.sums = (float *)ssa__take(b, (int64_t)all * SSA__UNIT_SUMS, f);
    }
    if (c->shaped || c->a.window > 0)
        x->shaper.bias = (float *)ssa__take(b, (SSA__LANES_MAX + 1) * SSA__PIECE, f);
    if (c->unit && c->a.window > 0) x->low = (int32_t *)ssa__take(b, rows, (int64_t)sizeof(int32_t));
    if (c->rank) {
        int64_t queries = (int64_t)SSA__UNIT_PARTS * SSA__LANES_MAX * dk * ssa__terms(c->a.q.type);
        if (!c->lays) tile.turned = (uint16_t *)ssa__take(b, (int64_t)SSA__UNIT_DIM * dk + queries, 2);
        if (!c->packs) x->take = (uint16_t *)ssa__take(b, queries, 2);
        tile.steps = (float *)ssa__take(b, SSA__RANK_FLOATS, f);
        if (c->flat) {
            x->near_rows = (unsigned char *)ssa__take(b, SSA__RUNNERS, (int64_t)dk * 2);
            x->near_s = (float *)ssa__take(b, SSA__RUNNERS * SSA__LANES_MAX, f);
        }
    }
    if (c->unit) {
        int32_t v_terms = ssa__terms(c->a.v.type);
        int32_t keys = ssa__chunk_keys(c);
        tile.keys_max = keys;
        tile.k    = (uint16_t *)ssa__take(b, (int64_t)keys * dk * ssa__terms(c->a.k.type), 2);
        tile.v    = (uint16_t *)ssa__take(b, (int64_t)keys * dv * v_terms, 2);
        tile.work = (unsigned char *)ssa__take(b, ssa__max(ssa__unit_work(keys, dv, v_terms),
                                                           c->packs ? ssa__packed_work(dk, dv) : 0), 1);
    }
    if (c->q8)
        tile.work = (unsigned char *)ssa__take(
            b, ssa__q8_work(ssa__round_up(dk, SSA__UNIT_DIM), ssa__round_up(dv, SSA__UNIT_DIM), ssa__q8_tiles(rows)),
            1);
    for (int32_t i = 0; i < c->task_heads; i++) {
        tile.q   = (float *)ssa__take(b, (int64_t)(c->gathers && !c->packs ? all : rows) * dk +
                                             (c->q8 ? SSA__LANES_MAX * (dk + 1) : 0), f);
        tile.o   = (float *)ssa__take(b, (int64_t)all * dv, f);
        tile.m   = (float *)ssa__take(b, all, f);
        tile.l   = (float *)ssa__take(b, all, f);
        tile.fix = (float *)ssa__take(b, rows, f);
        if (x->tiles) x->tiles[i] = tile;
    }
    if (what != SSA__RUN_FULL) {
        int64_t list = (int64_t)c->keep + c->a.block_size;
        x->imp_ld   = ssa__imp_ld(c);
        x->imp      = (float *)ssa__take(b, x->imp_ld * ssa__max(SSA__LANES_MAX / ssa__max(c->list_group, 1), 2), f);
        x->heap_key = (float *)ssa__take(b, list, f);
        x->pick_key = (float *)ssa__take(b, list, f);
        x->heap     = (int32_t *)ssa__take(b, list, (int64_t)sizeof(int32_t));
        x->pick     = (int32_t *)ssa__take(b, list, (int64_t)sizeof(int32_t));
    }
}

/* What of the workspace a call shares between its workers. */
static void ssa__take_shared(ssa__bump *b, ssa__call *c, ssa__what what)
{
    const int64_t f = (int64_t)sizeof(float);
    int64_t lists = ssa__mul(c->a.n_q, (int64_t)c->a.n_kv_heads * ssa__max(c->lists, 1), &b->bad);
    if (c->lays) {
        int64_t blocks = ssa__ceil_div(c->n_pooled, SSA__UNIT_DIM) * SSA__UNIT_DIM;
        int32_t dk = ssa__round_up(c->a.head_dim, SSA__UNIT_DIM);
        c->laid_head_stride = ssa__mul(blocks, (int64_t)dk * c->rank_terms, &b->bad);
        c->laid = (uint16_t *)ssa__take(b, ssa__mul(c->laid_head_stride, c->a.n_kv_heads, &b->bad), 2);
        c->left_out = (float *)ssa__take(
            b, ssa__mul(ssa__ceil_div(c->n_pooled, SSA__POOL_BLOCKS), c->a.n_kv_heads, &b->bad), f);
    }
    if (c->pooled == NULL && ssa__count_tasks(c, what, SSA__POOL) > 0) {
        int64_t per_head = ssa__mul(c->n_pooled, c->a.head_dim, &b->bad);
        c->pooled_own = (float *)ssa__take(b, ssa__mul(per_head, c->a.n_kv_heads, &b->bad), f);
        c->pooled = (const unsigned char *)c->pooled_own;
        c->pooled_type = SSA_F32;
        c->pooled_head_stride = ssa__mul(per_head, f, &b->bad);
    }
    if (c->n_shares) {
        int64_t shares = c->n_shares * c->a.n_q * c->a.n_kv_heads;
        c->shares    = (ssa__share *)ssa__take(b, shares, (int64_t)sizeof(ssa__share));
        c->share_s   = (float *)ssa__take(b, ssa__mul(shares, ssa__share_floats(c), &b->bad), f);
        c->share_imp = (float *)ssa__take(b, ssa__mul(lists, ssa__imp_ld(c), &b->bad), f);
    }
    if (c->packs) {
        c->n_packed = ssa__ceil_div(c->a.q_pos + c->a.n_q, SSA__UNIT_BLOCK);
        c->packed_bytes = SSA__UNIT_BLOCK * (ssa__laid_bytes(SSA_BF16, c->a.head_dim) +
                                             ssa__laid_bytes(SSA_BF16, c->a.value_dim));
    }
    if (c->packs || c->lays_kv) {
        c->packed = (unsigned char *)ssa__take(b, ssa__mul(c->n_packed, c->a.n_kv_heads, &b->bad), c->packed_bytes);
        c->packed_broken = (unsigned char *)ssa__take(b, ssa__mul(c->n_packed, c->a.n_kv_heads, &b->bad), 1);
    }
    if (what != SSA__RUN_FULL || c->blank) {
        if (c->a.blocks && c->a.select != SSA_SELECT_GIVEN) {
            c->chosen = c->a.blocks;
            c->chosen_stride = c->a.top_k;
        } else {
            c->chosen = (int32_t *)ssa__take(b, ssa__mul(lists, c->keep, &b->bad), (int64_t)sizeof(int32_t));
            c->chosen_stride = c->keep;
        }
    }
    if (what != SSA__RUN_SELECT && c->n_splits > 1) {
        int64_t rows = ssa__mul(c->n_splits, ssa__mul(c->a.n_q, c->a.n_heads, &b->bad), &b->bad);
        c->part_o   = (float *)ssa__take(b, ssa__mul(rows, c->a.value_dim, &b->bad), f);
        c->part_lse = (double *)ssa__take(b, rows, (int64_t)sizeof(double));
    }
}

/* Checks n calls and lays them out; with ws NULL only the size in bytes comes back, in *total. lays 0: no call's keys
 * and values are laid out. */
static ssa_status ssa__plan_with(ssa_plan *p, const ssa_attn *a, int32_t n, ssa__what what, int n_threads, int lays,
                                 void *ws, size_t size, size_t *total)
{
    ssa__bump shared = { NULL, 0, 0 };
    ssa__table table;
    ssa__call one, *call;
    ssa__scratch x;
    int64_t scratch = 0, calls_at, need;
    int64_t tasks[SSA__KINDS] = { 0, 0, 0, 0, 0, 0, 0 };
    uintptr_t misaligned = 0;
    int units = 0; /* whether any call uses the unit: else it is not set up */
    if (n < 0) return SSA_ERR_BATCH;
    if (n > 0 && a == NULL) return SSA_ERR_NULL;
    if (n_threads < 1) n_threads = 1;
    ssa__fill(&table, ssa__level_get());
    ssa__take(&shared, 1, (int64_t)sizeof(ssa__table));
    ssa__take(&shared, 1, SSA__COUNTS_ROOM);
    calls_at = shared.at;
    ssa__take(&shared, n, (int64_t)sizeof(ssa__call));
    for (int32_t i = 0; i < n; i++) {
        ssa__bump own = { NULL, 0, 0 };
        ssa_status s = ssa__resolve(&table, &one, &a[i], what);
        if (s != SSA_OK) return s;
        one.lays_kv &= lays;
        units |= one.unit || one.rank;
        ssa__take_shared(&shared, &one, one.what);
        ssa__take_scratch(&own, &one, one.what, &x);
        scratch = ssa__max(scratch, own.at);
        if (own.bad) return SSA_ERR_OVERFLOW;
    }
    need = ssa__mul(n_threads, scratch, &shared.bad);
    need = ssa__add(ssa__add(need, shared.at, &shared.bad), SSA__ALIGN - 1, &shared.bad);
    if (shared.bad || (uint64_t)need > (uint64_t)PTRDIFF_MAX) return SSA_ERR_OVERFLOW;
    *total = (size_t)need;
    if (p == NULL) return SSA_OK;
    if (ws == NULL || size < (size_t)need) return SSA_ERR_WORKSPACE;

    misaligned = (uintptr_t)ws % SSA__ALIGN;
    shared.base = (unsigned char *)ws + (misaligned ? SSA__ALIGN - misaligned : 0);
    shared.at = calls_at;
    memset(p, 0, sizeof *p);
    p->n = n;
    p->n_threads = n_threads;
    p->what = (int32_t)what;
    p->table = shared.base;
    if (!units) table.enter = NULL, table.leave = NULL;
    memcpy(shared.base, &table, sizeof table);
    memset(shared.base + calls_at - SSA__COUNTS_ROOM, 0, SSA__COUNTS_ROOM);
    p->calls = (unsigned char *)ssa__take(&shared, n, (int64_t)sizeof(ssa__call));
    for (int32_t i = 0; i < n; i++) {
        call = (ssa__call *)(void *)p->calls + i;
        (void)ssa__resolve(&table, call, &a[i], what);
        call->lays_kv &= lays;
        call->joined = n_threads <= ssa__count_tasks(call, call->what, SSA__SELECT);
        ssa__take_shared(&shared, call, call->what);
        for (int kind = 0; kind < SSA__KINDS; kind++) {
            call->n_tasks[kind] = ssa__count_tasks(call, call->what, kind);
            for (int64_t t = 0; t < call->n_tasks[kind]; t++)
                call->cost[kind] += ssa__task_cost(call, call->what, kind, t);
            tasks[kind] += call->n_tasks[kind];
            p->cost += call->cost[kind];
        }
    }
    for (int kind = 0; kind < SSA__KINDS; kind++) {
        if (tasks[kind] == 0) continue;
        p->phase[p->n_phases++] = kind;
        p->width = ssa__max(p->width, tasks[kind]);
    }
    p->scratch = shared.base + shared.at;
    p->scratch_stride = (size_t)scratch;
    return SSA_OK;
}

/* The same; in a workspace that was measured for more keys there may be no room to lay any out. */
static ssa_status ssa__plan(ssa_plan *p, const ssa_attn *a, int32_t n, ssa__what what, int n_threads, void *ws,
                            size_t size, size_t *total)
{
    size_t least;
    ssa_status s = ssa__plan_with(p, a, n, what, n_threads, 1, ws, size, total);
    return s == SSA_ERR_WORKSPACE && ws ? ssa__plan_with(p, a, n, what, n_threads, 0, ws, size, &least) : s;
}

/* =====================================================================================================================
 * 12  BLOCK SELECTION: pooled keys, importance, top-k
 *     A tile of queries is scored against pooled keys by the same entries that score it against keys; one softmax over
 *     all complete blocks gives p / l, which is exp(scale * q.kbar - lse); importance is its sum over the group's rows.
 *     Rows of a tile that belong to different queries see different numbers of complete blocks: limit. The own block
 *     always wins and is never ranked. Of many others the maxima of disjoint parts give a bar that not many more clear
 *     than are wanted; these few are compared with one another. A heap whose root is the worst does what is left: few
 *     blocks, large lists, equal maxima. Raw scores (SSA_SCORE_DOT) take the same way without the softmax. A list is
 *     shared by the group's rows, or is of one row (select_per_head), whose scores are made with the group's all the
 *     same. A matrix unit scores a tile's queries in one go (rank, importances), from bf16 terms of the pooled keys.
 *     Few queries over many blocks are scored in shares of these (SCORE), which start from one m, so that equal blocks
 *     get equal bits, and weighed when all are there (WEIGH).
 * ================================================================================================================== */
/* Where a row of a resolved view lies. */
static const unsigned char *ssa__row(const ssa_view *v, int64_t token, int64_t head)
{
    return (const unsigned char *)v->data + token * v->token_stride + head * v->head_stride;
}

/* Where a key's row of head h lies in K (k = 1) or V: the one way to a cache, whose tokens may lie in pages. */
static const unsigned char *ssa__cache_row(const ssa_attn *a, int k, int64_t key, int64_t h)
{
    const ssa_view *v = k ? &a->k : &a->v;
    const int64_t stride = k ? a->page_stride_k : a->page_stride_v;
    if (a->pages == NULL) return ssa__row(v, key, h);
    return ssa__row(v, key % a->page_tokens, h) + a->pages[key / a->page_tokens] * stride;
}
static const unsigned char *ssa__k_row(const ssa_attn *a, int64_t key, int64_t h)
{
    return ssa__cache_row(a, 1, key, h);
}
static const unsigned char *ssa__v_row(const ssa_attn *a, int64_t key, int64_t h)
{
    return ssa__cache_row(a, 0, key, h);
}

/* How many of the `most` keys from `key` on follow each other at the token stride, in K and in V: up to the end of the
 * page, and on while the next page is the next in memory. Looks at the pages of these keys alone. */
static int64_t ssa__adjacent(const ssa_attn *a, int64_t key, int64_t most)
{
    int64_t page, n;
    uint64_t tokens = (uint64_t)a->page_tokens; /* a page that does not fit in 63 bits has no next one */
    if (a->pages == NULL) return most;
    page = key / a->page_tokens;
    n = a->page_tokens - key % a->page_tokens;
    if ((uint64_t)a->page_stride_k == tokens * (uint64_t)a->k.token_stride &&
        (uint64_t)a->page_stride_v == tokens * (uint64_t)a->v.token_stride)
        for (; n < most && a->pages[page + 1] - 1 == a->pages[page]; page++) n += a->page_tokens;
    return ssa__min(n, most);
}

/* A finished row of the output: query i, query head head. */
static void ssa__put_row(const ssa__table *t, const ssa__call *c, int64_t i, int64_t head, const float *row)
{
    const ssa_view *v = &c->a.out;
    t->unpack[v->type]((unsigned char *)v->data + i * v->token_stride + head * v->head_stride, row, c->a.value_dim);
}

/* The rounded mean of a finished block from the sum of its keys; every way to pool ends here. */
static void ssa__pool_finish(const float *sum, int32_t block_size, int32_t dim, ssa_type type, unsigned char *dst)
{
    float inv = 1.0f / (float)block_size;
    for (int32_t e = 0; e < dim; e++) ssa__store(type, dst, e, sum[e] * inv);
}

/* The pooled key of a block of head h; the next ones follow. */
static const unsigned char *ssa__pooled_row(const ssa__call *c, int64_t h, int64_t block)
{
    return c->pooled + h * c->pooled_head_stride + block * ssa__row_bytes(c->pooled_type, c->a.head_dim);
}

/* POOL task: the means of up to SSA__POOL_BLOCKS complete blocks of one head, and laid out for a unit that scores
 * them. */
static void ssa__run_pool(const ssa__table *t, const ssa__call *c, int64_t task, ssa__scratch *x)
{
    int64_t h = task % c->a.n_kv_heads, from = task / c->a.n_kv_heads * SSA__POOL_BLOCKS;
    int64_t to = ssa__min(from + SSA__POOL_BLOCKS, c->n_pooled);
    int32_t dim = c->a.head_dim, block = c->a.block_size;
    for (int64_t b = from; c->pooled_own && b < to; b++) {
        float *own = c->pooled_own + (h * c->n_pooled + b) * dim;
        memset(x->rows, 0, (size_t)dim * sizeof(float));
        t->pool[c->a.k.type](x->rows, ssa__k_row(&c->a, b * block, h), c->a.k.token_stride, block, dim);
        ssa__pool_finish(x->rows, block, dim, SSA_F32, (unsigned char *)own);
    }
    if (c->lays) c->left_out[task] = 0.0f;
    for (int64_t b = from; c->lays && b < ssa__ceil_div(to, SSA__UNIT_DIM) * SSA__UNIT_DIM; b += SSA__UNIT_BLOCK) {
        const int64_t row = ssa__row_bytes(c->pooled_type, dim);
        const float left =
            t->few.lay(c->laid + h * c->laid_head_stride + b * ssa__round_up(dim, SSA__UNIT_DIM) * c->rank_terms,
                       c->pooled_type, c->rank_terms, ssa__pooled_row(c, h, b), row,
                       (int32_t)ssa__max(ssa__min(SSA__UNIT_BLOCK, to - b), 0), dim);
        if (left > c->left_out[task]) c->left_out[task] = left;
    }
}

/* A candidate is worse than another when its importance is lower, or equal at a higher index. */
static int ssa__worse(float key_a, int32_t a, float key_b, int32_t b)
{
    return key_a < key_b || (!(key_a > key_b) && a > b);
}

/* Puts (key, index) in at the root of a heap of n whose root is the worst. */
static void ssa__heap_sink(float *key, int32_t *index, int32_t n, int32_t at, float k, int32_t i)
{
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && ssa__worse(key[child + 1], index[child + 1], key[child], index[child])) child++;
        if (!ssa__worse(key[child], index[child], k, i)) break;
        key[at] = key[child];
        index[at] = index[child];
        at = child;
    }
    key[at] = k;
    index[at] = i;
}

/* What `most` <= SSA__TOPS of many candidates are not below, and not many more: of as many maxima of disjoint parts the
 * one of this rank. FLT_MAX: there is none. */
static float ssa__bar(const ssa__table *t, const float *imp, int64_t from, int64_t to, int32_t most)
{
    float x[SSA__TOPS], bar = FLT_MAX;
    int32_t rank[SSA__TOPS], at[SSA__TOPS];
    t->tops(imp + from, to - from, x);
    t->ranks(x, SSA__TOPS, rank);
    for (int i = 0; i < SSA__TOPS; i++) at[i] = -1; /* which has a rank; equal ones leave gaps above theirs */
    for (int i = 0; i < SSA__TOPS; i++) at[rank[i]] = i;
    for (int32_t i = most - 1; i >= 0 && bar == FLT_MAX; i--) if (at[i] >= 0) bar = x[at[i]];
    return bar > -FLT_MAX && (bar > 0.0f || bar < 0.0f) ? bar : FLT_MAX;
}

/* ssa__best in the order of the blocks, by ranks; of many candidates among those that clear a bar. 0: there is none, or
 * too many clear it. Which way a comparison goes nobody can predict, so nothing branches on it. */
static int32_t ssa__best_above(const ssa__table *t, const float *imp, int64_t from, int64_t to, int32_t most,
                               float *key, int32_t *index)
{
    float x[SSA__RUNNERS], bar, last = FLT_MAX;
    int32_t found[SSA__RUNNERS], rank[SSA__RUNNERS], n, kept = 0;
    if (to - from <= 2 * SSA__TOPS) {
        n = (int32_t)(to - from);
        for (int32_t i = 0; i < n; i++) found[i] = (int32_t)from + i;
        for (int32_t i = 0; i < n; i++) x[i] = ssa__is_nan(imp[from + i]) ? -FLT_MAX : imp[from + i];
    } else {
        if ((bar = ssa__bar(t, imp, from, to, most)) == FLT_MAX) return 0;
        bar = ssa__float(ssa__bits(bar) + (bar < 0.0f ? 1u : ~0u)); /* the float below: its equals clear it too */
        n = t->all_above(imp, from, to, bar, found);
        if (n < most) return 0;
        for (int32_t i = 0; i < n; i++) x[i] = imp[found[i]];
    }
    for (int32_t i = n; i < ssa__round_up(n, SSA__LANES_MAX); i++) x[i] = -FLT_MAX;
    t->ranks(x, ssa__round_up(n, SSA__LANES_MAX), rank);
    for (int32_t i = 0; i < n; i++) {
        x[kept] = x[i];
        found[kept] = found[i];
        kept += rank[i] < most;
    }
    if (kept > most) { /* equal to the last: the later ones go */
        for (int32_t i = 0; i < kept; i++) last = x[i] < last ? x[i] : last;
        for (int32_t i = kept - 1, spare = kept - most; spare > 0; i--) {
            if (x[i] > last) continue;
            spare--;
            kept--;
            memmove(x + i, x + i + 1, (size_t)(kept - i) * sizeof *x);
            memmove(found + i, found + i + 1, (size_t)(kept - i) * sizeof *found);
        }
    }
    memcpy(key, x, (size_t)kept * sizeof *key);
    memcpy(index, found, (size_t)kept * sizeof *index);
    return kept;
}

/* The best `most` of the candidates from <= i < to by imp[i], in no order; index_of NULL: candidate i is block i.
 * Returns how many. NaN ranks below everything. */
static int32_t ssa__best(const ssa__table *t, const float *imp, const int32_t *index_of, int64_t from, int64_t to,
                         int32_t most, float *key, int32_t *index)
{
    int32_t n = (int32_t)ssa__min(most, to - from);
    int64_t i;
    if (n <= 0) return 0;
    if (index_of == NULL && to - from > most && most <= SSA__TOPS * 3 / 4) {
        int32_t found = ssa__best_above(t, imp, from, to, most, key, index);
        if (found > 0) return found;
    }
    for (int32_t j = 0; j < n; j++) {
        float k = imp[from + j];
        key[j] = ssa__is_nan(k) ? -FLT_MAX : k;
        index[j] = index_of ? index_of[from + j] : (int32_t)(from + j);
    }
    if (n == to - from) return n;
    for (int32_t j = n / 2 - 1; j >= 0; j--) ssa__heap_sink(key, index, n, j, key[j], index[j]);
    if (index_of) {
        for (i = from + n; i < to; i++)
            if (ssa__worse(key[0], index[0], imp[i], index_of[i]))
                ssa__heap_sink(key, index, n, 0, imp[i], index_of[i]);
    } else { /* ascending: a later block must be strictly better */
        for (i = t->above(imp, from + n, to, key[0]); i < to; i = t->above(imp, i + 1, to, key[0]))
            ssa__heap_sink(key, index, n, 0, imp[i], (int32_t)i);
    }
    return n;
}

static void ssa__sort(int32_t *x, int32_t n) /* ascending; heapsort: n may be thousands. Often it is sorted already */
{
    int32_t sorted = 1;
    while (sorted < n && x[sorted - 1] <= x[sorted]) sorted++;
    if (sorted >= n) return;
    for (int32_t half = n / 2, end = n; end > 1;) {
        int32_t at, item;
        if (half > 0) item = x[at = --half];
        else { item = x[--end]; x[end] = x[0]; at = 0; }
        for (int32_t child; (child = 2 * at + 1) < end; at = child) {
            if (child + 1 < end && x[child + 1] > x[child]) child++;
            if (x[child] <= item) break;
            x[at] = x[child];
        }
        x[at] = item;
    }
}

/* top_p: how many of the n best a list needs beside the blocks below `from` and from `to` on, so that what it
 * keeps has that share of the importance of all blocks before cur. They are left sorted, the best first. */
static int32_t ssa__reach(const ssa__call *c, int32_t cur, const float *imp, int32_t from, int32_t to, int32_t n,
                          float *key, int32_t *index)
{
    double all = 0.0, kept = 0.0; /* in the order of the blocks, then of the ranks */
    int32_t m = 0;
    for (int32_t b = 0; b < cur; b++) {
        double x = ssa__is_nan(imp[b]) ? 0.0 : (double)imp[b];
        all += x;
        if (b < from || b >= to) kept += x;
    }
    for (int32_t j = n / 2 - 1; j >= 0; j--) ssa__heap_sink(key, index, n, j, key[j], index[j]);
    for (int32_t end = n - 1; end > 0; end--) {
        float k = key[end];
        int32_t i = index[end];
        key[end] = key[0];
        index[end] = index[0];
        ssa__heap_sink(key, index, end, 0, k, i);
    }
    while (m < n && kept < (double)c->a.top_p * all) kept += (double)key[m++]; /* a NaN is never needed */
    return m;
}

/* Whether the n best of the candidates from <= i < to, of importances key, are the best whatever the doubt: no other
 * is near the last of them. */
static int ssa__sure(const ssa__table *t, const float *imp, int32_t from, int32_t to, int32_t n, const float *key,
                     float doubt)
{
    float last = FLT_MAX;
    int32_t found[SSA__RUNNERS], near = 0;
    if (n == 0 || n == to - from || ssa__bits(doubt) << 1 == 0) return 1;
    for (int32_t j = 0; j < n; j++) last = key[j] < last ? key[j] : last;
    last *= 1.0f - doubt;
    if (n <= SSA__RUNNERS - 2 * SSA__LANES_MAX) return t->all_above(imp, from, to, last, found) == n;
    for (int64_t i = t->above(imp, from, to, last); i < to && near <= n; i = t->above(imp, i + 1, to, last)) near++;
    return near == n;
}

/* What is always kept of the blocks before cur lies at both ends, so that the candidates from <= i < to are adjacent;
 * where it meets there are none. Returns how many of these may be kept. */
static int32_t ssa__candidates(const ssa__call *c, int32_t cur, int32_t keep, int32_t *from, int32_t *to)
{
    *from = (int32_t)ssa__min(c->a.sink_blocks, cur);
    *to = (int32_t)ssa__max(*from, cur - c->a.local_blocks);
    return keep - 1 - c->a.sink_blocks - c->a.local_blocks;
}

/* Chooses at most `keep` blocks for a query whose own block is cur by imp[0..cur-1]; list gets them ascending. Returns
 * how many, or -1 where the doubt about the importances leaves the best of them open. near >= 0: imp are those of so
 * many candidates alone, the blocks index[]. */
static int32_t ssa__choose(const ssa__table *t, const ssa__call *c, int32_t cur, int32_t keep, const float *imp,
                           int32_t near, const int32_t *index, float doubt, ssa__scratch *x, int32_t *list)
{
    int32_t n, block = c->a.block_size, past = keep - 1, from, to, most = ssa__candidates(c, cur, keep, &from, &to);
    if (near >= 0) {
        n = ssa__best(t, imp, NULL, 0, near, most, x->heap_key, x->heap);
        for (int32_t j = 0; j < n; j++) list[j] = index[x->heap[j]];
    } else if (c->a.select == SSA_SELECT_TOPK || cur < block) {
        n = ssa__best(t, imp, NULL, from, to, most, x->heap_key, x->heap);
        if (!ssa__sure(t, imp, from, to, n, x->heap_key, doubt)) return -1;
        if (c->nucleus) n = ssa__reach(c, cur, imp, from, to, n, x->heap_key, x->heap);
        memcpy(list, x->heap, (size_t)n * sizeof *list);
    } else { /* the best half of all before the chunk of cur, and the best half of that chunk, cur always first */
        int32_t chunk = cur - cur % block;
        n = ssa__best(t, imp, NULL, 0, chunk, block / 2, x->heap_key, x->heap);
        n += ssa__best(t, imp, NULL, chunk, cur, block / 2 - 1, x->heap_key + n, x->heap + n);
        n = ssa__best(t, x->heap_key, x->heap, 0, n, past, x->pick_key, x->pick);
        memcpy(list, x->pick, (size_t)n * sizeof *list);
    }
    for (int32_t b = 0; b < from; b++) list[n++] = b;
    for (int32_t b = to; b <= cur; b++) list[n++] = b;
    ssa__sort(list, n);
    return n;
}

/* Sorts and drops duplicates; returns how many are left. */
static int32_t ssa__sort_unique(int32_t *x, int32_t n)
{
    int32_t m = 0;
    ssa__sort(x, n);
    for (int32_t i = 0; i < n; i++) if (i == 0 || x[i] != x[i - 1]) x[m++] = x[i];
    return m;
}

/* The caller's blocks of one query, without those out of range and duplicates: never more than keep. */
static int32_t ssa__choose_given(const ssa__call *c, const int32_t *given, int32_t cur, ssa__scratch *x, int32_t *list)
{
    int32_t n = 0, room = c->keep + c->a.block_size;
    for (int32_t j = 0; j < c->a.top_k; j++) {
        if (given[j] < 0 || given[j] > cur) continue;
        if (n == room) n = ssa__sort_unique(x->heap, n);
        x->heap[n++] = given[j];
    }
    n = ssa__sort_unique(x->heap, n);
    memcpy(list, x->heap, (size_t)n * sizeof *list);
    return n;
}

/* The form of a tile of so many rows, the unit's aside. */
static const ssa__form *ssa__plain_form(const ssa__table *t, int64_t rows)
{
    return rows <= t->narrow_rows ? &t->narrow : &t->wide;
}

/* The rows of a tile with its padding: whole vectors, and in the unit's form for many rows pairs of them. */
static int32_t ssa__padded_rows(const ssa__table *t, const ssa__form *form, int32_t rows)
{
    return ssa__round_up(rows, form == &t->many ? SSA__UNIT_DIM : SSA__LANES_MAX);
}

/* Whether few rows of f16 are the unit's: where they fill more than half a tile, and keys come in whole steps. */
static int ssa__few_halves(const ssa__table *t, const ssa__call *c)
{
    const ssa_attn *a = &c->a;
    return t->few.halves && a->k.type == SSA_F16 && a->v.type == SSA_F16 && c->n_keys >= 2 * SSA__UNIT_DIM &&
           a->head_dim % SSA__UNIT_DIM == 0 && a->value_dim % SSA__UNIT_DIM == 0 &&
           (c->what == SSA__RUN_FULL || a->block_size % SSA__UNIT_RUN == 0);
}

/* The form for attention. A unit for q8_0 takes as many rows as fill its tiles, or, where only keys or only values are
 * q8_0, as narrow takes. That for bf16 takes neither few rows, which narrow does faster, nor most of few rows of f16,
 * whose terms take as long to make as its products save. */
static const ssa__form *ssa__attend_form(const ssa__table *t, const ssa__call *c, int64_t rows)
{
    const int both = c->a.k.type == SSA_Q8_0 && c->a.v.type == SSA_Q8_0;
    if (c->unit && rows > SSA__LANES_MAX / 2 && rows <= SSA__LANES_MAX && ssa__few_halves(t, c)) return &t->few;
    if (c->q8 && rows <= (both ? SSA__LANES_MAX : t->narrow_rows)) return &t->q8;
    if (!c->unit || rows <= (ssa__all_bf16(&c->a) ? ssa__least(t, c) : SSA__TILE_ROWS)) return ssa__plain_form(t, rows);
    return rows <= SSA__LANES_MAX ? &t->few : &t->many;
}

/* What of a tile of the form follows from the call alone. */
static void ssa__shape_tile(const ssa__call *c, const ssa__form *form, ssa__tile *tile)
{
    tile->dk = c->a.head_dim;
    tile->dv = c->a.value_dim;
    tile->dk_pad = ssa__round_up(tile->dk, SSA__LANES_MAX);
    tile->dv_pad = ssa__round_up(tile->dv, SSA__LANES_MAX);
    tile->dk_unit = ssa__round_up(tile->dk, SSA__UNIT_DIM);
    tile->dv_unit = ssa__round_up(tile->dv, SSA__UNIT_DIM);
    tile->q_terms = ssa__terms(c->a.q.type);
    tile->k_terms = ssa__terms(c->a.k.type);
    tile->v_terms = ssa__terms(c->a.v.type);
    tile->scale = c->a.scale;
    tile->ahead_rows = 0;
    tile->limit = tile->start = NULL;
    tile->adjust = NULL;
    tile->sees = NULL;
    tile->shaper = NULL;
    tile->v_laid = NULL;
    tile->fresh = 0;
    tile->flat = 0;
    tile->m_unit = form->attend ? SSA__LN2 : 1.0;
    tile->columns = SSA__LANES_MAX;
}

/* Query rows r0 .. r1-1 of key/value head h as the unit takes them: dst [term][row][dk_unit], terms `term` apart. */
static void ssa__take_queries(const ssa__table *t, const ssa__call *c, int64_t h, int64_t r0, int64_t r1, int64_t term,
                              uint16_t *dst)
{
    const int32_t dk = ssa__round_up(c->a.head_dim, SSA__UNIT_DIM);
    for (int64_t r = r0; r < r1;) { /* a query's heads at a time */
        const int64_t i = r / c->group, g = r % c->group, n = ssa__min(c->group - g, r1 - r);
        t->take[c->a.q.type](dst + (r - r0) * dk, term, dk, ssa__row(&c->a.q, i, h * c->group + g),
                             c->a.q.head_stride, (int32_t)n, c->a.head_dim);
        r += n;
    }
}

/* A fresh tile of the form for query rows r0 <= r < r1 of key/value head h, to meet keys of k_type; row r is head r % G
 * of query r / G. */
static void ssa__begin_tile(const ssa__table *t, const ssa__call *c, const ssa__form *form, ssa_type k_type, int64_t h,
                            int64_t r0, int64_t r1, ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    float *rows = x->rows;
    int32_t group = c->group;
    int64_t padded;   /* rows beyond the last are zero: their lanes compute, and nobody reads them */
    ssa__shape_tile(c, form, tile);
    tile->rows = (int32_t)(r1 - r0);
    tile->k_type = k_type;
    tile->v_type = c->a.v.type;
    tile->ld = form == &t->wide || form == &t->pairs ? ssa__round_up(tile->rows, SSA__LANES_MAX)
                                                     : SSA__CHUNK + SSA__LANES_MAX;
    if (form->columns && tile->rows <= 8 && !c->shaped && c->a.window == 0) tile->columns = tile->rows <= 4 ? 4 : 8;
    padded = ssa__padded_rows(t, form, tile->rows);
    for (int64_t r = 0; r < padded; r++) { tile->m[r] = -FLT_MAX; tile->l[r] = 0.0f; }
    if (form->q_turn && c->a.q.type == SSA_BF16) {
        for (int64_t r = 0; r < padded; r += SSA__LANES_MAX) {
            int64_t n = ssa__max(0, ssa__min(SSA__LANES_MAX, tile->rows - r));
            ssa__take_queries(t, c, h, r0 + r, r0 + r + n, 0, (uint16_t *)(void *)rows);
            form->q_turn(tile, (const uint16_t *)(const void *)rows, (int32_t)r, (int32_t)n);
        }
        return;
    }
    for (int64_t r = r0; r < r1;) { /* a query's heads at a time */
        int64_t i = r / group, g = r % group, n = ssa__min(group - g, r1 - r);
        t->pack[c->a.q.type](rows + (r - r0) * tile->dk_pad, tile->dk_pad, ssa__row(&c->a.q, i, h * group + g),
                             c->a.q.head_stride, (int32_t)n, tile->dk);
        r += n;
    }
    memset(rows + tile->rows * (int64_t)tile->dk_pad, 0,
           (size_t)((padded - tile->rows) * tile->dk_pad) * sizeof(float));
    form->q_prep(tile, rows);
}

/* Adds to imp the importance of blocks 0 .. n-1 for lists of `group` rows each, from the tile's row lo on, whose p, or
 * with SSA_SCORE_DOT scores, are in s; lists are ld apart. */
static void ssa__add_importance(const ssa__call *c, const ssa__form *form, ssa__tile *tile, int32_t n, int32_t lo,
                                int32_t group, int32_t lists, float *imp, int64_t ld)
{
    for (int32_t r = lo; r < lo + group * lists; r++)
        tile->fix[r] = c->a.score == SSA_SCORE_DOT ? 1.0f : 1.0f / tile->l[r];
    form->importance(tile, n, lo, group, lists, imp, ld);
}

/* Scores of the tile's rows against pooled keys from .. from+n-1 of head h, softmaxed (SSA_SCORE_DOT: as they are); row
 * r counts limit[r] of them. A score that is not finite counts as -infinity, so that a broken key spoils no other
 * block's importance. Returns 1 when there was one. */
static int ssa__score_blocks(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h, int32_t from,
                             int32_t n, ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    const int narrow = form == &t->narrow;
    const int64_t stride = ssa__row_bytes(c->pooled_type, tile->dk);
    const unsigned char *pooled = ssa__pooled_row(c, h, from);
    float first[SSA__TILE_ROWS];
    memcpy(first, tile->m, (size_t)tile->rows * sizeof *first);
    if (narrow) tile->ld = (int64_t)ssa__round_up(n, SSA__LANES_MAX) + SSA__LANES_MAX;
    for (int scrub = 0; scrub < 2; scrub++) {
        int broken = 0;
        for (int32_t at = 0; at < n; at += SSA__CHUNK) {
            int32_t m = (int32_t)ssa__min(SSA__CHUNK, n - at);
            if (form->packs && c->pooled_type != SSA_F32) { /* floats are read where they are */
                t->pack[c->pooled_type](x->kv, tile->dk, pooled + at * stride, stride, m, tile->dk);
                form->qk[SSA_F32](tile, (const unsigned char *)x->kv, tile->dk * (int64_t)sizeof(float), m, at);
            } else form->qk[c->pooled_type](tile, pooled + at * stride, stride, m, at);
        }
        if (c->a.score == SSA_SCORE_DOT) return 0;
        for (int64_t i = 0; scrub && i < (narrow ? tile->rows : n); i++) {
            float *s = tile->s + i * tile->ld;
            for (int64_t j = 0; j < (narrow ? n : tile->ld); j++)
                if (!ssa__is_finite(s[j])) s[j] = ssa__float(SSA__NEG_INF_BITS);
        }
        form->softmax(tile, n, x->limit);
        for (int32_t r = 0; r < tile->rows; r++) broken |= ssa__is_nan(tile->l[r]);
        if (!broken || scrub) return scrub;
        for (int32_t r = 0; r < tile->rows; r++) { tile->m[r] = first[r]; tile->l[r] = 0.0f; }
    }
    return 1;
}

/* Whether the unit leaves scores as they are: of a list of one row they rank blocks as well. Not in shares, of which
 * some may come to be scored in a plain form, for which m must be known. */
static int ssa__raw(const ssa__call *c)
{
    return c->a.score == SSA_SCORE_DOT || (c->list_group == 1 && !c->nucleus && !c->n_shares);
}

/* A score without the third term is off by up to |scale| * |q| * |third|, and so, relatively, are its p and l, the
 * importances twice that; two of them compare as they should where they are four times that apart, and what floats
 * round off. */
static float ssa__doubt(const ssa__call *c, int64_t h, int32_t n, const ssa__tile *tile)
{
    const float scale = tile->scale < 0.0f ? -tile->scale : tile->scale;
    float q = 1e-15f, left = 1e-15f; /* of less than 1e-19 the square is lost */
    for (int32_t r = 0; r < tile->rows; r++) q = tile->fix[r] > q ? tile->fix[r] : q;
    for (int64_t b = 0; b < n; b += SSA__POOL_BLOCKS) {
        const float x = c->left_out[b / SSA__POOL_BLOCKS * c->a.n_kv_heads + h];
        left = x > left ? x : left;
    }
    return 4.1f * scale * q * left + 2e-6f;
}

/* Query rows r0 .. r1-1 of a part as the unit ranks by them, zeros for those that there are not. Returns where the next
 * part's go. */
static uint16_t *ssa__take_part(const ssa__table *t, const ssa__call *c, int64_t h, int64_t r0, int64_t r1,
                                uint16_t *queries, ssa__scratch *x)
{
    const int32_t term = SSA__LANES_MAX * x->tile->dk_unit, all = term * x->tile->q_terms;
    memset(queries, 0, (size_t)all * 2);
    ssa__take_queries(t, c, h, r0, r1, term, queries);
    return queries + all;
}

/* A fresh tile of query rows r0 .. r1-1 scored by the unit in parts of `part` rows, as x->flat says, against n pooled
 * keys: those laid out, or else the rows at `pooled`; m: where m of the rows starts, or NULL. Rows that met a number
 * that is not finite are left without a finite l. */
static void ssa__rank_tile(const ssa__table *t, const ssa__call *c, int64_t h, int64_t r0, int64_t r1, int32_t part,
                           const unsigned char *pooled, int32_t n, const float *m, ssa__scratch *x)
{
    const uint16_t *laid = c->laid ? c->laid + h * c->laid_head_stride : NULL;
    uint16_t *queries = x->take;
    ssa__shape_tile(c, &t->few, x->tile);
    x->tile->queries = queries;
    x->tile->rows = (int32_t)(r1 - r0);
    x->tile->flat = x->flat;
    x->part = part;
    x->part_keys = ssa__round_up(n, SSA__UNIT_DIM);
    for (int64_t r = r0; r < r1; r += part) queries = ssa__take_part(t, c, h, r, ssa__min(r + part, r1), queries, x);
    for (int32_t r = 0; r < SSA__UNIT_PARTS * SSA__LANES_MAX; r++)
        x->tile->m[r] = m && r < r1 - r0 ? m[r] : -FLT_MAX;
    for (int again = 1, done = 0; again && done < 2; done++) /* once more when m has moved, from where it is then */
        again = t->few.rank(x->tile, part, laid, pooled, c->rank_terms, c->rank_used, n, x->limit, ssa__raw(c));
    if (c->rank_used < c->rank_terms) x->doubt = ssa__doubt(c, h, n, x->tile);
}

/* The part that the tile's row r is in, once more, with all terms. */
static void ssa__rank_again(const ssa__table *t, const ssa__call *c, int64_t h, int32_t r, ssa__scratch *x)
{
    const int32_t i = r / x->part, at = i * x->part, rows = (int32_t)ssa__min(x->part, x->tile->rows - at);
    ssa__tile view = *x->tile;
    float l[SSA__LANES_MAX], fix[SSA__LANES_MAX];
    view.rows = rows;
    view.queries += (int64_t)i * SSA__LANES_MAX * view.dk_unit * view.q_terms;
    view.s += (int64_t)i * SSA__LANES_MAX * x->part_keys;
    view.m += at;
    view.l = l;
    view.fix = fix;
    for (int again = 1, done = 0; again && done < 2; done++)
        again = t->few.rank(&view, x->part, c->laid + h * c->laid_head_stride, NULL, c->rank_terms, c->rank_terms,
                            x->limit[at + rows - 1], x->limit + at, 0);
    memcpy(x->tile->l + at, l, (size_t)rows * sizeof *l);
}

/* The same by a plain form, which is left. Returns 1 when a key is broken. */
static int ssa__score_tile(const ssa__table *t, const ssa__call *c, int64_t h, int64_t r0, int64_t r1, int32_t from,
                           int32_t n, const float *m, ssa__scratch *x, const ssa__form **form)
{
    *form = ssa__plain_form(t, r1 - r0);
    if (*form == &t->wide && t->pairs.q_turn && c->a.q.type == SSA_BF16 && c->pooled_type == SSA_BF16 &&
        c->a.head_dim % 4 == 0)
        *form = &t->pairs;
    ssa__begin_tile(t, c, *form, c->pooled_type, h, r0, r1, x);
    if (m) memcpy(x->tile->m, m, (size_t)x->tile->rows * sizeof *m);
    return ssa__score_blocks(t, c, *form, h, from, n, x);
}

/* How many of the tile's first groups of rows are alike: all their l finite, or in each of them one that is not.
 * Returns whether they are finite. */
static int ssa__alike(const ssa__tile *tile, int32_t group, int32_t *n)
{
    int first = 1;
    *n = 0;
    for (int32_t r = 0; r < tile->rows; r += group, ++*n) {
        int finite = 1;
        for (int32_t i = r; i < r + group; i++) finite &= ssa__is_finite(tile->l[i]);
        if (r == 0) first = finite;
        else if (finite != first) break;
    }
    return first;
}

/* The importance of n blocks for lists of `group` rows each, within a part, from the tile's row r on; to imp. */
static void ssa__part_importance(const ssa__form *form, ssa__scratch *x, int32_t n, int32_t r, int32_t group,
                                 int32_t lists, float *imp)
{
    float *s = x->tile->s;
    x->tile->s += (int64_t)(r / x->part) * SSA__LANES_MAX * x->part_keys + r % x->part * SSA__UNIT_DIM;
    for (int32_t i = 0; i < group * lists; i++) x->tile->fix[i] = 1.0f / x->tile->l[r + i];
    form->importances(x->tile, n, group, lists, imp, x->imp_ld);
    x->tile->s = s;
}

/* Importance NaN, the lowest rank, for the blocks from .. from+n-1 of head h whose pooled key is not finite. */
static void ssa__mark_broken(const ssa__call *c, int64_t h, int32_t from, int32_t n, float *imp)
{
    const int64_t row = ssa__row_bytes(c->pooled_type, c->a.head_dim);
    const unsigned char *pooled = ssa__pooled_row(c, h, from);
    for (int32_t b = 0; b < n; b++)
        for (int32_t e = 0; e < c->a.head_dim; e++)
            if (!ssa__is_finite(ssa__load(c->pooled_type, pooled + b * row, e))) {
                imp[b] = ssa__float(0x7fc00000u);
                break;
            }
}

/* Importance NaN, the lowest rank, where a raw score or a sum of them is not finite. */
static void ssa__mark_infinite(int32_t n, float *imp)
{
    for (int32_t b = 0; b < n; b++) if (!ssa__is_finite(imp[b])) imp[b] = ssa__float(0x7fc00000u);
}

/* Lists of a head that were scored together: which, the form that did, and whether a pooled key is broken. Of those
 * whose importances a unit makes side by side, the first one of the part that is in imp. */
typedef struct { const ssa__form *form; int64_t first, end, summed; int broken; } ssa__scored;

/* Scores list u of head h and the next ones, up to u1 and as many as fit in `parts` parts of `per` lists; flat: how the
 * unit leaves p. */
static void ssa__score_lists(const ssa__table *t, const ssa__call *c, int64_t h, int64_t u, int64_t u1, int32_t parts,
                             int32_t per, int flat, ssa__scratch *x, ssa__scored *s)
{
    const int64_t group = c->list_group, lists = ssa__max(c->lists, 1);
    int32_t alike, finite = 0;
    s->first = u;
    s->end = ssa__min(u + parts * per, u1);
    memset(x->limit, 0, SSA__TILE_ROWS * sizeof *x->limit);
    for (int64_t v = u; v < s->end; v++) {
        const int32_t complete = (int32_t)((c->a.q_pos + v / lists + 1) / c->a.block_size);
        for (int64_t g = 0; g < group; g++) x->limit[(v - u) * group + g] = complete;
    }
    if (c->rank) { /* what a list does not see must not decide how it is scored */
        x->flat = flat;
        ssa__rank_tile(t, c, h, u * group, s->end * group, per * (int32_t)group, ssa__pooled_row(c, h, 0),
                       x->limit[(s->end - 1 - u) * group], NULL, x);
        x->flat = 0;
        finite = ssa__alike(x->tile, (int32_t)group, &alike);
        s->end = u + alike;
    }
    if (!finite) x->doubt = 0.0f;
    s->form = &t->few;
    s->broken = finite ? 0 : ssa__score_tile(t, c, h, u * group, s->end * group, 0,
                                             x->limit[(s->end - 1 - u) * group], NULL, x, &s->form);
}

/* The importance of blocks for list u, of those scored together: made for as many lists as a part has, or a vector of
 * rows. */
static float *ssa__importance_of(const ssa__call *c, int64_t u, int32_t per, ssa__scratch *x, ssa__scored *s)
{
    const int32_t group = c->list_group, vector = SSA__LANES_MAX / group; /* lists of a vector */
    const int32_t few = s->form->importances ? per : vector > 1 ? vector : 1;
    const int64_t from = u - (u - s->first) % few;
    if (from != s->summed) {
        const int32_t lists = (int32_t)ssa__min(few, s->end - from), r = (int32_t)(from - s->first) * group;
        const int32_t n = x->limit[r + (lists - 1) * group];
        if (s->form->importances) ssa__part_importance(s->form, x, n, r, group, lists, x->imp);
        else {
            for (int32_t i = 0; i < lists; i++) memset(x->imp + i * x->imp_ld, 0, (size_t)n * sizeof(float));
            ssa__add_importance(c, s->form, x->tile, n, r, group, lists, x->imp, x->imp_ld);
        }
        s->summed = from;
    }
    return x->imp + (u - from) * x->imp_ld;
}

/* The same for one list, whose group is larger than a part of `most` rows: `parts` of them at a time. Returns whether a
 * pooled key is broken. */
static int ssa__score_large(const ssa__table *t, const ssa__call *c, int64_t h, int64_t u, int32_t n, int32_t parts,
                            int32_t most, ssa__scratch *x)
{
    const int32_t group = c->list_group;
    const int32_t pooled = (int32_t)((c->a.q_pos + u / ssa__max(c->lists, 1) + 1) / c->a.block_size);
    const ssa__form *form = NULL;
    int32_t all;
    int broken = 0;
    memset(x->imp, 0, (size_t)n * sizeof(float));
    for (int32_t g = 0; g < group; g += parts * most) {
        const int32_t rows = (int32_t)ssa__min(parts * most, group - g);
        const int64_t r0 = u * group + g;
        for (int32_t r = 0; r < SSA__TILE_ROWS; r++) x->limit[r] = r < rows ? pooled : 0;
        if (c->rank) ssa__rank_tile(t, c, h, r0, r0 + rows, most, ssa__pooled_row(c, h, 0), pooled, NULL, x);
        if (c->rank && ssa__alike(x->tile, rows, &all)) {
            for (int32_t r = 0; r < rows; r += most) {
                ssa__part_importance(&t->few, x, n, r, (int32_t)ssa__min(most, rows - r), 1, x->imp + x->imp_ld);
                t->axpy(x->imp, 1.0f, x->imp + x->imp_ld, n);
            }
        } else {
            broken |= ssa__score_tile(t, c, h, r0, r0 + rows, 0, pooled, NULL, x, &form);
            ssa__add_importance(c, form, x->tile, n, 0, rows, 1, x->imp, 0);
        }
    }
    return broken;
}

/* Scores queries i0 .. i1-1 of head h together against n blocks from `from` on, as far as each sees them, by the unit
 * or in a plain form; m: where m of the rows starts, or NULL. Returns the form; NULL when the unit met a number that is
 * not finite. */
static const ssa__form *ssa__score_queries(const ssa__table *t, const ssa__call *c, int64_t h, int64_t i0, int64_t i1,
                                           int32_t from, int32_t n, int plain, const float *m, ssa__scratch *x,
                                           int *broken)
{
    const ssa__form *form = &t->few;
    const int64_t group = c->group;
    int32_t all;
    memset(x->limit, 0, SSA__TILE_ROWS * sizeof *x->limit);
    for (int64_t r = 0; r < (i1 - i0) * group; r++) {
        const int64_t sees = (c->a.q_pos + i0 + r / group + 1) / c->a.block_size - from;
        x->limit[r] = (int32_t)ssa__max(ssa__min(sees, n), 0);
    }
    n = x->limit[(i1 - i0) * group - 1];
    *broken = 0;
    if (plain) *broken = ssa__score_tile(t, c, h, i0 * group, i1 * group, from, n, m, x, &form);
    else ssa__rank_tile(t, c, h, i0 * group, i1 * group, ssa__share_part(c), ssa__pooled_row(c, h, from), n, m, x);
    return plain || ssa__alike(x->tile, (int32_t)((i1 - i0) * group), &all) ? form : NULL;
}

/* Scores queries i0 .. i1-1 of head h against share k, together; s: for each query room for share_rows. All shares of
 * a row start with the same m, so that equal blocks get equal bits. Returns 0 when the unit met a number that is not
 * finite. */
static int ssa__score_share(const ssa__table *t, const ssa__call *c, int64_t h, int32_t k, int64_t i0, int64_t i1,
                            int plain, float *s, ssa__scratch *x)
{
    const int starts = c->a.score != SSA_SCORE_DOT && (plain || !ssa__raw(c));
    const ssa__form *form;
    float m[SSA__TILE_ROWS];
    int broken;
    x->tile->s = s;
    if (starts) ssa__score_queries(t, c, h, i0, i1, 0, SSA__SHARE_SAMPLE, plain, NULL, x, &broken);
    for (int64_t r = 0; r < (i1 - i0) * c->group; r++)
        m[r] = starts && ssa__is_finite(x->tile->m[r]) ? x->tile->m[r] + SSA__SHARE_ABOVE : -FLT_MAX;
    x->flat = c->flat;
    form = ssa__score_queries(t, c, h, i0, i1, k * c->share_blocks, c->share_blocks, plain, m, x, &broken);
    x->flat = 0;
    for (int64_t i = i0; i < i1 && form; i++) {
        ssa__share *own = &c->shares[(i * c->a.n_kv_heads + h) * c->n_shares + k];
        own->form = form;
        own->s = s;
        own->step = form->importances ? x->part_keys : x->tile->ld;
        own->first = (int32_t)(i - i0) * c->group;
        own->broken = broken;
        memcpy(own->m, x->tile->m + own->first, (size_t)c->group * sizeof *own->m);
        memcpy(own->l, x->tile->l + own->first, (size_t)c->group * sizeof *own->l);
    }
    return form != NULL;
}

/* SCORE task: the queries of a tile against a share of the pooled keys. What a query does not see must not decide how
 * it is scored: where the unit meets a number that is not finite, each query is scored on its own. */
static void ssa__run_score(const ssa__table *t, const ssa__call *c, int64_t task, ssa__scratch *x)
{
    const int64_t tile = task / (c->n_shares * c->a.n_kv_heads), part = task % (c->n_shares * c->a.n_kv_heads);
    const int64_t h = part / c->n_shares, i0 = tile * c->tile_tokens, i1 = ssa__min(i0 + c->tile_tokens, c->a.n_q);
    const int32_t k = (int32_t)(part % c->n_shares);
    float *s = c->share_s + (part * c->a.n_q + i0) * ssa__share_floats(c), *own = x->tile->s;
    const int all = ssa__score_share(t, c, h, k, i0, i1, !c->rank, s, x);
    for (int64_t i = i0; !all && i < i1; i++, s += ssa__share_floats(c))
        if (!ssa__score_share(t, c, h, k, i, i + 1, 0, s, x)) ssa__score_share(t, c, h, k, i, i + 1, 1, s, x);
    x->tile->s = own;
}

/* Joins a query's shares: x->factor becomes l over all. Returns 1 when they are in one form, with one m for each row,
 * and can be weighed as they are. If not, m becomes one that no score is above, *plain whether it is for a plain form.
 */
static int ssa__join_shares(const ssa__call *c, const ssa__share *of, float *m, int *plain, ssa__scratch *x)
{
    const size_t bytes = (size_t)c->group * sizeof *m;
    double sum[SSA__TILE_ROWS], top;
    int same = 1;
    *plain = 0;
    for (int32_t j = 0; j < c->n_shares; j++) {
        *plain |= !of[j].form->importances;
        same &= of[j].form == of[0].form && memcmp(of[j].m, of[0].m, bytes) == 0;
    }
    for (int32_t r = 0; r < c->group; r++) sum[r] = 0.0;
    for (int32_t j = 0; j < c->n_shares && same; j++)
        for (int32_t r = 0; r < c->group; r++) sum[r] += (double)of[j].l[r];
    for (int32_t r = 0; r < c->group && !same; r++) {
        const double unit = *plain ? 1.0 : SSA__LN2;
        top = -DBL_MAX;
        for (int32_t j = 0; j < c->n_shares; j++) { /* the unit's m, in powers of 2, lags behind its scores */
            const int other = *plain && of[j].form->importances;
            const double at = other ? (double)of[j].m[r] * SSA__LN2 + (double)SSA__SHARE_ABOVE
                                    : (double)of[j].m[r];
            if (at > top) top = at;
        }
        m[r] = top > -(double)FLT_MAX ? (float)top : -FLT_MAX;
        for (int32_t j = 0; j < c->n_shares; j++) {
            const double own = (double)of[j].m[r] * (of[j].form->importances ? SSA__LN2 : 1.0);
            sum[r] += (double)of[j].l[r] * ssa__exp(own - (double)m[r] * unit);
        }
    }
    for (int32_t r = 0; r < c->group; r++)
        x->factor[r] = c->a.score == SSA_SCORE_DOT || (!*plain && ssa__raw(c)) ? 1.0f : (float)sum[r];
    return same;
}

/* WEIGH task: the importance of a share's blocks for a query, once all shares are scored. */
static void ssa__run_weigh(const ssa__table *t, const ssa__call *c, int64_t task, ssa__scratch *x)
{
    const int64_t u = task / c->n_shares, i = u / c->a.n_kv_heads, h = u % c->a.n_kv_heads;
    const int32_t k = (int32_t)(task % c->n_shares), from = k * c->share_blocks, group = c->list_group;
    const int32_t n = (int32_t)ssa__min(c->share_blocks, ssa__max(c->a.q_pos + i, 0) / c->a.block_size - from);
    const ssa__share *of = &c->shares[u * c->n_shares], *own = &of[k];
    const ssa__form *form = own->form;
    float *imp = c->share_imp + u * c->lists * x->imp_ld + from, *s = x->tile->s, m[SSA__TILE_ROWS];
    int32_t first = own->first, part;
    int broken = own->broken, plain;
    if (n <= 0) return; /* the query sees none of them */
    if (ssa__join_shares(c, of, m, &plain, x)) {
        ssa__shape_tile(c, form, x->tile);
        x->tile->rows = first + c->group;
        x->tile->s = own->s;
        x->tile->ld = own->step;
        x->tile->flat = c->flat;
        x->part_keys = (int32_t)own->step;
    } else {
        form = ssa__score_queries(t, c, h, i, i + 1, from, c->share_blocks, plain, m, x, &broken);
        first = 0;
    }
    part = x->part = form->importances ? ssa__share_part(c) : group;
    memcpy(x->tile->l + first, x->factor, (size_t)c->group * sizeof(float));
    for (int32_t list = 0, some; list < c->lists; list += some, imp += some * x->imp_ld) {
        const int32_t r = first + list * group;
        some = (int32_t)ssa__min(c->lists - list, (part - r % part) / group);
        if (form->importances) ssa__part_importance(form, x, n, r, group, some, imp);
        else {
            memset(imp, 0, (size_t)n * sizeof(float));
            ssa__add_importance(c, form, x->tile, n, r, group, 1, imp, 0);
        }
        for (int32_t j = 0; j < some; j++) {
            if (broken) ssa__mark_broken(c, h, from, n, imp + j * x->imp_ld);
            if (c->a.score == SSA_SCORE_DOT) ssa__mark_infinite(n, imp + j * x->imp_ld);
        }
    }
    x->tile->s = s;
}

/* Which blocks the best are among where importances are flat. Returns how many; -1: too many are near the best, or they
 * are next to nothing. */
static int32_t ssa__near(const ssa__table *t, const ssa__call *c, int32_t cur, int32_t keep, const float *imp,
                         int32_t *blocks)
{
    int32_t from, to, most = ssa__candidates(c, cur, keep, &from, &to);
    const float bar = to - from > SSA__TOPS && most > 0 ? ssa__bar(t, imp, from, to, most) : FLT_MAX;
    int32_t n = 0;
    if (bar > SSA__FLAT_LOW && bar < FLT_MAX)
        n = t->all_above(imp, from, to, bar * (1.0f - SSA__FLAT_DOUBT), blocks);
    return n > 0 ? n : -1;
}

/* Importances of n of these once more, from p as it is, to fresh; m and l: of the group's rows, whose queries the unit
 * has. m is so far up that no score moves it: p and l shrink by 2^9. */
static void ssa__weigh_near(const ssa__table *t, const ssa__call *c, int64_t h, const uint16_t *queries, int32_t n,
                            const int32_t *blocks, const float *m, const float *l, float *fresh, ssa__scratch *x)
{
    const int64_t row = ssa__row_bytes(c->pooled_type, c->a.head_dim);
    float own_m[SSA__LANES_MAX], own_l[SSA__LANES_MAX], fix[SSA__LANES_MAX];
    int32_t limit[SSA__LANES_MAX];
    ssa__tile view = *x->tile;
    for (int32_t k = 0; k < n; k++) memcpy(x->near_rows + k * row, ssa__pooled_row(c, h, blocks[k]), (size_t)row);
    for (int32_t r = 0; r < SSA__LANES_MAX; r++) {
        own_m[r] = r < c->group ? m[r] + SSA__SHARE_ABOVE + 1.0f : -FLT_MAX;
        limit[r] = r < c->group ? n : 0;
    }
    view.rows = c->group;
    view.flat = 0;
    view.queries = queries;
    view.s = x->near_s;
    view.m = own_m;
    view.l = own_l;
    view.fix = fix;
    t->few.rank(&view, c->group, NULL, x->near_rows, 1, 1, n, limit, 0);
    for (int32_t r = 0; r < c->group; r++) fix[r] = 512.0f / l[r];
    t->few.importances(&view, n, c->group, 1, fresh, 0);
}

/* Importances of query i and head h where shares are flat: those of blocks[], which the best are among, to fresh.
 * Returns how many; -1: all in imp are exact, which it sees to itself. */
static int32_t ssa__near_shared(const ssa__table *t, const ssa__call *c, int64_t h, int64_t i, int32_t cur,
                                int32_t keep, float *imp, float *fresh, int32_t *blocks, ssa__scratch *x)
{
    const ssa__share *of = &c->shares[(i * c->a.n_kv_heads + h) * c->n_shares];
    float m[SSA__TILE_ROWS], l[SSA__TILE_ROWS];
    int32_t n, some, broken;
    if (!ssa__join_shares(c, of, m, &broken, x) || !of->form->importances) return -1;
    memcpy(l, x->factor, (size_t)c->group * sizeof *l);
    n = ssa__near(t, c, cur, keep, imp, blocks);
    if (n > 0) {
        ssa__shape_tile(c, &t->few, x->tile);
        ssa__take_part(t, c, h, i * c->group, (i + 1) * c->group, x->take, x);
        ssa__weigh_near(t, c, h, x->take, n, blocks, of->m, l, fresh, x);
    }
    for (int32_t r = 0; r < c->group; r++) m[r] = of->m[r] + SSA__SHARE_ABOVE + 1.0f;
    for (int32_t from = 0; n < 0 && from < cur; from += c->share_blocks) {
        some = (int32_t)ssa__min(c->share_blocks, cur - from);
        ssa__score_queries(t, c, h, i, i + 1, from, some, 0, m, x, &broken);
        for (int32_t r = 0; r < c->group; r++) x->tile->l[r] = l[r] / 512.0f;
        ssa__part_importance(&t->few, x, some, 0, c->group, 1, imp + from);
    }
    return n;
}

/* The same for list u, one of those scored together. */
static int32_t ssa__near_listed(const ssa__table *t, const ssa__call *c, int64_t h, int64_t u, int32_t cur,
                                int32_t keep, float **imp, float *fresh, int32_t *blocks, ssa__scratch *x,
                                ssa__scored *s)
{
    const int32_t r = (int32_t)(u - s->first) * c->group, part = SSA__LANES_MAX * x->tile->dk_unit * x->tile->q_terms;
    int32_t n;
    if (!s->form->importances) return -1;
    n = ssa__near(t, c, cur, keep, *imp, blocks);
    if (n > 0) {
        ssa__weigh_near(t, c, h, x->tile->queries + (int64_t)(r / c->group) * part, n, blocks, x->tile->m + r,
                        x->tile->l + r, fresh, x);
        return n;
    }
    ssa__score_lists(t, c, h, u, u + 1, 1, 1, 0, x, s);
    s->summed = -1;
    *imp = ssa__importance_of(c, u, 1, x, s);
    return n;
}

/* SELECT task: the lists of the queries of one tile, one key/value head; list u is of the list_group rows from u *
 * list_group on. While a query sees no more blocks than it may keep there is nothing to score. As many lists are scored
 * at once as a tile has room for; a group of more heads than a part has rows is scored a query at a time, and its parts
 * add up. */
static void ssa__run_select(const ssa__table *t, const ssa__call *c, int64_t task, ssa__scratch *x)
{
    const int64_t tiles = ssa__ceil_div(c->a.n_q, c->tile_tokens), h = task / tiles, lists = ssa__max(c->lists, 1);
    const int64_t i0 = task % tiles * c->tile_tokens, u1 = ssa__min(i0 + c->tile_tokens, c->a.n_q) * lists;
    const int32_t most = c->rank ? SSA__LANES_MAX : SSA__TILE_ROWS, per = most / c->list_group; /* lists of a part */
    const int32_t room = c->rank ? (int32_t)ssa__min(SSA__UNIT_PARTS, x->rows_max / SSA__LANES_MAX) : 1;
    ssa__scored s = { NULL, i0 * lists, i0 * lists, -1, 0 };
    for (int32_t k = 0; c->joined && k < c->n_shares; k++)
        ssa__run_score(t, c, (task % tiles * c->a.n_kv_heads + h) * c->n_shares + k, x);
    for (int64_t i = i0; c->joined && i < u1 / lists; i++)
        for (int32_t k = 0; k < c->n_shares; k++)
            ssa__run_weigh(t, c, (i * c->a.n_kv_heads + h) * c->n_shares + k, x);
    for (int64_t u = i0 * lists; u < u1; u++) {
        int64_t i = u / lists, p = c->a.q_pos + i, at = (i * c->a.n_kv_heads + h) * lists + u % lists;
        int32_t *list = c->chosen + at * c->chosen_stride, n = 0, cur = (int32_t)(ssa__max(p, 0) / c->a.block_size);
        int32_t keep = c->a.top_k_per_head ? c->a.top_k_per_head[h * lists + u % lists] : c->keep;
        if (p < 0 || c->blank) {
            n = 0; /* before the first key: nothing to see */
        } else if (c->a.select == SSA_SELECT_GIVEN) {
            n = ssa__choose_given(c, c->a.blocks + at * c->a.top_k, cur, x, list);
        } else if (cur == 0 || (cur < keep && !c->nucleus)) { /* room for every block up to its own */
            for (; n <= cur; n++) list[n] = n;
        } else {
            const int32_t parts = cur > SSA__UNIT_NEAR && c->rank_terms == 1 ? (room + 1) / 2 : room;
            float *imp = x->imp, fresh[SSA__RUNNERS];
            int32_t near = -1, index[SSA__RUNNERS];
            if (c->n_shares) imp = c->share_imp + at * x->imp_ld; /* WEIGH has marked it */
            else if (per == 0) s.broken = ssa__score_large(t, c, h, u, cur, parts, most, x);
            else {
                if (u >= s.end) ssa__score_lists(t, c, h, u, u1, parts, per, c->flat, x, &s);
                imp = ssa__importance_of(c, u, per, x, &s);
            }
            if (s.broken) ssa__mark_broken(c, h, 0, cur, imp);
            if (c->a.score == SSA_SCORE_DOT && !c->n_shares) ssa__mark_infinite(cur, imp);
            if (c->flat && c->n_shares) near = ssa__near_shared(t, c, h, i, cur, keep, imp, fresh, index, x);
            else if (c->flat) near = ssa__near_listed(t, c, h, u, cur, keep, &imp, fresh, index, x, &s);
            n = ssa__choose(t, c, cur, keep, near < 0 ? imp : fresh, near, index, x->doubt, x, list);
            if (n < 0) {
                ssa__rank_again(t, c, h, (int32_t)(u - s.first) * c->list_group, x);
                s.summed = -1;
                n = ssa__choose(t, c, cur, keep, ssa__importance_of(c, u, per, x, &s), -1, NULL, 0.0f, x, list);
            }
        }
        for (int64_t j = n; j < c->chosen_stride; j++) list[j] = -1;
    }
}

/* =====================================================================================================================
 * 13  THE ATTENTION LOOP, FORWARD
 *     For a tile of query rows, chunk by chunk along the keys: s = scale * q.k, p and m, l, fix by the online softmax,
 *     o = o * fix + p.v. At the end out = gate * o / l and lse = m + log l. The modes differ only in which keys come:
 *     all from 0 on, or those of the selected blocks, one after the other; the loop knows neither types nor levels.
 *     Terms of the scores come between the products and the softmax: adjust. The sink joins a row at its end.
 *     A share of the keys (decode) leaves its ungated output and lse in the workspace for the MERGE task; its heads go
 *     along the keys side by side. A matrix unit does a chunk whole. A sparse prefill gathers rows by the blocks that
 *     they chose: each block is then brought in once for all of them.
 *     The diagnosis and the alignment loss are at the end of the section.
 * ================================================================================================================== */

/* The keys that a tile attends, as one virtual sequence 0 .. n-1: all keys from 0 on, or the keys of ascending blocks,
 * of which the last may be cut short. */
typedef struct ssa__keys_of { const int32_t *blocks; int64_t n; int32_t block_size; const ssa_attn *a; } ssa__keys;

/* The run of keys adjacent in memory that starts at virtual index x, of at most `most` keys. Returns its first key. How
 * a chunk falls into runs must not show in its bits. */
static int64_t ssa__run_at(const ssa__keys *keys, int64_t x, int64_t most, int32_t *n)
{
    int64_t b, off, len, key;
    if (keys->blocks == NULL) { *n = (int32_t)ssa__adjacent(keys->a, x, most); return x; }
    b = x / keys->block_size;
    off = x % keys->block_size;
    len = keys->block_size - off;
    for (int64_t next = b + 1; len < most && keys->blocks[next] == keys->blocks[next - 1] + 1; next++)
        len += keys->block_size;
    key = (int64_t)keys->blocks[b] * keys->block_size + off;
    *n = (int32_t)ssa__adjacent(keys->a, key, ssa__min(len, most));
    return key;
}

/* -- terms of the scores -- */

/* What is added to the scores of rows r0 .. r0+rows-1 of the call's head: n keys from position `key` on, which lie in
 * the cache one after the other. -infinity: not seen. */
static void ssa__make_biases(const ssa__shaper *w, int64_t key, int32_t n, int64_t r0, int32_t rows)
{
    const ssa__call *c = w->c;
    float *shared = w->bias + SSA__LANES_MAX * SSA__PIECE;
    for (int32_t r = 0; r < rows; r++) {
        int64_t i = (r0 + r) / c->group, g = (r0 + r) % c->group;
        float *b = w->bias + r * SSA__PIECE;
        if (r == 0 || g == 0) {
            int32_t low = (int32_t)ssa__max(0, ssa__min(ssa__first(c, i) - key, n));
            if (c->a.mask) { /* not past what the query sees */
                int32_t sees = (int32_t)ssa__max(0, ssa__min(ssa__visible(c, i) - key, n));
                const unsigned char *mask = (const unsigned char *)c->a.mask + i * c->a.mask_stride;
                w->t->pack[c->a.mask_type](shared, SSA__PIECE, mask + ssa__row_bytes(c->a.mask_type, key), 0, 1, sees);
            } else memset(shared, 0, (size_t)n * sizeof(float));
            for (int32_t j = 0; j < low; j++) shared[j] = ssa__float(SSA__NEG_INF_BITS);
        }
        memcpy(b, shared, (size_t)n * sizeof(float));
        if (c->a.alibi) w->t->ramp(b, c->a.alibi[w->h * c->group + g], (float)(key - c->a.q_pos - i), n);
    }
}

/* Whether a mask alone shapes the scores of these rows and n keys, and is zero for all of them: often nearly all of a
 * mask is, and need not be spread over the heads. */
static int ssa__unmasked(const ssa__shaper *w, int64_t key, int32_t n, int64_t r0, int32_t rows)
{
    const ssa_attn *a = &w->c->a;
    const int64_t size = ssa__row_bytes(a->mask_type, 1), i1 = (r0 + rows - 1) / w->c->group;
    uint64_t any = 0, x;
    if (!a->mask || a->alibi || ssa__first(w->c, i1) > key) return 0;
    for (int64_t i = r0 / w->c->group; i <= i1 && !any; i++) {
        const unsigned char *mask = (const unsigned char *)a->mask + i * a->mask_stride + key * size;
        int64_t bytes = ssa__max(0, ssa__min(ssa__visible(w->c, i) - key, n)) * size;
        for (; bytes >= 8; bytes -= 8, mask += 8) { memcpy(&x, mask, 8); any |= x; }
        for (; bytes > 0; bytes--) any |= *mask++;
    }
    return any == 0;
}

/* ssa__tile's adjust. */
static void ssa__adjust(const ssa__tile *tile, float *s, int64_t key_step, int64_t row_step, int32_t key, int32_t n,
                        int32_t row, int32_t rows)
{
    const ssa__shaper *w = (const ssa__shaper *)tile->shaper;
    const ssa__call *c = w->c;
    const int64_t at = w->at + key, r0 = w->r0 + row;
    const int biased = c->a.alibi || c->a.mask || ssa__first(c, (r0 + rows - 1) / c->group) > at ||
                       c->a.softcap > -SSA__BIAS_LOW; /* such a cap leaves no room for the unit's factor */
    float scale = w->scale;
    int32_t run;
    if (c->a.softcap > 0.0f) {
        float cap = biased ? c->a.softcap : c->a.softcap * w->unit, factor = scale / c->a.softcap;
        if (!ssa__is_finite(factor)) factor = FLT_MAX;
        if (key_step != 1) w->t->cap(s, n * key_step, factor, cap);
        for (int32_t r = 0; key_step == 1 && r < rows; r++) w->t->cap(s + r * row_step, n, factor, cap);
        scale = 1.0f;
    }
    if (!biased) return;
    for (int32_t j = 0; j < n; j += run) {
        int64_t first = ssa__run_at(w->keys, at + j, ssa__min(n - j, SSA__PIECE), &run);
        for (int32_t r = 0; r < rows; r += SSA__LANES_MAX) {
            int32_t some = (int32_t)ssa__min(rows - r, SSA__LANES_MAX);
            const float *bias = NULL;
            if (!ssa__unmasked(w, first, run, r0 + r, some)) {
                ssa__make_biases(w, first, run, r0 + r, some);
                bias = w->bias;
            }
            w->t->bias(s + j * key_step + r * row_step, key_step, row_step, scale, w->unit, bias, SSA__PIECE, run,
                       some);
        }
    }
}

/* Whether the mask hides a key from query i. */
static int ssa__masked(const ssa__call *c, int64_t i, int64_t key)
{
    return c->a.mask && ssa__bits(ssa__load(c->a.mask_type, (const unsigned char *)c->a.mask + i * c->a.mask_stride,
                                            key)) == SSA__NEG_INF_BITS;
}

/* ssa__tile's sees. */
static int ssa__sees(const ssa__tile *tile, int32_t row, int32_t key)
{
    const ssa__shaper *w = (const ssa__shaper *)tile->shaper;
    int32_t run;
    int64_t i = (w->r0 + row) / w->c->group, at = ssa__run_at(w->keys, w->at + key, 1, &run);
    return at >= ssa__first(w->c, i) && at < ssa__visible(w->c, i) && !ssa__masked(w->c, i, at);
}

/* Sets a tile up for the terms of the chunk of n keys from virtual key `at` on. A window alone leaves a chunk as it is
 * that its edge does not cross. */
static void ssa__aim(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h, const ssa__keys *keys,
                     int64_t at, int32_t n, int64_t r0, ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    ssa__shaper *w = &x->shaper;
    int crossed;
    if (!c->shaped && c->a.window == 0) return;
    crossed = ssa__first(c, (r0 + tile->rows - 1) / c->group) > at;
    w->t = t;
    w->c = c;
    w->keys = keys;
    w->at = at;
    w->h = h;
    w->r0 = r0;
    w->scale = w->unit = 1.0f;
    tile->shaper = w;
    tile->adjust = c->shaped || crossed ? ssa__adjust : NULL;
    tile->sees = w->careful && (c->a.mask || crossed) ? ssa__sees : NULL;
    tile->start = NULL;
    if (form->attend && c->shaped) { /* a negative scale's sign is in q */
        w->scale = c->a.scale < 0.0f ? -c->a.scale : c->a.scale;
        w->unit = (float)(1.0 / tile->m_unit);
        tile->scale = 0.0f;
    }
    if (!form->attend || !crossed) return;
    for (int32_t r = 0; r < tile->rows; r++)
        x->low[r] = (int32_t)ssa__max(0, ssa__min(ssa__first(c, (r0 + r) / c->group) - at, n));
    tile->start = x->low;
}

/* A row's end: the sum l of exp(score - m) joined by the sink. Returns 1 / l in units of exp(-m). */
static double ssa__join_sink(double m, double l, float sink, double *lse)
{
    const double d = (double)sink - m;
    double e;
    if (d > 0.0) {
        e = ssa__exp(-d);
        l = l * e + 1.0;
        *lse = (double)sink + ssa__log(l);
        return e / l;
    }
    l += ssa__exp(d);
    *lse = m + ssa__log(l);
    return 1.0 / l;
}

/* The sink of a query head; NULL: none. */
static const float *ssa__sink(const ssa__call *c, int64_t head)
{
    return c->a.sinks && ssa__bits(c->a.sinks[head]) != SSA__NEG_INF_BITS ? &c->a.sinks[head] : NULL;
}

/* -- the keys' values, where some row does not see them -- */

/* Values at .. at+n-1 of a chunk that the causal edge crosses, of which row r sees the first limit[r], never fewer than
 * the row before. A key out of sight has p = 0, but 0 * v is NaN when v is not finite, and a row's bits may not depend
 * on what it does not see. Narrow rows are done in runs that see the same keys. */
static void ssa__narrow_edge(const ssa__form *form, ssa__tile *t, ssa_type type, const unsigned char *v, int64_t stride,
                             int32_t at, int32_t n, const int32_t *limit)
{
    ssa__tile lower = *t; /* rows r and below: those that see value j */
    int32_t j = at;
    for (int32_t r = 0; r < t->rows; r++) {
        int32_t sees = (int32_t)ssa__max(at, ssa__min(limit[r], at + n));
        if (sees == j && r + at > 0) continue;
        lower.rows = t->rows - r;
        lower.s = t->s + r * t->ld;
        lower.o = t->o + (int64_t)r * t->dv_pad;
        form->pv[type](&lower, v + (j - at) * stride, stride, sees - j, j, r + at == 0);
        lower.ahead_rows = 0;
        j = sees;
    }
}

/* The values of a run of n keys, from the chunk's key j0 on, for rows that see any of them: row by row, over keys that
 * it sees. */
static void ssa__narrow_apart(const ssa__form *form, const ssa__tile *t, ssa_type type, const unsigned char *v,
                              int64_t stride, int32_t n, int32_t j0)
{
    ssa__tile one = *t;
    one.rows = 1;
    one.ahead_rows = 0;
    if (j0 == 0) form->pv[type](t, v, stride, 0, 0, 1); /* the factor fix alone */
    for (int32_t r = 0; r < t->rows; r++) {
        one.s = t->s + r * t->ld;
        one.o = t->o + (int64_t)r * t->dv_pad;
        for (int32_t j = 0, seen; j < n; j += seen + 1) { /* key j + seen, if any, is not seen */
            for (seen = 0; j + seen < n && t->sees(t, r, j0 + j + seen);) seen++;
            if (seen > 0) form->pv[type](&one, v + j * stride, stride, seen, j0 + j, 0);
        }
    }
}

/* Wide rows share their lanes: values that are not finite are taken out of the chunk's n, from virtual key `at` on of
 * head h, and added to the rows that see them. */
static void ssa__wide_edge(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h,
                           const ssa__keys *keys, int64_t at, int32_t n, const int32_t *limit, ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    const int32_t dv = tile->dv, edge = tile->sees ? 0 : limit[0];
    float *sum = x->rows, *v = x->kv + (int64_t)edge * dv;
    int32_t run;
    int finite = 1;
    memset(sum, 0, (size_t)dv * sizeof(float)); /* 0 * v summed over the keys is NaN where one is not finite */
    for (int32_t j = edge; j < n; j++) t->axpy(sum, 0.0f, x->kv + (int64_t)j * dv, dv);
    for (int32_t e = 0; e < dv; e++) finite &= !ssa__is_nan(sum[e]);
    for (int64_t i = 0; !finite && i < (int64_t)(n - edge) * dv; i++) if (!ssa__is_finite(v[i])) v[i] = 0.0f;
    form->pv[SSA_F32](tile, (const unsigned char *)x->kv, dv * (int64_t)sizeof(float), n, 0, 1);
    for (int32_t j = edge; !finite && j < n; j++) {
        const unsigned char *row = ssa__v_row(&c->a, ssa__run_at(keys, at + j, 1, &run), h);
        int32_t bad = 0;
        while (bad < dv && ssa__is_finite(ssa__load(c->a.v.type, row, bad))) bad++;
        for (int32_t r = 0; bad < dv && r < tile->rows; r++) {
            if (tile->sees ? !tile->sees(tile, r, j) : j >= limit[r]) continue;
            for (int32_t e = bad; e < dv; e++) {
                float y = ssa__load(c->a.v.type, row, e);
                if (!ssa__is_finite(y)) tile->o[e * tile->ld + r] += tile->s[j * tile->ld + r] * y;
            }
        }
    }
}

/* Names a run of n rows of K (k = 1) or V for the next entry to prefetch; or prefetches them now (short runs). */
static void ssa__look_ahead(ssa__tile *t, const ssa_attn *a, int k, int64_t key, int64_t h, int32_t n, int now)
{
    const ssa_view *v = k ? &a->k : &a->v;
    t->ahead = ssa__cache_row(a, k, key, h);
    t->ahead_stride = v->token_stride;
    t->ahead_rows = n;
    t->ahead_bytes = (int32_t)ssa__row_bytes(v->type, k ? t->dk : t->dv);
    if (!now) return;
    ssa__prefetch(t, 0, n, 0, t->ahead_bytes);
    t->ahead_rows = 0;
}

/* The same for the n keys from virtual index x on. Blocks come in short runs; so do pages that are not adjacent. */
static void ssa__look_ahead_keys(ssa__tile *t, const ssa__keys *keys, int k, int64_t x, int64_t h, int32_t n)
{
    t->ahead_rows = 0;
    for (int32_t j = 0, run; j < n; j += run) {
        int64_t key = ssa__run_at(keys, x + j, n - j, &run);
        ssa__look_ahead(t, keys->a, k, key, h, run, keys->blocks || run < n);
    }
}

/* Where the heads of a task go along the keys side by side, and a token's rows of these lie in one piece: their number,
 * and head *h's share of the *n tokens from *key on, to be brought in with all of them, from the task's first head on.
 * The cache then comes in in the order in which it lies, which the machine's own prefetching and its memory are
 * quickest at. Else 1. */
static int32_t ssa__aside(const ssa__call *c, const ssa_view *v, int64_t bytes, int64_t *key, int64_t *h, int32_t *n)
{
    const int64_t i = *h % c->task_heads, heads = ssa__min(c->task_heads, c->a.n_kv_heads - (*h - i)),
                  from = *n * i / heads;
    if (v->head_stride != bytes || heads * bytes > 1 << 20) return 1;
    *key += from;
    *h -= i;
    *n = (int32_t)(*n * (i + 1) / heads - from);
    return (int32_t)heads;
}

/* As ssa__look_ahead_keys, for heads side by side. A share may lie in one page where the n keys do not. */
static void ssa__look_aside(ssa__tile *t, const ssa__call *c, const ssa__keys *keys, int k, int64_t x, int64_t h,
                            int32_t n)
{
    const ssa_view *v = k ? &c->a.k : &c->a.v;
    int32_t run = 0, share = n;
    int64_t key = n > 0 ? ssa__run_at(keys, x, n, &run) : 0, first = h;
    if (n > 0 && (keys->blocks == NULL || run == n)) {
        const int32_t heads = ssa__aside(c, v, ssa__row_bytes(v->type, k ? t->dk : t->dv), &key, &first, &share);
        if (share == 0 || ssa__adjacent(&c->a, key, share) >= share) {
            ssa__look_ahead(t, &c->a, k, key, first, share, 0);
            t->ahead_bytes *= heads;
            return;
        }
    }
    ssa__look_ahead_keys(t, keys, k, x, h, n);
}

/* Where the causal edge crosses the n keys from virtual key at on: how many of them each row of the tile sees, padding
 * none; else, or when the keys come from a list, NULL. */
static const int32_t *ssa__limits(const ssa__call *c, const ssa__tile *t, const ssa__keys *keys, int64_t at, int32_t n,
                                  int64_t r0, ssa__scratch *x)
{
    if (keys->blocks || ssa__visible(c, r0 / c->group) >= at + n) return NULL;
    for (int32_t r = 0; r < x->rows_max; r++) {
        int64_t sees = r < t->rows ? ssa__visible(c, (r0 + r) / c->group) - at : 0;
        x->limit[r] = (int32_t)ssa__max(0, ssa__min(sees, n));
    }
    return x->limit;
}

/* Names n keys, and their values, that are read a chunk later. */
static void ssa__ahead(ssa__tile *t, const ssa__call *c, int64_t key, int64_t h, int32_t n)
{
    t->ahead_rows = n;
    if (n == 0) return;
    t->ahead = ssa__k_row(&c->a, key, h);
    t->ahead_v = ssa__v_row(&c->a, key, h);
    t->ahead_stride = c->a.k.token_stride;
    t->ahead_v_stride = c->a.v.token_stride;
    t->ahead_bytes = (int32_t)ssa__row_bytes(c->a.k.type, t->dk);
    t->ahead_v_bytes = (int32_t)ssa__row_bytes(c->a.v.type, t->dv);
}

/* The same for n > 0 keys and heads side by side. Returns 0 where they are not in one piece. */
static int ssa__ahead_aside(ssa__tile *t, const ssa__call *c, int64_t key, int64_t h, int32_t n)
{
    int32_t heads = 1;
    ssa__ahead(t, c, key, h, n);
    if (c->a.v.head_stride == t->ahead_v_bytes && c->task_heads * (int64_t)t->ahead_v_bytes <= 1 << 20)
        heads = ssa__aside(c, &c->a.k, t->ahead_bytes, &key, &h, &n);
    if (n > 0 && ssa__adjacent(&c->a, key, n) < n) return 0;
    ssa__ahead(t, c, key, h, n); /* a share may be of no keys: the bytes are those from above */
    t->ahead_bytes *= heads;
    t->ahead_v_bytes *= heads;
    return 1;
}

/* Keys j .. j+n-1 of the chunk, and their values, lie one after the other from k and v on. */
static void ssa__point_runs(ssa__scratch *x, int32_t j, int32_t n, const unsigned char *k, const unsigned char *v)
{
    for (int32_t i = 0; i < n; i += SSA__UNIT_RUN) {
        x->runs[0][(j + i) / SSA__UNIT_RUN] = k + i * x->tile->k_stride;
        x->runs[1][(j + i) / SSA__UNIT_RUN] = v + i * x->tile->v_stride;
    }
    x->tile->k_runs = x->runs[0];
    x->tile->v_runs = x->runs[1];
}

/* The n keys and values of head h from virtual key `at` on to the tile's own, as terms. */
static void ssa__take_chunk(const ssa__table *t, const ssa__call *c, ssa__tile *tile, const ssa__keys *keys, int64_t at,
                            int32_t n, int64_t h)
{
    const ssa_view *k = &c->a.k, *v = &c->a.v;
    int32_t run;
    tile->k_rows = (const unsigned char *)tile->k;
    tile->v_rows = (const unsigned char *)tile->v;
    tile->k_stride = tile->dk_unit * 2;
    tile->v_stride = tile->dv_unit * 2;
    for (int32_t j = 0; j < n; j += run) {
        int64_t key = ssa__run_at(keys, at + j, n - j, &run);
        t->take[k->type](tile->k + (int64_t)j * tile->dk_unit, (int64_t)tile->keys_max * tile->dk_unit, tile->dk_unit,
                         ssa__k_row(&c->a, key, h), k->token_stride, run, tile->dk);
        t->take[v->type](tile->v + (int64_t)j * tile->dv_unit, (int64_t)tile->keys_max * tile->dv_unit, tile->dv_unit,
                         ssa__v_row(&c->a, key, h), v->token_stride, run, tile->dv);
    }
}

/* Points the tile at the n keys from virtual key `at` on where they lie, if that is in one piece, or in pieces that the
 * form takes. */
static int ssa__take_in_place(const ssa__call *c, const ssa__form *form, const ssa__keys *keys, int64_t at, int32_t n,
                              int64_t h, ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    tile->k_stride = c->a.k.token_stride;
    tile->v_stride = c->a.v.token_stride;
    for (int32_t j = 0, run; j < n; j += run) {
        const int64_t key = ssa__run_at(keys, at + j, n - j, &run);
        const unsigned char *k = ssa__k_row(&c->a, key, h), *v = ssa__v_row(&c->a, key, h);
        if (run < n && (!form->runs || run % SSA__UNIT_RUN)) return 0;
        if (j == 0) { tile->k_rows = k; tile->v_rows = v; }
        if (form->runs) ssa__point_runs(x, j, run, k, v);
    }
    return 1;
}

/* The number of keys of chunk `at` that were laid out. */
static int32_t ssa__laid_keys(const ssa__call *c, int64_t at)
{
    return (int32_t)ssa__min(SSA__UNIT_KEYS, ssa__visible(c, c->a.n_q - 1) - at);
}

/* Points the tile at the chunk of n keys from `at` on as the PACK phase left it, if it did. Not where a value out of
 * sight is not finite, for 0 times it is NaN. */
static int ssa__laid_chunk(const ssa__call *c, ssa__tile *tile, int64_t h, int64_t at, int32_t n, const int32_t *limit)
{
    const int64_t chunk = h * c->n_packed + at / SSA__UNIT_KEYS;
    if (!c->lays_kv || (c->packed_broken[chunk] && (limit || tile->sees || n < ssa__laid_keys(c, at)))) return 0;
    tile->k_rows = c->packed + chunk * c->packed_bytes;
    tile->k_stride = tile->dk_unit * 2;
    tile->v_laid = (const uint16_t *)(const void *)tile->k_rows +
                   tile->keys_max * ssa__laid_bytes(c->a.k.type, tile->dk) / 2;
    return 1;
}

/* The same for the next n keys, which follow in the next chunk. */
static void ssa__ahead_laid(const ssa__call *c, ssa__tile *t, int32_t n)
{
    t->ahead = t->k_rows + c->packed_bytes;
    t->ahead_v = (const unsigned char *)t->v_laid + c->packed_bytes;
    t->ahead_stride = t->ahead_bytes = t->dk_unit * 2;
    t->ahead_v_stride = t->ahead_v_bytes = t->dv_unit * 2;
    t->ahead_rows = n;
}

/* Keys (k = 1) or values of head h from `key` on, as floats that the PACK phase left. */
static unsigned char *ssa__laid_row(const ssa__call *c, int k, int64_t key, int64_t h)
{
    const int64_t before = k ? 0 : c->n_packed * SSA__UNIT_KEYS * c->a.head_dim;
    return c->packed + h * c->n_packed * c->packed_bytes +
           (before + key * (k ? c->a.head_dim : c->a.value_dim)) * (int64_t)sizeof(float);
}

/* As ssa__look_ahead, for n of these. */
static void ssa__look_laid(ssa__tile *t, const ssa__call *c, int k, int64_t key, int64_t h, int32_t n)
{
    t->ahead = ssa__laid_row(c, k, key, h);
    t->ahead_stride = t->ahead_bytes = (k ? t->dk : t->dv) * (int32_t)sizeof(float);
    t->ahead_rows = n;
}

/* As ssa__attend_keys, for a form that does a chunk whole. While a chunk is computed the next one is prefetched. */
static void ssa__attend_chunks(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h,
                               const ssa__keys *keys, int64_t from, int64_t to, int64_t end, int64_t chunk, int64_t r0,
                               ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    /* So few rows come here for bf16 alone, or for f16 where the form splits it itself (ssa__attend_form). */
    const int in_place = tile->rows <= form->in_place && tile->dk == tile->dk_unit && tile->dv == tile->dv_unit;
    int32_t n, run, next, whole;
    for (int64_t at = from; at < to; at += n) {
        const int32_t *limit;
        n = (int32_t)ssa__min(chunk, to - at);
        limit = ssa__limits(c, tile, keys, at, n, r0, x);
        whole = in_place ? (limit ? limit[0] : n) / SSA__UNIT_DIM * SSA__UNIT_DIM : 0;
        if (whole > 0 && whole < n) { /* that much in place, the rest apart */
            n = whole;
            limit = NULL;
        }
        ssa__aim(t, c, form, h, keys, at, n, r0, x);
        tile->v_laid = NULL;
        if (in_place && n % SSA__UNIT_DIM == 0 && !limit && !tile->sees
            && ssa__take_in_place(c, form, keys, at, n, h, x)) {
        } else if (!form->lay_values || !ssa__laid_chunk(c, tile, h, at, n, limit)) {
            ssa__take_chunk(t, c, tile, keys, at, n, h);
            if (form->runs) ssa__point_runs(x, 0, ssa__round_up(n, SSA__UNIT_DIM), tile->k_rows, tile->v_rows);
        }
        next = (int32_t)ssa__min(chunk, end - at - n);
        tile->ahead_rows = 0;
        if (tile->v_laid) {
            ssa__ahead_laid(c, tile, next);
            next = 0;
        } else if (keys->blocks == NULL && next > 0 && ssa__ahead_aside(tile, c, at + n, h, next)) next = 0;
        for (int32_t j = 0; j < next; j += run) { /* short runs: at once */
            int64_t key = ssa__run_at(keys, at + n + j, next - j, &run);
            ssa__ahead(tile, c, key, h, run);
            ssa__fetch_rows(tile->ahead, tile->ahead_stride, 0, run, run, tile->ahead_bytes);
            ssa__fetch_rows(tile->ahead_v, tile->ahead_v_stride, 0, run, run, tile->ahead_v_bytes);
            tile->ahead_rows = 0;
        }
        form->attend(tile, n, limit);
        tile->fresh = 0;
    }
}

/* The most keys of a chunk of a form without the unit's attend. */
static int32_t ssa__plain_chunk(const ssa__form *form, int32_t rows)
{
    return form->chunk ? form->chunk : rows <= SSA__LANES_MAX ? SSA__CHUNK_FEW : SSA__CHUNK;
}

/* n keys (k = 1) or values from virtual key `at` on, copied into one piece. */
static const unsigned char *ssa__one_piece(const ssa__call *c, const ssa__keys *keys, int k, int64_t at, int32_t n,
                                           int64_t h, int64_t *stride, ssa__scratch *x)
{
    const ssa_view *v = k ? &c->a.k : &c->a.v;
    unsigned char *dst = (unsigned char *)x->kv;
    *stride = ssa__row_bytes(v->type, k ? c->a.head_dim : c->a.value_dim);
    for (int32_t j = 0, run; j < n; j += run) {
        const unsigned char *row = ssa__cache_row(&c->a, k, ssa__run_at(keys, at + j, n - j, &run), h);
        for (int32_t i = 0; i < run; i++, dst += *stride) memcpy(dst, row + i * v->token_stride, (size_t)*stride);
    }
    return (const unsigned char *)x->kv;
}

/* The running state over virtual keys from .. to-1, for the tile whose first row is r0. While the scores of a chunk are
 * computed its values are prefetched, and during its values the next chunk's keys; where other heads come in between,
 * the next chunk's keys, then its values. Keys up to end will follow. */
static void ssa__attend_keys(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h,
                             const ssa__keys *keys, int64_t from, int64_t to, int64_t end, int64_t r0,
                             ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    const ssa_view *k = &c->a.k, *v = &c->a.v;
    const unsigned char *packed = (const unsigned char *)x->kv;
    const int32_t dk = tile->dk, dv = tile->dv;
    const int32_t chunk = ssa__plain_chunk(form, tile->rows);
    const int laid = c->lays_kv && !c->unit && form->packs; /* else that is how the unit has them */
    const int side = c->task_heads > 1, whole_k = form == &t->q8 && k->type == SSA_Q8_0,
              whole_v = form == &t->q8 && v->type == SSA_Q8_0;
    for (int64_t at = from; at < to; at += chunk) {
        int32_t n = (int32_t)ssa__min(chunk, to - at), run = 0, after = (int32_t)ssa__min(chunk, end - at - n);
        const int32_t *limit = tile->limit = ssa__limits(c, tile, keys, at, n, r0, x);
        int packs = form->packs;
        if (laid) {
            ssa__look_laid(tile, c, 0, at, h, n);
            form->qk[SSA_F32](tile, ssa__laid_row(c, 1, at, h), dk * (int64_t)sizeof(float), n, 0);
            packs = 0;
        }
        for (int32_t j = 0; j < n && !laid; j += run) {
            int64_t key = ssa__run_at(keys, at + j, n - j, &run);
            const unsigned char *row = ssa__k_row(&c->a, key, h);
            if (!side) ssa__look_ahead(tile, &c->a, 0, key, h, run, keys->blocks || run < n);
            else if (j == 0) ssa__look_aside(tile, c, keys, 1, at + n, h, after);
            if (run == n && k->type == SSA_F32 && ((uintptr_t)row | (uintptr_t)k->token_stride) % sizeof(float) == 0)
                packs = 0; /* a chunk of floats in one piece is read where it is */
            if (packs) t->pack[k->type](x->kv + (int64_t)j * dk, dk, row, k->token_stride, run, dk);
            else {
                int64_t stride = k->token_stride;
                if (whole_k && run < n - j && run % SSA__LANES_MAX) { /* fewer would take as long as so many */
                    row = ssa__one_piece(c, keys, 1, at + j, n - j, h, &stride, x);
                    run = n - j;
                }
                form->qk[k->type](tile, row, stride, run, j);
                tile->ahead_rows = 0; /* all prefetched */
            }
        }
        if (packs) form->qk[SSA_F32](tile, packed, dk * (int64_t)sizeof(float), n, 0);

        ssa__aim(t, c, form, h, keys, at, n, r0, x);
        if (tile->adjust)
            tile->adjust(tile, tile->s, form->packs ? tile->ld : 1, form->packs ? 1 : tile->ld, 0, n, 0, tile->rows);
        form->softmax(tile, n, limit);

        if (side) ssa__look_aside(tile, c, keys, 0, at + n, h, after);
        else if (laid) ssa__look_laid(tile, c, 1, at + n, h, after);
        else ssa__look_ahead_keys(tile, keys, 1, at + n, h, after);
        if (laid && !limit && !tile->sees) {
            form->pv[SSA_F32](tile, ssa__laid_row(c, 0, at, h), dv * (int64_t)sizeof(float), n, 0, 1);
            continue;
        }
        for (int32_t j = 0; j < n; j += run) {
            int64_t key = ssa__run_at(keys, at + j, n - j, &run), stride = v->token_stride;
            const unsigned char *row = ssa__v_row(&c->a, key, h);
            if (whole_v && run < n) { /* no bit may depend on where they lie in the cache */
                row = ssa__one_piece(c, keys, 0, at, n, h, &stride, x);
                run = n;
            }
            if (whole_v) form->pv[v->type](tile, row, stride, n, 0, 1);
            else if (form->packs) t->pack[v->type](x->kv + (int64_t)j * dv, dv, row, stride, run, dv);
            else if (tile->sees) ssa__narrow_apart(form, tile, v->type, row, stride, run, j);
            else if (limit) ssa__narrow_edge(form, tile, v->type, row, stride, j, run, limit);
            else form->pv[v->type](tile, row, stride, run, j, j == 0);
            if (!form->packs) tile->ahead_rows = 0;
        }
        if (form->packs && (limit || tile->sees)) ssa__wide_edge(t, c, form, h, keys, at, n, limit, x);
        else if (form->packs) form->pv[SSA_F32](tile, packed, dv * (int64_t)sizeof(float), n, 0, 1);
    }
}

/* A tile's output, its padding included, becomes zeros. */
static void ssa__clear_tile(const ssa__table *t, const ssa__form *form, ssa__tile *tile)
{
    int64_t padded = ssa__padded_rows(t, form, tile->rows);
    memset(tile->o, 0, (size_t)(padded * (form->attend ? tile->dv_unit : tile->dv_pad)) * sizeof(float));
    tile->fresh = 0;
}

/* A fresh tile for query rows r0 .. r1-1 of head h, nothing attended. alone: its output may be left to attend. */
static const ssa__form *ssa__open_tile(const ssa__table *t, const ssa__call *c, int64_t h, int64_t r0, int64_t r1,
                                       int alone, ssa__scratch *x)
{
    const ssa__form *form = ssa__attend_form(t, c, r1 - r0);
    ssa__begin_tile(t, c, form, c->a.k.type, h, r0, r1, x);
    if (alone && form->starts) x->tile->fresh = 1;
    else ssa__clear_tile(t, form, x->tile);
    return form;
}

/* What tile x->tile has attended: straight to the output, or to share number split. A row that saw nothing (l = 0)
 * gives 0 and -infinity. */
static void ssa__close_tile(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h, int64_t r0,
                            int64_t split, ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    int64_t rows = tile->rows, step = form->attend ? SSA__LANES_MAX : rows, n_heads = c->a.n_heads,
            all = c->a.n_q * n_heads;
    float *o = tile->o;
    double *part_lse = c->n_splits > 1 ? c->part_lse + split * all : NULL;
    for (int64_t r = 0, i = r0 / c->group, g = r0 % c->group; r < rows; r++, g++) {
        if (g == c->group) { g = 0; i++; }
        int64_t head = h * c->group + g;
        float l = tile->l[r], gate = c->a.gate ? c->a.gate[i * n_heads + head] : 1.0f;
        const float *sink = c->n_splits > 1 ? NULL : ssa__sink(c, head);
        double m = (double)tile->m[r] * tile->m_unit, total;
        int empty = ssa__bits(l) << 1 == 0;
        x->factor[r] = empty ? 0.0f : (c->n_splits > 1 ? 1.0f : gate) / l;
        if (sink && !empty) x->factor[r] = (float)(ssa__join_sink(m, (double)l, *sink, &total) * (double)gate);
        if (part_lse) part_lse[i * n_heads + head] = empty ? SSA__NO_LSE : m + ssa__log((double)l);
        else if (c->a.lse)
            c->a.lse[i * n_heads + head] = empty  ? (sink ? *sink : ssa__float(SSA__NEG_INF_BITS))
                                           : sink ? (float)total
                                                  : (float)(m + ssa__log((double)l));
    }
    for (int64_t r = rows; r < ssa__padded_rows(t, form, tile->rows); r++) x->factor[r] = 0.0f;
    for (int64_t r = 0, i = r0 / c->group, g = r0 % c->group; r < rows; r++, g++) {
        if (g == c->group) { g = 0; i++; }
        int64_t head = h * c->group + g;
        const float *row = x->rows + r % step * tile->dv_pad;
        if (r % step == 0) { /* a unit's rows lie in groups of SSA__LANES_MAX */
            tile->rows = (int32_t)ssa__min(step, rows - r);
            tile->o = o + r * tile->dv_unit;
            form->finish(tile, x->factor + r, x->rows);
        }
        if (c->n_splits == 1) ssa__put_row(t, c, i, head, row);
        else memcpy(c->part_o + (split * all + i * n_heads + head) * tile->dv, row, (size_t)tile->dv * sizeof(float));
    }
    tile->rows = (int32_t)rows;
    tile->o = o;
}

/* Whether all of a tile's output is finite: then so were all values that came in, for NaN and infinity stay. */
static int ssa__is_tile_finite(const ssa__table *t, const ssa__form *form, const ssa__tile *tile)
{
    int64_t n = (int64_t)ssa__padded_rows(t, form, tile->rows) * (form->attend ? tile->dv_unit : tile->dv_pad);
    for (int64_t i = 0; i < n; i++) if (!ssa__is_finite(tile->o[i])) return 0;
    return 1;
}

/* Keys of a chunk of a unit's form. Of few rows these and the next ones, of all heads, stay in L2; also where heads do
 * not go side by side, for nothing brings in the first chunk of a share. */
static int64_t ssa__chunk_of(const ssa__call *c, const ssa__form *form, const ssa__keys *keys)
{
    const int64_t bytes = ssa__row_bytes(c->a.k.type, c->a.head_dim) + ssa__row_bytes(c->a.v.type, c->a.value_dim),
                  most = SSA__ASIDE_BYTES / (bytes * c->a.n_kv_heads);
    if (!form->runs || keys->blocks) return form->chunk;
    return ssa__min(form->chunk, ssa__max(most / SSA__UNIT_DIM, 1) * SSA__UNIT_DIM);
}

/* Query rows r0 .. r1-1 of `heads` heads from h on, over virtual keys from .. to-1. Several heads (a decode, few rows)
 * go along the keys side by side. Where a mask or the window hides keys, their values are taken to be finite at first,
 * and all is done again with care when the output tells otherwise. */
static void ssa__attend_tile(const ssa__table *t, const ssa__call *c, int64_t h, int32_t heads, int64_t r0, int64_t r1,
                             const ssa__keys *keys, int64_t from, int64_t to, int64_t split, ssa__scratch *x)
{
    const ssa__form *form = NULL;
    int64_t step = ssa__max(to - from, 1), chunk;
    const int hides = c->a.mask || ssa__first(c, (r1 - 1) / c->group) > ssa__first(c, r0 / c->group);
    for (int careful = 0, finite = 0; careful <= hides && !finite; careful++) {
        x->shaper.careful = careful;
        for (int32_t i = 0; i < heads; i++) {
            x->tile = &x->tiles[i];
            form = ssa__open_tile(t, c, h + i, r0, r1, heads == 1, x);
        }
        chunk = form->attend ? ssa__chunk_of(c, form, keys) : ssa__plain_chunk(form, (int32_t)(r1 - r0));
        if (heads > 1) step = chunk;
        if (form == &t->q8) form->shape(1);
        else if (x->tile->columns < SSA__LANES_MAX) form->shape(x->tile->columns);
        for (int64_t at = from; at < to; at += step)
            for (int32_t i = 0; i < heads; i++) {
                const int64_t until = ssa__min(at + step, to);
                x->tile = &x->tiles[i];
                if (form->attend) ssa__attend_chunks(t, c, form, h + i, keys, at, until, to, chunk, r0, x);
                else ssa__attend_keys(t, c, form, h + i, keys, at, until, to, r0, x);
            }
        if (form == &t->q8 || x->tile->columns < SSA__LANES_MAX) form->shape(0);
        if (x->tile->fresh) ssa__clear_tile(t, form, x->tile); /* no keys at all */
        finite = hides && !careful;
        for (int32_t i = 0; finite && i < heads; i++)
            finite = ssa__is_tile_finite(t, form, &x->tiles[i]);
    }
    for (int32_t i = 0; i < heads; i++) {
        x->tile = &x->tiles[i];
        ssa__close_tile(t, c, form, h + i, r0, split, x);
    }
}

/* PACK task of a full call: chunk task % n_packed of head task / n_packed, for all tiles. */
static void ssa__lay_chunk(const ssa__table *t, const ssa__call *c, int64_t task, ssa__scratch *x)
{
    const ssa__keys keys = { NULL, 0, c->a.block_size, &c->a };
    const int64_t at = task % c->n_packed * SSA__UNIT_KEYS, h = task / c->n_packed;
    const ssa_attn *a = &c->a;
    ssa__tile tile = *x->tile;
    const int32_t n = ssa__laid_keys(c, at);
    int32_t run;
    for (int32_t j = 0; j < n && !c->unit; j += run) {
        const int64_t key = ssa__run_at(&keys, at + j, n - j, &run);
        t->pack[a->k.type]((float *)(void *)ssa__laid_row(c, 1, at + j, h), a->head_dim, ssa__k_row(a, key, h),
                           a->k.token_stride, run, a->head_dim);
        t->pack[a->v.type]((float *)(void *)ssa__laid_row(c, 0, at + j, h), a->value_dim, ssa__v_row(a, key, h),
                           a->v.token_stride, run, a->value_dim);
    }
    if (!c->unit) return;
    ssa__shape_tile(c, &t->many, &tile);
    tile.k = (uint16_t *)(void *)(c->packed + task * c->packed_bytes); /* the keys go there at once */
    ssa__take_chunk(t, c, &tile, &keys, at, n, h);
    c->packed_broken[task] = (unsigned char)t->many.lay_values(
        &tile, n, tile.k + tile.keys_max * ssa__laid_bytes(c->a.k.type, tile.dk) / 2);
}

/* PACK task: keys and values of one head in the unit's layout: a query's blocks then lie in few pages, and are ready
 * to be multiplied. */
static void ssa__run_pack(const ssa__table *t, const ssa__call *c, int64_t task)
{
    int64_t h = task % c->a.n_kv_heads, from = task / c->a.n_kv_heads * SSA__POOL_BLOCKS;
    for (int64_t b = from; b < ssa__min(from + SSA__POOL_BLOCKS, c->n_packed); b++) {
        int64_t key = b * SSA__UNIT_BLOCK, at = h * c->n_packed + b;
        int32_t n = (int32_t)ssa__min(SSA__UNIT_BLOCK, c->a.q_pos + c->a.n_q - key);
        c->packed_broken[at] = (unsigned char)t->few.bring(
            c->packed + at * c->packed_bytes, ssa__k_row(&c->a, key, h), c->a.k.token_stride, ssa__v_row(&c->a, key, h),
            c->a.v.token_stride, n, c->a.head_dim, c->a.value_dim);
    }
}

/* List number u of key/value head h: that of query u / c->lists. Up to c->keep blocks, ascending, then -1. */
static const int32_t *ssa__list(const ssa__call *c, int64_t u, int64_t h)
{
    return c->chosen + ((u / c->lists * c->a.n_kv_heads + h) * c->lists + u % c->lists) * c->chosen_stride;
}

/* The virtual keys of a list: those of its blocks, the last cut at the query's own position. */
static ssa__keys ssa__listed_keys(const ssa__call *c, int64_t u, int64_t h)
{
    ssa__keys keys = { ssa__list(c, u, h), 0, c->a.block_size, &c->a };
    int32_t n = 0;
    while (n < c->keep && keys.blocks[n] >= 0) n++;
    if (n > 0)
        keys.n = (int64_t)(n - 1) * c->a.block_size +
                 ssa__min(c->a.block_size,
                          ssa__visible(c, u / c->lists) - (int64_t)keys.blocks[n - 1] * c->a.block_size);
    return keys;
}

/* For each part of a block the lists of queries i0 .. i1-1 and head h that hold it, and whose query sees some of it:
 * x->asked from start[part] to start[part+1]-1, ascending, as numbers from that of i0 on. Returns how many parts. */
static int64_t ssa__gather_lists(const ssa__call *c, int64_t h, int64_t i0, int64_t i1, ssa__scratch *x)
{
    const int64_t u0 = i0 * c->lists, size = c->a.block_size, end = ssa__max(c->a.q_pos + i1, 0);
    const int64_t n = end / size * c->parts + ssa__ceil_div(end % size, c->part_keys);
    memset(x->start, 0, (size_t)(n + 2) * sizeof *x->start);
    for (int fill = 0; fill < 2; fill++) { /* counts, two places up; then the lists, which moves them one down */
        for (int64_t u = u0; u < i1 * c->lists; u++) {
            const int32_t *list = ssa__list(c, u, h);
            const int64_t at = c->a.q_pos + u / c->lists;
            const int64_t last = at / size * c->parts + at % size / c->part_keys; /* a block may end past it */
            SSA__PREFETCH(ssa__list(c, ssa__min(u + SSA__GATHER_AHEAD, i1 * c->lists - 1), h));
            for (int32_t k = 0; k < c->keep && list[k] >= 0; k++) {
                int64_t b = (int64_t)list[k] * c->parts, past = ssa__min(b + c->parts, last + 1);
                for (; b < past && !fill; b++) x->start[b + 2]++;
                for (; b < past; b++) x->asked[x->start[b + 1]++] = (int32_t)(u - u0);
            }
        }
        for (int64_t b = 0; b < n && !fill; b++) x->start[b + 2] += x->start[b + 1];
    }
    return n;
}

/* The next rows, of those of the lists asked[e .. end-1] from row *head of the first one on, for n keys from `key` on:
 * up to `most`, or, where alike is set, those that see as many of these as the first. Which rows of the task, and what
 * they see, ascending, to row and seen. Returns the next e. */
static int32_t ssa__gather_rows(const ssa__call *c, int64_t i0, int64_t key, int32_t n, const int32_t *asked, int32_t e,
                                int32_t end, int32_t *head, int alike, int32_t most, int32_t *row, int32_t *seen,
                                int32_t *count)
{
    const int64_t first = c->a.q_pos + i0 + 1 - key; /* what the first query sees; the others see more */
    int32_t m = 0, r = *head, sees = n;
    while (e < end && m < most) {
        const int32_t u = asked[e];
        if (first < n) sees = (int32_t)ssa__min(n, first + u / c->lists);
        if (alike && m > 0 && sees != seen[0]) break;
        for (; r < c->list_group && m < most; r++, m++) {
            row[m] = u * c->list_group + r;
            seen[m] = sees;
        }
        if (r == c->list_group) { r = 0; e++; }
    }
    *count = m;
    *head = r;
    return e;
}

/* Block number at of head h as the unit takes it, of which seen keys are seen; hidden: room for a copy. Values out of
 * sight are not multiplied where one is not finite, not even by 0. */
static const unsigned char *ssa__packed_block(const ssa__table *t, const ssa__call *c, int64_t h, int64_t b,
                                              int32_t seen, unsigned char *hidden)
{
    const unsigned char *block = c->packed + (h * c->n_packed + b) * c->packed_bytes;
    if (seen == SSA__UNIT_BLOCK || !c->packed_broken[h * c->n_packed + b]) return block;
    t->few.hide(hidden, block, seen, c->a.head_dim, c->a.value_dim);
    return hidden;
}

/* Queries i0 .. i1-1 of head h over the packed blocks of their lists, block by block: the rows that chose one share
 * its tiles. */
static void ssa__meet_packed(const ssa__table *t, const ssa__call *c, int64_t h, int64_t i0, int64_t i1,
                                 ssa__scratch *x)
{
    enum { N = SSA__GATHER_STEPS };
    ssa__gathered sets[N], *g[N] = { NULL, NULL, NULL, NULL, NULL };
    const int64_t blocks = ssa__gather_lists(c, h, i0, i1, x);
    int32_t made = 0;
    for (int64_t b = 0; b < blocks; b++) {
        const int broken = c->packed_broken[h * c->n_packed + b];
        int32_t head = 0;
        for (int32_t e = x->start[b]; e < x->start[b + 1]; made++) {
            ssa__gathered *next = &sets[made % N];
            e = ssa__gather_rows(c, i0, b * SSA__UNIT_BLOCK, SSA__UNIT_BLOCK, x->asked, e, x->start[b + 1], &head,
                                 broken, SSA__LANES_MAX, next->row, next->seen, &next->n);
            next->block = ssa__packed_block(t, c, h, b, broken ? next->seen[0] : SSA__UNIT_BLOCK,
                                            x->hidden + made % N * c->packed_bytes);
            for (int k = N - 1; k > 0; k--) g[k] = g[k - 1];
            g[0] = next;
            t->few.gather(x->tile, g);
        }
    }
    for (int flush = 1; flush < N; flush++) {
        for (int k = N - 1; k > 0; k--) g[k] = g[k - 1];
        g[0] = NULL;
        t->few.gather(x->tile, g);
    }
}

/* The keys of part b of a block that queries up to i1-1 see. Returns how many. */
static int32_t ssa__part_at(const ssa__call *c, int64_t b, int64_t i1, int64_t *key)
{
    const int64_t at = b % c->parts * c->part_keys;
    *key = b / c->parts * c->a.block_size + at;
    return (int32_t)ssa__min(ssa__min(c->part_keys, c->a.block_size - at), c->a.q_pos + i1 - *key);
}

/* n <= SSA__LANES_MAX keys of head h from `key` on to the tile's q, turned, for rows that meet them. */
static void ssa__turn_keys(const ssa__table *t, const ssa__call *c, const ssa__form *form, int64_t h, int64_t key,
                           int32_t n, ssa__tile *turned, float *rows)
{
    const unsigned char *k = ssa__k_row(&c->a, key, h);
    const int64_t stride = c->a.k.token_stride;
    if (form->q_turn) {
        uint16_t *take = (uint16_t *)(void *)rows;
        t->take[c->a.k.type](take, 0, turned->dk_unit, k, stride, n, turned->dk);
        form->q_turn(turned, take, 0, n);
        return;
    }
    t->pack[c->a.k.type](rows, turned->dk_pad, k, stride, n, turned->dk);
    memset(rows + (int64_t)n * turned->dk_pad, 0, (size_t)((SSA__LANES_MAX - n) * turned->dk_pad) * sizeof(float));
    form->q_prep(turned, rows);
}

/* Queries i0 .. i1-1 of head h over the blocks of their lists, part by part: the rows that chose one meet it one after
 * the other, while it is in L1. */
static void ssa__meet_blocks(const ssa__table *t, const ssa__call *c, int64_t h, int64_t i0, int64_t i1,
                             ssa__scratch *x)
{
    const ssa_attn *a = &c->a;
    const ssa__form *form = ssa__meet_form(t, c);
    const int64_t parts = ssa__gather_lists(c, h, i0, i1, x);
    const int32_t dk = x->tile->dk_unit, dv_pad = x->tile->dv_pad;
    float *rows = x->kv, *k = rows + SSA__LANES_MAX * dk, *v = k + SSA__LANES_MAX * dk;
    ssa__tile turned = *x->tile;
    turned.rows = SSA__LANES_MAX;
    turned.ld = SSA__LANES_MAX;
    turned.q = k;
    if (form->q_turn) ssa__take_queries(t, c, h, i0 * c->group, i1 * c->group, 0, (uint16_t *)(void *)x->tile->q);
    for (int64_t i = i0; i < i1 && !form->q_turn; i++)
        t->pack[a->q.type](x->tile->q + (i - i0) * c->group * x->tile->dk_pad, x->tile->dk_pad,
                           ssa__row(&a->q, i, h * c->group), a->q.head_stride, c->group, x->tile->dk);
    for (int64_t b = 0, next; b < parts; b = next) {
        int64_t key, after;
        const int32_t n = ssa__part_at(c, b, i1, &key);
        const int edge = a->q_pos + i0 + 1 < key + n; /* some query may see only some of it */
        int finite = 1, head = 0;
        for (next = b + 1; next < parts && x->start[next] == x->start[next + 1];) next++;
        if (x->start[b] == x->start[b + 1]) continue;
        if (next < parts) { /* while rows meet this one */
            const int32_t ahead = ssa__part_at(c, next, i1, &after);
            ssa__look_ahead(&turned, a, 1, after, h, ahead, 1);
            ssa__look_ahead(&turned, a, 0, after, h, ahead, 1);
        }
        ssa__turn_keys(t, c, form, h, key, n, &turned, rows);
        t->pack[a->v.type](v, dv_pad, ssa__v_row(a, key, h), a->v.token_stride, n, a->value_dim);
        for (int64_t e = 0; edge && e < (int64_t)n * dv_pad; e++) finite &= ssa__is_finite(v[e]);
        for (int32_t e = x->start[b]; e < x->start[b + 1];) { /* what a row does not see must not meet it, even by 0 */
            ssa__gathered g;
            e = ssa__gather_rows(c, i0, key, n, x->asked, e, x->start[b + 1], &head, !finite, SSA__LANES_MAX, g.row,
                                 g.seen, &g.n);
            form->meet(x->tile, &g, k, v, finite ? n : g.seen[0]);
        }
    }
}

/* Query by query on packed blocks, for groups that share a list and fill the unit's tiles. Queries that need no padding
 * are read where they lie; they and the output are long out of the caches, and are brought in a step ahead. */
static void ssa__attend_listed(const ssa__table *t, const ssa__call *c, int64_t h, int64_t i0, int64_t i1,
                               ssa__scratch *x)
{
    ssa__tile *tile = x->tile;
    const unsigned char *block[SSA__UNIT_BLOCKS];
    const int64_t parts = c->a.block_size / SSA__UNIT_BLOCK, r1 = i1 * c->group;
    const int padded = c->a.head_dim % SSA__UNIT_DIM != 0;
    tile->rows = SSA__LANES_MAX;
    tile->q_stride = padded ? tile->dk_unit * 2 : c->a.q.head_stride;
    for (int64_t r = i0 * c->group, past; r < r1; r = past) {
        const int64_t i = r / c->group, head = h * c->group + r % c->group;
        const ssa__keys keys = ssa__listed_keys(c, i, h);
        ssa__beside beside[2];
        int32_t m = 0;
        past = r + SSA__LANES_MAX;
        tile->q_rows = padded ? (const unsigned char *)x->take : ssa__row(&c->a.q, i, head);
        if (padded) ssa__take_queries(t, c, h, r, past, 0, x->take);
        beside[0].at = ssa__row(&c->a.q, past < r1 ? past / c->group : i, h * c->group + past % c->group);
        beside[0].stride = c->a.q.head_stride;
        beside[0].bytes = c->a.head_dim * 2;
        beside[1].at = ssa__row(&c->a.out, i, head);
        beside[1].stride = c->a.out.head_stride;
        beside[1].bytes = (int32_t)ssa__row_bytes(c->a.out.type, c->a.value_dim);
        for (int k = 0; k < SSA__LANES_MAX; k++) { tile->m[k] = -FLT_MAX; tile->l[k] = 0.0f; }
        tile->fresh = 1;
        for (int64_t n = 0, part = 0, at = 0; at < keys.n; at += SSA__UNIT_BLOCK) {
            const int32_t seen = (int32_t)ssa__min(SSA__UNIT_BLOCK, keys.n - at);
            block[m++] = ssa__packed_block(t, c, h, keys.blocks[n] * parts + part, seen, x->hidden);
            if (++part == parts) { part = 0; n++; }
            if (m < SSA__UNIT_BLOCKS && at + SSA__UNIT_BLOCK < keys.n) continue;
            t->few.attend_blocks(tile, block, m, seen, beside);
            tile->fresh = m = 0;
        }
        if (tile->fresh) memset(tile->o, 0, (size_t)(SSA__LANES_MAX * tile->dv_unit) * sizeof(float));
        ssa__close_tile(t, c, &t->few, h, r, 0, x);
    }
}

/* Queries i0 .. i1-1 of head h, by the blocks that they chose. */
static void ssa__attend_gathered(const ssa__table *t, const ssa__call *c, int64_t h, int64_t i0, int64_t i1,
                                 ssa__scratch *x)
{
    const ssa__form *form = c->packs ? &t->few : &t->narrow;
    ssa__tile *tile = x->tile, all;
    const int64_t rows = (i1 - i0) * c->group;
    const int listed = c->packs && c->list_group % SSA__LANES_MAX == 0;
    int64_t ld, step;
    ssa__shape_tile(c, form, tile);
    ld = c->packs ? tile->dv_unit : tile->dv_pad;
    step = c->packs ? SSA__LANES_MAX : SSA__TILE_ROWS;
    if (c->packs) form->shape(1);
    if (listed) ssa__attend_listed(t, c, h, i0, i1, x);
    else {
        memset(tile->o, 0, (size_t)(rows * ld) * sizeof(float));
        for (int64_t r = 0; r < rows; r++) { tile->m[r] = -FLT_MAX; tile->l[r] = 0.0f; }
    }
    if (!c->packs) ssa__meet_blocks(t, c, h, i0, i1, x);
    else if (!listed) {
        memset(tile->sums, 0, (size_t)(rows * SSA__UNIT_SUMS) * sizeof(float));
        ssa__take_queries(t, c, h, i0 * c->group, i1 * c->group, 0, x->take); /* a copy, in few pages */
        tile->queries = x->take;
        ssa__meet_packed(t, c, h, i0, i1, x);
    }
    if (c->packs) form->shape(0);
    if (listed) return;
    tile->v_type = SSA_F32; /* narrow: the dims are in order */
    all = *tile;
    for (int64_t r = 0; r < rows; r += tile->rows) {
        tile->rows = (int32_t)ssa__min(step, rows - r);
        tile->o = all.o + r * ld;
        tile->m = all.m + r;
        tile->l = all.l + r;
        for (int64_t i = 0; c->packs && i < tile->rows; i++)
            for (int k = 0; k < SSA__UNIT_SUMS; k++) tile->l[i] += all.sums[(r + i) * SSA__UNIT_SUMS + k];
        ssa__close_tile(t, c, form, h, i0 * c->group + r, 0, x);
    }
    *tile = all;
}

/* ATTEND task: one tile of rows (full), or each query of a run on its own list of blocks, or these gathered. */
static void ssa__run_attend(const ssa__table *t, const ssa__call *c, ssa__what what, int64_t task, ssa__scratch *x)
{
    int64_t tile = task % c->n_tiles, groups = ssa__ceil_div(c->a.n_kv_heads, c->task_heads),
            h = task / c->n_tiles % groups * c->task_heads, split = task / c->n_tiles / groups;
    int64_t from = split * c->split_keys, to, i0, i1;
    ssa__keys keys = { NULL, 0, c->a.block_size, &c->a };
    if (what == SSA__RUN_FULL) {
        int64_t r0 = tile * c->tile_rows, r1 = ssa__min(r0 + c->tile_rows, c->n_rows);
        from += ssa__first(c, r0 / c->group);
        keys.n = ssa__visible(c, (r1 - 1) / c->group);
        ssa__attend_tile(t, c, h, (int32_t)ssa__min(c->task_heads, c->a.n_kv_heads - h), r0, r1, &keys, from,
                         ssa__min(from + c->split_keys, keys.n), split, x);
        return;
    }
    to = from + c->split_keys;
    i0 = tile * c->task_tokens;
    i1 = ssa__min(i0 + c->task_tokens, c->a.n_q);
    if (c->gathers) {
        ssa__attend_gathered(t, c, h, i0, i1, x);
        return;
    }
    for (int64_t u = i0 * c->lists; u < i1 * c->lists; u++) {
        const int64_t r0 = u * c->list_group, r1 = r0 + c->list_group;
        keys = ssa__listed_keys(c, u, h);
        for (int64_t r = r0; r < r1; r += SSA__TILE_ROWS)
            ssa__attend_tile(t, c, h, 1, r, ssa__min(r + SSA__TILE_ROWS, r1), &keys, from, ssa__min(to, keys.n), split,
                             x);
    }
}

/* MERGE task: joins the shares of the keys, out = sum of exp(lse_s - top) * o_s over the sum of the weights. */
static void ssa__run_merge(const ssa__table *t, const ssa__call *c, int64_t task, ssa__scratch *x)
{
    int64_t all = c->a.n_q * c->a.n_heads;
    int32_t dv = c->a.value_dim;
    for (int64_t row = task * SSA__MERGE_ROWS; row < ssa__min((task + 1) * SSA__MERGE_ROWS, all); row++) {
        int64_t i = row / c->a.n_heads, head = row % c->a.n_heads;
        const float *sink = ssa__sink(c, head);
        float factor, *acc = x->rows;
        double sum = 0.0, total = 0.0, top = SSA__NO_LSE;
        int any = 0;
        for (int64_t s = 0; s < c->n_splits; s++) {
            double lse = c->part_lse[s * all + row];
            if (lse == SSA__NO_LSE) continue;
            any = 1;
            if (lse > top) top = lse;
        }
        memset(acc, 0, (size_t)dv * sizeof(float));
        for (int64_t s = 0; s < c->n_splits; s++) {
            double lse = c->part_lse[s * all + row];
            float w;
            if (lse == SSA__NO_LSE) continue;
            w = ssa__expf((float)(lse - top));
            sum += (double)w;
            t->axpy(acc, w, c->part_o + (s * all + row) * dv, dv);
        }
        if (any && sink) factor = (float)ssa__join_sink(top, sum, *sink, &total);
        else factor = any ? (float)(1.0 / sum) : 0.0f;
        if (any) factor *= c->a.gate ? c->a.gate[row] : 1.0f;
        for (int32_t e = 0; e < dv; e++) acc[e] *= factor;
        ssa__put_row(t, c, i, head, acc);
        if (c->a.lse)
            c->a.lse[row] = any  ? (float)(sink ? total : top + ssa__log(sum))
                            : sink ? *sink
                                   : ssa__float(SSA__NEG_INF_BITS);
    }
}

/* One task of a phase. */
static void ssa__run_task(const ssa__table *t, const ssa__call *c, ssa__what what, int kind, int64_t task,
                          ssa__scratch *x)
{
    switch (kind) {
    case SSA__POOL:   ssa__run_pool(t, c, task, x); break;
    case SSA__PACK:
        if (c->lays_kv) ssa__lay_chunk(t, c, task, x);
        else ssa__run_pack(t, c, task);
        break;
    case SSA__SCORE:  ssa__run_score(t, c, task, x); break;
    case SSA__WEIGH:  ssa__run_weigh(t, c, task, x); break;
    case SSA__SELECT: ssa__run_select(t, c, task, x); break;
    case SSA__ATTEND: ssa__run_attend(t, c, what, task, x); break;
    default:          ssa__run_merge(t, c, task, x); break;
    }
}

/* i nths of a cost, which times i may not fit in 63 bits. */
static int64_t ssa__part(int64_t cost, int64_t i, int64_t nth)
{
    return cost / nth * i + cost % nth * i / nth;
}

/* What of a phase's cost is left when piece k is handed out: half of it goes in a piece to each of nth workers, half of
 * the rest again, and so on, in the last round all of it. */
static int64_t ssa__left(int64_t total, int64_t k, int nth)
{
    const int64_t round = k / nth, left = round < SSA__ROUNDS ? total >> round : 0,
                  after = round < SSA__ROUNDS - 1 ? left >> 1 : 0;
    return left - ssa__part(left - after, k % nth, nth);
}

/* The tasks of a phase that start within from .. to-1 of its cost, in worker ith's scratch. */
static void ssa__run_piece(const ssa_plan *p, int kind, int64_t from, int64_t to, int ith)
{
    const ssa__table *t = (const ssa__table *)p->table;
    const ssa__call *calls = (const ssa__call *)(const void *)p->calls;
    int64_t at = 0;
    for (int32_t i = 0; i < p->n && at < to; i++) {
        const ssa__call *c = &calls[i];
        ssa__scratch x;
        ssa__bump own;
        if (at + c->cost[kind] <= from) { at += c->cost[kind]; continue; }
        own.base = p->scratch + (size_t)ith * p->scratch_stride;
        own.at = 0;
        own.bad = 0;
        ssa__take_scratch(&own, c, c->what, &x);
        if (x.shaper.bias) memset(x.shaper.bias, 0, SSA__LANES_MAX * SSA__PIECE * sizeof(float)); /* unused rows */
        for (int64_t task = 0; task < c->n_tasks[kind] && at < to; task++) { /* at: where the task starts in the cost */
            if (at >= from) ssa__run_task(t, c, c->what, kind, task, &x);
            at += ssa__task_cost(c, c->what, kind, task);
        }
    }
}

/* Worker ith of nth: its first piece, then others while there are any, so that a quick worker does more; from the
 * phase's end, for where a call is causal its later tasks are the longer ones. The last worker to end leaves the counts
 * as they were. Where threads cannot count together, a fixed part each. */
static void ssa__run_phase(const ssa_plan *p, int kind, int ith, int nth)
{
    const ssa__table *t = (const ssa__table *)p->table;
    const ssa__call *calls = (const ssa__call *)(const void *)p->calls;
    int64_t total = 0;
    int tiles = 0;
    unsigned char kept[64];
    for (int32_t i = 0; i < p->n; i++) {
        total += calls[i].cost[kind];
        tiles |= t->enter && (calls[i].unit || calls[i].rank || calls[i].q8);
    }
    if (total == 0) return;
    if (tiles) t->enter(kept);
    if (nth > 1 && SSA__CAN_COUNT) {
        ssa__counts *counts = (ssa__counts *)(void *)(p->calls - SSA__COUNTS_ROOM) + kind;
        for (int64_t k = ith; k < (int64_t)SSA__ROUNDS * nth; k = (int64_t)nth + SSA__ATOMIC_NEXT(&counts->pieces))
            ssa__run_piece(p, kind, ssa__left(total, k + 1, nth), ssa__left(total, k, nth), ith);
        if (SSA__ATOMIC_NEXT(&counts->ended) == nth - 1) {
            SSA__ATOMIC_SET(&counts->pieces, 0);
            SSA__ATOMIC_SET(&counts->ended, 0);
        }
    } else ssa__run_piece(p, kind, ssa__part(total, ith, nth), ssa__part(total, ith + 1, nth), ith);
    if (tiles) t->leave(kept);
}

/* -- diagnosis -- */

/* Keys of one side, of scores s: m the largest, the sums of exp(s - m) and of exp(s - m) * (s - m). */
typedef struct { double m, sum, tilt; } ssa__mass;

/* What the sums become when m becomes top: times the factor that is returned. */
static double ssa__mass_raise(ssa__mass *x, double top)
{
    const double shift = x->m - top, f = ssa__exp(shift);
    x->tilt = (x->tilt + x->sum * shift) * f;
    x->sum *= f;
    x->m = top;
    return f;
}

/* Adds a key; returns its exp(s - m). What hangs on the sum besides is to be multiplied by *f first. */
static double ssa__mass_add(ssa__mass *x, double s, double *f)
{
    double e;
    *f = s > x->m ? ssa__mass_raise(x, s) : 1.0;
    e = ssa__exp(s - x->m);
    x->sum += e;
    x->tilt += e * (s - x->m);
    return e;
}

/* The score of key j for query i and a query head, from their rows and what the mask adds. */
static double ssa__score_of(const ssa__call *c, int64_t i, int64_t head, int64_t j, const float *q, const float *k,
                            double mask)
{
    const double cap = (double)c->a.softcap;
    double s = 0.0;
    for (int32_t e = 0; e < c->a.head_dim; e++) s += (double)q[e] * (double)k[e];
    s *= (double)c->a.scale;
    if (cap > 0.0) s = cap * ssa__tanh(s / cap);
    if (c->a.alibi) s += (double)c->a.alibi[head] * (double)(j - c->a.q_pos - i);
    return s + mask;
}

/* Query i and a query head: one pass over the keys that it sees, those of its list on one side, all others on the
 * other. q and row: room for a row each. Not inlined: its own 8 KiB are not to be on the stack during the phases. */
SSA__NO_INLINE void ssa__diagnose_row(const ssa__table *t, const ssa__call *c, int64_t i, int64_t head, float *q,
                                      float *row, const ssa_diagnosis *d)
{
    const ssa_attn *a = &c->a;
    const int64_t h = head / c->group, at = i * a->n_heads + head, visible = ssa__visible(c, i);
    const int32_t *list = NULL; /* of the blocks from here on; NULL: nothing is dropped */
    const float *sink = ssa__sink(c, head);
    double o[SSA_MAX_DIM], far = 0.0, near = 0.0, f, all, nan = (double)ssa__float(0x7fc00000u);
    ssa__mass in = { -1e300, 0.0, 0.0 }, out = { -1e300, 0.0, 0.0 };
    int32_t left = c->keep;
    int64_t keys = 0;
    int finite = 1, finite_v = 1;
    if (c->what != SSA__RUN_FULL) list = ssa__list(c, i * c->lists + head % c->group / c->list_group, h);
    t->pack[a->q.type](q, a->head_dim, ssa__row(&a->q, i, head), 0, 1, a->head_dim);
    for (int32_t e = 0; e < a->value_dim; e++) o[e] = 0.0;
    if (sink) {
        finite = ssa__is_finite(*sink);
        ssa__mass_add(&in, (double)*sink, &f);
    }
    for (int64_t j = 0; j < visible; j++) {
        double s, e, square = 0.0;
        float mask = 0.0f;
        int inside = 1;
        if (ssa__masked(c, i, j)) continue;
        if (a->mask) mask = ssa__load(a->mask_type, (const unsigned char *)a->mask + i * a->mask_stride, j);
        finite &= ssa__is_finite(mask);
        if (mask < SSA__BIAS_LOW) mask = SSA__BIAS_LOW;
        if (list) {
            while (left > 0 && *list >= 0 && *list < j / a->block_size) left--, list++;
            inside = left > 0 && *list == j / a->block_size;
        }
        keys++;
        t->pack[a->k.type](row, a->head_dim, ssa__k_row(a, j, h), 0, 1, a->head_dim);
        s = ssa__score_of(c, i, head, j, q, row, (double)mask);
        finite &= ssa__is_finite((float)s);
        t->pack[a->v.type](row, a->value_dim, ssa__v_row(a, j, h), 0, 1, a->value_dim);
        for (int32_t b = 0; b < a->value_dim; b++) {
            square += (double)row[b] * (double)row[b];
            finite_v &= ssa__is_finite(row[b]);
        }
        e = ssa__mass_add(inside ? &in : &out, s, &f);
        if (!inside && square > far) far = square;
        for (int32_t b = 0; inside && b < a->value_dim; b++) o[b] = o[b] * f + e * (double)row[b];
    }
    for (int32_t b = 0; b < a->value_dim && in.sum > 0.0; b++) near += o[b] / in.sum * (o[b] / in.sum);
    f = in.m > out.m ? in.m : out.m;
    ssa__mass_raise(&in, f);
    ssa__mass_raise(&out, f);
    all = in.sum + out.sum;
    if (keys == 0) all = in.sum = 1.0, in.tilt = 0.0; /* all mass is a sink's, or there is none */
    if (d->entropy) d->entropy[at] = (float)(finite ? ssa__log(all) - (in.tilt + out.tilt) / all : nan);
    if (d->sparsity) d->sparsity[at] = (float)(finite ? in.sum / all : nan);
    if (d->delta) d->delta[at] = (float)(finite ? out.sum / all : nan);
    if (d->bound)
        d->bound[at] = (float)(finite && finite_v ? out.sum / all * (ssa__sqrt(far) + ssa__sqrt(near)) : nan);
}

/* The diagnosis of a sparse call that is planned for one worker: of its phases those that select, then every row. */
static void ssa__run_diagnosis(const ssa_plan *p, const ssa_diagnosis *d)
{
    const ssa__table *t = (const ssa__table *)p->table;
    const ssa__call *c = (const ssa__call *)(const void *)p->calls;
    float *q = (float *)(void *)p->scratch; /* which the phases need no more, and has room for many rows */
    float *row = q + ssa__max(c->a.head_dim, c->a.value_dim);
    for (int32_t k = 0; k < p->n_phases; k++)
        if (p->phase[k] != SSA__PACK && p->phase[k] < SSA__ATTEND) ssa__run_phase(p, p->phase[k], 0, 1);
    for (int64_t i = 0; i < c->a.n_q; i++)
        for (int64_t head = 0; head < c->a.n_heads; head++) ssa__diagnose_row(t, c, i, head, q, row, d);
}

/* -- the alignment loss -- */

/* One row: adds the sum of SmoothL1(full - sparse) to *sum; leaves d SmoothL1/d full * scale in grad. */
static void ssa__align_row(const float *full, const float *sparse, int32_t dim, double beta, double scale,
                           double *sum, float *grad)
{
    double row = 0.0;
    for (int32_t e = 0; e < dim; e++) {
        double d = (double)full[e] - (double)sparse[e], size = d < 0 ? -d : d, slope;
        if (size < beta) { row += 0.5 * d * d / beta; slope = d / beta; }
        else { row += size - 0.5 * beta; slope = d > 0 ? 1.0 : d < 0 ? -1.0 : d; }
        grad[e] = (float)(slope * scale);
    }
    *sum += row;
}

/* =====================================================================================================================
 * 14  PUBLIC BODIES, THREADS
 *     A call is a plan that is made and run at once: on the caller's threads (parallel), on OpenMP's, or on this one;
 *     phase after phase, with a barrier between. More threads than a plan has tasks, or work for, are not woken.
 * ================================================================================================================== */
#if defined(_OPENMP) && !SSA_NO_OPENMP
#define SSA__OPENMP 1
#include <omp.h>
#else
#define SSA__OPENMP 0
#endif
#if !SSA_NO_MALLOC && !defined(SSA_MALLOC)
#define SSA_MALLOC(size) malloc(size)
#define SSA_FREE(p)      free(p)
#endif

SSA_API ssa_attn ssa_attn_default(int32_t n_heads, int32_t n_kv_heads, int32_t head_dim)
{
    ssa_attn a;
    memset(&a, 0, sizeof a);
    a.n_heads = n_heads;
    a.n_kv_heads = n_kv_heads;
    a.head_dim = a.value_dim = head_dim;
    a.q_pos = -1;
    a.causal = 1;
    a.block_size = a.top_k = 16;
    return a;
}

SSA_API ssa_status ssa_check(const ssa_attn *a, ssa_mode mode)
{
    ssa__what what = SSA__RUN_FULL;
    ssa_status s = ssa__check_mode(mode, &what);
    size_t size;
    return s != SSA_OK ? s : ssa__plan(NULL, a, 1, what, 1, NULL, 0, &size);
}

SSA_API size_t ssa_workspace_size(const ssa_attn *a, int32_t n, ssa_mode mode, int n_threads)
{
    ssa__what what = SSA__RUN_FULL;
    size_t size = 0;
    if (ssa__check_mode(mode, &what) != SSA_OK) return 0;
    return ssa__plan(NULL, a, n, what, n_threads, NULL, 0, &size) == SSA_OK ? size : 0;
}

SSA_API ssa_status ssa_plan_make(ssa_plan *p, const ssa_attn *a, int32_t n, ssa_mode mode, int n_threads, void *ws,
                                 size_t size)
{
    ssa__what what = SSA__RUN_FULL;
    ssa_exec x = { n_threads, NULL, NULL, NULL, 0 };
    ssa_status s = ssa__check_mode(mode, &what);
    size_t total;
    if (s == SSA_OK) s = ssa__check_exec(&x);
    if (s == SSA_OK) s = ssa__check_pointers(p, p);
    return s != SSA_OK ? s : ssa__plan(p, a, n, what, n_threads, ws, size, &total);
}

SSA_API int ssa_plan_phases(const ssa_plan *p) { return p ? p->n_phases : 0; }

SSA_API void ssa_plan_run(const ssa_plan *p, int phase, int ith, int nth)
{
    if (p == NULL || phase < 0 || phase >= p->n_phases || nth < 1 || nth > p->n_threads || ith < 0 || ith >= nth)
        return;
    ssa__run_phase(p, p->phase[phase], ith, nth);
}

typedef struct { const ssa_plan *plan; int phase; } ssa__job;

/* One phase of a plan, in the form that a caller's thread pool takes. */
static void ssa__run_job(void *job, int ith, int nth)
{
    const ssa__job *j = (const ssa__job *)job;
    ssa_plan_run(j->plan, j->phase, ith, nth);
}

/* Runs a plan: on the caller's pool, on OpenMP's threads, or here. */
static void ssa__run_plan(const ssa_plan *p, const ssa_exec *x)
{
    int64_t useful = ssa__min(p->cost / SSA__THREAD_WORK + 1, ssa__max(p->width, 1)); /* no more than there are tasks */
    int nth = (int)ssa__min(useful, p->n_threads);
    ssa__job job;
    job.plan = p;
    if (nth > 1 && x && x->parallel) {
        for (job.phase = 0; job.phase < p->n_phases; job.phase++) x->parallel(x->user, ssa__run_job, &job, nth);
        return;
    }
#if SSA__OPENMP
    if (nth > 1) {
#pragma omp parallel num_threads(nth)
        {
            int ith = omp_get_thread_num(), got = omp_get_num_threads();
            for (int phase = 0; phase < p->n_phases; phase++) {
                if (phase > 0) {
#pragma omp barrier
                }
                ssa_plan_run(p, phase, ith, got);
            }
        }
        return;
    }
#endif
    for (int phase = 0; phase < p->n_phases; phase++) ssa_plan_run(p, phase, 0, 1);
}

/* Every public call that computes attention or selection: threads, workspace, plan, run. d: NULL, or what a diagnosis
 * of the one call is for, on this thread. */
static ssa_status ssa__run(const ssa_attn *a, int32_t n, ssa__what what, const ssa_exec *x, const ssa_diagnosis *d)
{
    ssa_plan plan;
    ssa_status s;
    size_t size = 0;
    int n_threads = x ? x->n_threads : 0;
    if ((s = ssa__check_exec(x)) != SSA_OK) return s;
#if SSA__OPENMP
    if (n_threads == 0) n_threads = omp_get_max_threads();
#endif
    if (n_threads < 1 || d || (!SSA__OPENMP && !(x && x->parallel))) n_threads = 1;
    if (x && x->workspace) {
        s = ssa__plan(&plan, a, n, what, n_threads, x->workspace, x->workspace_size, &size);
        while (s == SSA_ERR_WORKSPACE && x->n_threads == 0 && n_threads > 1) /* as many threads as it has room for */
            s = ssa__plan(&plan, a, n, what, --n_threads, x->workspace, x->workspace_size, &size);
        if (s == SSA_OK && d) ssa__run_diagnosis(&plan, d);
        else if (s == SSA_OK) ssa__run_plan(&plan, x);
        return s;
    }
    s = ssa__plan(NULL, a, n, what, n_threads, NULL, 0, &size);
    if (s != SSA_OK) return s;
#if SSA_NO_MALLOC
    return SSA_ERR_WORKSPACE;
#else
    {
        void *ws = SSA_MALLOC(size);
        if (ws == NULL) return SSA_ERR_MEMORY;
        s = ssa__plan(&plan, a, n, what, n_threads, ws, size, &size);
        if (s == SSA_OK && d) ssa__run_diagnosis(&plan, d);
        else if (s == SSA_OK) ssa__run_plan(&plan, x);
        SSA_FREE(ws);
        return s;
    }
#endif
}

SSA_API ssa_status ssa_attention_batch(const ssa_attn *a, int32_t n, ssa_mode mode, const ssa_exec *x)
{
    ssa__what what = SSA__RUN_FULL;
    ssa_status s = ssa__check_mode(mode, &what);
    return s != SSA_OK ? s : ssa__run(a, n, what, x, NULL);
}

SSA_API ssa_status ssa_attention(const ssa_attn *a, ssa_mode mode, const ssa_exec *x)
{
    return ssa_attention_batch(a, 1, mode, x);
}

SSA_API ssa_status ssa_select_blocks(const ssa_attn *a, const ssa_exec *x)
{
    return ssa__run(a, 1, SSA__RUN_SELECT, x, NULL);
}

SSA_API ssa_status ssa_attention_backward(const ssa_attn *a, ssa_mode mode, const ssa_grad *g, const ssa_exec *x)
{
    ssa_status s = ssa_check(a, mode);
    if (s == SSA_OK) s = ssa__check_exec(x);
    return s != SSA_OK ? s : ssa__check_backward(g);
}

/* -- the pooled-key cache -- */

SSA_API size_t ssa_pool_size(int32_t n_kv_heads, int32_t head_dim, int32_t block_size, int64_t max_tokens,
                             ssa_type type)
{
    int64_t sum_at, total;
    return ssa__pool_layout(n_kv_heads, head_dim, block_size, max_tokens, type, &sum_at, &total) == SSA_OK
               ? (size_t)total
               : 0;
}

SSA_API ssa_status ssa_pool_init(ssa_pool *p, int32_t n_kv_heads, int32_t head_dim, int32_t block_size,
                                 int64_t max_tokens, ssa_type type, void *memory, size_t size)
{
    int64_t sum_at, total;
    unsigned char *base = (unsigned char *)memory;
    uintptr_t misaligned = (uintptr_t)memory % SSA__ALIGN;
    ssa_status s = ssa__pool_layout(n_kv_heads, head_dim, block_size, max_tokens, type, &sum_at, &total);
    if (s == SSA_OK) s = ssa__check_pool_memory(p, memory, size, total);
    if (s != SSA_OK) return s;
    base += misaligned ? SSA__ALIGN - misaligned : 0;
    p->pooled = base;
    p->open_sum = (float *)(void *)(base + sum_at);
    p->n_tokens = 0;
    p->max_tokens = max_tokens;
    p->max_blocks = max_tokens / block_size;
    p->n_kv_heads = n_kv_heads;
    p->head_dim = head_dim;
    p->block_size = block_size;
    p->type = type;
    memset(p->open_sum, 0, (size_t)n_kv_heads * (size_t)head_dim * sizeof(float));
    return SSA_OK;
}

/* The pooled key of a finished block. */
static unsigned char *ssa__pool_row(const ssa_pool *p, int64_t h, int64_t block)
{
    return (unsigned char *)p->pooled + (h * p->max_blocks + block) * ssa__row_bytes(p->type, p->head_dim);
}

/* The keys of tokens from .. from+n-1 of the cache, after checks. */
static void ssa__pool_add(const ssa__table *t, ssa_pool *p, const ssa_attn *a, int64_t from, int64_t n)
{
    while (n > 0) {
        int64_t open = p->n_tokens % p->block_size, step = ssa__adjacent(a, from, ssa__min(n, p->block_size - open));
        for (int32_t h = 0; h < p->n_kv_heads; h++) {
            float *sum = p->open_sum + (int64_t)h * p->head_dim;
            t->pool[a->k.type](sum, ssa__k_row(a, from, h), a->k.token_stride, step, p->head_dim);
            if (open + step == p->block_size) {
                ssa__pool_finish(sum, p->block_size, p->head_dim, p->type,
                                 ssa__pool_row(p, h, p->n_tokens / p->block_size));
                memset(sum, 0, (size_t)p->head_dim * sizeof(float));
            }
        }
        p->n_tokens += step;
        from += step;
        n -= step;
    }
}

/* An empty pool of the same shape and memory. */
static void ssa__pool_clear(ssa_pool *p, int64_t n_tokens)
{
    p->n_tokens = n_tokens;
    memset(p->open_sum, 0, (size_t)p->n_kv_heads * (size_t)p->head_dim * sizeof(float));
}

/* The keys of tokens from .. from+n-1 of a resolved view. */
static void ssa__pool_add_view(ssa_pool *p, const ssa_view *k, int64_t from, int64_t n)
{
    ssa__table t;
    ssa_attn a = ssa_attn_default(p->n_kv_heads, p->n_kv_heads, p->head_dim);
    a.k = *k;
    ssa__fill(&t, ssa__level_get());
    ssa__pool_add(&t, p, &a, from, n);
}

SSA_API ssa_status ssa_pool_append(ssa_pool *p, const ssa_view *k, int64_t n_tokens)
{
    ssa_view v;
    ssa_status s = ssa__check_pool(p, k, n_tokens, 1, n_tokens, &v);
    if (s == SSA_OK) ssa__pool_add_view(p, &v, 0, n_tokens);
    return s;
}

SSA_API ssa_status ssa_pool_truncate(ssa_pool *p, const ssa_view *k, int64_t n_tokens)
{
    ssa_view v;
    int64_t start;
    ssa_status s = ssa__check_pool(p, k, n_tokens, 0, n_tokens, &v);
    if (s != SSA_OK || n_tokens == p->n_tokens) return s;
    start = n_tokens - n_tokens % p->block_size;
    ssa__pool_clear(p, start);
    ssa__pool_add_view(p, &v, start, n_tokens - start);
    return SSA_OK;
}

SSA_API ssa_status ssa_pool_drop_front(ssa_pool *p, const ssa_view *k, int64_t n_tokens)
{
    ssa_view v;
    int64_t left = p && n_tokens >= 0 && n_tokens <= p->n_tokens ? p->n_tokens - n_tokens : 0;
    ssa_status s = ssa__check_pool(p, k, n_tokens, 0, left, &v);
    if (s != SSA_OK) return s;
    if (n_tokens % p->block_size == 0) { /* the blocks keep their tokens: move them; the open sum stays */
        size_t bytes = (size_t)(left / p->block_size * ssa__row_bytes(p->type, p->head_dim));
        for (int32_t h = 0; h < p->n_kv_heads; h++)
            memmove(ssa__pool_row(p, h, 0), ssa__pool_row(p, h, n_tokens / p->block_size), bytes);
        p->n_tokens = left;
    } else {
        ssa__pool_clear(p, 0);
        ssa__pool_add_view(p, &v, 0, left);
    }
    return SSA_OK;
}

/* -- writing a cache -- */

/* Row i, head h of the view to dst, a row of the type: as it is where the types agree. */
static void ssa__convert_row(const ssa__table *t, const ssa_view *v, int64_t i, int64_t h, int32_t dim, ssa_type type,
                             const unsigned char *dst)
{
    float row[SSA_MAX_DIM];
    unsigned char *to = (unsigned char *)(uintptr_t)dst;
    if (v->type == type) {
        memcpy(to, ssa__row(v, i, h), (size_t)ssa__row_bytes(type, dim));
        return;
    }
    t->pack[v->type](row, dim, ssa__row(v, i, h), 0, 1, dim);
    t->unpack[type](to, row, dim);
}

SSA_API ssa_status ssa_kv_append(const ssa_attn *a, int64_t at, const ssa_view *k_new, const ssa_view *v_new,
                                 int64_t n_tokens, ssa_pool *pool)
{
    enum { STEP = 32 }; /* tokens that are pooled while they are still near */
    ssa_attn c;
    ssa_view k, v;
    ssa__table t;
    ssa_status s = ssa__check_append(a, at, k_new, v_new, n_tokens, pool, &c, &k, &v);
    if (s != SSA_OK) return s;
    ssa__fill(&t, ssa__level_get());
    for (int64_t i = 0; i < n_tokens; i += STEP) {
        const int64_t n = ssa__min(STEP, n_tokens - i);
        for (int64_t j = i; j < i + n; j++)
            for (int32_t h = 0; h < c.n_kv_heads; h++) {
                if (k_new) ssa__convert_row(&t, &k, j, h, c.head_dim, c.k.type, ssa__k_row(&c, at + j, h));
                if (v_new) ssa__convert_row(&t, &v, j, h, c.value_dim, c.v.type, ssa__v_row(&c, at + j, h));
            }
        if (pool) ssa__pool_add(&t, pool, &c, at + i, n);
    }
    return SSA_OK;
}

/* -- joining, diagnostics, loss -- */

SSA_API void ssa_merge(float *out_a, float *lse_a, const float *out_b, const float *lse_b, int64_t rows, int32_t dim)
{
    if (out_a == NULL || lse_a == NULL || out_b == NULL || lse_b == NULL || dim < 1) return;
    for (int64_t r = 0; r < rows; r++, out_a += dim, out_b += dim) {
        double a = (double)lse_a[r], b = (double)lse_b[r], top = a > b ? a : b, wa, wb;
        if (ssa__bits(lse_b[r]) == SSA__NEG_INF_BITS) continue;
        if (ssa__bits(lse_a[r]) == SSA__NEG_INF_BITS) {
            memcpy(out_a, out_b, (size_t)dim * sizeof(float));
            lse_a[r] = lse_b[r];
            continue;
        }
        wa = ssa__exp(a - top);
        wb = ssa__exp(b - top);
        lse_a[r] = (float)(top + ssa__log(wa + wb));
        for (int32_t e = 0; e < dim; e++)
            out_a[e] = (float)((wa * (double)out_a[e] + wb * (double)out_b[e]) / (wa + wb));
    }
}

SSA_API void ssa_attention_sparsity(const float *lse_sparse, const float *lse_full, int64_t n, float *sparsity)
{
    if (lse_sparse == NULL || lse_full == NULL || sparsity == NULL) return;
    for (int64_t i = 0; i < n; i++) {
        if (ssa__bits(lse_full[i]) == SSA__NEG_INF_BITS) sparsity[i] = 1.0f;
        else if (ssa__bits(lse_sparse[i]) == SSA__NEG_INF_BITS) sparsity[i] = 0.0f;
        else sparsity[i] = (float)ssa__exp((double)lse_sparse[i] - (double)lse_full[i]);
    }
}

SSA_API ssa_status ssa_diagnose(const ssa_attn *a, const ssa_diagnosis *d, const ssa_exec *x)
{
    ssa_attn call;
    char unwritten;
    ssa_status s = ssa__check_diagnosis(a, d, &call, &unwritten);
    return s != SSA_OK ? s : ssa__run(&call, 1, SSA__RUN_SPARSE, x, d);
}

SSA_API ssa_status ssa_alignment_loss(const ssa_view *full, const ssa_view *sparse, int64_t n_tokens, int32_t n_heads,
                                      int32_t dim, float beta, ssa_alignment *loss, float grad_scale,
                                      ssa_view *d_full, ssa_view *d_sparse)
{
    enum { PIECE = 256 }; /* elements of a row at a time: 3 KiB of stack */
    float f[PIECE], s[PIECE], g[PIECE];
    ssa_view vf, vs, df, ds;
    ssa_status st;
    ssa__table t;
    double sum = 0.0;
    int64_t count = 0;
    if ((st = ssa__check_pointers(full, sparse)) != SSA_OK) return st;
    vf = *full;
    vs = *sparse;
    df = d_full ? *d_full : vf;
    ds = d_sparse ? *d_sparse : vs;
    st = ssa__check_loss(&vf, &vs, d_full ? &df : NULL, d_sparse ? &ds : NULL, n_tokens, n_heads, dim, beta, grad_scale,
                         &count);
    if (st != SSA_OK) return st;

    ssa__fill(&t, ssa__level_get());
    for (int64_t i = 0; i < n_tokens; i++)
        for (int32_t h = 0; h < n_heads; h++)
            for (int32_t e = 0; e < dim; e += PIECE) {
                int32_t n = (int32_t)ssa__min(PIECE, dim - e);
                t.pack[vf.type](f, n, ssa__row(&vf, i, h) + ssa__row_bytes(vf.type, e), 0, 1, n);
                t.pack[vs.type](s, n, ssa__row(&vs, i, h) + ssa__row_bytes(vs.type, e), 0, 1, n);
                ssa__align_row(f, s, n, (double)beta, (double)grad_scale / (double)count, &sum, g);
                if (d_full) t.unpack[df.type]((unsigned char *)df.data + i * df.token_stride + h * df.head_stride +
                                              ssa__row_bytes(df.type, e), g, n);
                if (d_sparse) {
                    for (int32_t j = 0; j < n; j++) g[j] = -g[j]; /* the second term: the first, roles exchanged */
                    t.unpack[ds.type]((unsigned char *)ds.data + i * ds.token_stride + h * ds.head_stride +
                                      ssa__row_bytes(ds.type, e), g, n);
                }
            }
    if (loss) {
        loss->sparsity = loss->commitment = count > 0 ? sum / (double)count : 0.0; /* only their gradients differ */
        loss->total = loss->sparsity + loss->commitment;
    }
    return SSA_OK;
}

SSA_API const char *ssa_status_string(ssa_status s)
{
    switch (s) {
    case SSA_OK:              return "no error";
    case SSA_ERR_NULL:        return "a required pointer is NULL";
    case SSA_ERR_MODE:        return "mode must be SSA_FULL or SSA_SPARSE";
    case SSA_ERR_HEADS:       return "head counts must be at least 1, and n_heads a multiple of n_kv_heads";
    case SSA_ERR_HEAD_DIM:    return "head_dim must be 1 to 1024, for keys in q8_0 a multiple of 32";
    case SSA_ERR_VALUE_DIM:
        return "value_dim must be 1 to 1024, for values in q8_0 a multiple of 32 (in the loss: dim at least 1)";
    case SSA_ERR_LENGTH:      return "a count of tokens is negative";
    case SSA_ERR_POSITION:
        return "in sparse mode every query's position must be below n_kv; no position may be negative or too large";
    case SSA_ERR_TYPE:        return "a view has a type that it cannot have";
    case SSA_ERR_STRIDE:      return "a stride is negative, or rows that are written overlap";
    case SSA_ERR_SCALE:       return "scale must be finite";
    case SSA_ERR_CAUSAL:      return "causal must be 0 or 1, and 1 in sparse mode";
    case SSA_ERR_BLOCK_SIZE:  return "block_size must be 1 to 4096";
    case SSA_ERR_TOP_K:       return "top_k must be at least 1, and top_k_per_head 1 to top_k, not with GIVEN";
    case SSA_ERR_SELECT:      return "select is not an ssa_select, or there is nothing to select";
    case SSA_ERR_REFERENCE:
        return "SSA_SELECT_REFERENCE needs a block_size that is a power of two, at least 2 and at least top_k";
    case SSA_ERR_BLOCKS:
        return "blocks is NULL where it is needed, or holds a block that is out of range or twice there";
    case SSA_ERR_POOL:
        return "the pool is not initialised, has another shape than the call, or holds fewer tokens than n_kv";
    case SSA_ERR_POOL_FULL:   return "the pool has no room for that many tokens";
    case SSA_ERR_POOL_RANGE:  return "the pool holds fewer tokens than that, or more than the cache to append to";
    case SSA_ERR_POOL_MEMORY: return "the pool's memory is smaller than ssa_pool_size says";
    case SSA_ERR_WORKSPACE:   return "the workspace is missing, or smaller than ssa_workspace_size says";
    case SSA_ERR_MEMORY:      return "out of memory";
    case SSA_ERR_THREADS:     return "n_threads must not be negative, and at least 1 with a parallel callback";
    case SSA_ERR_BATCH:       return "the number of calls is negative";
    case SSA_ERR_OVERFLOW:    return "a size or stride overflows";
    case SSA_ERR_BETA:        return "beta and grad_scale must be finite, and beta not negative";
    case SSA_ERR_UNSUPPORTED: return "the call asks for something that this version does not compute";
    case SSA_ERR_WINDOW:      return "window must not be negative, and needs full mode and causal";
    case SSA_ERR_SOFTCAP:     return "softcap must be finite and not negative";
    case SSA_ERR_MASK:        return "the mask must be f32, f16 or bf16, with a stride of 0 or at least a row";
    case SSA_ERR_PAGES:
        return "page_tokens must be at least 1, in sparse mode a multiple of block_size; page strides not negative";
    case SSA_ERR_SCORE:       return "score must be an ssa_score, DOT only with TOPK; select_per_head must be 0 or 1";
    case SSA_ERR_KEEP:        return "sink_blocks and local_blocks must not be negative, fit in top_k, need TOPK";
    case SSA_ERR_TOP_P:       return "top_p must be 0 to 1, and needs TOPK and SOFTMAX";
    case SSA_ERR_BUDGET:      return "budget and min_context must not be negative";
    }
    return "unknown status";
}

SSA_API ssa_isa     ssa_isa_detected(void) { return ssa__best_up_to((ssa_isa)(SSA__ISA_COUNT - 1)); }
SSA_API ssa_isa     ssa_isa_get(void) { return (ssa_isa)(ssa__level_get() % SSA__WITH_BF16); }
SSA_API const char *ssa_isa_name(ssa_isa isa)
{
    return (int)isa >= 0 && (int)isa < SSA__ISA_COUNT ? ssa__isa_names[isa] : "unknown";
}
SSA_API ssa_isa     ssa_isa_set(ssa_isa wanted)
{
    ssa_isa isa = ssa__best_up_to(wanted);
    SSA__ATOMIC_SET(&ssa__level, ssa__level_of(isa));
    return isa;
}

SSA__DIAG_POP
#endif /* SSA__IMPLEMENTED */
#endif /* SSA_IMPLEMENTATION */

#else /* SSA__VECTOR_PASS */
/* =====================================================================================================================
 * 15  THE VECTOR PASS: tile operations over the primitives of section 8. Included once per vector level with SSA__FN,
 *     SSA__V, SSA__L, SSA__NV, SSA__NM, SSA__NR, SSA__NQ, SSA__NARROW, SSA__NG and SSA__TARGET set; undefines them all
 *     at its end. NR: rows of a narrow register tile; NQ: keys, or vectors of values, of one of 4 rows in q8_0; NARROW:
 *     rows of the largest narrow tile, past which the empty lanes of a wide one cost less; NG: gathered rows that share
 *     what is read of a block, a multiple of 4.
 * ================================================================================================================== */
#define SSA__LOCAL  static SSA__TARGET
#define SSA__INLINE SSA__FORCE_INLINE SSA__TARGET

SSA__INLINE SSA__V SSA__FN(exp)(SSA__V x) /* as ssa__expf; x at most 88 */
{
    SSA__V t, f, p;
    x = SSA__FN(max)(SSA__FN(set1)(SSA__EXP_LOW), x); /* in this order NaN stays NaN */
    f = SSA__FN(log2e)(x, &t);
    p = SSA__FN(fma)(SSA__FN(set1)(SSA__EXP_C6), f, SSA__FN(set1)(SSA__EXP_C5));
    p = SSA__FN(fma)(p, f, SSA__FN(set1)(SSA__EXP_C4));
    p = SSA__FN(fma)(p, f, SSA__FN(set1)(SSA__EXP_C3));
    p = SSA__FN(fma)(p, f, SSA__FN(set1)(SSA__EXP_C2));
    p = SSA__FN(fma)(p, f, SSA__FN(set1)(SSA__EXP_C1));
    p = SSA__FN(fma)(p, f, SSA__FN(set1)(1.0f));
    return SSA__FN(scale2)(p, t);
}

/* L elements of a row of the type, or the first n of them. The type is a constant after inlining. */
SSA__INLINE SSA__V SSA__FN(row)(ssa_type type, const unsigned char *p)
{
    return type == SSA_F32   ? SSA__FN(load)((const float *)(const void *)p)
           : type == SSA_F16 ? SSA__FN(load_f16)(p)
                             : SSA__FN(load_bf16)(p);
}
SSA__INLINE SSA__V SSA__FN(row_n)(ssa_type type, const unsigned char *p, int32_t n)
{
    return type == SSA_F32   ? SSA__FN(load_n)(p, n)
           : type == SSA_F16 ? SSA__FN(load_f16_n)(p, n)
                             : SSA__FN(load_bf16_n)(p, n);
}

/* 2 L elements of a row of the type in x[0] and x[1]: those of bf16 apart as even and odd ones, which takes a shift and
 * a mask where widening them in order takes shuffles. */
SSA__INLINE void SSA__FN(row2)(ssa_type type, const unsigned char *p, SSA__V *x)
{
    const int64_t size = type == SSA_F32 ? 4 : 2;
    if (type == SSA_BF16) { SSA__FN(load2_bf16)(p, x); return; }
    x[0] = SSA__FN(row)(type, p);
    x[1] = SSA__FN(row)(type, p + SSA__L * size);
}

/* -- rows -- */
SSA__INLINE void SSA__FN(pack)(ssa_type type, float *dst, int64_t ld, const unsigned char *src, int64_t stride,
                               int32_t n, int32_t d)
{
    const int64_t size = type == SSA_F32 ? 4 : 2;
    for (int32_t j = 0; j < n; j++, dst += ld, src += stride) {
        int32_t e = 0;
        for (; e + SSA__L <= d; e += SSA__L) SSA__FN(store)(dst + e, SSA__FN(row)(type, src + e * size));
        if (e < d) { SSA__FN(store_n)(dst + e, SSA__FN(row_n)(type, src + e * size, d - e), d - e); e = d; }
        for (; e < ld; e++) dst[e] = 0.0f;
    }
}

/* q8_0: L elements of a block of SSA__Q8_DIM, which L divides; exact, so that all arithmetic is that of f32 rows. */
SSA__INLINE SSA__V SSA__FN(row_q8_0)(SSA__V scale, const unsigned char *block, int i)
{
    return SSA__FN(mul)(scale, SSA__FN(load_i8)(block + 2 + i));
}

SSA__LOCAL void SSA__FN(pack_q8_0)(float *dst, int64_t ld, const unsigned char *src, int64_t stride, int32_t n,
                                   int32_t d)
{
    for (int32_t j = 0; j < n; j++, dst += ld, src += stride) {
        const unsigned char *block = src;
        int32_t e = 0;
        for (; e < d; e += SSA__Q8_DIM, block += SSA__Q8_BYTES) {
            SSA__V scale = SSA__FN(set1_f16)(block);
            SSA__UNROLL
            for (int i = 0; i < SSA__Q8_DIM; i += SSA__L)
                SSA__FN(store)(dst + e + i, SSA__FN(row_q8_0)(scale, block, i));
        }
        for (; e < ld; e++) dst[e] = 0.0f;
    }
}

SSA__LOCAL void SSA__FN(pool_q8_0)(float *sum, const unsigned char *src, int64_t stride, int64_t n, int32_t d)
{
    for (int32_t e = 0; e < d; e += SSA__L) {
        const unsigned char *block = src + ssa__row_bytes(SSA_Q8_0, e);
        SSA__V acc = SSA__FN(load)(sum + e);
        for (int64_t j = 0; j < n; j++, block += stride)
            acc = SSA__FN(add)(acc, SSA__FN(row_q8_0)(SSA__FN(set1_f16)(block), block, e % SSA__Q8_DIM));
        SSA__FN(store)(sum + e, acc);
    }
}

SSA__INLINE void SSA__FN(unpack)(ssa_type type, unsigned char *dst, const float *src, int32_t d)
{
    int32_t e = 0;
    for (; e + SSA__L <= d; e += SSA__L) {
        if (type == SSA_F16) SSA__FN(store_f16)(dst + 2 * e, SSA__FN(load)(src + e));
        else SSA__FN(store_bf16)(dst + 2 * e, SSA__FN(load)(src + e));
    }
    for (; e < d; e++) ssa__store(type, dst, e, src[e]);
}

SSA__INLINE void SSA__FN(pool)(ssa_type type, float *sum, const unsigned char *src, int64_t stride, int64_t n,
                               int32_t d)
{
    const int64_t size = type == SSA_F32 ? 4 : 2;
    for (int32_t e = 0; e < d; e += SSA__L) {
        const unsigned char *p = src + e * size;
        int32_t m = d - e;
        if (m >= SSA__L) {
            SSA__V acc = SSA__FN(load)(sum + e);
            for (int64_t j = 0; j < n; j++, p += stride) acc = SSA__FN(add)(acc, SSA__FN(row)(type, p));
            SSA__FN(store)(sum + e, acc);
        } else {
            SSA__V acc = SSA__FN(load_n)((const unsigned char *)(sum + e), m);
            for (int64_t j = 0; j < n; j++, p += stride) acc = SSA__FN(add)(acc, SSA__FN(row_n)(type, p, m));
            SSA__FN(store_n)(sum + e, acc, m);
        }
    }
}

SSA__LOCAL int64_t SSA__FN(above)(const float *x, int64_t from, int64_t n, float bar)
{
    SSA__V b = SSA__FN(set1)(bar);
    for (; from + SSA__L <= n; from += SSA__L) {
        uint32_t bits = SSA__FN(above_bits)(SSA__FN(load)(x + from), b);
        if (bits) return from + SSA__LOWEST(bits);
    }
    return ssa__scalar_above(x, from, n, bar);
}

SSA__LOCAL int32_t SSA__FN(all_above)(const float *x, int64_t from, int64_t n, float bar, int32_t *index)
{
    const SSA__V b = SSA__FN(set1)(bar);
    int32_t m = 0;
    for (; from + SSA__L <= n; from += SSA__L) {
        if (m > SSA__RUNNERS - 2 * SSA__LANES_MAX) return -1;
        m += SSA__FN(lanes)(index + m, SSA__FN(above_bits)(SSA__FN(load)(x + from), b), (int32_t)from);
    }
    for (; from < n; from++) {
        if (ssa__is_nan(x[from]) || !(x[from] > bar)) continue;
        if (m == SSA__RUNNERS - SSA__LANES_MAX) return -1;
        index[m++] = (int32_t)from;
    }
    return m;
}

SSA__LOCAL void SSA__FN(ranks)(const float *x, int32_t n, int32_t *rank)
{
    const SSA__V one = SSA__FN(set1)(1.0f), zero = SSA__FN(zero)();
    float count[SSA__L];
    for (int32_t i = 0; i < n; i += SSA__L) {
        const SSA__V v = SSA__FN(load)(x + i);
        SSA__V a = zero, b = zero;
        for (int32_t j = 0; j < n; j += 2) {
            a = SSA__FN(add)(a, SSA__FN(pick)(SSA__FN(set1)(x[j]), v, one, zero));
            b = SSA__FN(add)(b, SSA__FN(pick)(SSA__FN(set1)(x[j + 1]), v, one, zero));
        }
        SSA__FN(store)(count, SSA__FN(add)(a, b));
        for (int32_t k = 0; k < SSA__L; k++) rank[i + k] = (int32_t)count[k];
    }
}

SSA__LOCAL void SSA__FN(tops)(const float *x, int64_t n, float *top)
{
    enum { N = SSA__TOPS / SSA__L };
    SSA__V v[N];
    int64_t i = 0;
    for (int k = 0; k < N; k++) v[k] = SSA__FN(set1)(-FLT_MAX);
    for (; i + SSA__TOPS <= n; i += SSA__TOPS) {
        SSA__UNROLL
        for (int k = 0; k < N; k++) v[k] = SSA__FN(max)(SSA__FN(load)(x + i + k * SSA__L), v[k]); /* NaN: v stays */
    }
    for (int k = 0; k < N; k++) SSA__FN(store)(top + k * SSA__L, v[k]);
    for (; i < n; i++) if (!ssa__is_nan(x[i]) && x[i] > top[i % SSA__TOPS]) top[i % SSA__TOPS] = x[i];
}

SSA__LOCAL void SSA__FN(axpy)(float *acc, float w, const float *x, int32_t d)
{
    SSA__V v = SSA__FN(set1)(w);
    int32_t e = 0;
    for (; e + SSA__L <= d; e += SSA__L)
        SSA__FN(store)(acc + e, SSA__FN(fma)(v, SSA__FN(load)(x + e), SSA__FN(load)(acc + e)));
    if (e < d)
        SSA__FN(store_n)(acc + e, SSA__FN(fma)(v, SSA__FN(load_n)((const unsigned char *)(x + e), d - e),
                                               SSA__FN(load_n)((const unsigned char *)(acc + e), d - e)), d - e);
}

/* -- terms of the scores -- */
/* As ssa__tanhf, with FMA. NaN goes around max and exp, whose operands -ffast-math may swap; pick is exact. */
SSA__INLINE SSA__V SSA__FN(tanh)(SSA__V x)
{
    const SSA__V zero = SSA__FN(zero)(), one = SSA__FN(set1)(1.0f), z = SSA__FN(mul)(x, x);
    const SSA__V size = SSA__FN(max)(x, SSA__FN(sub)(zero, x)), far = SSA__FN(set1)(-10.0f);
    const SSA__V e = SSA__FN(exp)(SSA__FN(mul)(size, SSA__FN(set1)(-2.0f)));
    SSA__V large = SSA__FN(div)(SSA__FN(sub)(one, e), SSA__FN(add)(one, e)), p;
    large = SSA__FN(pick)(zero, x, SSA__FN(sub)(zero, large), large);
    large = SSA__FN(pick)(x, SSA__FN(set1)(-20.0f), large, x); /* x where it is NaN, or so far that -1 comes next */
    large = SSA__FN(pick)(far, x, SSA__FN(set1)(-1.0f), large);
    p = SSA__FN(fma)(SSA__FN(set1)(SSA__TANH_C5), z, SSA__FN(set1)(SSA__TANH_C4));
    p = SSA__FN(fma)(p, z, SSA__FN(set1)(SSA__TANH_C3));
    p = SSA__FN(fma)(p, z, SSA__FN(set1)(SSA__TANH_C2));
    p = SSA__FN(fma)(p, z, SSA__FN(set1)(SSA__TANH_C1));
    p = SSA__FN(fma)(SSA__FN(mul)(p, z), x, x);
    p = SSA__FN(pick)(x, SSA__FN(set1)(-SSA__TANH_SMALL), p, large);
    return SSA__FN(pick)(SSA__FN(set1)(SSA__TANH_SMALL), x, p, large);
}

SSA__LOCAL void SSA__FN(cap)(float *x, int64_t n, float factor, float cap)
{
    const SSA__V f = SSA__FN(set1)(factor), c = SSA__FN(set1)(cap);
    int64_t i = 0;
    for (; i + SSA__L <= n; i += SSA__L)
        SSA__FN(store)(x + i, SSA__FN(mul)(c, SSA__FN(tanh)(SSA__FN(mul)(f, SSA__FN(load)(x + i)))));
    if (i < n) {
        SSA__V y = SSA__FN(load_n)((const unsigned char *)(x + i), (int32_t)(n - i));
        SSA__FN(store_n)(x + i, SSA__FN(mul)(c, SSA__FN(tanh)(SSA__FN(mul)(f, y))), (int32_t)(n - i));
    }
}

SSA__LOCAL void SSA__FN(ramp)(float *b, float slope, float first, int32_t n)
{
    static const float numbers[SSA__LANES_MAX] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    const SSA__V w = SSA__FN(set1)(slope), count = SSA__FN(load)(numbers);
    for (int32_t j = 0; j < n; j += SSA__L) {
        SSA__V x = SSA__FN(add)(SSA__FN(set1)(first + (float)j), count); /* whole numbers: exact up to 2^24 */
        if (j + SSA__L <= n) SSA__FN(store)(b + j, SSA__FN(fma)(w, x, SSA__FN(load)(b + j)));
        else SSA__FN(store_n)(b + j, SSA__FN(fma)(w, x, SSA__FN(load_n)((const unsigned char *)(b + j), n - j)), n - j);
    }
}

SSA__INLINE SSA__V SSA__FN(biased)(SSA__V s, SSA__V scale, SSA__V unit, SSA__V b)
{
    const SSA__V low = SSA__FN(set1)(SSA__BIAS_LOW);
    SSA__V x = SSA__FN(mul)(SSA__FN(fma)(s, scale, SSA__FN(pick)(low, b, low, b)), unit);
    return SSA__FN(pick)(SSA__FN(set1)(-FLT_MAX), b, SSA__FN(set1)(ssa__float(SSA__NEG_INF_BITS)), x);
}

/* Keys side by side: row by row. Rows side by side: an L x L square of biases at a time, transposed. */
SSA__LOCAL void SSA__FN(bias)(float *s, int64_t key_step, int64_t row_step, float scale, float unit, const float *b,
                              int64_t ld, int32_t n, int32_t rows)
{
    const SSA__V f = SSA__FN(set1)(scale), u = SSA__FN(set1)(unit);
    if (b == NULL) {
        const int64_t step = key_step == 1 ? row_step : key_step;
        const int32_t lines = key_step == 1 ? rows : n, whole = key_step == 1 ? n / SSA__L * SSA__L : rows;
        for (int32_t i = 0; i < lines && (scale != 1.0f || unit != 1.0f); i++, s += step) {
            int32_t j = 0;
            for (; j < whole; j += SSA__L)
                SSA__FN(store)(s + j, SSA__FN(mul)(SSA__FN(mul)(SSA__FN(load)(s + j), f), u));
            for (; key_step == 1 && j < n; j++) s[j] = s[j] * scale * unit;
        }
        return;
    }
    if (key_step == 1) {
        for (int32_t r = 0; r < rows; r++, s += row_step, b += ld) {
            int32_t j = 0;
            for (; j + SSA__L <= n; j += SSA__L)
                SSA__FN(store)(s + j, SSA__FN(biased)(SSA__FN(load)(s + j), f, u, SSA__FN(load)(b + j)));
            if (j < n)
                SSA__FN(store_n)(s + j, SSA__FN(biased)(SSA__FN(load_n)((const unsigned char *)(s + j), n - j), f, u,
                                                        SSA__FN(load_n)((const unsigned char *)(b + j), n - j)), n - j);
        }
        return;
    }
    for (int32_t r = 0; r < rows; r += SSA__L)
        for (int32_t j = 0; j < n; j += SSA__L) {
            SSA__V x[SSA__L];
            for (int i = 0; i < SSA__L; i++) x[i] = SSA__FN(load)(b + (r + i) * ld + j);
            SSA__FN(transpose)(x);
            for (int i = 0; i < SSA__L && j + i < n; i++) {
                float *at = s + (j + i) * key_step + r;
                SSA__FN(store)(at, SSA__FN(biased)(SSA__FN(load)(at), f, u, x[i]));
            }
        }
}

/* -- narrow. The dims of q and o that meet bf16 rows lie as row2 leaves them, as far as whole 2 L go -- */
SSA__LOCAL void SSA__FN(narrow_q_prep)(ssa__tile *t, float *rows)
{
    ssa__narrow_q_prep(t, rows);
    if (t->k_type != SSA_BF16) return;
    for (int32_t r = 0; r < t->rows; r++) {
        float *q = t->q + (int64_t)r * t->dk_pad;
        for (int32_t e = 0; e + 2 * SSA__L <= t->dk; e += 2 * SSA__L) {
            SSA__V x[2];
            x[0] = SSA__FN(load)(q + e);
            x[1] = SSA__FN(load)(q + e + SSA__L);
            SSA__FN(deinterleave)(x);
            SSA__FN(store)(q + e, x[0]);
            SSA__FN(store)(q + e + SSA__L, x[1]);
        }
    }
}

/* How many of row2's and row's vectors, the last one partial, make d dims. */
SSA__INLINE int32_t SSA__FN(narrow_steps)(int32_t d)
{
    return d / (2 * SSA__L) + (d % (2 * SSA__L) + SSA__L - 1) / SSA__L;
}

/* Scores of nr rows x ng groups of 4 keys, of which n count: all, or the first of one group. */
SSA__INLINE void SSA__FN(narrow_qk_tile)(const int nr, const int ng, ssa_type type, const ssa__tile *t, int32_t r0,
                                         const unsigned char *k, int64_t stride, int32_t n, int32_t at,
                                         ssa__lines *ahead)
{
    const int64_t size = type == SSA_F32 ? 4 : 2, ldq = t->dk_pad;
    const float *q = t->q + r0 * ldq;
    const int32_t d = t->dk;
    SSA__V acc[4][4], x[2], w[4][2];
    SSA__UNROLL
    for (int g = 0; g < ng; g++, n -= 4) {
        const unsigned char *row[4];
        int32_t e = 0;
        row[0] = n > 0 ? k + 4 * g * stride : k; /* past the end a key again */
        row[1] = n > 1 ? row[0] + stride : row[0];
        row[2] = n > 2 ? row[1] + stride : row[1];
        row[3] = n > 3 ? row[2] + stride : row[2];
        SSA__UNROLL
        for (int r = 0; r < nr; r++) {
            SSA__V *a = acc[r * ng + g];
            a[0] = a[1] = a[2] = a[3] = SSA__FN(zero)();
        }
        for (; e + 2 * SSA__L <= d; e += 2 * SSA__L) {
            if (ahead) ssa__fetch_lines(ahead, 1);
            SSA__UNROLL
            for (int r = 0; r < nr; r++) {
                w[r][0] = SSA__FN(load)(q + r * ldq + e);
                w[r][1] = SSA__FN(load)(q + r * ldq + e + SSA__L);
            }
            SSA__UNROLL
            for (int j = 0; j < 4; j++) {
                SSA__FN(row2)(type, row[j] + e * size, x);
                SSA__UNROLL
                for (int r = 0; r < nr; r++) {
                    SSA__V *a = acc[r * ng + g];
                    a[j] = SSA__FN(fma)(w[r][0], x[0], a[j]);
                    a[j] = SSA__FN(fma)(w[r][1], x[1], a[j]);
                }
            }
        }
        for (; e < d; e += SSA__L) {
            if (ahead) ssa__fetch_lines(ahead, 1);
            SSA__UNROLL
            for (int j = 0; j < 4; j++) {
                const unsigned char *p = row[j] + e * size;
                x[0] = d - e >= SSA__L ? SSA__FN(row)(type, p) : SSA__FN(row_n)(type, p, d - e); /* q: zero past d */
                SSA__UNROLL
                for (int r = 0; r < nr; r++) {
                    SSA__V *a = acc[r * ng + g];
                    a[j] = SSA__FN(fma)(SSA__FN(load)(q + r * ldq + e), x[0], a[j]);
                }
            }
        }
    }
    SSA__FN(hsums)(nr, ng, acc, t->scale, t->s + r0 * t->ld + at, t->ld);
}

/* q8_0: nr rows x nk keys, 4 or 2. To widen a vector costs as much as three of its products: 4 rows share it. */
SSA__INLINE void SSA__FN(narrow_qk_tile_q8_0)(const int nr, const int nk, const ssa__tile *t, int32_t r0,
                                              const unsigned char *const *k, int32_t at, ssa__lines *ahead)
{
    const int64_t ldq = t->dk_pad;
    const float *q = t->q + r0 * ldq;
    float *s = t->s + r0 * t->ld + at;
    SSA__V acc[4][4], kv[4], scale[4];
    int64_t block = 0;
    SSA__UNROLL
    for (int r = 0; r < nr; r++) {
        SSA__UNROLL
        for (int j = 0; j < nk; j++) acc[r][j] = SSA__FN(zero)();
    }
    for (int32_t e = 0; e < t->dk; e += SSA__Q8_DIM, block += SSA__Q8_BYTES) {
        if (ahead) ssa__fetch_lines(ahead, 1);
        SSA__UNROLL
        for (int j = 0; j < nk; j++) scale[j] = SSA__FN(set1_f16)(k[j] + block);
        SSA__UNROLL
        for (int i = 0; i < SSA__Q8_DIM; i += SSA__L) {
            SSA__UNROLL
            for (int j = 0; j < nk; j++) kv[j] = SSA__FN(row_q8_0)(scale[j], k[j] + block, i);
            SSA__UNROLL
            for (int r = 0; r < nr; r++) {
                SSA__V x = SSA__FN(load)(q + r * ldq + e + i);
                SSA__UNROLL
                for (int j = 0; j < nk; j++) acc[r][j] = SSA__FN(fma)(x, kv[j], acc[r][j]);
            }
        }
    }
    if (nk == 4) {
        SSA__UNROLL
        for (int r = 0; r < nr; r++)
            SSA__FN(hsum4)(acc[r][0], acc[r][1], acc[r][2], acc[r][3], t->scale, s + r * t->ld);
    } else {
        SSA__UNROLL
        for (int r = 0; r < nr; r += 2) {
            float four[4];
            SSA__FN(hsum4)(acc[r][0], acc[r][1], acc[r + 1][0], acc[r + 1][1], t->scale, four);
            memcpy(s + r * t->ld, four, 2 * sizeof(float));
            memcpy(s + (r + 1) * t->ld, four + 2, 2 * sizeof(float));
        }
    }
}

SSA__INLINE void SSA__FN(narrow_qk_all_q8_0)(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n,
                                             int32_t at)
{
    ssa__lines lines = ssa__lines_ahead(t, (n + 3) / 4 * (t->rows < 4 ? 1 : 4 / SSA__NQ) * (t->dk / SSA__Q8_DIM));
    ssa__lines *ahead = lines.part > 0 ? &lines : NULL;
    for (int32_t j = 0; j < n; j += 4) {
        const unsigned char *row[4];
        int32_t r = 0;
        for (int i = 0; i < 4; i++) row[i] = k + (j + i < n ? j + i : n - 1) * stride; /* past the end: the last key */
        for (; r + 4 <= t->rows; r += 4)
            for (int i = 0; i < 4; i += SSA__NQ)
                SSA__FN(narrow_qk_tile_q8_0)(4, SSA__NQ, t, r, row + i, at + j + i, r == 0 ? ahead : NULL);
        for (; r < t->rows; r++) SSA__FN(narrow_qk_tile_q8_0)(1, 4, t, r, row, at + j, r == 0 ? ahead : NULL);
    }
}

/* The fewer than SSA__NR rows from r on: several groups of 4 keys at once, so that there are as many sums to take
 * together. */
SSA__INLINE void SSA__FN(narrow_qk_rest)(const int nr, ssa_type type, const ssa__tile *t, int32_t r,
                                         const unsigned char *k, int64_t stride, int32_t n, int32_t at,
                                         ssa__lines *ahead)
{
    const int ng = nr < SSA__NR ? SSA__NR / nr : 1;
    int32_t j = 0;
    for (; ng > 1 && j + 4 < n; j += 4 * ng)
        SSA__FN(narrow_qk_tile)(nr, ng, type, t, r, k + j * stride, stride, n - j, at + j, ahead);
    for (; j < n; j += 4) SSA__FN(narrow_qk_tile)(nr, 1, type, t, r, k + j * stride, stride, n - j, at + j, ahead);
}

/* Four keys at a time, for all whole register tiles of rows; then the rest of the rows. */
SSA__INLINE void SSA__FN(narrow_qk)(ssa_type type, const ssa__tile *t, const unsigned char *k, int64_t stride,
                                    int32_t n, int32_t at)
{
    if (type == SSA_Q8_0) { SSA__FN(narrow_qk_all_q8_0)(t, k, stride, n, at); return; }
    const int32_t whole = t->rows / SSA__NR * SSA__NR, left = t->rows - whole;
    ssa__lines lines = ssa__lines_ahead(t, (n + 3) / 4 * SSA__FN(narrow_steps)(t->dk));
    ssa__lines *ahead = lines.part > 0 ? &lines : NULL;
    for (int32_t j = 0; whole > 0 && j < n; j += 4) {
        SSA__FN(narrow_qk_tile)(SSA__NR, 1, type, t, 0, k + j * stride, stride, n - j, at + j, ahead);
        for (int32_t r = SSA__NR; r < whole; r += SSA__NR)
            SSA__FN(narrow_qk_tile)(SSA__NR, 1, type, t, r, k + j * stride, stride, n - j, at + j, NULL);
    }
    if (whole > 0) ahead = NULL;
    if (left == 1) SSA__FN(narrow_qk_rest)(1, type, t, whole, k, stride, n, at, ahead);
    if (left == 2) SSA__FN(narrow_qk_rest)(2, type, t, whole, k, stride, n, at, ahead);
    if (SSA__NR > 3 && left == 3) SSA__FN(narrow_qk_rest)(3, type, t, whole, k, stride, n, at, ahead);
}

/* nr rows x nv vectors of the output, over n values; tail: the one vector has only this many elements, 0: whole. An
 * element is one sum in the order of the keys, so that neither nr nor where a run ends shows in it. */
SSA__INLINE void SSA__FN(narrow_pv_tile)(const int nr, const int nv, ssa_type type, const ssa__tile *t,
                                         const unsigned char *v, int64_t stride, int32_t n, const float *p, float *o,
                                         const float *fix, int32_t tail, ssa__lines *ahead)
{
    const int64_t size = type == SSA_F32 ? 4 : 2, ldo = t->dv_pad;
    SSA__V acc[4][8], x[8]; /* nr * nv <= 16 */
    SSA__UNROLL
    for (int r = 0; r < nr; r++) {
        SSA__V f = SSA__FN(set1)(fix ? fix[r] : 1.0f);
        SSA__UNROLL
        for (int i = 0; i < nv; i++) acc[r][i] = SSA__FN(mul)(f, SSA__FN(load)(o + r * ldo + i * SSA__L));
    }
    for (int32_t j = 0; j < n; j++, v += stride) {
        if (ahead) ssa__fetch_lines(ahead, 1);
        SSA__UNROLL
        for (int i = 0; i + 2 <= nv; i += 2) SSA__FN(row2)(type, v + i * SSA__L * size, x + i);
        if (nv == 1) x[0] = tail ? SSA__FN(row_n)(type, v, tail) : SSA__FN(row)(type, v);
        SSA__UNROLL
        for (int r = 0; r < nr; r++) {
            SSA__V w = SSA__FN(set1)(p[r * t->ld + j]);
            SSA__UNROLL
            for (int i = 0; i < nv; i++) acc[r][i] = SSA__FN(fma)(w, x[i], acc[r][i]);
        }
    }
    SSA__UNROLL
    for (int r = 0; r < nr; r++) {
        SSA__UNROLL
        for (int i = 0; i < nv; i++) SSA__FN(store)(o + r * ldo + i * SSA__L, acc[r][i]);
    }
}

/* The same for q8_0: two blocks, one, or, from element `off` on, less than one; nr * nv <= 16. */
SSA__INLINE void SSA__FN(narrow_pv_tile_q8_0)(const int nr, const int nv, const ssa__tile *t, const unsigned char *v,
                                              int off, int64_t stride, int32_t n, const float *p, float *o,
                                              const float *fix, ssa__lines *ahead)
{
    SSA__V acc[4][8], x[8], scale = SSA__FN(zero)();
    SSA__UNROLL
    for (int r = 0; r < nr; r++) {
        SSA__V f = SSA__FN(set1)(fix ? fix[r] : 1.0f);
        SSA__UNROLL
        for (int i = 0; i < nv; i++)
            acc[r][i] = SSA__FN(mul)(f, SSA__FN(load)(o + r * (int64_t)t->dv_pad + i * SSA__L));
    }
    for (int32_t j = 0; j < n; j++, v += stride) {
        if (ahead) ssa__fetch_lines(ahead, 1);
        SSA__UNROLL
        for (int i = 0; i < nv; i++) {
            const unsigned char *block = v + i * SSA__L / SSA__Q8_DIM * SSA__Q8_BYTES;
            if (i * SSA__L % SSA__Q8_DIM == 0) scale = SSA__FN(set1_f16)(block);
            x[i] = SSA__FN(row_q8_0)(scale, block, off + i * SSA__L % SSA__Q8_DIM);
        }
        SSA__UNROLL
        for (int r = 0; r < nr; r++) {
            SSA__V w = SSA__FN(set1)(p[r * t->ld + j]);
            SSA__UNROLL
            for (int i = 0; i < nv; i++) acc[r][i] = SSA__FN(fma)(w, x[i], acc[r][i]);
        }
    }
    SSA__UNROLL
    for (int r = 0; r < nr; r++) {
        SSA__UNROLL
        for (int i = 0; i < nv; i++) SSA__FN(store)(o + r * (int64_t)t->dv_pad + i * SSA__L, acc[r][i]);
    }
}

/* Rows r .. r+nr-1, nv vectors at a time; 32 elements may be left where these are 64. */
SSA__INLINE void SSA__FN(narrow_pv_rows_q8_0)(const int nr, const int nv, const ssa__tile *t, int32_t r,
                                              const unsigned char *v, int64_t stride, int32_t n, int32_t at, int first)
{
    const float *p = t->s + r * t->ld + at, *fix = first ? t->fix + r : NULL;
    float *o = t->o + (int64_t)r * t->dv_pad;
    const int32_t step = nv * SSA__L;
    ssa__lines lines = ssa__lines_ahead(t, (int64_t)n * ssa__ceil_div(t->dv, step));
    ssa__lines *ahead = r == 0 && lines.part > 0 ? &lines : NULL;
    int32_t e = 0;
    for (; e + step <= t->dv; e += step)
        SSA__FN(narrow_pv_tile_q8_0)(nr, nv, t, v + ssa__row_bytes(SSA_Q8_0, e), e % SSA__Q8_DIM, stride, n, p, o + e,
                                     fix, ahead);
    if (step > SSA__Q8_DIM && e < t->dv)
        SSA__FN(narrow_pv_tile_q8_0)(nr, step > SSA__Q8_DIM ? SSA__Q8_DIM / SSA__L : nv, t,
                                     v + ssa__row_bytes(SSA_Q8_0, e), 0, stride, n, p, o + e, fix, ahead);
}

/* Rows r .. r+nr-1: four vectors of dv at a time, of one row eight; then four, two and single ones, the last one
 * partial (o has room for it whole). */
SSA__INLINE void SSA__FN(narrow_pv_rows)(const int nr, ssa_type type, const ssa__tile *t, int32_t r,
                                         const unsigned char *v, int64_t stride, int32_t n, int32_t at, int first)
{
    const int64_t size = type == SSA_F32 ? 4 : 2;
    const int nv = nr == 1 ? 8 : 4;
    const int32_t d = t->dv, rest = d % (nv * SSA__L);
    const float *p = t->s + r * t->ld + at, *fix = first ? t->fix + r : NULL;
    const int32_t passes = d / (nv * SSA__L) + rest / (4 * SSA__L) + SSA__FN(narrow_steps)(rest % (4 * SSA__L));
    ssa__lines lines = ssa__lines_ahead(t, (int64_t)n * passes);
    ssa__lines *ahead = r == 0 && lines.part > 0 ? &lines : NULL;
    float *o = t->o + (int64_t)r * t->dv_pad;
    int32_t e = 0;
    for (; e + nv * SSA__L <= d; e += nv * SSA__L)
        SSA__FN(narrow_pv_tile)(nr, nv, type, t, v + e * size, stride, n, p, o + e, fix, 0, ahead);
    for (; nv > 4 && e + 4 * SSA__L <= d; e += 4 * SSA__L)
        SSA__FN(narrow_pv_tile)(nr, 4, type, t, v + e * size, stride, n, p, o + e, fix, 0, ahead);
    for (; e + 2 * SSA__L <= d; e += 2 * SSA__L)
        SSA__FN(narrow_pv_tile)(nr, 2, type, t, v + e * size, stride, n, p, o + e, fix, 0, ahead);
    for (; e < d; e += SSA__L)
        SSA__FN(narrow_pv_tile)(nr, 1, type, t, v + e * size, stride, n, p, o + e, fix,
                                d - e < SSA__L ? d - e : 0, ahead);
}

SSA__INLINE void SSA__FN(narrow_pv)(ssa_type type, const ssa__tile *t, const unsigned char *v, int64_t stride,
                                    int32_t n, int32_t at, int first)
{
    int32_t r = 0;
    if (type == SSA_Q8_0) {
        for (; r + 4 <= t->rows; r += 4) SSA__FN(narrow_pv_rows_q8_0)(4, SSA__NQ, t, r, v, stride, n, at, first);
        for (; r < t->rows; r++) SSA__FN(narrow_pv_rows_q8_0)(1, SSA__L < 8 ? 8 : 4, t, r, v, stride, n, at, first);
        return;
    }
    for (; r < t->rows; r += SSA__NR) {
        const int32_t left = t->rows - r;
        if (left >= SSA__NR) SSA__FN(narrow_pv_rows)(SSA__NR, type, t, r, v, stride, n, at, first);
        else if (left == 1) SSA__FN(narrow_pv_rows)(1, type, t, r, v, stride, n, at, first);
        else if (left == 2) SSA__FN(narrow_pv_rows)(2, type, t, r, v, stride, n, at, first);
        else if (SSA__NR > 3) SSA__FN(narrow_pv_rows)(3, type, t, r, v, stride, n, at, first);
    }
}

/* Keys along the lanes: a horizontal maximum and sum a row. s has room for whole vectors. All maxima, then all
 * exponentials: the rows do not wait for each other's. */
SSA__LOCAL void SSA__FN(narrow_softmax)(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    float total[SSA__TILE_ROWS + SSA__L];
    for (int32_t r = 0; r < t->rows; r++) {
        const float *s = t->s + r * t->ld;
        const int32_t sees = limit ? limit[r] : n;
        SSA__V m = SSA__FN(set1)(t->m[r]);
        int32_t j = 0;
        for (; j + SSA__L <= sees; j += SSA__L) m = SSA__FN(max)(SSA__FN(load)(s + j), m);
        if (j < sees) m = SSA__FN(max)(SSA__FN(first)(sees - j, SSA__FN(load)(s + j), m), m);
        t->fix[r] = t->m[r];
        t->m[r] = SSA__FN(hmax)(m);
    }
    for (int32_t r = 0; r < t->rows; r++) {
        float *s = t->s + r * t->ld;
        const int32_t sees = limit ? limit[r] : n;
        SSA__V p, m = SSA__FN(set1)(t->m[r]), sum = SSA__FN(zero)();
        int32_t j = 0;
        for (; j + SSA__L <= sees; j += SSA__L) {
            p = SSA__FN(exp)(SSA__FN(sub)(SSA__FN(load)(s + j), m));
            SSA__FN(store)(s + j, p);
            sum = SSA__FN(add)(sum, p);
        }
        for (; j < n; j += SSA__L) { /* the edge of what the row sees, and what it does not see */
            p = SSA__FN(sub)(SSA__FN(load)(s + j), m);
            p = SSA__FN(exp)(SSA__FN(first)(sees - j, p, SSA__FN(set1)(SSA__EXP_LOW))); /* exp of that is 0 */
            SSA__FN(store)(s + j, p);
            sum = SSA__FN(add)(sum, p);
        }
        total[r] = SSA__FN(hsum)(sum);
    }
    for (int32_t r = 0; r < t->rows; r += SSA__L) { /* the padding of the rows computes along */
        SSA__V fix = SSA__FN(exp)(SSA__FN(sub)(SSA__FN(load)(t->fix + r), SSA__FN(load)(t->m + r)));
        SSA__FN(store)(t->fix + r, fix);
        SSA__FN(store)(t->l + r, SSA__FN(fma)(SSA__FN(load)(t->l + r), fix, SSA__FN(load)(total + r)));
    }
}

SSA__LOCAL void SSA__FN(narrow_finish)(const ssa__tile *t, const float *factor, float *rows)
{
    for (int32_t r = 0; r < t->rows; r++) {
        const float *o = t->o + (int64_t)r * t->dv_pad;
        float *row = rows + (int64_t)r * t->dv_pad;
        const SSA__V f = SSA__FN(set1)(factor[r]);
        for (int32_t e = 0; e < t->dv_pad; e += SSA__L) SSA__FN(store)(row + e, SSA__FN(mul)(f, SSA__FN(load)(o + e)));
        for (int32_t e = 0; t->v_type == SSA_BF16 && e + 2 * SSA__L <= t->dv; e += 2 * SSA__L) {
            SSA__V x[2];
            x[0] = SSA__FN(load)(row + e);
            x[1] = SSA__FN(load)(row + e + SSA__L);
            SSA__FN(interleave)(x);
            SSA__FN(store)(row + e, x[0]);
            SSA__FN(store)(row + e + SSA__L, x[1]);
        }
    }
}

SSA__LOCAL void SSA__FN(narrow_importance)(const ssa__tile *t, int32_t n, int32_t lo, int32_t group, int32_t lists,
                                           float *imp, int64_t ld)
{
    for (int32_t r = 0; r < group * lists; r++)
        SSA__FN(axpy)(imp + r / group * ld, t->fix[lo + r], t->s + (lo + r) * t->ld, n);
}

/* -- wide -- */

/* nm x nv register tile of C[m][row] = (C[m][row] * fix[row], or 0) + sum over j < n of A(m, j) * B[j][row]. A holds
 * rows sa floats apart: row m when along (scores: m is a key, j a dimension; the sum is scaled), row j otherwise
 * (values: m is a dimension, j a key). Meanwhile the rows from .. to-1 of those ahead are prefetched, one at a time: a
 * burst of prefetches takes all the buffers that a core has for missing lines, and then its loads wait. */
SSA__INLINE void SSA__FN(product_tile)(const int along, const int nm, const int nv, const ssa__tile *t, float *c,
                                       const float *a, int64_t sa, const float *b, int32_t n, const float *fix,
                                       int32_t from, int32_t to)
{
    const int64_t ld = t->ld;
    const int32_t part = from < to ? n / (to - from) : n;
    SSA__V acc[16][SSA__NV], bv[SSA__NV];
    if (fix) {
        SSA__UNROLL
        for (int v = 0; v < nv; v++) bv[v] = SSA__FN(load)(fix + v * SSA__L);
        SSA__UNROLL
        for (int m = 0; m < nm; m++) {
            SSA__UNROLL
            for (int v = 0; v < nv; v++) acc[m][v] = SSA__FN(mul)(SSA__FN(load)(c + m * ld + v * SSA__L), bv[v]);
        }
    } else {
        SSA__UNROLL
        for (int m = 0; m < nm; m++) {
            SSA__UNROLL
            for (int v = 0; v < nv; v++) acc[m][v] = SSA__FN(zero)();
        }
    }
    for (int32_t j = 0; j < n; from++) {
        const int32_t end = from + 1 < to ? j + part : n;
        if (from < to) ssa__prefetch(t, from, from + 1, 0, t->ahead_bytes);
        for (; j < end; j++, b += ld, a += along ? 1 : sa) {
            SSA__UNROLL
            for (int v = 0; v < nv; v++) bv[v] = SSA__FN(load)(b + v * SSA__L);
            SSA__UNROLL
            for (int m = 0; m < nm; m++) {
                SSA__V x = SSA__FN(set1)(along ? a[m * sa] : a[m]);
                SSA__UNROLL
                for (int v = 0; v < nv; v++) acc[m][v] = SSA__FN(fma)(x, bv[v], acc[m][v]);
            }
        }
    }
    SSA__UNROLL
    for (int m = 0; m < nm; m++) {
        SSA__UNROLL
        for (int v = 0; v < nv; v++)
            SSA__FN(store)(c + m * ld + v * SSA__L,
                           along ? SSA__FN(mul)(acc[m][v], SSA__FN(set1)(t->scale)) : acc[m][v]);
    }
}

/* All m of C for nv vectors of rows from r on, but only the keys that the last of them sees; prefetches their share of
 * the rows ahead, evenly. */
SSA__INLINE void SSA__FN(product_columns)(const int along, const int nv, const ssa__tile *t, float *c, const float *a,
                                          int64_t sa, const float *b, int32_t m, int32_t n, const float *fix,
                                          int64_t r)
{
    const int64_t step = along ? sa : 1, ld = t->ld;
    const int32_t from = (int32_t)(t->ahead_rows * r / ld), to = (int32_t)(t->ahead_rows * (r + nv * SSA__L) / ld);
    const int32_t sees = t->limit ? t->limit[ssa__min(r + nv * SSA__L, t->rows) - 1] : along ? m : n;
    int32_t i = 0, next = from, whole;
    if (along) m = sees < m ? sees : m;
    else n = sees < n ? sees : n;
    whole = m - m % SSA__NM(nv);
    c += r;
    b += r;
    fix = fix ? fix + r : NULL;
    for (; i + SSA__NM(nv) <= m; i += SSA__NM(nv)) {
        const int32_t first = next;
        next = from + (to - from) * (i + SSA__NM(nv)) / whole;
        SSA__FN(product_tile)(along, SSA__NM(nv), nv, t, c + i * ld, a + i * step, sa, b, n, fix, first, next);
    }
    for (; SSA__NM(nv) > 4 && i + 4 <= m; i += 4)
        SSA__FN(product_tile)(along, 4, nv, t, c + i * ld, a + i * step, sa, b, n, fix, 0, 0);
    for (; i < m; i++) SSA__FN(product_tile)(along, 1, nv, t, c + i * ld, a + i * step, sa, b, n, fix, 0, 0);
}

/* C is [m][ld], B [n][ld]: all ld rows of the tile, NV vectors at a time. */
SSA__INLINE void SSA__FN(product)(const int along, const ssa__tile *t, float *c, const float *a, int64_t sa,
                                  const float *b, int32_t m, int32_t n, const float *fix)
{
    int64_t r = 0;
    for (; r + SSA__NV * SSA__L <= t->ld; r += SSA__NV * SSA__L)
        SSA__FN(product_columns)(along, SSA__NV, t, c, a, sa, b, m, n, fix, r);
#if SSA__NV * SSA__L > SSA__LANES_MAX /* else ld holds whole ones alone */
    {
        const int64_t left = (t->ld - r) / SSA__L;
        if (left == 3) SSA__FN(product_columns)(along, 3, t, c, a, sa, b, m, n, fix, r);
        if (left == 2) SSA__FN(product_columns)(along, 2, t, c, a, sa, b, m, n, fix, r);
        if (left == 1) SSA__FN(product_columns)(along, 1, t, c, a, sa, b, m, n, fix, r);
    }
#endif
}

/* rows [row][dk] to q [dk][row], an L x L square at a time. */
SSA__LOCAL void SSA__FN(wide_q_prep)(ssa__tile *t, float *rows)
{
    for (int64_t r = 0; r < t->ld; r += SSA__L)
        for (int32_t e = 0; e < t->dk_pad; e += SSA__L) {
            SSA__V x[SSA__L];
            for (int i = 0; i < SSA__L; i++) x[i] = SSA__FN(load)(rows + (r + i) * t->dk_pad + e);
            SSA__FN(transpose)(x);
            for (int i = 0; i < SSA__L; i++) SSA__FN(store)(t->q + (e + i) * t->ld + r, x[i]);
        }
}

/* Scores: C = s [key][row], A = the packed keys, B = q [dk][row]. */
SSA__LOCAL void SSA__FN(wide_qk)(const ssa__tile *t, const unsigned char *k, int64_t stride, int32_t n, int32_t at)
{
    SSA__FN(product)(1, t, t->s + at * t->ld, (const float *)(const void *)k, stride / 4, t->q, n, t->dk, NULL);
}

/* Values: C = o [dv][row], A = the packed values read down their columns, B = p [key][row]. */
SSA__LOCAL void SSA__FN(wide_pv)(const ssa__tile *t, const unsigned char *v, int64_t stride, int32_t n, int32_t at,
                                 int first)
{
    SSA_ASSERT(first);
    (void)first;
    SSA__FN(product)(0, t, t->o, (const float *)(const void *)v, stride / 4, t->s + at * t->ld, t->dv, n, t->fix);
}

/* One vector of rows, all its keys; masked is a constant after inlining. */
SSA__INLINE void SSA__FN(wide_softmax_rows)(const int masked, const ssa__tile *t, int64_t r, int32_t n,
                                            const int32_t *limit)
{
    const int64_t ld = t->ld;
    float *s = t->s + r;
    SSA__V m_old = SSA__FN(load)(t->m + r), top[4], sum[2], m, fix, p;
    int32_t j = 0;
    top[0] = top[1] = top[2] = top[3] = m_old;
    for (; j + 4 <= n; j += 4) { /* four maxima and two sums, to overlap their latencies */
        SSA__UNROLL
        for (int i = 0; i < 4; i++) {
            p = SSA__FN(load)(s + (j + i) * ld);
            if (masked) p = SSA__FN(below)(limit, j + i, p, m_old);
            top[i] = SSA__FN(max)(p, top[i]);
        }
    }
    for (; j < n; j++) {
        p = SSA__FN(load)(s + j * ld);
        if (masked) p = SSA__FN(below)(limit, j, p, m_old);
        top[0] = SSA__FN(max)(p, top[0]);
    }
    m = SSA__FN(max)(SSA__FN(max)(top[0], top[1]), SSA__FN(max)(top[2], top[3]));
    fix = SSA__FN(exp)(SSA__FN(sub)(m_old, m));
    sum[0] = sum[1] = SSA__FN(zero)();
    for (j = 0; j + 2 <= n; j += 2) {
        SSA__UNROLL
        for (int i = 0; i < 2; i++) {
            p = SSA__FN(exp)(SSA__FN(sub)(SSA__FN(load)(s + (j + i) * ld), m));
            if (masked) p = SSA__FN(below)(limit, j + i, p, SSA__FN(zero)());
            SSA__FN(store)(s + (j + i) * ld, p);
            sum[i] = SSA__FN(add)(sum[i], p);
        }
    }
    if (j < n) {
        p = SSA__FN(exp)(SSA__FN(sub)(SSA__FN(load)(s + j * ld), m));
        if (masked) p = SSA__FN(below)(limit, j, p, SSA__FN(zero)());
        SSA__FN(store)(s + j * ld, p);
        sum[0] = SSA__FN(add)(sum[0], p);
    }
    SSA__FN(store)(t->m + r, m);
    SSA__FN(store)(t->fix + r, fix);
    SSA__FN(store)(t->l + r, SSA__FN(fma)(SSA__FN(load)(t->l + r), fix, SSA__FN(add)(sum[0], sum[1])));
}

SSA__LOCAL void SSA__FN(wide_softmax)(const ssa__tile *t, int32_t n, const int32_t *limit)
{
    for (int64_t r = 0; r < t->ld; r += SSA__L) {
        if (limit) SSA__FN(wide_softmax_rows)(1, t, r, n, limit + r);
        else SSA__FN(wide_softmax_rows)(0, t, r, n, NULL);
    }
}

/* o [dv][row] to rows [row][dv], an L x L square at a time. */
SSA__LOCAL void SSA__FN(wide_finish)(const ssa__tile *t, const float *factor, float *rows)
{
    for (int64_t r = 0; r < t->ld; r += SSA__L)
        for (int32_t e = 0; e < t->dv_pad; e += SSA__L) {
            SSA__V x[SSA__L], f = SSA__FN(load)(factor + r);
            for (int i = 0; i < SSA__L; i++) x[i] = SSA__FN(mul)(f, SSA__FN(load)(t->o + (e + i) * t->ld + r));
            SSA__FN(transpose)(x);
            for (int i = 0; i < SSA__L; i++) SSA__FN(store)(rows + (r + i) * t->dv_pad + e, x[i]);
        }
}

/* imp[0..n-1] += sum, of which n lanes count. */
SSA__INLINE void SSA__FN(add_lanes)(float *imp, SSA__V sum, int32_t n)
{
    float part[SSA__L];
    if (n >= SSA__L) {
        SSA__FN(store)(imp, SSA__FN(add)(SSA__FN(load)(imp), sum));
        return;
    }
    SSA__FN(store)(part, sum);
    for (int32_t i = 0; i < n; i++) imp[i] += part[i];
}

/* Sums of s over lanes, a square of as many blocks turned at a time, for all lists that have rows in it. */
SSA__LOCAL void SSA__FN(wide_importance)(const ssa__tile *t, int32_t n, int32_t lo, int32_t group, int32_t lists,
                                         float *imp, int64_t ld)
{
    const int32_t hi = lo + group * lists;
    for (int32_t r = lo / SSA__L * SSA__L; r < hi; r += SSA__L) {
        const int32_t before = r > lo ? r - lo : 0; /* rows of the lists that came before */
        for (int32_t j = 0; j < n; j += SSA__L) {
            SSA__V x[SSA__L], sum = SSA__FN(zero)();
            float *to = imp + before / group * ld + j;
            int32_t g = before % group;
            for (int i = 0; i < SSA__L; i++) x[i] = SSA__FN(load)(t->s + (j + i < n ? j + i : n - 1) * t->ld + r);
            SSA__FN(transpose)(x);
            SSA__UNROLL
            for (int i = 0; i < SSA__L; i++) { /* other rows have no zero weight: theirs may be NaN */
                if (r + i < lo || r + i >= hi) continue;
                sum = SSA__FN(fma)(x[i], SSA__FN(set1)(t->fix[r + i]), sum);
                if (++g < group && i + 1 < SSA__L) continue;
                SSA__FN(add_lanes)(to, sum, n - j);
                sum = SSA__FN(zero)();
                if (g == group) { to += ld; g = 0; }
            }
        }
    }
}

/* -- gathered rows: keys, and then dims of values, along the lanes; SSA__NG rows share what is read of a block -- */

/* Scores of NG rows q: s [row][vector of keys]. */
SSA__INLINE void SSA__FN(meet_scores)(const ssa__tile *t, const float *const *q, const float *k,
                                      SSA__V (*s)[SSA__LANES_MAX / SSA__L])
{
    enum { NK = SSA__LANES_MAX / SSA__L };
    const SSA__V scale = SSA__FN(set1)(t->scale);
    SSA__V x[NK];
    SSA__UNROLL
    for (int r = 0; r < SSA__NG; r++) {
        SSA__UNROLL
        for (int i = 0; i < NK; i++) s[r][i] = SSA__FN(zero)();
    }
    for (int32_t e = 0; e < t->dk; e++, k += SSA__LANES_MAX) {
        SSA__UNROLL
        for (int i = 0; i < NK; i++) x[i] = SSA__FN(load)(k + i * SSA__L);
        SSA__UNROLL
        for (int r = 0; r < SSA__NG; r++) {
            SSA__V y = SSA__FN(set1)(q[r][e]);
            SSA__UNROLL
            for (int i = 0; i < NK; i++) s[r][i] = SSA__FN(fma)(y, x[i], s[r][i]);
        }
    }
    SSA__UNROLL
    for (int r = 0; r < SSA__NG; r++) {
        SSA__UNROLL
        for (int i = 0; i < NK; i++) s[r][i] = SSA__FN(mul)(s[r][i], scale);
    }
}

/* nv vectors of the output of NG rows, of which n count: o = o * fix + p.V. */
SSA__INLINE void SSA__FN(meet_values)(const int nv, const ssa__tile *t, float *const *o, const float *v,
                                      float (*p)[SSA__LANES_MAX], const float *fix, int32_t rows, int32_t n)
{
    SSA__V acc[SSA__NG][4], x[4];
    SSA__UNROLL
    for (int r = 0; r < SSA__NG; r++) {
        SSA__V f = SSA__FN(set1)(fix[r]);
        SSA__UNROLL
        for (int i = 0; i < nv; i++) acc[r][i] = SSA__FN(mul)(f, SSA__FN(load)(o[r] + i * SSA__L));
    }
    for (int32_t j = 0; j < n; j++, v += t->dv_pad) {
        SSA__UNROLL
        for (int i = 0; i < nv; i++) x[i] = SSA__FN(load)(v + i * SSA__L);
        SSA__UNROLL
        for (int r = 0; r < SSA__NG; r++) {
            SSA__V y = SSA__FN(set1)(p[r][j]);
            SSA__UNROLL
            for (int i = 0; i < nv; i++) acc[r][i] = SSA__FN(fma)(y, x[i], acc[r][i]);
        }
    }
    SSA__UNROLL
    for (int r = 0; r < SSA__NG; r++) {
        SSA__UNROLL
        for (int i = 0; i < nv; i++) if (r < rows) SSA__FN(store)(o[r] + i * SSA__L, acc[r][i]);
    }
}

/* What follows the scores s of rows at .. at + NG - 1 of the set; past its last row those of that one again. */
SSA__INLINE void SSA__FN(meet_rows)(const ssa__tile *t, const ssa__gathered *g, int32_t at,
                                    SSA__V (*s)[SSA__LANES_MAX / SSA__L], const float *v, int32_t n)
{
    enum { NK = SSA__LANES_MAX / SSA__L };
    const SSA__V low = SSA__FN(set1)(SSA__EXP_LOW);
    const int32_t rows = g->n - at < SSA__NG ? g->n - at : SSA__NG;
    float *o[SSA__NG], p[SSA__NG][SSA__LANES_MAX], fix[SSA__NG], sums[SSA__NG];
    SSA__V sum[SSA__NG];
    int32_t e = 0;
    SSA__UNROLL
    for (int r = 0; r < SSA__NG; r++) {
        const int32_t i = at + (r < rows ? r : rows - 1), sees = g->seen[i];
        float *m = &t->m[g->row[i]];
        SSA__V top = SSA__FN(set1)(*m), old = top;
        o[r] = t->o + (int64_t)g->row[i] * t->dv_pad;
        SSA__UNROLL
        for (int j = 0; j < NK; j++)
            top = SSA__FN(max)(SSA__FN(first)(sees - j * SSA__L, s[r][j], SSA__FN(set1)(-FLT_MAX)), top);
        fix[r] = 1.0f;
        if (SSA__FN(above_bits)(top, old)) {
            const float most = SSA__FN(hmax)(top);
            fix[r] = ssa__expf(*m - most);
            *m = most;
            top = SSA__FN(set1)(most);
        } else top = old;
        SSA__UNROLL
        for (int j = 0; j < NK; j++) {
            SSA__V x = SSA__FN(exp)(SSA__FN(first)(sees - j * SSA__L, SSA__FN(sub)(s[r][j], top), low));
            SSA__FN(store)(p[r] + j * SSA__L, x);
            sum[r] = j == 0 ? x : SSA__FN(add)(sum[r], x);
        }
    }
    SSA__UNROLL
    for (int r = 0; r < SSA__NG; r += 4)
        SSA__FN(hsum4)(sum[r], sum[r + 1], sum[r + 2], sum[r + 3], 1.0f, sums + r);
    for (int r = 0; r < rows; r++) {
        float *l = &t->l[g->row[at + r]];
        *l = *l * fix[r] + sums[r];
    }
    for (; e + 2 * SSA__L <= t->dv_pad; e += 2 * SSA__L) {
        SSA__FN(meet_values)(2, t, o, v + e, p, fix, rows, n);
        for (int r = 0; r < SSA__NG; r++) o[r] += 2 * SSA__L;
    }
    if (e < t->dv_pad) SSA__FN(meet_values)(1, t, o, v + e, p, fix, rows, n);
}

SSA__LOCAL void SSA__FN(meet)(const ssa__tile *t, const ssa__gathered *g, const float *k, const float *v, int32_t n)
{
    for (int32_t at = 0; at < g->n; at += SSA__NG) {
        SSA__V s[SSA__NG][SSA__LANES_MAX / SSA__L];
        const float *q[SSA__NG];
        for (int r = 0; r < SSA__NG; r++)
            q[r] = t->q + (int64_t)g->row[at + r < g->n ? at + r : g->n - 1] * t->dk_pad;
        SSA__FN(meet_scores)(t, q, k, s);
        SSA__FN(meet_rows)(t, g, at, s, v, n);
    }
}

/* -- the entries that exist per type, and the table -- */
#define SSA__PER_TYPE_ROWS(t, T)                                                                                      \
    SSA__LOCAL void SSA__FN(pack_##t)(float *dst, int64_t ld, const unsigned char *src, int64_t stride, int32_t n,    \
                                      int32_t d)                                                                      \
    { SSA__FN(pack)(T, dst, ld, src, stride, n, d); }                                                                 \
    SSA__LOCAL void SSA__FN(pool_##t)(float *sum, const unsigned char *src, int64_t stride, int64_t n, int32_t d)     \
    { SSA__FN(pool)(T, sum, src, stride, n, d); }
#define SSA__PER_TYPE(t, T)                                                                                           \
    SSA__LOCAL void SSA__FN(narrow_qk_##t)(const ssa__tile *a, const unsigned char *k, int64_t stride, int32_t n,     \
                                           int32_t at)                                                                \
    { SSA__FN(narrow_qk)(T, a, k, stride, n, at); }                                                                   \
    SSA__LOCAL void SSA__FN(narrow_pv_##t)(const ssa__tile *a, const unsigned char *v, int64_t stride, int32_t n,     \
                                           int32_t at, int first)                                                     \
    { SSA__FN(narrow_pv)(T, a, v, stride, n, at, first); }
SSA__PER_TYPE_ROWS(f32, SSA_F32)
SSA__PER_TYPE_ROWS(f16, SSA_F16)
SSA__PER_TYPE_ROWS(bf16, SSA_BF16)
SSA__PER_TYPE(f32, SSA_F32)
SSA__PER_TYPE(f16, SSA_F16)
SSA__PER_TYPE(bf16, SSA_BF16)
SSA__PER_TYPE(q8_0, SSA_Q8_0)
#undef SSA__PER_TYPE_ROWS
#undef SSA__PER_TYPE

SSA__LOCAL void SSA__FN(unpack_f32)(unsigned char *dst, const float *src, int32_t d)
{
    memcpy(dst, src, (size_t)d * sizeof(float));
}
SSA__LOCAL void SSA__FN(unpack_f16)(unsigned char *dst, const float *src, int32_t d)
{
    SSA__FN(unpack)(SSA_F16, dst, src, d);
}
SSA__LOCAL void SSA__FN(unpack_bf16)(unsigned char *dst, const float *src, int32_t d)
{
    SSA__FN(unpack)(SSA_BF16, dst, src, d);
}

static void SSA__FN(fill)(ssa__table *t, ssa_isa isa)
{
    t->isa = isa;
    t->narrow_rows = SSA__NARROW;
    t->narrow.q_prep     = SSA__FN(narrow_q_prep);
    t->narrow.softmax    = SSA__FN(narrow_softmax);
    t->narrow.finish     = SSA__FN(narrow_finish);
    t->narrow.importance = SSA__FN(narrow_importance);
    t->wide.q_prep       = SSA__FN(wide_q_prep);
    t->wide.qk[SSA_F32]  = SSA__FN(wide_qk);
    t->wide.softmax      = SSA__FN(wide_softmax);
    t->wide.pv[SSA_F32]  = SSA__FN(wide_pv);
    t->wide.finish       = SSA__FN(wide_finish);
    t->wide.importance   = SSA__FN(wide_importance);
    t->wide.meet         = SSA__FN(meet);
    t->wide.meet_rows    = SSA__NARROW < 8 ? 8 : 4;
    t->above             = SSA__FN(above);
    t->all_above         = SSA__FN(all_above);
    t->ranks             = SSA__FN(ranks);
    t->tops              = SSA__FN(tops);
    t->axpy              = SSA__FN(axpy);
    t->cap               = SSA__FN(cap);
    t->ramp              = SSA__FN(ramp);
    t->bias              = SSA__FN(bias);
    t->unpack[SSA_F32]   = SSA__FN(unpack_f32);
    t->unpack[SSA_F16]   = SSA__FN(unpack_f16);
    t->unpack[SSA_BF16]  = SSA__FN(unpack_bf16);
#define SSA__PER_TYPE(t_, T)                                                                        \
    t->pack[T] = SSA__FN(pack_##t_); t->pool[T] = SSA__FN(pool_##t_);                               \
    t->narrow.qk[T] = SSA__FN(narrow_qk_##t_); t->narrow.pv[T] = SSA__FN(narrow_pv_##t_);
    SSA__PER_TYPE(f32, SSA_F32)
    SSA__PER_TYPE(f16, SSA_F16)
    SSA__PER_TYPE(bf16, SSA_BF16)
    SSA__PER_TYPE(q8_0, SSA_Q8_0)
#undef SSA__PER_TYPE
}

#undef SSA__LOCAL
#undef SSA__INLINE
#undef SSA__FN
#undef SSA__V
#undef SSA__L
#undef SSA__NV
#undef SSA__NM
#undef SSA__NR
#undef SSA__NQ
#undef SSA__NARROW
#undef SSA__NG
#undef SSA__TARGET
#undef SSA__VECTOR_PASS
#endif /* SSA__VECTOR_PASS */

/* =====================================================================================================================
 * 16  LICENCE: MIT
 *
 * Copyright (c) 2026 the ssa.h authors. Permission is hereby granted, free of charge, to any person obtaining a copy of
 * this software and associated documentation files (the "Software"), to deal in the Software without restriction,
 * including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
 * copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following
 * conditions: The above copyright notice and this permission notice shall be included in all copies or substantial
 * portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
 * INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
 * IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN
 * ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER
 * DEALINGS IN THE SOFTWARE.
 * ================================================================================================================== */

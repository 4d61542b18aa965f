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
 * One file, C11 or C++11, no dependency beyond the standard library's headers; OpenMP if the compiler has it on. The best
 * level of the CPU (scalar, avx2, avx512) is chosen at run time: compile with plain -O2, no -march needed. Keys are
 * stored after RoPE; the library never rotates. Nothing is allocated in a call that was given its workspace.
 *
 * SSA (Sparse Sparse Attention, arXiv 2511.20102) trains one model to give nearly the same output with full and with
 * block-sparse attention by aligning the two at every layer. Such a model then runs sparse at any budget. Full attention
 * here serves every transformer; sparse attention serves SSA models, and any model that tolerates block selection.
 *
 * CONTENTS                                                           a section may touch
 *    1  options                                                      macros only
 *    2  version, types, errors                                       stdint, stddef
 *    3  prototypes and their contracts                               -
 *   -- #ifdef SSA_IMPLEMENTATION --
 *    4  compiler and platform                                        the only tests of the compiler's own macros
 *    5  scalar helpers: f16, bf16, exp, log, checked arithmetic      plain C
 *    6  the table of tile operations and the contract of each        plain C
 *    7  scalar operations: the readable definition of each entry     plain C
 *    8  vector levels: AVX2, AVX-512: inline primitives, then 15     intrinsics
 *    9  special units overriding single entries (none yet)           intrinsics
 *   10  detection and choice of a level                              CPUID, XCR0, getenv
 *   11  validation, plan, workspace                                  the only place that makes error codes
 *   12  block selection: pooled keys, importance, top-k              plain C over the table
 *   13  the attention loop and the alignment loss                    plain C over the table
 *   14  public bodies, threads                                       the only OpenMP, the only SSA_MALLOC
 *   15  the vector pass: tile operations over section 8's primitives, re-included once per vector level
 *   16  licence
 *
 * To add a vector ISA: its primitives in 8, its detection in 10. A special unit: section 9. A key type: its reader in 5, 7
 * and 15. A feature of the attention call: a field in 2, its check in 11, its line in 12 or 13.
 */
#ifndef SSA__VECTOR_PASS /* this file includes itself for section 15 alone */
#ifndef SSA_H
#define SSA_H

#include <stddef.h>
#include <stdint.h>

/* ========================================================================================================================
 * 1  OPTIONS. Each is 0 or 1 unless it says otherwise. Define before the include; "impl" = read only where
 *    SSA_IMPLEMENTATION is defined, "all" = must be the same in every file that includes ssa.h.
 * ===================================================================================================================== */
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
#ifndef SSA_NO_AMX            /* impl: leave the amx level out (not built yet) */
#define SSA_NO_AMX 0
#endif
#ifndef SSA_NO_NEON           /* impl: leave the neon level out (not built yet) */
#define SSA_NO_NEON 0
#endif
#ifndef SSA_NO_DISPATCH       /* impl: no CPU detection: the highest level compiled in is used, unconditionally */
#define SSA_NO_DISPATCH 0
#endif
#ifndef SSA_NO_OPENMP         /* impl: no OpenMP even when the compiler has it on; one thread unless ssa_exec says more */
#define SSA_NO_OPENMP 0
#endif
#ifndef SSA_NO_MALLOC         /* impl: no allocation: a call without a workspace returns SSA_ERR_WORKSPACE */
#define SSA_NO_MALLOC 0
#endif
#ifndef SSA_NO_GETENV         /* impl: the environment variable SSA_ISA is not read */
#define SSA_NO_GETENV 0
#endif
#ifndef SSA_CHECKED           /* impl: SSA_SELECT_GIVEN returns SSA_ERR_BLOCKS for duplicates and blocks out of range */
#define SSA_CHECKED 0         /*       (0: ignores them) */
#endif
/* SSA_MALLOC(size), SSA_FREE(p)  impl: both or neither; default malloc and free
 * SSA_ASSERT(x)                  impl: internal consistency checks; default nothing
 * SSA_HEADER_FILENAME            impl: the name this file has, for its inclusion of itself; default "ssa.h" */

/* ========================================================================================================================
 * 2  VERSION, TYPES, ERRORS
 * ===================================================================================================================== */
#define SSA_VERSION_MAJOR 0
#define SSA_VERSION_MINOR 1
#define SSA_VERSION_PATCH 0

#define SSA_MAX_DIM   1024          /* largest head_dim and value_dim */
#define SSA_MAX_BLOCK 4096          /* largest block_size */

typedef enum { SSA_F32, SSA_F16, SSA_BF16, SSA_Q8_0 } ssa_type;
typedef enum { SSA_FULL, SSA_SPARSE } ssa_mode;
typedef enum { SSA_SELECT_TOPK, SSA_SELECT_REFERENCE, SSA_SELECT_GIVEN } ssa_select;
typedef enum { SSA_SCORE_SOFTMAX, SSA_SCORE_DOT } ssa_score;

typedef enum {
    SSA_OK               =   0,
    SSA_ERR_NULL         =  -1,     /* a required pointer is NULL */
    SSA_ERR_MODE         =  -2,     /* the mode is neither SSA_FULL nor SSA_SPARSE */
    SSA_ERR_HEADS        =  -3,     /* head counts below 1, or n_heads not a multiple of n_kv_heads */
    SSA_ERR_HEAD_DIM     =  -4,     /* head_dim outside 1..SSA_MAX_DIM */
    SSA_ERR_VALUE_DIM    =  -5,     /* value_dim outside 1..SSA_MAX_DIM */
    SSA_ERR_LENGTH       =  -6,     /* a token count or row count is negative */
    SSA_ERR_POSITION     =  -7,     /* sparse: a query lies past the last key; or q_pos + n_q overflows */
    SSA_ERR_TYPE         =  -8,     /* a type that this operand cannot have */
    SSA_ERR_STRIDE       =  -9,     /* a negative stride, or output rows that overlap */
    SSA_ERR_SCALE        = -10,     /* scale is NaN or infinite */
    SSA_ERR_CAUSAL       = -11,     /* causal is neither 0 nor 1, or sparse without causal */
    SSA_ERR_BLOCK_SIZE   = -12,     /* block_size outside 1..SSA_MAX_BLOCK */
    SSA_ERR_TOP_K        = -13,     /* top_k below 1 */
    SSA_ERR_SELECT       = -14,     /* select is not an ssa_select */
    SSA_ERR_REFERENCE    = -15,     /* SSA_SELECT_REFERENCE needs a block_size that is a power of two and at least top_k */
    SSA_ERR_BLOCKS       = -16,     /* blocks: NULL where needed; with SSA_CHECKED also duplicates or out of range */
    SSA_ERR_POOL         = -17,     /* the pool is not initialised, has another shape, or holds fewer tokens than n_kv */
    SSA_ERR_POOL_FULL    = -18,     /* append: more than max_tokens */
    SSA_ERR_POOL_RANGE   = -19,     /* truncate, drop_front: more tokens than the pool holds */
    SSA_ERR_POOL_MEMORY  = -20,     /* init: the memory is smaller than ssa_pool_size says */
    SSA_ERR_WORKSPACE    = -21,     /* the workspace is smaller than ssa_workspace_size says, or missing (SSA_NO_MALLOC) */
    SSA_ERR_MEMORY       = -22,     /* the allocation of the workspace failed */
    SSA_ERR_THREADS      = -23,     /* n_threads below 0, or a parallel callback without n_threads */
    SSA_ERR_BATCH        = -24,     /* the number of calls is negative */
    SSA_ERR_OVERFLOW     = -25,     /* a size does not fit in 63 bits, or not in size_t */
    SSA_ERR_BETA         = -26,     /* alignment loss: beta or grad_scale is negative (beta), NaN or infinite */
    SSA_ERR_UNSUPPORTED  = -27      /* the call asks for something this version does not compute */
} ssa_status;

/* Levels, in the order in which one is preferred within an architecture. A level is one complete table of operations. */
typedef enum { SSA_ISA_SCALAR, SSA_ISA_AVX2, SSA_ISA_AVX512, SSA_ISA_AMX, SSA_ISA_NEON } ssa_isa;

/* A tensor [token][head][dim] in the caller's memory; dim is always contiguous. Strides in BYTES; head_stride 0 means
 * dim * element size, token_stride 0 means heads * head_stride: contiguous [token][head][dim]. Rows need not be aligned. */
typedef struct { void *data; ssa_type type; int64_t token_stride, head_stride; } ssa_view;

/* Pooled keys beside a KV cache, in the caller's memory: the mean key of each finished block, and the running sum of the
 * open one. Holds no pointer into the cache. Fields are read-only for callers; see ssa_pool_init. */
typedef struct {
    void    *pooled;                  /* [n_kv_heads][max_blocks][head_dim], f32 or bf16 */
    float   *open_sum;                /* [n_kv_heads][head_dim], the sum of the open block's keys */
    int64_t  n_tokens, max_tokens, max_blocks;
    int32_t  n_kv_heads, head_dim, block_size;
    ssa_type type;
} ssa_pool;

/* One attention call. Start from ssa_attn_default(): fields added later are then right by themselves.
 *
 * HQ = n_heads query heads, H = n_kv_heads, G = HQ / H query heads share one key/value head (query head h reads key/value
 * head h / G). Query i sits at position p = q_pos + i, key j at position j. Causal: key j is visible to query i when j <= p.
 * Example, n_q = 3, n_kv = 5, q_pos = -1 (so 2):  query 0 sees keys 0 1 2, query 1 sees 0 1 2 3, query 2 sees 0 1 2 3 4.
 * A query that sees no key gives out = 0 and lse = -infinity. Block c holds keys c*block_size .. (c+1)*block_size - 1. */
typedef struct {
    int32_t  n_heads, n_kv_heads, head_dim, value_dim;
    int64_t  n_q, n_kv, q_pos;        /* q_pos < 0: n_kv - n_q, the last n_q positions */
    ssa_view q, k, v, out;            /* q [n_q][HQ][head_dim], k [n_kv][H][head_dim], v [n_kv][H][value_dim], */
                                      /* out [n_q][HQ][value_dim]; each f32, f16 or bf16 */
    float    scale;                   /* 0: 1/sqrt(head_dim) */
    int32_t  causal;                  /* default 1; sparse needs 1 */
    const float *gate;                /* optional [n_q][HQ], multiplies the output */
    float   *lse;                     /* optional out [n_q][HQ]: natural log of the sum of exp(scale * q.k) over the keys used */
    int64_t  window;                  /* 0: none. Not supported yet, like every field marked (*) */
    float    softcap;                 /* (*) 0: none */
    const float *sinks;               /* (*) NULL: none */
    const void *mask; ssa_type mask_type; int64_t mask_stride;                    /* (*) NULL: none */
    const int32_t *pages; int64_t page_tokens, page_stride_k, page_stride_v;      /* (*) NULL: none */
    int32_t  block_size, top_k;       /* sparse: defaults 16, 16; top_k counts the query's own block */
    ssa_select select;                /* default SSA_SELECT_TOPK */
    ssa_score score;                  /* default SSA_SCORE_SOFTMAX; DOT (*) */
    int32_t  select_per_head;         /* (*) 0 */
    int32_t  sink_blocks, local_blocks; float top_p; const int32_t *top_k_per_head; /* (*) 0, 0, 0, NULL */
    int32_t *blocks;                  /* [n_q][H][top_k] chosen blocks, -1 = empty slot. In for GIVEN (any order); else an */
                                      /* optional output: ascending, the empty slots last */
    const ssa_pool *pool;             /* pooled keys of k; NULL: pooled inside the call, in f32, at the cost of reading k */
} ssa_attn;

/* fn(task, ith, nth): the share of worker ith of nth. Every ith in 0..nth-1 must run once, in any order, on any thread. */
typedef void (*ssa_task)(void *task, int ith, int nth);

/* Where to run. A NULL ssa_exec: OpenMP's threads if compiled in, else one; workspace from malloc. */
typedef struct {
    int    n_threads;                                                  /* 0: OpenMP's default, or 1 */
    void (*parallel)(void *user, ssa_task fn, void *task, int nth);    /* the engine's thread pool: runs fn for 0..nth-1, */
                                                                       /* returns when all are done; NULL: OpenMP */
    void  *user;                                                       /* handed to parallel */
    void  *workspace; size_t workspace_size;                           /* NULL: SSA_MALLOC inside the call */
} ssa_exec;

/* A prepared run. Fields are private; read-only after ssa_plan_make, so that every worker may share it. */
typedef struct {
    const ssa_attn *attn; const void *table; unsigned char *calls, *shared, *scratch; size_t scratch_stride;
    int32_t n, n_threads, n_phases, phase[4];
} ssa_plan;

typedef struct { double sparsity, commitment, total; } ssa_alignment;
typedef struct { ssa_view d_out, d_q, d_k, d_v; float *d_gate; } ssa_grad;

/* ========================================================================================================================
 * 3  PROTOTYPES AND CONTRACTS
 *    All functions are thread-safe for calls on different data. A function that returns an ssa_status writes nothing
 *    unless it returns SSA_OK. The one global is the chosen level: read by every call, written by the first call of the
 *    process (the same value by whichever thread) and by ssa_isa_set.
 * ===================================================================================================================== */
#if SSA_STATIC
#define SSA_API static
#elif defined(__cplusplus)
#define SSA_API extern "C"
#else
#define SSA_API extern
#endif

/* A call with every field at its default: value_dim = head_dim, f32 views, contiguous, causal, blocks of 16, top 16.
 * The caller sets n_q, n_kv and the four data pointers. Any argument is accepted; ssa_check judges it. */
SSA_API ssa_attn    ssa_attn_default(int32_t n_heads, int32_t n_kv_heads, int32_t head_dim);

/* Says what is wrong with a call, runs nothing. a: NULL gives SSA_ERR_NULL. Everything that ssa_attention would refuse for the
 * call's sake is refused here, with the same status. O(1), except GIVEN with SSA_CHECKED: O(n_q * n_kv_heads * top_k^2). */
SSA_API ssa_status  ssa_check(const ssa_attn *a, ssa_mode mode);

/* Bytes of workspace for ssa_attention_batch(a, n, mode, x) or ssa_plan_make with n_threads workers (below 1 counts as 1).
 * 0 when a call is invalid or the size overflows. Depends on shapes, types, positions, select, top_k, and on whether a pool
 * or blocks are given; never on data. Grows with n_kv: size it for the largest call. Any alignment will do. */
SSA_API size_t      ssa_workspace_size(const ssa_attn *a, int32_t n, ssa_mode mode, int n_threads);

/* out = gate * softmax(scale * q.K^T) . V over the visible keys (SSA_FULL), or over the visible keys of the selected blocks
 * (SSA_SPARSE). x: NULL for defaults. Same bits for any number of threads and any way to run. Accumulates in f32.
 * Source: the paper's full and sparse attention streams; the selection as described at ssa_select_blocks. */
SSA_API ssa_status  ssa_attention(const ssa_attn *a, ssa_mode mode, const ssa_exec *x);

/* A ragged batch: n calls of any shapes, a[0..n-1], run as one, the work balanced over the threads. The outputs of the calls
 * must not overlap. n = 0 does nothing. Checked first as a whole: one invalid call and nothing is written. */
SSA_API ssa_status  ssa_attention_batch(const ssa_attn *a, int32_t n, ssa_mode mode, const ssa_exec *x);

/* Writes a->blocks [n_q][n_kv_heads][top_k] only; v and out are not touched and may be NULL. The query at position p, in block
 * cur = p / block_size, always chooses cur; of the blocks before it, those whose mean key the group's heads like most:
 *   importance(c) = sum over the group's g of exp(scale * q_g.kbar_c - lse_g),  lse_g = log sum over complete blocks c of
 *   exp(scale * q_g.kbar_c), where block c is complete for the query when (c+1) * block_size <= p + 1.
 * SSA_SELECT_TOPK (the paper): the top_k blocks of highest importance, exactly; ties to the lower index, NaN
 *   below everything.
 * SSA_SELECT_REFERENCE (the official GPU kernel, which the released checkpoints were trained with): its running list of
 *   block_size candidates is exact only in its upper half. What it keeps amounts to: with the blocks cut in chunks of
 *   block_size blocks, the exact best block_size/2 of all chunks before the one that holds cur, and the best block_size/2 of
 *   that one; of these the best top_k. While cur < block_size, or when top_k <= block_size/2: the same as TOPK.
 * SSA_SELECT_GIVEN: refused with SSA_ERR_SELECT: there is nothing to select. */
SSA_API ssa_status  ssa_select_blocks(const ssa_attn *a, const ssa_exec *x);

/* For engines whose workers cannot be called back: one thread makes a plan, then every worker ith of nth runs phase 0, 1, ..
 * ssa_plan_phases(p) - 1, with a barrier of the engine's own between phases. nth may be anything from 1 to n_threads, the same
 * for all workers of a phase. a, ws and what they point to must stay until the last phase is done. ws: at least
 * ssa_workspace_size(a, n, mode, n_threads) bytes. ssa_plan_run ignores NULL, phases and workers out of range. */
SSA_API ssa_status  ssa_plan_make(ssa_plan *p, const ssa_attn *a, int32_t n, ssa_mode mode, int n_threads, void *ws, size_t size);
SSA_API int         ssa_plan_phases(const ssa_plan *p);
SSA_API void        ssa_plan_run(const ssa_plan *p, int phase, int ith, int nth);

/* Pooled keys beside a KV cache, kept up token by token: O(head_dim) a token and head, so that a sparse decode never reads
 * the keys it does not choose. type: SSA_F32, or SSA_BF16 (half the bytes; what the official code keeps for bf16 models).
 * ssa_pool_size: the bytes of memory for max_tokens tokens; 0 for invalid arguments or overflow.
 * ssa_pool_init: an empty pool in the caller's memory (any alignment); which must outlive the pool and not move.
 * One pool is one writer's: do not change it while a call reads it. k's views are [token][n_kv_heads][head_dim], f32/f16/bf16. */
SSA_API size_t      ssa_pool_size(int32_t n_kv_heads, int32_t head_dim, int32_t block_size, int64_t max_tokens, ssa_type type);
SSA_API ssa_status  ssa_pool_init(ssa_pool *p, int32_t n_kv_heads, int32_t head_dim, int32_t block_size, int64_t max_tokens,
                                  ssa_type type, void *memory, size_t size);
/* Adds the next n_tokens keys; k->data is the first NEW key, not the start of the cache. SSA_ERR_POOL_FULL past max_tokens. */
SSA_API ssa_status  ssa_pool_append(ssa_pool *p, const ssa_view *k, int64_t n_tokens);
/* Rolls back to the first n_tokens tokens (speculative decoding); k->data is the START of the cache, whose last open block is
 * summed again. Bit for bit the pool that n_tokens appends would give. SSA_ERR_POOL_RANGE when it holds fewer. */
SSA_API ssa_status  ssa_pool_truncate(ssa_pool *p, const ssa_view *k, int64_t n_tokens);
/* Forgets the first n_tokens tokens after the cache was compacted: k->data is the START of the compacted cache, whose token 0 is
 * the old token n_tokens. A multiple of block_size moves the pooled keys; any other number pools the cache again. */
SSA_API ssa_status  ssa_pool_drop_front(ssa_pool *p, const ssa_view *k, int64_t n_tokens);

/* Joins attention over two disjoint sets of keys: a becomes the attention over both. out [rows][dim] ungated, lse [rows], all
 * f32 and contiguous; b may not overlap a. A row with lse = -infinity counts for nothing. NULL or rows, dim < 1: does nothing.
 * lse_a NULL or lse_b NULL is not meaningful and does nothing. */
SSA_API void        ssa_merge(float *out_a, float *lse_a, const float *out_b, const float *lse_b, int64_t rows, int32_t dim);

/* sparsity[i] = exp(lse_sparse[i] - lse_full[i]): the share of full attention's mass inside the selected blocks (the paper's
 * Definition 1), for the lse of the same query and head from a sparse and a full call. 1 where nothing was visible. NULL, n < 1:
 * does nothing. sparsity may be one of the inputs. */
SSA_API void        ssa_attention_sparsity(const float *lse_sparse, const float *lse_full, int64_t n, float *sparsity);

/* The bidirectional alignment loss of one layer (the paper's L_alignment; the official code takes gated outputs):
 *   sparsity = mean SmoothL1(full - stop(sparse)), commitment = mean SmoothL1(sparse - stop(full)), total = their sum,
 *   SmoothL1(d) = |d| < beta ? d*d / (2*beta) : |d| - beta/2.  The means are over all n_tokens * n_heads * dim elements.
 * full, sparse: [n_tokens][n_heads][dim] views, f32, f16 or bf16. beta: 1 in the official code; 0 is the plain |d|.
 * loss: the three values, summed in double; NULL: not wanted. d_full, d_sparse: views that receive grad_scale * d total/d full
 * (from the first term alone) and d total/d sparse (from the second alone), in their own type; NULL: not wanted. They may be the
 * inputs' own memory when shape, type and strides agree. No elements: all 0. */
SSA_API ssa_status  ssa_alignment_loss(const ssa_view *full, const ssa_view *sparse, int64_t n_tokens, int32_t n_heads, int32_t dim,
                                       float beta, ssa_alignment *loss, float grad_scale, ssa_view *d_full, ssa_view *d_sparse);

/* Gradients through attention. This version returns SSA_ERR_UNSUPPORTED for a valid call. */
SSA_API ssa_status  ssa_attention_backward(const ssa_attn *a, ssa_mode mode, const ssa_grad *g, const ssa_exec *x);

/* A sentence about a status; never NULL. */
SSA_API const char *ssa_status_string(ssa_status s);

/* Levels. detected: the best that is compiled in and that this CPU and OS run. get: the one in use; at first detected, or what
 * the environment variable SSA_ISA names (scalar, avx2, avx512) if it can run. set: uses wanted, or the best available below
 * it, for calls and plans made afterwards, and returns what is now in use. name: "scalar", "avx2", ..; "unknown" for no level. */
SSA_API ssa_isa     ssa_isa_detected(void);
SSA_API ssa_isa     ssa_isa_set(ssa_isa wanted);
SSA_API ssa_isa     ssa_isa_get(void);
SSA_API const char *ssa_isa_name(ssa_isa isa);

#endif /* SSA_H */

/* test.h - the harness: checks that count, a generator of inputs, tensors in any layout, guarded memory, levels.
 *
 * Nothing here shares code with the implementation half of ssa.h. A tensor keeps its values twice: in the memory that
 * the library sees (type, strides, odd addresses), and as plain f32 [token][head][dim] for the oracle; both hold the
 * same values. */
#ifndef SSA_TEST_H
#define SSA_TEST_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../ssa.h"

#if defined(__GNUC__)
#define TEST_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define TEST_PRINTF(a, b)
#endif

/* Counts one pass or one fail; prints failures only. The text says which case it was. */
void test_check(int ok, const char *file, int line, const char *fmt, ...) TEST_PRINTF(4, 5);
void test_skip(const char *name, const char *reason);
extern int64_t test_passed, test_failed, test_skipped;
extern int     test_shown;             /* failures printed since the current test began */
/* `test -b GROUP..` is a brief run, for emulators and slow tools: of a loop's cases only those for which this holds,
 * one in n of i = 0, 1, ... Without -b it holds for all. */
int  test_some(int i, int n);
extern int test_brief;
#define CHECK(cond, ...) test_check((cond) ? 1 : 0, __FILE__, __LINE__, __VA_ARGS__)
#define SKIP(name, reason) test_skip(name, reason)
#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

void test_isa(void);
void test_golden(void);
void test_attention(void);
void test_sparse(void);
void test_pool(void);
void test_loss(void); void test_guard(void);  void test_errors(void);    void test_invariants(void); void test_lm(void);
void test_halves(void); void test_table(void); void test_checked(void); void test_unit(void);    void test_select(void);
void test_terms(void); void test_cache(void);   void test_recipes(void); void test_diag(void);
void test_hosts(void);

/* The stream of golden/README.md: element i depends on seed and i only. */
typedef struct { uint64_t seed, i; } rng;
uint64_t rng_u64(rng *r);
float    rng_f(rng *r);                                     /* [-1, 1), 24 bits */
int      rng_int(rng *r, int lo, int hi);                   /* lo..hi, both included */
#define  RNG_PICK(r, array) ((array)[rng_int(r, 0, COUNT(array) - 1)])

void *xalloc(int64_t n, size_t size);                       /* never NULL, zeroed; exits when there is no memory */

/* Types: conversions by arithmetic on doubles, round to nearest even. */
int         type_size(ssa_type t);                          /* of an element; q8_0 has none */
const char *type_name(ssa_type t);
float       type_get(ssa_type t, const void *p);
void        type_put(ssa_type t, void *p, double x);
double      type_half_ulp(ssa_type t, double x);            /* half the spacing of the type's numbers at |x| */
/* A row of dim elements, in every type: its bytes; reading it; rounding to it. q8_0, ggml's: blocks of 32, a scale in
 * f16 and 32 int8, written in f32 step by step as ggml does; a block that is not finite becomes all NaN. */
int64_t     row_bytes(ssa_type t, int64_t dim);
void        row_get(ssa_type t, const unsigned char *row, float *x, int dim);
void        row_put(ssa_type t, unsigned char *row, const float *x, int dim);

/* Layouts: contiguous with strides 0; contiguous with the strides spelled out; [head][token][dim]; rows and tokens
 * padded by whole elements; rows and tokens padded to odd byte strides at an odd address. */
typedef enum { LAY_ZERO, LAY_TOKEN, LAY_HEAD, LAY_PAD, LAY_ODD, LAY_MIX } layout;

typedef struct {
    ssa_view view;
    ssa_type type;
    int64_t n, ts, hs, span; /* ts, hs: the strides in effect; span: bytes from the first row to the last's end */
    int      heads, dim;
    unsigned char *mem;               /* what tensor_make allocated: span and a margin on both sides */
    int64_t  mem_bytes;
    float   *val;                     /* [n][heads][dim] */
} tensor;

void tensor_shape(tensor *t, ssa_type type, int64_t n, int heads, int dim, layout lay);   /* no memory yet */
void tensor_make(tensor *t, ssa_type type, int64_t n, int heads, int dim, layout lay);
void tensor_free(tensor *t);
void tensor_store(tensor *t);                               /* val -> memory, rounded; val becomes the rounded values */
void tensor_load(tensor *t);                                /* memory -> val */
void tensor_fill(tensor *t, uint64_t seed, double amp);     /* the stream times amp */
void tensor_paint(tensor *t);                               /* every byte of mem gets a pattern */
int  tensor_gaps_ok(const tensor *t);                       /* the pattern is still there outside the rows */
int64_t tensor_count(const tensor *t);

/* One attention call with everything it points to. Zeroed fields are the simplest case: contiguous, f32, causal, scale
 * 0. */
typedef struct {
    const char *name;
    int       HQ, H, D, DV;           /* DV 0: D */
    int       n_q, n_kv, q_pos;
    ssa_type  tq, tk, tv, to;
    layout    lay;
    float     scale, amp;             /* amp: of q and k, 0: 1 */
    int       noncausal, no_gate, no_lse;
    int       B, top_k;               /* sparse; 0: 16 */
    ssa_select select;
    ssa_score score;
    int       per_head, sinks, locals; /* select_per_head, sink_blocks, local_blocks */
    float     top_p;
    const int32_t *k_of;              /* top_k_per_head */
    uint64_t  seed;
} shape;

typedef struct {
    shape    s;
    ssa_attn a;
    tensor   q, k, v, o;
    float   *gate, *lse;
    int32_t *blocks;                  /* [n_q][H, or HQ per_head][top_k]; a.blocks is NULL until the test sets it */
    int64_t  q0, n_lse, n_blocks;     /* q0: the first query's position */
} prob;

void     prob_make(prob *p, const shape *given);
void     prob_fill(prob *p, uint64_t seed);
void     prob_refill(prob *p, uint64_t seed);               /* fresh data; of a large problem, queries alone */
void     prob_free(prob *p);
void     prob_clear(prob *p);                               /* paints the outputs */
uint64_t prob_hash(const prob *p);                          /* of all bytes of out, lse and blocks */
uint64_t bytes_hash(const void *data, int64_t n, uint64_t h);
const char *shape_text(const shape *s);                     /* static buffer: for messages */

/* Levels that run here; the list is made once. FOR_LEVELS(l) { .. } runs the body with each level in use, then
 * restores. */
int         level_count(void);
ssa_isa     level_at(int i);
const char *level_use(int i);                               /* ssa_isa_set, returns its name */
void        level_restore(void);
int64_t     unit_products(void);                            /* of tiles, by this thread so far; -1: not known */
int         level_rounds(ssa_isa isa, ssa_type q, ssa_type k, ssa_type v); /* p to v's type: with these, as they are */
#define FOR_LEVELS(i) for (int i = 0; i < level_count() ? (level_use(i), 1) : (level_restore(), 0); i++)
#define MAX_LEVELS 8

/* Memory between two pages that trap: guard_at(g, n, 1) is n bytes that end at the upper one, guard_at(g, n, 0) starts
 * right after the lower one. Where there are none, between NaNs, which spoil what is made of them; guard_free notices
 * what was written there. */
typedef struct { unsigned char *base; int64_t size, page; int traps; } guard;
void  guard_make(guard *g, int64_t size);
void *guard_at(const guard *g, int64_t n, int at_end);
void  guard_free(guard *g);

#endif

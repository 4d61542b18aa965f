/* oracle.h - what ssa.h should compute, in double precision and from the definitions, and the naive f32 program that
 * sets the tolerance: the library may err at most twice as much as the naive program does on the same inputs (the 2x
 * rule). */
#ifndef SSA_TEST_ORACLE_H
#define SSA_TEST_ORACLE_H

#include "test.h"

/* Inputs as plain f32, contiguous: q [n_q][HQ][D], k [n_kv][H][D], v [n_kv][H][DV], gate [n_q][HQ] or NULL. */
typedef struct {
    int          HQ, H, D, DV, B, top_k, causal;
    int64_t      n_q, n_kv, q0;       /* q0: the first query's position */
    double       scale;
    int          dot, per_head, sink_blocks, locals;
    double       top_p;
    const int32_t *k_of;              /* [H], or [HQ] per_head; NULL: top_k for all */
    double       unit;                /* importances less than 1e-5 of it apart are a near tie; 0: of themselves */
    const float *q, *k, *v, *gate;
    /* Terms of the scores, as the call has them; 0 or NULL: none. Of the mask's rows only keys in sight are read. */
    int64_t      window, mask_stride; /* bytes */
    double       softcap;
    const float *sinks, *alibi;
    const void  *mask;
    ssa_type     mask_type;
} o_call;

void o_call_of(o_call *c, const prob *p);

/* One query and head: out [DV] gated, *lse. blocks: the n_blocks chosen ones (-1 and what is not visible are ignored),
 * or NULL for all visible keys. n_row is the naive program: f32 throughout, three loops, expf; p, exp(score - max), is
 * kept in a type. */
void o_row(const o_call *c, int64_t i, int h, const int32_t *blocks, int n_blocks, double *out, double *lse);
void n_row(const o_call *c, int64_t i, int h, const int32_t *blocks, int n_blocks, ssa_type p, float *out, float *lse);

/* Query i and a head: its full output f [DV] and its sparse one s [DV], ungated, and what ssa_diagnose should say of
 * them: x = entropy, sparsity, delta, bound; by p = exp(score - lse), key by key. */
void o_diagnose(const o_call *given, int64_t i, int h, const int32_t *blocks, int n_blocks, double *f, double *s,
                double *x);

/* Pooled keys [H][n_kv / B][D], the mean of every complete block. */
void o_pool(const o_call *c, double *pooled);
/* Importance of blocks 0..cur for query i and list j (of a key/value head, or per_head of a query head); returns cur,
 * -1 for a query before key 0. The own block's is infinite: always chosen. NaN for a block whose pooled key is not
 * finite; it counts for no other. */
int64_t o_importance(const o_call *c, const double *pooled, int64_t i, int j, double *importance);
/* The unit of raw scores: the largest sum of |scale * q * kbar| that goes into one. 0 with a softmax. */
double  o_unit(const o_call *c, const double *pooled, int64_t i, int j);
/* Choose; chosen: ascending, -1 last, c->top_k entries. Returns the margin: the smallest relative difference, over all
 * cuts made, between the last importance kept and the first one dropped. 1: nothing was dropped; 0: an exact tie; -1:
 * what was kept is below 1e-30, where f32 loses the order, or a
 * share is too near to top_p. */
double o_topk(const o_call *c, const double *importance, int64_t cur, int32_t *chosen);
double o_reference(const o_call *c, const double *importance, int64_t cur, int32_t *chosen);

/* Alignment loss of n elements and its gradients times grad_scale; df, ds may be NULL. */
void o_loss(const float *f, const float *s, int64_t n, double beta, ssa_alignment *loss, double grad_scale, double *df,
            double *ds);

/* The 2x rule over one or more tensors. Few rows are repeated with fresh data (two_x_reps times for that many rows,
 * query times head, of that many multiply-adds in all) until the naive program's largest error is a statistic and not
 * luck. naive, ref_max: the naive program's largest error, the largest magnitude expected. Where a level multiplies
 * halves as such (rounds) its measure is naive_unit, of the naive program that keeps p in v's type as well. */
typedef struct {
    double naive, naive_unit, ref_max, ours[MAX_LEVELS];
    int    rounds[MAX_LEVELS], exact_bad[MAX_LEVELS];
} two_x;
int    two_x_reps(int64_t rows, int64_t cost);
void   two_x_base(two_x *t, double ref, double naive);
void   two_x_ours(two_x *t, int level, double ref, double ours);
void   two_x_unit(two_x *t, double ref, double naive);
double two_x_bound(const two_x *t, int level, ssa_type out);
void   two_x_check(const two_x *t, ssa_type out, const char *what, const char *text, const char *file, int line);

/* Oracle and naive results of a problem; blocks: prob.blocks for sparse (rows per query and list), NULL for full. */
typedef struct { double *out, *lse; } o_result;
void o_solve(const prob *p, const int32_t *blocks, o_result *r, two_x *out, two_x *lse);
void o_compare(prob *p, const o_result *r, int level, two_x *out, two_x *lse);     /* reads p's outputs */
void o_result_free(o_result *r);

/* Are p->blocks right for TOPK or REFERENCE, with all that the call says about them? pooled: as kept, [H][nb][D].
 * Returns the share of rows whose selection was clear (margin over 1e-5) and so compared exactly; the others must be
 * near ties. exact_ties: the data has blocks that are equal bit for bit, so that a tie in double is one in f32 too, and
 * goes to the lower index. */
double o_check_blocks(const prob *p, const double *pooled, int exact_ties, const char *text);

#endif

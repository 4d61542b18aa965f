/* oracle.c - double precision definitions and the naive program, see oracle.h */
#include "oracle.h"

/* The naive program rounds each product and each sum, on every CPU: where a compiler joins them in an FMA, its error is
 * another one, and that is the measure. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

void o_call_of(o_call *c, const prob *p)
{
    const shape *s = &p->s;
    memset(c, 0, sizeof *c);
    c->HQ = s->HQ; c->H = s->H; c->D = s->D; c->DV = s->DV; c->B = s->B; c->top_k = s->top_k; c->causal = !s->noncausal;
    c->n_q = s->n_q; c->n_kv = s->n_kv; c->q0 = p->q0;
    c->scale = s->scale != 0 ? (double)s->scale : 1 / sqrt((double)s->D);
    c->dot = s->score == SSA_SCORE_DOT; c->per_head = s->per_head; c->sink_blocks = s->sinks; c->locals = s->locals;
    c->top_p = (double)s->top_p; c->k_of = s->k_of;
    c->q = p->q.val; c->k = p->k.val; c->v = p->v.val; c->gate = p->a.gate;
    c->window = p->a.window; c->softcap = (double)p->a.softcap;
    c->sinks = p->a.sinks; c->alibi = p->a.alibi;
    c->mask = p->a.mask; c->mask_type = p->a.mask_type;
    c->mask_stride = p->a.mask && p->a.mask_stride == 0 ? s->n_kv * type_size(p->a.mask_type) : p->a.mask_stride;
}

/* What the mask adds to query i's score of key j. */
static float mask_at(const o_call *c, int64_t i, int64_t j)
{
    float x = 0;
    if (c->mask) x = type_get(c->mask_type, (const char *)c->mask + i * c->mask_stride + j * type_size(c->mask_type));
    return x < -1e38f && !isinf(x) ? -1e38f : x;
}

static int64_t *key_list;            /* scratch of o_row and n_row, grown on demand */
static double  *key_score;
static char    *block_mark;
static int64_t  key_room;
static void room_for(int64_t n)
{
    if (n < key_room) return;
    free(key_list); free(key_score); free(block_mark);
    key_room = n + 1024;
    key_list = xalloc(key_room, sizeof *key_list);
    key_score = xalloc(key_room, sizeof *key_score);
    block_mark = xalloc(key_room, 1);
}

/* The keys that query i reads, ascending, in key_list; returns how many. A block counts once, however often it is
 * listed. */
static int64_t keys_of(const o_call *c, int64_t i, const int32_t *blocks, int n_blocks)
{
    int64_t end = c->causal ? c->q0 + i + 1 : c->n_kv, n = 0, from = 0;
    room_for(c->n_kv);
    if (end > c->n_kv) end = c->n_kv;
    if (blocks) {
        memset(block_mark, 0, (size_t)key_room);
        for (int e = 0; e < n_blocks; e++)
            if (blocks[e] >= 0 && blocks[e] * (int64_t)c->B < end) block_mark[blocks[e]] = 1;
    }
    if (c->window > 0 && c->q0 + i - c->window >= 0) from = c->q0 + i - c->window + 1;
    for (int64_t j = from; j < end; j++)
        if ((!blocks || block_mark[j / c->B]) && !(mask_at(c, i, j) < -1e38f)) key_list[n++] = j;
    return n;
}

static double dot(const float *a, const float *b, int n)
{
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int d = 0;
    for (; d + 4 <= n; d += 4) {
        s0 += (double)a[d] * (double)b[d];         s1 += (double)a[d + 1] * (double)b[d + 1];
        s2 += (double)a[d + 2] * (double)b[d + 2]; s3 += (double)a[d + 3] * (double)b[d + 3];
    }
    for (; d < n; d++) s0 += (double)a[d] * (double)b[d];
    return s0 + s1 + s2 + s3;
}

void o_row(const o_call *c, int64_t i, int h, const int32_t *blocks, int n_blocks, double *out, double *lse)
{
    int64_t n = keys_of(c, i, blocks, n_blocks);
    int j = h / (c->HQ / c->H);
    double max = -INFINITY, sum = 0, g = c->gate ? (double)c->gate[i * c->HQ + h] : 1;
    for (int d = 0; d < c->DV; d++) out[d] = 0;
    *lse = c->sinks ? (double)c->sinks[h] : -(double)INFINITY;
    if (!n) return;
    for (int64_t t = 0; t < n; t++) {
        double s = c->scale * dot(c->q + (i * c->HQ + h) * c->D, c->k + (key_list[t] * c->H + j) * c->D, c->D);
        if (c->softcap > 0) s = c->softcap * tanh(s / c->softcap);
        if (c->alibi) s += (double)c->alibi[h] * (double)(key_list[t] - (c->q0 + i));
        key_score[t] = s + (double)mask_at(c, i, key_list[t]);
        if (key_score[t] > max || isnan(key_score[t])) max = key_score[t];
    }
    if (c->sinks && (double)c->sinks[h] > max) max = (double)c->sinks[h];
    if (c->sinks) sum = exp((double)c->sinks[h] - max);
    for (int64_t t = 0; t < n; t++) {
        double e = exp(key_score[t] - max);
        const float *v = c->v + (key_list[t] * c->H + j) * c->DV;
        sum += e;
        for (int d = 0; d < c->DV; d++) out[d] += e * (double)v[d];
    }
    for (int d = 0; d < c->DV; d++) out[d] *= g / sum;
    *lse = max + log(sum);
}

void o_diagnose(const o_call *given, int64_t i, int h, const int32_t *blocks, int n_blocks, double *f, double *s,
                double *x)
{
    o_call ungated = *given, *c = &ungated;
    double lse_f, lse_s, far = 0, near_ = 0;
    c->gate = NULL;
    o_row(c, i, h, blocks, n_blocks, s, &lse_s);
    o_row(c, i, h, NULL, 0, f, &lse_f);                      /* leaves all keys and scores */
    int64_t n = keys_of(c, i, NULL, 0);
    double p = c->sinks ? exp((double)c->sinks[h] - lse_f) : 0;
    x[0] = p > 0 ? -p * log(p) : 0;
    x[1] = p;
    x[2] = x[3] = 0;
    for (int64_t t = 0; t < n; t++) {
        const float *v = c->v + (key_list[t] * c->H + h / (c->HQ / c->H)) * c->DV;
        int kept = 0;
        for (int e = 0; e < n_blocks; e++) kept |= blocks[e] >= 0 && blocks[e] == key_list[t] / c->B;
        p = exp(key_score[t] - lse_f);
        if (p > 0) x[0] -= p * log(p);
        x[kept ? 1 : 2] += p;
        if (!kept) far = fmax(far, dot(v, v, c->DV));
    }
    for (int d = 0; d < c->DV; d++) near_ += s[d] * s[d];
    if (!n) x[0] = 0, x[1] = 1;
    x[3] = x[2] * (sqrt(far) + sqrt(near_));
}

/* x as the type holds it: to the nearest, p is never a denormal that matters. */
static float kept_in(ssa_type t, float x)
{
    unsigned char h[4];
    type_put(t, h, (double)x);
    return type_get(t, h);
}

void n_row(const o_call *c, int64_t i, int h, const int32_t *blocks, int n_blocks, ssa_type p, float *out, float *lse)
{
    int64_t n = keys_of(c, i, blocks, n_blocks);
    int j = h / (c->HQ / c->H);
    float *score = (float *)(void *)key_score, max = -INFINITY, sum = 0, scale = (float)c->scale;
    const float *q = c->q + (i * c->HQ + h) * c->D;
    for (int d = 0; d < c->DV; d++) out[d] = 0;
    *lse = c->sinks ? c->sinks[h] : -INFINITY;
    if (!n) return;
    for (int64_t t = 0; t < n; t++) {
        const float *k = c->k + (key_list[t] * c->H + j) * c->D;
        float s = 0;
        for (int d = 0; d < c->D; d++) s += q[d] * k[d];
        score[t] = s * scale;
        if (c->softcap > 0) score[t] = (float)c->softcap * tanhf(score[t] / (float)c->softcap);
        if (c->alibi) score[t] += c->alibi[h] * (float)(key_list[t] - (c->q0 + i));
        score[t] += mask_at(c, i, key_list[t]);
        if (score[t] > max) max = score[t];
    }
    if (c->sinks && c->sinks[h] > max) max = c->sinks[h];
    if (c->sinks) sum = expf(c->sinks[h] - max);
    for (int64_t t = 0; t < n; t++) { score[t] = kept_in(p, expf(score[t] - max)); sum += score[t]; }
    for (int64_t t = 0; t < n; t++) {
        const float *v = c->v + (key_list[t] * c->H + j) * c->DV;
        for (int d = 0; d < c->DV; d++) out[d] += score[t] * v[d];
    }
    for (int d = 0; d < c->DV; d++) out[d] = out[d] / sum * (c->gate ? c->gate[i * c->HQ + h] : 1);
    *lse = kept_in(p, max) + logf(sum); /* a program that keeps p in a type keeps the scores in it too */
}

/* ---- selection --------------------------------------------------------------------------------------------------- */
void o_pool(const o_call *c, double *pooled)
{
    int64_t nb = c->n_kv / c->B;
    for (int j = 0; j < c->H; j++)
        for (int64_t b = 0; b < nb; b++)
            for (int d = 0; d < c->D; d++) {
                double s = 0;
                for (int t = 0; t < c->B; t++) s += (double)c->k[((b * c->B + t) * c->H + j) * c->D + d];
                pooled[(j * nb + b) * c->D + d] = s / c->B;
            }
}

/* The query heads of list j, from *first on, and their key/value head. */
static int heads_of(const o_call *c, int j, int *first, int *kv)
{
    int G = c->HQ / c->H;
    *first = c->per_head ? j : j * G;
    *kv = *first / G;
    return c->per_head ? 1 : G;
}

double o_unit(const o_call *c, const double *pooled, int64_t i, int j)
{
    int64_t p = c->q0 + i, cur = p < 0 ? 0 : p / c->B, nb = c->n_kv / c->B;
    int first, kv, n = heads_of(c, j, &first, &kv);
    double unit = 0;
    for (int64_t b = 0; c->dot && b < cur; b++) {
        double sum = 0;
        for (int h = first; h < first + n; h++)
            for (int d = 0; d < c->D; d++)
                sum += fabs(c->scale * (double)c->q[(i * c->HQ + h) * c->D + d] * pooled[(kv * nb + b) * c->D + d]);
        if (isfinite(sum) && sum > unit) unit = sum;
    }
    return unit;
}

int64_t o_importance(const o_call *c, const double *pooled, int64_t i, int j, double *importance)
{
    int64_t p = c->q0 + i, cur = p < 0 ? -1 : p / c->B, nc = (p + 1) / c->B, nb = c->n_kv / c->B;
    int first, kv, n = heads_of(c, j, &first, &kv);
    if (cur < 0) return -1;
    double *s = xalloc(nc, sizeof *s);
    for (int64_t b = 0; b <= cur; b++) importance[b] = 0;
    for (int h = first; h < first + n; h++) {
        const float *q = c->q + (i * c->HQ + h) * c->D;
        double max = -INFINITY, sum = 0;
        for (int64_t b = 0; b < nc; b++) {
            const double *k = pooled + (kv * nb + b) * c->D;
            double x = 0;
            for (int d = 0; d < c->D; d++) x += (double)q[d] * k[d];
            s[b] = isfinite(x) ? c->scale * x : -(double)INFINITY; /* as if it were not there */
            if (s[b] > max) max = s[b];
        }
        for (int64_t b = 0; b < nc; b++) sum += exp(s[b] - max);
        for (int64_t b = 0; b < cur; b++) importance[b] += c->dot ? s[b] : exp(s[b] - max - log(sum));
    }
    for (int64_t b = 0; b < cur; b++)
        for (int d = 0; d < c->D; d++) if (!isfinite(pooled[(kv * nb + b) * c->D + d])) importance[b] = NAN;
    importance[cur] = INFINITY;
    free(s);
    return cur;
}

typedef struct { double importance; int32_t block; } entry;        /* block -1: an empty entry, importance 0 */

static int by_importance(const void *pa, const void *pb) /* ties: lower index, empty entries last, NaN below all */
{
    const entry *a = pa, *b = pb;
    double x = isnan(a->importance) ? -INFINITY : a->importance, y = isnan(b->importance) ? -INFINITY : b->importance;
    if (x != y) return x > y ? -1 : 1;
    if ((a->block < 0) != (b->block < 0)) return a->block < 0 ? 1 : -1;
    return a->block < b->block ? -1 : a->block > b->block;
}
static int by_block(const void *pa, const void *pb)
{
    uint32_t a = (uint32_t)*(const int32_t *)pa, b = (uint32_t)*(const int32_t *)pb;      /* -1 sorts last */
    return a < b ? -1 : a > b;
}

/* How clear is the cut between list[n - 1], kept, and list[n], dropped? */
static double cut_margin(const o_call *c, const entry *list, int64_t n, int64_t len)
{
    if (n >= len || n < 1 || list[n].block < 0 || isinf(list[n - 1].importance)) return 1;
    if (isnan(list[n].importance)) return 1;                 /* below all others, by index among themselves */
    if (c->dot) return c->unit > 0 ? (list[n - 1].importance - list[n].importance) / c->unit : 0;
    if (!(list[n - 1].importance > 1e-30)) return -1;
    return 1 - list[n].importance / list[n - 1].importance;
}

/* Is block b kept whatever its importance? */
static int always(const o_call *c, int64_t b, int64_t cur)
{
    return b <= cur && (b == cur || b < c->sink_blocks || b >= cur - c->locals);
}

/* The share of the importance of all blocks before cur that the blocks chosen have. */
static double share_of(const int32_t *chosen, int n, const double *importance, int64_t cur)
{
    double sum = 0, all = 0;
    for (int64_t b = 0; b < cur; b++) if (!isnan(importance[b])) all += importance[b];
    for (int e = 0; e < n; e++)
        if (chosen[e] >= 0 && chosen[e] < cur && !isnan(importance[chosen[e]])) sum += importance[chosen[e]];
    return all > 0 ? sum / all : 1;
}

double o_topk(const o_call *c, const double *importance, int64_t cur, int32_t *chosen)
{
    entry *list = xalloc(cur + 1, sizeof *list);
    int64_t n = 0, kept = 0, others = 0;
    double margin, near = 1;
    for (int64_t b = 0; b <= cur; b++)
        if (always(c, b, cur)) chosen[n++] = (int32_t)b;
        else { list[others].importance = importance[b]; list[others++].block = (int32_t)b; }
    qsort(list, (size_t)others, sizeof *list, by_importance);
    for (int share = c->top_p > 0 && c->top_p < 1; n < c->top_k && kept < others; n++) {
        double over = share ? share_of(chosen, (int)n, importance, cur) - c->top_p : -1;
        if (fabs(over) < near) near = fabs(over);
        if (over >= 0) break;
        chosen[n] = list[kept++].block;
    }
    margin = kept ? cut_margin(c, list, kept, others) : 1;
    if (near < 1e-5) margin = -1;
    for (; n < c->top_k; n++) chosen[n] = -1;
    qsort(chosen, (size_t)c->top_k, sizeof *chosen, by_block);
    free(list);
    return margin;
}

double o_reference(const o_call *c, const double *importance, int64_t cur, int32_t *chosen)
{
    int B = c->B, half = B / 2;
    entry *list = xalloc(B, sizeof *list), *chunk = xalloc(B, sizeof *chunk);
    double margin = 1, m;
    for (int e = 0; e < B; e++) list[e].block = -1;
    for (int64_t first = 0; first <= cur; first += B) {
        for (int e = 0; e < B; e++) {
            int64_t b = first + e;
            chunk[e].block = b <= cur ? (int32_t)b : -1;
            chunk[e].importance = b <= cur ? importance[b] : 0;
        }
        qsort(chunk, (size_t)B, sizeof *chunk, by_importance);
        if (first == 0) { memcpy(list, chunk, (size_t)B * sizeof *list); continue; }
        m = cut_margin(c, list, half, B);  if (m < margin) margin = m;
        m = cut_margin(c, chunk, half, B); if (m < margin) margin = m;
        memcpy(list + half, chunk, (size_t)(B - half) * sizeof *list);
        qsort(list, (size_t)B, sizeof *list, by_importance);
    }
    for (int e = 0; e < c->top_k; e++) chosen[e] = list[e].block;
    m = cut_margin(c, list, c->top_k, B); if (m < margin) margin = m;
    qsort(chosen, (size_t)c->top_k, sizeof *chosen, by_block);
    free(list); free(chunk);
    return margin;
}

double o_check_blocks(const prob *p, const double *pooled, int exact_ties, const char *text)
{
    o_call c;
    o_call_of(&c, p);
    int64_t room = c.n_kv / c.B + 2, clear = 0, lists = c.per_head ? c.HQ : c.H, rows = c.n_q * lists;
    double *imp = xalloc(room, sizeof *imp);
    int32_t *want = xalloc(c.top_k, sizeof *want);
    int exact = 1, near = 1, form = 1, own = 1, slots = c.top_k, share = c.top_p > 0 && c.top_p < 1;
    for (int64_t r = 0; r < rows; r++) {
        int j = (int)(r % lists);
        int64_t cur = o_importance(&c, pooled, r / lists, j, imp);
        c.unit = o_unit(&c, pooled, r / lists, j);
        c.top_k = c.k_of ? c.k_of[j] : slots;
        double margin =
            p->s.select == SSA_SELECT_REFERENCE ? o_reference(&c, imp, cur, want) : o_topk(&c, imp, cur, want);
        for (int e = c.top_k; e < slots; e++) want[e] = -1;
        const int32_t *got = p->blocks + r * slots;
        int n_got = 0, n_want = 0, n_always = 0, worst = -1;
        double lowest = INFINITY, left_out = -INFINITY; /* the lowest chosen, the highest not chosen importance */
        for (int e = 0; e < slots; e++) {
            form &= got[e] == -1 ? (e + 1 == slots || got[e + 1] == -1)
                                 : got[e] >= 0 && got[e] <= cur && (!e || got[e] > got[e - 1]);
            n_got += got[e] >= 0; n_want += want[e] >= 0;
            if (got[e] < 0 || got[e] > cur) continue;
            n_always += always(&c, got[e], cur);
            if (!always(&c, got[e], cur) && imp[got[e]] < lowest) lowest = imp[got[e]], worst = e;
        }
        for (int64_t b = 0; b <= cur; b++) n_always -= always(&c, b, cur);
        own &= n_always == 0;
        form &= n_got <= c.top_k;
        if (margin > 1e-5 || (exact_ties && margin == 0)) {
            clear++;
            form &= n_got == n_want;
            exact &= !memcmp(got, want, (size_t)slots * sizeof *want);
            continue;
        }
        form &= share || n_got == n_want;
        if (p->s.select == SSA_SELECT_REFERENCE || !form) continue;
        if (share) {                  /* as many as the share needs, give or take a little */
            near &= n_got == c.top_k || share_of(got, slots, imp, cur) >= c.top_p - 1e-5;
            if (worst >= 0) {
                int32_t one = got[worst];
                near &= share_of(got, slots, imp, cur) - share_of(&one, 1, imp, cur) <= c.top_p + 1e-5;
            }
        }
        for (int64_t b = 0; b < cur; b++) {
            int chosen = always(&c, b, cur);
            for (int e = 0; e < slots; e++) chosen |= got[e] == b;
            if (!chosen && imp[b] > left_out) left_out = imp[b];
        }
        near &= c.dot ? lowest >= left_out - 1e-5 * c.unit : lowest >= left_out * (1 - 1e-5) - 1e-30;
    }
    CHECK(form, "blocks are ascending, within reach, as many as wanted: %s", text);
    CHECK(own, "what is always chosen is chosen: %s", text);
    CHECK(exact, "blocks equal the oracle's: %s", text);
    CHECK(near, "chosen blocks are a valid near tie: %s", text);
    free(imp); free(want);
    return rows ? (double)clear / (double)rows : 1;
}

/* ---- loss -------------------------------------------------------------------------------------------------------- */
void o_loss(const float *f, const float *s, int64_t n, double beta, ssa_alignment *loss, double grad_scale, double *df,
            double *ds)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)f[i] - (double)s[i], a = fabs(d);
        sum += a < beta ? d * d / (2 * beta) : a - beta / 2;
        double g = grad_scale * (a < beta ? d / beta : (d > 0) - (d < 0)) / (double)n;
        if (df) df[i] = g;
        if (ds) ds[i] = -g;
    }
    loss->sparsity = loss->commitment = n ? sum / (double)n : 0;
    loss->total = 2 * loss->sparsity;
}

/* ---- the 2x rule ------------------------------------------------------------------------------------------------- */
int two_x_reps(int64_t rows, int64_t cost)
{
    int64_t reps = 400 / (rows + 1) + 1, most = 12000000 / (cost + 1) + 1;
    if (reps > most) reps = most;
    return rows == 0 ? 1 : reps > 100 ? 100 : (int)reps;
}

void two_x_base(two_x *t, double ref, double naive)
{
    if (isinf(ref) || isnan(ref)) return;
    double e = fabs(naive - ref);
    if (e > t->naive) t->naive = e;
    if (e > t->naive_unit) t->naive_unit = e;
    if (fabs(ref) > t->ref_max) t->ref_max = fabs(ref);
}

void two_x_unit(two_x *t, double ref, double naive)
{
    double e = fabs(naive - ref);
    if (!isinf(ref) && !isnan(ref) && e > t->naive_unit) t->naive_unit = e;
}

void two_x_ours(two_x *t, int level, double ref, double ours)
{
    double e = fabs(ours - ref);
    if (isinf(ref)) e = 0, t->exact_bad[level] += ours != ref;
    if (!(e <= t->ours[level])) t->ours[level] = isnan(e) ? (double)INFINITY : e;
}

double two_x_bound(const two_x *t, int level, ssa_type out)
{
    double floor_ = type_half_ulp(out, t->ref_max), naive = t->rounds[level] ? t->naive_unit : t->naive;
    return 2 * (naive > floor_ ? naive : floor_);
}

void two_x_check(const two_x *t, ssa_type out, const char *what, const char *text, const char *file, int line)
{
    for (int l = 0; l < level_count(); l++)
        test_check(t->ours[l] <= two_x_bound(t, l, out) && !t->exact_bad[l], file, line,
                   "%s, level %s: error %.3g over 2x bound %.3g (naive %.3g, max %.3g), %d wrong infinities: %s", what,
                   ssa_isa_name(level_at(l)), t->ours[l], two_x_bound(t, l, out), t->naive, t->ref_max, t->exact_bad[l],
                   text);
}

void o_solve(const prob *p, const int32_t *blocks, o_result *r, two_x *out, two_x *lse)
{
    o_call c;
    o_call_of(&c, p);
    float *naive = xalloc(c.DV, sizeof *naive), nl;
    int G = c.HQ / c.H, unit = 0;
    for (int l = 0; l < level_count(); l++)
        unit |= out->rounds[l] = lse->rounds[l] = level_rounds(level_at(l), p->s.tq, p->s.tk, p->s.tv);
    r->out = xalloc(c.n_q * c.HQ * c.DV, sizeof(double));
    r->lse = xalloc(c.n_q * c.HQ, sizeof(double));
    for (int64_t i = 0; i < c.n_q; i++)
        for (int h = 0; h < c.HQ; h++) {
            int64_t row = i * c.HQ + h;
            const int32_t *b = !blocks ? NULL : blocks + (c.per_head ? row : i * c.H + h / G) * c.top_k;
            o_row(&c, i, h, b, c.top_k, r->out + row * c.DV, &r->lse[row]);
            n_row(&c, i, h, b, c.top_k, SSA_F32, naive, &nl);
            for (int d = 0; d < c.DV; d++) two_x_base(out, r->out[row * c.DV + d], (double)naive[d]);
            two_x_base(lse, r->lse[row], (double)nl);
            if (!unit) continue;
            n_row(&c, i, h, b, c.top_k, p->s.tv, naive, &nl);
            for (int d = 0; d < c.DV; d++) two_x_unit(out, r->out[row * c.DV + d], (double)naive[d]);
            two_x_unit(lse, r->lse[row], (double)nl);
        }
    free(naive);
}

void o_compare(prob *p, const o_result *r, int level, two_x *out, two_x *lse)
{
    tensor_load(&p->o);
    for (int64_t i = 0; i < tensor_count(&p->o); i++) two_x_ours(out, level, r->out[i], (double)p->o.val[i]);
    for (int64_t i = 0; p->a.lse && i < p->n_lse; i++) {
        two_x_ours(lse, level, r->lse[i], (double)p->lse[i]);
        for (int d = 0; isinf(r->lse[i]) && d < p->s.DV; d++) out->exact_bad[level] += p->o.val[i * p->s.DV + d] != 0;
    }
}

void o_result_free(o_result *r) { free(r->out); free(r->lse); }

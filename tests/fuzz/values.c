/* values.c - fuzz target: what the operands of valid calls hold. NaN, infinities, denormals, huge numbers, zeros.
 *
 * No sanitizer's report; the same bits for any workers; keys and values that a query does not see may be anything and
 * its bits stay; a NaN that it does see spoils it. */
#include <math.h>
#include "fuzz.h"

enum { MOST_WORK = 400000 };

/* ---- numbers ----------------------------------------------------------------------------------------------------- */
typedef enum { TAME, NOT_A_NUMBER, INFINITE, DENORMAL, HUGE_ONE, ZERO, ANY } kind;

static uint32_t bits_of(ssa_type t, kind k, uint64_t r) /* bits of a number of type f32, f16 or bf16, that r picks */
{
    const uint32_t all = t == SSA_F32 ? 0x7fffffff : 0x7fff;   /* all but the sign */
    const uint32_t low = t == SSA_F32 ? 1u << 23 : t == SSA_F16 ? 1u << 10 : 1u << 7; /* 1 in the exponent */
    const uint32_t top = all & ~(low - 1), one = (top >> 1) & top, x = (uint32_t)(r >> 8) & (low - 1);
    uint32_t u = 0;
    switch (k) {
    case TAME:         u = (one - low * (uint32_t)(r >> 40 & 3)) | x; break; /* 1/8 .. 2 */
    case NOT_A_NUMBER: u = top | x | 1; break;
    case INFINITE:     u = top; break;
    case DENORMAL:     u = x; break;
    case HUGE_ONE:     u = (top - low * (1 + (uint32_t)(r >> 40 & 1))) | x; break;
    case ZERO:         break;
    case ANY:          return (uint32_t)(r >> 16) & (all * 2 + 1);
    }
    return u | (r & 1 ? all + 1 : 0);
}

static void put(ssa_type t, unsigned char *row, int64_t i, kind k, uint64_t r)
{
    uint32_t u = bits_of(t, k, r);
    uint16_t h = (uint16_t)u;
    if (t == SSA_F32) memcpy(row + 4 * i, &u, 4);
    else memcpy(row + 2 * i, &h, 2);
}

static int64_t row_bytes(ssa_type t, int64_t n) { return t == SSA_Q8_0 ? n / 32 * 34 : t == SSA_F32 ? 4 * n : 2 * n; }

/* A row of dim elements; of q8_0 the scales are what k says. */
static void put_row(input *in, ssa_type t, unsigned char *row, int32_t dim, kind k, int rare)
{
    for (int32_t i = 0; i < dim; i += t == SSA_Q8_0 ? 32 : 1) {
        uint64_t r = bulk(in), s = bulk(in);
        kind here = r % (uint64_t)rare == 0 ? k : TAME;
        if (t != SSA_Q8_0) { put(t, row, i, here, s); continue; }
        unsigned char *block = row + i / 32 * 34;
        put(SSA_F16, block, 0, here, s);
        for (int j = 0; j < 32; j++) block[2 + j] = (unsigned char)(bulk(in) >> 20);
    }
}

/* Contiguous rows: all tame, or some, or all of one kind or of every kind. Returns whether all are tame. */
static int put_rows(input *in, ssa_type t, void *data, int64_t rows, int32_t dim)
{
    int what = take_int(in, 0, 15), rare = 1 << take_int(in, 0, 9);
    for (int64_t r = 0; r < rows; r++)
        put_row(in, t, (unsigned char *)data + r * row_bytes(t, dim), dim,
                what < 7 ? TAME : what < 14 ? (kind)(what - 7) : (kind)(bulk(in) >> 33 & 7 ? bulk(in) >> 33 & 3 : ANY),
                rare);
    return what < 7;
}

static int is_nan_at(ssa_type t, const void *p, int64_t i)
{
    uint32_t u = 0;
    uint16_t h;
    if (t == SSA_F32) { memcpy(&u, (const unsigned char *)p + 4 * i, 4); return (u & 0x7fffffff) > 0x7f800000; }
    memcpy(&h, (const unsigned char *)p + 2 * i, 2);
    return (h & 0x7fff) > (t == SSA_F16 ? 0x7c00 : 0x7f80);
}

/* ---- a valid call ------------------------------------------------------------------------------------------------ */
typedef struct {
    ssa_attn a;
    int      mode, full, tame, lists;  /* full: runs as full attention; lists: of a query */
    int64_t  q_pos;
    size_t   out_row;                  /* bytes of a query's output, and of a head's */
    size_t   head_row;
} call;

static const ssa_type plain_types[] = { SSA_F32, SSA_F16, SSA_BF16 }, key_types[] = { SSA_F32, SSA_F16, SSA_BF16,
                                                                                    SSA_Q8_0 };

static int valid_call(input *in, call *c)
{
    static const int32_t dims[] = { 1, 3, 8, 16, 17, 32, 33, 64, 65, 96, 128 }, blocks[] = { 1, 2, 4, 8, 16, 16, 32 };
    static const int groups[] = { 1, 2, 3, 4, 8, 16 }, counts[] = { 1, 1, 1, 2, 5, 15, 16, 33, 64, 66, 90 };
    static const float floats[] = { 0, 1, 0.5f, -1, 50, 1e-3f, 1e30f, 3e38f, 1e-40f };
    int H = take_int(in, 1, 2), types = take_int(in, 0, 3);
    int32_t D = TAKE_OF(in, dims), DV = take_int(in, 0, 1) ? D : TAKE_OF(in, dims);
    ssa_attn a = ssa_attn_default(H * TAKE_OF(in, groups), H, D);
    a.value_dim = DV;
    if (types == 0) a.q.type = a.k.type = a.v.type = SSA_BF16;
    else if (types == 1) a.q.type = a.k.type = a.v.type = TAKE_OF(in, plain_types);
    else {
        a.q.type = TAKE_OF(in, plain_types);
        a.k.type = TAKE_OF(in, key_types);
        a.v.type = TAKE_OF(in, key_types);
        if (D % 32 != 0 && a.k.type == SSA_Q8_0) a.k.type = SSA_F32;
        if (DV % 32 != 0 && a.v.type == SSA_Q8_0) a.v.type = SSA_F16;
    }
    a.out.type = TAKE_OF(in, plain_types);
    c->mode = take_int(in, SSA_FULL, SSA_SPARSE);
    a.n_q = TAKE_OF(in, counts);
    a.n_kv = a.n_q + take_int(in, 0, 3) * (a.n_q < 4 ? 199 : 13) + take_int(in, 0, 20);
    if (c->mode == SSA_FULL && take_int(in, 0, 7) == 0) a.n_kv = take_int(in, 0, 9);
    a.block_size = TAKE_OF(in, blocks);
    a.top_k = take_int(in, 1, 8);
    if (take_int(in, 0, 3) == 0) a.scale = TAKE_OF(in, floats);
    if (take_int(in, 0, 3) == 0) a.softcap = fabsf(TAKE_OF(in, floats));
    if (c->mode == SSA_FULL) {
        if (take_int(in, 0, 2) == 0) a.window = take_int(in, 1, 100);
        else a.causal = take_int(in, 0, 3) != 0;
    } else {
        a.select = (ssa_select)take_int(in, 0, 2);
        if (a.select == SSA_SELECT_REFERENCE && (a.block_size < 2 || a.top_k > a.block_size))
            a.select = SSA_SELECT_TOPK;
        a.select_per_head = take_int(in, 0, 1);
        if (a.select == SSA_SELECT_TOPK) {
            if (take_int(in, 0, 3) == 0) a.score = SSA_SCORE_DOT;
            else if (take_int(in, 0, 3) == 0) a.top_p = (float)take_int(in, 1, 9) / 10;
            if (a.top_k > 3 && take_int(in, 0, 3) == 0) a.sink_blocks = a.local_blocks = 1;
        }
        if (take_int(in, 0, 7) == 0) a.min_context = take_int(in, 0, 200);
    }
    if (a.n_q * a.n_heads * (a.n_kv + 32) * (D + DV) > MOST_WORK) return 0;

    c->lists = a.select_per_head ? a.n_heads : H;
    c->full = c->mode == SSA_FULL || a.n_kv < a.min_context;
    c->q_pos = a.n_kv - a.n_q;
    c->head_row = (size_t)row_bytes(a.out.type, DV);
    c->out_row = c->head_row * (size_t)a.n_heads;
    c->tame = 1;
    const int64_t rows = a.n_q * a.n_heads;
    a.q.data = give_odd(in, rows * row_bytes(a.q.type, D), 0);
    c->tame &= put_rows(in, a.q.type, a.q.data, rows, D);
    a.k.data = give_odd(in, a.n_kv * H * row_bytes(a.k.type, D), 0);
    c->tame &= put_rows(in, a.k.type, a.k.data, a.n_kv * H, D);
    a.v.data = give_odd(in, a.n_kv * H * row_bytes(a.v.type, DV), 0);
    c->tame &= put_rows(in, a.v.type, a.v.data, a.n_kv * H, DV);
    a.out.data = give_odd(in, a.n_q * (int64_t)c->out_row, 1);
    a.lse = give(in, 4 * rows, 1);
    int terms = take_int(in, 0, 31);
    float *gate = give(in, 4 * rows, 0), *sinks = give(in, 4 * a.n_heads, 0), *alibi = give(in, 4 * a.n_heads, 0);
    if (terms & 1) a.gate = gate, c->tame &= put_rows(in, SSA_F32, gate, rows, 1);
    if (terms & 2) a.sinks = sinks, c->tame &= put_rows(in, SSA_F32, sinks, a.n_heads, 1);
    if (terms & 4) a.alibi = alibi, c->tame &= put_rows(in, SSA_F32, alibi, a.n_heads, 1);
    if (a.alibi || a.scale != 0.0f || a.softcap != 0.0f) c->tame = 0; /* a visible key's weight may round to 0 */
    if (terms & 8) {
        a.mask_type = TAKE_OF(in, plain_types);
        unsigned char *mask = give_odd(in, a.n_q * row_bytes(a.mask_type, a.n_kv), 0);
        int tame = put_rows(in, a.mask_type, mask, a.n_q, (int32_t)a.n_kv), every = take_int(in, 2, 9);
        for (int64_t i = 0; i < a.n_q * a.n_kv; i++)
            if (bulk(in) >> 40 & 1 && i % every) put(a.mask_type, mask, i, INFINITE, 1);
        c->tame &= tame;
        a.mask = mask;
    }
    a.blocks = give(in, 4 * a.n_q * c->lists * a.top_k, a.select != SSA_SELECT_GIVEN);
    if (c->mode == SSA_SPARSE && a.select == SSA_SELECT_GIVEN)
        for (int64_t i = 0; i < a.n_q * c->lists * a.top_k; i++)
            a.blocks[i] = (int32_t)((bulk(in) >> 20) % (uint64_t)(a.n_kv / a.block_size + 2)) - 1;
    c->a = a;
    show(&a, c->mode);
    return 1;
}

/* Whether the mask is -infinity at query i, key j. */
static int masked(const ssa_attn *a, int64_t i, int64_t j)
{
    uint32_t u = 0;
    uint16_t h;
    const unsigned char *m = a->mask;
    if (m == NULL) return 0;
    m += i * row_bytes(a->mask_type, a->n_kv);
    if (a->mask_type == SSA_F32) { memcpy(&u, m + 4 * j, 4); return u == 0xff800000; }
    memcpy(&h, m + 2 * j, 2);
    return h == (a->mask_type == SSA_F16 ? 0xfc00 : 0xff80);
}

/* Whether the block of key j is in the list of query i and query head h. */
static int chosen(const call *c, const int32_t *blocks, int64_t i, int32_t h, int64_t j)
{
    const int32_t list = c->a.select_per_head ? h : h / (c->a.n_heads / c->a.n_kv_heads);
    const int32_t *b = blocks + (i * c->lists + list) * c->a.top_k;
    for (int32_t x = 0; x < c->a.top_k; x++) if (b[x] == j / c->a.block_size) return 1;
    return 0;
}

/* Whether key j, or its value, can have a part in the output of query i and head h; blocks as the call left them. A
 * key has a part in the selection wherever causality lets it. */
static int sees(const call *c, const int32_t *blocks, int64_t i, int32_t h, int64_t j, int value)
{
    const ssa_attn *a = &c->a;
    const int64_t p = c->q_pos + i;
    if (a->causal && j > p) return 0;
    if (c->full) return !(a->window > 0 && j <= p - a->window) && !masked(a, i, j);
    if (value || a->select == SSA_SELECT_GIVEN) return chosen(c, blocks, i, h, j) && !masked(a, i, j);
    return 1;
}

static void run(input *in, call *c, int workers)
{
    ssa_plan plan;
    size_t size = ssa_workspace_size(&c->a, 1, (ssa_mode)c->mode, workers);
    if (workers == 0) {
        ssa_status s = ssa_attention(&c->a, (ssa_mode)c->mode, NULL);
        NEED(s == SSA_OK, "a valid call: %d", s);
        return;
    }
    unsigned char *ws = malloc(size);                        /* what it holds at first is no zeros */
    NEED(ws && size > 0, "a workspace of %zu bytes", size);
    memset(ws, (int)(bulk(in) >> 30), size);
    NEED(ssa_plan_make(&plan, &c->a, 1, (ssa_mode)c->mode, workers, ws, size) == SSA_OK, "a plan");
    for (int phase = 0; phase < ssa_plan_phases(&plan); phase++)
        for (int i = workers - 1; i >= 0; i--) ssa_plan_run(&plan, phase, i, workers);
    free(ws);
}

/* n numbers of equal bits, or a NaN in both: which NaN comes of two is the CPU's choice, and what a score was before
 * it was hidden may decide it. */
static int same(ssa_type t, const unsigned char *a, const unsigned char *b, int64_t n)
{
    const size_t size = (size_t)row_bytes(t, 1);
    for (int64_t e = 0; e < n; e++) {
        const size_t at = (size_t)e * size;
        if (memcmp(a + at, b + at, size) != 0 && !(is_nan_at(t, a, e) && is_nan_at(t, b, e))) return 0;
    }
    return 1;
}

/* Some keys and values become others; queries that see none of them keep their bits. */
static void replace_hidden(input *in, call *c)
{
    const ssa_attn *a = &c->a;
    const int32_t G = a->n_heads / a->n_kv_heads;
    if (a->n_kv < 1) return;
    int64_t from = take_int(in, 0, (int)a->n_kv - 1), step = take_int(in, 1, 9), n = take_int(in, 1, 40);
    int what = take_int(in, 1, 3);                           /* keys, values, both */
    int32_t kv = take_int(in, 0, a->n_kv_heads - 1);
    kind to = (kind)take_int(in, 0, ANY);
    int rare = 1 << take_int(in, 0, 5);
    const int64_t k_row = row_bytes(a->k.type, a->head_dim), v_row = row_bytes(a->v.type, a->value_dim);
    for (int64_t j = from, x = 0; j < a->n_kv && x < n; j += step, x++) {
        if (what & 1) put_row(in, a->k.type, (unsigned char *)a->k.data + (j * a->n_kv_heads + kv) * k_row, a->head_dim,
                              to, rare);
        if (what & 2) put_row(in, a->v.type, (unsigned char *)a->v.data + (j * a->n_kv_heads + kv) * v_row,
                              a->value_dim, to, rare);
    }
    const operand *out = operand_at(a->out.data), *lse = operand_at(a->lse), *blocks = operand_at(a->blocks);
    const int32_t *before = (const int32_t *)(const void *)blocks->copy;
    run(in, c, take_int(in, 0, 3));
    for (int64_t i = 0; i < a->n_q; i++)
        for (int32_t h = 0; h < a->n_heads; h++) {
            int any = 0;
            for (int64_t j = from, x = 0; j < a->n_kv && x < n && !any; j += step, x++)
                any = h / G == kv && ((what & 1 && sees(c, before, i, h, j, 0)) ||
                                      (what & 2 && sees(c, before, i, h, j, 1)));
            if (any) continue;
            const size_t at = (size_t)i * c->out_row + (size_t)h * c->head_row, one = (size_t)(i * a->n_heads + h) * 4;
            NEED(same(a->out.type, out->at + at, out->copy + at, a->value_dim),
                 "query %d head %d: out changed with a key or value that it does not see", (int)i, h);
            NEED(same(SSA_F32, lse->at + one, lse->copy + one, 1),
                 "query %d head %d: lse changed with what it does not see", (int)i, h);
        }
}

/* A NaN among tame numbers is in the output of all who see it, and of nobody else. */
static void spoil_seen(input *in, call *c)
{
    const ssa_attn *a = &c->a;
    const int32_t G = a->n_heads / a->n_kv_heads;
    if (a->n_kv < 1 || !c->tame) return;
    int64_t j = take_int(in, 0, (int)a->n_kv - 1);
    int32_t kv = take_int(in, 0, a->n_kv_heads - 1), e;
    int value = take_int(in, 0, 1);
    const ssa_view *v = value ? &a->v : &a->k;
    int32_t dim = value ? a->value_dim : a->head_dim;
    unsigned char *row = (unsigned char *)v->data + (j * a->n_kv_heads + kv) * row_bytes(v->type, dim);
    e = take_int(in, 0, dim - 1);
    if (v->type == SSA_Q8_0) put(SSA_F16, row + e / 32 * 34, 0, NOT_A_NUMBER, bulk(in));
    else put(v->type, row, e, NOT_A_NUMBER, bulk(in));
    run(in, c, 0);
    for (int64_t i = 0; i < a->n_q; i++)
        for (int32_t h = kv * G; h < (kv + 1) * G; h++) {
            if (!sees(c, a->blocks, i, h, j, 1)) continue;   /* by the lists of now: a NaN changes them */
            const void *out = (unsigned char *)a->out.data + (size_t)i * c->out_row + (size_t)h * c->head_row;
            for (int32_t d = 0; d < a->value_dim; d++)
                if (!value || d == e) NEED(is_nan_at(a->out.type, out, d), "query %d head %d dim %d: sees a NaN in %s "
                                           "%d, and has none", (int)i, h, d, value ? "value" : "key", (int)j);
            if (!value) NEED(is_nan_at(SSA_F32, a->lse, i * a->n_heads + h), "query %d head %d: sees a NaN in key %d, "
                             "lse has none", (int)i, h, (int)j);
        }
}

static void fuzz_attention(input *in)
{
    call c;
    if (!valid_call(in, &c)) return;
    memory_left = (int64_t)1 << 30;
    remember();
    run(in, &c, 0);
    NEED(!changed(0), "an input changed");
    remember();
    memset(c.a.out.data, 0x5A, (size_t)c.a.n_q * c.out_row);
    run(in, &c, take_int(in, 1, 4));
    NEED(!changed(1), "other bits from a plan of several workers");
    if (c.mode == SSA_SPARSE && c.full && c.a.select != SSA_SELECT_GIVEN)
        for (int64_t i = 0; i < c.a.n_q * c.lists * c.a.top_k; i++) NEED(c.a.blocks[i] == -1, "lists of a full run");
    if (c.mode == SSA_SPARSE && take_int(in, 0, 3) == 0) {
        int64_t rows = c.a.n_q * c.a.n_heads;
        float *x[4];
        for (int i = 0; i < 4; i++) x[i] = give(in, 4 * rows, 1);
        ssa_diagnosis d = { x[0], x[1], x[2], x[3] };
        NEED(ssa_diagnose(&c.a, &d, NULL) == SSA_OK, "diagnose");
    }
    if (take_int(in, 0, 1)) replace_hidden(in, &c);
    else spoil_seen(in, &c);
}

/* New rows of any numbers into a cache of any type, and its pool. */
static void fuzz_cache(input *in)
{
    int32_t D = 32 * take_int(in, 1, 3), B = take_int(in, 1, 9);
    int64_t n = take_int(in, 1, 40), cut = take_int(in, 0, (int)n);
    ssa_attn a = ssa_attn_default(2, 2, D);
    ssa_view k = { NULL, TAKE_OF(in, plain_types), 0, 0 }, v = { NULL, TAKE_OF(in, plain_types), 0, 0 };
    a.k.type = TAKE_OF(in, key_types);
    a.v.type = TAKE_OF(in, key_types);
    k.data = give_odd(in, 2 * n * row_bytes(k.type, D), 0);
    v.data = give_odd(in, 2 * n * row_bytes(v.type, D), 0);
    put_rows(in, k.type, k.data, 2 * n, D);
    put_rows(in, v.type, v.data, 2 * n, D);
    a.k.data = give_odd(in, 2 * n * row_bytes(a.k.type, D), 1);
    a.v.data = give_odd(in, 2 * n * row_bytes(a.v.type, D), 1);
    ssa_type type = take_int(in, 0, 1) ? SSA_BF16 : SSA_F32;
    size_t size = ssa_pool_size(2, D, B, n, type);
    ssa_pool p, whole;
    unsigned char *memory = give(in, (int64_t)size, 1), *again = give(in, (int64_t)size, 1);
    NEED(ssa_pool_init(&p, 2, D, B, n, type, memory, size) == SSA_OK &&
             ssa_pool_init(&whole, 2, D, B, n, type, again, size) == SSA_OK, "pools");
    NEED(ssa_kv_append(&a, 0, &k, &v, n, &p) == SSA_OK && ssa_pool_append(&whole, &a.k, n) == SSA_OK, "append");
    const size_t pooled = (size_t)p.max_blocks * (size_t)row_bytes(type, D), sums = (size_t)(2 * D) * 4;
    NEED(memcmp(p.pooled, whole.pooled, 2 * pooled) == 0 && memcmp(p.open_sum, whole.open_sum, sums) == 0,
         "rows that are appended pool as those of the cache");
    NEED(ssa_pool_truncate(&p, &a.k, cut) == SSA_OK && ssa_pool_init(&whole, 2, D, B, n, type, again, size) == SSA_OK &&
             ssa_pool_append(&whole, &a.k, cut) == SSA_OK, "truncate");
    NEED(memcmp(p.open_sum, whole.open_sum, sums) == 0, "truncated as if it had never held more");
    NEED(ssa_pool_drop_front(&p, &a.k, cut / 2) == SSA_OK, "drop_front");
}

static void fuzz_rest(input *in)
{
    static const float betas[] = { 0, 1, 1e-38f, 1e-45f, 3e38f };
    int64_t n = take_int(in, 1, 9);
    int32_t dim = take_int(in, 1, 70);
    float *oa = give(in, 4 * n * dim, 1), *ob = give(in, 4 * n * dim, 0), *la = give(in, 4 * n, 1),
          *lb = give(in, 4 * n, 0);
    put_rows(in, SSA_F32, oa, n, dim);
    put_rows(in, SSA_F32, ob, n, dim);
    put_rows(in, SSA_F32, la, n, 1);
    put_rows(in, SSA_F32, lb, n, 1);
    ssa_view v[4];
    for (int i = 0; i < 4; i++) {
        v[i].type = TAKE_OF(in, plain_types);
        v[i].token_stride = v[i].head_stride = 0;
        v[i].data = give_odd(in, n * row_bytes(v[i].type, dim), i > 1);
        put_rows(in, v[i].type, v[i].data, n, dim);
    }
    float beta = TAKE_OF(in, betas), scale = TAKE_OF(in, betas) * (take_int(in, 0, 1) ? 1.0f : -1.0f);
    ssa_alignment loss;
    remember();
    ssa_attention_sparsity(la, lb, n, give(in, 4 * n, 1));
    ssa_merge(oa, la, ob, lb, n, dim);
    for (int64_t r = 0; r < n; r++) {                        /* a row that saw nothing counts for nothing */
        const operand *was = operand_at(la), *out = operand_at(oa);
        uint32_t u;
        memcpy(&u, &lb[r], 4);
        if (u == 0xff800000)
            NEED(memcmp(&la[r], was->copy + 4 * r, 4) == 0 &&
                     memcmp(oa + r * dim, out->copy + 4 * r * dim, 4 * (size_t)dim) == 0, "joined with nothing");
    }
    NEED(ssa_alignment_loss(&v[0], &v[1], n, 1, dim, beta, &loss, scale, &v[2], &v[3]) == SSA_OK, "loss");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = { data, size, 0 };
    in.seed = take(&in, 2);
    any_level(&in);
    memory_left = (int64_t)1 << 26;
    switch (take_int(&in, 0, 7)) {
    case 0:  fuzz_cache(&in); break;
    case 1:  fuzz_rest(&in); break;
    default: fuzz_attention(&in);
    }
    give_back();
    return 0;
}

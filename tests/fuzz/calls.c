/* calls.c - fuzz target: descriptors. Any bits in any field of any argument of any function.
 *
 * A call starts plausible; then some of its fields, often none, get bits they do not expect. What it points to is
 * allocated as large as the contract says for its fields, not a byte more. Then it is refused, with the same status by
 * every function and nothing written, or runs and writes what it may, without a sanitizer's report. A call that would
 * need more memory or time than a fuzzer has is only checked, with pointers that trap when they are followed. */
#include <math.h>
#include <stddef.h>
#include "fuzz.h"

#define NOWHERE ((void *)(uintptr_t)24) /* not NULL, and never to be followed */
enum { MOST_BYTES = 1 << 20, MOST_WORK = 6000000 };

/* Sizes of what a call points to, in arithmetic that does not overflow; above MOST_BYTES nothing is made. */
typedef __int128 wide;
static wide times(wide a, wide b)
{
    wide x;
    return __builtin_mul_overflow(a, b, &x) || x > (wide)1 << 100 ? (wide)1 << 100 : x;
}
static int big, impossible; /* the current call asks for too much; for more than an address space has */

static wide row_bytes(ssa_type t, wide n) { return t == SSA_Q8_0 ? n / 32 * 34 : t == SSA_F32 ? 4 * n : 2 * n; }

static wide token_stride(const ssa_view *v, wide heads, wide dim)
{
    return v->token_stride ? v->token_stride : heads * (v->head_stride ? v->head_stride : row_bytes(v->type, dim));
}

static wide view_bytes(const ssa_view *v, wide n, wide heads, wide dim)
{
    wide row = row_bytes(v->type, dim), hs = v->head_stride ? v->head_stride : row;
    if (n < 1 || heads < 1 || dim < 1 || v->token_stride < 0 || v->head_stride < 0) return 0;
    return times(n - 1, token_stride(v, heads, dim)) + (heads - 1) * hs + row;
}

static void *give_wide(input *in, wide n, int written)
{
    if (n > MOST_BYTES) { big = 1; return NOWHERE; }
    return give(in, n > 0 ? (int64_t)n : 0, written);
}
static void *give_rows(input *in, wide n, int written) /* of a view, which need not be aligned */
{
    if (n > PTRDIFF_MAX) impossible = 1;
    if (n > MOST_BYTES) { big = 1; return NOWHERE; }
    return give_odd(in, n > 0 ? (int64_t)n : 0, written);
}

/* ---- fields with bits that they do not expect -------------------------------------------------------------------- */
typedef struct { size_t at, size; } field;
#define FIELD(type, name) { offsetof(type, name), sizeof(((type *)0)->name) }
static const field attn_fields[] = {
    FIELD(ssa_attn, n_heads), FIELD(ssa_attn, n_kv_heads), FIELD(ssa_attn, head_dim), FIELD(ssa_attn, value_dim),
    FIELD(ssa_attn, n_q), FIELD(ssa_attn, n_kv), FIELD(ssa_attn, q_pos), FIELD(ssa_attn, scale),
    FIELD(ssa_attn, q.type), FIELD(ssa_attn, q.token_stride), FIELD(ssa_attn, q.head_stride),
    FIELD(ssa_attn, k.type), FIELD(ssa_attn, k.token_stride), FIELD(ssa_attn, k.head_stride),
    FIELD(ssa_attn, v.type), FIELD(ssa_attn, v.token_stride), FIELD(ssa_attn, v.head_stride),
    FIELD(ssa_attn, out.type), FIELD(ssa_attn, out.token_stride), FIELD(ssa_attn, out.head_stride),
    FIELD(ssa_attn, causal), FIELD(ssa_attn, window), FIELD(ssa_attn, softcap), FIELD(ssa_attn, mask_type),
    FIELD(ssa_attn, mask_stride), FIELD(ssa_attn, page_tokens), FIELD(ssa_attn, page_stride_k),
    FIELD(ssa_attn, page_stride_v), FIELD(ssa_attn, block_size), FIELD(ssa_attn, top_k), FIELD(ssa_attn, select),
    FIELD(ssa_attn, score), FIELD(ssa_attn, select_per_head), FIELD(ssa_attn, sink_blocks),
    FIELD(ssa_attn, local_blocks), FIELD(ssa_attn, top_p), FIELD(ssa_attn, budget), FIELD(ssa_attn, min_context),
};
static const field pool_fields[] = {
    FIELD(ssa_pool, n_tokens), FIELD(ssa_pool, max_tokens), FIELD(ssa_pool, max_blocks), FIELD(ssa_pool, n_kv_heads),
    FIELD(ssa_pool, head_dim), FIELD(ssa_pool, block_size), FIELD(ssa_pool, type),
};
static const field view_fields[] = { FIELD(ssa_view, type), FIELD(ssa_view, token_stride),
                                     FIELD(ssa_view, head_stride) };
#define SPOIL(in, what, fields) spoil(in, what, fields, (int)(sizeof(fields) / sizeof((fields)[0])))

static void spoil(input *in, void *what, const field *fields, int n)
{
    int kind = take_int(in, 0, 7), times = kind < 4 ? 0 : kind < 6 ? 1 : kind < 7 ? take_int(in, 2, 4) : n;
    for (int i = 0; i < times; i++) {
        const field *f = &fields[times == n ? i : take_int(in, 0, n - 1)];
        uint64_t x = take_hostile(in);                       /* little-endian: the low bytes are the field's */
        memcpy((unsigned char *)what + f->at, &x, f->size);
    }
}

static int32_t some_dim(input *in)
{
    static const int32_t dims[] = { 1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 48, 64, 65, 80, 96, 100, 128, 160, 256, 1024 };
    return TAKE_OF(in, dims);
}

static int32_t some_block(input *in)
{
    static const int32_t blocks[] = { 1, 2, 3, 4, 8, 16, 16, 32, 48, 64 };
    return TAKE_OF(in, blocks);
}

static int64_t some_count(input *in, int most)
{
    static const int counts[] = { 0, 1, 1, 2, 3, 16, 64, 65 };
    int n = take_int(in, 0, 3) ? TAKE_OF(in, counts) : take_int(in, 0, most);
    return n < most ? n : most;
}

/* Strides of n tokens: none given, spelled out, head-major, or with gaps, odd ones too. */
static void some_strides(input *in, ssa_view *v, int64_t n, int32_t heads, int32_t dim)
{
    int64_t row = (int64_t)row_bytes(v->type, dim);
    v->token_stride = v->head_stride = 0;
    switch (take_int(in, 0, 5)) {
    case 0: v->head_stride = row * (n ? n : 1); v->token_stride = row; break;
    case 1: v->head_stride = row; v->token_stride = row * heads; break;
    case 2: v->head_stride = row + take_int(in, 0, 9); v->token_stride = v->head_stride * heads + take_int(in, 0, 9);
            break;
    }
}

static const ssa_type plain_types[] = { SSA_F32, SSA_F16, SSA_BF16 }, key_types[] = { SSA_F32, SSA_F16, SSA_BF16,
                                                                                    SSA_Q8_0 };

/* ---- a call and what it points to -------------------------------------------------------------------------------- */
static ssa_attn plausible(input *in, int *mode)
{
    static const int groups[] = { 1, 2, 3, 4, 8 };
    static const float floats[] = { 0, 1, 0.5f, -1, 50, 1e-3f, 1e30f };
    int H = take_int(in, 1, 3), same = take_int(in, 0, 2);
    ssa_type type = TAKE_OF(in, plain_types);
    ssa_attn a = ssa_attn_default(H * TAKE_OF(in, groups), H, some_dim(in));
    *mode = take_int(in, 0, 9) ? take_int(in, SSA_FULL, SSA_SPARSE) : (int)take_hostile(in);
    if (take_int(in, 0, 1)) a.value_dim = some_dim(in);
    a.n_q = some_count(in, 140);
    a.n_kv = some_count(in, 1200) + (take_int(in, 0, 3) ? a.n_q : 0);
    if (take_int(in, 0, 3) == 0) a.q_pos = take_int(in, 0, 255);
    if (a.head_dim % 32 == 0 && a.value_dim % 32 == 0 && !same) a.k.type = a.v.type = TAKE_OF(in, key_types);
    else a.q.type = a.k.type = a.v.type = same == 1 ? SSA_BF16 : type;
    a.out.type = TAKE_OF(in, plain_types);
    some_strides(in, &a.q, a.n_q, a.n_heads, a.head_dim);
    some_strides(in, &a.k, a.n_kv, H, a.head_dim);
    some_strides(in, &a.v, a.n_kv, H, a.value_dim);
    some_strides(in, &a.out, a.n_q, a.n_heads, a.value_dim);
    a.block_size = some_block(in);
    a.top_k = take_int(in, 1, 20);
    if (take_int(in, 0, 3) == 0) a.select = (ssa_select)take_int(in, 0, 2);
    if (take_int(in, 0, 3) == 0) a.scale = TAKE_OF(in, floats);
    if (take_int(in, 0, 3) == 0) a.score = SSA_SCORE_DOT;
    if (take_int(in, 0, 3) == 0) a.select_per_head = 1;
    if (take_int(in, 0, 3) == 0) a.sink_blocks = take_int(in, 0, 2), a.local_blocks = take_int(in, 0, 2);
    if (take_int(in, 0, 3) == 0) a.top_p = (float)take_int(in, 0, 10) / 10;
    if (take_int(in, 0, 3) == 0) a.budget = take_int(in, 0, 500);
    if (take_int(in, 0, 3) == 0) a.min_context = take_int(in, 0, 500);
    if (take_int(in, 0, 3) == 0) a.softcap = TAKE_OF(in, floats);
    if (take_int(in, 0, 3) == 0 && *mode != SSA_SPARSE) a.window = take_int(in, 0, 300), a.causal = 1;
    else if (take_int(in, 0, 3) == 0 && *mode != SSA_SPARSE) a.causal = 0;
    return a;
}

/* One half of the cache, of n tokens of which keys first .. last are read: where it lies, and the page table. */
static void *give_cache(input *in, const ssa_attn *a, const ssa_view *v, int64_t page_stride, int32_t dim,
                        const int32_t *pages, int64_t n, int64_t first, int64_t last)
{
    wide most = 0, stride = page_stride ? page_stride : times(a->page_tokens, token_stride(v, a->n_kv_heads, dim));
    if (a->pages == NULL) return give_rows(in, view_bytes(v, n, a->n_kv_heads, dim), 0);
    if (a->page_tokens < 1 || stride < 0 || first < 0 || first > n) return NOWHERE;
    for (int64_t j = first / a->page_tokens; pages && j * (wide)a->page_tokens < last && !big; j++) {
        wide rows = n - j * (wide)a->page_tokens, end;
        if (rows > a->page_tokens) rows = a->page_tokens;
        end = times(pages[j], stride) + view_bytes(v, (int64_t)rows, a->n_kv_heads, dim);
        if (end > most) most = end;
    }
    if (most > MOST_BYTES) { big = 1; return NOWHERE; } /* page numbers are the caller's promise */
    return give_rows(in, most, 0);
}

/* A page table of n tokens: some order of the pages, and anything for pages outside of tokens first .. last-1, which
 * nobody may follow. distinct: no page twice. */
static int32_t *give_pages(input *in, const ssa_attn *a, int64_t n, int64_t first, int64_t last, int distinct)
{
    if (a->page_tokens < 1 || n < 1) return give(in, 0, 0);
    wide count = (n - 1) / a->page_tokens + 1;
    int turn = take_int(in, 0, 7), modulus = distinct ? 0 : take_int(in, 0, 5);
    int32_t *pages = give_wide(in, 4 * count, 0);
    if (pages == NOWHERE) return NOWHERE;
    for (int64_t j = 0; j < count; j++) {
        int64_t other = (j + turn) % (int64_t)count;
        if (j * (wide)a->page_tokens >= last || (j + 1) * (wide)a->page_tokens <= first) continue; /* stays random */
        pages[j] = (int32_t)(modulus ? other % modulus : other);
    }
    return pages;
}

/* Whether a pool's fields fit together, as ssa_pool_init leaves them. */
static int pool_sound(const ssa_pool *p)
{
    return p->pooled && p->open_sum && p->n_kv_heads > 0 && p->head_dim > 0 && p->head_dim <= SSA_MAX_DIM &&
           p->block_size > 0 && p->block_size <= SSA_MAX_BLOCK && (p->type == SSA_F32 || p->type == SSA_BF16) &&
           p->max_tokens >= 0 && p->n_tokens >= 0 && p->n_tokens <= p->max_tokens &&
           p->max_blocks == p->max_tokens / p->block_size;
}

static ssa_pool *give_pool(input *in, int32_t heads, int32_t dim, int32_t block, int64_t n)
{
    ssa_pool *p = give(in, sizeof *p, 1);
    memset(p, 0, sizeof *p);
    p->n_kv_heads = heads; p->head_dim = dim; p->block_size = block;
    p->type = take_int(in, 0, 1) ? SSA_BF16 : SSA_F32;
    p->n_tokens = n;
    p->max_tokens = n >= 0 && n < INT32_MAX ? n + take_int(in, 0, 40) : n;
    p->max_blocks = block > 0 ? p->max_tokens / block : 0;
    SPOIL(in, p, pool_fields);
    p->pooled = p->open_sum = NOWHERE;
    if (!pool_sound(p)) return p;
    p->pooled = give_wide(in, (wide)p->n_kv_heads * p->max_blocks * row_bytes(p->type, p->head_dim), 1);
    p->open_sum = give_wide(in, (wide)4 * p->n_kv_heads * p->head_dim, 1);
    if (take_int(in, 0, 31) == 0) p->pooled = NULL;
    if (take_int(in, 0, 31) == 0) p->open_sum = NULL;
    return p;
}

/* Everything that the call points to, in the sizes that its fields ask for; sometimes nothing where something is
 * needed. */
static void furnish(input *in, ssa_attn *a, int mode)
{
    wide rows = (wide)(a->n_q > 0 ? a->n_q : 0) * (a->n_heads > 0 ? a->n_heads : 0);
    wide heads = a->n_heads > 0 ? a->n_heads : 0, lists = a->select_per_head ? a->n_heads : a->n_kv_heads;
    wide top_k = a->budget > 0 && a->block_size > 0 ? a->budget / a->block_size : a->top_k;
    int64_t at = a->q_pos < 0 ? (int64_t)((uint64_t)a->n_kv - (uint64_t)a->n_q) : a->q_pos, first = 0, last = a->n_kv;
    int optional = take_int(in, 0, 255), none = take_int(in, 0, 15);
    if (a->budget > 0 && top_k < 1) top_k = 1;
    if (a->budget > 0 && top_k > INT32_MAX) top_k = INT32_MAX;
    if (lists < 0) lists = 0;
    if (a->n_q < 1) last = 0;                                /* of the keys only these may be followed */
    else if (a->causal == 1 && (wide)at + a->n_q < last) last = at + a->n_q;
    if (mode == SSA_FULL && a->window > 0 && at >= a->window) first = at - a->window + 1;
    a->q.data = give_rows(in, view_bytes(&a->q, a->n_q, a->n_heads, a->head_dim), 0);
    a->out.data = give_rows(in, view_bytes(&a->out, a->n_q, a->n_heads, a->value_dim), 1);
    a->pages = optional & 1 ? NULL : NOWHERE;
    if (a->pages) {
        if (take_int(in, 0, 7)) a->page_tokens = (int64_t)((uint64_t)a->block_size * (uint64_t)take_int(in, 1, 3));
        if (take_int(in, 0, 7) == 0) a->page_tokens = (int64_t)take_hostile(in);
        a->pages = give_pages(in, a, a->n_kv, first, last, 0);
        if (take_int(in, 0, 7) == 0) a->page_stride_k = a->page_stride_v = take_int(in, 0, 5000);
    }
    int32_t *pages = a->pages == NOWHERE ? NULL : (int32_t *)(uintptr_t)a->pages;
    a->k.data = give_cache(in, a, &a->k, a->page_stride_k, a->head_dim, pages, a->n_kv, first, last);
    a->v.data = give_cache(in, a, &a->v, a->page_stride_v, a->value_dim, pages, a->n_kv, first, last);
    if (optional & 2) a->gate = give_wide(in, 4 * rows, 0);
    if (optional & 4) a->lse = give_wide(in, 4 * rows, 1);
    if (optional & 8 && take_int(in, 0, 1)) a->sinks = give_wide(in, 4 * heads, 0);
    if (optional & 16 && take_int(in, 0, 1)) a->alibi = give_wide(in, 4 * heads, 0);
    if (optional & 32 && take_int(in, 0, 1)) {
        wide row = a->n_kv > 0 ? row_bytes(a->mask_type, a->n_kv) : 0;
        wide stride = a->mask_stride ? a->mask_stride : row;
        a->mask = give_rows(in, a->n_q > 0 && stride >= 0 ? times(a->n_q - 1, stride) + row : 0, 0);
    }
    if (optional & 64 || a->select == SSA_SELECT_GIVEN) {
        a->blocks = give_wide(in, a->n_q > 0 && top_k > 0 ? times(4 * lists * a->n_q, top_k) : 0,
                              a->select != SSA_SELECT_GIVEN);
        const operand *o = operand_at(a->blocks);
        for (size_t i = 0; o && a->select == SSA_SELECT_GIVEN && i + 4 <= o->n; i += 4) {
            int32_t x = (int32_t)bulk(in);                   /* often a block that there is */
            x = x & 1 && a->block_size > 0 && last >= 0 && last / a->block_size < INT32_MAX - 2
                    ? (int32_t)((x >> 1 & 0xffff) % (last / a->block_size + 2)) - 1 : x;
            memcpy(o->at + i, &x, 4);
        }
    }
    if (optional & 128 && lists <= 4096 && take_int(in, 0, 1)) {
        int32_t *each = give_wide(in, 4 * lists, 0);
        int most = top_k < 1 ? 1 : top_k > 100 ? 100 : (int)top_k;
        for (int l = 0; l < lists && take_int(in, 0, 7); l++) each[l] = take_int(in, 1, most);
        a->top_k_per_head = each;
    }
    if (take_int(in, 0, 1)) a->pool = give_pool(in, a->n_kv_heads, a->head_dim, a->block_size, a->n_kv);
    if (none == 1) a->q.data = NULL;
    if (none == 2) a->k.data = NULL;
    if (none == 3) a->v.data = NULL;
    if (none == 4) a->out.data = NULL;
    if (none == 5) a->blocks = NULL;
    double work = (double)rows * ((double)a->n_kv + 64 + (mode == SSA_SPARSE ? 4.0 * a->block_size : 0.0)) *
                  ((double)a->head_dim + a->value_dim);
    show(a, mode);
    if (work > MOST_WORK || a->n_kv > 100000 || a->n_q > 100000 || a->n_heads > 1000) big = 1;
}

/* What was written has rows that lie apart, and the bytes between them are as they were. */
static void need_gaps(const ssa_view *v, int64_t from, int64_t n, int32_t heads, int32_t dim, const char *what)
{
    const operand *o = operand_at(v->data);
    int64_t row = (int64_t)row_bytes(v->type, dim), hs = v->head_stride ? v->head_stride : row;
    int64_t ts = (int64_t)token_stride(v, heads, dim);
    if (o == NULL) return;
    unsigned char *row_of = calloc(o->n + 1, 1);
    NEED(row_of, "out of memory");
    for (int64_t i = from; i < n; i++)
        for (int32_t h = 0; h < heads; h++) {
            const int64_t at = i * ts + h * hs;
            NEED(!row_of[at] && !row_of[at + row - 1], "%s: rows that are written overlap", what);
            memset(row_of + at, 1, (size_t)row);
            memcpy(o->at + at, o->copy + at, (size_t)row);   /* what may change is put back */
        }
    free(row_of);
    NEED(memcmp(o->at, o->copy, o->n) == 0, "%s: written between the rows", what);
}

/* Where to run: nowhere in particular, or with some threads and some workspace. */
static const ssa_exec *some_exec(input *in, ssa_exec *x, size_t size_of_one)
{
    int kind = take_int(in, 0, 7);
    memset(x, 0, sizeof *x);
    memory_left = take_int(in, 0, 15) ? (int64_t)1 << 26 : take_int(in, 0, 1000);
    if (kind == 0) return NULL;
    x->n_threads = kind == 1 ? (int)take_hostile(in) : take_int(in, 0, 5);
    x->parallel = take_int(in, 0, 1) ? run_workers : NULL;
    if (kind < 5 || size_of_one > MOST_BYTES * 8) return x;
    x->workspace_size = size_of_one;
    if (x->n_threads > 1) x->workspace_size = size_of_one * (size_t)(x->n_threads < 6 ? x->n_threads : 6);
    if (kind == 6) x->workspace_size = size_of_one ? size_of_one - 1 : 0;
    if (kind == 7) x->workspace_size = take(in, 2);
    x->workspace = give_odd(in, (int64_t)x->workspace_size, 1);
    return x;
}

/* A status that comes from where a call runs, not from the call. */
static int from_exec(ssa_status s) { return s == SSA_ERR_WORKSPACE || s == SSA_ERR_MEMORY || s == SSA_ERR_THREADS; }

static void fuzz_attention(input *in)
{
    int mode, batch = take_int(in, 0, 3) == 0;
    ssa_attn a[2] = { plausible(in, &mode), ssa_attn_default(0, 0, 0) };
    ssa_exec x;
    SPOIL(in, &a[0], attn_fields);
    furnish(in, &a[0], mode);
    ssa_status want = ssa_check(&a[0], (ssa_mode)mode), s;
    size_t size = ssa_workspace_size(&a[0], 1, (ssa_mode)mode, 1);
    NEED(strcmp(ssa_status_string(want), "unknown status") != 0, "status %d", want);
    NEED((size > 0) == (want == SSA_OK), "status %d, workspace of %zu bytes", want, size);
    NEED(want != SSA_OK || !impossible, "a call that no memory holds");
    NEED(ssa_attention_backward(&a[0], (ssa_mode)mode, NULL, NULL) == (want == SSA_OK ? SSA_ERR_NULL : want),
         "backward, status %d", want);
    if (a[0].pool && want == SSA_OK && mode == SSA_SPARSE && a[0].select != SSA_SELECT_GIVEN)
        NEED(pool_sound(a[0].pool) && a[0].pool->n_kv_heads == a[0].n_kv_heads && a[0].pool->n_tokens >= a[0].n_kv &&
                 a[0].pool->head_dim == a[0].head_dim, "a pool that is none, or another's, was taken");
    if (a[0].pages && want == SSA_OK)
        NEED(a[0].page_tokens > 0 && a[0].page_stride_k >= 0 && a[0].page_stride_v >= 0, "pages that cannot be");
    if (a[0].mask && want == SSA_OK)
        NEED(a[0].mask_stride == 0 || a[0].mask_stride >= row_bytes(a[0].mask_type, a[0].n_kv), "rows that overlap");
    if (want == SSA_OK && big) return;
    if (batch) a[1] = a[0], a[1].n_q = 0;
    const ssa_exec *where = some_exec(in, &x, batch ? ssa_workspace_size(a, 2, (ssa_mode)mode, 1) : size);
    remember();
    if (batch) s = ssa_attention_batch(a, 2, (ssa_mode)mode, where);
    else s = ssa_attention(a, (ssa_mode)mode, where);
    NEED(s == want || from_exec(s), "checked as %d, run as %d", want, s);
    NEED(!changed(s == SSA_OK ? 0 : 1), "status %d, written where it may not", s);
    if (s == SSA_OK) need_gaps(&a[0].out, 0, a[0].n_q, a[0].n_heads, a[0].value_dim, "out");
}

static void fuzz_plan(input *in)
{
    int mode, n_threads = take_int(in, 0, 7) ? take_int(in, 0, 6) : (int)take_hostile(in);
    ssa_attn a = plausible(in, &mode);
    ssa_plan plan, untouched;
    SPOIL(in, &a, attn_fields);
    furnish(in, &a, mode);
    memset(&plan, 0xA5, sizeof plan);
    memcpy(&untouched, &plan, sizeof plan);
    ssa_status want = ssa_check(&a, (ssa_mode)mode), s;
    size_t size = ssa_workspace_size(&a, 1, (ssa_mode)mode, n_threads), given = size;
    if (take_int(in, 0, 3) == 0) given = take(in, 2);
    if (given > 8 * MOST_BYTES || (want == SSA_OK && big)) given = 0;
    void *ws = give_odd(in, (int64_t)given, 1);
    remember();
    s = ssa_plan_make(take_int(in, 0, 15) ? &plan : NULL, &a, 1, (ssa_mode)mode, n_threads, ws, given);
    if (n_threads < 0) NEED(s != SSA_OK, "a plan for %d threads", n_threads);
    if (s == SSA_OK) /* a full call that would lay its keys out does without where there is no room */
        NEED(want == SSA_OK && (given >= size || mode == SSA_FULL || a.n_kv < a.min_context), "checked as %d, planned",
             want);
    else {
        NEED(s == want || s == SSA_ERR_NULL || s == SSA_ERR_OVERFLOW || from_exec(s), "checked as %d, planned as %d",
             want, s);
        NEED(!changed(1) && memcmp(&plan, &untouched, sizeof plan) == 0, "status %d, written", s);
        return;
    }
    int phases = ssa_plan_phases(&plan);
    for (int phase = 0; phase < phases; phase++) {
        int nth = take_int(in, 1, n_threads > 0 ? n_threads : 1);
        ssa_plan_run(&plan, take_int(in, 0, 1) ? -1 - phase : phases + phase, 0, nth); /* these do nothing */
        ssa_plan_run(&plan, phase, nth + take_int(in, 0, 3), nth);
        ssa_plan_run(&plan, phase, 0, n_threads < 1 ? 2 : n_threads + 1);
        ssa_plan_run(&plan, phase, (int)take(in, 1) - 256, nth);
        for (int i = 0; i < nth; i++) ssa_plan_run(&plan, phase, i, nth);
    }
    NEED(!changed(0), "a plan wrote where it may not");
    need_gaps(&a.out, 0, a.n_q, a.n_heads, a.value_dim, "out");
}

static void fuzz_select(input *in)
{
    int mode;
    ssa_attn a = plausible(in, &mode);
    ssa_exec x;
    a.window = 0;
    a.causal = 1;
    SPOIL(in, &a, attn_fields);
    furnish(in, &a, SSA_SPARSE);
    size_t size = ssa_workspace_size(&a, 1, SSA_SPARSE, 1);
    ssa_status want = ssa_check(&a, SSA_SPARSE), s;
    int diagnose = take_int(in, 0, 2) == 0;
    if (big && want == SSA_OK) return;
    if (big && a.n_heads > 0 && a.n_kv_heads > 0) {          /* what selection alone would not refuse */
        a.n_q = -1;
        want = SSA_ERR_LENGTH;
    }
    wide rows = (wide)(a.n_q > 0 ? a.n_q : 0) * (a.n_heads > 0 ? a.n_heads : 0);
    ssa_diagnosis d = { 0 };
    if (diagnose && 4 * rows <= MOST_BYTES) {
        int which = take_int(in, 0, 15);
        if (which & 1) d.entropy = give(in, 4 * (int64_t)rows, 1);
        if (which & 2) d.sparsity = give(in, 4 * (int64_t)rows, 1);
        if (which & 4) d.delta = give(in, 4 * (int64_t)rows, 1);
        if (which & 8) d.bound = give(in, 4 * (int64_t)rows, 1);
    }
    const ssa_exec *where = some_exec(in, &x, size);
    remember();
    s = diagnose ? ssa_diagnose(&a, take_int(in, 0, 15) ? &d : NULL, where) : ssa_select_blocks(&a, where);
    if (want == SSA_OK && !diagnose && a.select != SSA_SELECT_GIVEN && a.blocks)
        NEED(s == SSA_OK || from_exec(s), "valid, and select gives %d", s);
    NEED(!changed(s == SSA_OK ? 0 : 1), "status %d, written where it may not", s);
    const operand *out = operand_at(a.out.data);
    if (out) NEED(memcmp(out->at, out->copy, out->n) == 0, "out was touched");
}

static void fuzz_append(input *in)
{
    int mode;
    ssa_attn a = plausible(in, &mode);
    int64_t at = take_int(in, 0, 200), n = take_int(in, 0, 70);
    ssa_view k = { NULL, TAKE_OF(in, plain_types), 0, 0 }, v = { NULL, TAKE_OF(in, plain_types), 0, 0 };
    some_strides(in, &k, n, a.n_kv_heads, a.head_dim);
    some_strides(in, &v, n, a.n_kv_heads, a.value_dim);
    some_strides(in, &a.k, at + n, a.n_kv_heads, a.head_dim);
    some_strides(in, &a.v, at + n, a.n_kv_heads, a.value_dim);
    SPOIL(in, &a, attn_fields);
    SPOIL(in, &k, view_fields);
    SPOIL(in, &v, view_fields);
    if (take_int(in, 0, 15) == 0) at = (int64_t)take_hostile(in);
    if (take_int(in, 0, 15) == 0) n = (int64_t)take_hostile(in);
    wide end = (wide)at + n;
    int64_t tokens = end < 0 || end > INT64_MAX ? 0 : (int64_t)end;
    a.pages = take_int(in, 0, 1) ? NULL : NOWHERE;
    if (a.pages) {
        if (take_int(in, 0, 7)) a.page_tokens = take_int(in, 1, 40);
        a.page_stride_k = a.page_stride_v = 0;
        a.pages = give_pages(in, &a, tokens, at, tokens, 1);
    }
    int32_t *pages = a.pages == NOWHERE ? NULL : (int32_t *)(uintptr_t)a.pages;
    a.k.data = give_cache(in, &a, &a.k, a.page_stride_k, a.head_dim, pages, tokens, at, tokens);
    a.v.data = give_cache(in, &a, &a.v, a.page_stride_v, a.value_dim, pages, tokens, at, tokens);
    k.data = give_rows(in, view_bytes(&k, n, a.n_kv_heads, a.head_dim), 0);
    v.data = give_rows(in, view_bytes(&v, n, a.n_kv_heads, a.value_dim), 0);
    ssa_pool *pool = take_int(in, 0, 1) ? NULL : give_pool(in, a.n_kv_heads, a.head_dim, a.block_size, at);
    int which = take_int(in, 0, 31);
    ssa_view *kp = which == 1 ? NULL : &k, *vp = which == 2 ? NULL : &v;
    if (which == 3) k.data = NULL;
    if (which == 4) a.v.data = NULL;
    if (big || n > 100000) return;
    for (operand *o = operands; o < operands + n_operands; o++)
        if (o->at == a.k.data || o->at == a.v.data) o->written = 1;
    remember();
    ssa_status s = ssa_kv_append(&a, at, kp, vp, n, pool);
    NEED(!changed(s == SSA_OK ? 0 : 1), "status %d, written where it may not", s);
    if (s == SSA_OK && pool) NEED(pool->n_tokens == at + n && pool_sound(pool), "the pool holds what was appended");
    if (s == SSA_OK && a.pages == NULL) {
        if (kp) need_gaps(&a.k, at, at + n, a.n_kv_heads, a.head_dim, "k");
        if (vp) need_gaps(&a.v, at, at + n, a.n_kv_heads, a.value_dim, "v");
    }
}

static void fuzz_pool(input *in)
{
    int what = take_int(in, 0, 3);
    int32_t heads = take_int(in, 1, 4), dim = some_dim(in), block = some_block(in);
    int64_t held = take_int(in, 0, 150), n = take_int(in, 0, 60);
    ssa_view k = { NULL, TAKE_OF(in, key_types), 0, 0 };
    if (dim % 32 != 0 && k.type == SSA_Q8_0) k.type = SSA_F32;
    some_strides(in, &k, held, heads, dim);
    SPOIL(in, &k, view_fields);
    if (take_int(in, 0, 7) == 0) n = (int64_t)take_hostile(in);
    if (what == 3) {                                         /* init, from numbers; then one append */
        int64_t most = take_int(in, 0, 3) ? held : (int64_t)take_hostile(in);
        ssa_type type = take_int(in, 0, 7) ? SSA_BF16 : (ssa_type)take_hostile(in);
        if (take_int(in, 0, 3) == 0) heads = (int32_t)take_hostile(in);
        if (take_int(in, 0, 3) == 0) dim = (int32_t)take_hostile(in);
        if (take_int(in, 0, 3) == 0) block = (int32_t)take_hostile(in);
        size_t size = ssa_pool_size(heads, dim, block, most, type);
        ssa_pool p;
        if (size > MOST_BYTES) return;
        size_t given = size - (take_int(in, 0, 7) == 0 && size > 0);
        void *memory = give_odd(in, (int64_t)given, 1);
        remember();
        ssa_status s = ssa_pool_init(&p, heads, dim, block, most, type, memory, given);
        NEED((s == SSA_OK) == (size > 0 && given == size), "a pool of %zu bytes in %zu: %d", size, given, s);
        if (s != SSA_OK) { NEED(!changed(1), "status %d, written", s); return; }
        NEED(pool_sound(&p), "a new pool is sound");
        k.type = SSA_F32; k.token_stride = k.head_stride = 0;
        k.data = give_rows(in, view_bytes(&k, most, heads, dim), 0);
        if (!big) NEED(ssa_pool_append(&p, &k, most) == SSA_OK, "a pool takes what it has room for");
        return;
    }
    ssa_pool *p = give_pool(in, heads, dim, block, held);
    wide first = 0, rows = n;
    if (pool_sound(p) && what == 1 && n >= 0) first = n - n % p->block_size;
    if (pool_sound(p) && what == 2 && n >= 0) rows = n % p->block_size == 0 ? 0 : p->n_tokens - n;
    wide ts = token_stride(&k, p->n_kv_heads, p->head_dim);
    if (k.token_stride < 0 || k.head_stride < 0) first = 0;
    k.data = give_rows(in, view_bytes(&k, rows - first, p->n_kv_heads, p->head_dim), 0);
    if (times(first, ts) > MOST_BYTES) big = 1;
    else if (!big) k.data = (unsigned char *)k.data - (size_t)(first * ts); /* only rows from `first` on are read */
    if (take_int(in, 0, 31) == 0) k.data = NULL;
    if (big) return;
    remember();
    const int64_t before = p->n_tokens;
    const int sound = pool_sound(p);
    ssa_status s = what == 0 ? ssa_pool_append(p, &k, n) : what == 1 ? ssa_pool_truncate(p, &k, n)
                                                                     : ssa_pool_drop_front(p, &k, n);
    NEED(s != SSA_OK || sound, "a pool that is none was taken");
    NEED(!changed(s == SSA_OK ? 0 : 1), "status %d, written where it may not", s);
    if (s == SSA_OK) {
        NEED(p->n_tokens == (what == 0 ? before + n : what == 1 ? n : before - n), "the pool's count");
        NEED(pool_sound(p), "a pool stays sound");
    }
}

static void fuzz_loss(input *in)
{
    static const float floats[] = { 1, 0, 0.5f, 1e-30f, 3e38f };
    int64_t n = take_int(in, 0, 20);
    int32_t heads = take_int(in, 1, 4), dim = some_dim(in) * take_int(in, 1, 2);
    float beta = TAKE_OF(in, floats), scale = TAKE_OF(in, floats);
    ssa_alignment loss = { 7, 7, 7 };
    ssa_view v[4];
    int which = take_int(in, 0, 7);
    for (int i = 0; i < 4; i++) {
        v[i].type = TAKE_OF(in, plain_types);
        some_strides(in, &v[i], n, heads, dim);
    }
    SPOIL(in, &v[take_int(in, 0, 3)], view_fields);
    uint64_t bits = take_hostile(in);
    switch (take_int(in, 0, 15)) {
    case 0: n = (int64_t)bits; break;
    case 1: heads = (int32_t)bits; break;
    case 2: dim = (int32_t)bits; break;
    case 3: memcpy(&beta, &bits, 4); break;
    case 4: memcpy(&scale, &bits, 4); break;
    }
    for (int i = 0; i < 4; i++) v[i].data = give_rows(in, view_bytes(&v[i], n, heads, dim), i > 1);
    if (take_int(in, 0, 15) == 0) v[take_int(in, 0, 3)].data = NULL;
    int in_place = which & 4 && v[0].type == v[2].type && v[0].token_stride == v[2].token_stride &&
                   v[0].head_stride == v[2].head_stride && v[2].data;
    if (in_place) v[0].data = v[2].data;
    if (big || (double)n * heads * dim > MOST_WORK) return;
    remember();
    ssa_status s = ssa_alignment_loss(&v[0], &v[1], n, heads, dim, beta, &loss, scale, which & 1 ? &v[2] : NULL,
                                      which & 2 ? &v[3] : NULL);
    NEED(!changed(s == SSA_OK ? 0 : 1), "status %d, written where it may not", s);
    NEED(s == SSA_OK || (loss.total == 7 && loss.sparsity == 7 && loss.commitment == 7), "status %d, a loss", s);
    if (s == SSA_OK && which & 1) need_gaps(&v[2], 0, n, heads, dim, "d_full");
    if (s == SSA_OK && which & 2) need_gaps(&v[3], 0, n, heads, dim, "d_sparse");
}

static void fuzz_rest(input *in)
{
    int64_t rows = take_int(in, -1, 9), n;
    int32_t dim = take_int(in, -1, 60);
    n = (rows > 0 ? rows : 0) * (dim > 0 ? dim : 0);
    float *oa = give(in, 4 * n, 1), *ob = give(in, 4 * n, 0), *la = give(in, 4 * (rows > 0 ? rows : 0), 1),
          *lb = give(in, 4 * (rows > 0 ? rows : 0), 0);
    for (int64_t r = 0; r < rows; r++) if (take_int(in, 0, 3) == 0) la[r] = -INFINITY;
    for (int64_t r = 0; r < rows; r++) if (take_int(in, 0, 3) == 0) lb[r] = -INFINITY;
    int none = take_int(in, 0, 15);
    remember();
    ssa_merge(none == 1 ? NULL : oa, none == 2 ? NULL : la, none == 3 ? NULL : ob, none == 4 ? NULL : lb, rows, dim);
    NEED(!changed(0), "merge wrote its second argument");
    NEED(!changed(1) || !(none >= 1 && none <= 4), "merge wrote without all arguments");
    ssa_attention_sparsity(none == 5 ? NULL : la, none == 6 ? NULL : lb, rows, none == 7 ? NULL : la);
    ssa_merge(NULL, NULL, NULL, NULL, (int64_t)take_hostile(in), (int32_t)take_hostile(in));
    ssa_merge(oa, la, ob, lb, (int64_t)take_hostile(in), -(int32_t)take(in, 3));
    NEED(ssa_status_string((ssa_status)take_hostile(in)) != NULL && ssa_isa_name((ssa_isa)take_hostile(in)) != NULL,
         "every number has a name");
    ssa_isa got = ssa_isa_set((ssa_isa)take_hostile(in));
    NEED(got == ssa_isa_get() && got <= ssa_isa_detected(), "level %d", got);
    NEED(ssa_plan_phases(NULL) == 0, "no plan, no phases");
    ssa_plan_run(NULL, 0, 0, 1);
    ssa_attn a = ssa_attn_default((int32_t)take_hostile(in), (int32_t)take_hostile(in), (int32_t)take_hostile(in));
    a.n_q = a.n_kv = 1;
    (void)ssa_check(&a, SSA_FULL);
    NEED(ssa_check(NULL, SSA_FULL) == SSA_ERR_NULL && ssa_attention(NULL, SSA_SPARSE, NULL) == SSA_ERR_NULL &&
             ssa_attention_batch(NULL, 0, SSA_FULL, NULL) == SSA_OK &&
             ssa_attention_batch(NULL, -1 - (int)take(in, 1), SSA_FULL, NULL) == SSA_ERR_BATCH &&
             ssa_workspace_size(NULL, 1, SSA_FULL, 1) == 0 && ssa_select_blocks(NULL, NULL) == SSA_ERR_NULL,
         "no call");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const targets[])(input *) = { fuzz_attention, fuzz_attention, fuzz_attention, fuzz_plan,
                                                fuzz_select, fuzz_append, fuzz_pool, fuzz_loss, fuzz_rest };
    input in = { data, size, 0 };
    in.seed = take(&in, 2);
    any_level(&in);
    big = impossible = 0;
    memory_left = (int64_t)1 << 26;
    TAKE_OF(&in, targets)(&in);
    give_back();
    return 0;
}

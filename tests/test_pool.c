/* test_pool.c - pooled keys kept beside a cache: however they came to be, they are the same bits */
#include "oracle.h"

typedef struct { ssa_pool p; void *memory; size_t size; } pool;

static ssa_status pool_make(pool *x, int H, int D, int B, int64_t max, ssa_type type, int misalign)
{
    x->size = ssa_pool_size(H, D, B, max, type);
    x->memory = xalloc((int64_t)x->size + 64, 1);
    memset(x->memory, 0xA5, x->size + 64);
    return ssa_pool_init(&x->p, H, D, B, max, type, (char *)x->memory + misalign, x->size);
}
static int canary_ok(const pool *x, int misalign)
{
    const unsigned char *m = x->memory;
    int ok = 1;
    for (int i = 0; i < 64; i++) ok &= i < misalign ? m[i] == 0xA5 : m[x->size + (size_t)i] == 0xA5;
    return ok;
}

/* The same tokens, the same finished blocks, the same open block. */
static int same_pool(const ssa_pool *a, const ssa_pool *b)
{
    if (a->n_tokens != b->n_tokens || a->type != b->type || a->block_size != b->block_size) return 0;
    int64_t nb = a->n_tokens / a->block_size, es = type_size(a->type);
    int same = 1;
    for (int h = 0; h < a->n_kv_heads; h++)
        same &= !memcmp((char *)a->pooled + h * a->max_blocks * a->head_dim * es,
                        (char *)b->pooled + h * b->max_blocks * b->head_dim * es, (size_t)(nb * a->head_dim * es));
    if (a->n_tokens % a->block_size)
        same &= !memcmp(a->open_sum, b->open_sum, (size_t)(a->n_kv_heads * a->head_dim) * sizeof(float));
    return same;
}

static ssa_view view_from(const tensor *t, int64_t token)                /* the view of tokens token, token + 1, .. */
{
    ssa_view v = t->view;
    v.data = (char *)v.data + token * t->ts;
    return v;
}

typedef struct { int H, D, B, n; ssa_type tk, type; layout lay; } pool_case;

static void check_pool(const pool_case *c, rng *r)
{
    char text[160];
    snprintf(text, sizeof text, "heads %d dim %d B %d tokens %d keys %s pool %s layout %d", c->H, c->D, c->B, c->n,
             type_name(c->tk), type_name(c->type), (int)c->lay);
    tensor k;
    tensor_make(&k, c->tk, c->n, c->H, c->D, c->lay);
    tensor_fill(&k, 5, 1);
    pool whole, slices, fresh;
    two_x means = { 0 };
    int max = c->n + 3, offset = rng_int(r, 0, 7);
    FOR_LEVELS(l) {
        CHECK(pool_make(&whole, c->H, c->D, c->B, max, c->type, 0) == SSA_OK, "init: %s", text);
        CHECK(pool_make(&slices, c->H, c->D, c->B, max, c->type, offset) == SSA_OK, "init: %s", text);
        CHECK(whole.p.n_tokens == 0 && whole.p.max_tokens == max && whole.p.max_blocks >= max / c->B
                  && whole.p.n_kv_heads == c->H && whole.p.head_dim == c->D && whole.p.block_size == c->B
                  && whole.p.type == c->type,
              "fields: %s", text);
        CHECK(ssa_pool_append(&whole.p, &k.view, c->n) == SSA_OK && whole.p.n_tokens == c->n, "append: %s", text);
        int ok = 1;
        for (int at = 0, n; at < c->n; at += n) {
            n = rng_int(r, 0, 3) ? rng_int(r, 0, 2 * c->B) : 1;
            if (n > c->n - at) n = c->n - at;
            ssa_view v = view_from(&k, at);
            ok &= ssa_pool_append(&slices.p, &v, n) == SSA_OK;
        }
        CHECK(ok && same_pool(&whole.p, &slices.p), "slices give the bits of one append: %s", text);
        CHECK(canary_ok(&whole, 0) && canary_ok(&slices, offset), "memory beyond ssa_pool_size is untouched: %s", text);

        int64_t nb = c->n / c->B;                                        /* the means themselves */
        for (int h = 0; h < c->H; h++)
            for (int64_t b = 0; b < nb; b++)
                for (int d = 0; d < c->D; d++) {
                    double sum = 0;
                    float naive = 0;
                    for (int t = 0; t < c->B; t++) {
                        float x = k.val[((b * c->B + t) * c->H + h) * c->D + d];
                        sum += (double)x;
                        naive += x;
                    }
                    two_x_base(&means, sum / c->B, (double)(naive / (float)c->B));
                    two_x_ours(&means, l, sum / c->B, (double)type_get(c->type, (char *)whole.p.pooled
                               + ((h * whole.p.max_blocks + b) * c->D + d) * type_size(c->type)));
                }

        int truncated = 1, again = 1, dropped = 1; /* every offset; the pool grows back afterwards */
        CHECK(pool_make(&fresh, c->H, c->D, c->B, max, c->type, 0) == SSA_OK, "init: %s", text);
        for (int n = 0; n <= c->n; n++) {
            ssa_view rest = view_from(&k, n), start = k.view;
            if (n) {
                ssa_view one = view_from(&k, n - 1);
                ssa_pool_append(&fresh.p, &one, 1);
            }
            truncated &= ssa_pool_truncate(&slices.p, &start, n) == SSA_OK && same_pool(&slices.p, &fresh.p);
            again &= ssa_pool_append(&slices.p, &rest, c->n - n) == SSA_OK && same_pool(&slices.p, &whole.p);
        }
        CHECK(truncated, "truncate gives the bits of fresh appends: %s", text);
        CHECK(again, "append after truncate: %s", text);
        CHECK(same_pool(&fresh.p, &whole.p), "token by token: %s", text);
        free(fresh.memory);
        for (int n = 0; n <= c->n; n++) {
            pool one;
            ssa_view rest = view_from(&k, n);
            if (pool_make(&fresh, c->H, c->D, c->B, max, c->type, 0)
                || pool_make(&one, c->H, c->D, c->B, max, c->type, offset))
                break;
            ssa_pool_append(&fresh.p, &rest, c->n - n);
            ssa_pool_append(&one.p, &k.view, c->n);
            dropped &= ssa_pool_drop_front(&one.p, &rest, n) == SSA_OK && same_pool(&one.p, &fresh.p);
            if (n) { /* room for what was dropped; goes on as a fresh one */
                dropped &= ssa_pool_append(&one.p, &k.view, n) == SSA_OK;
                ssa_pool_append(&fresh.p, &k.view, n);
                dropped &= same_pool(&one.p, &fresh.p);
            }
            dropped &= canary_ok(&one, offset);
            free(fresh.memory); free(one.memory);
        }
        CHECK(dropped, "drop_front gives the bits of a fresh pool: %s", text);
        free(whole.memory); free(slices.memory);
    }
    two_x_check(&means, c->type, "means", text, __FILE__, __LINE__);
    tensor_free(&k);
}

/* A sparse decode token by token, with a pool kept up and without: the same blocks and, for an f32 pool, the same bits;
 * and what a prefill of all queries gives, by the 2x rule. With a bf16 pool the blocks are the oracle's on the rounded
 * pooled keys. */
static void check_decode(ssa_type tk, ssa_type type, ssa_select select, int B, int top_k, int HQ, int H, int D)
{
    shape s = { .name = "decode with pool", .HQ = HQ, .H = H, .D = D, .n_q = 150, .n_kv = 150, .q_pos = -1, .tk = tk,
                .tv = tk, .B = B, .top_k = top_k, .select = select, .seed = 33 };
    two_x out = { 0 }, lse = { 0 };
    o_result r = { 0 };
    prob p;
    pool x;
    int64_t list = (int64_t)H * top_k, nb = s.n_kv / B;
    double *pooled = xalloc(nb * H * D, sizeof *pooled);
    prob_make(&p, &s);
    const char *text = shape_text(&p.s);
    int32_t *blocks = xalloc(p.n_blocks, sizeof *blocks);
    FOR_LEVELS(l) {
        int ok = 1, same_blocks = 1, same_bits = 1;
        CHECK(pool_make(&x, H, D, B, s.n_kv, type, 0) == SSA_OK, "init: %s", text);
        prob_clear(&p);
        for (int i = 0; i < s.n_q; i++) {
            ssa_attn a = p.a;
            ssa_view key = view_from(&p.k, i);
            unsigned char *row = (unsigned char *)p.o.view.data + i * p.o.ts;
            ok &= ssa_pool_append(&x.p, &key, 1) == SSA_OK;
            a.n_q = 1; a.n_kv = i + 1;
            a.q.data = (char *)p.q.view.data + i * p.q.ts;
            a.out.data = row;
            a.gate = p.gate + i * HQ; a.lse = p.lse + i * HQ; a.blocks = p.blocks + i * list;
            ok &= ssa_attention(&a, SSA_SPARSE, NULL) == SSA_OK;
            uint64_t chosen = bytes_hash(a.blocks, list * 4, 1),
                     bits = bytes_hash(row, p.o.ts, bytes_hash(a.lse, HQ * 4, chosen));
            memset(row, 0, (size_t)p.o.ts);
            a.pool = &x.p;
            ok &= ssa_attention(&a, SSA_SPARSE, NULL) == SSA_OK;
            same_blocks &= chosen == bytes_hash(a.blocks, list * 4, 1);
            same_bits &= bits == bytes_hash(row, p.o.ts, bytes_hash(a.lse, HQ * 4, chosen));
        }
        CHECK(ok, "status: %s", text);
        if (type == SSA_F32)
            CHECK(same_blocks && same_bits, "with a pool = without (blocks %d, bits %d): %s", same_blocks, same_bits,
                  text);
        for (int64_t e = 0; e < nb * H * D; e++)                         /* [H][max_blocks][D] -> [H][nb][D] */
            pooled[e] = (double)type_get(type, (char *)x.p.pooled
                                         + (e / (nb * D) * x.p.max_blocks * D + e % (nb * D)) * type_size(type));
        o_check_blocks(&p, pooled, 0, text);
        if (r.out) o_result_free(&r);
        o_solve(&p, p.blocks, &r, &out, &lse);
        o_compare(&p, &r, l, &out, &lse);
        memcpy(blocks, p.blocks, (size_t)p.n_blocks * sizeof *blocks);

        ssa_attn a = p.a; /* the prefill, same pool: it holds all tokens */
        a.blocks = p.blocks; a.pool = &x.p;
        prob_clear(&p);
        CHECK(ssa_attention(&a, SSA_SPARSE, NULL) == SSA_OK, "prefill: %s", text);
        o_check_blocks(&p, pooled, 0, text);
        if (memcmp(blocks, p.blocks, (size_t)p.n_blocks * sizeof *blocks)) {
            o_result_free(&r);
            o_solve(&p, p.blocks, &r, &out, &lse);
        }
        o_compare(&p, &r, l, &out, &lse);
        free(x.memory);
    }
    two_x_check(&out, SSA_F32, "out, one by one and prefill", text, __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "lse, one by one and prefill", text, __FILE__, __LINE__);
    o_result_free(&r);
    free(pooled); free(blocks);
    prob_free(&p);
}

static void check_sizes(void)
{
    static const struct { int H, D, B; int64_t max; ssa_type type; int valid; } c[] = { { 1, 64, 16, 1000, SSA_F32, 1 },
        { 2, 64, 16, 1000, SSA_BF16, 1 }, { 1, 1, 1, 1, SSA_F32, 1 }, { 8, 1024, 4096, 1 << 20, SSA_F32, 1 },
        { 0, 64, 16, 1000, SSA_F32, 0 }, { -1, 64, 16, 1000, SSA_F32, 0 }, { 1, 0, 16, 1000, SSA_F32, 0 },
        { 1, 1025, 16, 1000, SSA_F32, 0 }, { 1, 64, 0, 1000, SSA_F32, 0 }, { 1, 64, 4097, 1000, SSA_F32, 0 },
        { 1, 64, 16, -1, SSA_F32, 0 }, { 1, 64, 16, 1000, SSA_F16, 0 }, { 1, 64, 16, 1000, SSA_Q8_0, 0 },
        { 1, 64, 16, 1000, (ssa_type)77, 0 }, { 1, 64, 1, INT64_MAX, SSA_F32, 0 },
        { INT32_MAX, 1024, 1, INT64_MAX / 4, SSA_BF16, 0 } };
    for (int i = 0; i < COUNT(c); i++) {
        size_t size = ssa_pool_size(c[i].H, c[i].D, c[i].B, c[i].max, c[i].type);
        CHECK(c[i].valid ? size > 0 : size == 0, "ssa_pool_size case %d: %llu", i, (unsigned long long)size);
        if (!c[i].valid) continue;
        double least = (double)c[i].H * c[i].D * ((double)(c[i].max / c[i].B) * type_size(c[i].type) + 4);
        CHECK((double)size >= least && (double)size < least * 1.2 + 8192 * c[i].H,
              "size of case %d: %llu, content %.0f", i, (unsigned long long)size, least);
    }
    CHECK(ssa_pool_size(4, 64, 16, 4096, SSA_BF16) < ssa_pool_size(4, 64, 16, 4096, SSA_F32), "bf16 takes less");
}

void test_pool(void)
{
    static const pool_case cases[] = { { 2, 64, 16, 83, SSA_F32, SSA_F32, LAY_ZERO },
         { 2, 64, 16, 83, SSA_BF16, SSA_BF16, LAY_ZERO },  { 1, 33, 7, 61, SSA_F16, SSA_F32, LAY_ODD },
        { 3, 5, 1, 20, SSA_F32, SSA_BF16, LAY_PAD },    { 1, 128, 32, 97, SSA_BF16, SSA_F32, LAY_HEAD },
         { 4, 80, 2, 40, SSA_F16, SSA_BF16, LAY_ODD }, { 2, 1, 16, 70, SSA_F32, SSA_F32, LAY_TOKEN },
         { 2, 31, 3, 50, SSA_BF16, SSA_F32, LAY_ODD },     { 1, 300, 100, 203, SSA_F32, SSA_BF16, LAY_HEAD },
        { 1, 17, 128, 200, SSA_BF16, SSA_F32, LAY_ODD } };
    rng r = { 4711, 0 };
    for (int i = 0; i < COUNT(cases); i++) check_pool(&cases[i], &r);
    static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };
    for (int t = 0; t < 3; t++)
        for (int b = 0; b < 2; b++) {
            check_decode(types[t], b ? SSA_BF16 : SSA_F32, SSA_SELECT_TOPK, 16, 4, 4, 2, 32);
            check_decode(types[t], b ? SSA_BF16 : SSA_F32, SSA_SELECT_REFERENCE, 4, 4, 16, 1, 40);
            check_decode(types[t], b ? SSA_BF16 : SSA_F32, SSA_SELECT_TOPK, 7, 5, 3, 1, 33);
        }
    check_sizes();
}

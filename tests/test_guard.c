/* test_guard.c - every buffer of a call ends exactly at a page that traps, or starts right after one: no byte outside
 * is touched */
#include "oracle.h"

enum { Q, K, V, OUT, GATE, LSE, BLOCKS, POOL, WS, BUFFERS };
static guard g[BUFFERS];

/* Places all buffers of the problem at the end (or the start) of guarded memory and runs. The result must be that of
 * ordinary memory. */
static void check_guarded(const shape *s, ssa_mode mode, ssa_type pool_type)
{
    prob p;
    ssa_pool pool;
    prob_make(&p, s);
    size_t pool_size = ssa_pool_size(s->H, s->D, s->B ? s->B : 16, s->n_kv, pool_type);
    int64_t out_bytes = p.o.span;
    p.a.blocks = p.blocks;
    FOR_LEVELS(l) {
        prob_clear(&p);
        CHECK(ssa_attention(&p.a, mode, NULL) == SSA_OK, "ordinary memory: %s", shape_text(&p.s));
        uint64_t want = bytes_hash(p.o.view.data, out_bytes,
                                   bytes_hash(p.lse, p.n_lse * 4, bytes_hash(p.blocks, p.n_blocks * 4, 1)));
        for (int variant = 0; variant < 4; variant++) { /* at the end or the start; pooled in the call or beside it */
            int end = variant & 1, pooled = variant >> 1;
            if (pooled && mode == SSA_FULL) continue;
            ssa_attn a = p.a;
            tensor *t[4] = { &p.q, &p.k, &p.v, &p.o };
            ssa_view *v[4] = { &a.q, &a.k, &a.v, &a.out };
            for (int i = 0; i < 4; i++) {
                v[i]->data = guard_at(&g[Q + i], t[i]->span, end);
                if (t[i]->span) memcpy(v[i]->data, t[i]->view.data, (size_t)t[i]->span);
            }
            memset(a.out.data, 0xA5, (size_t)out_bytes);
            float *gate = guard_at(&g[GATE], p.n_lse * 4, end);
            memcpy(gate, p.gate, (size_t)p.n_lse * 4);
            a.gate = gate;
            a.lse = guard_at(&g[LSE], p.n_lse * 4, end);
            a.blocks = guard_at(&g[BLOCKS], p.n_blocks * 4, end);
            memset(a.blocks, 0xA5, (size_t)p.n_blocks * 4);
            if (pooled) {
                CHECK(ssa_pool_init(&pool, s->H, s->D, p.s.B, s->n_kv, pool_type,
                                    guard_at(&g[POOL], (int64_t)pool_size, end), pool_size)
                              == SSA_OK
                          && ssa_pool_append(&pool, &a.k, s->n_kv) == SSA_OK,
                      "pool: %s", shape_text(&p.s));
                a.pool = &pool;
            }
            ssa_exec x = { 1 + variant % 2, NULL, NULL, NULL, 0 };
            x.workspace_size = ssa_workspace_size(&a, 1, mode, x.n_threads);
            x.workspace = guard_at(&g[WS], (int64_t)x.workspace_size, end);
            CHECK(ssa_attention(&a, mode, &x) == SSA_OK, "guarded: %s", shape_text(&p.s));
            uint64_t got =
                bytes_hash(a.out.data, out_bytes,
                           bytes_hash(a.lse, p.n_lse * 4, bytes_hash(mode ? a.blocks : p.blocks, p.n_blocks * 4, 1)));
            CHECK(got == want || (pooled && pool_type != SSA_F32), "the same bits in guarded memory (%d): %s", variant,
                  shape_text(&p.s));
            if (pooled) {
                CHECK(ssa_pool_truncate(&pool, &a.k, s->n_kv / 2) == SSA_OK, "truncate: %s", shape_text(&p.s));
                ssa_view rest = a.k;
                int64_t drop = s->n_kv / 4;
                rest.data = (char *)a.k.data + drop * p.k.ts;
                CHECK(ssa_pool_drop_front(&pool, &rest, drop) == SSA_OK, "drop_front: %s", shape_text(&p.s));
            }
        }
    }
    prob_free(&p);
}

static void check_small_functions(void)                                  /* merge, sparsity and loss at the edge */
{
    FOR_LEVELS(l)
        for (int n = 1; n <= 70; n++)
            for (int end = 0; end < 2; end++) {
                int64_t bytes = 4 * n, all = 3 * bytes;
                float *oa = guard_at(&g[Q], all, end), *ob = guard_at(&g[K], all, end), *la = guard_at(&g[V], 12, end),
                      *lb = guard_at(&g[OUT], 12, end);
                for (int i = 0; i < 3 * n; i++) { oa[i] = (float)i; ob[i] = (float)-i; }
                for (int i = 0; i < 3; i++) { la[i] = (float)i; lb[i] = 1; }
                ssa_merge(oa, la, ob, lb, 3, n);
                ssa_attention_sparsity(oa, ob, 3 * n, guard_at(&g[GATE], all, end));
                ssa_alignment loss;
                for (int t = SSA_F32; t <= SSA_BF16; t++) {
                    tensor shape_of;
                    tensor_shape(&shape_of, (ssa_type)t, 3, 2, n, LAY_ODD);
                    ssa_view v[4];
                    for (int i = 0; i < 4; i++) {
                        v[i] = shape_of.view;
                        v[i].data = guard_at(&g[Q + i], shape_of.span, end);
                        memset(v[i].data, 0x21 + i, (size_t)shape_of.span);
                    }
                    CHECK(ssa_alignment_loss(&v[0], &v[1], 3, 2, n, 1, &loss, 1, &v[2], &v[3]) == SSA_OK,
                          "loss of rows of %d", n);
                }
            }
}

void test_guard(void)
{
    static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };
    static const int dims[] = { 72, 79, 80, 95, 96, 97, 100, 127, 128, 129, 160, 192, 255, 256, 300, 576, 1024 };
    for (int i = 0; i < BUFFERS; i++) guard_make(&g[i], 1 << 22);
    if (!g[0].traps) SKIP("guard", "no traps here: reads outside a buffer show only in results");
    for (int t = 0; t < 3; t++)
        for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
            for (int d = 1; d <= 70 + COUNT(dims); d++) {                /* every tail of a row */
                int dim = d <= 70 ? d : dims[d - 71];
                static const layout lays[] = { LAY_ZERO, LAY_ODD, LAY_HEAD };
                for (int y = 0; y < (d <= 70 ? 3 : 1); y++) {
                    shape s = { .name = "guard, dims", .HQ = 2 + 2 * (d % 3), .H = 2, .D = dim,
                                .DV = d % 4 == 3 ? 71 - d % 70 : dim, .n_q = 1 + d % 4, .n_kv = 20 + d % 17,
                                .q_pos = -1, .tq = types[(t + d / 7 % 2) % 3], .tk = types[t], .tv = types[t],
                                .to = types[(t + d / 5 % 2) % 3], .lay = lays[(d + y) % 3],
                                .B = 1 + d % 9, .top_k = 3 };
                    check_guarded(&s, (ssa_mode)mode, d & 1 ? SSA_F32 : SSA_BF16);
                }
            }
            for (int n = 1; n <= 132; n += n < 100 ? 1 : 7) { /* every tail of the cache, one query or some */
                shape s = { .name = "guard, keys", .HQ = n % 5 == 4 ? 16 : 3, .H = n % 5 == 4 ? 1 : 3, .D = 16,
                            .DV = 24, .n_q = n % 2 ? 1 : n < 20 ? n : 20, .n_kv = n, .q_pos = -1, .tk = types[t],
                            .tv = types[(t + n % 2) % 3], .lay = n % 3 ? LAY_ZERO : LAY_ODD, .B = 4, .top_k = 4,
                            .select = n % 2 ? SSA_SELECT_REFERENCE : SSA_SELECT_TOPK };
                check_guarded(&s, (ssa_mode)mode, n % 4 ? SSA_F32 : SSA_BF16);
            }
        }
    for (int i = 0; i < 36; i++) {                                       /* few rows of a unit, in place or not */
        static const int keys[] = { 32, 33, 63, 64, 65, 95, 96, 127, 128 }, wide[] = { 64, 40, 64, 32 },
                         values[] = { 64, 64, 40, 128 };
        for (int y = 0; y < 2; y++) {
            shape s = { .name = "guard, few", .HQ = 16, .H = 1, .D = wide[i % 4], .DV = values[i % 4], .n_q = 1,
                        .n_kv = keys[i / 4], .q_pos = -1, .tq = SSA_BF16, .tk = SSA_BF16, .tv = SSA_BF16,
                        .lay = y ? LAY_PAD : LAY_ZERO };
            check_guarded(&s, SSA_FULL, SSA_F32);
        }
    }
    shape later = { .name = "guard, keys not seen", .HQ = 4, .H = 2, .D = 40, .n_q = 3, .n_kv = 60, .q_pos = 20, .B = 8,
                    .top_k = 2 };
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) check_guarded(&later, (ssa_mode)mode, SSA_F32);
    check_small_functions();
    for (int i = 0; i < BUFFERS; i++) guard_free(&g[i]);
}

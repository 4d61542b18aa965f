/* test_checked.c - a private copy of the library, with the options that change what calls return */
#define SSA_STATIC 1
#define SSA_CHECKED 1
#define SSA_NO_MALLOC 1
#define SSA_IMPLEMENTATION
#include "oracle.h"

static void check_checked(const shape *s)
{
    prob p;
    prob_make(&p, s);
    int row = p.s.n_q * (p.s.per_head ? p.s.HQ : p.s.H) - 1, K = p.s.top_k, cur = (int)((p.q0 + p.s.n_q - 1) / p.s.B);
    int32_t *last = p.blocks + (int64_t)row * K;
    static unsigned char ws[1 << 18];
    ssa_exec x = { 2, NULL, NULL, ws, sizeof ws };
    ssa_plan plan;
    p.a.blocks = p.blocks;
    for (int64_t e = 0; e < p.n_blocks; e++) p.blocks[e] = -1;
    for (int64_t r = 0; r <= row; r++) p.blocks[r * K + r % K] = 0;
    CHECK(ssa_check(&p.a, SSA_SPARSE) == SSA_OK && ssa_attention(&p.a, SSA_SPARSE, &x) == SSA_OK,
          "valid lists, holes anywhere");
    last[0] = cur; last[1] = -1; last[2] = 0;
    CHECK(ssa_check(&p.a, SSA_SPARSE) == SSA_OK && ssa_attention(&p.a, SSA_SPARSE, &x) == SSA_OK, "any order");
    const int32_t wrong[] = { 0, cur, cur + 1, -2, INT32_MIN, INT32_MAX };
    for (int i = 0; i < COUNT(wrong); i++) {
        last[1] = wrong[i];
        prob_clear(&p);
        uint64_t clean = prob_hash(&p);
        CHECK(ssa_check(&p.a, SSA_SPARSE) == SSA_ERR_BLOCKS, "block %d", wrong[i]);
        CHECK(ssa_attention(&p.a, SSA_SPARSE, &x) == SSA_ERR_BLOCKS && prob_hash(&p) == clean, "block %d", wrong[i]);
        CHECK(ssa_attention_batch(&p.a, 1, SSA_SPARSE, &x) == SSA_ERR_BLOCKS && prob_hash(&p) == clean, "block %d",
              wrong[i]);
        CHECK(ssa_plan_make(&plan, &p.a, 1, SSA_SPARSE, 1, ws, sizeof ws) == SSA_ERR_BLOCKS && prob_hash(&p) == clean,
              "block %d", wrong[i]);
        CHECK(ssa_check(&p.a, SSA_FULL) == SSA_OK, "full attention reads no blocks");
    }
    prob_free(&p);
}

/* Without malloc a call needs its workspace, and with one computes as ever. */
static void check_no_malloc(const shape *s, ssa_mode mode)
{
    two_x out = { 0 }, lse = { 0 };
    prob p;
    prob_make(&p, s);
    p.a.blocks = p.blocks;
    for (int i = 0; i < level_count(); i++) {
        level_use(i);
        CHECK(ssa_isa_set(level_at(i)) == level_at(i), "the same levels in every build");
        prob_clear(&p);
        uint64_t clean = prob_hash(&p);
        CHECK(ssa_attention(&p.a, mode, NULL) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean, "no exec");
        ssa_exec x = { 1, NULL, NULL, NULL, 0 };
        CHECK(ssa_attention(&p.a, mode, &x) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean, "no workspace");
        CHECK(ssa_attention_batch(&p.a, 1, mode, &x) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean, "no workspace");
        if (mode == SSA_SPARSE)
            CHECK(ssa_select_blocks(&p.a, &x) == SSA_ERR_WORKSPACE && prob_hash(&p) == clean, "no workspace");
        float entropy[400] = { 0 };
        ssa_diagnosis d = { entropy, NULL, NULL, NULL };
        CHECK(ssa_diagnose(&p.a, &d, NULL) == SSA_ERR_WORKSPACE && ssa_diagnose(&p.a, &d, &x) == SSA_ERR_WORKSPACE
                  && prob_hash(&p) == clean && entropy[0] == 0, "a diagnosis without workspace");
        x.workspace_size = ssa_workspace_size(&p.a, 1, mode, 1);
        x.workspace = xalloc((int64_t)x.workspace_size, 1);
        CHECK(ssa_attention(&p.a, mode, &x) == SSA_OK, "with its workspace");
        free(x.workspace);
        o_result r;
        o_solve(&p, mode == SSA_SPARSE ? p.blocks : NULL, &r, &out, &lse);
        o_compare(&p, &r, i, &out, &lse);
        o_result_free(&r);
    }
    level_restore();
    two_x_check(&out, SSA_F32, "out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "lse", shape_text(&p.s), __FILE__, __LINE__);
    prob_free(&p);
}

/* Page numbers are looked at, all that n_kv tokens have. */
static void check_page_numbers(void)
{
    shape s = { .name = "pages", .HQ = 2, .H = 2, .D = 16, .n_q = 2, .n_kv = 40, .q_pos = 20, .B = 8, .top_k = 2 };
    int32_t pages[3] = { 0, 1, 2 };
    static unsigned char ws[1 << 18];
    ssa_exec x = { 1, NULL, NULL, ws, sizeof ws };
    prob p;
    prob_make(&p, &s);
    p.a.pages = pages; p.a.page_tokens = 16;
    p.a.n_kv = 32;
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++)
        for (int i = 0; i < 3; i++) {
            static const int32_t wrong[] = { -1, INT32_MIN };
            for (int w = 0; w < 2; w++) {
                ssa_status want = i < 2 ? SSA_ERR_PAGES : SSA_OK;
                pages[i] = wrong[w];
                prob_clear(&p);
                uint64_t clean = prob_hash(&p);
                CHECK(ssa_check(&p.a, (ssa_mode)mode) == want, "page %d is %d", i, wrong[w]);
                CHECK(ssa_attention(&p.a, (ssa_mode)mode, &x) == want && (prob_hash(&p) == clean) == (i < 2),
                      "page %d is %d", i, wrong[w]);
                ssa_view row = p.q.view;
                int64_t at = i == 2 ? 30 : 16 * i;
                uint64_t before = bytes_hash(p.k.mem, p.k.mem_bytes, 1);
                CHECK(ssa_kv_append(&p.a, at, &row, NULL, 2, NULL) == want
                          && (bytes_hash(p.k.mem, p.k.mem_bytes, 1) == before) == (i < 2), "append, page %d", i);
                pages[i] = i;
                tensor_store(&p.k);
            }
        }
    prob_free(&p);
}

void test_checked(void)
{
    shape s = { .name = "checked", .HQ = 4, .H = 2, .D = 16, .n_q = 5, .n_kv = 90, .q_pos = -1, .B = 8, .top_k = 4,
                .select = SSA_SELECT_GIVEN };
    check_checked(&s);
    s.n_q = 1; s.HQ = 2; s.top_k = 3; s.B = 16;
    check_checked(&s);
    s.n_q = 5; s.HQ = 6; s.per_head = 1;
    check_checked(&s);
    s.HQ = 2; s.per_head = 0;
    check_page_numbers();
    s.select = SSA_SELECT_TOPK;
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
        s.n_q = 17;
        check_no_malloc(&s, (ssa_mode)mode);
        s.n_q = 40;
        check_no_malloc(&s, (ssa_mode)mode);
    }
}

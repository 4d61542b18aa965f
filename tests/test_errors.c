/* test_errors.c - every status through every entry point that can give it, and nothing written when it does */
#include "oracle.h"

#define MOST_STATUS (-35)
static char seen[1 - MOST_STATUS];                                       /* which statuses were provoked */
static int is(ssa_status got, ssa_status want)
{
    if (got <= 0 && got >= MOST_STATUS) seen[-got] = 1;
    return got == want;
}

/* ---- calls of attention ------------------------------------------------------------------------------------------ */
static prob good, bad; /* good stays valid; bad is changed one field at a time */
static const shape base_shape = { .name = "base", .HQ = 4, .H = 2, .D = 16, .n_q = 3, .n_kv = 40, .q_pos = -1, .B = 4,
    .top_k = 4 };

/* through: 1 the selection reads the field too, 0 it does not. or_: a second status that would also be right. */
static void refused(const ssa_attn *a, ssa_mode mode, ssa_status want, ssa_status or_, int through, const char *text)
{
    prob_clear(&good); prob_clear(&bad);
    uint64_t clean = prob_hash(&good) ^ prob_hash(&bad) * 3;
#define UNCHANGED (clean == (prob_hash(&good) ^ prob_hash(&bad) * 3))
    ssa_attn two[2] = { good.a, *a };
    ssa_plan plan, before;
    ssa_status s = ssa_check(a, mode);
    static unsigned char ws[1 << 16];
    ssa_exec x = { 2, NULL, NULL, ws, sizeof ws };
    memset(&plan, 0x77, sizeof plan); memset(&before, 0x77, sizeof before);
    CHECK(is(s, want) || s == or_, "ssa_check gives %d, not %d: %s", s, want, text);
    CHECK(ssa_attention(a, mode, NULL) == s && UNCHANGED, "ssa_attention: %s", text);
    CHECK(ssa_attention(a, mode, &x) == s && UNCHANGED, "ssa_attention with a workspace: %s", text);
    CHECK(ssa_attention_batch(two, 2, mode, NULL) == s && UNCHANGED, "ssa_attention_batch: %s", text);
    CHECK(ssa_attention_batch(a, 1, mode, &x) == s && UNCHANGED, "ssa_attention_batch of one: %s", text);
    CHECK(ssa_workspace_size(a, 1, mode, 1) == 0 && ssa_workspace_size(two, 2, mode, 3) == 0, "ssa_workspace_size: %s",
          text);
    CHECK(ssa_plan_make(&plan, two, 2, mode, 2, ws, sizeof ws) == s && UNCHANGED
              && !memcmp(&plan, &before, sizeof plan),
          "ssa_plan_make: %s", text);
    if (mode == SSA_SPARSE && through)
        CHECK(ssa_select_blocks(a, NULL) == s && UNCHANGED, "ssa_select_blocks: %s", text);
    float d_out[4 * 12], d_was[4 * 12];
    ssa_diagnosis d = { d_out, d_out + 12, d_out + 24, d_out + 36 };
    memset(d_out, 0x77, sizeof d_out); memset(d_was, 0x77, sizeof d_was);
    if (mode == SSA_SPARSE && !strstr(text, "a.out")) /* the one view it does not look at */
        CHECK(ssa_diagnose(a, &d, NULL) == s && ssa_diagnose(a, &d, &x) == s && UNCHANGED
                  && !memcmp(d_out, d_was, sizeof d_out), "ssa_diagnose: %s", text);
    ssa_grad g = { good.o.view, bad.q.view, bad.k.view, bad.v.view, NULL };
    CHECK(ssa_attention_backward(a, mode, &g, NULL) < 0 && UNCHANGED, "ssa_attention_backward: %s", text);
}
#undef UNCHANGED

static void accepted(const ssa_attn *a, ssa_mode mode, const char *text)
{
    CHECK(ssa_check(a, mode) == SSA_OK, "ssa_check: %s", text);
    CHECK(ssa_attention(a, mode, NULL) == SSA_OK, "ssa_attention: %s", text);
    CHECK(ssa_workspace_size(a, 1, mode, 1) > 0, "ssa_workspace_size: %s", text);
}

#define E2(mode, want, or_, through, change) \
    do { \
        ssa_attn a = bad.a; \
        change; \
        refused(&a, mode, want, or_, through, #change); \
    } while (0)
#define E(mode, want, change)  E2(mode, want, want, 1, change)           /* the selection refuses it too */
#define EA(mode, want, change) E2(mode, want, want, 0, change)           /* attention alone */
#define BOTH(want, change) do { E(SSA_FULL, want, change); E(SSA_SPARSE, want, change); } while (0)
#define BOTHA(want, change) do { EA(SSA_FULL, want, change); EA(SSA_SPARSE, want, change); } while (0)
#define OK(mode, change) do { ssa_attn a = bad.a; change; accepted(&a, mode, #change); } while (0)

/* Change i to a field of a sound pool, after which its fields no longer fit together. */
enum { BROKEN_POOLS = 14 };
static ssa_pool broken_pool(ssa_pool p, int i)
{
    switch (i) {
    case 0:  p.pooled = NULL; break;
    case 1:  p.open_sum = NULL; break;
    case 2:  p.n_tokens = -1; break;
    case 3:  p.n_tokens = INT64_MIN; break;
    case 4:  p.n_tokens = p.max_tokens + 1; break;
    case 5:  p.max_tokens = INT64_MAX; break;
    case 6:  p.max_tokens = INT64_MIN; break;
    case 7:  p.max_blocks++; break;
    case 8:  p.max_blocks = INT64_MAX; break;
    case 9:  p.max_blocks = 0; break;
    case 10: p.type = SSA_F16; break;
    case 11: p.type = (ssa_type)99; break;
    case 12: p.head_dim = SSA_MAX_DIM + 1; break;
    case 13: p.block_size = 0; break;
    }
    return p;
}

/* What the fields of the selection may not say, alone and together. Full attention reads none of them. */
static void check_selection(void)
{
    static const int32_t fits[4] = { 4, 1, 3, 2 }, zero[4] = { 4, 0, 1, 1 }, above[4] = { 1, 5, 1, 1 },
                         tail[4] = { 4, 3, 2, 5 };
#define S(want, change)     E(SSA_SPARSE, want, change)
#define GIVEN(want, change) EA(SSA_SPARSE, want, a.select = SSA_SELECT_GIVEN; change)
#define REFERENCE(want, change) S(want, a.select = SSA_SELECT_REFERENCE; change)
    memset(bad.blocks, 0xFF, (size_t)bad.n_blocks * sizeof *bad.blocks);
    S(SSA_ERR_SCORE, a.score = (ssa_score)2);
    S(SSA_ERR_SCORE, a.score = (ssa_score)-1);
    S(SSA_ERR_SCORE, a.select_per_head = 2);
    S(SSA_ERR_SCORE, a.select_per_head = -1);
    REFERENCE(SSA_ERR_SCORE, a.score = SSA_SCORE_DOT);
    GIVEN(SSA_ERR_SCORE, a.score = SSA_SCORE_DOT);
    S(SSA_ERR_KEEP, a.sink_blocks = -1);
    S(SSA_ERR_KEEP, a.local_blocks = INT32_MIN);
    S(SSA_ERR_KEEP, a.sink_blocks = -1; a.local_blocks = 1);
    S(SSA_ERR_KEEP, a.sink_blocks = 4);
    S(SSA_ERR_KEEP, a.local_blocks = 4);
    S(SSA_ERR_KEEP, a.sink_blocks = 2; a.local_blocks = 2);
    S(SSA_ERR_KEEP, a.sink_blocks = a.local_blocks = INT32_MAX);
    S(SSA_ERR_KEEP, a.budget = 12; a.sink_blocks = 3);
    S(SSA_ERR_KEEP, a.top_k_per_head = fits; a.sink_blocks = 1);
    REFERENCE(SSA_ERR_KEEP, a.sink_blocks = 1);
    REFERENCE(SSA_ERR_KEEP, a.local_blocks = 1);
    GIVEN(SSA_ERR_KEEP, a.sink_blocks = 1);
    GIVEN(SSA_ERR_KEEP, a.local_blocks = 1);
    S(SSA_ERR_TOP_P, a.top_p = -0.1f);
    S(SSA_ERR_TOP_P, a.top_p = 1.001f);
    S(SSA_ERR_TOP_P, a.top_p = NAN);
    S(SSA_ERR_TOP_P, a.top_p = INFINITY);
    S(SSA_ERR_TOP_P, a.top_p = -INFINITY);
    S(SSA_ERR_TOP_P, a.top_p = 0.5f; a.score = SSA_SCORE_DOT);
    S(SSA_ERR_TOP_P, a.top_p = 1; a.score = SSA_SCORE_DOT);
    REFERENCE(SSA_ERR_TOP_P, a.top_p = 0.5f);
    GIVEN(SSA_ERR_TOP_P, a.top_p = 0.5f);
    S(SSA_ERR_TOP_K, a.top_k_per_head = zero);
    S(SSA_ERR_TOP_K, a.top_k_per_head = above);
    S(SSA_ERR_TOP_K, a.top_k_per_head = tail; a.select_per_head = 1);    /* read as far as there are lists */
    S(SSA_ERR_TOP_K, a.top_k_per_head = fits; a.budget = 12);
    REFERENCE(SSA_ERR_TOP_K, a.top_k_per_head = zero);
    GIVEN(SSA_ERR_TOP_K, a.top_k_per_head = fits);
    S(SSA_ERR_BUDGET, a.budget = -1);
    S(SSA_ERR_BUDGET, a.budget = INT64_MIN);
    S(SSA_ERR_BUDGET, a.min_context = -1);
    S(SSA_ERR_BUDGET, a.min_context = INT64_MIN);
    REFERENCE(SSA_ERR_REFERENCE, a.budget = 20);
    E(SSA_SPARSE, SSA_ERR_TOP_K, a.top_k = 0; a.min_context = 1000);     /* checked as what it is, run as a full one */
    E(SSA_SPARSE, SSA_ERR_CAUSAL, a.causal = 0; a.min_context = 1000);
    EA(SSA_SPARSE, SSA_ERR_BLOCKS, a.select = SSA_SELECT_GIVEN; a.blocks = NULL; a.min_context = 1000);
    BOTH(SSA_ERR_HEADS, a.n_heads = 5);                                  /* groups of 3 and 2 heads */
    CHECK(strstr(ssa_status_string(SSA_ERR_HEADS), "multiple"), "what is wrong with groups of different sizes is said");
#undef S
#undef GIVEN
#undef REFERENCE
    int32_t *wide = xalloc(3 * 4 * 8, sizeof *wide);
    OK(SSA_SPARSE, a.blocks = wide; a.select_per_head = 1; a.score = SSA_SCORE_DOT; a.top_k_per_head = fits);
    OK(SSA_SPARSE, a.top_k_per_head = tail; a.top_p = -0.0f);
    OK(SSA_SPARSE, a.blocks = wide; a.select = SSA_SELECT_GIVEN; a.select_per_head = 1; a.budget = 32);
    OK(SSA_SPARSE, a.select = SSA_SELECT_REFERENCE; a.top_k_per_head = fits; a.budget = 19);
    OK(SSA_SPARSE, a.sink_blocks = 1; a.local_blocks = 2; a.top_p = 1);
    OK(SSA_SPARSE, a.blocks = NULL; a.top_k = 0; a.budget = INT64_MAX; a.min_context = INT64_MAX);
    OK(SSA_FULL, a.score = (ssa_score)9; a.select_per_head = 7; a.sink_blocks = -1; a.top_p = NAN; a.budget = -1;
       a.min_context = -1; a.top_k_per_head = zero);
    free(wide);
}

static void check_calls(void)
{
    static const float one[4] = { 1, 1, 1, 1 };
    static const int32_t zero[4] = { 0, 0, 0, 0 };
    const int64_t row = 16 * 4, huge = INT64_MAX;
    ssa_pool p;
    memset(&p, 0, sizeof p);

    BOTH(SSA_ERR_NULL, a.q.data = NULL);
    BOTH(SSA_ERR_NULL, a.k.data = NULL);
    BOTHA(SSA_ERR_NULL, a.v.data = NULL);
    BOTHA(SSA_ERR_NULL, a.out.data = NULL);
    EA((ssa_mode)2, SSA_ERR_MODE, (void)0);
    EA((ssa_mode)-1, SSA_ERR_MODE, (void)0);
    EA((ssa_mode)1000, SSA_ERR_MODE, (void)0);
    BOTH(SSA_ERR_HEADS, a.n_heads = 0);
    BOTH(SSA_ERR_HEADS, a.n_heads = -4);
    BOTH(SSA_ERR_HEADS, a.n_heads = INT32_MIN);
    BOTH(SSA_ERR_HEADS, a.n_kv_heads = 0);
    BOTH(SSA_ERR_HEADS, a.n_kv_heads = -2);
    BOTH(SSA_ERR_HEADS, a.n_kv_heads = 3);
    BOTH(SSA_ERR_HEADS, a.n_kv_heads = 8);
    BOTH(SSA_ERR_HEAD_DIM, a.head_dim = 0);
    BOTH(SSA_ERR_HEAD_DIM, a.head_dim = -16);
    BOTH(SSA_ERR_HEAD_DIM, a.head_dim = SSA_MAX_DIM + 1);
    BOTH(SSA_ERR_HEAD_DIM, a.head_dim = INT32_MAX);
    BOTHA(SSA_ERR_VALUE_DIM, a.value_dim = 0);
    BOTHA(SSA_ERR_VALUE_DIM, a.value_dim = -16);
    BOTHA(SSA_ERR_VALUE_DIM, a.value_dim = SSA_MAX_DIM + 1);
    BOTHA(SSA_ERR_VALUE_DIM, a.value_dim = INT32_MAX);
    BOTH(SSA_ERR_LENGTH, a.n_q = -1);
    BOTH(SSA_ERR_LENGTH, a.n_q = INT64_MIN);
    BOTH(SSA_ERR_LENGTH, a.n_kv = -1);
    BOTH(SSA_ERR_LENGTH, a.n_kv = INT64_MIN);
    E(SSA_SPARSE, SSA_ERR_POSITION, a.q_pos = 38);                       /* the last query at 40, keys 0..39 */
    E(SSA_SPARSE, SSA_ERR_POSITION, a.n_kv = 0; a.q_pos = 0);
    E(SSA_SPARSE, SSA_ERR_POSITION, a.q_pos = huge - 2);
    BOTH(SSA_ERR_POSITION, a.q_pos = huge);
    BOTH(SSA_ERR_POSITION, a.q_pos = (1LL << 61) + 1);
    OK(SSA_FULL, a.q_pos = (1LL << 61) - 64);
    OK(SSA_FULL, a.q_pos = 38);
    static const int odd_types[] = { 4, 77, -1, INT32_MAX };
    BOTH(SSA_ERR_TYPE, a.q.type = SSA_Q8_0);
    BOTHA(SSA_ERR_TYPE, a.out.type = SSA_Q8_0);
    BOTH(SSA_ERR_HEAD_DIM, a.k.type = SSA_Q8_0);                         /* blocks of 32 */
    BOTHA(SSA_ERR_VALUE_DIM, a.v.type = SSA_Q8_0);
    BOTHA(SSA_ERR_VALUE_DIM, a.v.type = SSA_Q8_0; a.value_dim = 48);
    BOTH(SSA_ERR_OVERFLOW, a.k.type = SSA_Q8_0; a.head_dim = 32; a.n_kv = huge / 32);
    for (int t = 0; t < COUNT(odd_types); t++) {
        BOTH(SSA_ERR_TYPE, a.q.type = (ssa_type)odd_types[t]);
        BOTH(SSA_ERR_TYPE, a.k.type = (ssa_type)odd_types[t]);
        BOTHA(SSA_ERR_TYPE, a.v.type = (ssa_type)odd_types[t]);
        BOTHA(SSA_ERR_TYPE, a.out.type = (ssa_type)odd_types[t]);
    }
    BOTH(SSA_ERR_STRIDE, a.q.token_stride = -1);
    BOTH(SSA_ERR_STRIDE, a.q.head_stride = -64);
    BOTH(SSA_ERR_STRIDE, a.k.token_stride = -256);
    BOTH(SSA_ERR_STRIDE, a.k.head_stride = INT64_MIN);
    BOTHA(SSA_ERR_STRIDE, a.v.token_stride = INT64_MIN);
    BOTHA(SSA_ERR_STRIDE, a.v.head_stride = -1);
    BOTHA(SSA_ERR_STRIDE, a.out.token_stride = -1);
    BOTHA(SSA_ERR_STRIDE, a.out.head_stride = -1);
    BOTHA(SSA_ERR_STRIDE, a.out.head_stride = row - 1);
    BOTHA(SSA_ERR_STRIDE, a.out.token_stride = 4 * row - 1);
    BOTHA(SSA_ERR_STRIDE, a.out.token_stride = row; a.out.head_stride = row);
    BOTHA(SSA_ERR_STRIDE, a.out.token_stride = row; a.out.head_stride = 3 * row - 1);
    BOTHA(SSA_ERR_STRIDE, a.out.token_stride = 2 * row; a.out.head_stride = row);
    OK(SSA_FULL, a.out.token_stride = row; a.out.head_stride = 3 * row);
    OK(SSA_FULL, a.k.token_stride = 4; a.k.head_stride = 4);             /* inputs may overlap */
    BOTH(SSA_ERR_SCALE, a.scale = NAN);
    BOTH(SSA_ERR_SCALE, a.scale = INFINITY);
    BOTH(SSA_ERR_SCALE, a.scale = -INFINITY);
    OK(SSA_FULL, a.scale = -1);
    BOTH(SSA_ERR_CAUSAL, a.causal = 2);
    BOTH(SSA_ERR_CAUSAL, a.causal = -1);
    E(SSA_SPARSE, SSA_ERR_CAUSAL, a.causal = 0);
    OK(SSA_FULL, a.causal = 0);
    E(SSA_SPARSE, SSA_ERR_BLOCK_SIZE, a.block_size = 0);
    E(SSA_SPARSE, SSA_ERR_BLOCK_SIZE, a.block_size = -16);
    E(SSA_SPARSE, SSA_ERR_BLOCK_SIZE, a.block_size = SSA_MAX_BLOCK + 1);
    E(SSA_SPARSE, SSA_ERR_TOP_K, a.top_k = 0);
    E(SSA_SPARSE, SSA_ERR_TOP_K, a.top_k = INT32_MIN);
    E(SSA_SPARSE, SSA_ERR_SELECT, a.select = (ssa_select)3);
    E(SSA_SPARSE, SSA_ERR_SELECT, a.select = (ssa_select)-1);
    E(SSA_SPARSE, SSA_ERR_REFERENCE, a.select = SSA_SELECT_REFERENCE; a.block_size = 12);
    E(SSA_SPARSE, SSA_ERR_REFERENCE, a.select = SSA_SELECT_REFERENCE; a.top_k = 5);
    E(SSA_SPARSE, SSA_ERR_REFERENCE, a.select = SSA_SELECT_REFERENCE; a.block_size = a.top_k = 1);
    OK(SSA_FULL, a.block_size = 0; a.top_k = 0; a.select = (ssa_select)9);      /* full attention reads none of them */
    EA(SSA_SPARSE, SSA_ERR_BLOCKS, a.select = SSA_SELECT_GIVEN; a.blocks = NULL);
    OK(SSA_SPARSE, a.blocks = NULL);
    OK(SSA_SPARSE, a.blocks = NULL; a.top_k = INT32_MAX);
    OK(SSA_SPARSE, a.block_size = SSA_MAX_BLOCK);
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
        OK((ssa_mode)mode, a.n_q = 0);
        OK((ssa_mode)mode, a.n_q = 0; a.q.data = NULL; a.out.data = NULL);
        OK((ssa_mode)mode, a.n_q = 0; a.n_kv = 0);
        OK((ssa_mode)mode, a.gate = NULL; a.lse = NULL);
    }
    OK(SSA_FULL, a.n_kv = 0);

    E(SSA_SPARSE, SSA_ERR_POOL, a.pool = &p);                            /* not initialised */
    unsigned char *memory = xalloc(1 << 16, 1);
    static const struct { int H, D, B, n; } pools[] = { { 1, 16, 4, 40 }, { 2, 15, 4, 40 }, { 2, 16, 8, 40 },
        { 2, 16, 4, 39 }, { 2, 16, 4, 0 } };
    for (int i = 0; i < COUNT(pools); i++) {
        CHECK(ssa_pool_init(&p, pools[i].H, pools[i].D, pools[i].B, 80, SSA_F32, memory, 1 << 16) == SSA_OK, "pool %d",
              i);
        ssa_view k = bad.k.view;
        CHECK(ssa_pool_append(&p, &k, pools[i].n) == SSA_OK, "pool %d", i);
        E(SSA_SPARSE, SSA_ERR_POOL, a.pool = &p);
    }
    CHECK(ssa_pool_init(&p, 2, 16, 4, 80, SSA_F32, memory, 1 << 16) == SSA_OK
              && ssa_pool_append(&p, &bad.k.view, 40) == SSA_OK,
          "pool");
    OK(SSA_SPARSE, a.pool = &p);
    OK(SSA_SPARSE, a.pool = &p; a.n_kv = 30);                            /* the pool may know more keys */
    for (int i = 0; i < BROKEN_POOLS; i++) {
        ssa_pool broken = broken_pool(p, i);
        E(SSA_SPARSE, SSA_ERR_POOL, a.pool = &broken);
    }
    prob_clear(&bad);
    CHECK(ssa_attention(&bad.a, SSA_SPARSE, NULL) == SSA_OK, "sparse");
    uint64_t plain = prob_hash(&bad);
    CHECK(ssa_pool_append(&p, &bad.k.view, 40) == SSA_OK, "pool");
    prob_clear(&bad);
    OK(SSA_SPARSE, a.pool = &p);
    CHECK(prob_hash(&bad) == plain, "a pool that knows more keys gives the same result");
    free(memory);

    static const float mask[3 * 40 + 1];
    BOTH(SSA_ERR_WINDOW, a.window = -1);
    BOTH(SSA_ERR_WINDOW, a.window = INT64_MIN);
    E(SSA_SPARSE, SSA_ERR_WINDOW, a.window = 5);
    E(SSA_SPARSE, SSA_ERR_WINDOW, a.window = huge);
    E(SSA_FULL, SSA_ERR_WINDOW, a.window = 5; a.causal = 0);
    OK(SSA_FULL, a.window = 1);
    OK(SSA_FULL, a.window = huge);
    OK(SSA_FULL, a.window = huge; a.q_pos = (1LL << 61) - 64);
    OK(SSA_FULL, a.window = 7; a.n_kv = 1; a.q_pos = -1);
    BOTH(SSA_ERR_SOFTCAP, a.softcap = -1);
    BOTH(SSA_ERR_SOFTCAP, a.softcap = NAN);
    BOTH(SSA_ERR_SOFTCAP, a.softcap = INFINITY);
    BOTH(SSA_ERR_SOFTCAP, a.softcap = -INFINITY);
    for (int mode = SSA_FULL; mode <= SSA_SPARSE; mode++) {
        OK((ssa_mode)mode, a.softcap = 30);
        OK((ssa_mode)mode, a.softcap = -0.0f);
        OK((ssa_mode)mode, a.softcap = 1e-45f);
        OK((ssa_mode)mode, a.softcap = FLT_MAX);
        OK((ssa_mode)mode, a.sinks = one);
        OK((ssa_mode)mode, a.alibi = one);
        OK((ssa_mode)mode, a.mask = mask);
        OK((ssa_mode)mode, a.mask = mask; a.mask_type = SSA_BF16; a.mask_stride = 81);
        OK((ssa_mode)mode, a.mask = mask; a.mask_type = SSA_F16; a.mask_stride = 80);
        OK((ssa_mode)mode, a.mask_type = (ssa_type)-1; a.mask_stride = -1);     /* no mask: nothing reads them */
    }
    BOTH(SSA_ERR_MASK, a.mask = mask; a.mask_type = SSA_Q8_0);
    for (int t = 0; t < COUNT(odd_types); t++) BOTH(SSA_ERR_MASK, a.mask = mask; a.mask_type = (ssa_type)odd_types[t]);
    BOTH(SSA_ERR_MASK, a.mask = mask; a.mask_stride = -1);
    BOTH(SSA_ERR_MASK, a.mask = mask; a.mask_stride = INT64_MIN);
    BOTH(SSA_ERR_MASK, a.mask = mask; a.mask_stride = 159);
    BOTH(SSA_ERR_MASK, a.mask = mask; a.mask_type = SSA_F16; a.mask_stride = 79);
    BOTH(SSA_ERR_OVERFLOW, a.mask = mask; a.mask_stride = huge);
    BOTH(SSA_ERR_OVERFLOW, a.mask = mask; a.mask_stride = huge / 2);
    BOTH(SSA_ERR_PAGES, a.pages = zero; a.page_tokens = 0);
    BOTH(SSA_ERR_PAGES, a.pages = zero; a.page_tokens = -4);
    BOTH(SSA_ERR_PAGES, a.pages = zero; a.page_tokens = INT64_MIN);
    BOTH(SSA_ERR_PAGES, a.pages = zero; a.page_tokens = 12; a.page_stride_k = -1);
    BOTH(SSA_ERR_PAGES, a.pages = zero; a.page_tokens = 12; a.page_stride_v = INT64_MIN);
    E(SSA_SPARSE, SSA_ERR_PAGES, a.pages = zero; a.page_tokens = 14);    /* a block would lie in two */
    E(SSA_SPARSE, SSA_ERR_PAGES, a.pages = zero; a.page_tokens = 2);
    OK(SSA_FULL, a.pages = zero; a.page_tokens = 14);
    OK(SSA_FULL, a.pages = zero; a.page_tokens = huge; a.page_stride_k = a.page_stride_v = 1);
    OK(SSA_SPARSE, a.pages = zero; a.page_tokens = 12);
    OK(SSA_SPARSE, a.page_tokens = -1; a.page_stride_k = -1);            /* nobody looks at them without pages */
    BOTH(SSA_ERR_OVERFLOW, a.pages = zero; a.page_tokens = huge / 4 * 4);
    BOTH(SSA_ERR_OVERFLOW, a.pages = zero; a.page_tokens = 12; a.page_stride_k = huge / 2);
    BOTHA(SSA_ERR_OVERFLOW, a.pages = zero; a.page_tokens = 12; a.page_stride_v = huge / 2);
    BOTH(SSA_ERR_OVERFLOW, a.pages = zero; a.page_tokens = 12; a.k.token_stride = huge / 2);
    BOTH(SSA_ERR_OVERFLOW, a.n_q = a.n_kv = a.q_pos = 0; a.pages = zero; a.page_tokens = huge / 4 * 4);
    check_selection();

    /* Sizes that do not fit. */
#define TOO_LARGE(mode, change) E2(mode, SSA_ERR_OVERFLOW, SSA_ERR_POSITION, 1, change)
    TOO_LARGE(SSA_FULL, a.n_q = huge);
    TOO_LARGE(SSA_FULL, a.n_q = huge; a.q_pos = 0);
    TOO_LARGE(SSA_FULL, a.n_q = huge / 4 + 1; a.q_pos = 0);
    TOO_LARGE(SSA_SPARSE, a.n_q = huge);
    TOO_LARGE(SSA_SPARSE, a.n_q = huge; a.n_kv = huge);
    BOTH(SSA_ERR_OVERFLOW, a.n_kv = huge);
    BOTH(SSA_ERR_OVERFLOW, a.n_kv = huge / 64);
    BOTH(SSA_ERR_OVERFLOW, a.n_kv = huge / 2; a.q_pos = 0);
    BOTH(SSA_ERR_OVERFLOW, a.k.token_stride = huge);
    BOTH(SSA_ERR_OVERFLOW, a.k.token_stride = huge / 39);
    BOTH(SSA_ERR_OVERFLOW, a.k.head_stride = huge; a.k.token_stride = 128);
    BOTH(SSA_ERR_OVERFLOW, a.k.head_stride = huge);
    BOTHA(SSA_ERR_OVERFLOW, a.v.token_stride = huge);
    BOTHA(SSA_ERR_OVERFLOW, a.v.head_stride = huge);
    BOTH(SSA_ERR_OVERFLOW, a.q.token_stride = huge);
    BOTH(SSA_ERR_OVERFLOW, a.q.head_stride = huge / 2);
    BOTHA(SSA_ERR_OVERFLOW, a.out.token_stride = huge);
    BOTHA(SSA_ERR_OVERFLOW, a.out.head_stride = huge);
    BOTH(SSA_ERR_OVERFLOW, a.n_heads = INT32_MAX - 1; a.q.head_stride = huge / 1000);
    E(SSA_SPARSE, SSA_ERR_OVERFLOW, a.n_kv = INT32_MAX; a.block_size = 1);
    ssa_attn most = bad.a; /* one block fewer can be numbered, and counted; 32 bits cannot address its keys */
    most.n_kv = INT32_MAX - 1;
    most.block_size = 1;
    ssa_status fits = sizeof(void *) > 4 ? SSA_OK : SSA_ERR_OVERFLOW, got = ssa_check(&most, SSA_SPARSE);
    CHECK(got == fits, "%d blocks: %d", INT32_MAX - 1, got);
    /* Head counts near the top: products overflow, or the tensors would not fit in 63 bits. */
    TOO_LARGE(SSA_FULL, a.n_heads = INT32_MAX - 1; a.n_q = 1LL << 40; a.q_pos = 0);
    TOO_LARGE(SSA_SPARSE, a.n_heads = INT32_MAX - 1; a.n_q = 1LL << 40; a.n_kv = 1LL << 41; a.q_pos = 0);
}

static void check_run(void)
{
    ssa_attn *a = &bad.a;
    static unsigned char ws[1 << 16];
    ssa_plan plan;
    ssa_grad g = { good.o.view, bad.q.view, bad.k.view, bad.v.view, NULL };
    prob_clear(&bad);
    uint64_t clean = prob_hash(&bad);
#define NOTHING(call, want) \
    CHECK(is(call, want) && prob_hash(&bad) == clean, "%s: not %d, or outputs changed", #call, want)
    for (int m = SSA_FULL; m <= SSA_SPARSE; m++) {
        ssa_mode mode = (ssa_mode)m;
        ssa_exec x = { 0, NULL, NULL, NULL, 0 };
        NOTHING(ssa_check(NULL, mode), SSA_ERR_NULL);
        NOTHING(ssa_attention(NULL, mode, NULL), SSA_ERR_NULL);
        NOTHING(ssa_attention_batch(NULL, 1, mode, NULL), SSA_ERR_NULL);
        NOTHING(ssa_attention_batch(a, -1, mode, NULL), SSA_ERR_BATCH);
        NOTHING(ssa_attention_batch(a, INT32_MIN, mode, NULL), SSA_ERR_BATCH);
        NOTHING(ssa_select_blocks(NULL, NULL), SSA_ERR_NULL);
        NOTHING(ssa_plan_make(NULL, a, 1, mode, 1, ws, sizeof ws), SSA_ERR_NULL);
        NOTHING(ssa_plan_make(&plan, NULL, 1, mode, 1, ws, sizeof ws), SSA_ERR_NULL);
        NOTHING(ssa_plan_make(&plan, a, -1, mode, 1, ws, sizeof ws), SSA_ERR_BATCH);
        NOTHING(ssa_plan_make(&plan, a, 1, mode, 1, ws, 0), SSA_ERR_WORKSPACE);
        NOTHING(ssa_plan_make(&plan, a, 1, mode, 1, ws, ssa_workspace_size(a, 1, mode, 1) - 1), SSA_ERR_WORKSPACE);
        CHECK(ssa_plan_make(&plan, a, 1, mode, 1, NULL, sizeof ws) < 0 && prob_hash(&bad) == clean,
              "a plan without workspace");
        CHECK(ssa_workspace_size(NULL, 1, mode, 1) == 0 && ssa_workspace_size(a, -1, mode, 1) == 0,
              "workspace size of nothing valid");
        x.n_threads = -1;
        NOTHING(ssa_attention(a, mode, &x), SSA_ERR_THREADS);
        NOTHING(ssa_attention_batch(a, 1, mode, &x), SSA_ERR_THREADS);
        NOTHING(ssa_select_blocks(a, &x), SSA_ERR_THREADS);
        x.n_threads = INT32_MIN;
        NOTHING(ssa_attention(a, mode, &x), SSA_ERR_THREADS);
        x.n_threads = 0;
        x.parallel = (void (*)(void *, ssa_task, void *, int))0;
        x.workspace = ws; x.workspace_size = 1;
        NOTHING(ssa_attention(a, mode, &x), SSA_ERR_WORKSPACE);
        NOTHING(ssa_attention_batch(a, 1, mode, &x), SSA_ERR_WORKSPACE);
        if (mode == SSA_SPARSE) NOTHING(ssa_select_blocks(a, &x), SSA_ERR_WORKSPACE);
        NOTHING(ssa_attention_backward(a, mode, &g, NULL), SSA_ERR_UNSUPPORTED);
        CHECK(ssa_attention_backward(NULL, mode, &g, NULL) < 0 && ssa_attention_backward(a, mode, NULL, NULL) < 0,
              "backward of NULL");
    }
    ssa_attn b = *a;
    b.blocks = NULL;
    NOTHING(ssa_select_blocks(&b, NULL), SSA_ERR_BLOCKS);
    b = *a;
    b.select = SSA_SELECT_GIVEN;
    NOTHING(ssa_select_blocks(&b, NULL), SSA_ERR_SELECT);

    /* More memory than there is: 2^30 pooled keys of 1024 heads. Nothing is read before the allocation fails. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(SANITIZED) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    SKIP("SSA_ERR_MEMORY", "a sanitizer ends the process where malloc would fail");
    seen[-SSA_ERR_MEMORY] = 1;
#else
    b = *a;
    b.n_q = 1; b.n_kv = 1LL << 30; b.n_heads = b.n_kv_heads = b.head_dim = 1024; b.block_size = 1;
    void *taken[16] = { NULL };                 /* of 32 address bits: all but less than a piece */
    size_t size, piece = (size_t)1 << 28, most = sizeof(size_t) > 4 ? SIZE_MAX >> 16 : piece;
    for (int i = 0; most == piece && i < 16; i++) taken[i] = malloc(piece);
    while (!(size = ssa_workspace_size(&b, 1, SSA_SPARSE, 1)) && b.n_kv > 8) b.n_kv -= b.n_kv / 8;
    if (size > most) {
        NOTHING(ssa_attention(&b, SSA_SPARSE, NULL), SSA_ERR_MEMORY);
        NOTHING(ssa_attention_batch(&b, 1, SSA_SPARSE, NULL), SSA_ERR_MEMORY);
        NOTHING(ssa_select_blocks(&b, NULL), SSA_ERR_MEMORY);
    } else SKIP("SSA_ERR_MEMORY", "no call needs more memory than there is");
    for (int i = 0; i < 16; i++) free(taken[i]);
#endif
}

static void never(void *user, ssa_task fn, void *task, int nth) { (void)fn; (void)task; (void)nth; *(int *)user = 1; }
static void check_parallel(void)
{
    int ran = 0;
    ssa_exec x = { 0, never, &ran, NULL, 0 };
    prob_clear(&bad);
    uint64_t clean = prob_hash(&bad);
    NOTHING(ssa_attention(&bad.a, SSA_FULL, &x), SSA_ERR_THREADS);
    NOTHING(ssa_attention_batch(&bad.a, 1, SSA_SPARSE, &x), SSA_ERR_THREADS);
    NOTHING(ssa_select_blocks(&bad.a, &x), SSA_ERR_THREADS);
    CHECK(!ran, "the callback was not called");
}
#undef NOTHING

/* ---- pools ------------------------------------------------------------------------------------------------------- */
static void check_pools(void)
{
    size_t size = ssa_pool_size(2, 16, 4, 40, SSA_F32);
    unsigned char *memory = xalloc((int64_t)size, 1);
    ssa_pool p, before;
    memset(&p, 0x33, sizeof p); memset(&before, 0x33, sizeof before);
    memset(memory, 0x44, size);
    uint64_t clean = bytes_hash(memory, (int64_t)size, 1);
#define NOTHING(call, want) CHECK(is(call, want) && !memcmp(&p, &before, sizeof p) && \
                                  bytes_hash(memory, (int64_t)size, 1) == clean, \
                                  "%s: not %d, or the pool changed", #call, want)
#define INIT(H, D, B, max, type, size_, want) NOTHING(ssa_pool_init(&p, H, D, B, max, type, memory, size_), want)
    CHECK(is(ssa_pool_init(NULL, 2, 16, 4, 40, SSA_F32, memory, size), SSA_ERR_NULL), "init NULL");
    NOTHING(ssa_pool_init(&p, 2, 16, 4, 40, SSA_F32, NULL, size), SSA_ERR_NULL);
    INIT(2, 16, 4, 40, SSA_F32, size - 1, SSA_ERR_POOL_MEMORY);
    INIT(2, 16, 4, 40, SSA_F32, 0, SSA_ERR_POOL_MEMORY);
    INIT(0, 16, 4, 40, SSA_F32, size, SSA_ERR_HEADS);
    INIT(-1, 16, 4, 40, SSA_F32, size, SSA_ERR_HEADS);
    INIT(2, 0, 4, 40, SSA_F32, size, SSA_ERR_HEAD_DIM);
    INIT(2, 1025, 4, 40, SSA_F32, size, SSA_ERR_HEAD_DIM);
    INIT(2, 16, 0, 40, SSA_F32, size, SSA_ERR_BLOCK_SIZE);
    INIT(2, 16, 4097, 40, SSA_F32, size, SSA_ERR_BLOCK_SIZE);
    INIT(2, 16, 4, -1, SSA_F32, size, SSA_ERR_LENGTH);
    INIT(2, 16, 4, 40, SSA_F16, size, SSA_ERR_TYPE);
    INIT(2, 16, 4, 40, SSA_Q8_0, size, SSA_ERR_TYPE);
    INIT(2, 16, 4, 40, (ssa_type)-9, size, SSA_ERR_TYPE);
    INIT(2, 16, 1, INT64_MAX, SSA_F32, size, SSA_ERR_OVERFLOW);
    INIT(2, 16, 1, INT64_MAX / 16, SSA_F32, size, SSA_ERR_OVERFLOW);

    memset(&p, 0, sizeof p); memset(&before, 0, sizeof before);          /* not initialised */
    ssa_view k = bad.k.view, v;
    NOTHING(ssa_pool_append(&p, &k, 1), SSA_ERR_POOL);
    NOTHING(ssa_pool_truncate(&p, &k, 0), SSA_ERR_POOL);
    NOTHING(ssa_pool_drop_front(&p, &k, 0), SSA_ERR_POOL);
    CHECK(ssa_pool_init(&p, 2, 16, 4, 40, SSA_F32, memory, size) == SSA_OK && ssa_pool_append(&p, &k, 30) == SSA_OK,
          "a pool of 30");
    before = p;
    clean = bytes_hash(memory, (int64_t)size, 1);
    CHECK(is(ssa_pool_append(NULL, &k, 1), SSA_ERR_NULL) && is(ssa_pool_truncate(NULL, &k, 1), SSA_ERR_NULL)
          && is(ssa_pool_drop_front(NULL, &k, 1), SSA_ERR_NULL), "NULL pools");
    NOTHING(ssa_pool_append(&p, NULL, 1), SSA_ERR_NULL);
    NOTHING(ssa_pool_truncate(&p, NULL, 6), SSA_ERR_NULL);
    NOTHING(ssa_pool_drop_front(&p, NULL, 6), SSA_ERR_NULL);
    NOTHING(ssa_pool_append(&p, &k, -1), SSA_ERR_LENGTH);
    NOTHING(ssa_pool_truncate(&p, &k, -1), SSA_ERR_LENGTH);
    NOTHING(ssa_pool_drop_front(&p, &k, INT64_MIN), SSA_ERR_LENGTH);
    NOTHING(ssa_pool_append(&p, &k, 11), SSA_ERR_POOL_FULL);
    NOTHING(ssa_pool_append(&p, &k, 1 << 30), SSA_ERR_POOL_FULL);
    NOTHING(ssa_pool_truncate(&p, &k, 31), SSA_ERR_POOL_RANGE);
    NOTHING(ssa_pool_truncate(&p, &k, 1 << 30), SSA_ERR_POOL_RANGE);
    NOTHING(ssa_pool_drop_front(&p, &k, 31), SSA_ERR_POOL_RANGE);
    NOTHING(ssa_pool_drop_front(&p, &k, INT64_MAX), SSA_ERR_POOL_RANGE);
#define EACH(change, want) do { v = k; change; NOTHING(ssa_pool_append(&p, &v, 3), want); \
                                NOTHING(ssa_pool_truncate(&p, &v, 6), want); \
                                NOTHING(ssa_pool_drop_front(&p, &v, 6), want); } while (0)
    EACH(v.data = NULL, SSA_ERR_NULL);
    EACH(v.type = (ssa_type)50, SSA_ERR_TYPE);
    EACH(v.token_stride = -4, SSA_ERR_STRIDE);
    EACH(v.head_stride = -4, SSA_ERR_STRIDE);
    EACH(v.token_stride = INT64_MAX, SSA_ERR_OVERFLOW);
    NOTHING(ssa_pool_append(&p, &k, INT64_MAX), SSA_ERR_POOL_FULL);
    NOTHING(ssa_pool_truncate(&p, &k, INT64_MAX), SSA_ERR_POOL_RANGE);
    NOTHING(ssa_pool_drop_front(&p, &k, INT64_MAX), SSA_ERR_POOL_RANGE);
    EACH(v.type = SSA_Q8_0, SSA_ERR_HEAD_DIM);
    CHECK(ssa_pool_append(&p, &k, 0) == SSA_OK && ssa_pool_truncate(&p, &k, 30) == SSA_OK
              && ssa_pool_drop_front(&p, &k, 0) == SSA_OK && ssa_pool_append(&p, &k, 10) == SSA_OK && p.n_tokens == 40,
          "what fits is taken");
    const ssa_pool sound = p;
    clean = bytes_hash(memory, (int64_t)size, 1);
    for (int i = 0; i < BROKEN_POOLS; i++) {
        p = before = broken_pool(sound, i);
        NOTHING(ssa_pool_append(&p, &k, 0), SSA_ERR_POOL);
        NOTHING(ssa_pool_truncate(&p, &k, 1), SSA_ERR_POOL);
        NOTHING(ssa_pool_drop_front(&p, &k, 1), SSA_ERR_POOL);
    }
    free(memory);
}
#undef NOTHING

/* ---- writing a cache --------------------------------------------------------------------------------------------- */
static void check_append(void)
{
    enum { H = 2, D = 32, N = 12, B = 4 };
    static unsigned char cache[2][N * H * D * 4 + 64];
    static const int32_t pages[] = { 0, 1, 2 };
    size_t size = ssa_pool_size(H, D, B, N, SSA_F32);
    unsigned char *memory = xalloc((int64_t)size, 1);
    float x[N * H * D];
    const int64_t huge = INT64_MAX;
    ssa_pool pool;
    for (int i = 0; i < N * H * D; i++) x[i] = (float)(i % 9);
    memset(cache, 0x3A, sizeof cache);
    CHECK(ssa_pool_init(&pool, H, D, B, N, SSA_F32, memory, size) == SSA_OK, "pool");
    ssa_view five = { x, SSA_F32, 0, 0 };
    CHECK(ssa_pool_append(&pool, &five, 5) == SSA_OK, "pool");
    uint64_t clean =
        bytes_hash(cache, sizeof cache, bytes_hash(memory, (int64_t)size, bytes_hash(&pool, sizeof pool, 1)));
#define APPEND(want, change) do { \
        ssa_attn c = ssa_attn_default(H, H, D), *a = &c; \
        ssa_view k = { x, SSA_F32, 0, 0 }, v = k, *pk = &k, *pv = &v; \
        ssa_pool p = pool, *pp = &pool; int64_t at = 5, n = 3; \
        c.k.data = cache[0]; c.v.data = cache[1]; \
        change; \
        ssa_status st = ssa_kv_append(a, at, pk, pv, n, pp); \
        CHECK(is(st, want) && !memcmp(&p, pp ? pp : &p, sizeof p) && clean == bytes_hash(cache, sizeof cache, \
              bytes_hash(memory, (int64_t)size, bytes_hash(&pool, sizeof pool, 1))), \
              "append, %s: %d, not %d, or something was written", #change, st, want); } while (0)
    APPEND(SSA_ERR_NULL, a = NULL);
    APPEND(SSA_ERR_NULL, pk = NULL);                                     /* the pool needs keys */
    APPEND(SSA_ERR_NULL, k.data = NULL);
    APPEND(SSA_ERR_NULL, v.data = NULL);
    APPEND(SSA_ERR_NULL, c.k.data = NULL);
    APPEND(SSA_ERR_NULL, c.v.data = NULL);
    APPEND(SSA_ERR_HEADS, c.n_kv_heads = 0);
    APPEND(SSA_ERR_HEADS, c.n_kv_heads = INT32_MIN);
    APPEND(SSA_ERR_HEAD_DIM, c.head_dim = 0);
    APPEND(SSA_ERR_HEAD_DIM, c.head_dim = SSA_MAX_DIM + 1);
    APPEND(SSA_ERR_HEAD_DIM, c.head_dim = 31; c.k.type = SSA_Q8_0);
    APPEND(SSA_ERR_VALUE_DIM, c.value_dim = -1);
    APPEND(SSA_ERR_VALUE_DIM, c.value_dim = SSA_MAX_DIM + 1);
    APPEND(SSA_ERR_VALUE_DIM, c.value_dim = 33; c.v.type = SSA_Q8_0);
    APPEND(SSA_ERR_LENGTH, n = -1);
    APPEND(SSA_ERR_LENGTH, n = INT64_MIN);
    APPEND(SSA_ERR_POSITION, at = -1);
    APPEND(SSA_ERR_POSITION, at = huge);
    APPEND(SSA_ERR_POSITION, at = INT64_MIN; pp = NULL);
    APPEND(SSA_ERR_OVERFLOW, n = huge);
    APPEND(SSA_ERR_OVERFLOW, n = huge / 8; pp = NULL);
    APPEND(SSA_ERR_OVERFLOW, at = huge / 8; pp = NULL);
    APPEND(SSA_ERR_TYPE, k.type = SSA_Q8_0);
    APPEND(SSA_ERR_TYPE, v.type = SSA_Q8_0);
    APPEND(SSA_ERR_TYPE, k.type = (ssa_type)4);
    APPEND(SSA_ERR_TYPE, v.type = (ssa_type)-1);
    APPEND(SSA_ERR_TYPE, c.k.type = (ssa_type)9);
    APPEND(SSA_ERR_TYPE, c.v.type = (ssa_type)9);
    APPEND(SSA_ERR_STRIDE, k.token_stride = -1);
    APPEND(SSA_ERR_STRIDE, v.head_stride = -1);
    APPEND(SSA_ERR_STRIDE, c.k.token_stride = -1);
    APPEND(SSA_ERR_STRIDE, c.v.head_stride = -1);
    APPEND(SSA_ERR_STRIDE, c.k.head_stride = D * 4 - 1);                 /* rows that overlap */
    APPEND(SSA_ERR_STRIDE, c.v.token_stride = H * D * 4 - 1);
    APPEND(SSA_ERR_STRIDE, c.k.type = SSA_Q8_0; c.k.token_stride = 33; c.k.head_stride = 34);
    APPEND(SSA_ERR_OVERFLOW, c.k.token_stride = huge / 2);
    APPEND(SSA_ERR_OVERFLOW, v.token_stride = huge);
    APPEND(SSA_ERR_PAGES, c.pages = pages; c.page_tokens = 0);
    APPEND(SSA_ERR_PAGES, c.pages = pages; c.page_tokens = 4; c.page_stride_k = -4);
    APPEND(SSA_ERR_PAGES, c.pages = pages; c.page_tokens = 4; c.page_stride_v = -4);
    APPEND(SSA_ERR_OVERFLOW, c.pages = pages; c.page_tokens = 4; c.page_stride_v = huge);
    APPEND(SSA_ERR_OVERFLOW, c.pages = pages; c.page_tokens = huge);
    APPEND(SSA_ERR_POOL, p.pooled = NULL; pp = &p);
    APPEND(SSA_ERR_POOL, p.n_kv_heads = 3; pp = &p);
    APPEND(SSA_ERR_POOL, p.head_dim = 31; pp = &p);
    APPEND(SSA_ERR_POOL, c.head_dim = 16);
    for (int i = 0; i < BROKEN_POOLS; i++) APPEND(SSA_ERR_POOL, p = broken_pool(p, i); pp = &p);
    APPEND(SSA_ERR_POOL_RANGE, at = 4);
    APPEND(SSA_ERR_POOL_RANGE, at = 6);
    APPEND(SSA_ERR_POOL_FULL, n = 8);
    APPEND(SSA_OK, n = 0);
    APPEND(SSA_OK, n = 0; k.data = v.data = c.k.data = c.v.data = NULL);
    APPEND(SSA_OK, pk = pv = NULL; pp = NULL);                           /* nothing to write */
    APPEND(SSA_OK, pk = pv = NULL; pp = NULL; c.head_dim = c.value_dim = 0; c.k.type = (ssa_type)9);
#undef APPEND
    free(memory);
}

/* ---- the loss ---------------------------------------------------------------------------------------------------- */
static void check_losses(void)
{
    float f[24], s[24], df[24], ds[24];
    for (int i = 0; i < 24; i++) { f[i] = (float)i; s[i] = 1; df[i] = ds[i] = 9; }
    ssa_alignment loss = { 1, 2, 3 };
    uint64_t clean = bytes_hash(df, sizeof df, bytes_hash(ds, sizeof ds, bytes_hash(&loss, sizeof loss, 1)));
    const int64_t huge = INT64_MAX;
#define LOSS(want, or_, change) do { \
        ssa_view vf = { f, SSA_F32, 0, 0 }, vs = { s, SSA_F32, 0, 0 }; \
        ssa_view vdf = { df, SSA_F32, 0, 0 }, vds = { ds, SSA_F32, 0, 0 }; \
        const ssa_view *pf = &vf, *ps = &vs; int64_t n = 2; int32_t heads = 3, dim = 4; float beta = 1, scale = 1; \
        change; \
        ssa_status st = ssa_alignment_loss(pf, ps, n, heads, dim, beta, &loss, scale, &vdf, &vds); \
        CHECK((is(st, want) || st == or_) && \
              clean == bytes_hash(df, sizeof df, bytes_hash(ds, sizeof ds, bytes_hash(&loss, sizeof loss, 1))), \
              "loss, %s: %d, not %d, or outputs changed", #change, st, want); } while (0)
#define L(want, change) LOSS(want, want, change)
    L(SSA_ERR_NULL, pf = NULL);               L(SSA_ERR_NULL, ps = NULL);
    L(SSA_ERR_NULL, vf.data = NULL);          L(SSA_ERR_NULL, vs.data = NULL);
    L(SSA_ERR_NULL, vdf.data = NULL);         L(SSA_ERR_NULL, vds.data = NULL);
    L(SSA_ERR_LENGTH, n = -1);                L(SSA_ERR_LENGTH, n = INT64_MIN);
    L(SSA_ERR_HEADS, heads = 0);              L(SSA_ERR_HEADS, heads = -1);
    LOSS(SSA_ERR_HEAD_DIM, SSA_ERR_VALUE_DIM, dim = 0);
    LOSS(SSA_ERR_HEAD_DIM, SSA_ERR_VALUE_DIM, dim = -5);
    L(SSA_ERR_TYPE, vf.type = SSA_Q8_0);      L(SSA_ERR_TYPE, vs.type = (ssa_type)9);
    L(SSA_ERR_TYPE, vdf.type = SSA_Q8_0);     L(SSA_ERR_TYPE, vds.type = (ssa_type)-3);
    L(SSA_ERR_STRIDE, vf.token_stride = -1);  L(SSA_ERR_STRIDE, vs.head_stride = -1);
    L(SSA_ERR_STRIDE, vdf.token_stride = -1); L(SSA_ERR_STRIDE, vds.head_stride = -1);
    L(SSA_ERR_STRIDE, vdf.token_stride = 47); L(SSA_ERR_STRIDE, vds.head_stride = 15);
    L(SSA_ERR_OVERFLOW, n = huge);            L(SSA_ERR_OVERFLOW, n = huge / 16);
    L(SSA_ERR_OVERFLOW, vf.token_stride = huge); L(SSA_ERR_OVERFLOW, vds.head_stride = huge);
    L(SSA_ERR_BETA, beta = -1);               L(SSA_ERR_BETA, beta = NAN);
    L(SSA_ERR_BETA, beta = INFINITY);         L(SSA_ERR_BETA, beta = -INFINITY);
    L(SSA_ERR_BETA, scale = NAN);             L(SSA_ERR_BETA, scale = INFINITY);
}

void test_errors(void)
{
    prob_make(&good, &base_shape);
    prob_make(&bad, &base_shape);
    good.a.blocks = good.blocks; bad.a.blocks = bad.blocks;
    ssa_attn d = ssa_attn_default(8, 2, 64);
    CHECK(d.n_heads == 8 && d.n_kv_heads == 2 && d.head_dim == 64 && d.value_dim == 64 && d.causal == 1
              && d.block_size == 16 && d.top_k == 16 && d.select == SSA_SELECT_TOPK && d.score == SSA_SCORE_SOFTMAX
              && d.scale == 0 && d.q_pos < 0 && d.n_q == 0 && d.n_kv == 0,
          "defaults");
    CHECK(!d.q.data && !d.k.data && !d.v.data && !d.out.data && !d.gate && !d.lse && !d.blocks && !d.pool && !d.sinks
              && !d.mask && !d.pages && !d.top_k_per_head && d.q.type == SSA_F32 && d.out.type == SSA_F32
              && d.k.token_stride == 0 && d.v.head_stride == 0,
          "defaults");
    d = ssa_attn_default(-1, 0, INT32_MIN);
    CHECK(ssa_check(&d, SSA_FULL) < 0, "defaults of nonsense are refused later");
    check_calls();
    check_run();
    check_parallel();
    check_pools();
    check_losses();
    check_append();
    CHECK(strcmp(ssa_status_string(SSA_ERR_PAGES), ssa_status_string((ssa_status)77)), "SSA_ERR_PAGES has a text");
    seen[0] = 1;
    for (int s = 0; s >= MOST_STATUS; s--) {
        const char *text = ssa_status_string((ssa_status)s);
        CHECK(text && *text, "status %d has a text", s);
        for (int t = 0; t > s; t--)
            CHECK(text && strcmp(text, ssa_status_string((ssa_status)t)), "statuses %d and %d differ", s, t);
        CHECK(seen[-s], "status %d was provoked", s);
    }
    static const int odd[] = { 1, MOST_STATUS - 1, 12345, INT32_MIN, INT32_MAX };
    for (int i = 0; i < COUNT(odd); i++) CHECK(ssa_status_string((ssa_status)odd[i]) != NULL, "unknown status");
    prob_free(&good); prob_free(&bad);
}

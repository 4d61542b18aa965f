/* test_golden.c - what the official implementation computed (tests/golden, see its README.md), at every level */
#include "oracle.h"

#ifndef SSA_TEST_DIR
#define SSA_TEST_DIR "tests"
#endif

/* ---- safetensors: 8-byte little-endian header length, JSON header, raw tensors ----------------------------------- */
typedef struct {
    unsigned char *bytes;
    const char *header;
    const unsigned char *data;
    void *copies[16];
    int n_copies;
} safetensors;

static int st_open(safetensors *f, const char *path)
{
    FILE *fp = fopen(path, "rb");
    long size = 0;
    if (!fp) return 0;
    fseek(fp, 0, SEEK_END);
    size = ftell(fp);
    rewind(fp);
    f->bytes = xalloc(size + 1, 1);
    size_t got = fread(f->bytes, 1, (size_t)size, fp);
    fclose(fp);
    int64_t len = 0;
    for (int b = 7; b >= 0; b--) len = len << 8 | f->bytes[b];
    if ((long)got != size || size < 8 || len < 2 || len > size - 8) return 0;
    f->header = (char *)f->bytes + 8;
    f->data = f->bytes + 8 + len;
    return 1;
}

static double st_meta(const safetensors *f, const char *key) /* a number in the metadata, written as a string */
{
    char text[64];
    snprintf(text, sizeof text, "\"%s\":\"", key);
    const char *at = strstr(f->header, text);
    return at ? strtod(at + strlen(text), NULL) : -1;
}

static const void *st_tensor(safetensors *f, const char *name, int64_t *count)            /* 4-byte elements */
{
    char text[64];
    snprintf(text, sizeof text, "\"%s\":{", name);
    const char *at = strstr(f->header, text), *offsets = at ? strstr(at, "\"data_offsets\":[") : NULL;
    char *end = NULL;
    *count = 0;
    if (!offsets || f->n_copies == COUNT(f->copies)) return NULL;
    long long from = strtoll(offsets + 16, &end, 10), to = strtoll(end + 1, NULL, 10);
    *count = (to - from) / 4;
    void *copy = f->copies[f->n_copies++] = xalloc(*count, 4);            /* aligned, unlike the file's bytes */
    for (int64_t i = 0; i < *count; i++) {                                /* from the file's byte order */
        const unsigned char *b = f->data + from + 4 * i;
        uint32_t word = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        memcpy((char *)copy + 4 * i, &word, 4);
    }
    return copy;
}

/* Official results against the oracle: apart by `official`; ours may be apart from theirs by that and the 2x bound. */
typedef struct { two_x base; double official, ours; } against;
static void against_row(against *a, const double *ref, const float *naive, const float *theirs, int n)
{
    for (int d = 0; d < n; d++) {
        two_x_base(&a->base, ref[d], (double)naive[d]);
        if (!(fabs((double)theirs[d] - ref[d]) <= a->official)) a->official = fabs((double)theirs[d] - ref[d]);
    }
}
static void against_ours(against *a, const float *ours, const float *theirs, int n)
{
    for (int d = 0; d < n; d++)
        if (!(fabs((double)ours[d] - (double)theirs[d]) <= a->ours))
            a->ours = fabs((double)ours[d] - (double)theirs[d]);
}
static void against_check(const against *a, double most, const char *what, const char *file)
{
    CHECK(a->official <= most, "%s: the oracle and the official result differ by %.3g: %s", what, a->official, file);
    CHECK(a->ours <= a->official + two_x_bound(&a->base, 0, SSA_F32),
          "%s: %.3g from the official result, official error %.3g, 2x bound %.3g: %s", what, a->ours, a->official,
          two_x_bound(&a->base, 0, SSA_F32), file);
}

static int same_set(const int32_t *a, const int32_t *b, int n)           /* -1 = empty; no duplicates within a or b */
{
    int na = 0, nb = 0, both = 0;
    for (int i = 0; i < n; i++) { na += a[i] >= 0; nb += b[i] >= 0; }
    for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) both += a[i] >= 0 && a[i] == b[j];
    return na == nb && both == na;
}

static void check_file(const char *name)
{
    char path[256];
    safetensors f = { 0 };
    snprintf(path, sizeof path, "%s/golden/%s.safetensors", SSA_TEST_DIR, name);
    int opened = st_open(&f, path);
    CHECK(opened, "cannot read %s", path);
    if (!opened) return;

    shape s = { .name = name, .HQ = (int)st_meta(&f, "HQ"), .H = (int)st_meta(&f, "H"), .D = (int)st_meta(&f, "D"),
                .n_q = (int)st_meta(&f, "T"), .n_kv = (int)st_meta(&f, "T"), .q_pos = -1,
                .B = (int)st_meta(&f, "block_size"), .top_k = (int)st_meta(&f, "block_counts"),
                .amp = (float)st_meta(&f, "peak"), .seed = (uint64_t)st_meta(&f, "seed") };
    int64_t n_chosen, n_exact, n_pooled, n_rows, n_imp, n_sparse, n_full, n_loss, n_dg, T = s.n_q, nb = T / s.B;
    int64_t all_blocks = (T + s.B - 1) / s.B;
    int HQ = s.HQ, H = s.H, D = s.D, G = HQ / H, K = s.top_k;
    const int32_t *chosen = st_tensor(&f, "block_indices", &n_chosen),
                  *exact = st_tensor(&f, "exact_indices", &n_exact);
    const int32_t *rows = st_tensor(&f, "rows", &n_rows);
    const float *pooled_k = st_tensor(&f, "pooled_k", &n_pooled), *importance = st_tensor(&f, "importance", &n_imp);
    const float *o_sparse = st_tensor(&f, "o_sparse", &n_sparse), *o_full = st_tensor(&f, "o_full", &n_full);
    const float *loss = st_tensor(&f, "loss", &n_loss), *align_dg = st_tensor(&f, "align_dg", &n_dg);
    int complete = n_chosen == T * H * K && n_exact == n_chosen && n_pooled == all_blocks * H * D
                   && n_imp == n_rows * H * all_blocks && n_sparse == n_rows * HQ * D && n_full == n_sparse
                   && n_loss == 1 && n_dg == n_rows * HQ;
    CHECK(complete, "shapes of the tensors in %s", path);
    if (!complete) return;

    /* The oracle and the naive program on the stored rows, on the official blocks. */
    prob p;
    o_call c;
    prob_make(&p, &s);
    o_call_of(&c, &p);
    against full = { 0 }, sparse = { 0 }, dg = { 0 }, pool = { 0 };
    double *pooled = xalloc(nb * H * D, sizeof *pooled), *imp = xalloc(all_blocks, sizeof *imp),
           *of = xalloc(2 * D, sizeof *of);
    float *nf = xalloc(2 * D, sizeof *nf);
    o_pool(&c, pooled);
    for (int64_t r = 0; r < n_rows; r++)
        for (int h = 0; h < HQ; h++) {
            double *os = of + D, lse, grad = 0, gate = (double)p.gate[rows[r] * HQ + h];
            float *ns = nf + D, nlse, ngrad = 0;
            const int32_t *b = chosen + (rows[r] * H + h / G) * K;
            int64_t at = (r * HQ + h) * D;
            o_row(&c, rows[r], h, NULL, 0, of, &lse);
            o_row(&c, rows[r], h, b, K, os, &lse);
            n_row(&c, rows[r], h, NULL, 0, SSA_F32, nf, &nlse);
            n_row(&c, rows[r], h, b, K, SSA_F32, ns, &nlse);
            against_row(&full, of, nf, o_full + at, D);
            against_row(&sparse, os, ns, o_sparse + at, D);
            /* d loss/d gate: the gate acts through f = gate * fu and s = gate * su alone; |f - s| < 1 here */
            for (int d = 0; d < D; d++) {
                grad += (of[d] - os[d]) * (of[d] - os[d]) / gate / (double)(T * HQ * D);
                ngrad += (nf[d] - ns[d]) * (nf[d] - ns[d]) / (float)gate / (float)(T * HQ * D);
            }
            against_row(&dg, &grad, &ngrad, align_dg + r * HQ + h, 1);
        }
    for (int64_t b = 0; b < nb; b++)
        for (int j = 0; j < H; j++) {
            for (int d = 0; d < D; d++) {
                nf[d] = 0;
                for (int t = 0; t < s.B; t++) nf[d] += p.k.val[((b * s.B + t) * H + j) * D + d];
                nf[d] /= (float)s.B;
            }
            against_row(&pool, pooled + (j * nb + b) * D, nf, pooled_k + (b * H + j) * D, D);
        }
    /* The oracle's own selection, and where it is clear. */
    char *clear = xalloc(T * H, 1);
    int32_t *want = xalloc(K, sizeof *want);
    int oracle_topk = 1, oracle_ref = 1, n_clear = 0;
    for (int64_t r = 0; r < T * H; r++) {
        o_importance(&c, pooled, r / H, (int)(r % H), imp);
        clear[r] = o_topk(&c, imp, r / H / s.B, want) > 1e-5;
        n_clear += clear[r];
        oracle_topk &= same_set(want, exact + r * K, K);
        o_reference(&c, imp, r / H / s.B, want);
        oracle_ref &= same_set(want, chosen + r * K, K);
    }
    CHECK(oracle_topk && oracle_ref, "the oracle selects what the files say (%d %d): %s", oracle_topk, oracle_ref,
          name);
    CHECK(n_clear > T * H * 9 / 10, "most rows are clear, %d of %d: %s", n_clear, (int)(T * H), name);
    double imp_error = 0;
    for (int64_t r = 0; r < n_rows; r++)
        for (int j = 0; j < H; j++) {
            int64_t cur = o_importance(&c, pooled, rows[r], j, imp);
            for (int64_t b = 0; b < cur; b++) {
                double e = fabs(imp[b] - (double)importance[(r * H + j) * all_blocks + b]) / imp[b];
                if (!(e <= imp_error)) imp_error = e;
            }
        }
    CHECK(imp_error < 1e-7, "importance of the oracle, relative error %.3g: %s", imp_error, name);

    tensor sp, fu, su, df, ds;
    tensor_make(&sp, SSA_F32, T, HQ, D, LAY_ZERO); tensor_make(&fu, SSA_F32, T, HQ, D, LAY_ZERO);
    tensor_make(&su, SSA_F32, T, HQ, D, LAY_ZERO); tensor_make(&df, SSA_F32, T, HQ, D, LAY_ZERO);
    tensor_make(&ds, SSA_F32, T, HQ, D, LAY_ZERO);
    size_t memory_size = ssa_pool_size(H, D, s.B, T, SSA_F32);
    void *memory = xalloc((int64_t)memory_size, 1);
    FOR_LEVELS(l) {
        ssa_pool kept;
        CHECK(ssa_pool_init(&kept, H, D, s.B, T, SSA_F32, memory, memory_size) == SSA_OK
              && ssa_pool_append(&kept, &p.k.view, T) == SSA_OK, "pool: %s", name);
        for (int64_t b = 0; b < nb; b++)
            for (int j = 0; j < H; j++)
                against_ours(&pool, (float *)kept.pooled + (j * kept.max_blocks + b) * D, pooled_k + (b * H + j) * D,
                             D);

        int topk_ok = 1, ref_ok = 1;
        p.a.blocks = p.blocks;
        p.a.select = SSA_SELECT_TOPK;
        CHECK(ssa_select_blocks(&p.a, NULL) == SSA_OK, "select: %s", name);
        for (int64_t r = 0; r < T * H; r++) topk_ok &= !clear[r] || same_set(p.blocks + r * K, exact + r * K, K);
        CHECK(topk_ok, "TOPK: %s", name);

        p.a.select = SSA_SELECT_REFERENCE;
        p.a.out = sp.view;
        p.a.pool = l & 1 ? &kept : NULL;
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "sparse: %s", name);
        for (int64_t r = 0; r < T * H; r++) ref_ok &= same_set(p.blocks + r * K, chosen + r * K, K);
        CHECK(ref_ok, "REFERENCE: %s", name);
        p.a.gate = NULL;
        p.a.out = su.view;
        CHECK(ssa_attention(&p.a, SSA_SPARSE, NULL) == SSA_OK, "sparse: %s", name);
        p.a.out = fu.view;
        CHECK(ssa_attention(&p.a, SSA_FULL, NULL) == SSA_OK, "full: %s", name);
        p.a.gate = p.gate;
        p.a.out = p.o.view;
        CHECK(ssa_attention(&p.a, SSA_FULL, NULL) == SSA_OK, "full: %s", name);

        ssa_alignment got = { 0, 0, 0 };
        CHECK(ssa_alignment_loss(&p.o.view, &sp.view, T, HQ, D, 1, &got, 1, &df.view, &ds.view) == SSA_OK, "loss: %s",
              name);
        CHECK(fabs(got.total / (double)*loss - 1) < 5e-7, "loss %.9g, official %.9g: %s", got.total, (double)*loss,
              name);
        tensor_load(&p.o); tensor_load(&sp); tensor_load(&fu); tensor_load(&su); tensor_load(&df); tensor_load(&ds);
        for (int64_t r = 0; r < n_rows; r++)
            for (int h = 0; h < HQ; h++) {
                int64_t at = (r * HQ + h) * D, from = ((int64_t)rows[r] * HQ + h) * D;
                float grad = 0;
                against_ours(&full, p.o.val + from, o_full + at, D);
                against_ours(&sparse, sp.val + from, o_sparse + at, D);
                for (int d = 0; d < D; d++)
                    grad += df.val[from + d] * fu.val[from + d] + ds.val[from + d] * su.val[from + d];
                against_ours(&dg, &grad, align_dg + r * HQ + h, 1);
            }
    }
    against_check(&pool, 2e-7, "pooled keys", name);
    against_check(&full, 5e-7, "full output", name);
    against_check(&sparse, 5e-7, "sparse output", name);
    against_check(&dg, 1e-6 * dg.base.ref_max, "gradient by the gate", name);
    tensor_free(&sp); tensor_free(&fu); tensor_free(&su); tensor_free(&df); tensor_free(&ds);
    free(memory); free(pooled); free(imp); free(of); free(nf); free(clear); free(want); free(f.bytes);
    for (int i = 0; i < f.n_copies; i++) free(f.copies[i]);
    prob_free(&p);
}

void test_golden(void)
{
    static const char *const files[] = { "ssa_b16_s16_t300", "ssa_b16_s16_t777_gqa2", "ssa_b16_s4_t260_d128",
        "ssa_b16_s8_t520", "ssa_b32_s8_t600" };
    for (int i = 0; i < COUNT(files); i++) if (test_some(i, 8)) check_file(files[i]);
}

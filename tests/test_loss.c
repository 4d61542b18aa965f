/* test_loss.c - alignment loss and its gradients, merge, attention sparsity */
#include "oracle.h"

typedef struct {
    int n, heads, dim;
    ssa_type tf, ts, tdf, tds;
    layout lf, ls, ldf, lds;
    float beta, grad_scale, amp;
} loss_case;

static void check_loss(const loss_case *c)
{
    char text[200];
    snprintf(text, sizeof text,
             "%d x %d x %d, %s %s, gradients %s %s, layouts %d %d %d %d, beta %g grad_scale %g amp %g", c->n, c->heads,
             c->dim, type_name(c->tf), type_name(c->ts), type_name(c->tdf), type_name(c->tds), (int)c->lf, (int)c->ls,
             (int)c->ldf, (int)c->lds, (double)c->beta, (double)c->grad_scale, (double)c->amp);
    tensor f, s, df, ds;
    tensor_make(&f, c->tf, c->n, c->heads, c->dim, c->lf);
    tensor_make(&s, c->ts, c->n, c->heads, c->dim, c->ls);
    tensor_make(&df, c->tdf, c->n, c->heads, c->dim, c->ldf);
    tensor_make(&ds, c->tds, c->n, c->heads, c->dim, c->lds);
    tensor_fill(&f, 1, (double)c->amp);
    tensor_fill(&s, 2, (double)c->amp);
    int64_t n = tensor_count(&f);
    for (int64_t i = 0; i < n; i += 7) s.val[i] = f.val[i];              /* some differences are 0 */
    tensor_store(&s);
    double *want_f = xalloc(n, sizeof *want_f), *want_s = xalloc(n, sizeof *want_s);
    ssa_alignment want, got, none = { -1, -2, -3 };
    o_loss(f.val, s.val, n, (double)c->beta, &want, (double)c->grad_scale, want_f, want_s);
    two_x xf = { 0 }, xs = { 0 };
    for (int64_t i = 0; i < n; i++) {
        float d = f.val[i] - s.val[i], g = fabsf(d) < c->beta ? d / c->beta : (float)((d > 0) - (d < 0));
        two_x_base(&xf, want_f[i], (double)(g / (float)n * c->grad_scale));
        two_x_base(&xs, want_s[i], (double)(-g / (float)n * c->grad_scale));
    }
    FOR_LEVELS(l) {
        got = none;
        tensor_paint(&df); tensor_paint(&ds);
        CHECK(ssa_alignment_loss(&f.view, &s.view, c->n, c->heads, c->dim, c->beta, &got, c->grad_scale, &df.view,
                                 &ds.view)
                  == SSA_OK,
              "status: %s", text);
        CHECK(fabs(got.sparsity - want.sparsity) <= 5e-8 * want.sparsity
                  && fabs(got.commitment - want.commitment) <= 5e-8 * want.commitment
                  && fabs(got.total - want.total) <= 5e-8 * want.total,
              "loss %.12g %.12g %.12g, oracle %.12g each: %s", got.sparsity, got.commitment, got.total, want.sparsity,
              text);
        CHECK(tensor_gaps_ok(&df) && tensor_gaps_ok(&ds), "bytes between the rows of the gradients: %s", text);
        tensor_load(&df); tensor_load(&ds);
        for (int64_t i = 0; i < n; i++) {
            two_x_ours(&xf, l, want_f[i], (double)df.val[i]);
            two_x_ours(&xs, l, want_s[i], (double)ds.val[i]);
        }
        uint64_t hf = bytes_hash(df.mem, df.mem_bytes, 1), hs = bytes_hash(ds.mem, ds.mem_bytes, 1);

        ssa_alignment alone = none;                                      /* each output alone gives the same bits */
        CHECK(ssa_alignment_loss(&f.view, &s.view, c->n, c->heads, c->dim, c->beta, &alone, c->grad_scale, NULL, NULL)
                      == SSA_OK
                  && !memcmp(&alone, &got, sizeof got),
              "loss alone: %s", text);
        tensor_paint(&df); tensor_paint(&ds);
        CHECK(ssa_alignment_loss(&f.view, &s.view, c->n, c->heads, c->dim, c->beta, NULL, c->grad_scale, &df.view, NULL)
                      == SSA_OK
                  && bytes_hash(df.mem, df.mem_bytes, 1) == hf,
              "d_full alone: %s", text);
        CHECK(ssa_alignment_loss(&f.view, &s.view, c->n, c->heads, c->dim, c->beta, NULL, c->grad_scale, NULL, &ds.view)
                      == SSA_OK
                  && bytes_hash(ds.mem, ds.mem_bytes, 1) == hs,
              "d_sparse alone: %s", text);

        tensor wide;                                                     /* narrow gradients: the f32 ones, rounded */
        int rounded = 1;
        tensor_make(&wide, SSA_F32, c->n, c->heads, c->dim, LAY_ZERO);
        CHECK(ssa_alignment_loss(&f.view, &s.view, c->n, c->heads, c->dim, c->beta, NULL, c->grad_scale, &wide.view,
                                 NULL) == SSA_OK, "f32 gradient: %s", text);
        tensor_load(&wide);
        tensor_load(&df);
        for (int64_t i = 0; i < n; i++) {
            unsigned char bytes[4];
            type_put(c->tdf, bytes, (double)wide.val[i]);
            rounded &= type_get(c->tdf, bytes) == df.val[i];
        }
        CHECK(rounded, "gradients are rounded to nearest even: %s", text);
        tensor_free(&wide);

        if (c->tf == c->tdf && c->ts == c->tds) {                        /* in place */
            ssa_view vf = f.view, vs = s.view;
            tensor_load(&df); tensor_load(&ds);
            CHECK(ssa_alignment_loss(&f.view, &s.view, c->n, c->heads, c->dim, c->beta, &alone, c->grad_scale, &vf, &vs)
                          == SSA_OK
                      && !memcmp(&alone, &got, sizeof got),
                  "in place: %s", text);
            float *kept = xalloc(2 * n, sizeof *kept);
            memcpy(kept, f.val, (size_t)n * sizeof *kept);
            memcpy(kept + n, s.val, (size_t)n * sizeof *kept);
            tensor_load(&f); tensor_load(&s);
            CHECK(!memcmp(f.val, df.val, (size_t)n * sizeof *kept) && !memcmp(s.val, ds.val, (size_t)n * sizeof *kept),
                  "in place gives the same gradients: %s", text);
            CHECK(tensor_gaps_ok(&f) && tensor_gaps_ok(&s), "in place, bytes between the rows: %s", text);
            memcpy(f.val, kept, (size_t)n * sizeof *kept);
            memcpy(s.val, kept + n, (size_t)n * sizeof *kept);
            tensor_store(&f); tensor_store(&s);
            free(kept);
        }
    }
    two_x_check(&xf, c->tdf, "d_full", text, __FILE__, __LINE__);
    two_x_check(&xs, c->tds, "d_sparse", text, __FILE__, __LINE__);
    tensor_free(&f); tensor_free(&s); tensor_free(&df); tensor_free(&ds);
    free(want_f); free(want_s);
}

/* The oracle's gradients are the derivatives of its loss. */
static void check_oracle_gradient(void)
{
    static const double betas[] = { 0, 0.5, 1, 2 };
    float f[24], s[24];
    rng r = { 3, 0 };
    for (int b = 0; b < COUNT(betas); b++) {
        for (int i = 0; i < 24; i++) { f[i] = rng_f(&r) * 2; s[i] = rng_f(&r) * 2; }
        double df[24], ds[24], h = 1.0 / 4096;
        ssa_alignment x, up, down;
        o_loss(f, s, 24, betas[b], &x, 1, df, ds);
        for (int i = 0; i < 24; i++) {
            float keep = f[i];
            f[i] = keep + (float)h; o_loss(f, s, 24, betas[b], &up, 1, NULL, NULL);
            f[i] = keep - (float)h; o_loss(f, s, 24, betas[b], &down, 1, NULL, NULL);
            f[i] = keep;
            CHECK(fabs((up.sparsity - down.sparsity) / (2 * h) - df[i]) < 1e-4 && df[i] == -ds[i],
                  "beta %g element %d: %g", betas[b], i, df[i]);
        }
    }
}

/* Halves merged are the whole; an empty side changes nothing; three parts in either order. */
static void check_merge(int rows, int dim, int n_kv, double amp)
{
    shape s = { .name = "merge", .HQ = rows, .H = 1, .D = 16, .DV = dim, .n_q = 1, .n_kv = n_kv, .q_pos = -1,
                .noncausal = 1, .amp = (float)amp, .no_gate = 1, .seed = 8 };
    prob p;
    o_result r;
    two_x out = { 0 }, lse = { 0 };
    prob_make(&p, &s);
    int64_t n = (int64_t)rows * dim;
    int cut[4] = { 0, n_kv / 3, n_kv * 2 / 3, n_kv };
    o_call c;
    o_call_of(&c, &p);
    float *no = xalloc(2 * dim, sizeof *no), nl = 0, ml = 0;
    for (int rep = 0; rep < two_x_reps(rows, 1); rep++) {
        two_x unused = { 0 };
        prob_fill(&p, 20 * (uint64_t)rep);
        o_solve(&p, NULL, &r, &unused, &unused);                             /* the naive program merges as well: */
        for (int h = 0; h < rows; h++) {
            for (int part = 0; part < 3; part++) {
                o_call part_c = c;
                part_c.n_kv = cut[part + 1] - cut[part];
                part_c.k += cut[part] * c.D; part_c.v += cut[part] * c.DV;
                n_row(&part_c, 0, h, NULL, 0, SSA_F32, no + dim, &nl);
                if (part == 0) { memcpy(no, no + dim, (size_t)dim * sizeof *no); ml = nl; continue; }
                float top = ml > nl ? ml : nl, wa = expf(ml - top), wb = expf(nl - top);
                for (int d = 0; d < dim; d++) no[d] = (wa * no[d] + wb * no[dim + d]) / (wa + wb);
                ml = top + logf(wa + wb);
            }
            for (int d = 0; d < dim; d++) two_x_base(&out, r.out[h * dim + d], (double)no[d]);
            two_x_base(&lse, r.lse[h], (double)ml);
        }
        FOR_LEVELS(l) {
            float *o[4], *e[4];
            for (int part = 0; part < 4; part++) {
                o[part] = xalloc(n, sizeof(float));
                e[part] = xalloc(rows, sizeof(float));
                ssa_attn a = p.a;
                a.n_kv = part < 3 ? cut[part + 1] - cut[part] : 0;           /* part 3 has no keys */
                a.k.data = (char *)p.k.view.data + (part < 3 ? cut[part] : 0) * p.k.ts;
                a.v.data = (char *)p.v.view.data + (part < 3 ? cut[part] : 0) * p.v.ts;
                a.out.data = o[part]; a.lse = e[part];
                CHECK(ssa_attention(&a, SSA_FULL, NULL) == SSA_OK, "part");
            }
            float *first = xalloc(n + rows, sizeof(float)), *b_before = xalloc(n, sizeof(float));
            memcpy(first, o[0], (size_t)n * 4); memcpy(first + n, e[0], (size_t)rows * 4);
            ssa_merge(o[0], e[0], o[3], e[3], rows, dim);                    /* b empty */
            CHECK(!memcmp(first, o[0], (size_t)n * 4) && !memcmp(first + n, e[0], (size_t)rows * 4),
                  "an empty b changes nothing");
            ssa_merge(o[3], e[3], o[0], e[0], rows, dim);                    /* a empty */
            CHECK(!memcmp(o[3], o[0], (size_t)n * 4) && !memcmp(e[3], e[0], (size_t)rows * 4), "an empty a becomes b");
            memcpy(b_before, o[1], (size_t)n * 4);
            ssa_merge(o[0], e[0], o[1], e[1], rows, dim);
            CHECK(!memcmp(b_before, o[1], (size_t)n * 4), "b is unchanged");
            ssa_merge(o[0], e[0], o[2], e[2], rows, dim);
            for (int64_t i = 0; i < n; i++) two_x_ours(&out, l, r.out[i], (double)o[0][i]);
            for (int h = 0; h < rows; h++) two_x_ours(&lse, l, r.lse[h], (double)e[0][h]);
            ssa_merge(o[2], e[2], o[1], e[1], rows, dim);                    /* the other order: (2 + 1) + 0 */
            ssa_merge(o[2], e[2], o[3], e[3], rows, dim);
            for (int64_t i = 0; i < n; i++) two_x_ours(&out, l, r.out[i], (double)o[2][i]);
            for (int h = 0; h < rows; h++) two_x_ours(&lse, l, r.lse[h], (double)e[2][h]);
            uint64_t before = bytes_hash(o[0], n * 4, bytes_hash(e[0], rows * 4, 1));
            ssa_merge(o[0], e[0], o[1], e[1], 0, dim);
            ssa_merge(o[0], e[0], o[1], e[1], -5, dim);
            ssa_merge(o[0], e[0], o[1], e[1], rows, 0);
            ssa_merge(o[0], e[0], o[1], e[1], rows, -1);
            ssa_merge(o[0], NULL, o[1], e[1], rows, dim);
            ssa_merge(o[0], e[0], NULL, e[1], rows, dim);
            ssa_merge(o[0], e[0], o[1], NULL, rows, dim);
            ssa_merge(NULL, e[0], o[1], e[1], rows, dim);
            CHECK(before == bytes_hash(o[0], n * 4, bytes_hash(e[0], rows * 4, 1)),
                  "NULL and sizes below 1 do nothing");
            for (int part = 0; part < 4; part++) { free(o[part]); free(e[part]); }
            free(first); free(b_before);
        }
        o_result_free(&r);
    }
    free(no);
    two_x_check(&out, SSA_F32, "merged out", shape_text(&p.s), __FILE__, __LINE__);
    two_x_check(&lse, SSA_F32, "merged lse", shape_text(&p.s), __FILE__, __LINE__);
    prob_free(&p);
}

static void check_merge_by_hand(void)
{
    FOR_LEVELS(l) {
        const float inf = (float)INFINITY;
        float a[8] = { 1, 2, 3, 4, 0, 0, 5, 6 }, la[4] = { 0, 2, -inf, 1000 };
        float b[8] = { 3, 4, 0, 0, 0, 0, 1, 1 }, lb[4] = { 0, -inf, -inf, -1000 };
        ssa_merge(a, la, b, lb, 4, 2);
        CHECK(fabsf(a[0] - 2) < 3e-7f && fabsf(a[1] - 3) < 3e-7f && fabsf(la[0] - 0.693147181f) < 1e-7f,
              "equal weights: %g %g %.9g", (double)a[0], (double)a[1], (double)la[0]);
        CHECK(a[2] == 3 && a[3] == 4 && la[1] == 2, "b empty: %g %g %g", (double)a[2], (double)a[3], (double)la[1]);
        CHECK(a[4] == 0 && a[5] == 0 && la[2] == -inf, "both empty: %g %g %g", (double)a[4], (double)a[5],
              (double)la[2]);
        CHECK(a[6] == 5 && a[7] == 6 && la[3] == 1000, "b negligible: %g %g %g", (double)a[6], (double)a[7],
              (double)la[3]);
        /* what an empty row holds does not matter */
        float c[2] = { 7, 8 }, lc[1] = { -inf }, d[2] = { 1, 2 }, ld[1] = { 3 };
        ssa_merge(c, lc, d, ld, 1, 2);
        float n[2] = { 1, 2 }, ln[1] = { 3 }, x[2] = { NAN, inf }, lx[1] = { -inf };
        ssa_merge(n, ln, x, lx, 1, 2);
        CHECK(n[0] == 1 && n[1] == 2 && ln[0] == 3, "b empty, full of NaN: %g %g %g", (double)n[0], (double)n[1],
              (double)ln[0]);
        CHECK(c[0] == 1 && c[1] == 2 && lc[0] == 3, "a empty: %g %g %g", (double)c[0], (double)c[1], (double)lc[0]);
    }
}

static void check_sparsity(void)
{
    const float inf = (float)INFINITY;
    float s[70], f[70], got[71];
    rng r = { 12, 0 };
    for (int i = 0; i < 70; i++) { f[i] = rng_f(&r) * 50; s[i] = f[i] - fabsf(rng_f(&r)) * (i % 3 ? 1.f : 40.f); }
    s[3] = f[3];
    s[4] = -inf;
    s[5] = f[5] = -inf;
    s[6] = 500.25f; f[6] = 500.5f;
    FOR_LEVELS(l) {
        two_x x = { 0 };
        for (int i = 0; i < 71; i++) got[i] = -7;
        ssa_attention_sparsity(s, f, 70, got);
        for (int i = 0; i < 70; i++) {
            if (i == 5) continue;
            double want = exp((double)s[i] - (double)f[i]);
            two_x_base(&x, want, (double)expf(s[i] - f[i]));
            two_x_ours(&x, l, want, (double)got[i]);
        }
        CHECK(x.ours[l] <= two_x_bound(&x, l, SSA_F32), "sparsity: %.3g over %.3g", x.ours[l],
              two_x_bound(&x, l, SSA_F32));
        CHECK(got[3] == 1 && got[4] == 0 && got[5] == 1 && got[70] == -7,
              "all, none, nothing visible, past the end: %.9g %g %g %g", (double)got[3], (double)got[4], (double)got[5],
              (double)got[70]);
        float in_place[70];
        memcpy(in_place, s, sizeof s);
        ssa_attention_sparsity(in_place, f, 70, in_place);
        CHECK(!memcmp(in_place, got, sizeof s), "in place of lse_sparse");
        memcpy(in_place, f, sizeof f);
        ssa_attention_sparsity(s, in_place, 70, in_place);
        CHECK(!memcmp(in_place, got, sizeof s), "in place of lse_full");
        ssa_attention_sparsity(NULL, f, 70, in_place);
        ssa_attention_sparsity(s, NULL, 70, in_place);
        ssa_attention_sparsity(s, f, 70, NULL);
        ssa_attention_sparsity(f, s, 0, in_place); ssa_attention_sparsity(f, s, -1, in_place);
        CHECK(!memcmp(in_place, got, sizeof s), "NULL and sizes below 1 do nothing");
    }
}

void test_loss(void)
{
    static const ssa_type types[] = { SSA_F32, SSA_F16, SSA_BF16 };
    static const float betas[] = { 0, 0.5f, 1, 2 };
    check_oracle_gradient();
    for (int i = 0; i < 81; i++) {
        if (!test_some(i, 7)) continue;
        loss_case c = { 3 + i % 5, 1 + i % 3, 1 + i * 5 % 67, types[i % 3], types[i / 3 % 3], types[i / 9 % 3],
                        types[i / 27], (layout)(i % 5), (layout)(i / 2 % 5), (layout)(i / 3 % 5), (layout)(i / 5 % 5),
                        betas[i % 4], i % 2 ? 1.f : i % 3 ? 65536.f : -3.5f, i % 5 ? 1.f : 4.f };
        check_loss(&c);
    }
    for (int i = 0; i < 24; i++) {                                       /* gradients of the inputs' types: in place */
        ssa_type t = types[i % 3];
        layout y = (layout)(i % 5);
        loss_case c = { 17, 3, 33 + i, t, t, t, t, y, y, y, y, betas[i % 4], 100, 2 };
        check_loss(&c);
    }
    loss_case million = { 1000, 16, 64, SSA_F32, SSA_F32, SSA_F32, SSA_F32, LAY_ZERO, LAY_ZERO, LAY_ZERO, LAY_ZERO, 1,
                          10, 0.5f };
    if (test_brief) million.n = 3;
    check_loss(&million);
    million.beta = 0.25f; million.amp = 3; million.tf = SSA_BF16;
    check_loss(&million);
    million.amp = 1e-3f; million.beta = 1; million.tf = SSA_F32; million.grad_scale = 1e6f;
    check_loss(&million);

    ssa_alignment loss = { 1, 2, 3 };
    float x = 5, y = 7;
    ssa_view vx = { &x, SSA_F32, 0, 0 }, vy = { &y, SSA_F32, 0, 0 };
    CHECK(ssa_alignment_loss(&vx, &vy, 0, 1, 1, 1, &loss, 1, NULL, NULL) == SSA_OK && loss.sparsity == 0
              && loss.commitment == 0 && loss.total == 0,
          "no elements: all 0");
    CHECK(ssa_alignment_loss(&vx, &vy, 1, 1, 1, 1, &loss, 1, NULL, NULL) == SSA_OK && loss.sparsity == 1.5
              && loss.total == 3,
          "one element by hand");
    static const int rows[] = { 1, 2, 7, 16, 33 }, dims[] = { 1, 5, 16, 31, 64, 100 };
    for (int i = 0; i < 30; i++) if (test_some(i, 29)) check_merge(rows[i % 5], dims[i % 6], 30 + 9 * i, i % 3 ? 1 : 6);
    check_merge_by_hand();
    check_sparsity();
}

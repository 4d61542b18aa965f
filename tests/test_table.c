/* test_table.c - every entry of every level's table against the scalar entry, which is its definition: the same bits
 * where the entry only moves, converts, adds in a fixed order or multiplies once; within the rounding bound of its sum
 * elsewhere. Odd sizes, odd addresses, rows that end at a page that traps. Uses a private copy of the library, to reach
 * its inside. */
#define SSA_STATIC 1
#define SSA_IMPLEMENTATION
#include "test.h"

#define EPS 5.9604644775390625e-8 /* half an ulp at 1 */

static const int dims[] = { 1,  2,  3,  6,  7,  8,  9,   15,  16,  17,  24,  31,  32,   33,
                            34, 40, 63, 64, 65, 80, 96, 100, 127, 128, 160, 192, 1023, 1024 };
static guard pages;
static rng   r;
static const char *level;

static unsigned char *at_end(int64_t n) { return (unsigned char *)guard_at(&pages, n, 1); }

/* Any float, NaN and infinity and subnormal included. */
static float any_float(void)
{
    uint32_t u = (uint32_t)rng_u64(&r);
    float f;
    if (rng_int(&r, 0, 7) == 0) u |= 0x7f800000u;
    if (rng_int(&r, 0, 7) == 0) u &= 0x807fffffu;
    if (rng_int(&r, 0, 7) == 0) u = (u & 0xbfffffffu) | 0x38000000u; /* near 1 */
    if (rng_int(&r, 0, 7) == 0) u = (u & 0xb7ffffffu) | 0x30000000u; /* subnormal in f16, and less */
    if (rng_int(&r, 0, 3) == 0) u &= 0xffff8000u;
    memcpy(&f, &u, 4);
    return f;
}

/* n rows of the type, stride bytes apart, the last one ending at the trap. */
static unsigned char *make_rows(ssa_type t, int64_t n, int d, int64_t stride, int wild)
{
    int64_t row = row_bytes(t, d), span = (n - 1) * stride + row;
    unsigned char *p = at_end(span);
    for (int64_t j = 0; t == SSA_Q8_0 && j < n; j++) /* any bytes; tame: a scale near 1 / 127 */
        for (int64_t i = 0; i < row; i++)
            p[j * stride + i] =
                (unsigned char)(wild || i % 34 > 1 ? rng_u64(&r) : i % 34 ? 0x20u + (rng_u64(&r) & 0x80u) : 0x08u);
    for (int64_t j = 0; t != SSA_Q8_0 && j < n; j++)
        for (int e = 0; e < d; e++) {
            uint16_t h = (uint16_t)rng_u64(&r);
            float f = wild ? any_float() : rng_f(&r);
            if (!wild) type_put(t, p + j * stride + e * type_size(t), (double)f);
            else
                memcpy(p + j * stride + e * type_size(t), t == SSA_F32 ? (void *)&f : (void *)&h, (size_t)type_size(t));
        }
    return p;
}

static int same_bits(const float *a, const float *b,
                     int64_t n) /* a NaN equals any NaN: a signalling one may be made quiet */
{
    for (int64_t i = 0; i < n; i++) if (!(isnan(a[i]) && isnan(b[i])) && memcmp(&a[i], &b[i], 4) != 0) return 0;
    return 1;
}

/* What block selection asks of n numbers, some of them equal, some NaN: maxima of parts, who is above a bar, and of the
 * first whole vectors, without NaN, the rank of each. */
static void check_ranking(const ssa__table *t, const ssa__table *def, int n, int from)
{
    int32_t *got = xalloc(SSA__RUNNERS, 4), *want = xalloc(SSA__RUNNERS, 4), m, most;
    float *x = (float *)(void *)at_end(n * 4), top[SSA__TOPS], top_want[SSA__TOPS];
    for (int i = 0; i < n; i++) x[i] = rng_int(&r, 0, 9) ? (float)rng_int(&r, 0, 5) - 2 : (float)NAN;
    for (int bar = -3; bar <= 2; bar++) {
        m = t->all_above(x, from, n, (float)bar, got);
        most = def->all_above(x, from, n, (float)bar, want);
        CHECK(m == most || ((m < 0 || most < 0) && m + most >= SSA__RUNNERS - 2 * SSA__LANES_MAX), "%s finds %d of %d",
              level, m, most);
        CHECK(m < 0 || most < 0 || memcmp(got, want, (size_t)m * 4) == 0, "%s all above %d, n %d", level, bar, n);
    }
    t->tops(x, n, top);
    def->tops(x, n, top_want);
    CHECK(memcmp(top, top_want, sizeof top) == 0, "%s tops n %d", level, n);
    for (int i = 0; i < n; i++) if (isnan(x[i])) x[i] = -FLT_MAX;
    m = n < SSA__RUNNERS ? n / SSA__LANES_MAX * SSA__LANES_MAX : SSA__RUNNERS;
    t->ranks(x, m, got);
    def->ranks(x, m, want);
    CHECK(memcmp(got, want, (size_t)m * 4) == 0, "%s ranks n %d", level, m);
    free(got); free(want);
}

static void test_rows(const ssa__table *t, const ssa__table *def)
{
    static float a[4 * 1100], b[4 * 1100], src[1024];
    for (int type = 0; type < SSA__TYPES; type++)
        for (int i = 0; i < COUNT(dims); i++) {
            int d = dims[i], n = rng_int(&r, 1, 4), ld = d + rng_int(&r, 0, 1) * rng_int(&r, 0, 17);
            int64_t bytes = row_bytes((ssa_type)type, d), stride = bytes + rng_int(&r, 0, 1) * rng_int(&r, 1, 9);
            if (type == SSA_Q8_0 && d % 32) continue;
            const unsigned char *rows = make_rows((ssa_type)type, n, d, stride, 1);
            for (int64_t j = 0; j < 4 * 1100; j++) a[j] = b[j] = 7.0f;
            t->pack[type](a, ld, rows, stride, n, d);
            def->pack[type](b, ld, rows, stride, n, d);
            CHECK(same_bits(a, b, 4 * 1100), "%s pack %s d %d ld %d n %d", level, type_name((ssa_type)type), d, ld, n);

            rows = make_rows((ssa_type)type, n, d, stride, 0);
            for (int e = 0; e < 1024; e++) a[e] = b[e] = rng_f(&r);
            t->pool[type](a, rows, stride, n, d);
            def->pool[type](b, rows, stride, n, d);
            CHECK(same_bits(a, b, 1024), "%s pool %s d %d n %d", level, type_name((ssa_type)type), d, n);

            unsigned char *dst = at_end(bytes), want[4096];
            for (int e = 0; e < d; e++) src[e] = any_float();
            t->unpack[type](dst, src, d);
            def->unpack[type](want, src, d);
            CHECK(memcmp(dst, want, (size_t)bytes) == 0, "%s unpack %s d %d", level,
                  type_name((ssa_type)type), d);
        }
    for (int n = 0; n < 200; n++) {
        float *x = (float *)(void *)at_end(n * 4);
        int from = rng_int(&r, 0, n), high = rng_int(&r, 0, 2 * n + 1);
        for (int i = 0; i < n; i++) x[i] = i == high ? 2.0f : rng_int(&r, 0, 3) ? 1.0f : (float)NAN;
        CHECK(t->above(x, from, n, 1.0f) == (high >= from && high < n ? high : n), "%s above n %d from %d", level, n,
              from);
        check_ranking(t, def, n, from);
        float top_a[SSA__TOPS], top_b[SSA__TOPS], low = rng_int(&r, 0, 1) ? -5.0f : 0.0f;
        for (int i = 0; i < n; i++) x[i] = rng_int(&r, 0, 3) ? rng_f(&r) + low : (float)NAN;
        t->tops(x, n, top_a);
        for (int k = 0; k < SSA__TOPS; k++) {
            top_b[k] = -FLT_MAX;
            for (int i = k; i < n; i += SSA__TOPS) if (x[i] > top_b[k]) top_b[k] = x[i];
        }
        CHECK(same_bits(top_a, top_b, SSA__TOPS), "%s tops n %d", level, n);
        for (int i = 0; i < n; i++) x[i] = rng_f(&r);
        for (int i = 0; i < n + 16; i++) a[i] = b[i] = rng_f(&r);
        t->axpy(a, 0.37f, x, n);
        def->axpy(b, 0.37f, x, n);
        int bad = !same_bits(a + n, b + n, 16);
        for (int i = 0; i < n; i++) bad += !(fabs((double)a[i] - (double)b[i]) <= 4 * EPS);
        CHECK(bad == 0, "%s axpy n %d", level, n);
    }
}

/* Every half, widened; and what rounds to it: itself, ties, and what is next to these. */
static void test_every_half(const ssa__table *t, const ssa__table *def)
{
    static const uint32_t more[] = { 0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001 };
    static uint16_t h[1024], got[1024], want[1024];
    static float a[1024], b[1024];
    for (int type = SSA_F16; type <= SSA_BF16; type++)
        for (int i = 0, bad; i < 65536; i += 1024) {
            for (int j = 0; j < 1024; j++) h[j] = (uint16_t)(i + j);
            t->pack[type](a, 1024, (const unsigned char *)h, 2048, 1, 1024);
            def->pack[type](b, 1024, (const unsigned char *)h, 2048, 1, 1024);
            bad = !same_bits(a, b, 1024);
            for (int k = 0; k < COUNT(more); k++) {
                for (int j = 0; j < 1024; j++) {
                    uint32_t u;
                    memcpy(&u, &b[j], 4);
                    u += more[k];
                    memcpy(&a[j], &u, 4);
                }
                t->unpack[type]((unsigned char *)got, a, 1024);
                def->unpack[type]((unsigned char *)want, a, 1024);
                bad += memcmp(got, want, sizeof got) != 0;
            }
            CHECK(bad == 0, "%s %s, the 1024 halves from %d on", level, type_name((ssa_type)type), i);
        }
}

/* Every half as terms of bf16, which add up to it, and are the same beside other halves as beside zeros. */
static void test_every_term(const ssa__table *t)
{
    static uint16_t h[1024], terms[2][1024], alone[2][1024 * 32];
    if (t->take[SSA_F16] == NULL) return;
    for (int i = 0, bad = 0; i < 64; i++, bad = 0) {
        for (int j = 0; j < 1024; j++) h[j] = (uint16_t)(64 * j + i);
        t->take[SSA_F16](terms[0], 1024, 1024, (const unsigned char *)h, 2048, 1, 1024);
        t->take[SSA_F16](alone[0], 1024 * 32, 32, (const unsigned char *)h, 2, 1024, 1);
        for (int j = 0; j < 1024; j++) {
            const double want = (double)type_get(SSA_F16, &h[j]), hi = (double)type_get(SSA_BF16, &terms[0][j]),
                         lo = (double)type_get(SSA_BF16, &terms[1][j]);
            bad += isfinite(want) ? hi + lo != want : isnan(want) ? !isnan(hi) : hi != want;
            bad += alone[0][j * 32] != terms[0][j] || alone[1][j * 32] != terms[1][j] || alone[0][j * 32 + 1] != 0;
        }
        CHECK(bad == 0, "%s, terms of the halves %d + 64 j", level, i);
    }
}

/* The best of many candidates, most of them equal to others: who is better, or as good and earlier, than all but `most`
 * of the rest. */
static void test_best(const ssa__table *t)
{
    enum { MOST = 40 };
    float x[700], key[MOST];
    int32_t index[MOST];
    for (int rep = 0; rep < 400; rep++) {
        int from = rng_int(&r, 0, 20), to = rng_int(&r, from, 700), most = rng_int(&r, 1, MOST), wrong = 0, n;
        int values = rng_int(&r, 1, 60), clear = rng_int(&r, 0, 3) == 0;
        for (int i = 0; i < 700; i++) {
            x[i] = clear ? rng_f(&r) + 1.5f : (float)rng_int(&r, 0, values) * 0.25f;
            if (values % 4 == 0 && rng_int(&r, 0, 9) == 0) x[i] = (float)NAN;
        }
        n = ssa__best(t, x, NULL, from, to, most, key, index);
        for (int j = 0; j < n; j++) {
            int better = 0, b = index[j];
            for (int i = from; i < to; i++)
                better += i != b && !isnan(x[i]) && (isnan(x[b]) || x[i] > x[b] || (!(x[i] < x[b]) && i < b));
            for (int i = from; i < b; i++) better += isnan(x[b]) && isnan(x[i]);
            wrong += b < from || b >= to || better >= most;
            for (int i = 0; i < j; i++) wrong += index[i] == b;
        }
        CHECK(n == (to - from < most ? to - from : most) && wrong == 0, "%s best %d of %d to %d: %d, %d of them wrong",
              level, most, from, to, n, wrong);
    }
}

/* tanh against that of doubles, from subnormal numbers to infinity; a ramp; biases in both layouts, and what they leave
 * alone. */
static void test_terms_of(const ssa__table *t, const ssa__table *def)
{
    static float a[(SSA__PIECE + 1) * 80], b[(SSA__PIECE + 1) * 80], bias[SSA__LANES_MAX * SSA__PIECE];
    double worst = 0;
    for (int n = 1; n < 200; n++) {
        float *x = (float *)(void *)at_end(n * 4), cap = n % 3 ? 50.0f : 0.01f, factor = n % 5 ? 0.7f / cap : 0.02f;
        int bad = 0;
        for (int i = 0; i < n; i++) x[i] = a[i] = rng_f(&r) * ldexpf(1, rng_int(&r, n % 7 ? -8 : -60, 9));
        if (n > 4) { x[0] = a[0] = INFINITY; x[1] = a[1] = -INFINITY; x[2] = a[2] = NAN; x[3] = a[3] = 0; }
        t->cap(x, n, factor, cap);
        for (int i = 0; i < n; i++) {
            double want = (double)cap * tanh((double)factor * (double)a[i]);
            if (isnan(want)) bad += !isnan(x[i]);
            else if (fabs((double)x[i] - want) > worst * fabs(want)) worst = fabs((double)x[i] - want) / fabs(want);
        }
        CHECK(bad == 0, "%s cap of %d: NaN stays", level, n);

        x = (float *)(void *)at_end(n * 4);
        float slope = rng_f(&r), first = (float)rng_int(&r, -1000000, 1000);
        for (int j = bad = 0; j < n; j++) x[j] = a[j] = j % 7 == 3 ? -INFINITY : rng_f(&r);
        t->ramp(x, slope, first, n);
        for (int j = 0; j < n; j++) {
            double want = (double)a[j] + (double)slope * ((double)first + j);
            bad += isinf(a[j]) ? x[j] != a[j] : !(fabs((double)x[j] - want) <= 2 * EPS * (fabs(want) + 1));
        }
        CHECK(bad == 0, "%s ramp of %d from %g by %g: %d off", level, n, (double)first, (double)slope, bad);

        int keys = 1 + n % SSA__PIECE, rows = 1 + n % SSA__LANES_MAX, narrow = n / 3 % 2,
            wide = SSA__LANES_MAX * (1 + n % 4);
        int64_t key_step = narrow ? 1 : wide, row_step = narrow ? SSA__PIECE + n % 3 : 1;
        float scale = n % 4 ? 1.0f : 0.3f, unit = n % 6 ? 1.0f : 1.5f;
        for (int i = 0; i < COUNT(a); i++) a[i] = b[i] = i % 31 ? 3 * rng_f(&r) : (float)NAN;
        for (int i = 0; i < COUNT(bias); i++) {
            int what = rng_int(&r, 0, 9);
            bias[i] = what == 0 ? -INFINITY : what == 1 ? -FLT_MAX : what == 2 && n % 2 ? (float)NAN : rng_f(&r);
        }
        t->bias(a, key_step, row_step, scale, unit, bias, SSA__PIECE, keys, rows);
        def->bias(b, key_step, row_step, scale, unit, bias, SSA__PIECE, keys, rows);
        bad = 0;
        for (int i = 0; i < COUNT(a); i++) { /* rows side by side: up to whole vectors of them may be written */
            int64_t key = narrow ? i % row_step : i / key_step, row = narrow ? i / row_step : i % key_step;
            if (!narrow && key < keys && row >= rows && row < SSA__LANES_MAX) continue;
            double got = (double)a[i], want = (double)b[i];
            bad += isnan(want)   ? !isnan(got)
                   : isinf(want) ? got != want
                                 : !(fabs(got - want) <= 4 * EPS * (fabs(want) + 3));
            if (key >= keys || row >= rows) bad += !same_bits(&a[i], &b[i], 1);
            else if (isinf(bias[row * SSA__PIECE + key])) bad += got != -INFINITY;
            else if (bias[row * SSA__PIECE + key] < -1e38f && !isnan(want)) bad += !(got > -1.6e38 && got < -0.9e38);
        }
        CHECK(bad == 0, "%s bias of %d keys, %d rows, steps %d %d: %d off", level, keys, rows, (int)key_step,
              (int)row_step, bad);

        for (int i = 0; i < COUNT(a); i++) a[i] = b[i] = rng_f(&r);
        memset(bias, 0, sizeof bias);
        t->bias(a, key_step, row_step, scale, unit, NULL, SSA__PIECE, keys, rows);
        t->bias(b, key_step, row_step, scale, unit, bias, SSA__PIECE, keys, rows);
        bad = 0;
        for (int i = 0; i < COUNT(a); i++) {
            int64_t key = narrow ? i % row_step : i / key_step, row = narrow ? i / row_step : i % key_step;
            bad += (key >= keys || narrow || row < rows || row >= SSA__LANES_MAX) && !same_bits(&a[i], &b[i], 1);
        }
        CHECK(bad == 0, "%s no bias is as one of zeros, %d keys, %d rows, steps %d %d: %d off", level, keys, rows,
              (int)key_step, (int)row_step, bad);
    }
    CHECK(worst < 4e-7, "%s cap: relative error %.2g", level, worst);
}

/* Two tiles over memory of their own with the same contents: one for the level, one for the definition. */
typedef struct { ssa__tile t; float *mem; } twin;
static ssa_type kv_type; /* of the keys and values that a tile will meet */
enum {
    TWIN_Q = SSA__TILE_ROWS * 1024,
    TWIN_S = (SSA__CHUNK + 2 * SSA__LANES_MAX) * SSA__TILE_ROWS,
    TWIN_ALL = 2 * TWIN_Q + TWIN_S + 1024
};

static unsigned char *work; /* of form q8 */

static void twin_make(twin *w, const twin *like, int narrow, int rows, int dk, int dv)
{
    float *p = w->mem;
    memset(&w->t, 0, sizeof w->t);
    w->t.rows = rows;
    w->t.dk = dk;
    w->t.dv = dv;
    w->t.dk_pad = ssa__round_up(dk, SSA__LANES_MAX);
    w->t.dv_pad = ssa__round_up(dv, SSA__LANES_MAX);
    w->t.ld = narrow ? SSA__CHUNK + SSA__LANES_MAX : ssa__round_up(rows, SSA__LANES_MAX);
    w->t.scale = 0.3f;
    w->t.k_type = w->t.v_type = kv_type;
    w->t.work = work;
    if (like) memcpy(w->mem, like->mem, TWIN_ALL * sizeof(float));
    else for (int i = 0; i < TWIN_ALL; i++) p[i] = rng_f(&r);
    w->t.q = p; p += TWIN_Q;
    w->t.o = p; p += TWIN_Q;
    w->t.s = p; p += TWIN_S;
    w->t.m = p; w->t.l = p + 64; w->t.fix = p + 128;
    for (int i = 0; i < SSA__TILE_ROWS; i++) {
        w->t.m[i] = i % 3 ? -FLT_MAX : 0.25f;
        w->t.l[i] = i % 3 ? 0.0f : 2.0f;
    }
}

static double s_at(const ssa__tile *t, int narrow, int row, int key)
{
    return (double)(narrow ? t->s[row * t->ld + key] : t->s[key * t->ld + row]);
}
static double o_at(const ssa__tile *t, int narrow, int row, int e)
{
    return (double)(narrow ? t->o[row * (int64_t)t->dv_pad + e] : t->o[e * t->ld + row]);
}

static void test_form(const ssa__form *f, const ssa__form *def, int narrow, int rows, int dk, int dv, int n, int type,
                      twin *a, twin *b)
{
    const char *form = narrow ? "narrow" : "wide";
    enum { IMP = (SSA__CHUNK + 3) * SSA__TILE_ROWS + 1 };
    static float rows_a[SSA__TILE_ROWS * 1024], rows_b[SSA__TILE_ROWS * 1024], imp_a[IMP], imp_b[IMP],
        factor[SSA__TILE_ROWS];
    static float old_o[TWIN_Q];
    int32_t limit[SSA__TILE_ROWS];
    float key[1024];
    int at = rng_int(&r, 0, SSA__CHUNK - n), bad = 0, padded = ssa__round_up(rows, SSA__LANES_MAX);
    int64_t stride = row_bytes((ssa_type)type, dk) + (narrow ? rng_int(&r, 0, 5) : 0);
    const unsigned char *k, *v;
    const float *q;
    kv_type = (ssa_type)type;
    twin_make(a, NULL, narrow, rows, dk, dv);
    a->t.q_terms = type == SSA_BF16 ? rng_int(&r, 0, 1) : 0; /* 1: the queries are bf16 */

    memset(rows_a, 0, sizeof rows_a); /* q_prep and qk, against sums in double */
    for (int i = 0; i < rows; i++)
        for (int e = 0; e < dk; e++) {
            float x = rng_f(&r);
            rows_a[i * a->t.dk_pad + e] = a->t.q_terms ? ssa__bf16_to_f32(ssa__f32_to_bf16(x)) : x;
        }
    memcpy(rows_b, rows_a, sizeof rows_a);
    q = rows_b;
    f->q_prep(&a->t, rows_a);
    k = make_rows((ssa_type)type, n, dk, stride, 0);
    f->qk[type](&a->t, k, stride, n, at);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0, mag = 0;
            row_get((ssa_type)type, k + j * stride, key, dk);
            for (int e = 0; e < dk; e++) {
                double x = (double)q[i * a->t.dk_pad + e] * (double)key[e];
                sum += x;
                mag += fabs(x);
            }
            bad += !(fabs(s_at(&a->t, narrow, i, at + j) - sum * (double)0.3f) <= (dk + 2) * EPS * mag);
        }
    CHECK(bad == 0, "%s %s qk %s rows %d dk %d n %d at %d: %d off", level, form, type_name((ssa_type)type), rows, dk, n,
          at, bad);
    f->qk[type](&a->t, k, narrow ? 0 : stride, narrow ? n : 1, at); /* equal keys: equal scores, wherever they stand */
    for (int i = bad = 0; narrow && i < rows; i++)
        for (int j = 1; j < n; j++) bad += !same_bits(a->t.s + i * a->t.ld + at, a->t.s + i * a->t.ld + at + j, 1);
    CHECK(bad == 0, "%s %s qk %s rows %d dk %d n %d: %d equal keys differ", level, form, type_name((ssa_type)type),
          rows, dk, n, bad);
    f->qk[type](&a->t, k, stride, n, at);
    twin_make(b, a, narrow, rows, dk, dv);
    b->t.q = b->mem;
    def->q_prep(&b->t, rows_b);
    def->qk[type](&b->t, k, stride, n, at);
    for (int i = bad = 0; i < rows; i++)
        for (int j = 0; j < n; j++)
            bad += !(fabs(s_at(&a->t, narrow, i, at + j) - s_at(&b->t, narrow, i, at + j)) <= 2 * (dk + 2) * EPS * dk);
    CHECK(bad == 0, "%s scalar %s qk %s rows %d dk %d n %d", level, form, type_name((ssa_type)type), rows, dk, n);

    twin_make(a, NULL, narrow, rows, dk,
              dv); /* softmax: the same scores to both; every third time with limits and a NaN */
    int limited = rng_int(&r, 0, 2) > 0;
    for (int i = 0; i < SSA__TILE_ROWS; i++) limit[i] = i < rows ? rng_int(&r, 0, n) : 0;
    for (int i = 0; i < TWIN_S; i++) a->t.s[i] *= 30.0f;
    if (limited && n > 2) a->t.s[narrow ? 1 : a->t.ld] = (float)NAN; /* row 0, key 1 */
    twin_make(b, a, narrow, rows, dk, dv);
    f->softmax(&a->t, n, limited ? limit : NULL);
    def->softmax(&b->t, n, limited ? limit : NULL);
    for (int i = bad = 0; i < rows; i++) {
        int broken = limited && n > 2 && i == 0 && limit[0] > 1;
        bad += a->t.m[i] != b->t.m[i] || !(fabs((double)a->t.fix[i] - (double)b->t.fix[i]) <= 8 * EPS);
        bad += broken ? !isnan(a->t.l[i])
                      : !(fabs((double)a->t.l[i] - (double)b->t.l[i]) <= (n + 16) * EPS * (double)b->t.l[i]);
        for (int j = 0; j < n; j++) {
            double x = s_at(&a->t, narrow, i, j), y = s_at(&b->t, narrow, i, j);
            /* 8 eps, and a quarter eps per unit of the exponent: log2(e) is itself rounded to f32 */
            double room = (8 + 0.25 * fabs(log(y + 1e-38))) * EPS * y + 1e-37;
            bad += isnan(y) ? !isnan(x) : !(fabs(x - y) <= room) || (limited && j >= limit[i] && x != 0);
        }
    }
    CHECK(bad == 0, "%s %s softmax rows %d n %d %s: %d off", level, form, rows, n, limited ? "limited" : "", bad);

    twin_make(a, NULL, narrow, rows, dk, dv); /* pv; a level may order the dims of o by v's type: o starts level */
    for (int i = 0; i < 2 * TWIN_Q + TWIN_S + 1024; i++) a->mem[i] = fabsf(a->mem[i]);
    for (int i = 0; narrow && i < rows * a->t.dv_pad; i++) a->t.o[i] = a->t.o[i / a->t.dv_pad * a->t.dv_pad];
    twin_make(b, a, narrow, rows, dk, dv);
    memcpy(old_o, a->t.o, sizeof old_o);
    int first = narrow ? rng_int(&r, 0, 1) : 1;
    stride = row_bytes((ssa_type)type, dv) + (narrow ? rng_int(&r, 0, 5) : 0);
    v = make_rows((ssa_type)type, n, dv, stride, 0);
    f->pv[type](&a->t, v, stride, n, at, first);
    if (narrow && f->chunk == 0) { /* in two runs: the same bits */
        int cut = rng_int(&r, 0, n);
        f->pv[type](&b->t, v, stride, cut, at, first);
        f->pv[type](&b->t, v + cut * stride, stride, n - cut, at + cut, 0);
        CHECK(same_bits(a->t.o, b->t.o, (size_t)rows * (size_t)a->t.dv_pad),
              "%s pv %s rows %d dv %d n %d cut at %d", level, type_name((ssa_type)type), rows, dv, n, cut);
        memcpy(b->t.o, old_o, (size_t)rows * (size_t)a->t.dv_pad * sizeof(float));
    }
    def->pv[type](&b->t, v, stride, n, at, first);
    for (int i = 0; i < SSA__TILE_ROWS; i++) factor[i] = 1.0f;
    f->finish(&a->t, factor, rows_a);
    for (int i = bad = 0; i < rows; i++)
        for (int e = 0; e < dv; e++)
            bad += !(fabs((double)rows_a[i * a->t.dv_pad + e] - o_at(&b->t, narrow, i, e)) <=
                     2 * (n + 2) * EPS * (n + 1));
    CHECK(bad == 0, "%s %s pv %s rows %d dv %d n %d first %d: %d off", level, form, type_name((ssa_type)type), rows, dv,
          n, first, bad);

    for (int i = 0; i < SSA__TILE_ROWS; i++) factor[i] = i < rows ? rng_f(&r) : 0.0f; /* finish: one product each */
    kv_type = a->t.v_type = SSA_F32; /* in order */
    twin_make(b, a, narrow, rows, dk, dv);
    f->finish(&a->t, factor, rows_a);
    def->finish(&b->t, factor, rows_b);
    for (int i = bad = 0; i < rows; i++) bad += !same_bits(rows_a + i * a->t.dv_pad, rows_b + i * a->t.dv_pad, dv);
    CHECK(bad == 0, "%s %s finish rows %d dv %d", level, form, rows, dv);

    int lo = rng_int(&r, 0, rows - 1), /* importance: NaN in the other rows must not come through */
        group = rng_int(&r, 1, rng_int(&r, 0, 1) ? rows - lo : 1 + (rows - lo) / 4), lists = (rows - lo) / group,
        hi = lo + group * lists, ld = n + rng_int(&r, 0, 3), all = ld * (lists - 1) + n;
    for (int i = 0; i < padded; i++)
        if (i < lo || i >= hi)
            for (int j = 0; j < n; j++) a->t.s[narrow ? i * a->t.ld + j : j * a->t.ld + i] = (float)NAN;
    twin_make(b, a, narrow, rows, dk, dv);
    for (int j = 0; j <= all; j++) imp_a[j] = imp_b[j] = rng_f(&r);
    f->importance(&a->t, n, lo, group, lists, imp_a, ld);
    def->importance(&b->t, n, lo, group, lists, imp_b, ld);
    for (int j = bad = 0; j <= all; j++)
        bad += !(fabs((double)imp_a[j] - (double)imp_b[j]) <=
                 (j == all || j % ld >= n ? 0 : 2 * (group + 2) * EPS * (group + 1)));
    CHECK(bad == 0, "%s %s importance rows %d n %d lo %d group %d lists %d: %d off", level, form, rows, n, lo, group,
          lists, bad);
}

/* Scores of bf16 queries and pooled keys: as wide's, with either sign of the scale. */
static void test_pairs(const ssa__form *f, int rows, int dk, int n, twin *a)
{
    static uint16_t part[SSA__LANES_MAX * 1024];
    static float q[SSA__TILE_ROWS][1024];
    float key[1024];
    const int at = rng_int(&r, 0, SSA__CHUNK - n);
    const int64_t stride = row_bytes(SSA_BF16, dk) + 2 * rng_int(&r, 0, 1);
    const unsigned char *k = make_rows(SSA_BF16, n, dk, stride, 0);
    int bad = 0;
    kv_type = SSA_BF16;
    twin_make(a, NULL, 0, rows, dk, 1);
    a->t.dk_unit = ssa__round_up(dk, SSA__UNIT_DIM);
    a->t.columns = SSA__LANES_MAX;
    if (rng_int(&r, 0, 1)) a->t.scale = -a->t.scale;
    for (int i = 0; i < rows; i += SSA__LANES_MAX) {
        const int some = rows - i < SSA__LANES_MAX ? rows - i : SSA__LANES_MAX;
        memset(part, 0, sizeof part);
        for (int j = 0; j < some; j++) {
            unsigned char *row = (unsigned char *)(part + j * a->t.dk_unit);
            for (int e = 0; e < dk; e++) type_put(SSA_BF16, row + 2 * e, (double)rng_f(&r));
            row_get(SSA_BF16, row, q[i + j], dk);
        }
        f->q_turn(&a->t, part, i, some);
    }
    f->qk[SSA_BF16](&a->t, k, stride, n, at);
    for (int j = 0; j < n; j++) {
        row_get(SSA_BF16, k + j * stride, key, dk);
        for (int i = 0; i < rows; i++) {
            double sum = 0, mag = 0;
            for (int e = 0; e < dk; e++) {
                sum += (double)q[i][e] * (double)key[e];
                mag += fabs((double)q[i][e] * (double)key[e]);
            }
            bad += !(fabs(s_at(&a->t, 0, i, at + j) - sum * (double)a->t.scale) <= (dk + 2) * EPS * mag);
        }
    }
    CHECK(bad == 0, "%s pairs qk rows %d dk %d n %d at %d: %d off", level, rows, dk, n, at, bad);
    f->qk[SSA_BF16](&a->t, k, 0, n, at); /* equal keys: equal scores, wherever they stand */
    for (int j = bad = 0; j < n; j++)
        bad += !same_bits(a->t.s + at * a->t.ld, a->t.s + (at + j) * a->t.ld, rows);
    CHECK(bad == 0, "%s pairs qk rows %d dk %d n %d: %d equal keys differ", level, rows, dk, n, bad);
}

/* Gathered rows meet a block: against the scalar entry and, from nothing on, sums in double; rows that are not in the
 * set, and what they hold, stay as they are. Values past what a row sees count for nothing. pairs: queries and keys are
 * bf16, as that form has them. */
static void test_meet(const ssa__form *f, const ssa__table *def, int pairs, int dk, int dv, int n, twin *a, twin *b)
{
    enum { ROWS = 24 };
    static float k[1024 * SSA__LANES_MAX], v[SSA__LANES_MAX * 1024], old[TWIN_Q], laid[1024 * SSA__LANES_MAX];
    static uint16_t rows[SSA__LANES_MAX * 1024], queries[ROWS * 1024];
    ssa__gathered g;
    int bad = 0, fresh = rng_int(&r, 0, 1), last = n;
    kv_type = SSA_F32;
    twin_make(a, NULL, 1, ROWS, dk, dv);
    a->t.dk_unit = ssa__round_up(dk, SSA__UNIT_DIM);
    a->t.columns = SSA__LANES_MAX;
    if (rng_int(&r, 0, 1)) a->t.scale = -a->t.scale;
    for (int i = 0; pairs && i < ROWS * a->t.dk_unit; i++) {
        const int row = i / a->t.dk_unit, e = i % a->t.dk_unit;
        queries[i] = e < dk ? ssa__f32_to_bf16(rng_f(&r)) : 0;
        if (e < dk) a->t.q[row * a->t.dk_pad + e] = ssa__bf16_to_f32(queries[i]);
    }
    for (int i = 0; i < ROWS; i++) {
        a->t.m[i] = fresh ? -FLT_MAX : rng_f(&r);
        a->t.l[i] = fresh ? 0 : 1 + rng_f(&r) * rng_f(&r);
        for (int e = 0; fresh && e < a->t.dv_pad; e++) a->t.o[i * a->t.dv_pad + e] = 0;
    }
    for (int e = 0; e < dk; e++)
        for (int j = 0; j < SSA__LANES_MAX; j++) {
            uint16_t h = ssa__f32_to_bf16(j < n ? rng_f(&r) : 0);
            if (pairs && j < n) rows[j * a->t.dk_unit + e] = h;
            k[e * SSA__LANES_MAX + j] = pairs ? ssa__bf16_to_f32(h) : j < n ? rng_f(&r) : 0;
        }
    for (int j = 0; pairs && j < n; j++)
        for (int e = dk; e < a->t.dk_unit; e++) rows[j * a->t.dk_unit + e] = 0;
    for (int j = 0; j < n; j++)
        for (int e = 0; e < a->t.dv_pad; e++) v[j * a->t.dv_pad + e] = e < dv ? rng_f(&r) : 0;
    g.n = 0;
    for (int i = 0; i < ROWS && g.n < SSA__LANES_MAX; i++)
        if (rng_int(&r, 0, 2)) {
            g.row[g.n] = i;
            g.seen[g.n] = rng_int(&r, 0, 1) ? n : rng_int(&r, 1, n);
            last = g.seen[g.n++];
        }
    if (g.n == 0) return;
    twin_make(b, a, 1, ROWS, dk, dv);
    memcpy(b->t.m, a->t.m, ROWS * sizeof(float));
    memcpy(b->t.l, a->t.l, ROWS * sizeof(float));
    memcpy(old, a->t.o, sizeof old);
    b->t.scale = a->t.scale;
    def->wide.meet(&b->t, &g, k, v, n);
    if (pairs) {
        ssa__tile turned = a->t;
        turned.q = laid;
        f->q_turn(&turned, rows, 0, n);
        a->t.q = (float *)(void *)queries;
        f->meet(&a->t, &g, laid, v, n);
        a->t.q = a->mem;
    } else f->meet(&a->t, &g, k, v, n);
    for (int i = 0, x = 0; i < ROWS; i++) {
        float *o = a->t.o + i * a->t.dv_pad, *want = b->t.o + i * b->t.dv_pad;
        double mag = 0, sum = 0, top = -1e300;
        if (x == g.n || g.row[x] != i) {
            bad += !same_bits(o, old + i * a->t.dv_pad, a->t.dv_pad);
            bad += a->t.m[i] != b->t.m[i] || a->t.l[i] != b->t.l[i];
            continue;
        }
        bad += !(fabs((double)a->t.m[i] - (double)b->t.m[i]) <= 2 * (dk + 2) * EPS * dk);
        bad += !(fabs((double)a->t.l[i] - (double)b->t.l[i]) <= (4 * (dk + 2) * dk + n + 16) * EPS * (n + 2));
        for (int e = 0; e < dv; e++)
            bad += !(fabs((double)o[e] - (double)want[e]) <= (4 * (dk + 2) * dk + 2 * n + 16) * EPS * (n + 2));
        for (int pass = 0; fresh && pass < 2; pass++) /* l in double: the sum of exp(s - m) of what it sees */
            for (int j = 0; j < g.seen[x]; j++) {
                double s = 0;
                for (int e = 0; e < dk; e++)
                    s += (double)a->t.q[i * a->t.dk_pad + e] * (double)k[e * SSA__LANES_MAX + j];
                s *= (double)a->t.scale;
                if (pass == 0 && s > top) top = s;
                if (pass) sum += exp(s - top);
            }
        mag = (4 * (dk + 2) * dk + n + 16) * EPS * (n + 2);
        bad += fresh && !(fabs((double)a->t.l[i] - sum) <= mag && fabs((double)a->t.m[i] - top) <= mag);
        x++;
    }
    CHECK(bad == 0, "%s %s meet dk %d dv %d n %d, %d rows, last sees %d, fresh %d: %d off", level,
          pairs ? "pairs" : "wide", dk, dv, n, g.n, last, fresh, bad);
}

/* exp over its whole range, through the softmax of one chunk of rising scores below a maximum of 0. */
static void test_exp(const ssa__form *f, int narrow, twin *a)
{
    double worst = 0;
    int zeros = 0;
    for (int k = 0; k < 400; k++) {
        twin_make(a, NULL, narrow, 1, 1, 1);
        for (int j = 0; j < SSA__CHUNK; j++)
            a->t.s[narrow ? j : j * a->t.ld] = j ? -0.0024f * (float)(k * SSA__CHUNK + j) : 0.0f;
        a->t.m[0] = -FLT_MAX;
        f->softmax(&a->t, SSA__CHUNK, NULL);
        for (int j = 1; j < SSA__CHUNK; j++) {
            double x = exp((double)(-0.0024f * (float)(k * SSA__CHUNK + j))), y = s_at(&a->t, narrow, 0, j);
            if (x > 2e-38 && !(fabs(y - x) <= worst * x)) worst = fabs(y - x) / x;
            zeros += x < 6e-39 && y != 0;
        }
    }
    CHECK(worst <= 1.5e-6 && zeros == 0, "%s exp: relative error %.2g, %d not flushed", level, worst, zeros);
}

void test_table(void)
{
    static const int some_rows[] = { 1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64 };
    ssa__table t, def;
    twin a, b;
    unsigned char kept[64];
    work = xalloc(ssa__q8_work(1024, 1024, 4), 1);
    a.mem = xalloc(TWIN_ALL, sizeof(float));
    b.mem = xalloc(TWIN_ALL, sizeof(float));
    guard_make(&pages, 1100 * 4 * SSA__CHUNK);
    ssa__fill(&def, SSA_ISA_SCALAR);
    for (int isa = 0; isa < SSA__ISA_COUNT; isa++) {
        if (!ssa__available((ssa_isa)isa)) continue; /* test_isa says which levels are missing */
        r.seed = (uint64_t)(1000 + isa);
        r.i = 0;
        ssa__fill(&t, ssa__level_of((ssa_isa)isa));
        level = ssa_isa_name(t.isa);
        CHECK((int)t.isa == isa, "%s names itself", level);
        test_rows(&t, &def);
        test_every_half(&t, &def);
        test_every_term(&t);
        test_best(&t);
        test_terms_of(&t, &def);
        test_exp(&t.narrow, 1, &a);
        test_exp(&t.wide, 0, &a);
        for (int i = 0; i < COUNT(some_rows); i++)
            for (int rep = 0; rep < 6; rep++) {
                if (!test_some(rep, 6)) continue;
                int dk = RNG_PICK(&r, dims), dv = RNG_PICK(&r, dims), n = rng_int(&r, 1, SSA__CHUNK),
                    type = rng_int(&r, 0, SSA__TYPES - 1);
                if (type == SSA_Q8_0) dk = dk / 32 * 32 + 32 * (dk < 32), dv = dv / 32 * 32 + 32 * (dv < 32);
                test_form(&t.narrow, &def.narrow, 1, some_rows[i], dk, dv, n, type, &a, &b);
                test_form(&t.wide, &def.wide, 0, some_rows[i], dk, dv, n, SSA_F32, &a, &b);
                test_meet(&t.wide, &def, 0, dk, dv, rng_int(&r, 1, SSA__LANES_MAX), &a, &b);
                if (t.pairs.meet) test_meet(&t.pairs, &def, 1, dk, dv, rng_int(&r, 1, SSA__LANES_MAX), &a, &b);
                if (t.pairs.q_turn) test_pairs(&t.pairs, some_rows[i], (dk + 3) / 4 * 4, n, &a);
                if (t.q8.chunk && some_rows[i] <= SSA__LANES_MAX) {
                    dk = dk / 32 * 32 + 32 * (dk < 32);
                    dv = dv / 32 * 32 + 32 * (dv < 32);
                    t.enter(kept);
                    t.q8.shape(1);
                    n = n < t.q8.chunk ? n : t.q8.chunk;
                    test_form(&t.q8, &def.narrow, 1, some_rows[i], dk, dv, n, SSA_Q8_0, &a, &b);
                    t.leave(kept);
                }
            }
    }
    guard_free(&pages);
    free(work);
    free(a.mem);
    free(b.mem);
}

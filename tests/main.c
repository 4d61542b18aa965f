/* main.c - runs the tests: all, or those whose names contain one of the arguments; after -b only a part of the cases.
 * The last line counts; the exit code is 1 when a check failed. With TEST_STOP in the environment the first check that
 * fails ends the program. */
#include "test.h"
#include <time.h>

/* Bits of a call of bf16, which some levels multiply as such; and those of the first call of the process. */
static uint64_t bf16_bits(void)
{
    static uint16_t q[16 * 64], k[64 * 64], v[64 * 64];
    static float out[16 * 64];
    rng r = { 5, 0 };
    for (int i = 0; i < 64 * 64; i++) {
        type_put(SSA_BF16, &k[i], rng_int(&r, -99, 99) / 50.0);
        type_put(SSA_BF16, &v[i], rng_int(&r, -99, 99) / 50.0);
        if (i < COUNT(q)) type_put(SSA_BF16, &q[i], rng_int(&r, -99, 99) / 50.0);
    }
    ssa_attn a = ssa_attn_default(16, 1, 64);
    a.n_q = 1;        a.n_kv = 64;
    a.q.data = q;     a.k.data = k;    a.v.data = v;    a.out.data = out;
    a.q.type = a.k.type = a.v.type = SSA_BF16;
    CHECK(ssa_attention(&a, SSA_FULL, NULL) == SSA_OK, "status");
    return bytes_hash(out, (int64_t)sizeof out, 1);
}
static uint64_t first_bits;

/* The levels themselves: what set, get, detected and name promise. */
void test_isa(void)
{
    static const struct { ssa_isa isa; const char *name; } all[] = { { SSA_ISA_SCALAR, "scalar" },
        { SSA_ISA_AVX2, "avx2" }, { SSA_ISA_AVX512, "avx512" }, { SSA_ISA_AMX, "amx" }, { SSA_ISA_NEON, "neon" },
        { SSA_ISA_SIMD128, "simd128" } };
    ssa_isa first = ssa_isa_get(), best = ssa_isa_detected();
    CHECK(best == ssa_isa_detected(), "detected is constant");
    ssa_isa_set(first);
    CHECK(bf16_bits() == first_bits, "the process's first call ran as %s does when it is set", ssa_isa_name(first));
    CHECK(ssa_isa_set(best) == best && ssa_isa_get() == best, "the detected level can be set");
    CHECK(ssa_isa_set(SSA_ISA_SCALAR) == SSA_ISA_SCALAR && ssa_isa_get() == SSA_ISA_SCALAR, "scalar can always be set");
    for (int i = 0; i < COUNT(all); i++) {
        ssa_isa now = ssa_isa_set(all[i].isa);
        CHECK(!strcmp(ssa_isa_name(all[i].isa), all[i].name), "name of level %d: %s", i, ssa_isa_name(all[i].isa));
        CHECK(now == ssa_isa_get(), "set %s returns what get says", all[i].name);
        CHECK(ssa_isa_set(now) == now, "what set %s gave can itself be set", all[i].name);
        if (now != all[i].isa) {
            SKIP(all[i].name, "this build or CPU lacks the level");
            CHECK(now < all[i].isa, "set %s gives a level below it, not %s", all[i].name, ssa_isa_name(now));
        }
    }
    static const int odd[] = { -1, 6, 99, -2147483647, 2147483647 };
    for (int i = 0; i < COUNT(odd); i++) {
        CHECK(!strcmp(ssa_isa_name((ssa_isa)odd[i]), "unknown"), "name of %d", odd[i]);
        ssa_isa now = ssa_isa_set((ssa_isa)odd[i]);
        CHECK(now == ssa_isa_get() && strcmp(ssa_isa_name(now), "unknown") != 0, "set %d leaves a real level", odd[i]);
    }
    ssa_isa_set(first);
    CHECK(ssa_isa_get() == first, "back at the first level");
}

/* The harness itself: every 16-bit number survives widening and rounding, halfway cases go to even, the rng is the one
 * described. */
static void test_harness(void)
{
    for (int t = SSA_F16; t <= SSA_BF16; t++) {
        int bad = 0, uneven = 0, top = t == SSA_F16 ? 0x7C00 : 0x7F80;
        for (int i = 0; i < 65536; i++) {
            uint16_t u = (uint16_t)i, v;
            type_put((ssa_type)t, &v, (double)type_get((ssa_type)t, &u));
            bad += (i & 0x7FFF) <= top ? u != v : (v & 0x7FFF) <= top;
            if ((i & 0x7FFF) >= top - 1) continue;
            uint16_t next = (uint16_t)(i + 1);
            double a = (double)type_get((ssa_type)t, &u), b = (double)type_get((ssa_type)t, &next),
                   up = a * 0.49 + b * 0.51;
            type_put((ssa_type)t, &v, (a + b) / 2); uneven += v != (i & 1 ? next : u);
            type_put((ssa_type)t, &v, up);          uneven += v != next;
            if (i < 0x8000) uneven += fabs(type_half_ulp((ssa_type)t, (a + b) / 2) * 2 - (b - a)) > 0;
        }
        CHECK(bad == 0 && uneven == 0, "%s: %d do not survive, %d round wrongly", type_name((ssa_type)t), bad, uneven);
    }
    rng r = { 0, 0 };
    CHECK(rng_u64(&r) == 0xE220A8397B1DCDAFu && rng_u64(&r) == 0x6E789E6AA1B965F4u, "the first two of stream 0");
    guard g;
    guard_make(&g, 5000);
    unsigned char *end = guard_at(&g, 5000, 1), *start = guard_at(&g, 5000, 0);
    memset(end, 1, 5000); memset(start, 2, 5000);
    CHECK(end + 5000 == g.base + g.size && start == g.base && g.size >= 5000, "guarded memory");
    guard_free(&g);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(void); } tests[] = { { "harness", test_harness },
        { "isa", test_isa }, { "golden", test_golden }, { "attention", test_attention }, { "sparse", test_sparse },
        { "pool", test_pool }, { "loss", test_loss }, { "invariants", test_invariants }, { "errors", test_errors },
        { "checked", test_checked }, { "guard", test_guard }, { "table", test_table },
        { "halves", test_halves }, { "unit", test_unit },
        { "select", test_select }, { "terms", test_terms }, { "cache", test_cache },
        { "recipes", test_recipes }, { "diag", test_diag }, { "hosts", test_hosts },
        { "lm", test_lm }, };
    if (argc > 1 && !strcmp(argv[1], "-b")) { test_brief = 1; argc--; argv++; }
    first_bits = bf16_bits();
    level_count(); /* what level_restore goes back to is what that call chose */
    for (int t = 0; t < COUNT(tests); t++) {
        int wanted = argc < 2;
        for (int i = 1; i < argc; i++) wanted |= strstr(tests[t].name, argv[i]) != NULL;
        if (!wanted) continue;
        int64_t passed = test_passed, failed = test_failed;
        clock_t start = clock();
        test_shown = 0;
        printf("%s\n", tests[t].name);
        fflush(stdout);
        tests[t].run();
        level_restore();
        printf("  %lld passed, %lld failed, %.1f s\n", (long long)(test_passed - passed),
               (long long)(test_failed - failed), (double)(clock() - start) / CLOCKS_PER_SEC);
    }
    printf("%lld passed, %lld failed, %lld skipped\n", (long long)test_passed, (long long)test_failed,
           (long long)test_skipped);
    return test_failed ? 1 : 0;
}

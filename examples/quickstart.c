/* quickstart.c - full and sparse attention, in a prefill and in a decode step.   cc -O2 examples/quickstart.c */
#define SSA_IMPLEMENTATION
#include "../ssa.h"
#include <stdio.h>
#include <stdlib.h>

enum { HQ = 8, H = 2, D = 64, N = 2048, BLOCK = 16, TOP = 16, ALL = N / BLOCK };
static float q[(N + 1) * HQ * D], k[(N + 1) * H * D], v[(N + 1) * H * D], full[N * HQ * D], sparse[N * HQ * D];

static void check(ssa_status s) { if (s != SSA_OK) { fprintf(stderr, "%s\n", ssa_status_string(s)); exit(1); } }
static float noise(void) { static uint32_t x; x = x * 1664525u + 1013904223u; return (float)(x >> 8) / 8388608.0f - 1; }
static float apart(int tokens) {        /* the largest difference between the two outputs */
    float most = 0;
    for (int i = 0; i < tokens * HQ * D; i++) {
        float d = full[i] > sparse[i] ? full[i] - sparse[i] : sparse[i] - full[i];
        if (d > most) most = d;
    }
    return most;
}

int main(void) {
    /* The keys of a block share a topic, and each query asks for the topic of one block before it. */
    static float topic[(ALL + 1) * D];
    for (int i = 0; i < (ALL + 1) * D; i++) topic[i] = noise();
    for (int i = 0; i < (N + 1) * H * D; i++) v[i] = noise();
    for (int i = 0; i < (N + 1) * H * D; i++) k[i] = topic[i / (H * D) / BLOCK * D + i % D] + noise() / 2;
    for (int i = 0; i < (N + 1) * HQ * D; i++) {
        int token = i / (HQ * D), wanted = 7 * token % (token / BLOCK + 1);
        q[i] = 4 * topic[wanted * D + i % D] + noise();
    }

    /* Prefill: N queries over N keys. Every field not set here has a good default. */
    ssa_attn a = ssa_attn_default(HQ, H, D);
    a.n_q = a.n_kv = N; a.q.data = q; a.k.data = k; a.v.data = v;
    a.out.data = full;                  check(ssa_attention(&a, SSA_FULL, NULL));
    a.out.data = sparse; a.top_k = TOP; check(ssa_attention(&a, SSA_SPARSE, NULL));
    printf("prefill of %d, %3d of %d blocks: at most %.6f from full\n", N, TOP, ALL, (double)apart(N));
    a.top_k = ALL;                      check(ssa_attention(&a, SSA_SPARSE, NULL));
    printf("prefill of %d, %3d of %d blocks: at most %.6f from full\n", N, ALL, ALL, (double)apart(N));

    /* Decode: one query over the cache. The pool keeps the blocks' mean keys, so that no other key need be read. */
    ssa_pool pool; ssa_view new_keys = { k, SSA_F32, 0, 0 };
    size_t size = ssa_pool_size(H, D, BLOCK, N + 1, SSA_F32);
    void *memory = malloc(size);
    check(ssa_pool_init(&pool, H, D, BLOCK, N + 1, SSA_F32, memory, size));
    check(ssa_pool_append(&pool, &new_keys, N));                                /* the keys of the prefill, */
    new_keys.data = k + N * H * D; check(ssa_pool_append(&pool, &new_keys, 1)); /* then those of each new token */
    int32_t blocks[H * TOP]; float lse[2][HQ], share[HQ];
    a.n_q = 1; a.n_kv = N + 1; a.q.data = q + N * HQ * D; a.top_k = TOP; a.pool = &pool; a.blocks = blocks;
    a.out.data = full;   a.lse = lse[0]; check(ssa_attention(&a, SSA_FULL, NULL));
    a.out.data = sparse; a.lse = lse[1]; check(ssa_attention(&a, SSA_SPARSE, NULL));
    ssa_attention_sparsity(lse[1], lse[0], HQ, share);
    printf("decode at %d,  %3d of %d blocks: at most %.6f from full; head 0 keeps %.3f%% of its attention\n", N, TOP,
           ALL + 1, (double)apart(1), 100 * (double)share[0]);
    printf("the query asked for block %d; its head chose", 7 * N % (ALL + 1));
    for (int i = 0; i < TOP; i++) printf(" %d", blocks[i]);
    printf("\n");
    free(memory); return 0;
}

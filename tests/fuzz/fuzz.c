/* fuzz.c - the bodies of fuzz.h */
#include "fuzz.h"

operand operands[MAX_OPERANDS];
int     n_operands;

static void *give_at(input *in, int64_t n, int written, size_t off)
{
    size_t size = n > 0 ? (size_t)n : 0;
    operand *o = &operands[n_operands++];
    NEED(n_operands < MAX_OPERANDS, "too many operands");
    o->mem = malloc(size + off + !size);
    NEED(o->mem, "out of memory");
    o->at = o->mem + off;
    o->n = size;
    o->copy = NULL;
    o->written = written;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t x = bulk(in);
        memcpy(o->at + i, &x, size - i < 8 ? size - i : 8);
    }
    return o->at;
}
void *give(input *in, int64_t n, int written) { return give_at(in, n, written, 0); }
void *give_odd(input *in, int64_t n, int written)
{
    static const size_t offs[] = { 0, 0, 0, 0, 1, 2, 4, 7 };
    return give_at(in, n, written, TAKE_OF(in, offs));
}

void remember(void)
{
    for (operand *o = operands; o < operands + n_operands; o++) {
        free(o->copy);
        o->copy = malloc(o->n + 1);
        NEED(o->copy, "out of memory");
        memcpy(o->copy, o->at, o->n);
    }
}

int changed(int outputs)
{
    for (operand *o = operands; o < operands + n_operands; o++)
        if ((outputs || !o->written) && memcmp(o->copy, o->at, o->n) != 0) return 1;
    return 0;
}

const operand *operand_at(const void *p)
{
    for (operand *o = operands; o < operands + n_operands; o++) if (o->at == p) return o;
    return NULL;
}

void give_back(void)
{
    for (operand *o = operands; o < operands + n_operands; o++) { free(o->mem); free(o->copy); }
    n_operands = 0;
}

void any_level(input *in) { ssa_isa_set((ssa_isa)take_int(in, SSA_ISA_SCALAR, SSA_ISA_AMX)); }

void run_workers(void *user, ssa_task fn, void *task, int nth)
{
    (void)user;
    for (int i = nth - 1; i >= 0; i--) fn(task, i, nth);
}

void show(const ssa_attn *a, int mode)
{
    if (getenv("FUZZ_SHOW") == NULL) return;
    printf("level %s mode %d heads %d/%d dims %d/%d n_q %lld n_kv %lld q_pos %lld causal %d window %lld\n",
           ssa_isa_name(ssa_isa_get()), mode, a->n_heads, a->n_kv_heads, a->head_dim, a->value_dim, (long long)a->n_q,
           (long long)a->n_kv, (long long)a->q_pos, a->causal, (long long)a->window);
    const ssa_view *v[] = { &a->q, &a->k, &a->v, &a->out };
    for (int i = 0; i < 4; i++)
        printf("  view %d: %p type %d strides %lld %lld\n", i, v[i]->data, (int)v[i]->type,
               (long long)v[i]->token_stride, (long long)v[i]->head_stride);
    printf("  scale %g softcap %g gate %p lse %p sinks %p alibi %p mask %p type %d stride %lld\n", (double)a->scale,
           (double)a->softcap, (const void *)a->gate, (void *)a->lse, (const void *)a->sinks, (const void *)a->alibi,
           a->mask, (int)a->mask_type, (long long)a->mask_stride);
    printf("  pages %p of %lld strides %lld %lld; blocks %p of %d, top_k %d, each %p, select %d score %d per head %d\n",
           (const void *)a->pages, (long long)a->page_tokens, (long long)a->page_stride_k, (long long)a->page_stride_v,
           (void *)a->blocks, a->block_size, a->top_k, (const void *)a->top_k_per_head, (int)a->select, (int)a->score,
           a->select_per_head);
    printf("  keep %d %d top_p %g budget %lld min_context %lld pool %p\n", a->sink_blocks, a->local_blocks,
           (double)a->top_p, (long long)a->budget, (long long)a->min_context, (const void *)a->pool);
    fflush(stdout);
}

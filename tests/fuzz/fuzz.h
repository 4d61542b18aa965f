/* fuzz.h - what the fuzz targets share: an input that is taken apart field by field, and memory of exact size
 *
 * An input that has ended reads as zeros, so every input is a valid one. Bulk data comes from a generator that the
 * input seeds: a short input makes a large call. A target that finds something wrong says what and aborts, which
 * libFuzzer takes for a crash and keeps. */
#ifndef SSA_FUZZ_H
#define SSA_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../../ssa.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct { const uint8_t *p; size_t n; uint64_t seed; } input;

static inline uint64_t take(input *in, int bytes)
{
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++) {
        x = x << 8 | (in->n ? *in->p : 0);
        if (in->n) { in->p++; in->n--; }
    }
    return x;
}
static inline int take_int(input *in, int lo, int hi) /* lo..hi, both included */
{
    int span = hi - lo + 1;
    return lo + (int)(take(in, span > 256 ? 2 : 1) % (uint64_t)span);
}
#define TAKE_OF(in, array) ((array)[take_int(in, 0, (int)(sizeof(array) / sizeof((array)[0])) - 1)])

static inline uint64_t bulk(input *in)
{
    uint64_t z = in->seed += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* 64 bits that a field does not expect: any, an edge of some type, or one off it. */
static inline uint64_t take_hostile(input *in)
{
    static const uint64_t edges[] = { 0, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000,
                                      0x2000000000000000, 0x4000000000000000, 1024, 4096, 0x7fc00000, 0x7f800000,
                                      0x00000001, 0xbf800000, 1u << 20, 32 };
    int kind = take_int(in, 0, 3);
    if (kind == 0) return take(in, 8);
    if (kind == 1) return take(in, 1);
    if (kind == 2) return TAKE_OF(in, edges) + (uint64_t)take_int(in, -2, 2);
    return (uint64_t)(int64_t)(int8_t)take(in, 1);
}

#define NEED(cond, ...) \
    do { \
        if (!(cond)) { \
            fprintf(stderr, "%s:%d: level %s: ", __FILE__, __LINE__, ssa_isa_name(ssa_isa_get())); \
            fprintf(stderr, __VA_ARGS__); \
            fprintf(stderr, "\n"); \
            abort(); \
        } \
    } while (0)

/* Operands of the current input, each an allocation of its own, so that the sanitizer sees the first byte past it. */
typedef struct { unsigned char *mem, *copy, *at; size_t n; int written; } operand;
enum { MAX_OPERANDS = 64 };
extern operand operands[MAX_OPERANDS];
extern int     n_operands;
extern int64_t memory_left;            /* larger allocations of the library fail */

void *give(input *in, int64_t n, int written); /* n random bytes, aligned; written: a call may change them */
void *give_odd(input *in, int64_t n, int written); /* at any alignment */
void  remember(void);                  /* keeps a copy of all operands */
int   changed(int outputs);            /* an operand differs from its copy; outputs 0: of those that are only read */
const operand *operand_at(const void *p);
void  give_back(void);                 /* frees them all */

void  any_level(input *in);
void  run_workers(void *user, ssa_task fn, void *task, int nth); /* an ssa_exec's parallel: one after the other */
void  show(const ssa_attn *a, int mode); /* prints a call where the environment has FUZZ_SHOW: to repeat one by hand */

#endif

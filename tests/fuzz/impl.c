/* impl.c - the implementation as the fuzz targets have it: with the matrix unit emulated, where the CPU has all else
 * that its level needs, and with memory that can run out */
#if defined(__x86_64__) && defined(__linux__)
#include "../amx_emulated.h"
#endif
#include <stdlib.h>
#define SSA__SHARE_LEAST 100 /* shorter contexts than others have their blocks scored in shares, and smaller ones */
#define SSA__SHARE_MIN   32
#define SSA__Q8_LEAST    16
#define SSA__LAY_TILES   1   /* and so have their chunks laid out */
#define SSA__LAY_KEYS    1
#define SSA__GATHER_USES 0   /* and rows of few queries are gathered */
#define SSA__GATHER_LEAST 2
static void *fuzz_malloc(size_t n);
#define SSA_MALLOC(n) fuzz_malloc(n)
#define SSA_FREE(p)   free(p)
#define SSA_ASSERT(x) ((x) ? (void)0 : abort())
#define SSA_IMPLEMENTATION
#include "fuzz.h"

int64_t memory_left;

static void *fuzz_malloc(size_t n)
{
    return (uint64_t)n > (uint64_t)(memory_left < 0 ? 0 : memory_left) ? NULL : malloc(n);
}

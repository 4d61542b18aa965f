/* amx_emulated.h - AMX's tile instructions in plain C, so that the level amx is tested on machines without them: compile
 * ssa.h's implementation with -include tests/amx_emulated.h. The CPU must have AVX-512 with BF16. One set of tiles a
 * thread; a tile that was not configured traps, as the instruction would. */
#ifndef SSA_TEST_AMX_EMULATED_H
#define SSA_TEST_AMX_EMULATED_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SSA__AMX_EMULATED 1

typedef struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } emu_config;
/* One for the program, whichever files include this: the tests look at what the library left. */
#define EMU_SHARED __attribute__((weak)) _Thread_local
EMU_SHARED emu_config emu_set;
EMU_SHARED unsigned char emu_tile[8][16][64];
EMU_SHARED long emu_products; /* tile products of this thread so far */

static void emu_load_config(const void *p)
{
    emu_config c;
    memcpy(&c, p, 64);
    if (c.palette > 1) abort();
    if (c.palette == 0) memset(&c, 0, sizeof c);
    for (int i = 0; i < 14; i++) if (c.reserved[i]) abort();
    for (int i = 0; i < 16; i++)
        if (c.bytes[i] > (i < 8 ? 64 : 0) || c.rows[i] > (i < 8 ? 16 : 0) || !c.bytes[i] != !c.rows[i]) abort();
    emu_set = c;
    memset(emu_tile, 0, sizeof emu_tile);
}
static void emu_store_config(void *p) { memcpy(p, &emu_set, 64); }
static void emu_release(void) { memset(&emu_set, 0, 64); memset(emu_tile, 0, sizeof emu_tile); }
static void emu_need(int i) { if (emu_set.palette != 1 || emu_set.rows[i] == 0 || emu_set.bytes[i] == 0) abort(); }

static void emu_zero(int i) { emu_need(i); memset(emu_tile[i], 0, sizeof emu_tile[i]); }

static void emu_load(int i, const void *p, int64_t stride)
{
    emu_zero(i);
    for (int r = 0; r < emu_set.rows[i]; r++)
        memcpy(emu_tile[i][r], (const unsigned char *)p + r * stride, emu_set.bytes[i]);
}

static void emu_store(int i, void *p, int64_t stride)
{
    emu_need(i);
    for (int r = 0; r < emu_set.rows[i]; r++)
        memcpy((unsigned char *)p + r * stride, emu_tile[i][r], emu_set.bytes[i]);
}

/* Denormals count as zero, as in the unit. */
static float emu_bf16(const unsigned char *p)
{
    uint16_t h;
    uint32_t u;
    float x;
    memcpy(&h, p, 2);
    u = (h & 0x7f80u) ? (uint32_t)h << 16 : (uint32_t)(h & 0x8000u) << 16;
    memcpy(&x, &u, 4);
    return x;
}

static void emu_dpbf16ps(int c, int a, int b)
{
    emu_need(a); emu_need(b); emu_need(c);
    if (a == b || a == c || b == c || emu_set.rows[a] != emu_set.rows[c] || emu_set.bytes[b] != emu_set.bytes[c] ||
        emu_set.bytes[a] != emu_set.rows[b] * 4) abort();
    emu_products++;
    float bf[16][32];
    for (int k = 0; k < 16; k++) for (int n = 0; n < 32; n++) bf[k][n] = emu_bf16(emu_tile[b][k] + 2 * n);
    for (int m = 0; m < emu_set.rows[c]; m++) {
        float acc[16];
        memcpy(acc, emu_tile[c][m], 64);
        for (int k = 0; k < emu_set.bytes[a] / 4; k++) {
            float x = emu_bf16(emu_tile[a][m] + 4 * k), y = emu_bf16(emu_tile[a][m] + 4 * k + 2);
            for (int n = 0; n < 16; n++) acc[n] += x * bf[k][2 * n] + y * bf[k][2 * n + 1];
        }
        memcpy(emu_tile[c][m], acc, 64);
    }
}

#undef _tile_loadconfig
#undef _tile_storeconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(p)  emu_load_config(p)
#define _tile_storeconfig(p) emu_store_config(p)
#define _tile_release()      emu_release()
#define _tile_zero(i)        emu_zero(i)
#define _tile_loadd(i, p, s) emu_load(i, p, s)
#define _tile_stored(i, p, s) emu_store(i, p, s)
#define _tile_dpbf16ps(c, a, b) emu_dpbf16ps(c, a, b)

#endif

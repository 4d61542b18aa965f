/* amx_emulated.h - AMX's tile instructions in plain C, so that the level amx is tested on machines without them:
 * compile all with -include tests/amx_emulated.h. The CPU must have AVX-512 with BF16. One set of tiles a thread; a
 * tile that was not configured, or whose shape does not fit, traps, as the instruction would. */
#ifndef SSA_TEST_AMX_EMULATED_H
#define SSA_TEST_AMX_EMULATED_H

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SSA__AMX_EMULATED emu_permitted /* whether the kernel grants the tiles */

typedef struct { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } emu_config;
/* One for the program, whichever files include this: the tests look at what the library left. */
#define EMU_SHARED __attribute__((weak)) _Thread_local
__attribute__((weak)) int emu_permitted = 1;
EMU_SHARED emu_config emu_set;
EMU_SHARED unsigned char emu_tile[8][16][64];
EMU_SHARED long emu_products; /* tile products of this thread so far */

static inline void emu_load_config(const void *p)
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
static inline void emu_store_config(void *p) { memcpy(p, &emu_set, 64); }
static inline void emu_release(void) { memset(&emu_set, 0, 64); memset(emu_tile, 0, sizeof emu_tile); }
static inline void emu_need(int i)
{
    if (emu_set.palette != 1 || emu_set.rows[i] == 0 || emu_set.bytes[i] == 0) abort();
}

static inline void emu_zero(int i) { emu_need(i); memset(emu_tile[i], 0, sizeof emu_tile[i]); }

static inline void emu_load(int i, const void *p, int64_t stride)
{
    emu_zero(i);
    for (int r = 0; r < emu_set.rows[i]; r++)
        memcpy(emu_tile[i][r], (const unsigned char *)p + r * stride, emu_set.bytes[i]);
}

static inline void emu_store(int i, void *p, int64_t stride)
{
    emu_need(i);
    for (int r = 0; r < emu_set.rows[i]; r++)
        memcpy((unsigned char *)p + r * stride, emu_tile[i][r], emu_set.bytes[i]);
}

/* The even or the odd ones of 16 pairs of bf16, as floats. Denormals count as zero, as in the unit. */
#define EMU_VECTOR static inline __attribute__((target("avx512f")))
EMU_VECTOR __m512 emu_half(__m512i pairs, int odd)
{
    __m512i x = odd ? _mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)) : _mm512_slli_epi32(pairs, 16);
    __mmask16 normal = _mm512_test_epi32_mask(x, _mm512_set1_epi32(0x7f800000));
    return _mm512_castsi512_ps(_mm512_mask_and_epi32(x, (__mmask16)~normal, x, _mm512_set1_epi32((int)0x80000000u)));
}

EMU_VECTOR void emu_dpbf16ps(int c, int a, int b)
{
    emu_need(a); emu_need(b); emu_need(c);
    if (a == b || a == c || b == c || emu_set.rows[a] != emu_set.rows[c] || emu_set.bytes[b] != emu_set.bytes[c] ||
        emu_set.bytes[a] != emu_set.rows[b] * 4) abort();
    emu_products++;
    for (int m = 0; m < emu_set.rows[c]; m++) {
        __m512 acc = _mm512_loadu_ps(emu_tile[c][m]);
        for (int k = 0; k < emu_set.bytes[a] / 4; k++) {
            int pair;
            memcpy(&pair, emu_tile[a][m] + 4 * k, 4);
            __m512i x = _mm512_set1_epi32(pair), y = _mm512_loadu_si512(emu_tile[b][k]);
            acc = _mm512_add_ps(acc, _mm512_add_ps(_mm512_mul_ps(emu_half(x, 0), emu_half(y, 0)),
                                                   _mm512_mul_ps(emu_half(x, 1), emu_half(y, 1))));
        }
        _mm512_storeu_ps(emu_tile[c][m], acc);
    }
}

EMU_VECTOR void emu_dpb(int c, int a, int b, int is_signed)
{
    emu_need(a); emu_need(b); emu_need(c);
    if (a == b || a == c || b == c || emu_set.rows[a] != emu_set.rows[c] || emu_set.bytes[b] != emu_set.bytes[c] ||
        emu_set.bytes[a] != emu_set.rows[b] * 4) abort();
    emu_products++;
    for (int m = 0; m < emu_set.rows[c]; m++) {
        __m512i acc = _mm512_loadu_si512(emu_tile[c][m]);
        for (int k = 0; k < emu_set.bytes[a]; k++) { /* one byte of each column at a time */
            __m512i y = _mm512_slli_epi32(_mm512_loadu_si512(emu_tile[b][k / 4]), 24 - 8 * (k % 4));
            int x = is_signed ? (int8_t)emu_tile[a][m][k] : emu_tile[a][m][k];
            y = _mm512_mullo_epi32(_mm512_srai_epi32(y, 24), _mm512_set1_epi32(x));
            acc = _mm512_add_epi32(acc, y);
        }
        _mm512_storeu_si512(emu_tile[c][m], acc);
    }
}

#undef _tile_loadconfig
#undef _tile_storeconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#undef _tile_dpbusd
#define _tile_loadconfig(p)  emu_load_config(p)
#define _tile_storeconfig(p) emu_store_config(p)
#define _tile_release()      emu_release()
#define _tile_zero(i)        emu_zero(i)
#define _tile_loadd(i, p, s) emu_load(i, p, s)
#define _tile_stored(i, p, s) emu_store(i, p, s)
#define _tile_dpbf16ps(c, a, b) emu_dpbf16ps(c, a, b)
#define _tile_dpbssd(c, a, b)   emu_dpb(c, a, b, 1)
#define _tile_dpbusd(c, a, b)   emu_dpb(c, a, b, 0)

#endif

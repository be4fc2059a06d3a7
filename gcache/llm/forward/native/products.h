/* Products of weights in panels: unpacked some inputs at a time, met by some tokens at a time. */
#pragma once
#include "numbers.h"

enum { F32 = 0, BF16 = 1, INT8 = 2 };

typedef struct {
  int64_t outputs, inputs; /* outputs: a multiple of NR */
  int64_t kind, block;
  const void* data;
  const float *scale, *minimum; /* (n / NR, k / block, NR); minimum may be absent */
  const float* bias;            /* (n,), or absent */
} Matrix;

/* Inputs of a product, of tokens one after the other: float, or bfloat16 where the machine multiplies that. */
typedef struct {
  float* wide;
  uint16_t* narrow;
} Buffer;

INLINE Buffer later(Buffer from, int64_t count) {
  return (Buffer){from.wide ? from.wide + count : 0, from.narrow ? from.narrow + count : 0};
}

/* `count` tokens by `depth` inputs, added to sums (count, NR). Meanwhile what comes `next` is asked for, a line of 64
   bytes at a time: else the processor would read weights or multiply, in turns. */
#define TILE(count)                                                                                    \
  static void tile_##count(const float* x, int64_t stride, const float* w, int64_t depth, float* sums, \
                           const char* next) {                                                         \
    vf sum[count][2];                                                                                  \
    for (int m = 0; m < count; m++) {                                                                  \
      sum[m][0] = load(sums + m * NR);                                                                 \
      sum[m][1] = load(sums + m * NR + VL);                                                            \
    }                                                                                                  \
    for (int64_t k = 0; k < depth; k++) {                                                              \
      vf left = load(w + k * NR), right = load(w + k * NR + VL);                                       \
      if (count > 4) __builtin_prefetch(next + k * 64);                                                \
      _Pragma("GCC unroll 16") for (int m = 0; m < count; m++) {                                       \
        float value = x[m * stride + k];                                                               \
        sum[m][0] += left * value;                                                                     \
        sum[m][1] += right * value;                                                                    \
      }                                                                                                \
    }                                                                                                  \
    for (int m = 0; m < count; m++) {                                                                  \
      store(sums + m * NR, sum[m][0]);                                                                 \
      store(sums + m * NR + VL, sum[m][1]);                                                            \
    }                                                                                                  \
  }

TILE(1)
TILE(2)
TILE(3)
TILE(4)
#if MR >= 6
TILE(5)
TILE(6)
#endif
#if MR >= 12
    TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif

        typedef void (*Tile)(const float*, int64_t, const float*, int64_t, float*, const char*);
static const Tile TILES[] = {0,      tile_1, tile_2, tile_3,  tile_4,
#if MR >= 6
                             tile_5, tile_6,
#endif
#if MR >= 12
                             tile_7, tile_8, tile_9, tile_10, tile_11,
                             tile_12
#endif
};

#if DOT_BF16
#define HALF_TILE(count)                                                                                          \
  static void half_tile_##count(const uint16_t* x, int64_t stride, const uint16_t* w, int64_t depth, float* sums, \
                                const char* next) {                                                               \
    __m512 sum[count][2];                                                                                         \
    for (int m = 0; m < count; m++) {                                                                             \
      sum[m][0] = _mm512_loadu_ps(sums + m * NR);                                                                 \
      sum[m][1] = _mm512_loadu_ps(sums + m * NR + VL);                                                            \
    }                                                                                                             \
    for (int64_t k = 0; k < depth; k += 2) {                                                                      \
      __m512bh left = (__m512bh)_mm512_loadu_si512(w + k * NR);                                                   \
      __m512bh right = (__m512bh)_mm512_loadu_si512(w + k * NR + 2 * VL);                                         \
      if (count > 4) __builtin_prefetch(next + k * 32);                                                           \
      _Pragma("GCC unroll 16") for (int m = 0; m < count; m++) {                                                  \
        int32_t pair;                                                                                             \
        memcpy(&pair, x + m * stride + k, 4);                                                                     \
        __m512bh value = (__m512bh)_mm512_set1_epi32(pair);                                                       \
        sum[m][0] = _mm512_dpbf16_ps(sum[m][0], left, value);                                                     \
        sum[m][1] = _mm512_dpbf16_ps(sum[m][1], right, value);                                                    \
      }                                                                                                           \
    }                                                                                                             \
    for (int m = 0; m < count; m++) {                                                                             \
      _mm512_storeu_ps(sums + m * NR, sum[m][0]);                                                                 \
      _mm512_storeu_ps(sums + m * NR + VL, sum[m][1]);                                                            \
    }                                                                                                             \
  }
HALF_TILE(1)
HALF_TILE(2)
HALF_TILE(3)
HALF_TILE(4)
HALF_TILE(5) HALF_TILE(6) HALF_TILE(7) HALF_TILE(8) HALF_TILE(9) HALF_TILE(10) HALF_TILE(11)
    HALF_TILE(12) typedef void (*HalfTile)(const uint16_t*, int64_t, const uint16_t*, int64_t, float*, const char*);
static const HalfTile HALF_TILES[] = {0,           half_tile_1, half_tile_2, half_tile_3, half_tile_4,  half_tile_5,
                                      half_tile_6, half_tile_7, half_tile_8, half_tile_9, half_tile_10, half_tile_11,
                                      half_tile_12};
#endif

/* Inputs `from` .. `from + depth` of a panel as floats, (depth, NR). */
static const float* unpacked(const Matrix* w, int64_t panel, int64_t from, int64_t depth, float* room) {
  int64_t start = (panel * w->inputs + from) * NR;
  if (w->kind == F32) return (const float*)w->data + start;
  if (w->kind == BF16) {
    const uint16_t* source = (const uint16_t*)w->data + start;
    for (int64_t k = 0; k < depth; k += 2)
      for (int j = 0; j < NR; j += VL) {
        vi pair = *(const vi*)(source + k * NR + 2 * j); /* little-endian: the first of two is the low half */
        *(vi*)(room + k * NR + j) = pair << 16;
        *(vi*)(room + (k + 1) * NR + j) = pair & (int32_t)0xffff0000;
      }
    return room;
  }
  const int8_t* source = (const int8_t*)w->data + start;
  int64_t blocks = w->inputs / w->block, block = w->block;
  for (int64_t k = 0; k < depth; k += block) {
    int64_t at = (panel * blocks + (from + k) / block) * NR;
    for (int j = 0; j < NR; j += VL) {
      vf scale = load(w->scale + at + j);
      vf minimum = {0};
      if (w->minimum) minimum = load(w->minimum + at + j);
      for (int64_t i = k; i < k + block; i++) {
        store(room + i * NR + j, load_int8(source + i * NR + j) * scale + minimum);
      }
    }
  }
  return room;
}

/* Sums (tokens, NR) of one panel, of up to TOKENS tokens. */
static void panel_product(const Matrix* w, int64_t panel, Buffer x, int64_t tokens, float* sums, float* room) {
  int64_t tiles = (tokens + MR - 1) / MR, most = (tokens + tiles - 1) / tiles; /* tiles of about one size */
  int64_t size = w->kind == F32 ? 4 : w->kind == BF16 ? 2 : 1;
  memset(sums, 0, (size_t)tokens * NR * sizeof(float));
  int64_t together = x.narrow ? 2 * KC : KC; /* as many bytes */
  for (int64_t from = 0; from < w->inputs; from += together) {
    int64_t depth = w->inputs - from < together ? w->inputs - from : together;
    const char *here = (const char*)w->data + (panel * w->inputs + from) * NR * size,
               *next = here + together * NR * size;
    const char* last = next + together * NR * size; /* more than the next inputs of the panel would push others out */
    const float* data = x.narrow ? 0 : unpacked(w, panel, from, depth, room);
    for (int64_t m = 0; m < tokens; m += most) {
      int64_t count = tokens - m < most ? tokens - m : most;
#if DOT_BF16
      if (x.narrow) {
        const uint16_t* values = x.narrow + m * w->inputs + from;
        HALF_TILES[count](values, w->inputs, (const uint16_t*)here, depth, sums + m * NR, next);
        next = next + 2 * depth * 32 <= last ? next + depth * 32 : next;
        continue;
      }
#endif
      TILES[count](x.wide + m * w->inputs + from, w->inputs, data, depth, sums + m * NR, next);
      next = next + 2 * depth * 64 <= last ? next + depth * 64 : next;
    }
  }
}

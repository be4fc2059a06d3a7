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

/* Inputs `from` .. `to` of `count` tokens meet their weights. Meanwhile what comes `next` is asked for, a line of 64
   bytes at a time: else the processor would read weights or multiply, in turns. Few tokens are bound by reading, and
   asking takes time of theirs. */
#define MEET(count, from, to, LOAD)                            \
  for (int64_t k = from; k < to; k++) {                        \
    vf left = LOAD(w + k * NR), right = LOAD(w + k * NR + VL); \
    if (count > 4) __builtin_prefetch(next + k * 64);          \
    _Pragma("GCC unroll 16") for (int m = 0; m < count; m++) { \
      vf value = everywhere(x[m * stride + k]);                \
      sum[m][0] = plus_product(sum[m][0], left, value);        \
      sum[m][1] = plus_product(sum[m][1], right, value);       \
    }                                                          \
  }

/* `count` tokens by `depth` inputs, added to sums (count, NR). */
#define TILE(count)                                                                                    \
  static void tile_##count(const float* x, int64_t stride, const float* w, int64_t depth, float* sums, \
                           const char* next) {                                                         \
    vf sum[count][2];                                                                                  \
    for (int m = 0; m < count; m++) {                                                                  \
      sum[m][0] = load(sums + m * NR);                                                                 \
      sum[m][1] = load(sums + m * NR + VL);                                                            \
    }                                                                                                  \
    MEET(count, 0, depth, load)                                                                        \
    for (int m = 0; m < count; m++) {                                                                  \
      store(sums + m * NR, sum[m][0]);                                                                 \
      store(sums + m * NR + VL, sum[m][1]);                                                            \
    }                                                                                                  \
  }

/* clang-format off */
#if MR == 12
#define EACH_SIZE(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12)
#elif MR == 6
#define EACH_SIZE(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6)
#else
#define EACH_SIZE(DO) DO(1) DO(2) DO(3) DO(4)
#endif
#define NAMED(count) tile_##count,
#define HALF_NAMED(count) half_tile_##count,

EACH_SIZE(TILE)
typedef void (*Tile)(const float*, int64_t, const float*, int64_t, float*, const char*);
static const Tile TILES[] = {0, EACH_SIZE(NAMED)};
/* clang-format on */

/* What integers of a panel are times and plus, for every block of inputs; `ones`: the sum of a token's inputs in it. */
typedef struct {
  const float *scale, *minimum, *ones; /* (blocks, NR); (blocks, NR) or absent; (tokens, stride) */
  int64_t block, stride;
} Blocks;

/* The same of integers, as numbers of a kind that LOAD takes. A block of products is summed before it is scaled:

     sum of x (scale q + minimum)  =  scale (sum of x q) + minimum (sum of x) */
#define BLOCK_TILE(name, count, NUMBER, LOAD)                                                                        \
  static void name##_##count(const float* x, int64_t stride, const NUMBER* w, int64_t depth, Blocks by, float* sums, \
                             const char* next) {                                                                     \
    for (int64_t first = 0; first < depth; first += by.block) {                                                      \
      vf sum[count][2] = {{{0}, {0}}};                                                                               \
      MEET(count, first, first + by.block, LOAD)                                                                     \
      int64_t at = first / by.block;                                                                                 \
      vf scale_left = load(by.scale + at * NR), scale_right = load(by.scale + at * NR + VL);                         \
      vf least_left = {0}, least_right = {0};                                                                        \
      if (by.minimum) least_left = load(by.minimum + at * NR), least_right = load(by.minimum + at * NR + VL);        \
      _Pragma("GCC unroll 16") for (int m = 0; m < count; m++) {                                                     \
        float* to = sums + m * NR;                                                                                   \
        vf left = plus_product(load(to), scale_left, sum[m][0]),                                                     \
           right = plus_product(load(to + VL), scale_right, sum[m][1]);                                              \
        if (by.minimum) {                                                                                            \
          vf ones = everywhere(by.ones[m * by.stride + at]);                                                         \
          left = plus_product(left, least_left, ones);                                                               \
          right = plus_product(right, least_right, ones);                                                            \
        }                                                                                                            \
        store(to, left);                                                                                             \
        store(to + VL, right);                                                                                       \
      }                                                                                                              \
    }                                                                                                                \
  }

/* Few tokens meet integers as they are unpacked; more, in several tiles, meet what was unpacked once. */
/* clang-format off */
#define PACKED_TILE(count) BLOCK_TILE(packed_tile, count, int8_t, load_int8)
#define LOOSE_TILE(count) BLOCK_TILE(loose_tile, count, float, load)
#define PACKED_NAMED(count) packed_tile_##count,
#define LOOSE_NAMED(count) loose_tile_##count,
EACH_SIZE(PACKED_TILE)
EACH_SIZE(LOOSE_TILE)
typedef void (*PackedTile)(const float*, int64_t, const int8_t*, int64_t, Blocks, float*, const char*);
typedef void (*LooseTile)(const float*, int64_t, const float*, int64_t, Blocks, float*, const char*);
static const PackedTile PACKED_TILES[] = {0, EACH_SIZE(PACKED_NAMED)};
static const LooseTile LOOSE_TILES[] = {0, EACH_SIZE(LOOSE_NAMED)};
/* clang-format on */

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

/* clang-format off */
EACH_SIZE(HALF_TILE)
typedef void (*HalfTile)(const uint16_t*, int64_t, const uint16_t*, int64_t, float*, const char*);
static const HalfTile HALF_TILES[] = {0, EACH_SIZE(HALF_NAMED)};
/* clang-format on */
#endif

/* Inputs `from` .. `from + depth` of a panel as floats, (depth, NR); integers as they are, not scaled. */
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
  for (int64_t i = 0; i < depth * NR; i += VL) store(room + i, load_int8(source + i));
  return room;
}

/* Sums of the inputs in every block, (tokens, inputs / block), where a matrix has minima. */
static void sum_blocks(const Matrix* w, Buffer x, int64_t tokens, float* ones) {
  if (w->kind != INT8 || !w->minimum) return;
  int64_t blocks = w->inputs / w->block;
  for (int64_t m = 0; m < tokens; m++)
    for (int64_t b = 0; b < blocks; b++) {
      const float* own = x.wide + m * w->inputs + b * w->block;
      vf sum = load(own);
      for (int64_t k = VL; k < w->block; k += VL) sum += load(own + k);
      ones[m * blocks + b] = total(sum);
    }
}

/* Sums (tokens, NR) of one panel, of up to TOKENS tokens. `ones`: of `sum_blocks`. */
static void panel_product(const Matrix* w, int64_t panel, Buffer x, int64_t tokens, const float* ones, float* sums,
                          float* room) {
  int64_t tiles = (tokens + MR - 1) / MR, most = (tokens + tiles - 1) / tiles; /* tiles of about one size */
  int64_t size = w->kind == F32 ? 4 : w->kind == BF16 ? 2 : 1;
  int64_t blocks = w->kind == INT8 ? w->inputs / w->block : 0;
  memset(sums, 0, (size_t)tokens * NR * sizeof(float));
  int64_t together = x.narrow ? 2 * KC : KC; /* as many bytes */
  for (int64_t from = 0; from < w->inputs; from += together) {
    int64_t depth = w->inputs - from < together ? w->inputs - from : together;
    const char *here = (const char*)w->data + (panel * w->inputs + from) * NR * size,
               *next = here + together * NR * size;
    const char* last = next + together * NR * size; /* more than the next inputs of the panel would push others out */
    int packed = w->kind == INT8 && tiles == 1;
    const float* data = x.narrow || packed ? 0 : unpacked(w, panel, from, depth, room);
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
      const float* values = x.wide + m * w->inputs + from;
      if (w->kind == INT8) {
        int64_t at = panel * blocks + from / w->block;
        Blocks by = {w->scale + at * NR, w->minimum ? w->minimum + at * NR : 0, ones + m * blocks + from / w->block,
                     w->block, blocks};
        if (packed)
          PACKED_TILES[count](values, w->inputs, (const int8_t*)here, depth, by, sums + m * NR, next);
        else
          LOOSE_TILES[count](values, w->inputs, data, depth, by, sums + m * NR, next);
      } else {
        TILES[count](values, w->inputs, data, depth, sums + m * NR, next);
      }
      next = next + 2 * depth * 64 <= last ? next + depth * 64 : next;
    }
  }
}

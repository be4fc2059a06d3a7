/* Passes of a Llama-shaped decoder over caches in pages, without gradient: one call for all layers.

     h <- h + W_o attend(rope(W_q n), rope(W_k n), W_v n)      n = norm(h)
     h <- h + W_down( silu(W_gate n) * W_up n )                n = norm(h)

   It is the arithmetic of plain_decoder.py. What differs is who drives it: torch would be asked for some
   forty operators a layer, each of which starts its threads, reads and writes memory, and returns to Python.

   A number never depends on who else is in the pass: every product is summed in the order of its inputs, every
   row attends to its own slots in their order, whatever the rows, the tokens of a row or the threads are. So a
   token's logits are the same to the bit alone, in a batch, and behind a guess.

   Weights stand in panels of NR outputs side by side, (n / NR, k, NR), in the fewest bits that hold them exactly:
     F32     float
     BF16    bfloat16, two inputs after each other: (n / NR, k / 2, NR, 2)
     INT8    integers, and for every block of inputs a scale and a minimum: w = scale * q + minimum

   The file is plain C with the vector extensions of GCC and clang, compiled on the machine it runs on. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define VL 16
#define MR 12
#elif defined(__AVX2__)
#define VL 8
#define MR 6
#else
#define VL 4
#define MR 4
#endif
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__)
#define DOT_BF16 1
#else
#define DOT_BF16 0
#endif

#define NR (2 * VL)  /* outputs of a panel */
#define KC 128       /* inputs that are unpacked at once: even, and a multiple of every block */
#define TOKENS 144   /* whose inputs are kept near while a panel meets them */
#define PAGE 8       /* slots of a page; pages.py */
#define AHEAD 2      /* blocks of slots that are asked for ahead */
#define QUERIES 32   /* queries of a head that attend together */
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int8_t vc __attribute__((vector_size(VL), aligned(1), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * VL), aligned(2), may_alias));

enum { F32 = 0, BF16 = 1, INT8 = 2 };

typedef struct {
  int64_t outputs, inputs;  /* outputs: a multiple of NR */
  int64_t kind, block;
  const void *data;
  const float *scale, *minimum;  /* (n / NR, k / block, NR); minimum may be absent */
  const float *bias;             /* (n,), or absent */
} Matrix;

typedef struct {
  Matrix qkv, out, gate_up, down;  /* gate_up: a panel of gate and one of up in turns */
  const float *norm, *mlp_norm;
} Layer;

typedef struct {
  int64_t layers, heads, kv_heads, dim, hidden, inner;
  int64_t half;  /* 1: caches are bfloat16 and inputs of products are rounded to it; 0: float */
  float epsilon, scale;
  const Layer *layer;
  const float *final_norm;
} Model;

typedef struct {
  int64_t rows, width, threads;
  int64_t table_stride, bias_stride;
  const int64_t *table, *ends, *lengths;  /* pages (rows, table_stride); slots before; inputs, or absent */
  const float *bias;                      /* (rows, bias_stride) added to the logits of each slot */
  const float *cosine, *sine;             /* (rows * width, dim) */
  void *const *keys, *const *values;      /* of each layer, (P, kv_heads, PAGE, dim) */
  float *states;                          /* (rows * width, hidden), read and written */
} Pass;

int64_t gcache_panel(void) { return NR; }
int64_t gcache_dots_bf16(void) { return DOT_BF16; }

/* -- numbers ------------------------------------------------------------------------------------------------ */

INLINE uint16_t to_bf16(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40);  /* nan stays nan */
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

INLINE float from_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float x;
  memcpy(&x, &u, 4);
  return x;
}

INLINE vf load(const float *p) { return *(const vf *)p; }
INLINE void store(float *p, vf v) { *(vf *)p = v; }
/* Compilers take conversions of short numbers apart one by one, so this is said for the machines that matter. */
INLINE vf load_bf16(const uint16_t *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif defined(__AVX2__)
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
#else
  return (vf)(__builtin_convertvector(*(const vh *)p, vi) << 16);
#endif
}

INLINE void store_bf16(uint16_t *p, vf v) {
#if DOT_BF16
  _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  for (int i = 0; i < VL; i++) p[i] = to_bf16(v[i]);
#endif
}

/* VL integers of 8 bits as floats. */
INLINE vf load_int8(const int8_t *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
  return __builtin_convertvector(__builtin_convertvector(*(const vc *)p, vi), vf);
#endif
}

INLINE float total(vf v) {
  float sum = 0;
  for (int i = 0; i < VL; i++) sum += v[i];
  return sum;
}

/* e^x to about one unit in the last place: x = n ln 2 + r, a polynomial for e^r, n into the exponent. */
INLINE vf exponential(vf x) {
  vi low = x < -87.0f, high = x > 88.0f;
  vf y = (vf)(((vi)x & ~low & ~high));
  vf n = y * 1.44269504088896341f;
  vf magic = (vf){0} + 12582912.0f;  /* 1.5 * 2^23: adding it rounds to the nearest integer */
  vf rounded = (n + magic) - magic;
  vf r = y - rounded * 0.693359375f;
  r = r - rounded * -2.12194440e-4f;
  vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  vi exponent = (__builtin_convertvector(rounded, vi) + 127) << 23;
  vf result = p * (vf)exponent;
  vf infinite = (vf){0} + INFINITY;
  vi nan = x != x;
  return (vf)((((vi)result & ~low) & ~high & ~nan) | ((vi)infinite & high & ~nan) | ((vi)x & nan));
}

/* -- products ----------------------------------------------------------------------------------------------- */

/* Inputs of a product, of tokens one after the other: float, or bfloat16 where the machine multiplies that. */
typedef struct {
  float *wide;
  uint16_t *narrow;
} Buffer;

INLINE Buffer later(Buffer from, int64_t count) {
  return (Buffer){from.wide ? from.wide + count : 0, from.narrow ? from.narrow + count : 0};
}

/* `count` tokens by `depth` inputs, added to sums (count, NR). Meanwhile what comes `next` is asked for, a line of 64
   bytes at a time: else the processor would read weights or multiply, in turns. */
#define TILE(count)                                                                              \
  static void tile_##count(const float *x, int64_t stride, const float *w, int64_t depth, float *sums, const char *next) { \
    vf sum[count][2];                                                                            \
    for (int m = 0; m < count; m++) {                                                            \
      sum[m][0] = load(sums + m * NR);                                                           \
      sum[m][1] = load(sums + m * NR + VL);                                                      \
    }                                                                                            \
    for (int64_t k = 0; k < depth; k++) {                                                        \
      vf left = load(w + k * NR), right = load(w + k * NR + VL);                                 \
      if (count > 4) __builtin_prefetch(next + k * 64);                                                         \
      _Pragma("GCC unroll 16") for (int m = 0; m < count; m++) {                                 \
        float value = x[m * stride + k];                                                         \
        sum[m][0] += left * value;                                                               \
        sum[m][1] += right * value;                                                              \
      }                                                                                          \
    }                                                                                            \
    for (int m = 0; m < count; m++) {                                                            \
      store(sums + m * NR, sum[m][0]);                                                           \
      store(sums + m * NR + VL, sum[m][1]);                                                      \
    }                                                                                            \
  }

TILE(1) TILE(2) TILE(3) TILE(4)
#if MR >= 6
TILE(5) TILE(6)
#endif
#if MR >= 12
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
#endif

typedef void (*Tile)(const float *, int64_t, const float *, int64_t, float *, const char *);
static const Tile TILES[] = {0, tile_1, tile_2, tile_3, tile_4,
#if MR >= 6
                             tile_5, tile_6,
#endif
#if MR >= 12
                             tile_7, tile_8, tile_9, tile_10, tile_11, tile_12
#endif
};

#if DOT_BF16
#define HALF_TILE(count)                                                                                    \
  static void half_tile_##count(const uint16_t *x, int64_t stride, const uint16_t *w, int64_t depth, float *sums, const char *next) { \
    __m512 sum[count][2];                                                                                   \
    for (int m = 0; m < count; m++) {                                                                       \
      sum[m][0] = _mm512_loadu_ps(sums + m * NR);                                                           \
      sum[m][1] = _mm512_loadu_ps(sums + m * NR + VL);                                                      \
    }                                                                                                       \
    for (int64_t k = 0; k < depth; k += 2) {                                                                \
      __m512bh left = (__m512bh)_mm512_loadu_si512(w + k * NR);                                             \
      __m512bh right = (__m512bh)_mm512_loadu_si512(w + k * NR + 2 * VL);                                   \
      if (count > 4) __builtin_prefetch(next + k * 32);                                                                    \
      _Pragma("GCC unroll 16") for (int m = 0; m < count; m++) {                                            \
        int32_t pair;                                                                                       \
        memcpy(&pair, x + m * stride + k, 4);                                                               \
        __m512bh value = (__m512bh)_mm512_set1_epi32(pair);                                                 \
        sum[m][0] = _mm512_dpbf16_ps(sum[m][0], left, value);                                               \
        sum[m][1] = _mm512_dpbf16_ps(sum[m][1], right, value);                                              \
      }                                                                                                     \
    }                                                                                                       \
    for (int m = 0; m < count; m++) {                                                                       \
      _mm512_storeu_ps(sums + m * NR, sum[m][0]);                                                           \
      _mm512_storeu_ps(sums + m * NR + VL, sum[m][1]);                                                      \
    }                                                                                                       \
  }
HALF_TILE(1) HALF_TILE(2) HALF_TILE(3) HALF_TILE(4) HALF_TILE(5) HALF_TILE(6)
HALF_TILE(7) HALF_TILE(8) HALF_TILE(9) HALF_TILE(10) HALF_TILE(11) HALF_TILE(12)
typedef void (*HalfTile)(const uint16_t *, int64_t, const uint16_t *, int64_t, float *, const char *);
static const HalfTile HALF_TILES[] = {0,           half_tile_1, half_tile_2, half_tile_3,  half_tile_4,  half_tile_5, half_tile_6,
                                      half_tile_7, half_tile_8, half_tile_9, half_tile_10, half_tile_11, half_tile_12};
#endif

/* Inputs `from` .. `from + depth` of a panel as floats, (depth, NR). */
static const float *unpacked(const Matrix *w, int64_t panel, int64_t from, int64_t depth, float *room) {
  int64_t start = (panel * w->inputs + from) * NR;
  if (w->kind == F32) return (const float *)w->data + start;
  if (w->kind == BF16) {
    const uint16_t *source = (const uint16_t *)w->data + start;
    for (int64_t k = 0; k < depth; k += 2)
      for (int j = 0; j < NR; j += VL) {
        vi pair = *(const vi *)(source + k * NR + 2 * j);  /* little-endian: the first of two is the low half */
        *(vi *)(room + k * NR + j) = pair << 16;
        *(vi *)(room + (k + 1) * NR + j) = pair & (int32_t)0xffff0000;
      }
    return room;
  }
  const int8_t *source = (const int8_t *)w->data + start;
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
static void panel_product(const Matrix *w, int64_t panel, Buffer x, int64_t tokens, float *sums, float *room) {
  int64_t tiles = (tokens + MR - 1) / MR, most = (tokens + tiles - 1) / tiles;  /* tiles of about one size */
  int64_t size = w->kind == F32 ? 4 : w->kind == BF16 ? 2 : 1;
  memset(sums, 0, (size_t)tokens * NR * sizeof(float));
  for (int64_t from = 0; from < w->inputs; from += KC) {
    int64_t depth = w->inputs - from < KC ? w->inputs - from : KC;
    const char *here = (const char *)w->data + (panel * w->inputs + from) * NR * size, *next = here + KC * NR * size;
    const char *last = next + KC * NR * size;  /* more than the next inputs of the panel would push others out */
    const float *data = x.narrow ? 0 : unpacked(w, panel, from, depth, room);
    for (int64_t m = 0; m < tokens; m += most) {
      int64_t count = tokens - m < most ? tokens - m : most;
#if DOT_BF16
      if (x.narrow) {
        const uint16_t *values = x.narrow + m * w->inputs + from;
        HALF_TILES[count](values, w->inputs, (const uint16_t *)here, depth, sums + m * NR, next);
        next = next + 2 * depth * 32 <= last ? next + depth * 32 : next;
        continue;
      }
#endif
      TILES[count](x.wide + m * w->inputs + from, w->inputs, data, depth, sums + m * NR, next);
      next = next + 2 * depth * 64 <= last ? next + depth * 64 : next;
    }
  }
}

/* -- parts of a layer --------------------------------------------------------------------------------------- */

/* What a thread works in. */
typedef struct {
  float *sums, *other, *room, *scores, *heads, *block;
} Scratch;

INLINE void put_vector(Buffer to, int64_t at, vf value, int64_t half) {
  if (to.narrow) {
    store_bf16(to.narrow + at, value);
    return;
  }
  store(to.wide + at, value);
  if (half)
    for (int i = 0; i < VL; i++) to.wide[at + i] = from_bf16(to_bf16(value[i]));
}

INLINE void put(Buffer to, int64_t at, float value, int64_t half) {
  if (to.narrow) to.narrow[at] = to_bf16(value);
  else to.wide[at] = half ? from_bf16(to_bf16(value)) : value;
}

static void put_all(Buffer to, int64_t at, const float *from, int64_t count, int64_t half) {
  int64_t i = 0;
  for (; i + VL <= count; i += VL) put_vector(to, at + i, load(from + i), half);
  for (; i < count; i++) put(to, at + i, from[i], half);
}

/* Sums of one panel into columns `column` .. of (tokens, width), added to what is there or not. */
static void spread(const Matrix *w, int64_t panel, const float *sums, int64_t tokens, float *to, int64_t width, int add) {
  int64_t column = panel * NR, count = width - column < NR ? width - column : NR;
  const float *bias = w->bias ? w->bias + column : 0;
  for (int64_t m = 0; m < tokens; m++, sums += NR) {
    float *row = to + m * width + column;
    if (count == NR) {
      vf left = load(sums), right = load(sums + VL);
      if (bias) left += load(bias), right += load(bias + VL);
      if (add) left += load(row), right += load(row + VL);
      store(row, left), store(row + VL, right);
    } else {
      for (int64_t j = 0; j < count; j++) row[j] = (add ? row[j] : 0) + (sums[j] + (bias ? bias[j] : 0));
    }
  }
}

/* Panels `from` .. `to` of a product, into (tokens, width), added to what is there or not. Some tokens meet all panels
   before the next do, so that their inputs are still near. */
static void product(const Matrix *w, int64_t from, int64_t to, Buffer x, int64_t tokens, float *into, int64_t width, int add,
                    Scratch mine) {
  for (int64_t m = 0; m < tokens; m += TOKENS) {
    int64_t count = tokens - m < TOKENS ? tokens - m : TOKENS;
    for (int64_t p = from; p < to; p++) {
      panel_product(w, p, later(x, m * w->inputs), count, mine.sums, mine.room);
      spread(w, p, mine.sums, count, into + m * width, width, add);
    }
  }
}

/* silu(gate) * up of pairs of panels `from` .. `to`. */
static void gated(const Matrix *w, int64_t from, int64_t to, Buffer x, int64_t tokens, Buffer into, int64_t width, int64_t half,
                  Scratch mine) {
  for (int64_t first = 0; first < tokens; first += TOKENS) {
    int64_t count = tokens - first < TOKENS ? tokens - first : TOKENS;
    for (int64_t p = from; p < to; p++) {
      panel_product(w, 2 * p, later(x, first * w->inputs), count, mine.sums, mine.room);
      panel_product(w, 2 * p + 1, later(x, first * w->inputs), count, mine.other, mine.room);
      for (int64_t m = 0; m < count; m++)
        for (int64_t j = 0; j < NR; j += VL) {
          vf gate = load(mine.sums + m * NR + j), up = load(mine.other + m * NR + j);
          if (w->bias) {
            gate += load(w->bias + 2 * p * NR + j);
            up += load(w->bias + (2 * p + 1) * NR + j);
          }
          vf value = gate / (1.0f + exponential(-gate)) * up;
          int64_t column = p * NR + j, at = (first + m) * width + column;
          if (column + VL <= width) put_vector(into, at, value, half);
          else
            for (int64_t i = 0; column + i < width; i++) put(into, at + i, value[i], half);
        }
    }
  }
}

static void normalized(const Model *model, const float *states, const float *weight, int64_t from, int64_t to, Buffer x) {
  int64_t width = model->hidden;
  for (int64_t m = from; m < to; m++) {
    const float *h = states + m * width;
    float squares = 0;
    int64_t i = 0;
    vf sum = {0};
    for (; i + VL <= width; i += VL) sum += load(h + i) * load(h + i);
    squares = total(sum);
    for (; i < width; i++) squares += h[i] * h[i];
    float scale = 1.0f / sqrtf(squares / (float)width + model->epsilon);
    for (i = 0; i + VL <= width; i += VL) put_vector(x, m * width + i, load(h + i) * scale * load(weight + i), model->half);
    for (; i < width; i++) put(x, m * width + i, h[i] * scale * weight[i], model->half);
  }
}

/* Which of `count` things thread `me` of `threads` does. */
INLINE void share(int64_t count, int64_t me, int64_t threads, int64_t *from, int64_t *to) {
  *from = count * me / threads;
  *to = count * (me + 1) / threads;
}

INLINE void rotated(const float *from, const float *cosine, const float *sine, int64_t dim, float *to) {
  int64_t half = dim / 2;
  for (int64_t d = 0; d < half; d++) {
    float first = from[d], second = from[d + half];
    to[d] = first * cosine[d] - second * sine[d];
    to[d + half] = second * cosine[d + half] + first * sine[d + half];
  }
}

/* VL slots of one head in a pool of pages, as pointers; slots beyond the last are the last. */
INLINE void slot_places(const Model *model, const void *pool, const int64_t *table, int64_t head, int64_t slot, int64_t slots,
                        const char **to) {
  int64_t size = model->half ? 2 : 4;
  for (int64_t j = 0; j < VL; j++) {
    int64_t at = slot + j < slots ? slot + j : slots - 1;
    to[j] = (const char *)pool + (((table[at / PAGE] * model->kv_heads + head) * PAGE + at % PAGE) * model->dim) * size;
  }
}

/* Ask for the next slots: pages lie anywhere, so the processor does not guess where they are. */
INLINE void fetch_slots(const Model *model, const void *pool, const int64_t *table, int64_t head, int64_t slot, int64_t slots) {
  int64_t bytes = PAGE * model->dim * (model->half ? 2 : 4);
  for (int64_t at = slot / PAGE * PAGE; at < slot + VL && at < slots; at += PAGE) {
    const char *page = (const char *)pool + (table[at / PAGE] * model->kv_heads + head) * bytes;
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(page + i);
  }
}

INLINE vf load_cached(const char *slot, int64_t at, int64_t half) {
  return half ? load_bf16((const uint16_t *)slot + at) : load((const float *)slot + at);
}

INLINE float one_cached(const char *slot, int64_t at, int64_t half) {
  return half ? from_bf16(((const uint16_t *)slot)[at]) : ((const float *)slot)[at];
}

/* Rows become columns: VL vectors, stored one after the other. */
INLINE void transposed(vf r[VL], float *to) {
#if defined(__AVX512F__)
  __m512 t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps((__m512)r[i], (__m512)r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps((__m512)r[i], (__m512)r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    u[i] = (__m512)_mm512_unpacklo_pd((__m512d)t[i], (__m512d)t[i + 2]);
    u[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)t[i], (__m512d)t[i + 2]);
    u[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
    u[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)t[i + 1], (__m512d)t[i + 3]);
  }
  for (int i = 0; i < 4; i++) {  /* columns i, i + 4, i + 8, i + 12 */
    __m512 a = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88), b = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
    __m512 c = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88), d = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
    store(to + i * VL, (vf)_mm512_shuffle_f32x4(a, c, 0x88));
    store(to + (i + 8) * VL, (vf)_mm512_shuffle_f32x4(a, c, 0xdd));
    store(to + (i + 4) * VL, (vf)_mm512_shuffle_f32x4(b, d, 0x88));
    store(to + (i + 12) * VL, (vf)_mm512_shuffle_f32x4(b, d, 0xdd));
  }
#elif defined(__AVX2__)
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    u[i] = (__m256)_mm256_unpacklo_pd((__m256d)t[i], (__m256d)t[i + 2]);
    u[i + 1] = (__m256)_mm256_unpackhi_pd((__m256d)t[i], (__m256d)t[i + 2]);
    u[i + 2] = (__m256)_mm256_unpacklo_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
    u[i + 3] = (__m256)_mm256_unpackhi_pd((__m256d)t[i + 1], (__m256d)t[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    store(to + i * VL, (vf)_mm256_permute2f128_ps(u[i], u[i + 4], 0x20));
    store(to + (i + 4) * VL, (vf)_mm256_permute2f128_ps(u[i], u[i + 4], 0x31));
  }
#else
  for (int i = 0; i < VL; i++)
    for (int j = 0; j < VL; j++) to[j * VL + i] = r[i][j];
#endif
}

/* One row and key-value head: rotate, write the fresh slots, attend. */
static void attend(const Model *model, const Pass *pass, int64_t layer, int64_t row, int64_t head, const float *qkv,
                   Buffer mixed, Scratch mine) {
  int64_t dim = model->dim, group = model->heads / model->kv_heads, width = pass->width;
  int64_t wide = (model->heads + 2 * model->kv_heads) * dim;  /* of a token's queries, keys and values */
  int64_t before = pass->ends[row], fresh = pass->lengths ? pass->lengths[row] : width;
  const int64_t *table = pass->table + row * pass->table_stride;
  const float *bias = pass->bias + row * pass->bias_stride;
  void *keys = pass->keys[layer], *values = pass->values[layer];
  float *turned = mine.block;
  for (int64_t s = 0; s < fresh; s++) {
    int64_t token = row * width + s, slot = before + s;
    const float *key = qkv + token * wide + (model->heads + head) * dim;
    const float *value = key + model->kv_heads * dim;
    rotated(key, pass->cosine + token * dim, pass->sine + token * dim, dim, turned);
    int64_t at = ((table[slot / PAGE] * model->kv_heads + head) * PAGE + slot % PAGE) * dim;
    if (model->half) {
      put_all((Buffer){0, (uint16_t *)keys}, at, turned, dim, 1);
      put_all((Buffer){0, (uint16_t *)values}, at, value, dim, 1);
    } else {
      memcpy((float *)keys + at, turned, (size_t)dim * sizeof(float));
      memcpy((float *)values + at, value, (size_t)dim * sizeof(float));
    }
  }
  int64_t asked = fresh * group;  /* queries: the heads of the group for each fresh token */
  int64_t room = (before + width + VL - 1) / VL * VL;
  for (int64_t first = 0; first < asked; first += QUERIES) {
    int64_t count = asked - first < QUERIES ? asked - first : QUERIES;
    int64_t slots = before + (first + count - 1) / group + 1;  /* that the last of these queries sees */
    float *queries = mine.heads, *sums = mine.heads + QUERIES * dim;
    for (int64_t n = 0; n < count; n++) {
      int64_t token = row * width + (first + n) / group, h = head * group + (first + n) % group;
      rotated(qkv + token * wide + h * dim, pass->cosine + token * dim, pass->sine + token * dim, dim, queries + n * dim);
      for (int64_t d = 0; d < dim; d++) {
        if (model->half) queries[n * dim + d] = from_bf16(to_bf16(queries[n * dim + d]));
        queries[n * dim + d] *= model->scale;
      }
    }
    float *across = mine.block;  /* (dim, VL) */
    const char *place[VL];
    for (int64_t slot = 0; slot < slots; slot += VL) {
      slot_places(model, keys, table, head, slot, slots, place);
      fetch_slots(model, keys, table, head, slot + AHEAD * VL, slots);
      fetch_slots(model, values, table, head, slot, slots);
      int64_t d = 0;
      for (; d + VL <= dim; d += VL) {
        vf rows[VL];
        for (int j = 0; j < VL; j++) rows[j] = load_cached(place[j], d, model->half);
        transposed(rows, across + d * VL);
      }
      for (; d < dim; d++)
        for (int j = 0; j < VL; j++) across[d * VL + j] = one_cached(place[j], d, model->half);
      for (int64_t n = 0; n < count; n += 4) {  /* four at a time; the last may be there several times */
        const float *query[4];
        vf sum[4] = {{0}, {0}, {0}, {0}};
        for (int i = 0; i < 4; i++) query[i] = queries + (n + i < count ? n + i : count - 1) * dim;
        for (d = 0; d < dim; d++) {
          vf key = load(across + d * VL);
          for (int i = 0; i < 4; i++) sum[i] += key * query[i][d];
        }
        for (int64_t i = 0; i < 4 && n + i < count; i++) store(mine.scores + (n + i) * room + slot, sum[i]);
      }
    }
    for (int64_t n = 0; n < count; n++) {
      float *score = mine.scores + n * room;
      int64_t seen = before + (first + n) / group + 1, whole = (slots + VL - 1) / VL * VL;
      for (int64_t t = 0; t < seen; t++) score[t] += bias[t];
      for (int64_t t = seen; t < whole; t++) score[t] = -INFINITY;
      vf most = load(score);
      for (int64_t t = VL; t < whole; t += VL) {
        vf other = load(score + t);
        vi more = other > most;
        most = (vf)(((vi)other & more) | ((vi)most & ~more));
      }
      float top = most[0];
      for (int i = 1; i < VL; i++) top = most[i] > top ? most[i] : top;
      vf sum = {0};
      for (int64_t t = 0; t < whole; t += VL) {
        vf weight = exponential(load(score + t) - top);
        store(score + t, weight);
        sum += weight;
      }
      float share_of_one = 1.0f / total(sum);
      for (int64_t t = 0; t < whole; t += VL) store(score + t, load(score + t) * share_of_one);
    }
    memset(sums, 0, (size_t)(count * dim) * sizeof(float));
    for (int64_t slot = 0; slot < slots; slot += VL) {
      int64_t here = slots - slot < VL ? slots - slot : VL, d = 0;
      slot_places(model, values, table, head, slot, slots, place);
      for (int64_t j = 0; j < here; j++) {
        for (d = 0; d + VL <= dim; d += VL) store(mine.block + j * dim + d, load_cached(place[j], d, model->half));
        for (; d < dim; d++) mine.block[j * dim + d] = one_cached(place[j], d, model->half);
      }
      for (int64_t n = 0; n < count; n++) {
        const float *weight = mine.scores + n * room + slot;
        for (d = 0; d + 4 * VL <= dim; d += 4 * VL) {
          float *to = sums + n * dim + d;
          vf a = load(to), b = load(to + VL), c = load(to + 2 * VL), e = load(to + 3 * VL);
          for (int64_t j = 0; j < here; j++) {
            const float *value = mine.block + j * dim + d;
            a += load(value) * weight[j];
            b += load(value + VL) * weight[j];
            c += load(value + 2 * VL) * weight[j];
            e += load(value + 3 * VL) * weight[j];
          }
          store(to, a), store(to + VL, b), store(to + 2 * VL, c), store(to + 3 * VL, e);
        }
        for (; d < dim; d++)
          for (int64_t j = 0; j < here; j++) sums[n * dim + d] += mine.block[j * dim + d] * weight[j];
      }
    }
    for (int64_t n = 0; n < count; n++) {
      int64_t token = row * width + (first + n) / group, h = head * group + (first + n) % group;
      put_all(mixed, (token * model->heads + h) * dim, sums + n * dim, dim, model->half);
    }
  }
  for (int64_t s = fresh; s < width; s++)  /* padding */
    for (int64_t h = head * group; h < (head + 1) * group; h++)
      for (int64_t d = 0; d < dim; d++) put(mixed, ((row * width + s) * model->heads + h) * dim + d, 0, 0);
}

/* -- what is called ----------------------------------------------------------------------------------------- */

static void *aligned(size_t bytes) {
  void *room = 0;
  return posix_memalign(&room, 64, bytes ? bytes : 64) ? 0 : room;
}

static Buffer buffer(int64_t count, int narrow) {
  Buffer made = {0, 0};
  if (narrow) made.narrow = aligned((size_t)count * 2);
  else made.wide = aligned((size_t)count * 4);
  return made;
}

/* Returns 0, or 1 where memory is short. */
int gcache_pass(const Model *model, const Pass *pass) {
  int64_t tokens = pass->rows * pass->width, hidden = model->hidden, dim = model->dim;
  int64_t qkv_width = (model->heads + 2 * model->kv_heads) * dim;
  int64_t most = 0;
  int narrow = model->half && DOT_BF16, failed = 0;
  for (int64_t row = 0; row < pass->rows; row++) most = pass->ends[row] > most ? pass->ends[row] : most;
  most = (most + pass->width + VL) / VL * VL;
  Buffer x = buffer(tokens * hidden, narrow), mixed = buffer(tokens * model->heads * dim, narrow);
  Buffer inner = buffer(tokens * model->inner, narrow);
  float *qkv = aligned((size_t)(tokens * qkv_width) * 4);
  if (!qkv || !(x.wide || x.narrow) || !(mixed.wide || mixed.narrow) || !(inner.wide || inner.narrow)) failed = 1;
  if (!failed) {
#pragma omp parallel num_threads((int)pass->threads) shared(failed)
    {
      int64_t me = omp_get_thread_num(), threads = omp_get_num_threads(), from, to;
      Scratch mine = {
          aligned(TOKENS * NR * 4), aligned(TOKENS * NR * 4), aligned(KC * NR * 4),
          aligned((size_t)(QUERIES * most) * 4), aligned((size_t)(2 * QUERIES * dim) * 4), aligned((size_t)(2 * VL * dim) * 4)};
      if (!mine.sums || !mine.other || !mine.room || !mine.scores || !mine.heads || !mine.block) {
#pragma omp atomic write
        failed = 1;
      }
#pragma omp barrier
      for (int64_t l = 0; l < model->layers && !failed; l++) {
        const Layer *layer = model->layer + l;
        share(tokens, me, threads, &from, &to);
        normalized(model, pass->states, layer->norm, from, to, x);
#pragma omp barrier
        share(layer->qkv.outputs / NR, me, threads, &from, &to);
        product(&layer->qkv, from, to, x, tokens, qkv, qkv_width, 0, mine);
#pragma omp barrier
        share(pass->rows * model->kv_heads, me, threads, &from, &to);
        for (int64_t n = from; n < to; n++) attend(model, pass, l, n / model->kv_heads, n % model->kv_heads, qkv, mixed, mine);
#pragma omp barrier
        share(layer->out.outputs / NR, me, threads, &from, &to);
        product(&layer->out, from, to, mixed, tokens, pass->states, hidden, 1, mine);
#pragma omp barrier
        share(tokens, me, threads, &from, &to);
        normalized(model, pass->states, layer->mlp_norm, from, to, x);
#pragma omp barrier
        share(layer->gate_up.outputs / NR / 2, me, threads, &from, &to);
        gated(&layer->gate_up, from, to, x, tokens, inner, model->inner, model->half, mine);
#pragma omp barrier
        share(layer->down.outputs / NR, me, threads, &from, &to);
        product(&layer->down, from, to, inner, tokens, pass->states, hidden, 1, mine);
#pragma omp barrier
      }
      share(tokens, me, threads, &from, &to);
      if (!failed) normalized(&(Model){.hidden = hidden, .epsilon = model->epsilon, .half = 0}, pass->states, model->final_norm, from, to,
                 (Buffer){pass->states, 0});
      free(mine.sums), free(mine.other), free(mine.room), free(mine.scores), free(mine.heads), free(mine.block);
    }
  }
  free(x.wide), free(x.narrow), free(mixed.wide), free(mixed.narrow), free(inner.wide), free(inner.narrow), free(qkv);
  return failed;
}

/* (tokens, n) of (tokens, k), `columns` of the outputs. Returns 0, or 1 where memory is short. */
int gcache_linear(const Matrix *w, const float *from, float *to, int64_t tokens, int64_t columns, int64_t half, int64_t threads) {
  Buffer x = buffer(tokens * w->inputs, half && DOT_BF16);
  int failed = !(x.wide || x.narrow);
  if (failed) return 1;
  put_all(x, 0, from, tokens * w->inputs, half);
#pragma omp parallel num_threads((int)threads) shared(failed)
  {
    int64_t me = omp_get_thread_num(), count = omp_get_num_threads(), first, last;
    Scratch mine = {.sums = aligned(TOKENS * NR * 4), .room = aligned(KC * NR * 4)};
    if (!mine.sums || !mine.room) {
#pragma omp atomic write
      failed = 1;
    } else {
      share(w->outputs / NR, me, count, &first, &last);
      product(w, first, last, x, tokens, to, columns, 0, mine);
    }
    free(mine.sums), free(mine.room);
  }
  free(x.wide), free(x.narrow);
  return failed;
}

/* -- packing ------------------------------------------------------------------------------------------------ */

/* Row `n` of (n, k) weights into its panel; rows come in any order. */
void gcache_pack_floats(const float *from, int64_t rows, int64_t inputs_, const int64_t *places, float *to) {
#pragma omp parallel for
  for (int64_t n = 0; n < rows; n++) {
    float *panel = to + places[n] / NR * inputs_ * NR + places[n] % NR;
    for (int64_t k = 0; k < inputs_; k++) panel[k * NR] = from[n * inputs_ + k];
  }
}

void gcache_pack_bf16(const uint16_t *from, int64_t rows, int64_t inputs_, const int64_t *places, uint16_t *to) {
#pragma omp parallel for
  for (int64_t n = 0; n < rows; n++) {
    uint16_t *panel = to + places[n] / NR * inputs_ * NR + 2 * (places[n] % NR);
    for (int64_t k = 0; k < inputs_; k++) panel[k / 2 * 2 * NR + k % 2] = from[n * inputs_ + k];
  }
}

/* Whether `count` floats are scale * q + minimum with integers q of 8 bits, and these. The step is guessed from the range,
   and then fitted to all of them (least squares), so that what is left is the rounding of the floats themselves. */
static int on_lattice(const float *w, int64_t count, float *scale, float *minimum, int8_t *q) {
  float low = w[0], high = w[0];
  for (int64_t i = 1; i < count; i++) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  float largest = fmaxf(fabsf(low), fabsf(high));
  for (int64_t i = 0; i < count; i++)
    if (!(fabsf(w[i]) < INFINITY)) return 0;
  if (low == high) {
    *scale = 0, *minimum = low;
    memset(q, 0, (size_t)count);
    return 1;
  }
  float slack = largest * 0x1p-20f;  /* unpacking rounded a product and a sum, each to 2^-24 */
  for (int levels = 1; levels < 256; levels++) {
    float step = (high - low) / (float)levels, per = (float)levels / (high - low);
    int64_t i = 0;
    double n[KC], mean = 0, mean_w = 0;
    for (; i < count; i++) {
      float nearest = rintf((w[i] - low) * per);
      if (fabsf(nearest * step + low - w[i]) > slack) break;
      n[i] = nearest, mean += n[i] / (double)count, mean_w += (double)w[i] / (double)count;
    }
    if (i < count) continue;
    double zero = rint((double)(-low * per));  /* where 0 lies on the lattice, no minimum is needed */
    int symmetric = fabs(zero * step + low) <= slack && zero <= 128 && levels - zero <= 127;
    double shift = symmetric ? zero : levels > 127 ? 128 : 0, along = 0, across = 0;
    for (i = 0; i < count; i++) {
      double from = symmetric ? n[i] - zero : n[i] - mean, to = symmetric ? w[i] : w[i] - mean_w;
      along += from * to, across += from * from;
      q[i] = (int8_t)(n[i] - shift);
    }
    *scale = (float)(along / across);
    *minimum = symmetric ? 0 : (float)(mean_w - (mean - shift) * (double)*scale);
    for (i = 0; i < count; i++)
      if (fabsf((float)q[i] * *scale + *minimum - w[i]) > slack) break;
    if (i == count) return 1;
  }
  return 0;
}

/* (n, k) weights as integers; returns 1 if all of them are on lattices of `block` inputs. */
int gcache_pack_int8(const float *from, int64_t rows, int64_t inputs_, int64_t block, const int64_t *places, int8_t *to,
                     float *scale, float *minimum) {
  int fits = 1;
  int64_t blocks = inputs_ / block;
#pragma omp parallel for schedule(dynamic, 16) shared(fits)
  for (int64_t n = 0; n < rows; n++) {
    if (!fits) continue;
    int64_t panel = places[n] / NR, lane = places[n] % NR;
    int8_t q[KC];
    for (int64_t b = 0; b < blocks; b++) {
      int64_t at = (panel * blocks + b) * NR + lane;
      if (!on_lattice(from + n * inputs_ + b * block, block, scale + at, minimum + at, q)) {
        fits = 0;
        break;
      }
      for (int64_t i = 0; i < block; i++) to[(panel * inputs_ + b * block + i) * NR + lane] = q[i];
    }
  }
  return fits;
}

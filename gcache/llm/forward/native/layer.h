/* What a pass is given, and the parts of a layer beside attention. */
#pragma once
#include "products.h"

typedef struct {
  Matrix qkv, out, gate_up, down; /* gate_up: a panel of gate and one of up in turns */
  const float *norm, *mlp_norm;
  const float *query_norm, *key_norm; /* (dim,) of each head's queries and keys; 0 where there is none */
} Layer;

typedef struct {
  int64_t layers, heads, kv_heads, dim, hidden, inner;
  int64_t half; /* 1: caches are bfloat16 and inputs of products are rounded to it; 0: float */
  float epsilon, scale;
  const Layer* layer;
  const float* final_norm;
} Model;

/* Tokens of all rows stand one after the other, without padding. */
typedef struct {
  int64_t rows, threads, table_stride, bias_stride;
  int64_t slots_only;          /* 1: nobody looks at the states, so the last layer ends with its keys and values */
  const int64_t *table, *ends; /* pages (rows, table_stride); slots before */
  const int64_t* starts;       /* (rows + 1,) of each row's tokens among all, and how many these are */
  const float* bias;           /* (rows, bias_stride) added to the logits of each slot */
  const float *cosine, *sine;  /* (tokens, dim) */
  void *const *keys, *const *values; /* of each layer, (P, kv_heads, PAGE, dim) */
  float* states;                     /* (tokens, hidden), read and written */
} Pass;

/* What a thread works in. */
typedef struct {
  float *sums, *other, *room, *ones, *scores, *heads, *block;
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
  if (to.narrow)
    to.narrow[at] = to_bf16(value);
  else
    to.wide[at] = half ? from_bf16(to_bf16(value)) : value;
}

static void put_all(Buffer to, int64_t at, const float* from, int64_t count, int64_t half) {
  int64_t i = 0;
  for (; i + VL <= count; i += VL) put_vector(to, at + i, load(from + i), half);
  for (; i < count; i++) put(to, at + i, from[i], half);
}

/* Sums of one panel into columns `column` .. of (tokens, width), added to what is there or not. */
static void spread(const Matrix* w, int64_t panel, const float* sums, int64_t tokens, float* to, int64_t width,
                   int add) {
  int64_t column = panel * NR, count = width - column < NR ? width - column : NR;
  const float* bias = w->bias ? w->bias + column : 0;
  for (int64_t m = 0; m < tokens; m++, sums += NR) {
    float* row = to + m * width + column;
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
static void product(const Matrix* w, int64_t from, int64_t to, Buffer x, int64_t tokens, float* into, int64_t width,
                    int add, Scratch mine) {
  for (int64_t m = 0; m < tokens; m += TOKENS) {
    int64_t count = tokens - m < TOKENS ? tokens - m : TOKENS;
    Buffer own = later(x, m * w->inputs);
    if (from < to) sum_blocks(w, own, count, mine.ones);
    for (int64_t p = from; p < to; p++) {
      panel_product(w, p, own, count, mine.ones, mine.sums, mine.room);
      spread(w, p, mine.sums, count, into + m * width, width, add);
    }
  }
}

/* silu(gate) * up of pairs of panels `from` .. `to`. */
static void gated(const Matrix* w, int64_t from, int64_t to, Buffer x, int64_t tokens, Buffer into, int64_t width,
                  int64_t half, Scratch mine) {
  for (int64_t first = 0; first < tokens; first += TOKENS) {
    int64_t count = tokens - first < TOKENS ? tokens - first : TOKENS;
    Buffer own = later(x, first * w->inputs);
    if (from < to) sum_blocks(w, own, count, mine.ones);
    for (int64_t p = from; p < to; p++) {
      panel_product(w, 2 * p, own, count, mine.ones, mine.sums, mine.room);
      panel_product(w, 2 * p + 1, own, count, mine.ones, mine.other, mine.room);
      for (int64_t m = 0; m < count; m++)
        for (int64_t j = 0; j < NR; j += VL) {
          vf gate = load(mine.sums + m * NR + j), up = load(mine.other + m * NR + j);
          if (w->bias) {
            gate += load(w->bias + 2 * p * NR + j);
            up += load(w->bias + (2 * p + 1) * NR + j);
          }
          vf value = gate / (1.0f + exponential(-gate)) * up;
          int64_t column = p * NR + j, at = (first + m) * width + column;
          if (column + VL <= width)
            put_vector(into, at, value, half);
          else
            for (int64_t i = 0; column + i < width; i++) put(into, at + i, value[i], half);
        }
    }
  }
}

/* One over the root mean square of `width` numbers. */
INLINE float inverse_rms(const float* h, int64_t width, float epsilon) {
  int64_t i = 0;
  vf sum = {0};
  for (; i + VL <= width; i += VL) sum += load(h + i) * load(h + i);
  float squares = total(sum);
  for (; i < width; i++) squares += h[i] * h[i];
  return 1.0f / sqrtf(squares / (float)width + epsilon);
}

/* Tokens `from` .. `to` of the states by their root mean square; `half`: rounded to bfloat16. */
static void normalized(const Model* model, const float* states, const float* weight, int64_t from, int64_t to, Buffer x,
                       int64_t half) {
  int64_t width = model->hidden;
  for (int64_t m = from; m < to; m++) {
    const float* h = states + m * width;
    float scale = inverse_rms(h, width, model->epsilon);
    int64_t i = 0;
    for (; i + VL <= width; i += VL) put_vector(x, m * width + i, load(h + i) * scale * load(weight + i), half);
    for (; i < width; i++) put(x, m * width + i, h[i] * scale * weight[i], half);
  }
}

/* Which of `count` things thread `me` of `threads` does. */
INLINE void share(int64_t count, int64_t me, int64_t threads, int64_t* from, int64_t* to) {
  *from = count * me / threads;
  *to = count * (me + 1) / threads;
}

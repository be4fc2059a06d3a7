/* Attention over slots where they lie: in pages, each slot with its own log-weight. */
#pragma once
#include "layer.h"

/* A head's query or key, by its root mean square where the model has it so, rotated. */
INLINE void rotated(const float* from, const float* norm, float epsilon, const float* cosine, const float* sine,
                    int64_t dim, float* to) {
  int64_t half = dim / 2;
  float scale = norm ? inverse_rms(from, dim, epsilon) : 1;
  for (int64_t d = 0; d < half; d++) {
    float first = from[d], second = from[d + half];
    if (norm) first *= scale * norm[d], second *= scale * norm[d + half];
    to[d] = first * cosine[d] - second * sine[d];
    to[d + half] = second * cosine[d + half] + first * sine[d + half];
  }
}

/* The first number of one head's slot in a pool of pages. */
INLINE int64_t slot_number(const int64_t* table, int64_t slot, int64_t head, int64_t heads, int64_t dim) {
  return ((table[slot / PAGE] * heads + head) * PAGE + slot % PAGE) * dim;
}

/* VL slots of one head in a pool of pages, as pointers; slots beyond the last are the last. */
INLINE void slot_places(const Model* model, const void* pool, const int64_t* table, int64_t head, int64_t slot,
                        int64_t slots, const char** to) {
  int64_t size = model->half ? 2 : 4;
  for (int64_t j = 0; j < VL; j++) {
    int64_t at = slot + j < slots ? slot + j : slots - 1;
    to[j] = (const char*)pool + slot_number(table, at, head, model->kv_heads, model->dim) * size;
  }
}

/* Ask for the next slots: pages lie anywhere, so the processor does not guess where they are. */
INLINE void fetch_slots(const Model* model, const void* pool, const int64_t* table, int64_t head, int64_t slot,
                        int64_t slots) {
  int64_t size = model->half ? 2 : 4, bytes = PAGE * model->dim * size;
  for (int64_t at = slot / PAGE * PAGE; at < slot + VL && at < slots; at += PAGE) {
    const char* page = (const char*)pool + slot_number(table, at, head, model->kv_heads, model->dim) * size;
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(page + i);
  }
}

INLINE vf load_cached(const char* slot, int64_t at, int64_t half) {
  return half ? load_bf16((const uint16_t*)slot + at) : load((const float*)slot + at);
}

INLINE float one_cached(const char* slot, int64_t at, int64_t half) {
  return half ? from_bf16(((const uint16_t*)slot)[at]) : ((const float*)slot)[at];
}

/* Rows become columns: VL vectors, stored one after the other. */
INLINE void transposed(vf r[VL], float* to) {
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
  for (int i = 0; i < 4; i++) { /* columns i, i + 4, i + 8, i + 12 */
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

/* Queries of one row and key-value head that attend together. */
typedef struct {
  const Model* model;
  const int64_t* table;
  const float* bias;
  int64_t head, count;
  int64_t slots, room; /* that the last of them sees; of a query's scores */
  Scratch mine;        /* heads: the queries (QUERIES, dim), then what they get; scores (QUERIES, room) */
} Asking;

/* Rotate and write the fresh keys of one row and head, and its values. */
static void write_slots(const Model* model, const Pass* pass, int64_t layer, int64_t row, int64_t head,
                        const float* qkv, float* turned) {
  int64_t dim = model->dim, wide = (model->heads + 2 * model->kv_heads) * dim;
  int64_t start = pass->starts[row], fresh = pass->starts[row + 1] - start;
  const int64_t* table = pass->table + row * pass->table_stride;
  void *keys = pass->keys[layer], *values = pass->values[layer];
  for (int64_t s = 0; s < fresh; s++) {
    int64_t token = start + s;
    const float* key = qkv + token * wide + (model->heads + head) * dim;
    const float* value = key + model->kv_heads * dim;
    rotated(key, model->layer[layer].key_norm, model->epsilon, pass->cosine + token * dim, pass->sine + token * dim,
            dim, turned);
    int64_t at = slot_number(table, pass->ends[row] + s, head, model->kv_heads, dim);
    if (model->half) {
      put_all((Buffer){0, (uint16_t*)keys}, at, turned, dim, 1);
      put_all((Buffer){0, (uint16_t*)values}, at, value, dim, 1);
    } else {
      memcpy((float*)keys + at, turned, (size_t)dim * sizeof(float));
      memcpy((float*)values + at, value, (size_t)dim * sizeof(float));
    }
  }
}

/* Products of every query with every key. `values` are asked for meanwhile. */
static void score(Asking a, const void* keys, const void* values) {
  int64_t dim = a.model->dim, half = a.model->half;
  float* across = a.mine.block; /* (dim, VL) */
  const float* queries = a.mine.heads;
  const char* place[VL];
  for (int64_t slot = 0; slot < a.slots; slot += VL) {
    slot_places(a.model, keys, a.table, a.head, slot, a.slots, place);
    fetch_slots(a.model, keys, a.table, a.head, slot + AHEAD * VL, a.slots);
    fetch_slots(a.model, values, a.table, a.head, slot, a.slots);
    int64_t d = 0;
    for (; d + VL <= dim; d += VL) {
      vf rows[VL];
      for (int j = 0; j < VL; j++) rows[j] = load_cached(place[j], d, half);
      transposed(rows, across + d * VL);
    }
    for (; d < dim; d++)
      for (int j = 0; j < VL; j++) across[d * VL + j] = one_cached(place[j], d, half);
    for (int64_t n = 0; n < a.count; n += 4) { /* four at a time; the last may be there several times */
      const float* query[4];
      vf sum[4] = {{0}, {0}, {0}, {0}};
      for (int i = 0; i < 4; i++) query[i] = queries + (n + i < a.count ? n + i : a.count - 1) * dim;
      for (d = 0; d < dim; d++) {
        vf key = load(across + d * VL);
        for (int i = 0; i < 4; i++) sum[i] += key * query[i][d];
      }
      for (int64_t i = 0; i < 4 && n + i < a.count; i++) store(a.mine.scores + (n + i) * a.room + slot, sum[i]);
    }
  }
}

/* One query's scores, of `seen` slots, to weights: log-weights are added, and the exponentials made to sum to one. */
static void weigh(Asking a, int64_t query, int64_t seen) {
  float* score = a.mine.scores + query * a.room;
  int64_t whole = (a.slots + VL - 1) / VL * VL;
  for (int64_t t = 0; t < seen; t++) score[t] += a.bias[t];
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

/* Weighted sums of the values, (count, dim). */
static void mix(Asking a, const void* values, float* sums) {
  int64_t dim = a.model->dim, half = a.model->half;
  const char* place[VL];
  memset(sums, 0, (size_t)(a.count * dim) * sizeof(float));
  for (int64_t slot = 0; slot < a.slots; slot += VL) {
    int64_t here = a.slots - slot < VL ? a.slots - slot : VL, d = 0;
    slot_places(a.model, values, a.table, a.head, slot, a.slots, place);
    for (int64_t j = 0; j < here; j++) {
      for (d = 0; d + VL <= dim; d += VL) store(a.mine.block + j * dim + d, load_cached(place[j], d, half));
      for (; d < dim; d++) a.mine.block[j * dim + d] = one_cached(place[j], d, half);
    }
    for (int64_t n = 0; n < a.count; n++) {
      const float* weight = a.mine.scores + n * a.room + slot;
      for (d = 0; d + 4 * VL <= dim; d += 4 * VL) {
        float* to = sums + n * dim + d;
        vf p = load(to), q = load(to + VL), r = load(to + 2 * VL), s = load(to + 3 * VL);
        for (int64_t j = 0; j < here; j++) {
          const float* value = a.mine.block + j * dim + d;
          p += load(value) * weight[j];
          q += load(value + VL) * weight[j];
          r += load(value + 2 * VL) * weight[j];
          s += load(value + 3 * VL) * weight[j];
        }
        store(to, p), store(to + VL, q), store(to + 2 * VL, r), store(to + 3 * VL, s);
      }
      /* slots outside: a sum over them might be rounded in another way where there are more of them */
      for (int64_t j = 0; j < here; j++)
        for (int64_t rest = d; rest < dim; rest++) sums[n * dim + rest] += a.mine.block[j * dim + rest] * weight[j];
    }
  }
}

/* One row and key-value head: write the fresh slots, and let the heads of the group attend for each fresh token. */
static void attend(const Model* model, const Pass* pass, int64_t layer, int64_t row, int64_t head, const float* qkv,
                   Buffer mixed, Scratch mine) {
  write_slots(model, pass, layer, row, head, qkv, mine.block);
  if (pass->slots_only && layer == model->layers - 1) return;
  int64_t dim = model->dim, group = model->heads / model->kv_heads;
  int64_t wide = (model->heads + 2 * model->kv_heads) * dim; /* of a token's queries, keys and values */
  int64_t start = pass->starts[row], before = pass->ends[row], fresh = pass->starts[row + 1] - start;
  int64_t asked = fresh * group;
  Asking a = {.model = model,
              .table = pass->table + row * pass->table_stride,
              .head = head,
              .mine = mine,
              .bias = pass->bias + row * pass->bias_stride,
              .room = (before + fresh + VL - 1) / VL * VL};
  float *queries = mine.heads, *sums = mine.heads + QUERIES * dim;
  for (int64_t first = 0; first < asked; first += QUERIES) {
    a.count = asked - first < QUERIES ? asked - first : QUERIES;
    a.slots = before + (first + a.count - 1) / group + 1;
    for (int64_t n = 0; n < a.count; n++) {
      int64_t token = start + (first + n) / group, h = head * group + (first + n) % group;
      rotated(qkv + token * wide + h * dim, model->layer[layer].query_norm, model->epsilon, pass->cosine + token * dim,
              pass->sine + token * dim, dim, queries + n * dim);
      for (int64_t d = 0; d < dim; d++) {
        if (model->half) queries[n * dim + d] = from_bf16(to_bf16(queries[n * dim + d]));
        queries[n * dim + d] *= model->scale;
      }
    }
    score(a, pass->keys[layer], pass->values[layer]);
    for (int64_t n = 0; n < a.count; n++) weigh(a, n, before + (first + n) / group + 1);
    mix(a, pass->values[layer], sums);
    for (int64_t n = 0; n < a.count; n++) {
      int64_t token = start + (first + n) / group, h = head * group + (first + n) % group;
      put_all(mixed, (token * model->heads + h) * dim, sums + n * dim, dim, model->half);
    }
  }
}

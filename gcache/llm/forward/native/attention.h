/* Attention over slots where they lie: in pages, each slot with its own log-weight. */
#pragma once
#include "layer.h"

INLINE void rotated(const float* from, const float* cosine, const float* sine, int64_t dim, float* to) {
  int64_t half = dim / 2;
  for (int64_t d = 0; d < half; d++) {
    float first = from[d], second = from[d + half];
    to[d] = first * cosine[d] - second * sine[d];
    to[d + half] = second * cosine[d + half] + first * sine[d + half];
  }
}

/* VL slots of one head in a pool of pages, as pointers; slots beyond the last are the last. */
INLINE void slot_places(const Model* model, const void* pool, const int64_t* table, int64_t head, int64_t slot,
                        int64_t slots, const char** to) {
  int64_t size = model->half ? 2 : 4;
  for (int64_t j = 0; j < VL; j++) {
    int64_t at = slot + j < slots ? slot + j : slots - 1;
    to[j] = (const char*)pool + (((table[at / PAGE] * model->kv_heads + head) * PAGE + at % PAGE) * model->dim) * size;
  }
}

/* Ask for the next slots: pages lie anywhere, so the processor does not guess where they are. */
INLINE void fetch_slots(const Model* model, const void* pool, const int64_t* table, int64_t head, int64_t slot,
                        int64_t slots) {
  int64_t bytes = PAGE * model->dim * (model->half ? 2 : 4);
  for (int64_t at = slot / PAGE * PAGE; at < slot + VL && at < slots; at += PAGE) {
    const char* page = (const char*)pool + (table[at / PAGE] * model->kv_heads + head) * bytes;
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

/* One row and key-value head: rotate, write the fresh slots, attend. */
static void attend(const Model* model, const Pass* pass, int64_t layer, int64_t row, int64_t head, const float* qkv,
                   Buffer mixed, Scratch mine) {
  int64_t dim = model->dim, group = model->heads / model->kv_heads;
  int64_t wide = (model->heads + 2 * model->kv_heads) * dim; /* of a token's queries, keys and values */
  int64_t start = pass->starts[row], before = pass->ends[row], fresh = pass->starts[row + 1] - start;
  const int64_t* table = pass->table + row * pass->table_stride;
  const float* bias = pass->bias + row * pass->bias_stride;
  void *keys = pass->keys[layer], *values = pass->values[layer];
  float* turned = mine.block;
  for (int64_t s = 0; s < fresh; s++) {
    int64_t token = start + s, slot = before + s;
    const float* key = qkv + token * wide + (model->heads + head) * dim;
    const float* value = key + model->kv_heads * dim;
    rotated(key, pass->cosine + token * dim, pass->sine + token * dim, dim, turned);
    int64_t at = ((table[slot / PAGE] * model->kv_heads + head) * PAGE + slot % PAGE) * dim;
    if (model->half) {
      put_all((Buffer){0, (uint16_t*)keys}, at, turned, dim, 1);
      put_all((Buffer){0, (uint16_t*)values}, at, value, dim, 1);
    } else {
      memcpy((float*)keys + at, turned, (size_t)dim * sizeof(float));
      memcpy((float*)values + at, value, (size_t)dim * sizeof(float));
    }
  }
  if (pass->slots_only && layer == model->layers - 1) return;
  int64_t asked = fresh * group; /* queries: the heads of the group for each fresh token */
  int64_t room = (before + fresh + VL - 1) / VL * VL;
  for (int64_t first = 0; first < asked; first += QUERIES) {
    int64_t count = asked - first < QUERIES ? asked - first : QUERIES;
    int64_t slots = before + (first + count - 1) / group + 1; /* that the last of these queries sees */
    float *queries = mine.heads, *sums = mine.heads + QUERIES * dim;
    for (int64_t n = 0; n < count; n++) {
      int64_t token = start + (first + n) / group, h = head * group + (first + n) % group;
      rotated(qkv + token * wide + h * dim, pass->cosine + token * dim, pass->sine + token * dim, dim,
              queries + n * dim);
      for (int64_t d = 0; d < dim; d++) {
        if (model->half) queries[n * dim + d] = from_bf16(to_bf16(queries[n * dim + d]));
        queries[n * dim + d] *= model->scale;
      }
    }
    float* across = mine.block; /* (dim, VL) */
    const char* place[VL];
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
      for (int64_t n = 0; n < count; n += 4) { /* four at a time; the last may be there several times */
        const float* query[4];
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
      float* score = mine.scores + n * room;
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
        const float* weight = mine.scores + n * room + slot;
        for (d = 0; d + 4 * VL <= dim; d += 4 * VL) {
          float* to = sums + n * dim + d;
          vf a = load(to), b = load(to + VL), c = load(to + 2 * VL), e = load(to + 3 * VL);
          for (int64_t j = 0; j < here; j++) {
            const float* value = mine.block + j * dim + d;
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
      int64_t token = start + (first + n) / group, h = head * group + (first + n) % group;
      put_all(mixed, (token * model->heads + h) * dim, sums + n * dim, dim, model->half);
    }
  }
}

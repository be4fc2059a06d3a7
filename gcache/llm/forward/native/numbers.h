/* Vectors of the machine's own length, and the numbers in them. */
#pragma once

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

#define NR (2 * VL)       /* outputs of a panel */
#define KC (2048 / VL)    /* inputs that are unpacked at once, at most 16 KB: even, and a multiple of every block */
#define SMALLEST_BLOCK 16 /* inputs that have a scale in common; matrices.py */
#define TOKENS 144        /* whose inputs are kept near while a panel meets them */
#define PAGE 8            /* slots of a page; pages.py */
#define AHEAD 2           /* blocks of slots that are asked for ahead */
#define QUERIES 32        /* queries of a head that attend together */
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int8_t vc __attribute__((vector_size(VL), aligned(1), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * VL), aligned(2), may_alias));

INLINE uint16_t to_bf16(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40); /* nan stays nan */
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

INLINE float from_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float x;
  memcpy(&x, &u, 4);
  return x;
}

INLINE vf load(const float* p) { return *(const vf*)p; }
INLINE void store(float* p, vf v) { *(vf*)p = v; }
/* Compilers take conversions of short numbers apart one by one, so this is said for the machines that matter. */
INLINE vf load_bf16(const uint16_t* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif defined(__AVX2__)
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
  return (vf)(__builtin_convertvector(*(const vh*)p, vi) << 16);
#endif
}

INLINE void store_bf16(uint16_t* p, vf v) {
#if DOT_BF16
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
#else
  for (int i = 0; i < VL; i++) p[i] = to_bf16(v[i]);
#endif
}

/* VL integers of 8 bits as floats. */
INLINE vf load_int8(const int8_t* p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
#elif defined(__AVX2__)
  return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
  return __builtin_convertvector(__builtin_convertvector(*(const vc*)p, vi), vf);
#endif
}

/* sum + a b. Said so where a machine does it in one rounding: left to compilers, some tiles would be rounded in another
   way than others, and a number would depend on how many tokens are met with it. */
INLINE vf plus_product(vf sum, vf a, vf b) {
#if defined(__AVX512F__)
  return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__AVX2__) && defined(__FMA__)
  return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
  return sum + a * b;
#endif
}

INLINE vf everywhere(float x) {
#if defined(__AVX512F__)
  return (vf)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (vf)_mm256_set1_ps(x);
#else
  vf v;
  for (int i = 0; i < VL; i++) v[i] = x;
  return v;
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
  vf magic = (vf){0} + 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
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

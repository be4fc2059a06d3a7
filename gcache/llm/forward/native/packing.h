/* Weights from rows into panels, and the integers that some of them are. */
#pragma once
#include "numbers.h"

/* Row `n` of (n, k) weights into its panel; rows come in any order. */
void gcache_pack_floats(const float* from, int64_t rows, int64_t inputs_, const int64_t* places, float* to) {
#pragma omp parallel for
  for (int64_t n = 0; n < rows; n++) {
    float* panel = to + places[n] / NR * inputs_ * NR + places[n] % NR;
    for (int64_t k = 0; k < inputs_; k++) panel[k * NR] = from[n * inputs_ + k];
  }
}

void gcache_pack_bf16(const uint16_t* from, int64_t rows, int64_t inputs_, const int64_t* places, uint16_t* to) {
#pragma omp parallel for
  for (int64_t n = 0; n < rows; n++) {
    uint16_t* panel = to + places[n] / NR * inputs_ * NR + 2 * (places[n] % NR);
    for (int64_t k = 0; k < inputs_; k++) panel[k / 2 * 2 * NR + k % 2] = from[n * inputs_ + k];
  }
}

/* Whether `count` floats are scale * q + minimum with integers q of 8 bits, and these. The step is guessed from the
   range, and then fitted to all of them (least squares), so that what is left is the rounding of the floats themselves.
 */
static int on_lattice(const float* w, int64_t count, float* scale, float* minimum, int8_t* q) {
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
  float slack = largest * 0x1p-20f; /* unpacking rounded a product and a sum, each to 2^-24 */
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
    double zero = rint((double)(-low * per)); /* where 0 lies on the lattice, no minimum is needed */
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
int gcache_pack_int8(const float* from, int64_t rows, int64_t inputs_, int64_t block, const int64_t* places, int8_t* to,
                     float* scale, float* minimum) {
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

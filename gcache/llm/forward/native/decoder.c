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

#include "attention.h"
#include "packing.h"

int64_t gcache_panel(void) { return NR; }

static void* aligned(size_t bytes) {
  void* room = 0;
  return posix_memalign(&room, 64, bytes ? bytes : 64) ? 0 : room;
}

static Buffer buffer(int64_t count, int narrow) {
  Buffer made = {0, 0};
  if (narrow)
    made.narrow = aligned((size_t)count * 2);
  else
    made.wide = aligned((size_t)count * 4);
  return made;
}

/* Returns 0, or 1 where memory is short. */
int gcache_pass(const Model* model, const Pass* pass) {
  int64_t tokens = pass->starts[pass->rows], hidden = model->hidden, dim = model->dim;
  int64_t qkv_width = (model->heads + 2 * model->kv_heads) * dim;
  int64_t most = 0, widest = model->heads * dim;
  int narrow = model->half && DOT_BF16, failed = 0;
  for (int64_t row = 0; row < pass->rows; row++) {
    int64_t slots = pass->ends[row] + pass->starts[row + 1] - pass->starts[row];
    most = slots > most ? slots : most;
  }
  most = (most + VL - 1) / VL * VL;
  widest = widest > hidden ? widest : hidden;
  widest = widest > model->inner ? widest : model->inner;
  Buffer x = buffer(tokens * hidden, narrow), mixed = buffer(tokens * model->heads * dim, narrow);
  Buffer inner = buffer(tokens * model->inner, narrow);
  float* qkv = aligned((size_t)(tokens * qkv_width) * 4);
  if (!qkv || !(x.wide || x.narrow) || !(mixed.wide || mixed.narrow) || !(inner.wide || inner.narrow)) failed = 1;
  if (!failed) {
#pragma omp parallel num_threads((int)pass->threads) shared(failed)
    {
      int64_t me = omp_get_thread_num(), threads = omp_get_num_threads(), from, to;
      Scratch mine = {aligned(TOKENS * NR * 4),
                      aligned(TOKENS * NR * 4),
                      aligned(KC * NR * 4),
                      aligned((size_t)(TOKENS * widest / SMALLEST_BLOCK) * 4),
                      aligned((size_t)(QUERIES * most) * 4),
                      aligned((size_t)(2 * QUERIES * dim) * 4),
                      aligned((size_t)(2 * VL * dim) * 4)};
      if (!mine.sums || !mine.other || !mine.room || !mine.ones || !mine.scores || !mine.heads || !mine.block) {
#pragma omp atomic write
        failed = 1;
      }
#pragma omp barrier
      for (int64_t l = 0; l < model->layers && !failed; l++) {
        const Layer* layer = model->layer + l;
        share(tokens, me, threads, &from, &to);
        normalized(model, pass->states, layer->norm, from, to, x, model->half);
#pragma omp barrier
        share(layer->qkv.outputs / NR, me, threads, &from, &to);
        product(&layer->qkv, from, to, x, tokens, qkv, qkv_width, 0, mine);
#pragma omp barrier
        share(pass->rows * model->kv_heads, me, threads, &from, &to);
        for (int64_t n = from; n < to; n++)
          attend(model, pass, l, n / model->kv_heads, n % model->kv_heads, qkv, mixed, mine);
#pragma omp barrier
        if (pass->slots_only && l == model->layers - 1) break;
        share(layer->out.outputs / NR, me, threads, &from, &to);
        product(&layer->out, from, to, mixed, tokens, pass->states, hidden, 1, mine);
#pragma omp barrier
        share(tokens, me, threads, &from, &to);
        normalized(model, pass->states, layer->mlp_norm, from, to, x, model->half);
#pragma omp barrier
        share(layer->gate_up.outputs / NR / 2, me, threads, &from, &to);
        gated(&layer->gate_up, from, to, x, tokens, inner, model->inner, model->half, mine);
#pragma omp barrier
        share(layer->down.outputs / NR, me, threads, &from, &to);
        product(&layer->down, from, to, inner, tokens, pass->states, hidden, 1, mine);
#pragma omp barrier
      }
      share(tokens, me, threads, &from, &to);
      if (!failed) normalized(model, pass->states, model->final_norm, from, to, (Buffer){pass->states, 0}, 0);
      free(mine.sums), free(mine.other), free(mine.room), free(mine.ones), free(mine.scores), free(mine.heads);
      free(mine.block);
    }
  }
  free(x.wide), free(x.narrow), free(mixed.wide), free(mixed.narrow), free(inner.wide), free(inner.narrow), free(qkv);
  return failed;
}

/* (tokens, n) of (tokens, k), `columns` of the outputs. Returns 0, or 1 where memory is short. */
int gcache_linear(const Matrix* w, const float* from, float* to, int64_t tokens, int64_t columns, int64_t half,
                  int64_t threads) {
  Buffer x = buffer(tokens * w->inputs, half && DOT_BF16);
  int failed = !(x.wide || x.narrow);
  if (failed) return 1;
  put_all(x, 0, from, tokens * w->inputs, half);
#pragma omp parallel num_threads((int)threads) shared(failed)
  {
    int64_t me = omp_get_thread_num(), count = omp_get_num_threads(), first, last;
    Scratch mine = {.sums = aligned(TOKENS * NR * 4),
                    .room = aligned(KC * NR * 4),
                    .ones = aligned((size_t)(TOKENS * w->inputs / SMALLEST_BLOCK) * 4)};
    if (!mine.sums || !mine.room || !mine.ones) {
#pragma omp atomic write
      failed = 1;
    } else {
      share(w->outputs / NR, me, count, &first, &last);
      product(w, first, last, x, tokens, to, columns, 0, mine);
    }
    free(mine.sums), free(mine.room), free(mine.ones);
  }
  free(x.wide), free(x.narrow);
  return failed;
}

/* Slots `first` .. of one row between its pages and one block (layers, heads, slots, dim): into the pages, or out of
   them. Strides are in numbers, of a layer, a head and a slot; `size` is a number's bytes. */
void gcache_move_slots(void* const* pools, const int64_t* table, int64_t first, int64_t slots, int64_t layers,
                       int64_t heads, int64_t dim, int64_t size, char* block, const int64_t* strides, int64_t into,
                       int64_t threads) {
#pragma omp parallel for num_threads((int)threads)
  for (int64_t l = 0; l < layers; l++)
    for (int64_t h = 0; h < heads; h++)
      for (int64_t s = 0; s < slots; s++) {
        char* paged = (char*)pools[l] + slot_number(table, first + s, h, heads, dim) * size;
        char* own = block + (l * strides[0] + h * strides[1] + s * strides[2]) * size;
        if (into)
          memcpy(paged, own, (size_t)(dim * size));
        else
          memcpy(own, paged, (size_t)(dim * size));
      }
}

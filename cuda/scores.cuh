// What happens to accumulated scores before the activation: keys out of a row's sight, and the general
// options. Scores lie in the fragment of a 64-row product: a thread holds rows r and r + 8, columns 2q and 2q
// + 1 of every 8.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/meaning.cuh"

namespace sa {

// The rows of one thread in the accumulator fragment.
struct FragmentRows {
  int batch, head, valid, offset;
  int row[2];  // query rows
  int column;  // first of the thread's columns: 2 * (lane % 4)
};

// A score whose weight is 0, whatever the sign of the slope.
__device__ __forceinline__ float excluding_score(float slope) {
  return slope > 0.0f ? -INFINITY : INFINITY;
}

template <int kCount>
__device__ __forceinline__ void hide_keys_out_of_range(float (&score)[kCount], const SaProblem& p,
                                                       const FragmentRows& rows, int first_key, float slope) {
  const KeyRange range[2] = {key_range(p, rows.valid, rows.row[0] + rows.offset),
                             key_range(p, rows.valid, rows.row[1] + rows.offset)};
  const float hidden = excluding_score(slope);
  // Against the first of the thread's keys, so that the other side of each comparison is a constant.
  const int first = first_key + rows.column;
  const int lo[2] = {range[0].lo - first, range[1].lo - first},
            hi[2] = {range[0].hi - first, range[1].hi - first};
#pragma unroll
  for (int i = 0; i < kCount; i++)
    if (i / 4 * 8 + i % 2 >= hi[i / 2 % 2]) score[i] = hidden;
  if (p.left_window_size < 0) return;
#pragma unroll
  for (int i = 0; i < kCount; i++)
    if (i / 4 * 8 + i % 2 < lo[i / 2 % 2]) score[i] = hidden;
}

// Turns scores into logits in units of log 2, with every option of the operator; -inf where a key takes no
// part.
template <class T, int kCount>
__device__ __forceinline__ void general_logits(float (&score)[kCount], const SaProblem& p,
                                               const FragmentRows& rows, int first_key,
                                               const HeadTerms& head) {
  const int position[2] = {rows.row[0] + rows.offset, rows.row[1] + rows.offset};
  const KeyRange range[2] = {key_range(p, rows.valid, position[0]), key_range(p, rows.valid, position[1])};
  const float bias[2] = {head.bias + row_bias(p, range[0]), head.bias + row_bias(p, range[1])};
  const float cap = p.softcap, inverse_cap = cap > 0.0f ? 1.0f / cap : 0.0f;
  const int64_t mask_row[2] = {
      rows.batch * p.mask_strides[0] + rows.head * p.mask_strides[1] + rows.row[0] * p.mask_strides[2],
      rows.batch * p.mask_strides[0] + rows.head * p.mask_strides[1] + rows.row[1] * p.mask_strides[2]};
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    const int r = i / 2 % 2, key = first_key + rows.column + i / 4 * 8 + i % 2;
    float logit = -INFINITY;
    if (key >= range[r].lo && key < range[r].hi && rows.row[r] < p.query_length) {
      float x = head.scale * score[i];
      // tanh(y) = 1 - 2 / (1 + exp(2 y)): absolute error near 1e-7, unlike the hardware's tanh.
      if (cap > 0.0f)
        x = cap *
            (1.0f - __fdividef(2.0f, 1.0f + fast_exp2(fminf(x * inverse_cap, 30.0f) * (2.0f * kLog2E))));
      x += bias[r] - head.slope * fabsf(static_cast<float>(position[r] - key));
      const float addend =
          p.mask_type == SA_MASK_NONE ? 0.0f : mask_addend<T>(p, mask_row[r] + key * p.mask_strides[3]);
      if (addend != -INFINITY) logit = (x + addend) * kLog2E;
    }
    score[i] = logit;
  }
}

}  // namespace sa

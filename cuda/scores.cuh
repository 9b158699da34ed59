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
#pragma unroll
  for (int i = 0; i < kCount; i++) {
    const int key = first_key + rows.column + i / 4 * 8 + i % 2;
    const KeyRange& r = range[i / 2 % 2];
    if (key < r.lo || key >= r.hi) score[i] = hidden;
  }
}

// What to add to the logits of a head (in units of log 2) so that float16 weights neither vanish nor overflow
// under normalize, where a factor cancels; 0 where the weights need none. The largest logit is not known,
// only that it lies between the bias and 0: the shift takes the middle to 2^15. Rows that do not fit even so
// are flagged and repaired.
template <class T>
__device__ __forceinline__ float normalize_shift(const SaProblem& p, const HeadTerms& head) {
  constexpr float kTinyBias = -18.0f;  // below half of it sigmoid is exp to within 1.3e-4
  if (!std::is_same_v<T, __half> || !p.normalize || head.bias > kTinyBias) return 0.0f;
  return 15.0f - 0.5f * head.bias * kLog2E;
}

// Whether a row's sum of float16 weights is so small that their rounding to subnormals shows.
template <class T>
__device__ __forceinline__ bool sum_is_coarse(const SaProblem& p, float sum) {
  return std::is_same_v<T, __half> && p.normalize && sum < static_cast<float>(p.key_length) * 0x1p-13f;
}

// Turns scores into logits in units of log 2, with every option of the operator; -inf where a key takes no
// part.
template <class T, int kCount>
__device__ __forceinline__ void general_logits(float (&score)[kCount], const SaProblem& p,
                                               const FragmentRows& rows, int first_key, const HeadTerms& head,
                                               float shift) {
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
      if (addend != -INFINITY) logit = fmaf(x + addend, kLog2E, shift);
    }
    score[i] = logit;
  }
}

}  // namespace sa

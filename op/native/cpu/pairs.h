// bfloat16 in pairs, for instructions that multiply and add two at a time: a lane of 32 bits holds two
// neighbours along the summed dimension. Rows of Q and K are such pairs as they lie in memory; V and the
// weights are interleaved by key here.
#pragma once

#include <cstring>

#include "op/native/attention_problem.h"
#include "op/native/cpu/rows.h"

namespace sigmoid_attention::cpu {
namespace {

inline bool IsAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % sizeof(float) == 0;
}

/// Can all rows of Q and K be read as lanes of two elements?
inline bool RowsArePairs(const SaProblem& p) {
  const int64_t sizes = p.head_size | p.q_strides.batch | p.q_strides.head | p.q_strides.row |
                        p.k_strides.batch | p.k_strides.head | p.k_strides.row;
  return sizes % 2 == 0 && IsAligned(p.q) && IsAligned(p.k) && IsAligned(p.past_key) &&
         IsAligned(p.present_key);
}

inline const float* AsPairs(const BFloat16* row) {
  return reinterpret_cast<const float*>(row);
}

/// to[key / 2][d] = (v[key][d], v[key + 1][d]) for `count` rows; the partner of a last odd one is 0.
template <class S = Simd>
void InterleaveRows(const RowSpan<BFloat16>& v, int64_t count, int64_t size, float* to, int64_t to_stride) {
  for (int64_t key = 0; key < count; key += 2, to += to_stride) {
    const BFloat16* first = v.first + key * v.stride;
    const BFloat16* second = key + 1 < count ? first + v.stride : nullptr;
    for (int64_t d = 0; d < size; d += Simd::kLanes) {
      S::Store(to + d, S::Interleave(first + d, second ? second + d : nullptr, size - d));
    }
  }
}

/// Makes one key's values 0 in what InterleaveRows has written.
inline void ClearInterleaved(float* pairs, int64_t stride, int64_t key) {
  float* row = pairs + key / 2 * stride;
  for (int64_t d = 0; d < stride; ++d) {
    const uint32_t partner = key % 2 == 0 ? 0xffff0000 : 0xffff;
    row[d] = FloatFromBits(BitsFromFloat(row[d]) & partner);
  }
}

/// pairs[key / 2][row] = (w[key][row], w[key + 1][row]) for keys [begin, end), rounded; partners outside are
/// 0.
template <class S = Simd>
void PairWeights(const float* weights, int64_t width, int64_t begin, int64_t end, float* pairs) {
  for (int64_t key = begin / 2 * 2; key < end; key += 2) {
    const float* first = weights + key * width;
    const bool has_first = key >= begin, has_second = key + 1 < end;
    for (int64_t row = 0; row < width; row += Simd::kLanes) {
      const Simd::V a = has_first ? Simd::Load(first + row) : Simd::Zero();
      const Simd::V b = has_second ? Simd::Load(first + width + row) : Simd::Zero();
      S::Store(pairs + key / 2 * width + row, S::RoundToPairs(a, b));
    }
  }
}

}  // namespace
}  // namespace sigmoid_attention::cpu

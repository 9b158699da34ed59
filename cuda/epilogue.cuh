// From the output fragment to Y: divide out the constant factors, round, and store rows in 16-byte pieces.
#pragma once

#include "cuda/activation.cuh"
#include "cuda/kernels.h"
#include "cuda/scores.cuh"

namespace sa {

// Lane q of four holds word q of four rows of four words; afterwards it holds all four words of row q.
__device__ __forceinline__ void transpose_quad(uint32_t (&word)[4]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = lane & bit;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i & bit) continue;
      const uint32_t sent = upper ? word[i] : word[i | bit];
      const uint32_t got = __shfl_xor_sync(~0u, sent, bit);
      (upper ? word[i] : word[i | bit]) = got;
    }
  }
}

// Flags the warp's 16 rows from `first` on if their sums are not finite (kernels.h).
template <int kHeadSize>
__device__ __forceinline__ void flag_output(const float (&out)[kHeadSize / 2], const SaProblem& p, int batch,
                                            int head, int first, unsigned char* flags) {
  if (flags == nullptr) return;
  const int lane = threadIdx.x % 32, length = static_cast<int>(p.query_length);
  float probe[4] = {};  // a NaN or Inf makes it NaN
#pragma unroll
  for (int i = 0; i < kHeadSize / 2; i++) probe[i % 4] = fmaf(out[i], 0.0f, probe[i % 4]);
  const float all = (probe[0] + probe[1]) + (probe[2] + probe[3]);
  const bool bad = __any_sync(~0u, all != all);
  if (lane == 0 && first < length)
    flags[(batch * p.query_heads + head) * ((length + kFlagRows - 1) / kFlagRows) + first / kFlagRows] = bad;
}

// `factor` multiplies each of the thread's two rows, `row` and the eighth behind it. Rows of Y are aligned to
// 16 bytes and value head sizes are multiples of 8.
template <class T, int kHeadSize>
__device__ __forceinline__ void store_output(const float (&out)[kHeadSize / 2], const float (&factor)[2],
                                             const SaProblem& p, int batch, int head, int row) {
  const int lane = threadIdx.x % 32, length = static_cast<int>(p.query_length);
  const int column = 8 * (lane % 4), columns = static_cast<int>(p.value_head_size) - column;
  T* to = slice<T>(p.y, p.y_strides, batch, head) + row * p.y_strides.row + column;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int reach = row + 8 * r < length ? columns : 0;
#pragma unroll
    for (int c = 0; c < kHeadSize; c += 32) {
      uint32_t word[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int at = (c / 8 + i) * 4 + 2 * r;
        word[i] = pack<T>(out[at] * factor[r], out[at + 1] * factor[r]);
      }
      transpose_quad(word);
      if (c < reach) *reinterpret_cast<uint4*>(to + c) = make_uint4(word[0], word[1], word[2], word[3]);
    }
    to += 8 * p.y_strides.row;
  }
}

// The same for any alignment, element by element.
template <class T, int kHeadSize>
__device__ __forceinline__ void store_narrow(const float (&out)[kHeadSize / 2], const float (&factor)[2],
                                             const SaProblem& p, const FragmentRows& rows) {
  T* y = slice<T>(p.y, p.y_strides, rows.batch, rows.head);
#pragma unroll
  for (int i = 0; i < kHeadSize / 2; i++) {
    const int row = rows.row[i / 2 % 2], column = i / 4 * 8 + rows.column + i % 2;
    if (row < p.query_length && column < p.value_head_size)
      y[row * p.y_strides.row + column] = from_float<T>(out[i] * factor[i / 2 % 2]);
  }
}

}  // namespace sa

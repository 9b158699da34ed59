// Tiles of rows in shared memory: where a piece of 16 bytes lies, how threads copy rows there, and which
// address a lane gives to ldmatrix. The swizzle spreads the pieces of 8 rows over all banks.
#pragma once

#include "cuda/mma/instructions.cuh"

namespace sa {

// Byte offset of a 16-byte piece.
template <int kHeadSize>
__device__ __forceinline__ uint32_t piece(int row, int index) {
  return row * kHeadSize * 2 + ((index ^ (row & 7)) << 4);
}

// The same for columns 16 i of a lane whose offset is known for i = 0 (where its bit 4 may be set).
__device__ __forceinline__ uint32_t columns(uint32_t lane_offset, int i) {
  return (lane_offset ^ (i % 4 << 5)) + i / 4 * 128;
}

// One thread's share of the copies of rows of one tensor: every kRowsPerPass-th row, the same 16 bytes of
// each. Strides are given to each call, as the caller's parameters, because registers are short.
template <int kHeadSize, int kThreads>
class RowCopier {
  static constexpr int kPieces = kHeadSize / 8, kRowsPerPass = kThreads / kPieces;
  const char* from_;  // the thread's piece of row 0
  int bytes_;

 public:
  // Rows of `size` elements of 2 bytes.
  __device__ __forceinline__ RowCopier(const void* rows, int size) {
    const int index = threadIdx.x % kPieces;
    bytes_ = min(max(size - 8 * index, 0), 8) * 2;
    from_ = static_cast<const char*>(rows) + (bytes_ > 0 ? index * 16 : 0);
  }

  // Rows first .. first + kRows, `stride` elements apart; those from `end` on become zeros.
  template <int kRows>
  __device__ __forceinline__ void copy(uint32_t tile, int first, int end, int64_t stride) const {
    asm volatile("" : "+l"(stride));  // or the compiler keeps every row's offset in a register
    const int row = threadIdx.x / kPieces;
    const char* from = from_ + (first + row) * stride * 2;
    const uint32_t to = tile + piece<kHeadSize>(row, threadIdx.x % kPieces);
    const bool whole = first + kRows <= end;
#pragma unroll
    for (int pass = 0; pass < kRows; pass += kRowsPerPass) {
      copy_async((to ^ (pass % 8 << 4)) + pass * kHeadSize * 2, from,
                 whole || first + row + pass < end ? bytes_ : 0);
      from += kRowsPerPass * 2 * stride;
    }
  }
};

}  // namespace sa

// Which rows of which head a block of the mma.sync kernel takes, and the rows of one of its threads.
#pragma once

#include "cuda/kernels.h"
#include "cuda/scores.cuh"

namespace sa {

struct MmaArguments : TensorInputs {
  int head_group;  // see block_place
};

// Which rows of which head a block takes. Heads go in groups of head_group; in a group those rows come first
// that see most keys under a causal mask, so that the blocks end together. It lies in shared memory, to be
// read where it is needed: registers are short.
struct BlockPlace {
  int batch, head, first_row, valid, offset;
};
template <class Shape>
__device__ __forceinline__ BlockPlace block_place(const MmaArguments& args) {
  const SaProblem& p = args.problem;
  const int heads = static_cast<int>(p.query_heads), all_heads = heads * static_cast<int>(p.batch);
  const int tiles = (static_cast<int>(p.query_length) + Shape::kRows - 1) / Shape::kRows;
  const int block = static_cast<int>(blockIdx.x),
            first_head = block / (args.head_group * tiles) * args.head_group;
  const int group = min(args.head_group, all_heads - first_head), rest = block - first_head * tiles;
  const int head = first_head + rest % group, b = head / heads;
  return {b, head - b * heads, (tiles - 1 - rest / group) * Shape::kRows, valid_keys(p, b),
          position_offset(p, b)};
}

// The rows of the thread in tile t of its warp.
template <class Shape>
__device__ __forceinline__ FragmentRows fragment_rows(const volatile BlockPlace& place, int t) {
  int thread = threadIdx.x;
  asm volatile("" : "+r"(thread));  // worked out anew each time
  const int row = place.first_row + (thread / 32 * Shape::kTiles + t) * 16 + thread % 32 / 4;
  return {place.batch, place.head, place.valid, place.offset, {row, row + 8}, thread % 4 * 2};
}

}  // namespace sa

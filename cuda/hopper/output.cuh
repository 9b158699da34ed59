// The way of a tile's output to Y: rounded, into the slot that held its queries, and from there by the copy
// engine. Each warp sends its own 16 rows and waits for no other.
#pragma once

#include "cuda/epilogue.cuh"
#include "cuda/hopper/tile.cuh"

namespace sa {

// Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrices(uint32_t address, const uint32_t (&word)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3])
               : "memory");
}

// `factor` multiplies each of the thread's two rows. The slot's queries have been read.
template <class Shape>
__device__ __forceinline__ void store_by_copy(const float (&out)[Shape::kHeadSize / 2],
                                              const float (&factor)[2], const HopperArguments& args,
                                              HopperShared<Shape>& shared, int slot, int group,
                                              const TilePlace& place) {
  using Element = typename Shape::Element;
  const int lane = threadIdx.x % 32, first = 64 * group + threadIdx.x % 128 / 32 * kWarpRows;
  auto& tile = shared.q[slot];
  // A piece of 16 bytes lies where the swizzle puts it: its number in the row, xor the row's in its group
  // of 8.
  const uint32_t row = shared_address(&tile[0][first + lane % 16][0]) | (lane / 16 ^ lane % 8) * 16;
#pragma unroll
  for (int chunk = 0; chunk < Shape::kHeadSize / 16; chunk++) {
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
      word[i] =
          pack<Element>(out[8 * chunk + 2 * i] * factor[i % 2], out[8 * chunk + 2 * i + 1] * factor[i % 2]);
    const int in_row = chunk % (kAtomElements / 16) * 32;
    store_matrices((row ^ in_row) + chunk / (kAtomElements / 16) * sizeof(tile[0]), word);
  }
  fence_shared_for_copies();
  __syncwarp();
  if (lane == 0) {
#pragma unroll
    for (int block = 0; block < HopperShared<Shape>::kBlocks; block++)
      tma_store(&args.y, &tile[block][first][0], block * kAtomElements, place.row, place.head, place.batch);
    tma_store_commit();
  }
}

}  // namespace sa

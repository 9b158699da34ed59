// Places in the workspace for the sums of long rows (cuda/segments.cuh): a block takes one while it runs;
// there are as many as blocks that can run at once.
#pragma once

#include "cuda/kernels.h"
#include "cuda/segments.cuh"

namespace sa {

// Takes a free place for the block; `place` is in shared memory. All threads call it.
__device__ __forceinline__ void take_place(int* places, int count, int& place) {
  if (threadIdx.x == 0) {
    int i = static_cast<int>(blockIdx.x % count);
    while (atomicExch(places + i, 1) != 0) i = i + 1 < count ? i + 1 : 0;
    place = i;
  }
  __syncthreads();
}
__device__ __forceinline__ void free_place(int* places, int place) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) atomicExch(places + place, 0);
}

}  // namespace sa

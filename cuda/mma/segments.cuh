// Rows of many keys are added up in segments: tensor cores round sums towards zero, so that the error of a
// long sum grows with its length. After each segment the block adds its output fragment to float32 sums in
// the workspace, in ordinary arithmetic, and starts again from zero. A block takes one of the places there
// while it runs; there are as many as blocks that can run at once.
#pragma once

#include "cuda/kernels.h"

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

// The thread's kCount sums of a place, four at a time; kThreads threads lie side by side. What is kept counts
// `factor(i)` times for sum i, and not at all at the `first` segment.
template <int kThreads, int kCount, class Factor>
__device__ __forceinline__ void keep_segment(float (&sum)[kCount], float* place, bool first,
                                             const Factor& factor) {
  float4* at = reinterpret_cast<float4*>(place) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    float4 kept = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (!first) kept = __ldcg(at);
    __stcg(at, make_float4(fmaf(kept.x, factor(i), sum[i]), fmaf(kept.y, factor(i + 1), sum[i + 1]),
                           fmaf(kept.z, factor(i + 2), sum[i + 2]), fmaf(kept.w, factor(i + 3), sum[i + 3])));
    sum[i] = sum[i + 1] = sum[i + 2] = sum[i + 3] = 0.0f;
    at += kThreads;
    asm volatile("" ::: "memory");  // a few loads at a time: registers are short
  }
}
template <int kThreads, int kCount, class Factor>
__device__ __forceinline__ void add_kept_segments(float (&sum)[kCount], const float* place,
                                                  const Factor& factor) {
  const float4* at = reinterpret_cast<const float4*>(place) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const float4 kept = __ldcg(at);
    sum[i] = fmaf(kept.x, factor(i), sum[i]);
    sum[i + 1] = fmaf(kept.y, factor(i + 1), sum[i + 1]);
    sum[i + 2] = fmaf(kept.z, factor(i + 2), sum[i + 2]);
    sum[i + 3] = fmaf(kept.w, factor(i + 3), sum[i + 3]);
    at += kThreads;
    asm volatile("" ::: "memory");
  }
}

}  // namespace sa

// Rows of many keys are added up in segments: tensor cores round sums towards zero, so that the error of a
// long sum grows with its length. Between segments the output fragments of a block's threads lie in float32
// in the workspace, where they are joined in ordinary arithmetic.
#pragma once

#include <cuda_runtime.h>

namespace sa {

// Adds to a thread's kCount sums what `kept` has of earlier segments, unless this is the first, and keeps
// them there, unless this is the last. Four at a time, because registers are short; kThreads threads lie side
// by side. What is kept counts `factor(i)` times for sum i.
template <int kThreads, int kCount, class Factor>
__device__ __forceinline__ void join_segment(float (&sum)[kCount], float* kept, bool first, bool last,
                                             const Factor& factor) {
  float4* at = reinterpret_cast<float4*>(kept) + threadIdx.x % kThreads;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    if (!first) {
      const float4 before = __ldcg(at);
      sum[i] = fmaf(before.x, factor(i), sum[i]);
      sum[i + 1] = fmaf(before.y, factor(i + 1), sum[i + 1]);
      sum[i + 2] = fmaf(before.z, factor(i + 2), sum[i + 2]);
      sum[i + 3] = fmaf(before.w, factor(i + 3), sum[i + 3]);
    }
    if (!last) __stcg(at, make_float4(sum[i], sum[i + 1], sum[i + 2], sum[i + 3]));
    at += kThreads;
    asm volatile("" ::: "memory");
  }
}

}  // namespace sa

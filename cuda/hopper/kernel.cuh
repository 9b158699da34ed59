// The Hopper kernel: a persistent block with one producer warpgroup (copies) and some consumer warpgroups
// (products and the activation), which meet only at barriers in shared memory.
#pragma once

#include "cuda/hopper/consumer.cuh"
#include "cuda/hopper/producer.cuh"
#include "cuda/kernels.h"

namespace sa {

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    hopper_kernel(const __grid_constant__ HopperArguments args) {
  extern __shared__ unsigned char raw[];
  auto& shared =
      *reinterpret_cast<HopperShared<Shape>*>((reinterpret_cast<uintptr_t>(raw) + 1023) / 1024 * 1024);
  // launch_repair may start; it waits for this grid's end.
  asm volatile("griddepcontrol.launch_dependents;");
  if (threadIdx.x == 0) {
    constexpr int kConsumerWarps = 4 * Shape::kGroups;
    for (int slot = 0; slot < Shape::kSlots; slot++) {
      barrier_init(&shared.q_full[slot], 1);
      barrier_init(&shared.q_empty[slot], 32 * kConsumerWarps);
    }
    for (int stage = 0; stage < Shape::kStages; stage++) {
      barrier_init(&shared.k_full[stage], 1);
      barrier_init(&shared.v_full[stage], 1);
      barrier_init(&shared.k_empty[stage], kConsumerWarps);
      barrier_init(&shared.v_empty[stage], kConsumerWarps);
    }
    fence_barrier_init();
    tma_prefetch_descriptor(&args.q);
    tma_prefetch_descriptor(&args.k);
    tma_prefetch_descriptor(&args.v);
    tma_prefetch_descriptor(&args.y);
  }
  __syncthreads();
  const int warpgroup = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup == 0) {
    shrink_registers<Shape::kProducerRegisters>();
    if (threadIdx.x == 0) produce<Shape>(args, shared);
  } else {
    grow_registers<Shape::kConsumerRegisters>();
    Consumer<Shape>(args, shared, warpgroup - 1).run();
  }
}

}  // namespace sa

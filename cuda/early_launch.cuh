// Programmatic dependent launch (compute capability 9.0 and up): a kernel starts while the one before it in
// the stream still runs, and waits for that one's end before it touches memory. What it hides is the launch
// and the kernel's first instructions. Every kernel launched this way must wait, or its own end would not
// imply that of its predecessor.
#pragma once

#include <cuda_runtime.h>

namespace sa {

// From here on the next kernel may start.
__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Until the previous kernel has ended and its writes can be seen.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// early: the device can, and the kernel waits.
template <class Argument>
cudaError_t launch_early(void (*kernel)(Argument), dim3 grid, dim3 block, int shared_bytes, bool early,
                         cudaStream_t stream, const Argument& argument) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, argument);
}

}  // namespace sa

// The Hopper kernel for head sizes up to 64.
#include "cuda/hopper/dispatch.cuh"

namespace sa {

cudaError_t launch_hopper_64(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return launch_hopper_size<64>(in, activation, stream);
}

}  // namespace sa

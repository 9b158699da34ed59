// The Hopper kernel for head sizes up to 256.
#include "cuda/hopper/dispatch.cuh"

namespace sa {

cudaError_t launch_hopper_256(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return launch_hopper_size<256>(in, activation, stream);
}

}  // namespace sa

// The mma.sync kernel for head sizes up to 256.
#include "cuda/mma/launch.cuh"

namespace sa {

cudaError_t launch_mma_256(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return launch_mma<256>(in, activation, stream);
}

}  // namespace sa

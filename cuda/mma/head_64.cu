// The mma.sync kernel for head sizes up to 64.
#include "cuda/mma/launch.cuh"

namespace sa {

cudaError_t launch_mma_64(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return launch_mma<64>(in, activation, stream);
}

}  // namespace sa

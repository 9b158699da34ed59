// The mma.sync kernel for head sizes up to 128.
#include "cuda/mma/launch.cuh"

namespace sa {

cudaError_t launch_mma_128(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return launch_mma<128>(in, activation, stream);
}

}  // namespace sa

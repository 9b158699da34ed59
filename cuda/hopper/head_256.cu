// The Hopper kernel for head sizes up to 256.
#include "cuda/hopper/launch.cuh"

namespace sa {
namespace {

// Keys of a step, stages, consumer warpgroups, chunks finished together, where the turn passes:
// docs/cuda-ladder.md tells how they were chosen.
template <class T, template <class> class A>
using Shape = HopperShape<T, 256, 64, 2, 2, 4, 1, A, false>;
template <class T>
using AnyShape = HopperShape<T, 256, 64, 2, 2, 4, 1, Sigmoid, false>;
template <class T>
using GeneralShape = HopperShape<T, 256, 64, 2, 2, 2, 1, GeneralSigmoid, true>;

template <class T>
cudaError_t launch(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  switch (activation) {
    case Activation::kAny:
      return launch_hopper<AnyShape<T>>(in, stream);
    case Activation::kSmall:
      return launch_hopper<Shape<T, SmallSigmoid>>(in, stream);
    case Activation::kFast:
      return launch_hopper<Shape<T, TanhSigmoid>>(in, stream);
    default:
      return launch_hopper<GeneralShape<T>>(in, stream);
  }
}

}  // namespace

cudaError_t launch_hopper_256(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16 ? launch<__half>(in, activation, stream)
                                       : launch<__nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

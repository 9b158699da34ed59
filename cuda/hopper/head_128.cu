// The Hopper kernel for head sizes up to 128.
#include "cuda/hopper/launch.cuh"

namespace sa {
namespace {

// Keys of a step, stages, consumer warpgroups, chunks finished together, where the turn passes:
// docs/cuda-ladder.md tells how they were chosen.
template <class T, template <class> class A>
using Shape = HopperShape<T, 128, 176, 2, 2, 6, 2, A, false>;
template <class T>
using AnyShape = HopperShape<T, 128, 160, 2, 2, 2, 1, Sigmoid, false>;
template <class T>
using GeneralShape = HopperShape<T, 128, 128, 2, 2, 2, 1, GeneralSigmoid, true>;

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

cudaError_t launch_hopper_128(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16 ? launch<__half>(in, activation, stream)
                                       : launch<__nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

// The mma.sync kernel for head sizes up to 256.
#include "cuda/mma/kernel.cuh"

namespace sa {
namespace {

template <class T, template <class> class A, bool kGeneral>
using Shape = MmaShape<T, 256, 1, 32, A, kGeneral>;

template <class T>
cudaError_t launch(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  switch (activation) {
    case Activation::kAny:
      return launch_mma<Shape<T, Sigmoid, false>>(in, stream);
    case Activation::kSmall:
      return launch_mma<Shape<T, SmallSigmoid, false>>(in, stream);
    case Activation::kFast:
      return launch_mma<Shape<T, TanhSigmoid, false>>(in, stream);
    default:
      return launch_mma<Shape<T, GeneralSigmoid, true>>(in, stream);
  }
}

}  // namespace

cudaError_t launch_mma_256(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16 ? launch<__half>(in, activation, stream)
                                       : launch<__nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

// Host side of the mma.sync kernel: which shape a call takes, and the launch.
#pragma once

#include <cmath>

#include "cuda/mma/kernel.cuh"

namespace sa {

// The shapes of each head size, as measured on an H100 (docs/cuda-ladder.md). Blocks of a multiprocessor are
// limited by registers: 168 a thread allow three, more allow two.
template <int kHeadSize>
struct MmaShapes;

template <>
struct MmaShapes<64> {
  template <class T, template <class> class Weights>
  using Plain = MmaShape<T, 64, 2, 128, 3, true, Weights>;
  template <class T>
  using General = MmaShape<T, 64, 2, 64, 2, false, GeneralWeights>;
};
template <>
struct MmaShapes<128> {
  template <class T, template <class> class Weights>
  using Plain = MmaShape<T, 128, 2, 48, 2, false, Weights>;
  template <class T>
  using General = MmaShape<T, 128, 2, 32, 2, false, GeneralWeights>;
};
template <>
struct MmaShapes<256> {
  template <class T, template <class> class Weights>
  using Plain = MmaShape<T, 256, 1, 32, 2, false, Weights>;
  template <class T>
  using General = MmaShape<T, 256, 1, 32, 2, false, GeneralWeights>;
};

template <class Shape>
cudaError_t launch_mma_shape(const TensorInputs& args, cudaStream_t stream) {
  const SaProblem& p = args.problem;
  const cudaError_t status = cudaFuncSetAttribute(
      mma_kernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (status != cudaSuccess) return status;
  const dim3 grid(static_cast<unsigned>((p.query_length + Shape::kRows - 1) / Shape::kRows),
                  static_cast<unsigned>(p.query_heads), static_cast<unsigned>(p.batch));
  mma_kernel<Shape><<<grid, Shape::kThreads, Shape::kSharedBytes, stream>>>(args);
  return cudaGetLastError();
}

// Whether the guess of SmallWeights will seldom be wrong. A step of 4,096 scores pays twice for one wrong
// guess, so the bias has to be lower than for the Hopper kernel, which checks fewer at a time.
inline bool mostly_small(const SaProblem& p, Activation activation) {
  constexpr double kLowBias = -7.5;
  double bias = p.bias;
  if (p.bias_mode != SA_BIAS_NONE) bias -= std::log(static_cast<double>(p.key_length));
  return activation == Activation::kSmall && (bias < kLowBias || p.head_bias != nullptr);
}

template <int kHeadSize, class T>
cudaError_t launch_mma(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  using Shapes = MmaShapes<kHeadSize>;
  if (activation == Activation::kGeneral)
    return launch_mma_shape<typename Shapes::template General<T>>(in, stream);
  if (activation == Activation::kFast)
    return launch_mma_shape<typename Shapes::template Plain<T, TanhWeights>>(in, stream);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (mostly_small(in.problem, activation))
      return launch_mma_shape<typename Shapes::template Plain<T, SmallWeights>>(in, stream);
  }
  return launch_mma_shape<typename Shapes::template Plain<T, ReciprocalWeights>>(in, stream);
}

template <int kHeadSize>
cudaError_t launch_mma(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16 ? launch_mma<kHeadSize, __half>(in, activation, stream)
                                       : launch_mma<kHeadSize, __nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

// Which instance of the Hopper kernel takes a problem: shapes by head size, and the rule between activations.
// docs/cuda-ladder.md tells how the shapes were chosen.
#pragma once

#include <cmath>

#include "cuda/hopper/launch.cuh"

namespace sa {

// Shapes of a head size: keys of a step, stages, consumer warpgroups, chunks finished together, where the
// turn passes, chunks started early. Short and Long guess that weights are small, as with a bias near -log N;
// Long is for the lower biases. Fast and FastShort are for SA_CUDA_FAST.
template <int kHeadSize, class T>
struct HopperShapes;

// What both types have in common. Three warpgroups keep the tensor cores busier than two, but their tiles of
// 192 rows fit short sequences badly.
template <class T>
struct HopperShapes64 {
  using Any = HopperShape<T, 64, 128, 2, 3, 4, 0, 0, Sigmoid, false>;
  using Short = HopperShape<T, 64, 128, 4, 2, 2, 1, 0, GuessedSigmoid, false>;
  using Fast = HopperShape<T, 64, 128, 3, 3, 4, 0, 0, TanhSigmoid, false>;
  using FastShort = HopperShape<T, 64, 128, 4, 2, 4, 0, 0, TanhSigmoid, false>;
  using General = HopperShape<T, 64, 96, 2, 3, 2, 0, 0, Sigmoid, true>;
};
template <>
struct HopperShapes<64, __nv_bfloat16> : HopperShapes64<__nv_bfloat16> {
  using Long = HopperShape<__nv_bfloat16, 64, 128, 3, 3, 2, 0, 0, GuessedSigmoid, false>;
};
template <>
struct HopperShapes<64, __half> : HopperShapes64<__half> {
  using Long = HopperShape<__half, 64, 128, 3, 3, 2, 0, 0, LowSigmoid, false>;
};

template <class T>
struct HopperShapes128 {
  using Any = HopperShape<T, 128, 160, 2, 2, 2, 1, 0, Sigmoid, false>;
  using Fast = HopperShape<T, 128, 160, 2, 2, 5, 2, 0, TanhSigmoid, false>;
  using FastShort = HopperShape<T, 128, 128, 2, 2, 4, 1, 0, TanhSigmoid, false>;
  using General = HopperShape<T, 128, 128, 2, 2, 2, 1, 0, Sigmoid, true>;
};
template <>
struct HopperShapes<128, __nv_bfloat16> : HopperShapes128<__nv_bfloat16> {
  using Short = HopperShape<__nv_bfloat16, 128, 128, 2, 2, 2, 1, 1, GuessedSigmoid, false>;
  using Long = HopperShape<__nv_bfloat16, 128, 160, 2, 2, 2, 2, 1, GuessedSigmoid, false>;
};
template <>
struct HopperShapes<128, __half> : HopperShapes128<__half> {
  using Short = HopperShape<__half, 128, 128, 2, 2, 2, 2, 1, GuessedSigmoid, false>;
  using Long = HopperShape<__half, 128, 160, 2, 2, 2, 1, 1, LowSigmoid, false>;
};

template <class T>
struct HopperShapes<256, T> {
  using Any = HopperShape<T, 256, 64, 2, 2, 4, 1, 0, Sigmoid, false>;
  using Short = HopperShape<T, 256, 64, 2, 2, 4, 1, 0, GuessedSigmoid, false>;
  using Long = Short;
  using Fast = HopperShape<T, 256, 64, 2, 2, 4, 1, 0, TanhSigmoid, false>;
  using FastShort = Fast;
  using General = HopperShape<T, 256, 64, 2, 2, 2, 1, 0, Sigmoid, true>;
};

// The highest bias that a head is likely to have. Biases of single heads are on the device; with them it is
// usually near -log N.
inline double likely_bias(const SaProblem& p) {
  const double bias = shared_bias(p);
  return p.head_bias == nullptr ? bias : std::fmin(bias, -std::log(static_cast<double>(p.key_length)));
}

// All activations but the fast one are right for any weights; the guesses are the faster ones where few
// weights are large, as with scores of standard deviation 1 and these biases.
constexpr double kShortBias = -6.0, kLongBias = -8.0;
constexpr int64_t kFastShortLength = 2048;  // query rows

template <int kHeadSize, class T>
cudaError_t launch_hopper_activation(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  using Shapes = HopperShapes<kHeadSize, T>;
  if (activation == Activation::kGeneral) return launch_hopper<typename Shapes::General>(in, stream);
  if (activation == Activation::kFast)
    return in.problem.query_length <= kFastShortLength ? launch_hopper<typename Shapes::FastShort>(in, stream)
                                                       : launch_hopper<typename Shapes::Fast>(in, stream);
  const double bias = likely_bias(in.problem);
  if (bias <= kLongBias) return launch_hopper<typename Shapes::Long>(in, stream);
  if (bias <= kShortBias) return launch_hopper<typename Shapes::Short>(in, stream);
  return launch_hopper<typename Shapes::Any>(in, stream);
}

template <int kHeadSize>
cudaError_t launch_hopper_size(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16
             ? launch_hopper_activation<kHeadSize, __half>(in, activation, stream)
             : launch_hopper_activation<kHeadSize, __nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

// Which instance of the Hopper kernel takes a problem: shapes by head size, and the rule between activations.
// docs/cuda-ladder.md tells how the shapes were chosen.
#pragma once

#include <cmath>

#include "cuda/hopper/launch.cuh"

namespace sa {

// Whether `Short` and `Long` take calls. Off: close variants were faster and right on a device, the form here
// has not been run (docs/cuda-ladder.md, rungs 12 and 13).
constexpr bool kAskOnceAStep = false;

// Shapes of a head size: keys of a step, stages, consumer warpgroups, chunks finished together, where the
// turn passes. `Short` and `Long` are for bfloat16 and lengths in which `Small` is slower; void: none.
template <int kHeadSize>
struct HopperShapes;

template <>
struct HopperShapes<64> {
  template <class T>
  using Any = HopperShape<T, 64, 128, 2, 3, 4, 0, Sigmoid, false>;
  template <class T>
  using Small = HopperShape<T, 64, 128, 2, 3, 4, 2, SmallSigmoid, false>;
  using Short = HopperShape<__nv_bfloat16, 64, 128, 2, 2, 2, 0, MediumStepSigmoid, false>;
  using Long = HopperShape<__nv_bfloat16, 64, 128, 2, 3, 1, 0, SmallStepSigmoid, false>;
  template <class T>
  using Fast = HopperShape<T, 64, 128, 2, 3, 4, 0, TanhSigmoid, false>;
  template <class T>
  using General = HopperShape<T, 64, 96, 2, 3, 2, 0, GeneralSigmoid, true>;
};

template <>
struct HopperShapes<128> {
  template <class T>
  using Any = HopperShape<T, 128, 160, 2, 2, 2, 1, Sigmoid, false>;
  template <class T>
  using Small = HopperShape<T, 128, 176, 2, 2, 6, 2, SmallSigmoid, false>;
  using Short = HopperShape<__nv_bfloat16, 128, 128, 2, 2, 4, 2, MediumStepSigmoid, false>;
  using Long = void;
  template <class T>
  using Fast = HopperShape<T, 128, 176, 2, 2, 6, 2, TanhSigmoid, false>;
  template <class T>
  using General = HopperShape<T, 128, 128, 2, 2, 2, 1, GeneralSigmoid, true>;
};

template <>
struct HopperShapes<256> {
  template <class T>
  using Any = HopperShape<T, 256, 64, 2, 2, 4, 1, Sigmoid, false>;
  template <class T>
  using Small = HopperShape<T, 256, 64, 2, 2, 4, 1, SmallSigmoid, false>;
  using Short = void;
  using Long = void;
  template <class T>
  using Fast = HopperShape<T, 256, 64, 2, 2, 4, 1, TanhSigmoid, false>;
  template <class T>
  using General = HopperShape<T, 256, 64, 2, 2, 2, 1, GeneralSigmoid, true>;
};

// Asking about a whole step pays where the answer is seldom yes, as with a low bias and scores of standard
// deviation 1. A scale or bias on the device could be anything.
inline bool step_guess_fits(const SaProblem& p, double highest_bias) {
  double bias = p.bias;
  if (p.bias_mode != SA_BIAS_NONE) bias -= std::log(static_cast<double>(p.key_length));
  return p.scale > 0.0f && p.head_scale == nullptr && p.head_bias == nullptr && bias <= highest_bias;
}

template <int kHeadSize, class T>
cudaError_t launch_hopper_activation(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  using Shapes = HopperShapes<kHeadSize>;
  if (activation == Activation::kAny) return launch_hopper<typename Shapes::template Any<T>>(in, stream);
  if (activation == Activation::kFast) return launch_hopper<typename Shapes::template Fast<T>>(in, stream);
  if (activation == Activation::kGeneral)
    return launch_hopper<typename Shapes::template General<T>>(in, stream);
  if constexpr (kAskOnceAStep && std::is_same_v<T, __nv_bfloat16>) {
    const int64_t keys = in.problem.key_length;
    if constexpr (!std::is_void_v<typename Shapes::Short>) {
      if (keys >= 512 && keys <= 2048 && step_guess_fits(in.problem, -6.0))
        return launch_hopper<typename Shapes::Short>(in, stream);
    }
    if constexpr (!std::is_void_v<typename Shapes::Long>) {
      if (keys >= 4096 && step_guess_fits(in.problem, -8.0))
        return launch_hopper<typename Shapes::Long>(in, stream);
    }
  }
  return launch_hopper<typename Shapes::template Small<T>>(in, stream);
}

template <int kHeadSize>
cudaError_t launch_hopper_size(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16
             ? launch_hopper_activation<kHeadSize, __half>(in, activation, stream)
             : launch_hopper_activation<kHeadSize, __nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

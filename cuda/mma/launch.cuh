// Host side of the mma.sync kernel: which shape a call takes, and the launch.
#pragma once

#include <algorithm>

#include "cuda/mma/kernel.cuh"

namespace sa {

// The shapes of each head size, as measured on an H100 (docs/cuda-ladder.md). Blocks of a multiprocessor are
// limited by registers: 168 a thread allow three, more allow two.
template <int kHeadSize>
struct MmaShapes;

template <>
struct MmaShapes<64> {
  template <class T, template <class> class Weights, Sight kSight = Sight::kRowBias>
  using Plain = MmaShape<T, 64, 2, 128, 3, true, Weights, kSight>;
  template <class T>
  using General = MmaShape<T, 64, 2, 64, 2, false, GeneralWeights>;
};
template <>
struct MmaShapes<128> {
  template <class T, template <class> class Weights, Sight kSight = Sight::kRowBias>
  using Plain = MmaShape<T, 128, 2, 64, 2, false, Weights, kSight>;
  template <class T>
  using General = MmaShape<T, 128, 2, 32, 2, false, GeneralWeights>;
};
template <>
struct MmaShapes<256> {
  template <class T, template <class> class Weights, Sight kSight = Sight::kRowBias>
  using Plain = MmaShape<T, 256, 1, 32, 2, false, Weights, kSight>;
  template <class T>
  using General = MmaShape<T, 256, 1, 32, 2, false, GeneralWeights>;
};

// How many heads, batches taken together, run side by side before the next ones start (block_place). Enough
// for rows of different length to even out, few enough for their keys and values to stay in the L2 cache, or
// for several blocks to share what they read of a head.
inline int head_group(const TensorInputs& in, int blocks_at_once) {
  const SaProblem& p = in.problem;
  if (!p.is_causal && p.right_window_size < 0) return 1;
  constexpr int kSharing = 8;
  const int64_t heads = p.batch * p.query_heads,
                bytes = std::max<int64_t>(
                    p.key_length * (p.head_size + p.value_head_size) * 2 * p.kv_heads / p.query_heads, 1);
  const int64_t most = std::max<int64_t>({in.l2_bytes / 3 * 2 / bytes, blocks_at_once / kSharing, 1});
  const int64_t groups = (heads + most - 1) / most;
  return static_cast<int>((heads + groups - 1) / groups);
}

template <class Shape>
cudaError_t launch_mma_shape(const TensorInputs& in, cudaStream_t stream) {
  const SaProblem& p = in.problem;
  const cudaError_t status = cudaFuncSetAttribute(
      mma_kernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (status != cudaSuccess) return status;
  const auto grid =
      static_cast<unsigned>((p.query_length + Shape::kRows - 1) / Shape::kRows * p.query_heads * p.batch);
  return launch_early(mma_kernel<Shape>, grid, Shape::kThreads, Shape::kSharedBytes, in.early_launch, stream,
                      MmaArguments{in, head_group(in, in.multiprocessors * Shape::kBlocks)});
}

// The kernels that a call's keys and bias allow. At head size 64, where registers are shortest, what they
// leave out pays.
template <int kHeadSize>
Sight sight_of(const SaProblem& p) {
  constexpr int kStepKeys = MmaShapes<kHeadSize>::template Plain<__half, ReciprocalWeights>::kKeys;
  const bool hides =
      p.is_causal || p.left_window_size >= 0 || p.right_window_size >= 0 || p.nonpad_kv_seqlen != nullptr;
  if (kHeadSize > 64 || (hides && p.bias_mode == SA_BIAS_NEG_LOG_VISIBLE)) return Sight::kRowBias;
  return hides || p.key_length % kStepKeys != 0 ? Sight::kSharedBias : Sight::kAll;
}

// Whether the guess of SmallWeights pays: a step of 4,096 scores costs twice as much where one weight is too
// large. float16 holds it to smaller weights, and at head sizes over 64 gains nothing by it. Where no key is
// hidden it gains most, and pays at higher biases.
template <int kHeadSize, class T>
bool mostly_small(const SaProblem& p, Sight sight) {
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if (kHalf && kHeadSize > 64) return false;
  const double low_bias = (kHalf ? -9.0 : -7.5) + (sight == Sight::kAll ? 1.5 : 0.0);
  return shared_bias(p) < low_bias || p.head_bias != nullptr;
}

template <int kHeadSize, class T>
cudaError_t launch_mma(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  using Shapes = MmaShapes<kHeadSize>;
  if (activation == Activation::kGeneral)
    return launch_mma_shape<typename Shapes::template General<T>>(in, stream);
  if (activation == Activation::kFast)
    return launch_mma_shape<typename Shapes::template Plain<T, TanhWeights>>(in, stream);
  const Sight sight = sight_of<kHeadSize>(in.problem);
  const bool small = in.partial == nullptr && mostly_small<kHeadSize, T>(in.problem, sight);
  if constexpr (kHeadSize <= 64) {
    if (small && sight == Sight::kAll)
      return launch_mma_shape<typename Shapes::template Plain<T, SmallWeights, Sight::kAll>>(in, stream);
    if (!small && sight == Sight::kAll)
      return launch_mma_shape<typename Shapes::template Plain<T, ReciprocalWeights, Sight::kAll>>(in, stream);
    if (!small && sight == Sight::kSharedBias)
      return launch_mma_shape<typename Shapes::template Plain<T, ReciprocalWeights, Sight::kSharedBias>>(
          in, stream);
  }
  if constexpr (kHeadSize <= 64 || std::is_same_v<T, __nv_bfloat16>) {
    if (small) return launch_mma_shape<typename Shapes::template Plain<T, SmallWeights>>(in, stream);
  }
  return launch_mma_shape<typename Shapes::template Plain<T, ReciprocalWeights>>(in, stream);
}

template <int kHeadSize>
cudaError_t launch_mma(const TensorInputs& in, Activation activation, cudaStream_t stream) {
  return in.problem.type == SA_FLOAT16 ? launch_mma<kHeadSize, __half>(in, activation, stream)
                                       : launch_mma<kHeadSize, __nv_bfloat16>(in, activation, stream);
}

}  // namespace sa

// The sigmoid of a score in the mma.sync kernel. Unlike the policies of the Hopper kernel these have no
// branch among the products: whatever is checked is checked once a step.
//
//   ReciprocalWeights  1 / (1 + exp(-x)), the hardware's exp2 and reciprocal: relative error near 1e-6
//   SmallWeights       one hardware function a score, where weights are small; see below
//   TanhWeights        the hardware tanh, for SA_CUDA_FAST
//   GeneralWeights     of logits that are complete already; a row may choose its own factor
//
// Weights come times kScale, which the kernel divides out of the output once: in float16 that keeps weights
// near 1/N clear of the subnormals.
#pragma once

#include "cuda/activation.cuh"

namespace sa {

__device__ __forceinline__ float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A NaN stays.
__device__ __forceinline__ float max_or_nan(float x, float y) {
  float m;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(m) : "f"(x), "f"(y));
  return m;
}

template <class T>
struct ReciprocalWeights {
  static constexpr bool kGuess = false;
  static constexpr float kLog2Scale = std::is_same_v<T, __half> ? 15.0f : 0.0f;
  static constexpr float kScale = std::is_same_v<T, __half> ? 32768.0f : 1.0f;

  // scale / (1 + 2^-logit) = 1 / (1 / scale + 2^-(logit + log2 scale)), logit = slope * score + intercept.
  float slope, intercept[2];

  ReciprocalWeights() = default;
  __device__ __forceinline__ ReciprocalWeights(float slope, float intercept0, float intercept1)
      : slope(-slope), intercept{-kLog2Scale - intercept0, -kLog2Scale - intercept1} {}

  // Of two neighbouring columns of one of the fragment's two rows, packed.
  __device__ __forceinline__ uint32_t pair(const float* score, int row, float&) const {
    float w[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
      w[i] = fast_reciprocal(fast_exp2(fmaf(score[i], slope, intercept[row])) + 1.0f / kScale);
    return pack<T>(w[0], w[1]);
  }
};

// Guesses that the weights are small, where e - e^2 will do, and keeps the largest exponential of a step.
// Where the guess was wrong, the kernel adds what it lacked; for that the guess is within bounds for any
// score. For bfloat16: float16 needs one more term, which takes longer than the reciprocal.
template <class T>
struct SmallWeights {
  static_assert(std::is_same_v<T, __nv_bfloat16>);
  static constexpr bool kGuess = true;
  // k sigmoid = E - E^2 with E = k e to within 1.2e-3 at the limit, falling to 0 below it.
  static constexpr float kLimit = 1.0f / 12;
  static constexpr float kScale = 0.935422547f, kLog2Scale = -0.096309892f;
  float slope, intercept[2];

  SmallWeights() = default;
  __device__ __forceinline__ SmallWeights(float slope, float intercept0, float intercept1)
      : slope(slope), intercept{intercept0 + kLog2Scale, intercept1 + kLog2Scale} {}

  static __device__ __forceinline__ float guess(float e) {
    float w;
    asm("fma.rn.ftz.sat.f32 %0, %1, %2, %2;" : "=f"(w) : "f"(-e), "f"(e));
    return w;
  }

  __device__ __forceinline__ uint32_t pair(const float* score, int row, float& top) const {
    float e[2];
#pragma unroll
    for (int i = 0; i < 2; i++) e[i] = fast_exp2(fmaf(score[i], slope, intercept[row]));
    top = max_or_nan(top, max_or_nan(e[0], e[1]));
    return pack<T>(guess(e[0]), guess(e[1]));
  }
  static __device__ __forceinline__ bool wrong(float top) {
    return !(top < kLimit * kScale);
  }

  // What the guess lacked.
  __device__ __forceinline__ uint32_t lack(const float* score, int row) const {
    float e[2], w[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      e[i] = fast_exp2(fmaf(score[i], slope, intercept[row]));
      const float bounded = e[i] > 1e30f ? 1e30f : e[i];
      w[i] = bounded * __fdividef(1.0f, fmaf(bounded, 1.0f / kScale, 1.0f));
    }
    const float2 guessed = unpack<T>(pack<T>(guess(e[0]), guess(e[1])));
    return pack<T>(w[0] - guessed.x, w[1] - guessed.y);
  }
};

template <class T>
struct GeneralWeights {
  static constexpr bool kGuess = false, kHalf = std::is_same_v<T, __half>;
  static constexpr float kLog2Scale = kHalf ? 15.0f : 0.0f, kScale = kHalf ? 32768.0f : 1.0f;
  float shift[2], unit[2];  // log 2 of the rows' factors; 1 / factor

  GeneralWeights() = default;
  __device__ __forceinline__ GeneralWeights(float, float, float)
      : shift{kLog2Scale, kLog2Scale}, unit{1.0f / kScale, 1.0f / kScale} {}

  __device__ __forceinline__ uint32_t pair(const float* logit, int row, float&) const {
    float w[2];
#pragma unroll
    for (int i = 0; i < 2; i++) w[i] = fast_reciprocal(fast_exp2(-shift[row] - logit[i]) + unit[row]);
    return pack<T>(w[0], w[1]);
  }

  // Under normalize a factor of a row cancels, and float16 needs one: with a bias far below 0 all weights
  // would vanish. A row starts with a factor too large for anything; the first logits that it sees set it so
  // that the largest gets weight 1, or 2^15 times the sigmoid if that is less. Logits 2^15 times as large as
  // those set it again, and what was summed up so far is scaled down.
  static constexpr float kUnset = 1e30f;
  __device__ __forceinline__ void start_normalized() {
    if (kHalf) shift[0] = shift[1] = kUnset;
  }
  template <int kCount, int kSize>
  __device__ __forceinline__ void fit(const float (&logit)[kCount], float (&out)[kSize], float (&sum)[2]) {
    float top[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < kCount; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], logit[i]);
    const auto too_large = [&](int r) { return top[r] + shift[r] > 15.0f && shift[r] > kLog2Scale; };
    if (!__any_sync(~0u, too_large(0) || too_large(1))) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
      const float wanted = too_large(r) ? fmaxf(-top[r], kLog2Scale) : shift[r];
      const float factor = exp2f(wanted - shift[r]);
      shift[r] = wanted;
      unit[r] = exp2f(-wanted);
      sum[r] *= factor;
#pragma unroll
      for (int i = 2 * r; i < kSize; i += 4) {
        out[i] *= factor;
        out[i + 1] *= factor;
      }
    }
  }
};

template <class T>
struct TanhWeights {
  static constexpr bool kGuess = false;
  static constexpr float kScale = std::is_same_v<T, __half> ? 32768.0f : 1.0f;
  float slope, intercept[2];

  TanhWeights() = default;
  __device__ __forceinline__ TanhWeights(float slope, float intercept0, float intercept1)
      : slope(slope * kHalf), intercept{intercept0 * kHalf, intercept1 * kHalf} {}

  __device__ __forceinline__ uint32_t pair(const float* score, int row, float&) const {
    float w[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
      w[i] = fmaf(fast_tanh(fmaf(score[i], slope, intercept[row])), 0.5f * kScale, 0.5f * kScale);
    return pack<T>(w[0], w[1]);
  }

 private:
  static constexpr float kHalf = 0.5f / kLog2E;
};

}  // namespace sa

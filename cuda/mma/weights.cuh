// The sigmoid of a score in the mma.sync kernel. Unlike the policies of the Hopper kernel these have no
// branch among the products: whatever is checked is checked once a step.
//
//   ReciprocalWeights  1 / (1 + exp(-x)), the hardware's exp2 and reciprocal: relative error near 1e-6
//   SmallWeights       one hardware function a score, where weights are small; see below
//   TanhWeights        the hardware tanh, for SA_CUDA_FAST
//   GeneralWeights     of logits that are complete already; a row may choose its own factor
//
// pair() makes weights on the main path, exact() in the rolled loop at the edge of a mask. kSegments: rows of
// any length (segments.cuh); long ones go to the others in the fast mode only. Weights come times kScale,
// which the kernel divides out of the output once: in float16 that keeps weights near 1/N clear of the
// subnormals.
#pragma once

#include "cuda/activation.cuh"

namespace sa {

__device__ __forceinline__ float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Where kScale is the factor of all rows, throughout.
struct FixedFactor {
  static __device__ __forceinline__ float since_segment(int) { return 1.0f; }
  static __device__ __forceinline__ void start_segment() {}
};

template <class T>
struct ReciprocalWeights : FixedFactor {
  static constexpr bool kSegments = true, kGuess = false;
  static constexpr float kLog2Scale = std::is_same_v<T, __half> ? 15.0f : 0.0f;
  static constexpr float kScale = std::is_same_v<T, __half> ? 32768.0f : 1.0f;

  // scale / (1 + 2^-logit) = 1 / (1 / scale + 2^-(logit + log2 scale)), logit = slope * score + intercept.
  float slope, intercept[2];

  ReciprocalWeights() = default;
  __device__ __forceinline__ ReciprocalWeights(float slope, float intercept0, float intercept1)
      : slope(-slope), intercept{-kLog2Scale - intercept0, -kLog2Scale - intercept1} {}

  // Of two neighbouring columns of one of the fragment's two rows, packed.
  __device__ __forceinline__ uint32_t pair(const float* score, int row, int&) const {
    float w[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
      w[i] = fast_reciprocal(fast_exp2(fmaf(score[i], slope, intercept[row])) + 1.0f / kScale);
    return pack<T>(w[0], w[1]);
  }
  __device__ __forceinline__ uint32_t exact(const float* score, int row, bool) const {
    int top;
    return pair(score, row, top);
  }
};

// Guesses that the weights are small, where e - e^2 will do, and keeps the largest score of a step. Where
// that is too large, the kernel adds what the guess lacked; for that the guess is within bounds for any
// score.
template <class T>
struct SmallWeights : FixedFactor {
  static constexpr bool kSegments = false, kGuess = true, kHalf = std::is_same_v<T, __half>;
  // k sigmoid = E - E^2 with E = k e: largest relative error in the lower half of what it is used for, where
  // nearly all weights are, and at its limit 5.3e-4 and 5.1e-3 (bfloat16, e up to 1/10), 8.7e-5 and 3.8e-4
  // (float16, e up to 1/32).
  static constexpr float kLog2Limit = kHalf ? -5.0f : -3.32192809f;
  static constexpr float kFactor = kHalf ? 0.9815f : 0.955f,
                         kLog2Factor = kHalf ? -0.02693983f : -0.06642736f;
  static constexpr float kShift = kHalf ? 32768.0f : 1.0f, kScale = kFactor * kShift;
  float slope, intercept[2];

  SmallWeights() = default;
  __device__ __forceinline__ SmallWeights(float slope, float intercept0, float intercept1)
      : slope(slope), intercept{intercept0 + kLog2Factor, intercept1 + kLog2Factor} {}

  static __device__ __forceinline__ float guess(float e) {
    float w;
    asm("fma.rn.ftz.sat.f32 %0, %1, %2, %2;" : "=f"(w) : "f"(-e), "f"(e));
    return w * kShift;
  }

  __device__ __forceinline__ uint32_t pair(const float* score, int row, int& top) const {
    float e[2];
#pragma unroll
    for (int i = 0; i < 2; i++) e[i] = fast_exp2(fmaf(score[i], slope, intercept[row]));
    top = __vimax3_s32(top, __float_as_int(score[0]), __float_as_int(score[1]));
    return pack<T>(guess(e[0]), guess(e[1]));
  }
  // Of scores of which `top` is the largest, as integers compare their bits: that is right if one is
  // positive.
  __device__ __forceinline__ bool wrong(int top) const {
    const float least = (kLog2Limit + kLog2Factor) - fmaxf(intercept[0], intercept[1]);  // that is too large
    return !(slope > 0.0f && least > 0.0f) || (top > 0 && !(slope * __int_as_float(top) < least));
  }

  // The weight itself, or what the guess lacked.
  __device__ __forceinline__ uint32_t exact(const float* score, int row, bool lacking) const {
    float e[2], w[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      e[i] = fast_exp2(fmaf(score[i], slope, intercept[row]));
      const float bounded = e[i] > 1e30f ? 1e30f : e[i];
      w[i] = bounded * __fdividef(kShift, fmaf(bounded, 1.0f / kFactor, 1.0f));
    }
    if (lacking) {
      const float2 guessed = unpack<T>(pack<T>(guess(e[0]), guess(e[1])));
      w[0] -= guessed.x;
      w[1] -= guessed.y;
    }
    return pack<T>(w[0], w[1]);
  }
};
template <class T>
struct GeneralWeights {
  static constexpr bool kSegments = true, kGuess = false, kHalf = std::is_same_v<T, __half>;
  static constexpr float kLog2Scale = kHalf ? 15.0f : 0.0f, kScale = kHalf ? 32768.0f : 1.0f;
  float shift[2], unit[2];          // log 2 of the rows' factors; 1 / factor
  float changed[2] = {1.0f, 1.0f};  // float16: by which the rows' factors have changed in this segment

  GeneralWeights() = default;
  __device__ __forceinline__ GeneralWeights(float, float, float)
      : shift{kLog2Scale, kLog2Scale}, unit{1.0f / kScale, 1.0f / kScale} {}

  __device__ __forceinline__ uint32_t pair(const float* logit, int row, int&) const {
    float w[2];
#pragma unroll
    for (int i = 0; i < 2; i++) w[i] = fast_reciprocal(fast_exp2(-shift[row] - logit[i]) + unit[row]);
    return pack<T>(w[0], w[1]);
  }

  __device__ __forceinline__ float since_segment(int row) const {
    return kHalf ? changed[row] : 1.0f;
  }
  __device__ __forceinline__ void start_segment() {
    changed[0] = changed[1] = 1.0f;
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
      changed[r] *= factor;
#pragma unroll
      for (int i = 2 * r; i < kSize; i += 4) {
        out[i] *= factor;
        out[i + 1] *= factor;
      }
    }
  }
};

template <class T>
struct TanhWeights : FixedFactor {
  static constexpr bool kSegments = false, kGuess = false;
  static constexpr float kScale = std::is_same_v<T, __half> ? 32768.0f : 1.0f;
  float slope, intercept[2];

  TanhWeights() = default;
  __device__ __forceinline__ TanhWeights(float slope, float intercept0, float intercept1)
      : slope(slope * kHalf), intercept{intercept0 * kHalf, intercept1 * kHalf} {}

  __device__ __forceinline__ uint32_t pair(const float* score, int row, int&) const {
    float w[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
      w[i] = fmaf(fast_tanh(fmaf(score[i], slope, intercept[row])), 0.5f * kScale, 0.5f * kScale);
    return pack<T>(w[0], w[1]);
  }

  __device__ __forceinline__ uint32_t exact(const float* score, int row, bool) const {
    int top;
    return pair(score, row, top);
  }

 private:
  static constexpr float kHalf = 0.5f / kLog2E;
};

}  // namespace sa

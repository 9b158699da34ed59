// The sigmoid of a score, as a policy of the Hopper and mma.sync kernels.
//
// A policy turns accumulated scores into weights, eight a call: two rows and four columns each of the
// accumulator fragment, which packed in pairs are the A operand of one k16 matrix product. It works in two
// stages, so that the kernel can start the exponentials of the next chunk before it finishes this one:
//   start   scores -> the value of the hardware function, in place
//   finish  values -> packed weights
// Weights come times kScale, which the kernel divides out of the output once: in float16 that keeps weights
// near 1/N clear of the subnormals.
//
//   Sigmoid       any score. One hardware exponential and a polynomial.
//   GuessedSigmoid, LowSigmoid
//                 guess that all weights are small, as they are with a bias near -log N, and are then almost
//                 as cheap as a bare exponential. The kernel asks beforehand (`unusual`) whether that holds
//                 for a whole step.
//   TanhSigmoid   the hardware tanh, for SA_CUDA_FAST.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <climits>
#include <cstdint>
#include <type_traits>

namespace sa {

constexpr float kLog2E = 1.4426950408889634f;

// Volatile, so that the compiler leaves it ahead of what it is to overlap with.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float fast_tanh(float x) {
  float y;
  asm volatile("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Rounds (first, second) to a register of two T, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack(float first, float second) {
  uint32_t packed;
  if constexpr (std::is_same_v<T, __half>)
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  else
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  return packed;
}

template <class T>
__device__ __forceinline__ float2 unpack(uint32_t packed) {
  if constexpr (std::is_same_v<T, __half>)
    return __half22float2(reinterpret_cast<const __half2&>(packed));
  else
    return make_float2(__uint_as_float(packed << 16), __uint_as_float(packed & 0xFFFF0000u));
}

template <class T>
__device__ __forceinline__ float pair_sum(uint32_t packed) {
  const float2 pair = unpack<T>(packed);
  return pair.x + pair.y;
}

// logit = slope * score + intercept[row], in units of log 2; intercepts of the fragment's two rows.
struct Affine {
  float slope;
  float intercept[2];
  int limit;  // Guess: the bits of the least score that is unusual
};

// The largest of kCount floats as integers compare them: right if one of them is positive.
template <int kCount>
__device__ __forceinline__ int largest_bits(const float* value) {
  constexpr int kChains = 4;
  int top[kChains];
#pragma unroll
  for (int c = 0; c < kChains; c++)
    top[c] = max(__float_as_int(value[2 * c]), __float_as_int(value[2 * c + 1]));
#pragma unroll
  for (int i = 2 * kChains; i < kCount; i += 2)
    top[i / 2 % kChains] =
        __vimax3_s32(top[i / 2 % kChains], __float_as_int(value[i]), __float_as_int(value[i + 1]));
  return max(__vimax3_s32(top[0], top[1], top[2]), top[3]);
}

// Row (0 or 1) of each of the eight scores: columns 0-1 of both rows, then columns 8-9.
__device__ __forceinline__ constexpr int fragment_row(int i) {
  return (i >> 1) & 1;
}

// sigmoid = e c or c, with e = exp(-|x|) in (0, 1] and c = 1 / (1 + e), a polynomial of e.
template <class T>
struct Sigmoid {
  static constexpr bool kHalf = std::is_same_v<T, __half>;
  static constexpr float kScale = kHalf ? 32768.0f : 1.0f;

  static __device__ __forceinline__ Affine prepare(Affine affine) { return affine; }

  // scale / (1 + e) for 0 <= e <= 1. Least maximal relative error: 5.1e-5 (degree 5) and 3.0e-4 (degree 4).
  static __device__ __forceinline__ float reciprocal(float e, float scale) {
    if constexpr (kHalf) {
      float c = fmaf(-0.10448464f * scale, e, 0.41793856f * scale);
      c = fmaf(c, e, -0.770573861f * scale);
      c = fmaf(c, e, 0.95342126f * scale);
      c = fmaf(c, e, -0.996275814f * scale);
      return fmaf(c, e, 0.999948989f * scale);
    } else {
      float c = fmaf(0.152245325f * scale, e, -0.53285864f * scale);
      c = fmaf(c, e, 0.86589466f * scale);
      c = fmaf(c, e, -0.984835373f * scale);
      return fmaf(c, e, 0.999702685f * scale);
    }
  }

  static __device__ __forceinline__ float weight(float signed_e) {
    const float e = fabsf(signed_e), c = reciprocal(e, kScale);
    return __float_as_int(signed_e) < 0 ? c * e : c;
  }

  // exp(-|x|) with the sign of x.
  static __device__ __forceinline__ void start(float* score, const Affine& affine) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float logit = fmaf(score[i], affine.slope, affine.intercept[fragment_row(i)]);
      score[i] = copysignf(fast_exp2(-fabsf(logit)), logit);
    }
  }

  template <int kChunks>
  static __device__ __forceinline__ void finish(const float* value, const Affine&, uint32_t (*p)[4]) {
#pragma unroll
    for (int i = 0; i < 4 * kChunks; i++)
      p[i / 4][i % 4] = pack<T>(weight(value[2 * i]), weight(value[2 * i + 1]));
  }
};

// sigmoid = e - e^2 + ... guesses that all weights are small. A kernel asks `unusual` before a step and then
// finishes all of it with one of two weights. E = kScale e; with each guess the weights for which it holds,
// and its largest relative error in the lower half of them, where nearly all are, and at the limit.
//
//   bfloat16        E - E^2            e <= 1/10   5.3e-4   5.1e-3
//   float16         E + a E^2 + b E^3  e <= 1/8    6.4e-5   6.4e-5
//   float16, kLow   E - c E^2          e <= 1/32   5.0e-5   5.2e-4   for low biases, with fewer large weights
template <class T, bool kLow>
struct Guess {
  static constexpr bool kAsks = true;
  static constexpr bool kHalf = std::is_same_v<T, __half>;
  static_assert(kHalf || !kLow);
  static constexpr float kLimit = !kHalf ? 0.1f : kLow ? 1.0f / 32 : 1.0f / 8;
  static constexpr float kLog2Limit = !kHalf ? -3.32192809f : kLow ? -5.0f : -3.0f;
  static constexpr float kFactor = 1.0f - 0.45f * kLimit;  // c of e - c e^2
  static constexpr float kScale = kHalf ? 32768.0f : kFactor;
  static constexpr float kLog2Scale = kHalf ? 15.0f : -0.066427362f;

  static __device__ __forceinline__ Affine prepare(Affine affine) {
    const float top = fmaxf(affine.intercept[0], affine.intercept[1]);
    const float limit = __fdividef(kLog2Limit - top, affine.slope);
    affine.limit = affine.slope > 0.0f && limit > 0.0f ? __float_as_int(limit) : INT_MIN;
    affine.intercept[0] += kLog2Scale;
    affine.intercept[1] += kLog2Scale;
    return affine;
  }

  // Whether one of these scores is too large for the guess; true where the affine map does not allow to tell.
  template <int kCount>
  static __device__ __forceinline__ bool unusual(const float (&score)[kCount], const Affine& affine) {
    return largest_bits<kCount>(score) >= affine.limit;
  }

  template <bool kUnusual>
  static __device__ __forceinline__ float weight(float e) {
    constexpr float unit = 1.0f / kScale;
    if constexpr (kUnusual) {
      e = e > 1e30f ? 1e30f : e;
      return e * __fdividef(1.0f, fmaf(e, unit, 1.0f));
    } else if constexpr (!kHalf) {
      return fmaf(-e, e, e);
    } else if constexpr (kLow) {
      return fmaf(e * (-kFactor * unit), e, e);
    } else {
      return e * fmaf(fmaf(0.846905665f * unit * unit, e, -0.994299523f * unit), e, 1.0f);
    }
  }

  static __device__ __forceinline__ void start(float* score, const Affine& affine) {
#pragma unroll
    for (int i = 0; i < 8; i++)
      score[i] = fast_exp2(fmaf(score[i], affine.slope, affine.intercept[fragment_row(i)]));
  }

  template <int kChunks, bool kUnusual>
  static __device__ __forceinline__ void finish(const float* value, const Affine&, uint32_t (*p)[4]) {
#pragma unroll
    for (int i = 0; i < 4 * kChunks; i++)
      p[i / 4][i % 4] = pack<T>(weight<kUnusual>(value[2 * i]), weight<kUnusual>(value[2 * i + 1]));
  }
};
template <class T>
using GuessedSigmoid = Guess<T, false>;
template <class T>
using LowSigmoid = Guess<T, true>;

// sigmoid = (tanh(x / 2) + 1) / 2.
template <class T>
struct TanhSigmoid {
  static constexpr float kScale = std::is_same_v<T, __half> ? 32768.0f : 1.0f;

  static __device__ __forceinline__ Affine prepare(Affine affine) {
    constexpr float half = 0.5f / kLog2E;
    return {affine.slope * half, {affine.intercept[0] * half, affine.intercept[1] * half}, 0};
  }

  static __device__ __forceinline__ void start(float* score, const Affine& affine) {
#pragma unroll
    for (int i = 0; i < 8; i++)
      score[i] = fast_tanh(fmaf(score[i], affine.slope, affine.intercept[fragment_row(i)]));
  }

  template <int kChunks>
  static __device__ __forceinline__ void finish(const float* value, const Affine&, uint32_t (*p)[4]) {
    constexpr float half = 0.5f * kScale;
#pragma unroll
    for (int i = 0; i < 4 * kChunks; i++)
      p[i / 4][i % 4] = pack<T>(fmaf(value[2 * i], half, half), fmaf(value[2 * i + 1], half, half));
  }
};

}  // namespace sa

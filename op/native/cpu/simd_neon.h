// Four floats at a time: NEON of AArch64. The operations are those of simd_avx512.h.
#pragma once

#include <arm_neon.h>

#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

struct Simd {
  static constexpr const char* kName = "neon";
  using V = float32x4_t;
  using M = uint32x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kScoreKeys = 8, kScoreVectors = 3;
  static constexpr int kValueRows = 12, kValueVectors = 2;
  static constexpr bool kSmallValueTiles = true;
  static constexpr bool kHasPairs = false;
  static constexpr int kDecodeRows = 4, kDecodeVectors = 4;

  static V Zero() { return vdupq_n_f32(0); }
  static V Set1(float x) { return vdupq_n_f32(x); }
  static V Iota() {
    const float lanes[4] = {0, 1, 2, 3};
    return vld1q_f32(lanes);
  }

  static V Load(const float* from) { return vld1q_f32(from); }
  static V Load(const Half* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from))));
  }
  static V Load(const BFloat16* from) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(from)), 16));
  }
  template <class T>
  static V LoadN(const T* from, int64_t n) {
    T all[4] = {};
    std::memcpy(all, from, static_cast<size_t>(n < 4 ? n : 4) * sizeof(T));
    return Load(all);
  }

  static void Store(float* to, V x) { vst1q_f32(to, x); }
  static void Store(Half* to, V x) {
    vst1_u16(reinterpret_cast<uint16_t*>(to), vreinterpret_u16_f16(vcvt_f16_f32(x)));
  }
  static void Store(BFloat16* to, V x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    const uint32x4_t chosen = vbslq_u32(vceqq_f32(x, x), rounded, quiet);
    vst1_u16(reinterpret_cast<uint16_t*>(to), vshrn_n_u32(chosen, 16));
  }
  template <class T>
  static void StoreN(T* to, V x, int64_t n) {
    T all[4];
    Store(all, x);
    std::memcpy(to, all, static_cast<size_t>(n < 4 ? n : 4) * sizeof(T));
  }

  static V Add(V a, V b) { return vaddq_f32(a, b); }
  static V Sub(V a, V b) { return vsubq_f32(a, b); }
  static V Mul(V a, V b) { return vmulq_f32(a, b); }
  static V Div(V a, V b) { return vdivq_f32(a, b); }
  static V Fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
  static V Min(V limit, V x) { return vminq_f32(limit, x); }
  static V Max(V limit, V x) { return vmaxq_f32(limit, x); }
  static V Abs(V x) { return vabsq_f32(x); }
  static float Sum(V x) { return vaddvq_f32(x); }

  static M Less(V a, V b) { return vcltq_f32(a, b); }
  static M LessEqual(V a, V b) { return vcleq_f32(a, b); }
  static M And(M a, M b) { return vandq_u32(a, b); }
  static bool Any(M m) { return vmaxvq_u32(m) != 0; }
  static bool All(M m) { return vminvq_u32(m) != 0; }
  static V Select(M m, V a, V b) { return vbslq_f32(m, a, b); }
  static V ZeroUnless(M m, V x) { return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(x))); }

  template <int kBits>
  static V ShiftLeft(V x) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), kBits));
  }
  static V AddInteger(V a, V b) {
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
  }

  /// No table: the whole binade is left to the polynomial.
  static constexpr int kTableBits = 0;
  struct Table {};
  static Table LoadTable(const float*) { return {}; }
  static V Lookup(Table, V) { return Zero(); }

  /// Lane i: the sum of r[i]'s lanes.
  static V Sums(const V r[4]) { return vpaddq_f32(vpaddq_f32(r[0], r[1]), vpaddq_f32(r[2], r[3])); }

  /// Transposes 4 rows of 4 floats in place.
  static void Transpose(V r[4]) {
    const V a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]);
    const V c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    r[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    r[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    r[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
  }
};

}  // namespace
}  // namespace sigmoid_attention::cpu

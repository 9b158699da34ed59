// Eight floats at a time: AVX2, FMA and F16C. The operations are those of simd_avx512.h.
#pragma once

#include <immintrin.h>

#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

struct Simd {
  static constexpr const char* kName = "avx2";
  using V = __m256;
  using M = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kScoreKeys = 6, kScoreVectors = 2;
  static constexpr int kValueRows = 6, kValueVectors = 2;
  static constexpr bool kSmallValueTiles = true;
  static constexpr bool kHasPairs = false;
  static constexpr int kDecodeRows = 2, kDecodeVectors = 4;

  static V Zero() { return _mm256_setzero_ps(); }
  static V Set1(float x) { return _mm256_set1_ps(x); }
  static V Iota() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }

  static V Load(const float* from) { return _mm256_loadu_ps(from); }
  static V Load(const Half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static V Load(const BFloat16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static V LoadN(const float* from, int64_t n) { return _mm256_maskload_ps(from, First(n)); }
  template <class T>
  static V LoadN(const T* from, int64_t n) {
    T all[8] = {};
    std::memcpy(all, from, static_cast<size_t>(n < 8 ? n : 8) * sizeof(T));
    return Load(all);
  }

  static void Store(float* to, V x) { _mm256_storeu_ps(to, x); }
  static void Store(Half* to, V x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
  static void Store(BFloat16* to, V x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
  }
  static void StoreN(float* to, V x, int64_t n) { _mm256_maskstore_ps(to, First(n), x); }
  template <class T>
  static void StoreN(T* to, V x, int64_t n) {
    T all[8];
    Store(all, x);
    std::memcpy(to, all, static_cast<size_t>(n < 8 ? n : 8) * sizeof(T));
  }

  static V Add(V a, V b) { return _mm256_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm256_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm256_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm256_div_ps(a, b); }
  static V Fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V Min(V limit, V x) { return _mm256_min_ps(limit, x); }
  static V Max(V limit, V x) { return _mm256_max_ps(limit, x); }
  static V Abs(V x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
  static float Sum(V x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }

  static M Less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static M LessEqual(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
  static M And(M a, M b) { return _mm256_and_ps(a, b); }
  static bool Any(M m) { return _mm256_movemask_ps(m) != 0; }
  static bool All(M m) { return _mm256_movemask_ps(m) == 0xff; }
  static V Select(M m, V a, V b) { return _mm256_blendv_ps(b, a, m); }
  static V ZeroUnless(M m, V x) { return _mm256_and_ps(m, x); }

  template <int kBits>
  static V ShiftLeft(V x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), kBits));
  }
  static V AddInteger(V a, V b) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)));
  }

  static constexpr int kTableBits = 3;
  using Table = V;
  static Table LoadTable(const float* entries) { return Load(entries); }
  static V Lookup(Table table, V index) {
    return _mm256_permutevar8x32_ps(table, _mm256_castps_si256(index));
  }

  /// Lane i: the sum of r[i]'s lanes. Each step adds halves of two vectors into one.
  static V Sums(const V r[8]) {
    V quads[2];
    for (int i = 0; i < 2; ++i) {
      quads[i] =
          _mm256_hadd_ps(_mm256_hadd_ps(r[4 * i], r[4 * i + 1]), _mm256_hadd_ps(r[4 * i + 2], r[4 * i + 3]));
    }
    return Add(_mm256_permute2f128_ps(quads[0], quads[1], 0x20),
               _mm256_permute2f128_ps(quads[0], quads[1], 0x31));
  }

  /// Transposes 8 rows of 8 floats in place.
  static void Transpose(V r[8]) {
    V t[8];
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
      const __m256d a = _mm256_castps_pd(t[4 * i]), b = _mm256_castps_pd(t[4 * i + 1]);
      const __m256d c = _mm256_castps_pd(t[4 * i + 2]), d = _mm256_castps_pd(t[4 * i + 3]);
      r[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
      r[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
      r[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
      r[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; ++i) {
      const V low = r[i], high = r[i + 4];
      r[i] = _mm256_permute2f128_ps(low, high, 0x20);
      r[i + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
  }

 private:
  static __m256i First(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n < 8 ? n : 8)), lane);
  }
};

}  // namespace
}  // namespace sigmoid_attention::cpu

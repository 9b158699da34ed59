// Sixteen floats at a time: AVX-512 F, BW, DQ and VL.
//
// The simd_*.h headers share one set of operations, which the kernels are templates over. Min and Max return
// their second argument when it is NaN, so that limits do not hide a NaN.
#pragma once

#include <immintrin.h>

#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

struct Simd {
  static constexpr const char* kName = "avx512";
  using V = __m512;
  using M = __mmask16;
  static constexpr int kLanes = 16;
  static constexpr int kScoreKeys = 8, kScoreVectors = 3;  // register tile of Q K^T: keys x (vectors of rows)
  static constexpr int kValueRows = 12, kValueVectors = 2;  // register tile of W V: rows x (vectors of Dv)
  static constexpr bool kSmallValueTiles = false;
  static constexpr int kDecodeRows = 4, kDecodeVectors = 4;

  static V Zero() { return _mm512_setzero_ps(); }
  static V Set1(float x) { return _mm512_set1_ps(x); }
  static V Iota() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

  static V Load(const float* from) { return _mm512_loadu_ps(from); }
  static V Load(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static V Load(const BFloat16* from) {
    return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static V LoadN(const float* from, int64_t n) { return _mm512_maskz_loadu_ps(First(n), from); }
  static V LoadN(const Half* from, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(n), from));
  }
  static V LoadN(const BFloat16* from, int64_t n) { return Widen(_mm256_maskz_loadu_epi16(First(n), from)); }

  static void Store(float* to, V x) { _mm512_storeu_ps(to, x); }
  static void Store(Half* to, V x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), ToHalf(x)); }
  static void Store(BFloat16* to, V x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), ToBFloat16(x)); }
  static void StoreN(float* to, V x, int64_t n) { _mm512_mask_storeu_ps(to, First(n), x); }
  static void StoreN(Half* to, V x, int64_t n) { _mm256_mask_storeu_epi16(to, First(n), ToHalf(x)); }
  static void StoreN(BFloat16* to, V x, int64_t n) { _mm256_mask_storeu_epi16(to, First(n), ToBFloat16(x)); }

  static V Add(V a, V b) { return _mm512_add_ps(a, b); }
  static V Sub(V a, V b) { return _mm512_sub_ps(a, b); }
  static V Mul(V a, V b) { return _mm512_mul_ps(a, b); }
  static V Div(V a, V b) { return _mm512_div_ps(a, b); }
  static V Fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V Min(V limit, V x) { return _mm512_min_ps(limit, x); }
  static V Max(V limit, V x) { return _mm512_max_ps(limit, x); }
  static V Abs(V x) { return _mm512_abs_ps(x); }
  static float Sum(V x) { return _mm512_reduce_add_ps(x); }

  static M Less(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M LessEqual(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
  static M And(M a, M b) { return a & b; }
  static bool Any(M m) { return m != 0; }
  static bool All(M m) { return m == 0xffff; }
  static V Select(M m, V a, V b) { return _mm512_mask_blend_ps(m, b, a); }
  static V ZeroUnless(M m, V x) { return _mm512_maskz_mov_ps(m, x); }

  template <int kBits>
  static V ShiftLeft(V x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), kBits));
  }
  static V AddInteger(V a, V b) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
  }

  /// Entry `index % (1 << kTableBits)` of a table, the index being the lanes' low bits.
  static constexpr int kTableBits = 5;
  struct Table {
    V low, high;
  };
  static Table LoadTable(const float* entries) { return {Load(entries), Load(entries + 16)}; }
  static V Lookup(const Table& table, V index) {
    return _mm512_permutex2var_ps(table.low, _mm512_castps_si512(index), table.high);
  }

#ifdef __AVX512BF16__
  /// Lanes as pairs of bfloat16: c + a.low b.low + a.high b.high.
  static constexpr bool kHasPairs = true;
  static V DotPairs(V a, V b, V c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
  }
  static V RoundToPairs(V low, V high) {
    return Pair((__m512i)_mm512_cvtne2ps_pbh(high, low));
  }
  /// The first `n` elements of two rows, the second null: 0.
  static V Interleave(const BFloat16* low, const BFloat16* high, int64_t n) {
    const __m256i a = _mm256_maskz_loadu_epi16(First(n), low);
    const __m256i b = high ? _mm256_maskz_loadu_epi16(First(n), high) : _mm256_setzero_si256();
    return Pair(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
  }
#else
  static constexpr bool kHasPairs = false;
#endif

  /// Lane i: the sum of r[i]'s lanes. Each step adds halves of two vectors into one.
  static V Sums(const V r[16]) {
    V pairs[8], quads[4], halves[2];
    for (int i = 0; i < 8; ++i) {
      const V a = r[2 * i], b = r[2 * i + 1];
      pairs[i] = Add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; ++i) {
      const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
      quads[i] = Add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    for (int i = 0; i < 2; ++i) halves[i] = AddNeighbours(quads[2 * i], quads[2 * i + 1]);
    return AddNeighbours(halves[0], halves[1]);
  }

  /// Transposes 16 rows of 16 floats in place.
  static void Transpose(V r[16]) {
    V t[16];
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
      const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
      const __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
      r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
      r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
      r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
      r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
      t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
      t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
      r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
      r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
      r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
      r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
  }

 private:
  static M First(int64_t n) {
    return static_cast<M>(n >= 16 ? 0xffff : (1u << n) - 1);
  }

  /// Sums of neighbouring quarters: a's two, then b's.
  static V AddNeighbours(V a, V b) {
    return Add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }

  /// Element i of the lower half and element i of the upper half become lane i.
  static V Pair(__m512i halves) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1));
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }

  static V Widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }

  static __m256i ToHalf(V x) {
    return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }

  static __m256i ToBFloat16(V x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits,
                                   _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }
};

}  // namespace
}  // namespace sigmoid_attention::cpu

// Four floats at a time in standard C++, for every other CPU. The operations are those of simd_avx512.h.
#pragma once

#include <cmath>

#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

struct Simd {
  static constexpr const char* kName = "portable";
  static constexpr int kLanes = 4;
  static constexpr int kScoreKeys = 4, kScoreVectors = 2;
  static constexpr int kValueRows = 4, kValueVectors = 2;
  static constexpr bool kSmallValueTiles = true;
  static constexpr bool kHasPairs = false;
  static constexpr int kDecodeRows = 2, kDecodeVectors = 2;

  struct V {
    float lane[kLanes];
  };
  struct M {
    bool lane[kLanes];
  };

  static V Zero() { return Set1(0); }
  static V Set1(float x) {
    return Each([x](int) { return x; });
  }
  static V Iota() {
    return Each([](int i) { return static_cast<float>(i); });
  }

  template <class T>
  static V Load(const T* from) {
    return Each([from](int i) { return ToFloat(from[i]); });
  }
  template <class T>
  static V LoadN(const T* from, int64_t n) {
    return Each([from, n](int i) { return i < n ? ToFloat(from[i]) : 0; });
  }
  template <class T>
  static void Store(T* to, V x) {
    for (int i = 0; i < kLanes; ++i) FromFloat(x.lane[i], to + i);
  }
  template <class T>
  static void StoreN(T* to, V x, int64_t n) {
    for (int i = 0; i < kLanes && i < n; ++i) FromFloat(x.lane[i], to + i);
  }

  static V Add(V a, V b) {
    return Each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static V Sub(V a, V b) {
    return Each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static V Mul(V a, V b) {
    return Each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static V Div(V a, V b) {
    return Each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static V Fma(V a, V b, V c) {
    return Each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static V Min(V limit, V x) {
    return Each([&](int i) { return limit.lane[i] < x.lane[i] ? limit.lane[i] : x.lane[i]; });
  }
  static V Max(V limit, V x) {
    return Each([&](int i) { return limit.lane[i] > x.lane[i] ? limit.lane[i] : x.lane[i]; });
  }
  static V Abs(V x) {
    return Each([&](int i) { return std::fabs(x.lane[i]); });
  }
  static float Sum(V x) { return (x.lane[0] + x.lane[1]) + (x.lane[2] + x.lane[3]); }

  static M Less(V a, V b) {
    return EachMask([&](int i) { return a.lane[i] < b.lane[i]; });
  }
  static M LessEqual(V a, V b) {
    return EachMask([&](int i) { return a.lane[i] <= b.lane[i]; });
  }
  static M And(M a, M b) {
    return EachMask([&](int i) { return a.lane[i] && b.lane[i]; });
  }
  static bool Any(M m) { return m.lane[0] || m.lane[1] || m.lane[2] || m.lane[3]; }
  static bool All(M m) { return m.lane[0] && m.lane[1] && m.lane[2] && m.lane[3]; }
  static V Select(M m, V a, V b) {
    return Each([&](int i) { return m.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static V ZeroUnless(M m, V x) { return Select(m, x, Zero()); }

  template <int kBits>
  static V ShiftLeft(V x) {
    return Each([&](int i) { return FloatFromBits(BitsFromFloat(x.lane[i]) << kBits); });
  }
  static V AddInteger(V a, V b) {
    return Each([&](int i) { return FloatFromBits(BitsFromFloat(a.lane[i]) + BitsFromFloat(b.lane[i])); });
  }

  static constexpr int kTableBits = 0;
  struct Table {};
  static Table LoadTable(const float*) { return {}; }
  static V Lookup(Table, V) { return Zero(); }

  /// Lane i: the sum of r[i]'s lanes.
  static V Sums(const V r[kLanes]) {
    return Each([&](int i) { return Sum(r[i]); });
  }

  /// Transposes kLanes rows of kLanes floats in place.
  static void Transpose(V r[kLanes]) {
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < i; ++j) {
        const float swapped = r[i].lane[j];
        r[i].lane[j] = r[j].lane[i];
        r[j].lane[i] = swapped;
      }
    }
  }

 private:
  template <class Function>
  static V Each(Function function) {
    V result;
    for (int i = 0; i < kLanes; ++i) result.lane[i] = function(i);
    return result;
  }
  template <class Function>
  static M EachMask(Function function) {
    M result;
    for (int i = 0; i < kLanes; ++i) result.lane[i] = function(i);
    return result;
  }
};

}  // namespace
}  // namespace sigmoid_attention::cpu

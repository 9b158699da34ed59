// sigmoid(L) to a relative error below 2^-20 wherever float can hold L, as 1 / (1 + k 2^z) with z = -log2(e)
// L.
//
// 2^z = 2^n * table[f] * polynomial(r): n the integer part, f the next kTableBits bits, r what is left, so
// that the polynomial can be short where the instruction set has a table lookup in registers. The factor k =
// exp(-bias) comes with the polynomial's coefficients: a bias costs nothing and its size does not coarsen the
// rounding of z.
#pragma once

#include <cmath>

#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kInfinity = __builtin_inff();

class SigmoidOf {
 public:
  using V = Simd::V;

  /// sigmoid(scale * score + bias), for biases in [-64, 0]; others must be part of the score.
  SigmoidOf(double scale, double bias) {
    const double factor = -1.4426950408889634 * scale;
    const auto high = static_cast<float>(factor);
    factor_ = Simd::Set1(high);
    factor_rest_ = Simd::Set1(static_cast<float>(factor - high));
    const auto lowest = static_cast<float>(-126 / std::fabs(factor)),
               highest = static_cast<float>(128 / factor);
    least_ = Simd::Set1(factor < 0 ? highest : lowest);
    greatest_ = Simd::Set1(factor < 0 ? -lowest : highest);

    const double scaled = std::exp(-bias);
    for (int i = 0; i <= kDegree; ++i)
      coefficient_[i] = Simd::Set1(static_cast<float>(kPolynomial[i] * scaled));
    static const TableEntries entries;
    table_ = Simd::LoadTable(entries.value);
  }

  /// The weight of a score: exactly 0 where z >= 128, NaN for NaN.
  V operator()(V score) const {
    score = Simd::Max(least_, Simd::Min(greatest_, score));
    const V magic = Simd::Set1(kMagic);
    const V n = Simd::Fma(score, factor_, magic);
    // z itself is never rounded: r is what is left of the exact product.
    V r = Simd::Fma(score, factor_, Simd::Sub(magic, n));
    r = Simd::Fma(score, factor_rest_, r);
    return Finish(n, r);
  }

  /// The weight of a score with an addend of z, such as a mask's.
  V operator()(V score, V addend) const {
    const V z = Simd::Max(Simd::Set1(-126), Simd::Min(Simd::Set1(128), Simd::Fma(score, factor_, addend)));
    const V magic = Simd::Set1(kMagic);
    const V n = Simd::Add(z, magic);
    return Finish(n, Simd::Sub(z, Simd::Sub(n, magic)));
  }

 private:
  struct TableEntries {
    float value[1 << Simd::kTableBits];

    TableEntries() {
      for (uint32_t i = 0; i < 1u << Simd::kTableBits; ++i) {
        const float power = static_cast<float>(std::exp2(static_cast<double>(i) / (1 << Simd::kTableBits)));
        // The lookup's index is added to the table's entry with the exponent: take it out beforehand.
        value[i] = FloatFromBits(BitsFromFloat(power) - (i << (23 - Simd::kTableBits)));
      }
    }
  };

  V Finish(V n, V r) const {
    V p = coefficient_[kDegree];
    for (int i = kDegree - 1; i >= 0; --i) p = Simd::Fma(p, r, coefficient_[i]);
    V power = Simd::ShiftLeft<23 - Simd::kTableBits>(n);
    if constexpr (Simd::kTableBits > 0) power = Simd::AddInteger(power, Simd::Lookup(table_, n));
    return Simd::Div(Simd::Set1(1), Simd::Fma(p, power, Simd::Set1(1)));
  }

  static constexpr int kDegree = Simd::kTableBits == 5 ? 2 : Simd::kTableBits == 3 ? 3 : 5;

  /// Minimax fits of 2^r for |r| <= 2^-(kTableBits + 1); relative errors 5.3e-8, 1.8e-8, 7.5e-8.
  static constexpr double kDegree2[] = {1.0000000004299494, 0.693157343588191, 0.24022474587815681};
  static constexpr double kDegree3[] = {0.9999999816672354, 0.6931472085209028, 0.24026407296798896,
                                        0.05549890331855188};
  static constexpr double kDegree5[] = {1.0000000716530213,  0.6931469670668435,  0.24022119724704669,
                                        0.05550713258738691, 0.00967554136335364, 0.0013276477808759292};
  static constexpr const double* kPolynomial = kDegree == 2 ? kDegree2 : kDegree == 3 ? kDegree3 : kDegree5;

  /// Adding it rounds to a multiple of 2^-kTableBits and leaves that multiple in the low bits; without a
  /// table the exponent's offset 127 is in it already.
  static constexpr float kMagic =
      Simd::kTableBits == 0 ? 12582912.0f + 127 : 12582912.0f / (1 << Simd::kTableBits);

  V factor_, factor_rest_, least_, greatest_;
  V coefficient_[kDegree + 1];
  Simd::Table table_;
};

/// tanh(x) to a few units in the last place: expm1(2x) / (expm1(2x) + 2).
inline Simd::V Tanh(Simd::V x) {
  using V = Simd::V;
  const V y = Simd::Max(Simd::Set1(-32), Simd::Min(Simd::Set1(32), Simd::Mul(x, Simd::Set1(2 * kLog2E))));
  const V magic = Simd::Set1(12582912.0f + 127);
  const V n = Simd::Add(y, magic);
  // In natural units from here on: r = 2x - n ln 2, with ln 2 in two parts.
  const V whole = Simd::Sub(n, magic);
  V r = Simd::Fma(whole, Simd::Set1(-0x1.62e4p-1f), Simd::Mul(x, Simd::Set1(2)));
  r = Simd::Fma(whole, Simd::Set1(-1.42860677e-6f), r);
  r = Simd::Max(Simd::Set1(-0.4f), Simd::Min(Simd::Set1(0.4f), r));  // where y was limited
  // expm1(r) = r + r^2 (1/2 + r/6 + ...), a Taylor polynomial: |r| <= 0.35.
  V p = Simd::Set1(1.0f / 5040);
  p = Simd::Fma(p, r, Simd::Set1(1.0f / 720));
  p = Simd::Fma(p, r, Simd::Set1(1.0f / 120));
  p = Simd::Fma(p, r, Simd::Set1(1.0f / 24));
  p = Simd::Fma(p, r, Simd::Set1(1.0f / 6));
  p = Simd::Fma(p, r, Simd::Set1(0.5f));
  p = Simd::Fma(Simd::Mul(p, r), r, r);
  const V power = Simd::ShiftLeft<23>(n);
  const V expm1 = Simd::Fma(p, power, Simd::Sub(power, Simd::Set1(1)));
  return Simd::Div(expm1, Simd::Add(expm1, Simd::Set1(2)));
}

}  // namespace
}  // namespace sigmoid_attention::cpu

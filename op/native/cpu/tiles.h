// The register tiles: the two matrix products of a block, everything else in the kernel is around them.
//
// Scores are kept transposed, [key][row], so that both products broadcast elements of memory-order operands
// (K and W) and load vectors of the other (Q transposed once per rectangle, V as it is): K and V need no
// packing.
#pragma once

#include <cstdint>
#include <utility>

#include "op/native/cpu/read_ahead.h"
#include "op/native/cpu/repeat.h"

namespace sigmoid_attention::cpu {
namespace {

/// What a lane of an operand is, and how two are multiplied and added.
struct Floats {
  static Simd::V MultiplyAdd(Simd::V a, Simd::V b, Simd::V c) { return Simd::Fma(a, b, c); }
};
struct Pairs {
  template <class S = Simd>
  static typename S::V MultiplyAdd(typename S::V a, typename S::V b, typename S::V c) {
    return S::DotPairs(a, b, c);
  }
};

/// s[key][row] = sum over d of k[key][d] q[d][row], for kKeys keys and kVectors vectors of rows.
template <class Lane, int kKeys, int kVectors>
inline void ScoreTile(const float* q, int64_t q_stride, const float* k, int64_t k_stride, int64_t head_size,
                      float* s, int64_t s_stride) {
  using V = Simd::V;
  V sum[kKeys][kVectors];
  Repeat<kKeys>([&](auto key) { Repeat<kVectors>([&](auto v) { sum[key][v] = Simd::Zero(); }); });
  for (int64_t d = 0; d < head_size; ++d) {
    V row[kVectors];
    Repeat<kVectors>([&](auto v) { row[v] = Simd::Load(q + v * Simd::kLanes); });
    q += q_stride;
    Repeat<kKeys>([&](auto key) {
      const V element = Simd::Set1(k[key * k_stride + d]);
      Repeat<kVectors>([&](auto v) { sum[key][v] = Lane::MultiplyAdd(element, row[v], sum[key][v]); });
    });
  }
  Repeat<kKeys>([&](auto key) {
    Repeat<kVectors>([&](auto v) { Simd::Store(s + key * s_stride + v * Simd::kLanes, sum[key][v]); });
  });
}

/// y[row][d] = sum over keys of w[key][row] v[key][d], for kRows rows and kVectors vectors of d; `adds`: y +=
/// it.
template <class Lane, int kRows, int kVectors>
inline void ValueTile(const float* w, int64_t w_stride, const float* v, int64_t v_stride, int64_t keys,
                      float* y, int64_t y_stride, bool adds) {
  using V = Simd::V;
  V sum[kRows][kVectors];
  Repeat<kRows>([&](auto row) { Repeat<kVectors>([&](auto c) { sum[row][c] = Simd::Zero(); }); });
  for (int64_t key = 0; key < keys; ++key) {
    V value[kVectors];
    Repeat<kVectors>([&](auto c) { value[c] = Simd::Load(v + c * Simd::kLanes); });
    Repeat<kRows>([&](auto row) {
      const V weight = Simd::Set1(w[row]);
      Repeat<kVectors>([&](auto c) { sum[row][c] = Lane::MultiplyAdd(weight, value[c], sum[row][c]); });
    });
    v += v_stride;
    w += w_stride;
  }
  Repeat<kRows>([&](auto row) {
    Repeat<kVectors>([&](auto c) {
      float* to = y + row * y_stride + c * Simd::kLanes;
      Simd::Store(to, adds ? Simd::Add(Simd::Load(to), sum[row][c]) : sum[row][c]);
    });
  });
}

using ScoreFunction = void (*)(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t);
using ValueFunction = void (*)(const float*, int64_t, const float*, int64_t, int64_t, float*, int64_t, bool);

template <class Lane, int kVectors, int... kKeysLess1>
constexpr ScoreFunction ScoreTileFor(int64_t keys, std::integer_sequence<int, kKeysLess1...>) {
  constexpr ScoreFunction table[] = {ScoreTile<Lane, kKeysLess1 + 1, kVectors>...};
  return table[keys - 1];
}

template <class Lane, int kVectors, int... kRowsLess1>
constexpr ValueFunction ValueTileFor(int64_t rows, std::integer_sequence<int, kRowsLess1...>) {
  constexpr ValueFunction table[] = {ValueTile<Lane, kRowsLess1 + 1, kVectors>...};
  return table[rows - 1];
}

/// s[key][row] for any number of keys and `kVectors` vectors of rows.
template <class Lane, int kVectors>
void Scores(const float* q, int64_t q_stride, const float* k, int64_t k_stride, int64_t head_size,
            int64_t keys, float* s, int64_t s_stride, ReadAhead* ahead) {
  int64_t key = 0;
  for (; key + Simd::kScoreKeys <= keys; key += Simd::kScoreKeys) {
    ahead->Step();
    ScoreTile<Lane, Simd::kScoreKeys, kVectors>(q, q_stride, k + key * k_stride, k_stride, head_size,
                                                s + key * s_stride, s_stride);
  }
  if (key < keys) {
    ScoreTileFor<Lane, kVectors>(keys - key, std::make_integer_sequence<int, Simd::kScoreKeys>())(
        q, q_stride, k + key * k_stride, k_stride, head_size, s + key * s_stride, s_stride);
  }
}

/// y[row][d] = W V, or y += W V, for up to kValueRows rows and all `vectors` vectors of d.
template <class Lane>
void Values(const float* w, int64_t w_stride, int64_t rows, const float* v, int64_t v_stride, int64_t keys,
            float* y, int64_t y_stride, int64_t vectors, bool adds, ReadAhead* ahead) {
  constexpr auto kAnyRows = std::make_integer_sequence<int, Simd::kValueRows>();
  const ValueFunction wide = ValueTileFor<Lane, Simd::kValueVectors>(rows, kAnyRows);
  int64_t c = 0;
  for (; c + Simd::kValueVectors <= vectors; c += Simd::kValueVectors) {
    ahead->Step();
    wide(w, w_stride, v + c * Simd::kLanes, v_stride, keys, y + c * Simd::kLanes, y_stride, adds);
  }
  for (; c < vectors; ++c) {
    ValueTileFor<Lane, 1>(rows, kAnyRows)(w, w_stride, v + c * Simd::kLanes, v_stride, keys,
                                          y + c * Simd::kLanes, y_stride, adds);
  }
}

}  // namespace
}  // namespace sigmoid_attention::cpu

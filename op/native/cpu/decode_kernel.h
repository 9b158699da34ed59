// A few rows against many keys, as in decoding: K and V are read once, in their own type and layout, by all
// the rows of all the query heads that share them. Scores are dot products; nothing is packed.
#pragma once

#include <cstring>

#include "op/native/cpu/kernels.h"
#include "op/native/cpu/mask.h"
#include "op/native/cpu/read_ahead.h"
#include "op/native/cpu/repeat.h"
#include "op/native/cpu/row_range.h"
#include "op/native/cpu/rows.h"
#include "op/native/cpu/sigmoid.h"

namespace sigmoid_attention::cpu {
namespace {

constexpr int64_t kDecodeKeys = 64;  // handled together, so that K and V of a block stay in L1 or L2
constexpr int64_t kKeysPerStep = 8;  // of values, between two portions of reading ahead

inline int64_t DecodeScratchFloats(const SaProblem& p, int64_t rows) {
  const int64_t d = RoundUp(p.head_size, 16), dv = RoundUp(p.value_head_size, 16);
  return rows * (d + dv + kDecodeKeys + 16) + kDecodeKeys;
}

template <class T>
class DecodeKernel {
 public:
  DecodeKernel(const Rectangle& rectangle, float* scratch)
      : at_(rectangle),
        p_(*rectangle.problem),
        rows_(rectangle.row_end - rectangle.row_begin),
        query_stride_(RoundUp(p_.head_size, 16)),
        value_stride_(RoundUp(p_.value_head_size, 16)),
        queries_(scratch),
        y_(queries_ + rows_ * query_stride_),
        weights_(y_ + rows_ * value_stride_),
        addends_(weights_ + rows_ * kDecodeKeys),
        sums_(addends_ + kDecodeKeys),
        sigmoid_(1, 0) {}

  void Run() {
    std::memset(y_, 0, static_cast<size_t>(rows_ * value_stride_) * sizeof(float));
    std::memset(weights_, 0, static_cast<size_t>(rows_ * kDecodeKeys) * sizeof(float));
    std::memset(sums_, 0, static_cast<size_t>(rows_) * sizeof(float));
    for (int64_t row = 0; row < rows_; ++row) {
      std::memset(queries_ + row * query_stride_, 0, static_cast<size_t>(query_stride_) * sizeof(float));
      CopyRow(QueryRow<T>(p_, at_.batch, Head(row), Position(row)), p_.head_size,
              queries_ + row * query_stride_);
    }
    const KeyRange seen = VisibleKeys(p_, at_.batch, 0, p_.query_length);
    const int64_t end = Min(seen.end, at_.key_end);
    for (int64_t key = Max(seen.begin, at_.key_begin); key < end;) {
      const RowSpan<T> k = KeyRows<T>(p_, at_.batch, at_.head, key);
      const RowSpan<T> v = ValueRows<T>(p_, at_.batch, at_.head, key);
      const int64_t count = Min(Min(kDecodeKeys, end - key), k.count);
      PlanAhead(key + count, end, count);
      bool excludes = false;
      Scores(k, count);
      for (int64_t row = 0; row < rows_; ++row) {
        excludes |= Weights(row, key, count, weights_ + row * kDecodeKeys);
      }
      if (excludes) {
        AddValuesOneByOne(v, count);
      } else {
        AddValues(v, count);
      }
      key += count;
    }
    Finish();
  }

 private:
  int64_t Head(int64_t row) const {
    return at_.head * (p_.query_heads / p_.kv_heads) + (at_.row_begin + row) / p_.query_length;
  }
  int64_t Position(int64_t row) const { return (at_.row_begin + row) % p_.query_length; }

  /// Reads ahead, during a block of `count` keys, the block from `key` on or the next rectangle's first.
  void PlanAhead(int64_t key, int64_t end, int64_t count) {
    ahead_.Clear();
    if (key < end) {
      PlanKeys(at_, key, Min(kDecodeKeys, end - key));
    } else if (at_.next) {
      const Rectangle& next = *at_.next;
      const KeyRange seen = VisibleKeys(p_, next.batch, 0, p_.query_length);
      const int64_t first = Max(seen.begin, next.key_begin);
      PlanKeys(next, first, Min(kDecodeKeys, Min(seen.end, next.key_end) - first));
    }
    constexpr int64_t kWidth = Simd::kDecodeVectors * Simd::kLanes;
    const int64_t passes = rows_ / Simd::kDecodeRows * CeilDiv(p_.value_head_size, kWidth) +
                           rows_ % Simd::kDecodeRows * CeilDiv(p_.value_head_size, 2 * kWidth);
    const int64_t score_steps = rows_ / Simd::kDecodeRows * CeilDiv(count * Simd::kDecodeRows, Simd::kLanes) +
                                rows_ % Simd::kDecodeRows * CeilDiv(count, Simd::kLanes);
    ahead_.Spread(score_steps + CeilDiv(count, kKeysPerStep) * passes);
  }

  void PlanKeys(const Rectangle& rectangle, int64_t key, int64_t count) {
    if (count <= 0) return;
    constexpr auto kBytes = static_cast<int64_t>(sizeof(T));
    const RowSpan<T> k = KeyRows<T>(p_, rectangle.batch, rectangle.head, key);
    const RowSpan<T> v = ValueRows<T>(p_, rectangle.batch, rectangle.head, key);
    ahead_.Plan(k.first, k.stride * kBytes, p_.head_size * kBytes, Min(count, k.count), false);
    ahead_.Plan(v.first, v.stride * kBytes, p_.value_head_size * kBytes, Min(count, v.count), false);
  }

  void Scores(const RowSpan<T>& k, int64_t count) {
    int64_t row = 0;
    for (; row + Simd::kDecodeRows <= rows_; row += Simd::kDecodeRows)
      ScoresOf<Simd::kDecodeRows>(k, count, row);
    for (; row < rows_; ++row) ScoresOf<1>(k, count, row);
  }

  /// Dot products of `kRows` queries with as many keys as make kLanes of them at a time.
  template <int kRows>
  void ScoresOf(const RowSpan<T>& k, int64_t count, int64_t row) {
    constexpr int kKeys = Simd::kLanes / kRows;
    const float* queries = queries_ + row * query_stride_;
    float* scores = weights_ + row * kDecodeKeys;
    for (int64_t key = 0; key < count; key += kKeys) {
      ahead_.Step();
      const T* keys = k.first + key * k.stride;
      const int64_t live = Min(kKeys, count - key);
      Simd::V product[kRows * kKeys];
      if (live == kKeys) {
        Products<kRows, kKeys>(keys, k.stride, queries, product);
      } else {
        Repeat<kKeys>([&](auto i) {
          if (i < live) {
            Products<kRows, 1>(keys + i * k.stride, k.stride, queries, product + i, kKeys);
          } else {
            Repeat<kRows>([&](auto r) { product[r * kKeys + i] = Simd::Zero(); });
          }
        });
      }
      float lanes[Simd::kLanes];
      Simd::Store(lanes, Simd::Sums(product));
      for (int r = 0; r < kRows; ++r) {
        std::memcpy(scores + r * kDecodeKeys + key, lanes + r * kKeys, kKeys * sizeof(float));
      }
    }
  }

  /// product[row * row_stride + key]: products of queries and keys, still spread over the lanes.
  template <int kRows, int kKeys>
  void Products(const T* k, int64_t stride, const float* queries, Simd::V* product,
                int row_stride = kKeys) const {
    using V = Simd::V;
    V sum[kRows][kKeys];
    Repeat<kRows>([&](auto row) { Repeat<kKeys>([&](auto key) { sum[row][key] = Simd::Zero(); }); });
    const auto add = [&](int64_t d, auto load) {
      V query[kRows];
      Repeat<kRows>([&](auto row) { query[row] = Simd::Load(queries + row * query_stride_ + d); });
      Repeat<kKeys>([&](auto key) {
        const V element = load(k + key * stride + d);
        Repeat<kRows>([&](auto row) { sum[row][key] = Simd::Fma(element, query[row], sum[row][key]); });
      });
    };
    int64_t d = 0;
    for (; d + Simd::kLanes <= p_.head_size; d += Simd::kLanes) {
      add(d, [](const T* from) { return Simd::Load(from); });
    }
    const int64_t left = p_.head_size - d;
    if (left > 0) add(d, [&](const T* from) { return Simd::LoadN(from, left); });
    Repeat<kRows>(
        [&](auto row) { Repeat<kKeys>([&](auto key) { product[row * row_stride + key] = sum[row][key]; }); });
  }

  /// Scores to weights in place; true when some weight is 0.
  bool Weights(int64_t row, int64_t first_key, int64_t count, float* weights) {
    using V = Simd::V;
    const int64_t head = Head(row), position = Position(row);
    const KeyRange seen = VisibleKeys(p_, at_.batch, position);
    const Mask mask(p_, at_.batch, head);
    if (mask.present()) mask.Row(position, first_key, count, addends_);
    const float scale = ScoreScale(p_, head);
    const V scales = Simd::Set1(p_.softcap > 0 ? scale / p_.softcap : scale), cap = Simd::Set1(p_.softcap);
    const V bias = Simd::Set1(UniformBias(p_, at_.batch, head) + RowBias(p_, at_.batch, position));
    const V slope = Simd::Set1(-AlibiSlope(p_, at_.batch, head));
    const V diagonal = Simd::Set1(static_cast<float>(position + RowOffset(p_, at_.batch) - first_key));
    const V begin = Simd::Set1(static_cast<float>(seen.begin - first_key));
    const V end = Simd::Set1(static_cast<float>(Min(seen.end - first_key, count)));
    V total = Simd::Zero();
    V least = Simd::Set1(1);
    for (int64_t key = 0; key < count; key += Simd::kLanes) {
      const V at = Simd::Add(Simd::Set1(static_cast<float>(key)), Simd::Iota());
      V x = Simd::Mul(Simd::Load(weights + key), scales);
      if (p_.softcap > 0) x = Simd::Mul(Tanh(x), cap);
      x = Simd::Add(Simd::Fma(slope, Simd::Abs(Simd::Sub(diagonal, at)), x), bias);
      V weight;
      if (mask.present()) {
        const V addend = Simd::Load(addends_ + key);
        weight = sigmoid_(x, addend);
        weight = Simd::Select(Simd::LessEqual(Simd::Set1(kInfinity), addend), Simd::Zero(), weight);
      } else {
        weight = sigmoid_(x);
      }
      weight = Simd::ZeroUnless(Simd::And(Simd::LessEqual(begin, at), Simd::Less(at, end)), weight);
      Simd::Store(weights + key, weight);
      total = Simd::Add(total, weight);
      least = Simd::Min(weight, least);
    }
    sums_[row] += Simd::Sum(total);
    return Simd::Any(Simd::LessEqual(least, Simd::Zero()));
  }

  void AddValues(const RowSpan<T>& v, int64_t count) {
    int64_t row = 0;
    for (; row + Simd::kDecodeRows <= rows_; row += Simd::kDecodeRows)
      AddValuesTo<Simd::kDecodeRows>(v, count, row);
    for (; row < rows_; ++row) AddValuesTo<1>(v, count, row);
  }

  template <int kRows>
  void AddValuesTo(const RowSpan<T>& v, int64_t count, int64_t row) {
    constexpr int kVectors = kRows == 1 ? 2 * Simd::kDecodeVectors : Simd::kDecodeVectors;
    constexpr int kWidth = kVectors * Simd::kLanes;
    int64_t d = 0;
    for (; d + kWidth <= p_.value_head_size; d += kWidth) AddValueColumns<kRows, kVectors>(v, count, row, d);
    for (; d < p_.value_head_size; d += Simd::kLanes) AddValueColumns<kRows, 1>(v, count, row, d);
  }

  template <int kRows, int kVectors>
  void AddValueColumns(const RowSpan<T>& v, int64_t count, int64_t first_row, int64_t d) {
    const float* weights = weights_ + first_row * kDecodeKeys;
    float* y = y_ + first_row * value_stride_ + d;
    const int64_t left = p_.value_head_size - d;
    Simd::V sum[kRows][kVectors];
    for (int row = 0; row < kRows; ++row) {
      for (int c = 0; c < kVectors; ++c) sum[row][c] = Simd::Zero();
    }
    for (int64_t key = 0; key < count; ++key) {
      if (key % kKeysPerStep == 0) ahead_.Step();
      const T* from = v.first + key * v.stride + d;
      Simd::V value[kVectors];
      if (kVectors == 1 && left < Simd::kLanes) {
        value[0] = Simd::LoadN(from, left);
      } else {
        for (int c = 0; c < kVectors; ++c) value[c] = Simd::Load(from + c * Simd::kLanes);
      }
      for (int row = 0; row < kRows; ++row) {
        const Simd::V weight = Simd::Set1(weights[row * kDecodeKeys + key]);
        for (int c = 0; c < kVectors; ++c) sum[row][c] = Simd::Fma(weight, value[c], sum[row][c]);
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int c = 0; c < kVectors; ++c) {
        float* to = y + row * value_stride_ + c * Simd::kLanes;
        Simd::Store(to, Simd::Add(Simd::Load(to), sum[row][c]));
      }
    }
  }

  /// As AddValues, leaving out the keys whose weight is 0: their values may be NaN or Inf.
  void AddValuesOneByOne(const RowSpan<T>& v, int64_t count) {
    for (int64_t key = 0; key < count; ++key) {
      const T* from = v.first + key * v.stride;
      for (int64_t row = 0; row < rows_; ++row) {
        const float weight = weights_[row * kDecodeKeys + key];
        if (weight == 0) continue;
        float* y = y_ + row * value_stride_;
        const Simd::V weights = Simd::Set1(weight);
        const int64_t size = p_.value_head_size;
        int64_t d = 0;
        for (; d + Simd::kLanes <= size; d += Simd::kLanes) {
          Simd::Store(y + d, Simd::Fma(weights, Simd::Load(from + d), Simd::Load(y + d)));
        }
        if (d < size)
          Simd::Store(y + d, Simd::Fma(weights, Simd::LoadN(from + d, size - d), Simd::Load(y + d)));
      }
    }
  }

  void Finish() {
    for (int64_t row = 0; row < rows_; ++row) {
      const float* y = y_ + row * value_stride_;
      if (at_.partial) {
        std::memcpy(at_.partial + row * p_.value_head_size, y,
                    static_cast<size_t>(p_.value_head_size) * sizeof(float));
        at_.partial_sums[row] = sums_[row];
      } else {
        WriteRow(y, RowFactor(p_.normalize ? sums_ + row : nullptr, HeadGain(p_, Head(row))),
                 p_.value_head_size, OutputRow<T>(p_, at_.batch, Head(row), Position(row)));
      }
    }
  }

  const Rectangle& at_;
  const SaProblem& p_;
  const int64_t rows_, query_stride_, value_stride_;
  float* const queries_;
  float* const y_;
  float* const weights_;  // [rows][kDecodeKeys]; scores before
  float* const addends_;
  float* const sums_;
  const SigmoidOf sigmoid_;
  ReadAhead ahead_;
};

template <class T>
void RunDecode(const Rectangle& rectangle, const Blocking&, float* scratch) {
  DecodeKernel<T>(rectangle, scratch).Run();
}

}  // namespace
}  // namespace sigmoid_attention::cpu

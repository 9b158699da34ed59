// Moving rows of Q, K and V between the caller's tensors and the kernel's float scratch.
#pragma once

#include "op/native/attention_problem.h"
#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

/// Consecutive key (or value) rows with one stride.
template <class T>
struct RowSpan {
  const T* first;
  int64_t stride;
  int64_t count;
};

/// Rows from `key` on, as far as they lie in one tensor: present, or past, or the new ones.
template <class T>
RowSpan<T> KeyRows(const SaProblem& p, int64_t batch, int64_t kv_head, int64_t key) {
  const int64_t dense = batch * p.kv_heads + kv_head;
  const int64_t size = p.head_size;
  if (p.present_key) {
    return {static_cast<const T*>(p.present_key) + (dense * p.key_length + key) * size, size,
            p.key_length - key};
  }
  if (key < p.past_length) {
    return {static_cast<const T*>(p.past_key) + (dense * p.past_length + key) * size, size,
            p.past_length - key};
  }
  const SaStrides& s = p.k_strides;
  return {static_cast<const T*>(p.k) + batch * s.batch + kv_head * s.head + (key - p.past_length) * s.row,
          s.row, p.key_length - key};
}

template <class T>
RowSpan<T> ValueRows(const SaProblem& p, int64_t batch, int64_t kv_head, int64_t key) {
  const int64_t dense = batch * p.kv_heads + kv_head;
  const int64_t size = p.value_head_size;
  if (p.present_value) {
    return {static_cast<const T*>(p.present_value) + (dense * p.key_length + key) * size, size,
            p.key_length - key};
  }
  if (key < p.past_length) {
    return {static_cast<const T*>(p.past_value) + (dense * p.past_length + key) * size, size,
            p.past_length - key};
  }
  const SaStrides& s = p.v_strides;
  return {static_cast<const T*>(p.v) + batch * s.batch + kv_head * s.head + (key - p.past_length) * s.row,
          s.row, p.key_length - key};
}

template <class T>
const T* QueryRow(const SaProblem& p, int64_t batch, int64_t query_head, int64_t row) {
  const SaStrides& s = p.q_strides;
  return static_cast<const T*>(p.q) + batch * s.batch + query_head * s.head + row * s.row;
}

template <class T>
T* OutputRow(const SaProblem& p, int64_t batch, int64_t query_head, int64_t row) {
  const SaStrides& s = p.y_strides;
  return static_cast<T*>(p.y) + batch * s.batch + query_head * s.head + row * s.row;
}

/// One row to float; fills up with zeros to a multiple of the vector length.
template <class T>
void CopyRow(const T* from, int64_t size, float* to) {
  int64_t d = 0;
  for (; d + Simd::kLanes <= size; d += Simd::kLanes) Simd::Store(to + d, Simd::Load(from + d));
  if (d < size) Simd::Store(to + d, Simd::LoadN(from + d, size - d));
}

template <class T>
void CopyRows(const RowSpan<T>& from, int64_t count, int64_t size, float* to, int64_t to_stride) {
  for (int64_t row = 0; row < count; ++row)
    CopyRow(from.first + row * from.stride, size, to + row * to_stride);
}

/// Transposes kLanes x kLanes elements to float: to[d][row] = from[row][d].
template <class T>
void TransposeTile(const T* from, int64_t from_stride, float* to, int64_t to_stride) {
  Simd::V tile[Simd::kLanes];
  for (int i = 0; i < Simd::kLanes; ++i) tile[i] = Simd::Load(from + i * from_stride);
  Simd::Transpose(tile);
  for (int i = 0; i < Simd::kLanes; ++i) Simd::Store(to + i * to_stride, tile[i]);
}

/// As TransposeTile for the first `rows` rows (the others count as 0) and the first `size` elements of each.
template <class T>
void TransposePart(const T* from, int64_t from_stride, int64_t rows, int64_t size, float* to,
                   int64_t to_stride) {
  for (int64_t d = 0; d < size; ++d) {
    for (int64_t row = 0; row < Simd::kLanes; ++row) {
      to[d * to_stride + row] = row < rows ? ToFloat(from[row * from_stride + d]) : 0;
    }
  }
}

/// to[d][row] = from[row][d] for `rows` rows; rows up to `width`, a multiple of the vector length, become 0.
template <class T>
void TransposeRows(const T* from, int64_t from_stride, int64_t rows, int64_t size, float* to, int64_t width) {
  constexpr int kLanes = Simd::kLanes;
  for (int64_t row = 0; row < width; row += kLanes) {
    const T* first = from + row * from_stride;
    for (int64_t d = 0; d < size; d += kLanes) {
      if (row + kLanes <= rows && d + kLanes <= size) {
        TransposeTile(first + d, from_stride, to + d * width + row, width);
      } else {
        TransposePart(first + d, from_stride, Max(0, rows - row), Min(kLanes, size - d), to + d * width + row,
                      width);
      }
    }
  }
}

template <class T>
bool IsFinite(const T* row, int64_t size) {
  const Simd::V largest = Simd::Set1(3.40282347e38f);
  int64_t d = 0;
  for (; d + Simd::kLanes <= size; d += Simd::kLanes) {
    if (!Simd::All(Simd::LessEqual(Simd::Abs(Simd::Load(row + d)), largest))) return false;
  }
  return d >= size || Simd::All(Simd::LessEqual(Simd::Abs(Simd::LoadN(row + d, size - d)), largest));
}

/// What turns a row's sum of W V into its output: gain / (sum of W, where given). A row without visible keys
/// is 0 and stays so.
inline float RowFactor(const float* weight_sum, float gain) {
  return weight_sum && *weight_sum != 0 ? gain / *weight_sum : gain;
}

/// A finished row, `values` times `factor`. Both may be the same memory.
template <class T>
void WriteRow(const float* values, float factor, int64_t size, T* to) {
  const Simd::V factors = Simd::Set1(factor);
  int64_t d = 0;
  for (; d + Simd::kLanes <= size; d += Simd::kLanes) {
    Simd::Store(to + d, Simd::Mul(Simd::Load(values + d), factors));
  }
  if (d < size) Simd::StoreN(to + d, Simd::Mul(Simd::Load(values + d), factors), size - d);
}

}  // namespace
}  // namespace sigmoid_attention::cpu

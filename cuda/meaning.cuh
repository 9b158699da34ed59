// What a problem means on the device: which keys a row sees, and the constants of a head and of a row.
// Every kernel takes them from here, so that they agree.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "op/native/attention_problem.h"

namespace sa {

template <class T>
__device__ __forceinline__ float to_float(T x) {
  return static_cast<float>(x);
}

template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (sizeof(T) == 4)
    return x;
  else if constexpr (std::is_same_v<T, __half>)
    return __float2half_rn(x);
  else
    return __float2bfloat16_rn(x);
}

// Element strides of one tensor's (batch, head) slice.
template <class T>
__device__ __forceinline__ T* slice(void* base, const SaStrides& strides, int64_t b, int64_t h) {
  return static_cast<T*>(base) + b * strides.batch + h * strides.head;
}
template <class T>
__device__ __forceinline__ const T* slice(const void* base, const SaStrides& strides, int64_t b, int64_t h) {
  return static_cast<const T*>(base) + b * strides.batch + h * strides.head;
}

// Keys of batch b that are not padding. A length outside 0..Nk is taken as the nearest legal one.
__device__ __forceinline__ int valid_keys(const SaProblem& p, int b) {
  if (p.nonpad_kv_seqlen == nullptr) return static_cast<int>(p.key_length);
  const int64_t n = p.nonpad_kv_seqlen[b];
  return static_cast<int>(n < 0 ? 0 : n > p.key_length ? p.key_length : n);
}

// The operator's offset: row i stands at key position i + offset.
__device__ __forceinline__ int position_offset(const SaProblem& p, int b) {
  const bool has_past = p.past_key != nullptr || p.past_length > 0;
  if (has_past || p.nonpad_kv_seqlen == nullptr) return static_cast<int>(p.row_offset);
  return static_cast<int>(p.nonpad_kv_seqlen[b] - p.query_length);
}

// Keys lo <= j < hi are all that one row may see under causal, window and padding; lo >= hi: none.
// Both bounds grow with the row.
struct KeyRange {
  int lo, hi;
  __device__ __forceinline__ int count() const { return hi > lo ? hi - lo : 0; }
};

__device__ __forceinline__ KeyRange key_range(const SaProblem& p, int valid, int position) {
  constexpr int64_t kFar = 1 << 30;  // a window wider than any tensor; keeps the arithmetic in 32 bits
  int lo = 0, hi = valid;
  if (p.is_causal) hi = min(hi, position + 1);
  if (p.right_window_size >= 0)
    hi = min(hi, position + 1 + static_cast<int>(min(int64_t{p.right_window_size}, kFar)));
  if (p.left_window_size >= 0)
    lo = max(lo, position - static_cast<int>(min(int64_t{p.left_window_size}, kFar)));
  return {min(lo, valid), max(hi, 0)};
}

// What is the same for all rows of head h in batch b.
struct HeadTerms {
  float scale;  // of the dot product
  float bias;   // all of it but the part that depends on the row
  float gain;
  float slope;  // ALiBi; 0 without
};

__device__ __forceinline__ HeadTerms head_terms(const SaProblem& p, int b, int h, int valid) {
  HeadTerms t;
  t.scale = p.scale * (p.head_scale ? p.head_scale[h] : 1.0f);
  t.bias = p.bias + (p.head_bias ? p.head_bias[b * p.head_bias_batch_stride + h] : 0.0f);
  if (p.bias_mode == SA_BIAS_NEG_LOG_TOTAL) t.bias -= logf(static_cast<float>(p.key_length));
  if (p.bias_mode == SA_BIAS_NEG_LOG_VALID) t.bias -= logf(static_cast<float>(max(valid, 1)));
  t.gain = p.head_gain ? p.head_gain[h] : 1.0f;
  t.slope = p.alibi_slopes ? p.alibi_slopes[b * p.alibi_batch_stride + h] : 0.0f;
  return t;
}

// The part of the bias that depends on the row.
__device__ __forceinline__ float row_bias(const SaProblem& p, KeyRange range) {
  return p.bias_mode == SA_BIAS_NEG_LOG_VISIBLE ? -logf(static_cast<float>(max(range.count(), 1))) : 0.0f;
}

// The addend of attn_mask; -inf where the key takes no part. T is the problem's type.
template <class T>
__device__ __forceinline__ float mask_addend(const SaProblem& p, int64_t index) {
  switch (p.mask_type) {
    case SA_MASK_BOOL:
      return static_cast<const unsigned char*>(p.mask)[index] ? 0.0f : -INFINITY;
    case SA_MASK_FLOAT:
      return static_cast<const float*>(p.mask)[index];
    case SA_MASK_T:
      return to_float(static_cast<const T*>(p.mask)[index]);
    default:
      return 0.0f;
  }
}

// Row j of the keys (or values) of one kv head: the past first, the new rows after it.
template <class T>
struct KeyRows {
  const T *past, *fresh;
  int64_t past_stride, fresh_stride;
  int past_length;

  __device__ __forceinline__ const T* row(int j) const {
    return j < past_length ? past + j * past_stride : fresh + (j - past_length) * fresh_stride;
  }
};

template <class T>
__device__ __forceinline__ KeyRows<T> key_rows(const SaProblem& p, int b, int kv_head) {
  const int64_t past = (b * p.kv_heads + kv_head) * p.past_length * p.head_size;
  return {static_cast<const T*>(p.past_key) + past, slice<T>(p.k, p.k_strides, b, kv_head), p.head_size,
          p.k_strides.row, static_cast<int>(p.past_length)};
}

template <class T>
__device__ __forceinline__ KeyRows<T> value_rows(const SaProblem& p, int b, int kv_head) {
  const int64_t past = (b * p.kv_heads + kv_head) * p.past_length * p.value_head_size;
  return {static_cast<const T*>(p.past_value) + past, slice<T>(p.v, p.v_strides, b, kv_head),
          p.value_head_size, p.v_strides.row, static_cast<int>(p.past_length)};
}

}  // namespace sa

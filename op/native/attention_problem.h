// One attention call, described in plain C: what the argument checker fills in and every kernel (CPU, CUDA)
// reads.
//
// Meaning, shapes and defaults are those of docs/operator.md. All checks have been made by the time a kernel
// sees a problem: kernels trust it. Strides count elements, not bytes; the innermost dimension of Q, K, V and
// Y is dense.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SA_FLOAT = 0, SA_FLOAT16 = 1, SA_BFLOAT16 = 2 } SaType;

typedef enum { SA_MASK_NONE = 0, SA_MASK_BOOL = 1, SA_MASK_FLOAT = 2, SA_MASK_T = 3 } SaMaskType;

typedef enum {
  SA_BIAS_NONE = 0,
  SA_BIAS_NEG_LOG_TOTAL = 1,    // -log(key_length)
  SA_BIAS_NEG_LOG_VALID = 2,    // -log(nonpad_kv_seqlen[b]), key_length without it
  SA_BIAS_NEG_LOG_VISIBLE = 3,  // -log(keys that the row may see under causal, window and nonpad)
} SaBiasMode;

typedef struct {
  int64_t batch, head, row;
} SaStrides;

typedef struct {
  SaType type;  // of q, k, v, past_*, present_*, y (and of the mask when mask_type is SA_MASK_T)
  int64_t batch, query_heads, kv_heads;
  int64_t query_length;
  int64_t key_length;   // total, the past included
  int64_t past_length;  // 0 without past_key
  int64_t head_size, value_head_size;

  const void *q, *k, *v;  // k and v hold key_length - past_length rows
  SaStrides q_strides, k_strides, v_strides;

  const void *past_key, *past_value;  // [B, Hkv, P, D] and [B, Hkv, P, Dv], dense; null only without a past
  void *present_key, *present_value;  // [B, Hkv, Nk, D] and [B, Hkv, Nk, Dv], dense; null when not asked for

  SaMaskType mask_type;
  const void* mask;
  int64_t mask_strides[4];  // of [B, Hq, Nq, Nk]; 0 where broadcast

  const int64_t* nonpad_kv_seqlen;  // [B] or null
  int64_t row_offset;  // the operator's offset; with nonpad_kv_seqlen and no past_key it is nonpad[b] - Nq
                       // instead

  const float* head_bias;          // null, or read at b * head_bias_batch_stride + h
  int64_t head_bias_batch_stride;  // 0 for [Hq], Hq for [B, Hq]
  const float* head_scale;         // null or [Hq]
  const float* head_gain;          // null or [Hq]
  const float* alibi_slopes;       // null, or read at b * alibi_batch_stride + h
  int64_t alibi_batch_stride;

  float scale, bias, softcap;  // softcap 0: none
  SaBiasMode bias_mode;
  int is_causal;
  int64_t left_window_size, right_window_size;  // -1: unbounded
  int normalize;

  void* y;
  SaStrides y_strides;
} SaProblem;

#ifdef __cplusplus
}  // extern "C"
#endif

// Which keys a query row may see under causal, window and nonpad_kv_seqlen, and the constants of a row.
#pragma once

#include <cmath>
#include <cstdint>

#include "op/native/attention_problem.h"
#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

/// Keys [begin, end); empty when begin == end.
struct KeyRange {
  int64_t begin, end;
};

inline int64_t RowOffset(const SaProblem& p, int64_t batch) {
  return p.nonpad_kv_seqlen && !p.past_key ? p.nonpad_kv_seqlen[batch] - p.query_length : p.row_offset;
}

inline KeyRange VisibleKeys(const SaProblem& p, int64_t batch, int64_t row) {
  const int64_t diagonal = row + RowOffset(p, batch);
  // A window wider than everything is unbounded; the cap keeps the sums below free of overflow.
  const int64_t widest = p.key_length + p.query_length;
  int64_t end = p.key_length;
  if (p.nonpad_kv_seqlen) end = Min(end, p.nonpad_kv_seqlen[batch]);
  if (p.is_causal) end = Min(end, diagonal + 1);
  if (p.right_window_size >= 0) end = Min(end, diagonal + Min(p.right_window_size, widest) + 1);
  int64_t begin = 0;
  if (p.left_window_size >= 0) begin = Max(begin, diagonal - Min(p.left_window_size, widest));
  end = Max(end, 0);
  begin = Min(begin, end);
  return {begin, end};
}

/// Holds every key that some row of [row_begin, row_end) may see: both ends of a row's range grow with the
/// row.
inline KeyRange VisibleKeys(const SaProblem& p, int64_t batch, int64_t row_begin, int64_t row_end) {
  return {VisibleKeys(p, batch, row_begin).begin, VisibleKeys(p, batch, row_end - 1).end};
}

/// Everything that is added to all scores of a head, except the row's own neg_log_visible.
inline float UniformBias(const SaProblem& p, int64_t batch, int64_t query_head) {
  double bias = p.bias;
  if (p.head_bias) bias += p.head_bias[batch * p.head_bias_batch_stride + query_head];
  if (p.bias_mode == SA_BIAS_NEG_LOG_TOTAL || (p.bias_mode == SA_BIAS_NEG_LOG_VALID && !p.nonpad_kv_seqlen)) {
    bias -= std::log(static_cast<double>(p.key_length));
  } else if (p.bias_mode == SA_BIAS_NEG_LOG_VALID) {
    bias -= std::log(static_cast<double>(p.nonpad_kv_seqlen[batch]));
  }
  return static_cast<float>(bias);
}

/// The neg_log_visible term of a row; 0 for a row that sees nothing.
inline float RowBias(const SaProblem& p, int64_t batch, int64_t row) {
  if (p.bias_mode != SA_BIAS_NEG_LOG_VISIBLE) return 0;
  const KeyRange range = VisibleKeys(p, batch, row);
  return range.end > range.begin ? static_cast<float>(-std::log(static_cast<double>(range.end - range.begin)))
                                 : 0;
}

inline float ScoreScale(const SaProblem& p, int64_t query_head) {
  return p.head_scale ? p.scale * p.head_scale[query_head] : p.scale;
}

inline float HeadGain(const SaProblem& p, int64_t query_head) {
  return p.head_gain ? p.head_gain[query_head] : 1;
}

inline float AlibiSlope(const SaProblem& p, int64_t batch, int64_t query_head) {
  return p.alibi_slopes ? p.alibi_slopes[batch * p.alibi_batch_stride + query_head] : 0;
}

}  // namespace
}  // namespace sigmoid_attention::cpu

#include "tests/native/reference.h"

#include <cmath>
#include <limits>

#include "op/native/cpu/element.h"

namespace sigmoid_attention::test {
namespace {

double Sigmoid(double x) {
  const double e = std::exp(-std::fabs(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

class Call {
 public:
  explicit Call(const SaProblem& p) : p_(p) {}

  void Row(int64_t b, int64_t h, int64_t i, double* y, double* tolerance) const {
    const int64_t kv_head = h / (p_.query_heads / p_.kv_heads);
    std::vector<double> weights(static_cast<size_t>(p_.key_length));
    double sum = 0;
    for (int64_t j = 0; j < p_.key_length; ++j) {
      if (!Visible(b, i, j) || MaskAddend(b, h, i, j) == -kInfinity) continue;
      weights[j] = Sigmoid(Score(b, h, i, j) + Addends(b, h, i, j));
      sum += weights[j];
    }
    const double factor = (p_.head_gain ? p_.head_gain[h] : 1.0) / (p_.normalize && sum != 0 ? sum : 1);
    for (int64_t d = 0; d < p_.value_head_size; ++d) {
      y[d] = 0;
      // Weights that float holds only as subnormals, divided by their sum, have lost their accuracy.
      tolerance[d] = p_.normalize && sum != 0 && sum < 1e-33 ? kInfinity : 0;
      for (int64_t j = 0; j < p_.key_length; ++j) {
        // A weight so small may be 0 in float, and then excludes the key: NaN and Inf may arrive or not.
        if (weights[j] < 1e-30 && !std::isfinite(Value(b, kv_head, j, d))) {
          tolerance[d] = kInfinity;
          continue;
        }
        const double product = factor * weights[j] * Value(b, kv_head, j, d);
        y[d] += product;
        tolerance[d] += std::fabs(product);
      }
    }
  }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  int64_t Diagonal(int64_t b, int64_t i) const {
    if (p_.past_key) return i + p_.past_length;
    return i + (p_.nonpad_kv_seqlen ? p_.nonpad_kv_seqlen[b] - p_.query_length : p_.row_offset);
  }

  bool Visible(int64_t b, int64_t i, int64_t j) const {
    const int64_t diagonal = Diagonal(b, i);
    if (p_.is_causal && j > diagonal) return false;
    if (p_.left_window_size >= 0 &&
        j < static_cast<double>(diagonal) - static_cast<double>(p_.left_window_size))
      return false;
    if (p_.right_window_size >= 0 && j > diagonal + p_.right_window_size) return false;
    return !p_.nonpad_kv_seqlen || j < p_.nonpad_kv_seqlen[b];
  }

  double MaskAddend(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (p_.mask_type == SA_MASK_NONE) return 0;
    const int64_t* s = p_.mask_strides;
    const int64_t at = b * s[0] + h * s[1] + i * s[2] + j * s[3];
    if (p_.mask_type == SA_MASK_BOOL) return static_cast<const uint8_t*>(p_.mask)[at] ? 0 : -kInfinity;
    return ReadElement(p_.mask, p_.mask_type == SA_MASK_FLOAT ? SA_FLOAT : p_.type, at);
  }

  double Addends(int64_t b, int64_t h, int64_t i, int64_t j) const {
    double sum = p_.bias + MaskAddend(b, h, i, j);
    if (p_.head_bias) sum += p_.head_bias[b * p_.head_bias_batch_stride + h];
    if (p_.alibi_slopes) {
      sum -=
          p_.alibi_slopes[b * p_.alibi_batch_stride + h] * std::fabs(static_cast<double>(Diagonal(b, i) - j));
    }
    double count = 1;
    if (p_.bias_mode == SA_BIAS_NEG_LOG_TOTAL) count = static_cast<double>(p_.key_length);
    if (p_.bias_mode == SA_BIAS_NEG_LOG_VALID) {
      count = static_cast<double>(p_.nonpad_kv_seqlen ? p_.nonpad_kv_seqlen[b] : p_.key_length);
    }
    if (p_.bias_mode == SA_BIAS_NEG_LOG_VISIBLE) {
      count = 0;
      for (int64_t k = 0; k < p_.key_length; ++k) count += Visible(b, i, k);
    }
    return sum - std::log(count);
  }

  double Score(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t kv_head = h / (p_.query_heads / p_.kv_heads);
    double product = 0;
    for (int64_t d = 0; d < p_.head_size; ++d) {
      const int64_t q = b * p_.q_strides.batch + h * p_.q_strides.head + i * p_.q_strides.row + d;
      product += ReadElement(p_.q, p_.type, q) * Key(b, kv_head, j, d);
    }
    const double score = p_.scale * (p_.head_scale ? static_cast<double>(p_.head_scale[h]) : 1) * product;
    return p_.softcap > 0 ? p_.softcap * std::tanh(score / p_.softcap) : score;
  }

  double Key(int64_t b, int64_t h, int64_t j, int64_t d) const {
    if (j < p_.past_length) {
      return ReadElement(p_.past_key, p_.type,
                         ((b * p_.kv_heads + h) * p_.past_length + j) * p_.head_size + d);
    }
    const SaStrides& s = p_.k_strides;
    return ReadElement(p_.k, p_.type, b * s.batch + h * s.head + (j - p_.past_length) * s.row + d);
  }

  double Value(int64_t b, int64_t h, int64_t j, int64_t d) const {
    if (j < p_.past_length) {
      const int64_t row = (b * p_.kv_heads + h) * p_.past_length + j;
      return ReadElement(p_.past_value, p_.type, row * p_.value_head_size + d);
    }
    const SaStrides& s = p_.v_strides;
    return ReadElement(p_.v, p_.type, b * s.batch + h * s.head + (j - p_.past_length) * s.row + d);
  }

  const SaProblem& p_;
};

}  // namespace

double ReadElement(const void* data, SaType type, int64_t index) {
  if (type == SA_FLOAT) return static_cast<const float*>(data)[index];
  if (type == SA_FLOAT16) return cpu::ToFloat(static_cast<const cpu::Half*>(data)[index]);
  return cpu::ToFloat(static_cast<const cpu::BFloat16*>(data)[index]);
}

Expected Reference(const SaProblem& p) {
  Expected expected;
  const int64_t rows = p.batch * p.query_heads * p.query_length;
  expected.y.resize(static_cast<size_t>(rows * p.value_head_size));
  expected.tolerance.resize(expected.y.size());
  const Call call(p);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t i = row % p.query_length, h = row / p.query_length % p.query_heads;
    call.Row(row / p.query_length / p.query_heads, h, i, expected.y.data() + row * p.value_head_size,
             expected.tolerance.data() + row * p.value_head_size);
  }
  return expected;
}

}  // namespace sigmoid_attention::test

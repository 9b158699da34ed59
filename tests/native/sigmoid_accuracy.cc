#include "tests/native/sigmoid_accuracy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "op/native/cpu/attention.h"
#include "tests/native/thread_pool.h"

namespace sigmoid_attention::test {

double WorstSigmoidError(double low, double high, double bias, double softcap) {
  // One key with value 1: each row's result is its weight. D = 1 and k = 1 make the score the query itself.
  constexpr int64_t kRows = 40000;
  std::vector<float> q(kRows), y(kRows);
  const float one = 1;
  for (int64_t i = 0; i < kRows; ++i) {
    q[i] = static_cast<float>(low + (high - low) * static_cast<double>(i) / (kRows - 1) - bias);
  }
  SaProblem p{};
  p.type = SA_FLOAT;
  p.batch = p.query_heads = p.kv_heads = p.key_length = p.head_size = p.value_head_size = 1;
  p.query_length = kRows;
  p.q = q.data();
  p.k = p.v = &one;
  p.y = y.data();
  p.q_strides = p.y_strides = {kRows, kRows, 1};
  p.k_strides = p.v_strides = {1, 1, 1};
  p.left_window_size = p.right_window_size = -1;
  p.scale = 1;
  p.bias = static_cast<float>(bias);
  p.softcap = static_cast<float>(softcap);
  Threads threads(1);
  cpu::Attention(p, threads);
  double worst = 0;
  for (int64_t i = 0; i < kRows; ++i) {
    const double score = softcap > 0 ? softcap * std::tanh(q[i] / softcap) : q[i];
    const double expected = 1 / (1 + std::exp(-(score + bias)));
    worst = std::max(worst, std::fabs(y[i] / expected - 1));
  }
  return worst;
}

}  // namespace sigmoid_attention::test

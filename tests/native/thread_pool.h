// Parallel for tests and timing: plain threads for each call.
#pragma once

#include <thread>
#include <vector>

#include "op/native/cpu/attention.h"

namespace sigmoid_attention::test {

class Threads : public cpu::Parallel {
 public:
  explicit Threads(int count) : count_(count) {}

  void For(int64_t count, const std::function<void(int64_t)>& body) override {
    std::vector<std::thread> threads;
    for (int64_t i = 1; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
    if (count > 0) body(0);
    for (std::thread& thread : threads) thread.join();
  }

  int threads() const override { return count_; }

 private:
  int count_;
};

}  // namespace sigmoid_attention::test

// Fetches into L2, in small portions between the register tiles, what the next key block or rectangle will
// read and write: without it the products wait for L3 or memory at each first touch.
#pragma once

#include "op/native/cpu/element.h"

namespace sigmoid_attention::cpu {
namespace {

class ReadAhead {
 public:
  /// Forgets what was planned.
  void Clear() { planned_ = current_ = 0; }

  /// Plans `rows` rows of `row_bytes`, `stride_bytes` apart.
  void Plan(const void* first, int64_t stride_bytes, int64_t row_bytes, int64_t rows, bool to_write) {
    if (rows <= 0 || row_bytes <= 0) return;
    if (stride_bytes == row_bytes) {
      row_bytes *= rows;
      rows = 1;
    }
    spans_[planned_++] = {static_cast<const char*>(first), stride_bytes, row_bytes, rows, to_write};
  }

  /// Divides the planned lines evenly over `steps` calls of Step.
  void Spread(int64_t steps) {
    int64_t lines = 0;
    for (int i = 0; i < planned_; ++i) lines += spans_[i].rows * CeilDiv(spans_[i].row_bytes, kLineBytes);
    lines_per_step_ = CeilDiv(lines, Max(1, steps));
    at_ = 0;
  }

  void Step() {
    int64_t left = lines_per_step_;
    while (left > 0 && current_ < planned_) {
      Span& span = spans_[current_];
      const int64_t end = Min(span.row_bytes, at_ + left * kLineBytes);
      left -= CeilDiv(end - at_, kLineBytes);
      for (; at_ < end; at_ += kLineBytes) Fetch(span.row + at_, span.to_write);
      if (at_ < span.row_bytes) return;
      at_ = 0;
      span.row += span.stride;
      if (--span.rows == 0) ++current_;
    }
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  struct Span {
    const char* row;
    int64_t stride, row_bytes, rows;
    bool to_write;
  };

  static void Fetch(const char* line, bool to_write) {
#if defined(_MSC_VER) && !defined(__clang__)
    static_cast<void>(line);  // without these builtins: nothing is lost but time
    static_cast<void>(to_write);
#else
    constexpr int kIntoL2 = 2;
    to_write ? __builtin_prefetch(line, 1, kIntoL2) : __builtin_prefetch(line, 0, kIntoL2);
#endif
  }

  Span spans_[4];  // Q, K, V and the output
  int planned_ = 0, current_ = 0;
  int64_t at_ = 0, lines_per_step_ = 0;
};

}  // namespace
}  // namespace sigmoid_attention::cpu

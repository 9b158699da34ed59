// The CPU kernel's entry: evaluates SigmoidAttention calls that the argument checker has described.
//
// Independent of ONNX Runtime: threads come in through `Parallel`, tensors through `SaProblem`.
#pragma once

#include <cstdint>
#include <functional>

#include "op/native/attention_problem.h"

namespace sigmoid_attention::cpu {

/// Where the kernel gets its threads: ONNX Runtime's pool in the operator, any other in tests.
class Parallel {
 public:
  virtual ~Parallel() = default;

  /// Calls `body(i)` once for every i in [0, count), in any order, on any thread; returns when all are done.
  /// `body` must not throw. The kernel schedules its own work: `count` is at most `threads()`, or small.
  virtual void For(int64_t count, const std::function<void(int64_t)>& body) = 0;

  /// Threads that `For` may use at once, the caller's own included: an upper estimate, at least 1.
  virtual int threads() const = 0;
};

/// Evaluates one call: fills `problem.y`, and `present_key` / `present_value` where they are not null.
///
/// Trusts the problem (it has been checked). Throws std::bad_alloc when scratch memory (below 1 MB a thread
/// for usual head sizes, whatever the lengths) cannot be had.
void Attention(const SaProblem& problem, Parallel& parallel);

/// "avx512bf16", "avx512", "avx2", "neon" or "portable": what `Attention` uses on this CPU.
///
/// The environment variable SIGMOID_ATTENTION_ISA names another one; a name that this CPU or build does not
/// have is ignored. Read once.
const char* IsaName();

}  // namespace sigmoid_attention::cpu

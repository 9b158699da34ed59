// docs/operator.md in double, one row at a time: what the kernels are compared with.
#pragma once

#include <vector>

#include "op/native/attention_problem.h"

namespace sigmoid_attention::test {

struct Expected {
  std::vector<double> y;          // [B, Hq, Nq, Dv], not rounded to the element type
  std::vector<double> tolerance;  // sum of |weight x value| of each element: what rounding errors scale with
};

Expected Reference(const SaProblem& problem);

/// Element `index` of an array of the given type.
double ReadElement(const void* data, SaType type, int64_t index);

}  // namespace sigmoid_attention::test

// SigmoidAttention as ONNX Runtime sees it: one OrtCustomOp for each type of Q and each device.
//
// Q's type selects the kernel; every other input is registered for any type, so that a wrong one is reported
// in our words instead of "no kernel found". Types of Q that no kernel takes are registered too, for the same
// reason.
#pragma once

#include "op/native/kernel.h"

namespace sigmoid_attention {

struct Operator : OrtCustomOp {
  // `provider` is ONNX Runtime's name of an execution provider; null is the CPU.
  // `device` is asked for when a session creates its first kernel, and may throw.
  Operator(ElementType q_type, const char* provider, Device& (*device)());

  ElementType q_type;
  const char* provider;
  Device& (*device)();
};

}  // namespace sigmoid_attention

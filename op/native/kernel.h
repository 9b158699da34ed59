// One node of a session: checks its arguments, describes the call as an SaProblem and hands it to a device.
#pragma once

#include <functional>
#include <string>

#include "op/native/arguments.h"
#include "op/native/ort_api.h"

namespace sigmoid_attention {

// What differs between devices.
class Device {
 public:
  virtual ~Device() = default;
  // Whether the kernel may read tensor contents on the host.
  virtual bool host_memory() const = 0;
  // Evaluates a checked problem; `q` is the tensor of Q, whose memory tells where the call's tensors live.
  virtual void Run(const SaProblem& problem, OrtKernelContext* context, const OrtValue* q) = 0;
};

class Kernel {
 public:
  // Checks all that is known of the node before it runs. Throws std::invalid_argument with the sentence.
  Kernel(const OrtKernelInfo* info, Device& device);

  void Compute(OrtKernelContext* context);

 private:
  Device& device_;
  Attributes attributes_;
};

}  // namespace sigmoid_attention

// Runs checked problems on the CPU kernel with ONNX Runtime's own threads.
#pragma once

#include "op/native/kernel.h"

namespace sigmoid_attention {

Device& CpuDevice();

}  // namespace sigmoid_attention

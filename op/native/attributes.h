// Reads the operator's attributes from a node.
#pragma once

#include "op/native/arguments.h"
#include "op/native/ort_api.h"

namespace sigmoid_attention {

// Throws std::invalid_argument with the sentence for an attribute of the wrong kind or value.
Attributes ReadAttributes(const OrtKernelInfo* info);

}  // namespace sigmoid_attention

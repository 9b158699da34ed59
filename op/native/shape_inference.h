// Shapes of Y, present_key and present_value from the input shapes a graph declares, symbolic dimensions
// included.
#pragma once

#include "op/native/ort_api.h"

namespace sigmoid_attention {

// Sets the output shapes that can be told. Checks nothing: ONNX Runtime ignores errors here, kernels report
// them.
void InferShapes(OrtShapeInferContext* context);

}  // namespace sigmoid_attention

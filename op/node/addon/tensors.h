// Tensors between JavaScript and ONNX Runtime.
//
// On the JavaScript side of the addon a tensor is { type: number, dims: number[], data: TypedArray | string[]
// }, with the numbers of TensorProto.DataType; op/node/tensors.ts makes them from onnxruntime-common's
// tensors.
#pragma once

#include <napi.h>

#include "op/node/addon/ort_runtime.h"

namespace sigmoid_attention::node {

// A view of the typed array's memory, which must stay alive with the value; strings are copied.
Owned<OrtValue> ToOrtValue(const Napi::Object& tensor);

// A copy, in fresh JavaScript memory. Throws for what is not a tensor of a type that Node's tensors know.
Napi::Object FromOrtValue(Napi::Env env, const OrtValue* value);

// A session's inputs or outputs as [{ name, isTensor, type, shape, symbolicDimensions }, ...].
Napi::Array DescribeInputs(Napi::Env env, const OrtSession* session);
Napi::Array DescribeOutputs(Napi::Env env, const OrtSession* session);

}  // namespace sigmoid_attention::node

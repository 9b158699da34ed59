// See kernel.h.
#include "op/native/kernel.h"

#include <algorithm>
#include <cstddef>

#include "op/native/attributes.h"

namespace sigmoid_attention {
namespace {

std::string NodeName(const OrtKernelInfo* info) {
  size_t size = 0;
  if (!Succeeded(ort_api->KernelInfo_GetNodeName(info, nullptr, &size)) || size < 2) return "";
  std::string name(size, '\0');
  if (!Succeeded(ort_api->KernelInfo_GetNodeName(info, name.data(), &size))) return "";
  name.resize(size - 1);
  return name;
}

// Inputs as the graph declares them. An absent one has no type.
Inputs DeclaredInputs(const OrtKernelInfo* info) {
  Inputs inputs;
  size_t count = 0;
  ThrowOnError(ort_api->KernelInfo_GetInputCount(info, &count));
  for (size_t i = 0; i < std::min<size_t>(count, kInputCount); ++i) {
    OrtTypeInfo* type_info = nullptr;
    if (!Succeeded(ort_api->KernelInfo_GetInputTypeInfo(info, i, &type_info))) continue;
    const TypeInfoPtr owner(type_info);
    const OrtTensorTypeAndShapeInfo* tensor_info = nullptr;
    if (!Succeeded(ort_api->CastTypeInfoToTensorInfo(type_info, &tensor_info)) || tensor_info == nullptr)
      continue;
    inputs[i] = Describe(tensor_info, /*rank_zero_is_unknown=*/true);
  }
  return inputs;
}

void ThrowIfWrong(const std::string& error) {
  if (!error.empty()) throw std::invalid_argument("SigmoidAttention: " + error);
}

// Null for an absent tensor only: an empty one may have no memory, but its presence still means something.
template <typename T>
T* Data(const OrtValue* value) {
  if (value == nullptr) return nullptr;
  static std::max_align_t nothing{};
  void* data = nullptr;
  ThrowOnError(ort_api->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  return static_cast<T*>(data == nullptr ? &nothing : data);
}

void* CreateOutput(OrtKernelContext* context, size_t output, const Dimensions& dimensions) {
  const Shape shape = OutputShape(output, dimensions);
  OrtValue* value = nullptr;
  ThrowOnError(ort_api->KernelContext_GetOutput(context, output, shape.dims.data(), shape.rank, &value));
  return Data<void>(value);
}

}  // namespace

Kernel::Kernel(const OrtKernelInfo* info, Device& device) : device_(device) {
  try {
    attributes_ = ReadAttributes(info);
    const Inputs inputs = DeclaredInputs(info);
    Dimensions dimensions;
    std::string error = CheckTypes(inputs);
    if (error.empty()) error = CheckShapes(attributes_, inputs, &dimensions);
    if (!error.empty()) throw std::invalid_argument(error);
  } catch (const std::invalid_argument& error) {
    const std::string name = NodeName(info);
    const std::string node = name.empty() ? "" : " node '" + name + "'";
    throw std::invalid_argument("SigmoidAttention" + node + ": " + error.what());
  }
}

void Kernel::Compute(OrtKernelContext* context) {
  Inputs inputs;
  std::array<const OrtValue*, kInputCount> values{};
  size_t count = 0;
  ThrowOnError(ort_api->KernelContext_GetInputCount(context, &count));
  for (size_t i = 0; i < std::min<size_t>(count, kInputCount); ++i) {
    ThrowOnError(ort_api->KernelContext_GetInput(context, i, &values[i]));
    if (values[i] == nullptr) continue;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    ThrowOnError(ort_api->GetTensorTypeAndShape(values[i], &info));
    const TensorInfoPtr owner(info);
    inputs[i] = Describe(info, /*rank_zero_is_unknown=*/false);
  }
  Dimensions dimensions;
  ThrowIfWrong(CheckTypes(inputs));
  ThrowIfWrong(CheckShapes(attributes_, inputs, &dimensions));
  const int64_t* nonpad = Data<const int64_t>(values[kNonpadKvSeqlen]);
  if (nonpad != nullptr && device_.host_memory()) ThrowIfWrong(CheckNonpad(nonpad, dimensions));

  SaProblem problem = MakeProblem(attributes_, inputs, dimensions);
  problem.q = Data<void>(values[kQ]);
  problem.k = Data<void>(values[kK]);
  problem.v = Data<void>(values[kV]);
  problem.mask = Data<void>(values[kAttnMask]);
  problem.past_key = Data<void>(values[kPastKey]);
  problem.past_value = Data<void>(values[kPastValue]);
  problem.nonpad_kv_seqlen = nonpad;
  problem.head_bias = Data<float>(values[kHeadBias]);
  problem.head_scale = Data<float>(values[kHeadScale]);
  problem.head_gain = Data<float>(values[kHeadGain]);
  problem.alibi_slopes = Data<float>(values[kAlibiSlopes]);

  size_t outputs = 0;
  ThrowOnError(ort_api->KernelContext_GetOutputCount(context, &outputs));
  problem.y = CreateOutput(context, kY, dimensions);
  if (outputs > kPresentKey) problem.present_key = CreateOutput(context, kPresentKey, dimensions);
  if (outputs > kPresentValue) problem.present_value = CreateOutput(context, kPresentValue, dimensions);
  device_.Run(problem, context, values[kQ]);
}

}  // namespace sigmoid_attention

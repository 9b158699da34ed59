// See operator.h.
#include "op/native/operator.h"

#include "op/native/shape_inference.h"

namespace sigmoid_attention {
namespace {

const Operator& Self(const OrtCustomOp* op) {
  return *static_cast<const Operator*>(op);
}

OrtStatus* MakeKernel(const OrtCustomOp* op, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
  return Guard([&] { *kernel = std::make_unique<Kernel>(info, Self(op).device()).release(); });
}

OrtStatus* RunKernel(void* kernel, OrtKernelContext* context) {
  return Guard([&] { static_cast<Kernel*>(kernel)->Compute(context); });
}

void DestroyKernel(void* kernel) {
  std::unique_ptr<Kernel>(static_cast<Kernel*>(kernel));
}

ONNXTensorElementDataType InputType(const OrtCustomOp* op, size_t index) {
  return index == kQ ? static_cast<ONNXTensorElementDataType>(Self(op).q_type)
                     : ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

ONNXTensorElementDataType OutputType(const OrtCustomOp* op, size_t) {
  return static_cast<ONNXTensorElementDataType>(Self(op).q_type);
}

OrtCustomOpInputOutputCharacteristic InputCharacteristic(const OrtCustomOp*, size_t index) {
  return index <= kV ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

OrtCustomOpInputOutputCharacteristic OutputCharacteristic(const OrtCustomOp*, size_t index) {
  return index == kY ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
}

}  // namespace

Operator::Operator(ElementType q_type_, const char* provider_, Device& (*device_)())
    : OrtCustomOp{}, q_type(q_type_), provider(provider_), device(device_) {
  version = kOrtApiVersion;
  GetName = [](const OrtCustomOp*) { return "SigmoidAttention"; };
  GetExecutionProviderType = [](const OrtCustomOp* op) { return Self(op).provider; };
  GetInputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kInputCount); };
  GetInputType = InputType;
  GetInputCharacteristic = InputCharacteristic;
  GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  GetOutputTypeCount = [](const OrtCustomOp*) { return static_cast<size_t>(kOutputCount); };
  GetOutputType = OutputType;
  GetOutputCharacteristic = OutputCharacteristic;
  GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  CreateKernelV2 = MakeKernel;
  KernelComputeV2 = RunKernel;
  KernelDestroy = DestroyKernel;
  InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
    return Guard([&] { InferShapes(context); });
  };
  GetStartVersion = [](const OrtCustomOp*) { return 1; };
  GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
}

}  // namespace sigmoid_attention

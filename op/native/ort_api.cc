// See ort_api.h.
#include "op/native/ort_api.h"

#include <algorithm>
#include <vector>

namespace sigmoid_attention {

void ThrowOnError(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = ort_api->GetErrorMessage(status);
  ort_api->ReleaseStatus(status);
  throw std::runtime_error(message);
}

bool Succeeded(OrtStatus* status) {
  if (status == nullptr) return true;
  ort_api->ReleaseStatus(status);
  return false;
}

OrtStatus* MakeStatus(OrtErrorCode code, const std::string& message) {
  return ort_api->CreateStatus(code, message.c_str());
}

InputDescription Describe(const OrtTensorTypeAndShapeInfo* info, bool rank_zero_is_unknown) {
  InputDescription input;
  input.present = true;
  ONNXTensorElementDataType type;
  ThrowOnError(ort_api->GetTensorElementType(info, &type));
  input.type = static_cast<ElementType>(type);
  size_t rank = 0;
  ThrowOnError(ort_api->GetDimensionsCount(info, &rank));
  input.shape.rank = rank;
  input.shape.known = rank > 0 || !rank_zero_is_unknown;
  if (rank <= Shape::kMaxRank) {
    ThrowOnError(ort_api->GetDimensions(info, input.shape.dims.data(), rank));
  } else {
    std::vector<int64_t> dims(rank);
    ThrowOnError(ort_api->GetDimensions(info, dims.data(), rank));
    std::copy_n(dims.begin(), Shape::kMaxRank, input.shape.dims.begin());
  }
  for (int64_t& dim : input.shape.dims) {
    if (dim < 0) dim = kUnknownDim;
  }
  return input;
}

}  // namespace sigmoid_attention

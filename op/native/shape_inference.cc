// A symbolic dimension keeps its name, and sums and products of named dimensions get a name made from theirs
// ("past + length"): within a graph equal names mean equal sizes. An output with a dimension that has neither
// size nor name gets no shape at all, because ONNX Runtime offers no way to say "some size" here.
#include "op/native/shape_inference.h"

#include <limits>
#include <optional>
#include <vector>

namespace sigmoid_attention {
namespace {

struct Extent {
  int64_t size = kUnknownDim;
  std::string name;  // of an unknown size; empty when it has none

  bool known() const { return size != kUnknownDim; }
  bool told() const { return known() || !name.empty(); }
};

using Extents = std::vector<Extent>;  // empty: unknown rank

Extent Known(int64_t size) {
  return {size, ""};
}

std::string Text(const Extent& extent) {
  return extent.known() ? std::to_string(extent.size) : extent.name;
}

Extent Sum(const Extent& a, const Extent& b) {
  if (a.known() && a.size == 0) return b;
  if (b.known() && b.size == 0) return a;
  if (a.known() && b.known()) {
    return a.size > std::numeric_limits<int64_t>::max() - b.size ? Extent() : Known(a.size + b.size);
  }
  if (!a.told() || !b.told()) return {};
  return {kUnknownDim, Text(a) + " + " + Text(b)};
}

// extent / divisor * factor, as one row of divisor heads becomes one of factor heads
Extent Rescale(const Extent& extent, int64_t divisor, int64_t factor) {
  if (divisor == factor) return extent;
  if (divisor <= 0 || factor <= 0 || !extent.told()) return {};
  if (extent.known()) {
    const int64_t share = extent.size / divisor;
    const bool fits = extent.size % divisor == 0 && share <= std::numeric_limits<int64_t>::max() / factor;
    return fits ? Known(share * factor) : Extent();
  }
  return {kUnknownDim, extent.name + " / " + std::to_string(divisor) + " * " + std::to_string(factor)};
}

// Belongs to the context; null for an input that the node does not have.
const OrtTensorTypeAndShapeInfo* InputInfo(const OrtShapeInferContext* context, size_t index) {
  size_t count = 0;
  ThrowOnError(ort_api->ShapeInferContext_GetInputCount(context, &count));
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (index >= count || !Succeeded(ort_api->ShapeInferContext_GetInputTypeShape(context, index, &info)))
    return nullptr;
  return info;
}

Extents InputExtents(const OrtShapeInferContext* context, size_t index) {
  const OrtTensorTypeAndShapeInfo* info = InputInfo(context, index);
  if (info == nullptr) return {};
  const InputDescription input = Describe(info, /*rank_zero_is_unknown=*/true);
  if (!input.shape.known || input.shape.rank > Shape::kMaxRank) return {};
  std::vector<const char*> names(input.shape.rank);
  ThrowOnError(ort_api->GetSymbolicDimensions(info, names.data(), names.size()));
  Extents extents(input.shape.rank);
  for (size_t i = 0; i < extents.size(); ++i) {
    extents[i].size = input.shape.dims[i];
    if (!extents[i].known() && names[i] != nullptr) extents[i].name = names[i];
  }
  return extents;
}

std::optional<int64_t> IntAttribute(const OrtShapeInferContext* context, const char* name) {
  const OrtOpAttr* attribute = nullptr;
  if (!Succeeded(ort_api->ShapeInferContext_GetAttribute(context, name, &attribute))) return std::nullopt;
  int64_t value = 0;
  size_t size = 0;
  if (!Succeeded(ort_api->ReadOpAttr(attribute, ORT_OP_ATTR_INT, &value, sizeof value, &size)))
    return std::nullopt;
  return value;
}

// Older runtimes have no way to ask whether a node has an output, and abort when given the shape of one it
// has not.
constexpr int kOptionalOutputsSinceMinorVersion = 29;

void SetOutput(const OrtShapeInferContext* context, size_t index, const Extents& extents) {
  if (index != kY && ort_minor_version < kOptionalOutputsSinceMinorVersion) return;
  std::vector<int64_t> sizes;
  std::vector<const char*> names;
  for (const Extent& extent : extents) {
    if (!extent.told()) return;
    sizes.push_back(extent.size);
    names.push_back(extent.name.c_str());
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  ThrowOnError(ort_api->CreateTensorTypeAndShapeInfo(&info));
  const TensorInfoPtr owner(info);
  // Newer runtimes take the type from here too, older ones only the shape.
  ONNXTensorElementDataType type;
  ThrowOnError(ort_api->GetTensorElementType(InputInfo(context, kQ), &type));
  ThrowOnError(ort_api->SetTensorElementType(info, type));
  ThrowOnError(ort_api->SetDimensions(info, sizes.data(), sizes.size()));
  ThrowOnError(ort_api->SetSymbolicDimensions(info, names.data(), names.size()));
  // Fails for an output that the node does not have.
  Succeeded(ort_api->ShapeInferContext_SetOutputTypeShape(context, index, info));
}

// The key length with the past: `length` is that of K.
Extent KeyLength(const OrtShapeInferContext* context, const Extent& length) {
  if (InputInfo(context, kPastKey) == nullptr) return length;
  const Extents past = InputExtents(context, kPastKey);
  return past.size() == 4 ? Sum(past[2], length) : Extent();
}

}  // namespace

void InferShapes(OrtShapeInferContext* context) {
  const Extents q = InputExtents(context, kQ), k = InputExtents(context, kK), v = InputExtents(context, kV);
  if (q.size() == 4 && k.size() == 4 && v.size() == 4) {
    const Extent keys = KeyLength(context, k[2]);
    SetOutput(context, kY, {q[0], q[1], q[2], v[3]});
    SetOutput(context, kPresentKey, {k[0], k[1], keys, k[3]});
    SetOutput(context, kPresentValue, {v[0], v[1], keys, v[3]});
  } else if (q.size() == 3 && k.size() == 3 && v.size() == 3) {
    const int64_t q_heads = IntAttribute(context, "q_num_heads").value_or(0);
    const int64_t kv_heads = IntAttribute(context, "kv_num_heads").value_or(0);
    if (q_heads <= 0 || kv_heads <= 0) return;
    const Extent keys = KeyLength(context, k[1]);
    SetOutput(context, kY, {q[0], q[1], Rescale(v[2], kv_heads, q_heads)});
    SetOutput(context, kPresentKey, {k[0], Known(kv_heads), keys, Rescale(k[2], kv_heads, 1)});
    SetOutput(context, kPresentValue, {v[0], Known(kv_heads), keys, Rescale(v[2], kv_heads, 1)});
  }
}

}  // namespace sigmoid_attention

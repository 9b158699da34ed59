// Checks the arguments of one SigmoidAttention call against docs/operator.md and turns them into an
// SaProblem.
//
// Knows nothing of ONNX Runtime: shapes, types and attributes in, an error sentence or a problem out. The CPU
// kernel, the CUDA kernel and session creation (where some dimensions are still unknown) share it.
// docs/errors.md lists every sentence.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "attention_problem.h"

namespace sigmoid_attention {

// The operator's inputs, in their order.
enum Input : size_t {
  kQ,
  kK,
  kV,
  kAttnMask,
  kPastKey,
  kPastValue,
  kNonpadKvSeqlen,
  kHeadBias,
  kHeadScale,
  kHeadGain,
  kAlibiSlopes,
  kInputCount,
};
const char* InputName(size_t input);

enum Output : size_t { kY, kPresentKey, kPresentValue, kOutputCount };

// The numbers are those of TensorProto.DataType, which ONNXTensorElementDataType shares.
enum class ElementType : int {
  kUnknown = 0,
  kFloat = 1,
  kInt64 = 7,
  kBool = 9,
  kFloat16 = 10,
  kBFloat16 = 16
};
// ONNX's name of a type ("float", "bfloat16", ...), also of those the operator never takes.
std::string TypeName(ElementType type);

constexpr int64_t kUnknownDim = -1;

// A shape as far as it is known. Dimensions past kMaxRank are not kept: no input may have that many.
struct Shape {
  static constexpr size_t kMaxRank = 8;
  bool known = false;  // whether rank and dims mean anything
  size_t rank = 0;
  std::array<int64_t, kMaxRank> dims{};
};

struct InputDescription {
  bool present = false;
  ElementType type = ElementType::kUnknown;
  Shape shape;
};
using Inputs = std::array<InputDescription, kInputCount>;

// As they stand on the node. Absent ones have their defaults (scale: nothing, as its default depends on D).
struct Attributes {
  std::optional<float> scale;
  float bias = 0;
  std::string bias_mode = "none";
  int64_t is_causal = 0;
  int64_t left_window_size = -1, right_window_size = -1;
  float softcap = 0;
  int64_t normalize = 0;
  std::optional<int64_t> q_num_heads, kv_num_heads;
};

// What the shapes say together; kUnknownDim where they do not say.
struct Dimensions {
  SaType type = SA_FLOAT;
  size_t q_rank = 0;  // 0: unknown
  int64_t batch = kUnknownDim, query_heads = kUnknownDim, kv_heads = kUnknownDim;
  int64_t query_length = kUnknownDim, new_key_length = kUnknownDim, past_length = kUnknownDim;
  int64_t key_length = kUnknownDim;
  int64_t head_size = kUnknownDim, value_head_size = kUnknownDim;
};

// Each returns an empty string, or the one sentence that says what is wrong. Never throws on bad values.
std::string CheckAttributes(const Attributes& attributes);
std::string CheckTypes(const Inputs& inputs);
// Fills in `dimensions` as far as it gets. Needs attributes and types that passed their checks.
std::string CheckShapes(const Attributes& attributes, const Inputs& inputs, Dimensions* dimensions);
// Values of nonpad_kv_seqlen; the one input whose values are constrained.
std::string CheckNonpad(const int64_t* nonpad_kv_seqlen, const Dimensions& dimensions);

// Shapes of the outputs for completely known dimensions.
Shape OutputShape(size_t output, const Dimensions& dimensions);

// A problem without data pointers. Every dimension must be known and every check passed.
SaProblem MakeProblem(const Attributes& attributes, const Inputs& inputs, const Dimensions& dimensions);

}  // namespace sigmoid_attention

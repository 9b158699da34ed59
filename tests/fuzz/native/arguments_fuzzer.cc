// libFuzzer target for the argument checks (op/native/arguments.h): arbitrary attributes, types and shapes.
//
// Beyond "no crash" it holds them to what their header promises: an error is one sentence; a call whose
// dimensions are all known and pass has outputs and strides that stay within its tensors; and forgetting
// dimensions never turns a call that passes into one that fails.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "op/native/arguments.h"

namespace {

using namespace sigmoid_attention;

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }

  int64_t Word() {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word = word << 8 | Byte();
    return static_cast<int64_t>(word);
  }

  // A dimension as Describe (op/native/ort_api.cc) hands it over: every negative one is "unknown".
  int64_t Dim() {
    const int64_t dim = Number();
    return dim < 0 ? kUnknownDim : dim;
  }

  // Mostly numbers at which something changes, so that related dimensions often agree.
  int64_t Number() {
    static constexpr int64_t kNumbers[] = {-1,
                                           0,
                                           1,
                                           2,
                                           3,
                                           4,
                                           6,
                                           8,
                                           12,
                                           64,
                                           -2,
                                           -5,
                                           1LL << 31,
                                           1LL << 32,
                                           1LL << 60,
                                           1LL << 61,
                                           1LL << 62,
                                           std::numeric_limits<int64_t>::max(),
                                           1LL << 20,
                                           (1LL << 31) - 1,
                                           std::numeric_limits<int64_t>::min()};
    constexpr size_t kCount = sizeof kNumbers / sizeof *kNumbers;
    const uint8_t choice = Byte();
    return choice < 8 * kCount ? kNumbers[choice % kCount] : Word();
  }

  float Float() {
    const auto word = static_cast<uint32_t>(Word());
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

[[noreturn]] void Fail(const char* what, const std::string& detail) {
  std::fprintf(stderr, "property violated: %s: %s\n", what, detail.c_str());
  std::abort();
}

void ExpectSentence(const std::string& error) {
  if (!error.empty() && error.back() != '.') Fail("an error is one sentence", error);
}

Attributes ReadAttributes(Bytes& bytes) {
  static const char* const kModes[] = {"none", "neg_log_total", "neg_log_valid", "neg_log_visible", "", "x"};
  Attributes a;
  const uint8_t given = bytes.Byte();
  if (given & 1) a.scale = bytes.Float();
  if (given & 2) a.bias = bytes.Float();
  if (given & 4) a.softcap = bytes.Float();
  if (given & 8) a.q_num_heads = bytes.Number();
  if (given & 16) a.kv_num_heads = bytes.Number();
  a.bias_mode = kModes[bytes.Byte() % 6];
  if (given & 32) a.is_causal = bytes.Number();
  if (given & 64) a.normalize = bytes.Number();
  if (given & 128) a.left_window_size = bytes.Number(), a.right_window_size = bytes.Number();
  return a;
}

Inputs ReadInputs(Bytes& bytes) {
  Inputs inputs;
  const unsigned present = 7u | bytes.Byte() << 3;
  const auto t = static_cast<ElementType>(bytes.Byte() % 4 == 3 ? 16 : bytes.Byte() % 2 ? 10 : 1);
  const int64_t sizes[4] = {bytes.Dim(), bytes.Dim(), bytes.Dim(), bytes.Dim()};
  for (size_t i = 0; i < kInputCount; ++i) {
    InputDescription& input = inputs[i];
    input.present = present >> i & 1;
    if (!input.present) continue;
    const uint8_t kind = bytes.Byte();
    const bool is_t = i < kNonpadKvSeqlen;
    input.type = kind % 32 == 0         ? static_cast<ElementType>(bytes.Byte() % 24)
                 : is_t                 ? t
                 : i == kNonpadKvSeqlen ? ElementType::kInt64
                                        : ElementType::kFloat;
    input.shape.known = kind % 16 != 1;
    if (!input.shape.known) continue;
    input.shape.rank = kind < 128 ? (is_t ? 4u : 1u) : bytes.Byte() % 11;
    for (size_t d = 0; d < input.shape.rank && d < Shape::kMaxRank; ++d) {
      const uint8_t choice = bytes.Byte();
      input.shape.dims[d] = choice < 128   ? sizes[is_t ? d % 4 : 1]
                            : choice < 192 ? sizes[choice % 4]
                                           : bytes.Dim();
    }
  }
  return inputs;
}

std::string Check(const Attributes& attributes, const Inputs& inputs, Dimensions* dimensions) {
  std::string error = CheckAttributes(attributes);
  if (error.empty()) error = CheckTypes(inputs);
  if (error.empty()) error = CheckShapes(attributes, inputs, dimensions);
  ExpectSentence(error);
  return error;
}

bool AllKnown(const Inputs& inputs) {
  for (const InputDescription& input : inputs) {
    if (!input.present) continue;
    if (!input.shape.known || input.shape.rank > Shape::kMaxRank) return false;
    for (size_t d = 0; d < input.shape.rank; ++d) {
      if (input.shape.dims[d] < 0) return false;
    }
  }
  return true;
}

// Elements that the dimensions and strides address: one past the last, 0 for an empty tensor.
__int128 Reach(std::initializer_list<std::array<int64_t, 2>> extents) {
  __int128 last = 0;
  for (const auto& [dim, stride] : extents) {
    if (dim == 0) return 0;
    if (dim < 0 || stride < 0) Fail("dimensions and strides are not negative", std::to_string(dim));
    last += static_cast<__int128>(dim - 1) * stride;
  }
  return last + 1;
}

__int128 Count(const Shape& shape) {
  __int128 count = 1;
  for (size_t d = 0; d < shape.rank; ++d) {
    if (shape.dims[d] < 0) Fail("an output has no negative dimension", std::to_string(shape.dims[d]));
    count *= shape.dims[d];
    if (count > std::numeric_limits<int64_t>::max()) Fail("sizes fit", std::to_string(shape.dims[d]));
  }
  return count;
}

void ExpectWithin(const char* name, __int128 reach, __int128 count) {
  if (reach > count) Fail("strides stay within the tensor", name);
}

void CheckProblem(const Attributes& attributes, const Inputs& inputs, const Dimensions& d) {
  const SaProblem p = MakeProblem(attributes, inputs, d);
  const int64_t new_keys = p.key_length - p.past_length;
  const auto rows = [](int64_t batch, int64_t heads, int64_t length, int64_t size, const SaStrides& s) {
    return Reach({{batch, s.batch}, {heads, s.head}, {length, s.row}, {size, 1}});
  };
  ExpectWithin("Q", rows(p.batch, p.query_heads, p.query_length, p.head_size, p.q_strides),
               Count(inputs[kQ].shape));
  ExpectWithin("K", rows(p.batch, p.kv_heads, new_keys, p.head_size, p.k_strides), Count(inputs[kK].shape));
  ExpectWithin("V", rows(p.batch, p.kv_heads, new_keys, p.value_head_size, p.v_strides),
               Count(inputs[kV].shape));
  ExpectWithin("Y", rows(p.batch, p.query_heads, p.query_length, p.value_head_size, p.y_strides),
               Count(OutputShape(kY, d)));
  Count(OutputShape(kPresentKey, d));
  Count(OutputShape(kPresentValue, d));
  if (inputs[kAttnMask].present) {
    ExpectWithin("attn_mask",
                 Reach({{p.batch, p.mask_strides[0]},
                        {p.query_heads, p.mask_strides[1]},
                        {p.query_length, p.mask_strides[2]},
                        {p.key_length, p.mask_strides[3]}}),
                 Count(inputs[kAttnMask].shape));
  }
  if (p.query_heads <= 0 || p.kv_heads <= 0 || p.query_heads % p.kv_heads != 0) {
    Fail("query heads are a multiple of kv heads", std::to_string(p.query_heads));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const Attributes attributes = ReadAttributes(bytes);
  Inputs inputs = ReadInputs(bytes);
  Dimensions dimensions;
  const std::string error = Check(attributes, inputs, &dimensions);
  if (!error.empty() || !AllKnown(inputs)) return 0;
  CheckProblem(attributes, inputs, dimensions);
  if (dimensions.batch > 0 && dimensions.batch < 9) {
    int64_t nonpad[8];
    for (int64_t& length : nonpad) length = bytes.Number();
    ExpectSentence(CheckNonpad(nonpad, dimensions));
  }
  for (InputDescription& input : inputs) {
    const uint8_t forget = bytes.Byte();
    if (forget == 255) input.shape.known = false;
    for (size_t d = 0; d < input.shape.rank; ++d) {
      if (forget >> d & 1) input.shape.dims[d] = kUnknownDim;
    }
  }
  const std::string later = Check(attributes, inputs, &dimensions);
  if (!later.empty()) Fail("forgetting dimensions keeps a call legal", later);
  return 0;
}

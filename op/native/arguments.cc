// Implementation notes: a dimension that is not known yet (kUnknownDim) passes every check; CheckShapes runs
// again with all of them known before any kernel starts.
#include "arguments.h"

#include <cmath>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <sstream>

namespace sigmoid_attention {
namespace {

const char* const kInputNames[kInputCount] = {
    "Q",         "K",          "V",         "attn_mask",   "past_key", "past_value", "nonpad_kv_seqlen",
    "head_bias", "head_scale", "head_gain", "alibi_slopes"};

template <typename... Parts>
std::string Sentence(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

std::string Dim(int64_t dim) {
  return dim == kUnknownDim ? "?" : std::to_string(dim);
}

std::string Show(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.rank; ++i) {
    if (i == Shape::kMaxRank) return text + ",...]";
    text += (i == 0 ? "" : ",") + Dim(shape.dims[i]);
  }
  return text + "]";
}

std::string Show(std::initializer_list<int64_t> dims) {
  std::string text = "[";
  for (int64_t dim : dims) text += (text.size() == 1 ? "" : ",") + Dim(dim);
  return text + "]";
}

// Takes `found` for `*dim` where that is unknown; false when both are known and differ.
bool Unify(int64_t* dim, int64_t found) {
  if (*dim == kUnknownDim) *dim = found;
  return found == kUnknownDim || *dim == found;
}

bool Matches(const Shape& shape, std::initializer_list<int64_t> dims) {
  if (shape.rank != dims.size()) return false;
  size_t i = 0;
  for (int64_t dim : dims) {
    if (!Unify(&dim, shape.dims[i++])) return false;
  }
  return true;
}

// False when the dimensions times `bytes` do not fit into an int64. Zeros count as ones, so that strides fit
// as well.
template <typename Dims>
bool SizeFits(const Dims& dims, int64_t bytes) {
  int64_t size = bytes;
  for (int64_t dim : dims) {
    if (dim == kUnknownDim || dim == 0) continue;
    if (size > std::numeric_limits<int64_t>::max() / dim) return false;
    size *= dim;
  }
  return true;
}

std::string CheckSizes(const Inputs& inputs, const Dimensions& d) {
  using Dims = std::array<int64_t, 4>;
  const struct {
    const char* name;
    Dims dims;
  } tensors[] = {{"Q", {d.batch, d.query_heads, d.query_length, d.head_size}},
                 {"Y", {d.batch, d.query_heads, d.query_length, d.value_head_size}},
                 {"K with its past", {d.batch, d.kv_heads, d.key_length, d.head_size}},
                 {"V with its past", {d.batch, d.kv_heads, d.key_length, d.value_head_size}}};
  for (const auto& tensor : tensors) {
    if (SizeFits(tensor.dims, 4)) continue;
    return Sentence(tensor.name, " has shape ",
                    Show({tensor.dims[0], tensor.dims[1], tensor.dims[2], tensor.dims[3]}),
                    ", must take less than 2^63 bytes.");
  }
  const Shape& mask = inputs[kAttnMask].shape;
  if (inputs[kAttnMask].present && mask.known && !SizeFits(mask.dims, 4)) {
    return Sentence("attn_mask has shape ", Show(mask), ", must take less than 2^63 bytes.");
  }
  return "";
}

std::string CheckFlag(const char* name, int64_t value) {
  return value == 0 || value == 1 ? "" : Sentence(name, " is ", value, ", must be 0 or 1.");
}

std::string CheckWindow(const char* name, int64_t value) {
  return value >= -1 ? "" : Sentence(name, " is ", value, ", must be -1 (unbounded) or more.");
}

std::string CheckHeads(const char* name, const std::optional<int64_t>& value) {
  return !value || *value > 0 ? "" : Sentence(name, " is ", *value, ", must be at least 1.");
}

std::string CheckFinite(const char* name, float value) {
  return std::isfinite(value) ? "" : Sentence(name, " is ", value, ", must be a finite number.");
}

bool IsT(ElementType type) {
  return type == ElementType::kFloat || type == ElementType::kFloat16 || type == ElementType::kBFloat16;
}

SaType KernelType(ElementType type) {
  if (type == ElementType::kFloat16) return SA_FLOAT16;
  return type == ElementType::kBFloat16 ? SA_BFLOAT16 : SA_FLOAT;
}

// Splits the last dimension of a rank-3 input into heads and head size, or reads both from a rank-4 shape.
struct HeadLayout {
  int64_t batch, heads, rows, size;
};

std::string ReadHeads(Input input, const Shape& shape, const std::optional<int64_t>& heads,
                      const char* heads_name, HeadLayout* layout) {
  const char* name = InputName(input);
  if (shape.rank == 4) {
    *layout = {shape.dims[0], shape.dims[1], shape.dims[2], shape.dims[3]};
    if (heads && layout->heads != kUnknownDim && layout->heads != *heads) {
      return Sentence(heads_name, " is ", *heads, ", must be ", layout->heads, ", the number of heads of ",
                      name, ", or be left out.");
    }
  } else {
    if (!heads) return Sentence(heads_name, " is missing, must be given when ", name, " has rank 3.");
    *layout = {shape.dims[0], *heads, shape.dims[1], kUnknownDim};
    const int64_t hidden = shape.dims[2];
    if (hidden != kUnknownDim) {
      if (hidden % *heads != 0) {
        return Sentence(name, " has last dimension ", hidden, ", must be a multiple of ", heads_name,
                        ", which is ", *heads, ".");
      }
      layout->size = hidden / *heads;
    }
  }
  if (layout->heads == 0) return Sentence(name, " has 0 heads, must have at least 1.");
  if (layout->size == 0) return Sentence(name, " has head size 0, must be at least 1.");
  return "";
}

std::string CheckSequence(const Attributes& attributes, const Inputs& inputs, Dimensions* d) {
  const Shape& q = inputs[kQ].shape;
  if (q.known) {
    if (q.rank != 3 && q.rank != 4) return Sentence("Q has rank ", q.rank, ", must be 3 or 4.");
    d->q_rank = q.rank;
  }
  for (Input input : {kK, kV}) {
    const Shape& shape = inputs[input].shape;
    if (!shape.known) continue;
    if (!q.known && shape.rank != 3 && shape.rank != 4) {
      return Sentence(InputName(input), " has rank ", shape.rank, ", must be 3 or 4.");
    }
    if (q.known && shape.rank != q.rank) {
      return Sentence(InputName(input), " has rank ", shape.rank, ", must be ", q.rank, ", the rank of Q.");
    }
  }
  if (q.known) {
    HeadLayout layout{};
    std::string error = ReadHeads(kQ, q, attributes.q_num_heads, "q_num_heads", &layout);
    if (!error.empty()) return error;
    d->batch = layout.batch;
    d->query_heads = layout.heads;
    d->query_length = layout.rows;
    d->head_size = layout.size;
  }
  for (Input input : {kK, kV}) {
    if (!inputs[input].shape.known) continue;
    HeadLayout layout{};
    std::string error =
        ReadHeads(input, inputs[input].shape, attributes.kv_num_heads, "kv_num_heads", &layout);
    if (!error.empty()) return error;
    const char* name = InputName(input);
    if (!Unify(&d->batch, layout.batch)) {
      return Sentence(name, " has batch size ", layout.batch, ", must be ", d->batch,
                      ", the batch size of Q.");
    }
    if (!Unify(&d->kv_heads, layout.heads)) {
      return Sentence(name, " has ", layout.heads, " heads, must have ", d->kv_heads, ", as many as K.");
    }
    if (!Unify(&d->new_key_length, layout.rows)) {
      return Sentence(name, " has ", layout.rows, " rows per head, must have ", d->new_key_length,
                      ", as many as K.");
    }
    int64_t* size = input == kK ? &d->head_size : &d->value_head_size;
    if (!Unify(size, layout.size)) {
      return Sentence(name, " has head size ", layout.size, ", must be ", *size, ", the head size of Q.");
    }
  }
  if (d->query_heads != kUnknownDim && d->kv_heads != kUnknownDim && d->query_heads % d->kv_heads != 0) {
    return Sentence("Q has ", d->query_heads,
                    " heads, must be a multiple of the number of heads of K, which is ", d->kv_heads, ".");
  }
  return "";
}

std::string CheckPast(const Inputs& inputs, Dimensions* d) {
  const bool key = inputs[kPastKey].present, value = inputs[kPastValue].present;
  if (key != value) {
    return Sentence(key ? "past_value" : "past_key", " is missing, must be given together with ",
                    key ? "past_key." : "past_value.");
  }
  d->past_length = key ? kUnknownDim : 0;
  for (Input input : {kPastKey, kPastValue}) {
    const Shape& shape = inputs[input].shape;
    if (!inputs[input].present || !shape.known) continue;
    int64_t* size = input == kPastKey ? &d->head_size : &d->value_head_size;
    if (!Matches(shape, {d->batch, d->kv_heads, d->past_length, *size})) {
      const std::string length = d->past_length == kUnknownDim ? "past length" : Dim(d->past_length);
      return Sentence(InputName(input), " has shape ", Show(shape), ", must be [", Dim(d->batch), ",",
                      Dim(d->kv_heads), ",", length, ",", Dim(*size), "].");
    }
    Unify(&d->batch, shape.dims[0]);
    Unify(&d->kv_heads, shape.dims[1]);
    Unify(&d->past_length, shape.dims[2]);
    Unify(size, shape.dims[3]);
  }
  if (d->past_length == kUnknownDim || d->new_key_length == kUnknownDim) return "";
  if (d->past_length > std::numeric_limits<int64_t>::max() - d->new_key_length) {
    return Sentence("past_key has ", d->past_length, " rows per head, must leave room for the ",
                    d->new_key_length, " of K within 2^63 - 1.");
  }
  d->key_length = d->past_length + d->new_key_length;
  return "";
}

std::string CheckMask(const Inputs& inputs, const Dimensions& d) {
  const Shape& mask = inputs[kAttnMask].shape;
  if (!inputs[kAttnMask].present || !mask.known) return "";
  if (mask.rank > 4) return Sentence("attn_mask has rank ", mask.rank, ", must be at most 4.");
  const std::array<int64_t, 4> scores{d.batch, d.query_heads, d.query_length, d.key_length};
  for (size_t i = 0; i < mask.rank; ++i) {
    const int64_t found = mask.dims[i], wanted = scores[4 - mask.rank + i];
    if (found == 1 || found == kUnknownDim || wanted == kUnknownDim || found == wanted) continue;
    return Sentence("attn_mask has shape ", Show(mask), ", must be broadcastable to ",
                    Show({scores[0], scores[1], scores[2], scores[3]}),
                    " (batch, heads, query length, key length).");
  }
  return "";
}

// head_scale and head_gain take [Hq] only; head_bias and alibi_slopes [B,Hq] too.
std::string CheckPerHead(Input input, bool per_batch, const Inputs& inputs, const Dimensions& d) {
  const Shape& shape = inputs[input].shape;
  if (!inputs[input].present || !shape.known) return "";
  if (Matches(shape, {d.query_heads}) || (per_batch && Matches(shape, {d.batch, d.query_heads}))) return "";
  const std::string both = per_batch ? " or " + Show({d.batch, d.query_heads}) : "";
  return Sentence(InputName(input), " has shape ", Show(shape), ", must be ", Show({d.query_heads}), both,
                  ".");
}

}  // namespace

const char* InputName(size_t input) {
  return input < kInputCount ? kInputNames[input] : "?";
}

std::string TypeName(ElementType type) {
  static const char* const kNames[] = {"undefined", "float",  "uint8",     "int8",       "uint16",  "int16",
                                       "int32",     "int64",  "string",    "bool",       "float16", "double",
                                       "uint32",    "uint64", "complex64", "complex128", "bfloat16"};
  const int number = static_cast<int>(type);
  if (number >= 0 && number < static_cast<int>(std::size(kNames))) return kNames[number];
  return "type " + std::to_string(number);
}

std::string CheckAttributes(const Attributes& attributes) {
  const Attributes& a = attributes;
  const std::string& mode = a.bias_mode;
  if (mode != "none" && mode != "neg_log_total" && mode != "neg_log_valid" && mode != "neg_log_visible") {
    return Sentence("bias_mode is \"", mode,
                    "\", must be \"none\", \"neg_log_total\", \"neg_log_valid\" or \"neg_log_visible\".");
  }
  if (!(a.softcap >= 0) || !std::isfinite(a.softcap)) {
    return Sentence("softcap is ", a.softcap, ", must be 0 (none) or a positive finite number.");
  }
  for (const std::string& error :
       {a.scale ? CheckFinite("scale", *a.scale) : std::string(), CheckFinite("bias", a.bias),
        CheckFlag("is_causal", a.is_causal), CheckWindow("left_window_size", a.left_window_size),
        CheckWindow("right_window_size", a.right_window_size), CheckFlag("normalize", a.normalize),
        CheckHeads("q_num_heads", a.q_num_heads), CheckHeads("kv_num_heads", a.kv_num_heads)}) {
    if (!error.empty()) return error;
  }
  if (a.q_num_heads && a.kv_num_heads && *a.q_num_heads % *a.kv_num_heads != 0) {
    return Sentence("q_num_heads is ", *a.q_num_heads, ", must be a multiple of kv_num_heads, which is ",
                    *a.kv_num_heads, ".");
  }
  return "";
}

std::string CheckTypes(const Inputs& inputs) {
  const ElementType t = inputs[kQ].type;
  if (!IsT(t)) return Sentence("Q is ", TypeName(t), ", must be float, float16 or bfloat16.");
  for (Input input : {kK, kV, kPastKey, kPastValue}) {
    if (inputs[input].present && inputs[input].type != t) {
      return Sentence(InputName(input), " is ", TypeName(inputs[input].type), ", must be ", TypeName(t),
                      ", the type of Q.");
    }
  }
  const ElementType mask = inputs[kAttnMask].type;
  if (inputs[kAttnMask].present && mask != t && mask != ElementType::kFloat && mask != ElementType::kBool) {
    const std::string own = t == ElementType::kFloat ? "" : TypeName(t) + " (the type of Q), ";
    return Sentence("attn_mask is ", TypeName(mask), ", must be ", own, "float or bool.");
  }
  if (inputs[kNonpadKvSeqlen].present && inputs[kNonpadKvSeqlen].type != ElementType::kInt64) {
    return Sentence("nonpad_kv_seqlen is ", TypeName(inputs[kNonpadKvSeqlen].type), ", must be int64.");
  }
  for (Input input : {kHeadBias, kHeadScale, kHeadGain, kAlibiSlopes}) {
    if (inputs[input].present && inputs[input].type != ElementType::kFloat) {
      return Sentence(InputName(input), " is ", TypeName(inputs[input].type), ", must be float.");
    }
  }
  return "";
}

std::string CheckShapes(const Attributes& attributes, const Inputs& inputs, Dimensions* dimensions) {
  Dimensions& d = *dimensions;
  d = Dimensions();
  d.type = KernelType(inputs[kQ].type);
  std::string error = CheckSequence(attributes, inputs, &d);
  if (error.empty()) error = CheckPast(inputs, &d);
  if (error.empty()) error = CheckMask(inputs, d);
  if (!error.empty()) return error;
  const Shape& nonpad = inputs[kNonpadKvSeqlen].shape;
  if (inputs[kNonpadKvSeqlen].present && nonpad.known && !Matches(nonpad, {d.batch})) {
    return Sentence("nonpad_kv_seqlen has shape ", Show(nonpad), ", must be ", Show({d.batch}), ".");
  }
  for (Input input : {kHeadBias, kHeadScale, kHeadGain, kAlibiSlopes}) {
    error = CheckPerHead(input, input == kHeadBias || input == kAlibiSlopes, inputs, d);
    if (!error.empty()) return error;
  }
  return CheckSizes(inputs, d);
}

std::string CheckNonpad(const int64_t* nonpad_kv_seqlen, const Dimensions& dimensions) {
  for (int64_t b = 0; b < dimensions.batch; ++b) {
    if (nonpad_kv_seqlen[b] < 0 || nonpad_kv_seqlen[b] > dimensions.key_length) {
      return Sentence("nonpad_kv_seqlen[", b, "] is ", nonpad_kv_seqlen[b], ", must be from 0 to ",
                      dimensions.key_length, ", the key length.");
    }
  }
  return "";
}

Shape OutputShape(size_t output, const Dimensions& dimensions) {
  const Dimensions& d = dimensions;
  Shape shape;
  shape.known = true;
  if (output == kY && d.q_rank == 3) {
    shape.rank = 3;
    shape.dims = {d.batch, d.query_length, d.query_heads * d.value_head_size};
  } else if (output == kY) {
    shape.rank = 4;
    shape.dims = {d.batch, d.query_heads, d.query_length, d.value_head_size};
  } else {
    shape.rank = 4;
    shape.dims = {d.batch, d.kv_heads, d.key_length, output == kPresentKey ? d.head_size : d.value_head_size};
  }
  return shape;
}

namespace {

SaStrides Strides(bool heads_inside_rows, int64_t heads, int64_t rows, int64_t size) {
  if (heads_inside_rows) return {rows * heads * size, size, heads * size};
  return {heads * rows * size, rows * size, size};
}

SaBiasMode BiasMode(const std::string& name) {
  if (name == "neg_log_total") return SA_BIAS_NEG_LOG_TOTAL;
  if (name == "neg_log_valid") return SA_BIAS_NEG_LOG_VALID;
  return name == "neg_log_visible" ? SA_BIAS_NEG_LOG_VISIBLE : SA_BIAS_NONE;
}

}  // namespace

SaProblem MakeProblem(const Attributes& attributes, const Inputs& inputs, const Dimensions& dimensions) {
  const Dimensions& d = dimensions;
  SaProblem p{};
  p.type = d.type;
  p.batch = d.batch;
  p.query_heads = d.query_heads;
  p.kv_heads = d.kv_heads;
  p.query_length = d.query_length;
  p.key_length = d.key_length;
  p.past_length = d.past_length;
  p.head_size = d.head_size;
  p.value_head_size = d.value_head_size;

  const bool inside = d.q_rank == 3;
  p.q_strides = Strides(inside, d.query_heads, d.query_length, d.head_size);
  p.k_strides = Strides(inside, d.kv_heads, d.new_key_length, d.head_size);
  p.v_strides = Strides(inside, d.kv_heads, d.new_key_length, d.value_head_size);
  p.y_strides = Strides(inside, d.query_heads, d.query_length, d.value_head_size);

  if (const InputDescription& mask = inputs[kAttnMask]; mask.present) {
    p.mask_type = mask.type == ElementType::kBool ? SA_MASK_BOOL
                  : mask.type == inputs[kQ].type  ? SA_MASK_T
                                                  : SA_MASK_FLOAT;
    int64_t stride = 1;
    for (size_t i = mask.shape.rank; i-- > 0;) {
      const int64_t dim = mask.shape.dims[i];
      p.mask_strides[4 - mask.shape.rank + i] = dim == 1 ? 0 : stride;
      stride *= dim;
    }
  }
  p.row_offset = d.past_length;
  p.head_bias_batch_stride = inputs[kHeadBias].shape.rank == 2 ? d.query_heads : 0;
  p.alibi_batch_stride = inputs[kAlibiSlopes].shape.rank == 2 ? d.query_heads : 0;

  p.scale = attributes.scale ? *attributes.scale : 1.0f / std::sqrt(static_cast<float>(d.head_size));
  p.bias = attributes.bias;
  p.softcap = attributes.softcap;
  p.bias_mode = BiasMode(attributes.bias_mode);
  p.is_causal = static_cast<int>(attributes.is_causal);
  p.left_window_size = attributes.left_window_size;
  p.right_window_size = attributes.right_window_size;
  p.normalize = static_cast<int>(attributes.normalize);
  return p;
}

}  // namespace sigmoid_attention

// ONNX Runtime answers both "absent" and "of another kind" with a failed status, so an attribute that cannot
// be read is asked for as every other kind before it counts as absent.
#include "op/native/attributes.h"

#include <vector>

namespace sigmoid_attention {
namespace {

bool ReadFloat(const OrtKernelInfo* info, const char* name, float* value) {
  return Succeeded(ort_api->KernelInfoGetAttribute_float(info, name, value));
}

bool ReadInt(const OrtKernelInfo* info, const char* name, int64_t* value) {
  return Succeeded(ort_api->KernelInfoGetAttribute_int64(info, name, value));
}

bool ReadString(const OrtKernelInfo* info, const char* name, std::string* value) {
  size_t size = 0;
  if (!Succeeded(ort_api->KernelInfoGetAttribute_string(info, name, nullptr, &size))) return false;
  std::vector<char> text(size);
  if (!Succeeded(ort_api->KernelInfoGetAttribute_string(info, name, text.data(), &size))) return false;
  value->assign(text.data(), size > 0 ? size - 1 : 0);
  return true;
}

const char* KindOf(const OrtKernelInfo* info, const char* name) {
  float number;
  int64_t integer;
  std::string text;
  size_t size = 0;
  if (ReadFloat(info, name, &number)) return "a float";
  if (ReadInt(info, name, &integer)) return "an int";
  if (ReadString(info, name, &text)) return "a string";
  if (Succeeded(ort_api->KernelInfoGetAttributeArray_float(info, name, nullptr, &size)))
    return "a list of floats";
  if (Succeeded(ort_api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &size)))
    return "a list of ints";
  return nullptr;
}

void RequireAbsent(const OrtKernelInfo* info, const char* name, const char* wanted) {
  if (const char* kind = KindOf(info, name)) {
    throw std::invalid_argument(std::string(name) + " is " + kind + ", must be " + wanted + ".");
  }
}

void Float(const OrtKernelInfo* info, const char* name, float* value) {
  if (!ReadFloat(info, name, value)) RequireAbsent(info, name, "a float");
}

void Int(const OrtKernelInfo* info, const char* name, int64_t* value) {
  if (!ReadInt(info, name, value)) RequireAbsent(info, name, "an int");
}

}  // namespace

Attributes ReadAttributes(const OrtKernelInfo* info) {
  Attributes a;
  float scale;
  if (ReadFloat(info, "scale", &scale)) {
    a.scale = scale;
  } else {
    RequireAbsent(info, "scale", "a float");
  }
  Float(info, "bias", &a.bias);
  Float(info, "softcap", &a.softcap);
  if (!ReadString(info, "bias_mode", &a.bias_mode)) RequireAbsent(info, "bias_mode", "a string");
  Int(info, "is_causal", &a.is_causal);
  Int(info, "left_window_size", &a.left_window_size);
  Int(info, "right_window_size", &a.right_window_size);
  Int(info, "normalize", &a.normalize);
  for (auto [name, heads] : {std::pair{"q_num_heads", &a.q_num_heads}, {"kv_num_heads", &a.kv_num_heads}}) {
    int64_t value;
    if (ReadInt(info, name, &value)) {
      *heads = value;
    } else {
      RequireAbsent(info, name, "an int");
    }
  }
  const std::string error = CheckAttributes(a);
  if (!error.empty()) throw std::invalid_argument(error);
  return a;
}

}  // namespace sigmoid_attention

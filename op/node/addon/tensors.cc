// See tensors.h.
#include "op/node/addon/tensors.h"

#include <cstring>
#include <vector>

namespace sigmoid_attention::node {
namespace {

// How a numeric type looks in JavaScript; bytes is 0 for types that Node's tensors do not know.
struct Element {
  size_t bytes;
  napi_typedarray_type array;
};

Element ElementOf(int type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return {4, napi_float32_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return {1, napi_uint8_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return {1, napi_int8_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16:
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return {2, napi_uint16_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
      return {2, napi_int16_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return {4, napi_int32_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32:
      return {4, napi_uint32_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return {8, napi_bigint64_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64:
      return {8, napi_biguint64_array};
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return {8, napi_float64_array};
    default:
      return {0, napi_uint8_array};
  }
}

std::vector<int64_t> Dims(const Napi::Array& array) {
  std::vector<int64_t> dims(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) dims[i] = array.Get(i).As<Napi::Number>().Int64Value();
  return dims;
}

OrtAllocator* DefaultAllocator() {
  OrtAllocator* allocator = nullptr;
  Check(Api().GetAllocatorWithDefaultOptions(&allocator));
  return allocator;
}

Owned<OrtValue> FromStrings(const Napi::Array& strings, const std::vector<int64_t>& dims) {
  std::vector<std::string> copies(strings.Length());
  std::vector<const char*> pointers(strings.Length());
  for (uint32_t i = 0; i < strings.Length(); ++i) {
    copies[i] = strings.Get(i).As<Napi::String>().Utf8Value();
    pointers[i] = copies[i].c_str();
  }
  OrtValue* value = nullptr;
  Check(Api().CreateTensorAsOrtValue(DefaultAllocator(), dims.data(), dims.size(),
                                     ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, &value));
  Owned<OrtValue> owner(value);
  if (!pointers.empty()) Check(Api().FillStringTensor(value, pointers.data(), pointers.size()));
  return owner;
}

Owned<OrtTensorTypeAndShapeInfo> TensorInfo(const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Check(Api().GetTensorTypeAndShape(value, &info));
  return Owned<OrtTensorTypeAndShapeInfo>(info);
}

Napi::Array ToStrings(Napi::Env env, const OrtValue* value, size_t count) {
  Napi::Array strings = Napi::Array::New(env, count);
  for (size_t i = 0; i < count; ++i) {
    size_t length = 0;
    Check(Api().GetStringTensorElementLength(value, i, &length));
    std::string text(length, '\0');
    Check(Api().GetStringTensorElement(value, length, i, text.data()));
    strings.Set(static_cast<uint32_t>(i), Napi::String::New(env, text));
  }
  return strings;
}

Napi::Value ToTypedArray(Napi::Env env, const OrtValue* value, const Element& element, size_t count) {
  const size_t bytes = count * element.bytes;
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, bytes);
  if (bytes > 0) {
    void* data = nullptr;
    Check(Api().GetTensorMutableData(const_cast<OrtValue*>(value), &data));
    std::memcpy(buffer.Data(), data, bytes);
  }
  napi_value array = nullptr;
  if (napi_create_typedarray(env, element.array, count, buffer, 0, &array) != napi_ok) {
    throw Napi::Error::New(env);
  }
  return Napi::Value(env, array);
}

void DescribeTensor(Napi::Env env, const OrtTensorTypeAndShapeInfo* info, Napi::Object& description) {
  ONNXTensorElementDataType type;
  Check(Api().GetTensorElementType(info, &type));
  size_t rank = 0;
  Check(Api().GetDimensionsCount(info, &rank));
  std::vector<int64_t> dims(rank);
  std::vector<const char*> names(rank);
  Check(Api().GetDimensions(info, dims.data(), rank));
  Check(Api().GetSymbolicDimensions(info, names.data(), rank));
  Napi::Array shape = Napi::Array::New(env, rank), symbols = Napi::Array::New(env, rank);
  for (uint32_t i = 0; i < rank; ++i) {
    shape.Set(i, Napi::Number::New(env, static_cast<double>(dims[i])));
    symbols.Set(i, Napi::String::New(env, names[i] == nullptr ? "" : names[i]));
  }
  description.Set("type", Napi::Number::New(env, static_cast<int>(type)));
  description.Set("shape", shape);
  description.Set("symbolicDimensions", symbols);
}

using NameOf = OrtStatus*(ORT_API_CALL*)(const OrtSession*, size_t, OrtAllocator*, char**);
using TypeOf = OrtStatus*(ORT_API_CALL*)(const OrtSession*, size_t, OrtTypeInfo**);

Napi::Array Describe(Napi::Env env, const OrtSession* session, size_t count, NameOf name_of, TypeOf type_of) {
  Napi::Array descriptions = Napi::Array::New(env, count);
  OrtAllocator* allocator = DefaultAllocator();
  for (size_t i = 0; i < count; ++i) {
    Napi::Object description = Napi::Object::New(env);
    char* name = nullptr;
    Check(name_of(session, i, allocator, &name));
    description.Set("name", Napi::String::New(env, name));
    Check(Api().AllocatorFree(allocator, name));
    OrtTypeInfo* type_info = nullptr;
    Check(type_of(session, i, &type_info));
    const Owned<OrtTypeInfo> owner(type_info);
    ONNXType kind;
    Check(Api().GetOnnxTypeFromTypeInfo(type_info, &kind));
    description.Set("isTensor", Napi::Boolean::New(env, kind == ONNX_TYPE_TENSOR));
    if (kind == ONNX_TYPE_TENSOR) {
      const OrtTensorTypeAndShapeInfo* info = nullptr;
      Check(Api().CastTypeInfoToTensorInfo(type_info, &info));
      DescribeTensor(env, info, description);
    }
    descriptions.Set(static_cast<uint32_t>(i), description);
  }
  return descriptions;
}

}  // namespace

Owned<OrtValue> ToOrtValue(const Napi::Object& tensor) {
  const std::vector<int64_t> dims = Dims(tensor.Get("dims").As<Napi::Array>());
  const int type = tensor.Get("type").As<Napi::Number>().Int32Value();
  const Napi::Value data = tensor.Get("data");
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) return FromStrings(data.As<Napi::Array>(), dims);
  void* address = nullptr;
  const Napi::TypedArray array = data.As<Napi::TypedArray>();
  if (napi_get_typedarray_info(array.Env(), array, nullptr, nullptr, &address, nullptr, nullptr) != napi_ok) {
    throw Napi::Error::New(array.Env());
  }
  OrtMemoryInfo* memory = nullptr;
  Check(Api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  const Owned<OrtMemoryInfo> memory_owner(memory);
  OrtValue* value = nullptr;
  // ONNX Runtime refuses a null pointer even for no elements.
  static char nothing = 0;
  Check(Api().CreateTensorWithDataAsOrtValue(memory, address == nullptr ? &nothing : address,
                                             array.ByteLength(), dims.data(), dims.size(),
                                             static_cast<ONNXTensorElementDataType>(type), &value));
  return Owned<OrtValue>(value);
}

Napi::Object FromOrtValue(Napi::Env env, const OrtValue* value) {
  ONNXType kind;
  Check(Api().GetValueType(value, &kind));
  if (kind != ONNX_TYPE_TENSOR) throw OrtError("Non tensor type is temporarily not supported.");
  const Owned<OrtTensorTypeAndShapeInfo> info = TensorInfo(value);
  ONNXTensorElementDataType type;
  Check(Api().GetTensorElementType(info.get(), &type));
  size_t rank = 0, count = 0;
  Check(Api().GetDimensionsCount(info.get(), &rank));
  Check(Api().GetTensorShapeElementCount(info.get(), &count));
  std::vector<int64_t> sizes(rank);
  Check(Api().GetDimensions(info.get(), sizes.data(), rank));
  Napi::Array dims = Napi::Array::New(env, rank);
  for (uint32_t i = 0; i < rank; ++i) dims.Set(i, Napi::Number::New(env, static_cast<double>(sizes[i])));

  Napi::Object tensor = Napi::Object::New(env);
  tensor.Set("type", Napi::Number::New(env, static_cast<int>(type)));
  tensor.Set("dims", dims);
  const Element element = ElementOf(type);
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING) {
    tensor.Set("data", ToStrings(env, value, count));
  } else if (element.bytes > 0) {
    tensor.Set("data", ToTypedArray(env, value, element, count));
  } else {
    throw OrtError("Tensor type (" + std::to_string(type) + ") is not supported.");
  }
  return tensor;
}

Napi::Array DescribeInputs(Napi::Env env, const OrtSession* session) {
  size_t count = 0;
  Check(Api().SessionGetInputCount(session, &count));
  return Describe(env, session, count, Api().SessionGetInputName, Api().SessionGetInputTypeInfo);
}

Napi::Array DescribeOutputs(Napi::Env env, const OrtSession* session) {
  size_t count = 0;
  Check(Api().SessionGetOutputCount(session, &count));
  return Describe(env, session, count, Api().SessionGetOutputName, Api().SessionGetOutputTypeInfo);
}

}  // namespace sigmoid_attention::node

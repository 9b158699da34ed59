// The few ONNX Runtime C calls that the operator needs, with ownership and errors made safe.
//
// Only functions of API version 17 are used, through the C table: the C++ wrappers of a newer header reach
// for newer slots and would crash older runtimes.
#pragma once

#ifndef ORT_API_MANUAL_INIT
#define ORT_API_MANUAL_INIT
#endif
#include <onnxruntime_c_api.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "op/native/arguments.h"

namespace sigmoid_attention {

constexpr uint32_t kOrtApiVersion = 17;

// Set once by RegisterCustomOps, before anything else here runs.
inline const OrtApi* ort_api = nullptr;

// Of the runtime, 1.x: what the table of functions alone does not tell. Set together with ort_api.
inline int ort_minor_version = 0;

// Throws a failed status as std::runtime_error and releases it.
void ThrowOnError(OrtStatus* status);
// Whether the call succeeded; releases the status.
bool Succeeded(OrtStatus* status);
// A status that carries `message`, for callbacks to return.
OrtStatus* MakeStatus(OrtErrorCode code, const std::string& message);

// Runs `body` and turns what it throws into a status.
template <typename Body>
OrtStatus* Guard(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::invalid_argument& error) {
    return MakeStatus(ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return MakeStatus(ORT_FAIL, "SigmoidAttention: out of memory.");
  } catch (const std::exception& error) {
    return MakeStatus(ORT_FAIL, error.what());
  } catch (...) {
    return MakeStatus(ORT_FAIL, "SigmoidAttention: unknown error.");
  }
}

struct TypeInfoDeleter {
  void operator()(OrtTypeInfo* info) const { ort_api->ReleaseTypeInfo(info); }
};
using TypeInfoPtr = std::unique_ptr<OrtTypeInfo, TypeInfoDeleter>;

struct TensorInfoDeleter {
  void operator()(OrtTensorTypeAndShapeInfo* info) const { ort_api->ReleaseTensorTypeAndShapeInfo(info); }
};
using TensorInfoPtr = std::unique_ptr<OrtTensorTypeAndShapeInfo, TensorInfoDeleter>;

// Type and shape of a tensor. Dimensions that are not known come out as kUnknownDim.
// `rank_zero_is_unknown`: in a graph, ONNX Runtime shows a shape of unknown rank as one of rank 0.
InputDescription Describe(const OrtTensorTypeAndShapeInfo* info, bool rank_zero_is_unknown);

}  // namespace sigmoid_attention

// The ONNX Runtime that onnxruntime-node has loaded into this process, and owners for the objects made with
// it.
//
// Functions of API version 18 and older only: the table of an older runtime ends there.
#pragma once

#ifndef ORT_API_MANUAL_INIT
#define ORT_API_MANUAL_INIT
#endif
#include <onnxruntime_c_api.h>

#include <memory>
#include <stdexcept>
#include <string>

namespace sigmoid_attention::node {

// An error of ONNX Runtime, in its own words.
class OrtError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Finds the runtime already loaded from `library_path` (or under that file's name). Throws std::runtime_error
// with a sentence when it is not loaded or too old. Later calls do nothing.
void FindRuntime(const std::string& library_path);

// Valid after FindRuntime.
const OrtApi& Api();

// Throws a failed status as OrtError.
void Check(OrtStatus* status);

struct Releaser {
  void operator()(OrtEnv* value) const { Api().ReleaseEnv(value); }
  void operator()(OrtSession* value) const { Api().ReleaseSession(value); }
  void operator()(OrtSessionOptions* value) const { Api().ReleaseSessionOptions(value); }
  void operator()(OrtRunOptions* value) const { Api().ReleaseRunOptions(value); }
  void operator()(OrtValue* value) const { Api().ReleaseValue(value); }
  void operator()(OrtMemoryInfo* value) const { Api().ReleaseMemoryInfo(value); }
  void operator()(OrtTypeInfo* value) const { Api().ReleaseTypeInfo(value); }
  void operator()(OrtTensorTypeAndShapeInfo* value) const { Api().ReleaseTensorTypeAndShapeInfo(value); }
  void operator()(OrtCUDAProviderOptionsV2* value) const { Api().ReleaseCUDAProviderOptions(value); }
  void operator()(OrtTensorRTProviderOptionsV2* value) const { Api().ReleaseTensorRTProviderOptions(value); }
};

template <typename T>
using Owned = std::unique_ptr<T, Releaser>;

// A reference to the process's one environment; onnxruntime-node holds another.
Owned<OrtEnv> AcquireEnv();

// ONNX Runtime's paths: wide on Windows.
std::basic_string<ORTCHAR_T> NativePath(const std::string& utf8);

}  // namespace sigmoid_attention::node

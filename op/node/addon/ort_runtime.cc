// See ort_runtime.h.
#include "op/node/addon/ort_runtime.h"

#include <filesystem>
#include <mutex>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace sigmoid_attention::node {
namespace {

constexpr uint32_t kApiVersion = 18;

const OrtApi* api = nullptr;

using GetApiBase = const OrtApiBase*(ORT_API_CALL*)();

// Only a library that is loaded already is looked at: a second copy of ONNX Runtime would not share its
// sessions.
GetApiBase FindLoaded(const std::filesystem::path& library) {
#if defined(_WIN32)
  HMODULE module = GetModuleHandleW(library.c_str());
  if (module == nullptr) module = GetModuleHandleW(library.filename().c_str());
  if (module == nullptr) return nullptr;
  return reinterpret_cast<GetApiBase>(GetProcAddress(module, "OrtGetApiBase"));
#else
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) handle = dlopen(library.filename().c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) return nullptr;
  return reinterpret_cast<GetApiBase>(dlsym(handle, "OrtGetApiBase"));
#endif
}

}  // namespace

void FindRuntime(const std::string& library_path) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (api != nullptr) return;
  const GetApiBase get_api_base = FindLoaded(std::filesystem::u8path(library_path));
  if (get_api_base == nullptr)
    throw std::runtime_error("ONNX Runtime is not loaded from " + library_path + ".");
  const OrtApi* found = get_api_base()->GetApi(kApiVersion);
  if (found == nullptr) {
    throw std::runtime_error(std::string("ONNX Runtime is of version ") + get_api_base()->GetVersionString() +
                             ", must be 1.24 or newer.");
  }
  api = found;
}

const OrtApi& Api() {
  return *api;
}

void Check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = Api().GetErrorMessage(status);
  Api().ReleaseStatus(status);
  throw OrtError(message);
}

Owned<OrtEnv> AcquireEnv() {
  OrtEnv* env = nullptr;
  Check(Api().CreateEnv(ORT_LOGGING_LEVEL_WARNING, "onnxruntime-node", &env));
  return Owned<OrtEnv>(env);
}

std::basic_string<ORTCHAR_T> NativePath(const std::string& utf8) {
#if defined(_WIN32)
  return std::filesystem::u8path(utf8).wstring();
#else
  return utf8;
#endif
}

}  // namespace sigmoid_attention::node

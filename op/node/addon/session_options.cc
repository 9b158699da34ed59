// See session_options.h.
#include "op/node/addon/session_options.h"

#include <functional>
#include <map>
#include <vector>

namespace sigmoid_attention::node {
namespace {

// One setting: element 0 is its name, the rest its values.
class Setting {
 public:
  explicit Setting(const Napi::Array& array) : array_(array) {}
  std::string Text(uint32_t index) const { return array_.Get(index).As<Napi::String>().Utf8Value(); }
  int Int(uint32_t index) const { return array_.Get(index).As<Napi::Number>().Int32Value(); }
  int64_t Int64(uint32_t index) const { return array_.Get(index).As<Napi::Number>().Int64Value(); }
  bool Bool(uint32_t index) const { return array_.Get(index).As<Napi::Boolean>().Value(); }
  Napi::Object Object(uint32_t index) const { return array_.Get(index).As<Napi::Object>(); }

 private:
  Napi::Array array_;
};

// Keys and values of an object of strings, as the C interface wants them.
struct StringPairs {
  std::vector<std::string> keys, values;
  std::vector<const char*> key_pointers, value_pointers;

  explicit StringPairs(const Napi::Object& object) {
    const Napi::Array names = object.GetPropertyNames();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      keys.push_back(names.Get(i).As<Napi::String>().Utf8Value());
      values.push_back(object.Get(keys.back()).As<Napi::String>().Utf8Value());
    }
    for (size_t i = 0; i < keys.size(); ++i) {
      key_pointers.push_back(keys[i].c_str());
      value_pointers.push_back(values[i].c_str());
    }
  }
  size_t size() const { return keys.size(); }
};

void AppendProvider(OrtSessionOptions* options, const std::string& name, const StringPairs& pairs) {
  const char* const* keys = pairs.key_pointers.data();
  const char* const* values = pairs.value_pointers.data();
  if (name == "CUDA") {
    OrtCUDAProviderOptionsV2* cuda = nullptr;
    Check(Api().CreateCUDAProviderOptions(&cuda));
    const Owned<OrtCUDAProviderOptionsV2> owner(cuda);
    if (pairs.size() > 0) Check(Api().UpdateCUDAProviderOptions(cuda, keys, values, pairs.size()));
    Check(Api().SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda));
  } else if (name == "TensorRT") {
    OrtTensorRTProviderOptionsV2* tensorrt = nullptr;
    Check(Api().CreateTensorRTProviderOptions(&tensorrt));
    const Owned<OrtTensorRTProviderOptionsV2> owner(tensorrt);
    if (pairs.size() > 0) Check(Api().UpdateTensorRTProviderOptions(tensorrt, keys, values, pairs.size()));
    Check(Api().SessionOptionsAppendExecutionProvider_TensorRT_V2(options, tensorrt));
  } else {
    Check(Api().SessionOptionsAppendExecutionProvider(options, name.c_str(), keys, values, pairs.size()));
  }
}

void AddExternalData(OrtSessionOptions* options, const Napi::Array& files) {
  std::vector<std::basic_string<ORTCHAR_T>> paths;
  std::vector<const ORTCHAR_T*> path_pointers;
  std::vector<char*> data;
  std::vector<size_t> sizes;
  static char nothing = 0;
  for (uint32_t i = 0; i < files.Length(); ++i) {
    const Napi::Object file = files.Get(i).As<Napi::Object>();
    Napi::Uint8Array bytes = file.Get("data").As<Napi::Uint8Array>();
    paths.push_back(NativePath(file.Get("path").As<Napi::String>().Utf8Value()));
    data.push_back(bytes.ByteLength() == 0 ? &nothing : reinterpret_cast<char*>(bytes.Data()));
    sizes.push_back(bytes.ByteLength());
  }
  for (const auto& path : paths) path_pointers.push_back(path.c_str());
  Check(Api().AddExternalInitializersFromFilesInMemory(options, path_pointers.data(), data.data(),
                                                       sizes.data(), sizes.size()));
}

using Apply = std::function<void(OrtSessionOptions*, const Setting&)>;

const std::map<std::string, Apply>& SessionSettings() {
  static const std::map<std::string, Apply> settings = {
      {"config",
       [](auto* o, const Setting& s) {
         Check(Api().AddSessionConfigEntry(o, s.Text(1).c_str(), s.Text(2).c_str()));
       }},
      {"cpuMemArena",
       [](auto* o, const Setting& s) {
         Check(s.Bool(1) ? Api().EnableCpuMemArena(o) : Api().DisableCpuMemArena(o));
       }},
      {"executionMode",
       [](auto* o, const Setting& s) {
         Check(Api().SetSessionExecutionMode(o, static_cast<ExecutionMode>(s.Int(1))));
       }},
      {"externalData",
       [](auto* o, const Setting& s) { AddExternalData(o, s.Object(1).template As<Napi::Array>()); }},
      {"freeDimension",
       [](auto* o, const Setting& s) {
         Check(Api().AddFreeDimensionOverrideByName(o, s.Text(1).c_str(), s.Int64(2)));
       }},
      {"graphOptimizationLevel",
       [](auto* o, const Setting& s) {
         Check(Api().SetSessionGraphOptimizationLevel(o, static_cast<GraphOptimizationLevel>(s.Int(1))));
       }},
      {"interOpNumThreads",
       [](auto* o, const Setting& s) { Check(Api().SetInterOpNumThreads(o, static_cast<int>(s.Int64(1)))); }},
      {"intraOpNumThreads",
       [](auto* o, const Setting& s) { Check(Api().SetIntraOpNumThreads(o, static_cast<int>(s.Int64(1)))); }},
      {"logId", [](auto* o, const Setting& s) { Check(Api().SetSessionLogId(o, s.Text(1).c_str())); }},
      {"logSeverityLevel",
       [](auto* o, const Setting& s) { Check(Api().SetSessionLogSeverityLevel(o, s.Int(1))); }},
      {"logVerbosityLevel",
       [](auto* o, const Setting& s) { Check(Api().SetSessionLogVerbosityLevel(o, s.Int(1))); }},
      {"memPattern",
       [](auto* o, const Setting& s) {
         Check(s.Bool(1) ? Api().EnableMemPattern(o) : Api().DisableMemPattern(o));
       }},
      {"optimizedModelFilePath",
       [](auto* o, const Setting& s) {
         Check(Api().SetOptimizedModelFilePath(o, NativePath(s.Text(1)).c_str()));
       }},
      {"profiling",
       [](auto* o, const Setting& s) { Check(Api().EnableProfiling(o, NativePath(s.Text(1)).c_str())); }},
      {"provider", [](auto* o, const Setting& s) { AppendProvider(o, s.Text(1), StringPairs(s.Object(2))); }},
  };
  return settings;
}

}  // namespace

Owned<OrtSessionOptions> CreateSessionOptions(const Napi::Array& settings,
                                              const std::string& operator_library) {
  OrtSessionOptions* options = nullptr;
  Check(Api().CreateSessionOptions(&options));
  Owned<OrtSessionOptions> owner(options);
  for (uint32_t i = 0; i < settings.Length(); ++i) {
    const Setting setting(settings.Get(i).As<Napi::Array>());
    SessionSettings().at(setting.Text(0))(options, setting);
  }
  // The same entry as in every other language: opens the library and calls its RegisterCustomOps.
  Check(Api().RegisterCustomOpsLibrary_V2(options, NativePath(operator_library).c_str()));
  return owner;
}

Owned<OrtRunOptions> CreateRunOptions(const Napi::Array& settings) {
  OrtRunOptions* options = nullptr;
  Check(Api().CreateRunOptions(&options));
  Owned<OrtRunOptions> owner(options);
  for (uint32_t i = 0; i < settings.Length(); ++i) {
    const Setting setting(settings.Get(i).As<Napi::Array>());
    const std::string name = setting.Text(0);
    if (name == "config") {
      Check(Api().AddRunConfigEntry(options, setting.Text(1).c_str(), setting.Text(2).c_str()));
    } else if (name == "logSeverityLevel") {
      Check(Api().RunOptionsSetRunLogSeverityLevel(options, setting.Int(1)));
    } else if (name == "logVerbosityLevel") {
      Check(Api().RunOptionsSetRunLogVerbosityLevel(options, setting.Int(1)));
    } else if (name == "tag") {
      Check(Api().RunOptionsSetRunTag(options, setting.Text(1).c_str()));
    } else if (name == "terminate") {
      if (setting.Bool(1)) Check(Api().RunOptionsSetTerminate(options));
    }
  }
  return owner;
}

}  // namespace sigmoid_attention::node

// The library's one entry, RegisterCustomOps: what every language's ONNX Runtime calls when it is given this
// library.
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "op/native/cpu_device.h"
#include "op/native/cuda_library.h"
#include "op/native/operator.h"

#if defined(_WIN32)
#define SA_EXPORT __declspec(dllexport)
#else
#define SA_EXPORT __attribute__((visibility("default")))
#endif

namespace sigmoid_attention {
namespace {

constexpr char kDomain[] = "ort.sigmoid";

// TensorProto.DataType of every type that ONNX Runtime could bring as Q and no kernel takes.
constexpr int kRefusedTypes[] = {2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13};

// The operators and their domain live as long as the process: sessions keep pointers to them.
OrtCustomOpDomain* CreateDomain() {
  static std::vector<std::unique_ptr<Operator>> operators;
  const auto add = [](ElementType type, const char* provider, Device& (*device)()) {
    operators.push_back(std::make_unique<Operator>(type, provider, device));
  };
  const ElementType types[] = {ElementType::kFloat, ElementType::kFloat16, ElementType::kBFloat16};
  for (ElementType type : types) add(type, nullptr, CpuDevice);
  for (int type : kRefusedTypes) add(static_cast<ElementType>(type), nullptr, CpuDevice);
  if (CudaLibraryIsInstalled()) {
    for (ElementType type : types) add(type, "CUDAExecutionProvider", CudaDevice);
  }
  OrtCustomOpDomain* domain = nullptr;
  ThrowOnError(ort_api->CreateCustomOpDomain(kDomain, &domain));
  for (const auto& op : operators) ThrowOnError(ort_api->CustomOpDomain_Add(domain, op.get()));
  return domain;
}

OrtCustomOpDomain* Domain() {
  static OrtCustomOpDomain* const domain = CreateDomain();
  return domain;
}

// Older runtimes crash on operators with an absent optional input between present ones.
constexpr int kOldestMinorVersion = 24;

void RequireRuntime(const char* version) {
  int major = 0, minor = 0;
  if (std::sscanf(version, "%d.%d", &major, &minor) != 2 || major != 1 || minor < kOldestMinorVersion) {
    throw std::runtime_error(std::string("ONNX Runtime is of version ") + version +
                             ", must be 1.24 or newer.");
  }
  ort_minor_version = minor;
}

}  // namespace
}  // namespace sigmoid_attention

extern "C" SA_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                               const OrtApiBase* api_base) {
  using namespace sigmoid_attention;
  static std::once_flag once;
  std::call_once(once, [&] { ort_api = api_base->GetApi(kOrtApiVersion); });
  // Without its table there is no way to report anything; a runtime older than 1.17 ends here.
  if (ort_api == nullptr) std::terminate();
  return Guard([&] {
    RequireRuntime(api_base->GetVersionString());
    ThrowOnError(ort_api->AddCustomOpDomain(options, Domain()));
  });
}

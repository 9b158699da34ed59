// See cuda_library.h. The interface of the library is cuda/sigmoid_attention.h.
#include "op/native/cuda_library.h"

#include "cuda/sigmoid_attention.h"
#include "op/native/shared_library.h"

namespace sigmoid_attention {
namespace {

#if defined(_WIN32)
constexpr char kFileName[] = "ort_sigmoid_attention_cuda.dll";
#elif defined(__APPLE__)
constexpr char kFileName[] = "libort_sigmoid_attention_cuda.dylib";
#else
constexpr char kFileName[] = "libort_sigmoid_attention_cuda.so";
#endif

constexpr size_t kWorkspaceAlignment = 256;

// Found at registration: the working directory may change before a session asks for CUDA.
const std::string& LibraryPath() {
  static const std::string path = PathBesideThisLibrary(kFileName);
  return path;
}

struct Library {
  decltype(&sa_cuda_check_device) check_device;
  decltype(&sa_cuda_workspace_size) workspace_size;
  decltype(&sa_cuda_run) run;
  decltype(&sa_cuda_last_error) last_error;

  Library() {
    const SharedLibrary library(LibraryPath());
    library.Load("sa_cuda_check_device", &check_device);
    library.Load("sa_cuda_workspace_size", &workspace_size);
    library.Load("sa_cuda_run", &run);
    library.Load("sa_cuda_last_error", &last_error);
    ThrowOnFailure(check_device());
  }

  void ThrowOnFailure(SaCudaStatus status) const {
    if (status != SA_CUDA_OK)
      throw std::runtime_error(std::string("SigmoidAttention on CUDA: ") + last_error());
  }
};

// Device memory from ONNX Runtime's own allocator for the memory that Q lives in. Work of later nodes on the
// same stream may reuse it only after the kernel, which is what the stream's order guarantees.
class Workspace {
 public:
  Workspace(OrtKernelContext* context, const OrtValue* q, size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    const OrtMemoryInfo* memory = nullptr;
    ThrowOnError(ort_api->GetTensorMemoryInfo(q, &memory));
    ThrowOnError(ort_api->KernelContext_GetAllocator(context, memory, &allocator_));
    if (!Succeeded(ort_api->AllocatorAlloc(allocator_, bytes + kWorkspaceAlignment, &block_)) ||
        block_ == nullptr) {
      ort_api->ReleaseAllocator(allocator_);
      throw std::runtime_error("SigmoidAttention on CUDA: no device memory for a workspace of " +
                               std::to_string(bytes) + " bytes.");
    }
  }
  ~Workspace() {
    if (block_ != nullptr) Succeeded(ort_api->AllocatorFree(allocator_, block_));
    if (allocator_ != nullptr) ort_api->ReleaseAllocator(allocator_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const {
    const auto address = reinterpret_cast<uintptr_t>(block_);
    return reinterpret_cast<void*>((address + kWorkspaceAlignment - 1) / kWorkspaceAlignment *
                                   kWorkspaceAlignment);
  }
  size_t size() const { return bytes_; }

 private:
  OrtAllocator* allocator_ = nullptr;
  void* block_ = nullptr;
  size_t bytes_;
};

class Cuda : public Device {
 public:
  bool host_memory() const override { return false; }

  void Run(const SaProblem& problem, OrtKernelContext* context, const OrtValue* q) override {
    void* stream = nullptr;
    ThrowOnError(ort_api->KernelContext_GetGPUComputeStream(context, &stream));
    size_t bytes = 0;
    library_.ThrowOnFailure(library_.workspace_size(&problem, nullptr, &bytes));
    const Workspace workspace(context, q, bytes);
    library_.ThrowOnFailure(library_.run(&problem, nullptr, workspace.data(), workspace.size(), stream));
  }

 private:
  Library library_;
};

}  // namespace

bool CudaLibraryIsInstalled() {
  return FileExists(LibraryPath());
}

Device& CudaDevice() {
  static Cuda device;
  return device;
}

}  // namespace sigmoid_attention

// See cpu_device.h.
#include "op/native/cpu_device.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <thread>

#include "op/native/cpu/attention.h"

namespace sigmoid_attention {
namespace {

// The session's intra-op pool. What a task throws is kept and thrown again on the calling thread: an
// exception must not pass through ONNX Runtime's threads.
class OrtParallel : public cpu::Parallel {
 public:
  explicit OrtParallel(OrtKernelContext* context) : context_(context) {}

  void For(int64_t count, const std::function<void(int64_t)>& body) override {
    if (count == 1) return body(0);
    Tasks tasks{&body, {}, nullptr};
    ThrowOnError(
        ort_api->KernelContext_ParallelFor(context_, &RunTask, static_cast<size_t>(count), 0, &tasks));
    if (tasks.error) std::rethrow_exception(tasks.error);
  }

  // ONNX Runtime does not tell the size of its pool; by default it has at most one thread for each of these.
  int threads() const override {
    static const int kThreads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    return kThreads;
  }

 private:
  struct Tasks {
    const std::function<void(int64_t)>* body;
    std::mutex mutex;
    std::exception_ptr error;
  };

  static void RunTask(void* data, size_t index) {
    Tasks& tasks = *static_cast<Tasks*>(data);
    try {
      (*tasks.body)(static_cast<int64_t>(index));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(tasks.mutex);
      tasks.error = std::current_exception();
    }
  }

  OrtKernelContext* context_;
};

class Cpu : public Device {
 public:
  bool host_memory() const override { return true; }

  void Run(const SaProblem& problem, OrtKernelContext* context, const OrtValue*) override {
    OrtParallel parallel(context);
    cpu::Attention(problem, parallel);
  }
};

}  // namespace

Device& CpuDevice() {
  static Cpu device;
  return device;
}

}  // namespace sigmoid_attention

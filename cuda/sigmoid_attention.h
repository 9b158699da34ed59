// Sigmoid attention on CUDA devices: the one interface of libort_sigmoid_attention_cuda.
//
// Plain C: no CUDA, torch or ONNX Runtime header is needed to call it. An SaProblem
// (op/native/attention_problem.h) describes the call; all its pointers are device pointers. The library
// launches on the given stream only, allocates nothing on the device (scratch memory is asked for up front),
// does not synchronise and may be captured into a CUDA graph. Calls from several host threads are safe.
//
//   SaCudaOptions options = {SA_CUDA_ACCURATE, SA_CUDA_AUTO};
//   size_t bytes;
//   if (sa_cuda_workspace_size(&problem, &options, &bytes) != SA_CUDA_OK) ...
//   if (sa_cuda_run(&problem, &options, workspace, bytes, stream) != SA_CUDA_OK) puts(sa_cuda_last_error());
#pragma once

#include <stddef.h>

#include "op/native/attention_problem.h"

#if defined(_WIN32)
#define SA_CUDA_API __declspec(dllexport)
#else
#define SA_CUDA_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

// How float16 and bfloat16 weights are computed; float is always exact.
typedef enum {
  SA_CUDA_ACCURATE = 0,  // relative error of a weight about that of rounding to T at most, at any length
  SA_CUDA_FAST = 1,      // hardware tanh: weights below 2^-12 lose their relative accuracy
} SaCudaMode;

// Which kernel runs. AUTO is the choice for all but tests and benchmarks; a kernel that cannot take the
// problem on the current device reports SA_CUDA_UNSUPPORTED.
typedef enum {
  SA_CUDA_AUTO = 0,
  SA_CUDA_PLAIN = 1,   // one thread a key: every type, size and device
  SA_CUDA_MMA = 2,     // mma.sync and cp.async: half types, compute capability 8.0 and up
  SA_CUDA_HOPPER = 3,  // wgmma and TMA: half types, compute capability 9.0
  SA_CUDA_DECODE = 4,  // few queries against many keys, split over the keys
} SaCudaKernel;

typedef struct {
  SaCudaMode mode;
  SaCudaKernel kernel;
} SaCudaOptions;

typedef enum {
  SA_CUDA_OK = 0,
  SA_CUDA_NO_DEVICE = 1,    // no driver, no device, or a device older than the library supports
  SA_CUDA_UNSUPPORTED = 2,  // the kernel asked for cannot take this problem on this device
  SA_CUDA_SMALL_WORKSPACE =
      3,               // the workspace is smaller than sa_cuda_workspace_size says, or misaligned (256 bytes)
  SA_CUDA_FAILED = 4,  // a CUDA call failed; sa_cuda_last_error names it
} SaCudaStatus;

// Whether the current device can run this library: SA_CUDA_OK or SA_CUDA_NO_DEVICE.
SA_CUDA_API SaCudaStatus sa_cuda_check_device(void);

// Bytes of device memory that sa_cuda_run needs for this problem; 0 when it needs none. The contents need no
// initialisation and nothing is kept there between calls. `options` null: accurate, automatic.
SA_CUDA_API SaCudaStatus sa_cuda_workspace_size(const SaProblem* problem, const SaCudaOptions* options,
                                                size_t* bytes);

// Enqueues Y (and present_key, present_value where their pointers are set) on `stream`, a cudaStream_t.
// `workspace` is aligned to 256 bytes and may be reused once the work enqueued here has run.
SA_CUDA_API SaCudaStatus sa_cuda_run(const SaProblem* problem, const SaCudaOptions* options, void* workspace,
                                     size_t workspace_bytes, void* stream);

// One sentence about the last status other than SA_CUDA_OK of this host thread; empty when there was none.
SA_CUDA_API const char* sa_cuda_last_error(void);

// The name of the kernel that sa_cuda_run would pick: "plain", "mma", "hopper", "decode"; null with a status.
SA_CUDA_API const char* sa_cuda_kernel_name(const SaProblem* problem, const SaCudaOptions* options);

#ifdef __cplusplus
}  // extern "C"
#endif

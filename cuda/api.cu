// sa_cuda_*: looks at a problem and the device, picks a kernel, lays out the workspace and enqueues the work.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <mutex>

#include "cuda/kernels.h"

namespace sa {
namespace {

thread_local char last_error[256] = "";

SaCudaStatus fail(SaCudaStatus status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return status;
}

SaCudaStatus failed(const char* what, cudaError_t error) {
  return fail(SA_CUDA_FAILED, "%s failed: %s.", what, cudaGetErrorString(error));
}

struct DeviceFacts {
  int multiprocessors, major, minor, l2_bytes;
};

SaCudaStatus current_device(DeviceFacts* facts) {
  constexpr int kMaxDevices = 64;
  static std::mutex mutex;
  static DeviceFacts known[kMaxDevices];
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return fail(SA_CUDA_NO_DEVICE, "No CUDA device: %s.", cudaGetErrorString(error));
  if (device >= kMaxDevices)
    return fail(SA_CUDA_NO_DEVICE, "CUDA device %d is past the last one supported, 63.", device);
  const std::lock_guard<std::mutex> lock(mutex);
  DeviceFacts& f = known[device];
  if (f.multiprocessors == 0) {
    int count = 0;
    error = cudaDeviceGetAttribute(&f.major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess)
      error = cudaDeviceGetAttribute(&f.minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&f.l2_bytes, cudaDevAttrL2CacheSize, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    if (error != cudaSuccess)
      return fail(SA_CUDA_NO_DEVICE, "No CUDA device: %s.", cudaGetErrorString(error));
    f.multiprocessors = count;
  }
  if (f.major < 8)
    return fail(SA_CUDA_NO_DEVICE, "CUDA device %d has compute capability %d.%d, must be 8.0 or higher.",
                device, f.major, f.minor);
  *facts = f;
  return SA_CUDA_OK;
}

int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

bool aligned16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Rows that 16-byte copies and TMA can read where they are. The stride of an axis of length 1 does not
// matter.
bool readable(const void* base, const SaStrides& s, int64_t batch, int64_t heads, int64_t rows) {
  return aligned16(base) && (batch == 1 || (s.batch > 0 && s.batch % 8 == 0)) &&
         (heads == 1 || (s.head > 0 && s.head % 8 == 0)) && (rows == 1 || (s.row > 0 && s.row % 8 == 0));
}

bool writable(const SaProblem& p) {
  const SaStrides& s = p.y_strides;
  return aligned16(p.y) && p.value_head_size % 8 == 0 && s.batch % 8 == 0 && s.head % 8 == 0 &&
         s.row % 8 == 0;
}

bool is_general(const SaProblem& p) {
  return p.alibi_slopes != nullptr || p.softcap > 0.0f || p.mask_type != SA_MASK_NONE || p.normalize != 0;
}

// Whether launch_repair may be needed: a key may take no part in some row, whose NaN or Inf must not spread.
bool may_need_repair(const SaProblem& p) {
  return p.is_causal || p.left_window_size >= 0 || p.right_window_size >= 0 ||
         p.nonpad_kv_seqlen != nullptr || p.mask_type != SA_MASK_NONE;
}

Activation activation_for(const SaProblem& p, SaCudaMode mode) {
  if (is_general(p)) return Activation::kGeneral;
  return mode == SA_CUDA_FAST ? Activation::kFast : Activation::kAny;
}

// Where a tensor-core kernel finds one of its inputs; offset -1: where the caller has it.
struct Placement {
  int64_t offset = -1, width = 0;
};

struct Plan {
  SaCudaKernel kernel;
  DeviceFacts device;
  Placement queries, keys, values;
  bool keys_in_present = false, values_in_present = false;
  int64_t counter = -1, flags = -1, partial = -1, places = -1;  // partial: of decode, or of long rows
  DecodePlan decode = {1, false};
  int64_t bytes = 0;

  int64_t take(int64_t size) {
    const int64_t at = bytes;
    bytes += round_up(size, 256);
    return at;
  }
};

size_t places_bytes(int multiprocessors) {
  return sizeof(int) * kSegmentPlaces * multiprocessors;
}

// Under normalize weights are rounded to T before they are divided by their sum. float16 cannot hold those of
// a bias far below the scores (exp(-40) for a softmax kept faithfully); the mma.sync kernel gives each row a
// factor, the Hopper kernel does not.
bool hopper_weights_fit(const SaProblem& p) {
  return p.type == SA_BFLOAT16 || !p.normalize;
}

bool tensor_cores_can_run(const SaProblem& p) {
  return p.type != SA_FLOAT && std::max(p.head_size, p.value_head_size) <= 256 && p.key_length < (1 << 30) &&
         p.query_length < (1 << 30) && p.query_heads < 65536 && p.batch < 65536;
}

const char* name_of(SaCudaKernel kernel) {
  static const char* const names[] = {"auto", "plain", "mma", "hopper", "decode"};
  return names[kernel];
}

SaCudaStatus make_plan(const SaProblem& p, const SaCudaOptions& options, Plan* plan) {
  const SaCudaStatus status = current_device(&plan->device);
  if (status != SA_CUDA_OK) return status;
  const bool empty = p.batch == 0 || p.query_heads == 0 || p.query_length == 0 || p.key_length == 0 ||
                     p.head_size == 0 || p.value_head_size == 0;
  const bool tensor = !empty && tensor_cores_can_run(p);
  const bool hopper = tensor && plan->device.major == 9 && writable(p) && hopper_weights_fit(p);
  const bool decode = !empty && decode_can_run(p);
  const int64_t rows = p.kv_heads > 0 ? p.query_length * (p.query_heads / p.kv_heads) : 0;
  const bool few_rows = p.query_length <= 16 && rows <= 32;

  SaCudaKernel kernel = options.kernel;
  if (kernel == SA_CUDA_AUTO)
    kernel = decode && few_rows ? SA_CUDA_DECODE
             : hopper           ? SA_CUDA_HOPPER
             : tensor           ? SA_CUDA_MMA
                                : SA_CUDA_PLAIN;
  const bool possible = kernel == SA_CUDA_PLAIN || (kernel == SA_CUDA_MMA && tensor) ||
                        (kernel == SA_CUDA_HOPPER && hopper) || (kernel == SA_CUDA_DECODE && decode);
  if (!possible)
    return fail(SA_CUDA_UNSUPPORTED,
                "The %s kernel cannot take this problem on a device of compute capability %d.%d.",
                name_of(kernel), plan->device.major, plan->device.minor);
  plan->kernel = kernel;

  if (kernel == SA_CUDA_DECODE) {
    plan->decode = decode_plan(p, plan->device.multiprocessors);
    plan->partial = plan->take(decode_workspace(p, plan->decode));
  }
  if (kernel == SA_CUDA_MMA || kernel == SA_CUDA_HOPPER) {
    const int64_t width = round_up(p.head_size, 8), value_width = round_up(p.value_head_size, 8);
    if (!readable(p.q, p.q_strides, p.batch, p.query_heads, p.query_length))
      plan->queries = {plan->take(p.batch * p.query_heads * p.query_length * width * 2), width};
    // With a past, keys come in two pieces: they are joined in present_key where that will do, else in the
    // workspace.
    const int64_t fresh = p.key_length - p.past_length;
    if (p.past_length > 0 || !readable(p.k, p.k_strides, p.batch, p.kv_heads, fresh)) {
      plan->keys.width = width;
      plan->keys_in_present = p.present_key != nullptr && width == p.head_size && aligned16(p.present_key);
      if (!plan->keys_in_present)
        plan->keys.offset = plan->take(p.batch * p.kv_heads * p.key_length * width * 2);
    }
    if (p.past_length > 0 || !readable(p.v, p.v_strides, p.batch, p.kv_heads, fresh)) {
      plan->values.width = value_width;
      plan->values_in_present =
          p.present_value != nullptr && value_width == p.value_head_size && aligned16(p.present_value);
      if (!plan->values_in_present)
        plan->values.offset = plan->take(p.batch * p.kv_heads * p.key_length * value_width * 2);
    }
    if (kernel == SA_CUDA_HOPPER ? hopper_adds_in_segments(p) : mma_adds_in_segments(p))
      plan->partial = plan->take(plan->device.multiprocessors * kSegmentSums * 4);
    if (kernel == SA_CUDA_MMA && plan->partial >= 0)
      plan->places = plan->take(places_bytes(plan->device.multiprocessors));
    if (may_need_repair(p)) plan->flags = plan->take(flag_count(p));
    if (kernel == SA_CUDA_HOPPER &&
        (p.is_causal || p.right_window_size >= 0 || p.nonpad_kv_seqlen != nullptr))
      plan->counter = plan->take(sizeof(int));
  }
  return SA_CUDA_OK;
}

SaStrides dense(int64_t heads, int64_t rows, int64_t width) {
  return {heads * rows * width, rows * width, width};
}

cudaError_t run_tensor_cores(const SaProblem& p, SaCudaMode mode, const Plan& plan, unsigned char* workspace,
                             cudaStream_t stream) {
  TensorInputs in = {};
  in.problem = p;
  in.queries = p.q;
  in.query_strides = p.q_strides;
  in.keys = p.k;
  in.key_strides = p.k_strides;
  in.values = p.v;
  in.value_strides = p.v_strides;
  in.multiprocessors = plan.device.multiprocessors;
  in.l2_bytes = plan.device.l2_bytes;
  in.early_launch = plan.device.major >= 9;
  cudaError_t error = cudaSuccess;
  const auto then = [&error](cudaError_t next) {
    if (error == cudaSuccess) error = next;
  };
  if (plan.queries.width > 0) {
    void* to = workspace + plan.queries.offset;
    then(launch_gather_queries(p, to, plan.queries.width, stream));
    in.queries = to;
    in.query_strides = dense(p.query_heads, p.query_length, plan.queries.width);
  }
  if (plan.keys.width > 0) {
    void* to = plan.keys_in_present ? p.present_key : workspace + plan.keys.offset;
    if (!plan.keys_in_present) then(launch_gather_keys(p, to, plan.keys.width, stream));
    in.keys = to;
    in.key_strides = dense(p.kv_heads, p.key_length, plan.keys.width);
  }
  if (plan.values.width > 0) {
    void* to = plan.values_in_present ? p.present_value : workspace + plan.values.offset;
    if (!plan.values_in_present) then(launch_gather_values(p, to, plan.values.width, stream));
    in.values = to;
    in.value_strides = dense(p.kv_heads, p.key_length, plan.values.width);
  }
  if (plan.flags >= 0) in.flags = workspace + plan.flags;
  if (plan.partial >= 0) in.partial = reinterpret_cast<float*>(workspace + plan.partial);
  if (plan.counter >= 0) {
    in.next_tile = reinterpret_cast<int*>(workspace + plan.counter);
    then(cudaMemsetAsync(in.next_tile, 0, sizeof(int), stream));
  }
  if (plan.places >= 0) {
    in.places = reinterpret_cast<int*>(workspace + plan.places);
    then(cudaMemsetAsync(in.places, 0, places_bytes(in.multiprocessors), stream));
  }
  if (error != cudaSuccess) return error;

  const Activation activation = activation_for(p, mode);
  const int64_t size = std::max(p.head_size, p.value_head_size);
  const bool hopper = plan.kernel == SA_CUDA_HOPPER;
  const auto launch = size <= 64    ? (hopper ? launch_hopper_64 : launch_mma_64)
                      : size <= 128 ? (hopper ? launch_hopper_128 : launch_mma_128)
                                    : (hopper ? launch_hopper_256 : launch_mma_256);
  error = launch(in, activation, stream);
  if (error == cudaSuccess && in.flags != nullptr)
    error = launch_repair(p, in.flags, in.early_launch, stream);
  return error;
}

constexpr SaCudaOptions kDefaults = {SA_CUDA_ACCURATE, SA_CUDA_AUTO};

}  // namespace
}  // namespace sa

extern "C" {

SaCudaStatus sa_cuda_check_device(void) {
  sa::DeviceFacts facts;
  return sa::current_device(&facts);
}

SaCudaStatus sa_cuda_workspace_size(const SaProblem* problem, const SaCudaOptions* options, size_t* bytes) {
  sa::Plan plan;
  const SaCudaStatus status = sa::make_plan(*problem, options ? *options : sa::kDefaults, &plan);
  *bytes = status == SA_CUDA_OK ? static_cast<size_t>(plan.bytes) : 0;
  return status;
}

SaCudaStatus sa_cuda_run(const SaProblem* problem, const SaCudaOptions* options, void* workspace,
                         size_t workspace_bytes, void* stream_handle) {
  const SaProblem& p = *problem;
  const SaCudaOptions& o = options ? *options : sa::kDefaults;
  const auto stream = static_cast<cudaStream_t>(stream_handle);
  sa::Plan plan;
  const SaCudaStatus status = sa::make_plan(p, o, &plan);
  if (status != SA_CUDA_OK) return status;
  if (plan.bytes > 0 && (workspace_bytes < static_cast<size_t>(plan.bytes) || workspace == nullptr ||
                         reinterpret_cast<uintptr_t>(workspace) % 256 != 0))
    return sa::fail(SA_CUDA_SMALL_WORKSPACE,
                    "The workspace of %zu bytes at %p must have %lld bytes, aligned to 256.", workspace_bytes,
                    workspace, static_cast<long long>(plan.bytes));

  cudaError_t error = cudaSuccess;
  if (p.present_key) error = sa::launch_gather_keys(p, p.present_key, p.head_size, stream);
  if (error == cudaSuccess && p.present_value)
    error = sa::launch_gather_values(p, p.present_value, p.value_head_size, stream);
  if (error != cudaSuccess) return sa::failed("Copying keys and values", error);

  auto* scratch = static_cast<unsigned char*>(workspace);
  switch (plan.kernel) {
    case SA_CUDA_DECODE:
      error = sa::launch_decode(p, reinterpret_cast<float*>(scratch + plan.partial), plan.decode,
                                plan.device.major >= 9, stream);
      break;
    case SA_CUDA_HOPPER:
    case SA_CUDA_MMA:
      error = sa::run_tensor_cores(p, o.mode, plan, scratch, stream);
      break;
    default:
      error = sa::launch_plain(p, stream);
  }
  return error == cudaSuccess ? SA_CUDA_OK : sa::failed("The attention kernel", error);
}

const char* sa_cuda_last_error(void) {
  return sa::last_error;
}

const char* sa_cuda_kernel_name(const SaProblem* problem, const SaCudaOptions* options) {
  sa::Plan plan;
  return sa::make_plan(*problem, options ? *options : sa::kDefaults, &plan) == SA_CUDA_OK
             ? sa::name_of(plan.kernel)
             : nullptr;
}

}  // extern "C"

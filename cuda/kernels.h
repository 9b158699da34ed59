// The kernels behind sa_cuda_run, as host functions. Each enqueues its work on a stream and returns the
// launch's error.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

#include "cuda/sigmoid_attention.h"

namespace sa {

// --- plain.cu: everything ---
cudaError_t launch_plain(const SaProblem& problem, cudaStream_t stream);

// A tensor-core kernel multiplies weights of 0 by whatever the values hold, so a NaN or Inf in a value that
// takes no part would reach Y as NaN. It therefore flags each tile of kFlagRows rows whose output is not
// finite, and launch_repair works those out again with the plain kernel. One byte a tile, [B * Hq, ceil(Nq /
// kFlagRows)].
constexpr int kFlagRows = 16;
inline int64_t flag_count(const SaProblem& p) {
  return p.batch * p.query_heads * ((p.query_length + kFlagRows - 1) / kFlagRows);
}
// early_launch here and below: the device has compute capability 9.0 or higher (early_launch.cuh).
cudaError_t launch_repair(const SaProblem& problem, const unsigned char* flags, bool early_launch,
                          cudaStream_t stream);

// --- gather.cu: past and new keys into one tensor ---
// Writes [B, Hkv, Nk, width] rows from the past and the new keys (or values), zeros behind a row's head size.
cudaError_t launch_gather_keys(const SaProblem& problem, void* to, int64_t width, cudaStream_t stream);
cudaError_t launch_gather_values(const SaProblem& problem, void* to, int64_t width, cudaStream_t stream);
// The same for [B, Hq, Nq, width] query rows.
cudaError_t launch_gather_queries(const SaProblem& problem, void* to, int64_t width, cudaStream_t stream);

// --- decode.cu: few query rows, split over the keys ---
bool decode_can_run(const SaProblem& problem);
struct DecodePlan {
  int splits;    // of the keys
  bool is_long;  // see decode.cu
};
DecodePlan decode_plan(const SaProblem& problem, int multiprocessors);
int64_t decode_workspace(const SaProblem& problem, const DecodePlan& plan);  // bytes
cudaError_t launch_decode(const SaProblem& problem, float* partial, const DecodePlan& plan, bool early_launch,
                          cudaStream_t stream);

// --- hopper/ and mma/: tensor cores, half types ---
// How the activation is computed (activation.cuh), and whether ALiBi, softcap, attn_mask or normalize are in
// use. Which guess serves kAny best, each kernel decides by the bias; all are right for any weights.
enum class Activation { kAny, kFast, kGeneral };

// The bias of a row that sees all keys, without what single heads add to it: that is on the device.
inline double shared_bias(const SaProblem& p) {
  return p.bias - (p.bias_mode == SA_BIAS_NONE ? 0.0 : std::log(static_cast<double>(p.key_length)));
}

// Tensor cores cut off what an addition to their float32 sums shifts out, and this error grows with the
// number of keys. Long rows are therefore added up in segments of kSegmentKeys keys, whose sums lie in
// scratch memory: room for the output of all blocks that a multiprocessor runs at once. The Hopper kernel
// does so for both types, where it costs nothing; mma.sync, which needs another formula of the weights then,
// only where the error shows: eight times as soon in float16.
constexpr int kSegmentKeys = 16384;
constexpr int64_t kSegmentSums = 192 * 256;  // of one multiprocessor
constexpr int kSegmentPlaces = 4;            // blocks of one multiprocessor, at most
inline bool hopper_adds_in_segments(const SaProblem& p) {
  return p.key_length > 2 * int64_t{kSegmentKeys};
}
inline bool mma_adds_in_segments(const SaProblem& p) {
  return p.key_length > (p.type == SA_FLOAT16 ? 2 : 16) * int64_t{kSegmentKeys};
}

// Inputs of a tensor-core kernel. Keys and values are whole, past and new rows in one tensor; all rows are
// aligned to 16 bytes.
struct TensorInputs {
  SaProblem problem;
  const void *queries, *keys, *values;
  SaStrides query_strides, key_strides, value_strides;
  unsigned char* flags;  // of non-finite output, or null
  int* next_tile;        // hopper: 0 at the start, or null for tiles of equal length
  float* partial;        // [multiprocessors, kSegmentSums] of any contents, or null: one segment
  int* places;           // mma: [multiprocessors, kSegmentPlaces], 0 at the start; null with `partial`
  int multiprocessors, l2_bytes;
  bool early_launch;
};

// Head sizes up to 64, 128 and 256.
cudaError_t launch_hopper_64(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_hopper_128(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_hopper_256(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_mma_64(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_mma_128(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_mma_256(const TensorInputs& inputs, Activation activation, cudaStream_t stream);

}  // namespace sa

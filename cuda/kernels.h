// The kernels behind sa_cuda_run, as host functions. Each enqueues its work on a stream and returns the
// launch's error.
#pragma once

#include <cuda_runtime.h>

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
// early_launch: the device has compute capability 9.0 or higher; the kernel's start overlaps the end of the
// one before.
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
int decode_splits(const SaProblem& problem, int multiprocessors);
int64_t decode_workspace(const SaProblem& problem, int splits);  // bytes
// early_launch: the device has compute capability 9.0 or higher.
cudaError_t launch_decode(const SaProblem& problem, float* partial, int splits, bool early_launch,
                          cudaStream_t stream);

// --- hopper/ and mma/: tensor cores, half types ---
// How the activation is computed (activation.cuh), and whether ALiBi, softcap, attn_mask or normalize are in
// use.
enum class Activation { kAny, kSmall, kFast, kGeneral };

// Inputs of a tensor-core kernel. Keys and values are whole, past and new rows in one tensor; all rows are
// aligned to 16 bytes.
struct TensorInputs {
  SaProblem problem;
  const void *queries, *keys, *values;
  SaStrides query_strides, key_strides, value_strides;
  unsigned char* flags;  // of non-finite output, or null
  int* next_tile;        // hopper: 0 at the start, or null for tiles of equal length
  float* partial;        // hopper: hopper_partial_bytes of scratch, or null where that is 0
  int multiprocessors;
};

// The tensor cores cut off what an addition to their float32 sums shifts out, and this error grows with the
// number of keys. The Hopper kernel therefore adds up long rows in segments of kSegmentKeys keys, whose sums
// lie in scratch memory: one tile of up to 192 rows a block.
constexpr int kSegmentKeys = 16384;
inline int64_t hopper_partial_bytes(const SaProblem& p, int multiprocessors) {
  if (p.key_length <= 2 * kSegmentKeys) return 0;
  return int64_t{multiprocessors} * 192 * 256 * static_cast<int64_t>(sizeof(float));
}

// Head sizes up to 64, 128 and 256.
cudaError_t launch_hopper_64(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_hopper_128(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_hopper_256(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_mma_64(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_mma_128(const TensorInputs& inputs, Activation activation, cudaStream_t stream);
cudaError_t launch_mma_256(const TensorInputs& inputs, Activation activation, cudaStream_t stream);

}  // namespace sa

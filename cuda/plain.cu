// The plain kernel: every type, size, option and device, float32 arithmetic throughout.
//
// A block takes kRows query rows of one head and walks the keys they can see, kKeys at a time: each thread
// works out the weights of one key, then each thread adds up the columns of the output that are its own. It
// is the fall-back of the faster kernels, the check on them, and the repair of tiles where they met a NaN or
// Inf (see repair_tiles).
#include <algorithm>

#include "cuda/early_launch.cuh"
#include "cuda/kernels.h"
#include "cuda/meaning.cuh"

namespace sa {
namespace {

constexpr int kRows = 8;
constexpr int kKeys = 128;  // also the threads of a block
constexpr int kColumnsPerThread = 4;
constexpr int kColumns = kKeys * kColumnsPerThread;  // of Y in one block; wider heads take more blocks
constexpr int kDepth = 32;                           // head elements staged at a time

// sigmoid(x) to the last bits, for any x.
__device__ __forceinline__ float exact_sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x >= 0.0f ? 1.0f : e) / (1.0f + e);
}

struct Shared {
  float q[kDepth][kRows];
  float k[kKeys][kDepth + 1];
  float weights[kKeys][kRows];
  float sums[kKeys / 32][kRows];  // of each warp
};

template <class T>
__device__ void attend_rows(const SaProblem& p, Shared& shared, int b, int h, int first_row,
                            int first_column) {
  const int thread = threadIdx.x;
  const int valid = valid_keys(p, b), offset = position_offset(p, b);
  const int rows = min(kRows, static_cast<int>(p.query_length) - first_row);
  const int kv_head = h / static_cast<int>(p.query_heads / p.kv_heads);
  const HeadTerms head = head_terms(p, b, h, valid);
  const T* q = slice<T>(p.q, p.q_strides, b, h);
  const KeyRows<T> keys = key_rows<T>(p, b, kv_head), values = value_rows<T>(p, b, kv_head);
  const int head_size = static_cast<int>(p.head_size), value_size = static_cast<int>(p.value_head_size);

  float sum[kRows] = {}, out[kRows][kColumnsPerThread] = {};
  const int lo = key_range(p, valid, first_row + offset).lo;
  const int hi = key_range(p, valid, first_row + rows - 1 + offset).hi;
  for (int first_key = lo; first_key < hi; first_key += kKeys) {
    // Scores of this thread's key with all rows.
    float score[kRows] = {};
    for (int depth = 0; depth < head_size; depth += kDepth) {
      __syncthreads();
      for (int e = thread; e < kRows * kDepth; e += kKeys) {
        const int row = e / kDepth, d = depth + e % kDepth;
        const bool inside = row < rows && d < head_size;
        shared.q[e % kDepth][row] = inside ? to_float(q[(first_row + row) * p.q_strides.row + d]) : 0.0f;
      }
      for (int e = thread; e < kKeys * kDepth; e += kKeys) {
        const int key = e / kDepth, d = depth + e % kDepth;
        const bool inside = first_key + key < hi && d < head_size;
        shared.k[key][e % kDepth] = inside ? to_float(keys.row(first_key + key)[d]) : 0.0f;
      }
      __syncthreads();
#pragma unroll
      for (int d = 0; d < kDepth; d++)
#pragma unroll
        for (int row = 0; row < kRows; row++)
          score[row] = fmaf(shared.q[d][row], shared.k[thread][d], score[row]);
    }

    const int j = first_key + thread;
#pragma unroll
    for (int row = 0; row < kRows; row++) {
      const int i = first_row + row, position = i + offset;
      const KeyRange range = key_range(p, valid, position);
      float weight = 0.0f;
      if (row < rows && j >= range.lo && j < range.hi) {
        float logit = head.scale * score[row];
        if (p.softcap > 0.0f) logit = p.softcap * tanhf(logit / p.softcap);
        logit += head.bias + row_bias(p, range) - head.slope * fabsf(static_cast<float>(position - j));
        float addend = 0.0f;
        if (p.mask_type != SA_MASK_NONE)
          addend = mask_addend<T>(p, b * p.mask_strides[0] + h * p.mask_strides[1] + i * p.mask_strides[2] +
                                         j * p.mask_strides[3]);
        if (addend != -INFINITY) weight = exact_sigmoid(logit + addend);
      }
      sum[row] += weight;
      shared.weights[thread][row] = weight;
    }
    __syncthreads();

    for (int key = 0; key < min(kKeys, hi - first_key); key++) {
      const T* value = values.row(first_key + key);
#pragma unroll
      for (int c = 0; c < kColumnsPerThread; c++) {
        const int column = first_column + c * kKeys + thread;
        if (column >= value_size) break;
        const float v = to_float(value[column]);
        // A NaN or Inf counts only for the rows that the key takes part in.
        const bool finite = isfinite(v);
#pragma unroll
        for (int row = 0; row < kRows; row++) {
          const float w = shared.weights[key][row];
          if (finite || w != 0.0f) out[row][c] = fmaf(w, v, out[row][c]);
        }
      }
    }
  }

  if (p.normalize) {
#pragma unroll
    for (int row = 0; row < kRows; row++) {
      for (int lane = 16; lane > 0; lane /= 2) sum[row] += __shfl_xor_sync(~0u, sum[row], lane);
      if (thread % 32 == 0) shared.sums[thread / 32][row] = sum[row];
    }
    __syncthreads();
  }
  T* y = slice<T>(p.y, p.y_strides, b, h);
  for (int row = 0; row < rows; row++) {
    float factor = head.gain;
    if (p.normalize) {
      float total = 0.0f;
      for (int warp = 0; warp < kKeys / 32; warp++) total += shared.sums[warp][row];
      factor = total == 0.0f ? 0.0f : head.gain / total;
    }
#pragma unroll
    for (int c = 0; c < kColumnsPerThread; c++) {
      const int column = first_column + c * kKeys + thread;
      if (column < value_size)
        y[(first_row + row) * p.y_strides.row + column] = from_float<T>(factor * out[row][c]);
    }
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kKeys) plain_kernel(const __grid_constant__ SaProblem p, int64_t groups) {
  __shared__ Shared shared;
  const int row_groups = static_cast<int>((p.query_length + kRows - 1) / kRows);
  const int column_groups = static_cast<int>((p.value_head_size + kColumns - 1) / kColumns);
  for (int64_t item = blockIdx.x; item < groups; item += gridDim.x) {
    const int column_group = static_cast<int>(item % column_groups);
    const int row_group = static_cast<int>(item / column_groups % row_groups);
    const int head = static_cast<int>(item / column_groups / row_groups);
    attend_rows<T>(p, shared, head / static_cast<int>(p.query_heads), head % static_cast<int>(p.query_heads),
                   row_group * kRows, column_group * kColumns);
  }
}

struct RepairArguments {
  SaProblem problem;
  const unsigned char* flags;
  int64_t tiles;
};

// Works out again the 16-row tiles whose flag is set.
template <class T>
__global__ void __launch_bounds__(kKeys) repair_kernel(const __grid_constant__ RepairArguments args) {
  const SaProblem& p = args.problem;
  const int64_t tiles = args.tiles;
  __shared__ Shared shared;
  __shared__ bool flagged[kKeys];
  const int tiles_of_head = static_cast<int>((p.query_length + kFlagRows - 1) / kFlagRows);
  wait_for_previous_kernel();
  // Flags are seldom set: each thread looks at one, all at once.
  for (int64_t first = blockIdx.x; first < tiles; first += static_cast<int64_t>(gridDim.x) * kKeys) {
    const int64_t own = first + static_cast<int64_t>(threadIdx.x) * gridDim.x;
    const bool set = own < tiles && args.flags[own];
    flagged[threadIdx.x] = set;
    if (!__syncthreads_or(set)) continue;
    for (int i = 0; i < kKeys; i++) {
      if (!flagged[i]) continue;
      const int64_t tile = first + static_cast<int64_t>(i) * gridDim.x;
      const int head = static_cast<int>(tile / tiles_of_head),
                first_row = static_cast<int>(tile % tiles_of_head) * kFlagRows;
      for (int row = first_row; row < min(first_row + kFlagRows, static_cast<int>(p.query_length));
           row += kRows)
        for (int column = 0; column < p.value_head_size; column += kColumns)
          attend_rows<T>(p, shared, head / static_cast<int>(p.query_heads),
                         head % static_cast<int>(p.query_heads), row, column);
    }
    __syncthreads();
  }
}

}  // namespace

cudaError_t launch_plain(const SaProblem& p, cudaStream_t stream) {
  const int64_t groups = p.batch * p.query_heads * ((p.query_length + kRows - 1) / kRows) *
                         ((p.value_head_size + kColumns - 1) / kColumns);
  if (groups == 0) return cudaSuccess;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(groups, 1 << 20));
  switch (p.type) {
    case SA_FLOAT:
      plain_kernel<float><<<grid, kKeys, 0, stream>>>(p, groups);
      break;
    case SA_FLOAT16:
      plain_kernel<__half><<<grid, kKeys, 0, stream>>>(p, groups);
      break;
    case SA_BFLOAT16:
      plain_kernel<__nv_bfloat16><<<grid, kKeys, 0, stream>>>(p, groups);
      break;
  }
  return cudaGetLastError();
}

cudaError_t launch_repair(const SaProblem& p, const unsigned char* flags, bool early_launch,
                          cudaStream_t stream) {
  const int64_t tiles = flag_count(p);
  if (tiles == 0) return cudaSuccess;
  const auto grid = static_cast<unsigned>(std::min<int64_t>(tiles, 264));
  return launch_early(p.type == SA_FLOAT16 ? repair_kernel<__half> : repair_kernel<__nv_bfloat16>, grid,
                      kKeys, 0, early_launch, stream, RepairArguments{p, flags, tiles});
}

}  // namespace sa

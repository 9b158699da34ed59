// Decoding: few query rows against many keys, where reading keys and values once is all that takes time.
//
// The keys of one (batch, kv head) are split over blocks. A few neighbouring lanes share a key: each reads 16
// bytes of it, they add up the dot products with all rows of the block, and the same lanes then add weight
// times value. Without a maximum to agree on, a row's result is the plain sum of its partial sums; a second
// small kernel adds those up.
#include <algorithm>

#include "cuda/activation.cuh"
#include "cuda/kernels.h"
#include "cuda/meaning.cuh"

namespace sa {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kKeysInFlight = 4;  // of one group of lanes

template <class T>
struct Vector {
  static constexpr int kSize = 16 / sizeof(T);

  static __device__ __forceinline__ void unpack_to(const uint4& bits, float (&x)[kSize]) {
    const uint32_t word[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (sizeof(T) == 4) {
        x[i] = __uint_as_float(word[i]);
      } else {
        const float2 pair = unpack<T>(word[i]);
        x[2 * i] = pair.x;
        x[2 * i + 1] = pair.y;
      }
    }
  }
};

// Logit in units of 1 -> weight. float32 to the last bits, half types to 1e-6.
template <class T>
__device__ __forceinline__ float decode_weight(float logit) {
  if constexpr (sizeof(T) == 4) {
    const float e = expf(-fabsf(logit));
    return (logit >= 0.0f ? 1.0f : e) / (1.0f + e);
  } else {
    const float e = fast_exp2(-fabsf(logit) * kLog2E);
    return __fdividef(logit >= 0.0f ? 1.0f : e, 1.0f + e);
  }
}

struct DecodeArguments {
  SaProblem problem;
  float* partial;  // [splits, B * Hq * Nq, Dv + 1], the last column the sum of weights; null with one split
  int splits, keys_per_split;
};

// Query rows of one kv head are numbered row = i * group + (head within the group).
template <class T, int kLanes, int kRows>
__global__ void __launch_bounds__(kThreads) decode_kernel(const __grid_constant__ DecodeArguments args) {
  constexpr int kSize = Vector<T>::kSize, kKeysAtOnce = 32 / kLanes;
  const SaProblem& p = args.problem;
  const int lane = threadIdx.x % kLanes, column = lane * kSize;
  const int key_slot = threadIdx.x / kLanes;  // which of the block's concurrent keys
  constexpr int kSlots = kWarps * kKeysAtOnce;
  const int b = blockIdx.z / static_cast<int>(p.kv_heads),
            kv_head = blockIdx.z % static_cast<int>(p.kv_heads);
  const int group = static_cast<int>(p.query_heads / p.kv_heads),
            total_rows = group * static_cast<int>(p.query_length);
  const int first_row = blockIdx.y * kRows;
  const int valid = valid_keys(p, b), offset = position_offset(p, b);
  const int head_size = static_cast<int>(p.head_size), value_size = static_cast<int>(p.value_head_size);

  float q[kRows][kSize], out[kRows][kSize] = {}, sum[kRows] = {};
  HeadTerms head[kRows];
  KeyRange range[kRows];
  int position[kRows], query_head[kRows], query[kRows];
  int lo = valid, hi = 0;
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    const int row = min(first_row + r, total_rows - 1);
    query[r] = row / group;
    query_head[r] = kv_head * group + row % group;
    position[r] = query[r] + offset;
    range[r] = key_range(p, valid, position[r]);
    head[r] = head_terms(p, b, query_head[r], valid);
    head[r].bias += row_bias(p, range[r]);
    lo = min(lo, range[r].lo);
    hi = max(hi, range[r].hi);
    uint4 bits = {};
    if (column < head_size)
      bits = *reinterpret_cast<const uint4*>(slice<T>(p.q, p.q_strides, b, query_head[r]) +
                                             query[r] * p.q_strides.row + column);
    Vector<T>::unpack_to(bits, q[r]);
  }
  lo = max(lo, static_cast<int>(blockIdx.x) * args.keys_per_split);
  hi = min(hi, static_cast<int>(blockIdx.x + 1) * args.keys_per_split);

  const KeyRows<T> keys = key_rows<T>(p, b, kv_head), values = value_rows<T>(p, b, kv_head);
  for (int base = lo; base < hi; base += kSlots * kKeysInFlight) {
    uint4 k[kKeysInFlight] = {}, v[kKeysInFlight] = {};
#pragma unroll
    for (int u = 0; u < kKeysInFlight; u++) {
      const int j = base + u * kSlots + key_slot;
      if (j < hi && column < head_size) k[u] = __ldcs(reinterpret_cast<const uint4*>(keys.row(j) + column));
    }
#pragma unroll
    for (int u = 0; u < kKeysInFlight; u++) {
      const int j = base + u * kSlots + key_slot;
      if (j < hi && column < value_size)
        v[u] = __ldcs(reinterpret_cast<const uint4*>(values.row(j) + column));
    }
#pragma unroll
    for (int u = 0; u < kKeysInFlight; u++) {
      const int j = base + u * kSlots + key_slot;
      float x[kSize], y[kSize];
      Vector<T>::unpack_to(k[u], x);
      Vector<T>::unpack_to(v[u], y);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        float score = 0.0f;
#pragma unroll
        for (int e = 0; e < kSize; e++) score = fmaf(q[r][e], x[e], score);
#pragma unroll
        for (int step = kLanes / 2; step > 0; step /= 2) score += __shfl_xor_sync(~0u, score, step);
        float weight = 0.0f;
        if (j >= range[r].lo && j < min(range[r].hi, hi)) {
          float logit = head[r].scale * score;
          if (p.softcap > 0.0f) logit = p.softcap * tanhf(logit / p.softcap);
          logit += head[r].bias - head[r].slope * fabsf(static_cast<float>(position[r] - j));
          float addend = 0.0f;
          if (p.mask_type != SA_MASK_NONE)
            addend = mask_addend<T>(p, b * p.mask_strides[0] + query_head[r] * p.mask_strides[1] +
                                           query[r] * p.mask_strides[2] + j * p.mask_strides[3]);
          if (addend != -INFINITY) weight = decode_weight<T>(logit + addend);
        }
        sum[r] += weight;
        // A value that takes no part may be NaN or Inf.
        if (weight != 0.0f) {
#pragma unroll
          for (int e = 0; e < kSize; e++) out[r][e] = fmaf(weight, y[e], out[r][e]);
        }
      }
    }
  }

  // Add up over the block's key slots.
  __shared__ float shared[kWarps][kRows][kLanes * kSize + 1];
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int step = kLanes; step < 32; step *= 2) {
#pragma unroll
      for (int e = 0; e < kSize; e++) out[r][e] += __shfl_xor_sync(~0u, out[r][e], step);
      sum[r] += __shfl_xor_sync(~0u, sum[r], step);
    }
    if (threadIdx.x % 32 < kLanes) {
#pragma unroll
      for (int e = 0; e < kSize; e++) shared[threadIdx.x / 32][r][column + e] = out[r][e];
      if (lane == 0) shared[threadIdx.x / 32][r][kLanes * kSize] = sum[r];
    }
  }
  __syncthreads();
  for (int index = threadIdx.x; index < kRows * (value_size + 1); index += kThreads) {
    const int r = index / (value_size + 1), c = index % (value_size + 1);
    if (first_row + r >= total_rows) break;
    const int at = c < value_size ? c : kLanes * kSize;
    float total = 0.0f, weights = 0.0f;
    for (int warp = 0; warp < kWarps; warp++) {
      total += shared[warp][r][at];
      weights += shared[warp][r][kLanes * kSize];
    }
    const int i = (first_row + r) / group, h = kv_head * group + (first_row + r) % group;
    if (args.partial != nullptr) {
      const int64_t row = (static_cast<int64_t>(b) * p.query_heads + h) * p.query_length + i;
      const int64_t rows = p.batch * p.query_heads * p.query_length;
      args.partial[(blockIdx.x * rows + row) * (value_size + 1) + c] = total;
    } else if (c < value_size) {
      float factor = p.head_gain ? p.head_gain[h] : 1.0f;
      if (p.normalize) factor = weights == 0.0f ? 0.0f : factor / weights;
      slice<T>(p.y, p.y_strides, b, h)[i * p.y_strides.row + c] = from_float<T>(total * factor);
    }
  }
}

// Adds up the partial sums of 32 columns of a row, several threads a column so that the loads are all in
// flight at once.
constexpr int kCombineColumns = 32, kCombineGroups = 8;

template <class T>
__global__ void __launch_bounds__(kCombineColumns* kCombineGroups)
    combine_kernel(const __grid_constant__ DecodeArguments args) {
  const SaProblem& p = args.problem;
  const int64_t row = blockIdx.x, rows = p.batch * p.query_heads * p.query_length;
  const int width = static_cast<int>(p.value_head_size) + 1;
  const int64_t i = row % p.query_length, h = row / p.query_length % p.query_heads;
  const int64_t b = row / p.query_length / p.query_heads;
  const int column = blockIdx.y * kCombineColumns + threadIdx.x;
  float total = 0.0f, weights = 0.0f;
#pragma unroll 8
  for (int s = threadIdx.y; s < args.splits; s += kCombineGroups) {
    const float* partial = args.partial + (s * rows + row) * width;
    total += partial[min(column, width - 1)];
    if (p.normalize) weights += partial[width - 1];
  }
  __shared__ float totals[kCombineGroups][kCombineColumns], sums[kCombineGroups];
  totals[threadIdx.y][threadIdx.x] = total;
  if (threadIdx.x == 0) sums[threadIdx.y] = weights;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width - 1) return;
  for (int g = 1; g < kCombineGroups; g++) total += totals[g][threadIdx.x];
  float factor = p.head_gain ? p.head_gain[h] : 1.0f;
  if (p.normalize) {
    float sum = 0.0f;
    for (int g = 0; g < kCombineGroups; g++) sum += sums[g];
    factor = sum == 0.0f ? 0.0f : factor / sum;
  }
  slice<T>(p.y, p.y_strides, b, h)[i * p.y_strides.row + column] = from_float<T>(total * factor);
}

int row_count(const SaProblem& p) {
  return static_cast<int>(p.query_length * (p.query_heads / p.kv_heads));
}
int rows_of_block(const SaProblem& p) {
  return row_count(p) <= 1 ? 1 : row_count(p) <= 2 ? 2 : 4;
}

template <class T, int kLanes, int kRows>
cudaError_t launch(const DecodeArguments& args, cudaStream_t stream) {
  const SaProblem& p = args.problem;
  const dim3 grid(args.splits, (row_count(p) + kRows - 1) / kRows,
                  static_cast<unsigned>(p.batch * p.kv_heads));
  decode_kernel<T, kLanes, kRows><<<grid, kThreads, 0, stream>>>(args);
  if (args.partial != nullptr)
    combine_kernel<T>
        <<<dim3(static_cast<unsigned>(p.batch * p.query_heads * p.query_length),
                static_cast<unsigned>((p.value_head_size + kCombineColumns - 1) / kCombineColumns)),
           dim3(kCombineColumns, kCombineGroups), 0, stream>>>(args);
  return cudaGetLastError();
}

template <class T, int kLanes>
cudaError_t launch_rows(const DecodeArguments& args, cudaStream_t stream) {
  switch (rows_of_block(args.problem)) {
    case 1:
      return launch<T, kLanes, 1>(args, stream);
    case 2:
      return launch<T, kLanes, 2>(args, stream);
    default:
      return launch<T, kLanes, 4>(args, stream);
  }
}

template <class T>
cudaError_t launch_lanes(const DecodeArguments& args, cudaStream_t stream) {
  const auto size = std::max(args.problem.head_size, args.problem.value_head_size);
  if (size <= 8 * Vector<T>::kSize) return launch_rows<T, 8>(args, stream);
  if (size <= 16 * Vector<T>::kSize) return launch_rows<T, 16>(args, stream);
  return launch_rows<T, 32>(args, stream);
}

bool rows_aligned(const void* base, const SaStrides& s, int64_t size, int64_t unit) {
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && size % unit == 0 && s.batch % unit == 0 &&
         s.head % unit == 0 && s.row % unit == 0;
}

}  // namespace

bool decode_can_run(const SaProblem& p) {
  const int64_t unit = p.type == SA_FLOAT ? 4 : 8;
  return std::max(p.head_size, p.value_head_size) <= 32 * unit &&
         rows_aligned(p.q, p.q_strides, p.head_size, unit) &&
         rows_aligned(p.k, p.k_strides, p.head_size, unit) &&
         rows_aligned(p.v, p.v_strides, p.value_head_size, unit) &&
         reinterpret_cast<uintptr_t>(p.past_key) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(p.past_value) % 16 == 0 && p.batch * p.kv_heads < 65536 &&
         row_count(p) < 65536 * 4;
}

int decode_splits(const SaProblem& p, int multiprocessors) {
  const int rows = rows_of_block(p);
  const int64_t blocks = p.batch * p.kv_heads * ((row_count(p) + rows - 1) / rows);
  // Four blocks a multiprocessor hide the latency of memory; 128 keys are worth a block.
  const int64_t wanted = multiprocessors * 4 / blocks, most = (p.key_length + 127) / 128;
  return static_cast<int>(std::clamp<int64_t>(std::min(wanted, most), 1, 512));
}

int64_t decode_workspace(const SaProblem& p, int splits) {
  return splits == 1 ? 0 : splits * p.batch * p.query_heads * p.query_length * (p.value_head_size + 1) * 4;
}

cudaError_t launch_decode(const SaProblem& p, float* partial, int splits, cudaStream_t stream) {
  DecodeArguments args = {p, splits == 1 ? nullptr : partial, splits, 0};
  args.keys_per_split = static_cast<int>((p.key_length + splits - 1) / splits);
  switch (p.type) {
    case SA_FLOAT:
      return launch_lanes<float>(args, stream);
    case SA_FLOAT16:
      return launch_lanes<__half>(args, stream);
    default:
      return launch_lanes<__nv_bfloat16>(args, stream);
  }
}

}  // namespace sa

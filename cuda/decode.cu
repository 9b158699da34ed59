// Decoding: few query rows against many keys, where reading keys and values once is all that takes time.
//
// The keys of one (batch, kv head) are split over blocks, which take steps of keys in turn. A few
// neighbouring lanes share a key: each reads 16 bytes of it and of its value, a step ahead of their use. The
// lanes add up the dot products with all rows of the block, and then each adds weight times value. Without a
// maximum to agree on, a row's result is the plain sum of its partial sums; a second small kernel adds those
// up, and is already waiting when the first one ends.
#include <algorithm>

#include "cuda/activation.cuh"
#include "cuda/early_launch.cuh"
#include "cuda/kernels.h"
#include "cuda/meaning.cuh"
#include "cuda/mma/weights.cuh"

namespace sa {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kLeastKeys = 64;  // that are worth a block

// kLong: long caches, one row a head. More blocks with smaller steps read them and prefetch the first steps
// while the kernel before still runs. Short caches are read in two larger steps or so, where prefetches delay
// the loads that follow them.
constexpr int kPrefetchedSteps = 2;
constexpr int kStepsOfLong = 4;  // at least
template <bool kLong>
constexpr int kBlocksAtOnce = kLong ? 8 : 4;  // of one multiprocessor
template <int kRows, bool kLong>
constexpr int kKeysOfStep = kRows > 2 || kLong ? 2 : 4;  // of one group of lanes

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

// Logit -> weight. float32 to the last bits, half types to 1e-6.
template <class T>
__device__ __forceinline__ float decode_weight(float logit) {
  if constexpr (sizeof(T) == 4) {
    const float e = expf(-fabsf(logit));
    return (logit >= 0.0f ? 1.0f : e) / (1.0f + e);
  } else {
    return fast_reciprocal(1.0f + fast_exp2(logit * -kLog2E));
  }
}

// Into the L2 cache, where later writes of another kernel reach the data: it may run ahead of the wait.
__device__ __forceinline__ void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

struct DecodeArguments {
  int splits, group, rows, row_groups;  // row_groups: blocks for the rows of one kv head
  int row_stride, head_rows;            // of partial: rows in all, rows of a query head
  bool general, is_long, early_launch;  // general: ALiBi, softcap or attn_mask
  float* partial;  // [splits, B * Hq * Nq, Dv + 1], the last column the sum of weights; null with one split
  SaProblem problem;
};

// Query rows of one kv head are numbered row = i * group + (head within the group).
template <class T, int kLanes, int kRows, bool kLong>
__global__ void __launch_bounds__(kThreads, kLong ? kBlocksAtOnce<true> : 0)
    decode_kernel(const __grid_constant__ DecodeArguments args) {
  constexpr int kSize = Vector<T>::kSize, kKeysAtOnce = 32 / kLanes;
  constexpr int kSlots = kWarps * kKeysAtOnce;
  constexpr int kKeys = kKeysOfStep<kRows, kLong>;
  allow_next_kernel();
  const SaProblem& p = args.problem;
  if (p.nonpad_kv_seqlen != nullptr) wait_for_previous_kernel();  // may have written it
  const int lane = threadIdx.x % kLanes, column = lane * kSize;
  const int key_slot = threadIdx.x / kLanes;  // which of the block's concurrent keys
  const int b = blockIdx.z, kv_head = blockIdx.y / args.row_groups;
  const int group = args.group, first_row = (blockIdx.y - kv_head * args.row_groups) * kRows;
  const int valid = valid_keys(p, b), offset = position_offset(p, b);
  const int head_size = static_cast<int>(p.head_size), value_size = static_cast<int>(p.value_head_size);

  KeyRange range[kRows];
  int position[kRows], query_head[kRows], query[kRows];
  int lo = valid, hi = 0;
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    const int row = min(first_row + r, args.rows - 1);
    query[r] = row / group;
    query_head[r] = kv_head * group + row % group;
    position[r] = query[r] + offset;
    range[r] = key_range(p, valid, position[r]);
    lo = min(lo, range[r].lo);
    hi = max(hi, range[r].hi);
  }

  // The blocks take steps in turn, so that together they read memory in order.
  const int all_steps = hi > lo ? (hi - lo + kSlots * kKeys - 1) / (kSlots * kKeys) : 0;
  const int steps = (all_steps - static_cast<int>(blockIdx.x) + args.splits - 1) / args.splits;
  const auto key_of = [&](int step, int u) {
    return lo + ((static_cast<int>(blockIdx.x) + step * args.splits) * kKeys + u) * kSlots + key_slot;
  };
  const KeyRows<T> keys = key_rows<T>(p, b, kv_head), values = value_rows<T>(p, b, kv_head);
  uint4 next_key[kKeys] = {}, next_value[kKeys] = {};
  const auto load_step = [&](int step) {
    if (step >= steps) return;
#pragma unroll
    for (int u = 0; u < kKeys; u++) {
      const int j = key_of(step, u);
      if (j < hi && column < head_size)
        next_key[u] = __ldcs(reinterpret_cast<const uint4*>(keys.row(j) + column));
    }
#pragma unroll
    for (int u = 0; u < kKeys; u++) {
      const int j = key_of(step, u);
      if (j < hi && column < value_size)
        next_value[u] = __ldcs(reinterpret_cast<const uint4*>(values.row(j) + column));
    }
  };
  if (kLong && p.nonpad_kv_seqlen == nullptr) {
#pragma unroll 1
    for (int step = 0; step < min(kPrefetchedSteps, steps); step++) {
#pragma unroll
      for (int u = 0; u < kKeys; u++) {
        const int j = key_of(step, u);
        if (j < hi && column < head_size) prefetch(keys.row(j) + column);
        if (j < hi && column < value_size) prefetch(values.row(j) + column);
      }
    }
  }
  wait_for_previous_kernel();
  load_step(0);

  float q[kRows][kSize], out[kRows][kSize] = {}, sum[kRows] = {};
  HeadTerms head[kRows];
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    uint4 bits = {};
    if (column < head_size)
      bits = *reinterpret_cast<const uint4*>(slice<T>(p.q, p.q_strides, b, query_head[r]) +
                                             query[r] * p.q_strides.row + column);
    head[r] = head_terms(p, b, query_head[r], valid);
    head[r].bias += row_bias(p, range[r]);
    Vector<T>::unpack_to(bits, q[r]);
  }

  for (int step = 0; step < steps; step++) {
    uint4 key[kKeys], value[kKeys];
#pragma unroll
    for (int u = 0; u < kKeys; u++) {
      key[u] = next_key[u];
      value[u] = next_value[u];
    }
    load_step(step + 1);
    float score[kKeys][kRows];
#pragma unroll
    for (int u = 0; u < kKeys; u++) {
      float x[kSize];
      Vector<T>::unpack_to(key[u], x);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        float even = 0.0f, odd = 0.0f;
#pragma unroll
        for (int e = 0; e < kSize; e += 2) {
          even = fmaf(q[r][e], x[e], even);
          odd = fmaf(q[r][e + 1], x[e + 1], odd);
        }
        score[u][r] = even + odd;
      }
    }
#pragma unroll
    for (int bit = kLanes / 2; bit > 0; bit /= 2)
#pragma unroll
      for (int i = 0; i < kKeys * kRows; i++)
        score[i / kRows][i % kRows] += __shfl_xor_sync(~0u, score[i / kRows][i % kRows], bit);
    if (args.general) {
#pragma unroll
      for (int i = 0; i < kKeys * kRows; i++) {
        const int u = i / kRows, r = i % kRows, j = min(key_of(step, u), hi - 1);
        float logit = head[r].scale * score[u][r];
        if (p.softcap > 0.0f) logit = p.softcap * tanhf(logit / p.softcap);
        logit += head[r].bias - head[r].slope * fabsf(static_cast<float>(position[r] - j));
        const float addend =
            p.mask_type == SA_MASK_NONE
                ? 0.0f
                : mask_addend<T>(p, b * p.mask_strides[0] + query_head[r] * p.mask_strides[1] +
                                        query[r] * p.mask_strides[2] + j * p.mask_strides[3]);
        score[u][r] = addend == -INFINITY ? addend : logit + addend;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kKeys * kRows; i++) {
        const int u = i / kRows, r = i % kRows;
        score[u][r] = fmaf(score[u][r], head[r].scale, head[r].bias);
      }
    }
#pragma unroll
    for (int u = 0; u < kKeys; u++) {
      const int j = key_of(step, u);
      float y[kSize];
      Vector<T>::unpack_to(value[u], y);
#pragma unroll
      for (int r = 0; r < kRows; r++) {
        const bool inside = j >= range[r].lo && j < range[r].hi;
        const float weight = inside ? decode_weight<T>(score[u][r]) : 0.0f;
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
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (first_row + r >= args.rows) break;
    for (int c = threadIdx.x; c <= value_size; c += kThreads) {
      const int at = c < value_size ? c : kLanes * kSize;
      float total = 0.0f, weights = 0.0f;
#pragma unroll
      for (int warp = 0; warp < kWarps; warp++) {
        total += shared[warp][r][at];
        weights += shared[warp][r][kLanes * kSize];
      }
      const int h = query_head[r];
      if (args.partial != nullptr) {
        const int row = (b * static_cast<int>(p.query_heads) + h) * args.head_rows + query[r];
        args.partial[(static_cast<int64_t>(blockIdx.x) * args.row_stride + row) * (value_size + 1) + c] =
            total;
      } else if (c < value_size) {
        float factor = p.head_gain ? p.head_gain[h] : 1.0f;
        if (p.normalize) factor = weights == 0.0f ? 0.0f : factor / weights;
        slice<T>(p.y, p.y_strides, b, h)[query[r] * p.y_strides.row + c] = from_float<T>(total * factor);
      }
    }
  }
}

// Adds up the partial sums of 32 columns of a row, several threads a column. A thread's loads have to be in
// flight at once, whatever their number: their latency is most of what this kernel takes.
constexpr int kCombineColumns = 32, kCombineGroups = 8, kCombineLoads = 9;

template <class T>
__global__ void __launch_bounds__(kCombineColumns* kCombineGroups)
    combine_kernel(const __grid_constant__ DecodeArguments args) {
  allow_next_kernel();
  const SaProblem& p = args.problem;
  const int row = blockIdx.x, rows = args.row_stride, head = row / args.head_rows,
            i = row - head * args.head_rows;
  const int b = head / static_cast<int>(p.query_heads), h = head - b * static_cast<int>(p.query_heads);
  const int width = static_cast<int>(p.value_head_size) + 1;
  const int column = blockIdx.y * kCombineColumns + threadIdx.x;
  wait_for_previous_kernel();
  const float gain = p.head_gain ? p.head_gain[h] : 1.0f;
  const float* partial = args.partial + int64_t{row} * width;
  const int64_t split = int64_t{rows} * width;
  float total = 0.0f, weights = 0.0f;
  for (int first = threadIdx.y; first < args.splits; first += kCombineLoads * kCombineGroups) {
    // Without branches, which would come between the loads: what is past the end is read and not counted.
    const auto load = [&](float(&part)[kCombineLoads], int column) {
#pragma unroll
      for (int u = 0; u < kCombineLoads; u++)
        part[u] = __ldcg(partial + min(first + u * kCombineGroups, args.splits - 1) * split + column);
    };
    const auto sum_of = [&](const float(&part)[kCombineLoads]) {
      float sum = 0.0f;
#pragma unroll
      for (int u = 0; u < kCombineLoads; u++)
        sum += first + u * kCombineGroups < args.splits ? part[u] : 0.0f;
      return sum;
    };
    float part[kCombineLoads], weight[kCombineLoads] = {};
    load(part, min(column, width - 1));
    if (p.normalize) load(weight, width - 1);
    total += sum_of(part);
    weights += sum_of(weight);
  }
  __shared__ float totals[kCombineGroups][kCombineColumns], sums[kCombineGroups];
  totals[threadIdx.y][threadIdx.x] = total;
  if (threadIdx.x == 0) sums[threadIdx.y] = weights;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width - 1) return;
  float sum = 0.0f;
  total = 0.0f;
#pragma unroll
  for (int g = 0; g < kCombineGroups; g++) {
    total += totals[g][threadIdx.x];
    sum += sums[g];
  }
  const float factor = !p.normalize ? gain : sum == 0.0f ? 0.0f : gain / sum;
  slice<T>(p.y, p.y_strides, b, h)[i * p.y_strides.row + column] = from_float<T>(total * factor);
}

int row_count(const SaProblem& p) {
  return static_cast<int>(p.query_length * (p.query_heads / p.kv_heads));
}
int rows_of_block(const SaProblem& p) {
  return row_count(p) <= 1 ? 1 : row_count(p) <= 2 ? 2 : 4;
}

template <class T, int kLanes, int kRows, bool kLong>
cudaError_t launch(const DecodeArguments& args, cudaStream_t stream) {
  const SaProblem& p = args.problem;
  const dim3 grid(args.splits, static_cast<unsigned>(args.row_groups * p.kv_heads),
                  static_cast<unsigned>(p.batch));
  const cudaError_t error = launch_early(decode_kernel<T, kLanes, kRows, kLong>, grid, kThreads, 0,
                                         args.early_launch, stream, args);
  if (error != cudaSuccess || args.partial == nullptr) return error;

  const dim3 sums(static_cast<unsigned>(p.batch * p.query_heads * p.query_length),
                  static_cast<unsigned>((p.value_head_size + kCombineColumns - 1) / kCombineColumns));
  return launch_early(combine_kernel<T>, sums, dim3(kCombineColumns, kCombineGroups), 0, args.early_launch,
                      stream, args);
}

// A key of `size` elements is shared by as many lanes as have 16 bytes of it.
int lanes_of_key(const SaProblem& p) {
  const int64_t size = std::max(p.head_size, p.value_head_size), unit = p.type == SA_FLOAT ? 4 : 8;
  return size <= 8 * unit ? 8 : size <= 16 * unit ? 16 : 32;
}

template <class T, int kLanes>
cudaError_t launch_rows(const DecodeArguments& args, cudaStream_t stream) {
  switch (rows_of_block(args.problem)) {
    case 1:
      if constexpr (sizeof(T) == 2) {
        if (args.is_long) return launch<T, kLanes, 1, true>(args, stream);
      }
      return launch<T, kLanes, 1, false>(args, stream);
    case 2:
      return launch<T, kLanes, 2, false>(args, stream);
    default:
      return launch<T, kLanes, 4, false>(args, stream);
  }
}

template <class T>
cudaError_t launch_lanes(const DecodeArguments& args, cudaStream_t stream) {
  switch (lanes_of_key(args.problem)) {
    case 8:
      return launch_rows<T, 8>(args, stream);
    case 16:
      return launch_rows<T, 16>(args, stream);
    default:
      return launch_rows<T, 32>(args, stream);
  }
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
         reinterpret_cast<uintptr_t>(p.past_value) % 16 == 0 && p.batch < 65536 &&
         p.query_heads * p.query_length < 65536 &&
         p.batch * p.query_heads * p.query_length < (int64_t{1} << 31);
}

DecodePlan decode_plan(const SaProblem& p, int multiprocessors) {
  const int rows = rows_of_block(p);
  const int64_t blocks = p.batch * p.kv_heads * ((row_count(p) + rows - 1) / rows),
                most = (p.key_length + kLeastKeys - 1) / kLeastKeys;
  const auto splits = [&](bool is_long) {
    const int64_t wanted = multiprocessors * (is_long ? kBlocksAtOnce<true> : kBlocksAtOnce<false>) / blocks;
    return static_cast<int>(std::clamp<int64_t>(std::min(wanted, most), 1, 512));
  };
  const int64_t step = int64_t{kThreads / lanes_of_key(p)} * kKeysOfStep<1, true>;
  const bool is_long = rows == 1 && p.type != SA_FLOAT && p.key_length >= kStepsOfLong * step * splits(true);
  return {splits(is_long), is_long};
}

int64_t decode_workspace(const SaProblem& p, const DecodePlan& plan) {
  return plan.splits == 1
             ? 0
             : plan.splits * p.batch * p.query_heads * p.query_length * (p.value_head_size + 1) * 4;
}

cudaError_t launch_decode(const SaProblem& p, float* partial, const DecodePlan& plan, bool early_launch,
                          cudaStream_t stream) {
  DecodeArguments args;
  args.problem = p;
  args.partial = plan.splits == 1 ? nullptr : partial;
  args.splits = plan.splits;
  args.is_long = plan.is_long;
  args.group = static_cast<int>(p.query_heads / p.kv_heads);
  args.rows = row_count(p);
  args.row_groups = (args.rows + rows_of_block(p) - 1) / rows_of_block(p);
  args.head_rows = static_cast<int>(p.query_length);
  args.row_stride = static_cast<int>(p.batch * p.query_heads * p.query_length);
  args.general = p.softcap > 0.0f || p.mask_type != SA_MASK_NONE || p.alibi_slopes != nullptr;
  args.early_launch = early_launch;
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

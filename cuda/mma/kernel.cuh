// The mma.sync kernel, for compute capability 8.0 and up: four warps, each with 16 or 32 query rows, walk the
// keys that the block's rows see. Copies of the next keys and values run behind the products of these.
//
// A sigmoid needs no row maximum, so sixteen columns of scores become weights while products of other columns
// are under way: of the next keys with the queries, or of the last weights with their values. Scores and
// output lie in the same fragments as in the Hopper kernel, so that masks and the store are shared with it.
#pragma once

#include "cuda/epilogue.cuh"
#include "cuda/mma/products.cuh"

namespace sa {

// Weights of 16 columns of scores: all of them, or the slice-th of kSlices shares.
template <int kSlices, class Weights, int kTiles, int kCount>
__device__ __forceinline__ void weigh(uint32_t (&weights)[kTiles][4], const float (&score)[kTiles][kCount],
                                      int at, const Weights* policy, float& top, int slice) {
  constexpr int kShare = 4 * kTiles / kSlices;
#pragma unroll
  for (int pair = slice * kShare; pair < (slice + 1) * kShare; pair++) {
    const int t = pair / 4, i = pair % 4;
    weights[t][i] = policy[t].pair(&score[t][at + 2 * i], i % 2, top);
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    mma_kernel(const __grid_constant__ TensorInputs args) {
  using T = typename Shape::Element;
  using Weights = typename Shape::Weights;
  constexpr int kKeys = Shape::kKeys, kTiles = Shape::kTiles, kChunks = Shape::kChunks,
                kDepths = Shape::kDepths;
  extern __shared__ __align__(1024) unsigned char shared[];
  const SaProblem& p = args.problem;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int h = blockIdx.y, b = blockIdx.z, kv_head = h / static_cast<int>(p.query_heads / p.kv_heads);
  // The last rows first: under a causal mask they have most work.
  const int first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Shape::kRows;
  const int length = static_cast<int>(p.query_length), keys = static_cast<int>(p.key_length);
  const int valid = valid_keys(p, b), offset = position_offset(p, b);
  const HeadTerms head = head_terms(p, b, h, valid);

  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t k_tile = base, v_tile = k_tile + 2 * Shape::kStageBytes;
  const uint32_t q_tile = Shape::kKeepQueries ? k_tile + Shape::kStageBytes : v_tile + 2 * Shape::kStageBytes;
  using Copier = RowCopier<Shape::kHeadSize, Shape::kThreads>;
  const Copier k_rows(slice<T>(args.keys, args.key_strides, b, kv_head), static_cast<int>(p.head_size));
  const Copier v_rows(slice<T>(args.values, args.value_strides, b, kv_head),
                      static_cast<int>(p.value_head_size));
  const int lo = key_range(p, valid, first_row + offset).lo;
  const int hi = key_range(p, valid, min(first_row + Shape::kRows, length) - 1 + offset).hi;
  const int first_step = lo / kKeys, end_step = hi > lo ? (hi + kKeys - 1) / kKeys : first_step;
  const auto copy_step = [&](int step) {
    const uint32_t buffer = (step - first_step) % 2 * Shape::kStageBytes;
    k_rows.template copy<kKeys>(k_tile + buffer, step * kKeys, keys, args.key_strides.row);
    v_rows.template copy<kKeys>(v_tile + buffer, step * kKeys, keys, args.value_strides.row);
    copy_commit();
  };
  if (first_step < end_step) {
    const Copier q_rows(slice<T>(args.queries, args.query_strides, b, h), static_cast<int>(p.head_size));
    q_rows.template copy<Shape::kRows>(q_tile, first_row, length, args.query_strides.row);
    copy_step(first_step);
  }

  // Worked out where it is needed, which is seldom: opaque, so that the compiler keeps nothing in registers.
  const auto fragment_rows = [&](int t) {
    int thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    const int row = first_row + (thread / 32 * kTiles + t) * 16 + thread % 32 / 4;
    return FragmentRows{b, h, valid, offset, {row, row + 8}, thread % 4 * 2};
  };
  // A slope of 0 would turn an excluding score into NaN.
  const float slope = Shape::kGeneral ? 1.0f : head.scale == 0.0f ? 1e-30f : head.scale * kLog2E;
  Weights policy[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; t++) {
    float intercept[2] = {};
    if constexpr (!Shape::kGeneral) {
      const FragmentRows rows = fragment_rows(t);
#pragma unroll
      for (int r = 0; r < 2; r++)
        intercept[r] = (head.bias + row_bias(p, key_range(p, valid, rows.row[r] + offset))) * kLog2E;
    }
    policy[t] = Weights(slope, intercept[0], intercept[1]);
    if constexpr (Shape::kGeneral) {
      if (p.normalize) policy[t].start_normalized();
    }
  }

  const int warp_row = first_row + warp * kTiles * 16 + offset;
  const int seen_from = key_range(p, valid, warp_row + 16 * kTiles - 1).lo,
            seen_to = key_range(p, valid, warp_row).hi;
  const MmaWarp<Shape> mma(q_tile, warp, lane);

  float out[kTiles][Shape::kHeadSize / 2] = {}, sum[kTiles][2] = {};
  const auto add_sums = [&](const uint32_t(&weights)[kTiles][4]) {
    if constexpr (Shape::kGeneral) {
      if (p.normalize) {
#pragma unroll
        for (int i = 0; i < 4 * kTiles; i++) sum[i / 4][i % 2] += pair_sum<T>(weights[i / 4][i % 4]);
      }
    }
  };
  const auto hide = [&](auto& score, int first_key, int count) {
    if (!Shape::kGeneral && first_key >= seen_from && first_key + count <= seen_to) return;
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
      if constexpr (Shape::kGeneral) {
        general_logits<T>(score[t], p, fragment_rows(t), first_key, head);
        if (Weights::kHalf && p.normalize) policy[t].fit(score[t], out[t], sum[t]);
      } else {
        hide_keys_out_of_range(score[t], p, fragment_rows(t), first_key, slope);
      }
    }
  };

  uint32_t q[Shape::kKeptDepths][kTiles][4];
  for (int step = first_step; step < end_step; step++) {
    copy_wait<0>();
    __syncthreads();
    if (Shape::kKeepQueries && step == first_step) {
#pragma unroll
      for (int depth = 0; depth < Shape::kKeptDepths; depth++) mma.load_queries(q[depth], depth);
      __syncthreads();
    }
    if (step + 1 < end_step) copy_step(step + 1);
    const uint32_t buffer = (step - first_step) % 2 * Shape::kStageBytes;
    const uint32_t k = k_tile + buffer + mma.column_lane, v = v_tile + buffer + mma.row_lane;
    const int first_key = step * kKeys;
    float top = 0.0f;  // exponential of the step, where the weights are a guess

    uint32_t weights[kTiles][4];
    if constexpr (Shape::kKeepQueries) {
      float score[2][kTiles][8] = {};
#pragma unroll
      for (int depth = 0; depth < kDepths; depth++) mma.add_scores(score[0], 0, q[depth], k, 0, depth);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; chunk++) {
        auto &now = score[chunk % 2], &next = score[1 - chunk % 2];
        hide(now, first_key + 16 * chunk, 16);
#pragma unroll
        for (int i = 0; i < 8 * kTiles; i++) next[i / 8][i % 8] = 0.0f;
#pragma unroll
        for (int depth = 0; depth < kDepths; depth++) {
          weigh<kDepths>(weights, now, 0, policy, top, depth);
          if (chunk + 1 < kChunks) mma.add_scores(next, 0, q[depth], k, chunk + 1, depth);
        }
        add_sums(weights);
#pragma unroll
        for (int depth = 0; depth < kDepths; depth++) mma.add_output(out, weights, v, chunk, depth);
      }
    } else {
      float score[kTiles][kKeys / 2] = {};
#pragma unroll
      for (int depth = 0; depth < kDepths; depth++) {
        mma.load_queries(q[0], depth);
#pragma unroll
        for (int chunk = 0; chunk < kChunks; chunk++) mma.add_scores(score, 8 * chunk, q[0], k, chunk, depth);
      }
      hide(score, first_key, kKeys);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; chunk++) {
        weigh<1>(weights, score, 8 * chunk, policy, top, 0);
        add_sums(weights);
#pragma unroll
        for (int depth = 0; depth < kDepths; depth++) mma.add_output(out, weights, v, chunk, depth);
      }
    }
    if constexpr (Weights::kGuess) {
      if (__builtin_expect(__any_sync(~0u, Weights::wrong(top)), 0)) {
#pragma unroll 1
        for (int chunk = 0; chunk < kChunks; chunk++) {
          float score[kTiles][8] = {};
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) {
            if constexpr (!Shape::kKeepQueries) mma.load_queries(q[0], depth);
            mma.add_scores(score, 0, q[Shape::kKeepQueries ? depth : 0], k, chunk, depth);
          }
          hide(score, first_key + 16 * chunk, 16);
#pragma unroll
          for (int i = 0; i < 4 * kTiles; i++)
            weights[i / 4][i % 4] = policy[i / 4].lack(&score[i / 4][i % 4 * 2], i % 2);
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) mma.add_output(out, weights, v, chunk, depth);
        }
      }
    }
  }

  const bool wide = p.value_head_size % 8 == 0 && p.y_strides.row % 8 == 0 && p.y_strides.head % 8 == 0 &&
                    p.y_strides.batch % 8 == 0 && reinterpret_cast<uintptr_t>(p.y) % 16 == 0;
#pragma unroll
  for (int t = 0; t < kTiles; t++) {
    const float unscale = head.gain * (1.0f / Weights::kScale);
    float factor[2] = {unscale, unscale};
    if (Shape::kGeneral && p.normalize) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        sum[t][r] += __shfl_xor_sync(~0u, sum[t][r], 1);
        sum[t][r] += __shfl_xor_sync(~0u, sum[t][r], 2);
        factor[r] = sum[t][r] == 0.0f ? 0.0f : head.gain / sum[t][r];
      }
    }
    const FragmentRows rows = fragment_rows(t);
    flag_output<Shape::kHeadSize>(out[t], p, b, h, rows.row[0] - lane / 4, args.flags);
    if (wide)
      store_output<T, Shape::kHeadSize>(out[t], factor, p, b, h, rows.row[0]);
    else
      store_narrow<T, Shape::kHeadSize>(out[t], factor, p, rows);
  }
}

}  // namespace sa

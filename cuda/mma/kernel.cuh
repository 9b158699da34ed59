// The mma.sync kernel, for compute capability 8.0 and up: four warps, each with 16 or 32 query rows, walk the
// keys that the block's rows see. Copies of the next keys and values run behind the products of these.
//
// A sigmoid needs no row maximum, so sixteen columns of scores become weights while products of other columns
// are under way: of the next keys with the queries, or of the last weights with their values. Scores and
// output lie in the same fragments as in the Hopper kernel, so that masks and the store are shared with it.
//
// Steps of keys that all rows of a warp see take an unrolled path without masks; those at the edge of a mask
// a rolled one, chunk by chunk, that leaves out what no row sees.
#pragma once

#include "cuda/early_launch.cuh"
#include "cuda/epilogue.cuh"
#include "cuda/mma/place.cuh"
#include "cuda/mma/products.cuh"
#include "cuda/mma/segments.cuh"

namespace sa {

// A branch that is never taken: ptxas then mixes the instructions of one chunk with those of its neighbours
// only, and needs fewer registers.
__device__ __forceinline__ void keep_apart(int first_key) {
  asm volatile("{.reg .pred never; setp.eq.s32 never, %0, 0x7fffff00; @never trap;}" ::"r"(first_key));
}

// Weights of 16 columns of scores: all of them, or the slice-th of kSlices shares.
template <int kSlices, class Weights, int kTiles, int kCount>
__device__ __forceinline__ void weigh(uint32_t (&weights)[kTiles][4], const float (&score)[kTiles][kCount],
                                      int at, const Weights* policy, int& top, int slice) {
  constexpr int kShare = (4 * kTiles + kSlices - 1) / kSlices;
#pragma unroll
  for (int pair = slice * kShare; pair < (slice + 1) * kShare && pair < 4 * kTiles; pair++) {
    const int t = pair / 4, i = pair % 4;
    weights[t][i] = policy[t].pair(&score[t][at + 2 * i], i % 2, top);
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    mma_kernel(const __grid_constant__ MmaArguments args) {
  using T = typename Shape::Element;
  using Weights = typename Shape::Weights;
  constexpr int kKeys = Shape::kKeys, kTiles = Shape::kTiles, kChunks = Shape::kChunks,
                kDepths = Shape::kDepths;
  extern __shared__ __align__(1024) unsigned char shared[];
  allow_next_kernel();
  wait_for_previous_kernel();
  const SaProblem& p = args.problem;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const BlockPlace place = block_place<Shape>(args);
  const int h = place.head, b = place.batch, first_row = place.first_row, valid = place.valid,
            offset = place.offset;
  const int kv_head = h / static_cast<int>(p.query_heads / p.kv_heads);
  const int length = static_cast<int>(p.query_length), keys = static_cast<int>(p.key_length);
  __shared__ BlockPlace shared_place;
  if (threadIdx.x == 0) shared_place = place;
  __syncthreads();
  const HeadTerms head = head_terms(p, b, h, valid);

  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t k_tile = base, v_tile = k_tile + 2 * Shape::kStageBytes;
  const uint32_t q_tile = Shape::kKeepQueries ? k_tile + Shape::kStageBytes : v_tile + 2 * Shape::kStageBytes;
  using Copier = RowCopier<Shape::kHeadSize, Shape::kThreads>;
  const Copier k_rows(slice<T>(args.keys, args.key_strides, b, kv_head), static_cast<int>(p.head_size));
  const Copier v_rows(slice<T>(args.values, args.value_strides, b, kv_head),
                      static_cast<int>(p.value_head_size));
  constexpr bool kSeesAll = Shape::kSight == Sight::kAll;
  const int lo = kSeesAll ? 0 : key_range(p, valid, first_row + offset).lo;
  const int hi = kSeesAll ? keys : key_range(p, valid, min(first_row + Shape::kRows, length) - 1 + offset).hi;
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

  // A slope of 0 would turn an excluding score into NaN.
  const float slope = Shape::kGeneral ? 1.0f : head.scale == 0.0f ? 1e-30f : head.scale * kLog2E;
  Weights policy[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; t++) {
    float intercept[2] = {};
    if constexpr (Shape::kSight != Sight::kRowBias) {
      intercept[0] = intercept[1] = (head.bias + row_bias(p, KeyRange{0, keys})) * kLog2E;
    } else if constexpr (!Shape::kGeneral) {
      const FragmentRows rows = fragment_rows<Shape>(shared_place, t);
#pragma unroll
      for (int r = 0; r < 2; r++)
        intercept[r] = (head.bias + row_bias(p, key_range(p, valid, rows.row[r] + offset))) * kLog2E;
    }
    policy[t] = Weights(slope, intercept[0], intercept[1]);
    if constexpr (Shape::kGeneral) {
      if (p.normalize) policy[t].start_normalized();
    }
  }

  // Keys that all rows of the warp see.
  const int warp_position = first_row + warp * (16 * kTiles) + offset;
  const int seen_from = key_range(p, valid, warp_position + 16 * kTiles - 1).lo,
            seen_to = key_range(p, valid, warp_position).hi;
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
  // first_key is that of the scores' first column.
  const auto hide = [&](auto& score, int first_key) {
#pragma unroll
    for (int t = 0; t < kTiles; t++)
      hide_keys_out_of_range(score[t], p, fragment_rows<Shape>(shared_place, t), first_key, slope);
  };
  const auto make_logits = [&](auto& score, int first_key) {
    if constexpr (Shape::kGeneral) {
#pragma unroll
      for (int t = 0; t < kTiles; t++) {
        general_logits<T>(score[t], p, fragment_rows<Shape>(shared_place, t), first_key, head);
        if (Weights::kHalf && p.normalize) policy[t].fit(score[t], out[t], sum[t]);
      }
    }
  };

  __shared__ int segment_place;
  constexpr int kSegmentSteps = kSegmentKeys / kKeys, kPlaceSums = Shape::kRows * Shape::kHeadSize;
  static_assert(Shape::kBlocks <= kSegmentPlaces && Shape::kBlocks * kPlaceSums <= kSegmentSums);
  const auto in_segments = [&] {
    return Weights::kSegments && args.partial != nullptr && end_step - first_step > kSegmentSteps;
  };
  if (in_segments()) take_place(args.places, args.multiprocessors * Shape::kBlocks, segment_place);
  const auto join = [&](bool first, bool last) {
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
      float* kept = args.partial + segment_place * kPlaceSums + t * (kPlaceSums / kTiles);
      join_segment<Shape::kThreads>(out[t], kept, first, last,
                                    [&](int i) { return policy[t].since_segment(i / 2 % 2); });
      policy[t].start_segment();
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
    const bool seen = kSeesAll || (first_key >= seen_from && first_key + kKeys <= seen_to);
    bool wrong = false;
    if (seen || Shape::kGeneral) {
      int top = INT_MIN;  // of the scores, where the weights are a guess

      if constexpr (Shape::kKeepQueries) {
        // While a chunk's scores become weights, those of the next are made, and the weights of the one
        // before (kDelay) meet their values.
        float score[2][kTiles][8] = {};
        uint32_t weights[2][kTiles][4];
#pragma unroll
        for (int depth = 0; depth < kDepths; depth++) mma.add_scores(score[0], 0, q[depth], k, 0, depth);
#pragma unroll
        for (int chunk = 0; chunk < kChunks; chunk++) {
          auto &now = score[chunk % 2], &next = score[1 - chunk % 2];
          auto &made = weights[chunk % 2], &before = weights[1 - chunk % 2];
          keep_apart(first_key + 16 * chunk);
#pragma unroll
          for (int i = 0; i < 8 * kTiles; i++) next[i / 8][i % 8] = 0.0f;
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) {
            weigh<kDepths>(made, now, 0, policy, top, depth);
            if (chunk + 1 < kChunks) mma.add_scores(next, 0, q[depth], k, chunk + 1, depth);
            if (Shape::kDelay && chunk > 0) mma.add_output(out, before, v, chunk - 1, depth);
          }
          if (Shape::kDelay && chunk + 1 < kChunks) continue;
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) mma.add_output(out, made, v, chunk, depth);
        }
      } else {
        float score[kTiles][kKeys / 2] = {};
        uint32_t weights[kTiles][4];
#pragma unroll
        for (int depth = 0; depth < kDepths; depth++) {
          mma.load_queries(q[0], depth);
#pragma unroll
          for (int chunk = 0; chunk < kChunks; chunk++)
            mma.add_scores(score, 8 * chunk, q[0], k, chunk, depth);
        }
        make_logits(score, first_key);
#pragma unroll
        for (int chunk = 0; chunk < kChunks; chunk++) {
          weigh<1>(weights, score, 8 * chunk, policy, top, 0);
          add_sums(weights);
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) mma.add_output(out, weights, v, chunk, depth);
        }
      }
      if constexpr (Weights::kGuess) {
#pragma unroll
        for (int t = 0; t < kTiles; t++) wrong |= policy[t].wrong(top);
        wrong = __any_sync(~0u, wrong);
      }
    }
    if constexpr (!Shape::kGeneral) {
      // A step with keys that some row does not see, without those that none does, or what a wrong guess
      // lacked.
      if (!seen || __builtin_expect(wrong, 0)) {
        int from = 0, to = kChunks;
        if (!seen) {
          const volatile BlockPlace& at = shared_place;
          const int position = at.first_row + at.offset + warp * (16 * kTiles), all = at.valid;
          from = max(key_range(p, all, position).lo - first_key, 0) / 16;
          to = min((key_range(p, all, position + 16 * kTiles - 1).hi - first_key + 15) / 16, kChunks);
        }
#pragma unroll 1
        for (int chunk = from; chunk < to; chunk++) {
          float score[kTiles][8] = {};
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) {
            if constexpr (!Shape::kKeepQueries) mma.load_queries(q[0], depth);
            mma.add_scores(score, 0, q[Shape::kKeepQueries ? depth : 0], k, chunk, depth);
          }
          if (!seen) hide(score, first_key + 16 * chunk);
          uint32_t weights[kTiles][4];
#pragma unroll
          for (int i = 0; i < 4 * kTiles; i++)
            weights[i / 4][i % 4] = policy[i / 4].exact(&score[i / 4][i % 4 * 2], i % 2, wrong);
#pragma unroll
          for (int depth = 0; depth < kDepths; depth++) mma.add_output(out, weights, v, chunk, depth);
        }
      }
    }
    if (in_segments() && (step + 1 - first_step) % kSegmentSteps == 0 && step + 1 < end_step) {
      join(step + 1 - first_step == kSegmentSteps, false);
#pragma unroll
      for (int i = 0; i < kTiles * Shape::kHeadSize / 2; i++)
        out[i / (Shape::kHeadSize / 2)][i % (Shape::kHeadSize / 2)] = 0.0f;
    }
  }

  if (in_segments()) {
    join(false, true);
    free_place(args.places, segment_place);
  }

  const bool wide = p.value_head_size % 8 == 0 && p.y_strides.row % 8 == 0 && p.y_strides.head % 8 == 0 &&
                    p.y_strides.batch % 8 == 0 && reinterpret_cast<uintptr_t>(p.y) % 16 == 0;
#pragma unroll
  for (int t = 0; t < kTiles; t++) {
    const FragmentRows rows = fragment_rows<Shape>(shared_place, t);
    const float gain = p.head_gain ? p.head_gain[rows.head] : 1.0f, unscale = gain * (1.0f / Weights::kScale);
    float factor[2] = {unscale, unscale};
    if (Shape::kGeneral && p.normalize) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        sum[t][r] += __shfl_xor_sync(~0u, sum[t][r], 1);
        sum[t][r] += __shfl_xor_sync(~0u, sum[t][r], 2);
        factor[r] = sum[t][r] == 0.0f ? 0.0f : gain / sum[t][r];
      }
    }
    flag_output<Shape::kHeadSize>(out[t], p, rows.batch, rows.head, rows.row[0] - lane / 4, args.flags);
    if (wide)
      store_output<T, Shape::kHeadSize>(out[t], factor, p, rows.batch, rows.head, rows.row[0]);
    else
      store_narrow<T, Shape::kHeadSize>(out[t], factor, p, rows);
  }
}

}  // namespace sa

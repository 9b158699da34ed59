// A consumer warpgroup: 64 query rows of every tile against all keys that they see.
//
// Sigmoid needs no row maximum, so nothing waits for a whole row of scores: as soon as sixteen columns of
// scores are weights, their product with sixteen rows of values is issued. It runs while the next columns are
// converted, and behind it the scores of the next step, or of the next tile's first: a warpgroup always has
// products queued, and only ever waits for scores. Products complete in the order of issue:
//
//   QK(0) | PV(0,0) .. PV(0,n-1) | QK(1) | PV(1,0) ..
#pragma once

#include "cuda/hopper/output.cuh"
#include "cuda/scores.cuh"

namespace sa {

// What a warpgroup keeps in registers of the tile that it works on.
template <class Shape>
struct TileWork {
  int first_key, steps;
  int seen_from, seen_to;  // keys that all 64 rows see; a step inside needs no masking
  Affine affine;

  __device__ __forceinline__ TileWork(const SaProblem& p, const Tile& tile, int group) {
    first_key = tile.first_step * Shape::kKeys;
    steps = tile.steps;
    const int top = tile.first_row + 64 * group + tile.offset;
    seen_from = key_range(p, tile.valid, top + 63).lo;
    seen_to = key_range(p, tile.valid, top).hi;
    affine = {1.0f, {0.0f, 0.0f}, 0};
    if constexpr (!Shape::kGeneral) {
      // A slope of 0 would turn an excluding score into NaN.
      affine.slope = tile.terms.scale == 0.0f ? 1e-30f : tile.terms.scale * kLog2E;
      affine.intercept[0] = affine.intercept[1] = tile.terms.bias * kLog2E;
      if (p.bias_mode == SA_BIAS_NEG_LOG_VISIBLE) {
        const FragmentRows rows = tile_rows(tile, group);
#pragma unroll
        for (int r = 0; r < 2; r++)
          affine.intercept[r] += row_bias(p, key_range(p, rows.valid, rows.row[r] + rows.offset)) * kLog2E;
      }
    }
    affine = Shape::Activation::prepare(affine);
  }

  // Whether a row does not see all keys of a step.
  __device__ __forceinline__ bool is_masked(int step) const {
    const int key = first_key + step * Shape::kKeys;
    return key < seen_from || key + Shape::kKeys > seen_to;
  }
};

template <class Shape>
class Consumer {
  using Element = typename Shape::Element;
  using Activation = typename Shape::Activation;
  using Scores = float[Shape::kKeys / 2];
  using Output = float[Shape::kHeadSize / 2];

  const HopperArguments& args_;
  HopperShared<Shape>& shared_;
  const int group_;
  Ring<Shape::kStages> k_, v_;
  Ring<Shape::kSlots> q_;  // where the next tile will be
  int slot_ = 0;           // where this one is

  __device__ __forceinline__ static void arrive(Barrier& barrier) {
    if (threadIdx.x % 32 == 0) barrier_arrive(&barrier);
  }

  // Waits for the queries of the next tile; false when there is none.
  __device__ __forceinline__ bool next_tile() {
    slot_ = q_.stage;
    barrier_wait(&shared_.q_full[slot_], q_.parity);
    q_.advance();
    return shared_.tile[slot_].more;
  }

  __device__ __forceinline__ void issue_scores(Scores& score) {
    using Mma = Wgmma<Element, Shape::kKeys>;
    barrier_wait(&shared_.k_full[k_.stage], k_.parity);
    const uint32_t q = shared_address(&shared_.q[slot_][0][64 * group_][0]),
                   k = shared_address(shared_.k[k_.stage]);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < Shape::kHeadSize; d += 16) {
      const uint32_t inside = d % kAtomElements * sizeof(Element);
      const uint64_t a =
          tile_descriptor(q + d / kAtomElements * Shape::kRows * kAtomBytes + inside, 8 * kAtomBytes, 0);
      const uint64_t b =
          tile_descriptor(k + d / kAtomElements * Shape::kKeys * kAtomBytes + inside, 8 * kAtomBytes, 0);
      Mma::from_shared(score, a, b, d > 0);
    }
    wgmma_commit();
  }

  // Waits for the scores, and so for all products issued before them, and hands back what these read.
  __device__ __forceinline__ void wait_for_scores(Scores& score, bool values_read) {
    wgmma_wait<0>();
    pin(score);
    arrive(shared_.k_empty[k_.stage]);
    k_.advance();
    if (values_read) {
      arrive(shared_.v_empty[v_.stage]);
      v_.advance();
    }
  }
  __device__ __forceinline__ void wait_for_values() {
    barrier_wait(&shared_.v_full[v_.stage], v_.parity);
  }

  __device__ __forceinline__ void issue_output(Output& out, const uint32_t (&weights)[4], int chunk,
                                               bool add) {
    using Mma = Wgmma<Element, Shape::kHeadSize>;
    const uint32_t v = shared_address(shared_.v[v_.stage]) + chunk * 16 * kAtomBytes;
    Mma::template from_registers<1>(out, weights,
                                    tile_descriptor(v, 8 * kAtomBytes, Shape::kKeys * kAtomBytes), add);
  }

  // Weights of a step, unit by unit, each followed by its products. The next unit's exponentials are started
  // before this unit is finished, so that their latency is covered.
  template <bool kUnusual>
  __device__ __forceinline__ void weigh(Scores& score, Output& out, float (&sum)[2], const Affine& affine,
                                        bool add) {
    uint32_t weights[Shape::kChunks][4];
    start<0>(score, affine);
    weigh_units<kUnusual, 0>(score, weights, out, sum, affine, add);
    if (Shape::kTurns == 1) pass_turn();
  }

  // Starts the unit whose first chunk is kFirst.
  template <int kFirst>
  __device__ __forceinline__ static void start(Scores& score, const Affine& affine) {
#pragma unroll
    for (int chunk = kFirst; chunk < min(kFirst + Shape::kUnit, Shape::kChunks); chunk++)
      Activation::start(&score[8 * chunk], affine);
  }

  // The unit whose first chunk is kFirst, and those behind it.
  template <bool kUnusual, int kFirst>
  __device__ __forceinline__ void weigh_units(Scores& score, uint32_t (&weights)[Shape::kChunks][4],
                                              Output& out, float (&sum)[2], const Affine& affine, bool add) {
    constexpr int kEnd = kFirst + Shape::kUnit < Shape::kChunks ? kFirst + Shape::kUnit : Shape::kChunks;
    constexpr bool kLast = kEnd == Shape::kChunks;
    start<kEnd>(score, affine);
    if (kLast && Shape::kTurns == 2) pass_turn();
    if constexpr (Shape::kAsks)
      Activation::template finish<kEnd - kFirst, kUnusual>(&score[8 * kFirst], affine, &weights[kFirst]);
    else
      Activation::template finish<kEnd - kFirst>(&score[8 * kFirst], affine, &weights[kFirst]);
    wgmma_fence();
#pragma unroll
    for (int chunk = kFirst; chunk < kEnd; chunk++) {
      if constexpr (Shape::kNormalizes) {
        if (args_.problem.normalize)
          for (int i = 0; i < 4; i++) sum[i % 2] += pair_sum<Element>(weights[chunk][i]);
      }
      issue_output(out, weights[chunk], chunk, add || chunk > 0);
    }
    if constexpr (kLast)
      wgmma_commit();
    else
      weigh_units<kUnusual, kEnd>(score, weights, out, sum, affine, add);
  }

  // Warpgroups converting at the same time would leave the tensor cores idle at the same time: they take
  // turns.
  __device__ __forceinline__ void take_turn() const {
    if constexpr (Shape::kTurns) named_barrier_sync(1 + group_, 256);
  }
  __device__ __forceinline__ void pass_turn() const {
    if constexpr (Shape::kTurns)
      named_barrier_arrive(1 + (group_ + 1 == Shape::kGroups ? 0 : group_ + 1), 256);
  }

  // All of a warpgroup has to issue the same products, so it decides together. Barriers 1 to 3 are the turns.
  __device__ __forceinline__ bool unusual(const Scores& score, const Affine& affine) const {
    if constexpr (Shape::kAsks)
      return named_barrier_any(4 + group_, 128, Activation::unusual(score, affine));
    else
      return false;
  }

  // Steps in the middle of a tile that every row sees whole and whose weights are as guessed; returns at the
  // first that is not, with its scores and values there. Nothing else is in this loop, because what is jumped
  // over still has to be fetched, and because the compiler mixes instructions well only inside one block.
  __device__ __forceinline__ void plain_steps(Scores& score, Output& out, float (&sum)[2],
                                              const TileWork<Shape>& work, int& step, bool finished) {
    while (true) {
      wait_for_scores(score, step > 0 || finished);
      wait_for_values();
      if (step == 0 || step + 1 >= work.steps || work.is_masked(step)) return;
      if (unusual(score, work.affine)) return;
      take_turn();
      weigh<false>(score, out, sum, work.affine, true);
      step++;
      issue_scores(score);
    }
  }

  // Adds the output of a segment to that of those before it; true when it was the last.
  __device__ __forceinline__ bool join_segments(const TilePlace& place, Output& out) const {
    if (args_.partial == nullptr) return true;
    constexpr int kCount = Shape::kHeadSize / 2;
    float* at =
        args_.partial + (int64_t{blockIdx.x} * Shape::kGroups + group_) * kCount * 128 + threadIdx.x % 128;
    if (!place.begins) {
#pragma unroll
      for (int i = 0; i < kCount; i++) out[i] += at[i * 128];
    }
    if (!place.ends) {
#pragma unroll
      for (int i = 0; i < kCount; i++) at[i * 128] = out[i];
    }
    return place.ends;
  }

  // Output of the tile in a slot.
  __device__ __forceinline__ void store(const TilePlace& place, int slot, Output& out, float (&sum)[2]) {
    if (!join_segments(place, out)) return;
    constexpr float kUnscale = 1.0f / Activation::kScale;
    float factor[2] = {place.gain * kUnscale, place.gain * kUnscale};
    if (Shape::kNormalizes && args_.problem.normalize) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
        sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
        factor[r] = sum[r] == 0.0f ? 0.0f : place.gain / sum[r];
      }
    }
    flag_output<Shape::kHeadSize>(out, args_.problem, place.batch, place.head, place.row, args_.flags);
    if constexpr (Shape::kSlots > 1)
      store_by_copy<Shape>(out, factor, args_, shared_, slot, group_, place);
    else
      store_output<Element, Shape::kHeadSize>(out, factor, args_.problem, place.batch, place.head,
                                              place.row + threadIdx.x % 32 / 4);
    sum[0] = sum[1] = 0.0f;
  }

  // Gives a slot back; all lanes arrive, since all have read its tile.
  __device__ __forceinline__ void release(int slot) {
    if (Shape::kSlots > 1 && threadIdx.x % 32 == 0) tma_store_wait_read();
    __syncwarp();
    barrier_arrive(&shared_.q_empty[slot]);
  }

 public:
  __device__ __forceinline__ Consumer(const HopperArguments& args, HopperShared<Shape>& shared, int group)
      : args_(args), shared_(shared), group_(group) {}

  __device__ __forceinline__ void run() {
    if (!next_tile()) return;
    if (group_ == Shape::kGroups - 1) pass_turn();
    Scores score;
    Output out;
    float sum[2] = {};
    TileWork<Shape> work(args_.problem, shared_.tile[slot_], group_);
    TilePlace done;  // with one slot: of the tile before
    issue_scores(score);
    int step = 0;
    bool finished = false;  // `out` is that of the tile before, not stored yet
    while (true) {
      if constexpr (Shape::kLeanLoop)
        plain_steps(score, out, sum, work, step, finished);
      else
        wait_for_scores(score, step > 0 || finished);
      const bool last = step + 1 == work.steps;
      if (finished) {
        // The previous tile is stored only now, when its successor's scores no longer have to be waited for.
        pin(out);
        if (Shape::kSlots > 1) done = tile_place(shared_.tile[slot_ ^ 1], group_);
        store(done, slot_ ^ 1, out, sum);
      }

      const int first_key = work.first_key + step * Shape::kKeys;
      if constexpr (Shape::kGeneral)
        general_logits<Element>(score, args_.problem, tile_rows(shared_.tile[slot_], group_), first_key,
                                shared_.tile[slot_].terms);
      else if (work.is_masked(step))
        hide_keys_out_of_range(score, args_.problem, tile_rows(shared_.tile[slot_], group_), first_key,
                               work.affine.slope);
      // Masks are the last to read the tile.
      if (Shape::kSlots == 1 && last) {
        done = tile_place(shared_.tile[slot_], group_);
        release(slot_);
      }
      if constexpr (!Shape::kLeanLoop) wait_for_values();
      take_turn();
      if (unusual(score, work.affine))
        weigh<true>(score, out, sum, work.affine, step > 0);
      else
        weigh<false>(score, out, sum, work.affine, step > 0);

      // By now the copy of the previous tile's output is through.
      if (Shape::kSlots > 1 && finished) release(slot_ ^ 1);
      finished = last;
      step++;
      if (last && !next_tile()) break;
      issue_scores(score);
      if (last) {
        work = TileWork<Shape>(args_.problem, shared_.tile[slot_], group_);
        step = 0;
      }
    }
    wgmma_wait<0>();
    pin(out);
    if (Shape::kSlots > 1) done = tile_place(shared_.tile[slot_ ^ 1], group_);
    store(done, slot_ ^ 1, out, sum);
    if (Shape::kSlots > 1 && threadIdx.x % 32 == 0) tma_store_wait_read();
  }
};

}  // namespace sa

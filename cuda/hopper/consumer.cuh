// A consumer warpgroup: 64 query rows of every tile against all keys that they see.
//
// Sigmoid needs no row maximum, so nothing waits for a whole row of scores: as soon as sixteen columns of
// scores are weights, their product with sixteen rows of values is issued. It runs while the next columns are
// converted, and behind it the scores of the next step, or of the next tile's first. Products complete in the
// order of issue; a step begins when its scores are there, and nothing is in flight then:
//
//   QK(0), wait | PV(0,0) .. PV(0,n-1) QK(1), wait | PV(1,0) ..
#pragma once

#include "cuda/hopper/output.cuh"
#include "cuda/scores.cuh"
#include "cuda/segments.cuh"

namespace sa {

// What a warpgroup keeps in registers of the tile that it works on.
template <class Shape>
struct TileWork {
  int first_key, steps;
  int whole_from, whole_to;  // steps of which all 64 rows see all keys; they need no masking
  Affine affine;

  __device__ __forceinline__ TileWork(const SaProblem& p, const Tile& tile, int group) {
    first_key = tile.first_step * Shape::kKeys;
    steps = tile.steps;
    const int top = tile.first_row + 64 * group + tile.offset;
    const int from = key_range(p, tile.valid, top + 63).lo - first_key;
    const int to = key_range(p, tile.valid, top).hi - first_key;
    whole_from = (max(from, 0) + Shape::kKeys - 1) / Shape::kKeys;
    whole_to = max(to, 0) / Shape::kKeys;
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
    return step < whole_from || step >= whole_to;
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
  Ring<Shape::kStages> stage_;   // of this step's keys and values
  Ring<Shape::kSlots> queries_;  // where the next tile will be
  int slot_ = 0;                 // where this one is

  __device__ __forceinline__ static void arrive(Barrier& barrier) {
    if (threadIdx.x % 32 == 0) barrier_arrive(&barrier);
  }

  // Waits for the queries of the next tile; false when there is none.
  __device__ __forceinline__ bool next_tile() {
    slot_ = queries_.stage;
    barrier_wait(&shared_.q_full[slot_], queries_.parity);
    queries_.advance();
    return shared_.tile[slot_].more;
  }

  __device__ __forceinline__ void issue_scores(Scores& score, int slot, int stage) {
    using Mma = Wgmma<Element, Shape::kKeys>;
    const uint32_t q = descriptor_word(&shared_.q[slot][0][64 * group_][0], 0),
                   k = descriptor_word(shared_.k[stage], 0);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < Shape::kHeadSize; d += 16) {
      const int block = d / kAtomElements, inside = d % kAtomElements * sizeof(Element);
      Mma::from_shared(score, tile_descriptor(q, block * Shape::kRows * kAtomBytes + inside, 8 * kAtomBytes),
                       tile_descriptor(k, block * Shape::kKeys * kAtomBytes + inside, 8 * kAtomBytes), d > 0);
    }
    wgmma_commit();
  }

  // Weights of a step, unit by unit, each followed by its products. The next unit's exponentials are started
  // before this unit is finished, so that their latency is covered.
  template <bool kUnusual>
  __device__ __forceinline__ void weigh(Scores& score, Output& out, float (&sum)[2], const Affine& affine,
                                        int stage, bool add) {
    uint32_t weights[Shape::kChunks][4];
    const uint32_t values = descriptor_word(shared_.v[stage], Shape::kKeys * kAtomBytes);
    start<Shape::kEarly, Shape::kUnit>(score, affine);
    weigh_units<kUnusual, 0>(score, weights, out, sum, affine, values, add);
    if (Shape::kTurns == 1) pass_turn();
  }

  // Starts chunks kFrom <= chunk < kTo.
  template <int kFrom, int kTo>
  __device__ __forceinline__ static void start(Scores& score, const Affine& affine) {
#pragma unroll
    for (int chunk = kFrom; chunk < min(kTo, Shape::kChunks); chunk++)
      Activation::start(&score[8 * chunk], affine);
  }

  // The unit whose first chunk is kFirst, and those behind it.
  template <bool kUnusual, int kFirst>
  __device__ __forceinline__ void weigh_units(Scores& score, uint32_t (&weights)[Shape::kChunks][4],
                                              Output& out, float (&sum)[2], const Affine& affine,
                                              uint32_t values, bool add) {
    using Mma = Wgmma<Element, Shape::kHeadSize>;
    constexpr int kEnd = kFirst + Shape::kUnit < Shape::kChunks ? kFirst + Shape::kUnit : Shape::kChunks;
    constexpr bool kLast = kEnd == Shape::kChunks;
    start<(kEnd > Shape::kEarly ? kEnd : Shape::kEarly), kEnd + Shape::kUnit>(score, affine);
    if (kLast && Shape::kTurns == 2) pass_turn();
    if constexpr (Shape::kAsks)
      Activation::template finish<kEnd - kFirst, kUnusual>(&score[8 * kFirst], affine, &weights[kFirst]);
    else
      Activation::template finish<kEnd - kFirst>(&score[8 * kFirst], affine, &weights[kFirst]);
    if constexpr (Shape::kNormalizes) {
      if (args_.problem.normalize) {
#pragma unroll
        for (int chunk = kFirst; chunk < kEnd; chunk++)
          for (int i = 0; i < 4; i++) sum[i % 2] += pair_sum<Element>(weights[chunk][i]);
      }
    }
    wgmma_fence();
#pragma unroll
    for (int chunk = kFirst; chunk < kEnd; chunk++)
      Mma::template from_registers<1>(out, weights[chunk],
                                      tile_descriptor(values, chunk * 16 * kAtomBytes, 8 * kAtomBytes),
                                      add || chunk > 0);
    if constexpr (kLast)
      wgmma_commit();
    else
      weigh_units<kUnusual, kEnd>(score, weights, out, sum, affine, values, add);
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

  // Whether the step is unusual; starts its first chunks, because the answer takes its time. All of a
  // warpgroup has to issue the same products, so it decides together. Barriers 1 to 3 are the turns.
  __device__ __forceinline__ bool start_and_ask(Scores& score, const Affine& affine) const {
    if constexpr (Shape::kAsks) {
      const bool mine = Activation::unusual(score, affine);
      start<0, Shape::kEarly>(score, affine);
      return named_barrier_any(4 + group_, 128, mine);
    } else {
      return false;
    }
  }

  // From the scores of one step to its output and the scores of the next, all complete at the end. Behind a
  // tile's last step the next tile's slot may be waiting for one that is given back (-1: none). False when
  // there is no next tile: then the new scores are of old keys, and nobody reads them. A branch around their
  // products, or one between them and the wait, would make ptxas serialise all products.
  template <bool kUnusual>
  __device__ __forceinline__ bool convert(Scores& score, Output& out, float (&sum)[2], const Affine& affine,
                                          bool add, bool last, int given_back) {
    // Known to be the same in all lanes, so that descriptors lie in uniform registers.
    const int stage = __shfl_sync(~0u, stage_.stage, 0);
    int slot = __shfl_sync(~0u, slot_, 0);
    const int next_stage = stage + 1 == Shape::kStages ? 0 : stage + 1;
    Ring<Shape::kStages> next = stage_;
    next.advance();
    // Asked early, because the answer takes its time.
    const bool keys_there = barrier_done(&shared_.k_full[next.stage], next.parity);
    take_turn();
    weigh<kUnusual>(score, out, sum, affine, stage, add);
    bool more = true;
    if (last) {
      if (given_back >= 0) release(given_back);
      more = next_tile();
      slot = __shfl_sync(~0u, slot_, 0);
    }
    if (!keys_there && more) barrier_wait(&shared_.k_full[next.stage], next.parity);
    issue_scores(score, slot, next_stage);
    wgmma_wait<0>();
    pin(score);
    pin(out);
    if (more) arrive(shared_.k_empty[next.stage]);
    arrive(shared_.v_empty[stage_.stage]);
    stage_ = next;
    return more;
  }

  __device__ __forceinline__ void wait_for_values() {
    barrier_wait(&shared_.v_full[stage_.stage], stage_.parity);
  }

  // Steps in the middle of a tile that every row sees whole and whose weights are as guessed; true when it
  // stops at an unusual one, which has started. Nothing else is in this loop, because what is jumped over
  // still has to be fetched, and because the compiler mixes instructions well only inside one block.
  __device__ __forceinline__ bool plain_steps(Scores& score, Output& out, float (&sum)[2],
                                              const TileWork<Shape>& work, int& step) {
    const int end = min(work.steps - 1, work.whole_to);
    while (step < end) {
      wait_for_values();
      if (start_and_ask(score, work.affine)) return true;
      convert<false>(score, out, sum, work.affine, true, false, -1);
      step++;
    }
    return false;
  }

  // Adds the output of a segment to that of those before it; true when it was the last.
  __device__ __forceinline__ bool join_segments(const TilePlace& place, Output& out) const {
    if (args_.partial == nullptr) return true;
    constexpr int kSums = Shape::kHeadSize / 2 * 128;
    join_segment<128>(out, args_.partial + (int64_t{blockIdx.x} * Shape::kGroups + group_) * kSums,
                      place.begins, place.ends, [](int) { return 1.0f; });
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
    barrier_wait(&shared_.k_full[0], 0);
    issue_scores(score, 0, 0);
    wgmma_wait<0>();
    pin(score);
    arrive(shared_.k_empty[0]);
    int step = 0;
    bool finished = false;  // `out` is that of the tile before, not stored yet
    while (true) {
      bool is_unusual = false;
      if (!Shape::kGeneral && step >= max(work.whole_from, 1))
        is_unusual = plain_steps(score, out, sum, work, step);
      const bool last = step + 1 == work.steps;
      const int slot = slot_;
      if (!is_unusual) {
        if (finished) {
          // Stored only now, when the scores of its successor no longer have to be waited for.
          if (Shape::kSlots > 1) done = tile_place(shared_.tile[slot ^ 1], group_);
          store(done, slot ^ 1, out, sum);
        }
        const int first_key = work.first_key + step * Shape::kKeys;
        if constexpr (Shape::kGeneral)
          general_logits<Element>(score, args_.problem, tile_rows(shared_.tile[slot], group_), first_key,
                                  shared_.tile[slot].terms);
        else if (work.is_masked(step))
          hide_keys_out_of_range(score, args_.problem, tile_rows(shared_.tile[slot], group_), first_key,
                                 work.affine.slope);
        wait_for_values();
        is_unusual = start_and_ask(score, work.affine);
      }
      if (Shape::kSlots == 1 && last) done = tile_place(shared_.tile[slot], group_);
      // With one slot it is this tile's, whose last readers were the masks.
      const int given_back = Shape::kSlots == 1 ? slot : finished ? slot ^ 1 : -1;
      bool more;
      if (is_unusual)
        more = convert<true>(score, out, sum, work.affine, step > 0, last, given_back);
      else
        more = convert<false>(score, out, sum, work.affine, step > 0, last, given_back);
      if (!more) break;
      // By now the copy of the previous tile's output is through.
      if (Shape::kSlots > 1 && finished && !last) release(slot ^ 1);
      finished = last;
      step++;
      if (last) {
        work = TileWork<Shape>(args_.problem, shared_.tile[slot_], group_);
        step = 0;
      }
    }
    if (Shape::kSlots > 1) done = tile_place(shared_.tile[slot_ ^ 1], group_);
    store(done, slot_ ^ 1, out, sum);
    if (Shape::kSlots > 1 && threadIdx.x % 32 == 0) tma_store_wait_read();
  }
};

}  // namespace sa

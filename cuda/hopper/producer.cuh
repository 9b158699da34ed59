// The producer: one thread that keeps the copy engine busy. It decides which tile is next and tells the
// consumers through shared.tile, published by the q_full barrier.
#pragma once

#include "cuda/hopper/tile.cuh"

namespace sa {

template <class Shape>
__device__ __forceinline__ void produce(const HopperArguments& args, HopperShared<Shape>& shared) {
  constexpr int kBlocks = HopperShared<Shape>::kBlocks, kSegmentSteps = kSegmentKeys / Shape::kKeys;
  Ring<Shape::kStages> ring;
  Ring<Shape::kSlots> queries;

  const auto next_index = [&](int previous) {
    return args.next_tile ? atomicAdd(args.next_tile, 1) : previous + static_cast<int>(gridDim.x);
  };
  const auto load_rows = [&](auto& to, const CUtensorMap& map, Barrier* full, int row, int head, int batch) {
    barrier_expect_bytes(full, sizeof(to));
    for (int block = 0; block < kBlocks; block++)
      tma_load(to[block], &map, full, block * kAtomElements, row, head, batch);
  };
  // Waits until the consumers are through with the tile that was in the next slot.
  const auto wait_for_slot = [&]() -> Tile& {
    barrier_wait(&shared.q_empty[queries.stage], queries.parity ^ 1);
    return shared.tile[queries.stage];
  };

  int index = args.next_tile ? atomicAdd(args.next_tile, 1) : static_cast<int>(blockIdx.x);
  for (; index < args.tiles; index = next_index(index)) {
    Tile tile;
    find_tile<Shape>(args, index, tile);
    const int kv_head = tile.head / args.group, first_step = tile.first_step, steps = tile.steps;
    for (int step = 0; step < steps; step++) {
      const int key = (first_step + step) * Shape::kKeys, stage = ring.stage;
      barrier_wait(&shared.k_empty[stage], ring.parity ^ 1);
      load_rows(shared.k[stage], args.k, &shared.k_full[stage], key, kv_head, tile.batch);
      // After the first keys, because the consumers give q up later than a stage of keys.
      const int in_segment = args.partial == nullptr ? step : step % kSegmentSteps;
      if (in_segment == 0) {
        tile.terms = head_terms(args.problem, tile.batch, tile.head, tile.valid);
        tile.first_step = first_step + step;
        tile.steps = args.partial == nullptr ? steps : min(steps - step, kSegmentSteps);
        tile.begins = step == 0;
        tile.ends = step + tile.steps == steps;
        tile.more = true;
        wait_for_slot() = tile;
        load_rows(shared.q[queries.stage], args.q, &shared.q_full[queries.stage], tile.first_row, tile.head,
                  tile.batch);
        queries.advance();
      }
      barrier_wait(&shared.v_empty[stage], ring.parity ^ 1);
      load_rows(shared.v[stage], args.v, &shared.v_full[stage], key, kv_head, tile.batch);
      ring.advance();
    }
  }
  wait_for_slot().more = false;
  barrier_arrive(&shared.q_full[queries.stage]);
}

}  // namespace sa

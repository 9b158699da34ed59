// The producer: one thread that keeps the copy engine busy. It decides which tile is next and tells the
// consumers through shared.tile, published by the q_full barrier.
#pragma once

#include "cuda/hopper/tile.cuh"

namespace sa {

template <class Shape>
__device__ __forceinline__ void produce(const HopperArguments& args, HopperShared<Shape>& shared) {
  constexpr int kBlocks = HopperShared<Shape>::kBlocks;
  Ring<Shape::kStages> ring;
  uint32_t q_parity = 0;

  const auto next_index = [&](int previous) {
    return args.next_tile ? atomicAdd(args.next_tile, 1) : previous + static_cast<int>(gridDim.x);
  };
  const auto load_rows = [&](auto& to, const CUtensorMap& map, Barrier* full, int row, int head, int batch) {
    barrier_expect_bytes(full, sizeof(to));
    for (int block = 0; block < kBlocks; block++)
      tma_load(to[block], &map, full, block * kAtomElements, row, head, batch);
  };
  const auto wait_for_queries_read = [&] {
    barrier_wait(&shared.q_empty, q_parity ^ 1);
    q_parity ^= 1;
  };

  int index = args.next_tile ? atomicAdd(args.next_tile, 1) : static_cast<int>(blockIdx.x);
  for (; index < args.tiles; index = next_index(index)) {
    Tile tile;
    find_tile<Shape>(args, index, tile);
    const int kv_head = tile.head / args.group;
    for (int step = 0; step < max(tile.steps, 1); step++) {
      const int key = (tile.first_step + step) * Shape::kKeys, stage = ring.stage;
      if (tile.steps > 0) {
        barrier_wait(&shared.k_empty[stage], ring.parity ^ 1);
        load_rows(shared.k[stage], args.k, &shared.k_full[stage], key, kv_head, tile.batch);
      }
      // After the first keys, because the consumers give q up later than a stage of keys.
      if (step == 0) {
        wait_for_queries_read();
        shared.tile = tile;
        load_rows(shared.q, args.q, &shared.q_full, tile.first_row, tile.head, tile.batch);
      }
      if (tile.steps > 0) {
        barrier_wait(&shared.v_empty[stage], ring.parity ^ 1);
        load_rows(shared.v[stage], args.v, &shared.v_full[stage], key, kv_head, tile.batch);
        ring.advance();
      }
    }
  }
  wait_for_queries_read();
  shared.tile.more = false;
  barrier_arrive(&shared.q_full);
}

}  // namespace sa

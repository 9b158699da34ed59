// What a Hopper block works on: the shape of its tiles, their place in shared memory, and the order of work.
#pragma once

#include "cuda/hopper/async.cuh"
#include "cuda/hopper/wgmma.cuh"
#include "cuda/scores.cuh"

namespace sa {

constexpr int kWarpRows = 16;  // of a tile's rows, those of one warp

// Whether an activation is of GuessedSigmoid's kind.
template <class Activation>
constexpr auto asks(int) -> decltype(Activation::kAsks) {
  return Activation::kAsks;
}
template <class Activation>
constexpr bool asks(...) {
  return false;
}

// One instance of the kernel. A block has one producer warpgroup and kGroups consumer warpgroups of 64 query
// rows each.
template <class Element_, int kHeadSize_, int kKeys_, int kStages_, int kGroups_, int kUnit_, int kTurns_,
          int kEarly_, template <class> class Activation_, bool kGeneral_>
struct HopperShape {
  using Element = Element_;
  using Activation = Activation_<Element_>;
  static constexpr int kHeadSize =
      kHeadSize_;                       // of q, k and v in shared memory; smaller heads are padded with zeros
  static constexpr int kKeys = kKeys_;  // keys of one step
  static constexpr int kStages = kStages_;  // steps of keys and values in flight
  static constexpr int kGroups = kGroups_;
  static constexpr int kUnit = kUnit_;                // chunks that the activation finishes together
  static constexpr int kTurns = kTurns_;              // consumer warpgroups take turns at the activation
  static constexpr bool kGeneral = kGeneral_;         // ALiBi, softcap, attn_mask, normalize
  static constexpr bool kAsks = asks<Activation>(0);  // the activation guesses a step at a time
  static constexpr int kEarly = kAsks ? kEarly_ : 0;  // chunks started before it is known whether it may

  // float16 weights under normalize need a factor for each row, which the mma.sync kernel has.
  static constexpr bool kNormalizes = kGeneral && std::is_same_v<Element, __nv_bfloat16>;

  static constexpr int kRows = 64 * kGroups;
  // Tiles whose queries lie in shared memory at once: the next tile's are there before this one is finished.
  static constexpr int kSharedElements = 2 * kStages * kKeys * kHeadSize + 2 * kRows * kHeadSize;
  static constexpr int kSlots = kSharedElements * sizeof(Element) <= 225 << 10 ? 2 : 1;
  static constexpr int kThreads = 128 * (kGroups + 1);
  static constexpr int kChunks = kKeys / 16;  // matrix products of one step's weights with its values
  // What the producer gives up the consumers take; setmaxnreg never returns if they ask for more.
  static constexpr int kEntryRegisters = 65536 / kThreads / 8 * 8;
  static constexpr int kProducerRegisters = kGroups == 2 ? 40 : 32;
  static constexpr int kConsumerRegisters = kGroups == 2 ? 232 : 160;
  static_assert(kProducerRegisters + kGroups * kConsumerRegisters <= (kGroups + 1) * kEntryRegisters);
};

// What the producer tells the consumers of a tile. One thread works it out while they are busy with the tile
// before.
struct Tile {
  int batch, head, first_row;
  int first_step, steps;  // in units of Shape::kKeys keys; at least one, also where no key is visible
  int valid, offset;      // of the batch (meaning.cuh)
  bool begins, ends;      // whether this is the first and the last segment of the tile's keys
  bool more;              // false: there is no such tile, all are done
  HeadTerms terms;
};

// The rows of this thread, in warpgroup `group` of the tile.
__device__ __forceinline__ FragmentRows tile_rows(const Tile& tile, int group) {
  const int thread = threadIdx.x % 128;
  const int row = tile.first_row + 64 * group + thread / 32 * kWarpRows + thread % 32 / 4;
  return {tile.batch, tile.head, tile.valid, tile.offset, {row, row + 8}, thread % 4 * 2};
}

// Where a warp's output goes: its first row, the gain of its head, and the tile's segment.
struct TilePlace {
  int batch, head, row;
  float gain;
  bool begins, ends;
};
__device__ __forceinline__ TilePlace tile_place(const Tile& tile, int group) {
  const int row = tile.first_row + 64 * group + threadIdx.x % 128 / 32 * kWarpRows;
  return {tile.batch, tile.head, row, tile.terms.gain, tile.begins, tile.ends};
}

template <class Shape>
struct HopperShared {
  using Element = typename Shape::Element;
  static constexpr int kBlocks = Shape::kHeadSize / kAtomElements;
  // Queries; then, where there are two slots, the tile's output on its way to Y.
  alignas(1024) Element q[Shape::kSlots][kBlocks][Shape::kRows][kAtomElements];
  alignas(1024) Element k[Shape::kStages][kBlocks][Shape::kKeys][kAtomElements];
  alignas(1024) Element v[Shape::kStages][kBlocks][Shape::kKeys][kAtomElements];
  Barrier q_full[Shape::kSlots], q_empty[Shape::kSlots];
  Barrier k_full[Shape::kStages], k_empty[Shape::kStages];
  Barrier v_full[Shape::kStages], v_empty[Shape::kStages];
  Tile tile[Shape::kSlots];  // the one that q belongs to
};

struct HopperArguments {
  CUtensorMap q, k, v, y;
  SaProblem problem;
  unsigned char* flags;   // of non-finite output, or null (kernels.h)
  float* partial;         // output summed up over segments, kSegmentSums a block, or null: one segment
  int* next_tile;         // counter for dynamic order, 0 at the start, or null: every gridDim.x-th tile
  int tiles, row_blocks;  // row_blocks: tiles of one head
  int heads, group;       // query heads of a batch; query heads of a kv head
  int section_heads;      // heads worked on together, so that their keys and values stay in the L2 cache
};

// Everything but the terms of the head.
//
// Heads are taken in sections; inside one, the last rows of all its heads come first, because under a causal
// mask they have most work and short tiles fill the end best.
template <class Shape>
__device__ __forceinline__ void find_tile(const HopperArguments& args, int index, Tile& tile) {
  const SaProblem& p = args.problem;
  const int section = index / (args.section_heads * args.row_blocks);
  const int within = index - section * args.section_heads * args.row_blocks;
  const int width = min(args.section_heads, args.tiles / args.row_blocks - section * args.section_heads);
  const int head = section * args.section_heads + within % width;
  tile.first_row = (args.row_blocks - 1 - within / width) * Shape::kRows;
  tile.batch = head / args.heads;
  tile.head = head - tile.batch * args.heads;
  tile.valid = valid_keys(p, tile.batch);
  tile.offset = position_offset(p, tile.batch);
  const int last_row = min(tile.first_row + Shape::kRows, static_cast<int>(p.query_length)) - 1;
  const int lo = key_range(p, tile.valid, tile.first_row + tile.offset).lo;
  const int hi = key_range(p, tile.valid, last_row + tile.offset).hi;
  tile.first_step = lo / Shape::kKeys;
  tile.steps = hi > lo ? (hi + Shape::kKeys - 1) / Shape::kKeys - tile.first_step : 1;
}

// Position in a ring of kStages barriers: which one, and the parity that its next completion has.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

}  // namespace sa

// The shape of a block's work in the mma.sync kernel, and one warp's share of the products: which fragments
// it loads from shared memory and what it multiplies.
#pragma once

#include "cuda/mma/tile.cuh"
#include "cuda/mma/weights.cuh"

namespace sa {

// What rows see. kAll: every row every key, in whole steps. kSharedBias: keys may be hidden, but the bias is
// the same for all rows of a head. kRowBias: it depends on what a row sees.
enum class Sight { kAll, kSharedBias, kRowBias };

// kTiles: 16-row tiles of a warp. kKeys: keys of a step. kBlocks: blocks of a multiprocessor. kKeepQueries:
// queries stay in registers, and scores are made 16 columns at a time; else those of a whole step at once.
template <class Element_, int kHeadSize_, int kTiles_, int kKeys_, int kBlocks_, bool kKeepQueries_,
          template <class> class Weights_, Sight kSight_ = Sight::kRowBias>
struct MmaShape {
  using Element = Element_;
  using Weights = Weights_<Element_>;
  static constexpr int kHeadSize = kHeadSize_, kTiles = kTiles_, kKeys = kKeys_, kBlocks = kBlocks_;
  static constexpr bool kKeepQueries = kKeepQueries_;
  static constexpr Sight kSight = kSight_;
  // ALiBi, softcap, attn_mask or normalize.
  static constexpr bool kGeneral = std::is_same_v<Weights, GeneralWeights<Element>>;
  static constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16 * kTiles * kWarps;
  static constexpr int kChunks = kKeys / 16, kDepths = kHeadSize / 16,
                       kKeptDepths = kKeepQueries ? kDepths : 1;
  static constexpr int kRowBytes = kHeadSize * 2, kStageBytes = kKeys * kRowBytes;
  // Queries that stay in registers pass through the second stage of keys.
  static constexpr int kSharedBytes = (kKeepQueries ? 0 : kRows * kRowBytes) + 4 * kStageBytes;
  // The product of weights with V a chunk after their making, which takes eight registers.
  static constexpr bool kDelay = kKeepQueries && kSight != Sight::kRowBias;
  static_assert(!kKeepQueries || (!kGeneral && kRows * kRowBytes <= kStageBytes));
};

// One warp's share of the products. Addresses are those that this lane gives to ldmatrix.
template <class Shape>
struct MmaWarp {
  using T = typename Shape::Element;
  static constexpr int kTiles = Shape::kTiles, kDepths = Shape::kDepths, kChunks = Shape::kChunks;
  using Output = float[kTiles][Shape::kHeadSize / 2];
  using Queries = uint32_t[kTiles][4];  // 16 columns

  uint32_t queries;
  uint32_t row_lane, column_lane;  // offsets of the lane for fragments of Q and V, and of K

  __device__ __forceinline__ MmaWarp(uint32_t q_tile, int warp, int lane)
      : row_lane(piece<Shape::kHeadSize>(lane % 16, lane / 16)),
        column_lane(piece<Shape::kHeadSize>(lane / 16 * 8 + lane % 8, lane / 8 % 2)) {
    queries = q_tile + warp * kTiles * 16 * Shape::kRowBytes + row_lane;
  }

  __device__ __forceinline__ void load_queries(Queries& q, int depth) const {
#pragma unroll
    for (int t = 0; t < kTiles; t++) load_matrices(q[t], columns(queries, depth) + t * 16 * Shape::kRowBytes);
  }

  // score[t] += 16 columns of the queries with those of 16 keys.
  template <int kCount>
  __device__ __forceinline__ void add_scores(float (&score)[kTiles][kCount], int at, const Queries& q,
                                             uint32_t k, int chunk, int depth) const {
    uint32_t bits[4];
    load_matrices(bits, columns(k, depth) + chunk * 16 * Shape::kRowBytes);
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
      mma_16x8x16<T>(&score[t][at], q[t], bits[0], bits[1]);
      mma_16x8x16<T>(&score[t][at + 4], q[t], bits[2], bits[3]);
    }
  }

  // out[t] += weights of 16 keys with 16 columns of their values.
  __device__ __forceinline__ void add_output(Output& out, const uint32_t (&weights)[kTiles][4], uint32_t v,
                                             int chunk, int depth) const {
    uint32_t bits[4];
    load_matrices_transposed(bits, columns(v, depth) + chunk * 16 * Shape::kRowBytes);
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
      mma_16x8x16<T>(&out[t][depth * 8], weights[t], bits[0], bits[1]);
      mma_16x8x16<T>(&out[t][depth * 8 + 4], weights[t], bits[2], bits[3]);
    }
  }
};

}  // namespace sa

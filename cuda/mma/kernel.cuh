// The mma.sync kernel, for compute capability 8.0 and up: four warps, each with 16 or 32 query rows, walk the
// keys that the block's rows see. Copies of the next keys and values run behind the products of these.
//
// Scores, weights and output lie in the same fragments as in the Hopper kernel, so that activation, masks and
// the store are shared with it.
#pragma once

#include "cuda/epilogue.cuh"
#include "cuda/mma/instructions.cuh"

namespace sa {

// kTiles: 16-row tiles of a warp. kKeys: keys of a step.
template <class Element_, int kHeadSize_, int kTiles_, int kKeys_, template <class> class Activation_,
          bool kGeneral_>
struct MmaShape {
  using Element = Element_;
  using Activation = Activation_<Element_>;
  static constexpr int kHeadSize = kHeadSize_, kTiles = kTiles_, kKeys = kKeys_;
  static constexpr bool kGeneral = kGeneral_;
  static constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16 * kTiles * kWarps;
  static constexpr int kSharedBytes = (kRows + 4 * kKeys) * kHeadSize * 2;
};

// Byte offset of a 16-byte piece in a tile of rows; the swizzle spreads the pieces of 8 rows over all banks.
template <int kHeadSize>
__device__ __forceinline__ uint32_t piece(int row, int index) {
  return row * kHeadSize * 2 + ((index ^ (row & 7)) << 4);
}

template <class Shape>
__device__ __forceinline__ void copy_rows(uint32_t to, const typename Shape::Element* from, int64_t stride,
                                          int rows, int row_count, int size) {
  constexpr int kPieces = Shape::kHeadSize / 8;
  for (int i = threadIdx.x; i < row_count * kPieces; i += Shape::kThreads) {
    const int row = i / kPieces, index = i % kPieces;
    const int bytes = row < rows ? min(max(size - 8 * index, 0), 8) * 2 : 0;
    copy_async(to + piece<Shape::kHeadSize>(row, index), bytes > 0 ? from + row * stride + 8 * index : from,
               bytes);
  }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads) mma_kernel(const __grid_constant__ TensorInputs args) {
  using T = typename Shape::Element;
  using Activation = typename Shape::Activation;
  constexpr int kHeadSize = Shape::kHeadSize, kKeys = Shape::kKeys, kTiles = Shape::kTiles;
  extern __shared__ __align__(128) unsigned char shared[];
  const SaProblem& p = args.problem;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int h = blockIdx.y, b = blockIdx.z, kv_head = h / static_cast<int>(p.query_heads / p.kv_heads);
  // The last rows first: under a causal mask they have most work.
  const int first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Shape::kRows;
  const int length = static_cast<int>(p.query_length), keys = static_cast<int>(p.key_length);
  const int valid = valid_keys(p, b), offset = position_offset(p, b);
  const HeadTerms head = head_terms(p, b, h, valid);

  const auto base = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t q_tile = base, k_tile = q_tile + Shape::kRows * kHeadSize * 2,
                 v_tile = k_tile + 2 * kKeys * kHeadSize * 2;
  const T* k = slice<T>(args.keys, args.key_strides, b, kv_head);
  const T* v = slice<T>(args.values, args.value_strides, b, kv_head);
  const auto copy_step = [&](int step) {
    const int first = step * kKeys, buffer = (step & 1) * kKeys * kHeadSize * 2;
    copy_rows<Shape>(k_tile + buffer, k + first * args.key_strides.row, args.key_strides.row, keys - first,
                     kKeys, static_cast<int>(p.head_size));
    copy_rows<Shape>(v_tile + buffer, v + first * args.value_strides.row, args.value_strides.row,
                     keys - first, kKeys, static_cast<int>(p.value_head_size));
    copy_commit();
  };

  const float shift = Shape::kGeneral ? normalize_shift<T>(p, head) : 0.0f;
  FragmentRows rows[kTiles];
  Affine affine[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; t++) {
    const int row = first_row + (warp * kTiles + t) * 16 + lane / 4;
    rows[t] = {b, h, valid, offset, {row, row + 8}, lane % 4 * 2};
    affine[t] = {1.0f, {0.0f, 0.0f}, false};
    if constexpr (!Shape::kGeneral) {
      affine[t].slope = head.scale == 0.0f ? 1e-30f : head.scale * kLog2E;  // see TileWork
#pragma unroll
      for (int r = 0; r < 2; r++)
        affine[t].intercept[r] =
            (head.bias + row_bias(p, key_range(p, valid, rows[t].row[r] + offset))) * kLog2E;
    }
    affine[t] = Activation::prepare(affine[t]);
    affine[t].tiny = shift > 0.0f;
  }
  const int warp_row = first_row + warp * kTiles * 16 + offset;
  const int seen_from = key_range(p, valid, warp_row + 16 * kTiles - 1).lo,
            seen_to = key_range(p, valid, warp_row).hi;
  const int lo = key_range(p, valid, first_row + offset).lo;
  const int hi = key_range(p, valid, min(first_row + Shape::kRows, length) - 1 + offset).hi;
  const int first_step = lo / kKeys, end_step = hi > lo ? (hi + kKeys - 1) / kKeys : first_step;

  float out[kTiles][kHeadSize / 2] = {}, sum[kTiles][2] = {};
  if (first_step < end_step) {
    copy_rows<Shape>(q_tile,
                     slice<T>(args.queries, args.query_strides, b, h) + first_row * args.query_strides.row,
                     args.query_strides.row, length - first_row, Shape::kRows, static_cast<int>(p.head_size));
    copy_step(first_step);
  }
  for (int step = first_step; step < end_step; step++) {
    copy_wait<0>();
    __syncthreads();
    if (step + 1 < end_step) copy_step(step + 1);
    const uint32_t k_now = k_tile + (step & 1) * kKeys * kHeadSize * 2;
    const uint32_t v_now = v_tile + (step & 1) * kKeys * kHeadSize * 2;

    float score[kTiles][kKeys / 2] = {};
#pragma unroll
    for (int d = 0; d < kHeadSize; d += 16) {
      uint32_t a[kTiles][4];
#pragma unroll
      for (int t = 0; t < kTiles; t++)
        load_matrices(a[t],
                      q_tile + piece<kHeadSize>((warp * kTiles + t) * 16 + lane % 16, d / 8 + lane / 16));
#pragma unroll
      for (int key = 0; key < kKeys; key += 16) {
        uint32_t bits[4];
        load_matrices(bits, k_now + piece<kHeadSize>(key + lane / 16 * 8 + lane % 8, d / 8 + lane / 8 % 2));
#pragma unroll
        for (int t = 0; t < kTiles; t++) {
          mma_16x8x16<T>(&score[t][key / 2], a[t], bits[0], bits[1]);
          mma_16x8x16<T>(&score[t][key / 2 + 4], a[t], bits[2], bits[3]);
        }
      }
    }

    const int first_key = step * kKeys;
#pragma unroll
    for (int t = 0; t < kTiles; t++) {
      if constexpr (Shape::kGeneral)
        general_logits<T>(score[t], p, rows[t], first_key, head, shift);
      else if (first_key < seen_from || first_key + kKeys > seen_to)
        hide_keys_out_of_range(score[t], p, rows[t], first_key, affine[t].slope);
    }

#pragma unroll
    for (int chunk = 0; chunk < kKeys / 16; chunk++) {
      uint32_t weights[kTiles][1][4];
#pragma unroll
      for (int t = 0; t < kTiles; t++) {
        Activation::start(&score[t][8 * chunk], affine[t]);
        Activation::template finish<1>(&score[t][8 * chunk], affine[t], weights[t]);
        if (Shape::kGeneral && p.normalize)
          for (int i = 0; i < 4; i++) sum[t][i % 2] += pair_sum<T>(weights[t][0][i]);
      }
#pragma unroll
      for (int d = 0; d < kHeadSize; d += 16) {
        uint32_t bits[4];
        load_matrices_transposed(bits, v_now + piece<kHeadSize>(chunk * 16 + lane % 16, d / 8 + lane / 16));
#pragma unroll
        for (int t = 0; t < kTiles; t++) {
          mma_16x8x16<T>(&out[t][d / 2], weights[t][0], bits[0], bits[1]);
          mma_16x8x16<T>(&out[t][d / 2 + 4], weights[t][0], bits[2], bits[3]);
        }
      }
    }
  }

  const bool wide = p.value_head_size % 8 == 0 && p.y_strides.row % 8 == 0 && p.y_strides.head % 8 == 0 &&
                    p.y_strides.batch % 8 == 0 && reinterpret_cast<uintptr_t>(p.y) % 16 == 0;
#pragma unroll
  for (int t = 0; t < kTiles; t++) {
    float factor[2] = {head.gain * (1.0f / Activation::kScale), head.gain * (1.0f / Activation::kScale)};
    bool coarse = false;
    if (Shape::kGeneral && p.normalize) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        sum[t][r] += __shfl_xor_sync(~0u, sum[t][r], 1);
        sum[t][r] += __shfl_xor_sync(~0u, sum[t][r], 2);
        factor[r] = sum[t][r] == 0.0f ? 0.0f : head.gain / sum[t][r];
        coarse = coarse || sum_is_coarse<T>(p, sum[t][r]);
      }
    }
    flag_output<kHeadSize>(out[t], p, rows[t], args.flags, coarse);
    if (wide)
      store_output<T, kHeadSize>(out[t], factor, p, rows[t]);
    else
      store_narrow<T, kHeadSize>(out[t], factor, p, rows[t]);
  }
}

template <class Shape>
cudaError_t launch_mma(const TensorInputs& args, cudaStream_t stream) {
  const SaProblem& p = args.problem;
  const cudaError_t status = cudaFuncSetAttribute(
      mma_kernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (status != cudaSuccess) return status;
  const dim3 grid(static_cast<unsigned>((p.query_length + Shape::kRows - 1) / Shape::kRows),
                  static_cast<unsigned>(p.query_heads), static_cast<unsigned>(p.batch));
  mma_kernel<Shape><<<grid, Shape::kThreads, Shape::kSharedBytes, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace sa

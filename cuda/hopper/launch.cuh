// Host side of the Hopper kernel: tensor maps, the order of work and the launch.
#pragma once

#include <algorithm>

#include "cuda/hopper/kernel.cuh"

namespace sa {

// Driver entry point, found through the runtime so that nothing links against the driver.
inline PFN_cuTensorMapEncodeTiled_v12000 tensor_map_encoder() {
  static const auto encoder = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault,
                                         &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
      symbol = nullptr;
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(symbol);
  }();
  return encoder;
}

// Boxes of `box_rows` rows by one swizzled row of elements over [batch, heads, length, size]. Elements
// outside read 0.
inline bool make_tensor_map(CUtensorMap* map, SaType type, const void* base, const SaStrides& strides,
                            int64_t batch, int64_t heads, int64_t length, int64_t size, int box_rows) {
  const auto encoder = tensor_map_encoder();
  if (encoder == nullptr) return false;
  const auto extent = [](int64_t n) { return static_cast<cuuint64_t>(std::max<int64_t>(n, 1)); };
  // The stride of an axis of length 1 is never used, but has to be a legal one.
  const auto bytes = [&](int64_t stride, int64_t n) {
    return static_cast<cuuint64_t>(n > 1 ? stride * 2 : (size * 2 + 15) / 16 * 16);
  };
  const cuuint64_t extents[4] = {extent(size), extent(length), extent(heads), extent(batch)};
  const cuuint64_t pitches[3] = {bytes(strides.row, length), bytes(strides.head, heads),
                                 bytes(strides.batch, batch)};
  const cuuint32_t box[4] = {kAtomElements, static_cast<cuuint32_t>(box_rows), 1, 1}, steps[4] = {1, 1, 1, 1};
  return encoder(map, type == SA_FLOAT16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                 4, const_cast<void*>(base), extents, pitches, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                 CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <class Shape>
cudaError_t launch_hopper(const TensorInputs& in, cudaStream_t stream) {
  const SaProblem& p = in.problem;
  HopperArguments args;
  args.problem = p;
  const bool mapped = make_tensor_map(&args.q, p.type, in.queries, in.query_strides, p.batch, p.query_heads,
                                      p.query_length, p.head_size, Shape::kRows) &&
                      make_tensor_map(&args.k, p.type, in.keys, in.key_strides, p.batch, p.kv_heads,
                                      p.key_length, p.head_size, Shape::kKeys) &&
                      make_tensor_map(&args.v, p.type, in.values, in.value_strides, p.batch, p.kv_heads,
                                      p.key_length, p.value_head_size, Shape::kKeys) &&
                      make_tensor_map(&args.y, p.type, p.y, p.y_strides, p.batch, p.query_heads,
                                      p.query_length, p.value_head_size, kWarpRows);
  if (!mapped) return cudaErrorInvalidValue;

  args.flags = in.flags;
  args.partial = in.partial;
  args.next_tile = in.next_tile;
  args.row_blocks = static_cast<int>((p.query_length + Shape::kRows - 1) / Shape::kRows);
  const int64_t heads = p.batch * p.query_heads;
  args.heads = static_cast<int>(p.query_heads);
  args.group = static_cast<int>(p.query_heads / p.kv_heads);
  args.tiles = static_cast<int>(heads * args.row_blocks);
  // Tiles of unequal length: as many heads together as half the L2 cache holds, so that the longest come
  // first.
  constexpr int64_t kSectionBytes = 24 << 20;
  const int64_t head_bytes =
      p.key_length * (p.head_size + p.value_head_size) * 2 * p.kv_heads / p.query_heads;
  const bool uneven = p.is_causal || p.right_window_size >= 0;
  args.section_heads =
      uneven
          ? static_cast<int>(std::clamp<int64_t>(kSectionBytes / std::max<int64_t>(head_bytes, 1), 1, heads))
          : 1;

  constexpr int kSharedBytes = sizeof(HopperShared<Shape>) + 1024;
  // Each time: the attribute is one of the current device.
  const cudaError_t configured =
      cudaFuncSetAttribute(hopper_kernel<Shape>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (configured != cudaSuccess) return configured;
  const int grid = std::min(args.tiles, in.multiprocessors);
  hopper_kernel<Shape><<<grid, Shape::kThreads, kSharedBytes, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace sa

// Included last by each kernels_<isa>.cc, after its simd_<isa>.h: instantiates the kernels for that `Simd`.
//
// Everything here has internal linkage (see element.h).
#pragma once

#include "op/native/cpu/block_kernel.h"
#include "op/native/cpu/decode_kernel.h"

namespace sigmoid_attention::cpu {
namespace {

constexpr Kernels kKernelTable = {
    Simd::kName,
    Simd::kLanes,
    static_cast<int>(kPanelRows),
    Simd::kSmallValueTiles,
    {RunBlock<float>, RunBlock<Half>, RunBlock<BFloat16>},
    {RunDecode<float>, RunDecode<Half>, RunDecode<BFloat16>},
    BlockScratchFloats,
    DecodeScratchFloats,
};

}  // namespace
}  // namespace sigmoid_attention::cpu

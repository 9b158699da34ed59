// As kernels_avx512.cc, with products of bfloat16 tensors by the dot-product instructions of AVX-512 BF16.
#include "op/native/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__) && \
    defined(__AVX512BF16__)

#include "op/native/cpu/simd_avx512.h"
// Builds on Simd.
#include "op/native/cpu/block_kernel.h"

namespace sigmoid_attention::cpu {
const Kernels* Avx512Bf16Kernels() {
  static const Kernels table = [] {
    Kernels kernels = *Avx512Kernels();
    kernels.name = "avx512bf16";
    kernels.block[SA_BFLOAT16] = RunBlock<BFloat16>;
    kernels.block_scratch = BlockScratchFloats;
    return kernels;
  }();
  return &table;
}
}  // namespace sigmoid_attention::cpu

#else

namespace sigmoid_attention::cpu {
const Kernels* Avx512Bf16Kernels() {
  return nullptr;
}
}  // namespace sigmoid_attention::cpu

#endif

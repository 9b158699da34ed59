// Kernels for AVX-512 F, BW, DQ and VL.
#include "op/native/cpu/kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

#include "op/native/cpu/simd_avx512.h"
// Builds on Simd.
#include "op/native/cpu/kernel_table.h"

namespace sigmoid_attention::cpu {
const Kernels* Avx512Kernels() {
  return &kKernelTable;
}
}  // namespace sigmoid_attention::cpu

#else

namespace sigmoid_attention::cpu {
const Kernels* Avx512Kernels() {
  return nullptr;
}
}  // namespace sigmoid_attention::cpu

#endif

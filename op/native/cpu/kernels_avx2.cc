// Kernels for AVX2 with FMA and F16C.
#include "op/native/cpu/kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "op/native/cpu/simd_avx2.h"
// Builds on Simd.
#include "op/native/cpu/kernel_table.h"

namespace sigmoid_attention::cpu {
const Kernels* Avx2Kernels() {
  return &kKernelTable;
}
}  // namespace sigmoid_attention::cpu

#else

namespace sigmoid_attention::cpu {
const Kernels* Avx2Kernels() {
  return nullptr;
}
}  // namespace sigmoid_attention::cpu

#endif

// Kernels for NEON on AArch64.
#include "op/native/cpu/kernels.h"

#if defined(__aarch64__) && defined(__ARM_NEON)

#include "op/native/cpu/simd_neon.h"
// Builds on Simd.
#include "op/native/cpu/kernel_table.h"

namespace sigmoid_attention::cpu {
const Kernels* NeonKernels() {
  return &kKernelTable;
}
}  // namespace sigmoid_attention::cpu

#else

namespace sigmoid_attention::cpu {
const Kernels* NeonKernels() {
  return nullptr;
}
}  // namespace sigmoid_attention::cpu

#endif

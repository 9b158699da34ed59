// Kernels in standard C++.
#include "op/native/cpu/kernels.h"
#include "op/native/cpu/simd_portable.h"
// Builds on Simd.
#include "op/native/cpu/kernel_table.h"

namespace sigmoid_attention::cpu {
const Kernels* PortableKernels() {
  return &kKernelTable;
}
}  // namespace sigmoid_attention::cpu

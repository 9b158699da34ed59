// Finds out what the CPU can run, and chooses.
#include "op/native/cpu/kernels.h"

#include <cstdlib>
#include <cstring>

#if defined(_MSC_VER) && defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#endif

namespace sigmoid_attention::cpu {
namespace {

#if defined(__x86_64__) && defined(__GNUC__)
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool HasAvx512Bf16() {
  return HasAvx512() && __builtin_cpu_supports("avx512bf16");
}
#elif defined(_MSC_VER) && defined(_M_X64)
/// Bits of CPUID leaf 7, EBX, if the operating system keeps the registers in `state` (of XCR0).
int Leaf7Ebx(unsigned long long state) {
  int leaf[4];
  __cpuid(leaf, 1);
  constexpr int kOsxsave = 1 << 27, kFma = 1 << 12, kF16c = 1 << 29;
  if ((leaf[2] & kOsxsave) == 0 || (leaf[2] & kFma) == 0 || (leaf[2] & kF16c) == 0) return 0;
  if ((_xgetbv(0) & state) != state) return 0;
  __cpuidex(leaf, 7, 0);
  return leaf[1];
}
bool HasAvx2() {
  return (Leaf7Ebx(0x6) & 1 << 5) != 0;
}
bool HasAvx512() {
  constexpr unsigned kBits = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  return (static_cast<unsigned>(Leaf7Ebx(0xe6)) & kBits) == kBits;
}
bool HasAvx512Bf16() {
  int leaf[4];
  __cpuidex(leaf, 7, 1);
  return HasAvx512() && (leaf[0] & 1 << 5) != 0;
}
#else
bool HasAvx2() {
  return false;
}
bool HasAvx512() {
  return false;
}
bool HasAvx512Bf16() {
  return false;
}
#endif

struct Available {
  const Kernels* tables[6] = {};

  Available() {
    int count = 0;
    const auto add = [&](const Kernels* kernels) {
      if (kernels) tables[count++] = kernels;
    };
    if (HasAvx512Bf16()) add(Avx512Bf16Kernels());
    if (HasAvx512()) add(Avx512Kernels());
    if (HasAvx2()) add(Avx2Kernels());
    add(NeonKernels());
    add(PortableKernels());
  }
};

const Kernels* Choose() {
  const Kernels* const* tables = AvailableKernels();
  if (const char* wanted = std::getenv("SIGMOID_ATTENTION_ISA")) {
    for (int i = 0; tables[i]; ++i) {
      if (std::strcmp(tables[i]->name, wanted) == 0) return tables[i];
    }
  }
  return tables[0];
}

const Kernels*& Active() {
  static const Kernels* kernels = Choose();
  return kernels;
}

}  // namespace

const Kernels* const* AvailableKernels() {
  static const Available available;
  return available.tables;
}

const Kernels& ActiveKernels() {
  return *Active();
}

void SetActiveKernels(const Kernels& kernels) {
  Active() = &kernels;
}

}  // namespace sigmoid_attention::cpu

// Warpgroup matrix products D[64 x N] += A[64 x 16] B[16 x N] with float32 accumulators, for the N in use.
//
// A comes from shared memory or registers, B from shared memory. Tiles lie in shared memory in rows of 64
// elements (128 bytes) with the 128-byte swizzle, as TMA writes them; heads wider than 64 are several such
// tiles side by side.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace sa {

constexpr int kAtomElements = 64;  // elements of a swizzled row
constexpr int kAtomBytes = 128;

// What describes a swizzled tile to wgmma, in two words. Both strides are in bytes: `group_stride` from one
// group of 8 rows to the next; `block_stride` from one 64-element block to the next along the contiguous
// axis, used by the transposed form only. The lower word should be worked out from values that all lanes
// share (__shfl_sync): then it lies in a uniform register, and moving a descriptor costs the vector units
// nothing.
__device__ __forceinline__ uint32_t descriptor_word(const void* tile, uint32_t block_stride) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(tile)) >> 4 | block_stride >> 4 << 16;
}
// `bytes` behind the tile that `word` describes.
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t word, uint32_t bytes, uint32_t group_stride) {
  constexpr uint64_t kSwizzle128 = 1;
  return static_cast<uint64_t>(word + (bytes >> 4)) | static_cast<uint64_t>(group_stride >> 4) << 32 |
         kSwizzle128 << 62;
}

// Wgmma<T, N>::from_shared(d, a, b, add): both operands' contraction axis contiguous (Q K^T).
// Wgmma<T, N>::from_registers<transpose>(d, a, b): with transpose, B's N axis is contiguous (P V).
template <class T, int kN>
struct Wgmma;

#define SA_R8(a, b, c, d, e, f, g, h) "%" #a ", %" #b ", %" #c ", %" #d ", %" #e ", %" #f ", %" #g ", %" #h
#define SA_R8_0 SA_R8(0, 1, 2, 3, 4, 5, 6, 7)
#define SA_R8_8 SA_R8(8, 9, 10, 11, 12, 13, 14, 15)
#define SA_R8_16 SA_R8(16, 17, 18, 19, 20, 21, 22, 23)
#define SA_R8_24 SA_R8(24, 25, 26, 27, 28, 29, 30, 31)
#define SA_R8_32 SA_R8(32, 33, 34, 35, 36, 37, 38, 39)
#define SA_R8_40 SA_R8(40, 41, 42, 43, 44, 45, 46, 47)
#define SA_R8_48 SA_R8(48, 49, 50, 51, 52, 53, 54, 55)
#define SA_R8_56 SA_R8(56, 57, 58, 59, 60, 61, 62, 63)
#define SA_R8_64 SA_R8(64, 65, 66, 67, 68, 69, 70, 71)
#define SA_R8_72 SA_R8(72, 73, 74, 75, 76, 77, 78, 79)
#define SA_R8_80 SA_R8(80, 81, 82, 83, 84, 85, 86, 87)
#define SA_R8_88 SA_R8(88, 89, 90, 91, 92, 93, 94, 95)
#define SA_R8_96 SA_R8(96, 97, 98, 99, 100, 101, 102, 103)
#define SA_R8_104 SA_R8(104, 105, 106, 107, 108, 109, 110, 111)
#define SA_R8_112 SA_R8(112, 113, 114, 115, 116, 117, 118, 119)
#define SA_R8_120 SA_R8(120, 121, 122, 123, 124, 125, 126, 127)
#define SA_R32_0 SA_R8_0 ", " SA_R8_8 ", " SA_R8_16 ", " SA_R8_24
#define SA_R32_32 SA_R8_32 ", " SA_R8_40 ", " SA_R8_48 ", " SA_R8_56
#define SA_R32_64 SA_R8_64 ", " SA_R8_72 ", " SA_R8_80 ", " SA_R8_88
#define SA_R32_96 SA_R8_96 ", " SA_R8_104 ", " SA_R8_112 ", " SA_R8_120

#define SA_O8(i)                                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define SA_O32(i) SA_O8(i), SA_O8(i + 8), SA_O8(i + 16), SA_O8(i + 24)

#define SA_STRIP(...) __VA_ARGS__

// I0.. are the operand numbers behind the accumulators.
#define SA_WGMMA_TYPED(N, TYPE, NAME, LIST, OUTPUTS, I0, I1, I2, I3, I4, I5, I6)                           \
  template <>                                                                                              \
  struct Wgmma<TYPE, N> {                                                                                  \
    static __device__ __forceinline__ void from_shared(float (&d)[N / 2], uint64_t a, uint64_t b,          \
                                                       bool add) {                                         \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #I2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N   \
                   "k16.f32." NAME "." NAME " {" LIST "}, %" #I0 ", %" #I1 ", p, 1, 1, 0, 0;\n}\n"         \
                   : SA_STRIP OUTPUTS                                                                      \
                   : "l"(a), "l"(b), "r"(static_cast<int>(add)));                                          \
    }                                                                                                      \
    template <int kTranspose>                                                                              \
    static __device__ __forceinline__ void from_registers(float (&d)[N / 2], const uint32_t (&a)[4],       \
                                                          uint64_t b, bool add) {                          \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #I5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N   \
                   "k16.f32." NAME "." NAME " {" LIST "}, {%" #I0 ", %" #I1 ", %" #I2 ", %" #I3 "}, %" #I4 \
                   ", p, 1, 1, %" #I6 ";\n}\n"                                                             \
                   : SA_STRIP OUTPUTS                                                                      \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),       \
                     "n"(kTranspose));                                                                     \
    }                                                                                                      \
  };
#define SA_WGMMA(N, LIST, OUTPUTS, ...)                        \
  SA_WGMMA_TYPED(N, __half, "f16", LIST, OUTPUTS, __VA_ARGS__) \
  SA_WGMMA_TYPED(N, __nv_bfloat16, "bf16", LIST, OUTPUTS, __VA_ARGS__)

SA_WGMMA(64, SA_R32_0, (SA_O32(0)), 32, 33, 34, 35, 36, 37, 38)
SA_WGMMA(80, SA_R32_0 ", " SA_R8_32, (SA_O32(0), SA_O8(32)), 40, 41, 42, 43, 44, 45, 46)
SA_WGMMA(96, SA_R32_0 ", " SA_R8_32 ", " SA_R8_40, (SA_O32(0), SA_O8(32), SA_O8(40)), 48, 49, 50, 51, 52, 53,
         54)
SA_WGMMA(112, SA_R32_0 ", " SA_R8_32 ", " SA_R8_40 ", " SA_R8_48,
         (SA_O32(0), SA_O8(32), SA_O8(40), SA_O8(48)), 56, 57, 58, 59, 60, 61, 62)
SA_WGMMA(128, SA_R32_0 ", " SA_R32_32, (SA_O32(0), SA_O32(32)), 64, 65, 66, 67, 68, 69, 70)
SA_WGMMA(160, SA_R32_0 ", " SA_R32_32 ", " SA_R8_64 ", " SA_R8_72,
         (SA_O32(0), SA_O32(32), SA_O8(64), SA_O8(72)), 80, 81, 82, 83, 84, 85, 86)
SA_WGMMA(176, SA_R32_0 ", " SA_R32_32 ", " SA_R8_64 ", " SA_R8_72 ", " SA_R8_80,
         (SA_O32(0), SA_O32(32), SA_O8(64), SA_O8(72), SA_O8(80)), 88, 89, 90, 91, 92, 93, 94)
SA_WGMMA(192, SA_R32_0 ", " SA_R32_32 ", " SA_R32_64, (SA_O32(0), SA_O32(32), SA_O32(64)), 96, 97, 98, 99,
         100, 101, 102)
SA_WGMMA(256, SA_R32_0 ", " SA_R32_32 ", " SA_R32_64 ", " SA_R32_96,
         (SA_O32(0), SA_O32(32), SA_O32(64), SA_O32(96)), 128, 129, 130, 131, 132, 133, 134)

#undef SA_WGMMA
#undef SA_WGMMA_TYPED
#undef SA_STRIP

}  // namespace sa

// The operator's 16-bit element types and their conversion to and from float, one element at a time.
//
// Internal linkage on purpose: each kernel source is compiled for its own instruction set, and the linker
// must never merge their copies of these functions.
#pragma once

#include <cstdint>
#include <cstring>

namespace sigmoid_attention::cpu {
namespace {

constexpr int64_t kPageBytes = 4096;  // addresses a multiple of it apart share their L1 cache set

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t BitsFromFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float ToFloat(float value) {
  return value;
}

inline float ToFloat(BFloat16 value) {
  return FloatFromBits(static_cast<uint32_t>(value.bits) << 16);
}

inline float ToFloat(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t magnitude = value.bits & 0x7fff;
  if (magnitude >= 0x7c00) return FloatFromBits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // Read as a float the shifted bits are the value times 2^-112, subnormals included.
  const float scaled = FloatFromBits(magnitude << 13) * 0x1p112f;
  return FloatFromBits(sign | BitsFromFloat(scaled));
}

/// Rounds to nearest, ties to even.
inline void FromFloat(float value, float* to) {
  *to = value;
}

inline void FromFloat(float value, BFloat16* to) {
  const uint32_t bits = BitsFromFloat(value);
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  to->bits = static_cast<uint16_t>(is_nan ? (bits >> 16 | 0x40) : ((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
}

inline void FromFloat(float value, Half* to) {
  const uint32_t bits = BitsFromFloat(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t half;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;
  } else if (magnitude >= 0x477ff000) {  // from 65520 on
    half = 0x7c00;
  } else if (magnitude <
             0x38800000) {  // below 2^-14: adding 0.5 leaves the subnormal's integer in the low bits
    half = BitsFromFloat(FloatFromBits(magnitude) + 0.5f) - 0x3f000000;
  } else {
    half = (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | half);
}

inline int64_t Min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t Max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
inline int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t RoundUp(int64_t a, int64_t b) {
  return CeilDiv(a, b) * b;
}

}  // namespace
}  // namespace sigmoid_attention::cpu

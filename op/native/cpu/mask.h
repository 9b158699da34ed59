// attn_mask as addends of z = -log2(e) L: a number m becomes -log2(e) m, an excluded key +inf.
#pragma once

#include "op/native/cpu/rows.h"
#include "op/native/cpu/sigmoid.h"

namespace sigmoid_attention::cpu {
namespace {

/// What a part of the mask does to the scores it covers.
enum class MaskEffect { kNothing, kAddsOrExcludes, kExcludesAll };

/// One head's mask.
class Mask {
 public:
  Mask(const SaProblem& p, int64_t batch, int64_t query_head)
      : type_(p.mask_type),
        element_(p.type),
        row_stride_(p.mask_strides[2]),
        key_stride_(p.mask_strides[3]),
        first_(batch * p.mask_strides[0] + query_head * p.mask_strides[1]),
        data_(p.mask) {}

  bool present() const { return type_ != SA_MASK_NONE; }

  /// The same for every row?
  bool per_key() const { return row_stride_ == 0; }

  /// Addends of keys [key, key + count) for one row.
  void Row(int64_t row, int64_t key, int64_t count, float* to) const {
    const int64_t at = first_ + row * row_stride_ + key * key_stride_;
    if (type_ == SA_MASK_BOOL) {
      Fill(static_cast<const uint8_t*>(data_) + at, count, to);
    } else if (type_ == SA_MASK_FLOAT || element_ == SA_FLOAT) {
      Fill(static_cast<const float*>(data_) + at, count, to);
    } else if (element_ == SA_FLOAT16) {
      Fill(static_cast<const Half*>(data_) + at, count, to);
    } else {
      Fill(static_cast<const BFloat16*>(data_) + at, count, to);
    }
  }

  /// Addends [key][row] of `rows` rows, up to `width` of them 0; `scratch` holds kLanes x RoundUp(count,
  /// kLanes).
  MaskEffect Block(int64_t row, int64_t rows, int64_t width, int64_t key, int64_t count, float* to,
                   float* scratch) const {
    using V = Simd::V;
    constexpr int kLanes = Simd::kLanes;
    const int64_t stride = RoundUp(count, kLanes);
    V least = Simd::Set1(kInfinity), greatest = Simd::Zero();
    for (int64_t r = 0; r < width; r += kLanes) {
      const int64_t live = Max(0, Min(kLanes, rows - r));
      for (int64_t i = 0; i < live; ++i) {
        float* line = scratch + i * stride;
        Row(row + r + i, key, count, line);
        for (int64_t j = count; j < stride; ++j) line[j] = line[count - 1];
        for (int64_t j = 0; j < stride; j += kLanes) {
          const V addend = Simd::Load(line + j);
          least = Simd::Min(addend, least);
          greatest = Simd::Max(Simd::Abs(addend), greatest);
        }
      }
      for (int64_t j = 0; j < count; j += kLanes) {
        V tile[kLanes];
        for (int i = 0; i < kLanes; ++i)
          tile[i] = i < live ? Simd::Load(scratch + i * stride + j) : Simd::Zero();
        Simd::Transpose(tile);
        for (int i = 0; i < kLanes && j + i < count; ++i) Simd::Store(to + (j + i) * width + r, tile[i]);
      }
    }
    if (!Simd::Any(Simd::Less(least, Simd::Set1(kInfinity)))) return MaskEffect::kExcludesAll;
    const bool adds = !Simd::All(Simd::LessEqual(greatest, Simd::Zero()));
    return adds ? MaskEffect::kAddsOrExcludes : MaskEffect::kNothing;
  }

 private:
  static float Addend(uint8_t takes_part) { return takes_part ? 0 : kInfinity; }
  static float Addend(float number) { return -kLog2E * number; }
  static float Addend(Half number) { return -kLog2E * ToFloat(number); }
  static float Addend(BFloat16 number) { return -kLog2E * ToFloat(number); }

  template <class T>
  void Fill(const T* from, int64_t count, float* to) const {
    if (key_stride_ == 1) {
      int64_t j = 0;
      if constexpr (sizeof(T) > 1) {
        const Simd::V factor = Simd::Set1(-kLog2E);
        for (; j + Simd::kLanes <= count; j += Simd::kLanes) {
          Simd::Store(to + j, Simd::Mul(Simd::Load(from + j), factor));
        }
      }
      for (; j < count; ++j) to[j] = Addend(from[j]);
    } else {
      for (int64_t j = 0; j < count; ++j) to[j] = Addend(from[j * key_stride_]);
    }
  }

  SaMaskType type_;
  SaType element_;
  int64_t row_stride_, key_stride_, first_;
  const void* data_;
};

}  // namespace
}  // namespace sigmoid_attention::cpu

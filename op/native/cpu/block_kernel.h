// A rectangle of rows x keys of one head: for each block of keys, and each panel of rows, scores (Q K^T),
// weights (sigmoid) and values (W V), so that the scores of a panel stay in cache and nothing of size Nq x Nk
// exists.
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>

#include "op/native/cpu/kernels.h"
#include "op/native/cpu/mask.h"
#include "op/native/cpu/pairs.h"
#include "op/native/cpu/row_range.h"
#include "op/native/cpu/rows.h"
#include "op/native/cpu/sigmoid.h"
#include "op/native/cpu/tiles.h"

namespace sigmoid_attention::cpu {
namespace {

constexpr int64_t kPanelRows = 48;  // a multiple of every register tile's rows and of every vector length
constexpr int64_t kGroupRows = Simd::kScoreVectors * Simd::kLanes;  // rows of a register tile of scores
constexpr double kLeastFoldedBias = -64;                            // SigmoidOf's limit

/// Where a rectangle's intermediate results lie in its thread's scratch.
struct BlockScratch {
  float* q;        // per panel, transposed: [D][panel width]
  float* y;        // [rows][DvPadded]; not used where the results can gather in their final place
  float* sums;     // [rows]
  float* started;  // per panel: 1 when its y holds something
  float* scores;   // [keys][panel width]
  float* addends;  // mask: [keys][panel width], or [keys]
  float* lines;    // kLanes mask rows
  float* k;        // [keys][DPadded]
  float* v;        // [keys][DvPadded]
  float* pairs;    // weights as pairs of bfloat16: [keys / 2][panel width]
  int64_t floats;  // all of it

  BlockScratch(const SaProblem& p, const Blocking& blocking, float* base) {
    const int64_t rows = RoundUp(blocking.rows, kPanelRows), keys = RoundUp(blocking.keys, 16);
    const int64_t d = RoundUp(p.head_size, 16), dv = RoundUp(p.value_head_size, 16);
    const bool whole_mask = p.mask_type != SA_MASK_NONE && p.mask_strides[2] != 0;
    floats = 0;
    const auto take = [&](int64_t count) {
      const int64_t offset = floats;
      floats += RoundUp(count, 16);
      return base ? base + offset : nullptr;
    };
    q = take(rows * p.head_size);
    y = take(rows * dv);
    sums = take(rows);
    started = take(rows / kPanelRows);
    scores = take(keys * kPanelRows);
    addends = take(whole_mask ? keys * kPanelRows : keys);
    lines = take(whole_mask ? keys * Simd::kLanes : 0);
    k = take(blocking.copy_k ? keys * d : 0);
    v = take(keys * dv);
    pairs = take(Simd::kHasPairs && p.type == SA_BFLOAT16 ? keys / 2 * kPanelRows : 0);
  }
};

template <class T>
class BlockKernel {
 public:
  BlockKernel(const Rectangle& rectangle, const Blocking& blocking, float* scratch)
      : at_(rectangle),
        p_(*rectangle.problem),
        blocking_(blocking),
        scratch_(p_, blocking, scratch),
        kv_head_(rectangle.head / (p_.query_heads / p_.kv_heads)),
        rows_(rectangle.row_end - rectangle.row_begin),
        value_stride_(RoundUp(p_.value_head_size, Simd::kLanes)),
        y_(scratch_.y),
        y_stride_(value_stride_),
        mask_(p_, rectangle.batch, rectangle.head),
        slope_(AlibiSlope(p_, rectangle.batch, rectangle.head)),
        bias_(UniformBias(p_, rectangle.batch, rectangle.head)),
        folded_bias_(bias_ <= 0 && bias_ >= kLeastFoldedBias ? bias_ : 0),
        rewrites_scores_(p_.softcap > 0 || slope_ != 0 || p_.bias_mode == SA_BIAS_NEG_LOG_VISIBLE ||
                         folded_bias_ != bias_),
        sigmoid_(rewrites_scores_ ? 1 : ScoreScale(p_, rectangle.head), folded_bias_) {
    if (value_stride_ != p_.value_head_size) return;
    if (at_.partial) {
      y_ = at_.partial;
    } else if constexpr (std::is_same_v<T, float>) {
      // Rows that all fall into the same cache sets are better gathered elsewhere.
      if (p_.y_strides.row * static_cast<int64_t>(sizeof(float)) % kPageBytes == 0) return;
      y_ = OutputRow<T>(p_, at_.batch, at_.head, at_.row_begin);
      y_stride_ = p_.y_strides.row;
    }
  }

  void Run() {
    Clear();
    for (int64_t row = 0; row < rows_; row += kPanelRows) {
      const Panel panel = PanelAt(row);
      const T* first = QueryRow<T>(p_, at_.batch, at_.head, at_.row_begin + row);
      if constexpr (kPairs) {
        if (pairs_) {
          TransposeRows(AsPairs(first), p_.q_strides.row / 2, panel.rows, p_.head_size / 2, panel.q,
                        panel.width);
          continue;
        }
      }
      TransposeRows(first, p_.q_strides.row, panel.rows, p_.head_size, panel.q, panel.width);
    }
    const KeyRange seen = VisibleKeys(p_, at_.batch, at_.row_begin, at_.row_end);
    const int64_t end = Min(seen.end, at_.key_end);
    for (int64_t key = Max(seen.begin, at_.key_begin); key < end;) {
      const int64_t count = Min(blocking_.keys, end - key);
      PlanAhead(key + count, end, count);
      key += RunKeys(key, count);
    }
    Finish();
  }

 private:
  static constexpr bool kPairs = Simd::kHasPairs && std::is_same_v<T, BFloat16>;

  struct Panel {
    int64_t row;    // of the rectangle
    int64_t rows;   // live ones
    int64_t width;  // rounded up to whole vectors
    float* q;
    float* y;
    float* sums;
    float* started;
  };

  /// Keys [first, first + count) as the products read them.
  struct KeyBlock {
    int64_t first, count;
    const float* k;
    int64_t k_stride;
    const float* v;
    int64_t v_stride;
    RowSpan<T> v_rows;
    bool searched;  // for values that are not finite
    int64_t not_finite_count;
  };

  Panel PanelAt(int64_t row) const {
    const int64_t rows = Min(kPanelRows, rows_ - row);
    return {row,
            rows,
            RoundUp(rows, Simd::kLanes),
            scratch_.q + row * p_.head_size,
            y_ + row * y_stride_,
            scratch_.sums + row,
            scratch_.started + row / kPanelRows};
  }

  void Clear() {
    const int64_t padded = RoundUp(rows_, kPanelRows);
    std::memset(scratch_.sums, 0, static_cast<size_t>(padded) * sizeof(float));
    std::memset(scratch_.started, 0, static_cast<size_t>(padded / kPanelRows) * sizeof(float));
  }

  /// Reads ahead, during a block of `count` keys, the block from `key` on or the next rectangle's first.
  void PlanAhead(int64_t key, int64_t end, int64_t count) {
    ahead_.Clear();
    if (key < end) {
      PlanKeys(at_, kv_head_, key, Min(blocking_.keys, end - key));
    } else if (at_.next) {
      const Rectangle& next = *at_.next;
      const int64_t kv_head = next.head / (p_.query_heads / p_.kv_heads);
      const int64_t rows = next.row_end - next.row_begin;
      const int64_t bytes = static_cast<int64_t>(sizeof(T));
      ahead_.Plan(QueryRow<T>(p_, next.batch, next.head, next.row_begin), p_.q_strides.row * bytes,
                  p_.head_size * bytes, rows, false);
      const KeyRange seen = VisibleKeys(p_, next.batch, next.row_begin, next.row_end);
      const int64_t first = Max(seen.begin, next.key_begin);
      PlanKeys(next, kv_head, first, Min(blocking_.keys, Min(seen.end, next.key_end) - first));
      if (!next.partial) {
        ahead_.Plan(OutputRow<T>(p_, next.batch, next.head, next.row_begin), p_.y_strides.row * bytes,
                    p_.value_head_size * bytes, rows, true);
      }
    }
    const int64_t score_tiles = CeilDiv(count, Simd::kScoreKeys) * (kPanelRows / kGroupRows);
    const int64_t value_tiles =
        kPanelRows / Simd::kValueRows * (value_stride_ / Simd::kLanes / Simd::kValueVectors);
    ahead_.Spread(CeilDiv(rows_, kPanelRows) * (score_tiles + value_tiles));
  }

  void PlanKeys(const Rectangle& rectangle, int64_t kv_head, int64_t key, int64_t count) {
    if (count <= 0) return;
    const int64_t bytes = static_cast<int64_t>(sizeof(T));
    const RowSpan<T> k = KeyRows<T>(p_, rectangle.batch, kv_head, key);
    const RowSpan<T> v = ValueRows<T>(p_, rectangle.batch, kv_head, key);
    ahead_.Plan(k.first, k.stride * bytes, p_.head_size * bytes, Min(count, k.count), false);
    ahead_.Plan(v.first, v.stride * bytes, p_.value_head_size * bytes, Min(count, v.count), false);
  }

  /// Adds the part of at most `count` keys from `key` on; returns how many were taken.
  int64_t RunKeys(int64_t key, int64_t count) {
    const RowSpan<T> k_rows = KeyRows<T>(p_, at_.batch, kv_head_, key);
    const RowSpan<T> v_rows = ValueRows<T>(p_, at_.batch, kv_head_, key);
    count = Min(count, k_rows.count);
    if (mask_.present() && mask_.per_key()) {
      mask_.Row(0, key, count, scratch_.addends);
      // Padding at the ends is not worth a product.
      int64_t begin = 0, end = count;
      while (end > 0 && scratch_.addends[end - 1] == kInfinity) --end;
      while (begin < end && scratch_.addends[begin] == kInfinity) ++begin;
      if (begin == end) return count;
      if (begin > 0) {
        std::memmove(scratch_.addends, scratch_.addends + begin,
                     static_cast<size_t>(end - begin) * sizeof(float));
      }
      KeyBlock block =
          Load(key + begin, end - begin, {k_rows.first + begin * k_rows.stride, k_rows.stride, 0},
               {v_rows.first + begin * v_rows.stride, v_rows.stride, 0});
      RunPanels(block);
    } else {
      KeyBlock block = Load(key, count, k_rows, v_rows);
      RunPanels(block);
    }
    return count;
  }

  KeyBlock Load(int64_t key, int64_t count, const RowSpan<T>& k_rows, const RowSpan<T>& v_rows) {
    KeyBlock block{key, count, nullptr, 0, nullptr, 0, v_rows, false, 0};
    if constexpr (std::is_same_v<T, float>) {
      block.k = k_rows.first;
      block.k_stride = k_rows.stride;
      block.v = v_rows.first;
      block.v_stride = v_rows.stride;
    }
    if constexpr (kPairs) {
      if (pairs_) {
        block.k = AsPairs(k_rows.first);
        block.k_stride = k_rows.stride / 2;
        CopyValues(&block);
        return block;
      }
    }
    if (blocking_.copy_k) {
      block.k = scratch_.k;
      block.k_stride = RoundUp(p_.head_size, Simd::kLanes);
      CopyRows(k_rows, count, p_.head_size, scratch_.k, block.k_stride);
    }
    if (blocking_.copy_v) CopyValues(&block);
    return block;
  }

  void CopyValues(KeyBlock* block) {
    block->v = scratch_.v;
    block->v_stride = value_stride_;
    if constexpr (kPairs) {
      if (pairs_) {
        InterleaveRows(block->v_rows, block->count, p_.value_head_size, scratch_.v, value_stride_);
        return;
      }
    }
    CopyRows(block->v_rows, block->count, p_.value_head_size, scratch_.v, value_stride_);
  }

  void RunPanels(KeyBlock& block) {
    for (int64_t row = 0; row < rows_; row += kPanelRows) RunPanel(PanelAt(row), block);
  }

  /// Keys of the block that some of the rows may see, counted from the block's first.
  KeyRange Seen(const KeyBlock& block, int64_t row, int64_t rows) const {
    const int64_t first = at_.row_begin + row;
    const KeyRange range = VisibleKeys(p_, at_.batch, first, first + rows);
    const int64_t begin = Max(0, Min(block.count, range.begin - block.first));
    return {begin, Max(begin, Min(block.count, range.end - block.first))};
  }

  void RunPanel(const Panel& panel, KeyBlock& block) {
    const KeyRange range = Seen(block, panel.row, panel.rows);
    if (range.begin == range.end) return;
    const KeyRange first = Seen(block, panel.row, 1), last = Seen(block, panel.row + panel.rows - 1, 1);
    const bool edge = first.begin != last.begin || first.end != last.end;
    bool mask_block = false;
    if (mask_.present() && !mask_.per_key()) {
      const MaskEffect effect =
          mask_.Block(at_.row_begin + panel.row, panel.rows, panel.width, block.first + range.begin,
                      range.end - range.begin, scratch_.addends + range.begin * panel.width, scratch_.lines);
      if (effect == MaskEffect::kExcludesAll) return;
      mask_block = effect == MaskEffect::kAddsOrExcludes;
    }
    if (edge || mask_.present()) SearchValues(&block);

    for (int64_t group = 0; group < panel.width; group += kGroupRows) {
      const int64_t width = Min(kGroupRows, panel.width - group);
      const KeyRange seen = edge ? Seen(block, panel.row + group, Min(width, panel.rows - group)) : range;
      GroupWeights(panel, group, width / Simd::kLanes, block, range, seen, edge, mask_block,
                   std::make_integer_sequence<int, Simd::kScoreVectors>());
    }
    if constexpr (kPairs) {
      if (pairs_) PairWeights(scratch_.scores, panel.width, range.begin, range.end, scratch_.pairs);
    }
    for (int64_t row = 0; row < panel.rows; row += Simd::kValueRows) {
      const int64_t rows = Min(Simd::kValueRows, panel.rows - row);
      const KeyRange seen = edge ? Seen(block, panel.row + row, rows) : range;
      if constexpr (kPairs) {
        if (pairs_) {
          const int64_t begin = seen.begin / 2;
          Values<Pairs>(scratch_.pairs + begin * panel.width + row, panel.width, rows,
                        block.v + begin * block.v_stride, block.v_stride, CeilDiv(seen.end, 2) - begin,
                        panel.y + row * y_stride_, y_stride_, value_stride_ / Simd::kLanes,
                        *panel.started != 0, &ahead_);
          continue;
        }
      }
      Values<Floats>(scratch_.scores + seen.begin * panel.width + row, panel.width, rows,
                     block.v + seen.begin * block.v_stride, block.v_stride, seen.end - seen.begin,
                     panel.y + row * y_stride_, y_stride_, value_stride_ / Simd::kLanes, *panel.started != 0,
                     &ahead_);
    }
    *panel.started = 1;
    if (block.not_finite_count > 0) AddNotFinite(panel, block, range);
  }

  /// Scores and weights of one group of rows; `range` is the panel's, `seen` the group's own part of it.
  template <int... kVectorsLess1>
  void GroupWeights(const Panel& panel, int64_t group, int64_t vectors, const KeyBlock& block, KeyRange range,
                    KeyRange seen, bool edge, bool mask_block, std::integer_sequence<int, kVectorsLess1...>) {
    using Function =
        void (BlockKernel::*)(const Panel&, int64_t, const KeyBlock&, KeyRange, KeyRange, bool, bool);
    constexpr Function table[] = {&BlockKernel::template GroupWeightsOf<kVectorsLess1 + 1>...};
    (this->*table[vectors - 1])(panel, group, block, range, seen, edge, mask_block);
  }

  template <int kVectors>
  void GroupWeightsOf(const Panel& panel, int64_t group, const KeyBlock& block, KeyRange range, KeyRange seen,
                      bool edge, bool mask_block) {
    float* scores = scratch_.scores + group;
    const int64_t stride = panel.width;
    ClearKeys<kVectors>(scores, stride, {range.begin, seen.begin});
    ClearKeys<kVectors>(scores, stride, {seen.end, range.end});
    ScoresOf<kVectors>(panel.q + group, stride, block, seen, scores + seen.begin * stride);
    if (rewrites_scores_) RewriteScores<kVectors>(panel, group, block, seen);
    // Keys that every row of the group sees need no comparison.
    KeyRange common = seen;
    if (edge) {
      for (int64_t row = group; row < Min(panel.rows, group + kVectors * Simd::kLanes); ++row) {
        const KeyRange own = Seen(block, panel.row + row, 1);
        common.begin = Max(common.begin, own.begin);
        common.end = Min(common.end, own.end);
      }
      common.begin = Min(common.begin, seen.end);
      common.end = Max(common.begin, common.end);
    }
    Weights<kVectors>(panel, group, block, {seen.begin, common.begin}, true, mask_block);
    Weights<kVectors>(panel, group, block, common, false, mask_block);
    Weights<kVectors>(panel, group, block, {common.end, seen.end}, true, mask_block);
  }

  template <int kVectors>
  void ScoresOf(const float* q, int64_t stride, const KeyBlock& block, KeyRange keys, float* scores) {
    const float* k = block.k + keys.begin * block.k_stride;
    const int64_t count = keys.end - keys.begin;
    if constexpr (kPairs) {
      if (pairs_) {
        Scores<Pairs, kVectors>(q, stride, k, block.k_stride, p_.head_size / 2, count, scores, stride,
                                &ahead_);
        return;
      }
    }
    Scores<Floats, kVectors>(q, stride, k, block.k_stride, p_.head_size, count, scores, stride, &ahead_);
  }

  template <int kVectors>
  static void ClearKeys(float* scores, int64_t stride, KeyRange keys) {
    for (int64_t key = keys.begin; key < keys.end; ++key) {
      for (int v = 0; v < kVectors; ++v) Simd::Store(scores + key * stride + v * Simd::kLanes, Simd::Zero());
    }
  }

  /// Where a plain multiplication does not give L: scale, softcap, ALiBi and the row's own bias, in natural
  /// units.
  template <int kVectors>
  void RewriteScores(const Panel& panel, int64_t group, const KeyBlock& block, KeyRange keys) {
    using V = Simd::V;
    V bias[kVectors], position[kVectors];
    const int64_t first_row = at_.row_begin + panel.row + group;
    for (int v = 0; v < kVectors; ++v) {
      float lanes[Simd::kLanes];
      for (int i = 0; i < Simd::kLanes; ++i) {
        const int64_t row = Min(first_row + v * Simd::kLanes + i, at_.row_end - 1);
        lanes[i] = RowBias(p_, at_.batch, row) + (bias_ - folded_bias_);
      }
      bias[v] = Simd::Load(lanes);
      const int64_t relative = first_row + v * Simd::kLanes + RowOffset(p_, at_.batch) - block.first;
      position[v] = Simd::Add(Simd::Set1(static_cast<float>(relative)), Simd::Iota());
    }
    const float scale = ScoreScale(p_, at_.head);
    const V scales = Simd::Set1(p_.softcap > 0 ? scale / p_.softcap : scale);
    const V cap = Simd::Set1(p_.softcap), slope = Simd::Set1(-slope_);
    for (int64_t key = keys.begin; key < keys.end; ++key) {
      const V at = Simd::Set1(static_cast<float>(key));
      for (int v = 0; v < kVectors; ++v) {
        float* score = scratch_.scores + group + key * panel.width + v * Simd::kLanes;
        V x = Simd::Mul(Simd::Load(score), scales);
        if (p_.softcap > 0) x = Simd::Mul(Tanh(x), cap);
        x = Simd::Add(x, bias[v]);
        Simd::Store(score, Simd::Fma(slope, Simd::Abs(Simd::Sub(position[v], at)), x));
      }
    }
  }

  template <int kVectors>
  void Weights(const Panel& panel, int64_t group, const KeyBlock& block, KeyRange keys, bool edge,
               bool mask_block) {
    if (keys.begin == keys.end) return;
    const bool key_mask = mask_.present() && mask_.per_key();
    if (p_.normalize) {
      WeightsFor<kVectors, true>(panel, group, block, keys, edge, key_mask, mask_block);
    } else {
      WeightsFor<kVectors, false>(panel, group, block, keys, edge, key_mask, mask_block);
    }
  }

  template <int kVectors, bool kSums>
  void WeightsFor(const Panel& panel, int64_t group, const KeyBlock& block, KeyRange keys, bool edge,
                  bool key_mask, bool mask_block) {
    if (key_mask) {
      edge ? WeightsOf<kVectors, kSums, true, true, false>(panel, group, block, keys)
           : WeightsOf<kVectors, kSums, false, true, false>(panel, group, block, keys);
    } else if (mask_block) {
      edge ? WeightsOf<kVectors, kSums, true, false, true>(panel, group, block, keys)
           : WeightsOf<kVectors, kSums, false, false, true>(panel, group, block, keys);
    } else {
      edge ? WeightsOf<kVectors, kSums, true, false, false>(panel, group, block, keys)
           : WeightsOf<kVectors, kSums, false, false, false>(panel, group, block, keys);
    }
  }

  /// Scores to weights in place: sigmoid, mask and, in an edge, each row's own range; `kSums`: adds them up
  /// by row.
  template <int kVectors, bool kSums, bool kEdge, bool kKeyMask, bool kBlockMask>
  void WeightsOf(const Panel& panel, int64_t group, const KeyBlock& block, KeyRange keys) {
    using V = Simd::V;
    const V infinity = Simd::Set1(kInfinity);
    const SigmoidOf sigmoid = sigmoid_;
    V begin[kVectors], end[kVectors], sum[kVectors];
    for (int v = 0; v < kVectors; ++v) sum[v] = Simd::Zero();
    if constexpr (kEdge) RowRanges<kVectors>(panel, group, block, begin, end);
    float* scores = scratch_.scores + group + keys.begin * panel.width;
    const float* addends =
        kKeyMask ? scratch_.addends + keys.begin : scratch_.addends + group + keys.begin * panel.width;
    for (int64_t key = keys.begin; key < keys.end; ++key) {
      V key_addend;
      if constexpr (kKeyMask) key_addend = Simd::Set1(*addends);
      for (int v = 0; v < kVectors; ++v) {
        float* score = scores + v * Simd::kLanes;
        V weight;
        if constexpr (kKeyMask || kBlockMask) {
          V addend;
          if constexpr (kKeyMask) addend = key_addend;
          if constexpr (kBlockMask) addend = Simd::Load(addends + v * Simd::kLanes);
          weight = sigmoid(Simd::Load(score), addend);
          weight = Simd::Select(Simd::LessEqual(infinity, addend), Simd::Zero(), weight);
        } else {
          weight = sigmoid(Simd::Load(score));
        }
        if constexpr (kEdge) {
          const V at = Simd::Set1(static_cast<float>(key));
          weight = Simd::ZeroUnless(Simd::And(Simd::LessEqual(begin[v], at), Simd::Less(at, end[v])), weight);
        }
        Simd::Store(score, weight);
        if constexpr (kSums) sum[v] = Simd::Add(sum[v], weight);
      }
      scores += panel.width;
      addends += kKeyMask ? 1 : panel.width;
    }
    if constexpr (!kSums) return;
    for (int v = 0; v < kVectors; ++v) {
      float* total = panel.sums + group + v * Simd::kLanes;
      Simd::Store(total, Simd::Add(Simd::Load(total), sum[v]));
    }
  }

  template <int kVectors>
  void RowRanges(const Panel& panel, int64_t group, const KeyBlock& block, Simd::V* begin,
                 Simd::V* end) const {
    float begins[kVectors * Simd::kLanes], ends[kVectors * Simd::kLanes];
    for (int64_t i = 0; i < kVectors * Simd::kLanes; ++i) {
      const KeyRange own = Seen(block, panel.row + Min(group + i, panel.rows - 1), 1);
      begins[i] = static_cast<float>(own.begin);
      ends[i] = static_cast<float>(own.end);
    }
    for (int v = 0; v < kVectors; ++v) {
      begin[v] = Simd::Load(begins + v * Simd::kLanes);
      end[v] = Simd::Load(ends + v * Simd::kLanes);
    }
  }

  /// Takes value rows with NaN or Inf out of the product, where 0 * NaN would reach rows that exclude the
  /// key.
  void SearchValues(KeyBlock* block) {
    if (block->searched) return;
    block->searched = true;
    for (int64_t key = 0; key < block->count; ++key) {
      if (IsFinite(ValueRow(*block, key), p_.value_head_size)) continue;
      if (block->not_finite_count++ == 0 && block->v != scratch_.v) CopyValues(block);
      if constexpr (kPairs) {
        if (pairs_) {
          ClearInterleaved(scratch_.v, value_stride_, key);
          continue;
        }
      }
      std::memset(scratch_.v + key * value_stride_, 0, static_cast<size_t>(value_stride_) * sizeof(float));
    }
  }

  static const T* ValueRow(const KeyBlock& block, int64_t key) {
    return block.v_rows.first + key * block.v_rows.stride;
  }

  /// Gives those value rows to the rows whose weight is not 0.
  void AddNotFinite(const Panel& panel, const KeyBlock& block, KeyRange keys) {
    for (int64_t key = keys.begin; key < keys.end; ++key) {
      const T* value = ValueRow(block, key);
      if (IsFinite(value, p_.value_head_size)) continue;
      for (int64_t row = 0; row < panel.rows; ++row) {
        const float weight = scratch_.scores[key * panel.width + row];
        if (weight == 0) continue;
        float* y = panel.y + row * y_stride_;
        for (int64_t d = 0; d < p_.value_head_size; ++d) y[d] += weight * ToFloat(value[d]);
      }
    }
  }

  void Finish() {
    for (int64_t row = 0; row < rows_; ++row) {
      float* y = y_ + row * y_stride_;
      if (scratch_.started[row / kPanelRows] == 0) {
        std::memset(y, 0, static_cast<size_t>(p_.value_head_size) * sizeof(float));
      }
      if (at_.partial) {
        if (y_ != at_.partial) WriteRow(y, 1, p_.value_head_size, at_.partial + row * p_.value_head_size);
        at_.partial_sums[row] = scratch_.sums[row];
        continue;
      }
      const float factor = RowFactor(p_.normalize ? scratch_.sums + row : nullptr, HeadGain(p_, at_.head));
      if (y_ == scratch_.y || factor != 1) {
        WriteRow(y, factor, p_.value_head_size, OutputRow<T>(p_, at_.batch, at_.head, at_.row_begin + row));
      }
    }
  }

  const Rectangle& at_;
  const SaProblem& p_;
  const Blocking& blocking_;
  const BlockScratch scratch_;
  const int64_t kv_head_, rows_, value_stride_;
  float* y_;  // where W V gathers: scratch or, where they are dense floats, the results themselves
  int64_t y_stride_;
  const Mask mask_;
  const float slope_, bias_, folded_bias_;
  const bool rewrites_scores_;
  const SigmoidOf sigmoid_;
  const bool pairs_ = kPairs && RowsArePairs(p_);  // Q, K, V and weights as pairs of bfloat16
  ReadAhead ahead_;
};

template <class T>
void RunBlock(const Rectangle& rectangle, const Blocking& blocking, float* scratch) {
  BlockKernel<T>(rectangle, blocking, scratch).Run();
}

inline int64_t BlockScratchFloats(const SaProblem& p, const Blocking& blocking) {
  return BlockScratch(p, blocking, nullptr).floats;
}

}  // namespace
}  // namespace sigmoid_attention::cpu

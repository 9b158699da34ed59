// Divides one attention call into rectangles of rows x keys, even enough for any number of threads, and runs
// them.
#include "op/native/cpu/attention.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "op/native/cpu/kernels.h"
#include "op/native/cpu/row_range.h"

namespace sigmoid_attention::cpu {
namespace {

constexpr int64_t kDecodeLength = 8;  // longer queries are worth the block kernel's transposed Q
constexpr int64_t kScratchBytesForQ = 512 << 10;
constexpr int64_t kBytesPerKeyBlock = 128 << 10;  // K and V of a block: stays in L2 for all the panels
constexpr int64_t kLeastKeysOfPart = 256;
constexpr int64_t kTlbBytes = 8 << 20;       // pages that a second-level TLB knows: 1536 to 3072 of 4 KB
constexpr int64_t kRectangleOverhead = 8;    // setting up a rectangle costs about as much as this many rows
constexpr int64_t kNarrowPanelOverhead = 4;  // in rows
constexpr int64_t kMostPieces = 4;

/// Memory of a thread, aligned to a cache line, kept from one call to the next.
class Scratch {
 public:
  static float* OfThisThread(int64_t floats) {
    thread_local Scratch scratch;
    scratch.Grow(floats);
    return scratch.memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };

  void Grow(int64_t floats) {
    if (floats <= floats_) return;
    memory_.reset();
    floats_ = 0;
    memory_.reset(
        static_cast<float*>(::operator new(static_cast<size_t>(floats) * sizeof(float), kAlignment)));
    floats_ = floats;
  }

  std::unique_ptr<float, Delete> memory_;
  int64_t floats_ = 0;
};

/// Runs body(i) for i in [0, count): whoever is free takes the next one.
/// `body` also learns which one its thread will probably take next; `count` or more: none.
void ForEach(Parallel& parallel, int64_t count, const std::function<void(int64_t, int64_t)>& body) {
  const int64_t threads = Min(count, parallel.threads());
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i, i + 1);
    return;
  }
  std::atomic<int64_t> next{0}, active{0};
  std::atomic<bool> out_of_memory{false};
  parallel.For(threads, [&](int64_t) {
    ++active;
    try {
      for (int64_t i = next++; i < count; i = next++) body(i, i + active);
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
    --active;
  });
  if (out_of_memory) throw std::bad_alloc();
}

size_t ElementBytes(SaType type) {
  return type == SA_FLOAT ? 4 : 2;
}

/// One of [B, Hkv, Nk, size]: the past's rows, then the new ones.
void FillPresent(const SaProblem& p, int64_t dense_head, int64_t size, const void* past, const void* fresh,
                 const SaStrides& strides, void* present) {
  const auto bytes = static_cast<int64_t>(ElementBytes(p.type));
  const int64_t row_bytes = size * bytes;
  char* to = static_cast<char*>(present) + dense_head * p.key_length * row_bytes;
  if (p.past_length > 0) {
    std::memcpy(to, static_cast<const char*>(past) + dense_head * p.past_length * row_bytes,
                static_cast<size_t>(p.past_length * row_bytes));
  }
  const int64_t batch = dense_head / p.kv_heads, head = dense_head % p.kv_heads;
  const char* from = static_cast<const char*>(fresh) + (batch * strides.batch + head * strides.head) * bytes;
  for (int64_t key = p.past_length; key < p.key_length; ++key, from += strides.row * bytes) {
    std::memcpy(to + key * row_bytes, from, static_cast<size_t>(row_bytes));
  }
}

void FillPresents(const SaProblem& p, Parallel& parallel) {
  if (!p.present_key && !p.present_value) return;
  ForEach(parallel, p.batch * p.kv_heads, [&](int64_t i, int64_t) {
    if (p.present_key && p.head_size > 0) {
      FillPresent(p, i, p.head_size, p.past_key, p.k, p.k_strides, p.present_key);
    }
    if (p.present_value && p.value_head_size > 0) {
      FillPresent(p, i, p.value_head_size, p.past_value, p.v, p.v_strides, p.present_value);
    }
  });
}

/// How a call is divided: heads x row blocks x key parts.
struct Division {
  bool decode;
  int64_t heads;  // per batch: kv heads for the decode kernel, query heads for the block kernel
  int64_t rows;   // per head
  int64_t row_blocks, rows_per_block;
  int64_t key_parts;
  int64_t pieces;  // that each of the last `threads` row blocks is cut into, so that threads end together
  Blocking blocking;
};

/// Rows of a block, at most `most`, such that the busiest of `threads` threads has the least to do.
int64_t RowsPerBlock(int64_t heads, int64_t rows, int64_t most, const Kernels& kernels, int64_t threads) {
  const int64_t fewest = CeilDiv(rows, most);
  int64_t best = Min(rows, most), best_cost = INT64_MAX;
  for (int64_t blocks = fewest; blocks <= fewest + 4 * threads; ++blocks) {
    const int64_t even = CeilDiv(rows, blocks);
    // Whole panels are the most efficient, whole vectors the most even.
    for (const int64_t granule :
         {static_cast<int64_t>(kernels.panel_rows), static_cast<int64_t>(kernels.lanes)}) {
      const int64_t height = Min(rows, RoundUp(even, granule));
      const int64_t padded = RoundUp(height, kernels.lanes);
      const int64_t tail = padded % kernels.panel_rows == 0 ? 0 : kNarrowPanelOverhead;
      const int64_t busiest = CeilDiv(heads * CeilDiv(rows, height), threads);
      const int64_t cost = busiest * (padded + tail + kRectangleOverhead);
      if (height > most || cost >= best_cost) continue;
      best = height;
      best_cost = cost;
    }
  }
  return best;
}

/// V rows are read once for every register tile of rows. Where vectors straddle cache lines, or all rows fall
/// into the same cache sets, a copy pays from the third panel on, unless the tiles are large.
bool ValuesReadBadly(const SaProblem& p, const Kernels& kernels, const Division& d) {
  if (!kernels.small_value_tiles || p.present_value || d.rows_per_block <= 2 * kernels.panel_rows)
    return false;
  const auto row_bytes = static_cast<uint64_t>(p.v_strides.row) * sizeof(float);
  const uint64_t vector_bytes = static_cast<uint64_t>(kernels.lanes) * sizeof(float);
  return (reinterpret_cast<uintptr_t>(p.v) | row_bytes) % vector_bytes != 0 || row_bytes % kPageBytes == 0;
}

/// Parts of the keys within which the pages of K and V fit the TLB. In [B,N,H*D] a page holds rows of several
/// heads and few of each: heads take turns over a part, so that its pages are looked up once for all of them.
int64_t PartsOfTlbSize(const SaProblem& p) {
  if (p.present_key || p.kv_heads == 1 || p.k_strides.head >= p.k_strides.row) return 1;
  const auto row_bytes = (p.k_strides.row + p.v_strides.row) * static_cast<int64_t>(ElementBytes(p.type));
  return CeilDiv(p.key_length * row_bytes, kTlbBytes);
}

Division Divide(const SaProblem& p, const Kernels& kernels, int64_t threads) {
  Division d{};
  d.decode = p.query_length <= kDecodeLength;
  if (d.decode) {
    d.heads = p.kv_heads;
    d.rows = p.query_heads / p.kv_heads * p.query_length;
    d.row_blocks = 1;
    d.rows_per_block = d.rows;
  } else {
    d.heads = p.query_heads;
    d.rows = p.query_length;
    const int64_t q_row_bytes = (p.head_size + p.value_head_size) * 4;
    const int64_t panel = kernels.panel_rows;
    const int64_t most = Max(panel, kScratchBytesForQ / Max(1, q_row_bytes) / panel * panel);
    d.rows_per_block = RowsPerBlock(p.batch * d.heads, d.rows, most, kernels, threads);
    d.row_blocks = CeilDiv(d.rows, d.rows_per_block);
  }
  const int64_t rectangles = p.batch * d.heads * d.row_blocks;
  int64_t wanted = threads == 1 ? 1 : CeilDiv(d.decode ? 4 * threads : threads, rectangles);
  if (d.decode) wanted = Max(wanted, PartsOfTlbSize(p));
  d.key_parts = Max(1, Min(wanted, p.key_length / kLeastKeysOfPart));
  const bool cuts = threads > 1 && rectangles > threads && !d.decode && d.key_parts == 1;
  d.pieces = cuts ? Max(1, Min(kMostPieces, d.rows_per_block / kernels.panel_rows)) : 1;

  const int64_t key_bytes = (p.head_size + p.value_head_size) * 4;
  d.blocking.rows = d.rows_per_block;
  d.blocking.keys = Max(32, Min(256, kBytesPerKeyBlock / Max(1, key_bytes) / 32 * 32));
  d.blocking.copy_k = p.type != SA_FLOAT;
  d.blocking.copy_v =
      p.type != SA_FLOAT || p.value_head_size % kernels.lanes != 0 || ValuesReadBadly(p, kernels, d);
  return d;
}

/// The part of the keys that the rows may see, so that all parts have work.
KeyRange KeyPart(const SaProblem& p, int64_t batch, int64_t part, int64_t parts) {
  const KeyRange seen = VisibleKeys(p, batch, 0, p.query_length);
  const int64_t count = seen.end - seen.begin;
  return {seen.begin + count * part / parts, seen.begin + count * (part + 1) / parts};
}

void Store(const SaProblem& p, float value, int64_t at) {
  if (p.type == SA_FLOAT) {
    FromFloat(value, static_cast<float*>(p.y) + at);
  } else if (p.type == SA_FLOAT16) {
    FromFloat(value, static_cast<Half*>(p.y) + at);
  } else {
    FromFloat(value, static_cast<BFloat16*>(p.y) + at);
  }
}

/// Results of the key parts, [B, heads, parts, rows, Dv], and their sums of weights.
class Parts {
 public:
  Parts(const SaProblem& p, const Division& d) : p_(p), d_(d) {
    if (d.key_parts == 1) return;
    const int64_t rows = p.batch * d.heads * d.key_parts * d.rows;
    values_.resize(static_cast<size_t>(rows * p.value_head_size));
    sums_.resize(static_cast<size_t>(rows));
  }

  void Attach(Rectangle* rectangle, int64_t part) {
    if (d_.key_parts == 1) return;
    const int64_t row = FirstRow(rectangle->batch, rectangle->head, part) + rectangle->row_begin;
    rectangle->partial = values_.data() + row * p_.value_head_size;
    rectangle->partial_sums = sums_.data() + row;
  }

  void Combine(Parallel& parallel) {
    if (d_.key_parts == 1) return;
    ForEach(parallel, p_.batch * d_.heads, [&](int64_t i, int64_t) {
      for (int64_t row = 0; row < d_.rows; ++row) CombineRow(i / d_.heads, i % d_.heads, row);
    });
  }

 private:
  int64_t FirstRow(int64_t batch, int64_t head, int64_t part) const {
    return ((batch * d_.heads + head) * d_.key_parts + part) * d_.rows;
  }

  void CombineRow(int64_t batch, int64_t head, int64_t row) {
    const int64_t query_head =
        d_.decode ? head * (p_.query_heads / p_.kv_heads) + row / p_.query_length : head;
    const int64_t position = d_.decode ? row % p_.query_length : row;
    const int64_t y =
        batch * p_.y_strides.batch + query_head * p_.y_strides.head + position * p_.y_strides.row;
    const float gain = HeadGain(p_, query_head);
    float sum = 0;
    for (int64_t part = 0; part < d_.key_parts; ++part) sum += sums_[FirstRow(batch, head, part) + row];
    const float divisor = p_.normalize && sum != 0 ? sum : 1;
    for (int64_t d = 0; d < p_.value_head_size; ++d) {
      float value = 0;
      for (int64_t part = 0; part < d_.key_parts; ++part) {
        value += values_[(FirstRow(batch, head, part) + row) * p_.value_head_size + d];
      }
      Store(p_, value / divisor * gain, y + d);
    }
  }

  const SaProblem& p_;
  const Division& d_;
  std::vector<float> values_, sums_;
};

}  // namespace

void Attention(const SaProblem& problem, Parallel& parallel) {
  const SaProblem& p = problem;
  FillPresents(p, parallel);
  if (p.batch == 0 || p.query_heads == 0 || p.query_length == 0 || p.value_head_size == 0) return;

  const Kernels& kernels = ActiveKernels();
  const Division d = Divide(p, kernels, parallel.threads());
  Parts parts(p, d);
  const int64_t floats = d.decode ? kernels.decode_scratch(p, d.rows) : kernels.block_scratch(p, d.blocking);
  const RectangleFunction run = (d.decode ? kernels.decode : kernels.block)[p.type];

  const int64_t blocks = p.batch * d.heads * d.row_blocks;
  const int64_t cut_blocks = d.pieces == 1 ? 0 : Min(blocks, parallel.threads());
  const int64_t whole = (blocks - cut_blocks) * d.key_parts;
  const auto rectangle_at = [&](int64_t i) {
    int64_t part = 0, piece = 0, pieces = 1;
    if (i < whole) {
      part = i / (blocks - cut_blocks);
      i %= blocks - cut_blocks;
    } else {
      pieces = d.pieces;
      piece = (i - whole) % pieces;
      i = blocks - cut_blocks + (i - whole) / pieces;
    }
    // Under a causal mask the last rows have the most keys: they come first, small rectangles fill the gaps.
    const int64_t block = d.row_blocks - 1 - i % d.row_blocks;
    i /= d.row_blocks;
    Rectangle rectangle{};
    rectangle.problem = &p;
    rectangle.batch = i / d.heads;
    rectangle.head = i % d.heads;
    const int64_t rows = RoundUp(CeilDiv(d.rows_per_block, pieces), pieces == 1 ? 1 : kernels.panel_rows);
    rectangle.row_begin = Min(d.rows, block * d.rows_per_block + piece * rows);
    rectangle.row_end = Min(Min(d.rows, (block + 1) * d.rows_per_block), rectangle.row_begin + rows);
    const KeyRange keys =
        d.key_parts == 1 ? KeyRange{0, p.key_length} : KeyPart(p, rectangle.batch, part, d.key_parts);
    rectangle.key_begin = keys.begin;
    rectangle.key_end = keys.end;
    parts.Attach(&rectangle, part);
    return rectangle;
  };
  const int64_t count = whole + cut_blocks * d.pieces;
  ForEach(parallel, count, [&](int64_t i, int64_t next_i) {
    Rectangle rectangle = rectangle_at(i), next{};
    if (rectangle.row_begin == rectangle.row_end) return;
    if (next_i < count) {
      next = rectangle_at(next_i);
      if (next.row_begin < next.row_end) rectangle.next = &next;
    }
    run(rectangle, d.blocking, Scratch::OfThisThread(floats));
  });
  parts.Combine(parallel);
}

const char* IsaName() {
  return ActiveKernels().name;
}

}  // namespace sigmoid_attention::cpu

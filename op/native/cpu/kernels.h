// What one instruction set offers: functions that compute a rectangle (rows x keys) of one attention call.
//
// attention.cc cuts a call into such rectangles; kernels_<isa>.cc fill in the table.
#pragma once

#include <cstdint>

#include "op/native/attention_problem.h"

namespace sigmoid_attention::cpu {

/// Rows [row_begin, row_end) of one head against keys [key_begin, key_end).
///
/// The block kernel counts the rows of query head `head`. The decode kernel serves all the query heads that
/// share kv head `head`; its rows are the pairs (query head of the group, i), i running fastest.
struct Rectangle {
  const SaProblem* problem;
  int64_t batch, head;
  int64_t row_begin, row_end;
  int64_t key_begin, key_end;

  /// Null when the rectangle has all the keys: the result goes to problem->y. Else unscaled W V goes here, a
  /// dense [rows, Dv], and the rows' sums of W to `partial_sums`.
  float* partial;
  float* partial_sums;

  /// What this thread will probably do next, or null: worth fetching into its caches.
  const Rectangle* next;
};

/// How the block kernel walks through a rectangle.
struct Blocking {
  int64_t rows;         // at most, in a rectangle
  int64_t keys;         // scores of one panel of rows are held for this many keys at a time
  bool copy_k, copy_v;  // copy (or convert) each key block's K and V to dense float
};

using RectangleFunction = void (*)(const Rectangle&, const Blocking&, float* scratch);

struct Kernels {
  const char* name;
  int lanes;                    // floats in a vector
  int panel_rows;               // query rows that the block kernel handles together
  bool small_value_tiles;       // W V reads V so often that it matters how V lies in memory
  RectangleFunction block[3];   // by SaType
  RectangleFunction decode[3];  // by SaType
  /// Floats of scratch that the functions need; aligned to 64 bytes.
  int64_t (*block_scratch)(const SaProblem&, const Blocking&);
  int64_t (*decode_scratch)(const SaProblem&, int64_t rows);
};

/// Null where this build or this CPU lacks the instruction set.
const Kernels* Avx512Bf16Kernels();
const Kernels* Avx512Kernels();
const Kernels* Avx2Kernels();
const Kernels* NeonKernels();
const Kernels* PortableKernels();

/// All that this CPU can run, best first.
const Kernels* const* AvailableKernels();

/// The one to use: the best, or what SIGMOID_ATTENTION_ISA names.
const Kernels& ActiveKernels();

/// Makes ActiveKernels() return another table; for tests.
void SetActiveKernels(const Kernels& kernels);

}  // namespace sigmoid_attention::cpu

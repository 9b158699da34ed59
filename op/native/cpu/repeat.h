// Loops that are gone before the compiler looks at arrays: each turn gets its index as a constant. GCC
// unrolls ordinary loops after it has given arrays of vectors a place in memory, and then copies a register
// tile there and back.
#pragma once

#include <type_traits>
#include <utility>

namespace sigmoid_attention::cpu {
namespace {

template <class Body, int... kIndex>
inline void RepeatFor(const Body& body, std::integer_sequence<int, kIndex...>) {
  (body(std::integral_constant<int, kIndex>()), ...);
}

/// body(0), ..., body(kTimes - 1).
template <int kTimes, class Body>
inline void Repeat(const Body& body) {
  RepeatFor(body, std::make_integer_sequence<int, kTimes>());
}

}  // namespace
}  // namespace sigmoid_attention::cpu

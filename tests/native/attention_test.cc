// Compares every instruction set that this CPU has with the double reference, over random problems.
//
//   sigmoid_attention_cpu_test [problems = 400] [seed = 1]
#include "op/native/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "op/native/cpu/kernels.h"
#include "tests/native/random_problem.h"
#include "tests/native/reference.h"
#include "tests/native/sigmoid_accuracy.h"
#include "tests/native/thread_pool.h"

namespace sigmoid_attention::test {
namespace {

int failures = 0;

void Fail(const char* isa, uint64_t seed, const RandomProblem& random, const char* what) {
  std::printf("FAIL %s seed %llu: %s\n  %s\n", isa, static_cast<unsigned long long>(seed), what,
              random.Describe().c_str());
  ++failures;
}

/// Relative to the sum of |w v|: the sigmoid's budget, the products' rounding and the result's own. Under a
/// bias of -70 scores lie around -100, where a float's last place alone is 2^-17.
double RelativeTolerance(const SaProblem& p) {
  if (p.type != SA_FLOAT) return p.type == SA_FLOAT16 ? 0x1p-9 : 0x1p-6;
  return p.bias < -64 ? 8e-5 : 2e-5;
}

bool Agrees(double value, double expected, double tolerance) {
  if (tolerance == std::numeric_limits<double>::infinity() && std::isfinite(expected)) return true;
  if (std::isnan(expected)) return std::isnan(value);
  if (std::isinf(expected)) return value == expected || std::isnan(value);
  return std::fabs(value - expected) <= tolerance;
}

void CheckValues(const char* isa, uint64_t seed, const RandomProblem& random, const Expected& expected) {
  const SaProblem& p = random.problem();
  const double relative = RelativeTolerance(p);
  const double absolute = p.type == SA_FLOAT16 ? 1e-7 : 1e-37;
  const int64_t rows = p.batch * p.query_heads * p.query_length;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t d = 0; d < p.value_head_size; ++d) {
      const auto at = static_cast<size_t>(row * p.value_head_size + d);
      const double value = ReadElement(p.y, p.type, random.OutputIndex(row, d));
      // Sums that reach infinity in the element type only.
      if (p.type == SA_FLOAT16 && std::fabs(expected.y[at]) > 65000) continue;
      if (Agrees(value, expected.y[at], expected.tolerance[at] * relative + absolute)) continue;
      char what[200];
      std::snprintf(what, sizeof what, "Y[row %lld, %lld] is %.9g, expected %.9g (sum of magnitudes %.3g)",
                    static_cast<long long>(row), static_cast<long long>(d), value, expected.y[at],
                    expected.tolerance[at]);
      Fail(isa, seed, random, what);
      return;
    }
  }
}

void CheckProblem(uint64_t seed) {
  RandomProblem random(seed);
  const Expected expected = Reference(random.problem());
  for (int i = 0; cpu::AvailableKernels()[i]; ++i) {
    cpu::SetActiveKernels(*cpu::AvailableKernels()[i]);
    random.ClearOutputs();
    Threads threads(1 + static_cast<int>(seed % 3));
    cpu::Attention(random.problem(), threads);
    CheckValues(cpu::IsaName(), seed, random, expected);
    const std::string error = random.PresentError();
    if (!error.empty()) Fail(cpu::IsaName(), seed, random, error.c_str());
  }
}

void CheckSigmoid() {
  struct Range {
    double low, high, bias, softcap, budget;
  };
  // Far below -20 the rounding of L itself, a float, is what is left: half a unit in its last place.
  constexpr Range kRanges[] = {{-20, 5, 0, 0, 0x1p-20},     {-20, 5, -8, 0, 0x1p-20},
                               {-60, -20, -40, 0, 0x1p-20}, {-87, -20, 0, 0, 0x1p-17},
                               {-87, -40, -70, 0, 0x1p-17}, {5, 100, 0, 0, 0x1p-20},
                               {-9, 7, 0, 20, 0x1p-18}};
  for (int i = 0; cpu::AvailableKernels()[i]; ++i) {
    cpu::SetActiveKernels(*cpu::AvailableKernels()[i]);
    for (const Range& range : kRanges) {
      const double worst = WorstSigmoidError(range.low, range.high, range.bias, range.softcap);
      std::printf("%-9s sigmoid on [%g, %g], bias %g, softcap %g: relative error %.3g = 2^%.1f\n",
                  cpu::IsaName(), range.low, range.high, range.bias, range.softcap, worst, std::log2(worst));
      if (worst <= range.budget) continue;
      std::printf("FAIL: above %.3g\n", range.budget);
      ++failures;
    }
  }
}

}  // namespace
}  // namespace sigmoid_attention::test

int main(int argc, char** argv) {
  using namespace sigmoid_attention::test;
  const long problems = argc > 1 ? std::atol(argv[1]) : 400;
  const long first = argc > 2 ? std::atol(argv[2]) : 1;
  std::printf("chosen: %s\n", sigmoid_attention::cpu::IsaName());
  CheckSigmoid();
  for (long i = 0; i < problems && failures < 20; ++i) CheckProblem(static_cast<uint64_t>(first + i));
  std::printf("%ld problems, %d failures\n", problems, failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

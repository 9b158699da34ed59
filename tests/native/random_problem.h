// Random attention calls that cover the operator: sizes, layouts, types, masks, windows, caches, biases, and
// NaN and Inf where they must not be seen.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "op/native/attention_problem.h"

namespace sigmoid_attention::test {

class RandomProblem {
 public:
  explicit RandomProblem(uint64_t seed);

  const SaProblem& problem() const { return p_; }

  /// Forgets the results of a run: fills Y and present with a pattern that no result has.
  void ClearOutputs();

  /// Index of Y[b,h,i,d] in problem().y.
  int64_t OutputIndex(int64_t row, int64_t d) const;

  /// Empty, or what is wrong with present_key and present_value.
  std::string PresentError() const;

  /// One line for messages.
  std::string Describe() const;

 private:
  using Buffer = std::vector<uint8_t>;

  int64_t Uniform(int64_t low, int64_t high);
  bool OneIn(int64_t n) { return Uniform(1, n) == 1; }
  double Normal(double deviation);
  size_t ElementBytes() const { return p_.type == SA_FLOAT ? 4 : 2; }

  void ChooseSizes();
  void ChooseVisibility();
  void ChooseBiases();
  void ChooseMask();
  void FillTensors();
  void HideNotFinite();

  Buffer RandomTensor(int64_t count, double deviation);
  void Write(void* data, SaType type, int64_t index, double value);
  const float* Floats(int64_t count, double low, double high);
  SaStrides Strides(int64_t heads, int64_t rows, int64_t size, bool heads_first);
  bool TakesPart(int64_t b, int64_t h, int64_t i, int64_t j) const;

  std::mt19937_64 random_;
  SaProblem p_{};
  bool heads_first_ = true, hides_not_finite_ = false;
  Buffer q_, k_, v_, past_key_, past_value_, present_key_, present_value_, mask_, y_;
  std::vector<int64_t> nonpad_;
  std::vector<std::unique_ptr<float[]>> floats_;
};

}  // namespace sigmoid_attention::test

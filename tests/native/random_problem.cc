#include "tests/native/random_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>

#include "op/native/cpu/element.h"
#include "op/native/cpu/row_range.h"
#include "tests/native/reference.h"

namespace sigmoid_attention::test {

RandomProblem::RandomProblem(uint64_t seed) : random_(seed) {
  ChooseSizes();
  ChooseVisibility();
  ChooseBiases();
  ChooseMask();
  FillTensors();
  if (OneIn(3)) HideNotFinite();
}

int64_t RandomProblem::Uniform(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_);
}

double RandomProblem::Normal(double deviation) {
  return std::normal_distribution<double>(0, deviation)(random_);
}

void RandomProblem::ChooseSizes() {
  p_.type = static_cast<SaType>(Uniform(0, 2));
  p_.batch = Uniform(1, 2);
  p_.kv_heads = Uniform(1, 2);
  p_.query_heads = p_.kv_heads * (OneIn(3) ? Uniform(2, 4) : 1);
  p_.query_length = OneIn(3) ? Uniform(1, 9) : OneIn(4) ? Uniform(97, 230) : Uniform(1, 96);
  p_.key_length = OneIn(4) ? Uniform(250, 800) : Uniform(1, 150);
  if (OneIn(40)) p_.key_length = 0;
  static constexpr int64_t kHeadSizes[] = {64, 32, 16, 40, 96, 128};
  p_.head_size = OneIn(2) ? kHeadSizes[Uniform(0, 5)] : Uniform(1, 70);
  p_.value_head_size = OneIn(2) ? p_.head_size : OneIn(2) ? kHeadSizes[Uniform(0, 5)] : Uniform(1, 70);
  if (OneIn(4)) p_.past_length = Uniform(0, p_.key_length);
  heads_first_ = OneIn(2);
}

void RandomProblem::ChooseVisibility() {
  p_.left_window_size = OneIn(5) ? Uniform(0, p_.key_length) : -1;
  p_.right_window_size = OneIn(7) ? Uniform(0, p_.key_length) : -1;
  if (OneIn(60)) p_.left_window_size = std::numeric_limits<int64_t>::max();
  p_.is_causal = OneIn(3);
  p_.row_offset = p_.past_length;
  if (OneIn(5)) {
    for (int64_t b = 0; b < p_.batch; ++b) nonpad_.push_back(Uniform(0, p_.key_length));
    p_.nonpad_kv_seqlen = nonpad_.data();
  }
}

void RandomProblem::ChooseBiases() {
  p_.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p_.head_size)));
  p_.bias = OneIn(3) ? static_cast<float>(Uniform(-12, 3)) : 0;
  p_.bias_mode = static_cast<SaBiasMode>(OneIn(2) ? Uniform(0, 3) : 0);
  p_.softcap = OneIn(5) ? static_cast<float>(Uniform(1, 50)) : 0;
  p_.normalize = OneIn(3);
  if (p_.normalize && OneIn(2)) p_.bias = OneIn(4) ? -70.0f : -40.0f;
  if (OneIn(5)) {
    p_.head_bias_batch_stride = OneIn(2) ? p_.query_heads : 0;
    p_.head_bias = Floats(p_.batch * p_.query_heads, -3, 1);
  }
  if (OneIn(5)) p_.head_scale = Floats(p_.query_heads, 0.5, 2);
  if (OneIn(5)) p_.head_gain = Floats(p_.query_heads, -2, 2);
  if (OneIn(5)) {
    p_.alibi_batch_stride = OneIn(2) ? p_.query_heads : 0;
    p_.alibi_slopes = Floats(p_.batch * p_.query_heads, 0, 0.3);
  }
}

const float* RandomProblem::Floats(int64_t count, double low, double high) {
  floats_.push_back(std::make_unique<float[]>(static_cast<size_t>(count)));
  for (int64_t i = 0; i < count; ++i) {
    floats_.back()[i] = static_cast<float>(std::uniform_real_distribution<double>(low, high)(random_));
  }
  return floats_.back().get();
}

void RandomProblem::ChooseMask() {
  if (!OneIn(2)) return;
  p_.mask_type = static_cast<SaMaskType>(Uniform(1, 3));
  const int64_t dims[4] = {OneIn(2) ? p_.batch : 1, OneIn(2) ? p_.query_heads : 1,
                           OneIn(3) ? 1 : p_.query_length, OneIn(6) ? 1 : p_.key_length};
  int64_t count = 1;
  for (int axis = 3; axis >= 0; --axis) {
    p_.mask_strides[axis] = dims[axis] == 1 ? 0 : count;
    count *= dims[axis];
  }
  const SaType type = p_.mask_type == SA_MASK_FLOAT ? SA_FLOAT : p_.type;
  const size_t bytes = p_.mask_type == SA_MASK_BOOL ? 1 : type == SA_FLOAT ? 4 : 2;
  mask_.resize(static_cast<size_t>(count) * bytes + 1);
  // A run of equal columns or a random pattern, or nothing at all.
  const int64_t kind = Uniform(0, 3), shown = Uniform(0, dims[3]);
  for (int64_t i = 0; i < count; ++i) {
    const bool takes_part = kind == 0 ? OneIn(2) : kind == 1 ? i % dims[3] < shown : kind == 2 || i % 7 < 5;
    if (p_.mask_type == SA_MASK_BOOL) {
      mask_[i] = takes_part;
    } else {
      const double excluded = OneIn(2) ? -std::numeric_limits<double>::infinity() : -30000;
      Write(mask_.data(), type, i, takes_part ? (kind == 2 ? Normal(2) : 0) : excluded);
    }
  }
  p_.mask = mask_.data();
}

void RandomProblem::Write(void* data, SaType type, int64_t index, double value) {
  const auto rounded = static_cast<float>(value);
  if (type == SA_FLOAT) {
    static_cast<float*>(data)[index] = rounded;
  } else if (type == SA_FLOAT16) {
    cpu::FromFloat(rounded, static_cast<cpu::Half*>(data) + index);
  } else {
    cpu::FromFloat(rounded, static_cast<cpu::BFloat16*>(data) + index);
  }
}

RandomProblem::Buffer RandomProblem::RandomTensor(int64_t count, double deviation) {
  Buffer buffer(static_cast<size_t>(count) * ElementBytes());
  for (int64_t i = 0; i < count; ++i) Write(buffer.data(), p_.type, i, Normal(deviation));
  return buffer;
}

SaStrides RandomProblem::Strides(int64_t heads, int64_t rows, int64_t size, bool heads_first) {
  if (heads_first) return {heads * rows * size, rows * size, size};
  return {heads * rows * size, size, heads * size};
}

void RandomProblem::FillTensors() {
  const int64_t fresh = p_.key_length - p_.past_length;
  const int64_t kv = p_.batch * p_.kv_heads, queries = p_.batch * p_.query_heads * p_.query_length;
  q_ = RandomTensor(queries * p_.head_size, 1.5);
  k_ = RandomTensor(kv * fresh * p_.head_size, 1);
  v_ = RandomTensor(kv * fresh * p_.value_head_size, 1);
  y_.resize(static_cast<size_t>(queries * p_.value_head_size) * ElementBytes());
  p_.q = q_.data();
  p_.k = k_.data();
  p_.v = v_.data();
  p_.y = y_.data();
  p_.q_strides = Strides(p_.query_heads, p_.query_length, p_.head_size, heads_first_);
  p_.y_strides = Strides(p_.query_heads, p_.query_length, p_.value_head_size, heads_first_);
  p_.k_strides = Strides(p_.kv_heads, fresh, p_.head_size, heads_first_);
  p_.v_strides = Strides(p_.kv_heads, fresh, p_.value_head_size, heads_first_);
  if (p_.past_length > 0) {
    past_key_ = RandomTensor(kv * p_.past_length * p_.head_size, 1);
    past_value_ = RandomTensor(kv * p_.past_length * p_.value_head_size, 1);
    p_.past_key = past_key_.data();
    p_.past_value = past_value_.data();
  }
  if (OneIn(4)) {
    present_key_.resize(static_cast<size_t>(kv * p_.key_length * p_.head_size) * ElementBytes());
    present_value_.resize(static_cast<size_t>(kv * p_.key_length * p_.value_head_size) * ElementBytes());
    p_.present_key = present_key_.data();
    p_.present_value = present_value_.data();
  }
}

bool RandomProblem::TakesPart(int64_t b, int64_t h, int64_t i, int64_t j) const {
  const cpu::KeyRange range = cpu::VisibleKeys(p_, b, i);
  if (j < range.begin || j >= range.end) return false;
  if (p_.mask_type == SA_MASK_NONE) return true;
  const int64_t* s = p_.mask_strides;
  const int64_t at = b * s[0] + h * s[1] + i * s[2] + j * s[3];
  if (p_.mask_type == SA_MASK_BOOL) return mask_[at] != 0;
  return ReadElement(p_.mask, p_.mask_type == SA_MASK_FLOAT ? SA_FLOAT : p_.type, at) > -20000;
}

/// Puts NaN and Inf into value rows, seen by some rows or by none, and NaN into keys that no row sees.
void RandomProblem::HideNotFinite() {
  hides_not_finite_ = true;
  const int64_t group = p_.query_heads / p_.kv_heads;
  for (int64_t b = 0; b < p_.batch; ++b) {
    for (int64_t kv = 0; kv < p_.kv_heads; ++kv) {
      for (int64_t j = p_.past_length; j < p_.key_length; ++j) {
        if (!OneIn(8)) continue;
        int64_t seen = 0;
        for (int64_t row = 0; row < group * p_.query_length; ++row) {
          seen += TakesPart(b, kv * group + row / p_.query_length, row % p_.query_length, j);
        }
        if (seen == group * p_.query_length && !OneIn(10)) continue;
        const int64_t row = j - p_.past_length;
        const int64_t v = b * p_.v_strides.batch + kv * p_.v_strides.head + row * p_.v_strides.row;
        const double bad =
            OneIn(2) ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
        Write(v_.data(), p_.type, v + Uniform(0, p_.value_head_size - 1), bad);
        if (seen == 0 && p_.mask_type != SA_MASK_FLOAT && p_.mask_type != SA_MASK_T) {
          const int64_t k = b * p_.k_strides.batch + kv * p_.k_strides.head + row * p_.k_strides.row;
          Write(k_.data(), p_.type, k + Uniform(0, p_.head_size - 1), bad);
        }
      }
    }
  }
}

void RandomProblem::ClearOutputs() {
  for (Buffer* buffer : {&y_, &present_key_, &present_value_})
    std::fill(buffer->begin(), buffer->end(), 0x7b);
}

int64_t RandomProblem::OutputIndex(int64_t row, int64_t d) const {
  const int64_t i = row % p_.query_length, h = row / p_.query_length % p_.query_heads;
  const int64_t b = row / p_.query_length / p_.query_heads;
  return b * p_.y_strides.batch + h * p_.y_strides.head + i * p_.y_strides.row + d;
}

std::string RandomProblem::PresentError() const {
  const auto bytes = static_cast<int64_t>(ElementBytes());
  for (const bool is_key : {true, false}) {
    const Buffer& present = is_key ? present_key_ : present_value_;
    const Buffer& past = is_key ? past_key_ : past_value_;
    const Buffer& fresh = is_key ? k_ : v_;
    const SaStrides& s = is_key ? p_.k_strides : p_.v_strides;
    if (present.empty()) continue;
    const int64_t size = is_key ? p_.head_size : p_.value_head_size;
    for (int64_t row = 0; row < p_.batch * p_.kv_heads * p_.key_length; ++row) {
      const int64_t j = row % p_.key_length, dense = row / p_.key_length;
      const int64_t old = (dense * p_.past_length + j) * size;
      const int64_t at =
          dense / p_.kv_heads * s.batch + dense % p_.kv_heads * s.head + (j - p_.past_length) * s.row;
      const uint8_t* expected = j < p_.past_length ? past.data() + old * bytes : fresh.data() + at * bytes;
      if (std::memcmp(present.data() + row * size * bytes, expected, static_cast<size_t>(size * bytes)) !=
          0) {
        return is_key ? "present_key differs" : "present_value differs";
      }
    }
  }
  return "";
}

std::string RandomProblem::Describe() const {
  static constexpr const char* kTypes[] = {"float", "float16", "bfloat16"};
  std::ostringstream text;
  text << kTypes[p_.type] << " B " << p_.batch << " Hq " << p_.query_heads << " Hkv " << p_.kv_heads << " Nq "
       << p_.query_length << " Nk " << p_.key_length << " P " << p_.past_length << " D " << p_.head_size
       << " Dv " << p_.value_head_size << (heads_first_ ? " BHND" : " BNHD") << " mask " << p_.mask_type
       << " [" << p_.mask_strides[0] << ' ' << p_.mask_strides[1] << ' ' << p_.mask_strides[2] << ' '
       << p_.mask_strides[3] << "] nonpad " << (p_.nonpad_kv_seqlen ? p_.nonpad_kv_seqlen[0] : -1)
       << " causal " << p_.is_causal << " window " << p_.left_window_size << ' ' << p_.right_window_size
       << " softcap " << p_.softcap << " bias " << p_.bias << " mode " << p_.bias_mode << " normalize "
       << p_.normalize << " alibi " << !!p_.alibi_slopes << " head_bias " << !!p_.head_bias << " head_scale "
       << !!p_.head_scale << " head_gain " << !!p_.head_gain << " present " << !!p_.present_key
       << " not finite " << hides_not_finite_;
  return text.str();
}

}  // namespace sigmoid_attention::test

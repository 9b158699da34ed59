// Times the kernel alone, for development: bench/cpu compares it with others.
//
//   sigmoid_attention_cpu_speed B Hq Hkv Nq Nk D [threads = 1] [type = 0] [layout = BHND | BNHD] [causal = 0]
//                               [sets of tensors, taken in turn = 1]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <vector>

#include "op/native/cpu/attention.h"
#include "tests/native/thread_pool.h"

namespace {

/// ONNX Runtime aligns its tensors so.
template <class T>
struct CacheLineAllocator {
  using value_type = T;
  T* allocate(size_t count) {
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* memory, size_t) { ::operator delete (memory, std::align_val_t{64}); }
  bool operator==(const CacheLineAllocator&) const { return true; }
  bool operator!=(const CacheLineAllocator&) const { return false; }
};
using Bytes = std::vector<char, CacheLineAllocator<char>>;

double Seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    std::puts(
        "usage: sigmoid_attention_cpu_speed B Hq Hkv Nq Nk D [threads] [type] [layout] [causal] [sets]");
    return EXIT_FAILURE;
  }
  const auto number = [&](int i, int64_t absent) { return i < argc ? std::atoll(argv[i]) : absent; };
  SaProblem p{};
  p.batch = number(1, 1);
  p.query_heads = number(2, 1);
  p.kv_heads = number(3, 1);
  p.query_length = number(4, 1);
  p.key_length = number(5, 1);
  p.head_size = p.value_head_size = number(6, 1);
  p.type = static_cast<SaType>(number(8, 0));
  const bool heads_first = argc <= 9 || std::strcmp(argv[9], "BHND") == 0;
  p.is_causal = static_cast<int>(number(10, 0));
  p.left_window_size = p.right_window_size = -1;
  p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.head_size)));
  p.bias_mode = SA_BIAS_NEG_LOG_TOTAL;
  const auto strides = [&](int64_t heads, int64_t rows) -> SaStrides {
    const int64_t d = p.head_size;
    if (heads_first) return {heads * rows * d, rows * d, d};
    return {heads * rows * d, d, heads * d};
  };
  p.q_strides = p.y_strides = strides(p.query_heads, p.query_length);
  p.k_strides = p.v_strides = strides(p.kv_heads, p.key_length);
  const size_t bytes = p.type == SA_FLOAT ? 4 : 2;
  const auto tensor = [&](int64_t heads, int64_t rows) {
    const auto count = static_cast<size_t>(p.batch * heads * rows * p.head_size);
    Bytes data(count * bytes);
    for (size_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(std::rand()) / static_cast<float>(RAND_MAX) - 0.5f;
      uint32_t bits;
      std::memcpy(&bits, &value, 4);
      if (p.type == SA_FLOAT16) bits = (bits >> 16 & 0x8000) | (((bits >> 13) - (112u << 10)) & 0x3fff);
      if (p.type == SA_BFLOAT16) bits >>= 16;
      std::memcpy(data.data() + i * bytes, &bits, bytes);
    }
    return data;
  };
  struct Tensors {
    Bytes q, k, v, y;
  };
  std::vector<Tensors> sets(static_cast<size_t>(number(11, 1)));
  for (Tensors& t : sets) {
    t = {tensor(p.query_heads, p.query_length),
         tensor(p.kv_heads, p.key_length),
         tensor(p.kv_heads, p.key_length),
         {}};
    t.y.resize(t.q.size());
  }
  sigmoid_attention::test::Threads threads(static_cast<int>(number(7, 1)));
  const double flops =
      4.0 * static_cast<double>(p.batch * p.query_heads * p.query_length * p.key_length * p.head_size);
  std::vector<double> wall, cpu;
  const double begin = Seconds(CLOCK_MONOTONIC);
  while (wall.size() < 5 || (Seconds(CLOCK_MONOTONIC) - begin < 2 && wall.size() < 4000)) {
    Tensors& t = sets[wall.size() % sets.size()];
    p.q = t.q.data();
    p.k = t.k.data();
    p.v = t.v.data();
    p.y = t.y.data();
    const double w = Seconds(CLOCK_MONOTONIC), c = Seconds(CLOCK_PROCESS_CPUTIME_ID);
    sigmoid_attention::cpu::Attention(p, threads);
    wall.push_back(Seconds(CLOCK_MONOTONIC) - w);
    cpu.push_back(Seconds(CLOCK_PROCESS_CPUTIME_ID) - c);
  }
  std::sort(wall.begin(), wall.end());
  std::sort(cpu.begin(), cpu.end());
  std::printf("%s: ms: wall %.3f, cpu %.3f, median cpu %.3f; GFLOP/s: wall %.1f, cpu %.1f, median cpu %.1f\n",
              sigmoid_attention::cpu::IsaName(), wall[0] * 1e3, cpu[0] * 1e3, cpu[cpu.size() / 2] * 1e3,
              flops / wall[0] / 1e9, flops / cpu[0] / 1e9, flops / cpu[cpu.size() / 2] / 1e9);
}

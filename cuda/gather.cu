// Copies rows of queries, keys or values into one dense tensor: present_key and present_value, and the layout
// that the tensor-core kernels want where the caller's does not suit them (a past in two pieces, rows not
// aligned to 16 bytes).
#include <algorithm>

#include "cuda/kernels.h"
#include "cuda/meaning.cuh"

namespace sa {
namespace {

struct Rows {
  const void *past, *fresh;
  SaStrides strides;  // of fresh
  int64_t batch, heads, past_length, length, size, width;
};

// Unit is what one thread moves: 16 bytes where sizes and addresses allow, else one element.
template <class Unit>
__global__ void gather_kernel(const __grid_constant__ Rows rows, Unit* to, int per_unit) {
  const int64_t units = rows.width / per_unit, filled = rows.size / per_unit;
  const int64_t total = rows.batch * rows.heads * rows.length * units;
  for (int64_t u = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; u < total;
       u += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int64_t c = u % units, j = u / units % rows.length, head = u / units / rows.length;
    const int64_t b = head / rows.heads, h = head % rows.heads;
    Unit value{};
    if (c < filled) {
      if (j < rows.past_length)
        value = static_cast<const Unit*>(rows.past)[(head * rows.past_length + j) * filled + c];
      else
        value = static_cast<const Unit*>(rows.fresh)[(b * rows.strides.batch + h * rows.strides.head +
                                                      (j - rows.past_length) * rows.strides.row) /
                                                         per_unit +
                                                     c];
    }
    to[u] = value;
  }
}

bool aligned16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

cudaError_t gather(const Rows& rows, SaType type, void* to, cudaStream_t stream) {
  const int element = type == SA_FLOAT ? 4 : 2, per_unit = 16 / element;
  const int64_t total = rows.batch * rows.heads * rows.length * rows.width;
  if (total == 0) return cudaSuccess;
  const auto divides = [&](int64_t n) { return n % per_unit == 0; };
  const bool wide = divides(rows.width) && divides(rows.size) && divides(rows.strides.batch) &&
                    divides(rows.strides.head) && divides(rows.strides.row) && aligned16(rows.past) &&
                    aligned16(rows.fresh) && aligned16(to);
  const int64_t units = wide ? total / per_unit : total;
  const auto grid = static_cast<unsigned>(std::min<int64_t>((units + 255) / 256, 132 * 16));
  if (wide)
    gather_kernel<<<grid, 256, 0, stream>>>(rows, static_cast<uint4*>(to), per_unit);
  else if (element == 4)
    gather_kernel<<<grid, 256, 0, stream>>>(rows, static_cast<float*>(to), 1);
  else
    gather_kernel<<<grid, 256, 0, stream>>>(rows, static_cast<unsigned short*>(to), 1);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_gather_keys(const SaProblem& p, void* to, int64_t width, cudaStream_t stream) {
  return gather(
      {p.past_key, p.k, p.k_strides, p.batch, p.kv_heads, p.past_length, p.key_length, p.head_size, width},
      p.type, to, stream);
}

cudaError_t launch_gather_values(const SaProblem& p, void* to, int64_t width, cudaStream_t stream) {
  return gather({p.past_value, p.v, p.v_strides, p.batch, p.kv_heads, p.past_length, p.key_length,
                 p.value_head_size, width},
                p.type, to, stream);
}

cudaError_t launch_gather_queries(const SaProblem& p, void* to, int64_t width, cudaStream_t stream) {
  return gather({nullptr, p.q, p.q_strides, p.batch, p.query_heads, 0, p.query_length, p.head_size, width},
                p.type, to, stream);
}

}  // namespace sa

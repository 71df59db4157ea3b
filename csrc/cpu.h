// What every CPU kernel here shares: SIMD clones, bfloat16, threads, tensors of the stable ABI.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>

#include "mish_math.h"

// One function, compiled for AVX-512, for AVX2 and for the baseline; the loader picks the best for
// the machine. The levels are feature levels: GCC answers "arch=haswell" on Intel's Haswell only,
// which leaves an AMD machine with the baseline, three times slower.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define SIMD_CLONES
#endif

namespace detector {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// bfloat16 as its bits: the upper half of a float. A float's own bits go in and out of it by plain
// integer arithmetic, which vectorises.
struct BFloat16 {
  uint16_t bits;
};

HOST_DEVICE float load(float value) { return value; }
HOST_DEVICE double load(double value) { return value; }
HOST_DEVICE float load(BFloat16 value) {
  const uint32_t wide = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &wide, sizeof result);
  return result;
}

HOST_DEVICE void store(float* to, float value) { *to = value; }
HOST_DEVICE void store(double* to, double value) { *to = value; }
HOST_DEVICE void store(BFloat16* to, float value) {
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  const uint32_t to_even = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value == value ? to_even : 0x7FC0);
}

// body(begin, end) over [0, count) on torch's own threads. `grain`: the least work worth a thread;
// up to it the pool is not even asked, which saves a microsecond on small tensors.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count <= grain) {
    body(int64_t{0}, count);
  } else {
    torch::stable::parallel_for(0, count, grain, body);
  }
}

// A new tensor, uninitialised. Not torch::stable::empty_like: that looks the operator up by its name,
// 4 us in each call.
inline Tensor empty_cpu(int64_t dims, const int64_t* sizes, const int64_t* strides, int32_t dtype) {
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dims, sizes, strides, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

// A new tensor with the shape, the strides and the dtype of x.
inline Tensor empty_same(const Tensor& x) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  return empty_cpu(x.dim(), x.sizes().data(), x.strides().data(), dtype);
}

// Whether x fills its memory without holes, in whatever order of dimensions: then an elementwise
// kernel is one flat loop. (An overlapping x, as from expand, spans less than its elements.)
inline bool is_dense(const Tensor& x) {
  int64_t span = 1;
  for (int64_t d = 0; d < x.dim(); ++d) {
    span += (x.size(d) - 1) * x.stride(d);
  }
  return x.numel() == 0 || span == x.numel();
}

// Whether a and b have one shape and one order in memory. Strides of dimensions of size 1 mean nothing.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  bool same = a.dim() == b.dim() && a.scalar_type() == b.scalar_type();
  for (int64_t d = 0; same && d < a.dim(); ++d) {
    same = a.size(d) == b.size(d) && (a.size(d) == 1 || a.stride(d) == b.stride(d));
  }
  return same || (a.numel() == 0 && b.numel() == 0);
}

}  // namespace detector

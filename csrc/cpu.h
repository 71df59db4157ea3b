// What every CPU kernel here shares: SIMD clones, threads, new tensors.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "layout.h"
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

}  // namespace detector

// SIMD clones and threads, shared by all CPU kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "layout.h"
#include "mish_math.h"

// One function, compiled for AVX-512, for AVX2 and for the baseline; the loader picks the best for
// the machine. The levels are feature levels: GCC selects "arch=haswell" on Intel's Haswell only,
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

// body(begin, end) over [0, count) on torch's own threads. `grain`: the minimum work per thread; up to
// it the thread pool is not called at all, which saves a microsecond on small tensors.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count <= grain) {
    body(int64_t{0}, count);
  } else {
    torch::stable::parallel_for(0, count, grain, body);
  }
}

}  // namespace detector

// Mish on a GPU: the two kernels and how they are launched. Pointers and sizes only, no torch.
//
// Both are memory-bound: each thread moves kUnroll vectors of 16 bytes, all loaded before the first is
// used, and neighbouring threads move neighbouring vectors.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_launch.cuh"
#include "mish_math.h"
#include "vectors.cuh"

namespace detector {

constexpr int kThreads = 256;  // per block
constexpr int kUnroll = 2;     // vectors per thread: 32 bytes in flight, enough blocks at 1 M elements

// function(u, i) for the first element i of each full vector u of this thread, rest(j) for each element
// of a vector that is incomplete at the end of the tensor.
template <int kWidth, typename Function, typename Rest>
__device__ __forceinline__ void each_vector(int64_t count, const Function& function,
                                            const Rest& rest) {
  const int64_t first = (int64_t{blockIdx.x} * kUnroll * kThreads + threadIdx.x) * kWidth;
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int64_t i = first + int64_t{u} * kThreads * kWidth;
    if (i + kWidth <= count) {
      function(u, i);
    } else {
      for (int64_t j = i; j < count; ++j) {
        rest(j);
      }
    }
  }
}

// y may be x itself: a thread reads all its elements before it writes the first.
template <int kWidth, typename T>
__global__ void __launch_bounds__(kThreads) mish_kernel(const T* x, T* y, int64_t count) {
  Vector<T, kWidth> in[kUnroll];
  each_vector<kWidth>(
      count, [&](int u, int64_t i) { in[u] = load_vector<kWidth>(x + i); }, [](int64_t) {});
  each_vector<kWidth>(
      count,
      [&](int u, int64_t i) {
        Vector<T, kWidth> out;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          store(&out.values[k], mish(load(in[u].values[k])));
        }
        store_vector<kWidth>(y + i, out);
      },
      [&](int64_t j) { store(&y[j], mish(load(x[j]))); });
}

template <int kWidth, typename T>
__global__ void __launch_bounds__(kThreads)
    mish_backward_kernel(const T* grad, const T* x, T* grad_x, int64_t count) {
  Vector<T, kWidth> upstream[kUnroll], in[kUnroll];
  each_vector<kWidth>(
      count,
      [&](int u, int64_t i) {
        upstream[u] = load_vector<kWidth>(grad + i);
        in[u] = load_vector<kWidth>(x + i);
      },
      [](int64_t) {});
  each_vector<kWidth>(
      count,
      [&](int u, int64_t i) {
        Vector<T, kWidth> out;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          const auto slope = mish_derivative(load(in[u].values[k]));
          store(&out.values[k], load(upstream[u].values[k]) * slope);
        }
        store_vector<kWidth>(grad_x + i, out);
      },
      [&](int64_t j) { store(&grad_x[j], load(grad[j]) * mish_derivative(load(x[j]))); });
}

// Blocks for `count` elements; 2^31 blocks cover more than any memory.
template <int kWidth>
unsigned blocks_for(int64_t count) {
  constexpr int64_t kElements = int64_t{kThreads} * kUnroll * kWidth;
  return static_cast<unsigned>((count + kElements - 1) / kElements);
}

// Element by element if a pointer is not a multiple of 16 bytes, as in x[1:].
template <typename T>
void launch_mish(const T* x, T* y, int64_t count, cudaStream_t stream) {
  if (aligned(x, y)) {
    constexpr int w = kWide<T>;
    launch(mish_kernel<w, T>, blocks_for<w>(count), kThreads, stream, x, y, count);
  } else {
    launch(mish_kernel<1, T>, blocks_for<1>(count), kThreads, stream, x, y, count);
  }
}

template <typename T>
void launch_mish_backward(const T* grad, const T* x, T* grad_x, int64_t count,
                          cudaStream_t stream) {
  if (aligned(grad, x, grad_x)) {
    constexpr int w = kWide<T>;
    launch(mish_backward_kernel<w, T>, blocks_for<w>(count), kThreads, stream, grad, x, grad_x,
           count);
  } else {
    launch(mish_backward_kernel<1, T>, blocks_for<1>(count), kThreads, stream, grad, x, grad_x,
           count);
  }
}

}  // namespace detector

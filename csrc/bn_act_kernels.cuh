// BatchNorm + activation on a GPU, after the statistics: the kernels of apply, reduce and apply backward
// and their launches. Torch-free; the formulas are in bn_act_operators.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "activations.h"
#include "bn_layouts.cuh"
#include "cuda_launch.cuh"

namespace detector {

// What a thread needs of its channels to compute y from x.
template <int kChannels>
struct ThreadAffine {
  float mean[kChannels], scale[kChannels], bias[kChannels];

  template <typename Layout>
  __device__ ThreadAffine(const Affine& affine, const Rows<Layout>& rows) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const uint32_t channel = rows.channel(c);
      mean[c] = affine.mean[channel];
      scale[c] = affine.weight[channel] * affine.rstd[channel];
      bias[c] = affine.bias[channel];
    }
  }

  __device__ float centred(float x, int c) const { return x - mean[c]; }
  __device__ float y(float centred, int c) const { return centred * scale[c] + bias[c]; }
};

template <typename Layout, typename T, typename Act>
__global__ void __launch_bounds__(kBlock)
    bn_act_apply_kernel(const T* __restrict__ x, T* __restrict__ z, Layout maps, Affine affine,
                        Act act) {
  constexpr int kGroup = Layout::kWidth / Layout::kChannels;
  const Rows<Layout> rows(maps);
  const ThreadAffine<Layout::kChannels> to(affine, rows);
  rows.each([&](int64_t at) {
    auto vector = load_vector<Layout::kWidth>(x + at);
#pragma unroll
    for (int i = 0; i < Layout::kWidth; ++i) {
      const int c = i / kGroup;
      store(&vector.values[i], act.value(to.y(to.centred(load(vector.values[i]), c), c)));
    }
    store_vector<Layout::kWidth>(z + at, vector);
  });
}

// partials[channel * splits + split]: the sums of dy and of dy * (x - mean) over the rows of a block.
template <typename Layout, typename T, typename Act>
__global__ void __launch_bounds__(kBlock)
    bn_act_reduce_kernel(const T* __restrict__ grad, const T* __restrict__ x, Layout maps,
                         Affine affine, Act act, Pair* __restrict__ partials) {
  constexpr int kChannels = Layout::kChannels, kGroup = Layout::kWidth / kChannels;
  const Rows<Layout> rows(maps);
  const ThreadAffine<kChannels> to(affine, rows);
  Pair sums[kChannels] = {};
  rows.each([&](int64_t at) {
    const auto upstream = load_vector<Layout::kWidth>(grad + at);
    const auto vector = load_vector<Layout::kWidth>(x + at);
#pragma unroll
    for (int i = 0; i < Layout::kWidth; ++i) {
      const int c = i / kGroup;
      const float centred = to.centred(load(vector.values[i]), c);
      const float dy = load(upstream.values[i]) * act.slope(to.y(centred, c));
      sums[c].first += dy;
      sums[c].second += dy * centred;
    }
  });

  __shared__ Pair shared[kChannels][kBlock];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    shared[c][thread] = sums[c];
  }
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const Pair other = shared[c][thread + half * blockDim.x];
        shared[c][thread].first += other.first;
        shared[c][thread].second += other.second;
      }
    }
  }
  if (threadIdx.y == 0 && rows.inside()) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      partials[rows.pair(c)] = shared[c][thread];
    }
  }
}

// Adds the splits of channel blockIdx.x, in double.
static __global__ void __launch_bounds__(kFinalBlock)
    bn_act_reduce_final_kernel(const Pair* partials, uint32_t splits, const float* rstd,
                               Sums<float> sums) {
  __shared__ double dy[kFinalBlock], products[kFinalBlock];
  const uint32_t channel = blockIdx.x;
  dy[threadIdx.x] = products[threadIdx.x] = 0;
  for (uint32_t split = threadIdx.x; split < splits; split += kFinalBlock) {
    const Pair part = partials[int64_t{channel} * splits + split];
    dy[threadIdx.x] += part.first;
    products[threadIdx.x] += part.second;
  }
  for (unsigned half = kFinalBlock / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      dy[threadIdx.x] += dy[threadIdx.x + half];
      products[threadIdx.x] += products[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) {
    sums.dy[channel] = static_cast<float>(dy[0]);
    sums.dy_xhat[channel] = static_cast<float>(products[0] * rstd[channel]);
  }
}

// grad_x = scale * (dy - offset - (x - mean) * slope); dy is computed again, which is cheaper than
// storing it.
template <typename Layout, typename T, typename Act>
__global__ void __launch_bounds__(kBlock)
    bn_act_backward_kernel(const T* __restrict__ grad, const T* __restrict__ x,
                           T* __restrict__ grad_x, Layout maps, Affine affine, Act act,
                           Sums<const float> sums, float count) {
  constexpr int kChannels = Layout::kChannels, kGroup = Layout::kWidth / kChannels;
  const Rows<Layout> rows(maps);
  const ThreadAffine<kChannels> to(affine, rows);
  float offset[kChannels], slope[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const uint32_t channel = rows.channel(c);
    offset[c] = sums.dy[channel] / count;
    slope[c] = sums.dy_xhat[channel] * affine.rstd[channel] / count;
  }
  rows.each([&](int64_t at) {
    const auto upstream = load_vector<Layout::kWidth>(grad + at);
    auto vector = load_vector<Layout::kWidth>(x + at);
#pragma unroll
    for (int i = 0; i < Layout::kWidth; ++i) {
      const int c = i / kGroup;
      const float centred = to.centred(load(vector.values[i]), c);
      const float dy = load(upstream.values[i]) * act.slope(to.y(centred, c));
      store(&vector.values[i], to.scale[c] * (dy - offset[c] - centred * slope[c]));
    }
    store_vector<Layout::kWidth>(grad_x + at, vector);
  });
}

// ---- Launches; scratch(count) returns memory for that many pairs, valid until the kernels have run ----

template <typename T, typename Act>
void launch_bn_act_apply(const T* x, T* z, const Maps& maps, const Affine& affine, Act act,
                         cudaStream_t stream) {
  const auto launch_as = [&](auto layout) {
    const Shape shape(layout);
    launch(bn_act_apply_kernel<decltype(layout), T, Act>, shape.grid, shape.block, stream, x, z,
           layout, affine, act);
  };
  with_layout<T>(maps, launch_as, x, z);
}

template <typename T, typename Act, typename Scratch>
void launch_bn_act_reduce(const T* grad, const T* x, const Maps& maps, const Affine& affine,
                          Act act, Sums<float> sums, const Scratch& scratch, cudaStream_t stream) {
  const auto launch_as = [&](auto layout) {
    const Shape shape(layout);
    Pair* partials = scratch(int64_t{shape.splits} * layout.channels);
    launch(bn_act_reduce_kernel<decltype(layout), T, Act>, shape.grid, shape.block, stream, grad,
           x, layout, affine, act, partials);
    launch(bn_act_reduce_final_kernel, dim3(layout.channels), dim3(kFinalBlock), stream, partials,
           shape.splits, affine.rstd, sums);
  };
  with_layout<T>(maps, launch_as, grad, x);
}

template <typename T, typename Act>
void launch_bn_act_backward(const T* grad, const T* x, T* grad_x, const Maps& maps,
                            const Affine& affine, Act act, Sums<const float> sums, float count,
                            cudaStream_t stream) {
  const auto launch_as = [&](auto layout) {
    const Shape shape(layout);
    launch(bn_act_backward_kernel<decltype(layout), T, Act>, shape.grid, shape.block, stream, grad,
           x, grad_x, layout, affine, act, sums, count);
  };
  with_layout<T>(maps, launch_as, grad, x, grad_x);
}

}  // namespace detector

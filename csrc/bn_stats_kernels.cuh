// The statistics of BatchNorm on a GPU: the kernels and their launch. Torch-free.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "bn_layouts.cuh"
#include "cuda_launch.cuh"

namespace detector {

// Count, mean and sum of squared distances from it. Merged as by T. Chan, G. Golub and R. LeVeque,
// "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
template <typename Float>
struct Moments {
  Float count, mean, squares;

  __device__ void merge(const Moments& other) {
    const Float total = count + other.count;
    if (other.count > 0) {
      const Float distance = other.mean - mean, share = other.count / total;
      mean += distance * share;
      squares += other.squares + distance * distance * count * share;
      count = total;
    }
  }
};

// The first element of a channel: the same for all blocks, or splits could not be merged.
template <int kWidth, typename T>
__device__ float pivot_of(const T* x, const Planes<kWidth>& maps, uint32_t channel) {
  return load(x[int64_t{channel} * maps.rows_in_plane * kWidth]);
}
template <int kWidth, typename T>
__device__ float pivot_of(const T* x, const Pixels<kWidth>&, uint32_t channel) {
  return load(x[channel]);
}

// The moments of each channel over the rows of a block, in partials[channel * splits + split], the mean
// as a distance from `pivot`, the channel's first element: a large mean costs no precision.
template <typename Layout, typename T>
__global__ void __launch_bounds__(kBlock)
    bn_stats_kernel(const T* __restrict__ x, Layout maps, Pair* __restrict__ partials) {
  constexpr int kChannels = Layout::kChannels, kGroup = Layout::kWidth / kChannels;
  const Rows<Layout> rows(maps);
  float pivot[kChannels], mean[kChannels] = {}, squares[kChannels] = {};
  float count = 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    pivot[c] = pivot_of(x, maps, rows.channel(c));
  }
  rows.each([&](int64_t at) {
    const auto vector = load_vector<Layout::kWidth>(x + at);
    const float total = count + kGroup, share = kGroup / total;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      float group[kGroup], group_mean = 0, group_squares = 0;
#pragma unroll
      for (int k = 0; k < kGroup; ++k) {
        group[k] = load(vector.values[c * kGroup + k]) - pivot[c];
        group_mean += group[k];
      }
      group_mean /= kGroup;
#pragma unroll
      for (int k = 0; k < kGroup; ++k) {
        group_squares += (group[k] - group_mean) * (group[k] - group_mean);
      }
      const float distance = group_mean - mean[c];
      mean[c] += distance * share;
      squares[c] += group_squares + distance * distance * count * share;
    }
    count = total;
  });

  __shared__ float shared_count[kBlock];
  __shared__ Pair shared[kChannels][kBlock];
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  shared_count[thread] = count;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    shared[c][thread] = {mean[c], squares[c]};
  }
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) {
      const unsigned other = thread + half * blockDim.x;
      Moments<float> sum{};
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        sum = {shared_count[thread], shared[c][thread].first, shared[c][thread].second};
        sum.merge({shared_count[other], shared[c][other].first, shared[c][other].second});
        shared[c][thread] = {sum.mean, sum.squares};
      }
      shared_count[thread] = sum.count;
    }
  }
  if (threadIdx.y == 0 && rows.inside()) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      partials[rows.pair(c)] = shared[c][thread];
    }
  }
}

// Merges the splits of channel blockIdx.x, in double.
template <typename Layout, typename T>
__global__ void __launch_bounds__(kFinalBlock)
    bn_stats_final_kernel(const T* x, Layout maps, const Pair* partials, uint32_t splits,
                          uint32_t block_y, float* mean, float* var) {
  __shared__ Moments<double> shared[kFinalBlock];
  const uint32_t channel = blockIdx.x;
  Moments<double> sum{0, 0, 0};
  for (uint32_t split = threadIdx.x; split < splits; split += kFinalBlock) {
    const Pair part = partials[int64_t{channel} * splits + split];
    const double count = count_in_split(maps, split, splits, block_y);
    sum.merge({count, part.first, part.second});
  }
  shared[threadIdx.x] = sum;
  for (unsigned half = kFinalBlock / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      shared[threadIdx.x].merge(shared[threadIdx.x + half]);
    }
  }
  if (threadIdx.x == 0) {
    mean[channel] = static_cast<float>(pivot_of(x, maps, channel) + shared[0].mean);
    var[channel] = static_cast<float>(shared[0].squares / shared[0].count);
  }
}

// scratch(count) returns memory for that many pairs, valid until the kernels have run.
template <typename T, typename Scratch>
void launch_bn_stats(const T* x, const Maps& maps, float* mean, float* var, const Scratch& scratch,
                     cudaStream_t stream) {
  const auto launch_as = [&](auto layout) {
    using Layout = decltype(layout);
    const Shape shape(layout);
    Pair* partials = scratch(int64_t{shape.splits} * layout.channels);
    launch(bn_stats_kernel<Layout, T>, shape.grid, shape.block, stream, x, layout, partials);
    launch(bn_stats_final_kernel<Layout, T>, dim3(layout.channels), dim3(kFinalBlock), stream, x,
           layout, partials, shape.splits, shape.block.y, mean, var);
  };
  with_layout<T>(maps, launch_as, x);
}

}  // namespace detector

// BatchNorm + activation on a GPU: the kernels and how they are launched. Torch-free; the formulas are in
// bn_act_operators.h.
//
// Both memory formats run through the same kernels. A thread owns one vector of channels, or one
// channel of planes, and walks over every so many vectors of it; its sums stay in registers:
//
//              a vector holds        a thread's channels   the rows that it walks over
//   Planes     pieces of a plane     1                     all vectors of the channel
//   Pixels     channels of a pixel   as the vector         all pixels
//
// blockIdx.x and threadIdx.x choose the channels; blockIdx.y, of `splits`, and threadIdx.y the rows. A
// block adds up its rows in shared memory and writes one pair for each channel; a last, small kernel
// adds up the splits in double. All of it depends on the shape alone, and nothing is added by atomics:
// the bits of a result are the same in every run and on every GPU of one kind.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "activations.h"
#include "cuda_launch.cuh"
#include "maps.h"
#include "vectors.cuh"

namespace detector {

constexpr int kBlock = 256;           // threads
constexpr uint32_t kBlocks = 2048;    // aimed at: enough for 170 multiprocessors, few enough to add up
constexpr uint32_t kRowsAThread = 4;  // at least, or the adding up costs more than the rows
constexpr int kFinalBlock = 64;

// Two sums of a channel, or mean and squares: what kernels hand to each other.
struct Pair {
  float first, second;
};

// ---- The two memory formats ----

// `rows` vectors of each channel, those of a plane side by side.
template <int kWidthValue>
struct Planes {
  static constexpr int kWidth = kWidthValue, kChannels = 1;
  static constexpr unsigned kAcross = 1;  // most threads of a block side by side in the channels
  uint32_t rows, channels, rows_in_plane;

  // Where the rows first, first + step, ... begin, without a division for each.
  class Walk {
   public:
    __device__ Walk(const Planes& maps, uint32_t channel, uint32_t first, uint32_t step)
        : rows_in_plane_(maps.rows_in_plane) {
      const int64_t plane = int64_t{rows_in_plane_} * kWidth;  // elements
      const int64_t image = maps.channels * plane;
      in_plane_ = first % rows_in_plane_;
      at_ = first / rows_in_plane_ * image + channel * plane + int64_t{in_plane_} * kWidth;
      step_in_plane_ = step % rows_in_plane_;
      step_ = step / rows_in_plane_ * image + int64_t{step_in_plane_} * kWidth;
      wrap_ = image - plane;
    }

    __device__ int64_t at() const { return at_; }

    __device__ void next() {
      at_ += step_;
      in_plane_ += step_in_plane_;
      if (in_plane_ >= rows_in_plane_) {
        in_plane_ -= rows_in_plane_;
        at_ += wrap_;
      }
    }

   private:
    int64_t at_, step_, wrap_;
    uint32_t in_plane_, step_in_plane_, rows_in_plane_;
  };
};

// `rows` pixels of all channels, side by side.
template <int kWidthValue>
struct Pixels {
  static constexpr int kWidth = kWidthValue, kChannels = kWidthValue;
  static constexpr unsigned kAcross = 32;
  uint32_t rows, channels;

  class Walk {
   public:
    __device__ Walk(const Pixels& maps, uint32_t channel, uint32_t first, uint32_t step)
        : at_(int64_t{first} * maps.channels + channel), step_(int64_t{step} * maps.channels) {}

    __device__ int64_t at() const { return at_; }
    __device__ void next() { at_ += step_; }

   private:
    int64_t at_, step_;
  };
};

// How one launch shares out the work.
struct Shape {
  dim3 grid, block;
  uint32_t splits;

  template <typename Layout>
  explicit Shape(const Layout& maps) {
    const uint32_t columns = maps.channels / Layout::kChannels;
    unsigned across = 1;
    while (across < Layout::kAcross && across < columns) {
      across *= 2;
    }
    block = dim3(across, kBlock / across);
    const uint32_t groups = (columns + across - 1) / across;
    const uint32_t rows_in_block = block.y * kRowsAThread;
    const uint32_t useful = (maps.rows + rows_in_block - 1) / rows_in_block;
    splits = std::min((kBlocks + groups - 1) / groups, useful);
    grid = dim3(groups, splits);
  }
};

// The channels and the rows of one thread.
template <typename Layout>
class Rows {
 public:
  __device__ explicit Rows(const Layout& maps)
      : maps_(maps), channel_((blockIdx.x * blockDim.x + threadIdx.x) * Layout::kChannels) {}

  // Whether it has any: the last block may reach beyond the channels.
  __device__ bool inside() const { return channel_ < maps_.channels; }

  // Its c-th channel; some channel for a thread that has none.
  __device__ uint32_t channel(int c) const { return inside() ? channel_ + c : 0; }

  // function(where a vector begins)
  template <typename Function>
  __device__ void each(const Function& function) const {
    if (inside()) {
      const uint32_t first = blockIdx.y * blockDim.y + threadIdx.y;
      const uint32_t step = gridDim.y * blockDim.y;
      typename Layout::Walk walk(maps_, channel_, first, step);
      for (uint32_t row = first; row < maps_.rows; row += step, walk.next()) {
        function(walk.at());
      }
    }
  }

  // Where the block's pair of the c-th channel goes.
  __device__ int64_t pair(int c) const {
    return int64_t{channel_ + c} * gridDim.y + blockIdx.y;
  }

 private:
  const Layout& maps_;
  uint32_t channel_;
};

// Elements of a channel that the rows of split `split` hold; the last `block_y` rows may be cut.
template <typename Layout>
__device__ uint32_t count_in_split(const Layout& maps, uint32_t split, uint32_t splits,
                                   uint32_t block_y) {
  const uint32_t chunks = maps.rows / block_y, rest = maps.rows % block_y;
  const uint32_t whole = chunks / splits + (split < chunks % splits ? 1 : 0);
  const uint32_t rows = whole * block_y + (split == chunks % splits ? rest : 0);
  return rows * (Layout::kWidth / Layout::kChannels);
}

// ---- Statistics ----

// Count, mean and sum of squared distances from it. Merged as by T. Chan, G. Golub and R. LeVeque, "Updating
// Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
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

// The first element of a channel; one for all blocks, or splits could not be merged.
template <int kWidth, typename T>
__device__ float pivot_of(const T* x, const Planes<kWidth>& maps, uint32_t channel) {
  return load(x[int64_t{channel} * maps.rows_in_plane * kWidth]);
}
template <int kWidth, typename T>
__device__ float pivot_of(const T* x, const Pixels<kWidth>&, uint32_t channel) {
  return load(x[channel]);
}

// The moments of each channel over the rows of a block, in partials[channel * splits + split], the mean
// as a distance from `pivot`, the channel's first element: so a large mean costs no digits.
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

// ---- Apply, and backward ----

// What a thread needs to know of its channels to come from x to y.
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

// grad_x = scale * (dy - offset - (x - mean) * slope); dy is computed once more, which is cheaper than
// to have written it.
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

// ---- Launches; scratch(count) gives a place for as many pairs until the launch is over ----

// function(layout) with the widest vectors that pointers and sizes allow: 16 bytes, or one element.
template <typename T, typename Function, typename... Pointers>
void with_layout(const Maps& maps, const Function& function, const Pointers*... pointers) {
  constexpr int w = kWide<T>;
  const auto rows = static_cast<uint32_t>(maps.count_in_channel());
  const auto channels = static_cast<uint32_t>(maps.channels);
  const auto plane = static_cast<uint32_t>(maps.plane);
  const bool wide = aligned(pointers...) && (maps.channels_last ? channels : plane) % w == 0;
  if (maps.channels_last) {
    wide ? function(Pixels<w>{rows, channels}) : function(Pixels<1>{rows, channels});
  } else {
    wide ? function(Planes<w>{rows / w, channels, plane / w})
         : function(Planes<1>{rows, channels, plane});
  }
}

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

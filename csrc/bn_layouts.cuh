// How the BatchNorm kernels on a GPU divide maps among threads. Torch-free.
//
// Both memory formats run through the same kernels. A thread owns one vector of channels, or one
// channel of planes, and walks over its vectors with a fixed step; its sums stay in registers:
//
//              a vector holds        a thread's channels   the rows that it walks over
//   Planes     pieces of a plane     1                     all vectors of the channel
//   Pixels     channels of a pixel   as the vector         all pixels
//
// blockIdx.x and threadIdx.x select the channels; blockIdx.y, of `splits`, and threadIdx.y the rows. A
// block sums its rows in shared memory and writes one pair for each channel; a small final kernel sums
// the splits in double. The order depends on the shape alone, and there are no atomics: the bits of a
// result are the same in every run and on every GPU of one kind.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "maps.h"
#include "vectors.cuh"

namespace detector {

constexpr int kBlock = 256;           // threads
constexpr uint32_t kBlocks = 2048;      // target: enough for 170 multiprocessors, few enough to sum
constexpr uint32_t kRowsPerThread = 4;  // at least, or summing the splits costs more than the rows
constexpr int kFinalBlock = 64;

// Two sums of a channel, or mean and squares: what one kernel passes to the next.
struct Pair {
  float first, second;
};

// ---- The two memory formats ----

// `rows` vectors of each channel, those of a plane side by side.
template <int kWidthValue>
struct Planes {
  static constexpr int kWidth = kWidthValue, kChannels = 1;
  static constexpr unsigned kAcross = 1;  // maximum threads of a block along the channels
  uint32_t rows, channels, rows_in_plane;

  // Where the rows first, first + step, ... start, without a division for each.
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

// How one launch divides the work.
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
    const uint32_t rows_in_block = block.y * kRowsPerThread;
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

  // Its c-th channel; a valid one even for a thread that has none.
  __device__ uint32_t channel(int c) const { return inside() ? channel_ + c : 0; }

  // function(index of the first element of a vector)
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

// Elements of a channel in the rows of split `split`; the last group of `block_y` rows may be incomplete.
template <typename Layout>
__device__ uint32_t count_in_split(const Layout& maps, uint32_t split, uint32_t splits,
                                   uint32_t block_y) {
  const uint32_t chunks = maps.rows / block_y, rest = maps.rows % block_y;
  const uint32_t whole = chunks / splits + (split < chunks % splits ? 1 : 0);
  const uint32_t rows = whole * block_y + (split == chunks % splits ? rest : 0);
  return rows * (Layout::kWidth / Layout::kChannels);
}

// ---- The choice of a layout ----

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

}  // namespace detector

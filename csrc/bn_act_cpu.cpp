// BatchNorm + activation on the CPU; the formulas are in bn_act_operators.h.
//
// Both memory formats run through the same loops. The tensor is divided into tiles: pieces of one plane
// (contiguous), or runs of whole pixels (channels_last). A loop walks a tile in rows of `width`
// elements, and element i of a row is lane i. In a piece of a plane all lanes belong to one channel;
// in a run of pixels lane i belongs to channel i % C. Each lane keeps a sum in float; lanes are then
// folded to channels and tiles added in double, in their order: the tiles depend on the shape alone,
// so the bits of a result do not depend on the number of threads.
#include <algorithm>
#include <vector>

#include "bn_act_operators.h"
#include "cpu.h"

namespace detector {
namespace {

constexpr int64_t kTileSize = 32768;  // elements: 128 KB, a task for a thread and half of an L2 cache
constexpr int64_t kMinWidth = 256;    // lanes: enough to hide the latency of the additions

// The value for the channel of lane i: the same for all lanes, or one for each.
struct Same {
  float value;
  HOST_DEVICE float operator[](int64_t) const { return value; }
};
struct Each {
  const float* values;
  HOST_DEVICE float operator[](int64_t i) const { return values[i]; }
};

// ---- The four loops; x, grad and the results point at the first element of a tile ----

// Sums of d in sum[i] and of d * d in square[i], d = x - pivot[i]. The pivot, the mean of the tile's first
// row, removes a large mean before anything is squared.
template <typename T>
SIMD_CLONES void stats_loop(const T* x, int64_t count, int64_t width, const float* pivot,
                            float* sum, float* square) {
  for (int64_t start = 0; start < count; start += width) {
    const int64_t lanes = std::min(width, count - start);
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      const float d = load(x[start + i]) - pivot[i];
      sum[i] += d;
      square[i] += d * d;
    }
  }
}

template <typename T, typename Act, typename Values>
SIMD_CLONES void apply_loop(const T* x, T* z, int64_t count, int64_t width, Act act, Values mean,
                            Values scale, Values bias) {
  for (int64_t start = 0; start < count; start += width) {
    const int64_t lanes = std::min(width, count - start);
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      store(&z[start + i], act.value((load(x[start + i]) - mean[i]) * scale[i] + bias[i]));
    }
  }
}

// dy, and the sums of dy in sum[i] and of dy * (x - mean) in product[i].
template <typename T, typename Act, typename Values>
SIMD_CLONES void reduce_loop(const T* grad, const T* x, T* dy, int64_t count, int64_t width,
                             Act act, Values mean, Values scale, Values bias, float* sum,
                             float* product) {
  for (int64_t start = 0; start < count; start += width) {
    const int64_t lanes = std::min(width, count - start);
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      const float centred = load(x[start + i]) - mean[i];
      const float d = load(grad[start + i]) * act.slope(centred * scale[i] + bias[i]);
      store(&dy[start + i], d);
      sum[i] += d;
      product[i] += d * centred;
    }
  }
}

// dy becomes grad_x = scale * (dy - offset - (x - mean) * slope).
template <typename T, typename Values>
SIMD_CLONES void backward_loop(T* dy, const T* x, int64_t count, int64_t width, Values mean,
                               Values scale, Values offset, Values slope) {
  for (int64_t start = 0; start < count; start += width) {
    const int64_t lanes = std::min(width, count - start);
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      const float centred = load(x[start + i]) - mean[i];
      const float d = load(dy[start + i]);
      store(&dy[start + i], scale[i] * (d - offset[i] - centred * slope[i]));
    }
  }
}

// ---- Tiles and lanes ----

struct Tile {
  int64_t index;
  int64_t begin;    // first element
  int64_t count;    // elements
  int64_t channel;  // the first channel
};

// A thread's scratch memory, one value per lane; the two sums start at 0 in every tile.
struct Lanes {
  std::vector<float> pivot, first, second;
};

// Lane i gets the value of channel i % channels.
template <typename Value>
void repeat(const Value* values, int64_t channels, std::vector<float>& lanes) {
  if (channels == 1) {
    std::fill(lanes.begin(), lanes.end(), static_cast<float>(values[0]));
    return;
  }
  for (size_t start = 0; start < lanes.size(); start += channels) {
    std::copy(values, values + channels, lanes.begin() + start);
  }
}

// How maps are divided into tiles. See the top of the file.
class Tiles {
 public:
  explicit Tiles(const Maps& maps)
      : channels_(maps.channels),
        channels_in_tile_(maps.channels_last ? maps.channels : 1),
        run_(maps.channels_last ? maps.count() : maps.plane) {
    const int64_t repeats = (kMinWidth + channels_in_tile_ - 1) / channels_in_tile_;
    width_ = std::min(run_, repeats * channels_in_tile_);
    tile_ = std::max<int64_t>(1, kTileSize / width_) * width_;
    tiles_in_run_ = (run_ + tile_ - 1) / tile_;
    count_ = maps.count() / run_ * tiles_in_run_;
  }

  int64_t count() const { return count_; }
  int64_t width() const { return width_; }
  int64_t channels() const { return channels_; }
  int64_t channels_in_tile() const { return channels_in_tile_; }

  Tile operator[](int64_t index) const {
    const int64_t run = index / tiles_in_run_;
    const int64_t first = index % tiles_in_run_ * tile_;
    const int64_t channel = channels_in_tile_ == 1 ? run % channels_ : 0;
    return {index, run * run_ + first, std::min(tile_, run_ - first), channel};
  }

  // body(tile, lanes, pick) for every tile, on torch's threads. pick(values) gives the lanes of the
  // tile their values, from one value per channel as returned by `spread`.
  template <typename Body>
  void parallel(const Body& body) const {
    const int64_t grain = std::max<int64_t>(1, kTileSize / std::min(tile_, run_));
    parallel_for(count_, grain, [&](int64_t begin, int64_t end) {
      Lanes lanes{std::vector<float>(width_), {}, {}};
      for (int64_t index = begin; index < end; ++index) {
        const Tile tile = (*this)[index];
        lanes.first.assign(width_, 0.0F);
        lanes.second.assign(width_, 0.0F);
        if (channels_in_tile_ == 1) {
          body(tile, lanes, [&](const auto& values) { return Same{values[tile.channel]}; });
        } else {
          body(tile, lanes, [](const auto& values) { return Each{values.data()}; });
        }
      }
    });
  }

  // One value per channel, as `pick` expects it: repeated for all lanes where a lane is a channel.
  std::vector<float> spread(const float* values) const {
    std::vector<float> result(channels_in_tile_ == 1 ? channels_ : width_);
    repeat(values, channels_, result);
    return result;
  }

 private:
  int64_t channels_, channels_in_tile_, run_, width_, tile_, tiles_in_run_, count_;
};

// Adds the lanes of each channel: sums[c] = lanes[c] + lanes[c + channels] + ...
void fold(const std::vector<float>& lanes, int64_t channels, double* sums) {
  if (channels == 1) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < lanes.size(); ++i) {
      sum += lanes[i];
    }
    sums[0] = sum;
    return;
  }
  std::fill(sums, sums + channels, 0.0);
  for (size_t start = 0; start < lanes.size(); start += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      sums[c] += lanes[start + c];
    }
  }
}

// Two sums for each channel of each tile, in double; every tile writes its own.
class Partials {
 public:
  explicit Partials(const Tiles& tiles)
      : tiles_(tiles),
        first_(tiles.count() * tiles.channels_in_tile()),
        second_(tiles.count() * tiles.channels_in_tile()) {}

  double* first(int64_t tile) { return &first_[tile * tiles_.channels_in_tile()]; }
  double* second(int64_t tile) { return &second_[tile * tiles_.channels_in_tile()]; }

  // body(channel, elements of it in the tile, first, second), tile after tile, in one thread.
  template <typename Body>
  void in_order(const Body& body) const {
    const int64_t channels = tiles_.channels_in_tile();
    for (int64_t index = 0; index < tiles_.count(); ++index) {
      const Tile tile = tiles_[index];
      const auto elements = static_cast<double>(tile.count / channels);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = index * channels + c;
        body(tile.channel + c, elements, first_[at], second_[at]);
      }
    }
  }

 private:
  const Tiles& tiles_;
  std::vector<double> first_, second_;
};

// What a lane needs of its channel to compute y from x.
struct LaneAffine {
  std::vector<float> mean, scale, bias;

  LaneAffine(const Tiles& tiles, const Affine& affine)
      : mean(tiles.spread(affine.mean)),
        scale(tiles.spread(affine.weight)),
        bias(tiles.spread(affine.bias)) {
    const std::vector<float> rstd = tiles.spread(affine.rstd);
    for (size_t i = 0; i < scale.size(); ++i) {
      scale[i] *= rstd[i];
    }
  }
};

// ---- The four operators, on torch's own threads ----

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <typename T>
  void stats(const T* x, const Maps& maps, float* mean, float* var) const {
    const Tiles tiles(maps);
    Partials partials(tiles);
    tiles.parallel([&](const Tile& tile, Lanes& lanes, auto) {
      const int64_t channels = tiles.channels_in_tile();
      double* tile_mean = partials.first(tile.index);
      double* squares = partials.second(tile.index);  // of the distances from that mean

      const int64_t row = std::min(tiles.width(), tile.count);
      lanes.pivot.assign(tiles.width(), 0.0F);
      std::transform(x + tile.begin, x + tile.begin + row, lanes.pivot.begin(),
                     [](T element) { return load(element); });
      fold(lanes.pivot, channels, tile_mean);
      std::for_each(tile_mean, tile_mean + channels, [&](double& sum) { sum /= row / channels; });
      repeat(tile_mean, channels, lanes.pivot);
      stats_loop(x + tile.begin, tile.count, tiles.width(), lanes.pivot.data(),
                 lanes.first.data(), lanes.second.data());

      fold(lanes.first, channels, tile_mean);
      fold(lanes.second, channels, squares);
      const auto elements = static_cast<double>(tile.count / channels);
      for (int64_t c = 0; c < channels; ++c) {
        const double shift = tile_mean[c] / elements;
        squares[c] = std::max(squares[c] - tile_mean[c] * shift, 0.0);
        tile_mean[c] = lanes.pivot[c] + shift;
      }
    });

    const auto n = static_cast<double>(maps.count_in_channel());
    std::vector<double> means(maps.channels), vars(maps.channels);
    partials.in_order([&](int64_t c, double elements, double tile_mean, double) {
      means[c] += tile_mean * elements / n;
    });
    partials.in_order([&](int64_t c, double elements, double tile_mean, double squares) {
      const double shift = tile_mean - means[c];
      vars[c] += (squares + elements * shift * shift) / n;
    });
    std::copy(means.begin(), means.end(), mean);
    std::copy(vars.begin(), vars.end(), var);
  }

  template <typename T, typename Act>
  void apply(const T* x, T* z, const Maps& maps, const Affine& affine, Act act) const {
    const Tiles tiles(maps);
    const LaneAffine lane(tiles, affine);
    tiles.parallel([&](const Tile& tile, Lanes&, auto pick) {
      apply_loop(x + tile.begin, z + tile.begin, tile.count, tiles.width(), act, pick(lane.mean),
                 pick(lane.scale), pick(lane.bias));
    });
  }

  // Leaves dy in grad_x.
  template <typename T, typename Act>
  void backward_reduce(const T* grad, const T* x, T* grad_x, const Maps& maps,
                       const Affine& affine, Act act, Sums<float> sums) const {
    const Tiles tiles(maps);
    const LaneAffine lane(tiles, affine);
    Partials partials(tiles);
    tiles.parallel([&](const Tile& tile, Lanes& lanes, auto pick) {
      reduce_loop(grad + tile.begin, x + tile.begin, grad_x + tile.begin, tile.count,
                  tiles.width(), act, pick(lane.mean), pick(lane.scale), pick(lane.bias),
                  lanes.first.data(), lanes.second.data());
      fold(lanes.first, tiles.channels_in_tile(), partials.first(tile.index));
      fold(lanes.second, tiles.channels_in_tile(), partials.second(tile.index));
    });

    std::vector<double> dy(maps.channels), products(maps.channels);
    partials.in_order([&](int64_t c, double, double sum, double product) {
      dy[c] += sum;
      products[c] += product;
    });
    for (int64_t c = 0; c < maps.channels; ++c) {
      sums.dy[c] = static_cast<float>(dy[c]);
      sums.dy_xhat[c] = static_cast<float>(products[c] * affine.rstd[c]);
    }
  }

  // dy is in grad_x: neither grad nor the activation is needed.
  template <typename T, typename Act>
  void backward_apply(const T*, const T* x, T* grad_x, const Maps& maps, const Affine& affine, Act,
                      Sums<const float> sums, float count) const {
    const Tiles tiles(maps);
    const LaneAffine lane(tiles, affine);
    std::vector<float> offset = tiles.spread(sums.dy), slope = tiles.spread(sums.dy_xhat);
    const std::vector<float> rstd = tiles.spread(affine.rstd);
    for (size_t i = 0; i < slope.size(); ++i) {
      offset[i] /= count;
      slope[i] *= rstd[i] / count;
    }
    tiles.parallel([&](const Tile& tile, Lanes&, auto pick) {
      backward_loop(grad_x + tile.begin, x + tile.begin, tile.count, tiles.width(),
                    pick(lane.mean), pick(lane.scale), pick(offset), pick(slope));
    });
  }
};

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CPU, library) {
  detector::register_batch_norm<detector::Cpu>(library);
}

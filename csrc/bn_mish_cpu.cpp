// mish(batch_norm(x)) on the CPU, for float32 or bfloat16 maps, in few passes over memory: one for the
// statistics, one for the result, two backward. Of the maps only x is kept in between.
//
//   y = (x - mean) * scale + bias,  scale = weight * rstd,  z = mish(y)
//   dy = grad * mish'(y)
//   grad_bias = sum(dy),  grad_weight = sum(dy * xhat),  xhat = (x - mean) * rstd
//   grad_x = scale * (dy - grad_bias / n - xhat * grad_weight / n)
//
// Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015, section 3.
//
// Both memory formats run through the same loops. The tensor is cut into tiles: pieces of one plane
// (contiguous), or runs of whole pixels (channels_last). A loop walks a tile in rows of `width`
// elements, and element i of a row is lane i. In a piece of a plane all lanes belong to one channel;
// in a run of pixels lane i belongs to channel i % C. A sum is kept a lane in float, then folded to
// channels and added over the tiles in double, in their order: the tiles depend on the shape alone,
// so the bits of a result do not depend on the number of threads.
#include <algorithm>
#include <tuple>
#include <vector>

#include "cpu.h"
#include "layout.h"

namespace detector {
namespace {

constexpr int64_t kTileSize = 32768;  // elements: 128 KB, a task for a thread and half of an L2 cache
constexpr int64_t kMinWidth = 256;    // lanes: enough to hide the latency of the additions

// A value of the channel in lane i: the same for all lanes, or each its own.
struct Same {
  float value;
  HOST_DEVICE float operator[](int64_t) const { return value; }
};
struct Each {
  const float* values;
  HOST_DEVICE float operator[](int64_t i) const { return values[i]; }
};

// ---- The four loops; x, grad and the results point at the first element of a tile ----

// sum[i] of d and square[i] of d * d with d = x - pivot[i]. The pivot, a value of the tile, takes a
// large mean out before anything is squared.
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

template <typename T, typename Values>
SIMD_CLONES void apply_loop(const T* x, T* z, int64_t count, int64_t width, Values mean,
                            Values scale, Values bias) {
  for (int64_t start = 0; start < count; start += width) {
    const int64_t lanes = std::min(width, count - start);
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      store(&z[start + i], mish((load(x[start + i]) - mean[i]) * scale[i] + bias[i]));
    }
  }
}

// dy, sum[i] of dy and product[i] of dy * (x - mean). Computing dy once more in the second pass would
// spare writing it here, and cost twice as much: the exponential is dearer than the memory.
template <typename T, typename Values>
SIMD_CLONES void reduce_loop(const T* grad, const T* x, T* dy, int64_t count,
                             int64_t width, Values mean, Values scale, Values bias, float* sum,
                             float* product) {
  for (int64_t start = 0; start < count; start += width) {
    const int64_t lanes = std::min(width, count - start);
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
      const float centred = load(x[start + i]) - mean[i];
      const float d = load(grad[start + i]) * mish_derivative(centred * scale[i] + bias[i]);
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

// A thread's scratch, a value for each lane; the two sums start at 0 in every tile.
struct Lanes {
  std::vector<float> pivot, first, second;
};

// Lane i gets the value of channel i % channels.
template <typename T>
void repeat(const T* values, int64_t channels, std::vector<float>& lanes) {
  if (channels == 1) {
    std::fill(lanes.begin(), lanes.end(), load(values[0]));
    return;
  }
  const auto value = [](T element) { return load(element); };
  for (size_t start = 0; start < lanes.size(); start += channels) {
    std::transform(values, values + channels, lanes.begin() + start, value);
  }
}

bool is_channels_last(const Tensor& x) {
  const int64_t strides[] = {x.size(1) * x.size(2) * x.size(3), 1, x.size(1) * x.size(3), x.size(1)};
  for (int64_t d = 0; d < 4; ++d) {
    if (x.size(d) != 1 && x.stride(d) != strides[d]) {
      return false;
    }
  }
  return true;
}

// How a tensor [B, C, H, W] is cut. See the top of the file.
class Tiles {
 public:
  explicit Tiles(const Tensor& x) {
    STD_TORCH_CHECK(x.dim() == 4 && x.numel() > 0,
                    "detector_ops: BatchNorm + Mish takes a tensor [B, C, H, W] with elements");
    const bool planes = x.is_contiguous();
    STD_TORCH_CHECK(planes || is_channels_last(x),
                    "detector_ops: BatchNorm + Mish takes contiguous or channels_last tensors");
    channels_ = x.size(1);
    channels_in_tile_ = planes ? 1 : channels_;
    run_ = planes ? x.size(2) * x.size(3) : x.numel();
    const int64_t repeats = (kMinWidth + channels_in_tile_ - 1) / channels_in_tile_;
    width_ = std::min(run_, repeats * channels_in_tile_);
    tile_ = std::max<int64_t>(1, kTileSize / width_) * width_;
    tiles_in_run_ = (run_ + tile_ - 1) / tile_;
    count_ = x.numel() / run_ * tiles_in_run_;
    elements_in_channel_ = x.numel() / channels_;
  }

  int64_t count() const { return count_; }
  int64_t width() const { return width_; }
  int64_t channels() const { return channels_; }
  int64_t channels_in_tile() const { return channels_in_tile_; }
  int64_t elements_in_channel() const { return elements_in_channel_; }

  Tile operator[](int64_t index) const {
    const int64_t run = index / tiles_in_run_;
    const int64_t first = index % tiles_in_run_ * tile_;
    const int64_t channel = channels_in_tile_ == 1 ? run % channels_ : 0;
    return {index, run * run_ + first, std::min(tile_, run_ - first), channel};
  }

  // body(tile, lanes, pick) for every tile, on torch's threads. pick(values) gives the lanes of the
  // tile their values, from one value a channel as `spread` left them.
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

  // One value a channel, as `pick` wants it: repeated for all lanes where a lane is a channel.
  std::vector<float> spread(const float* values) const {
    std::vector<float> result(channels_in_tile_ == 1 ? channels_ : width_);
    repeat(values, channels_, result);
    return result;
  }

 private:
  int64_t channels_, channels_in_tile_, run_, width_, tile_, tiles_in_run_, count_;
  int64_t elements_in_channel_;
};

// Adds the lanes of each channel: sums[c] of lanes[c], lanes[c + channels], ...
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

// ---- The operators ----

template <typename T = float>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T = float>
T* mutable_data(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// function(element) with an element of the type of x's.
template <typename Function>
void with_map_type_of(const Tensor& x, const Function& function) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16,
                  "detector_ops: BatchNorm + Mish on the CPU takes float32 or bfloat16 maps");
  type == ScalarType::Float ? function(float{}) : function(BFloat16{});
}

const float* channel_data(const Tensor& values, const Tiles& tiles) {
  STD_TORCH_CHECK(values.scalar_type() == ScalarType::Float && values.is_contiguous() &&
                      values.numel() == tiles.channels(),
                  "detector_ops: one contiguous float32 value a channel, please");
  return data(values);
}

Tensor channel_values(const std::vector<double>& values, const Tensor& x) {
  const int64_t size = static_cast<int64_t>(values.size()), stride = 1;
  Tensor result = empty_beside(x, 1, &size, &stride, aoti_torch_dtype_float32());
  std::copy(values.begin(), values.end(), mutable_data(result));
  return result;
}

// What a lane needs to know of its channel to come from x to y.
struct Affine {
  std::vector<float> mean, scale, bias;

  Affine(const Tiles& tiles, const Tensor& mean, const Tensor& rstd, const Tensor& weight,
         const Tensor& bias)
      : mean(tiles.spread(channel_data(mean, tiles))),
        scale(tiles.spread(channel_data(weight, tiles))),
        bias(tiles.spread(channel_data(bias, tiles))) {
    const std::vector<float> factor = tiles.spread(channel_data(rstd, tiles));
    for (size_t i = 0; i < scale.size(); ++i) {
      scale[i] *= factor[i];
    }
  }
};

// x [B, C, H, W] -> the mean and the variance (over n, not n - 1) of each channel, both [C].
std::tuple<Tensor, Tensor> bn_stats(const Tensor& x) {
  const Tiles tiles(x);
  Partials partials(tiles);
  with_map_type_of(x, [&](auto element) {
    using T = decltype(element);
    tiles.parallel([&](const Tile& tile, Lanes& lanes, auto) {
      const int64_t channels = tiles.channels_in_tile();
      const T* from = data<T>(x) + tile.begin;
      repeat(from, channels, lanes.pivot);
      stats_loop(from, tile.count, tiles.width(), lanes.pivot.data(), lanes.first.data(),
                 lanes.second.data());

      double* mean = partials.first(tile.index);
      double* squares = partials.second(tile.index);  // of the distances from that mean
      fold(lanes.first, channels, mean);
      fold(lanes.second, channels, squares);
      const auto elements = static_cast<double>(tile.count / channels);
      for (int64_t c = 0; c < channels; ++c) {
        const double shift = mean[c] / elements;
        squares[c] = std::max(squares[c] - mean[c] * shift, 0.0);
        mean[c] = static_cast<double>(load(from[c])) + shift;
      }
    });
  });

  const auto n = static_cast<double>(tiles.elements_in_channel());
  std::vector<double> mean(tiles.channels()), var(tiles.channels());
  partials.in_order([&](int64_t c, double elements, double tile_mean, double) {
    mean[c] += tile_mean * elements / n;
  });
  partials.in_order([&](int64_t c, double elements, double tile_mean, double squares) {
    const double shift = tile_mean - mean[c];
    var[c] += (squares + elements * shift * shift) / n;
  });
  return {channel_values(mean, x), channel_values(var, x)};
}

// z = mish(batch_norm(x)), for x [B, C, H, W] and the others [C].
Tensor bn_mish_apply(const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& weight,
                     const Tensor& bias) {
  const Tiles tiles(x);
  const Affine affine(tiles, mean, rstd, weight, bias);
  Tensor z = empty_same(x);
  with_map_type_of(x, [&](auto element) {
    using T = decltype(element);
    tiles.parallel([&](const Tile& tile, Lanes&, auto pick) {
      apply_loop(data<T>(x) + tile.begin, mutable_data<T>(z) + tile.begin, tile.count,
                 tiles.width(), pick(affine.mean), pick(affine.scale), pick(affine.bias));
    });
  });
  return z;
}

// dy like x, and the gradients of bias and weight, both [C]: the sums of dy and of dy * xhat.
std::tuple<Tensor, Tensor, Tensor> bn_mish_backward_reduce(const Tensor& grad, const Tensor& x,
                                                           const Tensor& mean, const Tensor& rstd,
                                                           const Tensor& weight,
                                                           const Tensor& bias) {
  STD_TORCH_CHECK(same_layout(grad, x), "detector_ops: grad must have the strides of x");
  const Tiles tiles(x);
  const Affine affine(tiles, mean, rstd, weight, bias);
  Tensor dy = empty_same(x);
  Partials partials(tiles);
  with_map_type_of(x, [&](auto element) {
    using T = decltype(element);
    tiles.parallel([&](const Tile& tile, Lanes& lanes, auto pick) {
      reduce_loop(data<T>(grad) + tile.begin, data<T>(x) + tile.begin,
                  mutable_data<T>(dy) + tile.begin, tile.count, tiles.width(), pick(affine.mean),
                  pick(affine.scale), pick(affine.bias), lanes.first.data(), lanes.second.data());
      fold(lanes.first, tiles.channels_in_tile(), partials.first(tile.index));
      fold(lanes.second, tiles.channels_in_tile(), partials.second(tile.index));
    });
  });

  std::vector<double> sums(tiles.channels()), products(tiles.channels());
  partials.in_order([&](int64_t c, double, double sum, double product) {
    sums[c] += sum;
    products[c] += product;
  });
  for (int64_t c = 0; c < tiles.channels(); ++c) {
    products[c] *= data(rstd)[c];
  }
  return {dy, channel_values(sums, x), channel_values(products, x)};
}

// dy becomes grad_x. `count`: elements a channel behind the two sums; more than there are in x where
// processes share their statistics.
void bn_backward_apply(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                       const Tensor& weight, const Tensor& sum_dy, const Tensor& sum_dy_xhat,
                       int64_t count) {
  STD_TORCH_CHECK(same_layout(dy, x), "detector_ops: dy must have the strides of x");
  const Tiles tiles(x);
  const Affine affine(tiles, mean, rstd, weight, sum_dy);
  std::vector<float> offset = affine.bias;
  std::vector<float> slope = tiles.spread(channel_data(sum_dy_xhat, tiles));
  const std::vector<float> factor = tiles.spread(channel_data(rstd, tiles));
  for (size_t i = 0; i < slope.size(); ++i) {
    offset[i] /= static_cast<float>(count);
    slope[i] *= factor[i] / static_cast<float>(count);
  }
  with_map_type_of(x, [&](auto element) {
    using T = decltype(element);
    tiles.parallel([&](const Tile& tile, Lanes&, auto pick) {
      backward_loop(mutable_data<T>(dy) + tile.begin, data<T>(x) + tile.begin, tile.count,
                    tiles.width(), pick(affine.mean), pick(affine.scale), pick(offset),
                    pick(slope));
    });
  });
}

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CPU, library) {
  library.impl("bn_stats", TORCH_BOX(&detector::bn_stats));
  library.impl("bn_mish_apply", TORCH_BOX(&detector::bn_mish_apply));
  library.impl("bn_mish_backward_reduce", TORCH_BOX(&detector::bn_mish_backward_reduce));
  library.impl("bn_backward_apply_", TORCH_BOX(&detector::bn_backward_apply));
}

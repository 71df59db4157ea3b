// The gradient of the weights of a 3x3 convolution, padding 1, stride 1 or 2, on float32 maps in
// channels_last:
//
//   grad_weight[o, i, p, q] = sum over n, r, c of grad[n, o, r, c] * x[n, i, stride r + p - 1, stride c + q - 1]
//
// oneDNN has no good kernel for it without AVX-512: it takes 1.3 to 6 times as long as this one, longest on
// wide maps of few channels (docs/speed.md).
//
// The maps are cut into blocks of rows that fit a cache. A block is copied so that eight channels of x lie
// together, and four channels of grad, with zeros around the image; then each pair of (8 channels of
// x, 4 channels of grad, kernel row) is a tile: one pass over the pixels of the block with the 3 x 4 sums of
// 8 lanes in registers. Tiles write to separate places, and the blocks depend on the shape alone: the bits
// of the result do not depend on the number of threads.
#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu.h"

namespace detector {
namespace {

constexpr int64_t kIn = 8, kOut = 4;      // channels of x and of grad in a tile
constexpr int64_t kSums = 3 * kOut * kIn;  // of a tile: [column of the kernel, grad channel, x channel]
constexpr int64_t kBlockBytes = 256 * 1024;
constexpr int64_t kMinPixels = 256;  // of a block; with fewer, adding the sums to memory costs

typedef float Lanes __attribute__((vector_size(kIn * sizeof(float)), aligned(alignof(float))));

struct Shape {
  int64_t images, in, out;
  int64_t rows, columns;          // of x
  int64_t out_rows, out_columns;  // of grad
  int64_t stride;

  int64_t in_blocks() const { return (in + kIn - 1) / kIn; }
  int64_t out_blocks() const { return (out + kOut - 1) / kOut; }
  int64_t padded_columns() const { return (out_columns - 1) * stride + 3; }
  int64_t padded_rows(int64_t count) const { return (count - 1) * stride + 3; }
};

// Rows [first, first + count) of grad of some images; several images only if they are whole.
struct Block {
  int64_t image, images, first, count;
};

// The sums of a tile over a block: x points at the first padded row of the kernel row, grad at the first
// pixel; `image_step`: floats from one image of x to the next.
SIMD_CLONES void add_tile(const float* x, const float* grad, const Block& block, const Shape& shape,
                          float* sums) {
  Lanes total[3][kOut] = {};
  const int64_t width = shape.padded_columns() * kIn, step = shape.stride * kIn;
  const int64_t image_step = shape.padded_rows(block.count) * width;
  for (int64_t image = 0; image < block.images; ++image) {
    for (int64_t row = 0; row < block.count; ++row) {
      const float* pixel = x + image * image_step + row * shape.stride * width;
      for (int64_t column = 0; column < shape.out_columns; ++column) {
        const Lanes left = *reinterpret_cast<const Lanes*>(pixel);
        const Lanes middle = *reinterpret_cast<const Lanes*>(pixel + kIn);
        const Lanes right = *reinterpret_cast<const Lanes*>(pixel + 2 * kIn);
#pragma GCC unroll 4
        for (int64_t o = 0; o < kOut; ++o) {
          total[0][o] += left * grad[o];
          total[1][o] += middle * grad[o];
          total[2][o] += right * grad[o];
        }
        pixel += step;
        grad += kOut;
      }
    }
  }
  for (int64_t q = 0; q < 3; ++q) {
    for (int64_t o = 0; o < kOut; ++o) {
      Lanes* place = reinterpret_cast<Lanes*>(sums + (q * kOut + o) * kIn);
      *place += total[q][o];
    }
  }
}

// Copies `lanes` channels from `first` on of `count` pixels; channels that do not exist become 0.
template <int64_t lanes>
void copy_pixels(const float* from, int64_t channels, int64_t first, int64_t count, float* to) {
  const int64_t present = std::min(lanes, channels - first);
  from += first;
  if (present == lanes) {
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(to + i * lanes, from + i * channels, lanes * sizeof(float));
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      to[i * lanes + lane] = lane < present ? from[i * channels + lane] : 0.0f;
    }
  }
}

// Eight channels of x: [images, padded rows, padded columns, 8].
void pack_x(const float* x, const Block& block, const Shape& shape, int64_t number, float* to) {
  const int64_t width = shape.padded_columns();
  const int64_t inside = std::min(width - 1, shape.columns);  // columns of x that are read
  for (int64_t image = block.image; image < block.image + block.images; ++image) {
    for (int64_t r = 0; r < shape.padded_rows(block.count); ++r, to += width * kIn) {
      const int64_t row = block.first * shape.stride + r - 1;
      if (row < 0 || row >= shape.rows) {
        std::fill(to, to + width * kIn, 0.0f);
        continue;
      }
      std::fill(to, to + kIn, 0.0f);
      const float* from = x + (image * shape.rows + row) * shape.columns * shape.in;
      copy_pixels<kIn>(from, shape.in, number * kIn, inside, to + kIn);
      std::fill(to + (inside + 1) * kIn, to + width * kIn, 0.0f);
    }
  }
}

// Four channels of grad: [images, rows, columns, 4].
void pack_grad(const float* grad, const Block& block, const Shape& shape, int64_t number, float* to) {
  const int64_t count = block.count * shape.out_columns;
  for (int64_t image = block.image; image < block.image + block.images; ++image) {
    const int64_t pixel = (image * shape.out_rows + block.first) * shape.out_columns;
    copy_pixels<kOut>(grad + pixel * shape.out, shape.out, number * kOut, count, to);
    to += count * kOut;
  }
}

// As many rows as fit kBlockBytes, at least kMinPixels; several whole images if one has fewer.
std::vector<Block> cut(const Shape& shape) {
  const int64_t row_bytes =
      sizeof(float) * (shape.stride * shape.padded_columns() * shape.in_blocks() * kIn +
                       shape.out_columns * shape.out_blocks() * kOut);
  const int64_t least = (kMinPixels + shape.out_columns - 1) / shape.out_columns;
  const int64_t rows = std::max(kBlockBytes / row_bytes, least);
  std::vector<Block> blocks;
  if (rows >= shape.out_rows) {
    const int64_t images = rows / shape.out_rows;
    for (int64_t n = 0; n < shape.images; n += images) {
      blocks.push_back({n, std::min(images, shape.images - n), 0, shape.out_rows});
    }
    return blocks;
  }
  for (int64_t n = 0; n < shape.images; ++n) {
    for (int64_t first = 0; first < shape.out_rows; first += rows) {
      blocks.push_back({n, 1, first, std::min(rows, shape.out_rows - first)});
    }
  }
  return blocks;
}

// sums: [in blocks, out blocks, kernel row, kSums], zero at first.
void add_block(const float* x, const float* grad, const Block& block, const Shape& shape,
               std::vector<float>& packed, float* sums) {
  const int64_t in_blocks = shape.in_blocks(), out_blocks = shape.out_blocks();
  const int64_t width = shape.padded_columns() * kIn;
  const int64_t x_size = block.images * shape.padded_rows(block.count) * width;
  const int64_t grad_size = block.images * block.count * shape.out_columns * kOut;
  packed.resize(in_blocks * x_size + out_blocks * grad_size);
  float *packed_x = packed.data(), *packed_grad = packed_x + in_blocks * x_size;
  parallel_for(in_blocks + out_blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i < in_blocks) {
        pack_x(x, block, shape, i, packed_x + i * x_size);
      } else {
        const int64_t number = i - in_blocks;
        pack_grad(grad, block, shape, number, packed_grad + number * grad_size);
      }
    }
  });
  parallel_for(in_blocks * out_blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* tile_grad = packed_grad + i % out_blocks * grad_size;
      for (int64_t p = 0; p < 3; ++p) {
        const float* tile_x = packed_x + i / out_blocks * x_size + p * width;
        add_tile(tile_x, tile_grad, block, shape, sums + (3 * i + p) * kSums);
      }
    }
  });
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

bool is_map(const Tensor& x) {
  return x.dim() == 4 && x.numel() > 0 && x.scalar_type() == ScalarType::Float &&
         is_channels_last(x);
}

// grad [B, O, H', W'] and x [B, I, H, W] -> [O, I, 3, 3] in channels_last.
Tensor conv3x3_grad_weight(const Tensor& grad, const Tensor& x, int64_t stride) {
  STD_TORCH_CHECK(is_map(grad) && is_map(x) && (stride == 1 || stride == 2),
                  "detector_ops: conv3x3_grad_weight takes float32 maps in channels_last, stride 1 or 2");
  const Shape shape{x.size(0),    x.size(1),    grad.size(1), x.size(2),
                    x.size(3),    grad.size(2), grad.size(3), stride};
  STD_TORCH_CHECK(grad.size(0) == shape.images && shape.out_rows == (shape.rows - 1) / stride + 1 &&
                      shape.out_columns == (shape.columns - 1) / stride + 1,
                  "detector_ops: conv3x3_grad_weight: grad is not that of a 3x3 convolution of x");
  const int64_t sizes[] = {shape.out, shape.in, 3, 3};
  const int64_t strides[] = {9 * shape.in, 1, 3 * shape.in, shape.in};
  Tensor result = empty_beside(x, 4, sizes, strides, aoti_torch_dtype_float32());
  const float* x_data = static_cast<const float*>(x.const_data_ptr());
  const float* grad_data = static_cast<const float*>(grad.const_data_ptr());
  std::vector<float> sums(shape.in_blocks() * shape.out_blocks() * 3 * kSums), packed;
  for (const Block& block : cut(shape)) {
    add_block(x_data, grad_data, block, shape, packed, sums.data());
  }
  float* to = static_cast<float*>(result.mutable_data_ptr());
  for (int64_t o = 0; o < shape.out; ++o) {
    for (int64_t p = 0; p < 3; ++p) {
      for (int64_t q = 0; q < 3; ++q) {
        for (int64_t i = 0; i < shape.in; ++i) {
          const int64_t pair = i / kIn * shape.out_blocks() + o / kOut;
          *to++ = sums[(3 * pair + p) * kSums + (q * kOut + o % kOut) * kIn + i % kIn];
        }
      }
    }
  }
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CPU, library) {
  library.impl("conv3x3_grad_weight", TORCH_BOX(&conv3x3_grad_weight));
}

}  // namespace detector

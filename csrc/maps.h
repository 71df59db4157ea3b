// The arguments of the BatchNorm kernels: maps, and values per channel; torch-free.
#pragma once

#include <cstdint>

namespace detector {

// Feature maps [batch, channels, plane] at one pointer: plane after plane, or (channels_last) pixel
// after pixel, each with all its channels.
struct Maps {
  int64_t batch, channels, plane;
  bool channels_last;

  int64_t count() const { return batch * channels * plane; }
  int64_t count_in_channel() const { return batch * plane; }
};

// One value for each channel.
struct Affine {
  const float *mean, *rstd, *weight, *bias;
};

// The sums of dy and of dy * xhat, for each channel.
template <typename Value>
struct Sums {
  Value *dy, *dy_xhat;
};

}  // namespace detector

// BatchNorm fused with an activation: the checks and results of the four operators, for every device.
//
//   bn_stats                mean and variance of a batch
//   bn_act_apply            y = (x - mean) * scale + bias, scale = weight * rstd;  z = act(y)
//   bn_act_backward_reduce  dy = grad * act'(y);  sum(dy) and sum(dy * xhat), xhat = (x - mean) * rstd:
//                           the gradients of bias and weight
//   bn_act_backward_apply_  grad_x = scale * (dy - sum(dy) / n - xhat * sum(dy * xhat) / n)
//
// Ranks exchange their sums after the first and after the third. With frozen statistics the sums in
// grad_x are 0. The only map that is saved for the backward pass is x. Source: S. Ioffe and C. Szegedy,
// "Batch Normalization", 2015, section 3.
//
// bn_act_backward_reduce may leave an intermediate result in grad_x for bn_act_backward_apply_: on a CPU
// dy, since the exponential costs more than the memory traffic; on a GPU nothing, since it costs less.
//
// A Device is constructed from the tensor that it works on, and has, for maps of float, BFloat16 and Half,
//
//   void stats(const T* x, const Maps& maps, float* mean, float* var) const;
//   void apply(const T* x, T* z, const Maps&, const Affine&, Act) const;
//   void backward_reduce(const T* grad, const T* x, T* grad_x, const Maps&, const Affine&, Act,
//                        Sums<float> sums) const;
//   void backward_apply(const T* grad, const T* x, T* grad_x, const Maps&, const Affine&, Act,
//                       Sums<const float> sums, float count) const;
#pragma once

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "activations.h"
#include "layout.h"
#include "maps.h"
#include "numbers.h"

namespace detector {

// function(element) with a value of the element type of x.
template <typename Function>
void with_map_type_of(const Tensor& x, const Function& function) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return function(float{});
    case ScalarType::BFloat16:
      return function(BFloat16{});
    case ScalarType::Half:
      return function(Half{});
    default:
      STD_TORCH_CHECK(false, "detector_ops: BatchNorm takes float32, bfloat16 or float16 maps");
  }
}

inline bool is_channels_last(const Tensor& x) {
  const int64_t strides[] = {x.size(1) * x.size(2) * x.size(3), 1, x.size(1) * x.size(3), x.size(1)};
  for (int64_t d = 0; d < 4; ++d) {
    if (x.size(d) != 1 && x.stride(d) != strides[d]) {
      return false;
    }
  }
  return true;
}

inline Maps maps_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() == 4 && x.numel() > 0,
                  "detector_ops: BatchNorm takes a tensor [B, C, H, W] with elements");
  const bool planes = x.is_contiguous();
  STD_TORCH_CHECK(planes || is_channels_last(x),
                  "detector_ops: BatchNorm takes contiguous or channels_last tensors");
  return {x.size(0), x.size(1), x.size(2) * x.size(3), !planes};
}

template <typename Device>
struct BatchNormOperators {
  // The variance is over n, not n - 1.
  static std::tuple<Tensor, Tensor> stats(const Tensor& x) {
    const Maps maps = maps_of(x);
    Tensor mean = new_channel_values(x), var = new_channel_values(x);
    with_map_type_of(x, [&](auto element) {
      Device(x).stats(data<decltype(element)>(x), maps, mutable_data<float>(mean),
                      mutable_data<float>(var));
    });
    return {mean, var};
  }

  static Tensor apply(const Tensor& x, const Tensor& mean, const Tensor& rstd,
                      const Tensor& weight, const Tensor& bias, int64_t activation,
                      double parameter) {
    const Maps maps = maps_of(x);
    const Affine affine = affine_of(x, mean, rstd, weight, bias);
    Tensor z = empty_same(x);
    with(x, activation, parameter, [&](auto element, auto act) {
      using T = decltype(element);
      Device(x).apply(data<T>(x), mutable_data<T>(z), maps, affine, act);
    });
    return z;
  }

  static std::tuple<Tensor, Tensor> backward_reduce(
      const Tensor& grad, const Tensor& x, const Tensor& mean, const Tensor& rstd,
      const Tensor& weight, const Tensor& bias, int64_t activation, double parameter,
      const Tensor& grad_x) {
    check_alike(x, grad, grad_x);
    const Maps maps = maps_of(x);
    const Affine affine = affine_of(x, mean, rstd, weight, bias);
    Tensor dy = new_channel_values(x), dy_xhat = new_channel_values(x);
    const Sums<float> sums{mutable_data<float>(dy), mutable_data<float>(dy_xhat)};
    with(x, activation, parameter, [&](auto element, auto act) {
      using T = decltype(element);
      Device(x).backward_reduce(data<T>(grad), data<T>(x), mutable_data<T>(grad_x), maps, affine,
                                act, sums);
    });
    return {dy, dy_xhat};
  }

  // `count`: elements per channel in the sums; more than in x if they are those of several ranks.
  static void backward_apply(const Tensor& grad, const Tensor& x, const Tensor& mean,
                             const Tensor& rstd, const Tensor& weight, const Tensor& bias,
                             int64_t activation, double parameter, const Tensor& sum_dy,
                             const Tensor& sum_dy_xhat, int64_t count, const Tensor& grad_x) {
    check_alike(x, grad, grad_x);
    const Maps maps = maps_of(x);
    const Affine affine = affine_of(x, mean, rstd, weight, bias);
    const Sums<const float> sums{channel_data(sum_dy, x), channel_data(sum_dy_xhat, x)};
    with(x, activation, parameter, [&](auto element, auto act) {
      using T = decltype(element);
      Device(x).backward_apply(data<T>(grad), data<T>(x), mutable_data<T>(grad_x), maps, affine,
                               act, sums, static_cast<float>(count));
    });
  }

 private:
  template <typename T>
  static const T* data(const Tensor& x) {
    return static_cast<const T*>(x.const_data_ptr());
  }
  template <typename T>
  static T* mutable_data(const Tensor& x) {
    return static_cast<T*>(x.mutable_data_ptr());
  }

  static const float* channel_data(const Tensor& values, const Tensor& x) {
    STD_TORCH_CHECK(values.scalar_type() == ScalarType::Float && values.is_contiguous() &&
                        values.numel() == x.size(1) &&
                        values.get_device_index() == x.get_device_index(),
                    "detector_ops: expected contiguous float32 values [C] on the device of the maps");
    return data<float>(values);
  }

  static Affine affine_of(const Tensor& x, const Tensor& mean, const Tensor& rstd,
                          const Tensor& weight, const Tensor& bias) {
    return {channel_data(mean, x), channel_data(rstd, x), channel_data(weight, x),
            channel_data(bias, x)};
  }

  static void check_alike(const Tensor& x, const Tensor& grad, const Tensor& grad_x) {
    STD_TORCH_CHECK(same_layout(grad, x) && same_layout(grad_x, x),
                    "detector_ops: grad and grad_x need the shape, strides, dtype and device of x");
  }

  static Tensor new_channel_values(const Tensor& x) {
    const int64_t size = x.size(1), stride = 1;
    return empty_beside(x, 1, &size, &stride, aoti_torch_dtype_float32());
  }

  // function(element, activation)
  template <typename Function>
  static void with(const Tensor& x, int64_t activation, double parameter,
                   const Function& function) {
    const bool known = with_activation(activation, parameter, [&](auto act) {
      with_map_type_of(x, [&](auto element) { function(element, act); });
    });
    STD_TORCH_CHECK(known, "detector_ops: unknown activation code ", activation);
  }
};

// For use inside STABLE_TORCH_LIBRARY_IMPL.
template <typename Device, typename Library>
void register_batch_norm(Library& library) {
  library.impl("bn_stats", TORCH_BOX(&BatchNormOperators<Device>::stats));
  library.impl("bn_act_apply", TORCH_BOX(&BatchNormOperators<Device>::apply));
  library.impl("bn_act_backward_reduce", TORCH_BOX(&BatchNormOperators<Device>::backward_reduce));
  library.impl("bn_act_backward_apply_", TORCH_BOX(&BatchNormOperators<Device>::backward_apply));
}

}  // namespace detector

// Mish's four operators: their checks and results, for every device.
//
// A Device is constructed from the tensor that it works on, and has
//
//   template <typename T> void mish(const T* x, T* y, int64_t count) const;       // y may be x
//   template <typename T> void mish_backward(const T* grad, const T* x, T* grad_x, int64_t count) const;
//
// for float, double, BFloat16 and Half, over `count` > 0 contiguous elements.
#pragma once

#include <torch/csrc/stable/library.h>

#include "layout.h"
#include "numbers.h"

namespace detector {

// function(element) with a value of the element type of x.
template <typename Function>
void with_type_of(const Tensor& x, const Function& function) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return function(float{});
    case ScalarType::Double:
      return function(double{});
    case ScalarType::BFloat16:
      return function(BFloat16{});
    case ScalarType::Half:
      return function(Half{});
    default:
      STD_TORCH_CHECK(false, "detector_ops: Mish takes floating-point tensors");
  }
}

template <typename Device>
struct MishOperators {
  static Tensor forward(const Tensor& x) {
    STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_forward: x must be dense");
    Tensor y = empty_same(x);
    write(x, y);
    return y;
  }

  static Tensor backward(const Tensor& grad, const Tensor& x) {
    STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_backward: x must be dense");
    STD_TORCH_CHECK(same_layout(grad, x),
                    "detector_ops::mish_backward: grad needs the shape, strides, dtype and device of x");
    Tensor grad_x = empty_same(x);
    if (x.numel() > 0) {
      with_type_of(x, [&](auto element) {
        using T = decltype(element);
        Device(x).mish_backward(static_cast<const T*>(grad.const_data_ptr()),
                                static_cast<const T*>(x.const_data_ptr()),
                                static_cast<T*>(grad_x.mutable_data_ptr()), x.numel());
      });
    }
    return grad_x;
  }

  static void out(const Tensor& x, const Tensor& y) {
    STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_out: x must be dense");
    STD_TORCH_CHECK(same_layout(y, x),
                    "detector_ops::mish_out: y needs the shape, strides, dtype and device of x");
    write(x, y);
  }

  static void in_place(const Tensor& x) {
    STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_: x must be dense");
    write(x, x);
  }

 private:
  static void write(const Tensor& x, const Tensor& y) {
    if (x.numel() > 0) {
      with_type_of(x, [&](auto element) {
        using T = decltype(element);
        Device(x).mish(static_cast<const T*>(x.const_data_ptr()),
                       static_cast<T*>(y.mutable_data_ptr()), x.numel());
      });
    }
  }
};

// For use inside STABLE_TORCH_LIBRARY_IMPL.
template <typename Device, typename Library>
void register_mish(Library& library) {
  library.impl("mish_forward", TORCH_BOX(&MishOperators<Device>::forward));
  library.impl("mish_backward", TORCH_BOX(&MishOperators<Device>::backward));
  library.impl("mish_out", TORCH_BOX(&MishOperators<Device>::out));
  library.impl("mish_", TORCH_BOX(&MishOperators<Device>::in_place));
}

}  // namespace detector

// Mish on the CPU: forward, backward and in place; float32, float64, and bfloat16 and
// float16 with float32 inside.
#include "cpu.h"

namespace detector {
namespace {

constexpr int64_t kGrain = 16384;  // elements; about 10 us of work, the price of waking a thread

// y may be x itself: every element is read before it is written.
template <typename T>
SIMD_CLONES void mish_loop(const T* x, T* y, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    store(&y[i], mish(load(x[i])));
  }
}

template <typename T>
SIMD_CLONES void mish_backward_loop(const T* grad, const T* x, T* grad_x, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    store(&grad_x[i], load(grad[i]) * mish_derivative(load(x[i])));
  }
}

template <typename T>
void mish_into(const Tensor& x, const Tensor& y) {
  const auto* from = static_cast<const T*>(x.const_data_ptr());
  auto* to = static_cast<T*>(y.mutable_data_ptr());
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    mish_loop(from + begin, to + begin, end - begin);
  });
}

template <typename T>
void mish_backward_into(const Tensor& grad, const Tensor& x, const Tensor& grad_x) {
  const auto* upstream = static_cast<const T*>(grad.const_data_ptr());
  const auto* from = static_cast<const T*>(x.const_data_ptr());
  auto* to = static_cast<T*>(grad_x.mutable_data_ptr());
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    mish_backward_loop(upstream + begin, from + begin, to + begin, end - begin);
  });
}

// Calls the function for the dtype of x with the element type as its template argument.
#define DISPATCH(x, function, ...)                                                        \
  switch ((x).scalar_type()) {                                                            \
    case ScalarType::Float:                                                               \
      function<float>(__VA_ARGS__);                                                       \
      break;                                                                              \
    case ScalarType::Double:                                                              \
      function<double>(__VA_ARGS__);                                                      \
      break;                                                                              \
    case ScalarType::BFloat16:                                                            \
      function<BFloat16>(__VA_ARGS__);                                                    \
      break;                                                                              \
    case ScalarType::Half:                                                                \
      function<Half>(__VA_ARGS__);                                                        \
      break;                                                                              \
    default:                                                                              \
      STD_TORCH_CHECK(false, "detector_ops: Mish takes floating-point tensors");          \
  }

Tensor mish_forward(const Tensor& x) {
  STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_forward: x must be dense");
  Tensor y = empty_same(x);
  DISPATCH(x, mish_into, x, y);
  return y;
}

Tensor mish_backward(const Tensor& grad, const Tensor& x) {
  STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_backward: x must be dense");
  STD_TORCH_CHECK(same_layout(grad, x),
                  "detector_ops::mish_backward: grad must have the shape, strides and dtype of x");
  Tensor grad_x = empty_same(x);
  DISPATCH(x, mish_backward_into, grad, x, grad_x);
  return grad_x;
}

void mish_out(const Tensor& x, const Tensor& y) {
  STD_TORCH_CHECK(is_dense(x) && same_layout(y, x),
                  "detector_ops::mish_out: x must be dense, y of its shape, strides and dtype");
  DISPATCH(x, mish_into, x, y);
}

void mish_in_place(const Tensor& x) {
  STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_: x must be dense");
  DISPATCH(x, mish_into, x, x);
}

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CPU, library) {
  library.impl("mish_forward", TORCH_BOX(&detector::mish_forward));
  library.impl("mish_backward", TORCH_BOX(&detector::mish_backward));
  library.impl("mish_out", TORCH_BOX(&detector::mish_out));
  library.impl("mish_", TORCH_BOX(&detector::mish_in_place));
}

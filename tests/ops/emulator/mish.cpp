// csrc/mish_kernels.cuh as C functions, one for each element type, named as torch names it.
#include "mish_kernels.cuh"

#define MISH(T, dtype)                                                                           \
  extern "C" void mish_##dtype(const T* x, T* y, int64_t count) {                                \
    detector::launch_mish(x, y, count, nullptr);                                                 \
  }                                                                                              \
  extern "C" void mish_backward_##dtype(const T* grad, const T* x, T* grad_x, int64_t count) {   \
    detector::launch_mish_backward(grad, x, grad_x, count, nullptr);                             \
  }

MISH(float, float32)
MISH(double, float64)
MISH(detector::BFloat16, bfloat16)
MISH(detector::Half, float16)

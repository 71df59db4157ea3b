// Mish on a GPU; float32, float64, and bfloat16 and float16 with float32 inside.
#include "gpu.h"
#include "mish_kernels.cuh"
#include "mish_operators.h"

namespace detector {
namespace {

struct Cuda : Gpu {
  using Gpu::Gpu;

  template <typename T>
  void mish(const T* x, T* y, int64_t count) const {
    launch_mish(x, y, count, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void mish_backward(const T* grad, const T* x, T* grad_x, int64_t count) const {
    launch_mish_backward(grad, x, grad_x, count, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
};

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CUDA, library) {
  detector::register_mish<detector::Cuda>(library);
}

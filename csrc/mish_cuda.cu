// Mish on a GPU; float32, float64, and bfloat16 and float16 with float32 inside.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "mish_kernels.cuh"
#include "mish_operators.h"

namespace detector {
namespace {

// The GPU of a tensor, current for as long as this lives, and torch's stream on it.
//
// The CUDA runtime is linked in statically, so that one library serves every torch of any CUDA; it
// has its own idea of the current device, which is told as well.
class Gpu {
 public:
  explicit Gpu(const Tensor& x) : guard_(x.get_device_index()) {
    STD_CUDA_CHECK(cudaSetDevice(x.get_device_index()));
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <typename T>
  void mish(const T* x, T* y, int64_t count) const {
    launch_mish(x, y, count, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T>
  void mish_backward(const T* grad, const T* x, T* grad_x, int64_t count) const {
    launch_mish_backward(grad, x, grad_x, count, stream_);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CUDA, library) {
  detector::register_mish<detector::Gpu>(library);
}

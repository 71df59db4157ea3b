// Mish on a GPU, as operators of torch: float32, float64, and bfloat16 and float16 with float32 inside.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include "layout.h"
#include "mish_kernels.cuh"

namespace detector {
namespace {

// The device of a tensor, current for as long as this lives, and torch's stream on it.
//
// The CUDA runtime is linked in statically, so that one library serves every torch of any CUDA; it
// has its own idea of the current device, which is told as well.
class Place {
 public:
  explicit Place(const Tensor& x) : guard_(x.get_device_index()) {
    STD_CUDA_CHECK(cudaSetDevice(x.get_device_index()));
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

// A new tensor with the shape, the strides, the dtype and the device of x, from torch's allocator.
Tensor empty_same(const Tensor& x) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      x.dim(), x.sizes().data(), x.strides().data(), dtype, aoti_torch_device_type_cuda(),
      x.get_device_index(), &handle));
  return Tensor(handle);
}

template <typename T>
void mish_into(const Tensor& x, const Tensor& y, const Place& place) {
  launch_mish(static_cast<const T*>(x.const_data_ptr()), static_cast<T*>(y.mutable_data_ptr()),
              x.numel(), place.stream());
}

template <typename T>
void mish_backward_into(const Tensor& grad, const Tensor& x, const Tensor& grad_x,
                        const Place& place) {
  launch_mish_backward(static_cast<const T*>(grad.const_data_ptr()),
                       static_cast<const T*>(x.const_data_ptr()),
                       static_cast<T*>(grad_x.mutable_data_ptr()), x.numel(), place.stream());
}

// Calls the function for the dtype of x with the element type as its template argument. An empty grid
// is an error to CUDA, so nothing is launched for an empty tensor.
#define DISPATCH(x, function, ...)                                              \
  do {                                                                          \
    if ((x).numel() == 0) {                                                     \
      break;                                                                    \
    }                                                                           \
    const Place place(x);                                                       \
    switch ((x).scalar_type()) {                                                \
      case ScalarType::Float:                                                   \
        function<float>(__VA_ARGS__, place);                                    \
        break;                                                                  \
      case ScalarType::Double:                                                  \
        function<double>(__VA_ARGS__, place);                                   \
        break;                                                                  \
      case ScalarType::BFloat16:                                                \
        function<BFloat16>(__VA_ARGS__, place);                                 \
        break;                                                                  \
      case ScalarType::Half:                                                    \
        function<Half>(__VA_ARGS__, place);                                     \
        break;                                                                  \
      default:                                                                  \
        STD_TORCH_CHECK(false, "detector_ops: Mish takes floating-point tensors"); \
    }                                                                           \
    STD_CUDA_KERNEL_LAUNCH_CHECK();                                             \
  } while (false)

Tensor mish_forward(const Tensor& x) {
  STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_forward: x must be dense");
  Tensor y = empty_same(x);
  DISPATCH(x, mish_into, x, y);
  return y;
}

Tensor mish_backward(const Tensor& grad, const Tensor& x) {
  STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_backward: x must be dense");
  STD_TORCH_CHECK(same_layout(grad, x) && grad.get_device_index() == x.get_device_index(),
                  "detector_ops::mish_backward: grad must have the shape, strides, dtype and device of x");
  Tensor grad_x = empty_same(x);
  DISPATCH(x, mish_backward_into, grad, x, grad_x);
  return grad_x;
}

void mish_out(const Tensor& x, const Tensor& y) {
  STD_TORCH_CHECK(is_dense(x) && same_layout(y, x) && y.get_device_index() == x.get_device_index(),
                  "detector_ops::mish_out: x must be dense, y of its shape, strides, dtype and device");
  DISPATCH(x, mish_into, x, y);
}

void mish_in_place(const Tensor& x) {
  STD_TORCH_CHECK(is_dense(x), "detector_ops::mish_: x must be dense");
  DISPATCH(x, mish_into, x, x);
}

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CUDA, library) {
  library.impl("mish_forward", TORCH_BOX(&detector::mish_forward));
  library.impl("mish_backward", TORCH_BOX(&detector::mish_backward));
  library.impl("mish_out", TORCH_BOX(&detector::mish_out));
  library.impl("mish_", TORCH_BOX(&detector::mish_in_place));
}

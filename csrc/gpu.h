// Torch's device, stream and memory, shared by the CUDA operators.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "layout.h"

namespace detector {

// The GPU of a tensor, current for the lifetime of this object, and torch's stream on it.
//
// The CUDA runtime is linked in statically, so that one library works with a torch for any CUDA version;
// it has its own current device, which is set as well.
class Gpu {
 public:
  explicit Gpu(const Tensor& x) : beside_(x), guard_(x.get_device_index()) {
    STD_CUDA_CHECK(cudaSetDevice(x.get_device_index()));
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  // Memory from torch, for the lifetime of this object. Kernels may run longer: torch reuses the memory
  // only on the same stream, after them.
  template <typename T>
  T* scratch(int64_t count) const {
    const int64_t floats = (count * sizeof(T) + sizeof(float) - 1) / sizeof(float), stride = 1;
    held_.push_back(empty_beside(beside_, 1, &floats, &stride, aoti_torch_dtype_float32()));
    return static_cast<T*>(held_.back().mutable_data_ptr());
  }

 private:
  const Tensor& beside_;
  mutable std::vector<Tensor> held_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace detector

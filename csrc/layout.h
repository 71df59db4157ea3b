// Checks of a tensor before kernels of any device walk it by one flat index, and new tensors.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace detector {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Whether x fills its memory without gaps, in any order of dimensions: then an elementwise kernel is one
// flat loop. (An overlapping x, as from expand, spans less memory than its elements.)
inline bool is_dense(const Tensor& x) {
  int64_t span = 1;
  for (int64_t d = 0; d < x.dim(); ++d) {
    span += (x.size(d) - 1) * x.stride(d);
  }
  return x.numel() == 0 || span == x.numel();
}

// Whether a and b have the same shape, dtype, device and order in memory. The strides of dimensions of
// size 1 are ignored.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  bool same = a.dim() == b.dim() && a.scalar_type() == b.scalar_type() &&
              a.get_device_index() == b.get_device_index();
  for (int64_t d = 0; same && d < a.dim(); ++d) {
    same = a.size(d) == b.size(d) && (a.size(d) == 1 || a.stride(d) == b.stride(d));
  }
  return same || (a.numel() == 0 && b.numel() == 0);
}

// A new tensor on the device of x, uninitialised. Not torch::stable::empty_like: that looks the operator
// up by its name, 4 us in each call.
inline Tensor empty_beside(const Tensor& x, int64_t dims, const int64_t* sizes,
                           const int64_t* strides, int32_t dtype) {
  int32_t device_type = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(dims, sizes, strides, dtype, device_type,
                                                  x.get_device_index(), &handle));
  return Tensor(handle);
}

// A new tensor with the shape, the strides, the dtype and the device of x.
inline Tensor empty_same(const Tensor& x) {
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  return empty_beside(x, x.dim(), x.sizes().data(), x.strides().data(), dtype);
}

}  // namespace detector

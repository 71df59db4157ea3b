// What kernels of every device ask of a tensor before they walk it by one flat index.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace detector {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Whether x fills its memory without holes, in whatever order of dimensions: then an elementwise
// kernel is one flat loop. (An overlapping x, as from expand, spans less than its elements.)
inline bool is_dense(const Tensor& x) {
  int64_t span = 1;
  for (int64_t d = 0; d < x.dim(); ++d) {
    span += (x.size(d) - 1) * x.stride(d);
  }
  return x.numel() == 0 || span == x.numel();
}

// Whether a and b have one shape and one order in memory. Strides of dimensions of size 1 mean nothing.
inline bool same_layout(const Tensor& a, const Tensor& b) {
  bool same = a.dim() == b.dim() && a.scalar_type() == b.scalar_type();
  for (int64_t d = 0; same && d < a.dim(); ++d) {
    same = a.size(d) == b.size(d) && (a.size(d) == 1 || a.stride(d) == b.stride(d));
  }
  return same || (a.numel() == 0 && b.numel() == 0);
}

}  // namespace detector

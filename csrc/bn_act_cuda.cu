// BatchNorm + activation on a GPU; float32, bfloat16 and float16 maps.
#include "bn_act_kernels.cuh"
#include "bn_stats_kernels.cuh"
#include "bn_act_operators.h"
#include "gpu.h"

namespace detector {
namespace {

// Rows of a channel are counted in 32 bits, since 64-bit divisions are expensive.
void check_count(const Maps& maps) {
  STD_TORCH_CHECK(maps.count_in_channel() < (int64_t{1} << 31) && maps.channels < (1 << 30),
                  "detector_ops: BatchNorm on a GPU takes less than 2^31 elements per channel");
}

struct Cuda : Gpu {
  using Gpu::Gpu;

  template <typename T>
  void stats(const T* x, const Maps& maps, float* mean, float* var) const {
    check_count(maps);
    launch_bn_stats(x, maps, mean, var, pairs(), stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T, typename Act>
  void apply(const T* x, T* z, const Maps& maps, const Affine& affine, Act act) const {
    check_count(maps);
    launch_bn_act_apply(x, z, maps, affine, act, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // Does not write to grad_x.
  template <typename T, typename Act>
  void backward_reduce(const T* grad, const T* x, T*, const Maps& maps, const Affine& affine,
                       Act act, Sums<float> sums) const {
    check_count(maps);
    launch_bn_act_reduce(grad, x, maps, affine, act, sums, pairs(), stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  template <typename T, typename Act>
  void backward_apply(const T* grad, const T* x, T* grad_x, const Maps& maps, const Affine& affine,
                      Act act, Sums<const float> sums, float count) const {
    check_count(maps);
    launch_bn_act_backward(grad, x, grad_x, maps, affine, act, sums, count, stream());
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  struct Pairs {
    const Gpu& gpu;
    Pair* operator()(int64_t count) const { return gpu.scratch<Pair>(count); }
  };
  Pairs pairs() const { return {*this}; }
};

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CUDA, library) {
  detector::register_batch_norm<detector::Cuda>(library);
}

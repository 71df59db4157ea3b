// The kernels of csrc/bn_{stats,act}_kernels.cuh as C functions; see test_cuda_kernels_on_cpu.py.
#include <vector>

#include "bn_act_kernels.cuh"
#include "bn_stats_kernels.cuh"

namespace {

using detector::Affine;
using detector::Maps;
using detector::Pair;

// What the kernels of one call pass to each other; NaN until it is written.
class Scratch {
 public:
  Pair* operator()(int64_t count) const {
    const float nan = __builtin_nanf("");
    pairs_.assign(count, Pair{nan, nan});
    return pairs_.data();
  }

 private:
  mutable std::vector<Pair> pairs_;
};

Maps maps_of(int64_t batch, int64_t channels, int64_t plane, int64_t channels_last) {
  return {batch, channels, plane, channels_last != 0};
}

detector::Mish mish(double) { return {}; }
detector::LeakyRelu leaky_relu(double slope) { return {static_cast<float>(slope)}; }
detector::Swish swish(double beta) { return {static_cast<float>(beta)}; }

}  // namespace

// One activation for each element type: compiling all nine pairs takes three times as long.
#define FUNCTIONS(name, T, activation)                                                            \
  extern "C" void bn_stats_##name(const T* x, int64_t batch, int64_t channels, int64_t plane,     \
                                  int64_t last, float* mean, float* var) {                        \
    detector::launch_bn_stats(x, maps_of(batch, channels, plane, last), mean, var, Scratch(),     \
                              nullptr);                                                           \
  }                                                                                               \
  extern "C" void bn_act_apply_##name(const T* x, int64_t batch, int64_t channels, int64_t plane, \
                                      int64_t last, const float* mean, const float* rstd,         \
                                      const float* weight, const float* bias, double parameter,   \
                                      T* z) {                                                     \
    detector::launch_bn_act_apply(x, z, maps_of(batch, channels, plane, last),                    \
                                  Affine{mean, rstd, weight, bias}, activation(parameter), nullptr);\
  }                                                                                               \
  extern "C" void bn_act_reduce_##name(                                                           \
      const T* grad, const T* x, int64_t batch, int64_t channels, int64_t plane, int64_t last,    \
      const float* mean, const float* rstd, const float* weight, const float* bias,               \
      double parameter, float* sum_dy, float* sum_dy_xhat) {                                      \
    detector::launch_bn_act_reduce(grad, x,                                                       \
                                   maps_of(batch, channels, plane, last),                         \
                                   Affine{mean, rstd, weight, bias}, activation(parameter),       \
                                   {sum_dy, sum_dy_xhat}, Scratch(), nullptr);                    \
  }                                                                                               \
  extern "C" void bn_act_backward_##name(                                                         \
      const T* grad, const T* x, int64_t batch, int64_t channels, int64_t plane, int64_t last,    \
      const float* mean, const float* rstd, const float* weight, const float* bias,               \
      double parameter, const float* sum_dy, const float* sum_dy_xhat, double count, T* grad_x) { \
    detector::launch_bn_act_backward(grad, x, grad_x, maps_of(batch, channels, plane, last),      \
                                     Affine{mean, rstd, weight, bias}, activation(parameter),     \
                                     {sum_dy, sum_dy_xhat}, static_cast<float>(count), nullptr);  \
  }

FUNCTIONS(float32, float, mish)
FUNCTIONS(bfloat16, detector::BFloat16, leaky_relu)
FUNCTIONS(float16, detector::Half, swish)

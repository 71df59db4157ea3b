// Mish on the CPU; float32, float64, and bfloat16 and float16 with float32 inside.
#include "cpu.h"
#include "mish_operators.h"

namespace detector {
namespace {

constexpr int64_t kGrain = 16384;  // elements; about 10 us of work, the cost of waking a thread

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

// torch's own threads.
struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <typename T>
  void mish(const T* x, T* y, int64_t count) const {
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      mish_loop(x + begin, y + begin, end - begin);
    });
  }

  template <typename T>
  void mish_backward(const T* grad, const T* x, T* grad_x, int64_t count) const {
    parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
      mish_backward_loop(grad + begin, x + begin, grad_x + begin, end - begin);
    });
  }
};

}  // namespace
}  // namespace detector

STABLE_TORCH_LIBRARY_IMPL(detector_ops, CPU, library) {
  detector::register_mish<detector::Cpu>(library);
}

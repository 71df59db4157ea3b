// Kernels that test the emulator itself: one that is right, and some that are wrong.
#include <cstdint>

#include "cuda_launch.cuh"

namespace {

constexpr int kRows = 4, kColumns = 32, kThreads = kRows * kColumns;  // a block

// sums[by, bx] = the sum of one tile of x[height, width]; by a tree over shared memory.
template <bool kHasBarriers>
__global__ void __launch_bounds__(kThreads)
    sum_tiles(const float* x, float* sums, int64_t height, int64_t width) {
  __shared__ float part[kThreads];
  const int me = threadIdx.y * kColumns + threadIdx.x;
  const int64_t row = blockIdx.y * kRows + threadIdx.y;
  const int64_t column = blockIdx.x * kColumns + threadIdx.x;
  part[me] = row < height && column < width ? x[row * width + column] : 0;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (kHasBarriers) {
      __syncthreads();
    }
    if (me < half) {
      part[me] += part[me + half];
    }
  }
  if (me == 0) {
    sums[blockIdx.y * gridDim.x + blockIdx.x] = part[0];
  }
}

__global__ void one_thread_ends() {
  if (threadIdx.x == 3) {
    return;
  }
  __syncthreads();
}

__global__ void one_thread_waits_elsewhere() {
  if (threadIdx.x == 3) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

// On a GPU it reads whatever an earlier block left there.
__global__ void reads_what_nobody_wrote(float* y) {
  __shared__ float never_written[kThreads];
  y[threadIdx.x] = never_written[threadIdx.x];
}

struct alignas(16) Vector {
  float values[4];
};

__global__ void one_vector(Vector* to) { *to = Vector{}; }

dim3 tiles(int64_t height, int64_t width) {
  return dim3((width + kColumns - 1) / kColumns, (height + kRows - 1) / kRows);
}

}  // namespace

extern "C" {

void sums(const float* x, float* sums, int64_t height, int64_t width) {
  detector::launch(sum_tiles<true>, tiles(height, width), dim3(kColumns, kRows), nullptr, x, sums,
                   height, width);
}

void sums_without_barriers(const float* x, float* sums, int64_t height, int64_t width) {
  detector::launch(sum_tiles<false>, tiles(height, width), dim3(kColumns, kRows), nullptr, x, sums,
                   height, width);
}

void a_thread_ends() { detector::launch(one_thread_ends, 2, kThreads, nullptr); }

void a_thread_waits_elsewhere() {
  detector::launch(one_thread_waits_elsewhere, 2, kThreads, nullptr);
}

void an_empty_grid() { detector::launch(one_thread_ends, 0, kThreads, nullptr); }

void a_misplaced_vector() {
  alignas(16) float x[8];
  detector::launch(one_vector, 1, 1, nullptr, reinterpret_cast<Vector*>(x + 1));
}

void unwritten(float* y) { detector::launch(reads_what_nobody_wrote, 1, kThreads, nullptr, y); }
}

// A CUDA runtime on one CPU thread, for g++: the kernels of csrc/*.cuh run where there is no GPU.
//
// It replaces the toolkit's header of the same name. Indices, shared memory and barriers of a kernel
// behave as on a GPU; its speed, and what only a GPU has (warps, atomics, the device's own arithmetic),
// are not emulated. Blocks run one after another. So do the threads of a block, each up to its next
// __syncthreads(); a fiber keeps its state there.
//
// Undefined behaviour ends the process, with a line on stderr: a barrier that not all threads of a block
// reach, or that they reach at different lines. Shared memory is filled with NaN at the start of each
// block. A result that depends on the order of threads changes under run_backwards(true).
#pragma once

#include <link.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // the only thread_local variables: poison() finds them by it

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

namespace emulator {

constexpr size_t kStackBytes = 64 << 10;

// A context in which threads of a block run, one after another until one has to wait.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  dim3 thread;   // the one that waits here
  int line = 0;  // of its barrier
};

inline bool backwards = false;
inline std::function<void()> kernel;  // with its arguments, for the thread at threadIdx
inline unsigned num_threads = 0, num_started = 0;  // of this block
inline ucontext_t scheduler;  // run_block(), while a fiber runs
inline Fiber* running = nullptr;
inline std::vector<Fiber*> waiting, idle;  // never freed: the next block uses them again

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "CUDA emulator: block (%u, %u, %u) of %u threads: %s\n", blockIdx.x,
               blockIdx.y, blockIdx.z, num_threads, what);
  std::abort();
}

inline uint64_t volume(dim3 shape) { return uint64_t{shape.x} * shape.y * shape.z; }

// The i-th of all indices in a shape, x fastest; counted from the end if `backwards`.
inline dim3 index_at(uint64_t i, dim3 shape) {
  i = backwards ? volume(shape) - 1 - i : i;
  const uint64_t row = i / shape.x;
  return dim3(i % shape.x, row % shape.y, row / shape.y);
}

inline void to_scheduler() { swapcontext(&running->context, &scheduler); }

// The loop of every fiber: while no thread waits, one fiber runs them all, without a switch.
inline void run_threads() {
  for (;;) {
    while (num_started < num_threads) {
      threadIdx = index_at(num_started++, blockDim);
      kernel();
    }
    idle.push_back(running);
    to_scheduler();
  }
}

inline void make_fiber() {
  auto* fiber = new Fiber;
  fiber->stack.reset(new char[kStackBytes]);
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack.get();
  fiber->context.uc_stack.ss_size = kStackBytes;
  makecontext(&fiber->context, run_threads, 0);
  idle.push_back(fiber);
}

inline Fiber* idle_fiber() {
  if (idle.empty()) {
    make_fiber();
  }
  Fiber* fiber = idle.back();
  idle.pop_back();
  return fiber;
}

inline void resume(Fiber* fiber) {
  running = fiber;
  threadIdx = fiber->thread;
  swapcontext(&scheduler, &fiber->context);
}

inline void wait_at(int line) {
  running->thread = threadIdx;
  running->line = line;
  waiting.push_back(running);
  to_scheduler();
}

// Checks that all threads wait at the same barrier.
inline void check_barrier() {
  char what[100];
  const int line = waiting[0]->line;
  if (waiting.size() < num_threads) {
    std::snprintf(what, sizeof what, "%zu wait at the __syncthreads() of line %d, the others ended",
                  waiting.size(), line);
    fail(what);
  }
  for (const Fiber* fiber : waiting) {
    if (fiber->line != line) {
      std::snprintf(what, sizeof what, "some wait at the __syncthreads() of line %d, others at line %d",
                    line, fiber->line);
      fail(what);
    }
  }
}

inline void run_block() {
  num_started = 0;
  while (num_started < num_threads) {
    resume(idle_fiber());
  }
  while (!waiting.empty()) {
    check_barrier();
    for (Fiber* fiber : std::exchange(waiting, {})) {
      resume(fiber);
    }
  }
}

inline thread_local char in_shared_memory;

// Fills this library's shared memory, all that it declares as thread_local, with NaN.
inline void poison() {
  in_shared_memory = 0;  // thread-local memory exists from its first use on
  const auto fill = [](dl_phdr_info* library, size_t, void*) {
    for (int i = 0; i < library->dlpi_phnum; ++i) {
      const auto& part = library->dlpi_phdr[i];
      auto* start = static_cast<char*>(library->dlpi_tls_data);
      if (part.p_type == PT_TLS && start <= &in_shared_memory &&
          &in_shared_memory < start + part.p_memsz) {
        std::memset(start, 0xFF, part.p_memsz);
        return 1;  // no further library
      }
    }
    return 0;
  };
  if (dl_iterate_phdr(fill, nullptr) == 0) {
    fail("cannot locate its shared memory");
  }
}

inline void launch(const cudaLaunchConfig_t& config, std::function<void()> call) {
  kernel = std::move(call);
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  num_threads = static_cast<unsigned>(volume(blockDim));
  if (volume(gridDim) == 0 || gridDim.x >> 31 || gridDim.y >> 16 || gridDim.z >> 16 ||
      num_threads == 0 || num_threads > 1024 || blockDim.z > 64 || config.dynamicSmemBytes > 0) {
    fail("a GPU, or this emulator, has no such grid or block");
  }
  for (uint64_t i = 0; i < volume(gridDim); ++i) {
    blockIdx = index_at(i, gridDim);
    poison();
    run_block();
  }
}

}  // namespace emulator

// Its argument is the line of the call.
inline void __syncthreads(int line = __builtin_LINE()) { emulator::wait_at(line); }

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  [&](Parameters... converted) {
    emulator::launch(*config, [=] { kernel(converted...); });
  }(std::forward<Arguments>(arguments)...);
  return cudaSuccess;
}

// For tests: runs threads and blocks from the last to the first, from the next launch on.
extern "C" __attribute__((used)) inline void run_backwards(bool yes) { emulator::backwards = yes; }

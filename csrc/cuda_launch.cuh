// The launch of a kernel in plain C++, without <<<>>>, which g++ does not parse: g++ can then compile
// the kernels, and the tests run them on a CPU (tests/ops/emulator).
#pragma once

#include <cuda_runtime.h>

namespace detector {

// kernel<<<grid, block, 0, stream>>>(arguments...). An error is left for cudaGetLastError().
template <typename Kernel, typename... Arguments>
void launch(Kernel kernel, dim3 grid, dim3 block, cudaStream_t stream, Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace detector

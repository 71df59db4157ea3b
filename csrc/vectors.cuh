// Vectors of elements that a GPU loads or stores in one instruction, which uses its memory best.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace detector {

// kWidth elements that are loaded or stored by one instruction.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T values[kWidth];
};

template <int kWidth, typename T>
__device__ __forceinline__ Vector<T, kWidth> load_vector(const T* from) {
  return *reinterpret_cast<const Vector<T, kWidth>*>(from);
}

template <int kWidth, typename T>
__device__ __forceinline__ void store_vector(T* to, const Vector<T, kWidth>& vector) {
  *reinterpret_cast<Vector<T, kWidth>*>(to) = vector;
}

// Elements in 16 bytes, the widest vector.
template <typename T>
constexpr int kWide = 16 / sizeof(T);

template <typename... Pointers>
bool aligned(Pointers... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

}  // namespace detector

// The element types of tensors besides float and double, and their conversion to float and back.
//
// On the host a 16-bit number is its bits, converted by plain integer and float operations: these
// vectorise in every clone of a loop, where GCC's own _Float16 and __bf16 stay scalar. On the device the
// GPU's conversions are used.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define HOST_DEVICE __attribute__((always_inline)) inline  // into each clone of SIMD_CLONES
#else
#define HOST_DEVICE inline
#endif

namespace detector {

struct BFloat16 {
  uint16_t bits;  // the upper half of a float
};
struct Half {
  uint16_t bits;  // IEEE 754 binary16
};

HOST_DEVICE float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

HOST_DEVICE uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

HOST_DEVICE float load(float value) { return value; }
HOST_DEVICE double load(double value) { return value; }
HOST_DEVICE float load(BFloat16 value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }
HOST_DEVICE float load(Half value) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(value.bits));
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7FFF) << 13;
  // The exponent now has the bias 15 instead of 127: times 2^112 corrects it, denormals included.
  const uint32_t finite = as_bits(as_float(magnitude) * 0x1p112F);
  const uint32_t wide = magnitude < 0x0F800000 ? finite : magnitude | 0x7F800000;  // inf, NaN
  return as_float(sign | wide);
#endif
}

// Rounded to nearest, ties to even.
HOST_DEVICE void store(float* to, float value) { *to = value; }
HOST_DEVICE void store(double* to, double value) { *to = value; }
HOST_DEVICE void store(BFloat16* to, float value) {
#if defined(__CUDA_ARCH__)
  to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
  const uint32_t wide = as_bits(value);
  const uint32_t to_even = (wide + 0x7FFF + ((wide >> 16) & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value == value ? to_even : 0x7FC0);
#endif
}
HOST_DEVICE void store(Half* to, float value) {
#if defined(__CUDA_ARCH__)
  to->bits = __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t sign = (as_bits(value) >> 16) & 0x8000;
  const uint32_t wide = as_bits(value) & 0x7FFFFFFF;
  // Normal: the exponent gets the bias 15 again; a carry out of the fraction rounds up, to infinity too.
  const uint32_t normal = (wide + 0xC8000FFF + ((wide >> 13) & 1)) >> 13;
  // Denormal: a float just above 1/2 has the spacing of half's denormals, so adding 1/2 rounds.
  const uint32_t denormal = as_bits(as_float(wide) + 0.5F) - 0x3F000000;
  uint32_t half = wide < 0x38800000 ? denormal : normal;
  half = wide < 0x47800000 ? half : 0x7C00;   // from 2^16 on
  half = wide <= 0x7F800000 ? half : 0x7E00;  // NaN
  to->bits = static_cast<uint16_t>(sign | half);
#endif
}

}  // namespace detector

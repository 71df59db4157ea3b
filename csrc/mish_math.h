// Mish and its derivative, once, for the host and for the device.
//
//   mish(x) = x * tanh(softplus(x))        D. Misra, "Mish", 2019, equation 1
//
// With e = exp(x) and n = e * (e + 2), tanh(log(1 + e)) is n / (n + 2): a rational function of ONE
// exponential, exact in real arithmetic, without cancellation for any x. Its derivative is
//
//   mish'(x) = n / (n + 2) + x * 4 * e * (1 + e) / (n + 2)^2
//
// From x = 20 on, tanh(softplus(x)) rounds to 1 in every format, so there the value is x and the
// derivative is exactly 1. NaN -> NaN; +inf -> inf with derivative 1; -inf -> NaN, as torch gives.
#pragma once

#include <cmath>
#include <cstdint>

#include "numbers.h"

namespace detector {

inline constexpr int kIdentityFrom = 20;  // torch's softplus threshold; exp(20)^2 does not overflow

// 2^k as a float; k in [-126, 127].
HOST_DEVICE float power_of_two(int32_t k) { return as_float(static_cast<uint32_t>(k + 127) << 23); }

// exp(x) for x <= 20, relative error below 2^-23; 0 below about -104. x is not NaN.
//
// x = k * log(2) + r with |r| <= log(2) / 2, a polynomial in r (minimax, 5e-9), times 2^k in two
// steps since a denormal result has k below -126. Branch-free, so that it vectorises.
//
// On a GPU, the hardware's 2^t. Rounding x * log2(e) loses up to 2^-20, which would become a relative
// error of 2^t; the fused multiply-add computes the lost part, which corrects the result to first order.
HOST_DEVICE float exp_upto20(float x) {
#if defined(__CUDA_ARCH__)
  constexpr float kLog2EHigh = 1.44269502F;  // log2(e) = high + low
  constexpr float kLog2ELow = 1.92596299e-8F;
  x = fmaxf(x, -105.0F);  // exp is 0 below; -inf would give inf - inf
  const float t = x * kLog2EHigh;
  const float lost = fmaf(x, kLog2ELow, fmaf(x, kLog2EHigh, -t));
  float e;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(t));
  return fmaf(e, lost * 0.693147181F, e);
#else
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLog2High = 355.0F / 512.0F;  // few bits: k * kLog2High is exact
  constexpr float kLog2Low = -2.12194440e-4F;   // log(2) - 355 / 512
  constexpr float kRound = 12582912.0F;         // 1.5 * 2^23: adding it rounds to an integer

  x = x > -105.0F ? x : -105.0F;
  const float k = (x * kLog2E + kRound) - kRound;
  const float r = (x - k * kLog2High) - k * kLog2Low;

  float p = 1.38131448e-3F;
  p = p * r + 8.36941879e-3F;
  p = p * r + 4.16684560e-2F;
  p = p * r + 1.66665152e-1F;
  p = p * r + 4.99999940e-1F;
  p = p * (r * r) + r + 1.0F;

  const auto exponent = static_cast<int32_t>(k);
  const int32_t half = exponent >> 1;
  return p * power_of_two(half) * power_of_two(exponent - half);
#endif
}

HOST_DEVICE double exp_upto20(double x) { return std::exp(x); }

// 1 / x for x in [1, 2^60]. On a GPU one instruction, accurate to 1 ulp; a division takes twenty.
HOST_DEVICE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return 1 / x;
#endif
}

HOST_DEVICE double reciprocal(double x) { return 1 / x; }

HOST_DEVICE float divide(float a, float b) {
#if defined(__CUDA_ARCH__)
  return a * reciprocal(b);
#else
  return a / b;
#endif
}

HOST_DEVICE double divide(double a, double b) { return a / b; }

template <typename T>
HOST_DEVICE T mish(T x) {
  const T limit = kIdentityFrom;
  const T e = exp_upto20(x < limit ? x : limit);  // NaN gives exp(20) here, and NaN below
  const T n = e * (e + 2);
  return x > limit ? x : divide(x * n, n + 2);
}

template <typename T>
HOST_DEVICE T mish_derivative(T x) {
  const T limit = kIdentityFrom;
  const T e = exp_upto20(x < limit ? x : limit);
  const T n = e * (e + 2);
  const T r = reciprocal(n + 2);
  const T slope = n * r + x * (4 * e * (1 + e) * r) * r;
  return x > limit ? T(1) : slope;
}

}  // namespace detector

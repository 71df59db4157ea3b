// The activations that are fused with BatchNorm, for host and device; torch-free.
//
// Each has its value and its slope at y, in float. The other activations of the registry run as separate
// operators after the normalisation.
#pragma once

#include <cstdint>

#include "mish_math.h"

namespace detector {

struct Mish {
  HOST_DEVICE float value(float y) const { return mish(y); }
  HOST_DEVICE float slope(float y) const { return mish_derivative(y); }
};

// Negative slope 1 is the identity, 0 is ReLU.
struct LeakyRelu {
  float negative_slope;
  HOST_DEVICE float value(float y) const { return y > 0 ? y : y * negative_slope; }
  HOST_DEVICE float slope(float y) const { return y > 0 ? 1.0F : negative_slope; }
};

// y * s with s = sigmoid(beta * y) = e / (1 + e), e = exp(beta * y); from beta * y = 20 on s rounds to 1.
struct Swish {
  float beta;
  HOST_DEVICE float value(float y) const {
    const float t = beta * y, e = exp_upto20(t < 20 ? t : 20.0F);
    return t > 20 ? y : divide(y * e, 1 + e);
  }
  HOST_DEVICE float slope(float y) const {  // s + beta * y * s * (1 - s), and 1 - s = 1 / (1 + e)
    const float t = beta * y, e = exp_upto20(t < 20 ? t : 20.0F);
    const float r = reciprocal(1 + e);
    return t > 20 ? 1.0F : e * r * (1 + t * r);
  }
};

// The operators' argument `activation`; detector/ops/activation_codes.py has the same numbers.
enum class Activation : int64_t { kLeakyRelu = 0, kMish = 1, kSwish = 2 };

// Calls function(activation) with the activation of that code; false for an unknown code.
template <typename Function>
bool with_activation(int64_t number, double parameter, const Function& function) {
  switch (static_cast<Activation>(number)) {
    case Activation::kLeakyRelu:
      function(LeakyRelu{static_cast<float>(parameter)});
      return true;
    case Activation::kMish:
      function(Mish{});
      return true;
    case Activation::kSwish:
      function(Swish{static_cast<float>(parameter)});
      return true;
  }
  return false;
}

}  // namespace detector

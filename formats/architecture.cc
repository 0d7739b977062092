#include "formats/architecture.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

/// 1 / theta^(2i/dims). The power is taken in double and rounded once, so that every C library
/// gives the same float.
std::vector<float> unscaled_frequencies(const Rope& rope) {
  const double base = static_cast<float>(rope.theta);
  std::vector<float> frequencies(static_cast<size_t>(rope.dims / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.dims);
    frequencies[i] = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  }
  return frequencies;
}

/// Llama 3.1's bands: short wavelengths stay, long ones are divided by the factor, those between
/// are blended. The order of the float32 operations is transformers' (a scalar divided by a tensor
/// is the tensor's reciprocal times the scalar there).
void scale_llama3(const Rope& rope, std::vector<float>& frequencies) {
  const float factor = static_cast<float>(rope.factor);
  const double original = static_cast<double>(rope.original_context);
  const float low_wavelength = static_cast<float>(original / rope.low_freq_factor);
  const float high_wavelength = static_cast<float>(original / rope.high_freq_factor);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float band = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = (1.0f / frequency) * static_cast<float>(2 * std::numbers::pi);
    if (wavelength > low_wavelength) {
      frequency /= factor;
    } else if (!(wavelength < high_wavelength)) {
      const float smooth = ((1.0f / wavelength) * static_cast<float>(original) - low) / band;
      frequency = (1.0f - smooth) * frequency / factor + smooth * frequency;
    }
  }
}

/// Decimals compare as the float32 that the arithmetic uses, which is also what a GGUF keeps of
/// them.
std::string differs(const char* field, double a, double b) {
  if (static_cast<float>(a) == static_cast<float>(b)) return "";
  return cat(field, ": ", a, " against ", b);
}

template <typename T>
std::string differs(const char* field, const T& a, const T& b) {
  if (a == b) return "";
  return cat(field, ": ", a, " against ", b);
}

}  // namespace

std::vector<float> rope_inverse_frequencies(const Rope& rope) {
  std::vector<float> frequencies = unscaled_frequencies(rope);
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      for (float& frequency : frequencies) frequency /= static_cast<float>(rope.factor);
      break;
    case RopeScaling::kLlama3:
      scale_llama3(rope, frequencies);
      break;
    case RopeScaling::kFactors:
      SLMC_CHECK(rope.factors.size() == frequencies.size(),
                 "one rope factor for each rotated pair");
      for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] /= rope.factors[i];
      break;
  }
  return frequencies;
}

std::vector<float> rope_frequency_factors(const Rope& rope) {
  if (rope.scaling == RopeScaling::kFactors) return rope.factors;
  if (rope.scaling != RopeScaling::kLlama3) return {};
  const std::vector<float> plain = unscaled_frequencies(rope);
  std::vector<float> factors = rope_inverse_frequencies(rope);
  for (size_t i = 0; i < factors.size(); ++i) factors[i] = plain[i] / factors[i];
  return factors;
}

void adopt_rope_factors(Rope& rope, const std::vector<float>& factors, const std::string& where) {
  if (static_cast<int64_t>(factors.size()) != rope.dims / 2) {
    throw_bad_input(cat(where, ": rope_freqs.weight: expected ", rope.dims / 2, " values, found ",
                        factors.size()));
  }
  float largest = 1.0f;
  for (size_t i = 0; i < factors.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0.0f) {
      throw_bad_input(cat(where, ": rope_freqs.weight[", i, "]: expected a positive number, found ",
                          factors[i]));
    }
    largest = std::max(largest, factors[i]);
  }
  const auto agrees = [&factors](const Rope& candidate) {
    const std::vector<float> expected = rope_frequency_factors(candidate);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::abs(expected[i] - factors[i]) > 1e-5f * expected[i]) return false;
    }
    return true;
  };
  if (rope.scaling == RopeScaling::kLlama3) {
    if (!agrees(rope))
      throw_bad_input(cat(where, ": rope_freqs.weight does not agree with the slmc.rope.* keys"));
    return;
  }
  if (rope.scaling != RopeScaling::kNone) {
    throw_unsupported(cat(where, ": rope_freqs.weight together with ",
                          rope_scaling_name(rope.scaling), " rope scaling"));
  }
  Rope published = rope;
  published.scaling = RopeScaling::kLlama3;
  published.factor = largest;
  published.low_freq_factor = 1.0;
  published.high_freq_factor = 4.0;
  published.original_context = 8192;
  if (agrees(published)) {
    rope = published;
    return;
  }
  rope.scaling = RopeScaling::kFactors;
  rope.factors = factors;
}

std::string_view rope_scaling_name(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      return "none";
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kLlama3:
      return "llama3";
    case RopeScaling::kFactors:
      return "factors";
  }
  return "none";
}

std::string architecture_difference(const Architecture& a, const Architecture& b) {
  std::vector<std::string> found = {
      differs("layers", a.layers, b.layers),
      differs("hidden", a.hidden, b.hidden),
      differs("ffn", a.ffn, b.ffn),
      differs("heads", a.heads, b.heads),
      differs("kv_heads", a.kv_heads, b.kv_heads),
      differs("head_dim", a.head_dim, b.head_dim),
      differs("vocab", a.vocab, b.vocab),
      differs("context", a.context, b.context),
      differs("norm", static_cast<int>(a.norm), static_cast<int>(b.norm)),
      differs("norm_eps", a.norm_eps, b.norm_eps),
      differs("activation", static_cast<int>(a.activation), static_cast<int>(b.activation)),
      differs("qkv_bias", a.qkv_bias, b.qkv_bias),
      differs("output_bias", a.output_bias, b.output_bias),
      differs("mlp_bias", a.mlp_bias, b.mlp_bias),
      differs("tied", a.tied, b.tied),
      differs("rope.theta", a.rope.theta, b.rope.theta),
      differs("rope.dims", a.rope.dims, b.rope.dims),
      differs("rope.scaling", rope_scaling_name(a.rope.scaling), rope_scaling_name(b.rope.scaling)),
  };
  if (a.rope.scaling == b.rope.scaling && a.rope.scaling != RopeScaling::kNone) {
    found.push_back(differs("rope.factor", a.rope.factor, b.rope.factor));
    found.push_back(
        differs("rope.low_freq_factor", a.rope.low_freq_factor, b.rope.low_freq_factor));
    found.push_back(
        differs("rope.high_freq_factor", a.rope.high_freq_factor, b.rope.high_freq_factor));
    found.push_back(
        differs("rope.original_context", a.rope.original_context, b.rope.original_context));
    if (a.rope.factors != b.rope.factors) found.push_back("rope.factors: values differ");
  }
  for (const std::string& difference : found) {
    if (!difference.empty()) return difference;
  }
  return "";
}

}  // namespace slmc

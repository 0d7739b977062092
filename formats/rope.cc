#include "formats/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/difference.h"

namespace slmc {
namespace {

/// 1 / theta^(2i/dims). The power is taken in double and rounded once, so that every C library
/// gives the same float.
std::vector<float> powers(const Rope& rope) {
  const double base = static_cast<float>(rope.theta);
  std::vector<float> values(static_cast<size_t>(rope.dims / 2));
  for (size_t i = 0; i < values.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(rope.dims);
    values[i] = static_cast<float>(std::pow(base, static_cast<double>(exponent)));
  }
  return values;
}

std::vector<float> unscaled_frequencies(const Rope& rope) {
  std::vector<float> values = powers(rope);
  for (float& value : values) value = 1.0f / value;
  return values;
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

/// YaRN (Peng et al. 2023, section 3): dimensions that turn often within the original context stay,
/// those that turn rarely are divided by the factor, a linear ramp lies between. transformers
/// divides by factor * power, in that order.
void scale_yarn(const Rope& rope, std::vector<float>& frequencies) {
  const auto dims = static_cast<double>(rope.dims);
  const auto dimension_of = [&](double turns) {
    return dims *
           std::log(static_cast<double>(rope.original_context) / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast), high = dimension_of(rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  const std::vector<float> power = powers(rope);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float kept = 1.0f - ramp;
    const float scaled = 1.0f / (static_cast<float>(rope.factor) * power[i]);
    frequencies[i] = scaled * (1.0f - kept) + frequencies[i] * kept;
  }
}

}  // namespace

double yarn_attention_factor(double factor) {
  return factor <= 1 ? 1.0 : 0.1 * std::log(factor) + 1.0;
}

std::vector<float> rope_inverse_frequencies(const Rope& rope, int64_t length) {
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
    case RopeScaling::kYarn:
      scale_yarn(rope, frequencies);
      break;
    case RopeScaling::kLongrope: {
      const bool beyond = length > rope.original_context;
      const std::vector<float>& factors = beyond ? rope.long_factors : rope.short_factors;
      SLMC_CHECK(factors.size() == frequencies.size(), "one rope factor for each rotated pair");
      const std::vector<float> power = powers(rope);
      for (size_t i = 0; i < frequencies.size(); ++i)
        frequencies[i] = 1.0f / (factors[i] * power[i]);
      break;
    }
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

std::vector<std::pair<std::string, std::vector<float>>> rope_tensors(const Rope& rope) {
  if (rope.scaling == RopeScaling::kLongrope) {
    return {{"rope_factors_long.weight", rope.long_factors},
            {"rope_factors_short.weight", rope.short_factors}};
  }
  std::vector<float> factors = rope_frequency_factors(rope);
  if (factors.empty()) return {};
  return {{"rope_freqs.weight", std::move(factors)}};
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
      throw_bad_input(
          cat(where, ": rope_freqs.weight does not agree with the llama3 scaling of slmc.config"));
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
    case RopeScaling::kYarn:
      return "yarn";
    case RopeScaling::kLongrope:
      return "longrope";
    case RopeScaling::kFactors:
      return "factors";
  }
  return "none";
}

std::string rope_difference(const Rope& a, const Rope& b, const std::string& prefix) {
  Differences found(prefix);
  found.add("dims", a.dims, b.dims);
  if (a.dims == 0) return found.first();
  found.add("theta", a.theta, b.theta);
  found.add("scaling", rope_scaling_name(a.scaling), rope_scaling_name(b.scaling));
  if (!found.first().empty() || a.scaling == RopeScaling::kNone) return found.first();
  const bool llama3 = a.scaling == RopeScaling::kLlama3, yarn = a.scaling == RopeScaling::kYarn,
             longrope = a.scaling == RopeScaling::kLongrope;
  if (!longrope) found.add("factor", a.factor, b.factor);
  if (llama3) {
    found.add("low_freq_factor", a.low_freq_factor, b.low_freq_factor);
    found.add("high_freq_factor", a.high_freq_factor, b.high_freq_factor);
  }
  if (llama3 || yarn || longrope)
    found.add("original_context", a.original_context, b.original_context);
  if (yarn || longrope) found.add("attention_factor", a.attention_factor, b.attention_factor);
  if (yarn) {
    found.add("beta_fast", a.beta_fast, b.beta_fast);
    found.add("beta_slow", a.beta_slow, b.beta_slow);
    found.add("truncate", a.truncate, b.truncate);
  }
  found.add_values("factors", a.factors == b.factors);
  found.add_values("short_factors", a.short_factors == b.short_factors);
  found.add_values("long_factors", a.long_factors == b.long_factors);
  return found.first();
}

}  // namespace slmc

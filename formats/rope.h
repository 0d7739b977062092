// Rotary embedding as data: which dimensions turn, and how fast.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slmc {

/// kFactors: divisors given as data, as a foreign GGUF's rope_freqs tensor has them; no
/// configuration file can say that.
enum class RopeScaling { kNone, kLinear, kLlama3, kYarn, kLongrope, kFactors };

/// Rotary embedding of the first `dims` of each head, half-split: pair (i, i + dims/2), angle =
/// position * inverse_frequency[i].
struct Rope {
  double theta = 10000.0;
  int64_t dims = 0;  ///< Rotated dimensions per head; head_dim unless partial; 0: none.
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;            ///< linear, llama3, yarn
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  int64_t original_context = 0;   ///< llama3, yarn, longrope
  double attention_factor = 1.0;  ///< yarn, longrope: sine and cosine are multiplied by it.
  double beta_fast = 32.0;        ///< yarn: turns over original_context above which nothing scales,
  double beta_slow = 1.0;         ///< and below which all does.
  bool truncate = true;           ///< yarn: the ends of that band are whole dimensions.
  std::vector<float> factors;     ///< kFactors: [dims/2] divisors of the inverse frequencies.
  std::vector<float> short_factors, long_factors;  ///< longrope: the same, by length.
};

/// inverse_frequency[i] for i < dims/2, in float32 exactly as transformers computes them
/// (theta^(-2i/dims) in float32, then scaled). `length`: what the sequence is declared to hold at
/// most, which chooses longrope's factors for the whole of it; 0 for short.
std::vector<float> rope_inverse_frequencies(const Rope& rope, int64_t length = 0);
/// What YaRN's attention_factor is where a configuration does not say: 0.1 ln(factor) + 1.
double yarn_attention_factor(double factor);
/// GGUF's `rope_freqs` divisors, [dims/2], for llama3 scaling (unscaled / scaled inverse frequency)
/// and kFactors. Empty for other kinds.
std::vector<float> rope_frequency_factors(const Rope& rope);
/// The tensors with which a GGUF carries llama3 (and kFactors) and longrope scaling: {name,
/// [dims/2]}.
std::vector<std::pair<std::string, std::vector<float>>> rope_tensors(const Rope& rope);
/// Takes `factors` read from a GGUF's rope_freqs into a rope that has no scaling of its own: as
/// llama3 scaling when they are those of Llama 3.1 or 3.2 (low 1, high 4, original context 8192)
/// within 1e-5, else as kFactors. A rope that already is llama3 must agree with them. Throws
/// Error(kBadInput) naming `where` for a wrong count, values not positive and finite, or a
/// disagreement.
void adopt_rope_factors(Rope& rope, const std::vector<float>& factors, const std::string& where);
/// "none", "linear", "llama3", "yarn", "longrope", "factors".
std::string_view rope_scaling_name(RopeScaling scaling);
/// "" if two compute alike, else the first field that differs with both values, named after
/// `prefix`.
std::string rope_difference(const Rope& a, const Rope& b, const std::string& prefix);

}  // namespace slmc

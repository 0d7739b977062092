// A model's architecture as data. Families (formats/arch/) turn configurations into this; the
// runtime's decoder and LibTorch's decoder read it, independently of each other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slmc {

/// kFactors: divisors given as data, as a foreign GGUF's rope_freqs tensor has them; no
/// configuration file can say that.
enum class RopeScaling { kNone, kLinear, kLlama3, kFactors };

/// Rotary embedding of the first `dims` of each head, half-split: pair (i, i + dims/2), angle =
/// position * inverse_frequency[i].
struct Rope {
  double theta = 10000.0;
  int64_t dims = 0;  ///< Rotated dimensions per head; head_dim unless partial.
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3
  int64_t original_context = 0;   ///< llama3
  std::vector<float> factors;     ///< kFactors: [dims/2] divisors of the inverse frequencies.
};

/// inverse_frequency[i] for i < dims/2, in float32 exactly as transformers computes them
/// (theta^(-2i/dims) in float32, then scaled).
std::vector<float> rope_inverse_frequencies(const Rope& rope);
/// GGUF's `rope_freqs` divisors, [dims/2], for llama3 scaling (unscaled / scaled inverse frequency)
/// and kFactors. Empty for other kinds.
std::vector<float> rope_frequency_factors(const Rope& rope);
/// Takes `factors` read from a GGUF's rope_freqs into a rope that has no scaling of its own: as
/// llama3 scaling when they are those of Llama 3.1 or 3.2 (low 1, high 4, original context 8192)
/// within 1e-5, else as kFactors. A rope that already is llama3 must agree with them. Throws
/// Error(kBadInput) naming `where` for a wrong count, values not positive and finite, or a
/// disagreement.
void adopt_rope_factors(Rope& rope, const std::vector<float>& factors, const std::string& where);
/// "none", "linear", "llama3", "factors".
std::string_view rope_scaling_name(RopeScaling scaling);

enum class NormKind { kRms };
enum class Activation { kSilu };

struct Architecture {
  std::string family;  ///< "llama", "qwen2": the family's name, also GGUF's general.architecture.
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;    ///< Rows of the embedding.
  int64_t context = 0;  ///< max_position_embeddings.
  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;
  bool output_bias = false;  ///< Bias of attn_output.
  bool mlp_bias = false;
  bool tied = false;  ///< The head is token_embd.
  Rope rope;
  int64_t bos = -1, eos = -1,
          pad = -1;  ///< Token ids; -1: none. `eos` is the first when there are several.

  int64_t parameters =
      0;  ///< Elements of all tensors, tied ones once; filled when a model is opened.
};

/// "" if two architectures compute alike (names, ids and parameters aside), else the first field
/// that differs, with both values.
std::string architecture_difference(const Architecture& a, const Architecture& b);

}  // namespace slmc

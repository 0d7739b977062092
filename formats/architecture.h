// A model's architecture as data. Families (formats/arch/) turn configurations into this; the
// runtime's and LibTorch's networks read it, independently of each other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/rope.h"

namespace slmc {

/// kRms: x / rms(x) * weight. kLayer: (x - mean) / deviation * weight + bias.
enum class NormKind { kRms, kLayer };
/// kGelu: x * (1 + erf(x / sqrt 2)) / 2. kGeluTanh: its approximation by tanh ("gelu_new").
enum class Activation { kSilu, kGelu, kGeluTanh, kRelu, kTanh };
/// What a model gives. kLanguage: logits of the next token. kMasked: logits of each token
/// (dense, activation, norm, then the embedding and a bias). kClassifier: logits of classes from
/// the first token (dense, activation, dense). kStates: the pooled final states, an embedding.
enum class Head { kLanguage, kMasked, kClassifier, kStates };
/// A decoder's block is attention with what it adds to the residual stream, then the FFN with what
/// that adds.
enum class Branch { kBoth, kAttention, kFfn };
/// How an encoder's final states become one vector.
enum class Pooling { kMean, kFirst };

struct Architecture {
  std::string family;  ///< "llama", "qwen2": the family's name.
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;    ///< Rows of the embedding.
  int64_t context = 0;  ///< max_position_embeddings; rows of position_embd where there is one.

  NormKind norm = NormKind::kRms;
  double norm_eps = 1e-5;
  double norm_offset = 0.0;   ///< Added to the weights of norms: 1 in Gemma.
  bool qk_norm = false;       ///< RMS norm of each head's query and key before rotation.
  bool branch_norms = false;  ///< Norms of what a branch gives, before it is added (Gemma).
  Activation activation = Activation::kSilu;
  bool gated = true;  ///< down(activation(gate) * up), else down(activation(up)).
  bool qkv_bias = false;
  bool output_bias = false;  ///< Bias of attn_output.
  bool mlp_bias = false;
  bool tied = false;  ///< The head is token_embd.

  double embedding_scale = 1.0;
  double attention_scale = 0.0;  ///< Of query-key products; 0: 1 / sqrt(head_dim).
  double attention_cap = 0.0;    ///< Scores become cap * tanh(score / cap); 0: none.
  double final_cap = 0.0;        ///< The same for the head's logits.
  int64_t window = 0;  ///< Positions that a query of a windowed layer sees, its own included; 0:
                       ///< all.
  std::vector<uint8_t> windowed;  ///< [layers]: which layers `window` holds for; empty: all.
  Rope rope;
  std::optional<Rope> local_rope;  ///< Of the windowed layers, where they have their own.
  bool learned_positions = false;  ///< position_embd is added to the embedding.
  /// [layers][2]: steps of keys and of values, where a checkpoint says that they are kept in 8 bits
  /// with these (compressed-tensors' kv_cache_scheme); empty: it does not.
  std::vector<float> kv_scales;

  // Encoders (BERT): bidirectional, norms after the addition, a norm of the embedding.
  bool encoder = false;
  int64_t token_types = 0;  ///< Rows of token_types; row 0 is added to the embedding.
  Head head = Head::kLanguage;
  Activation head_activation = Activation::kTanh;  ///< Of the classifier's or masked head's dense.
  int64_t classes = 0;                             ///< kClassifier
  Pooling pooling = Pooling::kMean;                ///< kStates

  int64_t bos = -1, eos = -1,
          pad = -1;  ///< Token ids; -1: none. `eos` is the first when there are several.

  int64_t parameters =
      0;  ///< Elements of all tensors, tied ones once; filled when a model is opened.
};

/// The window of one layer; 0: none.
int64_t layer_window(const Architecture& arch, int64_t layer);
/// The rotary embedding of one layer.
const Rope& layer_rope(const Architecture& arch, int64_t layer);
/// The factor of query-key products.
double query_scale(const Architecture& arch);
/// The architecture with these of its layers, in this order.
Architecture keep_layers(const Architecture& arch, const std::vector<int64_t>& layers);
/// "silu", "gelu", "gelu_tanh", "relu", "tanh".
std::string_view activation_name(Activation activation);

/// "" if two architectures compute alike (names, ids and parameters aside), else the first field
/// that differs, with both values.
std::string architecture_difference(const Architecture& a, const Architecture& b);

}  // namespace slmc

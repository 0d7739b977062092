// A model family: how a configuration becomes an Architecture and how tensors are named and laid
// out in each container. One file under formats/arch/ defines `const Family&
// slmc::family_<file>()`; the build finds it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "compress/core/json.h"
#include "formats/architecture.h"
#include "formats/gguf.h"

namespace slmc {

/// How a tensor's rows lie in a GGUF. kRopePairs: llama.cpp's interleaved rotary order, a
/// permutation of the rows within each head (file row h*d + 2i + j = canonical row h*d + j*d/2 +
/// i).
enum class GgufRows { kSame, kRopePairs };

/// Where a tensor lies in a container. Tensors that a container fuses share a name; their rows
/// follow each other in canonical order.
struct FilePlace {
  std::string name;
  bool transposed = false;  ///< Stored as [in, out].
  GgufRows order = GgufRows::kSame;
  int64_t heads = 0;      ///< kRopePairs: heads that the rows divide into.
  float shift = 0.0f;     ///< The file holds the canonical value plus this (f32 vectors).
  int64_t first_row = 0;  ///< Of a fused tensor: where this one's rows begin ...
  int64_t rows = 0;       ///< ... and how many the whole has; 0: not fused.
};

struct TensorSpec {
  std::string name;            ///< Canonical: GGUF's, "blk.3.attn_q.weight".
  std::vector<int64_t> shape;  ///< Canonical, [out, in] or [n].
  FilePlace hf;                ///< "model.layers.3.self_attn.q_proj.weight".
  FilePlace gguf;
};

/// The shape that a container's tensor has, of which `spec` is all or a part.
std::vector<int64_t> stored_shape(const TensorSpec& spec, const FilePlace& place);
/// Gives tensors that share a name in a container their rows, in the order of the list.
void fuse_shared_names(std::vector<TensorSpec>& tensors);

/// A tensor of a checkpoint that the architecture does not have: an old buffer that goes, or
/// another network's weights that travel with a Hugging Face folder (a vision tower).
enum class Extra { kUnknown, kIgnored, kCarried };

struct Family {
  std::string name;                           ///< "llama".
  std::string gguf_architecture{};            ///< GGUF's general.architecture; empty: the name.
  std::vector<std::string> hf_architectures;  ///< "LlamaForCausalLM".
  std::vector<std::string> hf_model_types;    ///< "llama".
  /// config.json -> Architecture. Absent keys take transformers' class default; a key that changes
  /// the arithmetic and is not implemented throws Error(kUnsupported) naming it; nonsense throws
  /// Error(kBadInput).
  Architecture (*from_config)(const Json& config, const std::string& where) = nullptr;
  /// Architecture -> config.json, keeping the keys of `original` that do not describe the
  /// architecture.
  Json (*to_config)(const Architecture& arch, const Json& original) = nullptr;
  /// Reads keys, and from the tensor directory what GGUF says only by presence: biases, a head of
  /// its own, rope_freqs. For files of other programs; slmc's own carry their config.json.
  Architecture (*from_gguf)(const GgufFile& file, const std::string& where) = nullptr;
  /// Sets the `<gguf_architecture>.*` keys. Throws Error(kUnsupported) for what llama.cpp has no
  /// key or kernel for.
  void (*to_gguf)(const Architecture& arch, GgufKeys& keys) = nullptr;
  /// Every tensor that a model of this architecture has, in canonical order (token_embd, blk.0...,
  /// output_norm, output unless tied).
  std::vector<TensorSpec> (*tensors)(const Architecture& arch) = nullptr;

  // What most families do without.
  /// Another spelling of a Hugging Face tensor's name -> the one in `tensors`.
  std::string (*hf_spelling)(const std::string& name) = nullptr;
  /// What to do with a Hugging Face tensor that `tensors` does not have.
  Extra (*hf_extra)(const std::string& name) = nullptr;
  /// {Hugging Face name, canonical name}: copies that a checkpoint may hold besides; they must be
  /// equal.
  std::vector<std::pair<std::string, std::string>> hf_copies = {
      {"lm_head.weight", "token_embd.weight"}};
  /// The factor of query-key products that llama.cpp uses with these keys; null: 1 /
  /// sqrt(head_dim). Another one is folded into the query weights of a GGUF.
  double (*gguf_query_scale)(const Architecture& arch) = nullptr;
  /// config.json of what a GGUF holds of a model; null: all of it.
  Json (*gguf_config)(const Json& config) = nullptr;
  /// What holds for a GGUF of this architecture only within limits, in sentences.
  std::vector<std::string> (*gguf_notes)(const Architecture& arch) = nullptr;
};

/// The factor of query-key products that llama.cpp uses with what a GGUF can say of this
/// architecture; by what is missing the query weights are multiplied.
double implied_query_scale(const Architecture& arch);

/// The build's families, then added ones.
const std::vector<const Family*>& families();
/// Makes a family of another program known; it must outlive all use. Not while other threads open
/// models.
void add_family(const Family& family);
/// Throws Error(kUnsupported) naming the closest known family.
const Family& family_by_name(const std::string& name);
const Family& family_for_config(const Json& config, const std::string& where);
/// The first family that a GGUF's general.architecture means. Throws as family_by_name.
const Family& family_for_gguf(const std::string& architecture, const std::string& where);
/// GGUF's general.architecture of a family.
const std::string& gguf_architecture(const Family& family);

}  // namespace slmc

// A model family: how a configuration becomes an Architecture and how tensors are named and laid
// out in each container. One file under formats/arch/ defines `const Family&
// slmc::family_<file>()`; the build finds it.
#pragma once

#include <string>
#include <vector>

#include "compress/core/json.h"
#include "formats/architecture.h"
#include "formats/gguf.h"

namespace slmc {

/// How a tensor's rows lie in a GGUF. kRopePairs: llama.cpp's interleaved rotary order, a
/// permutation of the rows within each head (file row h*d + 2i + j = canonical row h*d + j*d/2 +
/// i).
enum class GgufRows { kSame, kRopePairs };

struct TensorSpec {
  std::string name;            ///< Canonical: GGUF's, "blk.3.attn_q.weight".
  std::string hf_name;         ///< "model.layers.3.self_attn.q_proj.weight".
  std::vector<int64_t> shape;  ///< Canonical, [out, in] or [n].
  GgufRows gguf_rows = GgufRows::kSame;
  int64_t heads = 0;  ///< For kRopePairs: heads that the rows divide into.
};

struct Family {
  std::string name;                           ///< "llama": also GGUF's general.architecture.
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
  /// its own, rope_freqs.
  Architecture (*from_gguf)(const GgufFile& file, const std::string& where) = nullptr;
  /// Sets the `<name>.*` keys. Throws Error(kUnsupported) for what llama.cpp has no key or kernel
  /// for.
  void (*to_gguf)(const Architecture& arch, GgufKeys& keys) = nullptr;
  /// Every tensor that a model of this architecture has, in canonical order (token_embd, blk.0...,
  /// output_norm, output unless tied).
  std::vector<TensorSpec> (*tensors)(const Architecture& arch) = nullptr;
};

const std::vector<const Family*>& families();
/// Throws Error(kUnsupported) naming the closest known family.
const Family& family_by_name(const std::string& name);
const Family& family_for_config(const Json& config, const std::string& where);

}  // namespace slmc

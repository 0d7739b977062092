// Low-rank adapters (LoRA, Hu et al. 2021): what a matrix W [rows, columns] becomes is
// W + scale * B A, with A [rank, columns] and B [rows, rank]. Here: which matrices have one, their
// files (PEFT's folder, llama.cpp's GGUF), and a model with its adapter merged.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "formats/model.h"

namespace slmc {

/// One adapted matrix, as a Hugging Face folder has it: where that fuses tensors (Phi-3's qkv),
/// they share A and their rows of B follow each other.
struct LoraTarget {
  std::string module;                ///< "model.layers.3.self_attn.q_proj".
  std::vector<std::string> tensors;  ///< Canonical: "blk.3.attn_q.weight".
  std::vector<int64_t> rows;         ///< Of each tensor.
  int64_t columns = 0;
  bool transposed = false;  ///< The folder stores W as [in, out] (PEFT's fan_in_fan_out).

  int64_t all_rows() const;
  /// Names of A and B among an adapter's values: "blk.3.attn_q.weight.lora_a".
  std::string a() const { return tensors.front() + ".lora_a"; }
  std::string b() const { return tensors.front() + ".lora_b"; }
};

struct Lora {
  int64_t rank = 8;
  double alpha = 16;
  double dropout = 0;       ///< Of A's input, in training only.
  bool root_scale = false;  ///< scale = alpha / sqrt(rank) (rsLoRA) in place of alpha / rank.
  std::vector<LoraTarget> targets;
  double scale() const;
};

/// Every matrix of the blocks, or those that `names` mean: a Hugging Face module's last name
/// ("q_proj") or a canonical one ("attn_q"). Throws Error(kUsage) for a name that means none.
std::vector<LoraTarget> lora_targets(const Architecture& arch,
                                     const std::vector<std::string>& names);

/// An adapter with its values: A and B of each target, under LoraTarget's names.
struct LoraAdapter {
  Lora lora;
  std::shared_ptr<const WeightSource> values;
  /// Whether it changes the tensor of this canonical name.
  bool adapts(const std::string& tensor) const;
};

/// Reads PEFT's folder (adapter_config.json, adapter_model.safetensors) or a GGUF of llama.cpp's
/// adapter layout, for a model of architecture `arch`. Throws Error(kBadInput) for tensors that do
/// not fit, Error(kUnsupported) for kinds of adapter that slmc does not know (DoRA, ranks that
/// differ by module, trained biases).
LoraAdapter read_lora(const std::string& path, const Architecture& arch);

/// Writes PEFT's folder, or a GGUF if `path` ends in ".gguf". `base`: the model's path, for the
/// reader's information. `dtype`: f32, f16 or bf16. Written values equal to what was meant are
/// checked by reading back. Throws Error(kUnsupported) where a GGUF fuses tensors otherwise.
void write_lora(const LoraAdapter& adapter, const Architecture& arch, const std::string& path,
                const std::string& base, DType dtype, bool force);

/// A model with its adapter: W + scale * B A, summed in double over ascending rank and rounded to
/// f32 once. `keep_zeros`: weights that are 0 stay 0, so that a pruned model stays pruned.
class MergedWeights : public WeightSource {
 public:
  MergedWeights(std::shared_ptr<const WeightSource> base, LoraAdapter adapter, bool keep_zeros);
  const Architecture& arch() const override { return base_->arch(); }
  bool has(const std::string& name) const override { return base_->has(name); }
  TensorView view(const std::string& name) const override;
  void release(const std::string& name) const override { base_->release(name); }

 private:
  std::shared_ptr<const WeightSource> base_;
  LoraAdapter adapter_;
  bool keep_zeros_;
};

}  // namespace slmc

// What is tuned beside a model's weights, as --adapter names it: LoRA (lora.h), which can be merged
// into them, and what cannot: bottleneck adapters (bottleneck.h) and prompts (prompt_tuning.h).
// Those add tensors of their own to the model's, which both networks read as they read the others.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/json.h"
#include "formats/model.h"

namespace slmc {

enum class AdapterKind { kLora, kBottleneck, kPrompt };
/// By its adapter_config.json; a file is llama.cpp's LoRA. Throws Error(kBadInput) if nothing is
/// there, Error(kUnsupported) for another kind.
AdapterKind adapter_kind(const std::string& path);

/// Bottleneck adapters (Houlsby et al. 2019) behind branches of the blocks whose tensors
/// (blk.N.attn_adapter_down, blk.N.ffn_adapter_down, ...) are there: up(activation(down(x))) is
/// added.
struct Bottleneck {
  int64_t width = 0;  ///< Rows of down; 0: there are none.
  Activation activation = Activation::kRelu;
  bool reads_stream = true;  ///< x is the stream with the branch in it, else the branch alone.
  double dropout = 0;        ///< Of what is added, in training only.
};

/// What the networks must know of an adapter beside its tensors.
struct SideShape {
  Bottleneck bottleneck;
  int64_t prompt_tokens = 0;  ///< Rows of prompt_embd, which go before every sequence.
};

struct SideTensor {
  std::string name, file_name;
  std::vector<int64_t> shape;
};

/// Bottleneck adapters or a prompt.
struct SideAdapter {
  AdapterKind kind = AdapterKind::kBottleneck;
  SideShape shape;
  std::vector<SideTensor> tensors;
  std::shared_ptr<const WeightSource> values;  ///< Null until there are some.
  Json config;                                 ///< adapter_config.json.
  bool has(const std::string& name) const;
};

/// Throws as read_bottleneck and read_prompt.
SideAdapter read_side_adapter(const std::string& path, const Architecture& arch);
/// Writes the folder `path`, whole or not at all, with `base` as the name of its model, of
/// architecture `arch`, and reads it back. `dtype`: f32, f16 or bf16.
void write_side_adapter(const SideAdapter& adapter, const Architecture& arch,
                        const std::string& path, const std::string& base, DType dtype, bool force);

/// A model with what is tuned beside it.
class SideWeights : public WeightSource {
 public:
  SideWeights(std::shared_ptr<const WeightSource> base, SideAdapter adapter)
      : base_(std::move(base)), adapter_(std::move(adapter)) {}
  const Architecture& arch() const override { return base_->arch(); }
  const SideShape& shape() const { return adapter_.shape; }
  bool has(const std::string& name) const override {
    return adapter_.has(name) || base_->has(name);
  }
  TensorView view(const std::string& name) const override {
    return adapter_.has(name) ? adapter_.values->view(name) : base_->view(name);
  }
  void release(const std::string& name) const override {
    if (!adapter_.has(name)) base_->release(name);
  }

 private:
  std::shared_ptr<const WeightSource> base_;
  SideAdapter adapter_;
};

/// That of SideWeights; of other sources empty.
const SideShape& side_shape(const WeightSource& source);

/// The option "adapter" of what runs a model.
void visit_adapter(Fields& fields, std::string& adapter);
/// The weights of `model` with the adapter of any kind in the file or folder `adapter`, unless that
/// is "". Throws as read_lora and read_side_adapter.
std::shared_ptr<const WeightSource> with_adapter(std::shared_ptr<const Model> model,
                                                 const std::string& adapter);
std::string side_note(const SideAdapter& adapter);
/// "rank 8 on 14 matrices", "20 virtual tokens", "width 16 behind 4 branches".
std::string adapter_note(const std::string& path, const Architecture& arch);

/// One tensor of an adapter's file, its bytes as they are written.
struct AdapterPiece {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};
AdapterPiece adapter_piece(const std::string& name, const TensorView& view, DType dtype);
/// Writes the folder `path` with adapter_config.json and, under the name `file`, safetensors.
void write_adapter_folder(const std::string& path, const Json& config, const std::string& file,
                          const std::vector<AdapterPiece>& pieces, DType dtype, bool force);

}  // namespace slmc

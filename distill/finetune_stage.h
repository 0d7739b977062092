// The stage behind `slmc finetune`: a model goes on learning from text or conversations, as a
// whole, in its upper layers, or by low-rank adapters, bottleneck adapters or a prompt beside
// frozen weights, which may be quantized. The training is distill's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "distill/stage.h"
#include "formats/lora.h"

namespace slmc {

/// A distillation whose student, `student`, is the model itself (the option is called `model`).
struct FinetuneOptions : DistillOptions {
  FinetuneOptions() {
    lr = 2e-4;
    weight_decay = 0;
    isolate_documents = true;
  }
  bool full = false;                       ///< Train the weights themselves.
  std::string lora;                        ///< "r=8,alpha=16,dropout=0.1,targets=q_proj+v_proj".
  std::string adapter;                     ///< "reduction=16,kind=pfeiffer,activation=relu".
  int64_t prompt_tokens = 0;               ///< Virtual tokens to tune; 0: none.
  std::string prompt_init = "vocabulary";  ///< Or "random", "text:...".
  std::string init_adapter;                ///< An adapter to go on with.
  std::string train_layers;                ///< "last:N" or "all".
  bool recompute_frozen = false;           ///< The layers below run anew in every epoch.
  bool merge = false;                      ///< Write the model with its adapter in the weights.
  bool dequantize = false;  ///< Write a model of floats where the source is quantized.
};

void visit_options(Fields& fields, FinetuneOptions& options);

/// "r=8,alpha=16,dropout=0.1,targets=q_proj+v_proj,rslora=true": missing keys keep their defaults,
/// alpha being twice r. `first_layer`: layers before it get no adapter. Throws Error(kUsage) naming
/// the nearest key.
Lora parse_lora(const std::string& text, const Architecture& arch, int64_t first_layer);
/// The layer whose matrices it adapts.
int64_t layer_of(const LoraTarget& target);
/// A is uniform within 1 / sqrt(columns) (Kaiming with a = sqrt 5, as PEFT has it), each from its
/// own stream of `seed` and its name; B is 0.
std::shared_ptr<const WeightSource> initial_lora(const Lora& lora, const Architecture& arch,
                                                 uint64_t seed);
/// The first of the layers that "last:N" means; 0 for "all" or "". Throws Error(kUsage).
int64_t first_trained_layer(const std::string& text, int64_t layers);

std::unique_ptr<Stage> make_finetune_stage(FinetuneOptions options = {});

}  // namespace slmc

// What a training run makes of its weights: the bytes that it exports, what the runtime says they
// are worth, and the check that LibTorch meant the same function.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "compress/core/stage.h"
#include "distill/stage.h"
#include "distill/training.h"
#include "distill/vocabulary.h"
#include "formats/lora.h"
#include "formats/model_writer.h"

namespace slmc {

struct TensorSpec;

/// The network that tensors of a training layout, `trained`, give.
using Assemble = std::function<std::shared_ptr<const WeightSource>(const WeightSource& trained)>;

/// Tensors of `upper`, and those of `base` where that has none, under the architecture of `upper`.
std::shared_ptr<const WeightSource> overlaid(std::shared_ptr<const WeightSource> upper,
                                             std::shared_ptr<const WeightSource> base);
/// For a source that outlives what uses it.
std::shared_ptr<const WeightSource> borrowed(const WeightSource& source);
/// `trained` as the values of an adapter; it must outlive that.
LoraAdapter adapter_of(const Lora& lora, const WeightSource& trained);

/// How held-out figures are taken: those of `slmc eval OUT --text --context --max-tokens --against`
/// with these options.
struct HeldOut {
  std::string text;  ///< Empty: none are.
  int64_t tokens = 0, context = 0;
  bool labelled = false;                 ///< Texts with labels: those of `slmc eval OUT --tasks`.
  std::shared_ptr<const Model> teacher;  ///< Null: the perplexity alone.
};

/// A whole model, as a folder or a GGUF, rounded to `dtype` or, if `scheme` is not empty, quantized
/// by it: where it was trained through that rounding, to the values that it was trained with.
struct ModelExport {
  Assemble assemble;
  OutputSpec output;  ///< Its path, config, assets, metadata; tensors are filled in.
  DType dtype = DType::kBF16;
  std::string scheme;
  StoredTypes stored{};         ///< Of a job that was trained so.
  bool learned_scales = false;  ///< With it: the assembled network has their scales.
  HeldOut held_out;
};
TrainingProduct model_product(ModelExport spec, const Context& context);

/// An adapter's files, measured with `base` as `slmc eval --adapter` does.
struct AdapterExport {
  std::function<void(const WeightSource& trained, const std::string& path)> write;
  std::shared_ptr<const Model> base;
  std::string path;
  HeldOut held_out;
};
TrainingProduct adapter_product(AdapterExport spec, const Context& context);

/// Type and bytes of a tensor that is written to `path` as `type`, or as what that file can hold.
void plan_written(const TensorSpec& spec, DType type, const std::string& path, PlanRow& row);

/// Throws Error(kUsage) for an unknown scheme, Error(kUnsupported) for one without a GGUF to put it
/// in.
void check_scheme(const std::string& path, const std::string& scheme);

/// The largest difference between the runtime's and LibTorch's logits for 32 tokens, which must be
/// as small as rounding allows.
double verify_network(const WeightSource& network, const std::string& where, Context& context);
/// "perplexity 12.3, teacher's 11.0, KLD 0.2, ..." of a report's "training", or that nothing was
/// measured.
std::string cost_line(const Json& training, const std::string& text);

/// Fills report["inputs"], ["training"], ["evaluation"] and ["summary"] from what the trainer
/// returned.
void describe_training(const Report& training, const TrainingJob& job,
                       const DistillOptions& options, Report& report);

}  // namespace slmc

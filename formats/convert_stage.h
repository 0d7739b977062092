// The stage behind `slmc convert`: a checkpoint into another container or another float type,
// nothing else changed.
#pragma once

#include <memory>
#include <string>

#include "compress/core/stage.h"

namespace slmc {

struct ConvertOptions {
  std::string model;      ///< A Hugging Face folder or a GGUF file.
  std::string output;     ///< Ending in .gguf: a GGUF; else a folder.
  std::string adapter{};  ///< LoRA: PEFT's folder or llama.cpp's GGUF, merged into the weights.
  std::string dtype = "keep";  ///< keep, f32, f16, bf16. A GGUF's vectors are f32 always.
};

class ConvertStage : public Stage {
 public:
  ConvertStage() = default;
  explicit ConvertStage(ConvertOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "convert"; }
  std::string_view summary() const override {
    return "Convert a checkpoint to GGUF or to a Hugging Face folder";
  }
  void visit(Fields& fields) override;
  /// `inputs` may give "model" and "output".
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;

 private:
  ConvertOptions options_;
};

std::unique_ptr<Stage> make_convert_stage();

}  // namespace slmc

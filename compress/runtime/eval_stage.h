// `slmc eval` and the recipe step `eval`: measures a model on text, against a teacher, and on
// tasks. Writes no model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"

namespace slmc {

struct EvalOptions {
  std::string model{};
  std::string against{};
  std::string adapter{};  ///< LoRA: PEFT's folder or llama.cpp's GGUF, merged in memory.
  std::string text{};
  std::vector<std::string> tasks{};
  int64_t context = 0;
  std::string protocol = "window";
  std::string activations{};  ///< "": f32, and the figures on text repeated with q8.
  std::string kv_type{};      ///< "": by the activations.
  int64_t max_tokens = 0;
  int64_t limit = 0;
};

/// The report has the keys of evaluate_text at its top, "tasks" as evaluate_tasks gives it,
/// "bits_per_weight", "size_bytes" and "parameters" in any case, and "summary", the table for
/// people.
class EvalStage : public Stage {
 public:
  EvalStage() = default;
  explicit EvalStage(EvalOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "eval"; }
  std::string_view summary() const override {
    return "Measure a model: perplexity, divergence from a teacher, tasks";
  }
  void visit(Fields& fields) override;
  /// Sources "model" and "against" replace the options of that name.
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;

 private:
  EvalOptions options_;
};

std::unique_ptr<Stage> make_eval_stage();

/// The figures of a report or of evaluate_text as a table: each with its interval, protocol and
/// mode.
std::string evaluation_table(const Json& report);

}  // namespace slmc

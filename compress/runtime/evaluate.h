// What a model is worth on text: perplexity, divergence from a teacher, tasks. Protocols are those of docs/evaluation.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/decoder.h"
#include "formats/model.h"

namespace slmc {

struct EvaluationOptions {
  std::string protocol = "window";       ///< "window" or "llama.cpp".
  int64_t context = 0;                   ///< 0: the lesser of 2048 and the model's.
  int64_t max_tokens = 0;                ///< 0: all of the text.
  Activations activations = Activations::kF32;
};

/// JSON with the keys that other programs rely on (tokens, context, protocol, activations, perplexity, perplexity_se, bits_per_weight,
/// size_bytes, and with `against`: perplexity, kld_mean, kld_se, kld_median, kld_p99, kld_max, top1_agreement).
Json evaluate_text(const Model& model, const Model* against, const std::string& text_file, const EvaluationOptions& options, Context& context);
/// The same with weights from memory; `size_bytes` and `bits_per_weight` are left out.
Json evaluate_weights(const WeightSource& weights, const WeightSource* against, const std::vector<int32_t>& ids, const EvaluationOptions& options, Context& context);

/// Multiple choice ({"query","choices","gold"}), exact match ({"prompt","answer"}), classification ({"text","label"}); an optional "group".
/// Accuracy with 95% Wilson intervals, in all and by group.
Json evaluate_tasks(const Model& model, const std::vector<std::string>& files, Activations activations, int64_t limit, Context& context);

/// 32 tokens through the runtime: throws Error(kBug) if any logit is not finite. Part of "written = meant".
void smoke_test(const Model& model);

}  // namespace slmc

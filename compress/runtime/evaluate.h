// What a model is worth: perplexity on text, divergence from a teacher, tasks. Protocols are those
// of docs/evaluation.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/decoder.h"
#include "formats/model.h"

namespace slmc {

/// Tokens that evaluate_text takes of a text, at most `max_tokens` (0: all). Throws
/// Error(kBadInput) for fewer than 2.
int64_t text_tokens(const Tokenizer& tokenizer, const Assets& assets, const std::string& text_file,
                    int64_t max_tokens);
/// Tokens of a window that nobody chose: the lesser of 2048 and what the model was made for.
int64_t default_window(const Architecture& arch);

struct EvaluationOptions {
  std::string protocol = "window";  ///< "window" or "llama.cpp".
  int64_t context = 0;              ///< 0: the lesser of 2048, the models' and the text's length.
  int64_t max_tokens = 0;           ///< Only the first of the text; 0: all.
  Activations activations = Activations::kF32;
  KvType kv = KvType::kAuto;              ///< Of the model; a teacher's are f32.
  const WeightSource* weights = nullptr;  ///< Of evaluate_text: in place of the model's own, as
                                          ///< with an adapter merged into them.
  bool also_q8 = false;  ///< Repeat the figures with int8 activations under "q8", in the same pass
                         ///< over the teacher.
};

/// JSON with the keys that other programs rely on (tokens, context, protocol, activations,
/// perplexity, perplexity_se, bits_per_weight, size_bytes, and under `against`: perplexity,
/// kld_mean, kld_se, kld_median, kld_p99, kld_max, top1_agreement); see summarize_scores. The
/// teacher always runs with f32 activations. Decoders run block by block (score_streamed). Throws
/// Error(kBadInput) if the two vocabularies differ.
Json evaluate_text(const Model& model, const Model* against, const std::string& text_file,
                   const EvaluationOptions& options, Context& context);
/// The same with weights from memory and ids ready; `size_bytes` and `bits_per_weight` are left
/// out, all rows count as vocabulary.
Json evaluate_weights(const WeightSource& weights, const WeightSource* against,
                      const std::vector<int32_t>& ids, const EvaluationOptions& options,
                      Context& context);
/// The same with decoders that are there already (`options.activations` and `also_q8` are not
/// looked at).
Json evaluate_decoders(const Decoder& decoder, const Decoder* against,
                       const std::vector<int32_t>& ids, const EvaluationOptions& options,
                       Context& context);

/// Multiple choice ({"query","choices","gold"}), exact match ({"prompt","answer"}), classification
/// ({"text","label"}), field extraction
/// ({"prompt","fields","label"}); an optional "group". One object a file, keyed by the file's name
/// without folder and ending: "kind", "n", "accuracy" with its 95% interval, for fields also "f1"
/// with its interval, "precision" and "recall", and "groups" (docs/evaluation.md). `limit`: only
/// the first examples of each file; 0: all. Throws Error(kBadInput) naming file and line.
Json evaluate_tasks(const Model& model, const WeightSource& weights,
                    const std::vector<std::string>& files, Activations activations, int64_t limit,
                    Context& context, KvType kv = KvType::kAuto);

}  // namespace slmc

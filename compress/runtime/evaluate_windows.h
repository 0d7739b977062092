// The two perplexity protocols as windows over a stream of ids, and the engine that runs teacher
// and students over them together, so that no file of logits is needed. See docs/evaluation.md.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/decoder.h"

namespace slmc {

/// How text is cut into windows and what is scored in each.
struct WindowProtocol {
  std::string name = "window";
  int64_t context = 512;  ///< Tokens a window; the remainder of the text is dropped.
  int64_t first_scored =
      1;  ///< Index in the window of the first scored token; all after it are scored.
  int32_t first_token = -1;  ///< Replaces each window's first token; -1: nothing is replaced.

  int64_t windows(int64_t tokens) const { return tokens / context; }
  int64_t scored_per_window() const { return context - first_scored; }
  /// Those of one window, as models are given them.
  std::vector<int32_t> tokens(const std::vector<int32_t>& ids, int64_t window) const;
};

/// `name`: "window" scores all but the first token; "llama.cpp" scores tokens n/2+1 to n-1 and puts
/// `bos` first where `adds_bos`. Throws Error(kUsage) for another name or a context below 2 (4 for
/// llama.cpp).
WindowProtocol make_protocol(const std::string& name, int64_t context, int32_t bos, bool adds_bos);

/// What was measured at every scored token, in order of the text. Vectors are [scored].
struct ModelScores {
  std::vector<double> nll;        ///< Nats.
  std::vector<double> kld;        ///< Nats; empty without a teacher.
  std::vector<uint8_t> same_top;  ///< Empty without a teacher.
};
struct WindowScores {
  int64_t windows = 0;
  int64_t scored = 0;
  std::vector<double> teacher_nll;  ///< Empty without a teacher.
  std::vector<ModelScores> models;  ///< One a student.
};

/// Runs every model over `ids`. `vocab`: ids below it are real; KLD and agreement look at those
/// alone. Windows run in parallel where their memory is small, else one by one with the decoder's
/// own threads: the figures are the same. Throws Error(kBadInput) if a logit is not finite,
/// Error(kUsage) if there is no whole window.
WindowScores score_windows(const std::vector<const Decoder*>& models, const Decoder* teacher,
                           const std::vector<int32_t>& ids, int64_t vocab,
                           const WindowProtocol& protocol, Context& context);

/// A model by its weights, and how it is run.
struct StreamedModel {
  const WeightSource* weights = nullptr;
  Activations mode = Activations::kF32;
  KvType kv = KvType::kAuto;
};
/// Of hidden states that are on their way through the blocks together.
inline constexpr uint64_t kStateBytes = uint64_t{128} << 20;
/// Of so many that are on their way, those that are worked on at the same time.
int64_t windows_in_flight(int64_t windows);
/// The same figures, to the bit, with one block of one model resident at a time, and all heads: the
/// windows' hidden states, at most `state_bytes` of them (but those of one window), go from block
/// to block. Not for models with a tuned prompt.
WindowScores score_streamed(const std::vector<StreamedModel>& models, const WeightSource* teacher,
                            const std::vector<int32_t>& ids, int64_t vocab,
                            const WindowProtocol& protocol, Context& context,
                            uint64_t state_bytes = kStateBytes);

/// What both need: room for the scores, of `models` students. Throws as score_windows.
WindowScores empty_scores(size_t models, bool teacher, int64_t tokens,
                          const WindowProtocol& protocol);
/// Logits of some positions, [positions][width].
struct LogitRows {
  const float* values = nullptr;
  int64_t width = 0;
};
/// Positions whose logits are held at a time.
int64_t positions_at_once(int64_t widest);
/// Scores positions that `targets` follow, and puts them to [out, out + targets) of `scores`.
void score_positions(const std::vector<LogitRows>& models, const std::optional<LogitRows>& teacher,
                     std::span<const int32_t> targets, int64_t vocab, int64_t out,
                     WindowScores& scores);
/// Throws Error(kBadInput) if a score is not finite.
void check_scores(const WindowScores& scores, const WindowProtocol& protocol);

/// "perplexity, perplexity_se, nll_mean" and, with a teacher, under "against": "perplexity,
/// perplexity_se, kld_mean, kld_se, kld_median, kld_p99, kld_max, top1_agreement" and its interval.
/// `document` [scored] (may be empty): ascending numbers of the documents that the tokens belong
/// to; with two or more, "documents, perplexity_se_documents, kld_se_documents" are given too.
Json summarize_scores(const WindowScores& scores, size_t model,
                      const std::vector<int32_t>& document);

}  // namespace slmc

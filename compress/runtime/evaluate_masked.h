// What a masked language model makes of text: windows as for decoders, of which some tokens are
// masked and guessed. See docs/evaluation.md.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/runtime/encoder.h"
#include "compress/runtime/evaluate_windows.h"
#include "formats/masking.h"

namespace slmc {

struct MaskedScores {
  WindowScores scores;
  std::vector<int64_t> positions;  ///< Of each scored token, in the text.
};

/// Runs every model over `ids` in windows of `length`, window w masked by stream w of `masking`,
/// each of its documents (`document` [ids]: ascending numbers) by itself, and scores the tokens
/// that were to be guessed. `vocab`: ids below it are real; KLD and agreement look at those alone.
/// Throws Error(kBadInput) if a logit is not finite, Error(kUsage) if there is no whole window or
/// nothing to guess.
MaskedScores score_masked(const std::vector<const Encoder*>& models, const Encoder* teacher,
                          const std::vector<int32_t>& ids, const std::vector<int32_t>& document,
                          int64_t vocab, int64_t length, const Masking& masking, Context& context);

}  // namespace slmc

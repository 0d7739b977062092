// Choosing the next token, and the generation loop.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/random.h"
#include "compress/runtime/decoder.h"

namespace slmc {

struct SamplingOptions {
  double temperature = 0.0;  ///< 0: greedy (lowest id among equals).
  int64_t top_k = 0;         ///< 0: all.
  double top_p = 1.0;
  double min_p = 0.0;
  double repeat_penalty = 1.0;
  int64_t vocab = 0;  ///< Ids from here on are never chosen; 0: all may be.
};

/// `logits` [vocab]; `history` the ids so far.
int32_t sample_token(std::span<const float> logits, std::span<const int32_t> history,
                     const SamplingOptions& options, Random& random);

struct GenerationResult {
  std::vector<int32_t> ids;  ///< Without the prompt.
  bool stopped = false;      ///< A stop token came (not included).
  int32_t stop = -1;         ///< That token.
  double prefill_seconds = 0, decode_seconds = 0;
};
/// Runs the prompt, then up to `count` tokens; `on_token` returns false to stop.
GenerationResult generate(const Decoder& decoder, std::span<const int32_t> prompt, int64_t count,
                          std::span<const int32_t> stops, const SamplingOptions& options,
                          uint64_t seed, const std::function<bool(int32_t)>& on_token);

}  // namespace slmc

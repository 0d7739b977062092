#include "compress/runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/not_finite.h"

namespace slmc {
namespace {

struct Candidate {
  int32_t id;
  double logit;
  double weight = 0;  // Unnormalised probability.
};

void check(const SamplingOptions& options) {
  if (!(options.temperature >= 0))
    throw_usage(cat("temperature: expected at least 0, found ", options.temperature));
  if (!(options.top_p > 0 && options.top_p <= 1))
    throw_usage(cat("top-p: expected above 0 and at most 1, found ", options.top_p));
  if (!(options.min_p >= 0 && options.min_p <= 1))
    throw_usage(cat("min-p: expected 0 to 1, found ", options.min_p));
  if (!(options.repeat_penalty > 0))
    throw_usage(cat("repeat-penalty: expected above 0, found ", options.repeat_penalty));
  if (options.top_k < 0) throw_usage(cat("top-k: expected at least 0, found ", options.top_k));
}

/// Every id of the history once: positive logits are divided by the penalty, negative ones
/// multiplied (Keskar et al. 2019, section 4.1).
std::vector<float> penalised(std::span<const float> logits, std::span<const int32_t> history,
                             double penalty) {
  std::vector<float> result(logits.begin(), logits.end());
  if (penalty == 1.0) return result;
  for (const int32_t id : history) {
    const auto at = static_cast<size_t>(id);
    if (at >= logits.size()) continue;
    const float value = logits[at];
    result[at] = static_cast<float>(value > 0 ? value / penalty : value * penalty);
  }
  return result;
}

int32_t greedy(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

}  // namespace

int32_t sample_token(std::span<const float> logits, std::span<const int32_t> history,
                     const SamplingOptions& options, Random& random) {
  check(options);
  if (options.vocab > 0)
    logits = logits.first(std::min(logits.size(), static_cast<size_t>(options.vocab)));
  SLMC_CHECK(!logits.empty(), "sampling needs logits");
  if (!std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); }))
    throw_not_finite("the model gives logits that are not finite");
  const std::vector<float> values = penalised(logits, history, options.repeat_penalty);
  if (options.temperature == 0) return greedy(values);

  std::vector<Candidate> candidates(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    candidates[i] = {static_cast<int32_t>(i), static_cast<double>(values[i]), 0};
  // Ties go by id, so the choice does not depend on the sorting algorithm.
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  });
  if (options.top_k > 0)
    candidates.resize(std::min(candidates.size(), static_cast<size_t>(options.top_k)));
  const double top = candidates.front().logit;
  double total = 0;
  for (Candidate& candidate : candidates) {
    candidate.weight = std::exp((candidate.logit - top) / options.temperature);
    total += candidate.weight;
  }
  // Weights descend, and the first is 1: min-p is a bound on the weight itself, top-p on the
  // running sum.
  double kept = 0;
  size_t count = 0;
  while (count < candidates.size() && candidates[count].weight >= options.min_p &&
         (count == 0 || kept < options.top_p * total)) {
    kept += candidates[count++].weight;
  }
  double left = random.uniform() * kept;
  for (size_t i = 0; i < count; ++i) {
    left -= candidates[i].weight;
    if (left < 0) return candidates[i].id;
  }
  return candidates[count - 1].id;
}

GenerationResult generate(const Decoder& decoder, std::span<const int32_t> prompt, int64_t count,
                          std::span<const int32_t> stops, const SamplingOptions& options,
                          uint64_t seed, const std::function<bool(int32_t)>& on_token) {
  check(options);
  if (prompt.empty()) throw_usage("prompt: expected at least one token, found none");
  GenerationResult result;
  if (count <= 0) return result;
  Random random(seed);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  std::vector<float> logits(static_cast<size_t>(decoder.arch().vocab));
  const auto cache = decoder.new_cache(static_cast<int64_t>(prompt.size()) + count);

  double mark = now_seconds();
  decoder.forward(*cache, prompt, logits.data(), true);
  result.prefill_seconds = now_seconds() - mark;
  mark = now_seconds();
  while (true) {
    const int32_t id = sample_token(logits, history, options, random);
    if (std::find(stops.begin(), stops.end(), id) != stops.end()) {
      result.stopped = true;
      result.stop = id;
      break;
    }
    result.ids.push_back(id);
    history.push_back(id);
    if (!on_token(id) || static_cast<int64_t>(result.ids.size()) == count) break;
    decoder.forward(*cache, {&id, 1}, logits.data(), true);
  }
  result.decode_seconds = now_seconds() - mark;
  return result;
}

}  // namespace slmc

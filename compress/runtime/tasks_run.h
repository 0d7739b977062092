// Runs a model over the examples of a task. Sequences are independent and run in parallel, one KV
// cache each.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/encoder.h"
#include "compress/runtime/tasks.h"
#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

/// Ids that end an answer: every end-of-text id that the tokenizer, the configuration and the
/// generation configuration name.
std::vector<int32_t> stop_ids(const Model& model);

/// Log-likelihood (nats) of `continuations` after a prompt; what they share is run once.
struct ScoredSequence {
  std::vector<int32_t> ids;
  int64_t start = 1;  ///< First scored token, >= 1.
};
std::vector<double> log_likelihoods(const Decoder& decoder,
                                    const std::vector<ScoredSequence>& sequences);

/// Greedy decoding that is given guesses. `propose(generated)` returns ids that may come next; they
/// are run in one batch with the last token and kept as far as they are what greedy decoding would
/// choose. The runtime's logits do not depend on the batch, so the result is that of decoding one
/// by one. Ends at a stop id (not included), when `done(generated)`, or after `count` tokens.
struct GreedyRequest {
  std::span<const int32_t> prompt;  ///< Not empty.
  int64_t count = 0;
  std::span<const int32_t> stops{};
  std::function<std::vector<int32_t>(const std::vector<int32_t>&)> propose{};
  std::function<bool(const std::vector<int32_t>&)> done{};
};
std::vector<int32_t> greedy_with_guesses(const Decoder& decoder, const GreedyRequest& request);

/// One outcome an example, in order.
std::vector<TaskOutcome> run_task(const Task& task, const Decoder& decoder,
                                  const Tokenizer& tokenizer, const std::vector<int32_t>& stops,
                                  Context& context);

/// The same by `run`, which several threads call.
std::vector<TaskOutcome> run_examples(const Task& task,
                                      const std::function<TaskOutcome(const TaskExample&)>& run,
                                      Context& context);
/// One outcome an example of a classification, by an encoder's head whose classes are `names`.
/// Throws Error(kBadInput) for a label that the model does not have, Error(kUnsupported) for a task
/// of another kind.
std::vector<TaskOutcome> run_classes(const Task& task, const Encoder& encoder,
                                     const Tokenizer& tokenizer,
                                     const std::vector<std::string>& names, Context& context);

/// Whether a generated text is an answer: once the leading white space is skipped, its first lines,
/// as many as `answer` has, are `answer` but for white space at their end.
enum class Verdict { kOpen, kRight, kWrong };
/// kOpen: what follows `text` decides. With `ended` nothing follows, and the verdict is never
/// kOpen.
Verdict judge_answer(std::string_view text, std::string_view answer, bool ended);

}  // namespace slmc

#include "compress/runtime/tasks_run.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_score.h"
#include "compress/runtime/not_finite.h"

namespace slmc {
namespace {

constexpr int64_t kLogitFloats = 2 << 20;  // Logits held at a time by one sequence.

int64_t rows_at_once(const Decoder& decoder) {
  return std::clamp<int64_t>(kLogitFloats / decoder.arch().vocab, 1, 64);
}

void add_ids(const Json& config, std::vector<int32_t>& ids) {
  if (!config.is_object() || !config.contains("eos_token_id")) return;
  const Json& value = config["eos_token_id"];
  const auto add = [&](const Json& id) {
    if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
  };
  if (value.is_array()) {
    for (const Json& id : value) add(id);
  } else {
    add(value);
  }
}

// Everything about one task that its examples share.
class ExampleRunner {
 public:
  ExampleRunner(const Task& task, const Decoder& decoder, const Tokenizer& tokenizer,
                const std::vector<int32_t>& stops)
      : task_(task), decoder_(decoder), tokenizer_(tokenizer), stops_(stops) {
    const int64_t context = decoder.arch().context;
    longest_ = context > 0 ? context : INT32_MAX;
  }

  TaskOutcome run(const TaskExample& example) const {
    switch (task_.kind) {
      case TaskKind::kMultipleChoice:
        return choose(example, example.choices);
      case TaskKind::kClassification:
        return choose(example, task_.labels);
      case TaskKind::kExactMatch:
        return answer(example);
      case TaskKind::kFields:
        return extract(example);
    }
    return {};
  }

 private:
  std::vector<int32_t> encode(const std::string& text) const {
    std::vector<int32_t> ids = tokenizer_.encode(text);
    if (tokenizer_.adds_eos() && !ids.empty()) ids.pop_back();
    return ids;
  }

  // Leaves at most `room` ids and returns how many went. The end of a prompt matters more than its
  // beginning, but what the tokenizer puts first stays first.
  int64_t cut_beginning(std::vector<int32_t>& ids, int64_t room) const {
    const int64_t cut = static_cast<int64_t>(ids.size()) - room;
    if (cut <= 0) return 0;
    const auto first = ids.begin() + (tokenizer_.adds_bos() && room >= 2 ? 1 : 0);
    ids.erase(first, first + cut);
    return cut;
  }

  TaskOutcome choose(const TaskExample& example, const std::vector<std::string>& choices) const {
    TaskOutcome outcome;
    const int64_t start = static_cast<int64_t>(encode(example.prompt).size());
    std::vector<ScoredSequence> sequences;
    for (const std::string& choice : choices) {
      ScoredSequence sequence{.ids = encode(example.prompt + " " + choice), .start = start};
      const int64_t cut = cut_beginning(sequence.ids, longest_);
      sequence.start -= cut;
      outcome.truncated = outcome.truncated || cut > 0;
      // A token may span the border between prompt and choice; at least the last token is the
      // choice's.
      sequence.start = std::clamp<int64_t>(
          sequence.start, 1, std::max<int64_t>(1, static_cast<int64_t>(sequence.ids.size()) - 1));
      sequences.push_back(std::move(sequence));
    }
    const std::vector<double> likelihood = log_likelihoods(decoder_, sequences);
    size_t best = 0, best_normalised = 0;
    const auto per_byte = [&](size_t i) {
      return likelihood[i] / static_cast<double>(choices[i].size());
    };
    for (size_t i = 1; i < choices.size(); ++i) {
      if (likelihood[i] > likelihood[best]) best = i;
      if (per_byte(i) > per_byte(best_normalised)) best_normalised = i;
    }
    outcome.correct = best == static_cast<size_t>(example.gold);
    outcome.gold_class = example.gold;
    outcome.predicted_class = static_cast<int64_t>(best);
    outcome.correct_normalised = best_normalised == static_cast<size_t>(example.gold);
    return outcome;
  }

  // The prompt's ids with room for `count` more; a prompt too long loses its beginning.
  std::vector<int32_t> prompt_for(const TaskExample& example, int64_t& count,
                                  TaskOutcome& outcome) const {
    std::vector<int32_t> ids = encode(example.prompt);
    count = std::min(count, std::max<int64_t>(1, longest_ / 2));
    outcome.truncated = cut_beginning(ids, longest_ - count) > 0;
    return ids;
  }

  std::vector<int32_t> guess(const std::string& prompt, const std::string& text) const {
    const bool spaced = !prompt.empty() && (prompt.back() == '\n' || prompt.back() == ' ');
    return tokenizer_.encode(spaced ? text : " " + text, false);
  }

  std::string text_of(const std::vector<int32_t>& ids) const {
    std::string text;
    for (int32_t id : ids) text += tokenizer_.token_bytes(id);
    return text;
  }

  TaskOutcome answer(const TaskExample& example) const {
    TaskOutcome outcome;
    int64_t count = static_cast<int64_t>(example.answer.size()) + 8;  // A token is at least a byte.
    const std::vector<int32_t> prompt = prompt_for(example, count, outcome);
    GreedyRequest request{.prompt = prompt, .count = count, .stops = stops_};
    request.propose = [&](const std::vector<int32_t>& generated) {
      return generated.empty() ? guess(example.prompt, example.answer) : std::vector<int32_t>();
    };
    request.done = [&](const std::vector<int32_t>& generated) {
      return judge_answer(text_of(generated), example.answer, false) != Verdict::kOpen;
    };
    outcome.correct = judge_answer(text_of(greedy_with_guesses(decoder_, request)), example.answer,
                                   true) == Verdict::kRight;
    return outcome;
  }

  // The gold fields after the last one whose name has been generated, as the model would write
  // them.
  static std::string rest_of_fields(const TaskExample& example, const std::string& text) {
    size_t next = 0;
    for (const auto& [name, value] : parse_fields(text)) {
      for (size_t i = next; i < example.fields.size(); ++i)
        if (example.fields[i].first == name) next = i + 1;
    }
    std::string rest;
    for (size_t i = next; i < example.fields.size(); ++i)
      rest +=
          cat(rest.empty() ? "" : "\n", example.fields[i].first, ": ", example.fields[i].second);
    return rest;
  }

  TaskOutcome extract(const TaskExample& example) const {
    TaskOutcome cut;
    const std::string gold = rest_of_fields(example, "");
    int64_t count = 2 * static_cast<int64_t>(tokenizer_.encode(gold, false).size()) + 32;
    const std::vector<int32_t> prompt = prompt_for(example, count, cut);
    GreedyRequest request{.prompt = prompt, .count = count, .stops = stops_};
    request.propose = [&](const std::vector<int32_t>& generated) {
      if (generated.empty()) return guess(example.prompt, gold);
      const std::string text = text_of(generated);
      if (text.empty() || text.back() != '\n')
        return std::vector<int32_t>();  // Off the gold answer: one by one to the end of the line.
      return tokenizer_.encode(rest_of_fields(example, text), false);
    };
    request.done = [&](const std::vector<int32_t>& generated) {
      const std::string text = text_of(generated);
      const size_t begin = text.find_first_not_of(" \t\r\n");
      return begin != std::string::npos && text.find("\n\n", begin) != std::string::npos;
    };
    const std::vector<int32_t> generated = greedy_with_guesses(decoder_, request);
    TaskOutcome outcome = judge_fields(example, parse_fields(text_of(generated)));
    outcome.truncated = cut.truncated;
    return outcome;
  }

  const Task& task_;
  const Decoder& decoder_;
  const Tokenizer& tokenizer_;
  const std::vector<int32_t>& stops_;
  int64_t longest_;
};

}  // namespace

std::vector<int32_t> stop_ids(const Model& model) {
  std::vector<int32_t> ids = {model.tokenizer().eos(), static_cast<int32_t>(model.arch().eos)};
  add_ids(model.config(), ids);
  if (!model.assets().generation_config_json.empty())
    add_ids(parse_json(model.assets().generation_config_json,
                       cat(model.path(), ": generation_config.json")),
            ids);
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= model.arch().vocab; });
  return ids;
}

std::vector<double> log_likelihoods(const Decoder& decoder,
                                    const std::vector<ScoredSequence>& sequences) {
  const ScoredSequence& first = sequences.front();
  size_t longest = 0, shared = first.ids.size();
  for (const ScoredSequence& sequence : sequences) {
    for (const int32_t id : sequence.ids) {
      if (id < 0 || id >= decoder.arch().vocab)
        throw_bad_input(cat("token id ", id, ": expected one below ", decoder.arch().vocab,
                            "; is this the model's own tokenizer?"));
    }
    longest = std::max(longest, sequence.ids.size());
    const auto end =
        std::mismatch(first.ids.begin(), first.ids.end(), sequence.ids.begin(), sequence.ids.end())
            .first;
    shared = std::min({shared, static_cast<size_t>(end - first.ids.begin()),
                       static_cast<size_t>(sequence.start)});
  }
  if (shared > 0) --shared;  // The last shared token's logits are needed.
  const std::unique_ptr<KvCache> cache = decoder.new_cache(static_cast<int64_t>(longest));
  if (shared > 0) decoder.forward(*cache, std::span(first.ids).first(shared), nullptr, false);

  const int64_t rows = rows_at_once(decoder), vocab = decoder.arch().vocab;
  std::vector<float> logits(static_cast<size_t>(rows * vocab));
  std::vector<double> result;
  for (const ScoredSequence& sequence : sequences) {
    cache->truncate(static_cast<int64_t>(shared));
    int64_t at = static_cast<int64_t>(shared);
    if (sequence.start - 1 > at) {
      decoder.forward(
          *cache,
          std::span(sequence.ids)
              .subspan(static_cast<size_t>(at), static_cast<size_t>(sequence.start - 1 - at)),
          nullptr, false);
      at = sequence.start - 1;
    }
    const int64_t end = static_cast<int64_t>(sequence.ids.size()) - 1;
    double sum = 0;
    for (; at < end; at += rows) {
      const int64_t count = std::min(rows, end - at);
      decoder.forward(
          *cache,
          std::span(sequence.ids).subspan(static_cast<size_t>(at), static_cast<size_t>(count)),
          logits.data(), false);
      for (int64_t i = 0; i < count; ++i)
        sum += log_likelihood(logits.data() + i * vocab, vocab,
                              sequence.ids[static_cast<size_t>(at + i + 1)]);
    }
    if (!std::isfinite(sum)) throw_not_finite("the model gives logits that are not finite");
    result.push_back(sum);
  }
  return result;
}

std::vector<int32_t> greedy_with_guesses(const Decoder& decoder, const GreedyRequest& request) {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size()), vocab = decoder.arch().vocab;
  const std::unique_ptr<KvCache> cache = decoder.new_cache(prompt + request.count);
  if (prompt > 1)
    decoder.forward(*cache, request.prompt.first(static_cast<size_t>(prompt - 1)), nullptr, false);
  std::vector<float> logits;
  std::vector<int32_t> generated, batch;
  while (static_cast<int64_t>(generated.size()) < request.count) {
    batch = request.propose ? request.propose(generated) : std::vector<int32_t>();
    const int64_t left = request.count - static_cast<int64_t>(generated.size()) - 1;
    batch.resize(static_cast<size_t>(
        std::min({static_cast<int64_t>(batch.size()), left, rows_at_once(decoder) - 1})));
    batch.insert(batch.begin(), generated.empty() ? request.prompt.back() : generated.back());
    if (logits.size() < batch.size() * static_cast<size_t>(vocab))
      logits.resize(batch.size() * static_cast<size_t>(vocab));
    decoder.forward(*cache, batch, logits.data(), false);
    for (size_t i = 0; i < batch.size(); ++i) {
      const int32_t next = argmax(logits.data() + static_cast<int64_t>(i) * vocab, vocab);
      if (std::find(request.stops.begin(), request.stops.end(), next) != request.stops.end())
        return generated;
      generated.push_back(next);
      if (request.done && request.done(generated)) return generated;
      if (i + 1 < batch.size() && next != batch[i + 1]) break;
    }
    cache->truncate(prompt + static_cast<int64_t>(generated.size()) - 1);
  }
  return generated;
}

Verdict judge_answer(std::string_view text, std::string_view answer, bool ended) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  text.remove_prefix(begin == std::string_view::npos ? text.size() : begin);
  if (text.size() < answer.size())
    return !ended && answer.starts_with(text) ? Verdict::kOpen : Verdict::kWrong;
  if (!text.starts_with(answer)) return Verdict::kWrong;
  const std::string_view rest = text.substr(answer.size());
  const size_t line = rest.find('\n');
  if (!trimmed(rest.substr(0, line)).empty()) return Verdict::kWrong;
  return line != std::string_view::npos || ended ? Verdict::kRight : Verdict::kOpen;
}

std::vector<TaskOutcome> run_task(const Task& task, const Decoder& decoder,
                                  const Tokenizer& tokenizer, const std::vector<int32_t>& stops,
                                  Context& context) {
  for (const TaskExample& example : task.examples)
    if (!example.pair.empty())
      throw_unsupported(cat(task.file,
                            ": \"text_pair\": pairs of texts are for an encoder with a "
                            "classification head; a decoder is given one text"));
  const ExampleRunner runner(task, decoder, tokenizer, stops);
  return run_examples(
      task, [&](const TaskExample& example) { return runner.run(example); }, context);
}

std::vector<TaskOutcome> run_examples(const Task& task,
                                      const std::function<TaskOutcome(const TaskExample&)>& run,
                                      Context& context) {
  const int64_t count = static_cast<int64_t>(task.examples.size());
  std::vector<TaskOutcome> outcomes(task.examples.size());
  Progress& progress = progress_of(context);
  progress.begin(cat("task ", task.name), static_cast<uint64_t>(count), "examples");
  std::mutex mutex;
  uint64_t done = 0;
  parallel_for(count, [&](int64_t i) {
    context.check_interrupt();
    outcomes[static_cast<size_t>(i)] = run(task.examples[static_cast<size_t>(i)]);
    const std::lock_guard<std::mutex> lock(mutex);
    progress.update(++done);
  });
  progress.end();
  context.check_ram("evaluation");
  return outcomes;
}

}  // namespace slmc

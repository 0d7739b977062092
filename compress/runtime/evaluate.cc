#include "compress/runtime/evaluate.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_masked.h"
#include "compress/runtime/evaluate_vocabulary.h"
#include "compress/runtime/evaluate_windows.h"
#include "compress/runtime/tasks.h"
#include "compress/runtime/tasks_run.h"
#include "formats/adapter.h"
#include "formats/documents.h"
#include "formats/labels.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

constexpr int64_t kDefaultContext = 2048;

int64_t longest_window(const Architecture& arch) {
  return arch.context > 0 ? arch.context : kDefaultContext;
}

// Ids of a file, and the document that each belongs to.
struct TokenizedText {
  std::vector<int32_t> ids, document;
};

TokenizedText tokenize_text(const Tokenizer& tokenizer, const Assets& assets,
                            const std::string& file, int64_t max_tokens) {
  TokenizedText text;
  const size_t limit = max_tokens > 0 ? static_cast<size_t>(max_tokens) : SIZE_MAX;
  if (!file.ends_with(".jsonl")) {  // One document, every byte of it.
    text.ids = tokenizer.encode(read_text(file));
    text.document.assign(text.ids.size(), 0);
  } else {
    int32_t number = 0;
    for (const Document& document : read_documents({file}, ChatTemplate::from_assets(assets))) {
      const std::vector<int32_t> ids = tokenize_document(document, tokenizer, false).ids;
      text.ids.insert(text.ids.end(), ids.begin(), ids.end());
      text.document.resize(text.ids.size(), number++);
      if (text.ids.size() >= limit) break;
    }
  }
  if (text.ids.size() > limit) text.ids.resize(limit), text.document.resize(limit);
  if (text.ids.size() < 2)
    throw_bad_input(cat(file, ": expected text of at least 2 tokens, found ", text.ids.size()));
  return text;
}

int64_t choose_context(const EvaluationOptions& options, const Architecture& arch,
                       const Architecture* against, size_t tokens) {
  int64_t longest = longest_window(arch);
  if (arch.learned_positions && options.weights != nullptr)
    longest -= side_shape(*options.weights).prompt_tokens;
  if (against && against->context > 0) longest = std::min(longest, against->context);
  if (options.context == 0)
    return std::min({kDefaultContext, longest, static_cast<int64_t>(tokens)});
  if (options.context > longest)
    throw_usage(cat("--context ", options.context, " is more than the model was made for, ",
                    longest, "; give at most that"));
  return options.context;
}

Json header(const WindowScores& scores, const WindowProtocol& protocol, Activations mode) {
  return {{"tokens", scores.windows * protocol.context},
          {"scored_tokens", scores.scored},
          {"windows", scores.windows},
          {"context", protocol.context},
          {"protocol", protocol.name},
          {"activations", activations_name(mode)}};
}

// What was measured, and the document of each scored token.
struct ScoredText {
  WindowScores scores;
  std::vector<int32_t> documents;
};

// The models of an evaluation: `Network` is Decoder or Encoder.
template <typename Network>
struct Networks {
  std::vector<std::unique_ptr<Network>> owned;
  std::vector<const Network*> models;
  std::unique_ptr<Network> teacher;
};

std::vector<int32_t> first_ids(const std::vector<int32_t>& ids, int64_t most) {
  const int64_t count = most > 0 ? std::min(most, std::ssize(ids)) : std::ssize(ids);
  return {ids.begin(), ids.begin() + count};
}

WindowProtocol protocol_of_ids(const Architecture& arch, const Architecture* against, size_t tokens,
                               const EvaluationOptions& options) {
  if (against && against->vocab != arch.vocab)
    throw_bad_input(cat("the two models cannot be compared: their vocabularies have ", arch.vocab,
                        " and ", against->vocab, " tokens"));
  return make_protocol(options.protocol, choose_context(options, arch, against, tokens),
                       static_cast<int32_t>(arch.bos), arch.bos >= 0);
}

std::vector<Activations> modes_of(const EvaluationOptions& options) {
  std::vector<Activations> modes = {options.activations};
  if (options.also_q8 && options.activations != Activations::kQ8) modes.push_back(Activations::kQ8);
  return modes;
}

WindowScores score_decoders(const WeightSource& weights, const WeightSource* against,
                            const std::vector<int32_t>& ids, int64_t vocab,
                            const WindowProtocol& protocol, const std::vector<Activations>& modes,
                            KvType kv, Context& context) {
  const auto prompted = [](const WeightSource& source) {
    return side_shape(source).prompt_tokens > 0;
  };
  if (!prompted(weights) && (against == nullptr || !prompted(*against))) {
    std::vector<StreamedModel> models;
    for (const Activations mode : modes) models.push_back({&weights, mode, kv});
    return score_streamed(models, against, ids, vocab, protocol, context);
  }
  Networks<Decoder> networks;
  for (const Activations mode : modes) {
    networks.owned.push_back(Decoder::create(weights, mode, kv));
    networks.models.push_back(networks.owned.back().get());
  }
  if (against != nullptr) networks.teacher = Decoder::create(*against, Activations::kF32);
  context.check_ram("evaluation");
  return score_windows(networks.models, networks.teacher.get(), ids, vocab, protocol, context);
}

ScoredText score_text(const Model& model, const Model* against, const TokenizedText& text,
                      int64_t vocab, const WindowProtocol& protocol,
                      const std::vector<Activations>& modes, const EvaluationOptions& options,
                      Context& context) {
  const WeightSource& weights = options.weights != nullptr ? *options.weights : model;
  ScoredText scored;
  if (model.arch().head == Head::kMasked) {
    Networks<Encoder> networks;
    for (const Activations mode : modes) {
      networks.owned.push_back(Encoder::create(weights, mode));
      networks.models.push_back(networks.owned.back().get());
    }
    if (against != nullptr) networks.teacher = Encoder::create(*against, Activations::kF32);
    context.check_ram("evaluation");
    MaskedScores masked = score_masked(
        networks.models, networks.teacher.get(), text.ids, text.document, vocab, protocol.context,
        masking_of(model.tokenizer(), model.assets(), 0, model.path()), context);
    scored.scores = std::move(masked.scores);
    for (const int64_t position : masked.positions)
      scored.documents.push_back(text.document[static_cast<size_t>(position)]);
    return scored;
  }
  scored.scores =
      score_decoders(weights, against, text.ids, vocab, protocol, modes, options.kv, context);
  scored.documents.reserve(static_cast<size_t>(scored.scores.scored));
  for (int64_t window = 0; window < scored.scores.windows; ++window) {
    const auto begin = text.document.begin() + window * protocol.context;
    scored.documents.insert(scored.documents.end(), begin + protocol.first_scored,
                            begin + protocol.context);
  }
  return scored;
}

WindowProtocol protocol_of(const Model& model, const Model* against, size_t tokens,
                           const EvaluationOptions& options) {
  const bool masked = model.arch().head == Head::kMasked;
  if (against != nullptr && (against->arch().head == Head::kMasked) != masked)
    throw_unsupported(cat(against->path(), " and ", model.path(),
                          " cannot be compared: one guesses masked tokens, the other the next"));
  if (masked && options.protocol != "window")
    throw_usage(cat("--protocol ", options.protocol,
                    " is for decoders; a masked language model guesses masked tokens of windows"));
  const int64_t length = choose_context(options, model.arch(),
                                        against != nullptr ? &against->arch() : nullptr, tokens);
  WindowProtocol protocol = make_protocol(options.protocol, length, model.tokenizer().bos(),
                                          model.tokenizer().adds_bos());
  if (masked) protocol.name = "masked";
  return protocol;
}

}  // namespace

int64_t text_tokens(const Tokenizer& tokenizer, const Assets& assets, const std::string& text_file,
                    int64_t max_tokens) {
  return std::ssize(tokenize_text(tokenizer, assets, text_file, max_tokens).ids);
}

int64_t default_window(const Architecture& arch) {
  return std::min(kDefaultContext, longest_window(arch));
}

Json evaluate_text(const Model& model, const Model* against, const std::string& text_file,
                   const EvaluationOptions& options, Context& context) {
  const int64_t vocab = against ? common_vocabulary(model, *against) : real_vocabulary(model);
  const TokenizedText text =
      tokenize_text(model.tokenizer(), model.assets(), text_file, options.max_tokens);
  const WindowProtocol protocol = protocol_of(model, against, text.ids.size(), options);
  const std::vector<Activations> modes = modes_of(options);
  const auto [scores, documents] =
      score_text(model, against, text, vocab, protocol, modes, options, context);
  uint64_t tensor_bytes = 0;
  for (const TensorInfo& tensor : model.tensors()) tensor_bytes += tensor.bytes;

  Json json = header(scores, protocol, options.activations);
  if (!model.arch().encoder)
    json["kv_type"] = kv_type_name(options.kv, options.activations, model.arch());
  if (documents.front() != documents.back())
    json["documents"] = documents.back() - documents.front() + 1;
  json.update(summarize_scores(scores, 0, documents));
  json["bits_per_weight"] = 8.0 * static_cast<double>(tensor_bytes) /
                            static_cast<double>(std::max<int64_t>(1, model.arch().parameters));
  json["size_bytes"] = model.size_bytes();
  if (against) {
    Json figures = {{"model", against->path()},
                    {"activations", activations_name(Activations::kF32)},
                    {"size_bytes", against->size_bytes()}};
    figures.update(json["against"]);
    json["against"] = std::move(figures);
  }
  if (modes.size() > 1) {
    Json q8 = {{"activations", activations_name(modes[1])}};
    if (!model.arch().encoder) q8["kv_type"] = kv_type_name(options.kv, modes[1], model.arch());
    q8.update(summarize_scores(scores, 1, documents));
    json["q8"] = std::move(q8);
  }
  return json;
}

Json evaluate_decoders(const Decoder& decoder, const Decoder* against,
                       const std::vector<int32_t>& ids, const EvaluationOptions& options,
                       Context& context) {
  const std::vector<int32_t> some = first_ids(ids, options.max_tokens);
  const WindowProtocol protocol =
      protocol_of_ids(decoder.arch(), against ? &against->arch() : nullptr, some.size(), options);
  const WindowScores scores =
      score_windows({&decoder}, against, some, decoder.arch().vocab, protocol, context);
  Json json = header(scores, protocol, decoder.activations());
  json.update(summarize_scores(scores, 0, {}));
  return json;
}

Json evaluate_weights(const WeightSource& weights, const WeightSource* against,
                      const std::vector<int32_t>& ids, const EvaluationOptions& options,
                      Context& context) {
  const std::vector<int32_t> some = first_ids(ids, options.max_tokens);
  const WindowProtocol protocol =
      protocol_of_ids(weights.arch(), against ? &against->arch() : nullptr, some.size(), options);
  const std::vector<Activations> modes = modes_of(options);
  const WindowScores scores = score_decoders(weights, against, some, weights.arch().vocab, protocol,
                                             modes, options.kv, context);
  Json json = header(scores, protocol, options.activations);
  json.update(summarize_scores(scores, 0, {}));
  if (modes.size() > 1) {
    Json q8 = {{"activations", activations_name(modes[1])}};
    q8.update(summarize_scores(scores, 1, {}));
    json["q8"] = std::move(q8);
  }
  return json;
}

Json evaluate_tasks(const Model& model, const WeightSource& weights,
                    const std::vector<std::string>& files, Activations activations, int64_t limit,
                    Context& context, KvType kv) {
  std::vector<Task> tasks;  // All are read before the first is run.
  for (const std::string& file : files) tasks.push_back(read_task(file, limit));
  const bool by_head = model.arch().head == Head::kClassifier;
  const std::unique_ptr<Encoder> encoder =
      by_head ? Encoder::create(weights, activations) : nullptr;
  const std::unique_ptr<Decoder> decoder =
      by_head ? nullptr : Decoder::create(weights, activations, kv);
  const std::vector<int32_t> stops = stop_ids(model);
  const std::vector<std::string> names = class_names(model.config(), model.arch().classes);
  Json json = Json::object();
  for (Task& task : tasks) {
    Json figures = {{"file", task.file}, {"activations", activations_name(activations)}};
    if (!by_head) figures["kv_type"] = kv_type_name(kv, activations, model.arch());
    task.by_head = by_head;
    const std::vector<TaskOutcome> outcomes =
        by_head ? run_classes(task, *encoder, model.tokenizer(), names, context)
                : run_task(task, *decoder, model.tokenizer(), stops, context);
    figures.update(summarize_task(task, outcomes, context.seed));
    json[json.contains(task.name) ? task.file : task.name] = std::move(figures);
  }
  return json;
}

}  // namespace slmc

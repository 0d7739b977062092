#include "compress/runtime/evaluate.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_vocabulary.h"
#include "compress/runtime/evaluate_windows.h"
#include "compress/runtime/tasks.h"
#include "compress/runtime/tasks_run.h"
#include "formats/adapter.h"
#include "formats/documents.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

constexpr int64_t kDefaultContext = 2048;

// Ids of a file, and the document that each belongs to.
struct TokenizedText {
  std::vector<int32_t> ids, document;
};

TokenizedText tokenize_text(const Model& model, const std::string& file, int64_t max_tokens) {
  TokenizedText text;
  const size_t limit = max_tokens > 0 ? static_cast<size_t>(max_tokens) : SIZE_MAX;
  if (!file.ends_with(".jsonl")) {  // One document, every byte of it.
    text.ids = model.tokenizer().encode(read_text(file));
    text.document.assign(text.ids.size(), 0);
  } else {
    int32_t number = 0;
    for (const Document& document :
         read_documents({file}, ChatTemplate::from_assets(model.assets()))) {
      const std::vector<int32_t> ids = tokenize_document(document, model.tokenizer(), false).ids;
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
  int64_t longest = arch.context > 0 ? arch.context : kDefaultContext;
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

// The document of each scored token.
std::vector<int32_t> scored_documents(const TokenizedText& text, const WindowScores& scores,
                                      const WindowProtocol& protocol) {
  std::vector<int32_t> documents;
  documents.reserve(static_cast<size_t>(scores.scored));
  for (int64_t window = 0; window < scores.windows; ++window) {
    const auto begin = text.document.begin() + window * protocol.context;
    documents.insert(documents.end(), begin + protocol.first_scored, begin + protocol.context);
  }
  return documents;
}

}  // namespace

Json evaluate_text(const Model& model, const Model* against, const std::string& text_file,
                   const EvaluationOptions& options, Context& context) {
  const int64_t vocab = against ? common_vocabulary(model, *against) : real_vocabulary(model);
  const TokenizedText text = tokenize_text(model, text_file, options.max_tokens);
  const Tokenizer& tokenizer = model.tokenizer();
  const WeightSource& weights = options.weights != nullptr ? *options.weights : model;
  const WindowProtocol protocol = make_protocol(
      options.protocol,
      choose_context(options, model.arch(), against ? &against->arch() : nullptr, text.ids.size()),
      tokenizer.bos(), tokenizer.adds_bos());

  std::vector<Activations> modes = {options.activations};
  if (options.also_q8 && options.activations != Activations::kQ8) modes.push_back(Activations::kQ8);
  std::vector<std::unique_ptr<Decoder>> decoders;
  std::vector<const Decoder*> students;
  for (Activations mode : modes) decoders.push_back(Decoder::create(weights, mode, options.kv));
  for (const auto& decoder : decoders) students.push_back(decoder.get());
  const std::unique_ptr<Decoder> teacher =
      against ? Decoder::create(*against, Activations::kF32) : nullptr;
  context.check_ram("evaluation");

  const WindowScores scores =
      score_windows(students, teacher.get(), text.ids, vocab, protocol, context);
  const std::vector<int32_t> documents = scored_documents(text, scores, protocol);
  uint64_t tensor_bytes = 0;
  for (const TensorInfo& tensor : model.tensors()) tensor_bytes += tensor.bytes;

  Json json = header(scores, protocol, options.activations);
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
    Json q8 = {{"activations", activations_name(modes[1])},
               {"kv_type", kv_type_name(options.kv, modes[1], model.arch())}};
    q8.update(summarize_scores(scores, 1, documents));
    json["q8"] = std::move(q8);
  }
  return json;
}

Json evaluate_decoders(const Decoder& decoder, const Decoder* against,
                       const std::vector<int32_t>& ids, const EvaluationOptions& options,
                       Context& context) {
  if (options.max_tokens > 0 && static_cast<int64_t>(ids.size()) > options.max_tokens) {
    EvaluationOptions all = options;
    all.max_tokens = 0;
    return evaluate_decoders(decoder, against,
                             std::vector<int32_t>(ids.begin(), ids.begin() + options.max_tokens),
                             all, context);
  }
  const Architecture& arch = decoder.arch();
  const Architecture* other = against ? &against->arch() : nullptr;
  if (other && other->vocab != arch.vocab)
    throw_bad_input(cat("the two models cannot be compared: their vocabularies have ", arch.vocab,
                        " and ", other->vocab, " tokens"));
  const WindowProtocol protocol =
      make_protocol(options.protocol, choose_context(options, arch, other, ids.size()),
                    static_cast<int32_t>(arch.bos), arch.bos >= 0);
  const WindowScores scores =
      score_windows({&decoder}, against, ids, arch.vocab, protocol, context);
  Json json = header(scores, protocol, decoder.activations());
  json.update(summarize_scores(scores, 0, {}));
  return json;
}

Json evaluate_weights(const WeightSource& weights, const WeightSource* against,
                      const std::vector<int32_t>& ids, const EvaluationOptions& options,
                      Context& context) {
  const std::unique_ptr<Decoder> decoder =
      Decoder::create(weights, options.activations, options.kv);
  const std::unique_ptr<Decoder> teacher =
      against ? Decoder::create(*against, Activations::kF32) : nullptr;
  Json json = evaluate_decoders(*decoder, teacher.get(), ids, options, context);
  if (options.also_q8 && options.activations != Activations::kQ8) {
    const std::unique_ptr<Decoder> second = Decoder::create(weights, Activations::kQ8, options.kv);
    Json q8 = evaluate_decoders(*second, teacher.get(), ids, options, context);
    for (const char* key : {"tokens", "scored_tokens", "windows", "context", "protocol"})
      q8.erase(key);
    json["q8"] = std::move(q8);
  }
  return json;
}

Json evaluate_tasks(const Model& model, const WeightSource& weights,
                    const std::vector<std::string>& files, Activations activations, int64_t limit,
                    Context& context, KvType kv) {
  std::vector<Task> tasks;  // All are read before the first is run.
  for (const std::string& file : files) tasks.push_back(read_task(file, limit));
  const std::unique_ptr<Decoder> decoder = Decoder::create(weights, activations, kv);
  const std::vector<int32_t> stops = stop_ids(model);
  Json json = Json::object();
  for (const Task& task : tasks) {
    Json figures = {{"file", task.file},
                    {"activations", activations_name(activations)},
                    {"kv_type", kv_type_name(kv, activations, model.arch())}};
    figures.update(summarize_task(task, run_task(task, *decoder, model.tokenizer(), stops, context),
                                  context.seed));
    json[json.contains(task.name) ? task.file : task.name] = std::move(figures);
  }
  return json;
}

}  // namespace slmc

#include "compress/runtime/eval_stage.h"

#include <fmt/format.h>

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/mapped_file.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate.h"
#include "compress/runtime/streamed_bytes.h"
#include "compress/runtime/tasks.h"
#include "compress/runtime/weight_stage.h"
#include "formats/adapter.h"
#include "formats/model.h"

namespace slmc {
namespace {

using Rows = std::vector<std::vector<std::string>>;

uint64_t tensor_bytes(const Model& model) {
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : model.tensors()) bytes += tensor.bytes;
  return bytes;
}

// Of models that are whole in memory: their weights, and what the windows in flight hold: caches,
// scratch and logits.
uint64_t whole_peak(const std::vector<const Model*>& decoders, int64_t context) {
  int64_t weights = 0, window = 0;
  for (const Model* model : decoders) {
    const Architecture& a = model->arch();
    weights += static_cast<int64_t>(tensor_bytes(*model));
    window += 4 * (2 * context * a.layers * a.kv_heads * a.head_dim + scratch_floats(a, context) +
                   std::min<int64_t>(128 * a.vocab, 4 << 20));
  }
  const int64_t in_flight = window * threads() <= (512 << 20) ? threads() : 1;
  return static_cast<uint64_t>(weights + window * in_flight + (32 << 20));
}

// Decoders are run over text block by block; encoders, what has an adapter, and tasks are whole.
uint64_t predicted_peak(const EvalOptions& options, const std::vector<const Model*>& models,
                        int64_t context) {
  const bool whole = models.front()->arch().encoder || !options.adapter.empty();
  uint64_t peak = 0;
  if (!options.text.empty() && whole) peak = whole_peak(models, context);
  if (!options.text.empty() && !whole) {
    std::vector<Pieces> pieces;
    for (const Model* model : models) pieces.push_back(pieces_of(*model));
    const auto most = static_cast<int64_t>(MappedFile::open(options.text)->size());
    peak = program_bytes(*models.front()) +
           streamed_bytes(pieces, context,
                          options.max_tokens > 0 ? std::min(options.max_tokens, most) : most);
  }
  if (!options.tasks.empty()) peak = std::max(peak, whole_peak({models.front()}, context));
  return peak;
}

std::string describe(const Model& model) {
  return cat(model.path(), " (", model.arch().family, ", ",
             human_count(static_cast<uint64_t>(model.arch().parameters)), " parameters, ",
             human_bytes(model.size_bytes()), ")");
}

// Five significant digits; small ones in powers of ten.
std::string significant(double value) {
  if (value == 0.0) return "0";
  return value < 1e-3 ? fmt::format("{:.2e}", value) : fmt::format("{:.5g}", value);
}

std::string number(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number() ? significant(json[key].get<double>())
                                                     : "not finite";
}

std::string plus_minus(const Json& json, const char* key) {
  return json.contains(key) ? "± " + number(json, key) : "";
}

std::string percent(double value) { return fixed(100.0 * value, 2) + "%"; }

std::string percent_interval(const Json& json, const std::string& key) {
  return cat(percent(json[key + "_low"].get<double>()), " to ",
             percent(json[key + "_high"].get<double>()));
}

// Figures on text: those of `figures`, which for q8 is the nested object; where and how is said by
// the top.
void add_text_rows(const Json& figures, const std::string& protocol, Rows& rows) {
  const std::string mode = figures["activations"].get<std::string>() +
                           (figures.value("kv_type", "") == "int8" ? ", int8 keys and values" : "");
  rows.push_back({"perplexity", number(figures, "perplexity"), plus_minus(figures, "perplexity_se"),
                  protocol, mode});
  if (!figures.contains("against")) return;
  const Json& against = figures["against"];
  if (figures["activations"] == "f32")
    rows.push_back({"teacher's perplexity", number(against, "perplexity"),
                    plus_minus(against, "perplexity_se"), protocol, "f32"});
  const std::string modes = mode + " against f32";
  rows.push_back({"KLD mean, nats", number(against, "kld_mean"), plus_minus(against, "kld_se"),
                  protocol, modes});
  rows.push_back({"KLD median", number(against, "kld_median"), "", protocol, modes});
  rows.push_back({"KLD 99th percentile", number(against, "kld_p99"), "", protocol, modes});
  rows.push_back({"KLD largest", number(against, "kld_max"), "", protocol, modes});
  rows.push_back({"top-1 agreement", percent(against["top1_agreement"].get<double>()),
                  percent_interval(against, "top1_agreement"), protocol, modes});
}

void add_task_rows(const std::string& name, const Json& task, const std::string& mode, Rows& rows) {
  std::string how = task.contains("kind") ? task["kind"].get<std::string>() : "";
  std::replace(how.begin(), how.end(), '_', ' ');
  how = cat(how, how.empty() ? "" : ", ", task["n"].get<int64_t>(), " examples");
  for (const auto& [key, title] : std::vector<std::pair<std::string, std::string>>{
           {"accuracy", "accuracy"},
           {"accuracy_normalised", "accuracy, length-normalised"},
           {"f1", "F1"}}) {
    if (task.contains(key))
      rows.push_back({cat(name, ": ", title), percent(task[key].get<double>()),
                      percent_interval(task, key), how, mode});
  }
  if (task.contains("macro_f1"))
    rows.push_back({cat(name, ": F1, mean over classes"), percent(task["macro_f1"].get<double>()),
                    "", how, mode});
  if (task.contains("cross_entropy"))
    rows.push_back(
        {cat(name, ": cross-entropy, nats"), number(task, "cross_entropy"), "", how, mode});
}

}  // namespace

std::string evaluation_table(const Json& report) {
  Rows rows;
  if (report.contains("perplexity")) {
    const std::string protocol =
        cat(report["protocol"].get<std::string>(), " ", report["context"].get<int64_t>(), ", ",
            report["scored_tokens"].get<int64_t>(), " tokens scored");
    add_text_rows(report, protocol, rows);
    if (report.contains("q8")) add_text_rows(report["q8"], protocol, rows);
  }
  if (report.contains("tasks")) {
    for (const auto& [name, task] : report["tasks"].items()) {
      const std::string mode = task["activations"].get<std::string>();
      add_task_rows(name, task, mode, rows);
      if (!task.contains("groups")) continue;
      for (const auto& [group, figures] : task["groups"].items())
        add_task_rows(cat("  ", group), figures, mode, rows);
    }
  }
  return table({"figure", "value", "95% or s.e.", "protocol", "activations"}, rows,
               {false, true, true, false, false});
}

void EvalStage::visit(Fields& fields) {
  fields.visit({.name = "model",
                .help = "The model to measure: a Hugging Face folder or a GGUF file.",
                .required = true,
                .positional = true,
                .value_name = "MODEL"},
               options_.model);
  fields.visit({.name = "against",
                .help = "Teacher whose distributions the model's are compared with; it must share "
                        "the vocabulary.",
                .value_name = "TEACHER"},
               options_.against);
  visit_adapter(fields, options_.adapter);
  fields.visit(
      {.name = "text",
       .help = "Text for perplexity and divergence: .txt, or .jsonl with a document a line.",
       .value_name = "FILE"},
      options_.text);
  fields.visit({.name = "tasks",
                .help = "Task files (JSON lines): choices, exact match, labels, fields.",
                .value_name = "FILE"},
               options_.tasks);
  fields.visit({.name = "context",
                .help = "Tokens a window; 0: the lesser of 2048, the model's and the text's.",
                .min = 0,
                .value_name = "N"},
               options_.context);
  fields.visit({.name = "protocol",
                .help = "How perplexity is computed: window, or as llama.cpp does.",
                .choices = {"window", "llama.cpp"}},
               options_.protocol);
  fields.visit({.name = "activations",
                .help = "Arithmetic: f32 judges the weights, q8 is deployment. Neither: f32, with "
                        "the figures on text repeated in q8.",
                .choices = {"f32", "q8"}},
               options_.activations);
  visit_kv_type(options_.kv_type, fields);
  fields.visit({.name = "max_tokens",
                .help = "Use only the first N tokens of the text; 0: all.",
                .min = 0,
                .value_name = "N"},
               options_.max_tokens);
  fields.visit({.name = "limit",
                .help = "Use only the first N examples of each task file; 0: all.",
                .min = 0,
                .value_name = "N"},
               options_.limit);
}

Plan EvalStage::plan(const Inputs& inputs) const {
  const auto source = [&](const char* name, const std::string& option) {
    const auto found = inputs.paths.find(name);
    return found == inputs.paths.end() ? option : found->second;
  };
  const std::string model_path = source("model", options_.model),
                    against_path = source("against", options_.against);
  if (options_.text.empty() && options_.tasks.empty())
    throw_usage("eval: nothing to measure on; give --text FILE or --tasks FILE");
  if (!against_path.empty() && options_.text.empty())
    throw_usage("eval: --against compares on text; give --text FILE too");

  const std::shared_ptr<const Model> model = Model::open(model_path);
  Plan plan;
  plan.stage = name();
  plan.details = {{"model", model_path}, {"against", against_path}};
  plan.notes.push_back(cat("model: ", describe(*model)));
  if (!options_.adapter.empty()) {
    plan.notes.push_back(
        cat("adapter: ", options_.adapter, ", ", adapter_note(options_.adapter, model->arch())));
  }
  std::vector<const Model*> decoders = {model.get()};
  if (options_.activations.empty() && !options_.text.empty()) decoders.push_back(model.get());
  std::shared_ptr<const Model> against;
  if (!against_path.empty()) {
    against = Model::open(against_path);
    plan.notes.push_back(cat("against: ", describe(*against), ", f32 activations"));
    decoders.push_back(against.get());
  }
  const std::string mode = options_.activations.empty() ? "f32" : options_.activations;
  const int64_t window = options_.context > 0 ? options_.context : default_window(model->arch());
  for (const Model* each :
       {static_cast<const Model*>(model.get()), static_cast<const Model*>(against.get())}) {
    if (each && each->arch().context > 0 && options_.context > each->arch().context)
      throw_usage(cat("--context ", options_.context, " is more than ", each->path(),
                      " was made for, ", each->arch().context, "; give at most that"));
  }
  if (!options_.text.empty()) {
    const uint64_t size = MappedFile::open(options_.text)->size();
    if (size == 0) throw_bad_input(cat(options_.text, ": expected text, found an empty file"));
    plan.notes.push_back(
        cat("text: ", options_.text, " (", human_bytes(size), "), protocol ",
            model->arch().head == Head::kMasked ? "masked" : options_.protocol, ", context ",
            window, ", activations ", options_.activations.empty() ? "f32 and q8" : mode,
            options_.max_tokens > 0 ? cat(", the first ", options_.max_tokens, " tokens") : ""));
  }
  for (const std::string& file : options_.tasks) {
    plan.notes.push_back(
        cat("tasks: ", file, " (", task_kind_name(peek_task_kind(file)), "), activations ", mode,
            options_.limit > 0 ? cat(", the first ", options_.limit, " examples") : ""));
  }
  plan.predicted_peak_bytes = predicted_peak(options_, decoders, window);
  return plan;
}

Report EvalStage::run(const Plan& plan, Context& context) {
  const double started = now_seconds();
  const std::string against_path = plan.details.value("against", "");
  const std::shared_ptr<const Model> model =
      Model::open(plan.details.value("model", options_.model));
  const std::shared_ptr<const WeightSource> weights = with_adapter(model, options_.adapter);
  Json figures = Json::object();
  Json inputs = {{"model", model_facts(*model, model->content_hash())}};
  if (!options_.text.empty()) {
    inputs["text"] = {{"path", options_.text}, {"hash", hash_file(options_.text)}};
    const std::shared_ptr<const Model> against =
        against_path.empty() ? nullptr : Model::open(against_path);
    if (against) inputs["against"] = model_facts(*against, against->content_hash());
    EvaluationOptions text{.protocol = options_.protocol,
                           .context = options_.context,
                           .max_tokens = options_.max_tokens};
    text.activations =
        activations_from_name(options_.activations.empty() ? "f32" : options_.activations);
    text.also_q8 = options_.activations.empty();
    text.kv = kv_type_from_name(options_.kv_type);
    text.weights = weights.get();
    figures = evaluate_text(*model, against.get(), options_.text, text, context);
  }
  for (const std::string& file : options_.tasks)
    inputs["tasks"].push_back({{"path", file}, {"hash", hash_file(file)}});
  if (!options_.tasks.empty()) {
    const Activations mode =
        activations_from_name(options_.activations.empty() ? "f32" : options_.activations);
    figures["tasks"] = evaluate_tasks(*model, *weights, options_.tasks, mode, options_.limit,
                                      context, kv_type_from_name(options_.kv_type));
  }
  figures["bits_per_weight"] = 8.0 * static_cast<double>(tensor_bytes(*model)) /
                               static_cast<double>(std::max<int64_t>(1, model->arch().parameters));
  figures["size_bytes"] = model->size_bytes();
  figures["parameters"] = model->arch().parameters;

  Report report = make_report(*this, plan, now_seconds() - started, context);
  report["inputs"] = std::move(inputs);
  report["model"] = model->path();
  if (!options_.adapter.empty()) report["adapter"] = options_.adapter;
  report["text"] = options_.text;
  report.update(figures);
  report["summary"] =
      cat(describe(*model), ", ", fixed(figures["bits_per_weight"].get<double>(), 2),
          " bits a weight\n", evaluation_table(report));
  return report;
}

std::unique_ptr<Stage> make_eval_stage() { return std::make_unique<EvalStage>(); }

}  // namespace slmc

#include "compress/runtime/evaluate_comparison.h"

#include <algorithm>
#include <functional>
#include <set>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::optional<double> number(const Json& json, const char* key) {
  if (!json.is_object() || !json.contains(key) || !json[key].is_number()) return std::nullopt;
  return json[key].get<double>();
}

std::string string_or(const Json& json, const char* key, const std::string& fallback) {
  return json.contains(key) && json[key].is_string() && !json[key].get<std::string>().empty()
             ? json[key].get<std::string>()
             : fallback;
}

bool has_figures(const Json& json) {
  return json.is_object() && (number(json, "perplexity") ||
                              (number(json, "size_bytes") && number(json, "bits_per_weight")));
}

void add_tasks(const Json& tasks, ComparedModel& model) {
  if (!tasks.is_object()) return;
  for (const auto& [name, task] : tasks.items()) {
    for (const char* key : {"accuracy", "f1"}) {
      const auto value = number(task, key), low = number(task, (std::string(key) + "_low").c_str()),
                 high = number(task, (std::string(key) + "_high").c_str());
      if (value && low && high) model.tasks.push_back({cat(name, ": ", key), *value, *low, *high});
    }
  }
}

ComparedModel read_figures(const Json& json, const std::string& name) {
  ComparedModel model{.name = name};
  model.parameters = number(json, "parameters");
  model.size_bytes = number(json, "size_bytes");
  model.bits_per_weight = number(json, "bits_per_weight");
  model.perplexity = number(json, "perplexity");
  model.perplexity_se = number(json, "perplexity_se");
  model.tokens_per_second = number(json, "decode_tokens_per_second");
  if (model.perplexity)
    model.protocol = cat(string_or(json, "protocol", "?"), " ",
                         static_cast<int64_t>(number(json, "context").value_or(0)), ", ",
                         static_cast<int64_t>(number(json, "tokens").value_or(0)), " tokens, ",
                         string_or(json, "activations", "?"));
  if (json.contains("against")) {
    model.kld = number(json["against"], "kld_mean");
    model.kld_se = number(json["against"], "kld_se");
    model.top1_agreement = number(json["against"], "top1_agreement");
  }
  if (json.contains("tasks")) add_tasks(json["tasks"], model);
  return model;
}

// `step`: the name that a recipe gave to the step above, "" outside of one.
void collect(const Json& json, const std::string& fallback, const std::string& step,
             std::vector<ComparedModel>& models) {
  if (has_figures(json)) {
    models.push_back(read_figures(
        json, !step.empty() ? step : string_or(json, "name", string_or(json, "model", fallback))));
  } else if (json.is_object()) {
    const std::string own = string_or(json, "name", step);
    for (const auto& [key, value] : json.items()) {
      if (value.is_structured() && key != "against" && key != "options" && key != "provenance")
        collect(value, fallback, own, models);
    }
  } else if (json.is_array()) {
    for (const Json& item : json) collect(item, fallback, step, models);
  }
}

bool measured(const ComparedModel& model) { return model.perplexity || !model.tasks.empty(); }

// A column: its header and the text of a model, "" when not measured.
using Column = std::pair<std::string, std::function<std::string(const ComparedModel&)>>;

std::string with_error(const std::optional<double>& value, const std::optional<double>& error,
                       int digits) {
  if (!value) return "";
  return cat(fixed(*value, digits), error ? " ± " + fixed(*error, digits) : "");
}

std::string percent(double value) { return fixed(100.0 * value, 1); }

std::vector<Column> columns(const std::vector<ComparedModel>& models) {
  std::vector<Column> all = {
      {"model", [](const ComparedModel& m) { return m.name; }},
      {"parameters",
       [](const ComparedModel& m) {
         return m.parameters ? human_count(static_cast<uint64_t>(*m.parameters)) : "";
       }},
      {"size",
       [](const ComparedModel& m) {
         return m.size_bytes ? human_bytes(static_cast<uint64_t>(*m.size_bytes)) : "";
       }},
      {"bits",
       [](const ComparedModel& m) {
         return m.bits_per_weight ? fixed(*m.bits_per_weight, 2) : "";
       }},
      {"perplexity",
       [](const ComparedModel& m) { return with_error(m.perplexity, m.perplexity_se, 3); }},
      {"KLD, nats", [](const ComparedModel& m) { return with_error(m.kld, m.kld_se, 5); }},
      {"top-1, %",
       [](const ComparedModel& m) { return m.top1_agreement ? percent(*m.top1_agreement) : ""; }},
      {"tokens/s", [](const ComparedModel& m) {
         return m.tokens_per_second ? fixed(*m.tokens_per_second, 1) : "";
       }}};
  std::vector<std::string> names;
  for (const ComparedModel& model : models) {
    for (const auto& task : model.tasks)
      if (std::find(names.begin(), names.end(), task.name) == names.end())
        names.push_back(task.name);
  }
  for (const std::string& name : names) {
    all.push_back({name + ", % (95%)", [name](const ComparedModel& m) {
                     for (const auto& task : m.tasks)
                       if (task.name == name)
                         return cat(percent(task.value), " (", percent(task.low), " to ",
                                    percent(task.high), ")");
                     return std::string();
                   }});
  }
  all.push_back({"protocol", [](const ComparedModel& m) { return m.protocol; }});
  std::erase_if(all, [&](const Column& column) {
    return std::all_of(models.begin(), models.end(),
                       [&](const ComparedModel& m) { return column.second(m).empty(); });
  });
  return all;
}

void put(Json& json, const char* key, const std::optional<double>& value) {
  if (value) json[key] = *value;
}

}  // namespace

std::vector<ComparedModel> models_of_report(const Json& report, const std::string& name) {
  std::vector<ComparedModel> models;
  collect(report, name, "", models);
  // A step that wrote a file which a later one measured has nothing to add.
  const std::vector<ComparedModel> all = models;
  std::erase_if(models, [&](const ComparedModel& model) {
    return !measured(model) && std::any_of(all.begin(), all.end(), [&](const ComparedModel& other) {
      return measured(other) && other.size_bytes == model.size_bytes;
    });
  });
  if (models.empty())
    throw_bad_input(cat(name,
                        ": not a report with figures: expected \"perplexity\" or \"size_bytes\" "
                        "somewhere, found neither"));
  return models;
}

ComparedModel compared_model(const Model& model) {
  uint64_t bytes = 0;
  for (const TensorInfo& tensor : model.tensors()) bytes += tensor.bytes;
  const double parameters = static_cast<double>(std::max<int64_t>(1, model.arch().parameters));
  ComparedModel compared{.name = model.path()};
  compared.parameters = parameters;
  compared.size_bytes = static_cast<double>(model.size_bytes());
  compared.bits_per_weight = 8.0 * static_cast<double>(bytes) / parameters;
  return compared;
}

Json comparison_to_json(const std::vector<ComparedModel>& models) {
  Json json = Json::array();
  for (const ComparedModel& model : models) {
    Json row = {{"name", model.name}};
    put(row, "parameters", model.parameters);
    put(row, "size_bytes", model.size_bytes);
    put(row, "bits_per_weight", model.bits_per_weight);
    put(row, "perplexity", model.perplexity);
    put(row, "perplexity_se", model.perplexity_se);
    put(row, "kld_mean", model.kld);
    put(row, "kld_se", model.kld_se);
    put(row, "top1_agreement", model.top1_agreement);
    put(row, "decode_tokens_per_second", model.tokens_per_second);
    if (!model.protocol.empty()) row["protocol"] = model.protocol;
    for (const auto& task : model.tasks)
      row["tasks"][task.name] = {{"value", task.value}, {"low", task.low}, {"high", task.high}};
    json.push_back(std::move(row));
  }
  return {{"models", std::move(json)}};
}

ComparisonCells comparison_cells(const std::vector<ComparedModel>& models) {
  ComparisonCells cells;
  const std::vector<Column> shown = columns(models);
  for (const Column& column : shown) cells.header.push_back(column.first);
  for (const ComparedModel& model : models) {
    std::vector<std::string> row;
    for (const Column& column : shown) row.push_back(column.second(model));
    cells.rows.push_back(std::move(row));
  }
  std::set<std::string> protocols;
  for (const ComparedModel& model : models)
    if (!model.protocol.empty()) protocols.insert(model.protocol);
  if (protocols.size() > 1)
    cells.warning =
        "Perplexity and KLD under different protocols, lengths or activations cannot be compared.";
  return cells;
}

std::string comparison_table(const std::vector<ComparedModel>& models) {
  const ComparisonCells cells = comparison_cells(models);
  std::vector<bool> right;
  for (const std::string& title : cells.header)
    right.push_back(title != "model" && title != "protocol");
  return table(cells.header, cells.rows, right) +
         (cells.warning.empty() ? "" : cells.warning + "\n");
}

}  // namespace slmc

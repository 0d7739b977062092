// The table at the end of a recipe: the figures that a stage's report may hold, one row a stage.
#include <algorithm>

#include "compress/core/text.h"
#include "recipes/expect.h"
#include "recipes/runner.h"

namespace slmc {
namespace {

struct Column {
  const char* title;
  std::vector<const char*> paths;  ///< The first that is there counts.
  std::string (*show)(double);
};

std::string four(double value) { return fixed(value, 4); }
std::string two(double value) { return fixed(value, 2); }
std::string percent(double value) { return fixed(value * 100, 1) + "%"; }
std::string bytes(double value) { return human_bytes(static_cast<uint64_t>(value)); }
std::string count(double value) { return human_count(static_cast<uint64_t>(value)); }

const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"parameters",
       {"parameters", "parameters_after", "student.parameters", "evaluation.parameters"},
       count},
      {"size", {"size_bytes", "output_bytes", "evaluation.size_bytes"}, bytes},
      {"bits/weight", {"bits_per_weight", "evaluation.bits_per_weight"}, two},
      {"perplexity", {"perplexity", "evaluation.perplexity"}, two},
      {"KLD", {"against.kld_mean", "evaluation.against.kld_mean"}, four},
      {"top-1", {"against.top1_agreement", "evaluation.against.top1_agreement"}, percent},
      {"tasks", {"tasks.accuracy", "evaluation.tasks.accuracy"}, percent},
      {"time", {"seconds"}, human_seconds},
  };
  return all;
}

std::string cell(const Column& column, const Json& report) {
  for (const char* path : column.paths) {
    const Json* value = at_path(report, path);
    if (value != nullptr && value->is_number()) return column.show(value->get<double>());
  }
  return "";
}

}  // namespace

std::string report_table(const Json& report) {
  std::vector<std::string> header = {"stage", "what"};
  std::vector<bool> right = {false, false};
  std::vector<const Column*> used;
  for (const Column& column : columns()) {
    const Json& stages = report["stages"];
    if (std::none_of(stages.begin(), stages.end(),
                     [&](const Json& stage) { return !cell(column, stage["report"]).empty(); }))
      continue;
    used.push_back(&column);
    header.emplace_back(column.title);
    right.push_back(true);
  }
  header.emplace_back("gate");
  right.push_back(false);
  std::vector<std::vector<std::string>> rows;
  for (const Json& stage : report["stages"]) {
    std::vector<std::string> row = {stage["name"], stage["stage"]};
    for (const Column* column : used) row.push_back(cell(*column, stage["report"]));
    row.push_back(stage["expect"].empty() ? "" : stage["passed"].get<bool>() ? "passed" : "FAILED");
    rows.push_back(std::move(row));
  }
  return table(header, rows, right);
}

}  // namespace slmc

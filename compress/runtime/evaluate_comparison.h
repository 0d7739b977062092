// `slmc compare`: figures of several models side by side, from their reports or from the models
// themselves.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/json.h"
#include "formats/model.h"

namespace slmc {

/// What is known of one model. A figure that was not measured is absent.
struct ComparedModel {
  std::string name;
  std::optional<double> parameters{}, size_bytes{}, bits_per_weight{};
  std::string protocol{};  ///< "window 512, 78183 tokens, f32".
  std::optional<double> perplexity{}, perplexity_se{};
  std::optional<double> kld{}, kld_se{}, top1_agreement{};
  std::optional<double> tokens_per_second{};
  /// A task's figure with its 95% interval.
  struct TaskFigure {
    std::string name;  ///< "test: accuracy".
    double value = 0, low = 0, high = 0;
  };
  std::vector<TaskFigure> tasks{};
};

/// Every measured model in a report, however deep (a recipe's report holds one a step). `name` is
/// used where the report has none. Throws Error(kBadInput) if it holds no figures at all.
std::vector<ComparedModel> models_of_report(const Json& report, const std::string& name);
/// Sizes only.
ComparedModel compared_model(const Model& model);

Json comparison_to_json(const std::vector<ComparedModel>& models);
/// The texts of the table; columns that no model has are left out. `warning` is not empty if
/// protocols differ.
struct ComparisonCells {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::string warning;
};
ComparisonCells comparison_cells(const std::vector<ComparedModel>& models);
/// A table for people, and the warning.
std::string comparison_table(const std::vector<ComparedModel>& models);
/// One page without any outside resource: the table, and a plot of size against divergence (or
/// perplexity where that is all there is).
std::string comparison_html(const std::vector<ComparedModel>& models, const std::string& title);

}  // namespace slmc

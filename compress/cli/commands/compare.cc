// `slmc compare REPORT|MODEL...`: figures side by side, as a table and as a page with a plot.
#include <filesystem>
#include <ostream>

#include "compress/core/atomic_file.h"
#include "compress/core/command.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_comparison.h"
#include "recipes/stage_run.h"

namespace slmc {
namespace {

bool is_report(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return false;
  const auto file = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(file->data()),
                              std::min<uint64_t>(file->size(), 64));
  const size_t begin = text.find_first_not_of(" \t\r\n");
  return begin != std::string_view::npos && text[begin] == '{';
}

// A model's sizes, and the figures of the report that lies beside it if there is one.
std::vector<ComparedModel> models_at(const std::string& path) {
  if (is_report(path)) return models_of_report(read_json(path), path);
  ComparedModel model = compared_model(*Model::open(path));
  const std::string report = report_path(path);
  if (report.empty() || !std::filesystem::exists(report)) return {model};
  for (const ComparedModel& measured : models_of_report(read_json(report), path)) {
    if (measured.size_bytes && *measured.size_bytes != *model.size_bytes)
      continue;  // Of another model, such as the input.
    ComparedModel merged = measured;
    merged.name = path;
    merged.parameters = model.parameters;
    merged.size_bytes = model.size_bytes;
    merged.bits_per_weight = model.bits_per_weight;
    return {merged};
  }
  return {model};
}

class CompareCommand : public Command {
 public:
  std::string_view name() const override { return "compare"; }
  std::string_view summary() const override {
    return "Show the figures of several models or reports side by side";
  }
  void visit(Fields& fields) override {
    fields.visit(
        {.name = "inputs",
         .help = "Reports (JSON) or models; a model's own report is read if it lies beside it.",
         .required = true,
         .positional = true,
         .value_name = "REPORT|MODEL"},
        inputs_);
    fields.visit(
        {.name = "html",
         .help = "Also write one self-contained page with a plot of size against divergence.",
         .value_name = "FILE"},
        html_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    if (!html_.empty()) check_output(html_, context.force);
    std::vector<ComparedModel> models;
    for (const std::string& input : inputs_) {
      for (ComparedModel& model : models_at(input)) models.push_back(std::move(model));
    }
    out << comparison_table(models);
    if (!html_.empty()) {
      write_text(html_, comparison_html(models, "slmc: comparison of models"));
      out << "wrote " << html_ << "\n";
    }
    return comparison_to_json(models);
  }

 private:
  std::vector<std::string> inputs_;
  std::string html_;
};

}  // namespace

std::unique_ptr<Command> command_compare();
std::unique_ptr<Command> command_compare() { return std::make_unique<CompareCommand>(); }

}  // namespace slmc

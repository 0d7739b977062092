#include "recipes/stage_run.h"

#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

uint64_t size_on_disk(const std::string& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) return fs::file_size(path, error);
  uint64_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path, error)) {
    if (entry.is_regular_file(error)) total += entry.file_size(error);
  }
  return total;
}

std::string lines_of(const Json& summary) {
  if (summary.is_string()) return summary.get<std::string>() + "\n";
  std::string out;
  for (const Json& line : summary) {
    if (line.is_string()) out += line.get<std::string>() + "\n";
  }
  return out;
}

}  // namespace

Report run_stage(Stage& stage, const Plan& plan, Context& context) {
  check_predicted_ram(plan, context);
  context.check_interrupt();
  const Report report = stage.run(plan, context);
  if (!context.ranks.first()) return report;
  if (const std::string path = report_path(plan.output); !path.empty()) {
    write_text(path, report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  }
  return report;
}

std::string report_path(const std::string& output) {
  if (output.empty()) return "";
  std::error_code error;
  const std::string path = without_trailing_slash(output);
  if (fs::is_directory(path, error)) return path + "/slmc_report.json";
  return fs::is_regular_file(path, error) ? path + ".report.json" : "";
}

std::string report_summary(const Report& report) {
  std::string out;
  if (report.contains("summary")) out += lines_of(report["summary"]);
  const std::string output = report.value("output", "");
  const std::string stage = report.value("stage", "");
  std::vector<std::string> facts;
  if (!output.empty())
    facts.push_back(cat("wrote ", output, " (", human_bytes(size_on_disk(output)), ")"));
  if (report.contains("seconds")) facts.push_back(human_seconds(report.value("seconds", 0.0)));
  if (report.contains("peak_rss_bytes"))
    facts.push_back("peak memory " + human_bytes(report.value("peak_rss_bytes", uint64_t{0})));
  return facts.empty() ? out : out + stage + ": " + join(facts, ", ") + "\n";
}

}  // namespace slmc

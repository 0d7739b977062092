#include "quantize/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compress/core/text.h"
#include "compress/runtime/weight_stage.h"
#include "quantize/stream.h"

namespace slmc {
namespace {

double root(double value) { return std::sqrt(std::max(0.0, value)); }

Json distortion_json(const Distortion& sum, uint64_t elements) {
  return {{"rmse", root(sum.squared_error / static_cast<double>(elements))},
          {"relative_error",
           sum.squared_weight > 0 ? root(sum.squared_error / sum.squared_weight) : 0.0},
          {"max_error", sum.max_error}};
}

}  // namespace

void report_tensors(const Plan& plan, const std::vector<TensorOutcome>& outcomes,
                    const std::string& method, const ModelWriter& writer, Report& report) {
  struct Total {
    int64_t tensors = 0;
    uint64_t elements = 0, bytes = 0;
    Distortion distortion{};
  };
  std::map<std::string, Total> totals;
  std::map<std::string, std::string> hashes;
  for (const auto& [name, hash] : writer.hashes()) hashes[name] = hash;
  Json tensors = Json::array();
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    const auto elements = static_cast<uint64_t>(element_count(row.shape));
    Json entry = {{"tensor", row.tensor},
                  {"from", row.from},
                  {"to", row.to},
                  {"reason", row.reason},
                  {"method_asked", method},
                  {"method_used", outcomes[i].method_used},
                  {"bytes_before", row.bytes_before},
                  {"bytes_after", row.bytes_after}};
    entry.update(distortion_json(outcomes[i].distortion, elements));
    entry.update(outcomes[i].facts);
    if (hashes.contains(row.tensor)) entry["hash"] = hashes[row.tensor];
    tensors.push_back(std::move(entry));
    Total& total = totals[row.to];
    ++total.tensors;
    total.elements += elements;
    total.bytes += row.bytes_after;
    add_distortion(outcomes[i].distortion, total.distortion);
  }
  Json types = Json::object();
  for (const auto& [type, total] : totals) {
    types[type] = {{"tensors", total.tensors}, {"weights", total.elements}, {"bytes", total.bytes}};
    types[type].update(distortion_json(total.distortion, total.elements));
  }
  report["types"] = std::move(types);
  report["tensors"] = std::move(tensors);
}

Json summary_lines(const Report& report) {
  Json lines = Json::array();
  for (const auto& [type, total] : report.at("types").items()) {
    lines.push_back(cat(type, ": ", total.at("tensors").get<int64_t>(), " tensors, ",
                        human_bytes(total.at("bytes").get<uint64_t>()), ", relative error ",
                        fixed(total.at("relative_error").get<double>(), 6)));
  }
  lines.push_back(cat(human_bytes(report.at("bytes_before").get<uint64_t>()), " -> ",
                      human_bytes(report.at("bytes_after").get<uint64_t>()), ", ",
                      fixed(report.at("bits_per_weight").get<double>(), 3), " bits a weight"));
  if (report.contains("calibration")) {
    const Json& calibration = report.at("calibration");
    if (calibration.at("forward").at("backend") != "runtime")
      lines.push_back(cat("calibration by ", calibration.at("forward_text").get<std::string>()));
    for (const Json& finding : report.at("calibration").at("findings"))
      lines.push_back(cat("note: ", finding.get<std::string>()));
  }
  if (report.contains("drift"))
    lines.push_back(cat("note: resumed with drift: ", report.at("drift").get<std::string>()));
  for (const Json& note : report.at("container_notes"))
    lines.push_back(cat("note: ", note.get<std::string>()));
  const Json& cost = report.at("cost");
  lines.push_back(cost_line(cost) +
                  (cost.is_object() && cost.contains("text") ? ", calibration text" : ""));
  if (report.contains("budget")) {
    const Json& budget = report.at("budget");
    const auto nats = [&](const char* key) { return fixed(budget.at(key).get<double>(), 6); };
    lines.push_back(cat("target ", budget.at("target").get<std::string>(),
                        ": divergence on the measuring tokens ", nats("measured_kld"),
                        " nats, predicted ", nats("predicted_kld")));
  }
  return lines;
}

}  // namespace slmc

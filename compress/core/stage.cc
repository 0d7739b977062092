#include "compress/core/stage.h"

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"

namespace slmc {

Json plan_to_json(const Plan& plan) {
  Json rows = Json::array();
  for (const PlanRow& row : plan.rows) {
    rows.push_back({{"tensor", row.tensor},
                    {"file_name", row.file_name},
                    {"shape", row.shape},
                    {"new_shape", row.new_shape},
                    {"from", row.from},
                    {"to", row.to},
                    {"reason", row.reason},
                    {"bytes_before", row.bytes_before},
                    {"bytes_after", row.bytes_after}});
  }
  return {{"stage", plan.stage},
          {"output", plan.output},
          {"output_bytes", plan.output_bytes},
          {"predicted_peak_bytes", plan.predicted_peak_bytes},
          {"least_peak_bytes", plan.least_peak_bytes},
          {"predicted_seconds", plan.predicted_seconds},
          {"notes", plan.notes},
          {"details", plan.details},
          {"rows", rows}};
}

Plan plan_from_json(const Json& json, const std::string& where) {
  try {
    Plan plan{.stage = json.at("stage"),
              .output = json.at("output"),
              .rows = {},
              .output_bytes = json.at("output_bytes"),
              .predicted_peak_bytes = json.at("predicted_peak_bytes"),
              .least_peak_bytes = json.value("least_peak_bytes", uint64_t{0}),
              .predicted_seconds = json.at("predicted_seconds"),
              .notes = json.at("notes"),
              .details = json.at("details")};
    for (const Json& row : json.at("rows")) {
      plan.rows.push_back({.tensor = row.at("tensor"),
                           .file_name = row.at("file_name"),
                           .shape = row.at("shape"),
                           .new_shape = row.at("new_shape"),
                           .from = row.at("from"),
                           .to = row.at("to"),
                           .reason = row.at("reason"),
                           .bytes_before = row.at("bytes_before"),
                           .bytes_after = row.at("bytes_after")});
    }
    return plan;
  } catch (const Json::exception& error) {
    const std::string what =
        error.what();  // "[json.exception.out_of_range.403] key 'stage' not found"
    throw_bad_input(
        cat(where, ": not a plan written by slmc: ",
            what.substr(what.find("] ") == std::string::npos ? 0 : what.find("] ") + 2)));
  }
}

std::string plan_text(const Plan& plan) {
  std::string out;
  if (!plan.rows.empty()) {
    std::vector<std::vector<std::string>> rows;
    for (const PlanRow& row : plan.rows) {
      const bool reshaped = !row.new_shape.empty() && row.new_shape != row.shape;
      rows.push_back({row.tensor, row.file_name,
                      reshaped ? cat(shape_text(row.shape), " -> ", shape_text(row.new_shape))
                               : shape_text(row.shape),
                      row.from == row.to ? row.from : cat(row.from, " -> ", row.to),
                      human_bytes(row.bytes_before), human_bytes(row.bytes_after), row.reason});
    }
    out += table({"tensor", "in the file", "shape", "type", "before", "after", "why"}, rows,
                 {false, false, false, false, true, true, false});
  }
  for (const std::string& note : plan.notes) out += note + "\n";
  std::vector<std::string> facts;
  if (!plan.output.empty())
    facts.push_back(cat("output ", plan.output,
                        plan.output_bytes > 0 ? ", " + human_bytes(plan.output_bytes) : ""));
  if (plan.predicted_peak_bytes > 0)
    facts.push_back("peak memory about " + human_bytes(plan.predicted_peak_bytes));
  if (plan.predicted_seconds > 0)
    facts.push_back("time about " + human_seconds(plan.predicted_seconds));
  return out + (facts.empty() ? "" : plan.stage + ": " + join(facts, "; ") + "\n");
}

void Context::check_interrupt() const { stop_if_interrupted(); }

void Context::check_ram(const std::string& where) const {
  if (max_ram == 0) return;
  const uint64_t peak = peak_rss_bytes();
  if (peak > max_ram)
    throw_resources(cat(where, ": peak memory ", human_bytes(peak), " is over --max-ram ",
                        human_bytes(max_ram)));
}

bool is_tight(const Plan& plan, const Context& context) {
  return context.max_ram > 0 && plan.predicted_peak_bytes > context.max_ram &&
         plan.least_peak_bytes > 0;
}

uint64_t foretold_peak_bytes(const Plan& plan, const Context& context) {
  return is_tight(plan, context) ? plan.least_peak_bytes : plan.predicted_peak_bytes;
}

void check_predicted_ram(const Plan& plan, const Context& context) {
  const uint64_t peak = foretold_peak_bytes(plan, context);
  if (context.max_ram > 0 && peak > context.max_ram)
    throw_resources(cat(plan.stage, ": peak memory would be about ", human_bytes(peak),
                        ", over --max-ram ", human_bytes(context.max_ram),
                        "; fewer --threads take less, and what is not measured takes none"));
}

Progress& progress_of(Context& context) {
  static const std::unique_ptr<Progress> silent = make_silent_progress();
  return context.progress != nullptr ? *context.progress : *silent;
}

bool Inputs::on_cpu() const { return context == nullptr || context->on_cpu(); }

void refuse_device(const Context& context, std::string_view who) {
  if (context.on_cpu()) return;
  throw_unsupported(cat("--device ", context.device, ": ", who,
                        " computes on the cpu only; leave it out (training, quantize and "
                        "imatrix with calibration text, and logits --backend torch can use it)"));
}

Plan Stage::refine(Plan plan, Context&) { return plan; }

Report make_report(Stage& stage, const Plan& plan, double seconds, const Context& context) {
  return {{"stage", stage.name()},
          {"options", fields_to_json(stage)},
          {"output", plan.output},
          {"seconds", seconds},
          {"peak_rss_bytes", peak_rss_bytes()},
          {"predicted_peak_bytes", foretold_peak_bytes(plan, context)},
          {"notes", plan.notes},
          {"provenance", provenance(context)}};
}

Json provenance(const Context& context) {
  return {{"slmc", slmc_version()}, {"compiler", compiler_version()},
          {"cpu", cpu_model()},     {"processors", processor_count()},
          {"threads", threads()},   {"device", context.device},
          {"seed", context.seed}};
}

}  // namespace slmc

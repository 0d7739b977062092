#include "quantize/stage.h"

#include <cmath>
#include <filesystem>
#include <map>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/model_writer.h"
#include "formats/modelfile.h"
#include "formats/output_layout.h"
#include "quantize/method.h"
#include "quantize/rules.h"
#include "quantize/stream.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

std::vector<OutputTensor> targets_of(const Plan& plan, const Model& model) {
  if (plan.rows.size() != model.tensors().size()) {
    throw_bad_input(cat("the plan has ", plan.rows.size(), " tensors, ", model.path(), " has ",
                        model.tensors().size(), "; make the plan again"));
  }
  std::vector<OutputTensor> targets;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    const TensorInfo& info = model.tensors()[i];
    if (row.tensor != info.name || row.shape != info.shape) {
      throw_bad_input(cat("the plan's row ", i, " is ", row.tensor, " ", shape_text(row.shape),
                          ", ", model.path(), " has ", info.name, " ", shape_text(info.shape),
                          "; make the plan again"));
    }
    const DType type = dtype_from_name(row.to);
    if (find_block_codec(type) == nullptr || info.shape.back() % dtype_block(type) != 0 ||
        (info.shape.size() < 2 && type != DType::kF32)) {
      throw_bad_input(cat("the plan gives ", info.name, " the type ", row.to,
                          ", which it cannot have; make the plan again"));
    }
    targets.push_back({info.name, type, info.shape});
  }
  return targets;
}

std::string modelfile_of(const QuantizeOptions& options, const Model& model) {
  return modelfile_text({.gguf = fs::path(options.output).filename().string(),
                         .chat_template = model.assets().chat_template,
                         .context = model.arch().context});
}

std::string modelfile_path(const QuantizeOptions& options) {
  return (fs::path(options.output).parent_path() / "Modelfile").string();
}

OutputSpec output_spec(const QuantizeOptions& options, const Model& model,
                       std::vector<OutputTensor> targets, const std::string& source_hash,
                       const Context* context) {
  return {.path = options.output,
          .arch = model.arch(),
          .config = model.config(),
          .assets = model.assets(),
          .tensors = std::move(targets),
          .name = source_name(model),
          .file_type = scheme_by_name(options.scheme).file_type,
          .metadata = {{"slmc.version", slmc_version()},
                       {"slmc.quantize.scheme", options.scheme},
                       {"slmc.quantize.method", options.method},
                       {"slmc.source.hash", source_hash}},
          .force = context != nullptr && context->force,
          .resume = context != nullptr && context->resume};
}

void check_container(const QuantizeOptions& options, const std::vector<TypeChoice>& choices) {
  if (is_gguf_path(options.output)) return;
  if (options.modelfile)
    throw_usage(cat("--modelfile needs a GGUF; ", options.output, " does not end in .gguf"));
  for (const TypeChoice& choice : choices) {
    if (dtype_is_float(choice.type)) continue;
    throw_unsupported(cat(options.output, ": a safetensors folder cannot hold ",
                          dtype_name(choice.type), "; name an output that ends in .gguf"));
  }
}

double root(double value) { return std::sqrt(std::max(0.0, value)); }

Json distortion_json(const Distortion& sum, uint64_t elements) {
  return {{"rmse", root(sum.squared_error / static_cast<double>(elements))},
          {"relative_error",
           sum.squared_weight > 0 ? root(sum.squared_error / sum.squared_weight) : 0.0},
          {"max_error", sum.max_error}};
}

/// Per tensor and, summed, per type.
void report_tensors(const Plan& plan, const std::vector<Distortion>& distortions,
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
                  {"method_used", method},
                  {"bytes_before", row.bytes_before},
                  {"bytes_after", row.bytes_after}};
    entry.update(distortion_json(distortions[i], elements));
    if (hashes.contains(row.tensor)) entry["hash"] = hashes[row.tensor];
    tensors.push_back(std::move(entry));
    Total& total = totals[row.to];
    ++total.tensors;
    total.elements += elements;
    total.bytes += row.bytes_after;
    total.distortion.squared_error += distortions[i].squared_error;
    total.distortion.squared_weight += distortions[i].squared_weight;
    total.distortion.max_error = std::max(total.distortion.max_error, distortions[i].max_error);
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
  lines.push_back(cost_line(report.at("cost")));
  return lines;
}

}  // namespace

void QuantizeStage::visit(Fields& fields) {
  visit_source(options, fields);
  fields.visit({.name = "scheme",
                .help = "The mix of types.",
                .choices = scheme_names(),
                .required = true,
                .value_name = "S"},
               options.scheme);
  fields.visit({.name = "method",
                .help = "How weights are rounded onto the types' grids.",
                .choices = method_names(),
                .value_name = "M"},
               options.method);
  fields.visit(
      {.name = "rule",
       .help =
           "Gives the matrices whose name matches another type; the first rule that matches wins.",
       .value_name = "REGEX=TYPE"},
      options.rule);
  visit_cost(options, fields);
  fields.visit({.name = "modelfile", .help = "Also write an Ollama Modelfile beside the GGUF."},
               options.modelfile);
}

Plan QuantizeStage::plan(const Inputs& inputs) const {
  const Scheme& scheme = scheme_by_name(options.scheme);
  const Method& method = method_by_name(options.method);
  if (!method.needs.empty())
    throw_unsupported(
        cat("method ", method.name, " needs calibration, which this stage does not gather yet"));
  const std::vector<Rule> rules = parse_rules(options.rule);
  const std::shared_ptr<const Model> model = open_source(options, inputs);
  const std::vector<TypeChoice> choices = choose_types(*model, scheme, rules);
  check_container(options, choices);
  if (options.modelfile) modelfile_of(options, *model);

  Plan plan;
  plan.stage = "quantize";
  plan.output = options.output;
  plan.details = {{"model", model->path()}, {"scheme", scheme.name}, {"method", method.name}};
  std::vector<OutputTensor> targets;
  int substituted = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    const TensorInfo& info = model->tensors()[i];
    const OutputTensor target{info.name, choices[i].type, info.shape};
    const auto rows = static_cast<uint64_t>(element_count(info.shape) / info.shape.back());
    plan.rows.push_back({.tensor = info.name,
                         .file_name = info.file_name,
                         .shape = info.shape,
                         .new_shape = info.shape,
                         .from = std::string(dtype_name(info.dtype)),
                         .to = std::string(dtype_name(target.dtype)),
                         .reason = choices[i].reason,
                         .bytes_before = info.bytes,
                         .bytes_after = rows * dtype_row_bytes(target.dtype, info.shape.back())});
    if (choices[i].substituted) ++substituted;
    if (!dtype_is_float(info.dtype))
      plan.rows.back().reason += ", from already rounded values (--dequantize)";
    targets.push_back(target);
  }
  if (substituted > 0)
    plan.notes.push_back(cat(substituted, " of ", choices.size(),
                             " tensors get another type than the mix names; the rows say why."));
  if (options.eval_text.empty())
    plan.notes.push_back("Cost: not measured; --eval-text FILE measures it.");
  const uint64_t encode_peak = encode_peak_bytes(*model, targets, threads());
  plan.output_bytes = predicted_output_bytes(
      output_spec(options, *model, std::move(targets), std::string(32, '0'), nullptr));
  plan.predicted_peak_bytes =
      program_bytes(*model) +
      std::max(encode_peak, cost_peak_bytes(options, *model, plan.output_bytes));
  plan.predicted_seconds =
      work_seconds(*model, 2.5, plan.output_bytes) + cost_seconds(options, *model);
  return plan;
}

Report QuantizeStage::run(const Plan& plan, Context& context) {
  const double start = now_seconds();
  check_predicted_ram(plan, context);
  const std::shared_ptr<const Model> model =
      open_source(options, {.paths = {{"model", plan.details.at("model").get<std::string>()}}});
  const Method& method = method_by_name(options.method);
  const std::vector<OutputTensor> targets = targets_of(plan, *model);
  if (options.modelfile) check_output(modelfile_path(options), context.force);

  const std::string hash = model->content_hash();
  const std::unique_ptr<ModelWriter> writer =
      ModelWriter::create(output_spec(options, *model, targets, hash, &context));
  std::vector<Distortion> distortions = encode_model(*model, targets, method, *writer, context);
  writer->finish([&](const Model& written) { check_written(options, written, context); });
  if (options.modelfile) write_text(modelfile_path(options), modelfile_of(options, *model));
  const double encode_seconds = now_seconds() - start;

  std::shared_ptr<const Model> written;
  for (size_t i = 0; i < targets.size();
       ++i) {  // What a killed run had encoded is measured from the file.
    if (distortions[i].squared_weight >= 0) continue;
    if (!written) written = Model::open(options.output);
    distortions[i] = measure_tensor(*model, *written, targets[i].name);
  }
  Json cost = measure_cost(options, *model, options.output, context);

  Report report = make_report(*this, plan, now_seconds() - start, context);
  report["encode_seconds"] = encode_seconds;
  report["inputs"] = source_facts(*model, hash);
  report["scheme"] = options.scheme;
  report["method"] = {{"asked", options.method}, {"used", method.name}};
  uint64_t before = 0, after = 0;
  for (const PlanRow& row : plan.rows) before += row.bytes_before, after += row.bytes_after;
  report["bytes_before"] = before;
  report["bytes_after"] = after;
  report["size_bytes"] = writer->total_bytes();
  report["bits_per_weight"] =
      8.0 * static_cast<double>(after) / static_cast<double>(model->arch().parameters);
  report["cost"] = std::move(cost);
  if (options.modelfile) report["modelfile"] = modelfile_path(options);
  report_tensors(plan, distortions, method.name, *writer, report);
  report["summary"] = summary_lines(report);
  return report;
}

}  // namespace slmc

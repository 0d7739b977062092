#include "prune/stage.h"

#include <algorithm>
#include <atomic>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "formats/family.h"
#include "formats/layer_choice.h"
#include "formats/model_writer.h"
#include "formats/output_layout.h"
#include "prune/rewrite.h"

namespace slmc {
namespace {

bool has_structure(const PruneOptions& options) {
  return options.ffn_ratio > 0 || options.layers > 0 || !options.keep_layers.empty();
}

/// Throws Error(kUsage) unless the options ask for one thing.
void check_options(const PruneOptions& options) {
  if (options.sparsity.empty() && !has_structure(options))
    throw_usage("prune: nothing to do; give --sparsity, --ffn-ratio, --layers or --keep-layers");
  if (!options.sparsity.empty() && has_structure(options)) {
    throw_usage(
        "prune: --sparsity sets weights to zero, --ffn-ratio and --layers take them out; run prune "
        "twice for both");
  }
  if (options.layers > 0 && !options.keep_layers.empty())
    throw_usage("prune: give --layers N (evenly spaced) or --keep-layers LIST, not both");
}

Structure choose_structure(const PruneOptions& options, const Architecture& arch) {
  Structure structure;
  if (options.layers > arch.layers)
    throw_usage(cat("layers is ", options.layers, "; the model has ", arch.layers));
  if (!options.keep_layers.empty()) {
    structure.layers = parse_layer_list("keep_layers", options.keep_layers, arch.layers);
  } else {
    structure.layers =
        evenly_spaced_layers(arch.layers, options.layers > 0 ? options.layers : arch.layers);
  }
  structure.ffn =
      options.ffn_ratio > 0 ? reduced_width(arch, options.ffn_ratio, options.multiple) : arch.ffn;
  if (options.ffn_ratio > 0 && options.ffn_ratio < 1 && structure.ffn == arch.ffn) {
    throw_usage(cat("ffn_ratio ", options.ffn_ratio, " of ", arch.ffn,
                    " neurons is nearest to all of them in steps of ",
                    width_multiple(arch, options.multiple),
                    "; give a smaller ratio, or --multiple 32"));
  }
  return structure;
}

MaskScope scope_of(const PruneOptions& options, const Metric& metric) {
  if (options.scope == "auto") return metric.scope;
  return options.scope == "row" ? MaskScope::kRow : MaskScope::kTensor;
}

std::string_view scope_name(MaskScope scope) { return scope == MaskScope::kRow ? "row" : "tensor"; }

std::string mask_reason(const Sparsity& sparsity, MaskScope scope, const TensorInfo& info,
                        int64_t& removed) {
  const int64_t out = info.shape[0], in = info.shape[1];
  if (sparsity.group > 0 && in % sparsity.group != 0) {
    throw_unsupported(cat(info.name, " has ", in, " inputs, which do not divide into groups of ",
                          sparsity.group, "; use a fraction, or another N:M"));
  }
  removed = removed_count(sparsity, scope, out, in);
  if (sparsity.group > 0)
    return cat(removed, " to zero: ", sparsity.keep, " of every ", sparsity.group, " inputs stay");
  return cat(removed, " of ", out * in, " to zero, the lowest of each ", scope_name(scope));
}

std::string structure_reason(const TensorInfo& info, const std::string& new_name,
                             const Architecture& arch, const Structure& structure) {
  if (new_name.empty()) return cat("layer ", layer_of(info.name), " is dropped");
  std::vector<std::string> parts;
  if (structure.ffn != arch.ffn && neuron_axis(info.name) != NeuronAxis::kNone)
    parts.push_back(cat(structure.ffn, " of ", arch.ffn, " neurons stay"));
  if (new_name != info.name) parts.push_back(cat("becomes ", new_name));
  return parts.empty() ? "unchanged" : join(parts, ", ");
}

std::vector<int64_t> reduced_shape(const TensorInfo& info, const Structure& structure) {
  std::vector<int64_t> shape = info.shape;
  const NeuronAxis axis = neuron_axis(info.name);
  if (axis == NeuronAxis::kRows) shape.front() = structure.ffn;
  if (axis == NeuronAxis::kColumns) shape.back() = structure.ffn;
  return shape;
}

PlanRow plan_row(const TensorInfo& info, const std::vector<int64_t>& new_shape, DType type,
                 bool dropped) {
  const uint64_t after =
      dropped ? 0
              : dtype_row_bytes(type, new_shape.back()) *
                    static_cast<uint64_t>(element_count(new_shape) / new_shape.back());
  return {.tensor = info.name,
          .file_name = info.file_name,
          .shape = info.shape,
          .new_shape = dropped ? std::vector<int64_t>{} : new_shape,
          .from = std::string(dtype_name(info.dtype)),
          .to = dropped ? "removed" : std::string(dtype_name(type)),
          .reason = {},
          .bytes_before = info.bytes,
          .bytes_after = after};
}

Json structure_json(const Structure& structure) {
  return {{"layers", structure.layers}, {"ffn", structure.ffn}};
}

/// Architecture, configuration and tensors of the output. Without a structure they are the
/// source's.
OutputSpec output_spec(const PruneOptions& options, const Model& model, const Structure& structure,
                       const std::string& source_hash, const Context* context) {
  OutputSpec spec{.path = options.output,
                  .arch = reduced_architecture(model.arch(), structure),
                  .config = reduced_config(model.config(), model.arch(), structure),
                  .assets = model.assets(),
                  .tensors = {},
                  .name = source_name(model),
                  .metadata = {{"slmc.version", slmc_version()},
                               {"slmc.prune.metric", options.metric},
                               {"slmc.source.hash", source_hash}},
                  .force = context != nullptr && context->force,
                  .resume = context != nullptr && context->resume};
  if (!options.sparsity.empty())
    spec.metadata.emplace_back("slmc.prune.sparsity", cat(options.sparsity, " by ", options.scope));
  const bool gguf = is_gguf_path(options.output);
  spec.binding = structure_json(structure).dump();
  int64_t parameters = 0;
  for (const TensorInfo& info : model.tensors()) {
    const std::string name = reduced_name(info.name, structure);
    if (name.empty()) continue;
    spec.tensors.push_back({name, pruned_type(info, gguf), reduced_shape(info, structure)});
    parameters += element_count(spec.tensors.back().shape);
  }
  spec.arch.parameters = parameters;
  return spec;
}

Structure structure_from_json(const Json& details, const Architecture& arch) {
  Structure structure{.layers = details.at("layers"), .ffn = details.at("ffn")};
  bool sound = !structure.layers.empty() && structure.ffn > 0 && structure.ffn <= arch.ffn;
  for (size_t i = 0; i < structure.layers.size(); ++i) {
    sound = sound && structure.layers[i] >= 0 && structure.layers[i] < arch.layers &&
            (i == 0 || structure.layers[i] > structure.layers[i - 1]);
  }
  if (!sound) throw_bad_input("the plan's layers or ffn do not fit the model; make the plan again");
  return structure;
}

/// Zeros in the written file, tensor by tensor.
Json count_zeros(const Model& written, int64_t& zeros, int64_t& weights) {
  Json tensors = Json::array();
  for (const TensorInfo& info : written.tensors()) {
    if (!is_maskable(info)) continue;
    const int64_t columns = info.shape.back(), total = element_count(info.shape);
    std::atomic<int64_t> found{0};
    parallel_ranges(total / columns, std::max<int64_t>(1, (int64_t{1} << 16) / columns),
                    [&](int64_t begin, int64_t end) {
                      std::vector<float> rows(static_cast<size_t>((end - begin) * columns));
                      written.read_rows(info.name, begin, end - begin, rows.data());
                      found += std::count(rows.begin(), rows.end(), 0.0f);
                    });
    written.release(info.name);
    const int64_t count = found;
    tensors.push_back({{"tensor", info.name},
                       {"weights", total},
                       {"zeros", count},
                       {"sparsity", static_cast<double>(count) / static_cast<double>(total)}});
    zeros += count;
    weights += total;
  }
  return tensors;
}

}  // namespace

void PruneStage::visit(Fields& fields) {
  visit_source(options.model, options.output, fields);
  fields.visit({.name = "metric",
                .help = "What a weight is worth.",
                .choices = metric_names(),
                .value_name = "M"},
               options.metric);
  fields.visit({.name = "sparsity",
                .help = "Set this share of each linear layer's weights to zero (0.5), or all but N "
                        "of every M inputs (2:4).",
                .value_name = "S"},
               options.sparsity);
  fields.visit(
      {.name = "scope",
       .help = "Where a share's lowest scores are looked for; auto: as the metric is defined.",
       .choices = {"auto", "tensor", "row"}},
      options.scope);
  fields.visit({.name = "ffn_ratio",
                .help = "Share of FFN neurons that stay, to the nearest --multiple; 0: all.",
                .min = 0,
                .max = 1,
                .value_name = "R"},
               options.ffn_ratio);
  fields.visit({.name = "multiple",
                .help = "What the new FFN width is a multiple of; 0: 256 where the model's widths "
                        "are multiples of 256, else 32.",
                .min = 0,
                .value_name = "N"},
               options.multiple);
  fields.visit({.name = "layers",
                .help = "Layers that stay, evenly spaced, first and last among them; 0: all.",
                .min = 0,
                .value_name = "N"},
               options.layers);
  fields.visit({.name = "keep_layers",
                .help = "The layers that stay, by number from 0.",
                .value_name = "LIST"},
               options.keep_layers);
  visit_cost(options, fields);
}

Plan PruneStage::plan(const Inputs& inputs) const {
  check_options(options);
  const Metric& metric = metric_by_name(options.metric);
  if (!metric.needs.empty())
    throw_unsupported(
        cat("metric ", metric.name, " needs calibration, which this stage does not gather yet"));
  const std::shared_ptr<const Model> model = open_source(options, inputs);
  const Structure structure = choose_structure(options, model->arch());
  const MaskScope scope = scope_of(options, metric);
  const bool masked = !options.sparsity.empty();
  const Sparsity sparsity = masked ? parse_sparsity(options.sparsity) : Sparsity{};

  Plan plan;
  plan.stage = "prune";
  plan.output = options.output;
  const OutputSpec spec = output_spec(options, *model, structure, std::string(32, '0'), nullptr);
  int64_t removed = 0;
  for (const TensorInfo& info : model->tensors()) {
    const std::string name = reduced_name(info.name, structure);
    plan.rows.push_back(plan_row(info, reduced_shape(info, structure),
                                 pruned_type(info, is_gguf_path(options.output)), name.empty()));
    int64_t here = 0;
    if (!masked) {
      plan.rows.back().reason = structure_reason(info, name, model->arch(), structure);
    } else {
      plan.rows.back().reason =
          is_maskable(info) ? mask_reason(sparsity, scope, info, here) : "unchanged";
    }
    removed += here;
    if (!dtype_is_float(info.dtype))
      plan.rows.back().reason += ", from already rounded values (--dequantize)";
  }
  plan.details = structure_json(structure);
  plan.details["model"] = model->path();
  plan.details["mask"] = masked ? cat(options.sparsity, " by ", options.scope) : "none";
  plan.details["metric"] = metric.name;
  const auto before = static_cast<uint64_t>(model->arch().parameters),
             after = static_cast<uint64_t>(spec.arch.parameters);
  if (masked) {
    plan.notes.push_back(cat(human_count(static_cast<uint64_t>(removed)), " of ",
                             human_count(before),
                             " parameters become zero; the file keeps its size."));
  } else {
    plan.notes.push_back(cat(human_count(before), " -> ", human_count(after), " parameters, ",
                             model->arch().layers, " -> ", spec.arch.layers, " layers, FFN ",
                             model->arch().ffn, " -> ", spec.arch.ffn, "."));
  }
  for (std::string& note : container_notes(*model, options.output))
    plan.notes.push_back(std::move(note));
  if (options.eval_text.empty())
    plan.notes.push_back("Cost: not measured; --eval-text FILE measures it.");
  plan.output_bytes = predicted_output_bytes(spec);
  const uint64_t work = masked ? masked_peak_bytes(*model) : reduced_peak_bytes(*model, structure);
  plan.predicted_peak_bytes =
      program_bytes(*model) + std::max(work, cost_peak_bytes(options, *model, plan));
  plan.predicted_seconds =
      work_seconds(*model, masked ? 15.0 : 8.0, plan.output_bytes) + cost_seconds(options, *model);
  return plan;
}

Report PruneStage::run(const Plan& plan, Context& context) {
  const double start = now_seconds();
  check_predicted_ram(plan, context);
  const std::shared_ptr<const Model> model =
      open_source(options, {.paths = {{"model", plan.details.at("model").get<std::string>()}}});
  const Structure structure = structure_from_json(plan.details, model->arch());
  const Metric& metric = metric_by_name(options.metric);
  const bool masked = !options.sparsity.empty();
  SLMC_CHECK(!masked || std::ssize(structure.layers) == model->arch().layers,
             "masks are drawn in a whole model");

  const std::string hash = model->content_hash();
  const OutputSpec spec = output_spec(options, *model, structure, hash, &context);
  const std::unique_ptr<ModelWriter> writer = ModelWriter::create(spec);
  Json layers;
  if (masked) {
    write_masked(*model, spec.tensors, metric, parse_sparsity(options.sparsity),
                 scope_of(options, metric), *writer, context);
  } else {
    layers = write_reduced(*model, spec.tensors, metric, structure, *writer, context);
  }
  writer->finish([&](const Model& written) { check_written(options, written, context); });
  Json cost = measure_cost(options, *model, options.output, context);

  int64_t zeros = 0, weights = 0;
  Json tensors;
  if (masked) tensors = count_zeros(*Model::open(options.output), zeros, weights);
  Report report = make_report(*this, plan, now_seconds() - start, context);
  report["inputs"] = {{"model", model_facts(*model, hash)}};
  report["metric"] = {{"asked", options.metric}, {"used", metric.name}};
  report["parameters_before"] = model->arch().parameters;
  report["parameters_after"] = spec.arch.parameters;
  report["size_bytes_before"] = model->size_bytes();
  report["size_bytes"] = writer->total_bytes();
  report["cost"] = std::move(cost);
  if (masked) {
    report["scope"] = scope_name(scope_of(options, metric));
    report["zeros"] = zeros;
    report["sparsity"] =
        weights > 0 ? static_cast<double>(zeros) / static_cast<double>(weights) : 0.0;
    report["tensors"] = std::move(tensors);
  } else {
    report["structure"] = structure_json(structure);
    report["layers"] = std::move(layers);
  }
  report["summary"] = Json::array({plan.notes.front()});
  for (const std::string& note : container_notes(*model, options.output))
    report["summary"].push_back(cat("note: ", note));
  report["summary"].push_back(cost_line(report["cost"]));
  return report;
}

}  // namespace slmc

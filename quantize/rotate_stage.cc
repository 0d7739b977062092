#include "quantize/rotate_stage.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/not_finite.h"
#include "compress/runtime/smoke_test.h"
#include "compress/runtime/weight_stage.h"
#include "formats/family.h"
#include "formats/model_writer.h"
#include "formats/tensor_stream.h"
#include "quantize/rotation.h"

namespace slmc {
namespace {

struct Parts {
  bool residual = false, value = false;
};

Parts parts_of(const RotateOptions& options) {
  Parts parts;
  for (const std::string& part : options.rotate) {
    if (part == "residual") parts.residual = true;
    if (part == "value") parts.value = true;
  }
  if (!parts.residual && !parts.value)
    throw_usage("--rotate: expected residual, value or both, found neither");
  return parts;
}

/// Refuses what a rotation would change.
void check_model(const Model& model, const Parts& parts, const RotateOptions& options) {
  const Architecture& arch = model.arch();
  const auto refuse = [&](const std::string& why) {
    throw_unsupported(cat(model.path(), ": ", arch.family, " ", why));
  };
  if (arch.encoder) refuse("is an encoder, whose norms follow the addition; nothing can be turned");
  if (options.untie && !arch.tied)
    throw_usage(cat("--untie: ", model.path(), " has a head of its own already; leave it out"));
  if (!parts.residual) {
    if (options.untie) throw_usage("--untie is only needed for --rotate residual");
    return;
  }
  if (arch.norm != NormKind::kRms || arch.norm_offset != 0.0)
    refuse("has norms that a rotation does not leave alone; --rotate value works");
  if (arch.branch_norms)
    refuse(
        "has norms behind its branches, whose weights would have to turn with the stream; "
        "--rotate value works");
  if (arch.learned_positions) refuse("adds learned positions to the stream; --rotate value works");
  if (arch.tied && !options.untie)
    refuse(
        "uses its embedding as head: the last norm's weights belong to one of them only; give "
        "--untie, which adds a head to the file, or --rotate value");
}

/// The weights of a norm, to be multiplied into those that read behind it.
class Rotator {
 public:
  Rotator(const Model& model, const Parts& parts, uint64_t seed)
      : model_(model),
        arch_(model.arch()),
        parts_(parts),
        seed_(seed),
        residual_(parts.residual ? arch_.hidden : 1, seed) {}

  /// The whole tensor `name` of the rotated model, as floats.
  std::vector<float> tensor(const std::string& name) const {
    const std::string source = name == "output.weight" && arch_.tied ? "token_embd.weight" : name;
    const TensorInfo& info = model_.info(source);
    const int64_t columns = info.shape.back(), rows = element_count(info.shape) / columns;
    std::vector<float> values(static_cast<size_t>(rows * columns));
    model_.read_rows(source, 0, rows, values.data());
    model_.release(source);
    if (parts_.residual) turn_stream(name, rows, columns, values);
    if (parts_.value) turn_values(name, rows, columns, values);
    return values;
  }

 private:
  static bool ends(const std::string& name, std::string_view part) { return name.ends_with(part); }

  void turn_stream(const std::string& name, int64_t rows, int64_t columns,
                   std::vector<float>& values) const {
    if (is_stream_norm(name)) {
      std::fill(values.begin(), values.end(), 1.0f);
    } else if (name == "token_embd.weight") {
      residual_.apply_rows(values.data(), rows);
    } else if (ends(name, "attn_output.weight") || ends(name, "ffn_down.weight")) {
      residual_.apply_columns(values.data(), columns);
    } else if (ends(name, "attn_output.bias") || ends(name, "ffn_down.bias")) {
      residual_.apply_rows(values.data(), 1);
    } else if (const std::string norm = norm_before(name); !norm.empty()) {
      std::vector<float> weights(static_cast<size_t>(columns));
      model_.read_rows(norm, 0, 1, weights.data());
      for (size_t i = 0; i < values.size(); ++i)
        values[i] *= weights[i % static_cast<size_t>(columns)];
      residual_.apply_rows(values.data(), rows);
    }
  }

  /// Each key-value head's values turn, and the output's columns of the heads that read them.
  void turn_values(const std::string& name, int64_t rows, int64_t columns,
                   std::vector<float>& values) const {
    const int64_t dim = arch_.head_dim;
    const auto rotation = [&] {
      return Rotation(dim, seed_ + 1 + static_cast<uint64_t>(std::atoll(name.c_str() + 4)));
    };
    if (ends(name, "attn_v.weight")) {
      const Rotation turn = rotation();
      for (int64_t head = 0; head < rows / dim; ++head)
        turn.apply_columns(values.data() + head * dim * columns, columns);
    } else if (ends(name, "attn_v.bias")) {
      rotation().apply_rows(values.data(), columns / dim);
    } else if (ends(name, "attn_output.weight")) {
      rotation().apply_rows(values.data(), rows * columns / dim);
    }
  }

  static bool is_stream_norm(const std::string& name) {
    return name == "output_norm.weight" || ends(name, ".attn_norm.weight") ||
           ends(name, ".ffn_norm.weight");
  }

  /// The norm whose result a weight reads; "" for what does not read the stream.
  static std::string norm_before(const std::string& name) {
    if (name == "output.weight") return "output_norm.weight";
    for (const char* reader : {"attn_q.weight", "attn_k.weight", "attn_v.weight"})
      if (ends(name, reader)) return name.substr(0, name.rfind(".attn")) + ".attn_norm.weight";
    for (const char* reader : {"ffn_gate.weight", "ffn_up.weight"})
      if (ends(name, reader)) return name.substr(0, name.rfind(".ffn")) + ".ffn_norm.weight";
    return "";
  }

  const Model& model_;
  const Architecture& arch_;
  Parts parts_;
  uint64_t seed_;
  Rotation residual_;
};

Architecture rotated_architecture(const Model& model, const RotateOptions& options) {
  Architecture arch = model.arch();
  if (options.untie) {
    arch.tied = false;
    arch.parameters += arch.vocab * arch.hidden;
  }
  return arch;
}

/// The largest difference of 32 tokens' logits, and the largest logit.
std::pair<double, double> logit_difference(const Model& a, const Model& b) {
  const std::vector<int32_t> ids = smoke_tokens(a);
  const std::vector<float> first = smoke_logits(a, ids), second = smoke_logits(b, ids);
  double difference = 0, largest = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    const double distance =
        std::fabs(static_cast<double>(first[i]) - static_cast<double>(second[i]));
    difference = std::isnan(distance) ? INFINITY : std::max(difference, distance);
    largest = std::max(largest, std::fabs(static_cast<double>(first[i])));
  }
  return {difference, largest};
}

void check_rotated(const Model& source, const Model& written, bool exact, double& difference) {
  const auto [found, largest] = logit_difference(source, written);
  difference = found;
  // Rounding to 16 bits is a choice; in f32 the two must be one model.
  const double allowed =
      exact ? 1e-3 * std::max(1.0, largest / 30) : std::numeric_limits<double>::max();
  if (!std::isfinite(found) || !std::isfinite(largest))
    throw_not_finite(cat(source.path(), ": its logits, or the rotated model's, are not finite"));
  SLMC_CHECK(found <= allowed, cat(written.path(), ": the rotated model's logits differ by ", found,
                                   ", expected at most ", allowed));
}

}  // namespace

void RotateStage::visit(Fields& fields) {
  visit_source(options.model, options.output, fields);
  fields.visit({.name = "rotate",
                .help = "What is turned: the residual stream, and each head's values.",
                .choices = {"residual", "value"},
                .value_name = "PART"},
               options.rotate);
  fields.visit({.name = "untie",
                .help = "Gives a model whose head is its embedding a head of its own, which "
                        "rotating the residual stream needs."},
               options.untie);
  fields.visit({.name = "dtype",
                .help = "Type of the matrices; f32 keeps the logits, the others round.",
                .choices = {"f32", "f16", "bf16"}},
               options.dtype);
}

Plan RotateStage::plan(const Inputs& inputs) const {
  const Parts parts = parts_of(options);
  WeightStageOptions source;
  source.model = options.model;
  source.output = options.output;
  const std::shared_ptr<const Model> model = open_source(source, inputs);
  check_model(*model, parts, options);
  const Architecture arch = rotated_architecture(*model, options);
  Plan plan;
  plan.stage = "rotate";
  plan.output = options.output;
  plan.details = {{"model", model->path()}};
  uint64_t largest = 0;
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch)) {
    const bool added = spec.name == "output.weight" && model->arch().tied;
    const TensorInfo& info = model->info(added ? "token_embd.weight" : spec.name);
    const DType type =
        container_dtype(options.output, spec.name, spec.shape, dtype_from_name(options.dtype));
    const auto elements = static_cast<uint64_t>(element_count(spec.shape));
    plan.rows.push_back({.tensor = spec.name,
                         .file_name = info.file_name,
                         .shape = spec.shape,
                         .new_shape = spec.shape,
                         .from = std::string(dtype_name(info.dtype)),
                         .to = std::string(dtype_name(type)),
                         .reason = added ? "--untie" : "asked for",
                         .bytes_before = added ? 0 : info.bytes,
                         .bytes_after = elements * static_cast<uint64_t>(dtype_block_bytes(type))});
    largest = std::max(largest, elements);
    plan.output_bytes += plan.rows.back().bytes_after;
  }
  // A tensor as floats and as written, or the check of either model.
  plan.predicted_peak_bytes =
      program_bytes(*model) +
      std::max(8 * largest + (uint64_t{64} << 20), smoke_test_bytes(model->arch(), plan.rows));
  plan.predicted_seconds = work_seconds(*model, 30, plan.output_bytes);
  return plan;
}

Report RotateStage::run(const Plan& plan, Context& context) {
  const double start = now_seconds();
  const std::shared_ptr<const Model> model =
      Model::open(plan.details.at("model").get<std::string>(), options.output);
  const Parts parts = parts_of(options);
  check_model(*model, parts, options);
  check_predicted_ram(plan, context);
  check_output(options.output, context.force);
  const std::string hash = model->content_hash();
  OutputSpec spec;
  spec.path = options.output;
  spec.arch = rotated_architecture(*model, options);
  spec.config = model->config();
  spec.assets = model->assets();
  for (const PlanRow& row : plan.rows)
    spec.tensors.push_back({row.tensor, dtype_from_name(row.to), row.new_shape});
  spec.name = source_name(*model);
  spec.metadata = {{"slmc.version", slmc_version()},
                   {"slmc.stage", "rotate"},
                   {"slmc.rotate", cat(join(options.rotate, ","), " seed=", context.seed)},
                   {"slmc.source.hash", hash}};
  spec.force = context.force;
  spec.resume = context.resume;
  const std::unique_ptr<ModelWriter> writer = ModelWriter::create(std::move(spec));
  const Rotator rotator(*model, parts, context.seed);
  Progress& progress = progress_of(context);
  const auto known = std::count_if(plan.rows.begin(), plan.rows.end(),
                                   [&](const PlanRow& row) { return writer->done(row.tensor); });
  progress.begin("rotate", plan.rows.size(), "tensors", static_cast<uint64_t>(known));
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const PlanRow& row = plan.rows[i];
    context.check_interrupt();
    context.check_ram(row.tensor);
    if (!writer->done(row.tensor)) {
      const std::vector<float> values = rotator.tensor(row.tensor);
      const DType type = dtype_from_name(row.to);
      const int64_t columns = row.shape.back(), rows = element_count(row.shape) / columns;
      std::vector<std::byte> bytes(dtype_row_bytes(type, columns) * static_cast<uint64_t>(rows));
      encode_rows(type, values.data(), rows, columns, bytes.data(), cat("tensor ", row.tensor));
      writer->write_rows(row.tensor, 0, rows, bytes.data());
    }
    progress.update(i + 1, row.tensor);
  }
  double difference = 0;
  const bool exact = std::all_of(plan.rows.begin(), plan.rows.end(),
                                 [](const PlanRow& row) { return row.to == "f32"; });
  writer->finish([&](const Model& written) { check_rotated(*model, written, exact, difference); });
  progress.end();
  Report report = make_report(*this, plan, now_seconds() - start, context);
  report["inputs"] = {{"model", model_facts(*model, hash)}};
  report["size_bytes"] = writer->total_bytes();
  report["logit_difference"] = difference;
  report["summary"] = cat("rotated: ", join(options.rotate, ", "), "; 32 tokens' logits differ by ",
                          difference, " at most");
  return report;
}

}  // namespace slmc

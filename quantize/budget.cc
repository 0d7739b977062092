#include "quantize/budget.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_vocabulary.h"
#include "formats/block_codec.h"
#include "formats/family.h"
#include "formats/output_layout.h"
#include "quantize/budget_costs.h"
#include "quantize/divergence.h"

namespace slmc {
namespace {

constexpr DType kBlockTypes[] = {DType::kQ2_K, DType::kQ3_K, DType::kIQ4_XS, DType::kIQ4_NL,
                                 DType::kQ4_0, DType::kQ4_1, DType::kQ4_K,   DType::kQ5_0,
                                 DType::kQ5_1, DType::kQ5_K, DType::kQ6_K,   DType::kQ8_0};

std::vector<DType> candidate_types(const BudgetOptions& options) {
  if (options.target_types.empty()) return {std::begin(kBlockTypes), std::end(kBlockTypes)};
  std::vector<DType> types;
  for (const std::string& name : options.target_types) {
    const DType type = dtype_from_name(name);
    const bool known =
        std::find(std::begin(kBlockTypes), std::end(kBlockTypes), type) != std::end(kBlockTypes);
    if (!known && !dtype_is_float(type))
      throw_usage(cat("--target-types: ", name, " is no type of a GGUF's matrices"));
    if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
  }
  return types;
}

/// Ascending by bytes; those that divide the rows.
std::vector<DType> fitting_types(const BudgetOptions& options, const TensorInfo& info) {
  std::vector<DType> types;
  for (const DType type : candidate_types(options))
    if (info.shape.back() % dtype_block(type) == 0) types.push_back(type);
  const bool keeps = info.dtype == DType::kBF16 || info.dtype == DType::kF16;
  if (options.target_types.empty()) types.push_back(keeps ? info.dtype : DType::kF16);
  if (types.empty())
    throw_usage(cat("--target-types: none divides the rows of ", info.name, ", ", info.shape.back(),
                    "; add f16"));
  std::stable_sort(types.begin(), types.end(),
                   [&](DType a, DType b) { return tensor_bytes(info, a) < tensor_bytes(info, b); });
  return types;
}

/// Bits a weight that the target comes to on average; where it does not say, a usual one.
double average_bits(const BudgetOptions& options, const Model& model) {
  double bits = 4.5;
  if (!options.target_size.empty())
    bits = 8.0 * static_cast<double>(parse_bytes(options.target_size, "target-size")) /
           static_cast<double>(std::max<int64_t>(1, model.arch().parameters));
  if (options.target_bpw > 0) bits = options.target_bpw;
  if (options.target_speed > 0) bits = 8.5 / options.target_speed;
  return std::clamp(bits, 3.0, 8.5);
}

/// The block types nearest to that average.
std::vector<size_t> anchors_of(const BudgetOptions& options, const Model& model,
                               const BudgetGroup& group) {
  const double wanted = average_bits(options, model);
  std::vector<size_t> anchors;
  // What a rule has fixed costs something too, unless it keeps floats.
  if (group.types.size() == 1 && dtype_is_float(group.types.front())) return anchors;
  const auto distance = [&](size_t t) {
    const DType type = group.types[t];
    return std::fabs(8.0 * static_cast<double>(dtype_block_bytes(type)) /
                         static_cast<double>(dtype_block(type)) -
                     wanted);
  };
  for (size_t t = 0; t < group.types.size(); ++t) anchors.push_back(t);
  std::stable_sort(anchors.begin(), anchors.end(),
                   [&](size_t a, size_t b) { return distance(a) < distance(b); });
  anchors.resize(std::min(anchors.size(), static_cast<size_t>(options.target_measured)));
  return anchors;
}

std::string names_of(const std::vector<DType>& types) {
  std::vector<std::string> names;
  for (const DType type : types) names.emplace_back(dtype_name(type));
  return join(names, ", ");
}

}  // namespace

void visit_budget(BudgetOptions& options, Fields& fields) {
  fields.visit({.name = "target_size",
                .help = "Chooses every tensor's type by measurement, so that the file has at most "
                        "this many bytes, such as 900MB, and loses least.",
                .value_name = "SIZE"},
               options.target_size);
  fields.visit({.name = "target_bpw",
                .help = "The same for bits a weight over all tensors.",
                .min = 0,
                .max = 32,
                .value_name = "X"},
               options.target_bpw);
  fields.visit({.name = "target_kld",
                .help = "The smallest file whose divergence from the model, in nats a token on the "
                        "calibration text, is at most this.",
                .min = 0,
                .value_name = "X"},
               options.target_kld);
  fields.visit({.name = "target_speed",
                .help = "The same for speed: each token reads at most 1/X of the bytes that this "
                        "runtime would read with every matrix in q8_0.",
                .min = 0,
                .max = 100,
                .value_name = "X"},
               options.target_speed);
  fields.visit({.name = "target_types",
                .help = "Types that a target may choose from; without it all block types and the "
                        "source's own.",
                .value_name = "TYPE"},
               options.target_types);
  fields.visit(
      {.name = "target_tokens",
       .help = "Tokens of the calibration text on which a file's divergence is measured; that "
               "of single tensors on a quarter of them.",
       .min = 16,
       .value_name = "N"},
      options.target_tokens);
  fields.visit({.name = "target_measured",
                .help = "Types of each tensor whose divergence is measured; the others follow from "
                        "their error in the layer's output.",
                .min = 1,
                .max = 16,
                .value_name = "N"},
               options.target_measured);
}

bool has_target(const BudgetOptions& options) {
  return !options.target_size.empty() || options.target_bpw > 0 || options.target_kld > 0 ||
         options.target_speed > 0;
}

std::string target_text(const BudgetOptions& options) {
  if (!options.target_size.empty()) return "size=" + options.target_size;
  if (options.target_bpw > 0) return cat("bpw=", options.target_bpw);
  if (options.target_kld > 0) return cat("kld=", options.target_kld);
  return options.target_speed > 0 ? cat("speed=", options.target_speed) : "";
}

std::vector<Candidates> budget_candidates(const BudgetOptions& options, const Model& model,
                                          const std::vector<Rule>& rules,
                                          const std::string& output) {
  const int targets = !options.target_size.empty() + (options.target_bpw > 0) +
                      (options.target_kld > 0) + (options.target_speed > 0);
  if (targets > 1)
    throw_usage("--target-size, --target-bpw, --target-kld, --target-speed: give one of them");
  if (!is_gguf_path(output))
    throw_unsupported(cat(output,
                          ": a target chooses among the types of a GGUF; name an output "
                          "that ends in .gguf"));
  if (model.arch().encoder)
    throw_unsupported(
        cat(model.path(), ": ", model.arch().family,
            " is an encoder, which gives no distribution to measure; name a --scheme"));
  // The mix says which matrices are not to be touched, the rules what the caller wants.
  const std::vector<TypeChoice> fixed = choose_types(model, scheme_by_name("q8_0"), rules);
  std::vector<Candidates> candidates;
  for (size_t i = 0; i < fixed.size(); ++i) {
    const TensorInfo& info = model.tensors()[i];
    const bool decided = info.shape.size() < 2 || fixed[i].type == DType::kF32 ||
                         fixed[i].reason.starts_with("rule '");
    if (decided) {
      candidates.push_back({{fixed[i].type}, fixed[i].reason});
    } else {
      candidates.push_back({fitting_types(options, info), "target " + target_text(options)});
    }
  }
  return candidates;
}

std::vector<BudgetGroup> budget_groups(const BudgetOptions& options, const Model& model,
                                       const std::vector<Candidates>& candidates) {
  std::unordered_map<std::string, std::string> stored_name;
  for (const TensorSpec& spec : family_by_name(model.arch().family).tensors(model.arch()))
    if (spec.gguf.rows > 0) stored_name[spec.name] = spec.gguf.name;
  std::vector<BudgetGroup> groups;
  std::unordered_map<std::string, size_t> index;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const TensorInfo& info = model.tensors()[i];
    if (info.shape.size() < 2) continue;
    const auto stored = stored_name.find(info.name);
    const std::string key = stored == stored_name.end() ? info.name : stored->second;
    const auto [at, fresh] = index.try_emplace(key, groups.size());
    if (fresh) groups.push_back({{}, candidates[i].types, {}});
    BudgetGroup& group = groups[at->second];
    group.tensors.push_back(info.name);
    if (candidates[i].types.size() < group.types.size()) group.types = candidates[i].types;
  }
  for (BudgetGroup& group : groups) group.anchors = anchors_of(options, model, group);
  return groups;
}

int64_t single_tokens(const BudgetOptions& options) { return (options.target_tokens + 3) / 4; }

void plan_budget(const BudgetOptions& options, const Model& model,
                 const std::vector<Candidates>& candidates, uint64_t smallest_bytes,
                 SensitivitySize size, Plan& plan) {
  const std::vector<BudgetGroup> groups = budget_groups(options, model, candidates);
  uint64_t vectors = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (model.tensors()[i].shape.size() < 2) vectors += plan.rows[i].bytes_after;
    if (candidates[i].types.size() > 1)
      plan.rows[i].to = cat("one of {", names_of(candidates[i].types), "}, by measurement");
  }
  const uint64_t around =
      smallest_bytes - smallest_cost(items_of(Measure::kFile, model, groups, {}));
  plan.details["budget"] = {
      {"target", target_text(options)}, {"bytes_around", around}, {"vector_bytes", vectors}};
  for (const BudgetGroup& group : groups) size.variants += group.anchors.size();
  plan.details["budget"]["measuring_seconds"] = sensitivity_seconds(model, size);
  plan.details["budget"]["measuring_peak_bytes"] = sensitivity_peak_bytes(model, groups, size);
  if (options.target_kld > 0) return;
  const Measure measure = measure_of(options);
  const uint64_t least = smallest_cost(items_of(measure, model, groups, {}));
  const uint64_t limit = limit_of(options, model, groups, around, vectors);
  if (!options.target_size.empty())
    plan.output_bytes = parse_bytes(options.target_size, "target-size");
  if (least <= limit) return;
  if (!options.target_size.empty())
    throw_usage(cat("--target-size ", options.target_size, ": the smallest possible file has ",
                    smallest_bytes, " bytes (", human_bytes(smallest_bytes), ")"));
  if (options.target_bpw > 0)
    throw_usage(cat("--target-bpw ", options.target_bpw, ": the smallest possible is ",
                    fixed(8.0 * static_cast<double>(least + vectors) /
                                  static_cast<double>(model.arch().parameters) +
                              0.0005,
                          3)));
  throw_usage(cat(
      "--target-speed ", options.target_speed, ": the fastest possible is ",
      fixed(options.target_speed * static_cast<double>(limit) / static_cast<double>(least) - 0.0005,
            3)));
}

void check_size(const BudgetOptions& options, uint64_t bytes) {
  if (options.target_size.empty()) return;
  SLMC_CHECK(
      bytes <= parse_bytes(options.target_size, "target-size"),
      cat("the file would have ", bytes, " bytes, over --target-size ", options.target_size));
}

double measured_divergence(const Model& model, const std::string& written,
                           const CalibrationData& data, int64_t tokens, Context& context) {
  const std::shared_ptr<const Model> file = Model::open(written);
  DivergenceMeter meter(model, common_vocabulary(model, *file), measuring_windows(data, tokens));
  return mean_divergence(meter, *file, context);
}

}  // namespace slmc

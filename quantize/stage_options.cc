// The quantize stage's options: how they are named, and what they may not be together.
#include "quantize/stage_options.h"

#include <algorithm>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/compressed_tensors.h"
#include "formats/output_layout.h"
#include "quantize/observer.h"
#include "quantize/stage_target.h"

namespace slmc {
namespace fs = std::filesystem;

void QuantizeStage::visit(Fields& fields) {
  visit_source(options.model, options.output, fields);
  fields.visit({.name = "scheme",
                .help = "The mix of types; with a target, one to compare with.",
                .choices = scheme_names(),
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
  fields.visit({.name = "group_size",
                .help = "w4a16, w8a16: columns that share a scale: 32, 64, 128, or -1 for the row; "
                        "0: the scheme's own.",
                .min = -1,
                .value_name = "N"},
               options.group_size);
  fields.visit({.name = "asymmetric", .help = "w4a16: a zero point beside each scale."},
               options.asymmetric);
  fields.visit({.name = "smooth",
                .help = "Scales channels by this method before the other one rounds, as in "
                        "--method gptq --smooth awq.",
                .choices = smoother_names(),
                .value_name = "M"},
               options.smooth);
  fields.visit({.name = "smooth_alpha",
                .help = "smoothquant: how much of the inputs' range goes to the weights, 0 to 1; "
                        "-1: 0.5.",
                .min = -1,
                .max = 1,
                .value_name = "X"},
               options.smooth_alpha);
  fields.visit({.name = "observer",
                .help = "w8a8: fixes each layer's input scale from calibration text, by this rule; "
                        "without it every token has a scale of its own.",
                .choices = observer_names(),
                .value_name = "O"},
               options.observer);
  fields.visit(
      {.name = "kv_type",
       .help = "w4a16, w8a16, w8a8: the folder says that keys and values are kept in 8 bits, "
               "with scales from calibration text (by --observer, else minmax).",
       .choices = {"int8"}},
      options.kv_type);
  visit_budget(options, fields);
  visit_calibration(options, fields);
  fields.visit({.name = "imatrix",
                .help = "An importance matrix (GGUF, from slmc or llama.cpp) in place of "
                        "calibration text, for --method imatrix.",
                .value_name = "FILE"},
               options.imatrix);
  fields.visit(
      {.name = "damping",
       .help = "gptq: added to the diagonal of the inputs' second moments, times its mean.",
       .min = 0,
       .max = 1,
       .value_name = "X"},
      options.damping);
  fields.visit({.name = "act_order",
                .help = "gptq: rounds columns in order of falling activation, with scales chosen "
                        "beforehand."},
               options.act_order);
  fields.visit({.name = "sweeps",
                .help = "gptq: sweeps of coordinate descent over the codes afterwards.",
                .min = 0,
                .max = 100,
                .value_name = "N"},
               options.sweeps);
  fields.visit(
      {.name = "correction",
       .help = "gptq: share of what earlier layers lost that later ones are fitted to make "
               "good; 0 spares the original model's pass.",
       .min = 0,
       .max = 1,
       .value_name = "X"},
      options.correction);
  fields.visit({.name = "allow_fallback",
                .help = "Rounds a tensor to nearest where the method cannot be used, in place of "
                        "an error; the report names it."},
               options.allow_fallback);
  visit_cost(options, fields);
  fields.visit({.name = "modelfile", .help = "Also write an Ollama Modelfile beside the GGUF."},
               options.modelfile);
}

const Method* smoother_of(const QuantizeOptions& options, const Method& method) {
  if (!options.smooth.empty()) return &method_by_name(options.smooth);
  return method.smooth != nullptr ? &method : nullptr;
}

bool learns(const QuantizeOptions& options, const Method& method) {
  return needs_calibration(method) || smoother_of(options, method) != nullptr ||
         !options.observer.empty() || !options.kv_type.empty();
}

namespace {

/// Options that have no effect on this run are mistakes.
void check_belonging(const QuantizeOptions& options, const Method& method) {
  const QuantizeOptions plain;
  if (!has_target(options))
    for (const auto& [name, given] :
         {std::pair("types", !options.target_types.empty()),
          std::pair("tokens", options.target_tokens != plain.target_tokens),
          std::pair("measured", options.target_measured != plain.target_measured)})
      if (given)
        throw_usage(cat("--target-", name, " belongs to a target, and there is none; give ",
                        "--target-size, --target-bpw, --target-kld or --target-speed"));
  if (method.name == "gptq") return;
  for (const auto& [name, given] :
       {std::pair("damping", options.damping != plain.damping),
        std::pair("act-order", options.act_order != plain.act_order),
        std::pair("sweeps", options.sweeps != plain.sweeps),
        std::pair("correction", options.correction != plain.correction)})
    if (given)
      throw_usage(cat("--", name, " belongs to method gptq, and the method is ", method.name));
}

void check_calibration_files(const QuantizeOptions& options) {
  for (const std::string& file : options.calibration) {
    std::error_code error;
    if (!fs::is_regular_file(file, error))
      throw_bad_input(cat(file, ": the calibration text is not a file that can be read"));
  }
}

}  // namespace

void check_statistics(const QuantizeOptions& options, const Method& method) {
  check_belonging(options, method);
  const bool text = !options.calibration.empty(), matrix = !options.imatrix.empty();
  if (!text && !(options.backend.empty() && options.forward_dtype.empty()))
    throw_usage(
        "--backend and --forward-dtype say how the model is run over calibration text: give "
        "--calibration FILE, or leave them out");
  const Method* smoother = smoother_of(options, method);
  if (smoother != nullptr && smoother->smooth == nullptr) {
    throw_usage(
        cat("--smooth ", options.smooth, ": expected one of ", join(smoother_names(), ", ")));
  }
  if (options.smooth_alpha >= 0 && (smoother == nullptr || smoother->name != "smoothquant"))
    throw_usage("--smooth-alpha belongs to smoothquant, which is not asked for");
  if (smoother != nullptr || !options.observer.empty() || !options.kv_type.empty()) {
    if (!options.observer.empty()) observer_by_name(options.observer);
    const std::string what = smoother != nullptr       ? smoother->name
                             : options.kv_type.empty() ? cat("--observer ", options.observer)
                                                       : cat("--kv-type ", options.kv_type);
    if (matrix)
      throw_usage(cat(what, " needs the inputs themselves: --calibration FILE, not --imatrix"));
    if (!text) throw_usage(cat(what, " needs calibration text: --calibration FILE"));
  }
  if (has_target(options)) {
    if (!text)
      throw_usage(cat("target ", target_text(options),
                      " is met by measuring: --calibration FILE names the text to measure on"));
    if (matrix && (!needs_calibration(method) || needs_statistic(method, Statistic::kHessian)))
      throw_usage(cat("method ", method.name, " does not look at --imatrix; leave it out"));
    check_calibration_files(options);
    return;
  }
  if (!learns(options, method)) {
    if (text || matrix)
      throw_usage(cat("method ", method.name, " does not look at inputs: --",
                      text ? "calibration" : "imatrix",
                      " would have no effect; choose --method imatrix or gptq, or leave it out"));
    return;
  }
  if (text && matrix) throw_usage("--calibration and --imatrix: give one of them");
  if (matrix && needs_statistic(method, Statistic::kHessian)) {
    throw_usage(cat("method ", method.name,
                    " needs the inputs' correlations, which an importance matrix does not hold; "
                    "give --calibration FILE"));
  }
  if (!text && !matrix)
    throw_usage(cat("method ", method.name, " needs calibration text: --calibration FILE",
                    needs_statistic(method, Statistic::kHessian) ? "" : ", or --imatrix FILE"));
  check_calibration_files(options);
}

void regroup(const QuantizeOptions& options, const Model& model, std::vector<TypeChoice>& choices) {
  bool any = false;
  for (size_t i = 0; i < choices.size(); ++i) {
    TypeChoice& choice = choices[i];
    if (!is_group_type(choice.type)) continue;
    any = true;
    const TensorInfo& tensor = model.tensors()[i];
    GroupFacts facts = group_facts(choice.type);
    if (options.group_size != 0) facts.group = std::max<int64_t>(0, options.group_size);
    if (options.asymmetric) facts.zero_point = true;
    const bool rounds = facts.inputs != InputRounding::kNone;
    if (!options.observer.empty() && !rounds && options.kv_type.empty())
      throw_usage(
          cat("--observer belongs to w8a8, whose inputs are rounded, not to ", options.scheme));
    if (!options.observer.empty() && rounds) facts.inputs = InputRounding::kStatic;
    choice.type = group_type(facts, cat("--scheme ", options.scheme));
    if (tensor.shape.back() % dtype_block(choice.type) == 0) continue;
    throw_unsupported(cat(tensor.name, " has rows of ", tensor.shape.back(),
                          ", which do not divide by ", dtype_block(choice.type),
                          "; give a smaller --group-size, or --rule 'REGEX=bf16' for it"));
  }
  if (any) return;
  if (options.group_size != 0 || options.asymmetric) {
    throw_usage(
        cat("--group-size and --asymmetric belong to compressed-tensors' schemes (w4a16, "
            "w8a16), not to ",
            options.scheme));
  }
  if (!options.observer.empty())
    throw_usage(
        cat("--observer belongs to w8a8, whose inputs are rounded, not to ", options.scheme));
  if (!options.kv_type.empty())
    throw_usage(
        cat("--kv-type belongs to compressed-tensors' schemes (w4a16, w8a16, w8a8), not to ",
            scheme_text(options),
            "; the runtime's own --kv-type (eval, generate, chat) needs "
            "nothing in the file"));
}

void check_container(const QuantizeOptions& options, const std::vector<TypeChoice>& choices) {
  if (is_gguf_path(options.output)) {
    for (const TypeChoice& choice : choices) {
      if (is_group_type(choice.type))
        throw_unsupported(cat(options.output, ": a GGUF cannot hold ", dtype_name(choice.type),
                              " of compressed-tensors; name a folder, or a scheme such as q4_k_m"));
    }
    return;
  }
  if (options.modelfile)
    throw_usage(cat("--modelfile needs a GGUF; ", options.output, " does not end in .gguf"));
  for (const TypeChoice& choice : choices) {
    if (dtype_is_float(choice.type) || is_group_type(choice.type)) continue;
    throw_unsupported(cat(options.output, ": a safetensors folder cannot hold ",
                          dtype_name(choice.type), "; name an output that ends in .gguf"));
  }
}

}  // namespace slmc

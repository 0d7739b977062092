#include "compress/runtime/weight_stage.h"

#include <algorithm>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate.h"
#include "compress/runtime/smoke_test.h"
#include "compress/runtime/streamed_bytes.h"

namespace slmc {
namespace fs = std::filesystem;

void visit_source(std::string& model, std::string& output, Fields& fields) {
  fields.visit({.name = "model",
                .help = "Source: a Hugging Face folder or a GGUF file.",
                .positional = true,
                .value_name = "MODEL"},
               model);
  fields.visit({.name = "output",
                .help = "File or folder to write; a name that ends in .gguf is a GGUF.",
                .required = true,
                .short_flag = "o",
                .value_name = "OUT"},
               output);
}

void visit_cost(WeightStageOptions& options, Fields& fields) {
  fields.visit({.name = "eval_text",
                .help = "Text on which the written file is measured against the source.",
                .value_name = "FILE"},
               options.eval_text);
  fields.visit({.name = "eval_tokens",
                .help = "Tokens of eval_text to use at most; 0 for all.",
                .min = 0,
                .value_name = "N"},
               options.eval_tokens);
  fields.visit(
      {.name = "check",
       .help = "What is proven of the written file: 32 tokens through the runtime and its "
               "bytes (run), or its bytes alone (bytes, which saves a reading of the file).",
       .choices = {"run", "bytes"}},
      options.check);
  fields.visit(
      {.name = "dequantize",
       .help = "Accept a source that is already quantized; its error stays in the result."},
      options.dequantize);
}

std::string source_path(const WeightStageOptions& options, const Inputs& inputs) {
  const auto given = inputs.paths.find("model");
  if (given != inputs.paths.end() && !given->second.empty()) return given->second;
  if (options.model.empty())
    throw_usage("model is missing: name a Hugging Face folder or a GGUF file");
  return options.model;
}

std::shared_ptr<const Model> open_source(const WeightStageOptions& options, const Inputs& inputs) {
  const std::string path = source_path(options, inputs);
  std::shared_ptr<const Model> model = Model::open(path, options.output);
  std::error_code error;
  if (!options.output.empty() && fs::equivalent(path, options.output, error) && !error) {
    throw_usage(cat(options.output, ": the output is the source itself; choose another name"));
  }
  if (!options.eval_text.empty() && !fs::is_regular_file(options.eval_text, error)) {
    throw_bad_input(cat(options.eval_text, ": eval_text is not a file that can be read"));
  }
  for (const TensorInfo& tensor : model->tensors()) {
    if (dtype_is_float(tensor.dtype) || options.dequantize) continue;
    throw_unsupported(cat(path, ": ", tensor.name, " is already ", dtype_name(tensor.dtype),
                          "; start from the f32, f16 or bf16 checkpoint, or give --dequantize to "
                          "build on the rounded values"));
  }
  return model;
}

std::string source_name(const Model& source) {
  for (const auto& [key, value] : source.metadata()) {
    if (key == "general.name" && !value.empty()) return value;
  }
  const fs::path path = fs::path(source.path()).lexically_normal();
  const fs::path last = path.has_filename() ? path : path.parent_path();
  return (source.container() == "gguf" ? last.stem() : last.filename()).string();
}

uint64_t program_bytes(const Model& source) {
  return (uint64_t{24} << 20) + 12 * source.assets().tokenizer_json.size();
}

uint64_t cost_peak_bytes(const WeightStageOptions& options, const Model& source, const Plan& plan,
                         int64_t window) {
  const Architecture& arch = source.arch();
  uint64_t peak = options.check == "run" ? smoke_test_bytes(arch, plan.rows) : 0;
  if (!options.eval_text.empty()) {
    if (window == 0) window = default_window(arch);
    const Pieces written = pieces_of(arch, plan.rows);
    // An encoder is whole in memory, and as written twice: in f32 and in q8.
    peak = std::max(peak, arch.encoder ? 2 * plan.output_bytes + source.size_bytes()
                                       : streamed_bytes({written, written, pieces_of(source)},
                                                        window, options.eval_tokens));
  }
  return peak;
}

double work_seconds(const Model& source, double nanoseconds, uint64_t output_bytes) {
  constexpr double kDiskBytesPerSecond = 1e9;
  return static_cast<double>(source.arch().parameters) * nanoseconds * 1e-9 / threads() +
         static_cast<double>(output_bytes) / kDiskBytesPerSecond;
}

double cost_seconds(const WeightStageOptions& options, const Model& source) {
  // Repacking reads each weight once; a token is a multiply and an add a weight, and the text runs
  // through both models.
  constexpr double kRepackNanoseconds = 6, kTokenNanoseconds = 0.04;
  const auto weights = static_cast<double>(source.arch().parameters);
  double nanoseconds =
      options.check == "run" ? weights * (kRepackNanoseconds + 32 * kTokenNanoseconds) : 0;
  if (!options.eval_text.empty()) {
    nanoseconds +=
        weights * (2 * kRepackNanoseconds +
                   3 * kTokenNanoseconds *
                       static_cast<double>(options.eval_tokens > 0 ? options.eval_tokens : 100000));
  }
  return nanoseconds * 1e-9 / threads();
}

void check_written(const WeightStageOptions& options, const Model& written,
                   const Context& context) {
  if (options.check != "run") return;
  smoke_test(written);
  context.check_ram("the check of the written file");
}

Json measure_cost(const WeightStageOptions& options, const Model& source, const std::string& output,
                  Context& context) {
  if (options.eval_text.empty()) return "not measured";
  const std::shared_ptr<const Model> written = Model::open(output);
  // Where weights are quantized they will run with int8 activations, so those figures are given
  // too.
  const bool blocks =
      std::any_of(written->tensors().begin(), written->tensors().end(),
                  [](const TensorInfo& info) { return !dtype_is_float(info.dtype); });
  Json cost = evaluate_text(*written, &source, options.eval_text,
                            {.max_tokens = options.eval_tokens, .also_q8 = blocks}, context);
  context.check_ram("evaluation");
  return cost;
}

std::string cost_line(const Json& cost) {
  if (!cost.is_object() || !cost.contains("against"))
    return "cost: not measured (--eval-text FILE measures it)";
  const Json& against = cost["against"];
  const auto number = [](const Json& of, const char* key, int digits) {
    return fixed(of.value(key, 0.0), digits);
  };
  return cat("cost: perplexity ", number(against, "perplexity", 3), " -> ",
             number(cost, "perplexity", 3), ", KLD ", number(against, "kld_mean", 5),
             " nats, top-1 agreement ", fixed(100 * against.value("top1_agreement", 0.0), 2),
             "% over ", cost.value("tokens", int64_t{0}), " tokens (protocol ",
             cost.value("protocol", ""), ", context ", cost.value("context", int64_t{0}), ", ",
             cost.value("activations", ""), ")");
}

Json model_facts(const Model& model, const std::string& hash) {
  return {{"path", model.path()},
          {"hash", hash},
          {"size_bytes", model.size_bytes()},
          {"parameters", model.arch().parameters}};
}

}  // namespace slmc

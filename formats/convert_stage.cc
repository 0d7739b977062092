#include "formats/convert_stage.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/smoke_test.h"
#include "compress/runtime/weight_stage.h"
#include "formats/block_codec.h"
#include "formats/lora.h"
#include "formats/model.h"
#include "formats/model_writer.h"
#include "formats/tensor_stream.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kWorkingBytes =
    100'000'000;  // Pieces of 16 MB in three forms, the program, the tokenizer's texts.

/// The float type that config.json names; f32 when it names none.
DType config_dtype(const Json& config) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (!config.contains(key) || !config[key].is_string()) continue;
    if (config[key] == "float16") return DType::kF16;
    if (config[key] == "bfloat16") return DType::kBF16;
  }
  return DType::kF32;
}

/// Whether narrowing loses nothing: true of a GGUF's f32 vectors that came from a 16-bit
/// checkpoint.
bool holds_exactly(const Model& model, const TensorInfo& info, DType narrow) {
  const int64_t columns = info.shape.back();
  std::vector<float> values(static_cast<size_t>(columns)), back(values.size());
  std::vector<std::byte> bytes(dtype_row_bytes(narrow, columns));
  model.read_rows(info.name, 0, 1, values.data());
  block_codec(narrow).encode(values.data(), columns, bytes.data());
  block_codec(narrow).decode(bytes.data(), columns, back.data());
  return values == back;
}

/// The type a tensor will have and why.
std::pair<DType, std::string> choose(const Model& model, const TensorInfo& info,
                                     const ConvertOptions& options, const std::string& output) {
  if (options.dtype != "keep") {
    const DType wanted = dtype_from_name(options.dtype);
    const DType held = container_dtype(output, info.name, info.shape, wanted);
    return {held, held == wanted ? "asked for" : "a GGUF keeps this tensor in f32"};
  }
  if (!dtype_is_float(info.dtype) && !output.ends_with(".gguf")) {
    throw_unsupported(
        cat(model.path(), ": tensor ", info.file_name, " is ", dtype_name(info.dtype),
            ", which a safetensors folder cannot hold; give --dtype f16, bf16 or f32"));
  }
  const DType held = container_dtype(output, info.name, info.shape, info.dtype);
  if (held != info.dtype) return {held, "a GGUF keeps this tensor in f32"};
  const DType narrow = config_dtype(model.config());
  if (model.container() == "gguf" && !output.ends_with(".gguf") &&
      gguf_keeps_f32(info.name, info.shape) && info.dtype == DType::kF32 && narrow != DType::kF32 &&
      holds_exactly(model, info, narrow)) {
    return {narrow, "the configuration's type holds it exactly"};
  }
  return {held, "kept"};
}

/// Which files a source is; its hash would be read from all of them.
std::string stamp_of(const std::string& path) {
  std::string stamp;
  const auto add = [&](const fs::path& file) {
    std::error_code error;
    stamp += cat(file.filename().string(), " ", fs::file_size(file, error), " ",
                 fs::last_write_time(file, error).time_since_epoch().count(), "\n");
  };
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    add(path);
    return stamp;
  }
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) add(file);
  return stamp;
}

OutputSpec make_spec(const Model& model, const Plan& plan) {
  OutputSpec spec;
  spec.path = plan.output;
  spec.arch = model.arch();
  spec.config = model.config();
  spec.assets = model.assets();
  for (const PlanRow& row : plan.rows)
    spec.tensors.push_back({row.tensor, dtype_from_name(row.to), row.new_shape});
  spec.name = source_name(model);
  spec.metadata = {{"slmc.version", slmc_version()}, {"slmc.stage", "convert"}};
  return spec;
}

}  // namespace

void ConvertStage::visit(Fields& fields) {
  fields.visit({.name = "model",
                .help = "The checkpoint to convert: a Hugging Face folder or a GGUF file.",
                .required = true,
                .positional = true,
                .value_name = "MODEL"},
               options_.model);
  fields.visit(
      {.name = "output",
       .help =
           "What to write: a name ending in .gguf gives a GGUF, any other a safetensors folder.",
       .required = true,
       .short_flag = "o",
       .value_name = "OUT"},
      options_.output);
  fields.visit({.name = "adapter",
                .help = "A LoRA adapter to merge into the weights: PEFT's folder, or a GGUF. The "
                        "sum is rounded once, to the output's type.",
                .value_name = "FOLDER|FILE"},
               options_.adapter);
  fields.visit({.name = "dtype",
                .help = "Type of the matrices; keep leaves each as it is.",
                .choices = {"keep", "f32", "f16", "bf16"}},
               options_.dtype);
}

Plan ConvertStage::plan(const Inputs& inputs) const {
  const auto source = [&inputs](const char* key, const std::string& option) {
    const auto found = inputs.paths.find(key);
    return found == inputs.paths.end() ? option : found->second;
  };
  const std::string path = source("model", options_.model);
  const auto model = Model::open(path, source("output", options_.output));
  std::error_code error;
  if (std::filesystem::equivalent(path, source("output", options_.output), error) && !error) {
    throw_usage(cat(path, ": the output is the source itself; choose another name"));
  }
  Plan plan;
  plan.stage = name();
  plan.output = source("output", options_.output);
  plan.details = {{"model", path}};
  LoraAdapter adapter;
  if (!options_.adapter.empty()) adapter = read_lora(options_.adapter, model->arch());
  uint64_t largest_permuted = 0;
  for (const TensorInfo& info : model->tensors()) {
    const bool adapted = adapter.adapts(info.name);
    if (adapted && !dtype_is_float(info.dtype) && options_.dtype == "keep")
      throw_unsupported(cat(path, ": tensor ", info.file_name, " is ", dtype_name(info.dtype),
                            "; merging writes other weights, give --dtype f16, bf16 or f32"));
    auto [to, reason] = choose(*model, info, options_, plan.output);
    if (adapted) reason = cat("with the adapter of rank ", adapter.lora.rank);
    const uint64_t after = dtype_row_bytes(to, info.shape.back()) *
                           static_cast<uint64_t>(element_count(info.shape) / info.shape.back());
    plan.rows.push_back({info.name, info.file_name, info.shape, info.shape,
                         std::string(dtype_name(info.dtype)), std::string(dtype_name(to)), reason,
                         info.bytes, after});
    if (info.name.find("attn_") != std::string::npos)
      largest_permuted = std::max(largest_permuted, info.bytes);
    plan.output_bytes += after;
  }
  plan.predicted_peak_bytes =
      kWorkingBytes + std::max(2 * largest_permuted, smoke_test_bytes(model->arch(), plan.rows));
  plan.notes = container_notes(*model, plan.output);
  plan.notes.push_back("the written model is read back and run for 32 tokens, a block at a time");
  return plan;
}

Report ConvertStage::run(const Plan& plan, Context& context) {
  const double start = now_seconds();
  check_predicted_ram(plan, context);
  const std::string path = plan.details.value("model", options_.model);
  const auto model = Model::open(path, plan.output);
  check_output(plan.output, context.force);
  OutputSpec spec = make_spec(*model, plan);
  spec.binding = cat(stamp_of(path), " ", options_.adapter);
  spec.force = context.force;
  spec.resume = context.resume && options_.adapter.empty();  // What is there may have another one.
  const auto writer = ModelWriter::create(std::move(spec));
  LoraAdapter adapter;
  if (!options_.adapter.empty()) adapter = read_lora(options_.adapter, model->arch());
  const MergedWeights merged(model, adapter, false);
  Progress& progress = progress_of(context);
  progress.begin("convert", plan.rows.size(), "tensors");
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    context.check_interrupt();
    context.check_ram(plan.rows[i].tensor);
    const std::string& tensor = plan.rows[i].tensor;
    const DType type = dtype_from_name(plan.rows[i].to);
    if (!writer->done(tensor) && adapter.adapts(tensor))
      write_view(merged.view(tensor), tensor, type, *writer);
    else if (!writer->done(tensor))
      write_converted(*model, tensor, type, *writer);
    progress.update(i + 1);
  }
  const uint64_t bytes = writer->total_bytes();
  writer->finish(smoke_test);
  progress.end();
  Report report = make_report(*this, plan, now_seconds() - start, context);
  report["inputs"] = {{"model", model_facts(*model, model->content_hash())}};
  if (!options_.adapter.empty()) report["inputs"]["adapter"] = options_.adapter;
  report["output_bytes"] = bytes;
  report["parameters"] = model->arch().parameters;
  report["smoke_test"] = "32 tokens through the runtime are finite";
  std::string summary = cat(plan.output, ": ", plan.rows.size(), " tensors, ", human_bytes(bytes),
                            ", read back equal");
  for (const std::string& note : container_notes(*model, plan.output)) summary += "\n" + note;
  report["summary"] = summary;
  return report;
}

std::unique_ptr<Stage> make_convert_stage() { return std::make_unique<ConvertStage>(); }

}  // namespace slmc

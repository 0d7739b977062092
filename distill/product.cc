#include "distill/product.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/scratch_file.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "compress/runtime/evaluate.h"
#include "compress/runtime/smoke_test.h"
#include "distill/learned_scales.h"
#include "formats/adapter.h"
#include "formats/convert_stage.h"
#include "formats/family.h"
#include "formats/group_types.h"
#include "formats/tensor_stream.h"
#include "quantize/scheme.h"
#include "quantize/stage.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

class Overlaid : public WeightSource {
 public:
  Overlaid(std::shared_ptr<const WeightSource> upper, std::shared_ptr<const WeightSource> base)
      : upper_(std::move(upper)), base_(std::move(base)) {}
  const Architecture& arch() const override { return upper_->arch(); }
  bool has(const std::string& name) const override { return upper_->has(name) || base_->has(name); }
  TensorView view(const std::string& name) const override {
    return upper_->has(name) ? upper_->view(name) : base_->view(name);
  }
  void release(const std::string& name) const override {
    if (!upper_->has(name)) base_->release(name);
  }

 private:
  std::shared_ptr<const WeightSource> upper_, base_;
};

/// A context for work within the training, which has its own progress and may write anew.
Context within(const Context& context, Progress& silent) {
  Context inner = context;
  inner.progress = &silent;
  inner.resume = false;
  inner.force = true;
  return inner;
}

void write_float(const WeightSource& network, const ModelExport& spec, const std::string& path) {
  OutputSpec output = spec.output;
  output.path = path;
  output.arch = network.arch();
  output.force = true;
  const std::vector<TensorSpec> tensors = family_by_name(output.arch.family).tensors(output.arch);
  // What is rounded afterwards must arrive there as it was trained.
  const auto type_of = [&spec](const std::string& name) {
    const auto found = spec.stored.find(name);
    if (found == spec.stored.end()) return spec.dtype;
    return dtype_is_float(found->second) ? found->second : DType::kF32;
  };
  for (const TensorSpec& tensor : tensors)
    output.tensors.push_back(
        {.name = tensor.name, .dtype = type_of(tensor.name), .shape = tensor.shape});
  const std::vector<OutputTensor> planned = output.tensors;
  const auto writer = ModelWriter::create(std::move(output));
  for (const OutputTensor& tensor : planned) {
    write_view(network.view(tensor.name), tensor.name, tensor.dtype, *writer);
    network.release(tensor.name);
  }
  writer->finish();
}

/// A matrix with trained scales, a piece at a time.
void write_scaled(const ScaledTensor& tensor, const OutputTensor& target, ModelWriter& writer) {
  const int64_t columns = target.shape.back(), rows = element_count(target.shape) / columns;
  const uint64_t row_bytes = dtype_row_bytes(target.dtype, columns);
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 20) / columns);
  std::vector<std::byte> encoded(row_bytes * static_cast<uint64_t>(std::min(step, rows)));
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    parallel_for(count, [&](int64_t r) {
      encode_scaled(tensor.rows(row + r, 1), encoded.data() + row_bytes * static_cast<uint64_t>(r));
    });
    writer.write_rows(target.name, row, count, encoded.data());
  }
}

/// The network as the file that it was trained as, without any search for scales.
void write_stored(const WeightSource& network, const ModelExport& spec, const std::string& path) {
  OutputSpec output = spec.output;
  output.path = path;
  output.arch = network.arch();
  output.force = true;
  output.file_type = scheme_by_name(spec.scheme).file_type;
  for (const TensorSpec& tensor : family_by_name(output.arch.family).tensors(output.arch))
    output.tensors.push_back(
        {.name = tensor.name,
         .dtype = container_dtype(path, tensor.name, tensor.shape, spec.stored.at(tensor.name)),
         .shape = tensor.shape});
  const std::vector<OutputTensor> planned = output.tensors;
  const auto writer = ModelWriter::create(std::move(output));
  for (const OutputTensor& tensor : planned) {
    if (const auto scaled = scaled_tensor(network, tensor.name, tensor.dtype))
      write_scaled(*scaled, tensor, *writer);
    else
      write_view(network.view(tensor.name), tensor.name, tensor.dtype, *writer);
    network.release(tensor.name);
  }
  writer->finish();
}

/// What a GGUF has otherwise (folded scales, block types) is the business of the stages that write
/// those: they take the float folder.
void write_from_folder(const std::string& folder, const ModelExport& spec, const std::string& path,
                       Context& context) {
  if (spec.scheme.empty()) {
    ConvertStage stage({.model = folder, .output = path, .dtype = "keep"});
    stage.run(stage.plan({}), context);
    return;
  }
  QuantizeStage stage;
  stage.options.model = folder;
  stage.options.output = path;
  stage.options.scheme = spec.scheme;
  stage.options.check = "bytes";
  stage.run(stage.refine(stage.plan({}), context), context);
}

Json measure_held_out(const Model& model, const WeightSource* weights, const HeldOut& held_out,
                      Context& context) {
  if (held_out.labelled) {
    Json tasks = evaluate_tasks(model, weights != nullptr ? *weights : model, {held_out.text},
                                Activations::kF32, 0, context);
    Json figures = tasks.begin().value();
    figures["protocol"] = "labels";
    return figures;
  }
  EvaluationOptions options;
  options.max_tokens = held_out.tokens;
  options.context = held_out.context;
  options.weights = weights;
  return evaluate_text(model, held_out.teacher.get(), held_out.text, options, context);
}

}  // namespace

std::shared_ptr<const WeightSource> overlaid(std::shared_ptr<const WeightSource> upper,
                                             std::shared_ptr<const WeightSource> base) {
  return std::make_shared<Overlaid>(std::move(upper), std::move(base));
}

std::shared_ptr<const WeightSource> borrowed(const WeightSource& source) {
  return {std::shared_ptr<const void>(), &source};
}

LoraAdapter adapter_of(const Lora& lora, const WeightSource& trained) {
  return {.lora = lora, .values = borrowed(trained)};
}

TrainingProduct model_product(ModelExport spec, const Context& context) {
  const auto shared = std::make_shared<const ModelExport>(std::move(spec));
  TrainingProduct product;
  product.path = shared->output.path;
  product.write = [shared, context](const WeightSource& trained, const std::string& path) {
    const auto silent = make_silent_progress();
    Context inner = within(context, *silent);
    const auto network = shared->assemble(trained);
    if (!path.ends_with(".gguf") && shared->scheme.empty()) {
      write_float(*network, *shared, path);
      return;
    }
    if (shared->learned_scales) {
      write_stored(*network, *shared, path);
      check_stored(*Model::open(path), *network, shared->stored);
      return;
    }
    // A GGUF is named after the folder that it was made from.
    const std::string around = path + ".float", folder = around + "/" + shared->output.name;
    const ScratchFile scratch(around, false);
    fs::create_directories(around);
    write_float(*network, *shared, folder);
    write_from_folder(folder, *shared, path, inner);
    if (!shared->stored.empty()) check_stored(*Model::open(path), *network, shared->stored);
  };
  if (shared->held_out.text.empty()) return product;
  product.measure = [shared, context](const std::string& path) {
    const auto silent = make_silent_progress();
    Context inner = within(context, *silent);
    return measure_held_out(*Model::open(path), nullptr, shared->held_out, inner);
  };
  return product;
}

TrainingProduct adapter_product(AdapterExport spec, const Context& context) {
  const auto shared = std::make_shared<const AdapterExport>(std::move(spec));
  TrainingProduct product;
  product.path = shared->path;
  product.write = shared->write;
  if (shared->held_out.text.empty()) return product;
  product.measure = [shared, context](const std::string& path) {
    const auto silent = make_silent_progress();
    Context inner = within(context, *silent);
    const auto weights = with_adapter(shared->base, path);
    return measure_held_out(*shared->base, weights.get(), shared->held_out, inner);
  };
  return product;
}

void plan_written(const TensorSpec& spec, DType type, const std::string& path, PlanRow& row) {
  const DType held = container_dtype(path, spec.name, spec.shape, type);
  const int64_t columns = spec.shape.back();
  row.to = dtype_name(held);
  row.bytes_after =
      static_cast<uint64_t>(element_count(spec.shape) / columns) * dtype_row_bytes(held, columns);
}

void check_scheme(const std::string& path, const std::string& scheme) {
  if (scheme.empty()) return;
  const bool group = is_group_type(scheme_by_name(scheme).type);
  if (!group && !path.ends_with(".gguf"))
    throw_unsupported(
        cat("quantize: scheme ", scheme, " is written as a GGUF; name the output ", path, ".gguf"));
  if (group && path.ends_with(".gguf"))
    throw_unsupported(cat("quantize: scheme ", scheme,
                          " is written as a folder; name an output that does not end in .gguf"));
}

double verify_network(const WeightSource& network, const std::string& where, Context& context) {
  const std::vector<int32_t> ids = smoke_tokens(network);
  const std::vector<float> theirs = torch_module(context).logits(network, ids, {}, "cpu");
  const std::vector<float> ours = smoke_logits(network, ids);
  double worst = 0.0;
  double size = 1.0;
  for (size_t i = 0; i < ours.size(); ++i) {
    SLMC_CHECK(std::isfinite(ours[i]), cat(where, ": a logit is not finite"));
    worst =
        std::max(worst, std::abs(static_cast<double>(ours[i]) - static_cast<double>(theirs[i])));
    size = std::max(size, std::abs(static_cast<double>(theirs[i])));
  }
  // The bound holds for logits of ordinary size; float32 itself allows no more on larger ones.
  SLMC_CHECK(worst <= 1e-3 * std::max(1.0, size / 100.0),
             cat(where, ": the runtime's and LibTorch's logits differ by ", worst));
  return worst;
}

namespace {

/// The measurement of the step that was exported; null if it was not measured by the runtime.
Json exported_figures(const Json& training) {
  for (const Json& entry : training.value("held_out", Json::array()))
    if (entry.value("step", int64_t{-1}) == training.value("exported_step", int64_t{-2}) &&
        entry.contains("protocol"))
      return entry;
  return {};
}

}  // namespace

std::string cost_line(const Json& training, const std::string& text) {
  const Json figures = exported_figures(training);
  if (figures.is_null())
    return "cost on held-out text: not measured (give --eval-text FILE, or use slmc eval)";
  const auto number = [](const Json& json, const char* key, int digits) {
    return json.contains(key) && json[key].is_number() ? fixed(json[key].get<double>(), digits)
                                                       : std::string("not finite");
  };
  if (figures.contains("accuracy"))
    return cat("written file on ", text, ": accuracy ",
               fixed(100.0 * figures["accuracy"].get<double>(), 2), "%, F1 over classes ",
               fixed(100.0 * figures["macro_f1"].get<double>(), 2), "%, cross-entropy ",
               number(figures, "cross_entropy", 4));
  std::string line =
      cat("written file on ", text, ": perplexity ", number(figures, "perplexity", 3));
  if (figures.contains("against")) {
    const Json& against = figures["against"];
    line += cat(", teacher's ", number(against, "perplexity", 3), ", KLD ",
                number(against, "kld_mean", 4), ", top-1 agreement ",
                fixed(100.0 * against.value("top1_agreement", 0.0), 1), "%");
  }
  return line;
}

void describe_training(const Report& training, const TrainingJob& job,
                       const DistillOptions& options, Report& report) {
  report["training"] = training;
  report["inputs"] = {{"student", {{"path", options.student}, {"hash", job.conditions["student"]}}},
                      {"data", {{"files", options.data}, {"hash", job.data.hash}}}};
  if (!options.teacher.empty())
    report["inputs"]["teacher"] = {{"path", options.teacher}, {"hash", job.conditions["teacher"]}};
  report["data"] = {{"tokens", job.data.tokens},
                    {"documents", job.data.documents},
                    {"cut_documents", job.data.cut_documents},
                    {"windows", job.data.windows},
                    {"hash", job.data.hash}};
  const Json figures = exported_figures(training);
  report["evaluation"] = figures.is_null() ? Json("not measured") : figures;
  Json lines =
      Json::array({cat("trained ", training.value("steps", int64_t{0}), " steps, ",
                       human_count(training.value("tokens", uint64_t{0})), " tokens at ",
                       fixed(training.value("tokens_per_second", 0.0), 0), " tokens/s; last loss ",
                       fixed(training.value("final_loss", 0.0), 4))});
  if (training.value("exported_step", int64_t{0}) != training.value("steps", int64_t{0}))
    lines.push_back(cat("step ", training.value("exported_step", int64_t{0}),
                        " was the best on held-out text; that one is written"));
  lines.push_back(cost_line(training, options.eval_text));
  report["summary"] = lines;
}

}  // namespace slmc

#include "quantize/imatrix_stage.h"

#include <filesystem>
#include <map>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/layer_weights.h"
#include "compress/runtime/weight_stage.h"
#include "quantize/block_runner.h"
#include "quantize/calibrated.h"

namespace slmc {

ImportanceMatrix gather_imatrix(const Model& model, const CalibrationData& data, Context& context) {
  const std::unique_ptr<BlockRunner> running = BlockRunner::create(model, data, "");
  BlockRunner& runner = *running;
  ImportanceMatrix matrix;
  matrix.datasets = data.facts.value("files", std::vector<std::string>{});
  matrix.chunk_count = static_cast<int64_t>(data.windows.size());
  matrix.chunk_size = data.context;
  const auto keep = [&](const std::string& name, const LinearStatistics& statistics) {
    matrix.entries[name] = {statistics.input_squares, statistics.tokens};
  };
  Progress& progress = progress_of(context);
  progress.begin("imatrix", static_cast<uint64_t>(model.arch().layers), "blocks");
  runner.embed(model);
  for (int64_t layer = 0; layer < model.arch().layers; ++layer) {
    std::map<std::string, InputStatistics> seen;
    runner.run_block(model, layer, seen);
    for (auto& [name, statistics] : seen) keep(name, std::move(statistics).finish());
    context.check_interrupt();
    context.check_ram(cat("block ", layer));
    progress.update(static_cast<uint64_t>(layer) + 1, cat("block ", layer));
  }
  const std::string head = logits_weight_name(model.arch());
  InputStatistics statistics(head, model.arch().hidden, false);
  runner.observe_head(model, statistics);
  keep(head, std::move(statistics).finish());
  progress.end();
  return matrix;
}

void ImatrixStage::visit(Fields& fields) {
  fields.visit({.name = "model",
                .help = "A Hugging Face folder or a GGUF file.",
                .positional = true,
                .value_name = "MODEL"},
               options.model);
  fields.visit({.name = "output",
                .help = "The importance matrix to write, a GGUF.",
                .required = true,
                .short_flag = "o",
                .value_name = "OUT"},
               options.output);
  visit_calibration(options, fields);
}

Plan ImatrixStage::plan(const Inputs& inputs) const {
  WeightStageOptions source;
  source.model = options.model;
  const CalibrationForward forward = calibration_forward(options, inputs.context);
  const std::shared_ptr<const Model> model = Model::open(source_path(source, inputs));
  if (options.calibration.empty())
    throw_usage("calibration is missing: name at least one file with --calibration FILE");
  for (const std::string& file : options.calibration) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(file, error))
      throw_bad_input(cat(file, ": the calibration text is not a file that can be read"));
  }
  Plan plan;
  refuse_encoder(*model);
  plan.stage = "imatrix";
  plan.output = options.output;
  plan.details = {{"model", model->path()}, {"forward", forward.conditions()}};
  plan.notes.push_back(cat("The model runs block by block, by ", forward.text(), "."));
  int64_t inputs_seen = 0;
  for (const TensorInfo& info : model->tensors())
    if (info.shape.size() >= 2) inputs_seen += info.shape.back() + 1;
  plan.output_bytes = 4 * static_cast<uint64_t>(inputs_seen);
  const int64_t tokens = expected_tokens(options);
  if (forward.on_cpu()) plan.predicted_seconds = forward_seconds(*model, tokens);
  const uint64_t block = 8 * static_cast<uint64_t>(model->arch().parameters /
                                                   std::max<int64_t>(1, model->arch().layers));
  plan.predicted_peak_bytes = program_bytes(*model) + forward.library_bytes() +
                              4 * static_cast<uint64_t>(tokens * model->arch().hidden) +
                              std::max(block, embedding_bytes(*model));
  return plan;
}

Report ImatrixStage::run(const Plan& plan, Context& context) {
  const double start = now_seconds();
  check_predicted_ram(plan, context);
  check_output(options.output, context.force);
  const std::shared_ptr<const Model> model =
      Model::open(plan.details.at("model").get<std::string>());
  CalibrationData data = load_calibration(options, *model);
  data.forward = calibration_forward(options, &context);
  ImportanceMatrix matrix = gather_imatrix(*model, data, context);
  matrix.use_file_names(*model);
  matrix.write(options.output, context.force);
  ImportanceMatrix::open(options.output).adopt(*model, options.output);  // Written = meant.
  Report report = make_report(*this, plan, now_seconds() - start, context);
  report["inputs"] = {{"model", model_facts(*model, model->content_hash())}};
  report["calibration"] = data.facts;
  report["calibration"]["forward"] = data.forward.conditions();
  report["layers"] = matrix.entries.size();
  Json lines = Json::array();
  lines.push_back(
      cat(matrix.entries.size(), " layers over ", data.tokens, " tokens -> ", options.output));
  for (const std::string& finding : data.findings) lines.push_back(cat("note: ", finding));
  report["summary"] = std::move(lines);
  return report;
}

}  // namespace slmc

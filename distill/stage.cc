#include "distill/stage.h"

#include "compress/core/text.h"
#include "distill/training_stage.h"

namespace slmc {
namespace {

class DistillRun : public TrainingRun {
 public:
  explicit DistillRun(DistillOptions options) : options_(std::move(options)) {}
  DistillOptions& options() override { return options_; }
  std::map<std::string, std::string*> inputs() override {
    return {{"teacher", &options_.teacher},
            {"student", &options_.student},
            {"tokenizer", &options_.tokenizer},
            {"loss", &options_.loss},
            {"output", &options_.output}};
  }
  void complete() override {
    if (options_.save_dtype == "auto") options_.save_dtype = "bf16";
  }
  void check(const Sources& sources) const override { require_float_weights(options_, sources); }
  Trained trained(const Sources& sources, uint64_t seed,
                  const Vocabulary* vocabulary) const override;
  std::string tensor_note(const TensorSpec& spec, const Sources& sources,
                          const Trained& trained) const override;
  std::string trained_note(const Sources& sources, const Trained& trained) const override;
  TrainingProduct product(const Sources& sources, const Trained& trained, ModelExport model,
                          const Context& context) const override;
  std::shared_ptr<const WeightSource> written(const Sources& sources) const override;
  void describe(const Sources& sources, const Trained& trained, Report& report) const override;

 private:
  DistillOptions options_;
};

Trained DistillRun::trained(const Sources& sources, uint64_t /*seed*/,
                            const Vocabulary* /*vocabulary*/) const {
  return {.layout = parameter_layout(sources.student.arch), .start = sources.student.weights};
}

std::string DistillRun::tensor_note(const TensorSpec& /*spec*/, const Sources& sources,
                                    const Trained& /*trained*/) const {
  if (!sources.student.layers.empty()) return "starts as the teacher's";
  return sources.student.model != nullptr ? "trained on" : "trained from random weights";
}

std::string DistillRun::trained_note(const Sources& sources, const Trained& /*trained*/) const {
  const Student& student = sources.student;
  return cat("student: ", human_count(static_cast<uint64_t>(student.arch.parameters)),
             " parameters in ", student.arch.layers, " layers, from ", student.origin);
}

TrainingProduct DistillRun::product(const Sources& sources, const Trained& /*trained*/,
                                    ModelExport model, const Context& context) const {
  model.assemble = [student = sources.student.weights](const WeightSource& values) {
    return overlaid(borrowed(values), student);
  };
  model.output.metadata = {{"slmc.stage", "distill"}, {"slmc.student", sources.student.origin}};
  return model_product(std::move(model), context);
}

std::shared_ptr<const WeightSource> DistillRun::written(const Sources& /*sources*/) const {
  return Model::open(options_.output);
}

void DistillRun::describe(const Sources& sources, const Trained& /*trained*/,
                          Report& report) const {
  report["student"] = {{"origin", sources.student.origin},
                       {"parameters", sources.student.arch.parameters},
                       {"layers", sources.student.layers}};
}

class DistillStage : public TrainingStage {
 public:
  explicit DistillStage(DistillOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "distill"; }
  std::string_view summary() const override {
    return "Train a smaller model on text, with a teacher's distributions or alone";
  }
  void visit(Fields& fields) override { visit_options(fields, options_); }

 protected:
  std::unique_ptr<TrainingRun> begin() const override {
    return std::make_unique<DistillRun>(options_);
  }

 private:
  DistillOptions options_;
};

}  // namespace

std::unique_ptr<Stage> make_distill_stage(DistillOptions options) {
  return std::make_unique<DistillStage>(std::move(options));
}

}  // namespace slmc

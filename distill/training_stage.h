// What the stages that train share: plan, forecast and run of one training job. A stage says what
// is trained, from which values, and what is written of it.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "compress/core/stage.h"
#include "distill/product.h"
#include "distill/sources.h"
#include "distill/stage.h"
#include "distill/training.h"
#include "distill/vocabulary.h"
#include "formats/adapter.h"
#include "formats/lora.h"

namespace slmc {

/// The parameters that a run trains, and the values that they start from.
struct Trained {
  ParameterLayout layout;
  std::shared_ptr<const Lora> lora{};
  std::shared_ptr<const SideAdapter> side{};    ///< Both null: the weights themselves.
  std::shared_ptr<const WeightSource> start{};  ///< Null for a new adapter in a plan.
  int64_t first_layer = 0;                      ///< The layers before it are frozen as a whole ...
  bool recompute_frozen = false;                ///< ... and run anew in every epoch.
};

/// One run of a stage that trains, with all inputs in its options.
class TrainingRun {
 public:
  virtual ~TrainingRun() = default;
  virtual DistillOptions& options() = 0;
  /// The options that a recipe's inputs, by name, or a stored plan take the place of.
  virtual std::map<std::string, std::string*> inputs() = 0;
  /// Fills in what follows from other options, once the inputs are known.
  virtual void complete() = 0;
  /// Throws Error(kUsage) or Error(kUnsupported) for what this stage cannot do with `sources`.
  virtual void check(const Sources& sources) const = 0;
  /// `vocabulary`: null for a plan, which needs no values.
  virtual Trained trained(const Sources& sources, uint64_t seed,
                          const Vocabulary* vocabulary) const = 0;
  /// For a plan: what becomes of one tensor of the student, and what is trained of all.
  virtual std::string tensor_note(const TensorSpec& spec, const Sources& sources,
                                  const Trained& trained) const = 0;
  virtual std::string trained_note(const Sources& sources, const Trained& trained) const = 0;
  /// What must be the same when a run is resumed, beside what all runs have.
  virtual Json conditions() const { return Json::object(); }
  /// Whether a model is written, not an adapter alone.
  virtual bool writes_model() const { return true; }
  /// `model`: the export of a whole model, but for how it is assembled and its metadata.
  virtual TrainingProduct product(const Sources& sources, const Trained& trained, ModelExport model,
                                  const Context& context) const = 0;
  /// What was written, opened again.
  virtual std::shared_ptr<const WeightSource> written(const Sources& sources) const = 0;
  virtual void describe(const Sources& sources, const Trained& trained, Report& report) const = 0;
};

class TrainingStage : public Stage {
 public:
  Plan plan(const Inputs& inputs) const override;
  Plan refine(Plan plan, Context& context) override;
  Report run(const Plan& plan, Context& context) override;
  bool uses_device() const override { return true; }
  bool shares_work() const override { return true; }

 protected:
  /// A run of the stage's own options.
  virtual std::unique_ptr<TrainingRun> begin() const = 0;

 private:
  /// A run without its product.
  struct Prepared {
    std::unique_ptr<TrainingRun> run;
    Sources sources;
    Vocabulary vocabulary;
    Trained trained;
    TrainingJob job;
  };
  std::unique_ptr<TrainingRun> begin_with(const std::map<std::string, std::string>& inputs) const;
  Prepared prepare(const Plan& plan, Context& context) const;
};

}  // namespace slmc

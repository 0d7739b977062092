// The prune stage: weights set to zero by a mask (unstructured or N:M), or layers and FFN neurons
// taken out so that the checkpoint is really smaller and its configuration says so.
#pragma once

#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/weight_stage.h"

namespace slmc {

struct PruneOptions : WeightStageOptions {
  std::string metric = "magnitude";  ///< A name from metrics().
  std::string sparsity;              ///< "0.5" or "2:4"; empty: no mask.
  std::string scope = "auto";        ///< "tensor", "row", or the metric's own.
  double ffn_ratio = 0;              ///< Share of FFN neurons that stay; 0: all.
  int64_t multiple = 0;              ///< Of the new FFN width; 0: chosen from the model.
  int64_t layers = 0;                ///< Layers that stay, evenly spaced; 0: all.
  std::string keep_layers;           ///< "0,2,5"; empty: all.
};

class PruneStage : public Stage {
 public:
  PruneOptions options;

  std::string_view name() const override { return "prune"; }
  std::string_view summary() const override {
    return "Set weights to zero, or take out FFN neurons and layers for a smaller model";
  }
  void visit(Fields& fields) override;
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;
};

}  // namespace slmc

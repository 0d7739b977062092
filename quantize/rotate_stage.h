// The rotate stage: turns a model's residual stream and its heads' values by orthogonal matrices
// that are folded into the weights. The result is a plain checkpoint of its family that computes
// the same, with weights that coarse grids represent better.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"

namespace slmc {

struct RotateOptions {
  std::string model;
  std::string output;
  std::vector<std::string> rotate = {"residual", "value"};  ///< What is turned.
  bool untie = false;         ///< Give a tied model a head of its own.
  std::string dtype = "f32";  ///< Of the matrices: f32, f16 or bf16.
};

class RotateStage : public Stage {
 public:
  RotateOptions options;

  std::string_view name() const override { return "rotate"; }
  std::string_view summary() const override {
    return "Rotate the residual stream and the heads' values, so that weights quantize better";
  }
  void visit(Fields& fields) override;
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;
};

}  // namespace slmc

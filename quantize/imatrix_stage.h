// The imatrix stage: the mean square of every layer's inputs over calibration text, written in
// llama.cpp's form.
#pragma once

#include <string>

#include "compress/core/stage.h"
#include "quantize/calibration.h"
#include "quantize/imatrix.h"

namespace slmc {

struct ImatrixOptions : CalibrationOptions {
  std::string model;   ///< A folder or a GGUF.
  std::string output;  ///< A GGUF.
};

/// The mean squares of every layer's inputs in the model as it is.
ImportanceMatrix gather_imatrix(const Model& model, const CalibrationData& data, Context& context);

class ImatrixStage : public Stage {
 public:
  ImatrixOptions options;

  std::string_view name() const override { return "imatrix"; }
  std::string_view summary() const override {
    return "Gather an importance matrix over calibration text, for slmc and llama.cpp";
  }
  bool uses_device() const override { return true; }
  void visit(Fields& fields) override;
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;
};

}  // namespace slmc

// The quantize stage: every tensor of a checkpoint rounded to the type that a scheme and the
// caller's rules choose, streamed row by row into a GGUF (or, for plain float types, a Hugging Face
// folder).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/weight_stage.h"
#include "quantize/budget.h"
#include "quantize/calibration.h"
#include "quantize/method.h"

namespace slmc {

struct QuantizeOptions : WeightStageOptions, CalibrationOptions, MethodOptions, BudgetOptions {
  std::string scheme;              ///< A name from schemes(); may be empty with a target.
  std::string method = "nearest";  ///< A name from methods().
  std::vector<std::string> rule;   ///< 'REGEX=TYPE', first match wins.
  int64_t group_size = 0;          ///< Of compressed-tensors' types; 0: the scheme's, -1: the row.
  bool asymmetric = false;         ///< Compressed-tensors with zero points.
  std::string smooth;              ///< A name from smoother_names() before the method; "": its own.
  std::string observer;  ///< A name from observers(): fixed scales of w8a8's inputs; "": by token.
  std::string kv_type;  ///< "int8": fixed scales of keys and values in a compressed-tensors folder.
  std::string imatrix;  ///< An importance matrix in place of calibration text.
  bool allow_fallback = false;  ///< Round to nearest where the method cannot be used.
  bool modelfile = false;       ///< Also write an Ollama Modelfile beside the GGUF.
};

class QuantizeStage : public Stage {
 public:
  QuantizeOptions options;

  std::string_view name() const override { return "quantize"; }
  std::string_view summary() const override {
    return "Round a checkpoint's weights into a smaller type, as GGUF or compressed-tensors";
  }
  /// Calibration can run on one.
  bool uses_device() const override { return !options.calibration.empty(); }
  void visit(Fields& fields) override;
  Plan plan(const Inputs& inputs) const override;
  /// Reads the calibration text, says what is amiss with it, and decides types for a target.
  Plan refine(Plan plan, Context& context) override;
  Report run(const Plan& plan, Context& context) override;

 private:
  /// Throws Error(kUsage) for files that are there already, without --force.
  void check_outputs(const Context& context) const;
  /// Chooses types for the target.
  Plan decide(const Model& model, const CalibrationData& data, const std::string& spill_folder,
              Plan plan, Context& context) const;
};

}  // namespace slmc

// A stage for tests of recipes: writes its text and the content of its input, reports a figure, and
// can be told to fail or stop.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "recipes/recipe.h"
#include "tests/support/run_program.h"

namespace slmc::test {

/// What the fakes saw, by output path.
struct FakeLog {
  std::vector<std::string> runs;  ///< Outputs, in order.
  std::vector<std::string> devices;
  bool last_resume = false, last_force = false;
  std::string throw_in;  ///< Output whose run throws after its first half.
};

class FakeStage : public Stage {
 public:
  explicit FakeStage(FakeLog& log) : log_(log) {}
  std::string_view name() const override { return "fake"; }
  std::string_view summary() const override { return "Write a text."; }
  bool uses_device() const override { return fast_; }
  void visit(Fields& fields) override {
    fields.visit({.name = "input", .help = "Input.", .value_name = "FILE"}, input_);
    fields.visit({.name = "output", .help = "Output.", .required = true, .value_name = "OUT"},
                 output_);
    fields.visit({.name = "text", .help = "Text."}, text_);
    fields.visit({.name = "score", .help = "Figure that it reports.", .min = 0, .max = 100},
                 score_);
    fields.visit({.name = "steps", .help = "Steps.", .min = 1}, steps_);
    fields.visit({.name = "fast", .help = "Flag."}, fast_);
    fields.visit({.name = "lora", .help = "Grouped."}, lora_);
    fields.visit({.name = "data_files", .help = "Data.", .value_name = "FILE"}, data_);
    fields.visit({.name = "kind", .help = "Kind.", .choices = {"round", "square"}}, kind_);
  }
  Plan plan(const Inputs&) const override {
    if (!input_.empty() && !std::filesystem::exists(input_))
      throw_bad_input(input_ + ": cannot open");
    Plan plan;
    plan.stage = "fake";
    plan.output = output_;
    return plan;
  }
  Report run(const Plan& plan, Context& context) override {
    log_.runs.push_back(plan.output);
    log_.devices.push_back(context.device);
    log_.last_resume = context.resume;
    log_.last_force = context.force;
    check_output(plan.output, context.force);
    if (log_.throw_in == std::filesystem::path(plan.output).filename())
      throw_resources("the disk is full");
    write_text(plan.output, text_ + (input_.empty() ? "" : read_file(input_)));
    Report report = make_report(*this, plan, 0.1, context);
    report["score"] = score_;
    report["against"] = {{"kld_mean", score_ / 100}};
    return report;
  }

  std::string input_, output_, text_ = "t", lora_, kind_ = "round";
  double score_ = 1;
  int64_t steps_ = 1;
  bool fast_ = false;
  std::vector<std::string> data_;

 private:
  FakeLog& log_;
};

/// "fake" writes; "look" is the same under another name.
inline StageTable fake_table(FakeLog& log) {
  StageTable table;
  table.add("fake", [&log] { return std::make_unique<FakeStage>(log); });
  table.add("look", [&log] { return std::make_unique<FakeStage>(log); });
  return table;
}

/// The message and code of the Error that `body` throws; "" when it does not.
template <typename Body>
std::string refusal(const Body& body, ExitCode code = ExitCode::kUsage) {
  try {
    body();
  } catch (const Error& error) {
    return error.code() == code
               ? error.what()
               : cat("exit code ", static_cast<int>(error.code()), ": ", error.what());
  }
  return "";
}

}  // namespace slmc::test

#include "compress/cli/stage_command.h"

#include <filesystem>
#include <ostream>

#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "recipes/stage_run.h"

namespace slmc {
namespace {

class StageCommand : public Command {
 public:
  StageCommand(std::unique_ptr<Stage> stage, bool runtime_only)
      : stage_(std::move(stage)), runtime_only_(runtime_only) {}

  std::string_view name() const override { return stage_->name(); }
  std::string_view summary() const override { return stage_->summary(); }
  bool runtime_only() const override { return runtime_only_; }
  Stage* stage() override { return stage_.get(); }

  void visit(Fields& fields) override {
    stage_->visit(fields);
    fields.visit({.name = "plan",
                  .help = "A plan to follow, as --dry-run=measured --json FILE wrote it; what it "
                          "says of each tensor goes before the options.",
                  .value_name = "FILE"},
                 plan_file_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    Plan plan = stage_->plan({.ranks = context.ranks.size, .context = &context});
    if (!plan_file_.empty()) plan = stored_plan(plan);
    if (plan_file_.empty() && context.dry_run != "plan")
      plan = stage_->refine(std::move(plan), context);
    if (!context.dry_run.empty()) {
      out << plan_text(plan);
      return plan_to_json(plan);
    }
    const Report report = run_stage(*stage_, plan, context);
    if (context.verbosity >= 0 && context.ranks.first()) out << report_summary(report);
    return report;
  }

 private:
  /// The plan in the file, if it is one for what the options name: `fresh` is what they would give.
  /// It goes to the output that the options name.
  Plan stored_plan(const Plan& fresh) const {
    Plan plan = plan_from_json(read_json(plan_file_), plan_file_);
    if (plan.stage != fresh.stage)
      throw_bad_input(
          cat(plan_file_, ": a plan of ", plan.stage, ", expected one of ", fresh.stage));
    bool same = plan.rows.size() == fresh.rows.size();
    for (size_t i = 0; same && i < plan.rows.size(); ++i) {
      same = plan.rows[i].tensor == fresh.rows[i].tensor &&
             plan.rows[i].shape == fresh.rows[i].shape && plan.rows[i].from == fresh.rows[i].from;
    }
    if (!same)
      throw_bad_input(cat(plan_file_,
                          ": a plan for another model: its tensors, shapes or types are not those "
                          "of the options' model"));
    check_details(plan, fresh);
    plan.output = fresh.output;
    return plan;
  }

  /// What is said in words and lists, not in figures: the sources, the scheme, the layers.
  void check_details(const Plan& plan, const Plan& fresh) const {
    const auto counts = [](const Json& value) { return value.is_string() || value.is_array(); };
    Json keys = fresh.details;
    keys.update(plan.details);
    for (const auto& [key, value] : keys.items()) {
      const Json wanted = fresh.details.value(key, Json()),
                 stored = plan.details.value(key, Json());
      if (!counts(wanted) && !counts(stored)) continue;
      if (stored == wanted) continue;
      std::error_code error;
      if (stored.is_string() && wanted.is_string() &&
          std::filesystem::equivalent(stored.get<std::string>(), wanted.get<std::string>(), error))
        continue;
      throw_bad_input(cat(plan_file_, ": a plan with ", key, " ", stored.dump(),
                          ", but the options give ", wanted.dump(), "; make the plan again"));
    }
  }

  std::unique_ptr<Stage> stage_;
  bool runtime_only_;
  std::string plan_file_;
};

}  // namespace

std::unique_ptr<Command> make_stage_command(std::unique_ptr<Stage> stage, bool runtime_only) {
  return std::make_unique<StageCommand>(std::move(stage), runtime_only);
}

}  // namespace slmc

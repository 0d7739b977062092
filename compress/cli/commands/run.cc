// `slmc run`: a recipe from the command line.
#include <ostream>

#include "compress/core/command.h"
#include "recipes/runner.h"
#include "recipes/stages.h"

namespace slmc {
namespace {

class RunCommand : public Command {
 public:
  std::string_view name() const override { return "run"; }
  std::string_view summary() const override {
    return "Run a recipe: stages in order, with quality gates";
  }
  bool handles_dry_run() override { return true; }
  bool shares_work() override { return true; }
  bool uses_device() override { return true; }  // Its stages do, or the runner refuses.

  void visit(Fields& fields) override {
    fields.visit({.name = "recipe",
                  .help = "YAML or JSON file (recipes/README.md).",
                  .required = true,
                  .positional = true,
                  .value_name = "RECIPE"},
                 recipe_);
    fields.visit(
        {.name = "set",
         .help = "Set a variable of the recipe, or a stage's option as stage.option=value.",
         .value_name = "KEY=VALUE"},
        settings_);
    fields.visit({.name = "output",
                  .help = "Folder of all results, in place of the recipe's.",
                  .short_flag = "o",
                  .value_name = "FOLDER"},
                 output_);
  }

  Json run(Context& context, std::ostream& out, ExitCode& exit_code) override {
    Recipe recipe = read_recipe(recipe_, recipe_stages(), settings_);
    if (!output_.empty()) recipe.output = output_;
    if (!context.dry_run.empty()) return plan_recipe(recipe, recipe_stages(), context, out);
    const Json report = run_recipe(recipe, recipe_stages(), context, out);
    if (!report["passed"].get<bool>()) exit_code = ExitCode::kGateFailed;
    return report;
  }

 private:
  std::string recipe_, output_;
  std::vector<std::string> settings_;
};

}  // namespace

std::unique_ptr<Command> command_run();
std::unique_ptr<Command> command_run() { return std::make_unique<RunCommand>(); }

}  // namespace slmc

#include "recipes/runner.h"

#include <algorithm>
#include <filesystem>
#include <ostream>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "recipes/bound.h"
#include "recipes/journal.h"
#include "recipes/stage_run.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

/// What the result of a stage follows from: while this is unchanged, so is the result.
std::string stage_key(Stage& stage, const Context& context, const std::string& folder) {
  const Json key = {{"stage", stage.name()},    {"options", fields_to_json(stage)},
                    {"seed", context.seed},     {"inputs", hash_inputs(stage, folder)},
                    {"device", context.device}, {"slmc", slmc_version()}};
  const std::string text = key.dump(-1, ' ', false, Json::error_handler_t::replace);
  return hash_bytes(text.data(), text.size());
}

/// The run's context as the stage sees it: the device is for those that can use one.
Context context_for(const Stage& stage, const Context& context) {
  Context own = context;
  if (!stage.uses_device()) own.device = "cpu";
  return own;
}

/// Says which stage of which recipe an error came from.
template <typename Body>
auto with_place(const Recipe& recipe, const RecipeStage& spec, const Body& body) {
  try {
    return body();
  } catch (const Error& error) {
    if (error.code() == ExitCode::kInterrupted) throw;
    throw Error(error.code(),
                cat(recipe.file, ":", spec.line, ": stage '", spec.name, "': ", error.what()));
  }
}

Json result_json(const ExpectationResult& result) {
  return {{"figure", result.path},
          {"expected", result.expected},
          {"found", result.found},
          {"passed", result.passed}};
}

class Runner {
 public:
  Runner(const Recipe& recipe, const StageTable& table, Context& context, std::ostream& out)
      : recipe_(recipe), context_(context), out_(out), stages_(bind_recipe(recipe, table)) {
    if (std::none_of(stages_.begin(), stages_.end(),
                     [](const BoundStage& bound) { return bound.stage->uses_device(); }))
      refuse_device(context_, "every stage of this recipe");
  }

  Json run() {
    if (!context_.ranks.first()) return follow();
    const double start = now_seconds();
    make_folder(recipe_.output);
    Journal journal(recipe_.output, anew());
    if (!journal.empty() && !context_.resume && !context_.force) {
      throw_usage(
          cat(recipe_.output,
              ": holds an earlier run of a recipe; --resume goes on with it, --force starts over"));
    }
    if (journal.empty()) check_output(report_file(), context_.force);
    plan_early(journal);
    std::error_code none_there;
    fs::remove(report_file(), none_there);  // It would be an earlier run's.
    if (anew()) journal.forget();
    bool passed = true;
    for (size_t i = 0; i < stages_.size() && passed; ++i) {
      out_ << cat("[", i + 1, "/", stages_.size(), "] ", stages_[i].spec->verb, ": ",
                  stages_[i].spec->name, "\n")
           << std::flush;
      passed = with_place(recipe_, *stages_[i].spec, [&] { return run_one(stages_[i], journal); });
    }
    tell_ranks({{"passed", passed}});
    Json report = {{"recipe", recipe_.name},           {"passed", passed},
                   {"seconds", now_seconds() - start}, {"stages", reports_},
                   {"variables", variables()},         {"provenance", provenance(context_)}};
    write_text(report_file(), report.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    out_ << "\n" << report_table(report) << verdict(passed);
    return report;
  }

  Json plan() {
    Json plans = Json::array();
    for (BoundStage& bound : stages_) {
      const RecipeStage& spec = *bound.spec;
      out_ << spec.name << " (" << spec.verb << ")\n";
      const std::vector<std::string> waits = waiting_for(bound);
      if (waits.empty()) {
        const Plan plan = with_place(recipe_, spec, [&] { return planned(*bound.stage); });
        out_ << plan_text(plan) << "\n";
        plans.push_back({{"name", spec.name}, {"stage", spec.verb}, {"plan", plan_to_json(plan)}});
      } else {
        out_ << "  planned once " << join(waits, " and ") << " has been written\n\n";
        plans.push_back({{"name", spec.name},
                         {"stage", spec.verb},
                         {"waits_for", waits},
                         {"options", fields_to_json(*bound.stage)}});
      }
    }
    return {{"recipe", recipe_.name}, {"output", recipe_.output}, {"stages", plans}};
  }

 private:
  bool anew() const { return context_.force && !context_.resume; }
  std::string report_file() const { return recipe_.output + "/report.json"; }

  /// The stages whose outputs are not there yet, so that this one cannot be planned.
  std::vector<std::string> waiting_for(const BoundStage& bound) const {
    std::vector<std::string> names;
    for (const BoundStage& other : stages_) {
      for (const std::string& name : bound.after) {
        if (other.spec->name == name && (anew() || !fs::exists(other.output)))
          names.push_back(name);
      }
    }
    return names;
  }

  /// What an earlier run of the recipe left is its own; anything else is not.
  bool may_replace(const BoundStage& bound, const Journal& journal) const {
    return context_.force || journal.owns(bound.output);
  }
  void check_outputs(const BoundStage& bound, const Journal& journal) const {
    std::error_code error;
    if (bound.output.empty() || !fs::exists(bound.output, error)) return;
    check_output(bound.output, may_replace(bound, journal));
  }

  static void make_folder(const fs::path& folder) {
    std::error_code error;
    if (!folder.empty()) fs::create_directories(folder, error);
    if (error)
      throw_resources(
          cat(folder.string(), ": the output folder cannot be made: ", error.message()));
  }

  /// To the other ranks: what to do next, or, at the end, whether all passed.
  void tell_ranks(const Json& order) {
    if (!context_.ranks.alone()) torch_module(context_).ranks(context_)->from_first(order.dump());
  }

  /// What a rank other than 0 does: its part of the stages that are shared, when rank 0 gets there.
  Json follow() {
    RankGroup& group = *torch_module(context_).ranks(context_);
    for (;;) {
      const Json order = Json::parse(group.from_first(std::string()));
      if (order.contains("passed")) return order;
      for (BoundStage& bound : stages_) {
        if (bound.spec->name != order["stage"]) continue;
        Context context = context_for(*bound.stage, context_);
        context.resume = order["resume"].get<bool>();
        with_place(recipe_, *bound.spec, [&] {
          const Plan plan = bound.stage->plan({.ranks = context.ranks.size, .context = &context});
          return run_stage(*bound.stage, bound.stage->refine(plan, context), context);
        });
      }
    }
  }

  /// Finds what can be known to fail before an hour of training, not after.
  void plan_early(const Journal& journal) {
    for (BoundStage& bound : stages_) {
      with_place(recipe_, *bound.spec, [&] { check_outputs(bound, journal); });
      if (!waiting_for(bound).empty() || (!anew() && journal.find(bound.spec->name) != nullptr))
        continue;
      const Context context = context_for(*bound.stage, context_);
      with_place(recipe_, *bound.spec, [&] {
        return bound.stage->plan({.ranks = context.ranks.size, .context = &context});
      });
    }
  }

  Plan planned(Stage& stage) {
    Context context = context_for(stage, context_);
    Plan plan = stage.plan({.ranks = context.ranks.size, .context = &context});
    return context.dry_run == "plan" ? plan : stage.refine(std::move(plan), context);
  }

  /// False when a threshold was missed.
  bool run_one(BoundStage& bound, Journal& journal) {
    const std::string& name = bound.spec->name;
    const std::string key =
        stage_key(*bound.stage, context_for(*bound.stage, context_), recipe_.output);
    const bool skip = context_.resume && journal.is_done(name, key);
    Json report;
    if (skip) {
      report = journal.find(name)->report;
      out_ << "  unchanged, kept\n";
    } else {
      report = execute(bound, key, journal);
    }
    return judge(*bound.spec, report, skip);
  }

  Json execute(BoundStage& bound, const std::string& key, Journal& journal) {
    const Journal::Entry* before = journal.find(bound.spec->name);
    // Outputs under names of ours, from a run that the journal knows, may be replaced; a half-done
    // one under the same key is gone on with.
    Context context = context_for(*bound.stage, context_);
    context.resume = context_.resume && before != nullptr && !before->done && before->key == key;
    context.force = may_replace(bound, journal);
    check_outputs(bound, journal);
    make_folder(fs::path(bound.output).parent_path());
    journal.begin(bound.spec->name, key, bound.output);
    if (bound.stage->shares_work())
      tell_ranks({{"stage", bound.spec->name}, {"resume", context.resume}});
    const Plan plan = bound.stage->refine(
        bound.stage->plan({.ranks = context.ranks.size, .context = &context}), context);
    const Report report = run_stage(*bound.stage, plan, context);
    journal.finish(bound.spec->name, bound.output, report);
    if (context_.verbosity >= 0) out_ << report_summary(report);
    return report;
  }

  bool judge(const RecipeStage& spec, const Json& report, bool skipped) {
    const ReportLookup lookup = [&](const std::string& name) -> const Json* {
      if (name == spec.name) return &report;
      for (const Json& stage : reports_) {
        if (stage["name"] == name) return &stage["report"];
      }
      return nullptr;
    };
    bool passed = true;
    Json results = Json::array();
    for (const Expectation& expectation : spec.expectations) {
      const ExpectationResult result = checked(expectation, report, lookup);
      results.push_back(result_json(result));
      passed = passed && result.passed;
      out_ << cat("  ", result.passed ? "ok     " : "FAILED ", result.path, ": expected ",
                  result.expected, ", found ", result.found, "\n");
    }
    reports_.push_back({{"name", spec.name},
                        {"stage", spec.verb},
                        {"skipped", skipped},
                        {"passed", passed},
                        {"expect", results},
                        {"report", report}});
    if (!passed && spec.allow_failure) out_ << "  (this stage is allowed to fail; going on)\n";
    return passed || spec.allow_failure;
  }

  /// A gate on a figure of another stage that is not there is one that fails.
  static ExpectationResult checked(const Expectation& expectation, const Json& report,
                                   const ReportLookup& lookup) {
    try {
      return check_expectation(expectation, report, lookup);
    } catch (const Error& error) {
      return {.path = expectation.path,
              .expected = expectation.condition,
              .found = error.what(),
              .passed = false};
    }
  }

  std::string verdict(bool passed) const {
    const std::string where = report_file();
    if (passed) return cat("\n", recipe_.name, ": passed; ", where, "\n");
    const size_t left = stages_.size() - reports_.size();
    return cat(
        "\n", recipe_.name, ": FAILED at stage '", reports_.back()["name"].get<std::string>(), "'",
        left > 0 ? cat("; ", left, left == 1 ? " stage was" : " stages were", " not run") : "",
        "; ", where, "\n");
  }

  Json variables() const {
    Json values = Json::object();
    for (const auto& [name, node] : recipe_.variables) {
      if (node.kind == RecipeNode::Kind::kText) values[name] = node.text;
    }
    return values;
  }

  const Recipe& recipe_;
  Context& context_;
  std::ostream& out_;
  std::vector<BoundStage> stages_;
  Json reports_ = Json::array();
};

}  // namespace

Json run_recipe(const Recipe& recipe, const StageTable& table, Context& context,
                std::ostream& out) {
  return Runner(recipe, table, context, out).run();
}

Json plan_recipe(const Recipe& recipe, const StageTable& table, Context& context,
                 std::ostream& out) {
  return Runner(recipe, table, context, out).plan();
}

}  // namespace slmc

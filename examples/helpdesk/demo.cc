// The demo (`make demo`): writes the helpdesk data, runs recipes/demo.yaml on the committed
// teacher, and shows what came of it: a table, one hard message answered by all models, and the
// gate that the naive model fails. The recipe does all of the work.
#include <filesystem>
#include <iostream>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "examples/helpdesk/data_files.h"
#include "examples/helpdesk/demo_model.h"
#include "recipes/runner.h"
#include "recipes/stages.h"

namespace slmc::helpdesk {
namespace {

constexpr const char* kRecipe = "recipes/demo.yaml";
constexpr const char* kTeacher = "examples/helpdesk/teacher";
constexpr const char* kUsage =
    "usage: helpdesk-demo [FOLDER] [--again]\nRun it in the repository's root. FOLDER (default "
    "build/demo) gets everything; --again starts over.\n";

// Around one request: a side request put off, another refused, an appliance that is not meant.
constexpr const char* kHardMessage =
    "Sorry to bother you. I also want you to send me the invoice later, but first: the washing "
    "machine I bought 9 March is leaking all over "
    "the floor. My order number is HD-4821. My old toaster lasted twenty years. Please do not "
    "cancel my order. It's very urgent!";

struct Row {
  const char* title;
  const char* evaluation;  ///< Name of the eval stage in the recipe.
  std::string path;
};

struct Options {
  std::string folder = "build/demo";
  bool again = false;
};

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--again") {
      options.again = true;
    } else if (argument.starts_with("-")) {
      throw_usage(cat("unknown argument '", argument, "'\n", kUsage));
    } else {
      options.folder = argument;
    }
  }
  if (!std::filesystem::exists(kRecipe)) throw_usage(cat(kRecipe, " is not here\n", kUsage));
  return options;
}

const Json& stage_report(const Json& report, std::string_view name) {
  for (const Json& stage : report.at("stages"))
    if (stage.at("name") == name) return stage.at("report");
  throw_bad_input(cat(kRecipe, ": the demo's table needs a stage named '", name, "'"));
}

// "95.3% (92.6-97.1)"
std::string share(const Json& figures, const std::string& key) {
  const auto percent = [&](const std::string& name) {
    return fixed(100 * figures.at(name).get<double>(), 1);
  };
  return cat(percent(key), "% (", percent(key + "_low"), "-", percent(key + "_high"), ")");
}

std::vector<std::string> table_row(const Row& row, const DemoModel& model, const Json& figures) {
  const Json& tasks = figures.at("tasks").begin().value();
  std::vector<std::string> cells = {
      row.title, human_count(static_cast<uint64_t>(model.parameters())), human_bytes(model.bytes()),
      fixed(figures.at("perplexity").get<double>(), 3)};
  if (figures.contains("against")) {
    const Json& against = figures["against"];
    cells.push_back(fixed(against.at("kld_mean").get<double>(), 4));
    cells.push_back(fixed(100 * against.at("top1_agreement").get<double>(), 1) + "%");
  } else {
    cells.insert(cells.end(), {"-", "-"});
  }
  cells.push_back(share(tasks, "accuracy"));
  cells.push_back(share(tasks, "f1"));
  cells.push_back(fixed(model.tokens_per_second(3, 200), 0));
  return cells;
}

void show(const std::vector<Row>& rows, const Json& report) {
  set_threads(
      1);  // Models this small decode fastest on one; threads would mostly wait for each other.
  std::vector<std::vector<std::string>> cells;
  std::string answers;
  for (const Row& row : rows) {
    const DemoModel model(row.path);
    cells.push_back(table_row(row, model, stage_report(report, row.evaluation)));
    answers += cat("--- ", row.title, "\n", model.answer(kHardMessage), "\n");
  }
  std::cout << "\n"
            << table({"model", "parameters", "bytes", "perplexity", "KLD", "top-1", "intent (95%)",
                      "slots F1 (95%)", "tokens/s, 1 thread"},
                     cells, {false, true, true, true, true, true, true, true, true})
            << "\nA hard message: " << kHardMessage << "\n\n"
            << answers;
}

void show_gate(const Json& report) {
  std::cout << "\nThe gate: what recipes/demo.yaml demands of a model\n";
  for (const Json& stage : report.at("stages"))
    for (const Json& result : stage.at("expect"))
      std::cout << cat("  ", result.at("passed").get<bool>() ? "passed  " : "FAILED  ",
                       stage.at("name").get<std::string>(), ": ",
                       result.at("figure").get<std::string>(), ": expected ",
                       result.at("expected").get<std::string>(), ", found ",
                       result.at("found").get<std::string>(), "\n");
  std::cout << "With exit code 1 for a failed gate, `slmc run` keeps such a model out of a "
               "release; here the naive one is allowed to fail.\n";
}

int run(const Options& options) {
  const double start = now_seconds();
  install_interrupt_handler();
  set_threads(0);
  const std::unique_ptr<Progress> progress = make_progress(0);
  Context context;
  context.progress = progress.get();
  context.resume = !options.again;
  context.force = options.again;
  context.version = slmc_version();
  context.seed = 1;

  const std::string data = options.folder + "/data";
  if (options.again || !std::filesystem::exists(data + "/test_tasks.jsonl"))
    write_data({.folder = data, .train = 12000, .test = 400, .seed = 1});
  const Recipe recipe =
      read_recipe(kRecipe, recipe_stages(), {"folder=" + options.folder, "data=" + data});
  const Json report = run_recipe(recipe, recipe_stages(), context, std::cout);

  show({{"teacher, bf16", "teacher", kTeacher},
        {"naive: cut and rounded", "naive", options.folder + "/naive.gguf"},
        {"text alone", "text-alone", options.folder + "/text-alone.gguf"},
        {"slmc", "helpdesk", options.folder + "/helpdesk.gguf"}},
       report);
  show_gate(report);
  std::cout << cat(
      "\n", options.folder, " holds helpdesk.gguf, its Modelfile (ollama create helpdesk -f ",
      options.folder, "/Modelfile) and report.json. ", human_seconds(now_seconds() - start), "\n");
  return report.at("passed").get<bool>() ? 0 : static_cast<int>(ExitCode::kGateFailed);
}

}  // namespace
}  // namespace slmc::helpdesk

int main(int count, char** arguments) {
  try {
    return slmc::helpdesk::run(slmc::helpdesk::parse(count, arguments));
  } catch (const slmc::Error& error) {
    std::cerr << "helpdesk-demo: " << error.what() << "\n";
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "helpdesk-demo: " << error.what() << "\n";
    return static_cast<int>(slmc::ExitCode::kBug);
  }
}

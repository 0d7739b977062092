// The contract that every stage keeps: options by visit, a plan from headers alone, an optional
// measured refinement, and one writer that returns a report. See docs/architecture.md.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/json.h"
#include "compress/core/progress.h"
#include "compress/core/ranks.h"

namespace slmc {

/// One tensor's fate. Names are GGUF's; `file_name` is the name in the input file.
struct PlanRow {
  std::string tensor;
  std::string file_name;
  std::vector<int64_t> shape;
  std::vector<int64_t> new_shape;
  std::string from;  ///< Type before, "bf16".
  std::string to;    ///< Type after, "q4_0"; undecided: "one of {...}, by measurement".
  std::string reason;
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;
};

struct Plan {
  std::string stage;
  std::string output;  ///< Path to be written, empty for stages that only measure.
  std::vector<PlanRow> rows;
  uint64_t output_bytes = 0;
  uint64_t predicted_peak_bytes = 0;  ///< VmHWM, mapped pages included.
  /// What it can keep to under a tighter Context::max_ram, by using the disk; 0: no less.
  uint64_t least_peak_bytes = 0;
  double predicted_seconds = 0;    ///< 0: not predicted.
  std::vector<std::string> notes;  ///< Sentences for the reader.
  Json details = Json::object();   ///< What the stage needs to run from a stored plan.
};

Json plan_to_json(const Plan& plan);
Plan plan_from_json(const Json& json, const std::string& where);
std::string plan_text(const Plan& plan);

/// What a stage did, as JSON: "stage", "options", "inputs", "output", "seconds", "peak_rss_bytes",
/// "provenance", plus the stage's own keys.
using Report = Json;

struct Context;

/// What a plan follows from besides the options.
struct Inputs {
  /// Named sources, such as a recipe's "student from the previous stage". Names are option names.
  std::map<std::string, std::string> paths{};
  int ranks = 1;                     ///< Processes that will do the work together.
  const Context* context = nullptr;  ///< Of the run that is planned; null: its defaults.
  bool on_cpu() const;               ///< True without a context.
};

/// What every stage and command shares. One object a program run.
struct Context {
  int threads = 0;  ///< 0: all.
  std::string device = "cpu";
  uint64_t seed = 0;
  uint64_t max_ram = 0;  ///< Bytes; 0: no bound.
  bool force = false;
  bool resume = false;
  bool allow_drift = false;
  std::string dry_run;           ///< "": do it; "plan": only plan; "measured": plan and refine.
  std::string torch_dir;         ///< Where LibTorch is; empty: find it.
  Progress* progress = nullptr;  ///< Never null while a stage runs; use `progress_of`.
  int verbosity = 0;             ///< -1 quiet, 0 normal, 1 verbose.
  std::string version;
  RankPlace ranks;  ///< Of several processes that do this together; only rank 0 writes.

  bool on_cpu() const { return device == "cpu"; }

  /// Throws Error(kInterrupted) once SIGINT or SIGTERM has been seen.
  void check_interrupt() const;
  /// Throws Error(kResources) if the process's VmHWM is over `max_ram`, naming `where`.
  void check_ram(const std::string& where) const;
};

/// True if the plan's least memory has to do.
bool is_tight(const Plan& plan, const Context& context);
/// The least where that has to do, else what the plan predicts.
uint64_t foretold_peak_bytes(const Plan& plan, const Context& context);
/// Throws Error(kResources) if even the least is over Context::max_ram.
void check_predicted_ram(const Plan& plan, const Context& context);

Progress& progress_of(Context& context);
/// Throws Error(kUnsupported) unless the device is the cpu: `who` computes nowhere else.
void refuse_device(const Context& context, std::string_view who);

class Stage : public Configurable {
 public:
  virtual std::string_view name() const = 0;
  virtual std::string_view summary() const = 0;
  /// True if Context::device says where some of the work is done. The others refuse any but cpu
  /// (refuse_device).
  virtual bool uses_device() const { return false; }
  /// Reads headers only, answers in milliseconds, writes nothing. Throws Error on anything that
  /// would fail later and can be known now.
  virtual Plan plan(const Inputs& inputs) const = 0;
  /// May read data and run models to decide rows. Identity by default.
  virtual Plan refine(Plan plan, Context& context);
  /// The only writer.
  virtual Report run(const Plan& plan, Context& context) = 0;
  /// Whether several processes can run it together: each is given the same plan, and rank 0 alone
  /// writes and reports.
  virtual bool shares_work() const { return false; }
};

/// A report with the keys every stage shares; call at the end of run.
Report make_report(Stage& stage, const Plan& plan, double seconds, const Context& context);
/// Versions, machine, instruction set, compiler, commit, seed, threads.
Json provenance(const Context& context);

}  // namespace slmc

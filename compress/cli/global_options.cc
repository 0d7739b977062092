#include "compress/cli/global_options.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "compress/cli/ranks.h"
#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/system.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void check_device(const std::string& device) {
  bool good = device == "cpu" || device == "cuda";
  if (device.rfind("cuda:", 0) == 0 && device.size() > 5 && device.size() < 9) {
    good = true;
    for (char c : device.substr(5)) good = good && std::isdigit(static_cast<unsigned char>(c));
  }
  if (!good) throw_usage(cat("--device: expected cpu, cuda or cuda:N, found '", device, "'"));
}

FieldInfo threads_info() {
  return {.name = "threads",
          .help = "Threads of all loops (0: every processor).",
          .min = 0,
          .max = 4096};
}

}  // namespace

void GlobalOptions::visit(Fields& fields) {
  fields.visit(threads_info(), threads);
  fields.visit(
      {.name = "device",
       .help = "Where training computes, and where quantize and imatrix run the model over "
               "calibration text: cpu, cuda or cuda:N; verbs that compute on the cpu only "
               "refuse another. Also of logits --backend torch.",
       .value_name = "DEVICE"},
      device);
  fields.visit({.name = "seed", .help = "Seed of all random choices.", .min = 0}, seed);
  fields.visit({.name = "max_ram",
                .help = "Upper bound of resident memory, such as 2GB; exit 5 before it is broken.",
                .value_name = "SIZE"},
               max_ram);
  fields.visit({.name = "json",
                .help = "Write the result as JSON; - is stdout, which then holds nothing else.",
                .value_name = "FILE|-"},
               json);
  fields.visit(
      {.name = "dry_run",
       .help = "Print the plan and write nothing; 'measured' also decides what needs measuring.",
       .choices = {"plan", "measured"},
       .value_name = "measured",
       .value_without = "plan"},
      dry_run);
  fields.visit({.name = "force", .help = "Replace outputs that exist."}, force);
  fields.visit({.name = "resume", .help = "Go on with the partial output of an interrupted run."},
               resume);
  fields.visit({.name = "allow_drift",
                .help = "Resume under another processor type, LibTorch, device or thread count."},
               allow_drift);
  fields.visit(
      {.name = "torch",
       .help = "Folder of LibTorch (else SLMC_TORCH, the one built with, or python3's torch).",
       .value_name = "DIR"},
      torch);
  fields.visit({.name = "quiet", .help = "No progress and no notes.", .short_flag = "q"}, quiet);
  fields.visit({.name = "verbose", .help = "Say more.", .short_flag = "v"}, verbose);
  fields.visit({.name = "version", .help = "Print the version."}, version);
}

Context GlobalOptions::context() const {
  if (quiet && verbose) throw_usage("--quiet and --verbose are both given");
  check_device(device);
  Context context;
  int64_t count = threads;
  const std::string from_environment = environment("SLMC_THREADS");
  if (count == 0 && !from_environment.empty())
    set_field_text(threads_info(), "SLMC_THREADS", from_environment, count);
  context.ranks = find_rank(environment);
  // Ranks on one machine share its processors.
  if (count == 0 && context.ranks.local_size > 1)
    count = std::max(1, processor_count() / context.ranks.local_size);
  context.threads = static_cast<int>(count);
  context.device = device;
  context.seed = static_cast<uint64_t>(seed);
  context.max_ram = max_ram.empty() ? 0 : parse_bytes(max_ram, "max-ram");
  context.force = force;
  context.resume = resume;
  context.allow_drift = allow_drift;
  context.torch_dir = torch.empty() ? environment("SLMC_TORCH") : torch;
  context.verbosity = quiet ? -1 : verbose ? 1 : 0;
  context.version = slmc_version();
  context.dry_run = dry_run;
  return context;
}

}  // namespace slmc

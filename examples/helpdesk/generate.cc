// Writes the helpdesk data (data_files.h).
#include <iostream>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "examples/helpdesk/data_files.h"

namespace slmc::helpdesk {
namespace {

constexpr const char* kUsage =
    "usage: helpdesk-generate FOLDER [--train N] [--test N] [--drills N] [--seed N]\n"
    "Writes train.jsonl, valid.jsonl, calibration.jsonl, test.jsonl and test_tasks.jsonl "
    "(defaults: 60000 and 400 conversations, seed 1).\n";

DataOptions parse(int count, char** arguments) {
  DataOptions options;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    uint64_t* number = argument == "--train"    ? &options.train
                       : argument == "--test"   ? &options.test
                       : argument == "--drills" ? &options.drills
                       : argument == "--seed"   ? &options.seed
                                                : nullptr;
    if (number != nullptr && i + 1 < count) {
      *number = std::stoull(arguments[++i]);
    } else if (number == nullptr && !argument.starts_with("--") && options.folder.empty()) {
      options.folder = argument;
    } else {
      throw_usage(cat("unknown argument '", argument, "'\n", kUsage));
    }
  }
  if (options.folder.empty()) throw_usage(kUsage);
  return options;
}

}  // namespace
}  // namespace slmc::helpdesk

int main(int count, char** arguments) {
  try {
    slmc::helpdesk::write_data(slmc::helpdesk::parse(count, arguments));
    return 0;
  } catch (const slmc::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "helpdesk-generate: " << error.what() << "\n";
    return static_cast<int>(slmc::ExitCode::kUsage);
  }
}

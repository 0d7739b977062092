// Writes the helpdesk data: train.jsonl and valid.jsonl to train on, test_tasks.jsonl to score answers, test.jsonl for
// perplexity and divergence, calibration.jsonl for stages that need some text. All from a seed; no two splits share a conversation.
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <set>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/text.h"
#include "examples/helpdesk/conversation.h"

namespace slmc::helpdesk {
namespace {

constexpr const char* kUsage =
    "usage: helpdesk-generate FOLDER [--train N] [--test N] [--seed N]\n"
    "Writes train.jsonl, valid.jsonl, calibration.jsonl, test.jsonl and test_tasks.jsonl (defaults: 60000 and 400 conversations, seed 1).\n";

struct Options {
  std::string folder;
  uint64_t train = 60000, test = 400, seed = 1;
};

// Whole conversations are learned, the customer's words too: there is as much language in them, and perplexity is measured on all of it.
std::string training_line(const Conversation& talk) { return Json{{"text", talk.prompt + talk.response}}.dump() + "\n"; }

std::string task_line(const Conversation& talk) {
  Json fields = Json::object();
  for (const auto& [name, value] : talk.fields) fields[name] = value;
  return Json{{"prompt", talk.prompt}, {"fields", fields}, {"label", "intent"}, {"group", talk.new_wording ? "new wording" : "known wording"}}
             .dump() + "\n";
}

// `count` distinct conversations from `first` on, one line each.
template <typename Line>
std::string lines(const Options& options, Split split, uint64_t first, uint64_t count, std::set<std::string>& seen, Line line) {
  std::string out;
  uint64_t written = 0;
  for (uint64_t index = first; written < count; ++index) {
    const Conversation talk = make_conversation(options.seed, split, index);
    if (!seen.insert(talk.prompt).second) continue;
    out += line(talk);
    ++written;
  }
  return out;
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    uint64_t* number = argument == "--train" ? &options.train : argument == "--test" ? &options.test : argument == "--seed" ? &options.seed : nullptr;
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

// Index ranges far apart keep the files of one split from overlapping.
void write_all(const Options& options) {
  std::filesystem::create_directories(options.folder);
  const auto path = [&](const char* name) { return cat(options.folder, "/", name); };
  constexpr uint64_t kApart = 1ull << 40;
  std::set<std::string> seen;
  write_text(path("calibration.jsonl"), lines(options, Split::kTrain, 2 * kApart, 128, seen, training_line));
  write_text(path("valid.jsonl"), lines(options, Split::kTrain, kApart, 200, seen, training_line));
  write_text(path("train.jsonl"), lines(options, Split::kTrain, 0, options.train, seen, training_line));
  write_text(path("test.jsonl"), lines(options, Split::kTest, kApart, 200, seen, training_line));
  write_text(path("test_tasks.jsonl"), lines(options, Split::kTest, 0, options.test, seen, task_line));
}

}  // namespace
}  // namespace slmc::helpdesk

int main(int count, char** arguments) {
  try {
    slmc::helpdesk::write_all(slmc::helpdesk::parse(count, arguments));
    return 0;
  } catch (const slmc::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    std::cerr << "helpdesk-generate: " << error.what() << "\n";
    return static_cast<int>(slmc::ExitCode::kUsage);
  }
}

#include "examples/helpdesk/data_files.h"

#include <filesystem>
#include <set>

#include "compress/core/atomic_file.h"
#include "compress/core/json.h"
#include "compress/core/text.h"
#include "examples/helpdesk/conversation.h"
#include "examples/helpdesk/drills.h"

namespace slmc::helpdesk {
namespace {

// Whole conversations are learned, the customer's words too: there is as much language in them, and
// perplexity is measured on all of it.
std::string training_line(const Conversation& talk) {
  return Json{{"text", talk.prompt + talk.response}}.dump() + "\n";
}

// Only the answer is learned: its share of the loss is then larger.
std::string answer_line(const Conversation& talk) {
  return Json{{"prompt", talk.prompt}, {"response", talk.response}}.dump() + "\n";
}

std::string task_line(const Conversation& talk) {
  Json fields = Json::object();
  for (const auto& [name, value] : talk.fields) fields[name] = value;
  return Json{{"prompt", talk.prompt},
              {"fields", fields},
              {"label", "intent"},
              {"group", talk.new_wording ? "new wording" : "known wording"}}
             .dump() +
         "\n";
}

// `count` distinct conversations from `first` on, one line each.
template <typename Line>
std::string lines(const DataOptions& options, Split split, uint64_t first, uint64_t count,
                  std::set<std::string>& seen, Line line) {
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

std::string drills_text(const DataOptions& options) {
  std::string out;
  constexpr uint64_t kApart = 1ull << 40;
  for (uint64_t index = 0; index < options.drills; ++index) {
    const Drill drill = make_drill(options.seed, index);
    out += Json{{"prompt", drill.prompt}, {"response", drill.response}}.dump() + "\n";
    // As many conversations, so that copying is learned where it is needed.
    out += answer_line(make_conversation(options.seed, Split::kTrain, 3 * kApart + index));
  }
  return out;
}

}  // namespace

// Index ranges far apart keep the files of one split from overlapping.
void write_data(const DataOptions& options) {
  std::filesystem::create_directories(options.folder);
  const auto path = [&](const char* name) { return cat(options.folder, "/", name); };
  constexpr uint64_t kApart = 1ull << 40;
  std::set<std::string> seen;
  write_text(path("calibration.jsonl"),
             lines(options, Split::kTrain, 2 * kApart, 128, seen, training_line));
  write_text(path("valid.jsonl"), lines(options, Split::kTrain, kApart, 200, seen, training_line));
  write_text(path("train.jsonl"),
             lines(options, Split::kTrain, 0, options.train, seen, training_line));
  if (options.drills > 0) write_text(path("drills.jsonl"), drills_text(options));
  write_text(path("test.jsonl"), lines(options, Split::kTest, kApart, 200, seen, training_line));
  write_text(path("test_tasks.jsonl"),
             lines(options, Split::kTest, 0, options.test, seen, task_line));
}

}  // namespace slmc::helpdesk

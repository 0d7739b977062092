#include "recipes/journal.h"

#include <algorithm>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/text.h"
#include "formats/hub_cache.h"
#include "recipes/bound.h"
#include "recipes/stage_run.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

class PathCollector : public Fields {
 public:
  std::vector<std::string> paths;
  void visit(const FieldInfo&, bool&) override {}
  void visit(const FieldInfo&, int64_t&) override {}
  void visit(const FieldInfo&, double&) override {}
  void visit(const FieldInfo& info, std::string& value) override { add(info, value); }
  void visit(const FieldInfo& info, std::vector<std::string>& value) override {
    for (const std::string& text : value) add(info, text);
  }

 private:
  void add(const FieldInfo& info, const std::string& text) {
    std::error_code error;
    if (info.name == "output" || text.empty() || text.size() >= 4096) return;
    if (fs::exists(text, error)) {
      paths.push_back(text);
    } else if (names_a_path(info.value_name)) {
      const std::string model = find_in_hub_cache(text);
      if (!model.empty()) paths.push_back(model);
    }
  }
};

}  // namespace

std::string hash_path(const std::string& path, const std::string& without) {
  if (fs::is_regular_file(path)) return hash_file(path);
  std::vector<std::string> files;
  std::error_code error;
  // An iterator that is advanced by ++ throws.
  for (fs::recursive_directory_iterator at(path, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code ignored;
    if (!without.empty() && fs::equivalent(at->path(), without, ignored)) {
      at.disable_recursion_pending();
    } else if (at->is_regular_file(ignored)) {
      files.push_back(at->path().string());
    }
  }
  if (error) throw_bad_input(cat(path, ": cannot be read: ", error.message()));
  std::sort(files.begin(), files.end());
  std::string text;
  for (const std::string& file : files) {
    // The report holds times; it says what was done and is no part of the result.
    if (fs::path(file).filename() == "slmc_report.json") continue;
    text += cat(fs::relative(file, path).string(), " ", hash_file(file), "\n");
  }
  return hash_bytes(text.data(), text.size());
}

Json hash_inputs(Stage& stage, const std::string& without) {
  PathCollector collector;
  stage.visit(collector);
  Json hashes = Json::object();
  for (const std::string& path : collector.paths) {
    // A recipe within its model's folder; what the recipe itself wrote is counted.
    std::error_code error;
    const fs::path relative = fs::relative(path, without, error);
    const bool within = !without.empty() && !relative.empty() && *relative.begin() != "..";
    hashes[path] = hash_path(path, within ? "" : without);
  }
  return hashes;
}

Journal::Journal(const std::string& folder, bool anew)
    : folder_(without_trailing_slash(folder)), path_(path_in(folder_)) {
  if (!fs::exists(path_)) return;
  try {
    const Json json = read_json(path_);
    for (const auto& [stage, entry] : json.at("stages").items()) {
      entries_[stage] = {.key = entry.at("key"),
                         .done = entry.at("done"),
                         .output = entry.at("output"),
                         .output_hash = entry.at("output_hash"),
                         .report = entry.at("report")};
    }
  } catch (const Json::exception& error) {
    if (!anew)
      throw_bad_input(cat(path_, ": not a journal written by slmc (", error.what(),
                          "); remove it or use --force to start over"));
  } catch (const Error&) {
    if (!anew) throw;
  }
}

/// So that the folder may be moved, or named otherwise.
std::string Journal::within(const std::string& output) const {
  return output.empty() ? "" : fs::path(output).lexically_proximate(folder_).string();
}

bool Journal::owns(const std::string& output) const {
  const std::string place = within(output);
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const auto& entry) { return entry.second.output == place; });
}

const Journal::Entry* Journal::find(const std::string& stage) const {
  const auto at = entries_.find(stage);
  return at == entries_.end() ? nullptr : &at->second;
}

void Journal::begin(const std::string& stage, const std::string& key, const std::string& output) {
  entries_[stage] = {
      .key = key, .done = false, .output = within(output), .output_hash = {}, .report = {}};
  save();
}

void Journal::finish(const std::string& stage, const std::string& output, const Json& report) {
  Entry& entry = entries_[stage];
  entry.done = true;
  entry.output = within(output);
  entry.output_hash = output.empty() ? "" : hash_path(output);
  entry.report = report;
  save();
}

void Journal::forget() {
  for (auto& [stage, entry] : entries_)
    entry = {.key = {}, .done = false, .output = entry.output, .output_hash = {}, .report = {}};
  save();
}

bool Journal::is_done(const std::string& stage, const std::string& key) const {
  const Entry* entry = find(stage);
  if (entry == nullptr || !entry->done || entry->key != key) return false;
  if (entry->output.empty()) return true;
  const std::string output = (fs::path(folder_) / entry->output).string();
  return fs::exists(output) && hash_path(output) == entry->output_hash;
}

void Journal::save() const {
  Json stages = Json::object();
  for (const auto& [stage, entry] : entries_) {
    stages[stage] = {{"key", entry.key},
                     {"done", entry.done},
                     {"output", entry.output},
                     {"output_hash", entry.output_hash},
                     {"report", entry.report}};
  }
  write_text(path_,
             Json{{"stages", stages}}.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace slmc

// What a recipe's output folder remembers of each stage, so that --resume skips what is unchanged
// and goes on with what is half done.
#pragma once

#include <map>
#include <string>

#include "compress/core/json.h"
#include "compress/core/stage.h"

namespace slmc {

/// Hash of a file's content, or of a folder's relative names and contents, whatever their times.
/// Throws Error(kBadInput).
/// `without`: a folder that is not counted where it lies within.
std::string hash_path(const std::string& path, const std::string& without = "");

/// {path: hash} of every option value that names an existing file or folder, the output apart, and
/// apart from what is in the folder `without`.
Json hash_inputs(Stage& stage, const std::string& without = "");

/// `<folder>/journal.json`, written atomically at every change.
class Journal {
 public:
  /// `anew`: what cannot be read counts as nothing.
  explicit Journal(const std::string& folder, bool anew = false);

  struct Entry {
    std::string key;  ///< Hash of options, inputs, seed, device and version of slmc.
    bool done = false;
    std::string output, output_hash;  ///< The path from the recipe's folder on.
    Json report;
  };
  /// Null when the stage was never begun.
  const Entry* find(const std::string& stage) const;
  /// Written before a stage runs, so that a killed one is known to be half done, and what it may
  /// leave at `output` to be ours.
  void begin(const std::string& stage, const std::string& key, const std::string& output);
  void finish(const std::string& stage, const std::string& output, const Json& report);
  bool empty() const { return entries_.empty(); }
  /// Everything is to be done again; what may be replaced for it is kept in mind.
  void forget();
  /// True if a stage, now or of an earlier run, wrote there.
  bool owns(const std::string& output) const;

  /// True if the stage was finished under `key` and its output is still what it wrote.
  bool is_done(const std::string& stage, const std::string& key) const;

  static std::string path_in(const std::string& folder) { return folder + "/journal.json"; }

 private:
  void save() const;
  std::string within(const std::string& output) const;
  std::string folder_, path_;
  std::map<std::string, Entry> entries_;
};

}  // namespace slmc

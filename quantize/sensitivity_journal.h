// What a measurement of sensitivity has found out so far, a line of JSON each, so that a killed run
// goes on where it was.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <string>

#include "compress/core/json.h"

namespace slmc {

class SensitivityJournal {
 public:
  /// `path` empty: keeps nothing. With `resume`, what a run with the same `binding` left is read;
  /// anything else begins anew. A last line without its end is passed over.
  SensitivityJournal(std::string path, const std::string& binding, bool resume);

  /// Of a tensor: {"method": [...], "rounding": [...]}; null if not known.
  const Json* errors(const std::string& tensor) const;
  /// Of the variants of a stage in a window; null if not known.
  const Json* divergences(int64_t window, int64_t stage) const;
  /// Throws Error(kResources) when it cannot be written.
  void add(const Json& entry);

 private:
  void keep(const Json& entry);

  std::string path_;
  std::ofstream out_;
  std::map<std::string, Json> errors_;
  std::map<std::pair<int64_t, int64_t>, Json> divergences_;
};

}  // namespace slmc

// Collecting how two descriptions differ. Internals of architecture.cc and rope.cc.
#pragma once

#include <string>

#include "compress/core/text.h"

namespace slmc {

/// Keeps the first difference that is added.
class Differences {
 public:
  explicit Differences(std::string prefix = "") : prefix_(std::move(prefix)) {}
  /// Decimals compare as the float32 that the arithmetic uses, which is also what a GGUF keeps of
  /// them.
  void add(const char* field, double a, double b) {
    if (static_cast<float>(a) != static_cast<float>(b)) note(field, cat(a, " against ", b));
  }
  template <typename T>
  void add(const char* field, const T& a, const T& b) {
    if (!(a == b)) note(field, cat(a, " against ", b));
  }
  void add_values(const char* field, bool same) {
    if (!same) note(field, "values differ");
  }
  void add_text(const std::string& difference) {
    if (first_.empty()) first_ = difference;
  }
  const std::string& first() const { return first_; }

 private:
  void note(const char* field, const std::string& how) {
    if (first_.empty()) first_ = cat(prefix_, field, ": ", how);
  }
  std::string prefix_, first_;
};

}  // namespace slmc

// The residual stream of many windows between two blocks: in memory, or in an unnamed file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace slmc {

class HiddenStates {
 public:
  /// `tokens` [windows] tokens each, `hidden` floats a token. `folder` empty: in memory. Throws
  /// Error(kResources) when the file cannot be made.
  HiddenStates(std::vector<int64_t> tokens, int64_t hidden, const std::string& folder);
  ~HiddenStates();
  HiddenStates(const HiddenStates&) = delete;
  HiddenStates& operator=(const HiddenStates&) = delete;

  int64_t windows() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t tokens(int64_t window) const { return tokens_[static_cast<size_t>(window)]; }
  int64_t hidden() const { return hidden_; }
  /// [tokens(window)][hidden].
  void read(int64_t window, std::vector<float>& out) const;
  void write(int64_t window, const std::vector<float>& x);

 private:
  std::vector<int64_t> tokens_;
  std::vector<uint64_t> offsets_;  // In floats.
  int64_t hidden_;
  std::vector<float> memory_;
  int fd_ = -1;
};

}  // namespace slmc

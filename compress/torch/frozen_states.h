// What the frozen blocks of a network give of the training windows, kept from a window's first pass
// on.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "compress/runtime/hidden_states.h"

namespace slmc::libtorch {

/// Lanes may read and write at the same time; two that meet at one window write the same bits.
class FrozenStates {
 public:
  /// In an unnamed file in `folder`: `hidden` floats for each of a window's `tokens`. Throws
  /// Error(kResources).
  FrozenStates(const std::vector<int64_t>& tokens, int64_t hidden, const std::string& folder)
      : states_(tokens, hidden, folder), known_(tokens.size()) {}

  /// False if the window has not been written.
  bool read(int64_t window, std::vector<float>& out) const {
    if (!known_[static_cast<size_t>(window)].load(std::memory_order_acquire)) return false;
    states_.read(window, out);
    return true;
  }
  void write(int64_t window, const std::vector<float>& x) {
    states_.write(window, x);
    known_[static_cast<size_t>(window)].store(true, std::memory_order_release);
  }

 private:
  HiddenStates states_;
  std::vector<std::atomic<bool>> known_;
};

}  // namespace slmc::libtorch

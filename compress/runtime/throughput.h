// What the machine can do at most, measured in this process: the yardstick that benchmarks are
// given against.
#pragma once

#include <cstdint>

#include "compress/runtime/memory.h"

namespace slmc {

/// Memory on huge pages that all threads read together. Its size should be that of what it is
/// compared with, so that it lies in the same level of the memory hierarchy.
class ReadCeiling {
 public:
  explicit ReadCeiling(uint64_t bytes);
  /// Bytes a second over sweeps of at least 20 ms.
  double measure() const;

 private:
  PagedMemory memory_;
  int64_t pieces_;
  uint64_t piece_;
};

}  // namespace slmc

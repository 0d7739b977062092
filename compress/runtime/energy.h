// Energy used by the processor packages, where the machine tells (Linux powercap; root only on most
// systems).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace slmc {

class EnergyMeter {
 public:
  /// `folder` is /sys/class/powercap but in tests.
  explicit EnergyMeter(const std::string& folder = "/sys/class/powercap");
  /// False if the counters are not there or may not be read.
  bool available() const { return !packages_.empty(); }
  /// Joules since the last call, or since the meter was made. A counter that wrapped once is put
  /// right.
  double take();

 private:
  struct Package {
    std::string file;
    uint64_t range = 0, last = 0;  // Microjoules.
  };
  std::vector<Package> packages_;
};

}  // namespace slmc

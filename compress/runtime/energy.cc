#include "compress/runtime/energy.h"

#include <filesystem>
#include <fstream>
#include <optional>

namespace slmc {
namespace {

std::optional<uint64_t> read_number(const std::string& file) {
  std::ifstream in(file);
  uint64_t value = 0;
  return in >> value ? std::optional<uint64_t>(value) : std::nullopt;
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    // "intel-rapl:0" is a package (AMD's too); "intel-rapl:0:1" a part of it.
    const std::string name = entry.path().filename().string();
    if (name.rfind("intel-rapl:", 0) != 0 || name.find(':') != name.rfind(':')) continue;
    const std::string file = entry.path().string() + "/energy_uj";
    const auto now = read_number(file),
               range = read_number(entry.path().string() + "/max_energy_range_uj");
    if (now) packages_.push_back({file, range.value_or(0), *now});
  }
}

double EnergyMeter::take() {
  double joules = 0;
  for (Package& package : packages_) {
    const uint64_t now = read_number(package.file).value_or(package.last);
    const uint64_t used =
        now >= package.last ? now - package.last : now + package.range - package.last;
    joules += static_cast<double>(used) * 1e-6;
    package.last = now;
  }
  return joules;
}

}  // namespace slmc

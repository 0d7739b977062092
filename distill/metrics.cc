#include "distill/metrics.h"

#include <fstream>

#include "compress/core/atomic_file.h"

namespace slmc {

void trim_metrics(const std::string& path, int64_t step) {
  if (path.empty()) return;
  std::string kept;
  if (std::ifstream file(path); step > 0 && file)
    for (std::string line; std::getline(file, line);) {
      const Json entry = Json::parse(line, nullptr, false);
      if (entry.is_discarded()) continue;  // A kill may have cut it.
      if ((entry.contains("held_out") ? entry["held_out"] : entry).value("step", int64_t{0}) <=
          step)
        kept += line + "\n";
    }
  write_text(path, kept);
}

void append_metrics(const std::string& path, const Json& line) {
  if (!path.empty()) std::ofstream(path, std::ios::app) << line.dump() << '\n';
}

}  // namespace slmc

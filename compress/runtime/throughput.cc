#include "compress/runtime/throughput.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/runtime/isa.h"
#include "compress/runtime/memory.h"

namespace slmc {
namespace {

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

double read_ceiling_bytes_per_second(uint64_t bytes, int repetitions) {
  const PagedMemory memory(bytes, true);
  const int64_t pieces = threads() * 4;
  const uint64_t piece = bytes / static_cast<uint64_t>(pieces) / 64 * 64;
  parallel_for(pieces, [&](int64_t i) { std::memset(memory.data() + static_cast<uint64_t>(i) * piece, static_cast<int>(i + 1), piece); });
  std::atomic<uint64_t> total{0};
  const auto sweep = [&] {
    parallel_for(pieces, [&](int64_t i) { total += kernel_set().read_all(memory.data() + static_cast<uint64_t>(i) * piece, static_cast<int64_t>(piece)); });
  };
  std::vector<double> rates;
  for (int repetition = 0; repetition < std::max(repetitions, 1); ++repetition) {
    const double start = now_seconds();
    sweep();
    rates.push_back(static_cast<double>(piece * static_cast<uint64_t>(pieces)) / (now_seconds() - start));
  }
  return median(rates);
}

}  // namespace slmc

#include "compress/runtime/throughput.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/runtime/isa.h"

namespace slmc {

ReadCeiling::ReadCeiling(uint64_t bytes)
    : memory_(std::max<uint64_t>(bytes, 65536), true),
      pieces_(threads() * 4),
      piece_(std::max<uint64_t>(memory_.size() / static_cast<uint64_t>(pieces_) / 64, 1) * 64) {
  pieces_ = std::min(pieces_, static_cast<int64_t>(memory_.size() / piece_));
  std::memset(memory_.data(), 1,
              memory_.size());  // Untouched pages would all be the one page of zeros.
}

double ReadCeiling::measure() const {
  std::atomic<uint64_t> total{0};
  uint64_t bytes = 0;
  const double start = now_seconds();
  double seconds = 0;
  do {
    parallel_for(pieces_, [&](int64_t i) {
      total += kernel_set().read_all(memory_.data() + static_cast<uint64_t>(i) * piece_,
                                     static_cast<int64_t>(piece_));
    });
    bytes += piece_ * static_cast<uint64_t>(pieces_);
    seconds = now_seconds() - start;
  } while (seconds < 0.02);
  return static_cast<double>(bytes) / seconds;
}

}  // namespace slmc

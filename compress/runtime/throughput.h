// What the machine can do at most, measured in this process: the yardsticks that benchmarks are given against.
#pragma once

#include <cstdint>

namespace slmc {

/// Bytes a second that all threads together read from `bytes` of memory on huge pages; the median of `repetitions` sweeps.
double read_ceiling_bytes_per_second(uint64_t bytes, int repetitions);

}  // namespace slmc

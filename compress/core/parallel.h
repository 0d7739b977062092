// OpenMP loops. Work is divided by index alone, so results never depend on the number of threads.
#pragma once

#include <cstdint>
#include <functional>

namespace slmc {

/// Sets the number of threads for all torch-free loops; 0 means all processors. Returns what is in
/// force.
int set_threads(int threads);
int threads();

/// Calls body(i) for i in [0, count), dynamically scheduled. The first exception is rethrown after
/// the loop.
void parallel_for(int64_t count, const std::function<void(int64_t)>& body);
/// Calls body(begin, end) over [0, count) in pieces of `grain`.
void parallel_ranges(int64_t count, int64_t grain,
                     const std::function<void(int64_t, int64_t)>& body);

}  // namespace slmc

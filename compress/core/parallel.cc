#include "compress/core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <mutex>

#include "compress/core/system.h"

namespace slmc {
namespace {

int thread_count = 0;

// Keeps the first exception of a parallel region, which must not leave it by itself.
class ExceptionKeeper {
 public:
  template <typename Body>
  void run(const Body& body) {
    try {
      body();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace

int set_threads(int count) {
  thread_count = count > 0 ? count : processor_count();
  omp_set_num_threads(thread_count);
  return thread_count;
}

int threads() { return thread_count > 0 ? thread_count : set_threads(0); }

void parallel_for(int64_t count, const std::function<void(int64_t)>& body) {
  ExceptionKeeper keeper;
#pragma omp parallel for schedule(dynamic) num_threads(threads()) if (count > 1)
  for (int64_t i = 0; i < count; ++i) keeper.run([&] { body(i); });
  keeper.rethrow();
}

void parallel_ranges(int64_t count, int64_t grain,
                     const std::function<void(int64_t, int64_t)>& body) {
  const int64_t pieces = (count + grain - 1) / grain;
  parallel_for(pieces,
               [&](int64_t piece) { body(piece * grain, std::min(count, (piece + 1) * grain)); });
}

}  // namespace slmc

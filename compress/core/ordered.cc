#include "compress/core/ordered.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "compress/core/parallel.h"

namespace slmc {

void ordered_pipeline(int64_t count, const std::function<void(int64_t item, int slot)>& produce,
                      const std::function<void(int64_t item, int slot)>& consume) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::condition_variable turn;
  int64_t consumed = 0;  // Items below this are done; guarded by the mutex.

  const auto work = [&](int slot) {
    for (int64_t item = next++; item < count && !failed; item = next++) {
      produce(item, slot);
      std::unique_lock<std::mutex> lock(mutex);
      turn.wait(lock, [&] { return consumed == item || failed; });
      if (failed) return;
      lock.unlock();
      consume(item, slot);
      lock.lock();
      ++consumed;
      turn.notify_all();
    }
  };
  // Items are taken in ascending order, so whoever holds the lowest unfinished one never waits and
  // the others follow.
  parallel_for(threads(), [&](int64_t slot) {
    try {
      work(static_cast<int>(slot));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failed = true;
      turn.notify_all();
      throw;
    }
  });
}

}  // namespace slmc

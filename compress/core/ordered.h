// A parallel producer with one ordered consumer: how a stage encodes on all threads and writes a
// file in order.
#pragma once

#include <cstdint>
#include <functional>

namespace slmc {

/// Calls produce(item, slot) for every item in [0, count) on all threads, and consume(item, slot)
/// for the same items in ascending order, one at a time, on the thread that produced the item.
/// `slot` < threads() is the thread's own, so buffers may be kept per slot; a slot is not reused
/// before its item is consumed, so at most threads() items are in hand. What is consumed, and in
/// which order, does not depend on the number of threads. The first exception stops all and is
/// rethrown.
void ordered_pipeline(int64_t count, const std::function<void(int64_t item, int slot)>& produce,
                      const std::function<void(int64_t item, int slot)>& consume);

}  // namespace slmc

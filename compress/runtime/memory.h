// Large zeroed memory straight from the operating system.
#pragma once

#include <cstddef>
#include <cstdint>

namespace slmc {

/// Zeroed anonymous memory, aligned to 2 MiB when `huge`, which also asks for huge pages (a third
/// more read bandwidth on one thread). Pages take no room before they are touched. Throws
/// Error(kResources).
class PagedMemory {
 public:
  PagedMemory() = default;
  PagedMemory(uint64_t bytes, bool huge);
  ~PagedMemory();
  PagedMemory(PagedMemory&& other) noexcept;
  PagedMemory& operator=(PagedMemory&& other) noexcept;
  PagedMemory(const PagedMemory&) = delete;
  PagedMemory& operator=(const PagedMemory&) = delete;

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;
  uint64_t mapped_ = 0;
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace slmc

#include "compress/runtime/memory.h"

#include <sys/mman.h>

#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

constexpr uint64_t kHugePage = 2u << 20;

PagedMemory::PagedMemory(uint64_t bytes, bool huge) : size_(bytes) {
  if (bytes == 0) return;
  const bool align = huge && bytes >= kHugePage;
  mapped_ = bytes + (align ? kHugePage : 0);
  mapping_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw_resources(
        cat("memory: ", human_bytes(bytes), " could not be had; use a smaller model or --context"));
  }
  auto address = reinterpret_cast<uintptr_t>(mapping_);
  if (align) {
    address = (address + kHugePage - 1) / kHugePage * kHugePage;
    madvise(reinterpret_cast<void*>(address), bytes,
            MADV_HUGEPAGE);  // A wish: without it all still works.
  }
  data_ = reinterpret_cast<std::byte*>(address);
}

PagedMemory::~PagedMemory() {
  if (mapping_) munmap(mapping_, mapped_);
}

PagedMemory::PagedMemory(PagedMemory&& other) noexcept { *this = std::move(other); }

PagedMemory& PagedMemory::operator=(PagedMemory&& other) noexcept {
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace slmc

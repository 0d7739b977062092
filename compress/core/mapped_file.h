// A read-only memory-mapped file. The mapping lives as long as any view of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace slmc {

class MappedFile {
 public:
  /// Throws Error(kBadInput) if the file is absent, unreadable or not a regular file. Empty files
  /// map to size 0.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  /// Tells the kernel that the whole pages inside [offset, offset + size) are not needed for now,
  /// so they leave the resident set.
  void drop(uint64_t offset, uint64_t size) const;

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

/// The whole file as text. Throws Error(kBadInput).
std::string read_text(const std::string& path);

}  // namespace slmc

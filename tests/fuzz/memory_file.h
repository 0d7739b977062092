// A file that is only in memory, so that readers which take a path can be fed bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace slmc::fuzz {

class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::string path() const;

 private:
  int fd_;
};

}  // namespace slmc::fuzz

// Content hashes (XXH3, 128 bits), written as 32 hexadecimal digits.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace slmc {

std::string hash_bytes(const void* data, size_t size);

/// Hash of a stream of pieces; equal to hash_bytes of their concatenation.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void add(const void* data, size_t size);
  std::string digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Hash of a file's content, read in pieces whose pages are dropped behind.
std::string hash_file(const std::string& path);

}  // namespace slmc

#include "compress/core/hash.h"

#include <xxhash.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"

namespace slmc {
namespace {

std::string hex(XXH128_hash_t hash) {
  char text[33];
  std::snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, static_cast<uint64_t>(hash.high64),
                static_cast<uint64_t>(hash.low64));
  return text;
}

}  // namespace

struct Hasher::State {
  XXH3_state_t* state = XXH3_createState();
  ~State() { XXH3_freeState(state); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(state_->state); }
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;
void Hasher::add(const void* data, size_t size) { XXH3_128bits_update(state_->state, data, size); }
std::string Hasher::digest() const { return hex(XXH3_128bits_digest(state_->state)); }

std::string hash_bytes(const void* data, size_t size) { return hex(XXH3_128bits(data, size)); }

std::string hash_file(const std::string& path) {
  constexpr uint64_t kPiece = 8u << 20;
  const auto file = MappedFile::open(path);
  Hasher hasher;
  for (uint64_t at = 0; at < file->size(); at += kPiece) {
    const uint64_t size = std::min(kPiece, file->size() - at);
    hasher.add(file->data() + at, size);
    file->drop(at, size);
  }
  return hasher.digest();
}

}  // namespace slmc

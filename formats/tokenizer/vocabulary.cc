// The two hash tables of a tokenizer: strings to ids, pairs of ids to merges.
#include "formats/tokenizer/vocabulary.h"

#include <xxhash.h>

#include <bit>
#include <limits>
#include <utility>

#include "compress/core/error.h"

namespace slmc::tokenization {
namespace {

size_t hash_text(std::string_view text) {
  return static_cast<size_t>(XXH3_64bits(text.data(), text.size()));
}

}  // namespace

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  arena_.reserve(bytes);
  places_.reserve(tokens);
  grow(std::bit_ceil(tokens * 2 + 2));
}

void Vocabulary::grow(size_t slots) {
  if (slots <= slots_.size()) return;
  slots_.assign(slots, -1);
  for (int32_t id = 0; id < size(); ++id) {
    if (!has(id)) continue;
    size_t slot = hash_text(text(id)) & (slots - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots - 1);
    slots_[slot] = id;
  }
}

bool Vocabulary::add(std::string_view text, int32_t id) {
  if ((count_ + 1) * 2 > slots_.size()) grow(std::bit_ceil((count_ + 1) * 4));
  size_t slot = hash_text(text) & (slots_.size() - 1);
  for (; slots_[slot] >= 0; slot = (slot + 1) & (slots_.size() - 1)) {
    if (this->text(slots_[slot]) == text) return false;
  }
  if (has(id)) return false;
  if (arena_.size() + text.size() > std::numeric_limits<uint32_t>::max()) {
    throw_unsupported("a vocabulary of more than 4 GB of text");
  }
  if (id >= size()) places_.resize(static_cast<size_t>(id) + 1);
  places_[static_cast<size_t>(id)] = {static_cast<uint32_t>(arena_.size()),
                                      static_cast<int32_t>(text.size())};
  arena_ += text;
  slots_[slot] = id;
  ++count_;
  return true;
}

int32_t Vocabulary::find(std::string_view text) const {
  if (slots_.empty()) return -1;
  for (size_t slot = hash_text(text) & (slots_.size() - 1); slots_[slot] >= 0;
       slot = (slot + 1) & (slots_.size() - 1)) {
    if (this->text(slots_[slot]) == text) return slots_[slot];
  }
  return -1;
}

bool Vocabulary::has(int32_t id) const {
  return id >= 0 && id < size() && places_[static_cast<size_t>(id)].length >= 0;
}

std::string_view Vocabulary::text(int32_t id) const {
  if (!has(id)) return {};
  const Place& place = places_[static_cast<size_t>(id)];
  return std::string_view(arena_).substr(place.offset, static_cast<size_t>(place.length));
}

void Merges::reserve(size_t count) {
  const size_t slots = std::bit_ceil(count * 3 / 2 + 2);
  if (slots <= slots_.size()) return;
  std::vector<Entry> old(slots);
  old.swap(slots_);
  mask_ = slots - 1;
  for (const Entry& entry : old) {
    if (entry.key == kEmpty) continue;
    size_t slot = hash(entry.key);
    while (slots_[slot].key != kEmpty) slot = (slot + 1) & mask_;
    slots_[slot] = entry;
  }
}

void Merges::add(int32_t left, int32_t right, int32_t rank, int32_t result) {
  reserve(count_ + 1);
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  size_t slot = hash(key);
  while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
  if (slots_[slot].key == kEmpty) ++count_;
  slots_[slot] = {key, rank, result};
}

}  // namespace slmc::tokenization

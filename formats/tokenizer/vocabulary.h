// Token strings and BPE merges in flat memory: 150k tokens load in tens of milliseconds and stay in
// a few megabytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::tokenization {

/// Strings with ids, found by either. All strings lie in one arena.
class Vocabulary {
 public:
  /// Room for `tokens` strings of `bytes` together.
  void reserve(size_t tokens, size_t bytes);
  /// False, and nothing is added, if the text or the id is taken. `id` >= 0.
  bool add(std::string_view text, int32_t id);
  /// -1 if there is none.
  int32_t find(std::string_view text) const;
  bool has(int32_t id) const;
  /// "" for an id without a string.
  std::string_view text(int32_t id) const;
  /// Highest id + 1.
  int32_t size() const { return static_cast<int32_t>(places_.size()); }
  /// Strings.
  size_t count() const { return count_; }

 private:
  struct Place {
    uint32_t offset = 0;
    int32_t length = -1;  // -1: no string.
  };
  void grow(size_t slots);

  std::string arena_;
  std::vector<Place> places_;   // By id.
  std::vector<int32_t> slots_;  // Open addressing, -1 empty, at most half full.
  size_t count_ = 0;
};

/// Pairs of ids and what they merge into. A lower rank merges first.
class Merges {
 public:
  struct Entry {
    uint64_t key = kEmpty;  ///< left << 32 | right.
    int32_t rank = -1;
    int32_t result = -1;
  };
  void reserve(size_t count);
  /// A pair given twice takes the later rank, as in Hugging Face's loader.
  void add(int32_t left, int32_t right, int32_t rank, int32_t result);
  /// Null if the pair does not merge.
  const Entry* find(int32_t left, int32_t right) const {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    for (size_t slot = hash(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return &slots_[slot];
      if (slots_[slot].key == kEmpty) return nullptr;
    }
  }
  size_t count() const { return count_; }

 private:
  static constexpr uint64_t kEmpty = ~0ull;
  size_t hash(uint64_t key) const {
    return static_cast<size_t>((key * 0x9e3779b97f4a7c15ull) >> 29) & mask_;
  }

  std::vector<Entry> slots_ = std::vector<Entry>(2);
  size_t mask_ = 1;
  size_t count_ = 0;
};

}  // namespace slmc::tokenization

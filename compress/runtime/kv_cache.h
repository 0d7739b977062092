// Keys and values of one sequence, laid out for the attention kernels, and the scratch memory that
// runs on that sequence share.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/runtime/decoder.h"
#include "compress/runtime/memory.h"
#include "compress/runtime/rotary.h"

namespace slmc {

/// Buffers of one forward pass; they grow to the largest chunk and are kept.
struct Workspace {
  std::vector<float> x, normed, query, key, value, mixed, gate, up, scales, rounded;
  std::vector<float> narrow, added;  ///< Of bottleneck adapters.
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  const LinearObserver* observer = nullptr;  ///< Null but while a caller watches.
};

/// Layout, for each layer and key-value head: keys as panels of 16 positions
/// [capacity/16][head_dim][16], values [capacity][value_width] with value_width = head_dim rounded
/// up to 16. Elements are f32, f16 or int8 codes, which have a scale for each position and head:
/// the architecture's, or one found for it.
class SequenceCache final : public KvCache {
 public:
  /// For `capacity` tokens behind `prompt` virtual ones. `type` kAuto: as `mode` has it.
  SequenceCache(const Architecture& arch, int64_t capacity, KvType type, Activations mode,
                int64_t prompt = 0);
  /// Without the tuned prompt, which stands before all tokens.
  int64_t length() const override { return length_ - prompt_; }
  int64_t capacity() const override { return capacity_; }
  /// Where the next token goes: an absolute position.
  int64_t end() const { return length_; }
  void truncate(int64_t length) override;
  uint64_t bytes() const override { return keys_.size() + values_.size() + scales_.size(); }

  KvType type() const { return type_; }
  int64_t value_width() const { return value_width_; }
  /// Writes one position's head; `key` and `value` are [head_dim].
  void store(int64_t layer, int64_t kv_head, int64_t position, const float* key,
             const float* value);
  /// The reverse, of a cache in f32.
  void load(int64_t layer, int64_t kv_head, int64_t position, float* key, float* value) const;
  const std::byte* keys(int64_t layer, int64_t kv_head) const {
    return keys_.data() + (layer * kv_heads_ + kv_head) * key_stride_;
  }
  const std::byte* values(int64_t layer, int64_t kv_head) const {
    return values_.data() + (layer * kv_heads_ + kv_head) * value_stride_;
  }
  /// int8: [capacity] for the keys of a head; those of its values follow at `scale_stride()`.
  const float* scales(int64_t layer, int64_t kv_head) const {
    return reinterpret_cast<const float*>(scales_.data()) +
           2 * (layer * kv_heads_ + kv_head) * padded_;
  }
  int64_t scale_stride() const { return padded_; }
  void append(int64_t count) { length_ += count; }

  /// Makes rotation available for positions below `length`.
  void extend_rotation(int64_t length);
  const RotaryTable& rotation(int64_t layer) const {
    return rotary_[rotary_.size() > 1 && local_[static_cast<size_t>(layer)] ? 1 : 0];
  }

  Workspace workspace;

 private:
  std::vector<RotaryTable> rotary_;  // The general one, and the windowed layers' where they differ.
  std::vector<bool> local_;          // [layers]: which use the second.
  int64_t kv_heads_, head_dim_, value_width_, capacity_, prompt_, padded_;
  KvType type_;
  std::vector<float> fixed_scales_;                         // Architecture::kv_scales.
  int64_t length_ = 0, key_stride_ = 0, value_stride_ = 0;  // Strides in bytes, from head to head.
  PagedMemory keys_, values_, scales_;
};

}  // namespace slmc

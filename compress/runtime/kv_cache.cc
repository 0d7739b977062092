#include "compress/runtime/kv_cache.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/text.h"
#include "compress/runtime/kernels/kernels.h"

namespace slmc {

using kernels::kAttentionBlock;
using kernels::kLanes;

namespace {

/// Rounds `n` values to int8 with one scale, into codes `step` apart. docs/arithmetic.md, "Keys and
/// values in int8".
float round_to_int8(const float* x, int64_t n, int8_t* codes, int64_t step) {
  uint32_t largest = 0;  // Magnitudes as integers, so that a NaN is the largest.
  for (int64_t i = 0; i < n; ++i)
    largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  const auto most = std::bit_cast<float>(largest);
  if (most < 0x1p-119f) {
    for (int64_t i = 0; i < n; ++i) codes[i * step] = 0;
    return 0.0f;
  }
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds half to even.
  const float inverse = 127.0f / most;
  for (int64_t i = 0; i < n; ++i) {
    const float shifted = x[i] * inverse + kShift;
    codes[i * step] =
        static_cast<int8_t>(std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kShift));
  }
  return most / 127.0f;
}

/// The same with a fixed scale and codes from -128; what is not finite makes the scale NaN.
float round_to_scale(const float* x, int64_t n, float scale, int8_t* codes, int64_t step) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::clamp(std::nearbyint(x[i] / scale), -128.0f, 127.0f);
    finite = finite && std::isfinite(x[i]);
    codes[i * step] = static_cast<int8_t>(std::isnan(code) ? 0.0f : code);
  }
  return finite ? scale : std::numeric_limits<float>::quiet_NaN();
}

int64_t element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
}

}  // namespace

SequenceCache::SequenceCache(const Architecture& arch, int64_t capacity, KvType type,
                             Activations mode, int64_t prompt)
    : kv_heads_(arch.kv_heads),
      head_dim_(arch.head_dim),
      value_width_((arch.head_dim + kLanes - 1) / kLanes * kLanes),
      capacity_(capacity),
      prompt_(prompt),
      padded_((capacity + prompt_ + kAttentionBlock - 1) / kAttentionBlock * kAttentionBlock),
      type_(resolve_kv_type(type, mode, arch)),
      fixed_scales_(arch.kv_scales) {
  if (capacity < 0)
    throw_usage(cat("cache: expected a capacity of at least 0 tokens, found ", capacity));
  rotary_.emplace_back(arch.rope, capacity + prompt_);
  if (arch.local_rope) rotary_.emplace_back(*arch.local_rope, capacity + prompt_);
  for (int64_t layer = 0; layer < arch.layers; ++layer)
    local_.push_back(&layer_rope(arch, layer) != &arch.rope);
  const int64_t element = element_bytes(type_);
  key_stride_ = padded_ * head_dim_ * element;
  value_stride_ = padded_ * value_width_ * element;
  const auto heads = static_cast<uint64_t>(arch.layers * kv_heads_);
  keys_ = PagedMemory(heads * static_cast<uint64_t>(key_stride_), false);
  values_ = PagedMemory(heads * static_cast<uint64_t>(value_stride_), false);
  if (type_ == KvType::kInt8)
    scales_ = PagedMemory(2 * heads * static_cast<uint64_t>(padded_) * sizeof(float), false);
}

void SequenceCache::extend_rotation(int64_t length) {
  for (RotaryTable& table : rotary_) table.extend(length);
}

void SequenceCache::truncate(int64_t length) {
  SLMC_CHECK(length >= 0, "a cache has no negative length");
  length_ = std::min(length_, length + prompt_);
}

void SequenceCache::store(int64_t layer, int64_t kv_head, int64_t position, const float* key,
                          const float* value) {
  const int64_t key_at = position / kLanes * head_dim_ * kLanes + position % kLanes,
                value_at = position * value_width_;
  std::byte* key_base = keys_.data() + (layer * kv_heads_ + kv_head) * key_stride_;
  std::byte* value_base = values_.data() + (layer * kv_heads_ + kv_head) * value_stride_;
  if (type_ == KvType::kInt8) {
    float* scales = reinterpret_cast<float*>(scales_.data()) +
                    2 * (layer * kv_heads_ + kv_head) * padded_ + position;
    auto* key_codes = reinterpret_cast<int8_t*>(key_base) + key_at;
    auto* value_codes = reinterpret_cast<int8_t*>(value_base) + value_at;
    if (fixed_scales_.empty()) {
      scales[0] = round_to_int8(key, head_dim_, key_codes, kLanes);
      scales[padded_] = round_to_int8(value, head_dim_, value_codes, 1);
    } else {
      const float* fixed = fixed_scales_.data() + 2 * layer;
      scales[0] = round_to_scale(key, head_dim_, fixed[0], key_codes, kLanes);
      scales[padded_] = round_to_scale(value, head_dim_, fixed[1], value_codes, 1);
    }
    return;
  }
  if (type_ == KvType::kF16) {
    auto* keys_out = reinterpret_cast<uint16_t*>(key_base) + key_at;
    auto* values_out = reinterpret_cast<uint16_t*>(value_base) + value_at;
    for (int64_t i = 0; i < head_dim_; ++i) {
      keys_out[i * kLanes] = float_to_f16(key[i]);
      values_out[i] = float_to_f16(value[i]);
    }
    return;
  }
  auto* keys_out = reinterpret_cast<float*>(key_base) + key_at;
  for (int64_t i = 0; i < head_dim_; ++i) keys_out[i * kLanes] = key[i];
  std::memcpy(reinterpret_cast<float*>(value_base) + value_at, value,
              static_cast<size_t>(head_dim_) * sizeof(float));
}

void SequenceCache::load(int64_t layer, int64_t kv_head, int64_t position, float* key,
                         float* value) const {
  SLMC_CHECK(type_ == KvType::kF32, "keys and values are read back as they were given");
  const auto* key_base = reinterpret_cast<const float*>(keys(layer, kv_head)) +
                         position / kLanes * head_dim_ * kLanes + position % kLanes;
  const auto* value_base =
      reinterpret_cast<const float*>(values(layer, kv_head)) + position * value_width_;
  for (int64_t i = 0; i < head_dim_; ++i) {
    key[i] = key_base[i * kLanes];
    value[i] = value_base[i];
  }
}

}  // namespace slmc

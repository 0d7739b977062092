#include "formats/block_layout.h"

#include <algorithm>
#include <cmath>

#include "compress/core/half.h"

namespace slmc {
namespace {

constexpr float kRounder =
    12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even.

/// 1 / x, or 0 where that is not finite, so that everything is rounded to code 0.
float inverse_of(float x) {
  const float inverse = 1.0f / x;
  return std::isfinite(inverse) ? inverse : 0.0f;
}

int nearest_in_table(const int8_t* table, float value) {
  int index = 0;
  while (index < 15 &&
         value > 0.5f * (static_cast<float>(table[index]) + static_cast<float>(table[index + 1])))
    ++index;
  return table[index];
}

int rounded(float value, int low, int high) {
  const float inside = std::min(std::max(value, static_cast<float>(low)), static_cast<float>(high));
  return static_cast<int>((inside + kRounder) - kRounder);
}

/// The element of largest magnitude, the first of equals.
float extreme_of(const float* x, int64_t n) {
  float extreme = x[0];
  for (int64_t i = 1; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  return extreme;
}

/// The extreme becomes the lowest code, which reaches furthest.
void scales_by_extremes(const BlockLayout& layout, const float* x, BlockParts& parts) {
  const float lowest = static_cast<float>(layout.table ? layout.table[0] : layout.low);
  float scale[16] = {};
  for (int64_t j = 0; j < layout.subs; ++j)
    scale[j] = extreme_of(x + j * layout.sub, layout.sub) / lowest;
  if (layout.subs == 1) {
    parts.d = float_to_f16(scale[0]);
    parts.scales[0] = 1;
    return;
  }
  const float d = extreme_of(scale, layout.subs) / static_cast<float>(layout.scale_low);
  const float inverse = inverse_of(d);
  parts.d = float_to_f16(d);
  for (int64_t j = 0; j < layout.subs; ++j) {
    parts.scales[j] =
        static_cast<int8_t>(rounded(scale[j] * inverse, layout.scale_low, layout.scale_high));
  }
}

void minimums_by_extremes(const BlockLayout& layout, const float* x, BlockParts& parts) {
  float scale[16] = {}, minimum[16] = {}, largest_scale = 0.0f, largest_minimum = 0.0f;
  for (int64_t j = 0; j < layout.subs; ++j) {
    const auto [low, high] = std::minmax_element(x + j * layout.sub, x + (j + 1) * layout.sub);
    minimum[j] = layout.subs == 1 ? -*low : -std::min(*low, 0.0f);
    scale[j] = (*high + minimum[j]) / static_cast<float>(layout.high);
    largest_scale = std::max(largest_scale, scale[j]);
    largest_minimum = std::max(largest_minimum, minimum[j]);
  }
  if (layout.subs == 1) {
    parts.d = float_to_f16(scale[0]);
    parts.dmin = float_to_f16(minimum[0]);
    parts.scales[0] = 1;
    parts.minimums[0] = 1;
    return;
  }
  const auto top = static_cast<float>(layout.scale_high);
  parts.d = float_to_f16(largest_scale / top);
  parts.dmin = float_to_f16(largest_minimum / top);
  const float scale_inverse = inverse_of(largest_scale / top),
              minimum_inverse = inverse_of(largest_minimum / top);
  for (int64_t j = 0; j < layout.subs; ++j) {
    parts.scales[j] = static_cast<int8_t>(rounded(scale[j] * scale_inverse, 0, layout.scale_high));
    parts.minimums[j] =
        static_cast<uint8_t>(rounded(minimum[j] * minimum_inverse, 0, layout.scale_high));
  }
}

}  // namespace

const int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};

float sub_scale(const BlockParts& parts, int64_t sub) {
  return f16_to_float(parts.d) * static_cast<float>(parts.scales[sub]);
}

float sub_minimum(const BlockLayout& layout, const BlockParts& parts, int64_t sub) {
  return layout.minimum ? f16_to_float(parts.dmin) * static_cast<float>(parts.minimums[sub]) : 0.0f;
}

int nearest_code(const BlockLayout& layout, float value) {
  return layout.table ? nearest_in_table(layout.table, value)
                      : rounded(value, layout.low, layout.high);
}

void round_codes(const BlockLayout& layout, const float* x, BlockParts& parts) {
  for (int64_t j = 0; j < layout.subs; ++j) {
    const float inverse = inverse_of(sub_scale(parts, j));
    const float minimum = sub_minimum(layout, parts, j);
    for (int64_t i = j * layout.sub; i < (j + 1) * layout.sub; ++i)
      parts.codes[i] = static_cast<int8_t>(nearest_code(layout, (x[i] + minimum) * inverse));
  }
}

void decode_blocks(const BlockLayout& layout, int64_t block_bytes, const std::byte* in, int64_t n,
                   float* out) {
  BlockParts parts;
  for (int64_t b = 0; b < n / layout.block; ++b, in += block_bytes, out += layout.block) {
    layout.unpack(in, parts);
    for (int64_t j = 0; j < layout.subs; ++j) {
      const float scale = sub_scale(parts, j), minimum = sub_minimum(layout, parts, j);
      const int8_t* codes = parts.codes + j * layout.sub;
      float* to = out + j * layout.sub;
      if (layout.minimum) {
        for (int64_t i = 0; i < layout.sub; ++i)
          to[i] = scale * static_cast<float>(codes[i]) - minimum;
      } else {
        for (int64_t i = 0; i < layout.sub; ++i) to[i] = scale * static_cast<float>(codes[i]);
      }
    }
  }
}

namespace {

/// codes[i] = low + floor((x[i] - offset) / scale + 1/2 - low), at most high.
void code_reference(const BlockLayout& layout, const float* x, float offset, float scale,
                    BlockParts& parts) {
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  const float half = 0.5f - static_cast<float>(layout.low);
  for (int64_t i = 0; i < layout.block; ++i) {
    const int code =
        std::isfinite(inverse)
            ? std::min(layout.high - layout.low, static_cast<int>((x[i] - offset) * inverse + half))
            : 0;
    parts.codes[i] = static_cast<int8_t>(code + layout.low);
  }
}

}  // namespace

void encode_symmetric(const BlockLayout& layout, int64_t block_bytes, const float* in, int64_t n,
                      std::byte* out) {
  BlockParts parts;
  for (int64_t at = 0; at < n; at += layout.block, in += layout.block, out += block_bytes) {
    float extreme = in[0];
    for (int64_t i = 1; i < layout.block; ++i) {
      if (std::fabs(in[i]) > std::fabs(extreme)) extreme = in[i];
    }
    const float scale = extreme / static_cast<float>(layout.low);
    parts.d = float_to_f16(scale);
    code_reference(layout, in, 0.0f, scale, parts);
    layout.pack(parts, out);
  }
}

void encode_affine(const BlockLayout& layout, int64_t block_bytes, const float* in, int64_t n,
                   std::byte* out) {
  BlockParts parts;
  for (int64_t at = 0; at < n; at += layout.block, in += layout.block, out += block_bytes) {
    const auto [least, greatest] = std::minmax_element(in, in + layout.block);
    const float scale = (*greatest - *least) / static_cast<float>(layout.high);
    parts.d = float_to_f16(scale);
    parts.dmin = static_cast<uint16_t>(float_to_f16(*least) ^ 0x8000u);
    code_reference(layout, in, *least, scale, parts);
    layout.pack(parts, out);
  }
}

void encode_by_extremes(const BlockLayout& layout, int64_t block_bytes, const float* in, int64_t n,
                        std::byte* out) {
  BlockParts parts;
  for (int64_t b = 0; b < n / layout.block; ++b, in += layout.block, out += block_bytes) {
    if (layout.minimum) {
      minimums_by_extremes(layout, in, parts);
    } else {
      scales_by_extremes(layout, in, parts);
    }
    round_codes(layout, in, parts);
    layout.pack(parts, out);
  }
}

}  // namespace slmc

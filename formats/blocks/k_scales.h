// The 12 bytes in which q4_k and q5_k keep eight 6-bit scales and eight 6-bit minimums: of the
// first four, byte j holds scale j and byte j + 4 minimum j in the low six bits; byte j + 4 of the
// others holds the low four bits of both, whose upper two are the upper two of bytes j - 4 and j.
#pragma once

#include <cstddef>

#include "formats/block_layout.h"

namespace slmc {

inline void unpack_k_scales(const std::byte* in, BlockParts& parts) {
  const auto at = [in](int64_t i) { return std::to_integer<int>(in[i]); };
  for (int64_t j = 0; j < 4; ++j) {
    parts.scales[j] = static_cast<int8_t>(at(j) & 63);
    parts.minimums[j] = static_cast<uint8_t>(at(j + 4) & 63);
    parts.scales[j + 4] = static_cast<int8_t>((at(j + 8) & 15) | (at(j) >> 6) << 4);
    parts.minimums[j + 4] = static_cast<uint8_t>(at(j + 8) >> 4 | (at(j + 4) >> 6) << 4);
  }
}

inline void pack_k_scales(const BlockParts& parts, std::byte* out) {
  for (int64_t j = 0; j < 4; ++j) {
    const int scale = parts.scales[j + 4], minimum = parts.minimums[j + 4];
    out[j] = static_cast<std::byte>(parts.scales[j] | (scale >> 4) << 6);
    out[j + 4] = static_cast<std::byte>(parts.minimums[j] | (minimum >> 4) << 6);
    out[j + 8] = static_cast<std::byte>((scale & 15) | (minimum & 15) << 4);
  }
}

}  // namespace slmc

// The integers of compressed-tensors as blocks: the scale, for unsigned codes the zero point, and
// the codes, which lie as they do in the file (4 bits: element i in the low or high half of byte i
// / 2, signed codes plus 8). Scales are numbers that f16 and bf16 both hold, so that a loader may
// keep them in either. Where a whole row shares a scale its blocks of 32 all repeat it, and the
// scale of the inputs where calibration has fixed one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "compress/core/half.h"
#include "formats/block_codec.h"
#include "formats/group_types.h"

namespace slmc::group {

struct Range {
  int low, high;
  bool zero_point;
};

struct Fit {
  float scale = 0;
  int zero = 0;  ///< Code that stands for 0; only with a zero point.
};

/// Squared error of the nearest codes, each times its weight (null: 1).
inline double fit_error(const Range& range, const Fit& fit, const float* x, const float* weights,
                        int64_t n) {
  const float inverse = 1.0f / fit.scale;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::clamp(std::nearbyint(x[i] * inverse) + static_cast<float>(fit.zero),
                                  static_cast<float>(range.low), static_cast<float>(range.high));
    const float lost = x[i] - (code - static_cast<float>(fit.zero)) * fit.scale;
    sum += static_cast<double>(lost * lost) * (weights ? static_cast<double>(weights[i]) : 1.0);
  }
  return sum;
}

/// The scale (and zero point) of least error among those that reach from all of the values' range
/// down to 60% of it.
inline Fit search(const Range& range, const float* x, const float* weights, int64_t n) {
  float low = 0, high = 0;
  for (int64_t i = 0; i < n; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]);
  const auto steps = static_cast<float>(range.high - range.low);
  Fit best{storable_scale(0), 0};
  if (low == 0 && high == 0) return best;
  double least = -1;
  for (int step = 0; step <= 40; ++step) {
    const float shrink = 1.02f - 0.0105f * static_cast<float>(step);
    Fit fit;
    if (range.zero_point) {
      fit.scale = storable_scale((high - low) * shrink / steps);
      const float middle = -(low + 0.5f * (1 - shrink) * (high - low)) / fit.scale;
      fit.zero = static_cast<int>(std::clamp(std::nearbyint(middle), static_cast<float>(range.low),
                                             static_cast<float>(range.high)));
    } else {
      const float reach = std::max(high, -low);
      fit.scale = storable_scale(reach * shrink / (0.5f * steps));
    }
    const double error = fit_error(range, fit, x, weights, n);
    if (least < 0 || error < least) least = error, best = fit;
  }
  return best;
}

template <int64_t kBlock, int kBits, bool kZeroPoint, bool kWholeRow, bool kInputScale = false>
struct Type {
  static constexpr int64_t kHeader = kZeroPoint || kInputScale ? 4 : 2;
  static constexpr int64_t kBytes = kHeader + kBlock * kBits / 8;
  static constexpr Range kRange = {kZeroPoint ? 0 : -(1 << (kBits - 1)),
                                   kZeroPoint ? (1 << kBits) - 1 : (1 << (kBits - 1)) - 1,
                                   kZeroPoint};

  static void unpack(const std::byte* block, BlockParts& parts) {
    std::memcpy(&parts.d, block, 2);
    parts.scales[0] = 1;
    if constexpr (kZeroPoint) {
      parts.dmin = parts.d;
      parts.minimums[0] = std::to_integer<uint8_t>(block[2]);
    }
    if constexpr (kInputScale) std::memcpy(&parts.dmin, block + 2, 2);  // Only carried along.
    const std::byte* codes = block + kHeader;
    for (int64_t i = 0; i < kBlock; ++i) {
      const int stored = kBits == 8 ? std::to_integer<int8_t>(codes[i])
                                    : std::to_integer<int>(codes[i / 2]) >> (i % 2 * 4) & 15;
      parts.codes[i] = static_cast<int8_t>(kBits == 4 && !kZeroPoint ? stored - 8 : stored);
    }
  }

  static void pack(const BlockParts& parts, std::byte* block) {
    std::memcpy(block, &parts.d, 2);
    if constexpr (kZeroPoint) {
      block[2] = static_cast<std::byte>(parts.minimums[0]);
      block[3] = std::byte{0};
    }
    if constexpr (kInputScale) std::memcpy(block + 2, &parts.dmin, 2);
    std::byte* codes = block + kHeader;
    for (int64_t i = 0; i < kBlock; ++i) {
      if constexpr (kBits == 8) {
        codes[i] = static_cast<std::byte>(parts.codes[i]);
      } else {
        const int stored = parts.codes[i] + (kZeroPoint ? 0 : 8);
        const auto half = static_cast<std::byte>(stored << (i % 2 * 4));
        codes[i / 2] = i % 2 == 0 ? half : codes[i / 2] | half;
      }
    }
  }

  static constexpr BlockLayout kLayout = {.block = kBlock,
                                          .sub = kBlock,
                                          .low = kRange.low,
                                          .high = kRange.high,
                                          .minimum = kZeroPoint,
                                          .unpack = unpack,
                                          .pack = pack};

  static void put(const Fit& fit, const float* x, std::byte* out) {
    BlockParts parts;
    parts.d = float_to_f16(fit.scale);
    parts.scales[0] = 1;
    if constexpr (kZeroPoint) {
      parts.dmin = parts.d;
      parts.minimums[0] = static_cast<uint8_t>(fit.zero);
    }
    const float inverse = 1.0f / fit.scale;
    for (int64_t i = 0; i < kBlock; ++i)
      parts.codes[i] = static_cast<int8_t>(
          std::clamp(std::nearbyint(x[i] * inverse) + static_cast<float>(fit.zero),
                     static_cast<float>(kRange.low), static_cast<float>(kRange.high)));
    pack(parts, out);
  }

  static void plan_row(const float* values, const float* weights, int64_t n, std::byte* out) {
    Fit fit;
    if (kWholeRow) fit = search(kRange, values, weights, n);
    for (int64_t i = 0; i < n; i += kBlock) {
      if (!kWholeRow) fit = search(kRange, values + i, weights ? weights + i : nullptr, kBlock);
      put(fit, values + i, out + i / kBlock * kBytes);
    }
  }
  static void encode(const float* in, int64_t n, std::byte* out) { plan_row(in, nullptr, n, out); }
  static void decode(const std::byte* in, int64_t n, float* out) {
    decode_blocks(kLayout, kBytes, in, n, out);
  }

  static BlockCodec codec(DType type, const char* name) {
    return {.dtype = type,
            .name = name,
            .block = kBlock,
            .block_bytes = kBytes,
            .decode = decode,
            .encode = encode,
            .layout = &kLayout,
            .grid = grid_of<kLayout>()};
  }
};

template <int64_t kGroup>
using I4 = Type<kGroup, 4, false, false>;
template <int64_t kGroup>
using U4 = Type<kGroup, 4, true, false>;
template <int64_t kGroup>
using I8 = Type<kGroup, 8, false, false>;
using I4Row = Type<32, 4, false, true>;
using U4Row = Type<32, 4, true, true>;
using I8Row = Type<32, 8, false, true>;
using I8StaticRow = Type<32, 8, false, true, true>;

}  // namespace slmc::group

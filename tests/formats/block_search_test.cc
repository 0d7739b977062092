// The scale search against exhaustive searches in double precision, and against plain rounding.
#include "formats/block_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "compress/core/half.h"
#include "compress/core/random.h"
#include "formats/block_codec.h"
#include "formats/group_types.h"

namespace slmc {
namespace {

/// Squared error, weighted where `weights` are given, of what the parts decode to.
double error_of(const BlockLayout& layout, const BlockParts& parts, const float* x,
                const float* weights) {
  double sum = 0;
  for (int64_t i = 0; i < layout.block; ++i) {
    const double value = static_cast<double>(sub_scale(parts, i / layout.sub)) * parts.codes[i] -
                         static_cast<double>(sub_minimum(layout, parts, i / layout.sub));
    sum += (weights ? static_cast<double>(weights[i]) : 1.0) * std::pow(x[i] - value, 2);
  }
  return sum;
}

std::vector<BlockParts> searched(const BlockLayout& layout, const std::vector<float>& x,
                                 const float* weights = nullptr) {
  const auto blocks = static_cast<int64_t>(x.size()) / layout.block;
  std::vector<BlockParts> parts(static_cast<size_t>(blocks));
  search_blocks({.layout = &layout,
                 .x = x.data(),
                 .weights = weights,
                 .period = static_cast<int64_t>(x.size()),
                 .blocks = blocks,
                 .parts = parts.data()});
  return parts;
}

std::vector<float> normal_values(size_t count, uint64_t seed, double scale) {
  Random random(seed);
  std::vector<float> x(count);
  for (float& value : x) value = static_cast<float>(random.normal() * scale);
  return x;
}

std::vector<float> positive_values(size_t count, uint64_t seed) {
  std::vector<float> x = normal_values(count, seed, 1.0);
  for (float& value : x) value = value * value + 0.01f;
  return x;
}

/// The least error that any scale of f16 leaves on a block of a type without minimum.
double exhaustive_error(const BlockLayout& layout, const float* x, const float* weights) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  double best = std::numeric_limits<double>::infinity();
  BlockParts parts;
  parts.scales[0] = 1;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float scale = std::fabs(f16_to_float(static_cast<uint16_t>(bits)));
    const float reach = largest / static_cast<float>(layout.high);
    if (!(scale > 0.4f * reach && scale < 1.4f * reach)) continue;
    parts.d = static_cast<uint16_t>(bits);
    round_codes(layout, x, parts);
    best = std::min(best, error_of(layout, parts, x, weights));
  }
  return best;
}

// Bounds: the mean excess over the exhaustive optimum that a dozen candidates leave. For q8_0,
// where the best of hundreds of equally good scales is luck, four candidates are a choice of speed.
// With weights the largest element, where candidates start from, says less.
TEST(BlockSearch, ComesNearTheExhaustiveOptimum) {
  const std::vector<float> x = normal_values(32 * 24, 1, 0.02), w = positive_values(x.size(), 2);
  for (const auto& [type, bound] :
       {std::pair(DType::kQ4_0, 1.015), std::pair(DType::kQ5_0, 1.06),
        std::pair(DType::kIQ4_NL, 1.03), std::pair(DType::kQ8_0, 1.35)}) {
    const BlockLayout& layout = *block_codec(type).layout;
    for (const float* weights : {static_cast<const float*>(nullptr), w.data()}) {
      const std::vector<BlockParts> parts = searched(layout, x, weights);
      double found = 0, best = 0;
      for (size_t b = 0; b < parts.size(); ++b) {
        const float* block_weights = weights ? weights + 32 * b : nullptr;
        found += error_of(layout, parts[b], &x[32 * b], block_weights);
        best += exhaustive_error(layout, &x[32 * b], block_weights);
      }
      EXPECT_LE(found, bound * (weights ? 1.05 : 1.0) * best)
          << block_codec(type).name << (weights ? ", weighted" : "");
      EXPECT_GE(found, best * (1 - 1e-9));
    }
  }
}

// For types with a minimum: all scales and minimums of a fine mesh, none of which is much better.
TEST(BlockSearch, LinesComeNearAMesh) {
  const std::vector<float> x = normal_values(32 * 12, 3, 0.02), w = positive_values(x.size(), 4);
  const BlockLayout& layout = *block_codec(DType::kQ4_1).layout;
  for (const float* weights : {static_cast<const float*>(nullptr), w.data()}) {
    const std::vector<BlockParts> parts = searched(layout, x, weights);
    double found = 0, best = 0;
    for (size_t b = 0; b < parts.size(); ++b) {
      const float* values = &x[32 * b];
      const float* block_weights = weights ? weights + 32 * b : nullptr;
      found += error_of(layout, parts[b], values, block_weights);
      const auto [low, high] = std::minmax_element(values, values + 32);
      double least = std::numeric_limits<double>::infinity();
      for (int i = -20; i <= 60; ++i) {
        for (int j = -20; j <= 60; ++j) {
          BlockParts mesh;
          const float range = *high - *low;
          const float bottom = *low + range * 0.005f * static_cast<float>(i);
          const float top = *high - range * 0.005f * static_cast<float>(j);
          mesh.d = float_to_f16((top - bottom) / 15);
          mesh.dmin = float_to_f16(-bottom);
          mesh.scales[0] = 1;
          mesh.minimums[0] = 1;
          round_codes(layout, values, mesh);
          least = std::min(least, error_of(layout, mesh, values, block_weights));
        }
      }
      best += least;
    }
    EXPECT_LE(found, (weights ? 1.08 : 1.06) * best) << (weights ? "weighted" : "");
  }
}

// Every type, weighted and not: the parts are within the type's ranges, the codes are the nearest,
// and the error is below that of plain rounding.
TEST(BlockSearch, BeatsPlainRoundingWithPartsThatCanBeStored) {
  const std::vector<float> x = normal_values(256 * 37, 5, 0.05), w = positive_values(x.size(), 6);
  for (const BlockCodec* codec : block_codecs()) {
    // compressed-tensors' types have a search of their own (formats/blocks/group.h).
    if (codec->layout == nullptr || is_group_type(codec->dtype)) continue;
    const BlockLayout& layout = *codec->layout;
    for (const float* weights : {static_cast<const float*>(nullptr), w.data()}) {
      const std::vector<BlockParts> parts = searched(layout, x, weights);
      double found = 0, plain = 0;
      std::vector<std::byte> bytes(static_cast<size_t>(codec->block_bytes));
      for (size_t b = 0; b < parts.size(); ++b) {
        const size_t at = b * static_cast<size_t>(layout.block);
        BlockParts stored, rounded = parts[b];
        layout.pack(parts[b], bytes.data());
        layout.unpack(bytes.data(), stored);
        round_codes(layout, &x[at], rounded);
        for (int64_t i = 0; i < layout.block; ++i) {
          ASSERT_EQ(parts[b].codes[i], stored.codes[i]) << codec->name;
          ASSERT_EQ(parts[b].codes[i], rounded.codes[i]) << codec->name;
        }
        for (int64_t j = 0; j < layout.subs; ++j) {
          ASSERT_EQ(sub_scale(parts[b], j), sub_scale(stored, j)) << codec->name;
          ASSERT_EQ(sub_minimum(layout, parts[b], j), sub_minimum(layout, stored, j));
        }
        const float* block_weights = weights ? weights + at : nullptr;
        found += error_of(layout, parts[b], &x[at], block_weights);
        codec->encode(&x[at], layout.block, bytes.data());
        layout.unpack(bytes.data(), stored);
        plain += error_of(layout, stored, &x[at], block_weights);
      }
      EXPECT_LT(found, 0.93 * plain) << codec->name << (weights ? ", weighted" : "");
    }
  }
}

// Zeros, constants, values below f16, one outlier, weights of zero: nothing but finite numbers, and
// no more error than leaving everything at zero.
TEST(BlockSearch, SurvivesDegenerateBlocks) {
  std::vector<std::vector<float>> cases(7, std::vector<float>(256, 0.0f));
  std::fill(cases[1].begin(), cases[1].end(), 0.7f);
  std::fill(cases[2].begin(), cases[2].end(), -0.7f);
  std::fill(cases[3].begin(), cases[3].end(), 1e-9f);
  std::fill(cases[4].begin(), cases[4].end(), 1e-41f);
  cases[5][77] = 3.0f;
  cases[6] = normal_values(256, 9, 1e-6);
  const std::vector<float> none(256, 0.0f);
  for (const BlockCodec* codec : block_codecs()) {
    // compressed-tensors' types have a search of their own (formats/blocks/group.h).
    if (codec->layout == nullptr || is_group_type(codec->dtype)) continue;
    for (const auto& x : cases) {
      for (const float* weights : {static_cast<const float*>(nullptr), none.data()}) {
        for (const BlockParts& parts : searched(*codec->layout, x, weights)) {
          double squares = 0;
          for (const float value : x) squares += std::pow(value, 2);
          EXPECT_TRUE(std::isfinite(f16_to_float(parts.d))) << codec->name;
          EXPECT_TRUE(std::isfinite(f16_to_float(parts.dmin))) << codec->name;
          if (weights == nullptr && codec->layout->block == 256) {
            EXPECT_LE(error_of(*codec->layout, parts, x.data(), nullptr), squares * (1 + 1e-6))
                << codec->name;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace slmc

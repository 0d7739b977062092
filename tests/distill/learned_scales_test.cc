// Scales that are trained: what they start as, what they do to the values, and their gradients.
#include "distill/learned_scales.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/half.h"
#include "compress/core/random.h"
#include "distill/training.h"
#include "formats/block_codec.h"
#include "formats/group_types.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

constexpr int64_t kRows = 6, kColumns = 512;

std::vector<float> random_weights(uint64_t seed) {
  Random random(seed);
  std::vector<float> values(kRows * kColumns);
  for (float& value : values) value = static_cast<float>(0.05 * random.normal());
  return values;
}

/// One matrix named "w" and its scales in a flat buffer.
struct Flat {
  explicit Flat(DType type) : types{{"w", type}} {
    layout.slots.push_back(
        {.name = "w", .shape = {kRows, kColumns}, .size = kRows * kColumns, .decay = true});
    layout.total = layout.decayed = kRows * kColumns;
    add_scales(types, layout);
  }
  /// Weights and first scales of `start`, a tensor of any type.
  void fill(const TensorView& start) {
    MemoryWeights source{Architecture{}};
    source.add("w", start);
    const auto scales = initial_scales(types, layout, source);
    values.resize(static_cast<size_t>(layout.total));
    decode_rows(start, 0, kRows, values.data());
    for (const ParameterSlot& slot : layout.slots) {
      if (slot.name == "w") continue;
      const TensorView view = scales->view(slot.name);
      decode_rows(view, 0, view.rows(), values.data() + slot.offset);
    }
  }
  std::vector<float> rounded() const {
    std::vector<float> out(values.size());
    round_layout(layout, types, values.data(), out.data());
    return out;
  }
  StoredTypes types;
  ParameterLayout layout;
  std::vector<float> values;
};

class LearnedScales : public ::testing::TestWithParam<DType> {};

// Blocks that a calibrated method has written are a start that stands for itself: nothing is
// searched, the scales come back from the file, and every code stays.
TEST_P(LearnedScales, StartAsTheFileHasThem) {
  const DType type = GetParam();
  const std::vector<float> weights = random_weights(1);
  std::vector<std::byte> blocks(dtype_row_bytes(type, kColumns) * kRows);
  encode_nearest(type, weights.data(), kRows, kColumns, blocks.data());
  Flat flat(type);
  flat.fill({.data = blocks.data(), .dtype = type, .shape = {kRows, kColumns}, .owner = nullptr});
  const std::vector<float> rounded = flat.rounded();
  for (size_t i = 0; i < weights.size(); ++i) ASSERT_EQ(rounded[i], flat.values[i]) << i;
}

// From floats they are those of method "nearest": the same squared error, but for what super-blocks
// lose when their scales are fitted again.
TEST_P(LearnedScales, StartAsNearestDoes) {
  const DType type = GetParam();
  const std::vector<float> weights = random_weights(2);
  Flat flat(type);
  flat.fill({.data = reinterpret_cast<const std::byte*>(weights.data()),
             .dtype = DType::kF32,
             .shape = {kRows, kColumns},
             .owner = nullptr});
  std::vector<float> nearest(weights.size());
  round_rows(type, weights.data(), kRows, kColumns, nearest.data());
  const std::vector<float> rounded = flat.rounded();
  double ours = 0, theirs = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    ours += std::pow(static_cast<double>(weights[i]) - static_cast<double>(rounded[i]), 2);
    theirs += std::pow(static_cast<double>(weights[i]) - static_cast<double>(nearest[i]), 2);
  }
  EXPECT_LT(ours, 1.02 * theirs);
}

// A step along the gradient of a linear loss of the rounded values lowers it, for scales and
// minimums alone, and gradients of weights inside the range of codes are those of the values.
TEST_P(LearnedScales, GradientsPointDownhill) {
  const DType type = GetParam();
  Flat flat(type);
  // Weights further out than any code, so that the loss depends on scales smoothly.
  std::vector<float> weights = random_weights(3);
  flat.fill({.data = reinterpret_cast<const std::byte*>(weights.data()),
             .dtype = DType::kF32,
             .shape = {kRows, kColumns},
             .owner = nullptr});
  for (int64_t i = 0; i < kRows * kColumns; ++i) flat.values[static_cast<size_t>(i)] *= 10;
  Random random(4);
  std::vector<float> target(static_cast<size_t>(flat.layout.total));
  for (int64_t i = 0; i < kRows * kColumns; ++i)
    target[static_cast<size_t>(i)] = static_cast<float>(random.normal());
  const auto loss = [&] {
    const std::vector<float> rounded = flat.rounded();
    double sum = 0;
    for (int64_t i = 0; i < kRows * kColumns; ++i)
      sum += static_cast<double>(rounded[static_cast<size_t>(i)]) *
             static_cast<double>(target[static_cast<size_t>(i)]);
    return sum;
  };
  std::vector<float> gradients = target;
  scale_gradients(flat.layout, flat.types, flat.values.data(), gradients.data());
  double squares = 0;
  for (int64_t i = kRows * kColumns; i < flat.layout.total; ++i)
    squares += std::pow(static_cast<double>(gradients[static_cast<size_t>(i)]), 2);
  ASSERT_GT(squares, 0);
  // A step of 15% of the slots' size, since stored scales are coarse: 4 to 8 bits of a block's.
  double sizes = 0;
  for (int64_t i = kRows * kColumns; i < flat.layout.total; ++i)
    sizes += std::pow(static_cast<double>(flat.values[static_cast<size_t>(i)]), 2);
  const double before = loss(), step = 0.15 * std::sqrt(sizes / squares);
  for (int64_t i = kRows * kColumns; i < flat.layout.total; ++i)
    flat.values[static_cast<size_t>(i)] -=
        static_cast<float>(step * static_cast<double>(gradients[static_cast<size_t>(i)]));
  EXPECT_LT(loss() - before, -0.3 * step * squares);
}

INSTANTIATE_TEST_SUITE_P(Types, LearnedScales,
                         ::testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ8_0,
                                           DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kQ3_K,
                                           DType::kQ2_K, DType::kIQ4_NL, DType::kIQ4_XS, kI4_G128,
                                           kI4_Row, kU4_G32, kI8_Row),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

// q4_0 in double, from the paper's equations: with v = w / s, dL/ds = sum of g (round(v) - v) where
// -8 <= v <= 7, else g times the extreme code, and dL/dw = g or 0.
TEST(LearnedScalesOfQ4_0, HaveThePapersGradient) {
  Flat flat(DType::kQ4_0);
  std::vector<float> weights = random_weights(5);
  flat.fill({.data = reinterpret_cast<const std::byte*>(weights.data()),
             .dtype = DType::kF32,
             .shape = {kRows, kColumns},
             .owner = nullptr});
  Random random(6);
  std::vector<float> g(static_cast<size_t>(flat.layout.total));
  for (float& value : g) value = static_cast<float>(random.normal());
  std::vector<float> gradients = g;
  scale_gradients(flat.layout, flat.types, flat.values.data(), gradients.data());
  int64_t clipped = 0;
  for (int64_t unit = 0; unit < kRows * kColumns / 32; ++unit) {
    // A scale is stored in f16, and its slot is the value of code -8.
    const float slot = flat.values[static_cast<size_t>(kRows * kColumns + unit)];
    const auto s = static_cast<double>(f16_to_float(float_to_f16(slot / 8.0f)));
    double expected = 0, size = 0;
    for (int64_t i = unit * 32; i < unit * 32 + 32; ++i) {
      const auto at = static_cast<size_t>(i);
      const double v = static_cast<double>(flat.values[at]) / s, slope = static_cast<double>(g[at]);
      const bool inside = v >= -8 && v <= 7;
      clipped += inside ? 0 : 1;
      expected += slope * (inside ? std::nearbyint(v) - v : (v < 0 ? -8.0 : 7.0));
      size += std::abs(slope);
      EXPECT_EQ(gradients[at], inside ? g[at] : 0.0f);
    }
    EXPECT_NEAR(gradients[static_cast<size_t>(kRows * kColumns + unit)], expected / 8,
                1e-5 * size);  // 32 products in f32.
  }
  EXPECT_GT(clipped, 0);
}

}  // namespace
}  // namespace slmc

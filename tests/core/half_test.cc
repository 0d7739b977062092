// Both 16-bit float types over all their values, against the closed form (IEEE 754: (-1)^s 2^(e -
// bias) (1 + m / 2^p)).
#include "compress/core/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace slmc {
namespace {

struct Format {
  int exponent_bits, mantissa_bits;
  float (*decode)(uint16_t);
  uint16_t (*encode)(float);
};

const Format kFormats[] = {{5, 10, f16_to_float, float_to_f16},
                           {8, 7, bf16_to_float, float_to_bf16}};

double closed_form(const Format& format, uint16_t bits) {
  const int exponent = (bits >> format.mantissa_bits) & ((1 << format.exponent_bits) - 1);
  const int mantissa = bits & ((1 << format.mantissa_bits) - 1);
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - format.mantissa_bits);
  return sign * std::ldexp(1 + std::ldexp(mantissa, -format.mantissa_bits), exponent - bias);
}

uint16_t infinity_bits(const Format& format) {
  return static_cast<uint16_t>(((1 << format.exponent_bits) - 1) << format.mantissa_bits);
}

TEST(Half, EveryFiniteValueDecodesToTheClosedFormAndBack) {
  for (const Format& format : kFormats) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const auto half = static_cast<uint16_t>(bits);
      if ((half & infinity_bits(format)) == infinity_bits(format)) continue;
      const float value = format.decode(half);
      ASSERT_EQ(static_cast<double>(value), closed_form(format, half)) << bits;
      ASSERT_EQ(std::signbit(value), (half & 0x8000) != 0) << bits;
      ASSERT_EQ(format.encode(value), half) << bits;
    }
  }
}

/// Rounding is monotone, so it is right everywhere if it is right at the middle between neighbours
/// and just beside it.
TEST(Half, RoundsToNearestAndMiddlesToEven) {
  for (const Format& format : kFormats) {
    for (uint16_t low = 0; low + 1 < infinity_bits(format); ++low) {
      const auto high = static_cast<uint16_t>(low + 1);
      const auto middle =
          static_cast<float>((closed_form(format, low) + closed_form(format, high)) / 2);
      const uint16_t even = (low & 1) == 0 ? low : high;
      ASSERT_EQ(format.encode(middle), even) << low;
      ASSERT_EQ(format.encode(std::nextafterf(middle, 0)), low) << low;
      ASSERT_EQ(format.encode(std::nextafterf(middle, INFINITY)), high) << low;
      ASSERT_EQ(format.encode(-middle), even | 0x8000) << low;
    }
  }
}

TEST(Half, OverflowGivesInfinityFromTheMiddleOn) {
  for (const Format& format : kFormats) {
    const auto largest = static_cast<uint16_t>(infinity_bits(format) - 1);
    const double step =
        closed_form(format, largest) - closed_form(format, static_cast<uint16_t>(largest - 1));
    const auto middle = static_cast<float>(closed_form(format, largest) + step / 2);
    EXPECT_EQ(format.encode(middle), infinity_bits(format));
    EXPECT_EQ(format.encode(std::nextafterf(middle, 0)), largest);
    EXPECT_EQ(format.encode(INFINITY), infinity_bits(format));
    EXPECT_EQ(format.encode(-INFINITY), infinity_bits(format) | 0x8000);
    EXPECT_EQ(format.encode(std::numeric_limits<float>::max()), infinity_bits(format));
    EXPECT_TRUE(std::isinf(format.decode(infinity_bits(format))));
  }
}

TEST(Half, NotANumberStaysSo) {
  for (const Format& format : kFormats) {
    for (uint32_t payload : {1u, 0x1fffu, 0x2000u, 0x400000u, 0x7fffffu}) {
      for (uint32_t sign : {0u, 0x80000000u}) {
        const uint16_t half = format.encode(std::bit_cast<float>(sign | 0x7f800000u | payload));
        EXPECT_TRUE(std::isnan(format.decode(half))) << payload;
        EXPECT_EQ((half & 0x8000) != 0, sign != 0);
      }
    }
  }
}

TEST(Half, TinyFloatsBecomeSignedZero) {
  EXPECT_EQ(float_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_f16(-std::numeric_limits<float>::denorm_min()), 0x8000);
  EXPECT_EQ(float_to_f16(0x1p-25f), 0);  // The middle between 0 and the least subnormal; 0 is even.
  EXPECT_EQ(float_to_f16(std::nextafterf(0x1p-25f, 1)), 1);
}

}  // namespace
}  // namespace slmc

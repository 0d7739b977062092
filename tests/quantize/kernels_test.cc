// Fast kernels give the bytes of the codecs and the sums of the scalar reference.
#include "quantize/kernels/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "compress/core/half.h"
#include "compress/core/random.h"
#include "formats/block_codec.h"
#include "formats/group_types.h"

namespace slmc {
namespace {

const EncodeKernels* fast_kernels() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) return &kAvx2EncodeKernels;
#endif
  return nullptr;
}

#define SKIP_WITHOUT_FAST_KERNELS() \
  if (fast_kernels() == nullptr) GTEST_SKIP() << "this processor has no fast kernels"

/// Blocks of every kind that rounding is sensitive to.
std::vector<float> awkward_blocks(uint64_t seed, int64_t blocks) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(blocks * 32));
  for (int64_t b = 0; b < blocks; ++b) {
    const double scale = std::ldexp(1.0, static_cast<int>(random.below(160)) - 140);
    const uint64_t kind = random.below(7);
    for (int64_t i = 0; i < 32; ++i) {
      float& value = x[static_cast<size_t>(b * 32 + i)];
      if (kind == 0) value = static_cast<float>(random.normal() * scale);
      if (kind == 1)
        value = bf16_to_float(float_to_bf16(static_cast<float>(random.normal() * 0.02)));
      if (kind == 2)
        value = static_cast<float>(static_cast<int>(random.below(255)) - 127) *
                0.5f;                                              // Ties once scaled by 127.
      if (kind == 3) value = random.below(2) == 0 ? 1.5f : -1.5f;  // Equal extremes of both signs.
      if (kind == 4)
        value = random.below(8) == 0 ? static_cast<float>(random.normal())
                                     : (random.below(2) ? 0.0f : -0.0f);
      if (kind == 5)
        value = static_cast<float>(static_cast<int>(random.below(33)) - 16) / 16.0f *
                static_cast<float>(scale);
      if (kind == 6) value = 0.0f;
    }
  }
  return x;
}

TEST(EncodeKernels, GiveTheBytesOfTheCodecs) {
  SKIP_WITHOUT_FAST_KERNELS();
  const std::vector<float> x = awkward_blocks(1, 60000);
  const auto n = static_cast<int64_t>(x.size());
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    const BlockCodec& codec = block_codec(type);
    std::vector<std::byte> expected(dtype_row_bytes(type, n)), found(expected.size());
    codec.encode(x.data(), n, expected.data());
    (type == DType::kQ8_0 ? fast_kernels()->encode_q8_0 : fast_kernels()->encode_q4_0)(
        x.data(), n, found.data(), codec.encode);
    for (int64_t b = 0; b < n / 32; ++b) {
      const auto offset = static_cast<size_t>(b * codec.block_bytes);
      ASSERT_EQ(0, std::memcmp(expected.data() + offset, found.data() + offset,
                               static_cast<size_t>(codec.block_bytes)))
          << codec.name << " block " << b << " beginning with " << x[static_cast<size_t>(b * 32)];
    }
  }
}

// The rounding trick of the q8_0 kernel, at every float next to a tie in [0, 127].
TEST(EncodeKernels, RoundTiesAwayFromZeroAtEveryHalf) {
  SKIP_WITHOUT_FAST_KERNELS();
  const BlockCodec& codec = block_codec(DType::kQ8_0);
  for (int half = 0; half < 127; ++half) {
    std::vector<float> x(32, 0.0f);
    x[0] = 127.0f;  // So that the scale is one.
    const float tie = static_cast<float>(half) + 0.5f;
    for (int i = 0; i < 5; ++i) {
      float value = tie;
      for (int step = 0; step < i; ++step) value = std::nextafter(value, 0.0f);
      x[static_cast<size_t>(1 + i)] = value;
      x[static_cast<size_t>(7 + i)] = -value;
      value = tie;
      for (int step = 0; step < i; ++step) value = std::nextafter(value, 1000.0f);
      x[static_cast<size_t>(13 + i)] = value;
    }
    std::byte expected[34], found[34];
    codec.encode(x.data(), 32, expected);
    fast_kernels()->encode_q8_0(x.data(), 32, found, codec.encode);
    ASSERT_EQ(0, std::memcmp(expected, found, 34)) << tie;
    EXPECT_EQ(static_cast<int>(static_cast<int8_t>(found[3])), static_cast<int>(std::lround(tie)));
  }
}

TEST(EncodeKernels, MeasureTheSameSumsOnEveryInstructionSet) {
  SKIP_WITHOUT_FAST_KERNELS();
  for (const int64_t n : {32, 64, 224, 256, 288, 1024, 4128}) {
    Random random(static_cast<uint64_t>(n));
    std::vector<float> x(static_cast<size_t>(n)), y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>(random.normal());
      y[i] = x[i] + static_cast<float>(random.normal() * 0.01);
    }
    const auto same = [&](const Distortion& a, const Distortion& b) {
      EXPECT_EQ(std::bit_cast<uint64_t>(a.squared_error), std::bit_cast<uint64_t>(b.squared_error))
          << n;
      EXPECT_EQ(std::bit_cast<uint64_t>(a.squared_weight),
                std::bit_cast<uint64_t>(b.squared_weight))
          << n;
      EXPECT_EQ(a.max_error, b.max_error) << n;
    };
    Distortion scalar{}, fast{};
    kScalarEncodeKernels.distortion_f32(x.data(), y.data(), n - 3,
                                        &scalar);  // A length that is no multiple of the lanes.
    fast_kernels()->distortion_f32(x.data(), y.data(), n - 3, &fast);
    same(scalar, fast);
    for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
      const BlockCodec& codec = block_codec(type);
      std::vector<std::byte> blocks(dtype_row_bytes(type, n));
      codec.encode(x.data(), n, blocks.data());
      const auto of = [type](const EncodeKernels& k) {
        return type == DType::kQ8_0 ? k.distortion_q8_0 : k.distortion_q4_0;
      };
      scalar = fast = {};
      of(kScalarEncodeKernels)(x.data(), blocks.data(), n, &scalar);
      of (*fast_kernels())(x.data(), blocks.data(), n, &fast);
      same(scalar, fast);
      // And the blocks decoded by the codec give the same again, in double within f32's rounding.
      std::vector<float> decoded(x.size());
      codec.decode(blocks.data(), n, decoded.data());
      Distortion plain{};
      kScalarEncodeKernels.distortion_f32(x.data(), decoded.data(), n, &plain);
      same(scalar, plain);
      double squares = 0;
      for (size_t i = 0; i < x.size(); ++i)
        squares += std::pow(static_cast<double>(x[i]) - static_cast<double>(decoded[i]), 2);
      EXPECT_NEAR(scalar.squared_error, squares, 1e-5 * squares);
    }
  }
}

// Blocks in number that fills no register, weighted and not: all sets give the portable search's
// bytes.
TEST(EncodeKernels, SearchAlikeOnEveryInstructionSet) {
  SKIP_WITHOUT_FAST_KERNELS();
  const std::vector<float> x = awkward_blocks(3, 8 * 203);
  std::vector<float> weights(512);
  Random random(4);
  for (float& weight : weights) weight = static_cast<float>(random.uniform() * random.uniform());
  std::vector<const EncodeKernels*> sets = {fast_kernels()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    sets.push_back(&kAvx512EncodeKernels);
#endif
  for (const BlockCodec* codec : block_codecs()) {
    // compressed-tensors' types have a search of their own (formats/blocks/group.h).
    if (codec->layout == nullptr || is_group_type(codec->dtype)) continue;
    const int64_t blocks = static_cast<int64_t>(x.size()) / codec->block;
    const auto encoded = [&](const EncodeKernels& kernels, const float* given) {
      std::vector<BlockParts> parts(static_cast<size_t>(blocks));
      kernels.search({.layout = codec->layout,
                      .x = x.data(),
                      .weights = given,
                      .period = 512,
                      .phase = 256,
                      .blocks = blocks,
                      .parts = parts.data()});
      std::vector<std::byte> bytes(static_cast<size_t>(blocks * codec->block_bytes));
      for (int64_t b = 0; b < blocks; ++b)
        codec->layout->pack(parts[static_cast<size_t>(b)], bytes.data() + b * codec->block_bytes);
      return bytes;
    };
    for (const float* given : {static_cast<const float*>(nullptr), std::as_const(weights).data()}) {
      const std::vector<std::byte> expected = encoded(kScalarEncodeKernels, given);
      for (const EncodeKernels* set : sets)
        EXPECT_TRUE(encoded(*set, given) == expected) << codec->name << (given ? " weighted" : "");
    }
  }
}

TEST(EncodeKernels, WidenAndFindNonFiniteValues) {
  std::vector<const EncodeKernels*> sets = {&kScalarEncodeKernels};
  if (fast_kernels() != nullptr) sets.push_back(fast_kernels());
  std::vector<uint16_t> bits(1 << 16);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  for (const EncodeKernels* set : sets) {
    std::vector<float> out(bits.size() - 1);
    set->widen_bf16(reinterpret_cast<const std::byte*>(bits.data() + 1),
                    static_cast<int64_t>(out.size()), out.data());
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), static_cast<uint32_t>(bits[i + 1]) << 16);
    std::vector<float> x(77, 3e38f);
    EXPECT_TRUE(set->all_finite(x.data(), 77));
    for (const size_t at : {size_t{0}, size_t{31}, size_t{70}, size_t{76}}) {
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
            -std::numeric_limits<float>::infinity()}) {
        x[at] = bad;
        EXPECT_FALSE(set->all_finite(x.data(), 77));
        x[at] = 3e38f;
      }
    }
  }
}

}  // namespace
}  // namespace slmc

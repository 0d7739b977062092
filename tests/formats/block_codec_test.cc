#include "formats/block_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <tuple>

#include "compress/core/random.h"
#include "formats/group_types.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

std::string fixture(const std::string& name) {
  return test::slurp(std::string(SLMC_FIXTURES) + "/formats/" + name);
}

std::vector<float> floats(const std::string& bytes) {
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), values.size() * 4);
  return values;
}

class Codec : public testing::TestWithParam<const char*> {};

// The bytes are those of the `gguf` wheel (numpy for f16); see make_fixtures.py.
TEST_P(Codec, EncodesAndDecodesAsGgufDoes) {
  const BlockCodec& codec = block_codec(dtype_from_name(GetParam()));
  const std::vector<float> input = floats(fixture("blocks.f32"));
  const std::string expected = fixture(std::string("blocks.") + GetParam());
  const auto n = static_cast<int64_t>(input.size());
  std::string packed(static_cast<size_t>(n / codec.block * codec.block_bytes), '\0');
  codec.encode(input.data(), n, reinterpret_cast<std::byte*>(packed.data()));
  ASSERT_EQ(packed.size(), expected.size());
  const auto size = static_cast<size_t>(codec.block_bytes * (32 / codec.block));
  for (size_t block = 0; block * size < packed.size(); ++block) {
    EXPECT_EQ(packed.substr(block * size, size), expected.substr(block * size, size))
        << "block " << block;
  }
  std::vector<float> decoded(input.size());
  codec.decode(reinterpret_cast<const std::byte*>(expected.data()), n, decoded.data());
  const std::string wanted = fixture(std::string("blocks.") + GetParam() + ".decoded");
  EXPECT_EQ(decoded, floats(wanted));
}

INSTANTIATE_TEST_SUITE_P(Types, Codec,
                         testing::Values("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "f16", "bf16"));

class RandomBlocks : public testing::TestWithParam<const char*> {};

// The blocks are random bytes; their values are the `gguf` wheel's; see make_fixtures.py.
TEST_P(RandomBlocks, DecodeAsGgufDoesAndPackToTheSameBytes) {
  const BlockCodec& codec = block_codec(dtype_from_name(GetParam()));
  const std::string packed = fixture(std::string("blocks.") + GetParam());
  const auto blocks = static_cast<int64_t>(packed.size()) / codec.block_bytes;
  ASSERT_GT(blocks, 0);
  const auto* bytes = reinterpret_cast<const std::byte*>(packed.data());
  std::vector<float> decoded(static_cast<size_t>(blocks * codec.block));
  codec.decode(bytes, blocks * codec.block, decoded.data());
  EXPECT_EQ(decoded, floats(fixture(std::string("blocks.") + GetParam() + ".decoded")));
  std::string again(static_cast<size_t>(codec.block_bytes), '\0');
  for (int64_t b = 0; b < blocks; ++b) {
    BlockParts parts;
    codec.layout->unpack(bytes + b * codec.block_bytes, parts);
    codec.layout->pack(parts, reinterpret_cast<std::byte*>(again.data()));
    EXPECT_EQ(again, packed.substr(static_cast<size_t>(b * codec.block_bytes), again.size())) << b;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RandomBlocks,
                         testing::Values("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl",
                                         "iq4_xs"));

// A grid's values are those that decode gives, and packing the codes back gives the block.
TEST(BlockGrids, GiveTheValuesThatDecodeGives) {
  for (const BlockCodec* codec : block_codecs()) {
    if (codec->grid == nullptr) continue;
    const BlockGrid& grid = *codec->grid;
    const auto n = static_cast<size_t>(codec->block);
    std::string packed(static_cast<size_t>(codec->block_bytes), '\0');
    if (is_group_type(codec->dtype)) {  // Not ggml's, which the fixture is from.
      Random random(7);
      std::vector<float> values(n);
      for (float& value : values) value = static_cast<float>(random.normal());
      codec->encode(values.data(), codec->block, reinterpret_cast<std::byte*>(packed.data()));
    } else {
      packed = fixture("blocks." + codec->name).substr(0, packed.size());
    }
    const auto* bytes = reinterpret_cast<const std::byte*>(packed.data());
    std::vector<float> decoded(n), scale(n), offset(n);
    std::vector<uint8_t> codes(n);
    codec->decode(bytes, codec->block, decoded.data());
    grid.parameters(bytes, scale.data(), offset.data());
    BlockParts parts;
    codec->layout->unpack(bytes, parts);
    for (size_t i = 0; i < n; ++i) {
      while (codes[i] + 1 < grid.codes &&
             grid.levels[codes[i]] < static_cast<float>(parts.codes[i]))
        ++codes[i];
      EXPECT_EQ(scale[i] * grid.levels[codes[i]] + offset[i], decoded[i])
          << codec->name << " " << i;
    }
    std::string again = packed;
    BlockParts blank = parts;
    std::memset(blank.codes, codec->layout->table ? 1 : 0, sizeof blank.codes);
    codec->layout->pack(blank, reinterpret_cast<std::byte*>(again.data()));
    grid.pack(codes.data(), reinterpret_cast<std::byte*>(again.data()));
    EXPECT_EQ(again, packed) << codec->name;
  }
}

// The nearest code of a type is the nearest of all its codes.
TEST(BlockLayouts, RoundToTheNearestCode) {
  Random random(3);
  for (const BlockCodec* codec : block_codecs()) {
    if (codec->layout == nullptr) continue;
    const BlockLayout& layout = *codec->layout;
    for (int round = 0; round < 2000; ++round) {
      const float value = static_cast<float>(random.normal()) * static_cast<float>(layout.high);
      float nearest = INFINITY;
      for (int code = layout.low; code <= layout.high; ++code) {
        bool holds = layout.table == nullptr;
        for (int i = 0; !holds && i < 16; ++i) holds = layout.table[i] == code;
        if (holds) nearest = std::min(nearest, std::fabs(value - static_cast<float>(code)));
      }
      const auto found = static_cast<float>(nearest_code(layout, value));
      EXPECT_EQ(std::fabs(value - found), nearest) << codec->name << " " << value;
    }
  }
}

// Holds for every codec there is, also those added later: sizes agree with the table of types,
// unaligned data decodes the same, and nothing is further off than a coarse step.
TEST(BlockCodecs, KeepTheirContract) {
  ASSERT_GE(block_codecs().size(), 5u);
  Random random(11);
  std::vector<float> input(1024);
  for (float& value : input) value = static_cast<float>(random.normal());
  for (const BlockCodec* codec : block_codecs()) {
    SCOPED_TRACE(codec->name);
    EXPECT_EQ(codec->name, dtype_name(codec->dtype));
    EXPECT_EQ(codec->block, dtype_block(codec->dtype));
    EXPECT_EQ(codec->block_bytes, dtype_block_bytes(codec->dtype));
    const int64_t n = 1024;
    std::vector<std::byte> packed(static_cast<size_t>(n / codec->block * codec->block_bytes) + 1);
    codec->encode(input.data(), n, packed.data());
    std::vector<float> decoded(1024), shifted(1024);
    codec->decode(packed.data(), n, decoded.data());
    std::memmove(packed.data() + 1, packed.data(), packed.size() - 1);
    codec->decode(packed.data() + 1, n, shifted.data());
    EXPECT_EQ(decoded, shifted);
    // Of normal values, the widest step that any type takes is a third of the range of 2 bits.
    for (size_t i = 0; i < input.size(); ++i) EXPECT_NEAR(decoded[i], input[i], 1.0) << i;
  }
}

// |x - decoded| <= 0.57 d for q8_0 (0.5 for the code, 127/2048 for the scale's f16), and for q4_0 a
// step at most where the range is cut at +7.
TEST(BlockCodecs, ErrorsStayWithinTheStatedBounds) {
  Random random(5);
  std::vector<float> input(32 * 4096), decoded(input.size());
  for (float& value : input) value = static_cast<float>(random.normal());
  for (const auto& [dtype, bound, levels] :
       {std::tuple(DType::kQ8_0, 0.57f, 127.0f), std::tuple(DType::kQ4_0, 1.01f, 8.0f)}) {
    const BlockCodec& codec = block_codec(dtype);
    std::vector<std::byte> packed(static_cast<size_t>(4096 * codec.block_bytes));
    codec.encode(input.data(), static_cast<int64_t>(input.size()), packed.data());
    codec.decode(packed.data(), static_cast<int64_t>(input.size()), decoded.data());
    for (size_t block = 0; block < 4096; ++block) {
      float largest = 0;
      for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(input[32 * block + i]));
      for (size_t i = 0; i < 32; ++i)
        ASSERT_LE(std::fabs(input[32 * block + i] - decoded[32 * block + i]),
                  bound * largest / levels)
            << codec.name << " block " << block;
    }
  }
}

}  // namespace
}  // namespace slmc

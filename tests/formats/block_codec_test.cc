#include "formats/block_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "compress/core/random.h"
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

INSTANTIATE_TEST_SUITE_P(Types, Codec, testing::Values("q8_0", "q4_0", "f16", "bf16"));

// Holds for every codec there is, also those added later: sizes agree with the table of types,
// unaligned data decodes the same, and what was decoded encodes to the same values again.
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
    for (size_t i = 0; i < input.size(); ++i) EXPECT_NEAR(decoded[i], input[i], 0.6) << i;
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

#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "compress/core/error.h"
#include "formats/model.h"
#include "formats/safetensors.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;
using test::spit;
using test::TemporaryFolder;

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES) + "/formats/" + name;
}

// The file comes from the `gguf` wheel, the expected values from numpy in Hugging Face's order.
TEST(Gguf, ReadsWhatOthersWrite) {
  const auto model = Model::open(fixture("foreign.gguf"));
  const SafetensorsFile expected = SafetensorsFile::open(fixture("foreign.safetensors"));
  EXPECT_EQ(model->arch().vocab, 24);
  EXPECT_FALSE(model->arch().tied);
  EXPECT_EQ(model->arch().norm_eps, 1e-5);
  EXPECT_EQ(model->arch().rope.scaling, RopeScaling::kFactors);
  for (const SafetensorsEntry& entry : expected.tensors) {
    const TensorView view{expected.file->data() + entry.offset, entry.dtype, entry.shape,
                          expected.file};
    std::vector<float> wanted(static_cast<size_t>(view.elements())), found(wanted.size()),
        viewed(wanted.size());
    decode_rows(view, 0, view.rows(), wanted.data());
    if (entry.name == "rope_freqs.weight") {
      EXPECT_EQ(model->arch().rope.factors, wanted);
      continue;
    }
    model->read_rows(entry.name, 0, view.rows(), found.data());
    EXPECT_EQ(found, wanted) << entry.name;
    const TensorView own = model->view(entry.name);
    decode_rows(own, 0, own.rows(), viewed.data());
    EXPECT_EQ(viewed, wanted) << entry.name;
  }
}

GgufKeys all_kinds() {
  GgufKeys keys;
  keys.set("a.u8", uint8_t{200});
  keys.set("a.i8", int8_t{-100});
  keys.set("a.u16", uint16_t{60000});
  keys.set("a.i16", int16_t{-30000});
  keys.set("a.u32", uint32_t{4000000000u});
  keys.set("a.i32", int32_t{-2000000000});
  keys.set("a.f32", 1.5f);
  keys.set("a.bool", true);
  keys.set("a.string", std::string("text"));
  keys.set("a.u64", uint64_t{1} << 40);
  keys.set("a.i64", int64_t{-1} * (int64_t{1} << 40));
  keys.set("a.f64", 0.1);
  keys.set("b.strings", GgufArray(std::vector<std::string>{"x", "", "yz"}));
  keys.set("b.bools", GgufArray(std::vector<bool>{true, false, true}));
  keys.set("b.floats", GgufArray(std::vector<float>{0.5f, -1.0f}));
  keys.set("b.integers", GgufArray(std::vector<int32_t>{1, -2, 3}));
  return keys;
}

TEST(Gguf, EveryKindOfKeySurvives) {
  TemporaryFolder folder;
  const GgufKeys keys = all_kinds();
  spit(folder.file("k.gguf"), gguf_header(keys, {}));
  const GgufFile file = GgufFile::open(folder.file("k.gguf"));
  ASSERT_EQ(file.keys.items().size(), keys.items().size());
  for (size_t i = 0; i < keys.items().size(); ++i) {
    EXPECT_EQ(file.keys.items()[i].first, keys.items()[i].first);
    EXPECT_TRUE(file.keys.items()[i].second == keys.items()[i].second) << keys.items()[i].first;
  }
  EXPECT_EQ(file.keys.integers("b.integers", "k"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(file.keys.integer("a.u32", "k"), 4000000000);
  EXPECT_NE(error_of([&] {
              file.keys.integer("a.string", "k.gguf");
            }).find("k.gguf: key a.string: expected an integer, found string"),
            std::string::npos);
  EXPECT_NE(error_of([&] { file.keys.string("none", "k.gguf"); }).find("key none is missing"),
            std::string::npos);
}

/// A header with one f32 tensor of 8 values, then `data` bytes.
std::string one_tensor(const GgufTensor& tensor, size_t data, uint32_t alignment = 32) {
  GgufKeys keys;
  if (alignment != 32) keys.set("general.alignment", alignment);
  return gguf_header(keys, {tensor}) + std::string(data, '\0');
}

TEST(Gguf, RefusesTensorsThatDoNotFit) {
  TemporaryFolder folder;
  const std::string path = folder.file("t.gguf");
  const auto refusal = [&](const std::string& bytes) {
    spit(path, bytes);
    return error_of([&] { GgufFile::open(path); });
  };
  const GgufTensor sound{"t", DType::kF32, {8}, 0, 32};
  EXPECT_EQ(refusal(one_tensor(sound, 32)), "");
  EXPECT_NE(refusal(one_tensor(sound, 31)).find("go beyond the file's"), std::string::npos);
  EXPECT_NE(refusal(one_tensor({"t", DType::kF32, {8}, 16, 32}, 64))
                .find("not a multiple of the alignment"),
            std::string::npos);
  EXPECT_NE(
      refusal(one_tensor({"t", DType::kF32, {8}, uint64_t{1} << 63, 32}, 64)).find("go beyond"),
      std::string::npos);
  EXPECT_NE(
      refusal(one_tensor({"t", DType::kQ8_0, {33}, 0, 34}, 64)).find("do not divide into blocks"),
      std::string::npos);
  EXPECT_NE(refusal(one_tensor({"t", DType::kF32, {1 << 30, 1 << 30, 1 << 30, 1 << 30}, 0, 0}, 64)),
            "");
  EXPECT_NE(refusal(one_tensor({"t", DType::kF32, {0}, 0, 0}, 64)).find("dimension 0 is 0"),
            std::string::npos);
  EXPECT_NE(refusal(one_tensor({"t", DType::kU8, {8}, 0, 8}, 64)).find("type number 1000"),
            std::string::npos);
  EXPECT_NE(refusal(one_tensor(sound, 64, 48)).find("power of two"), std::string::npos);
  EXPECT_NE(refusal(one_tensor(sound, 64, 1u << 30)).find("power of two"), std::string::npos);
  GgufKeys none;
  EXPECT_NE(
      refusal(gguf_header(none, {sound, sound}) + std::string(64, '\0')).find("appears twice"),
      std::string::npos);
  GgufTensor other = sound;
  other.name = "u";
  EXPECT_NE(refusal(gguf_header(none, {sound, other}) + std::string(64, '\0')).find("overlap"),
            std::string::npos);
}

TEST(Gguf, RefusesOtherVersions) {
  TemporaryFolder folder;
  const std::string path = folder.file("v.gguf");
  std::string bytes = gguf_header({}, {});
  for (const char version : {1, 4}) {
    bytes[4] = version;
    spit(path, bytes);
    EXPECT_NE(error_of([&] { GgufFile::open(path); }).find("versions 2 and 3"), std::string::npos);
  }
  bytes[4] = 0;
  bytes[7] = 3;
  spit(path, bytes);
  EXPECT_NE(error_of([&] { GgufFile::open(path); }).find("big-endian"), std::string::npos);
  bytes[7] = 0;
  bytes[4] = 2;
  spit(path, bytes);
  EXPECT_EQ(error_of([&] { GgufFile::open(path); }), "");
}

TEST(Gguf, CountsAreHeldAgainstTheBytesLeft) {
  TemporaryFolder folder;
  const std::string path = folder.file("c.gguf");
  const uint64_t huge = uint64_t{1} << 60;
  for (const size_t at : {size_t{8}, size_t{16}}) {  // Number of tensors, number of keys.
    std::string bytes = gguf_header(all_kinds(), {});
    std::memcpy(bytes.data() + at, &huge, 8);
    spit(path, bytes);
    EXPECT_NE(error_of([&] { GgufFile::open(path); }).find("bytes left can hold"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace slmc

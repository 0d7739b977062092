#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "formats/model.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::slurp;
using test::spit;
using test::TemporaryFolder;

/// A file with this header text and `data` zero bytes.
std::string file_of(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\0');
}

class Safetensors : public testing::Test {
 protected:
  /// What opening a file of these bytes says.
  std::string refusal(const std::string& bytes) {
    const std::string path = folder_.file("t.safetensors");
    spit(path, bytes);
    return error_of([&] { SafetensorsFile::open(path); });
  }
  TemporaryFolder folder_;
};

constexpr const char* kSound =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})";

TEST_F(Safetensors, ReadsEntriesInOrderOfOffset) {
  EXPECT_EQ(refusal(file_of(kSound, 12)), "");
  const SafetensorsFile file = SafetensorsFile::open(folder_.file("t.safetensors"));
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[1].dtype, DType::kF32);
  EXPECT_EQ(file.tensors[1].offset, 8 + std::strlen(kSound) + 4);
  EXPECT_EQ(file.metadata, (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}}));
}

TEST_F(Safetensors, RefusesHeadersThatContradictTheFile) {
  const auto expect = [this](const std::string& header, size_t data, const char* says) {
    EXPECT_NE(refusal(file_of(header, data)).find(says), std::string::npos)
        << header << " gave: " << refusal(file_of(header, data));
  };
  expect(kSound, 11, "truncated");
  expect(kSound, 13, "belong to no tensor");
  expect(R"([])", 0, "does not begin with '{'");
  expect(R"( {})", 0, "does not begin with '{'");
  expect(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      4, "appears twice");
  expect(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
      6, "overlaps");
  expect(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
      12, "a hole");
  expect(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
         "takes 8 bytes, data_offsets give 4");
  expect(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "do not lie in");
  expect(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "a");
  expect(R"({"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}})", 0,
         "64 bits");
  expect(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "whole number");
  expect(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "whole number");
  expect(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1, "F8_E4M3");
  expect(R"({"a":{"dtype":"F32","shape":[1]}})", 4, "data_offsets");
  expect(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1}})", 4, "4 keys");
  expect(R"({"a":7})", 4, "missing from the header");
  expect(R"({"__metadata__":{"x":1}})", 0, "not a string");
  expect(R"({"a")", 0, "not valid JSON");
}

TEST_F(Safetensors, RefusesAHeaderLongerThanTheFileOrTheLimit) {
  std::string bytes = file_of(kSound, 12);
  const uint64_t huge = ~uint64_t{0};
  std::memcpy(bytes.data(), &huge, 8);
  EXPECT_NE(refusal(bytes).find("truncated or not safetensors"), std::string::npos);
  EXPECT_NE(refusal("1234567").find("too few"), std::string::npos);
}

TEST_F(Safetensors, WritesWhatItReads) {
  const std::vector<SafetensorsEntry> entries = {{"a", DType::kF32, {2, 3}, 0, 24},
                                                 {"b", DType::kF16, {}, 24, 2}};
  const std::string header = safetensors_header(entries, {{"k", "v\"\n"}});
  EXPECT_EQ(header.size() % 64, 0u);
  EXPECT_EQ(refusal(header + std::string(26, '\0')), "");
  const SafetensorsFile file = SafetensorsFile::open(folder_.file("t.safetensors"));
  EXPECT_EQ(file.tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.tensors[1].offset, header.size() + 24);
  EXPECT_EQ(file.metadata[0].second, "v\"\n");
}

class Shards : public testing::Test {
 protected:
  void SetUp() override { test::write_tiny_model(path(), {.shards = 2}); }
  std::string path() const { return folder_.file("m"); }
  std::string index() const { return path() + "/model.safetensors.index.json"; }
  void replace(const std::string& from, const std::string& to) {
    std::string text = slurp(index());
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
    spit(index(), text);
  }
  std::string refusal() {
    return error_of([&] { Model::open(path()); });
  }
  TemporaryFolder folder_;
};

TEST_F(Shards, NamesOutsideTheFolderAreRefused) {
  const std::string first = "model-00001-of-00002.safetensors";
  ASSERT_EQ(refusal(), "");
  fs::copy_file(path() + "/" + first, folder_.file("x.safetensors"));
  const std::string index_text = slurp(index());
  for (const std::string& name :
       {std::string("../x.safetensors"), folder_.file("x.safetensors"), std::string("..")}) {
    spit(index(), index_text);
    replace(first, name);
    EXPECT_NE(refusal().find("not a plain file name"), std::string::npos) << name;
  }
  spit(index(), index_text);
  fs::remove(path() + "/" + first);
  EXPECT_NE(refusal().find("cannot be opened"), std::string::npos);
  fs::create_symlink("../x.safetensors", path() + "/" + first);
  EXPECT_NE(refusal().find("leads out of the folder"), std::string::npos);
}

TEST_F(Shards, TheCacheOfHuggingFaceIsAllowed) {
  const std::string snapshot = folder_.file("models--a--b/snapshots/1");
  fs::create_directories(snapshot);
  fs::create_directories(folder_.file("models--a--b/blobs"));
  for (const auto& entry : fs::directory_iterator(path())) {
    const std::string name = entry.path().filename();
    fs::copy_file(entry.path(), folder_.file("models--a--b/blobs/" + name));
    fs::create_symlink("../../blobs/" + name, snapshot + "/" + name);
  }
  EXPECT_EQ(error_of([&] { Model::open(snapshot); }), "");
}

TEST_F(Shards, TheIndexMustAgreeWithTheFiles) {
  const std::string index_text = slurp(index());
  replace("model.embed_tokens.weight", "model.embed_tokens.weights");
  EXPECT_NE(refusal().find("is not in"), std::string::npos);
  Json json = Json::parse(index_text);
  json["weight_map"]["more"] = "model-00001-of-00002.safetensors";
  spit(index(), json.dump());
  EXPECT_NE(refusal().find("tensor more is missing"), std::string::npos);
  spit(index(), R"({"weight_map": 3})");
  EXPECT_NE(refusal().find("weight_map"), std::string::npos);
}

}  // namespace
}  // namespace slmc

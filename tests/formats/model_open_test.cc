#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "formats/model.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;
using test::TemporaryFolder;
using test::TinyModel;

TEST(ModelOpen, GivesArchitectureAndTensorsOfAFolder) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("m"), {.layers = 3, .head_dim = 8, .tied = false, .rope_type = "llama3"});
  const auto model = Model::open(folder.file("m"));
  EXPECT_EQ(model->arch().family, "llama");
  EXPECT_EQ(model->arch().layers, 3);
  EXPECT_EQ(model->arch().head_dim, 8);
  EXPECT_EQ(model->arch().rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(model->arch().rope.original_context, 64);
  EXPECT_EQ(model->tensors().size(), 3u * 9 + 3);
  EXPECT_EQ(model->tensors().front().name, "token_embd.weight");
  EXPECT_EQ(model->info("blk.1.attn_k.weight").shape, (std::vector<int64_t>{16, 64}));
  EXPECT_EQ(model->container(), "safetensors");
}

TEST(ModelOpen, DecodesUnalignedRowsOfEveryFloatType) {
  TemporaryFolder folder;
  // 1.0 + 2^-7 is exact in all three types.
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::string path = folder.file(std::string(dtype_name(dtype)));
    test::write_tiny_model(path, {.dtype = dtype, .unaligned = true});
    std::string file = test::slurp(path + "/model.safetensors");
    uint64_t header;
    std::memcpy(&header, file.data(), 8);
    EXPECT_EQ(header % 8, 1u);
    const float value = 1.0078125f;
    const uint16_t half = dtype == DType::kF16 ? 0x3c08 : 0x3f81;
    const size_t size = dtype == DType::kF32 ? 4 : 2;
    std::memcpy(file.data() + 8 + header + 5 * size, dtype == DType::kF32 ? static_cast<const void*>(&value) : &half, size);
    test::spit(path + "/model.safetensors", file);
    const auto model = Model::open(path);
    std::vector<float> row(64);
    model->read_rows("token_embd.weight", 0, 1, row.data());
    EXPECT_EQ(row[5], value) << dtype_name(dtype);
  }
}

TEST(ModelOpen, ShardsAreOneModel) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("whole"));
  test::write_tiny_model(folder.file("shards"), {.shards = 3});
  const auto whole = Model::open(folder.file("whole"));
  const auto shards = Model::open(folder.file("shards"));
  EXPECT_EQ(whole->content_hash(), shards->content_hash());
}

}  // namespace
}  // namespace slmc

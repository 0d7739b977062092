#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <utility>

#include "compress/core/error.h"
#include "formats/model.h"
#include "formats/tokenizer/tokenizer.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;
using test::TemporaryFolder;
using test::TinyModel;

TEST(ModelOpen, GivesArchitectureAndTensorsOfAFolder) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("m"),
                         {.layers = 3, .head_dim = 8, .tied = false, .rope_type = "llama3"});
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

TEST(ModelOpen, SaysThatAFolderIsOfTorchSave) {
  const auto model = Model::open(SLMC_FIXTURES "/pytorch/checkpoint");
  EXPECT_EQ(model->container(), "pytorch");
  EXPECT_EQ(model->info("blk.0.ffn_down.weight").shape, (std::vector<int64_t>{8, 12}));
  EXPECT_EQ(model->info("token_embd.weight").dtype, DType::kF16);
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
    std::memcpy(file.data() + 8 + header + 5 * size,
                dtype == DType::kF32 ? static_cast<const void*>(&value) : &half, size);
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

class Checkpoint : public testing::Test {
 protected:
  void write(const TinyModel& options = {}) {
    config_ = test::write_tiny_model(folder_.file("m"), options);
  }
  void set(const char* key, const Json& value) {
    config_[key] = value;
    test::spit(folder_.file("m/config.json"), config_.dump());
  }
  /// What opening says; the exit code must be `code` if it says anything.
  std::string refusal(ExitCode code = ExitCode::kBadInput) {
    try {
      Model::open(folder_.file("m"));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  Json config_;
};

TEST_F(Checkpoint, ShapesMustFitTheConfiguration) {
  write();
  set("intermediate_size", 97);
  EXPECT_NE(refusal().find("model.layers.0.mlp.gate_proj.weight: expected shape [97, 64] by the "
                           "configuration, found [96, 64]"),
            std::string::npos);
}

TEST_F(Checkpoint, TensorsMustBeTheArchitectures) {
  write();
  set("num_hidden_layers", 3);
  EXPECT_NE(refusal().find("tensor model.layers.2.input_layernorm.weight [64] is missing"),
            std::string::npos);
  set("num_hidden_layers", 1);
  EXPECT_NE(refusal().find("model.layers.1.input_layernorm.weight is not one that llama has"),
            std::string::npos);
  set("num_hidden_layers", 1 << 30);
  EXPECT_NE(refusal().find("but only 20 tensors are there"), std::string::npos);
  set("num_hidden_layers", 2);
  set("tie_word_embeddings", false);
  EXPECT_NE(refusal().find("lm_head.weight [320, 64] is missing"), std::string::npos);
}

TEST_F(Checkpoint, AHeadStoredThoughTiedMustBeTheEmbedding) {
  write({.tied = false});
  set("tie_word_embeddings", true);
  EXPECT_NE(refusal().find("lm_head.weight differs from the embedding"), std::string::npos);
  std::string file = test::slurp(folder_.file("m/model.safetensors"));
  uint64_t header;
  std::memcpy(&header, file.data(), 8);
  const size_t bytes = 320 * 64 * 4;  // The embedding is written first, the head last.
  std::memcpy(file.data() + file.size() - bytes, file.data() + 8 + header, bytes);
  test::spit(folder_.file("m/model.safetensors"), file);
  EXPECT_EQ(refusal(), "");
  EXPECT_FALSE(Model::open(folder_.file("m"))->has("output.weight"));
}

TEST_F(Checkpoint, SaysWhatAFolderLacks) {
  write();
  std::filesystem::rename(folder_.file("m/model.safetensors"), folder_.file("m/pytorch_model.bin"));
  EXPECT_NE(refusal().find("pytorch_model.bin: byte 0: not a file of torch.save"),
            std::string::npos);
  std::filesystem::remove(folder_.file("m/pytorch_model.bin"));
  EXPECT_NE(refusal().find("neither model.safetensors nor"), std::string::npos);
  std::filesystem::remove(folder_.file("m/config.json"));
  EXPECT_NE(refusal().find("config.json is not there"), std::string::npos);
  std::filesystem::remove_all(folder_.file("m"));
  EXPECT_NE(refusal().find("cannot open"), std::string::npos);
  test::spit(folder_.file("m"), "something else");
  EXPECT_NE(refusal().find("neither"), std::string::npos);
}

/// The ids of a model whose tokenizer's own files say this much.
std::pair<int32_t, int32_t> bos_and_eos(const std::string& config, const std::string& map) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("m"));
  Json tokenizer = Json::parse(test::tiny_tokenizer_json());
  tokenizer["post_processor"] = nullptr;
  test::spit(folder.file("m/tokenizer.json"), tokenizer.dump());
  test::spit(folder.file("m/tokenizer_config.json"), config);
  if (!map.empty()) test::spit(folder.file("m/special_tokens_map.json"), map);
  const auto model = Model::open(folder.file("m"));
  return {model->tokenizer().bos(), model->tokenizer().eos()};
}

// config.json says 0 and 1. GPT-2's tokenizer_config.json is the first.
TEST(ModelOpen, TheTokenizerHasTheModelsIdsWhereItsFilesAreSilent) {
  using Ids = std::pair<int32_t, int32_t>;
  EXPECT_EQ(bos_and_eos(R"({"model_max_length": 1024})", ""), Ids(0, 1));
  EXPECT_EQ(bos_and_eos(R"({"bos_token": null, "eos_token": null})", ""), Ids(-1, -1));
  EXPECT_EQ(bos_and_eos(R"({"bos_token": null, "eos_token": "<|begin|>"})", ""), Ids(-1, 0));
  EXPECT_EQ(bos_and_eos("{}", R"({"bos_token": "<|end|>", "eos_token": {"content": "<|begin|>"}})"),
            Ids(1, 0));
}

}  // namespace
}  // namespace slmc

#include "formats/convert_stage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/half.h"
#include "compress/core/parallel.h"
#include "formats/block_codec.h"
#include "formats/model.h"
#include "formats/model_writer.h"
#include "formats/tensor_stream.h"
#include "formats/verify.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::error_of;
using test::slurp;
using test::spit;
using test::TemporaryFolder;

Report convert(const std::string& from, const std::string& to, const std::string& dtype = "keep") {
  ConvertStage stage({.model = from, .output = to, .dtype = dtype});
  Context context;
  return stage.run(stage.plan({}), context);
}

TEST(Convert, BringsA16BitCheckpointBackByteForByte) {
  TemporaryFolder folder;
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const std::string name(dtype_name(dtype));
    test::write_tiny_model(folder.file(name),
                           {.family = "qwen2", .rope_type = "linear", .dtype = dtype});
    convert(folder.file(name), folder.file(name + ".gguf"));
    convert(folder.file(name + ".gguf"), folder.file(name + "-back"));
    const auto before = Model::open(folder.file(name)),
               after = Model::open(folder.file(name + "-back"));
    EXPECT_EQ(before->config(), after->config());
    for (const TensorInfo& info : before->tensors()) {
      ASSERT_EQ(after->info(info.name).dtype, dtype) << info.name;
      EXPECT_EQ(std::memcmp(before->view(info.name).data, after->view(info.name).data, info.bytes),
                0)
          << info.name;
    }
    const auto gguf = Model::open(folder.file(name + ".gguf"));
    EXPECT_EQ(gguf->info("output_norm.weight").dtype, DType::kF32);
    EXPECT_EQ(gguf->size_bytes(), std::filesystem::file_size(folder.file(name + ".gguf")));
    EXPECT_EQ(before->size_bytes(),
              std::filesystem::file_size(folder.file(name + "/model.safetensors")));
  }
}

TEST(Convert, RoundsToTheTypeAskedFor) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  convert(folder.file("a"), folder.file("b"), "bf16");
  const auto a = Model::open(folder.file("a")), b = Model::open(folder.file("b"));
  EXPECT_EQ(b->config()["torch_dtype"], "bfloat16");
  std::vector<float> before(64), after(64);
  a->read_rows("blk.1.attn_k.weight", 3, 1, before.data());
  b->read_rows("blk.1.attn_k.weight", 3, 1, after.data());
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(after[i], bf16_to_float(float_to_bf16(before[i])));
}

TEST(Convert, ThePlanSaysWhatWillBeWritten) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"), {.dtype = DType::kBF16});
  const Plan plan =
      ConvertStage({.model = folder.file("a"), .output = folder.file("b.gguf"), .dtype = "f16"})
          .plan({});
  for (const PlanRow& row : plan.rows) {
    EXPECT_EQ(row.from, "bf16");
    EXPECT_EQ(row.to, row.shape.size() == 1 ? "f32" : "f16") << row.tensor;
    EXPECT_EQ(row.bytes_after, row.bytes_before * (row.shape.size() == 1 ? 2 : 1));
  }
  EXPECT_EQ(plan.rows[1].file_name, "model.layers.0.input_layernorm.weight");
  EXPECT_FALSE(std::filesystem::exists(folder.file("b.gguf")));
}

TEST(Convert, AGgufWithoutATokenizerIsNotForLlamaCpp) {
  TemporaryFolder folder;
  for (const bool tokenizer : {true, false}) {
    const std::string from = folder.file(tokenizer ? "with" : "without");
    test::write_tiny_model(from, {.tokenizer = tokenizer});
    std::string notes;
    for (const std::string& note : container_notes(*Model::open(from), "b.gguf")) notes += note;
    EXPECT_EQ(notes.find("without a tokenizer") != std::string::npos, !tokenizer) << notes;
    EXPECT_TRUE(container_notes(*Model::open(from), "b").empty());
  }
}

TEST(Convert, AnOutputThatExistsIsNotTouched) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  spit(folder.file("b.gguf"), "mine");
  EXPECT_NE(error_of([&] { convert(folder.file("a"), folder.file("b.gguf")); }).find("exists"),
            std::string::npos);
  EXPECT_EQ(slurp(folder.file("b.gguf")), "mine");
}

/// Puts `value` into the first element of the embedding, which the tiny model writes first.
void poke(const std::string& model, float value) {
  std::string file = slurp(model + "/model.safetensors");
  uint64_t header;
  std::memcpy(&header, file.data(), 8);
  std::memcpy(file.data() + 8 + header, &value, 4);
  spit(model + "/model.safetensors", file);
}

TEST(Convert, ValuesThatTheTypeCannotHoldAreAnErrorAndLeaveNothing) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  poke(folder.file("a"), 1e6f);
  EXPECT_NE(error_of([&] {
              convert(folder.file("a"), folder.file("b"), "f16");
            }).find("token_embd.weight: row 0, column 0: 1e+06 is too large for f16"),
            std::string::npos);
  poke(folder.file("a"), NAN);
  EXPECT_NE(error_of([&] {
              convert(folder.file("a"), folder.file("b"), "bf16");
            }).find("expected finite weights"),
            std::string::npos);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()),
                          std::filesystem::directory_iterator()),
            1);
}

TEST(Convert, QuantizedTensorsNeedATypeForAFolder) {
  TemporaryFolder folder;
  const std::string foreign = std::string(SLMC_FIXTURES) + "/formats/foreign.gguf";
  EXPECT_NE(error_of([&] { convert(foreign, folder.file("b")); }).find("give --dtype"),
            std::string::npos);
  // Its rope factors fit no configuration, so a folder cannot hold the model at all, and a GGUF
  // can.
  EXPECT_NE(error_of([&] {
              convert(foreign, folder.file("b"), "f32");
            }).find("config.json cannot hold them"),
            std::string::npos);
  convert(foreign, folder.file("b.gguf"));
  const auto before = Model::open(foreign), after = Model::open(folder.file("b.gguf"));
  EXPECT_EQ(before->arch().rope.factors, after->arch().rope.factors);
  for (const TensorInfo& info : before->tensors())
    EXPECT_EQ(before->tensor_hash(info.name), after->tensor_hash(info.name)) << info.name;
}

TEST(EncodeRows, AreTheSameForAnyNumberOfThreads) {
  std::vector<float> values(256 * 512);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i) * 0.37f);
  std::vector<std::byte> one(256 * 512 / 32 * 18), many(one.size());
  set_threads(1);
  encode_rows(DType::kQ4_0, values.data(), 256, 512, one.data(), "t");
  set_threads(7);
  encode_rows(DType::kQ4_0, values.data(), 256, 512, many.data(), "t");
  set_threads(0);
  EXPECT_EQ(one, many);
}

TEST(Verify, ReadsEverythingAndFindsDamage) {
  TemporaryFolder folder;
  test::write_tiny_model(folder.file("a"));
  convert(folder.file("a"), folder.file("b.gguf"));
  Context context;
  const Json sound = verify_checkpoint(folder.file("b.gguf"), context);
  EXPECT_EQ(sound["hashes"], "equal");
  EXPECT_EQ(sound["tokenizer"], true);
  EXPECT_EQ(verify_checkpoint(folder.file("a"), context)["hashes"], "none");
  std::string bytes = slurp(folder.file("b.gguf"));
  bytes[bytes.size() - 100] ^= 1;
  spit(folder.file("b.gguf"), bytes);
  EXPECT_NE(error_of([&] {
              verify_checkpoint(folder.file("b.gguf"), context);
            }).find("the file was damaged or changed"),
            std::string::npos);
  poke(folder.file("a"), INFINITY);
  EXPECT_NE(error_of([&] {
              verify_checkpoint(folder.file("a"), context);
            }).find("model.embed_tokens.weight: row 0, column 0 is inf"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              verify_checkpoint(folder.file("a/model.safetensors"), context);
            }).find("is inf"),
            std::string::npos);
}

}  // namespace
}  // namespace slmc

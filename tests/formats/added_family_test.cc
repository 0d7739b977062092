// The family of docs/adding-a-family.md: one file and no other change. Its arithmetic is Qwen 3's
// without biases, so transformers' logits for that fixture are its own.
#include <gtest/gtest.h>

#include <filesystem>

#include "compress/runtime/decoder.h"
#include "examples/family/velvet.cc"
#include "tests/support/golden.h"
#include "tests/support/rewrite.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using testing::GoldenModel;

double difference(const GoldenModel& golden, const std::string& path) {
  const auto decoder = Decoder::create(*Model::open(path), Activations::kF32);
  const auto total = static_cast<int64_t>(golden.prompt.size());
  std::vector<float> logits(golden.prompt.size() * static_cast<size_t>(decoder->arch().vocab));
  decoder->forward(*decoder->new_cache(total), golden.prompt, logits.data(), false);
  return testing::compare_golden(golden, golden.base, logits.data()).largest;
}

TEST(AddedFamily, OneFileIsAllThereIsToIt) {
  add_family(family_velvet());
  const GoldenModel golden = testing::load_golden("qwen3");
  test::TemporaryFolder folder;
  std::filesystem::create_directories(folder.file("velvet"));
  std::filesystem::copy_file(golden.path + "/model.safetensors",
                             folder.file("velvet/model.safetensors"));
  Json config = golden.base.config;
  config["architectures"] = {"VelvetForCausalLM"};
  config["model_type"] = "velvet";
  test::spit(folder.file("velvet/config.json"), config.dump());

  EXPECT_LE(difference(golden, folder.file("velvet")), testing::kLogitTolerance);
  testing::rewrite_model(folder.file("velvet"), folder.file("v.gguf"), DType::kF32);
  EXPECT_LE(difference(golden, folder.file("v.gguf")), testing::kLogitTolerance);
  testing::rewrite_model(folder.file("v.gguf"), folder.file("back"), DType::kF32);
  EXPECT_LE(difference(golden, folder.file("back")), testing::kLogitTolerance);
  EXPECT_EQ(Model::open(folder.file("back"))->arch().family, "velvet");
}

TEST(AddedFamily, TheGuideShowsTheFileAsItIs) {
  const std::string guide = test::slurp(std::string(SLMC_SOURCE_DIR) + "/docs/adding-a-family.md");
  const std::string file = test::slurp(std::string(SLMC_SOURCE_DIR) + "/examples/family/velvet.cc");
  EXPECT_NE(guide.find(file), std::string::npos);
}

}  // namespace
}  // namespace slmc

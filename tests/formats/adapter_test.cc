// Bottleneck adapters and prompts as files and in the runtime. The folders in fixtures/adapters are
// the work of PEFT and of the package adapters.
#include "formats/adapter.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "compress/runtime/decoder.h"
#include "formats/lora.h"
#include "tests/support/golden.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using Floats = std::vector<float>;

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES) + "/adapters/" + name;
}
std::shared_ptr<const Model> base_of(const std::string& name) {
  const Json expected = read_json(fixture(name) + "/expected.json");
  return Model::open(std::string(SLMC_FIXTURES) + "/models/" + expected["base"].get<std::string>());
}
Floats values(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  Floats out(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), out.data());
  return out;
}

class SideAdapters : public ::testing::TestWithParam<std::string> {};

TEST_P(SideAdapters, GiveTheirPackagesLogits) {
  const Json expected = read_json(fixture(GetParam()) + "/expected.json");
  const auto base = base_of(GetParam());
  const auto decoder = Decoder::create(*with_adapter(base, fixture(GetParam())), Activations::kF32);
  const std::vector<int32_t> ids = testing::golden_prompt(33, 96);
  const auto vocab = static_cast<size_t>(base->arch().vocab);
  Floats logits(33 * vocab), single(logits.size());
  const auto cache = decoder->new_cache(33);
  EXPECT_EQ(cache->length(), 0);
  decoder->forward(*cache, ids, logits.data(), false);
  EXPECT_EQ(cache->length(), 33);
  for (size_t i = 0; i < expected["positions"].size(); ++i) {
    const size_t row = expected["positions"][i].get<size_t>() * vocab;
    for (size_t v = 0; v < vocab; ++v)
      ASSERT_NEAR(logits[row + v], expected["logits"][i][v].get<float>(), 1e-3) << i << " " << v;
  }
  // Token by token, after going back to the beginning: the same bits.
  cache->truncate(0);
  for (size_t t = 0; t < ids.size(); ++t)
    decoder->forward(*cache, {&ids[t], 1}, single.data() + t * vocab, false);
  EXPECT_EQ(std::memcmp(single.data(), logits.data(), logits.size() * sizeof(float)), 0);
}

TEST_P(SideAdapters, ComeBackFromTheirFiles) {
  const auto base = base_of(GetParam());
  const SideAdapter adapter = read_side_adapter(fixture(GetParam()), base->arch());
  const test::TemporaryFolder folder;
  write_side_adapter(adapter, base->arch(), folder.file("out"), "base", DType::kF32, false);
  const SideAdapter back = read_side_adapter(folder.file("out"), base->arch());
  EXPECT_EQ(back.shape.prompt_tokens, adapter.shape.prompt_tokens);
  EXPECT_EQ(back.shape.bottleneck.width, adapter.shape.bottleneck.width);
  EXPECT_EQ(back.shape.bottleneck.activation, adapter.shape.bottleneck.activation);
  EXPECT_EQ(back.shape.bottleneck.reads_stream, adapter.shape.bottleneck.reads_stream);
  ASSERT_EQ(back.tensors.size(), adapter.tensors.size());
  for (const SideTensor& tensor : adapter.tensors)
    EXPECT_EQ(values(*back.values, tensor.name), values(*adapter.values, tensor.name))
        << tensor.name;
}

TEST_P(SideAdapters, OfAnotherModelAreRefused) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("other"), {.hidden = 64});
  const auto other = Model::open(folder.file("other"));
  const std::string error = test::error_of([&] { with_adapter(other, fixture(GetParam())); });
  EXPECT_NE(error.find("of another model?"), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, SideAdapters,
                         ::testing::Values("prompt_llama", "prompt_gpt2", "prompt_gemma2",
                                           "houlsby_llama", "pfeiffer_llama", "houlsby_gpt2"),
                         [](const auto& instance) { return instance.param; });

TEST(SideAdapter, CannotBeMerged) {
  for (const char* name : {"prompt_llama", "houlsby_llama"}) {
    const std::string error =
        test::error_of([&] { read_lora(fixture(name), base_of(name)->arch()); });
    EXPECT_NE(error.find("merged into weights"), std::string::npos) << error;
  }
}

TEST(DamagedAdapter, IsNamedWithWhatIsWrong) {
  const auto expect = [&](const std::string& name, const std::string& words,
                          const std::function<void(Json&)>& change) {
    const test::TemporaryFolder folder;
    std::filesystem::copy(fixture(name), folder.file("copy"));
    Json config = read_json(folder.file("copy/adapter_config.json"));
    change(config);
    test::spit(folder.file("copy/adapter_config.json"), config.dump());
    const auto base = base_of(name);
    const std::string said = test::error_of([&] { with_adapter(base, folder.file("copy")); });
    EXPECT_NE(said.find(words), std::string::npos) << said;
  };
  expect("prompt_llama", "num_virtual_tokens: expected prompt_embeddings's 5, found 6",
         [](Json& c) { c["num_virtual_tokens"] = 6; });
  expect("prompt_llama", "slmc reads LORA and PROMPT_TUNING",
         [](Json& c) { c["peft_type"] = "P_TUNING"; });
  expect("houlsby_llama", "is_parallel true; false is implemented",
         [](Json& c) { c["config"]["is_parallel"] = true; });
  expect("houlsby_llama", "non_linearity \"mish\"",
         [](Json& c) { c["config"]["non_linearity"] = "mish"; });
  expect("houlsby_llama", "belong to no block", [](Json& c) { c["name"] = "other"; });
  expect("houlsby_llama", "expected an object with", [](Json& c) { c = Json::array(); });
}

}  // namespace
}  // namespace slmc

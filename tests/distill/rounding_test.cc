// What a network that is trained through rounding runs on: the values of the file that quantize
// writes, to the bit.
#include "distill/rounding.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"
#include "compress/core/random.h"
#include "distill/training.h"
#include "formats/group_types.h"
#include "quantize/stage.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

std::vector<float> floats(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  return values;
}

class Rounding : public ::testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(Rounding, GivesTheValuesThatQuantizeWrites) {
  const auto& [scheme, output] = GetParam();
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("model"),
                         {.layers = 2, .hidden = 256, .ffn = 512, .dtype = DType::kF32});
  const auto model = Model::open(folder.file("model"));
  QuantizeStage stage;
  stage.options.model = folder.file("model");
  stage.options.output = folder.file(output);
  stage.options.scheme = scheme;
  Context context;
  stage.run(stage.plan({}), context);
  const auto written = Model::open(folder.file(output));
  const ParameterLayout layout = parameter_layout(model->arch());
  const StoredTypes types = stored_types(model->arch(), scheme, DType::kF32, folder.file(output));
  std::vector<float> weights(static_cast<size_t>(layout.total)), rounded(weights.size());
  for (const ParameterSlot& slot : layout.slots) {
    const std::vector<float> values = floats(*model, slot.name);
    std::copy(values.begin(), values.end(), weights.begin() + slot.offset);
  }
  round_layout(layout, types, weights.data(), rounded.data());
  for (const ParameterSlot& slot : layout.slots) {
    EXPECT_EQ(types.at(slot.name), written->info(slot.name).dtype) << slot.name;
    const std::vector<float> held = floats(*written, slot.name);
    EXPECT_TRUE(std::equal(held.begin(), held.end(), rounded.begin() + slot.offset)) << slot.name;
  }
  check_stored(*written, *model, types);
  // Any other file is not what was trained.
  const test::TemporaryFolder other;
  test::write_tiny_model(other.file("model"),
                         {.layers = 2, .hidden = 256, .ffn = 512, .dtype = DType::kF32, .seed = 9});
  EXPECT_THROW(check_stored(*written, *Model::open(other.file("model")), types), std::exception);
}

INSTANTIATE_TEST_SUITE_P(Schemes, Rounding,
                         ::testing::Values(std::pair{"q4_0", "q.gguf"},
                                           std::pair{"q4_k_m", "q.gguf"},
                                           std::pair{"q3_k_m", "q.gguf"},
                                           std::pair{"iq4_nl", "q.gguf"}, std::pair{"w4a16", "q"}),
                         [](const auto& test) { return std::string(test.param.first); });

// The exception that llama.cpp makes, and a folder that keeps its embedding.
TEST(StoredTypes, AreTheSchemes) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("model"), {.layers = 1, .hidden = 256, .ffn = 512});
  const Architecture arch = Model::open(folder.file("model"))->arch();
  const StoredTypes q4 = stored_types(arch, "q4_0", DType::kBF16, "x.gguf");
  EXPECT_EQ(q4.at("token_embd.weight"), DType::kQ6_K);  // Tied to the head.
  EXPECT_EQ(q4.at("blk.0.ffn_up.weight"), DType::kQ4_0);
  EXPECT_EQ(q4.at("output_norm.weight"), DType::kF32);
  const StoredTypes w4 = stored_types(arch, "w4a16", DType::kBF16, "x");
  EXPECT_EQ(w4.at("token_embd.weight"), DType::kBF16);
  EXPECT_EQ(w4.at("blk.0.ffn_up.weight"), kI4_G128);
  EXPECT_THROW(stored_types(arch, "q4_9", DType::kF32, "x.gguf"), Error);
}

}  // namespace
}  // namespace slmc

// Structural pruning of every family's fixture: layers go with their kind (windowed or not),
// neurons go from fused matrices too, and the stage runs what it wrote.
#include <gtest/gtest.h>

#include "prune/stage.h"
#include "tests/support/golden.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

class PrunedFamilies : public ::testing::TestWithParam<std::string> {};

TEST_P(PrunedFamilies, LoseLayersAndNeurons) {
  const std::string source = std::string(SLMC_FIXTURES) + "/models/" + GetParam();
  const auto before = Model::open(source);
  const int64_t last = before->arch().layers - 1;
  test::TemporaryFolder folder;
  PruneStage stage;
  stage.options.model = source;
  stage.options.output = folder.file("out");
  stage.options.keep_layers = std::to_string(last);
  stage.options.ffn_ratio = 0.5;
  stage.options.multiple = 16;
  Context context;
  stage.run(stage.plan({}), context);
  const auto after = Model::open(folder.file("out"));
  EXPECT_EQ(after->arch().layers, 1);
  EXPECT_LT(after->arch().ffn, before->arch().ffn);
  EXPECT_EQ(layer_window(after->arch(), 0), layer_window(before->arch(), last));
  EXPECT_EQ(rope_difference(layer_rope(after->arch(), 0), layer_rope(before->arch(), last), ""),
            "");
  const std::string kept = "blk." + std::to_string(last) + ".attn_v.weight";
  EXPECT_EQ(after->tensor_hash("blk.0.attn_v.weight"), before->tensor_hash(kept));
  EXPECT_EQ(after->assets().carried.size(), before->assets().carried.size());
}

std::vector<std::string> all_fixtures() {
  std::vector<std::string> names = testing::golden_names();
  for (const std::string& name : testing::golden_names("lengths")) names.push_back(name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PrunedFamilies, ::testing::ValuesIn(all_fixtures()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace slmc

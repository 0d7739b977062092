#include "prune/structure.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace slmc {
namespace {

using Layers = std::vector<int64_t>;

TEST(ReducedWidth, TakesTheNearestMultiple) {
  Architecture arch;
  arch.hidden = 256, arch.ffn = 768;
  EXPECT_EQ(reduced_width(arch, 0.5, 0), 512);  // 384 is halfway; ties keep more.
  EXPECT_EQ(reduced_width(arch, 0.5, 32), 384);
  EXPECT_EQ(reduced_width(arch, 0.01, 0), 256);
  EXPECT_EQ(reduced_width(arch, 1.0, 500), 768);  // Never wider than it was.
  EXPECT_EQ(reduced_width(arch, 0.75, 0), 512);   // 576 is nearer to 512 than to 768.
  arch.hidden = 64, arch.ffn = 96;
  EXPECT_EQ(reduced_width(arch, 0.5, 0), 64);
  arch.ffn = 100;  // Divides by nothing that matters.
  EXPECT_EQ(reduced_width(arch, 0.5, 0), 50);
  EXPECT_EQ(reduced_width(arch, 0.07, 1), 7);
}

TEST(ReducedName, RenumbersLayersThatStay) {
  const Structure structure{.layers = {0, 2, 5}, .ffn = 64};
  EXPECT_EQ(reduced_name("blk.2.attn_q.weight", structure), "blk.1.attn_q.weight");
  EXPECT_EQ(reduced_name("blk.5.ffn_down.weight", structure), "blk.2.ffn_down.weight");
  EXPECT_EQ(reduced_name("blk.1.attn_q.weight", structure), "");
  EXPECT_EQ(reduced_name("token_embd.weight", structure), "token_embd.weight");
}

TEST(NeuronAxis, IsKnownForTheFfnOnly) {
  EXPECT_EQ(neuron_axis("blk.11.ffn_gate.weight"), NeuronAxis::kRows);
  EXPECT_EQ(neuron_axis("blk.0.ffn_up.bias"), NeuronAxis::kRows);
  EXPECT_EQ(neuron_axis("blk.0.ffn_down.weight"), NeuronAxis::kColumns);
  EXPECT_EQ(neuron_axis("blk.0.ffn_down.bias"), NeuronAxis::kNone);
  EXPECT_EQ(neuron_axis("blk.0.ffn_norm.weight"), NeuronAxis::kNone);
  EXPECT_EQ(neuron_axis("token_embd.weight"), NeuronAxis::kNone);
}

TEST(ReducedConfig, CutsListsOfOneEntryALayer) {
  Architecture arch;
  arch.layers = 3;
  const Json config = {
      {"layer_types", {"a", "b", "c"}}, {"eos_token_id", {1, 2, 3}}, {"num_hidden_layers", 3}};
  const Json reduced = reduced_config(config, arch, {.layers = {0, 2}, .ffn = 1});
  EXPECT_EQ(reduced.at("layer_types"), Json({"a", "c"}));
  EXPECT_EQ(reduced.at("eos_token_id"), Json({1, 2, 3}));
}

}  // namespace
}  // namespace slmc

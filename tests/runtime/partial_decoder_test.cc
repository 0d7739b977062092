// A model run block by block gives the bits of the whole decoder, and its observer sees what goes
// into every linear layer.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "compress/runtime/decoder.h"
#include "compress/runtime/smoke_test.h"
#include "tests/runtime/random_weights.h"

namespace slmc {
namespace {

using testing::random_weights;
using testing::small_architecture;

std::vector<int32_t> some_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 37 + 11) % vocab));
  return ids;
}

TEST(PartialDecoder, GivesTheBitsOfTheWholeDecoder) {
  for (const bool tied : {true, false}) {
    Architecture arch = small_architecture();
    arch.tied = tied;
    const MemoryWeights weights = random_weights(arch, DType::kF32);
    const std::vector<int32_t> ids = some_ids(70, arch.vocab);
    const auto tokens = static_cast<int64_t>(ids.size());
    const auto whole = Decoder::create(weights, Activations::kF32);
    std::vector<float> expected(static_cast<size_t>(tokens * arch.vocab));
    whole->forward(*whole->new_cache(tokens), ids, expected.data(), false);

    std::vector<float> x(static_cast<size_t>(tokens * arch.hidden)), logits(expected.size());
    const auto embedding = PartialDecoder::create(weights, {.embedding = true});
    embedding->embed(ids, x.data());
    std::map<std::string, int64_t> seen;
    const LinearObserver observe = [&](std::span<const std::string> names, const float* input,
                                       int64_t width, int64_t count) {
      ASSERT_NE(input, nullptr);
      for (const std::string& name : names) {
        seen[name] += count;
        EXPECT_EQ(weights.view(name).columns(), width);
      }
    };
    const auto cache = embedding->new_cache(tokens);
    for (int64_t layer = 0; layer < arch.layers; ++layer) {
      const auto block = PartialDecoder::create(weights, {.layer = layer});
      block->run_block(*cache, x.data(), tokens, observe);
    }
    const auto head = PartialDecoder::create(weights, {.head = true});
    head->run_head(*cache, x.data(), tokens, logits.data(), observe);
    EXPECT_EQ(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)), 0);
    EXPECT_EQ(seen.size(), static_cast<size_t>(7 * arch.layers + 1));
    for (const auto& [name, count] : seen) EXPECT_EQ(count, tokens) << name;
  }
}

// The check of a written file holds a piece at a time: here the vocabulary is in two.
TEST(SmokeTest, GivesTheBitsOfTheWholeDecoder) {
  for (const bool tied : {true, false}) {
    Architecture arch = small_architecture();
    arch.tied = tied;
    arch.vocab = 20000;
    const MemoryWeights weights = random_weights(arch, DType::kF16);
    const std::vector<int32_t> ids = smoke_tokens(weights);
    ASSERT_EQ(ids.size(), 32u);
    const auto whole = Decoder::create(weights, Activations::kF32);
    std::vector<float> expected(static_cast<size_t>(32 * arch.vocab));
    whole->forward(*whole->new_cache(32), ids, expected.data(), false);
    const std::vector<float> logits = smoke_logits(weights, ids);
    ASSERT_EQ(logits.size(), expected.size());
    EXPECT_EQ(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)), 0);
  }
}

}  // namespace
}  // namespace slmc

// Masks against a plain sort.
#include "prune/mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "compress/core/error.h"
#include "compress/core/random.h"

namespace slmc {
namespace {

std::vector<uint8_t> by_sorting(const std::vector<float>& scores, int64_t count) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  std::vector<uint8_t> kept(scores.size(), 1);
  for (int64_t i = 0; i < count; ++i) kept[order[static_cast<size_t>(i)]] = 0;
  return kept;
}

/// Few distinct values, so that ties are everywhere.
std::vector<float> scores_with_ties(uint64_t seed, int64_t n) {
  Random random(seed);
  std::vector<float> scores(static_cast<size_t>(n));
  for (float& score : scores)
    score = random.below(3) == 0 ? static_cast<float>(random.normal())
                                 : static_cast<float>(static_cast<int>(random.below(5)) - 2);
  for (float& score : scores) {
    if (score == 0.0f && random.below(2) == 0) score = -0.0f;
  }
  return scores;
}

TEST(KeepHighest, RemovesExactlyTheLowestAndTheFirstAmongEquals) {
  for (const int64_t n : {1, 2, 31, 1000, 200000}) {  // The last takes the counting path.
    const std::vector<float> scores = scores_with_ties(static_cast<uint64_t>(n), n);
    for (const double part : {0.0, 0.1, 0.5, 0.9, 1.0}) {
      const auto count = static_cast<int64_t>(part * static_cast<double>(n));
      std::vector<uint8_t> kept(scores.size(), 7);
      keep_highest(scores, count, kept);
      EXPECT_EQ(kept, by_sorting(scores, count)) << n << " " << count;
    }
  }
}

TEST(MakeMask, WorksByRowByTensorAndByGroup) {
  const int64_t out = 6, in = 48;
  const std::vector<float> scores = scores_with_ties(3, out * in);
  std::vector<uint8_t> kept(scores.size());
  make_mask(parse_sparsity("0.3"), MaskScope::kTensor, out, in, scores, kept);
  EXPECT_EQ(kept, by_sorting(scores, 86));  // floor(0.3 * 288)
  make_mask(parse_sparsity("0.3"), MaskScope::kRow, out, in, scores, kept);
  for (int64_t row = 0; row < out; ++row) {
    const std::vector<float> mine(scores.begin() + row * in, scores.begin() + (row + 1) * in);
    EXPECT_EQ(std::vector<uint8_t>(kept.begin() + row * in, kept.begin() + (row + 1) * in),
              by_sorting(mine, 14));
  }
  for (const auto& [text, keep, group] :
       {std::tuple{"2:4", 2, 4}, std::tuple{"4:8", 4, 8}, std::tuple{"1:3", 1, 3}}) {
    make_mask(parse_sparsity(text), MaskScope::kTensor, out, in, scores, kept);
    for (int64_t i = 0; i < out * in; i += group) {
      const std::vector<float> mine(scores.begin() + i, scores.begin() + i + group);
      EXPECT_EQ(std::vector<uint8_t>(kept.begin() + i, kept.begin() + i + group),
                by_sorting(mine, group - keep))
          << text << " at " << i;
    }
  }
}

TEST(RemovedCount, IsTheFloorOfTheShare) {
  EXPECT_EQ(removed_count(parse_sparsity("0.3"), MaskScope::kRow, 7, 10), 21);
  EXPECT_EQ(removed_count(parse_sparsity("0.35"), MaskScope::kRow, 7, 10), 21);
  EXPECT_EQ(removed_count(parse_sparsity("0.35"), MaskScope::kTensor, 7, 10), 24);
  EXPECT_EQ(removed_count(parse_sparsity("2:4"), MaskScope::kTensor, 7, 12), 42);
  EXPECT_EQ(removed_count(parse_sparsity("1:4"), MaskScope::kTensor, 7, 12), 63);
}

TEST(ParseSparsity, RefusesNonsense) {
  for (const char* text : {"", "0", "1", "1.5", "-0.5", "x", "0.5x", "2:2", "4:2", "0:4",
                           "2:", ":4", "2:4:8", "2:400"}) {
    EXPECT_THROW(parse_sparsity(text), Error) << text;
  }
}

}  // namespace
}  // namespace slmc

#include "distill/data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "compress/core/error.h"

namespace slmc {
namespace {

std::vector<TokenizedDocument> documents(const std::vector<int>& lengths) {
  std::vector<TokenizedDocument> all;
  int32_t id = 0;
  for (const int length : lengths) {
    TokenizedDocument document;
    for (int i = 0; i < length; ++i) document.ids.push_back(id++);
    document.learned.assign(document.ids.size(), 1);
    all.push_back(document);
  }
  return all;
}

TEST(PackDocuments, WindowsOverlapByTheLabelOnly) {
  const PackedData data = pack_documents(documents({5, 8, 4}), 4, 0, false, 99);
  EXPECT_EQ(data.windows, 4);  // 17 ids: 4 windows of 4 inputs and a last label.
  for (int64_t w = 0; w < data.windows; ++w)
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(data.inputs(w)[i], w * 4 + i);
      EXPECT_EQ(data.labels(w)[i], w * 4 + i + 1);
    }
  EXPECT_EQ(data.document[4], 0);
  EXPECT_EQ(data.document[5], 1);
  EXPECT_EQ(data.document[13], 2);
}

TEST(PackDocuments, ShufflingKeepsDocumentsWholeAndFollowsTheSeed) {
  const auto order = [](uint64_t seed) {
    return pack_documents(documents({3, 3, 3, 3, 3, 3}), 2, seed, true, 0).ids;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
  const std::vector<int32_t> ids = order(1);
  for (size_t i = 0; i + 2 < ids.size(); i += 3) {
    EXPECT_EQ(ids[i] % 3, 0);
    EXPECT_EQ(ids[i + 2], ids[i] + 2);
  }
}

TEST(PackDocuments, AShortTextIsPaddedAndItsPaddingNotLearned) {
  const PackedData data = pack_documents(documents({3}), 8, 0, false, 7);
  ASSERT_EQ(data.windows, 1);
  EXPECT_EQ(data.labels(0)[1], 2);
  EXPECT_EQ(data.label_mask(0)[1], 1);
  EXPECT_EQ(data.labels(0)[2], 7);
  EXPECT_EQ(data.label_mask(0)[2], 0);
}

TEST(PackDocuments, NothingToLearnIsABadInput) {
  auto silent = documents({6});
  std::fill(silent[0].learned.begin(), silent[0].learned.end(), uint8_t{0});
  EXPECT_THROW(pack_documents(silent, 2, 0, false, 0), Error);
  EXPECT_THROW(pack_documents({}, 2, 0, false, 0), Error);
}

TEST(PackDocuments, TheMaskIsPartOfTheHash) {
  auto other = documents({6});
  other[0].learned[2] = 0;
  EXPECT_NE(pack_documents(documents({6}), 2, 0, false, 0).hash,
            pack_documents(other, 2, 0, false, 0).hash);
}

TEST(WindowOrder, EveryEpochIsAnotherPermutationAndCanBeEnteredAnywhere) {
  WindowOrder order(10, 3);
  std::vector<int64_t> epochs[2];
  for (int64_t i = 0; i < 20; ++i) epochs[i / 10].push_back(order.at(i));
  for (auto& epoch : epochs) EXPECT_EQ(std::set<int64_t>(epoch.begin(), epoch.end()).size(), 10u);
  EXPECT_NE(epochs[0], epochs[1]);
  WindowOrder late(10, 3);
  EXPECT_EQ(late.at(17), epochs[1][7]);
  EXPECT_EQ(late.at(2), epochs[0][2]);
}

}  // namespace
}  // namespace slmc

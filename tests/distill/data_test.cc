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

PackedData masked(int length, int64_t context, int64_t vocab) {
  TokenizedDocument document;
  for (int i = 0; i < length; ++i)
    document.ids.push_back(static_cast<int32_t>((i * 7919) % static_cast<int>(vocab)));
  document.learned.assign(document.ids.size(), 1);
  PackedData data = pack_documents({document}, context, 0, false, 0);
  Masking masking{
      .mask = 4, .special = std::vector<uint8_t>(static_cast<size_t>(vocab)), .seed = 9};
  for (size_t id = 0; id < 5; ++id) masking.special[id] = 1;
  mask_documents(data, masking);
  return data;
}

// 15%, of which 80% become the mask, 10% another token, and 10% stay; never a special one.
TEST(MaskDocuments, SharesAreThoseOfThePaper) {
  const int64_t vocab = 1000;
  const PackedData data = masked(200001, 100, vocab);
  double chosen = 0, open = 0, mask = 0, same = 0;
  Reading reading;
  for (int64_t w = 0; w < data.windows; ++w) {
    reading.clear();
    data.read(w, reading);
    for (size_t i = 0; i < reading.ids.size(); ++i) {
      EXPECT_EQ(reading.labels[i], data.inputs(w)[i]);
      if (reading.learned[i] == 0) {
        EXPECT_EQ(reading.ids[i], reading.labels[i]);
      }
      open += reading.labels[i] >= 5 ? 1 : 0;
      if (reading.learned[i] == 0) continue;
      EXPECT_GE(reading.labels[i], 5);
      chosen += 1;
      mask += reading.ids[i] == 4 ? 1 : 0;
      same += reading.ids[i] == reading.labels[i] ? 1 : 0;
    }
    EXPECT_EQ(data.count(w).compared, 100);
  }
  EXPECT_NEAR(chosen / open, 0.15, 0.004);  // Five standard deviations.
  EXPECT_NEAR(mask / chosen, 0.8, 0.012);
  EXPECT_NEAR(same / chosen, 0.1, 0.009);
}

TEST(MaskDocuments, AnotherEpochMasksOthersAndEachIsTheSameWheneverRead) {
  const PackedData data = masked(1001, 100, 500);
  const auto ids = [&](int64_t draw) {
    Reading reading;
    data.read(draw, reading);
    EXPECT_EQ(std::count(reading.learned.begin(), reading.learned.end(), 1),
              data.count(draw).learned);
    return reading.ids;
  };
  EXPECT_EQ(data.window(13), 3);
  EXPECT_EQ(ids(3), ids(3));
  EXPECT_NE(ids(3), ids(13));
  WindowOrder order(10, 3);
  for (int64_t i = 0; i < 25; ++i) {
    EXPECT_EQ(order.draw(i) / 10, i / 10);
    EXPECT_EQ(order.draw(i) % 10, order.at(i));
  }
}

// An encoder would see what fills the window.
TEST(MaskDocuments, FillingStaysApartAndIsNotLearned) {
  const PackedData data = masked(30, 100, 500);
  ASSERT_EQ(data.windows, 1);
  EXPECT_EQ(data.document[0], data.document[29]);
  EXPECT_NE(data.document[29], data.document[30]);
  EXPECT_EQ(data.count(0).compared, 30);
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

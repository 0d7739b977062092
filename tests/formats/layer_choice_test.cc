#include "formats/layer_choice.h"

#include <gtest/gtest.h>

#include "compress/core/error.h"

namespace slmc {
namespace {

using Layers = std::vector<int64_t>;

TEST(EvenlySpacedLayers, KeepsFirstAndLast) {
  EXPECT_EQ(evenly_spaced_layers(8, 1), Layers({0}));
  EXPECT_EQ(evenly_spaced_layers(8, 2), Layers({0, 7}));
  EXPECT_EQ(evenly_spaced_layers(8, 4), Layers({0, 2, 5, 7}));  // Steps of 7/3: 0, 2.33, 4.67, 7.
  EXPECT_EQ(evenly_spaced_layers(12, 6), Layers({0, 2, 4, 7, 9, 11}));  // 0 2.2 4.4 6.6 8.8 11.
  EXPECT_EQ(evenly_spaced_layers(3, 3), Layers({0, 1, 2}));
  for (int64_t layers = 1; layers <= 40; ++layers) {
    for (int64_t count = 1; count <= layers; ++count) {
      const Layers kept = evenly_spaced_layers(layers, count);
      for (size_t i = 1; i < kept.size(); ++i)
        ASSERT_LT(kept[i - 1], kept[i]) << count << " of " << layers;
      if (count > 1) {
        ASSERT_EQ(kept.back(), layers - 1);
      }
    }
  }
}

TEST(LayerList, TakesAscendingNumbersOnly) {
  EXPECT_EQ(parse_layer_list("keep_layers", "0,2,5", 6), Layers({0, 2, 5}));
  EXPECT_EQ(parse_layer_list("keep_layers", "3", 6), Layers({3}));
  for (const char* text : {"", "0,", "0,6", "2,1", "1,1", "-1", "a", "0 1", "0,,1"})
    EXPECT_THROW(parse_layer_list("keep_layers", text, 6), Error) << text;
}

}  // namespace
}  // namespace slmc

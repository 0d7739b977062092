#include "distill/classes.h"

#include <gtest/gtest.h>

#include <cmath>

#include "distill/product.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using Floats = std::vector<float>;

Student fixture(const std::string& name) {
  return student_from_checkpoint(std::string(SLMC_FIXTURES) + "/models/" + name);
}

Floats values(const WeightSource& weights, const std::string& name) {
  const TensorView view = weights.view(name);
  Floats out(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), out.data());
  return out;
}

TEST(Classes, AHeadIsMadeAnewAsTransformersMakesIt) {
  const Student masked = fixture("bert_masked");
  const std::vector<std::string> names{"a", "b", "c", "d"};
  const Student student = with_classes(masked, names, 5);
  EXPECT_TRUE(student.new_head);
  EXPECT_EQ(student.arch.head, Head::kClassifier);
  EXPECT_EQ(classes_of(student.arch, student.config), names);
  EXPECT_EQ(student.config["architectures"][0], "BertForSequenceClassification");
  const Floats head = values(*student.weights, "cls.output.weight");
  EXPECT_EQ(student.weights->view("cls.output.weight").shape, (std::vector<int64_t>{4, 32}));
  double square = 0;
  for (const float value : head)
    square += static_cast<double>(value) * static_cast<double>(value) / 128.0;
  const double range = student.config.value("initializer_range", 0.02);
  EXPECT_NEAR(std::sqrt(square), range, 0.25 * range);  // Four deviations of a deviation of 128.
  EXPECT_EQ(values(*student.weights, "cls.output.bias"), Floats(4, 0.0f));
  EXPECT_EQ(values(*student.weights, "cls.bias"), Floats(32, 0.0f));
  // The body is the checkpoint's; the seed decides the head.
  EXPECT_EQ(values(*student.weights, "blk.1.ffn_up.weight"),
            values(*masked.weights, "blk.1.ffn_up.weight"));
  EXPECT_EQ(head, values(*with_classes(masked, names, 5).weights, "cls.output.weight"));
  EXPECT_NE(head, values(*with_classes(masked, names, 6).weights, "cls.output.weight"));
}

TEST(Classes, AModelKeepsItsHeadForItsOwnClasses) {
  const Student own = fixture("bert_classifier");
  EXPECT_EQ(classes_of(own.arch, own.config), (std::vector<std::string>{"bad", "fair", "good"}));
  EXPECT_FALSE(with_classes(own, {"bad", "fair", "good"}, 1).new_head);
  EXPECT_TRUE(with_classes(own, {"bad", "good", "fair"}, 1).new_head);
  EXPECT_EQ(with_classes(own, {"bad", "good"}, 1).arch.classes, 2);
}

// What a bare BERT's checkpoint holds beside its states is where its classifier begins.
TEST(Classes, ACarriedPoolerIsUsed) {
  const Student bare = fixture("bert_states");
  ASSERT_FALSE(bare.model->assets().carried.empty());
  const Student student = with_classes(bare, {"a", "b"}, 1);
  for (const CarriedTensor& tensor : bare.model->assets().carried)
    if (tensor.name == "pooler.dense.weight") {
      Floats pooler(32 * 32);
      decode_rows(tensor.view, 0, 32, pooler.data());
      EXPECT_EQ(values(*student.weights, "cls.weight"), pooler);
      return;
    }
  FAIL() << "the fixture has no pooler";
}

TEST(Classes, TheHeadIsTrainedBesideAnAdapter) {
  const Student student = with_classes(fixture("distilbert_masked"), {"a", "b"}, 1);
  EXPECT_EQ(student.config["architectures"][0], "DistilBertForSequenceClassification");
  ParameterLayout layout;
  layout.slots.push_back({.name = "x.lora_a", .shape = {2, 4}, .size = 8, .decay = true});
  layout.total = layout.decayed = 8;
  add_head(student.arch, layout);
  ASSERT_EQ(layout.slots.size(), 5u);
  EXPECT_EQ(layout.decayed, 8 + 32 * 32 + 2 * 32);
  EXPECT_EQ(layout.total, layout.decayed + 32 + 2);
  for (const ParameterSlot& slot : layout.slots)
    EXPECT_EQ(slot.offset<layout.decayed, slot.shape.size()> 1) << slot.name;
  ParameterLayout same = layout;
  add_head(fixture("bert_masked").arch, same);
  EXPECT_EQ(same.total, layout.total);
}

}  // namespace
}  // namespace slmc

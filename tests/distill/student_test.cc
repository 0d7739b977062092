// Where students come from: chosen layers, seeded random weights.
#include "distill/student.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "formats/family.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

TEST(StudentFromLayers, RenumbersWithoutCopying) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("teacher"), {.layers = 4});
  const auto teacher = Model::open(folder.file("teacher"));
  const Student student = student_from_layers(teacher, {0, 3});
  EXPECT_EQ(student.arch.layers, 2);
  EXPECT_EQ(student.weights->view("blk.1.attn_q.weight").data,
            teacher->view("blk.3.attn_q.weight").data);
  EXPECT_TRUE(student.weights->has("token_embd.weight"));
  EXPECT_FALSE(student.weights->has("blk.2.attn_q.weight"));
  EXPECT_LT(student.arch.parameters, teacher->arch().parameters);
}

class StudentFromConfig : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("model"), {.layers = 2, .tied = false});
    config_ = folder_.file("model/config.json");
  }
  std::vector<float> values(const Student& student, const std::string& name) const {
    const TensorView view = student.weights->view(name);
    std::vector<float> out(static_cast<size_t>(view.elements()));
    decode_rows(view, 0, view.rows(), out.data());
    return out;
  }
  static double deviation(const std::vector<float>& x) {
    double sum = 0;
    for (const float value : x) sum += static_cast<double>(value) * static_cast<double>(value);
    return std::sqrt(sum / static_cast<double>(x.size()));
  }
  test::TemporaryFolder folder_;
  std::string config_;
};

TEST_F(StudentFromConfig, FollowsTheSeedTensorByTensor) {
  const Student a = student_from_config(config_, 1, true),
                b = student_from_config(config_, 1, true),
                c = student_from_config(config_, 2, true);
  EXPECT_EQ(values(a, "blk.1.ffn_up.weight"), values(b, "blk.1.ffn_up.weight"));
  EXPECT_NE(values(a, "blk.1.ffn_up.weight"), values(c, "blk.1.ffn_up.weight"));
  EXPECT_NE(values(a, "blk.1.ffn_up.weight"), values(a, "blk.1.ffn_gate.weight"));
}

TEST_F(StudentFromConfig, HasTheDeviationsItPromises) {
  const Student student = student_from_config(config_, 3, true);
  // Thousands of values each: the deviation is within a few percent.
  EXPECT_NEAR(deviation(values(student, "blk.0.ffn_up.weight")) / 0.2, 1.0,
              0.05);  // initializer_range of the config.
  EXPECT_NEAR(deviation(values(student, "blk.0.ffn_down.weight")) / (0.2 / 2.0), 1.0,
              0.05);  // sqrt(2 * 2 layers)
  for (const float value : values(student, "output_norm.weight")) EXPECT_EQ(value, 1.0f);
}

}  // namespace
}  // namespace slmc

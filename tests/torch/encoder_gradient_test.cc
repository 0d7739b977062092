// Training of encoders in LibTorch against PyTorch's autograd: fixtures/encoders holds losses and
// gradients in float64 of masked tokens and of classes, alone and beside a teacher.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/core/torch_module.h"
#include "distill/classes.h"
#include "distill/product.h"
#include "distill/student.h"
#include "distill/training.h"
#include "formats/family.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_step.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::Floats;

/// The generator's two documents in windows of 32, masked.
PackedData masked_data() {
  const std::vector<int32_t> ids = testing::golden_prompt(97, 96);
  TokenizedDocument first, second;
  first.ids.assign(ids.begin(), ids.begin() + 40);
  second.ids.assign(ids.begin() + 40, ids.end());
  for (TokenizedDocument* document : {&first, &second})
    document->learned.assign(document->ids.size(), 1);
  PackedData data = pack_documents({first, second}, 32, 0, false, 0);
  Masking masking{.mask = 3, .special = std::vector<uint8_t>(96), .seed = 11};
  for (size_t id = 0; id < 5; ++id) masking.special[id] = 1;
  mask_documents(data, masking);
  return data;
}

PackedData labelled_data() {
  PackedData data;
  data.objective = Objective::kClass;
  data.classes = {2, 0, 1, 2};
  data.begins = {0, 5, 22, 23, 53};
  data.ids = testing::golden_prompt(53, 96);
  data.windows = data.documents = 4;
  data.context = 14;
  return data;
}

double sign(size_t i, int bit) {
  const auto hashed = static_cast<uint32_t>(static_cast<uint64_t>(i) * 2654435761u);
  return ((hashed >> bit) & 1u) != 0 ? 1.0 : -1.0;
}

/// The step's loss and gradients, by sums that tell them from all others.
void expect_autograd(const test::GradientStep& step, const std::vector<TensorSpec>& tensors,
                     const Json& expected) {
  EXPECT_NEAR(step.loss, expected["loss"].get<double>(), 3e-5);

  size_t compared = 0;
  for (const TensorSpec& spec : tensors) {
    std::string key = spec.hf.name;
    if (!expected["gradients"].contains(key)) key = "cls.predictions.bias";
    ASSERT_TRUE(expected["gradients"].contains(key)) << spec.hf.name;
    const Floats& ours = step.gradients.at(spec.name);
    double first = 0, second = 0, norm = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      const auto gradient = static_cast<double>(ours[i]);
      first += gradient * sign(i, 13);
      second += gradient * sign(i, 21);
      norm += gradient * gradient;
    }
    const Json& theirs = expected["gradients"][key];
    const double size = theirs[2].get<double>();
    // A step's rounding: a weight near 0.2 is known to 1e-8, its gradient so to 1e-7, their sum to
    // its root of their count times that.
    const double bound = 2e-4 * size + 1e-6 * std::sqrt(static_cast<double>(ours.size())) + 1e-6;
    EXPECT_NEAR(first, theirs[0].get<double>(), bound) << key;
    EXPECT_NEAR(second, theirs[1].get<double>(), bound) << key;
    EXPECT_NEAR(std::sqrt(norm), size, bound) << key;
    ++compared;
  }
  EXPECT_EQ(compared, expected["gradients"].size());
}

struct EncoderCase {
  std::string name;
  bool taught = false;
  int64_t micro = 4;  ///< Windows a pass.
  bool recompute = false;
  bool pairs = false;  ///< The second half of a text's ids is of segment 1.
};
void PrintTo(const EncoderCase& c, std::ostream* out) { *out << c.name; }

class EncoderGradients : public ::testing::TestWithParam<EncoderCase> {};

TEST_P(EncoderGradients, AreThoseOfAutograd) {
  const auto& [name, taught, micro, recompute, pairs] = GetParam();
  const Json all = read_json(std::string(SLMC_FIXTURES) + "/encoders/expected.json");
  const Json expected = all[name + (taught ? "/taught" : pairs ? "/pairs" : "/plain")];
  const auto model = Model::open(std::string(SLMC_FIXTURES) + "/models/" + name);
  const bool classes = model->arch().head == Head::kClassifier;
  TrainingJob job;
  job.student = model;
  if (taught) {
    job.student = student_from_layers(model, {0}).weights;
    job.teacher = model;
    job.loss = {.loss = "forward_kl:5,cross_entropy:2,cosine_hidden(layers=0:1)",
                .temperature = 2.0};
  } else {
    job.loss = {.loss = "cross_entropy"};
  }
  job.start = job.student;
  job.layout = parameter_layout(job.student->arch());
  job.data = classes ? labelled_data() : masked_data();
  for (int64_t w = 0; pairs && w < job.data.windows; ++w)
    for (int64_t i = 0; i < job.data.length(w); ++i)
      job.data.types.push_back(2 * i < job.data.length(w) ? 0 : 1);
  job.micro_windows = micro;
  job.lanes = micro < 4 ? 2 : 1;
  job.head_rows = 5;
  job.recompute = recompute;
  job.real_vocab = classes ? 3 : 96;
  const std::vector<TensorSpec> tensors =
      family_by_name(model->arch().family).tensors(job.student->arch());
  for (const auto& way : test::training_ways())
    expect_autograd(test::gradient_step(job, way), tensors, expected);
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, EncoderGradients,
    ::testing::Values(EncoderCase{"bert_masked"}, EncoderCase{"bert_masked", true},
                      EncoderCase{"bert_masked", true, 1, true}, EncoderCase{"bert_classifier"},
                      EncoderCase{"bert_classifier", true}, EncoderCase{"bert_classifier", true, 1},
                      EncoderCase{.name = "bert_classifier", .pairs = true},
                      EncoderCase{.name = "bert_classifier", .micro = 1, .pairs = true},
                      EncoderCase{"distilbert_masked"}, EncoderCase{"distilbert_masked", true},
                      EncoderCase{"distilbert_classifier"},
                      EncoderCase{"distilbert_classifier", true, 1, true}),
    [](const auto& instance) {
      return instance.param.name + (instance.param.taught ? "_taught" : "") +
             (instance.param.pairs ? "_pairs" : "") + (instance.param.micro < 4 ? "_divided" : "");
    });

TEST(EncoderLogits, OfAPairAreTransformers) {
  const testing::GoldenPairs golden;
  Context context;
  for (const auto& [name, expected] : golden.logits.items()) {
    const auto model = Model::open(std::string(SLMC_FIXTURES) + "/models/" + name);
    const auto logits = [&](const std::vector<int32_t>& types) {
      return torch_module(context).logits(*model, golden.ids, types, "cpu");
    };
    golden.expect(name, logits(golden.types), logits({}));
  }
}

}  // namespace
}  // namespace slmc

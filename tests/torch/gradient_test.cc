// Gradients of LibTorch's training against finite differences of losses computed from the runtime's
// logits: another decoder, other loss code, double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "compress/core/random.h"
#include "compress/runtime/decoder.h"
#include "distill/hidden_pairs.h"
#include "distill/product.h"
#include "distill/training.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_step.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::Floats;

std::shared_ptr<MemoryWeights> in_memory(const WeightSource& source, const ParameterLayout& layout,
                                         const std::string& moved = "", const Floats& by = {},
                                         float times = 0) {
  auto weights = std::make_shared<MemoryWeights>(source.arch());
  for (const ParameterSlot& slot : layout.slots) {
    auto values = std::make_shared<Floats>(static_cast<size_t>(slot.size));
    const TensorView view = source.view(slot.name);
    decode_rows(view, 0, view.rows(), values->data());
    if (slot.name == moved)
      for (size_t i = 0; i < values->size(); ++i) (*values)[i] += times * by[i];
    weights->add(slot.name, {.data = reinterpret_cast<const std::byte*>(values->data()),
                             .dtype = DType::kF32,
                             .shape = slot.shape,
                             .owner = values});
  }
  return weights;
}

std::vector<double> log_softmax(const float* z, int64_t n, double t) {
  double top = -1e300, sum = 0;
  for (int64_t i = 0; i < n; ++i) top = std::max(top, z[i] / t);
  for (int64_t i = 0; i < n; ++i) sum += std::exp(z[i] / t - top);
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(z[i] / t - top - std::log(sum));
  return out;
}

Floats runtime_logits(const WeightSource& weights, std::span<const int32_t> ids) {
  const auto decoder = Decoder::create(weights, Activations::kF32);
  const auto cache = decoder->new_cache(static_cast<int64_t>(ids.size()));
  Floats logits(ids.size() * static_cast<size_t>(weights.arch().vocab));
  decoder->forward(*cache, ids, logits.data(), false);
  return logits;
}

/// What each block gives, [tokens, hidden], by the runtime.
std::vector<Floats> runtime_blocks(const WeightSource& weights, std::span<const int32_t> ids) {
  const auto count = static_cast<int64_t>(ids.size());
  Floats x(ids.size() * static_cast<size_t>(weights.arch().hidden));
  PartialDecoder::create(weights, {.embedding = true})->embed(ids, x.data());
  std::vector<Floats> blocks;
  for (int64_t layer = 0; layer < weights.arch().layers; ++layer) {
    const auto block = PartialDecoder::create(weights, {.layer = layer});
    const auto cache = block->new_cache(count);
    block->run_block(*cache, x.data(), count, {});
    blocks.push_back(x);
  }
  return blocks;
}

/// The losses over hidden states of row `row` with their weights, in double.
double runtime_hidden(const LossMixture& losses, const WeightSource& student,
                      const WeightSource& teacher, const std::vector<Floats>& ours,
                      const std::vector<Floats>& theirs, size_t row) {
  const auto from = static_cast<size_t>(student.arch().hidden),
             to = static_cast<size_t>(teacher.arch().hidden);
  double sum = 0;
  for (size_t term = 0; term < losses.size(); ++term) {
    const auto pairs = hidden_pairs(losses, term, student.arch(), teacher.arch());
    for (const HiddenPair& pair : pairs) {
      const float* const a = ours[static_cast<size_t>(pair.student)].data() + row * from;
      const float* const b = theirs[static_cast<size_t>(pair.teacher)].data() + row * to;
      std::vector<double> x(a, a + from);
      if (from != to) {
        Floats matrix(to * from);
        decode_rows(student.view(pair.projection), 0, static_cast<int64_t>(to), matrix.data());
        x.assign(to, 0);
        for (size_t r = 0; r < to; ++r)
          for (size_t c = 0; c < from; ++c)
            x[r] += static_cast<double>(matrix[r * from + c]) * static_cast<double>(a[c]);
      }
      double square = 0, dot = 0, xx = 0, bb = 0;
      for (size_t d = 0; d < to; ++d) {
        const auto y = static_cast<double>(b[d]);
        square += (x[d] - y) * (x[d] - y);
        dot += x[d] * y, xx += x[d] * x[d], bb += y * y;
      }
      const double value = losses[term].loss->name() == "mse_hidden"
                               ? square / static_cast<double>(to)
                               : 1 - dot / std::sqrt(xx * bb);
      sum += losses[term].weight.first * value / static_cast<double>(pairs.size());
    }
  }
  return sum;
}

/// Mean over all learned labels of (1 - ce) (T^2 KL + hidden) + ce * nll, by the runtime.
double runtime_loss(const WeightSource& student, const WeightSource* teacher,
                    const TrainingJob& job) {
  const int64_t vocab = student.arch().vocab;
  double sum = 0;
  int64_t tokens = 0;
  for (int64_t w = 0; w < job.data.windows; ++w)
    for (int64_t begin = 0; begin < job.data.context;) {
      // Each document alone, where they are isolated; positions only matter relative to each other.
      int64_t end = job.data.context;
      const int32_t* const document =
          job.data.document.empty() ? nullptr : job.data.document.data() + w * job.data.context;
      if (document != nullptr)
        for (end = begin + 1; end < job.data.context && document[end] == document[begin];) ++end;
      const std::span<const int32_t> ids(job.data.inputs(w) + begin,
                                         static_cast<size_t>(end - begin));
      const Floats z = runtime_logits(student, ids);
      const Floats tz = teacher != nullptr ? runtime_logits(*teacher, ids) : Floats{};
      const LossMixture losses = parse_losses(job.loss.loss);
      std::vector<Floats> ours, theirs;
      if (compares_hidden(losses)) {
        ours = runtime_blocks(student, ids);
        theirs = runtime_blocks(*teacher, ids);
      }
      for (int64_t i = begin; i < end; ++i) {
        if (job.data.label_mask(w)[i] == 0) continue;
        ++tokens;
        const size_t row = static_cast<size_t>((i - begin) * vocab);
        const double ce = teacher != nullptr ? job.loss.ce_weight : 1.0;
        sum -=
            ce * log_softmax(z.data() + row, vocab, 1)[static_cast<size_t>(job.data.labels(w)[i])];
        if (teacher == nullptr) continue;
        if (!ours.empty())
          sum += job.loss.weight * runtime_hidden(losses, student, *teacher, ours, theirs,
                                                  static_cast<size_t>(i - begin));
        const double t = job.loss.temperature;
        const auto q = log_softmax(z.data() + row, vocab, t),
                   p = log_softmax(tz.data() + row, vocab, t);
        for (size_t v = 0; v < p.size(); ++v)
          sum += job.loss.weight * t * t * std::exp(p[v]) * (p[v] - q[v]);
      }
      begin = end;
    }
  return sum / static_cast<double>(tokens);
}

/// How a step is taken and how far its gradient may be from the difference quotient.
struct Check {
  int tokens = 21, context = 13;  ///< Of each of two documents; of a window.
  bool isolate = false;
  float step = 2e-3f;
  double absolute = 2e-3, relative = 0.02;
  std::string hidden{};  ///< Losses mixed in.
  bool recompute = false;
  bool bf16 = false;
};

void expect_true_gradients(const std::shared_ptr<const Model>& student,
                           const std::shared_ptr<const Model>& teacher, const Check& check) {
  ParameterLayout layout = parameter_layout(student->arch());

  TrainingJob job;
  job.student = student;
  job.start = student;
  job.loss.loss = teacher != nullptr ? "forward_kl" + check.hidden : "cross_entropy";
  if (teacher != nullptr) {
    const LossMixture losses = parse_losses(job.loss.loss);
    add_projections(losses, student->arch(), teacher->arch(), layout);
    job.start = overlaid(initial_projections(losses, student->arch(), teacher->arch(), 3), student);
  }
  job.layout = layout;
  job.teacher = teacher;
  job.recompute = check.recompute;
  job.bf16 = check.bf16;
  job.loss = {.loss = job.loss.loss, .weight = 0.6, .ce_weight = 0.4, .temperature = 2.0};
  TokenizedDocument documents[2];
  Random random(3);
  for (auto& document : documents)
    for (int i = 0; i < check.tokens; ++i) {
      document.ids.push_back(
          static_cast<int32_t>(random.below(static_cast<uint64_t>(student->arch().vocab))));
      document.learned.push_back(random.below(4) != 0);
    }
  job.data = pack_documents({documents[0], documents[1]}, check.context, 0, false, 0);
  if (!check.isolate) job.data.document.clear();
  ASSERT_GE(job.data.windows, 2);
  job.micro_windows = 2;
  job.lanes = 2;
  job.head_rows = 5;
  job.real_vocab = student->arch().vocab;
  const test::GradientStep taken = test::gradient_step(job);

  for (const ParameterSlot& slot : layout.slots) {
    const Floats& gradient = taken.gradients.at(slot.name);
    Floats direction(gradient.size());
    double along = 0, norm = 0;
    for (size_t i = 0; i < gradient.size(); ++i) {
      direction[i] = static_cast<float>(random.normal());
      const auto value = static_cast<double>(gradient[i]);
      along += value * static_cast<double>(direction[i]);
      norm += value * value;
    }
    const float h = check.step;
    const auto loss_at = [&](float times) {
      return runtime_loss(*in_memory(*job.start, layout, slot.name, direction, times),
                          teacher.get(), job);
    };
    const double expected = (loss_at(h) - loss_at(-h)) / (2.0 * static_cast<double>(h));
    // Float logits give the loss to 1e-6, so the quotient to 5e-4; the third derivative adds a
    // little.
    EXPECT_NEAR(along, expected, check.absolute + check.relative * std::sqrt(norm))
        << slot.name << ", gradient's norm " << std::sqrt(norm);
  }
}

struct GradientCase {
  std::string name;
  test::TinyModel model;
  bool teacher = false, isolate = false;
  std::string hidden{};  ///< Losses over hidden states of a wider teacher.
  bool recompute = false;
  bool bf16 = false;
};
void PrintTo(const GradientCase& c, std::ostream* out) { *out << c.name; }

class Gradients : public ::testing::TestWithParam<GradientCase> {};

TEST_P(Gradients, AgreeWithFiniteDifferencesOfTheRuntime) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("student"), GetParam().model);
  const auto student = Model::open(folder.file("student"));
  std::shared_ptr<const Model> teacher;
  if (GetParam().teacher) {
    test::TinyModel larger = GetParam().model;
    larger.layers = 3;
    larger.seed = 5;
    if (!GetParam().hidden.empty()) larger.hidden = 48;
    test::write_tiny_model(folder.file("teacher"), larger);
    teacher = Model::open(folder.file("teacher"));
  }
  // Each side of a product is rounded by up to 2^-9 of itself.
  const double relative = GetParam().bf16 ? 0.06 : 0.02;
  expect_true_gradients(student, teacher,
                        {.isolate = GetParam().isolate,
                         .relative = relative,
                         .hidden = GetParam().hidden,
                         .recompute = GetParam().recompute,
                         .bf16 = GetParam().bf16});
}

class FamilyGradients : public ::testing::TestWithParam<std::string> {};

// Long enough for the windows of the fixtures to end inside. Their weights are large, so losses
// bend more, and steps are smaller.
TEST_P(FamilyGradients, AgreeWithFiniteDifferencesOfTheRuntime) {
  expect_true_gradients(
      Model::open(std::string(SLMC_FIXTURES) + "/models/" + GetParam()), nullptr,
      {.tokens = 81, .context = 80, .step = 2e-4f, .absolute = 1e-2, .relative = 0.03});
}

INSTANTIATE_TEST_SUITE_P(Fixtures, FamilyGradients, ::testing::ValuesIn(testing::golden_names()),
                         [](const auto& test) { return test.param; });

INSTANTIATE_TEST_SUITE_P(
    Models, Gradients,
    ::testing::Values(
        GradientCase{
            "text",
            {.layers = 2, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2, .vocab = 280}},
        GradientCase{
            "teacher",
            {.layers = 2, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2, .vocab = 280},
            true},
        GradientCase{
            "isolated",
            {.layers = 2, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2, .vocab = 280},
            true,
            true},
        GradientCase{
            "hidden",
            {.layers = 2, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2, .vocab = 280},
            true,
            false,
            ",mse_hidden:0.5"},
        GradientCase{
            "hidden_recomputed",
            {.layers = 2, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2, .vocab = 280},
            true,
            true,
            ",cosine_hidden(layers=0:0+1:1):2,mse_hidden(layers=1:2):0.3",
            true},
        GradientCase{"bf16",
                     {.layers = 2,
                      .hidden = 32,
                      .ffn = 48,
                      .heads = 4,
                      .kv_heads = 2,
                      .vocab = 280,
                      .attention_bias = true},
                     true,
                     false,
                     "",
                     false,
                     true},
        GradientCase{"qwen2_untied",
                     {.family = "qwen2",
                      .layers = 2,
                      .hidden = 32,
                      .ffn = 48,
                      .heads = 4,
                      .kv_heads = 2,
                      .vocab = 280,
                      .tied = false},
                     true},
        GradientCase{"llama_biases",
                     {.layers = 1,
                      .hidden = 32,
                      .ffn = 48,
                      .heads = 4,
                      .kv_heads = 4,
                      .vocab = 280,
                      .attention_bias = true,
                      .mlp_bias = true}}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace slmc

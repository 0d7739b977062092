// Training of adapters in LibTorch against PEFT: fixtures/lora holds PEFT's gradients of a mean
// cross-entropy.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "distill/product.h"
#include "distill/side_adapters.h"
#include "formats/safetensors.h"
#include "tests/support/golden.h"
#include "tests/support/gradient_step.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using test::Apart;
using test::decoded;
using test::Floats;
using test::Tensors;
using Step = test::GradientStep;

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES) + "/lora/" + name;
}

TensorView view_of(const Floats& values, std::vector<int64_t> shape) {
  auto owned = std::make_shared<Floats>(values);
  return {reinterpret_cast<const std::byte*>(owned->data()), DType::kF32, std::move(shape), owned};
}

/// The base with every fifth weight of its blocks' matrices 0.
std::shared_ptr<const WeightSource> sparse(const std::shared_ptr<const Model>& base) {
  auto weights = std::make_shared<MemoryWeights>(base->arch());
  for (const TensorInfo& info : base->tensors()) {
    Floats values = decoded(base->view(info.name));
    if (info.name.starts_with("blk.") && info.shape.size() == 2)
      for (size_t i = 0; i < values.size(); i += 5) values[i] = 0;
    weights->add(info.name, view_of(values, info.shape));
  }
  return weights;
}

/// A step over the generator's window, or over `data`.
Step one_step(TrainingJob job, PackedData data = {}, const test::TrainingWay& way = {}) {
  const std::vector<int32_t> ids = testing::golden_prompt(33, 96);
  TokenizedDocument document{.ids = ids, .learned = {}};
  for (size_t i = 0; i < ids.size(); ++i) document.learned.push_back(i % 4 != 1);
  job.data = pack_documents({document}, 32, 0, false, 0);
  job.data.document.clear();
  if (data.windows > 0) job.data = std::move(data);
  job.head_rows = 7;
  job.real_vocab = job.student->arch().vocab;
  return test::gradient_step(std::move(job), way);
}

TrainingJob lora_job(std::shared_ptr<const WeightSource> base, const LoraAdapter& adapter) {
  TrainingJob job;
  job.student = std::move(base);
  job.lora = std::make_shared<const Lora>(adapter.lora);
  job.layout = lora_layout(adapter.lora);
  job.start = adapter.values;
  return job;
}

void expect_peft(const Step& step, const std::string& name, const std::string& prefix,
                 const Lora& lora) {
  const auto file = SafetensorsFile::open(fixture(name) + "/expected.safetensors");
  Tensors expected;
  for (const SafetensorsEntry& entry : file.tensors)
    expected[entry.name] =
        decoded({file.file->data() + entry.offset, entry.dtype, entry.shape, file.file});
  for (const LoraTarget& target : lora.targets)
    for (const char side : {'A', 'B'}) {
      const std::string key =
          prefix + "base_model.model." + target.module + ".lora_" + side + ".weight";
      ASSERT_EQ(expected.count(key), 1u) << key;
      const Floats& theirs = expected.at(key);
      const Floats& ours = step.gradients.at(side == 'A' ? target.a() : target.b());
      ASSERT_EQ(ours.size(), theirs.size());
      const Apart found = test::apart(ours, theirs);
      EXPECT_LE(found.distance, 1e-4 * found.size + 2e-6) << key << " of " << found.size;
    }
}

class PeftGradients : public ::testing::TestWithParam<std::string> {};

TEST_P(PeftGradients, AreOursToo) {
  const Json expected = read_json(fixture(GetParam()) + "/expected.json");
  const auto base =
      Model::open(std::string(SLMC_FIXTURES) + "/models/" + expected["base"].get<std::string>());
  const LoraAdapter adapter = read_lora(fixture(GetParam()), base->arch());
  for (const auto& way : test::training_ways())
    for (const bool recompute : {false, true}) {
      TrainingJob job = lora_job(base, adapter);
      job.recompute = recompute;
      const Step step = one_step(job, {}, way);
      EXPECT_NEAR(step.loss, expected["loss"].get<double>(), 2e-5);
      expect_peft(step, GetParam(), "", adapter.lora);
    }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PeftGradients,
                         ::testing::Values("llama", "llama_some", "phi3", "gpt2"),
                         [](const auto& instance) { return instance.param; });

TEST(SparseLora, TrainsInTheFormInWhichItIsMerged) {
  const Json expected = read_json(fixture("llama") + "/expected.json");
  const auto base = Model::open(std::string(SLMC_FIXTURES) + "/models/llama_untied");
  const LoraAdapter adapter = read_lora(fixture("llama"), base->arch());
  TrainingJob job = lora_job(sparse(base), adapter);
  job.keep_sparsity = true;
  for (const auto& way : test::training_ways()) {
    const Step step = one_step(job, {}, way);
    EXPECT_NEAR(step.loss, expected["sparse_loss"].get<double>(), 2e-5);
    expect_peft(step, "llama", "sparse.", adapter.lora);
  }
}

class SideGradients : public ::testing::TestWithParam<std::string> {};

// Prompts against PEFT, bottleneck adapters against the package adapters.
TEST_P(SideGradients, AreThoseOfPyTorch) {
  const std::string folder = std::string(SLMC_FIXTURES) + "/adapters/" + GetParam();
  const Json expected = read_json(folder + "/expected.json");
  const auto base =
      Model::open(std::string(SLMC_FIXTURES) + "/models/" + expected["base"].get<std::string>());
  const SideAdapter adapter = read_side_adapter(folder, base->arch());
  const auto file = SafetensorsFile::open(folder + "/expected.safetensors");
  for (const auto& way : test::training_ways())
    for (const bool recompute : {false, true}) {
      TrainingJob job;
      job.student = std::make_shared<SideWeights>(base, adapter);
      job.layout = side_layout(adapter);
      job.start = adapter.values;
      job.recompute = recompute;
      const Step step = one_step(job, {}, way);
      EXPECT_NEAR(step.loss, expected["loss"].get<double>(), 2e-5);
      ASSERT_EQ(file.tensors.size(), adapter.tensors.size());
      for (const SafetensorsEntry& entry : file.tensors) {
        const auto tensor = std::find_if(
            adapter.tensors.begin(), adapter.tensors.end(), [&](const SideTensor& each) {
              return each.file_name == entry.name || entry.name == "prompt_embeddings";
            });
        ASSERT_NE(tensor, adapter.tensors.end()) << entry.name;
        const Floats theirs =
            decoded({file.file->data() + entry.offset, entry.dtype, entry.shape, file.file});
        const Floats& ours = step.gradients.at(tensor->name);
        ASSERT_EQ(ours.size(), theirs.size());
        const Apart found = test::apart(ours, theirs);
        // A value near 0.5 is known to 3e-8, its gradient so to 3e-7.
        EXPECT_LE(found.distance, 1e-4 * found.size + 6e-6) << entry.name << " of " << found.size;
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, SideGradients,
                         ::testing::Values("prompt_llama", "prompt_gpt2", "prompt_gemma2",
                                           "houlsby_llama", "pfeiffer_llama", "houlsby_gpt2"),
                         [](const auto& instance) { return instance.param; });

// Along its gradient the loss under one mask rises by the gradient's length.
TEST(BottleneckDropout, HasTheGradientOfTheLossUnderItsMask) {
  const auto base = Model::open(std::string(SLMC_FIXTURES) + "/models/llama_untied");
  SideAdapter adapter =
      read_side_adapter(std::string(SLMC_FIXTURES) + "/adapters/houlsby_llama", base->arch());
  TrainingJob job;
  job.layout = side_layout(adapter);
  job.start = adapter.values;
  const auto step_with = [&](double dropout) {
    adapter.shape.bottleneck.dropout = dropout;
    job.student = std::make_shared<SideWeights>(base, adapter);
    return one_step(job);
  };
  const double whole = step_with(0).loss;
  const Step step = step_with(0.3);
  EXPECT_GT(std::abs(step.loss - whole), 1e-3);
  job.recompute = true;
  EXPECT_EQ(step_with(0.3).gradients, step.gradients);
  double length = 0;
  for (const auto& [name, gradient] : step.gradients)
    for (const float value : gradient) length += static_cast<double>(value) * value;
  length = std::sqrt(length);
  constexpr double kFar = 0.01;
  const auto loss_at = [&](double distance) {
    auto shifted = std::make_shared<MemoryWeights>(base->arch());
    for (const ParameterSlot& slot : job.layout.slots) {
      Floats values = decoded(adapter.values->view(slot.name));
      const Floats& gradient = step.gradients.at(slot.name);
      for (size_t i = 0; i < values.size(); ++i)
        values[i] += static_cast<float>(distance / length * gradient[i]);
      shifted->add(slot.name, view_of(values, slot.shape));
    }
    job.start = shifted;
    return step_with(0.3).loss;
  };
  EXPECT_NEAR((loss_at(kFar) - loss_at(-kFar)) / (2 * kFar), length, 0.01 * length);
}

// A prompt stands before every document of a window as it does before the document alone.
TEST(TunedPrompt, StandsBeforeEveryDocument) {
  const std::string folder = std::string(SLMC_FIXTURES) + "/adapters/prompt_gpt2";
  const auto base = Model::open(std::string(SLMC_FIXTURES) + "/models/gpt2");
  const SideAdapter adapter = read_side_adapter(folder, base->arch());
  TrainingJob job;
  job.student = std::make_shared<SideWeights>(base, adapter);
  job.layout = side_layout(adapter);
  job.start = adapter.values;
  // 33 ids: 11, 15 and 7. In one window they are apart; alone each fills one of its own.
  const std::vector<int32_t> ids = testing::golden_prompt(33, 96);
  const auto document = [&](int64_t begin, int64_t end) {
    TokenizedDocument out;
    out.ids.assign(ids.begin() + begin, ids.begin() + end);
    // A document's first token would be predicted from the one before it.
    for (int64_t i = begin; i < end; ++i) out.learned.push_back(i > begin);
    return out;
  };
  const std::vector<std::pair<int64_t, int64_t>> parts{{0, 11}, {11, 26}, {26, 33}};
  double loss = 0, tokens = 0;
  Floats sum;
  for (const auto& [begin, end] : parts) {
    const Step step =
        one_step(job, pack_documents({document(begin, end)}, end - begin - 1, 0, false, 0));
    const double count = static_cast<double>(end - begin - 1);
    const Floats& gradient = step.gradients.begin()->second;
    sum.resize(gradient.size());
    for (size_t i = 0; i < gradient.size(); ++i) sum[i] += static_cast<float>(count) * gradient[i];
    loss += count * step.loss;
    tokens += count;
  }
  const Step together = one_step(
      job, pack_documents({document(0, 11), document(11, 26), document(26, 33)}, 32, 0, false, 0));
  EXPECT_NEAR(together.loss, loss / tokens, 2e-6);
  for (size_t i = 0; i < sum.size(); ++i)
    ASSERT_NEAR(together.gradients.begin()->second[i], sum[i] / static_cast<float>(tokens), 5e-6);
}

// A frozen base in a block type is trained on as its decoded values are.
TEST(QuantizedBase, GivesTheGradientsOfItsDecodedWeights) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("model"), {});
  ASSERT_EQ(test::run_slmc({"quantize", folder.file("model"), "-o", folder.file("q.gguf"),
                            "--scheme", "q4_0", "-q"})
                .exit_code,
            0);
  const auto quantized = Model::open(folder.file("q.gguf"));
  ASSERT_EQ(quantized->view("blk.0.attn_q.weight").dtype, DType::kQ4_0);
  auto decoded_base = std::make_shared<MemoryWeights>(quantized->arch());
  for (const TensorInfo& info : quantized->tensors())
    decoded_base->add(info.name, view_of(decoded(quantized->view(info.name)), info.shape));
  LoraAdapter adapter;
  adapter.lora.targets = lora_targets(quantized->arch(), {});
  auto values = std::make_shared<MemoryWeights>(quantized->arch());
  float next = 0.01f;
  for (const ParameterSlot& slot : lora_layout(adapter.lora).slots) {
    Floats some(static_cast<size_t>(slot.size));
    for (float& value : some) value = next = -0.9f * next + 0.003f;
    values->add(slot.name, view_of(some, slot.shape));
  }
  adapter.values = values;
  const Step a = one_step(lora_job(quantized, adapter)),
             b = one_step(lora_job(decoded_base, adapter));
  EXPECT_NEAR(a.loss, b.loss, 1e-6);
  for (const auto& [name, gradient] : a.gradients)  // Memory lies otherwise: sums may round apart.
    for (size_t i = 0; i < gradient.size(); ++i)
      ASSERT_NEAR(gradient[i], b.gradients.at(name)[i], 1e-5) << name;
}

// Gradients of the upper layers are those of training all, and the lower ones have none.
TEST(UpperLayers, HaveTheGradientsOfTheWholeModel) {
  const test::TemporaryFolder folder;
  test::write_tiny_model(folder.file("model"), {.layers = 3});
  const auto model = Model::open(folder.file("model"));
  TrainingJob all;
  all.student = all.start = model;
  all.layout = parameter_layout(model->arch());
  TrainingJob upper = all;
  upper.layout = upper_layout(model->arch(), 1);
  EXPECT_EQ(upper.layout.slots.size(), 2 * 9 + 1u);
  const Step whole = one_step(all), part = one_step(upper);
  EXPECT_NEAR(whole.loss, part.loss, 1e-6);
  EXPECT_EQ(part.gradients.count("blk.0.attn_q.weight"), 0u);
  for (const auto& [name, gradient] : part.gradients)
    for (size_t i = 0; i < gradient.size(); ++i)
      ASSERT_NEAR(gradient[i], whole.gradients.at(name)[i], 1e-5) << name;
  upper.recompute = all.recompute = true;
  EXPECT_EQ(one_step(all).gradients, whole.gradients);
  EXPECT_EQ(one_step(upper).gradients, part.gradients);
}

}  // namespace
}  // namespace slmc

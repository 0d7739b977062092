// Every family's fixture through both containers: an f32 GGUF gives transformers' logits, and so
// does the folder that is converted back, whose tensors are the original's bit for bit.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "compress/core/error.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/encoder.h"
#include "formats/family.h"
#include "tests/support/golden.h"
#include "tests/support/rewrite.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using testing::GoldenEncoder;
using testing::GoldenModel;
using testing::kLogitTolerance;
using testing::rewrite_model;

double decoder_difference(const GoldenModel& golden, const std::string& path) {
  const auto decoder = Decoder::create(*Model::open(path), Activations::kF32);
  const auto total = static_cast<int64_t>(golden.prompt.size());
  std::vector<float> logits(golden.prompt.size() * static_cast<size_t>(decoder->arch().vocab));
  decoder->forward(*decoder->new_cache(total), golden.prompt, logits.data(), false);
  return testing::compare_golden(golden, golden.base, logits.data()).largest;
}

/// What no GGUF can hold, and a word of the reason.
const std::map<std::string, std::string>& refused() {
  static const std::map<std::string, std::string> names = {{"qwen3_biased", "attention_bias"},
                                                           {"bert_masked", "masked-language"},
                                                           {"distilbert_masked", "masked-language"},
                                                           {"distilbert_classifier", "relu"}};
  return names;
}

DType stored_type(const std::string& path) {
  const std::string name = read_json(path + "/config.json").at("dtype");
  return name == "float32" ? DType::kF32 : name == "float16" ? DType::kF16 : DType::kBF16;
}

std::vector<float> values(const Model& model, const std::string& name) {
  std::vector<float> out(static_cast<size_t>(model.view(name).elements()));
  model.read_rows(name, 0, model.view(name).rows(), out.data());
  return out;
}

/// The tensors that came back are those that left; scales folded into the queries excepted. What a
/// GGUF stores with 1 added (Gemma's norms) is off by that sum's rounding, 2^-24 of at most 2, once
/// each way.
void expect_same_tensors(const std::string& before, const std::string& after, bool by_gguf) {
  const auto a = Model::open(before), b = Model::open(after);
  std::set<std::string> shifted;
  for (const TensorSpec& spec : family_by_name(a->arch().family).tensors(a->arch()))
    if (by_gguf && spec.gguf.shift != 0.0f) shifted.insert(spec.name);
  const bool folded = query_scale(a->arch()) != query_scale(b->arch());
  for (const TensorInfo& info : a->tensors()) {
    if (folded && info.name.find("attn_q") != std::string::npos) continue;
    if (shifted.count(info.name) > 0) {
      const std::vector<float> left = values(*a, info.name), right = values(*b, info.name);
      for (size_t i = 0; i < left.size(); ++i) EXPECT_NEAR(left[i], right[i], 2.5e-7) << info.name;
      continue;
    }
    EXPECT_EQ(a->tensor_hash(info.name), b->tensor_hash(info.name)) << info.name;
  }
}

class Decoders : public ::testing::TestWithParam<std::string> {};

TEST_P(Decoders, SurviveBothContainers) {
  const GoldenModel golden = testing::load_golden(GetParam());
  test::TemporaryFolder folder;
  const std::string gguf = folder.file("m.gguf"), back = folder.file("back");
  if (refused().count(GetParam()) > 0) {
    const std::string error =
        test::error_of([&] { rewrite_model(golden.path, gguf, DType::kF32); });
    EXPECT_NE(error.find(refused().at(GetParam())), std::string::npos) << error;
  } else {
    rewrite_model(golden.path, gguf, DType::kF32);
    EXPECT_LE(decoder_difference(golden, gguf), kLogitTolerance);
    rewrite_model(gguf, back, stored_type(golden.path));
    expect_same_tensors(golden.path, back, true);
    rewrite_model(gguf, back, DType::kF32);
    EXPECT_LE(decoder_difference(golden, back), kLogitTolerance);
  }
  rewrite_model(golden.path, folder.file("copy"), stored_type(golden.path));
  expect_same_tensors(golden.path, folder.file("copy"), false);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Decoders, ::testing::ValuesIn(testing::golden_names()),
                         [](const auto& test) { return test.param; });

class Encoders : public ::testing::TestWithParam<std::string> {};

double runtime_difference(const GoldenEncoder& golden, const testing::GoldenCase& expected,
                          const WeightSource& weights) {
  const auto encoder = Encoder::create(weights, Activations::kF32);
  return testing::encoder_difference(
      golden, expected, [&](const std::vector<int32_t>& ids) { return encoder->encode(ids); });
}

TEST_P(Encoders, EqualTransformersAndFeelEveryKey) {
  const GoldenEncoder golden = testing::load_golden_encoder(GetParam());
  const auto model = Model::open(golden.path);
  EXPECT_LE(runtime_difference(golden, golden.base, *model), kLogitTolerance);
  for (const testing::GoldenCase& mutant : golden.mutants) {
    const testing::ReconfiguredWeights weights(model, mutant.config);
    EXPECT_LE(runtime_difference(golden, mutant, weights), kLogitTolerance) << mutant.name;
    EXPECT_GE(runtime_difference(golden, golden.base, weights), 100 * kLogitTolerance)
        << mutant.name;
  }
}

TEST_P(Encoders, SurviveBothContainers) {
  const GoldenEncoder golden = testing::load_golden_encoder(GetParam());
  test::TemporaryFolder folder;
  const std::string gguf = folder.file("m.gguf"), back = folder.file("back");
  rewrite_model(golden.path, folder.file("copy"), DType::kF32);
  EXPECT_LE(runtime_difference(golden, golden.base, *Model::open(folder.file("copy"))),
            kLogitTolerance);
  if (refused().count(GetParam()) > 0) {
    const std::string error =
        test::error_of([&] { rewrite_model(golden.path, gguf, DType::kF32); });
    EXPECT_NE(error.find(refused().at(GetParam())), std::string::npos) << error;
    return;
  }
  rewrite_model(golden.path, gguf, DType::kF32);
  EXPECT_LE(runtime_difference(golden, golden.base, *Model::open(gguf)), kLogitTolerance);
  rewrite_model(gguf, back, stored_type(golden.path));
  expect_same_tensors(golden.path, back, true);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Encoders, ::testing::ValuesIn(testing::golden_names("lengths")),
                         [](const auto& test) { return test.param; });

// The vision tower goes where a safetensors folder goes, byte for byte, and stays out of a GGUF.
TEST(Multimodal, TheVisionTowerTravelsUnchanged) {
  const std::string source = std::string(SLMC_FIXTURES) + "/models/gemma3_multimodal";
  test::TemporaryFolder folder;
  rewrite_model(source, folder.file("copy"), DType::kF32);
  const auto before = Model::open(source), after = Model::open(folder.file("copy"));
  ASSERT_GT(before->assets().carried.size(), 5u);
  ASSERT_EQ(after->assets().carried.size(), before->assets().carried.size());
  for (const CarriedTensor& tensor : before->assets().carried) {
    const auto& all = after->assets().carried;
    const auto same = std::find_if(all.begin(), all.end(),
                                   [&](const auto& other) { return other.name == tensor.name; });
    ASSERT_NE(same, all.end()) << tensor.name;
    EXPECT_EQ(same->view.dtype, tensor.view.dtype);
    ASSERT_EQ(same->view.bytes(), tensor.view.bytes());
    EXPECT_EQ(std::memcmp(same->view.data, tensor.view.data, tensor.view.bytes()), 0)
        << tensor.name;
  }
  const auto notes = container_notes(*before, "x.gguf");
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_NE(notes[0].find("text model"), std::string::npos);
  EXPECT_NE(notes[1].find("without a tokenizer"), std::string::npos);
  EXPECT_TRUE(container_notes(*before, "folder").empty());
  rewrite_model(source, folder.file("m.gguf"), DType::kF32);
  EXPECT_EQ(Model::open(folder.file("m.gguf"))->config()["architectures"][0], "Gemma3ForCausalLM");
}

// A token at a time, some at a time, or all at once: the same bits, also where a window has passed.
TEST(Windows, ChunksChangeNothing) {
  for (const std::string name : {"gemma2", "gemma3", "mistral"}) {
    const GoldenModel golden = testing::load_golden(name);
    const auto decoder = Decoder::create(*Model::open(golden.path), Activations::kQ8);
    const auto vocab = static_cast<size_t>(decoder->arch().vocab);
    const std::vector<int32_t> ids(golden.prompt.begin(), golden.prompt.begin() + 300);
    std::vector<float> whole(ids.size() * vocab), pieces(whole.size());
    decoder->forward(*decoder->new_cache(300), ids, whole.data(), false);
    const auto cache = decoder->new_cache(300);
    for (size_t first = 0, size = 1; first < ids.size(); first += size, size = size * 2 + 1) {
      size = std::min(size, ids.size() - first);
      decoder->forward(*cache, std::span(ids).subspan(first, size), pieces.data() + first * vocab,
                       false);
    }
    EXPECT_EQ(whole, pieces) << name;
  }
}

TEST(Longrope, TheDeclaredLengthChoosesTheFactors) {
  const GoldenModel golden = testing::load_golden("phi3_short");
  const auto decoder = Decoder::create(*Model::open(golden.path), Activations::kF32);
  std::vector<float> logits(golden.prompt.size() * static_cast<size_t>(decoder->arch().vocab));
  decoder->forward(*decoder->new_cache(128), golden.prompt, logits.data(), false);
  EXPECT_LE(testing::compare_golden(golden, golden.base, logits.data()).largest, kLogitTolerance);
  decoder->forward(*decoder->new_cache(129), golden.prompt, logits.data(), false);
  EXPECT_GE(testing::compare_golden(golden, golden.base, logits.data()).largest, 0.1);
}

TEST(EncoderPairs, EqualTransformersWhereTheModelKnowsSegments) {
  const testing::GoldenPairs golden;
  const std::vector<int32_t>& ids = golden.ids;
  std::vector<int32_t> types = golden.types;
  const auto encoder_of = [](const std::string& name) {
    return Encoder::create(*Model::open(std::string(SLMC_FIXTURES) + "/models/" + name),
                           Activations::kF32);
  };
  for (const auto& [name, expected] : golden.logits.items()) {
    const auto encoder = encoder_of(name);
    golden.expect(name, encoder->encode(ids, types), encoder->encode(ids));
    types.back() = 2;
    EXPECT_NE(test::error_of([&] { encoder->encode(ids, types); }).find("token type below 2"),
              std::string::npos);
    types.back() = 1;
  }
  const auto without = encoder_of("distilbert_classifier");
  EXPECT_EQ(without->encode(ids, types), without->encode(ids));
}

}  // namespace
}  // namespace slmc

// Adapters as files and as merged weights. The folders in fixtures/lora are PEFT's own work.
#include "formats/lora.h"

#include <gtest/gtest.h>

#include <cstring>

#include "compress/core/error.h"
#include "compress/runtime/decoder.h"
#include "formats/gguf.h"
#include "formats/model_writer.h"
#include "tests/support/rewrite.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

using Floats = std::vector<float>;

std::string fixture(const std::string& name) {
  return std::string(SLMC_FIXTURES) + "/lora/" + name;
}
std::shared_ptr<const Model> base_of(const Json& expected) {
  return Model::open(std::string(SLMC_FIXTURES) + "/models/" + expected["base"].get<std::string>());
}
Floats values(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  Floats out(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), out.data());
  return out;
}
std::vector<int32_t> prompt(int64_t count) {
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < static_cast<uint64_t>(count); ++i)
    ids.push_back(static_cast<int32_t>((((i * 2654435761u) % (uint64_t{1} << 32)) >> 8) % 96));
  return ids;
}

class PeftAdapter : public ::testing::TestWithParam<std::string> {};

TEST_P(PeftAdapter, GivesPeftsLogitsWhenMerged) {
  const Json expected = read_json(fixture(GetParam()) + "/expected.json");
  const auto base = base_of(expected);
  const MergedWeights merged(base, read_lora(fixture(GetParam()), base->arch()), false);
  const auto decoder = Decoder::create(merged, Activations::kF32);
  const auto cache = decoder->new_cache(33);
  const auto vocab = static_cast<size_t>(base->arch().vocab);
  Floats logits(33 * vocab);
  decoder->forward(*cache, prompt(33), logits.data(), false);
  for (size_t i = 0; i < expected["positions"].size(); ++i) {
    const size_t row = expected["positions"][i].get<size_t>() * vocab;
    for (size_t v = 0; v < vocab; ++v)
      ASSERT_NEAR(logits[row + v], expected["logits"][i][v].get<float>(), 1e-3) << i << " " << v;
  }
}

TEST_P(PeftAdapter, ComesBackFromBothContainers) {
  const auto base = base_of(read_json(fixture(GetParam()) + "/expected.json"));
  const LoraAdapter adapter = read_lora(fixture(GetParam()), base->arch());
  const test::TemporaryFolder folder;
  for (const char* name : {"peft", "adapter.gguf"}) {
    write_lora(adapter, base->arch(), folder.file(name), "base", DType::kF32, false);
    const LoraAdapter back = read_lora(folder.file(name), base->arch());
    EXPECT_EQ(back.lora.rank, adapter.lora.rank);
    EXPECT_FLOAT_EQ(static_cast<float>(back.lora.scale()),
                    static_cast<float>(adapter.lora.scale()));
    ASSERT_EQ(back.lora.targets.size(), adapter.lora.targets.size());
    for (const LoraTarget& target : adapter.lora.targets)
      for (const std::string& tensor : {target.a(), target.b()})
        EXPECT_EQ(values(*back.values, tensor), values(*adapter.values, tensor)) << tensor;
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, PeftAdapter,
                         ::testing::Values("llama", "llama_some", "phi3", "gpt2"),
                         [](const auto& instance) { return instance.param; });

// W + scale * B A with one rounding: the reference sums in long double.
TEST(MergedWeights, RoundOnceAndKeepZerosIfAsked) {
  const auto base = base_of(read_json(fixture("llama") + "/expected.json"));
  const LoraAdapter adapter = read_lora(fixture("llama"), base->arch());
  auto holed = std::make_shared<MemoryWeights>(base->arch());
  auto matrix = std::make_shared<Floats>(values(*base, "blk.1.ffn_down.weight"));
  for (size_t i = 0; i < matrix->size(); i += 3) (*matrix)[i] = 0;
  const std::vector<int64_t> shape = base->view("blk.1.ffn_down.weight").shape;
  holed->add("blk.1.ffn_down.weight",
             {reinterpret_cast<const std::byte*>(matrix->data()), DType::kF32, shape, matrix});
  const LoraTarget* target = nullptr;
  for (const LoraTarget& each : adapter.lora.targets)
    if (each.tensors.front() == "blk.1.ffn_down.weight") target = &each;
  ASSERT_NE(target, nullptr);
  const Floats a = values(*adapter.values, target->a()), b = values(*adapter.values, target->b());
  const auto columns = static_cast<size_t>(shape[1]), rank = static_cast<size_t>(adapter.lora.rank);
  for (const bool keep : {false, true}) {
    const Floats merged = values(MergedWeights(holed, adapter, keep), "blk.1.ffn_down.weight");
    for (size_t i = 0; i < merged.size(); ++i) {
      double sum = 0;
      for (size_t k = 0; k < rank; ++k)
        sum += static_cast<double>(b[i / columns * rank + k]) *
               static_cast<double>(a[k * columns + i % columns]);
      const float expected =
          keep && i % 3 == 0
              ? 0.0f
              : static_cast<float>(static_cast<double>((*matrix)[i]) + 6.0 / 4.0 * sum);
      ASSERT_EQ(merged[i], expected) << i;
    }
  }
  // What no adapter touches is the base's.
  EXPECT_EQ(values(MergedWeights(base, adapter, false), "output_norm.weight"),
            values(*base, "output_norm.weight"));
}

// llama.cpp adds B A to rows in its own order of rotary pairs: an adapter's GGUF merged by hand
// into the model's GGUF must be the merged model's GGUF.
TEST(LoraGguf, HasItsRowsInTheModelsGgufOrder) {
  const auto base = base_of(read_json(fixture("llama") + "/expected.json"));
  const LoraAdapter adapter = read_lora(fixture("llama"), base->arch());
  const test::TemporaryFolder folder;
  write_lora(adapter, base->arch(), folder.file("a.gguf"), "", DType::kF32, false);
  testing::rewrite_model(base->path(), folder.file("m.gguf"), DType::kF32);
  const GgufFile lora = GgufFile::open(folder.file("a.gguf")),
                 model = GgufFile::open(folder.file("m.gguf"));
  EXPECT_EQ(lora.keys.string("general.type", ""), "adapter");
  EXPECT_EQ(lora.keys.string("general.architecture", ""), "llama");
  EXPECT_EQ(lora.keys.number("adapter.lora.alpha", ""), 6.0);
  const auto floats = [](const GgufFile& file, const std::string& name) {
    const GgufTensor* const tensor = file.find(name);
    Floats out(static_cast<size_t>(element_count(tensor->shape)));
    std::memcpy(out.data(), file.file->data() + tensor->offset, out.size() * sizeof(float));
    return out;
  };
  // The sum of B A over a column of q, by GGUF's rows, beside the same of the merged GGUF.
  const std::string name = "blk.0.attn_q.weight";
  const Floats a = floats(lora, name + ".lora_a"), b = floats(lora, name + ".lora_b"),
               w = floats(model, name);
  const Floats merged = values(MergedWeights(base, adapter, false), name);
  const size_t columns = static_cast<size_t>(base->view(name).columns()), rank = 4;
  const size_t head_dim = 16;
  for (size_t row = 0; row < w.size() / columns; ++row) {
    // File row h*d + 2i + j is canonical row h*d + j*d/2 + i.
    const size_t within = row % head_dim;
    const size_t canonical = row - within + within % 2 * head_dim / 2 + within / 2;
    for (size_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (size_t k = 0; k < rank; ++k)
        sum += static_cast<double>(b[row * rank + k]) * static_cast<double>(a[k * columns + j]);
      ASSERT_EQ(static_cast<float>(static_cast<double>(w[row * columns + j]) + 1.5 * sum),
                merged[canonical * columns + j]);
    }
  }
}

TEST(LoraErrors, SayWhatIsWrong) {
  const auto base = base_of(read_json(fixture("llama") + "/expected.json"));
  const auto other = base_of(read_json(fixture("gpt2") + "/expected.json"));
  const test::TemporaryFolder folder;
  const auto error = [&](const std::string& path, const Model& model) {
    return test::error_of([&] { read_lora(path, model.arch()); });
  };
  EXPECT_NE(error(fixture("llama"), *other).find("belongs to no matrix"), std::string::npos);
  EXPECT_NE(error(folder.file("absent"), *base).find("not found"), std::string::npos);
  const auto changed = [&](const std::string& key, const Json& value) {
    Json config = read_json(fixture("llama") + "/adapter_config.json");
    config[key] = value;
    folder.write("adapter_config.json", config.dump());
    folder.write("adapter_model.safetensors",
                 test::slurp(fixture("llama") + "/adapter_model.safetensors"));
    return error(folder.path(), *base);
  };
  EXPECT_EQ(changed("r", 4), "");
  EXPECT_NE(changed("use_dora", true).find("use_dora is not supported"), std::string::npos);
  EXPECT_NE(changed("peft_type", "IA3").find("peft_type"), std::string::npos);
  EXPECT_NE(changed("bias", "all").find("bias"), std::string::npos);
  EXPECT_NE(changed("lora_alpha", "x").find("expected a number"), std::string::npos);
  const std::string unknown = test::error_of([&] { lora_targets(base->arch(), {"q_prj"}); });
  EXPECT_NE(unknown.find("did you mean 'q_proj'"), std::string::npos) << unknown;
  EXPECT_EQ(lora_targets(base->arch(), {"attn_q"}).size(),
            static_cast<size_t>(base->arch().layers));
}

}  // namespace
}  // namespace slmc

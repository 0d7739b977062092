// Folders in compressed-tensors' formats: what is written is read back and runs, with every method
// and group, and what cannot be is refused.
#include "formats/compressed_tensors.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "compress/runtime/decoder.h"
#include "formats/safetensors.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

std::vector<float> logits_of(const WeightSource& weights) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 24; ++i) ids.push_back(i * 7 % 250 + 2);
  const auto decoder = Decoder::create(weights, Activations::kF32);
  std::vector<float> logits(ids.size() * static_cast<size_t>(weights.arch().vocab));
  decoder->forward(*decoder->new_cache(32), ids, logits.data(), false);
  return logits;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  return std::sqrt(sum / size);
}

struct GroupCase {
  std::string scheme;
  int64_t group;
  bool asymmetric;
  double most;  ///< Relative difference of logits.
};

TEST(CompressedTensors, AreReadBackAsWrittenByEveryMethodAndGroup) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"),
                   {.hidden = 128, .ffn = 256, .tied = false, .dtype = DType::kBF16});
  const auto source = Model::open(folder.file("model"));
  const std::vector<float> exact = logits_of(*source);
  const std::vector<GroupCase> cases = {
      {"w4a16", 0, false, 0.5},  {"w4a16", 32, false, 0.5},   {"w4a16", 64, true, 0.5},
      {"w4a16", -1, false, 0.6}, {"w4a16", 128, true, 0.5},   {"w4a16", -1, true, 0.6},
      {"w8a16", 0, false, 0.05}, {"w8a16", 128, false, 0.05}, {"w8a8", 0, false, 0.1}};
  for (const GroupCase& one : cases) {
    for (const std::string method : {"nearest", "imatrix", "gptq"}) {
      SCOPED_TRACE(one.scheme + " groups " + std::to_string(one.group) + " by " + method);
      QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), one.scheme);
      set_method(stage, method_by_name(method), folder);
      stage.options.group_size = one.group;
      stage.options.asymmetric = one.asymmetric;
      const Plan plan = stage.plan({});
      const Report report = quantize(stage, {.force = true});
      const auto written = Model::open(folder.file("out"));
      uint64_t bytes = 0;
      for (const auto& entry : std::filesystem::directory_iterator(folder.file("out")))
        bytes += entry.file_size();
      EXPECT_EQ(bytes, plan.output_bytes);
      for (const Json& row : report.at("tensors"))
        EXPECT_EQ(dtype_name(written->info(row.at("tensor")).dtype), row.at("to")) << row;
      EXPECT_TRUE(written->config().contains("quantization_config"));
      const double lost = difference(exact, logits_of(*written));
      EXPECT_GT(lost, 0);
      EXPECT_LT(lost, one.most);
    }
  }
}

TEST(CompressedTensors, LieInTheFileAsTheFormatSays) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 128, .ffn = 256, .dtype = DType::kBF16});
  QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w4a16");
  stage.options.asymmetric = true;
  quantize(stage);
  const SafetensorsFile file = SafetensorsFile::open(folder.file("out") + "/model.safetensors");
  const auto entry = [&](const std::string& name) {
    for (const SafetensorsEntry& held : file.tensors) {
      if (held.name == name) return held;
    }
    throw std::runtime_error("no " + name);
  };
  const std::string stem = "model.layers.0.mlp.down_proj.";
  const SafetensorsEntry packed = entry(stem + "weight_packed"),
                         scale = entry(stem + "weight_scale"),
                         zero = entry(stem + "weight_zero_point"),
                         shape = entry(stem + "weight_shape");
  EXPECT_EQ(packed.dtype, DType::kI32);
  EXPECT_EQ(packed.shape, (std::vector<int64_t>{128, 256 / 8}));
  EXPECT_EQ(scale.shape, (std::vector<int64_t>{128, 2}));
  EXPECT_EQ(scale.dtype, DType::kBF16);
  EXPECT_EQ(zero.shape, (std::vector<int64_t>{128 / 8, 2}));
  EXPECT_EQ(shape.dtype, DType::kI64);
  // value = scale * (code - zero point), by the format's own words.
  const auto written = Model::open(folder.file("out"));
  std::vector<float> row(256);
  const int64_t r = 13, c = 171;
  written->read_rows("blk.0.ffn_down.weight", r, 1, row.data());
  const auto word = [&](const SafetensorsEntry& held, int64_t index) {
    uint32_t value;
    std::memcpy(&value, file.file->data() + held.offset + index * 4, 4);
    return value;
  };
  uint16_t bits;
  std::memcpy(&bits, file.file->data() + scale.offset + (r * 2 + c / 128) * 2, 2);
  const uint32_t code = word(packed, r * 32 + c / 8) >> (4 * (c % 8)) & 15u;
  const uint32_t zero_point = word(zero, r / 8 * 2 + c / 128) >> (4 * (r % 8)) & 15u;
  const uint32_t wide = uint32_t{bits} << 16;
  float factor;
  std::memcpy(&factor, &wide, 4);
  EXPECT_EQ(row[static_cast<size_t>(c)],
            factor * (static_cast<float>(code) - static_cast<float>(zero_point)));
}

TEST(CompressedTensors, RefuseWhatTheyCannotHold) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 96});
  const auto refused = [&](const auto& change) {
    QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w4a16");
    change(stage.options);
    return failure_of([&] { stage.plan({}); }).second;
  };
  EXPECT_TRUE(contains(refused([](auto&) {}), "do not divide by 128"));
  EXPECT_TRUE(contains(refused([&](auto& o) {
                         o.group_size = 32;
                         o.output = folder.file("out.gguf");
                       }),
                       "a GGUF cannot hold"));
  EXPECT_TRUE(contains(refused([](auto& o) { o.group_size = 48; }), "not supported"));
  EXPECT_TRUE(contains(refused([&](auto& o) {
                         o.scheme = "q4_0";
                         o.output = folder.file("out.gguf");
                         o.group_size = 32;
                       }),
                       "belong to compressed-tensors"));
}

TEST(CompressedTensors, HoldFusedTensorsAndRefuseTransposedOnes) {
  TemporaryFolder folder;
  for (const bool asymmetric : {false, true}) {
    QuantizeStage stage =
        quantize_stage(SLMC_FIXTURES "/models/phi3_short", folder.file("out"), "w4a16");
    stage.options.group_size = 32;
    stage.options.asymmetric = asymmetric;
    const Report report = quantize(stage, {.force = true});
    const SafetensorsFile file = SafetensorsFile::open(folder.file("out") + "/model.safetensors");
    int64_t fused = 0;
    for (const SafetensorsEntry& held : file.tensors)
      fused += held.name.find("qkv_proj.weight_packed") != std::string::npos;
    EXPECT_EQ(fused, Model::open(folder.file("out"))->arch().layers);
  }
  QuantizeStage stage = quantize_stage(SLMC_FIXTURES "/models/gpt2", folder.file("out"), "w4a16");
  stage.options.group_size = 32;
  stage.options.rule = {"ffn_down=bf16"};  // Its rows do not divide.
  const auto [code, message] = failure_of([&] { stage.plan({}); });
  EXPECT_EQ(code, ExitCode::kUnsupported);
  EXPECT_TRUE(contains(message, "is for linear layers")) << message;
}

TEST(CompressedTensors, AreReadOnlyAsTheirConfigurationSays) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128});
  QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w8a8");
  quantize(stage);
  const std::string path = folder.file("out") + "/config.json";
  const Json good = Json::parse(slurp(path));
  const auto refused = [&](const auto& change) {
    Json config = good;
    change(config["quantization_config"]);
    folder.write("out/config.json", config.dump());
    return failure_of([&] { Model::open(folder.file("out")); }).second;
  };
  EXPECT_EQ(refused([](Json&) {}), "");
  EXPECT_TRUE(contains(refused([](Json& q) { q["quant_method"] = "gptq"; }), "another format"));
  EXPECT_TRUE(contains(refused([](Json& q) {
                         q["kv_cache_scheme"] = {{"num_bits", 8}, {"type", "float"}};
                       }),
                       "a cache other than"));
  EXPECT_TRUE(
      contains(refused([](Json& q) {
                 q["kv_cache_scheme"] = {{"num_bits", 8}, {"type", "int"}, {"strategy", "tensor"}};
               }),
               "k_scale is missing"));
  EXPECT_TRUE(contains(refused([](Json& q) {
                         q["config_groups"]["group_0"]["input_activations"]["strategy"] = "group";
                       }),
                       "inputs are rounded in a way"));
  EXPECT_TRUE(contains(refused([](Json& q) {
                         auto& inputs = q["config_groups"]["group_0"]["input_activations"];
                         inputs["dynamic"] = false, inputs["strategy"] = "tensor";
                       }),
                       "input_scale"));
  EXPECT_TRUE(contains(refused([](Json& q) { q["config_groups"]["group_1"] = Json::object(); }),
                       "expected one group"));
}

// The scales are where transformers looks for them, are what the reader finds, and are used unless
// another type is asked for.
TEST(CompressedTensors, KeepScalesOfKeysAndValues) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128, .dtype = DType::kBF16});
  for (const char* scheme : {"w8a16", "w8a8"}) {
    SCOPED_TRACE(scheme);
    QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("plain"), scheme);
    stage.options.calibration = {folder.write("calibration.txt", random_text(2000))};
    stage.options.calibration_context = 64;
    stage.options.group_size = std::string(scheme) == "w8a8" ? 0 : -1;
    stage.options.kv_type = "int8";
    stage.options.output = folder.file("out");
    const Plan plan = stage.plan({});
    const Report report = quantize(stage, {.force = true});
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.file("out")))
      bytes += entry.file_size();
    EXPECT_EQ(bytes, plan.output_bytes);
    EXPECT_EQ(report.at("method").at("kv_type"), "int8");
    const auto written = Model::open(folder.file("out"));
    EXPECT_EQ(written->config().at("quantization_config").at("kv_cache_scheme").at("strategy"),
              "tensor");
    const std::vector<float>& scales = written->arch().kv_scales;
    ASSERT_EQ(scales.size(), 4u);
    const SafetensorsFile file = SafetensorsFile::open(folder.file("out") + "/model.safetensors");
    const std::vector<std::string> parts = {"attn_k", "attn_v"};
    for (size_t i = 0; i < 4; ++i) {
      const std::string name = "model.layers." + std::to_string(i / 2) + ".self_attn." +
                               (i % 2 == 0 ? "k_scale" : "v_scale");
      const auto entry = std::find_if(file.tensors.begin(), file.tensors.end(),
                                      [&](const auto& held) { return held.name == name; });
      ASSERT_NE(entry, file.tensors.end()) << name;
      EXPECT_EQ(entry->dtype, DType::kBF16);
      EXPECT_EQ(entry->shape, std::vector<int64_t>{1});
      for (const Json& row : report.at("tensors")) {
        if (row.at("tensor") != "blk." + std::to_string(i / 2) + "." + parts[i % 2] + ".weight")
          continue;
        EXPECT_EQ(row.at("kv_scale").get<float>(), scales[i]);
      }
    }
    const auto logits = [&](KvType type) {
      std::vector<int32_t> ids;
      for (int32_t i = 0; i < 24; ++i) ids.push_back(i * 7 % 250 + 2);
      const auto decoder = Decoder::create(*written, Activations::kF32, type);
      std::vector<float> found(ids.size() * static_cast<size_t>(written->arch().vocab));
      decoder->forward(*decoder->new_cache(32), ids, found.data(), false);
      return found;
    };
    EXPECT_EQ(logits(KvType::kAuto), logits(KvType::kInt8));
    const double lost = difference(logits(KvType::kF32), logits(KvType::kAuto));
    EXPECT_GT(lost, 0);
    EXPECT_LT(lost, 0.05);
  }
}

TEST(CompressedTensors, FixNoCacheWhereItCannotBeHeld) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 64, .ffn = 128});
  const auto refused = [&](const auto& change) {
    QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w8a8");
    stage.options.kv_type = "int8";
    stage.options.calibration = {folder.write("calibration.txt", random_text(2000))};
    change(stage.options);
    return failure_of([&] { stage.plan({}); }).second;
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_TRUE(contains(refused([](auto& o) { o.calibration.clear(); }),
                       "--kv-type int8 needs calibration text"));
  EXPECT_TRUE(contains(refused([](auto& o) { o.scheme = "q8_0", o.output += ".gguf"; }),
                       "--kv-type belongs to compressed-tensors"));
  // A GGUF made of the rounded weights leaves them behind, and says so.
  QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out"), "w8a8");
  stage.options.kv_type = "int8";
  stage.options.calibration = {folder.file("calibration.txt")};
  stage.options.calibration_context = 64;
  quantize(stage);
  QuantizeStage again = quantize_stage(folder.file("out"), folder.file("out.gguf"), "q8_0");
  again.options.dequantize = true;
  const Report report = quantize(again);
  EXPECT_TRUE(contains(report.at("container_notes").dump(), "scales of keys and values"));
  EXPECT_TRUE(Model::open(folder.file("out.gguf"))->arch().kv_scales.empty());
}

}  // namespace
}  // namespace slmc::test

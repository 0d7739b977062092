// Properties that every scheme and method keeps; a new file under quantize/schemes or
// quantize/methods is swept without an edit here.
#include <cmath>
#include <filesystem>

#include "formats/block_codec.h"
#include "quantize/method.h"
#include "quantize/scheme.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

/// Largest relative error (root of summed squares) that a type of so many bits may leave on weights
/// without outliers: for blocks, four times the step of a uniform grid of that many levels; for
/// floats, half a unit in the last place of bf16.
double error_bound(DType type) {
  if (type == DType::kF32) return 0.0;
  if (dtype_is_float(type)) return std::ldexp(1.0, -9);
  const double bits =
      8.0 * static_cast<double>(dtype_block_bytes(type)) / static_cast<double>(dtype_block(type));
  return std::exp2(2.0 - bits);
}

std::vector<TinyModel> tiny_models() {
  return {{.family = "llama", .tied = true, .dtype = DType::kBF16},
          {.family = "llama",
           .tied = false,
           .attention_bias = true,
           .mlp_bias = true,
           .dtype = DType::kF32},
          {.family = "llama", .dtype = DType::kBF16, .unaligned = true},
          {.family = "qwen2",
           .hidden = 128,
           .ffn = 256,
           .tied = true,
           .dtype = DType::kF16,
           .shards = 2}};
}

TEST(Schemes, QuantizeEveryFamilyToWhatThePlanSays) {
  for (const TinyModel& tiny : tiny_models()) {
    TemporaryFolder folder;
    write_tiny_model(folder.file("model"), tiny);
    const auto source = Model::open(folder.file("model"));
    for (const Scheme* scheme : schemes()) {
      for (const Method* method : methods()) {
        SCOPED_TRACE(scheme->name + " by " + method->name + " of " + tiny.family);
        const std::string output = folder.file(scheme->name + "-" + method->name + ".gguf");
        QuantizeStage stage = quantize_stage(folder.file("model"), output, scheme->name);
        stage.options.method = method->name;
        const Plan plan = stage.plan({});
        EXPECT_FALSE(std::filesystem::exists(output)) << "a plan writes nothing";
        Context context;
        const Report report = stage.run(plan, context);
        const auto written = Model::open(output);
        EXPECT_EQ(std::filesystem::file_size(output), plan.output_bytes);
        EXPECT_EQ("", architecture_difference(source->arch(), written->arch()));
        ASSERT_EQ(written->tensors().size(), plan.rows.size());
        for (const PlanRow& row : plan.rows) {
          const TensorInfo& info = written->info(row.tensor);
          EXPECT_EQ(dtype_name(info.dtype), row.to) << row.tensor;
          EXPECT_FALSE(row.reason.empty());
          const int64_t blocks = element_count(info.shape) / dtype_block(info.dtype);
          EXPECT_EQ(row.bytes_after, static_cast<uint64_t>(blocks * dtype_block_bytes(info.dtype)))
              << row.tensor;
          EXPECT_EQ(info.bytes, row.bytes_after);
          if (info.shape.size() < 2) {
            EXPECT_EQ(info.dtype, DType::kF32) << row.tensor;
          }
        }
        for (const Json& tensor : report.at("tensors")) {
          const DType type = dtype_from_name(tensor.at("to").get<std::string>());
          EXPECT_LE(tensor.at("relative_error").get<double>(), error_bound(type)) << tensor.dump();
          EXPECT_EQ(tensor.at("method_used"), method->name);
        }
        EXPECT_EQ(report.at("cost"), "not measured");
      }
    }
  }
}

TEST(Schemes, WriteTheSameBytesOnAnyNumberOfThreads) {
  TemporaryFolder folder;
  // Weights of several chunks, so that threads have something to share.
  write_tiny_model(folder.file("model"),
                   {.hidden = 256, .ffn = 512, .vocab = 9000, .dtype = DType::kBF16});
  for (const Scheme* scheme : schemes()) {
    for (const Method* method : methods()) {
      std::string first;
      Json figures;
      for (const int count : {1, 2, 7}) {
        set_threads(count);
        const std::string output = folder.file("out.gguf");
        QuantizeStage stage = quantize_stage(folder.file("model"), output, scheme->name);
        stage.options.method = method->name;
        stage.options.check = "bytes";
        const Report report = quantize(stage, {.force = true});
        const std::string bytes = slurp(output);
        if (first.empty()) first = bytes, figures = report.at("tensors");
        EXPECT_TRUE(first == bytes)
            << scheme->name << " by " << method->name << " on " << count << " threads";
        EXPECT_EQ(figures, report.at("tensors"));
      }
    }
  }
  set_threads(0);
}

TEST(Nearest, GivesTheBytesOfTheCodecs) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.layers = 1, .vocab = 5000, .dtype = DType::kBF16});
  const auto source = Model::open(folder.file("model"));
  for (const Scheme* scheme : schemes()) {
    QuantizeStage stage =
        quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme->name);
    quantize(stage, {.force = true});
    const auto written = Model::open(folder.file("out.gguf"));
    for (const TensorInfo& info : written->tensors()) {
      const int64_t n = element_count(info.shape), rows = n / info.shape.back();
      std::vector<float> x(static_cast<size_t>(n));
      source->read_rows(info.name, 0, rows, x.data());
      std::vector<std::byte> expected(info.bytes);
      block_codec(info.dtype).encode(x.data(), n, expected.data());
      const TensorView view = written->view(info.name);
      EXPECT_EQ(0, std::memcmp(expected.data(), view.data, info.bytes))
          << scheme->name << " " << info.name;
    }
  }
}

TEST(Schemes, KeepRowsThatDoNotDivideInF16AndSayWhy) {
  TemporaryFolder folder;
  write_tiny_model(folder.file("model"), {.hidden = 80, .ffn = 96});
  for (const std::string scheme : {"q8_0", "q4_0"}) {
    QuantizeStage stage = quantize_stage(folder.file("model"), folder.file("out.gguf"), scheme);
    const Plan plan = stage.plan({});
    EXPECT_EQ(row_of(plan, "blk.0.ffn_up.weight").to, "f16");
    EXPECT_TRUE(
        contains(row_of(plan, "blk.0.ffn_up.weight").reason, "rows of 80 do not divide by 32"));
    EXPECT_EQ(row_of(plan, "blk.0.ffn_down.weight").to, scheme);
    quantize(stage, {.force = true});
  }
}

TEST(SchemeQ40, KeepsTheHeadOrTiedEmbeddingInQ80) {
  for (const bool tied : {true, false}) {
    TemporaryFolder folder;
    write_tiny_model(folder.file("model"), {.tied = tied});
    const Plan plan =
        quantize_stage(folder.file("model"), folder.file("out.gguf"), "q4_0").plan({});
    const PlanRow& head = row_of(plan, tied ? "token_embd.weight" : "output.weight");
    EXPECT_EQ(head.to, "q8_0");
    EXPECT_TRUE(contains(head.reason, "q6_k")) << head.reason;
    if (!tied) {
      EXPECT_EQ(row_of(plan, "token_embd.weight").to, "q4_0");
    }
  }
}

}  // namespace
}  // namespace slmc::test

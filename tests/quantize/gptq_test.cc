// Error feedback against an independent double-precision reference
// (tests/fixtures/quantize/gptq.py) and against its own definition.
#include <cmath>
#include <cstring>

#include "compress/core/half.h"
#include "compress/core/random.h"
#include "quantize/error_feedback.h"
#include "quantize/input_statistics.h"
#include "quantize/method.h"
#include "tests/quantize/quantize_support.h"

namespace slmc::test {
namespace {

// The fixture's grid: an f16 scale, then a code a byte, 0 to 15 for -8 to 7.
constexpr int64_t kBlock = 32, kBytes = 34;
constexpr float kLevels[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

float scale_at(const std::byte* block) {
  uint16_t bits;
  std::memcpy(&bits, block, 2);
  return f16_to_float(bits);
}

void plan(const float* values, const float*, std::byte* out) {
  float largest = 0;
  for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[i]));
  const uint16_t bits = float_to_f16(largest / 7);
  std::memcpy(out, &bits, 2);
}
void parameters(const std::byte* in, float* scale, float* offset) {
  std::fill_n(scale, kBlock, scale_at(in));
  std::fill_n(offset, kBlock, 0.0f);
}
void pack(const uint8_t* codes, std::byte* out) { std::memcpy(out + 2, codes, kBlock); }
void decode(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = kLevels[std::to_integer<int>(in[i / kBlock * kBytes + 2 + i % kBlock])] *
             scale_at(in + i / kBlock * kBytes);
}

const BlockGrid kGrid = {
    .codes = 16, .levels = kLevels, .plan = plan, .parameters = parameters, .pack = pack};

/// A type number of the same block and bytes keeps dtype_row_bytes right.
const BlockCodec kCodec = {.dtype = DType::kQ8_0,
                           .name = "test",
                           .block = kBlock,
                           .block_bytes = kBytes,
                           .decode = decode,
                           .grid = &kGrid};

struct Fixture {
  Json json = Json::parse(slurp(SLMC_SOURCE_DIR "/tests/fixtures/quantize/gptq.json"));
  int64_t rows = json.at("rows"), columns = json.at("columns");
  std::vector<float> weight = json.at("weight");
  LinearStatistics statistics;
  Fixture() {
    statistics.tokens = 400;
    statistics.hessian = json.at("hessian").get<std::vector<float>>();
    for (int64_t i = 0; i < columns; ++i)
      statistics.input_squares.push_back(statistics.hessian[static_cast<size_t>(i * columns + i)]);
  }

  std::vector<std::byte> encode(bool act_order, int64_t batch, Json& facts,
                                int64_t sweeps = 0) const {
    const Method& gptq = method_by_name("gptq");
    const auto prepared =
        gptq.prepare(statistics, columns, {.act_order = act_order, .sweeps = sweeps}, facts);
    const auto row_bytes = static_cast<size_t>(columns / kBlock * kBytes);
    std::vector<std::byte> out(row_bytes * static_cast<size_t>(rows));
    // Distortion goes through the kernels, which know the type by its number: the scalar ones
    // decode the test's blocks as q8_0, so what they say of the loss is not looked at.
    Distortion lost{};
    for (int64_t row = 0; row < rows; row += batch) {
      const EncodeRequest request{.weight = weight.data() + row * columns,
                                  .rows = std::min(batch, rows - row),
                                  .columns = columns,
                                  .grid = &kCodec,
                                  .statistics = &statistics,
                                  .prepared = prepared.get(),
                                  .kernels = &encode_kernels()};
      gptq.encode(request, out.data() + row_bytes * static_cast<size_t>(row), &lost);
    }
    return out;
  }

  /// tr((W - Q) H (W - Q)^T) in double.
  double layer_error(const std::vector<std::byte>& encoded) const {
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<float> value(static_cast<size_t>(columns));
      decode(encoded.data() + r * columns / kBlock * kBytes, columns, value.data());
      for (int64_t i = 0; i < columns; ++i) {
        for (int64_t j = 0; j < columns; ++j)
          sum += (double{weight[static_cast<size_t>(r * columns + i)]} -
                  double{value[static_cast<size_t>(i)]}) *
                 double{statistics.hessian[static_cast<size_t>(i * columns + j)]} *
                 (double{weight[static_cast<size_t>(r * columns + j)]} -
                  double{value[static_cast<size_t>(j)]});
      }
    }
    return sum;
  }
};

TEST(Gptq, AgreesWithTheInverseCholeskyFormInDoublePrecision) {
  const Fixture fixture;
  for (const std::string order : {"natural", "activation"}) {
    Json facts;
    const std::vector<std::byte> encoded = fixture.encode(order == "activation", 32, facts);
    EXPECT_EQ(facts.at("dead_columns"), 1);
    EXPECT_EQ(facts.at("damping"), 0.01);
    EXPECT_EQ(facts.at("order"), order);
    const auto codes = fixture.json.at(order).at("codes").get<std::vector<int>>();
    int64_t equal = 0;
    for (size_t i = 0; i < codes.size(); ++i) {
      const size_t at = i / kBlock * kBytes + 2 + i % kBlock;
      equal += codes[i] + 8 == std::to_integer<int>(encoded[at]);
    }
    EXPECT_GE(static_cast<double>(equal), 0.99 * static_cast<double>(codes.size())) << order;
    const double expected = fixture.json.at(order).at("error");
    EXPECT_NEAR(fixture.layer_error(encoded), expected, 1e-3 * expected) << order;
    EXPECT_LT(expected, 0.6 * fixture.json.at("nearest_error").get<double>());
  }
}

TEST(Gptq, CoordinateDescentLowersTheLayersError) {
  const Fixture fixture;
  for (const bool act_order : {false, true}) {
    Json facts;
    const double before = fixture.layer_error(fixture.encode(act_order, 32, facts));
    const double after = fixture.layer_error(fixture.encode(act_order, 32, facts, 3));
    EXPECT_LT(after, 0.995 * before);
  }
}

TEST(Gptq, GivesTheSameBytesForAnyBatchOfRows) {
  const Fixture fixture;
  for (const bool act_order : {false, true}) {
    Json facts;
    const std::vector<std::byte> whole = fixture.encode(act_order, fixture.rows, facts);
    for (const int64_t batch : {1, 5, 16})
      EXPECT_EQ(fixture.encode(act_order, batch, facts), whole);
  }
}

TEST(ErrorFeedback, FactorsTheDampedHessian) {
  for (const int64_t n : {1, 15, 64, 65, 150}) {
    Random random(static_cast<uint64_t>(n));
    const int64_t tokens = 2 * n + 3;
    std::vector<float> x(static_cast<size_t>(tokens * n));
    for (float& value : x) value = static_cast<float>(random.normal());
    InputStatistics gather("layer", n, true);
    gather.add(x.data(), tokens / 2);
    gather.add(x.data() + tokens / 2 * n, tokens - tokens / 2);
    const LinearStatistics statistics = std::move(gather).finish();
    double trace = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0;
        for (int64_t t = 0; t < tokens; ++t)
          sum +=
              double{x[static_cast<size_t>(t * n + i)]} * double{x[static_cast<size_t>(t * n + j)]};
        EXPECT_NEAR(statistics.hessian[static_cast<size_t>(i * n + j)],
                    sum / static_cast<double>(tokens), 1e-4);
      }
      trace += double{statistics.hessian[static_cast<size_t>(i * n + i)]};
    }
    const ErrorFeedback factor = ErrorFeedback::factor(statistics.hessian, n, {.damping = 0.1});
    const auto u = [&](int64_t i, int64_t j) {
      return i == j ? 1.0 : i > j ? 0.0 : double{factor.panel(j / 16)[i * 16 + j % 16]};
    };
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double product = 0;
        for (int64_t k = 0; k < n; ++k)
          product += u(i, k) * double{factor.pivots()[static_cast<size_t>(k)]} * u(j, k);
        double expected = double{statistics.hessian[static_cast<size_t>(i * n + j)]};
        if (i == j) expected += 0.1 * trace / static_cast<double>(n);
        EXPECT_NEAR(product, expected, 2e-5 * trace / static_cast<double>(n)) << n;
      }
    }
  }
}

// Against the product with the damped Hessian itself: whole panels and parts of one, rows that fill
// no batch, columns in another order.
TEST(ErrorFeedback, SolvesForTheDampedHessian) {
  for (const int64_t n : {1, 16, 20, 150}) {
    for (const bool by_activation : {false, true}) {
      Random random(static_cast<uint64_t>(n));
      const int64_t tokens = 3 * n + 5, rows = 37;
      std::vector<float> x(static_cast<size_t>(tokens * n));
      for (float& value : x) value = static_cast<float>(random.normal());
      InputStatistics gather("layer", n, true);
      gather.add(x.data(), tokens);
      const LinearStatistics statistics = std::move(gather).finish();
      double trace = 0;
      for (int64_t i = 0; i < n; ++i)
        trace += double{statistics.hessian[static_cast<size_t>(i * n + i)]};
      const double damping = 0.1 * trace / static_cast<double>(n);
      const ErrorFeedback factor = ErrorFeedback::factor(
          statistics.hessian, n, {.damping = 0.1, .by_activation = by_activation});
      std::vector<float> wanted(static_cast<size_t>(rows * n));
      for (float& value : wanted) value = static_cast<float>(random.normal());
      std::vector<float> solved = wanted;
      factor.solve(solved.data(), rows);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < n; ++j) {
          double product = damping * double{solved[static_cast<size_t>(r * n + j)]};
          for (int64_t i = 0; i < n; ++i)
            product += double{solved[static_cast<size_t>(r * n + i)]} *
                       double{statistics.hessian[static_cast<size_t>(i * n + j)]};
          // Single precision over some hundred terms.
          EXPECT_NEAR(product, wanted[static_cast<size_t>(r * n + j)], 5e-5) << n;
        }
      }
    }
  }
}

TEST(ErrorFeedback, RaisesTheDampingWhereAHessianIsSingularAndSaysSo) {
  std::vector<float> ones(64 * 64, 1.0f);  // One direction only.
  const ErrorFeedback factor = ErrorFeedback::factor(ones, 64, {.damping = 0.0});
  EXPECT_GT(factor.damping(), 0.0);
  const auto [code, message] =
      failure_of([] { ErrorFeedback::factor(std::vector<float>(16, 0.0f), 4, {}); });
  EXPECT_EQ(code, ExitCode::kBadInput);
}

TEST(InputStatistics, NameTheFirstValueThatIsNotFinite) {
  InputStatistics gather("blk.1.ffn_down.weight", 4, false);
  const std::vector<float> x = {1, 2, 3, 4, 5, INFINITY, 7, 8};
  const auto [code, message] = failure_of([&] { gather.add(x.data(), 2); });
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_TRUE(contains(message, "blk.1.ffn_down.weight is inf at token 1, channel 1")) << message;
}

}  // namespace
}  // namespace slmc::test

// Errors, checked sizes, random numbers, loops, tensors' sizes, plans.
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/core/stage.h"
#include "compress/core/system.h"
#include "compress/core/tensor.h"

namespace slmc {
namespace {

TEST(Error, ChecksOfOursAreBugs) {
  try {
    SLMC_CHECK(1 == 2, "the world is wrong");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kBug);
    EXPECT_NE(std::string(error.what()).find("the world is wrong"), std::string::npos);
    EXPECT_EQ(std::string(error.what()).find(SLMC_SOURCE_DIR), std::string::npos)
        << "machine paths do not belong into messages";
  }
}

TEST(CheckedArithmetic, RefusesWhatDoesNotFit) {
  EXPECT_EQ(checked_multiply(uint64_t{1} << 32, (uint64_t{1} << 32) - 1, "x"),
            (uint64_t{1} << 32) * ((uint64_t{1} << 32) - 1));
  EXPECT_THROW(checked_multiply(uint64_t{1} << 32, uint64_t{1} << 32, "x"), Error);
  EXPECT_EQ(checked_add(UINT64_MAX - 1, 1, "x"), UINT64_MAX);
  EXPECT_THROW(checked_add(UINT64_MAX, 1, "x"), Error);
}

TEST(Random, IsSplitMix64) {
  // From the reference program of Steele, Lea and Flood's generator (Vigna's splitmix64.c) with
  // seed 1234567.
  Random random(1234567);
  for (const uint64_t expected :
       {6457827717110365317ull, 3203168211198807973ull, 9817491932198370423ull,
        4593380528125082431ull, 16408922859458223821ull}) {
    EXPECT_EQ(random.next(), expected);
  }
  Random resumed(random.state());
  EXPECT_EQ(resumed.next(), random.next());
}

TEST(Random, HasTheMomentsItClaims) {
  Random random(1);
  const int n = 200000;
  double uniform = 0, mean = 0, square = 0;
  std::vector<int> counts(7);
  for (int i = 0; i < n; ++i) {
    const double u = random.uniform();
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    uniform += u;
    const double x = random.normal();
    mean += x, square += x * x;
    ++counts.at(random.below(7));
  }
  // Five standard errors: sqrt(1/12/n), sqrt(1/n), about sqrt(2/n), sqrt(n p (1 - p)).
  EXPECT_NEAR(uniform / n, 0.5, 5 * 0.000646);
  EXPECT_NEAR(mean / n, 0, 5 * 0.00224);
  EXPECT_NEAR(square / n, 1, 5 * 0.00316);
  for (const int count : counts) EXPECT_NEAR(count, n / 7.0, 5 * 157);
}

TEST(Parallel, VisitsEveryIndexOnceForAnyThreadCount) {
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    EXPECT_EQ(threads(), count);
    std::vector<std::atomic<int>> seen(1000);
    parallel_for(1000, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
    parallel_ranges(1000, 33, [&](int64_t begin, int64_t end) {
      EXPECT_LE(end - begin, 33);
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    for (const auto& each : seen) EXPECT_EQ(each, 2);
  }
  set_threads(0);
  parallel_for(0, [](int64_t) { FAIL(); });
  parallel_ranges(0, 8, [](int64_t, int64_t) { FAIL(); });
}

TEST(Parallel, RethrowsTheFirstException) {
  for (const int count : {1, 4}) {
    set_threads(count);
    EXPECT_THROW(parallel_for(100,
                              [](int64_t i) {
                                if (i == 42) throw_usage("x");
                              }),
                 Error);
  }
  set_threads(0);
}

TEST(Tensor, SizesOfBlockTypes) {
  // ggml: q4_0 is 16 bytes of nibbles and an f16 scale a block of 32; q6_k 210 bytes a block of
  // 256.
  EXPECT_EQ(dtype_row_bytes(DType::kQ4_0, 64), 36u);
  EXPECT_EQ(dtype_row_bytes(DType::kQ8_0, 32), 34u);
  EXPECT_EQ(dtype_row_bytes(DType::kQ6_K, 512), 420u);
  EXPECT_EQ(dtype_row_bytes(DType::kBF16, 5), 10u);
  EXPECT_THROW(dtype_row_bytes(DType::kQ4_0, 33), Error);
  EXPECT_THROW(dtype_row_bytes(DType::kF64, INT64_MAX), Error);
  EXPECT_THROW(dtype_row_bytes(DType::kF32, -1), Error);
  EXPECT_THROW(dtype_name(static_cast<DType>(999)), Error);
  EXPECT_FALSE(dtype_known(static_cast<DType>(4)));
  EXPECT_EQ(dtype_from_name("q4_0"), DType::kQ4_0);
  try {
    dtype_from_name("q4_9");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'q4_0'"), std::string::npos);
  }
}

TEST(Tensor, CountsElementsWithoutOverflow) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({3, 0, 5}), 0);
  EXPECT_EQ(element_count({2, 3, 4}), 24);
  EXPECT_THROW(element_count({int64_t{1} << 40, int64_t{1} << 40}), Error);
  EXPECT_THROW(element_count({-1}), Error);
  EXPECT_THROW(element_count({int64_t{1} << 62, 2}), Error);
}

TEST(Plan, GoesToJsonAndBack) {
  Plan plan;
  plan.stage = "quantize";
  plan.output = "out.gguf";
  plan.rows.push_back({.tensor = "blk.0.attn_q.weight",
                       .file_name = "q",
                       .shape = {4, 8},
                       .new_shape = {2, 8},
                       .from = "bf16",
                       .to = "q4_0",
                       .reason = "rule",
                       .bytes_before = 64,
                       .bytes_after = 18});
  plan.output_bytes = 18;
  plan.notes = {"note"};
  plan.details = {{"k", 1}};
  EXPECT_EQ(plan_to_json(plan_from_json(plan_to_json(plan), "p")), plan_to_json(plan));
  EXPECT_THROW(plan_from_json(Json::parse("{}"), "p"), Error);
  EXPECT_THROW(plan_from_json(Json::parse("[1]"), "p"), Error);
  EXPECT_NE(plan_text(plan).find("[4, 8] -> [2, 8]"), std::string::npos);
}

TEST(Context, StopsBeforeMemoryIsOverItsBound) {
  Context context;
  EXPECT_NO_THROW(context.check_ram("here"));
  context.max_ram = 1;
  try {
    context.check_ram("here");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kResources);
  }
  EXPECT_GT(peak_rss_bytes(), 1000000u);
}

}  // namespace
}  // namespace slmc

#include "compress/runtime/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/runtime/evaluate_windows.h"
#include "tests/runtime/fake_decoder.h"

namespace slmc {
namespace {

using testing::FakeDecoder;
using testing::noisy_logit;

// Always the same distribution, whatever came before; logits are shifted, which must not matter.
FakeDecoder constant_decoder(std::vector<double> probabilities, double shift) {
  const auto vocab = static_cast<int64_t>(probabilities.size());
  return FakeDecoder(vocab, [=](const std::vector<int32_t>&, int32_t id) {
    return static_cast<float>(std::log(probabilities[static_cast<size_t>(id)]) + shift);
  });
}

std::vector<int32_t> some_ids(int64_t count, int32_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * i + 3 * i) % vocab));
  return ids;
}

TEST(Evaluate, FiguresOfConstantDistributionsAreKnown) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.125}, q = {0.25, 0.5, 0.125, 0.125};
  const FakeDecoder model = constant_decoder(q, 3.0), teacher = constant_decoder(p, -20.0);
  const std::vector<int32_t> ids = {0, 1, 2, 3,
                                    0, 1, 0, 0};  // Windows of 4; scored: 1 2 3 and 1 0 0.
  Context context;
  const Json json = evaluate_decoders(model, &teacher, ids, {.context = 4}, context);
  EXPECT_EQ(json["tokens"], 8);
  EXPECT_EQ(json["scored_tokens"], 6);
  EXPECT_EQ(json["protocol"], "window");
  EXPECT_EQ(json["activations"], "f32");
  // Model: log2 losses 1 3 3 1 2 2, mean 2; teacher: 2 3 3 2 1 1, mean 2. Variance 0.8 of six
  // values, in units of ln 2.
  EXPECT_NEAR(json["perplexity"].get<double>(), 4.0,
              4e-6);  // Logits are rounded to float: 1e-7 of about 20.
  EXPECT_NEAR(json["perplexity_se"].get<double>(), 4.0 * std::log(2.0) * std::sqrt(0.8 / 6.0),
              4e-6);
  const Json& against = json["against"];
  EXPECT_NEAR(against["perplexity"].get<double>(), 4.0, 4e-5);
  // KL(p || q) = 1/2 log 2 - 1/4 log 2.
  for (const char* key : {"kld_mean", "kld_median", "kld_p99", "kld_max"})
    EXPECT_NEAR(against[key].get<double>(), 0.25 * std::log(2.0), 1e-6) << key;
  EXPECT_NEAR(against["kld_se"].get<double>(), 0.0, 1e-12);
  EXPECT_EQ(against["top1_agreement"], 0.0);
  EXPECT_FALSE(json.contains("size_bytes"));
}

TEST(Evaluate, AModelAgainstItselfDoesNotDiverge) {
  const FakeDecoder model(50, noisy_logit);
  Context context;
  const Json json = evaluate_decoders(model, &model, some_ids(200, 50), {.context = 40}, context);
  EXPECT_LT(json["against"]["kld_max"].get<double>(), 1e-14);
  EXPECT_EQ(json["against"]["top1_agreement"], 1.0);
  EXPECT_EQ(json["against"]["perplexity"], json["perplexity"]);
}

// The same sums in long double from the definition.
TEST(Evaluate, FiguresAgreeWithALongDoubleComputation) {
  const FakeDecoder model(37, noisy_logit);
  const FakeDecoder teacher(37, [](const std::vector<int32_t>& history, int32_t id) {
    return 0.8f * noisy_logit(history, id) + 0.01f * static_cast<float>(id);
  });
  const std::vector<int32_t> ids = some_ids(333, 37);
  const int64_t context_length = 64;
  Context context;
  const Json json = evaluate_decoders(model, &teacher, ids, {.context = context_length}, context);
  long double nll = 0, kld = 0;
  int64_t scored = 0;
  for (int64_t window = 0; window < 333 / context_length; ++window) {
    for (int64_t i = 1; i < context_length; ++i, ++scored) {
      const std::vector<int32_t> history(ids.begin() + window * context_length,
                                         ids.begin() + window * context_length + i);
      long double a[37], b[37], sum_a = 0, sum_b = 0;
      for (int32_t id = 0; id < 37; ++id) {
        b[id] = noisy_logit(history, id);
        a[id] = 0.8f * noisy_logit(history, id) + 0.01f * static_cast<float>(id);
        sum_a += std::exp(a[id]), sum_b += std::exp(b[id]);
      }
      nll += std::log(sum_b) - b[ids[static_cast<size_t>(window * context_length + i)]];
      for (int32_t id = 0; id < 37; ++id)
        kld += std::exp(a[id]) / sum_a * ((a[id] - std::log(sum_a)) - (b[id] - std::log(sum_b)));
    }
  }
  ASSERT_EQ(json["scored_tokens"], scored);
  EXPECT_NEAR(json["perplexity"].get<double>(), static_cast<double>(std::exp(nll / scored)),
              1e-14 * 229);
  EXPECT_NEAR(json["against"]["kld_mean"].get<double>(), static_cast<double>(kld / scored), 1e-14);
}

TEST(Evaluate, AnyNumberOfThreadsGivesTheSameBits) {
  const FakeDecoder model(61, noisy_logit);
  const FakeDecoder teacher(61, [](const std::vector<int32_t>& history, int32_t id) {
    return noisy_logit(history, id + 1);
  });
  const int before = threads();
  std::vector<std::string> results;
  for (int count : {1, 2, 3}) {
    set_threads(count);
    Context context;
    results.push_back(
        evaluate_decoders(model, &teacher, some_ids(1000, 61), {.context = 90}, context).dump());
  }
  set_threads(before);
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Evaluate, ProtocolsCutAndScoreAsStated) {
  const WindowProtocol window = make_protocol("window", 512, 7, true),
                       llama = make_protocol("llama.cpp", 512, 7, true);
  EXPECT_EQ(window.windows(1535), 2);  // The remainder is dropped.
  EXPECT_EQ(window.first_scored, 1);
  EXPECT_EQ(window.scored_per_window(), 511);
  EXPECT_EQ(window.first_token, -1);
  EXPECT_EQ(llama.first_scored, 257);
  EXPECT_EQ(llama.scored_per_window(), 255);
  EXPECT_EQ(llama.first_token, 7);
  EXPECT_EQ(make_protocol("llama.cpp", 512, 7, false).first_token, -1);
  EXPECT_EQ(make_protocol("llama.cpp", 7, 0, true).first_scored, 4);
  EXPECT_THROW(make_protocol("c4", 512, 0, true), Error);
  EXPECT_THROW(make_protocol("window", 1, 0, true), Error);
}

TEST(Evaluate, LlamaProtocolReplacesTheFirstTokenOfEachWindow) {
  // Everything but a window that starts with 5 makes the target as unlikely as 1 in 1 + 9 e^8.
  const FakeDecoder model(10, [](const std::vector<int32_t>& history, int32_t id) {
    return history[0] == 5 ? 0.0f : id == 1 ? -8.0f : 0.0f;
  });
  FakeDecoder with_bos = model;
  with_bos.arch_.bos = 5;
  const std::vector<int32_t> ids(24, 1);
  Context context;
  EXPECT_NEAR(evaluate_decoders(with_bos, nullptr, ids, {.protocol = "llama.cpp", .context = 8},
                                context)["perplexity"]
                  .get<double>(),
              10.0, 1e-12);
  EXPECT_GT(evaluate_decoders(model, nullptr, ids, {.protocol = "llama.cpp", .context = 8},
                              context)["perplexity"]
                .get<double>(),
            1000.0);
  EXPECT_GT(evaluate_decoders(with_bos, nullptr, ids, {.context = 8}, context)["perplexity"]
                .get<double>(),
            1000.0);
}

TEST(Evaluate, PaddingCountsForLikelihoodButNotForDivergence) {
  // Real ids 0 and 1 are alike in both models; the model's padding row takes half of the mass.
  const FakeDecoder model(
      3, [](const std::vector<int32_t>&, int32_t id) { return id == 2 ? std::log(2.0f) : 0.0f; });
  const FakeDecoder teacher(2, [](const std::vector<int32_t>&, int32_t) { return 4.0f; });
  Context context;
  const WindowScores scores = score_windows({&model}, &teacher, {0, 1, 0, 1, 0}, 2,
                                            make_protocol("window", 5, -1, false), context);
  const Json json = summarize_scores(scores, 0, {});
  EXPECT_NEAR(json["perplexity"].get<double>(), 4.0, 1e-6);
  EXPECT_NEAR(json["against"]["perplexity"].get<double>(), 2.0, 1e-12);
  EXPECT_NEAR(json["against"]["kld_mean"].get<double>(), 0.0, 1e-12);
  EXPECT_EQ(json["against"]["top1_agreement"], 1.0);
}

TEST(Evaluate, DocumentsWidenTheStandardError) {
  const FakeDecoder model(8, [](const std::vector<int32_t>& history, int32_t id) {
    return history.back() < 4 && id == history.back() ? 3.0f : 0.0f;
  });
  const std::vector<int32_t> ids = {1, 1, 1, 1, 1, 1, 6, 6, 6, 6, 6, 6, 2, 2, 2, 2, 2, 2};
  Context context;
  const WindowScores scores =
      score_windows({&model}, nullptr, ids, 8, make_protocol("window", 18, -1, false), context);
  std::vector<int32_t> documents;
  for (int i = 1; i < 18; ++i) documents.push_back(i / 6);
  const Json json = summarize_scores(scores, 0, documents);
  EXPECT_GT(json["perplexity_se_documents"].get<double>(),
            1.5 * json["perplexity_se"].get<double>());
  EXPECT_FALSE(
      summarize_scores(scores, 0, std::vector<int32_t>(17, 0)).contains("perplexity_se_documents"));
}

TEST(Evaluate, MaxTokensIsThePrefix) {
  const FakeDecoder model(50, noisy_logit);
  const std::vector<int32_t> ids = some_ids(300, 50);
  Context context;
  const Json part =
      evaluate_decoders(model, nullptr, ids, {.context = 32, .max_tokens = 100}, context);
  EXPECT_EQ(part["tokens"], 96);
  EXPECT_EQ(part, evaluate_decoders(model, nullptr, {ids.begin(), ids.begin() + 100},
                                    {.context = 32}, context));
}

std::string error_of(const std::function<void()>& body, ExitCode code) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

TEST(Evaluate, ErrorsSayWhatAndWhere) {
  Context context;
  const FakeDecoder model(50, noisy_logit, 256), narrow(49, noisy_logit);
  const FakeDecoder broken(50, [](const std::vector<int32_t>& history, int32_t) {
    return history.size() == 3 ? NAN : 1.0f;
  });
  const std::vector<int32_t> ids = some_ids(100, 50);
  EXPECT_NE(error_of([&] { evaluate_decoders(model, nullptr, ids, {.context = 128}, context); },
                     ExitCode::kUsage)
                .find("100 tokens"),
            std::string::npos);
  EXPECT_NE(error_of([&] { evaluate_decoders(model, nullptr, ids, {.context = 512}, context); },
                     ExitCode::kUsage)
                .find("256"),
            std::string::npos);
  EXPECT_NE(error_of([&] { evaluate_decoders(model, &narrow, ids, {.context = 10}, context); },
                     ExitCode::kBadInput)
                .find("50 and 49"),
            std::string::npos);
  EXPECT_NE(error_of([&] { evaluate_decoders(broken, nullptr, ids, {.context = 10}, context); },
                     ExitCode::kBadInput)
                .find("token 3 of window 0"),
            std::string::npos);
}

TEST(Evaluate, WithoutAContextTheShortestOfAllIsTaken) {
  Context context;
  const FakeDecoder model(50, noisy_logit, 64), teacher(50, noisy_logit, 48);
  EXPECT_EQ(evaluate_decoders(model, nullptr, some_ids(100, 50), {}, context)["context"], 64);
  EXPECT_EQ(evaluate_decoders(model, &teacher, some_ids(100, 50), {}, context)["context"], 48);
  EXPECT_EQ(evaluate_decoders(model, nullptr, some_ids(20, 50), {}, context)["context"], 20);
}

}  // namespace
}  // namespace slmc

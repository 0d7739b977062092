// What a teacher said, on disk: records, the loss over them, the stage, damage.
#include "distill/teacher_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/random.h"
#include "compress/runtime/decoder.h"
#include "distill/capture_stage.h"
#include "distill/loss_kernel.h"
#include "distill/stage.h"
#include "formats/model.h"
#include "tests/support/tiny_model.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

std::vector<float> random_logits(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> z;
  for (int64_t i = 0; i < count; ++i) z.push_back(static_cast<float>(2 * random.normal()));
  return z;
}

std::vector<double> softmax(const float* z, int64_t n, double t) {
  std::vector<double> p;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += p.emplace_back(std::exp(static_cast<double>(z[i]) / t));
  for (double& value : p) value /= sum;
  return p;
}

constexpr int64_t kVocab = 50;
const std::vector<int32_t> kLabels{3, 49};
const std::vector<uint8_t> kLearned{1, 1};

/// The k best of two rows of logits at a temperature.
struct Best {
  std::vector<int32_t> ids;
  std::vector<float> log_p;
  Best(const std::vector<float>& z, int64_t k, double t) {
    for (int64_t r = 0; r < 2; ++r) {
      const auto p = softmax(z.data() + r * kVocab, kVocab, t);
      std::vector<int32_t> order(kVocab);
      for (int32_t i = 0; i < kVocab; ++i) order[static_cast<size_t>(i)] = i;
      std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
      });
      for (int64_t i = 0; i < k; ++i) {
        ids.push_back(order[static_cast<size_t>(i)]);
        log_p.push_back(static_cast<float>(std::log(p[static_cast<size_t>(ids.back())])));
      }
    }
  }
};

// Sums over 50 float values and logarithms of them are good to 1e-5.
TEST(TopKLoss, WithAllTokensItIsTheLossOfWholeLogits) {
  const std::vector<float> student = random_logits(2 * kVocab, 1);
  const std::vector<float> teacher = random_logits(2 * kVocab, 2);
  for (const std::string& name : loss_names())
    for (const double t : {1.0, 2.0}) {
      const auto loss = loss_by_name(name);
      const auto* const rows = dynamic_cast<const DistributionLoss*>(loss.get());
      if (rows == nullptr) continue;
      const LossMix mix{.distill = {{rows}}, .weight = 0.7, .ce_weight = 0.3, .temperature = t};
      const Best best(teacher, kVocab, t);
      LossScratch scratch;
      std::vector<float> whole = student, cached = student;
      const LossSums a = loss_rows(mix, 2, kVocab, whole.data(),
                                   {.logits = teacher.data(), .vocab = kVocab, .top = {}},
                                   kLabels.data(), kLearned.data(), 1.0, true, scratch);
      const LossSums b =
          loss_rows(mix, 2, kVocab, cached.data(),
                    {.logits = nullptr,
                     .vocab = 0,
                     .top = {.k = kVocab, .ids = best.ids.data(), .log_p = best.log_p.data()}},
                    kLabels.data(), kLearned.data(), 1.0, true, scratch);
      if (name == "cross_entropy") continue;  // Of the label, which is no outcome of a cache.
      EXPECT_NEAR(a.total, b.total, 1e-5) << name;
      EXPECT_EQ(a.agree, b.agree);
      for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(whole[i], cached[i], 1e-5) << name;
    }
}

/// Sum over the k best and "another token" of p log(p/q), in double.
double forward_kl_of_outcomes(const float* student, const float* teacher, const int32_t* ids,
                              int64_t k, double t) {
  const auto p = softmax(teacher, kVocab, t), q = softmax(student, kVocab, t);
  double sum = 0, p_rest = 1, q_rest = 1;
  for (int64_t i = 0; i < k; ++i) {
    const auto id = static_cast<size_t>(ids[i]);
    sum += p[id] * std::log(p[id] / q[id]);
    p_rest -= p[id];
    q_rest -= q[id];
  }
  return sum + p_rest * std::log(p_rest / q_rest);
}

TEST(TopKLoss, TheTailIsOneOutcome) {
  const std::vector<float> student = random_logits(2 * kVocab, 3);
  const std::vector<float> teacher = random_logits(2 * kVocab, 4);
  const auto loss = loss_by_name("forward_kl");
  const int64_t k = 6;
  for (const double t : {1.0, 2.0}) {
    const Best best(teacher, k, t);
    const LossMix mix{.distill = {{dynamic_cast<const DistributionLoss*>(loss.get())}},
                      .weight = 1,
                      .ce_weight = 0,
                      .temperature = t};
    const auto expected = [&](const std::vector<float>& z) {
      double sum = 0;
      for (int64_t r = 0; r < 2; ++r)
        sum += t * t *
               forward_kl_of_outcomes(z.data() + r * kVocab, teacher.data() + r * kVocab,
                                      best.ids.data() + r * k, k, t);
      return sum;
    };
    LossScratch scratch;
    std::vector<float> gradient = student;
    const LossSums sums =
        loss_rows(mix, 2, kVocab, gradient.data(),
                  {.logits = nullptr,
                   .vocab = 0,
                   .top = {.k = k, .ids = best.ids.data(), .log_p = best.log_p.data()}},
                  kLabels.data(), kLearned.data(), 1.0, true, scratch);
    EXPECT_NEAR(sums.total, expected(student), 2e-5);
    for (size_t i = 0; i < student.size(); ++i) {
      std::vector<float> up = student, down = student;
      up[i] += 1e-3f;
      down[i] -= 1e-3f;
      EXPECT_NEAR(gradient[i],
                  (expected(up) - expected(down)) / static_cast<double>(up[i] - down[i]), 3e-5);
    }
  }
}

class Capture : public ::testing::Test {
 protected:
  void SetUp() override {
    test::write_tiny_model(folder_.file("teacher"), {.layers = 2, .context = 64});
    std::string text;
    for (int i = 0; i < 60; ++i) text += "{\"text\":\"line " + std::to_string(i * 37) + "\"}\n";
    test::spit(folder_.file("text.jsonl"), text);
    options_.teacher = folder_.file("teacher");
    options_.data = {folder_.file("text.jsonl")};
    options_.output = folder_.file("cache");
    options_.context = 32;
    options_.top_k = 7;
    options_.shard_tokens = 96;
  }
  void capture(Context context = {}) const {
    const auto stage = make_capture_stage(options_);
    stage->run(stage->plan({}), context);
  }
  test::TemporaryFolder folder_;
  CaptureOptions options_;
};

TEST_F(Capture, HoldsTheBestTokensOfTheTeachersSoftmax) {
  for (const bool isolate : {false, true})
    for (const char* values : {"f16", "f32"}) {
      options_.isolate_documents = isolate;
      options_.values = values;
      capture({.force = true});
      const auto cache = TeacherCache::open(options_.output);
      const PackedData data = cache->data();
      const auto model = Model::open(options_.teacher);
      const int64_t vocab = model->tokenizer().vocab_size(), rows = model->arch().vocab;
      const auto decoder = Decoder::create(*model, Activations::kF32);
      std::vector<int32_t> ids(32 * 7);
      std::vector<float> log_p(32 * 7), logits(static_cast<size_t>(32 * rows));
      ASSERT_GT(data.windows, 4);
      for (const int64_t window : {int64_t{0}, data.windows - 1}) {
        if (isolate) {
          const int32_t* const document = data.document.data() + window * 32;
          for (int64_t i = 0; i < 32; ++i) {
            int64_t first = i;
            while (first > 0 && document[first - 1] == document[i]) --first;
            const auto kv = decoder->new_cache(32);
            decoder->forward(*kv, {data.inputs(window) + first, static_cast<size_t>(i - first + 1)},
                             logits.data() + i * rows, true);
          }
        } else {
          const auto kv = decoder->new_cache(32);
          decoder->forward(*kv, {data.inputs(window), 32}, logits.data(), false);
        }
        for (const double t : {1.0, 2.0}) {
          cache->read(window, t, ids.data(), log_p.data());
          for (int64_t i = 0; i < 32; ++i) {
            const auto p = softmax(logits.data() + i * rows, vocab, t);
            for (size_t j = 0; j < 7; ++j) {
              const size_t at = static_cast<size_t>(i) * 7 + j;
              // f16 keeps 11 bits of log p.
              const double expected = std::log(p[static_cast<size_t>(ids[at])]);
              EXPECT_NEAR(log_p[at], expected,
                          values == std::string("f32") ? 1e-5 : 1e-5 - expected / 2048);
              EXPECT_LE(std::count_if(
                            p.begin(), p.end(),
                            [&](double other) { return other > p[static_cast<size_t>(ids[at])]; }),
                        static_cast<int64_t>(j));
            }
          }
        }
      }
    }
}

TEST_F(Capture, GoesOnWithTheShardsOfAKilledRun) {
  capture();
  const std::string whole = test::slurp(folder_.file("cache/cache.json"));
  const std::string last = test::slurp(folder_.file("cache/shard-00002.bin"));
  // What a run killed in its third shard leaves.
  fs::create_directories(folder_.file("cache.partial"));
  for (const char* name : {"tokens.bin", "shard-00000.bin", "shard-00001.bin"})
    fs::copy_file(folder_.file(std::string("cache/") + name),
                  folder_.file(std::string("cache.partial/") + name));
  Json plan = Json::parse(whole);
  plan.erase("shards");
  plan.erase("tokens_hash");
  test::spit(folder_.file("cache.partial/capture.json"), plan.dump());
  const auto before = fs::last_write_time(folder_.file("cache.partial/shard-00001.bin"));
  fs::remove_all(folder_.file("cache"));
  capture({.resume = true});
  EXPECT_EQ(test::slurp(folder_.file("cache/cache.json")), whole);
  EXPECT_EQ(test::slurp(folder_.file("cache/shard-00002.bin")), last);
  EXPECT_EQ(fs::last_write_time(folder_.file("cache/shard-00001.bin")), before);
}

TEST_F(Capture, DamageIsFoundAndNamed) {
  capture();
  const auto error = [&] {
    return test::error_of([&] {
      const auto cache = TeacherCache::open(options_.output);
      std::vector<int32_t> ids(32 * 7);
      std::vector<float> log_p(32 * 7);
      cache->read(0, 1.0, ids.data(), log_p.data());
    });
  };
  EXPECT_EQ(error(), "");
  const std::string shard = folder_.file("cache/shard-00000.bin");
  const std::string good = test::slurp(shard);
  std::string bad = good;
  bad[100] = static_cast<char>(bad[100] ^ 1);
  test::spit(shard, bad);
  EXPECT_NE(error().find("shard-00000.bin: damaged"), std::string::npos) << error();
  test::spit(shard, good.substr(0, good.size() - 1));
  EXPECT_NE(error().find("bytes, found"), std::string::npos) << error();
  test::spit(shard, good);
  std::string tokens = test::slurp(folder_.file("cache/tokens.bin"));
  tokens[4] = static_cast<char>(tokens[4] ^ 1);
  test::spit(folder_.file("cache/tokens.bin"), tokens);
  EXPECT_NE(error().find("tokens.bin: the hash is"), std::string::npos) << error();
  for (const char* text : {"{}", "[]", "{\"format\":\"slmc teacher cache\",\"version\":2}"}) {
    test::spit(folder_.file("cache/cache.json"), text);
    EXPECT_NE(error().find("cache.json"), std::string::npos) << error();
  }
}

// Hours of a teacher's work are not thrown away for an option that was forgotten.
TEST_F(Capture, AnotherCaptureIsNotContinuedAndWhatThereIsStays) {
  capture();
  const auto cache = TeacherCache::open(options_.output);
  const TeacherCacheHeader& header = cache->header();
  const PackedData data = cache->data();
  const std::string path = folder_.file("half");
  {
    TeacherCacheWriter writer(path, header, data, false, false);
    writer.write_shard(std::vector<std::byte>(
        static_cast<size_t>(header.windows_in(0) * header.context * header.record_bytes())));
    writer.keep();
  }
  TeacherCacheHeader other = header;
  other.k = 3;
  const std::string error =
      test::error_of([&] { TeacherCacheWriter(path, other, data, false, true); });
  EXPECT_NE(error.find("k was 7 and is 3"), std::string::npos) << error;
  TeacherCacheHeader moved = header;
  moved.teacher = "elsewhere";
  EXPECT_EQ(TeacherCacheWriter(path, moved, data, false, true).next_shard(), 1);
}

// By the loss itself, parameters or not.
TEST_F(Capture, ThePlanSaysWhichLossesLoseByACache) {
  capture();
  test::write_tiny_model(folder_.file("student"), {.layers = 1, .context = 64});
  DistillOptions o;
  o.teacher = options_.output;
  o.student = folder_.file("student");
  o.output = folder_.file("out");
  for (const auto& [loss, loses] : std::vector<std::pair<std::string, bool>>{
           {"forward_kl", false}, {"skew_kl(alpha=0.2)", false}, {"jsd(beta=0.3)", true}}) {
    o.loss = loss;
    std::string notes;
    for (const std::string& note : make_distill_stage(o)->plan({}).notes) notes += note + "\n";
    EXPECT_EQ(notes.find("finds unlikely") != std::string::npos, loses) << notes;
  }
}

TEST_F(Capture, DistillRefusesWhatTheCacheCannotGive) {
  capture();
  test::write_tiny_model(folder_.file("student"), {.layers = 1, .context = 64});
  DistillOptions o;
  o.teacher = options_.output;
  o.student = folder_.file("student");
  o.output = folder_.file("out");
  const auto error = [&] { return test::error_of([&] { make_distill_stage(o)->plan({}); }); };
  EXPECT_EQ(error(), "");
  o.temperature = 3;
  EXPECT_NE(error().find("holds the teacher at 1, 2; found 3"), std::string::npos) << error();
  o.temperature = 2;
  o.student = "layers:1";
  EXPECT_NE(error().find("not its layers"), std::string::npos) << error();
  o.student = folder_.file("student");
  o.eval_windows = 1000000;
  EXPECT_NE(error().find("eval_windows: expected less than"), std::string::npos) << error();
}

}  // namespace
}  // namespace slmc

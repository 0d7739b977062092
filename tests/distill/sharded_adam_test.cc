// The optimizer over ranks, which are threads here: the same bits as alone, on any number of them.
#include "distill/sharded_adam.h"

#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <cstring>
#include <functional>
#include <thread>

#include "compress/core/parallel.h"
#include "compress/core/random.h"

namespace slmc {
namespace {

/// What ranks that are threads of one process share.
struct Meeting {
  explicit Meeting(int size) : barrier(size), floats(size), doubles(size), counts(size) {}
  std::barrier<> barrier;
  std::vector<std::span<float>> floats;
  std::vector<std::vector<double>> doubles;
  std::vector<std::vector<int64_t>> counts;
};

class ThreadGroup : public RankGroup {
 public:
  ThreadGroup(Meeting& meeting, int rank, int size)
      : RankGroup({.rank = rank, .size = size}), meeting_(meeting) {}
  void gather(std::span<const float> mine, std::span<float> all) override {
    show({const_cast<float*>(mine.data()), mine.size()});
    for (size_t r = 0; r < meeting_.floats.size(); ++r)
      std::copy_n(meeting_.floats[r].begin(), mine.size(), all.begin() + r * mine.size());
    meeting_.barrier.arrive_and_wait();
  }
  std::vector<double> gather(std::span<const double> mine) override {
    meeting_.doubles[rank()].assign(mine.begin(), mine.end());
    meeting_.barrier.arrive_and_wait();
    std::vector<double> all;
    for (const auto& each : meeting_.doubles) all.insert(all.end(), each.begin(), each.end());
    meeting_.barrier.arrive_and_wait();
    return all;
  }
  void exchange(std::span<float> out, const std::vector<int64_t>& out_counts, std::span<float> in,
                const std::vector<int64_t>& in_counts) override {
    meeting_.counts[rank()] = out_counts;
    show(out);
    int64_t to = 0;
    for (int r = 0; r < size(); ++r) {
      const auto& counts = meeting_.counts[r];
      int64_t from = 0;
      for (int before = 0; before < rank(); ++before) from += counts[before];
      EXPECT_EQ(counts[rank()], in_counts[r]);
      std::copy_n(meeting_.floats[r].begin() + from, in_counts[r], in.begin() + to);
      to += in_counts[r];
    }
    EXPECT_EQ(to, std::ssize(in));
    meeting_.barrier.arrive_and_wait();
  }
  void from_first(std::span<float> values) override {
    show(values);
    if (!first()) std::copy_n(meeting_.floats[0].begin(), values.size(), values.begin());
    meeting_.barrier.arrive_and_wait();
  }
  std::string from_first(const std::string& text) override { return text; }
  void fail(const Error&) override {}
  bool lost() const override { return false; }
  std::string carrier() const override { return "threads"; }

 private:
  void show(std::span<float> values) {
    meeting_.floats[rank()] = values;
    meeting_.barrier.arrive_and_wait();
  }
  Meeting& meeting_;
};

void on_ranks(int size, const std::function<void(RankGroup&)>& body) {
  Meeting meeting(size);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      ThreadGroup group(meeting, rank, size);
      body(group);
    });
  for (std::thread& thread : threads) thread.join();
}

constexpr int64_t kTotal = 30001, kDecayed = 20000;  // Eight pieces, the last one short.

ParameterLayout layout() {
  ParameterLayout layout;
  layout.total = kTotal;
  layout.decayed = kDecayed;
  return layout;
}

float gradient(int step, int64_t lane, int64_t i) {
  return static_cast<float>(
      Random(static_cast<uint64_t>(step * 1000 + lane) * 7919 + static_cast<uint64_t>(i)).normal());
}

/// All that a run leaves behind.
struct Result {
  std::vector<float> weights = std::vector<float>(kTotal, 0.5f);
  std::vector<float> moments[2] = {std::vector<float>(kTotal), std::vector<float>(kTotal)};
  std::vector<double> norms;
  int steps = 0;
};

/// Goes on from `start` to `steps` steps on `ranks` ranks.
Result train(int ranks, int64_t lanes, int steps, const Result& start = {}) {
  Result result = start;
  std::vector<uint8_t> mask(kTotal, 1);
  for (int64_t i = 0; i < kTotal; i += 11) mask[i] = 0;
  on_ranks(ranks, [&](RankGroup& group) {
    ShardedAdam adam({}, layout(), lanes, group);
    std::vector<float> weights = start.weights;
    adam.load([&](int moment, int64_t begin, std::span<float> out) {
      std::copy_n(start.moments[moment].begin() + begin, out.size(), out.begin());
    });
    std::vector<std::vector<float>> gradients(adam.lanes().count(), std::vector<float>(kTotal));
    for (int step = start.steps; step < steps; ++step) {
      std::vector<float*> mine;
      for (int64_t lane = 0; lane < adam.lanes().count(); ++lane) {
        mine.push_back(gradients[lane].data());
        for (int64_t i = 0; i < kTotal; ++i)
          mine.back()[i] = gradient(step, adam.lanes().first + lane, i);
      }
      const double norm = adam.sum(mine);
      if (group.first()) result.norms.push_back(norm);
      adam.step(step + 1, 1e-2, 0.7, weights.data(), mine[0], mask.data());
    }
    adam.save([&](int moment, int64_t begin, std::span<const float> values) {
      std::copy(values.begin(), values.end(), result.moments[moment].begin() + begin);
    });
    if (group.first()) result.weights = weights;
  });
  result.steps = steps;
  return result;
}

void expect_same_bits(const Result& a, const Result& b, const std::string& what) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return std::memcmp(x.data(), y.data(), x.size() * 4) == 0;
  };
  EXPECT_TRUE(same(a.weights, b.weights)) << what;
  EXPECT_TRUE(same(a.moments[0], b.moments[0]) && same(a.moments[1], b.moments[1])) << what;
  EXPECT_EQ(a.norms, b.norms) << what;
}

TEST(ShardedAdam, GivesTheSameBitsOnAnyNumberOfRanks) {
  for (const int64_t lanes : {5, 8, 11}) {
    const Result alone = train(1, lanes, 2);
    for (const int ranks : {2, 3, 4, 5})
      expect_same_bits(alone, train(ranks, lanes, 2),
                       std::to_string(ranks) + " ranks, " + std::to_string(lanes) + " lanes");
  }
}

TEST(ShardedAdam, GoesOnOnAnotherNumberOfRanks) {
  const Result whole = train(1, 6, 3);
  expect_same_bits(whole, train(2, 6, 3, train(3, 6, 1)), "3, then 2");
  expect_same_bits(whole, train(6, 6, 3, train(1, 6, 2)), "1, then 6");
}

TEST(ShardedAdam, SumsAllLanes) {
  const int64_t lanes = 7;
  double squares = 0;
  for (int64_t i = 0; i < kTotal; ++i) {
    double sum = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) sum += static_cast<double>(gradient(0, lane, i));
    squares += sum * sum;
  }
  // Six additions of float32.
  EXPECT_NEAR(train(3, lanes, 1).norms[0], std::sqrt(squares), 1e-6 * std::sqrt(squares));
}

TEST(ShardedAdam, IsTheSameForAnyNumberOfThreads) {
  set_threads(1);
  const Result one = train(1, 3, 2);
  set_threads(3);
  expect_same_bits(one, train(1, 3, 2), "threads");
  set_threads(0);
}

TEST(ShardedAdam, ARankHoldsItsPartOfTheMomentsOnly) {
  std::vector<RankShare> shards(3);
  on_ranks(3, [&](RankGroup& group) {
    shards[group.rank()] = ShardedAdam({}, layout(), 3, group).shard();
  });
  EXPECT_EQ(shards[0].first, 0);
  EXPECT_EQ(shards[1].first, shards[0].last);
  EXPECT_EQ(shards[2].first, shards[1].last);
  EXPECT_EQ(shards[2].last, kTotal);
  for (const RankShare& each : shards) EXPECT_LE(each.count(), 3 * 4096);
}

}  // namespace
}  // namespace slmc

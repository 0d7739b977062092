// The solver against trying everything, and against an exact table over every budget.
#include "quantize/budget_solver.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/core/random.h"

namespace slmc::test {
namespace {

BudgetItems random_items(Random& random, size_t items, size_t choices, uint64_t largest) {
  BudgetItems all(items);
  for (auto& item : all) {
    const size_t count = 1 + random.below(choices);
    for (size_t t = 0; t < count; ++t)
      item.push_back({1 + random.below(largest), random.uniform() * random.uniform()});
  }
  return all;
}

struct Best {
  double loss = std::numeric_limits<double>::infinity();
  uint64_t cost = std::numeric_limits<uint64_t>::max();
};

/// All combinations: the least loss within `limit`, the least cost within `loss`.
void try_all(const BudgetItems& items, size_t at, uint64_t cost, double loss, uint64_t limit,
             double allowed, Best& by_loss, Best& by_cost) {
  if (at == items.size()) {
    if (cost <= limit) by_loss.loss = std::min(by_loss.loss, loss);
    if (loss <= allowed) by_cost.cost = std::min(by_cost.cost, cost);
    return;
  }
  for (const BudgetChoice& choice : items[at])
    try_all(items, at + 1, cost + choice.cost, loss + choice.loss, limit, allowed, by_loss,
            by_cost);
}

void expect_consistent(const BudgetItems& items, const BudgetSolution& solution) {
  ASSERT_EQ(solution.chosen.size(), items.size());
  uint64_t cost = 0;
  double loss = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    cost += items[i][solution.chosen[i]].cost;
    loss += items[i][solution.chosen[i]].loss;
  }
  EXPECT_EQ(cost, solution.cost);
  EXPECT_DOUBLE_EQ(loss, solution.loss);
}

TEST(BudgetSolver, IsAsGoodAsTryingEverything) {
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    const BudgetItems items = random_items(random, 1 + random.below(7), 5, 40);
    uint64_t most = 0;
    for (const auto& item : items) {
      uint64_t dearest = 0;
      for (const BudgetChoice& choice : item) dearest = std::max(dearest, choice.cost);
      most += dearest;
    }
    const uint64_t least = smallest_cost(items);
    const uint64_t limit = least + random.below(most - least + 2);
    const double allowed = smallest_loss(items) + random.uniform();
    Best by_loss, by_cost;
    try_all(items, 0, 0, 0, limit, allowed, by_loss, by_cost);
    const BudgetSolution cheap = least_cost(items, allowed), good = least_loss(items, limit);
    expect_consistent(items, good);
    EXPECT_LE(good.cost, limit);
    EXPECT_NEAR(good.loss, by_loss.loss, 1e-12) << round;
    EXPECT_EQ(good.bound, good.loss);
    expect_consistent(items, cheap);
    EXPECT_LE(cheap.loss, allowed);
    EXPECT_EQ(cheap.cost, by_cost.cost) << round;
  }
}

// As many items and types as a model has; the reference is the table of all budgets.
TEST(BudgetSolver, IsExactForWholeModels) {
  Random random(2);
  for (int round = 0; round < 5; ++round) {
    const size_t count = 120;
    BudgetItems items(count);
    for (auto& item : items) {
      // Types of a tensor: loss falls about fourfold a bit, not exactly.
      const uint64_t size = 1 + random.below(12);
      const double weight = 0.01 + random.uniform();
      for (uint64_t bits = 3; bits <= 9; ++bits)
        item.push_back({size * bits, weight * std::pow(0.25, static_cast<double>(bits)) *
                                         (0.7 + 0.6 * random.uniform())});
    }
    const uint64_t least = smallest_cost(items), limit = least + random.below(2 * least);
    std::vector<double> table(limit + 1, 0.0);
    for (const auto& item : items) {
      std::vector<double> next(limit + 1, std::numeric_limits<double>::infinity());
      for (const BudgetChoice& choice : item) {
        for (uint64_t c = choice.cost; c <= limit; ++c)
          next[c] = std::min(next[c], table[c - choice.cost] + choice.loss);
      }
      table = std::move(next);
    }
    const BudgetSolution solution = least_loss(items, limit);
    expect_consistent(items, solution);
    EXPECT_LE(solution.cost, limit);
    EXPECT_NEAR(solution.loss, table[limit], 1e-12 * table[limit]) << round;
    // With too little room to search it says how far from the best it may be.
    const BudgetSolution rough = least_loss(items, limit, 1);
    EXPECT_LE(rough.bound, solution.loss * (1 + 1e-12));
    EXPECT_GE(rough.loss, solution.loss * (1 - 1e-12));
  }
}

TEST(BudgetSolver, TheCurveIsOfBestSolutions) {
  Random random(3);
  const BudgetItems items = random_items(random, 6, 5, 40);
  const std::vector<BudgetSolution> curve = budget_curve(items, 10);
  ASSERT_GE(curve.size(), 2u);
  EXPECT_LE(curve.size(), 11u);
  EXPECT_EQ(curve.front().cost, smallest_cost(items));
  EXPECT_NEAR(curve.back().loss, smallest_loss(items), 1e-12);
  for (const BudgetSolution& point : curve) {
    expect_consistent(items, point);
    EXPECT_NEAR(point.loss, least_loss(items, point.cost).loss, 1e-12);
  }
}

}  // namespace
}  // namespace slmc::test

// Which choice of each item loses least within a budget: the multiple-choice knapsack, solved
// exactly. Knows nothing of models: an item is a tensor (or several that share a type), a choice is
// a type with its cost (bytes) and its loss (nats).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace slmc {

struct BudgetChoice {
  uint64_t cost = 0;
  double loss = 0;  ///< >= 0
};
using BudgetItems = std::vector<std::vector<BudgetChoice>>;  ///< Each item has one choice or more.

struct BudgetSolution {
  std::vector<size_t> chosen;  ///< An index into each item's choices.
  uint64_t cost = 0;
  double loss = 0;
  double bound = 0;  ///< No solution within the budget loses less; equal to `loss` when exact.
};

uint64_t smallest_cost(const BudgetItems& items);
double smallest_loss(const BudgetItems& items);

/// The least loss at a cost of at most `limit`, which is at least smallest_cost. The linear
/// relaxation (Sinha and Zoltners 1979) gives a multiplier; choices that it shows to be hopeless
/// are dropped; what is left is searched by dynamic programming over undominated (cost, loss) pairs
/// with the relaxation as bound. Exact unless more than `states` pairs survive at once, which
/// `bound` then tells.
BudgetSolution least_loss(const BudgetItems& items, uint64_t limit, size_t states = 200000);
/// The least cost at a loss of at most `limit`, which is at least smallest_loss.
BudgetSolution least_cost(const BudgetItems& items, double limit);
/// Solutions along the lower convex hull of loss over cost, of ascending cost: `points` of them at
/// most, the cheapest and the best included. Each is the best for its cost.
std::vector<BudgetSolution> budget_curve(const BudgetItems& items, size_t points);

}  // namespace slmc

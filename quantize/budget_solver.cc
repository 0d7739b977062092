#include "quantize/budget_solver.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "compress/core/error.h"

namespace slmc {
namespace {

struct Option {
  uint64_t cost;
  double loss;
  size_t index;  // Among the item's choices.
};

/// An item's options of ascending cost and strictly falling loss.
std::vector<Option> undominated(const std::vector<BudgetChoice>& choices) {
  std::vector<Option> all, kept;
  for (size_t t = 0; t < choices.size(); ++t) all.push_back({choices[t].cost, choices[t].loss, t});
  std::stable_sort(all.begin(), all.end(), [](const Option& a, const Option& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss;
  });
  for (const Option& option : all)
    if (kept.empty() || option.loss < kept.back().loss) kept.push_back(option);
  return kept;
}

/// A step along an item's lower convex hull: from one option to a dearer one.
struct Step {
  size_t item, to;  // `to` among the item's options.
  uint64_t cost;
  double gain;
  double rate() const { return gain / static_cast<double>(cost); }
};

class Knapsack {
 public:
  explicit Knapsack(const BudgetItems& items) {
    for (const auto& choices : items) {
      SLMC_CHECK(!choices.empty(), "an item without a choice");
      options_.push_back(undominated(choices));
    }
    for (size_t i = 0; i < options_.size(); ++i) add_steps(i);
    std::stable_sort(steps_.begin(), steps_.end(),
                     [](const Step& a, const Step& b) { return a.rate() > b.rate(); });
  }

  BudgetSolution solve(uint64_t limit, size_t states) {
    limit_ = limit;
    relax();
    if (multiplier_ > 0) search(states);
    BudgetSolution solution = solution_of(best_);
    solution.bound = std::min(solution.loss, dropped_);
    return solution;
  }

  std::vector<BudgetSolution> curve(size_t points) const {
    std::vector<BudgetSolution> all;
    std::vector<size_t> at(options_.size(), 0);
    const size_t last = steps_.size();
    size_t next = 0;
    for (size_t s = 0; s <= last; ++s) {
      if (s == next || s == last) {
        all.push_back(solution_of(at));
        all.back().bound = all.back().loss;
        const size_t passed = all.size();
        next = std::max(s + 1, passed * last / std::max<size_t>(1, points - 1));
      }
      if (s < last) at[steps_[s].item] = steps_[s].to;
    }
    return all;
  }

 private:
  void add_steps(size_t item) {
    const std::vector<Option>& options = options_[item];
    for (size_t from = 0; from + 1 < options.size();) {
      size_t to = from + 1;
      double rate = -1;
      for (size_t t = from + 1; t < options.size(); ++t) {
        const double gained = (options[from].loss - options[t].loss) /
                              static_cast<double>(options[t].cost - options[from].cost);
        if (gained >= rate) rate = gained, to = t;
      }
      steps_.push_back(
          {item, to, options[to].cost - options[from].cost, options[from].loss - options[to].loss});
      from = to;
    }
  }

  /// The linear relaxation: its multiplier, and a solution by taking what still fits.
  void relax() {
    best_.assign(options_.size(), 0);
    uint64_t cost = 0;
    for (const auto& options : options_) cost += options.front().cost;
    SLMC_CHECK(cost <= limit_, "a budget below the smallest cost");
    std::vector<bool> stopped(options_.size(), false);
    multiplier_ = 0;
    for (const Step& step : steps_) {
      if (stopped[step.item]) continue;
      if (cost + step.cost <= limit_) {
        cost += step.cost;
        best_[step.item] = step.to;
      } else {
        stopped[step.item] = true;
        if (multiplier_ == 0) multiplier_ = step.rate();
      }
    }
    best_loss_ = loss_of(best_);
  }

  double priced(const Option& option) const {
    return option.loss + multiplier_ * static_cast<double>(option.cost);
  }

  struct State {
    uint64_t cost;
    double loss, priced;  // `priced`: loss and priced cost of the items so far.
    size_t parent, option;
  };

  void search(size_t most) {
    prepare();
    std::vector<std::vector<State>> levels = {{State{0, 0, 0, 0, 0}}};
    for (size_t level = 0; level < order_.size(); ++level) {
      std::vector<State> next = grow(levels.back(), level);
      if (next.size() > most) {
        std::stable_sort(next.begin(), next.end(),
                         [](const State& a, const State& b) { return a.priced < b.priced; });
        dropped_ = std::min(dropped_, bound_of(next[most], level + 1));
        next.resize(most);
      }
      levels.push_back(std::move(next));
      finish_from(levels, level + 1);
    }
  }

  /// The options worth looking at, and for every tail of the order its least cost and the choice
  /// that the multiplier makes there.
  void prepare() {
    const size_t items = options_.size();
    cheapest_.resize(items);
    double bound = -multiplier_ * static_cast<double>(limit_);
    for (size_t i = 0; i < items; ++i) {
      for (size_t t = 0; t < options_[i].size(); ++t)
        if (priced(options_[i][t]) < priced(options_[i][cheapest_[i]])) cheapest_[i] = t;
      bound += priced(options_[i][cheapest_[i]]);
    }
    open_.assign(items, {});
    for (size_t i = 0; i < items; ++i) {
      const double least = priced(options_[i][cheapest_[i]]);
      for (size_t t = 0; t < options_[i].size(); ++t)
        if (bound + (priced(options_[i][t]) - least) <= best_loss_ || t == cheapest_[i])
          open_[i].push_back(t);
    }
    order_.resize(items);
    std::iota(order_.begin(), order_.end(), size_t{0});
    const auto span = [&](size_t i) {
      return options_[i][open_[i].back()].cost - options_[i][open_[i].front()].cost;
    };
    std::stable_sort(order_.begin(), order_.end(),
                     [&](size_t a, size_t b) { return span(a) > span(b); });
    tails_.assign(items + 1, Tail{});
    for (size_t level = items; level-- > 0;) {
      const size_t i = order_[level];
      const Option& chosen = options_[i][cheapest_[i]];
      const Tail& after = tails_[level + 1];
      tails_[level] = {after.least_cost + options_[i][open_[i].front()].cost,
                       after.cost + chosen.cost, after.loss + chosen.loss,
                       after.priced + priced(chosen)};
    }
  }

  double bound_of(const State& state, size_t level) const {
    return state.priced + tails_[level].priced - multiplier_ * static_cast<double>(limit_);
  }

  std::vector<State> grow(const std::vector<State>& states, size_t level) const {
    const size_t item = order_[level];
    std::vector<State> all, kept;
    for (size_t s = 0; s < states.size(); ++s) {
      for (const size_t t : open_[item]) {
        const Option& option = options_[item][t];
        const State state{states[s].cost + option.cost, states[s].loss + option.loss,
                          states[s].priced + priced(option), s, t};
        if (state.cost + tails_[level + 1].least_cost > limit_) continue;
        if (bound_of(state, level + 1) < best_loss_) all.push_back(state);
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const State& a, const State& b) {
      return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss;
    });
    for (const State& state : all)
      if (kept.empty() || state.loss < kept.back().loss) kept.push_back(state);
    return kept;
  }

  /// Completes the newest states by the multiplier's choice and keeps what is better than the best.
  void finish_from(const std::vector<std::vector<State>>& levels, size_t level) {
    const Tail& tail = tails_[level];
    size_t found = std::numeric_limits<size_t>::max();
    for (size_t s = 0; s < levels[level].size(); ++s) {
      const State& state = levels[level][s];
      if (state.cost + tail.cost > limit_ || state.loss + tail.loss >= best_loss_) continue;
      best_loss_ = state.loss + tail.loss;
      found = s;
    }
    if (found == std::numeric_limits<size_t>::max()) return;
    for (size_t l = level; l < order_.size(); ++l) best_[order_[l]] = cheapest_[order_[l]];
    for (size_t l = level; l > 0; --l) {
      best_[order_[l - 1]] = levels[l][found].option;
      found = levels[l][found].parent;
    }
  }

  double loss_of(const std::vector<size_t>& at) const {
    double loss = 0;
    for (size_t i = 0; i < at.size(); ++i) loss += options_[i][at[i]].loss;
    return loss;
  }

  BudgetSolution solution_of(const std::vector<size_t>& at) const {
    BudgetSolution solution;
    for (size_t i = 0; i < at.size(); ++i) {
      const Option& option = options_[i][at[i]];
      solution.chosen.push_back(option.index);
      solution.cost += option.cost;
      solution.loss += option.loss;
    }
    return solution;
  }

  struct Tail {
    uint64_t least_cost = 0, cost = 0;
    double loss = 0, priced = 0;
  };

  std::vector<std::vector<Option>> options_;
  std::vector<Step> steps_;
  uint64_t limit_ = 0;
  double multiplier_ = 0, best_loss_ = 0;
  double dropped_ = std::numeric_limits<double>::infinity();
  std::vector<size_t> best_, cheapest_, order_;
  std::vector<std::vector<size_t>> open_;
  std::vector<Tail> tails_;
};

}  // namespace

uint64_t smallest_cost(const BudgetItems& items) {
  uint64_t cost = 0;
  for (const auto& choices : items)
    cost += std::min_element(
                choices.begin(), choices.end(),
                [](const BudgetChoice& a, const BudgetChoice& b) { return a.cost < b.cost; })
                ->cost;
  return cost;
}

double smallest_loss(const BudgetItems& items) {
  double loss = 0;
  for (const auto& choices : items)
    loss += std::min_element(
                choices.begin(), choices.end(),
                [](const BudgetChoice& a, const BudgetChoice& b) { return a.loss < b.loss; })
                ->loss;
  return loss;
}

BudgetSolution least_loss(const BudgetItems& items, uint64_t limit, size_t states) {
  return Knapsack(items).solve(limit, states);
}

BudgetSolution least_cost(const BudgetItems& items, double limit) {
  uint64_t low = smallest_cost(items), high = low;
  for (const auto& choices : items)
    for (const BudgetChoice& choice : choices) high += choice.cost;
  BudgetSolution found = least_loss(items, high);
  SLMC_CHECK(found.loss <= limit, "a loss below the smallest");
  high = found.cost;
  while (low < high) {  // The loss falls as the budget grows.
    const uint64_t middle = low + (high - low) / 2;
    BudgetSolution solution = least_loss(items, middle);
    if (solution.loss <= limit) {
      high = solution.cost;
      found = std::move(solution);
    } else {
      low = middle + 1;
    }
  }
  return found;
}

std::vector<BudgetSolution> budget_curve(const BudgetItems& items, size_t points) {
  return Knapsack(items).curve(points);
}

}  // namespace slmc

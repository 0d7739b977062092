// The products of a run: each measurement writes one, the best so far stays on the disk, and at the
// end becomes the output. So the figure of the best is the figure of the file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "compress/core/json.h"
#include "distill/training.h"

namespace slmc {

class Candidates {
 public:
  /// `patience`: measurements in a row that are no better, after which it is exhausted; 0: never.
  Candidates(const TrainingProduct& product, int64_t patience);

  /// Whether the product itself is measured.
  bool measures() const { return static_cast<bool>(product_.measure); }
  /// Writes the product of `trained` and measures it, or calls `instead`; with neither it is the
  /// best because it is the last.
  void add(int64_t step, const WeightSource& trained, const std::function<Json()>& instead);
  /// Every measurement so far, in order of steps; what `restore` takes.
  const Json& measured() const { return measured_; }
  void restore(const Json& measured);
  /// What another rank has measured, so that `last_step` is the same here.
  void follow(const Json& entry) { measured_.push_back(entry); }
  int64_t last_step() const {
    return measured_.empty() ? -1 : measured_.back().value("step", int64_t{-1});
  }
  int64_t best_step() const { return best_step_; }
  bool exhausted() const { return patience_ > 0 && worse_ >= patience_; }
  /// "perplexity 12.3, KLD 0.4" or "accuracy 91.20%, ..." of the last one; "" before the first.
  std::string last_text() const;
  /// The best one becomes the output.
  void finish();

 private:
  /// The one figure that is compared: of a classifier its errors; KLD where there is a teacher,
  /// else a distillation loss, else the perplexity. Smaller is better.
  static double figure(const Json& entry);
  /// Whether its figure is the best so far.
  bool is_better(const Json& entry) const;
  void note(const Json& entry);

  const TrainingProduct& product_;
  int64_t patience_, worse_ = 0, best_step_ = -1;
  double best_ = 0;
  Json measured_ = Json::array();
};

}  // namespace slmc

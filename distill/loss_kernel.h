// From logits to loss and gradient for a chunk of positions: the only place where [rows, vocab]
// values of the student are in memory.
#pragma once

#include <cstdint>
#include <vector>

#include "distill/loss.h"

namespace slmc {

template <class L>
struct WeightedLoss {
  const L* loss = nullptr;
  double weight = 1.0;
  size_t term = 0;  ///< Its number in the mixture, and in LossSums::terms.
};

/// The losses of one step: weight * (T^2 * sum of distill(p_T, q_T) + sum of hidden) + ce_weight *
/// -log q[label]. T^2 keeps the gradient's size as T grows (Hinton et al. 2015).
struct LossMix {
  std::vector<WeightedLoss<DistributionLoss>> distill{};
  std::vector<WeightedLoss<HiddenLoss>> hidden{};  ///< Not the kernel's business.
  double hidden_share = 1.0;  ///< A step's learned positions by those whose hidden states are
                              ///< compared: each loss is a mean over its own positions.
  double weight = 0.0;
  double ce_weight = 1.0;
  double temperature = 1.0;
  int64_t real_vocab =
      0;  ///< The distillation losses compare softmaxes over the first `real_vocab` tokens.
};

/// Sums over learned positions. Add across chunks; divide by `tokens` once.
struct LossSums {
  double total = 0.0;
  double distill = 0.0;        ///< Of the mix's `distill`, without its weight and T^2.
  double cross_entropy = 0.0;  ///< Over all of the student's rows.
  int64_t agree = 0;           ///< Positions where teacher and student have the same best token.
  int64_t tokens = 0;
  int64_t spoilt_window = -1;  ///< Of the training data, where the total is not finite.
  std::vector<double> terms;   ///< Of each loss over distributions or hidden states, unweighted.
  void add_term(size_t term, double value);
  void add(const LossSums& other);
};

/// The k best tokens of each of the teacher's rows, best first, at the loss's temperature. What is
/// left of the probability is one more outcome, "another token", in the loss.
struct TopK {
  int64_t k = 0;
  const int32_t* ids = nullptr;  ///< [rows, k]
  const float* log_p = nullptr;  ///< [rows, k]
};

/// What the teacher says of the rows: whole logits, or the best of them, or (neither) nothing.
struct TeacherRows {
  const float* logits = nullptr;  ///< [rows, vocab]
  int64_t vocab = 0;
  TopK top;
};

/// Reused between calls of one thread.
struct LossScratch {
  std::vector<float> p, log_p, q, log_q, gradient;
  std::vector<float> next;      ///< Gradient of a second loss.
  std::vector<float> outcomes;  ///< Five arrays of k + 1.
};

/// `student` [rows, vocab] holds logits and gets scale * d(total)/d(logits), zero rows where
/// `learned` is 0. `teacher` may be empty without a distillation loss. With `want_gradient` false
/// the logits are left as they are.
LossSums loss_rows(const LossMix& mix, int64_t rows, int64_t vocab, float* student,
                   const TeacherRows& teacher, const int32_t* labels, const uint8_t* learned,
                   double scale, bool want_gradient, LossScratch& scratch);

}  // namespace slmc

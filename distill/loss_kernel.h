// From logits to loss and gradient for a chunk of positions: the only place where [rows, vocab]
// values of the student are in memory.
#pragma once

#include <cstdint>
#include <vector>

#include "distill/loss.h"

namespace slmc {

/// loss = weight * T^2 * distill(p_T, q_T) + ce_weight * -log q[label]. T^2 keeps the gradient's
/// size as T grows (Hinton et al. 2015).
struct LossMix {
  const Loss* distill = nullptr;  ///< Null: cross-entropy only.
  double weight = 0.0;
  double ce_weight = 1.0;
  double temperature = 1.0;
  int64_t real_vocab =
      0;  ///< The distillation loss compares softmaxes over the first `real_vocab` tokens.
};

/// Sums over learned positions. Add across chunks; divide by `tokens` once.
struct LossSums {
  double total = 0.0;
  double distill = 0.0;        ///< Without weight and T^2.
  double cross_entropy = 0.0;  ///< Over all of the student's rows.
  int64_t agree = 0;           ///< Positions where teacher and student have the same best token.
  int64_t tokens = 0;
  void add(const LossSums& other);
};

/// Reused between calls of one thread.
struct LossScratch {
  std::vector<float> p, log_p, q, log_q, gradient;
};

/// `student` [rows, vocab] holds logits and gets scale * d(total)/d(logits), zero rows where
/// `learned` is 0. `teacher` [rows, teacher_vocab] may be null without a distillation loss. With
/// `want_gradient` false the logits are left as they are.
LossSums loss_rows(const LossMix& mix, int64_t rows, int64_t vocab, float* student,
                   int64_t teacher_vocab, const float* teacher, const int32_t* labels,
                   const uint8_t* learned, double scale, bool want_gradient, LossScratch& scratch);

}  // namespace slmc

// One position of text under one or two models: the negative log-likelihood of the token that
// follows, and how far the model's distribution is from the teacher's. Logits come in as float;
// everything here is double with sums in a fixed order.
#pragma once

#include <cstdint>
#include <vector>

namespace slmc {

/// The teacher's distribution at one position, kept for any number of students.
struct TeacherRow {
  std::vector<double> weights;    ///< [vocab] exp(logit - max), unnormalised.
  const float* logits = nullptr;  ///< [vocab]
  double log_sum = 0;             ///< log of the sum of exp(logit), over the real vocabulary.
  double sum = 0;                 ///< Of `weights`.
  double nll = 0;                 ///< Of the target, in nats, over all logits.
  int32_t top = 0;                ///< Most likely id; the lowest among equals.
};

/// `logits` [rows]: all that the model has; `vocab` <= rows: the real ones, over which
/// distributions are compared. The likelihood of `target` is over all rows, as other programs
/// compute it. The result refers to `logits`.
void score_teacher(const float* logits, int64_t rows, int64_t vocab, int32_t target,
                   TeacherRow& teacher);

struct StudentScore {
  double nll = 0;         ///< Nats.
  double kld = 0;         ///< KL(teacher || student) in nats; 0 without a teacher.
  bool same_top = false;  ///< Both models' most likely id is the same.
};
StudentScore score_student(const float* logits, int64_t rows, int64_t vocab, int32_t target,
                           const TeacherRow* teacher);

/// log p(target) over all rows, in nats.
double log_likelihood(const float* logits, int64_t rows, int32_t target);
/// Index of the largest value, the lowest among equals. n > 0.
int32_t argmax(const float* values, int64_t n);

}  // namespace slmc

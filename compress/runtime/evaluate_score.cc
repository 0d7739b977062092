#include "compress/runtime/evaluate_score.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "compress/runtime/statistics.h"

namespace slmc {
namespace {

// Loops over the vocabulary are compiled for wider registers too; without contraction or reordering
// every copy gives the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define SLMC_WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SLMC_WIDE
#endif

constexpr int64_t kLanes =
    8;  // Running sums; element i goes to sum i % kLanes, whatever the machine.

double reduce(const double (&lanes)[kLanes]) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

SLMC_WIDE float maximum(const float* values, int64_t n) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, values[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j)
      lanes[j] = lanes[j] < values[i + j] ? values[i + j] : lanes[j];
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

// Sum of exp(values[i] - top); with `weights` the terms are kept.
SLMC_WIDE double sum_of_exp(const float* values, int64_t n, double top, double* weights) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    double terms[kLanes];
    for (int64_t j = 0; j < kLanes; ++j)
      terms[j] = stable_exp(static_cast<double>(values[i + j]) - top);
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += terms[j];
    if (weights)
      for (int64_t j = 0; j < kLanes; ++j) weights[i + j] = terms[j];
  }
  for (; i < n; ++i) {
    const double term = stable_exp(static_cast<double>(values[i]) - top);
    lanes[i % kLanes] += term;
    if (weights) weights[i] = term;
  }
  return reduce(lanes);
}

// Sum of weights[i] * (a[i] - b[i]).
SLMC_WIDE double weighted_difference(const double* weights, const float* a, const float* b,
                                     int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j)
      lanes[j] += weights[i + j] * (static_cast<double>(a[i + j]) - static_cast<double>(b[i + j]));
  for (; i < n; ++i)
    lanes[i % kLanes] += weights[i] * (static_cast<double>(a[i]) - static_cast<double>(b[i]));
  return reduce(lanes);
}

int32_t index_of(const float* values, int64_t n, float wanted) {
  const float* found = std::find(values, values + n, wanted);
  return found == values + n ? 0 : static_cast<int32_t>(found - values);
}

// Normaliser of one row: over the real vocabulary and over all rows, and the largest real logit.
struct Normaliser {
  float top = 0;
  double sum = 0, log_sum = 0, log_sum_all = 0;
};

Normaliser normalise(const float* logits, int64_t rows, int64_t vocab, double* weights) {
  Normaliser result;
  result.top = maximum(logits, vocab);
  const double top = static_cast<double>(result.top);
  result.sum = sum_of_exp(logits, vocab, top, weights);
  result.log_sum = top + stable_log(result.sum);
  result.log_sum_all = result.log_sum;
  if (rows > vocab) {  // Padding rows have a share of the likelihood, with their own maximum so
                       // nothing overflows.
    const double pad_top = static_cast<double>(maximum(logits + vocab, rows - vocab));
    const double pad =
        pad_top + stable_log(sum_of_exp(logits + vocab, rows - vocab, pad_top, nullptr));
    const double high = std::max(pad, result.log_sum), low = std::min(pad, result.log_sum);
    result.log_sum_all = high + stable_log(1.0 + stable_exp(low - high));
  }
  return result;
}

}  // namespace

int32_t argmax(const float* values, int64_t n) { return index_of(values, n, maximum(values, n)); }

double log_likelihood(const float* logits, int64_t rows, int32_t target) {
  return static_cast<double>(logits[target]) - normalise(logits, rows, rows, nullptr).log_sum;
}

void score_teacher(const float* logits, int64_t rows, int64_t vocab, int32_t target,
                   TeacherRow& teacher) {
  teacher.weights.resize(static_cast<size_t>(vocab));
  const Normaliser norm = normalise(logits, rows, vocab, teacher.weights.data());
  teacher.logits = logits;
  teacher.sum = norm.sum;
  teacher.log_sum = norm.log_sum;
  teacher.nll = norm.log_sum_all - static_cast<double>(logits[target]);
  teacher.top = index_of(logits, vocab, norm.top);
}

StudentScore score_student(const float* logits, int64_t rows, int64_t vocab, int32_t target,
                           const TeacherRow* teacher) {
  const Normaliser norm = normalise(logits, rows, vocab, nullptr);
  StudentScore score;
  score.nll = norm.log_sum_all - static_cast<double>(logits[target]);
  if (!teacher) return score;
  // KL = sum p (log p - log q) = sum w (a - b) / sum w - (log_sum_a - log_sum_b); never below zero
  // but for rounding.
  const double difference =
      weighted_difference(teacher->weights.data(), teacher->logits, logits, vocab) / teacher->sum;
  const double kld = difference - (teacher->log_sum - norm.log_sum);
  score.kld = kld < 0.0 ? 0.0 : kld;
  score.same_top = index_of(logits, vocab, norm.top) == teacher->top;
  return score;
}

}  // namespace slmc

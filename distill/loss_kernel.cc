#include "distill/loss_kernel.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "distill/vector_math.h"

namespace slmc {
SLMC_CLONES float row_max(const float* z, int64_t n) {
  float best = z[0];
#pragma omp simd reduction(max : best)
  for (int64_t i = 0; i < n; ++i) best = best > z[i] ? best : z[i];
  return best;
}

namespace {

/// e[i] = exp(z[i] * inverse_t - top), their sum.
SLMC_CLONES float row_exp(const float* z, int64_t n, float inverse_t, float top, float* e) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    e[i] = fast_exp(z[i] * inverse_t - top);
    sum += e[i];
  }
  return sum;
}

/// log_q = z / T - lse, q = e / sum.
SLMC_CLONES void row_normalise(const float* z, int64_t n, float inverse_t, float lse,
                               float inverse_sum, float* q, float* log_q) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    q[i] *= inverse_sum;
    log_q[i] = z[i] * inverse_t - lse;
  }
}

SLMC_CLONES float row_sum(const float* g, int64_t n) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += g[i];
  return sum;
}

/// out (+)= factor * (g - q * sum).
SLMC_CLONES void row_gradient(const float* g, const float* q, int64_t n, float sum, float factor,
                              float* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = factor * (g[i] - q[i] * sum);
}

SLMC_CLONES void row_scale(const float* q, int64_t n, float factor, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = factor * q[i];
}

SLMC_CLONES void row_scale_add(const float* q, int64_t n, float factor, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] += factor * q[i];
}

/// softmax(z / T) over n values. Returns log(sum exp(z / T)).
double softmax(const float* z, int64_t n, double temperature, float* q, float* log_q) {
  const float inverse_t = static_cast<float>(1.0 / temperature);
  const float top = row_max(z, n) * inverse_t;
  const float sum = row_exp(z, n, inverse_t, top, q);
  const double lse = static_cast<double>(top) + std::log(static_cast<double>(sum));
  row_normalise(z, n, inverse_t, static_cast<float>(lse), 1.0f / sum, q, log_q);
  return lse;
}

int64_t best_of(const float* z, int64_t n) { return std::max_element(z, z + n) - z; }

/// Every loss of the mix over one position: their weighted sum, and that of q dL/dq into
/// `gradient`.
double mixed_row(const LossMix& mix, const LossRow& row, float* gradient, LossScratch& scratch,
                 LossSums& sums) {
  double sum = 0.0;
  bool first = true;
  for (const auto& [loss, weight, term] : mix.distill) {
    float* const out = first ? gradient : scratch.next.data();
    const double value = loss->row(row, out);
    sums.add_term(term, value);
    sum += weight * value;
    if (!first)
      row_scale_add(out, row.vocab, static_cast<float>(weight), gradient);
    else if (weight != 1.0)
      row_scale(out, row.vocab, static_cast<float>(weight), gradient);
    first = false;
  }
  return sum;
}

/// The loss against whole logits: q, log q and q dL/dq into `scratch`, the latter's sum.
double full_row(const LossMix& mix, const TeacherRows& teacher, int64_t r, const float* z,
                int64_t shared, int32_t label, LossScratch& scratch, LossSums& sums,
                double& gradient_sum) {
  LossRow row{
      .vocab = shared, .q = scratch.q.data(), .log_q = scratch.log_q.data(), .label = label};
  if (teacher.logits != nullptr) {
    const float* const tz = teacher.logits + r * teacher.vocab;
    softmax(tz, shared, mix.temperature, scratch.p.data(), scratch.log_p.data());
    row.p = scratch.p.data();
    row.log_p = scratch.log_p.data();
    sums.agree += best_of(tz, shared) == best_of(z, shared) ? 1 : 0;
  }
  softmax(z, shared, mix.temperature, scratch.q.data(), scratch.log_q.data());
  const double value = mixed_row(mix, row, scratch.gradient.data(), scratch, sums);
  gradient_sum = static_cast<double>(row_sum(scratch.gradient.data(), shared));
  return value;
}

/// The same against the k best: the distributions over k + 1 outcomes, the last of which is any
/// other token. Such a token's share of the last outcome is q_i / q_rest, and so is its share of
/// the gradient.
double top_k_row(const LossMix& mix, const TopK& top, int64_t r, const float* z, int64_t shared,
                 LossScratch& scratch, LossSums& sums, double& gradient_sum) {
  const auto k = static_cast<size_t>(top.k);
  const int32_t* const ids = top.ids + r * top.k;
  const float* const log_p_k = top.log_p + r * top.k;
  scratch.outcomes.resize(5 * (k + 1));
  float* const p = scratch.outcomes.data();
  float *const log_p = p + k + 1, *const q = log_p + k + 1, *const log_q = q + k + 1,
               *const gradient = log_q + k + 1;
  float* const all_q = scratch.q.data();
  softmax(z, shared, mix.temperature, all_q, scratch.log_q.data());
  double p_rest = 1.0;
  for (size_t i = 0; i < k; ++i) {
    log_p[i] = log_p_k[i];
    p[i] = std::exp(log_p_k[i]);
    p_rest -= static_cast<double>(p[i]);
    q[i] = all_q[ids[i]];
    log_q[i] = scratch.log_q[static_cast<size_t>(ids[i])];
    all_q[ids[i]] = 0.0f;
  }
  // Summed and not taken from 1, which would leave rounding alone where little is left.
  const float q_rest = std::max(row_sum(all_q, shared), 1e-30f);
  for (size_t i = 0; i < k; ++i) all_q[ids[i]] = q[i];
  const bool rest = top.k < shared;
  p[k] = static_cast<float>(std::max(p_rest, 1e-10));
  log_p[k] = std::log(p[k]);
  q[k] = q_rest;
  log_q[k] = std::log(q_rest);
  const LossRow row{
      .vocab = top.k + (rest ? 1 : 0), .p = p, .log_p = log_p, .q = q, .log_q = log_q, .label = 0};
  const double value = mixed_row(mix, row, gradient, scratch, sums);
  gradient_sum = static_cast<double>(row_sum(gradient, row.vocab));
  row_scale(all_q, shared, rest ? gradient[k] / q_rest : 0.0f, scratch.gradient.data());
  for (size_t i = 0; i < k; ++i) scratch.gradient[static_cast<size_t>(ids[i])] = gradient[i];
  sums.agree += ids[0] == best_of(z, shared) ? 1 : 0;
  return value;
}

}  // namespace

void LossSums::add(const LossSums& other) {
  total += other.total;
  distill += other.distill;
  cross_entropy += other.cross_entropy;
  agree += other.agree;
  tokens += other.tokens;
  for (size_t i = 0; i < other.terms.size(); ++i) add_term(i, other.terms[i]);
}

void LossSums::add_term(size_t term, double value) {
  if (terms.size() <= term) terms.resize(term + 1);
  terms[term] += value;
}

LossSums loss_rows(const LossMix& mix, int64_t rows, int64_t vocab, float* student,
                   const TeacherRows& teacher, const int32_t* labels, const uint8_t* learned,
                   double scale, bool want_gradient, LossScratch& scratch) {
  const bool distil = !mix.distill.empty();
  for (const auto& each : mix.distill)
    SLMC_CHECK(teacher.logits != nullptr || teacher.top.k > 0 || !each.loss->needs_teacher(),
               "this loss needs a teacher");
  const int64_t shared = std::min(distil && mix.real_vocab > 0 ? mix.real_vocab : vocab, vocab);
  const auto size = static_cast<size_t>(vocab);
  for (auto* buffer : {&scratch.p, &scratch.log_p, &scratch.q, &scratch.log_q, &scratch.gradient})
    buffer->resize(size);
  if (mix.distill.size() > 1) scratch.next.resize(size + 1);  // The outcomes of k = vocab and none.
  float* const q = scratch.q.data();
  float* const gradient = scratch.gradient.data();
  const double t = mix.temperature;
  LossSums sums;
  for (int64_t r = 0; r < rows; ++r) {
    float* const z = student + r * vocab;
    if (learned[r] == 0) {
      if (want_gradient) std::fill(z, z + vocab, 0.0f);
      continue;
    }
    const int32_t label = labels[r];
    sums.tokens += 1;
    double row_loss = 0.0;
    double distill_sum = 0.0;
    if (distil) {
      const double value =
          teacher.top.k > 0
              ? top_k_row(mix, teacher.top, r, z, shared, scratch, sums, distill_sum)
              : full_row(mix, teacher, r, z, shared, label, scratch, sums, distill_sum);
      sums.distill += value;
      row_loss += mix.weight * t * t * value;
    }
    // The cross-entropy needs the plain softmax; the distillation gradient needs the tempered one,
    // so it is formed first.
    const double label_logit = static_cast<double>(z[label]);
    const float distill_factor = static_cast<float>(scale * mix.weight * t);
    const float ce_factor = static_cast<float>(scale * mix.ce_weight);
    if (distil && t == 1.0 && shared == vocab) {  // q is the plain softmax.
      const double nll = -static_cast<double>(scratch.log_q[static_cast<size_t>(label)]);
      sums.cross_entropy += nll;
      row_loss += mix.ce_weight * nll;
      if (want_gradient) {
        row_gradient(gradient, q, vocab, static_cast<float>(distill_sum), distill_factor, z);
        if (mix.ce_weight != 0.0) row_scale_add(q, vocab, ce_factor, z);
      }
    } else {
      if (distil && want_gradient)
        row_gradient(gradient, q, shared, static_cast<float>(distill_sum), distill_factor,
                     gradient);
      const float top = row_max(z, vocab);
      const float sum = row_exp(z, vocab, 1.0f, top, q);
      const double nll =
          static_cast<double>(top) + std::log(static_cast<double>(sum)) - label_logit;
      sums.cross_entropy += nll;
      row_loss += mix.ce_weight * nll;
      if (want_gradient) {
        row_scale(q, vocab, ce_factor / sum, z);
        if (distil) row_scale_add(gradient, shared, 1.0f, z);
      }
    }
    if (want_gradient) z[label] -= ce_factor;
    sums.total += row_loss;
  }
  return sums;
}

}  // namespace slmc

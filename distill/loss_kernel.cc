#include "distill/loss_kernel.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

SLMC_CLONES float row_max(const float* z, int64_t n) {
  float best = z[0];
#pragma omp simd reduction(max : best)
  for (int64_t i = 0; i < n; ++i) best = best > z[i] ? best : z[i];
  return best;
}

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

}  // namespace

void LossSums::add(const LossSums& other) {
  total += other.total;
  distill += other.distill;
  cross_entropy += other.cross_entropy;
  agree += other.agree;
  tokens += other.tokens;
}

LossSums loss_rows(const LossMix& mix, int64_t rows, int64_t vocab, float* student,
                   int64_t teacher_vocab, const float* teacher, const int32_t* labels,
                   const uint8_t* learned, double scale, bool want_gradient, LossScratch& scratch) {
  SLMC_CHECK(mix.distill == nullptr || teacher != nullptr || !mix.distill->needs_teacher(),
             "this loss needs a teacher");
  const bool distil = mix.distill != nullptr;
  const int64_t shared = std::min(distil && mix.real_vocab > 0 ? mix.real_vocab : vocab, vocab);
  const auto size = static_cast<size_t>(vocab);
  for (auto* buffer : {&scratch.p, &scratch.log_p, &scratch.q, &scratch.log_q, &scratch.gradient})
    buffer->resize(size);
  float* const q = scratch.q.data();
  float* const log_q = scratch.log_q.data();
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
    float* const gradient = scratch.gradient.data();
    bool softmax_is_plain = false;  // Whether q is the softmax over all rows at T = 1.
    if (distil) {
      LossRow row{.vocab = shared, .q = q, .log_q = log_q, .label = label};
      if (teacher != nullptr) {
        const float* const tz = teacher + r * teacher_vocab;
        softmax(tz, shared, t, scratch.p.data(), scratch.log_p.data());
        row.p = scratch.p.data();
        row.log_p = scratch.log_p.data();
        sums.agree += best_of(tz, shared) == best_of(z, shared) ? 1 : 0;
      }
      softmax(z, shared, t, q, log_q);
      const double value = mix.distill->row(row, gradient);
      sums.distill += value;
      row_loss += mix.weight * t * t * value;
      distill_sum = static_cast<double>(row_sum(gradient, shared));
      softmax_is_plain = t == 1.0 && shared == vocab;
    }
    // The cross-entropy needs the plain softmax; the distillation gradient needs the tempered one,
    // so it is formed first.
    const double lse_label = static_cast<double>(z[label]);
    const float distill_factor = static_cast<float>(scale * mix.weight * t);
    const float ce_factor = static_cast<float>(scale * mix.ce_weight);
    if (softmax_is_plain) {
      sums.cross_entropy -= static_cast<double>(log_q[label]);
      row_loss -= mix.ce_weight * static_cast<double>(log_q[label]);
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
      const double nll = static_cast<double>(top) + std::log(static_cast<double>(sum)) - lse_label;
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

#include "distill/estimate.h"

#include <algorithm>

#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "distill/training.h"

namespace slmc {
namespace {

constexpr double kFlopsPerThread = 6e10;

int64_t matrix_parameters(const Architecture& a) {
  const int64_t attention = a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads);
  return a.layers * (attention + 3 * a.hidden * a.ffn) + a.vocab * a.hidden;
}

/// Floats that one position keeps for the backward pass.
int64_t kept_floats(const Architecture& a) {
  const int64_t block = 4 * a.hidden + a.head_dim * (2 * a.heads + 2 * a.kv_heads) + 3 * a.ffn;
  return a.layers * block + 4 * a.hidden;
}

int64_t lanes_of_a_rank(const TrainingSize& size) {
  return (size.lanes + size.ranks - 1) / size.ranks;
}

}  // namespace

uint64_t training_memory(const TrainingSize& size) {
  const auto parameters = [](const Architecture& a) { return static_cast<uint64_t>(a.parameters); };
  const Architecture& student = *size.student;
  const int64_t lanes = lanes_of_a_rank(size);
  const auto at_once = static_cast<uint64_t>(std::min<int64_t>(lanes, threads()));
  const bool frozen = size.trained > 0 && size.trained < student.parameters;
  const uint64_t trained = frozen ? static_cast<uint64_t>(size.trained) : parameters(student);
  const int64_t rows = std::min(head_rows(student.vocab, size.on_cpu), size.micro_tokens);
  uint64_t bytes = libtorch_bytes(size.on_cpu);
  bytes += trained * 4 * (1 + static_cast<uint64_t>(lanes)) + size.text_bytes * 4;
  bytes += trained * 8 / static_cast<uint64_t>(size.ranks);  // Moments.
  // The first weights are mapped or held beside their f32 copy, and the encoded output passes
  // through memory. Of a frozen model the file stays mapped, and the head is there in f32.
  bytes += parameters(student) * 4;
  if (frozen) bytes += static_cast<uint64_t>(student.vocab * student.hidden) * 4;
  if (size.keep_sparsity) bytes += trained;
  if (size.rounded) bytes += trained * 4;
  if (size.samples) bytes += parameters(student) * 4;  // Repacked.
  const int64_t kept =
      size.recompute ? student.layers * student.hidden + kept_floats(student) / student.layers
                     : kept_floats(student) * (student.layers - size.first_layer) / student.layers;
  uint64_t lane = static_cast<uint64_t>(size.micro_tokens * size.compared) * 4;
  if (size.on_cpu) lane += static_cast<uint64_t>(size.micro_tokens * kept) * 4 * 5 / 4;
  if (frozen) lane += static_cast<uint64_t>(2 * student.ffn * student.hidden) * 4;
  lane += static_cast<uint64_t>(rows * student.vocab) * 4;
  if (size.teacher != nullptr) {
    bytes += parameters(*size.teacher) * 6;
    lane += static_cast<uint64_t>(rows * size.teacher->vocab) * 4;
  }
  return bytes + at_once * lane;
}

double training_seconds(const TrainingSize& size) {
  if (!size.on_cpu) return 0;
  // Forward 2 operations a parameter, the gradient of what enters 2 more, that of the weights 2.
  const double below = static_cast<double>(size.first_layer) /
                       static_cast<double>(std::max<int64_t>(1, size.student->layers));
  const bool frozen = size.trained > 0 && size.trained < size.student->parameters / 4;
  const double seen = size.frozen_tokens > 0 ? static_cast<double>(size.frozen_tokens) /
                                                   static_cast<double>(size.tokens)
                                             : 1.0;
  const double passes = 2.0 * below * std::min(1.0, seen) +
                        (1.0 - below) * (2.0 + (frozen ? 2.0 : 4.0) + (size.recompute ? 2.0 : 0.0));
  double flops = passes * static_cast<double>(matrix_parameters(*size.student));
  if (size.teacher != nullptr) flops += 2.0 * static_cast<double>(matrix_parameters(*size.teacher));
  const auto at_once =
      static_cast<double>(size.ranks * std::min<int64_t>(lanes_of_a_rank(size), threads()));
  return flops * static_cast<double>(size.tokens) / (kFlopsPerThread * at_once);
}

std::string forecast_text(const TrainingForecast& forecast) {
  return cat(human_seconds(forecast.seconds), " and ", human_bytes(forecast.peak_bytes),
             " of memory, by a probe of ", human_count(static_cast<uint64_t>(forecast.tokens)),
             " tokens");
}

void take_forecast(const TrainingForecast& forecast, Plan& plan) {
  plan.predicted_seconds = forecast.seconds;
  plan.predicted_peak_bytes = forecast.peak_bytes;
  plan.notes.push_back(
      cat("training: ", forecast_text(forecast), ", evaluations and writing apart"));
}

}  // namespace slmc

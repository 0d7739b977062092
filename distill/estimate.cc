#include "distill/estimate.h"

#include <algorithm>

#include "compress/core/parallel.h"

namespace slmc {
namespace {

constexpr uint64_t kLibTorchBytes = 110'000'000;
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

}  // namespace

uint64_t training_memory(const TrainingSize& size) {
  const auto parameters = [](const Architecture& a) { return static_cast<uint64_t>(a.parameters); };
  const auto at_once = static_cast<uint64_t>(std::min<int64_t>(size.lanes, threads()));
  uint64_t bytes = kLibTorchBytes +
                   parameters(*size.student) * 4 * (3 + static_cast<uint64_t>(size.lanes)) +
                   size.text_bytes * 4;
  // The first weights are mapped or held beside their f32 copy, and the encoded output passes
  // through memory.
  bytes += parameters(*size.student) * 4;
  if (size.keep_sparsity) bytes += parameters(*size.student);
  uint64_t lane = static_cast<uint64_t>(size.micro_tokens * kept_floats(*size.student)) * 4 * 5 / 4;
  lane +=
      static_cast<uint64_t>(std::min(size.head_rows, size.micro_tokens) * size.student->vocab) * 4;
  if (size.teacher != nullptr) {
    bytes += parameters(*size.teacher) * 6;
    lane +=
        static_cast<uint64_t>(std::min(size.head_rows, size.micro_tokens) * size.teacher->vocab) *
        4;
  }
  return bytes + at_once * lane;
}

double training_seconds(const TrainingSize& size) {
  double flops = 6.0 * static_cast<double>(matrix_parameters(*size.student));
  if (size.teacher != nullptr) flops += 2.0 * static_cast<double>(matrix_parameters(*size.teacher));
  const auto at_once = static_cast<double>(std::min<int64_t>(size.lanes, threads()));
  return flops * static_cast<double>(size.tokens) / (kFlopsPerThread * at_once);
}

}  // namespace slmc

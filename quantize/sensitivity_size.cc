// What measuring single tensors takes, by the sizes of the model.
#include <algorithm>
#include <cmath>

#include "compress/core/parallel.h"
#include "formats/model.h"
#include "quantize/divergence.h"
#include "quantize/sensitivity.h"

namespace slmc {

double sensitivity_seconds(const Model& model, const SensitivitySize& size) {
  constexpr double kFlopsPerCore = 4e10;
  const Architecture& arch = model.arch();
  const auto cubed = [](int64_t inputs) { return std::pow(static_cast<double>(inputs), 3); };
  const double head = static_cast<double>(arch.vocab) * static_cast<double>(arch.hidden);
  const double blocks = std::max(0.0, static_cast<double>(arch.parameters) - head);
  // A variant passes half the blocks on average, and the head.
  double flops = static_cast<double>(size.variants) * 2 * (blocks / 2 + 1.2 * head) *
                 static_cast<double>(size.tokens);
  flops += 2 * blocks * static_cast<double>(size.calibration_tokens);
  // A factor, and rows that are encoded as every type: 30 s were seen for a block of widths 2048
  // and 8192 on two cores.
  if (size.hessian)
    flops += 4 * static_cast<double>(arch.layers) *
             (2 * cubed(arch.hidden) + cubed(arch.heads * arch.head_dim) + cubed(arch.ffn));
  return flops / (kFlopsPerCore * threads());
}

uint64_t sensitivity_peak_bytes(const Model& model, const SensitivitySize& size) {
  const Architecture& arch = model.arch();
  const size_t layers = static_cast<size_t>(std::max<int64_t>(1, arch.layers));
  const uint64_t head = 4 * static_cast<uint64_t>(arch.vocab * arch.hidden);
  const uint64_t block = 4 * static_cast<uint64_t>(arch.parameters) / layers;
  const uint64_t states = 4 * ((size.variants + layers - 1) / layers + 3) *
                          static_cast<uint64_t>(size.window * arch.hidden);
  const uint64_t logits = 4 * static_cast<uint64_t>(2 * DivergenceMeter::kPositions * arch.vocab);
  // What calibration holds has one Hessian, and what the method makes of it.
  const auto widest = static_cast<uint64_t>(std::max(arch.ffn, arch.hidden));
  const uint64_t factors = size.hessian ? 4 * 4 * widest * widest : 0;
  return std::max(2 * head + 3 * block + states + logits, head + block + states + factors);
}

}  // namespace slmc

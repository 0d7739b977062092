// What measuring single tensors takes, by the sizes of the model.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "compress/core/parallel.h"
#include "compress/runtime/streamed_bytes.h"
#include "formats/model.h"
#include "quantize/budget_costs.h"
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

int64_t stage_of(const std::string& tensor, int64_t layers) {
  if (tensor.starts_with("blk.")) return std::atoll(tensor.c_str() + 4);
  return tensor.starts_with("output") ? layers : -1;
}

uint64_t sensitivity_peak_bytes(const Model& model, const std::vector<BudgetGroup>& groups,
                                const SensitivitySize& size) {
  const Architecture& arch = model.arch();
  const Pieces pieces = pieces_of(model);
  // All variants of a stage are there at once, and one of them is repacked with its block.
  struct Together {
    uint64_t variants = 0, bytes = 0, repacked = 0;
  };
  std::map<int64_t, Together> stages;
  for (const BudgetGroup& group : groups) {
    Together& stage = stages[stage_of(group.tensors.front(), arch.layers)];
    for (const size_t anchor : group.anchors) {
      uint64_t bytes = 0;
      int64_t elements = 0;
      for (const std::string& name : group.tensors) {
        const TensorInfo& info = model.info(name);
        bytes += tensor_bytes(info, group.types[anchor]);
        elements += element_count(info.shape);
      }
      stage.variants += 1;
      stage.bytes += bytes;
      stage.repacked = std::max(stage.repacked, repacked_bytes(bytes, elements));
    }
  }
  const auto window_bytes = [&](uint64_t variants) {
    return 4 * variants * static_cast<uint64_t>(size.window * arch.hidden);
  };
  uint64_t most = 0;
  for (const auto& [number, stage] : stages)
    most = std::max(most, stage.bytes + stage.repacked + window_bytes(stage.variants));
  // What calibration holds has one Hessian, and what the method makes of it.
  const auto widest = static_cast<uint64_t>(std::max(arch.ffn, arch.hidden));
  const uint64_t factors = size.hessian ? 4 * 4 * widest * widest : 0;
  const int64_t cache = 2 * arch.layers * arch.kv_heads * arch.head_dim * size.window;
  const int64_t logits = 2 * DivergenceMeter::kPositions * arch.vocab;
  return pieces.head + pieces.block + pieces.pages + window_bytes(3) +
         4 * static_cast<uint64_t>(cache + logits + scratch_floats(arch, size.window)) +
         std::max(most, factors);
}

}  // namespace slmc

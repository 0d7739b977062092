// What quantization with calibration holds at its fullest.
#include <algorithm>
#include <map>

#include "quantize/calibrated.h"

namespace slmc {

uint64_t calibrated_peak_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                               const Method& method, int64_t tokens, int64_t context, bool spill,
                               int thread_count) {
  const Architecture& arch = model.arch();
  int64_t widest = 0, block = 0, largest = 0;
  uint64_t head = 0;
  std::map<std::string, int64_t> by_block;
  for (const OutputTensor& target : targets) {
    const int64_t elements = element_count(target.shape);
    if (target.shape.size() < 2) continue;
    const bool outside = target.name.starts_with("token_embd") || target.name.starts_with("output");
    if (outside) {
      head = std::max(head, dtype_row_bytes(target.dtype, target.shape.back()) *
                                static_cast<uint64_t>(elements / target.shape.back()));
      continue;
    }
    widest = std::max(widest, target.shape.back());
    largest = std::max(largest, elements);
    const size_t dot = target.name.find('.', 4);
    block = std::max(block, by_block[target.name.substr(0, dot)] += elements);
  }
  const auto bytes = [](int64_t floats) { return 4 * static_cast<uint64_t>(floats); };
  // The block as read and as repacked, both at most f32; its quantized form is smaller.
  uint64_t total = 2 * bytes(block) + head;
  // Hidden states behind the quantized blocks, and the original model's.
  const bool hessian =
      needs_statistic(method, Statistic::kHessian) || smooth_needs(method, Statistic::kHessian);
  if (!spill) total += bytes(tokens * arch.hidden * (hessian ? 2 : 1));
  total += bytes(context * (4 * arch.hidden + 2 * arch.ffn + 4 * arch.heads * arch.head_dim));
  if (hessian) {
    // The Hessian, its factor while it is made, the cross products with the original model twice,
    // and a window as panels and columns.
    total += bytes(5 * widest * widest + 2 * widest * std::min<int64_t>(context, 512));
  }
  total += bytes(6 * 32 * widest) * static_cast<uint64_t>(thread_count);
  return total;
}

}  // namespace slmc

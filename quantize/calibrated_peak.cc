// What quantization with calibration holds at its fullest.
#include <algorithm>
#include <map>

#include "compress/runtime/streamed_bytes.h"
#include "quantize/calibrated.h"

namespace slmc {
namespace {

/// What one window's pass through a block holds at most: states, one branch's products, scores of
/// some queries.
int64_t pass_floats(const Architecture& arch, int64_t context) {
  const int64_t heads = (arch.heads + 2 * arch.kv_heads) * arch.head_dim;
  const int64_t scores = 3 * arch.heads * std::min<int64_t>(context, 512);
  return context * (4 * arch.hidden + std::max(3 * heads + scores, 3 * arch.ffn));
}

struct Sizes {
  int64_t widest = 0, block = 0, largest = 0;  ///< A matrix's columns; elements.
  uint64_t head = 0;                           ///< Bytes of what is outside the blocks.
};

Sizes sizes_of(const std::vector<OutputTensor>& targets) {
  Sizes sizes;
  std::map<std::string, int64_t> by_block;
  for (const OutputTensor& target : targets) {
    const int64_t elements = element_count(target.shape);
    if (target.shape.size() < 2) continue;
    const bool outside = target.name.starts_with("token_embd") || target.name.starts_with("output");
    if (outside) {
      sizes.head = std::max(sizes.head, dtype_row_bytes(target.dtype, target.shape.back()) *
                                            static_cast<uint64_t>(elements / target.shape.back()));
      continue;
    }
    sizes.widest = std::max(sizes.widest, target.shape.back());
    sizes.largest = std::max(sizes.largest, elements);
    const size_t dot = target.name.find('.', 4);
    sizes.block = std::max(sizes.block, by_block[target.name.substr(0, dot)] += elements);
  }
  return sizes;
}

}  // namespace

uint64_t embedding_bytes(const Model& model) {
  const TensorInfo& info = model.info("token_embd.weight");
  return info.bytes + repacked_bytes(info.bytes, element_count(info.shape));
}

uint64_t calibrated_device_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                                 const CalibratedSize& size, const CalibrationForward& forward) {
  if (forward.on_cpu()) return 0;
  const Architecture& arch = model.arch();
  const auto [widest, block, largest, head] = sizes_of(targets);
  const int64_t weights = 2 * block / (forward.dtype == "bf16" ? 2 : 1);
  // Second moments, cross products with the original model's inputs and with its stream.
  const int64_t sums = 2 * widest * widest + arch.hidden * widest;
  return 4 * static_cast<uint64_t>(weights + largest + sums + 2 * pass_floats(arch, size.context));
}

// Behind the quantized blocks, and the original model's.
uint64_t calibrated_states_bytes(const Model& model, const Method& method, int64_t tokens) {
  return sizeof(float) * static_cast<uint64_t>(tokens * model.arch().hidden) *
         (method.heeds_shortfall ? 2 : 1);
}

uint64_t calibrated_peak_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                               const Method& method, const CalibratedSize& size,
                               const CalibrationForward& forward) {
  const int64_t tokens = size.tokens, context = size.context;
  const bool spill = size.spill;
  const auto threads = static_cast<uint64_t>(size.threads);
  const Architecture& arch = model.arch();
  const auto [widest, block, largest, head] = sizes_of(targets);
  const auto bytes = [](int64_t floats) { return 4 * static_cast<uint64_t>(floats); };
  const bool hessian =
      needs_statistic(method, Statistic::kHessian) || smooth_needs(method, Statistic::kHessian);
  uint64_t total = head;
  if (forward.module == nullptr) {
    // The block as read and as repacked, both at most f32; its quantized form is smaller.
    total += 2 * bytes(block);
    total += bytes(context * (4 * arch.hidden + 2 * arch.ffn + 4 * arch.heads * arch.head_dim));
  } else if (forward.on_cpu()) {
    // The original model's beside it; threads work on windows of their own.
    total +=
        forward.library_bytes() + bytes(2 * block) + bytes(pass_floats(arch, context)) * threads;
  } else {
    // Only passing through, on its way to the device.
    total += forward.library_bytes() + bytes(3 * largest);
  }
  const uint64_t states = spill ? 0 : calibrated_states_bytes(model, method, tokens);
  total += states;
  if (hessian) {
    // The Hessian, its factor while it is made, the cross products with the original model twice,
    // and a window as panels and columns.
    total += bytes(5 * widest * widest + 2 * widest * std::min<int64_t>(context, 512));
  }
  total += bytes(6 * 32 * widest) * threads;
  return std::max(total, head + states + embedding_bytes(model));
}

}  // namespace slmc

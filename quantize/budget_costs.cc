#include "quantize/budget_costs.h"

#include <cstdio>

#include "compress/core/text.h"
#include "compress/runtime/packed_matrix.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

/// What the runtime reads of a weight for one token.
uint64_t read_bytes(const Model& model, const TensorInfo& info, DType type) {
  const int64_t columns = info.shape.back(), rows = element_count(info.shape) / columns;
  const bool looked_up = info.name == "position_embd.weight" ||
                         (info.name == "token_embd.weight" && !model.arch().tied);
  if (looked_up) return dtype_row_bytes(type, columns);
  return packed_bytes(type, rows, columns, info.name);
}

}  // namespace

Measure measure_of(const BudgetOptions& options) {
  return options.target_bpw > 0     ? Measure::kBits
         : options.target_speed > 0 ? Measure::kReads
                                    : Measure::kFile;
}

uint64_t tensor_bytes(const TensorInfo& info, DType type) {
  const int64_t columns = info.shape.back();
  return dtype_row_bytes(type, columns) *
         static_cast<uint64_t>(element_count(info.shape) / columns);
}

uint64_t cost_of(Measure measure, const Model& model, const BudgetGroup& group, DType type) {
  constexpr uint64_t kAlignment = 32;  // Of tensors in a GGUF.
  uint64_t cost = 0;
  for (const std::string& name : group.tensors) {
    const TensorInfo& info = model.info(name);
    cost += measure == Measure::kReads ? read_bytes(model, info, type) : tensor_bytes(info, type);
  }
  return measure == Measure::kFile ? (cost + kAlignment - 1) / kAlignment * kAlignment : cost;
}

std::string digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

BudgetItems items_of(Measure measure, const Model& model, const std::vector<BudgetGroup>& groups,
                     const std::vector<std::vector<double>>& loss) {
  BudgetItems items;
  for (size_t g = 0; g < groups.size(); ++g) {
    items.emplace_back();
    for (size_t t = 0; t < groups[g].types.size(); ++t)
      items.back().push_back(
          {cost_of(measure, model, groups[g], groups[g].types[t]), loss.empty() ? 0 : loss[g][t]});
  }
  return items;
}

uint64_t limit_of(const BudgetOptions& options, const Model& model,
                  const std::vector<BudgetGroup>& groups, uint64_t around, uint64_t vectors) {
  const auto less = [](uint64_t a, uint64_t b) { return a > b ? a - b : 0; };
  if (!options.target_size.empty())
    return less(parse_bytes(options.target_size, "target-size"), around);
  if (options.target_bpw > 0)
    return less(static_cast<uint64_t>(options.target_bpw *
                                      static_cast<double>(model.arch().parameters) / 8.0),
                vectors);
  double reads = 0;
  for (const BudgetGroup& group : groups) {
    const bool divides = model.info(group.tensors.front()).shape.back() % 32 == 0;
    reads += static_cast<double>(
        cost_of(Measure::kReads, model, group, divides ? DType::kQ8_0 : DType::kF16));
  }
  return static_cast<uint64_t>(reads / options.target_speed);
}

}  // namespace slmc

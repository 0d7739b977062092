// What the types of a model's matrices cost, in the units that a target counts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/model.h"
#include "quantize/budget.h"

namespace slmc {

/// What a budget counts.
enum class Measure { kFile, kBits, kReads };
Measure measure_of(const BudgetOptions& options);

uint64_t tensor_bytes(const TensorInfo& info, DType type);
/// Of all tensors of a group in that type.
uint64_t cost_of(Measure measure, const Model& model, const BudgetGroup& group, DType type);
/// The solver's items; `loss` [group][type], or empty: all zero.
BudgetItems items_of(Measure measure, const Model& model, const std::vector<BudgetGroup>& groups,
                     const std::vector<std::vector<double>>& loss);
/// The budget in the solver's units. `around`: bytes of the file around the groups, and of that the
/// `vectors`' share.
uint64_t limit_of(const BudgetOptions& options, const Model& model,
                  const std::vector<BudgetGroup>& groups, uint64_t around, uint64_t vectors);
/// Three digits.
std::string digits(double value);

}  // namespace slmc

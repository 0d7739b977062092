// What the quantize stage's options may not be together. Internals of the stage.
#pragma once

#include <vector>

#include "formats/model.h"
#include "quantize/method.h"
#include "quantize/rules.h"
#include "quantize/stage.h"

namespace slmc {

/// Refuses what the method and its statistics do not allow, before anything is read.
void check_statistics(const QuantizeOptions& options, const Method& method);

/// The group size and kind that the options ask for, in place of the scheme's. Throws
/// Error(kUnsupported) where rows do not divide.
void regroup(const QuantizeOptions& options, const Model& model, std::vector<TypeChoice>& choices);

/// The method whose `smooth` comes first: `--smooth`'s, else the method's own; null: none.
const Method* smoother_of(const QuantizeOptions& options, const Method& method);
/// True if anything has to be learned from inputs.
bool learns(const QuantizeOptions& options, const Method& method);

/// Refuses types that the output's container cannot hold.
void check_container(const QuantizeOptions& options, const std::vector<TypeChoice>& choices);

}  // namespace slmc

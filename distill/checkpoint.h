// The state of a training run, as one safetensors file that appears whole or not at all.
#pragma once

#include <cstdint>
#include <string>

#include "compress/core/json.h"
#include "distill/training.h"

namespace slmc {

struct TrainingState {
  int64_t step = 0;  ///< Optimizer steps done. With the seed it fixes the order of data, so no
                     ///< generator's state is kept.
  float* weights = nullptr;  ///< Flat buffers of layout.total elements.
  float* first = nullptr;
  float* second = nullptr;
  Json measured;  ///< Held-out measurements so far.
};

/// Writes <folder>/state.safetensors: every parameter and its two moments under "weight.",
/// "adam.first." and "adam.second." names, with the step and `conditions` as metadata. A former
/// file of that name is replaced by rename.
void save_checkpoint(const std::string& folder, const ParameterLayout& layout,
                     const TrainingState& state, const Json& conditions);

bool has_checkpoint(const std::string& folder);
/// What was stored beside the tensors. Throws Error(kBadInput) if the file is damaged.
Json checkpoint_conditions(const std::string& folder);
/// Fills the buffers and `state.step`. Throws Error(kBadInput) if the file's tensors are not those
/// of `layout`.
void load_checkpoint(const std::string& folder, const ParameterLayout& layout,
                     TrainingState& state);
void remove_checkpoint(const std::string& folder);

/// "" if a run under `now` continues one under `then` to the bit, else one line that names what
/// differs.
std::string conditions_difference(const Json& then, const Json& now);

}  // namespace slmc

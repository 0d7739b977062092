// The state of a training run, as one safetensors file that appears whole or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/core/atomic_file.h"
#include "compress/core/json.h"
#include "compress/core/mapped_file.h"
#include "distill/training.h"

namespace slmc {

/// What a checkpoint has of every element of the layout.
enum class StateBuffer { kWeights, kFirstMoments, kSecondMoments };

/// Where a run is. With the seed the step fixes the order of data, so no generator's state is kept.
struct TrainingState {
  int64_t step = 0;               ///< Optimizer steps done.
  Json measured = Json::array();  ///< Held-out measurements so far.
  Json samples = nullptr;         ///< The student's own that later steps will use; null: none.
  Json last = Json::object();     ///< What is reported of the last step.
};

/// Writes <folder>/state.safetensors: every parameter and its two moments under "weight.",
/// "adam.first." and "adam.second." names, with the state and `conditions` as metadata. A former
/// file of that name is replaced by `commit`; without it nothing changes.
class CheckpointWriter {
 public:
  CheckpointWriter(const std::string& folder, const ParameterLayout& layout,
                   const TrainingState& state, const Json& conditions);
  /// Elements [begin, begin + values.size()) of a buffer, in any order.
  void write(StateBuffer buffer, int64_t begin, std::span<const float> values);
  void commit();

 private:
  int64_t total_;
  uint64_t data_ = 0;  ///< Where the tensors begin.
  std::unique_ptr<AtomicFile> file_;
};

bool has_checkpoint(const std::string& folder);
/// What was stored beside the tensors. Throws Error(kBadInput) if the file is damaged.
Json checkpoint_conditions(const std::string& folder);
/// Reads one. Throws Error(kBadInput) if the file is damaged or its tensors are not those of
/// `layout`, which must outlive this.
class CheckpointReader {
 public:
  CheckpointReader(const std::string& folder, const ParameterLayout& layout);
  const TrainingState& state() const { return state_; }
  /// Elements [begin, begin + values.size()) of a buffer.
  void read(StateBuffer buffer, int64_t begin, std::span<float> values) const;

 private:
  const ParameterLayout& layout_;
  std::shared_ptr<const MappedFile> file_;
  std::vector<std::vector<uint64_t>> offsets_;  ///< In the file, of each buffer and slot.
  TrainingState state_;
};
void remove_checkpoint(const std::string& folder);

}  // namespace slmc

// Runs a model over calibration windows one block at a time, and lets statistics look at what goes
// into its linear layers.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compress/runtime/decoder.h"
#include "compress/runtime/hidden_states.h"
#include "formats/model.h"
#include "quantize/calibration.h"
#include "quantize/input_statistics.h"

namespace slmc {

/// A branch of a block, and its linear layers in the order they are used, together where they share
/// their input.
struct BranchGroups {
  Branch branch;
  std::vector<std::vector<std::string>> groups;
};

/// A model some of whose tensors are replaced.
class ReplacedWeights : public WeightSource {
 public:
  explicit ReplacedWeights(const WeightSource& base) : base_(base) {}
  void replace(const std::string& name, TensorView view) { views_[name] = std::move(view); }
  void clear() { views_.clear(); }

  const Architecture& arch() const override { return base_.arch(); }
  bool has(const std::string& name) const override { return base_.has(name); }
  TensorView view(const std::string& name) const override {
    const auto found = views_.find(name);
    return found != views_.end() ? found->second : base_.view(name);
  }
  void release(const std::string& name) const override { base_.release(name); }

 private:
  const WeightSource& base_;
  std::map<std::string, TensorView> views_;
};

class BlockRunner {
 public:
  /// What `data.forward` says: the reference runtime, or LibTorch's. `spill_folder`: where hidden
  /// states go; empty: memory. `model` gives the architecture. `data` must outlive the runner.
  static std::unique_ptr<BlockRunner> create(const WeightSource& model, const CalibrationData& data,
                                             const std::string& spill_folder);
  virtual ~BlockRunner() = default;

  /// Starts anew: the windows' embeddings.
  void embed(const WeightSource& weights) { embed(weights, states_); }
  /// Lets every window through a block, or through one branch after the other. `seen`: the
  /// inputs of each of its linear layers, diagonal statistics only.
  void run_block(const WeightSource& weights, int64_t layer, Branch branch = Branch::kBoth) {
    run_block(weights, layer, branch, states_, {});
  }
  void run_block(const WeightSource& weights, int64_t layer,
                 std::map<std::string, InputStatistics>& seen) {
    run_block(weights, layer, Branch::kBoth, states_, {.seen = &seen});
  }
  /// The same; `keys` and `values` count the magnitudes that attention is given.
  void run_block(const WeightSource& weights, int64_t layer, InputHistogram& keys,
                 InputHistogram& values) {
    run_block(weights, layer, Branch::kBoth, states_, {.keys = &keys, .values = &values});
  }
  /// Both branches of a block, before which the windows are.
  virtual std::vector<BranchGroups> groups(const WeightSource& weights, int64_t layer) = 0;
  /// Adds the inputs of one group over all windows, which are before its branch and stay there.
  virtual void observe_group(const WeightSource& weights, int64_t layer, Branch branch,
                             const std::vector<std::string>& group,
                             InputStatistics& statistics) = 0;
  /// What is wanted beside the original model, which runs along on windows of its own.
  struct Beside {
    /// Cross products of (input there - input here) with the inputs here go into the inputs'
    /// statistics.
    bool inputs = true;
    /// Those of the residual stream before the branch, or with `behind` behind it, go here.
    InputStatistics* stream = nullptr;
    bool behind = false;
    /// The original's windows go on through the branch.
    bool moves = false;
  };
  /// The same with `wanted`.
  virtual void observe_beside(const WeightSource& original, const WeightSource& weights,
                              int64_t layer, Branch branch, const std::vector<std::string>& group,
                              const Beside& wanted, InputStatistics& statistics) = 0;
  /// Adds what goes into the head, after the last block.
  virtual void observe_head(const WeightSource& weights, InputStatistics& statistics) = 0;

  /// True if what `name` gives is added to the residual stream as it is: shown by running some
  /// tokens with and without it (in the runtime, whose f32 is exact enough), so that no family has
  /// to say so.
  bool adds_to_stream(const WeightSource& weights, int64_t layer, Branch branch,
                      const std::string& name) const;
  /// Starts and moves on the original model's windows.
  void embed_original(const WeightSource& original);
  void run_original(const WeightSource& original, int64_t layer, Branch branch) {
    run_block(original, layer, branch, *original_, {});
  }

 protected:
  BlockRunner(const WeightSource& model, const CalibrationData& data,
              const std::string& spill_folder);

  /// What a pass through a block looks at; null: not that.
  struct Watch {
    std::map<std::string, InputStatistics>* seen = nullptr;
    InputHistogram *keys = nullptr, *values = nullptr;
  };
  virtual void embed(const WeightSource& weights, HiddenStates& states) = 0;
  virtual void run_block(const WeightSource& weights, int64_t layer, Branch branch,
                         HiddenStates& states, const Watch& watch) = 0;

  const CalibrationData& data_;
  std::string spill_folder_;
  HiddenStates states_;
  std::unique_ptr<HiddenStates> original_;
};

}  // namespace slmc

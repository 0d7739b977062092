// How far the distributions of a model with some weights replaced are from its own, over windows of
// text. Runs block by block, so that one block's weights and a few windows' hidden states are
// resident, however many variants there are.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "compress/core/stage.h"
#include "compress/runtime/decoder.h"
#include "formats/model.h"
#include "quantize/calibration.h"

namespace slmc {

/// As many windows of `window` tokens as have `tokens`.
int64_t windows_for(int64_t tokens, int64_t window);
/// Windows of the calibration data, evenly spaced: windows_for(tokens), or all.
std::vector<std::vector<int32_t>> measuring_windows(const CalibrationData& data, int64_t tokens);
int64_t count_tokens(const std::vector<std::vector<int32_t>>& windows);

class DivergenceMeter {
 public:
  static constexpr int64_t kPositions = 32;  ///< Whose logits are held at once.

  /// `vocab`: of `model`, ids below it are real. `windows` are not empty.
  DivergenceMeter(const WeightSource& model, int64_t vocab,
                  std::vector<std::vector<int32_t>> windows);
  ~DivergenceMeter();

  int64_t windows() const { return static_cast<int64_t>(windows_.size()); }
  int64_t tokens() const;

  /// Goes to a window; then stages follow in ascending order, as far as they are wanted: -1 for the
  /// embedding, the layers, and `layers` for the head.
  void start(int64_t window);
  /// KL(model || variant) in nats, summed over the window's positions, for each of the variants,
  /// which differ from the model in weights of that stage only (a tied embedding is stage -1).
  std::vector<double> measure(int64_t stage, const std::vector<const WeightSource*>& variants);
  /// The same for a model that may differ anywhere.
  double measure_whole(const WeightSource& other);

 private:
  std::vector<float> embed(const WeightSource& weights) const;
  void run_block(const WeightSource& weights, int64_t layer, std::vector<float>& x) const;
  std::vector<double> compare(const std::vector<std::vector<float>>& states,
                              const std::vector<const WeightSource*>& heads) const;

  const WeightSource& model_;
  int64_t vocab_, context_ = 0;
  std::vector<std::vector<int32_t>> windows_;
  std::unique_ptr<PartialDecoder> head_;
  std::unique_ptr<KvCache> cache_;
  int64_t window_ = -1, stage_ = -1;
  std::vector<float> x_, final_;  // Before block `stage_`, and behind the last one.
};

/// Mean KL(model || other) in nats over all windows.
double mean_divergence(DivergenceMeter& meter, const WeightSource& other, Context& context);

}  // namespace slmc

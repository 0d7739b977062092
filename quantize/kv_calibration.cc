#include "quantize/kv_calibration.h"

#include "compress/core/text.h"
#include "quantize/block_runner.h"
#include "quantize/observer.h"

namespace slmc {
namespace {

/// Architecture::kv_scales.
std::vector<float> calibrated_scales(const WeightSource& weights, const CalibrationData& data,
                                     const Observer& observer, const std::string& spill_folder,
                                     Context& context) {
  const int64_t layers = weights.arch().layers;
  const std::unique_ptr<BlockRunner> running = BlockRunner::create(weights, data, spill_folder);
  BlockRunner& runner = *running;
  runner.embed(weights);
  Progress& progress = progress_of(context);
  progress.begin("keys and values", static_cast<uint64_t>(layers), "blocks");
  std::vector<float> scales;
  for (int64_t layer = 0; layer < layers; ++layer) {
    InputHistogram keys, values;
    runner.run_block(weights, layer, keys, values);
    scales.push_back(observed_scale(observer, keys, cat("keys of block ", layer)));
    scales.push_back(observed_scale(observer, values, cat("values of block ", layer)));
    progress.update(static_cast<uint64_t>(layer) + 1, cat("block ", layer));
    context.check_interrupt();
    context.check_ram(cat("block ", layer));
  }
  progress.end();
  return scales;
}

}  // namespace

void fix_cache(const std::string& observer, CalibratedJob& job, ScaledWeights& weights,
               Context& context) {
  const std::vector<float> scales = calibrated_scales(
      weights, *job.data, observer_by_name(observer.empty() ? "minmax" : observer),
      job.spill_folder, context);
  for (size_t i = 0; i < scales.size(); ++i)
    job.known[cat("blk.", i / 2, i % 2 == 0 ? ".attn_k" : ".attn_v", ".weight")]["kv_scale"] =
        scales[i];
  weights.fix_cache(scales);
}

}  // namespace slmc

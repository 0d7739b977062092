// The module's face: one C entry point that gives the TorchModule.
#include <torch/headeronly/version.h>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "compress/torch/block_runner.h"
#include "compress/torch/decoder.h"
#include "compress/torch/device.h"
#include "compress/torch/nccl_group.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/trainer.h"

namespace slmc::libtorch {
namespace {

class Module : public TorchModule {
 public:
  std::string version() const override { return TORCH_VERSION; }
  void check_device(const std::string& device) const override { device_from_name(device); }

  std::vector<float> logits(const WeightSource& weights, std::span<const int32_t> ids,
                            std::span<const int32_t> types, const std::string& device) override {
    at::set_num_threads(threads());
    return within_memory(device, "give fewer ids, or another device", [&] {
      return sequence_logits(weights, ids, types, device_from_name(device));
    });
  }

  std::shared_ptr<RankGroup> ranks(const Context& context) override {
    std::shared_ptr<RankGroup> group = ranks_.lock();
    if (group == nullptr) ranks_ = group = join_ranks(context);
    return group;
  }

  Report train(const TrainingJob& job, Context& context) override {
    // Lanes are the threads; inside one LibTorch works alone, so that sums do not depend on the
    // machine's load or size.
    at::set_num_threads(1);
    return libtorch::train(job, context, version(), *ranks(context));
  }

  TrainingForecast forecast(const TrainingJob& job, Context& context) override {
    at::set_num_threads(1);
    return libtorch::forecast(job, context, version());
  }

  std::unique_ptr<BlockRunner> block_runner(const WeightSource& model, const CalibrationData& data,
                                            const std::string& spill_folder) override {
    return make_block_runner(model, data, spill_folder);
  }

 private:
  std::weak_ptr<RankGroup> ranks_;
};

}  // namespace
}  // namespace slmc::libtorch

extern "C" __attribute__((visibility("default"))) slmc::TorchModule* slmc_torch_module(
    uint32_t abi) {
  static slmc::libtorch::Module module;
  return abi == slmc::kTorchModuleAbi ? &module : nullptr;
}

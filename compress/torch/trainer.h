// The training loop: forward, fused loss, backward, AdamW, checkpoints.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "compress/torch/lane.h"
#include "distill/candidates.h"
#include "distill/checkpoint.h"
#include "distill/loss_mixture.h"
#include "distill/on_policy.h"
#include "distill/sharded_adam.h"
#include "distill/training.h"

namespace slmc::libtorch {

class Trainer {
 public:
  Trainer(const TrainingJob& job, Context& context, const at::Device& device,
          const std::string& torch_version, RankGroup& group);
  Report run();
  TrainingForecast forecast();

 private:
  /// The trained tensors: views of a flat buffer.
  std::shared_ptr<const WeightSource> tensors_of(const at::Tensor& weights) const;
  void renew();
  void agree();
  bool may_resume(bool& measured);
  void resume();
  void checkpoint();
  LossMix mix_of(int64_t step) const;
  bool compares() const;
  Json terms_of(const LossSums& sums) const;
  /// The next `count` windows, or draws, of the data's order, from its place `first` on.
  std::vector<int64_t> windows_at(int64_t first, int64_t count);
  std::vector<int64_t> draws_at(int64_t first, int64_t count);
  std::vector<LossSums> learn(const PackedData& data, const std::vector<int64_t>& draws,
                              int64_t first_pass, LossMix mix);
  LossSums sum_of_lanes(const std::vector<LossSums>& mine);
  LossSums step(int64_t number);
  int64_t passes() const {  ///< Of a step.
    return (job_.windows_per_step + job_.micro_windows - 1) / job_.micro_windows;
  }
  double update_seconds() const;
  void foretell();
  void update(int64_t number, const LossSums& sums);
  void log(int64_t number, const LossSums& sums);
  Json measure_cached();
  bool due() const;
  Json measure_here();
  void measure();
  void after_step();
  Json final_figures(const LossSums& sums) const;
  Json report(double seconds, double trained) const;
  double sampling_share() const;
  std::string progress_text(const LossSums& sums) const;

  const TrainingJob& job_;
  Context& context_;
  ParameterLayout teacher_layout_;
  RankGroup& group_;
  ShardedAdam optimizer_;
  at::Tensor weights_;  ///< The optimizer's, in host memory.
  at::Tensor run_;  ///< What the network runs on: the weights, or what is stored of them; in host
                    ///< memory ...
  at::Tensor device_run_, teacher_weights_;  ///< ... and, as the teacher's, on the device.
  LossMixture losses_;
  std::vector<std::unique_ptr<Lane>> lanes_;  ///< This rank's.
  std::vector<uint8_t> mask_;                 ///< Empty, or 0 where a weight stays 0.
  WindowOrder order_;
  OwnSamples own_samples_;
  TrainingState state_;
  Candidates candidates_;
  Json conditions_;
  double started_ = 0.0;
  int64_t started_step_ = 0;
  double gradient_norm_ = 0.0;
  std::string metrics_path_;         ///< Of rank 0; empty elsewhere.
  bool stop_asked_ = false;          ///< A rank was interrupted.
  bool exhausted_ = false;           ///< No better candidate is to be expected.
  bool has_own_checkpoint_ = false;  ///< One of this run is on the disk.
};

/// Runs the job to its end and writes the student. See TorchModule::train.
Report train(const TrainingJob& job, Context& context, const std::string& torch_version,
             RankGroup& group);
/// See TorchModule::forecast.
TrainingForecast forecast(const TrainingJob& job, Context& context,
                          const std::string& torch_version);

}  // namespace slmc::libtorch

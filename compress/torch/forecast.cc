// What a run will take, from a few of its passes.
#include <algorithm>
#include <cmath>

#include "compress/core/system.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/trainer.h"
#include "distill/optimizer.h"
#include "distill/product.h"

namespace slmc::libtorch {

/// What an update of all weights takes, from one of some of them.
double Trainer::update_seconds() const {
  const int64_t some = std::min<int64_t>(job_.layout.total, int64_t{1} << 20);
  at::Tensor weights = weights_.narrow(0, 0, some).clone(), first = at::zeros_like(weights),
             second = at::zeros_like(weights), gradients = at::zeros_like(weights);
  const double start = now_seconds();
  adamw_step(job_.adam, some, std::min(some, job_.layout.decayed), 1, 0.0, 1.0,
             weights.data_ptr<float>(), first.data_ptr<float>(), second.data_ptr<float>(),
             gradients.data_ptr<float>(), nullptr);
  // Summing the lanes' gradients reads each of them once more.
  const double each = (now_seconds() - start) * (1.0 + 0.2 * static_cast<double>(lanes_.size()));
  return each * static_cast<double>(optimizer_.shard().count()) / static_cast<double>(some);
}

TrainingForecast Trainer::forecast() {
  renew();
  const int64_t lanes = job_.lanes;  // All ranks': each makes the passes of its own.
  const int64_t windows = std::min(job_.windows_per_step, lanes * job_.micro_windows);
  const LossMix mix = mix_of(state_.step);
  const auto timed = [&](int64_t first) {
    const double start = now_seconds();
    learn(job_.data, draws_at(first, windows), 0, mix);
    for (const auto& lane : lanes_) lane->gradients();  // A device is waited for.
    return now_seconds() - start;
  };
  timed(0);  // Memory is touched for the first time.
  const double fresh = timed(windows);
  // What the frozen blocks gave of these windows is known now.
  const double again = job_.frozen_states_folder.empty() ? fresh : timed(windows);
  const int64_t steps = job_.steps - state_.step, total = steps * job_.windows_per_step;
  const int64_t seen_first = std::min(total, job_.data.windows);
  const auto rounds = [&](int64_t count) {  // A step's last round may have fewer passes than lanes.
    return static_cast<double>(count) / static_cast<double>(job_.windows_per_step) *
           std::ceil(static_cast<double>(passes()) / static_cast<double>(lanes));
  };
  double sampling = 0;
  if (job_.on_policy.share > 0) {
    const double start = now_seconds();
    sample_windows(*overlaid(tensors_of(run_), job_.student), job_.data, windows_at(0, windows),
                   job_.on_policy, job_.seed, group_.place());
    sampling = (now_seconds() - start) * job_.on_policy.share * static_cast<double>(total) /
               static_cast<double>(windows);
  }
  return {.tokens = (job_.frozen_states_folder.empty() ? 2 : 3) * windows * job_.data.context *
                    std::ssize(lanes_) / lanes,
          .seconds = rounds(seen_first) * fresh + rounds(total - seen_first) * again + sampling +
                     static_cast<double>(steps) * update_seconds(),
          .peak_bytes = peak_rss_bytes()};
}

/// Says before a long run what it will take, and ends it there if --max-ram is too little.
void Trainer::foretell() {
  constexpr int64_t kWorthIt = 50;  // Steps, of which the probe costs three at most.
  const bool asked = context_.verbosity >= 0 || context_.max_ram > 0;
  if (!asked || job_.steps - state_.step < kWorthIt) return;
  progress_of(context_).note("training will take about " + forecast_text(forecast()));
  context_.check_ram("the probe before training");
}

}  // namespace slmc::libtorch

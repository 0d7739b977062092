// What --loss says: losses mixed by weights that may change over the steps.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distill/loss.h"
#include "distill/loss_kernel.h"

namespace slmc {

struct LossOptions;

/// Goes linearly from `first` to `last` over the first `part` of a run's steps and stays there.
struct Ramp {
  double first = 1.0, last = 1.0;
  double part = 1.0;
  /// At step `step` of [0, steps).
  double at(int64_t step, int64_t steps) const;
};

struct LossTerm {
  std::string text;  ///< As it was given, without its weight.
  std::shared_ptr<const Loss> loss;
  Ramp weight;
  /// The loss if it is of that kind, else null.
  const DistributionLoss* distribution() const {
    return dynamic_cast<const DistributionLoss*>(loss.get());
  }
  const HiddenLoss* hidden() const { return dynamic_cast<const HiddenLoss*>(loss.get()); }
  /// The text's own next token, which the kernel computes anyway, at T = 1.
  bool cross_entropy() const { return loss->name() == "cross_entropy"; }
};

using LossMixture = std::vector<LossTerm>;

/// "forward_kl", "forward_kl:0.7,jsd(beta=0.3):0.3", "forward_kl:0..1@0.5,mse_hidden:1..0@0.5":
/// losses, each with its weight (1 if not given), or where the weight starts, where it ends, and
/// after which part of the steps (1 if not given). Throws Error(kUsage).
LossMixture parse_losses(const std::string& text);

bool needs_teacher(const LossMixture& losses);
bool weighs_unlikely(const LossMixture& losses);
bool compares_hidden(const LossMixture& losses);
/// Whether the mixture says itself what the text's own next token counts, so that no other share of
/// it is added.
bool names_cross_entropy(const LossMixture& losses);

/// The losses of a step, of which `losses` must outlive the result.
LossMix mix_at(const LossMixture& losses, const LossOptions& options, int64_t real_vocab,
               int64_t step, int64_t steps);

}  // namespace slmc

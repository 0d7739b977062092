// Ranks over c10d's Gloo, which works with tensors of the cpu.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "compress/core/ranks.h"

namespace slmc::libtorch {

/// `values` where they are, which a call may write to.
at::Tensor tensor_of(std::span<const float> values);
at::Tensor tensor_of(std::span<const double> values);

/// Ranks that watch each other.
class WatchedGroup : public RankGroup {
 public:
  using RankGroup::RankGroup;
  /// Starts a call to other ranks and waits until it is `done`. Both may throw Error for a reason
  /// of this rank's, and anything else when another cannot be reached: then, and when another rank
  /// ends meanwhile, the group is lost and Error says why.
  virtual void call(const std::function<void()>& start, const std::function<bool()>& done) = 0;
  std::string carrier() const override;
  /// Why NCCL does not carry the floats, where one might expect it to.
  void set_remark(std::string remark) { remark_ = std::move(remark); }

 private:
  std::string remark_;
};

/// Waits until all ranks have come, at most five minutes, and connects them.
std::shared_ptr<WatchedGroup> join_gloo(const RankPlace& place);

}  // namespace slmc::libtorch

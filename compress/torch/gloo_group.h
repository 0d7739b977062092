// Ranks over c10d's Gloo, which works with tensors of the cpu.
#pragma once

#include <memory>

#include "compress/core/ranks.h"

namespace slmc::libtorch {

/// Waits until all ranks have come, at most five minutes, and connects them. A place alone gives
/// the group of one.
std::shared_ptr<RankGroup> join_ranks(const RankPlace& place);

}  // namespace slmc::libtorch

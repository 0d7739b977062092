// How ranks find together: by Gloo, and for the bulk of what they exchange by NCCL where each has a
// GPU of its own.
#pragma once

#include <memory>

#include "compress/core/stage.h"

namespace slmc::libtorch {

/// The group of the ranks at `context.ranks`, on its device; a place alone gives the group of one.
/// Throws Error(kUnsupported) if NCCL was asked for by name and cannot be used.
std::shared_ptr<RankGroup> join_ranks(const Context& context);

}  // namespace slmc::libtorch

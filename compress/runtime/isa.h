// Which kernel set is in use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "compress/runtime/kernels/kernels.h"

namespace slmc {

/// The chosen set; the best that this processor has unless force_isa named another. Stays the same
/// once used.
const kernels::Set& kernel_set();

/// Every set that is compiled in and that this processor can run, slowest first. For tests, which
/// compare them.
std::vector<const kernels::Set*> available_sets();

/// For tests only: replaces the chosen set even after its first use.
void override_set(const kernels::Set& set);

}  // namespace slmc

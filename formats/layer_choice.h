// Which layers of a model stay, as people write it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace slmc {

/// `count` of `layers` layers, evenly spaced, the first and the last among them (DistilBERT's
/// start); `count` == 1 is the first. Needs 1 <= count <= layers.
std::vector<int64_t> evenly_spaced_layers(int64_t layers, int64_t count);

/// "0,2,5": layer numbers below `layers`, ascending, without repeats. Throws Error(kUsage), which
/// begins with `what`.
std::vector<int64_t> parse_layer_list(const std::string& what, const std::string& text,
                                      int64_t layers);

}  // namespace slmc

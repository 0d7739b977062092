// Structured pruning: which layers and which FFN neurons stay, so that the model becomes really
// smaller. Names and shapes only, and the scoring of neurons; the stage moves the bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/architecture.h"
#include "formats/model.h"
#include "prune/metric.h"

namespace slmc {

/// What stays. The same FFN width in all layers, as every runtime expects.
struct Structure {
  std::vector<int64_t> layers;  ///< Source layers that stay, ascending.
  int64_t ffn = 0;              ///< FFN neurons that stay in each.
};

/// The multiple that a width is brought to: `multiple`, or for 0: 256 when hidden and ffn are
/// multiples of 256, so that K-quants apply; else 32; else 1.
int64_t width_multiple(const Architecture& arch, int64_t multiple);
/// ratio * ffn to the nearest multiple (ties up), at least one and at most ffn.
int64_t reduced_width(const Architecture& arch, double ratio, int64_t multiple);

/// The architecture that remains.
Architecture reduced_architecture(const Architecture& arch, const Structure& structure);
/// config.json's own lists of one entry a layer (such as layer_types), cut to the layers that stay.
Json reduced_config(const Json& config, const Architecture& arch, const Structure& structure);

/// Which axis of a tensor runs over FFN neurons.
enum class NeuronAxis { kNone, kRows, kColumns };
NeuronAxis neuron_axis(const std::string& name);
/// The layer in "blk.N.…", or -1.
int64_t layer_of(const std::string& name);
/// The name in the smaller model, or "" when its layer is dropped.
std::string reduced_name(const std::string& name, const Structure& structure);

/// The `structure.ffn` neurons of a source layer with the largest scores, ascending; among equals
/// the lower index stays. A neuron's score is the root of the summed squares of the metric's scores
/// of its gate row, up row and down column. `share` receives the kept part of all neurons' summed
/// squares.
std::vector<int64_t> choose_neurons(const Model& model, const Metric& metric, int64_t layer,
                                    int64_t width, double& share);

/// A whole weight as floats, read on all threads. Throws Error(kBadInput) naming the first value
/// that is not finite.
std::vector<float> read_weight(const Model& model, const std::string& name);

}  // namespace slmc

// Bottleneck adapters: small networks behind the branches of frozen blocks, up(activation(down(x)))
// added to the stream. Two arrangements: "houlsby" (Houlsby et al. 2019), behind attention and
// feed-forward network, x being what the branch gives; "pfeiffer" (Pfeiffer et al. 2020), behind
// the feed-forward network alone, x being the stream with the branch in it. Files are those of the
// package `adapters` (1.x): adapter_config.json and adapter.safetensors (pytorch_adapter.bin is
// read too) with "<block>.output_adapters.adapters.<name>.adapter_down.0.weight" and its like.
#pragma once

#include <string>

#include "formats/adapter.h"

namespace slmc {

struct BottleneckSettings {
  double reduction = 16;  ///< The width is hidden / reduction, rounded down, at least 1.
  bool houlsby = false;
  Activation activation = Activation::kRelu;
  double dropout = 0;       ///< Of what up gives, in training only.
  int64_t first_layer = 0;  ///< Layers before it have none.
};

/// Without values: of each adapter "blk.N.<branch>_adapter_down.weight" [width, hidden], ".bias"
/// [width], "blk.N.<branch>_adapter_up.weight" [hidden, width], ".bias" [hidden], <branch> being
/// attn or ffn. Throws Error(kUnsupported) for an encoder.
SideAdapter make_bottleneck(const Architecture& arch, const BottleneckSettings& settings);
/// Throws Error(kBadInput) for files that are damaged or of a model of other widths,
/// Error(kUnsupported) for what slmc does not compute (norms, gates, parallel adapters, ...).
SideAdapter read_bottleneck(const std::string& path, const Architecture& arch);

}  // namespace slmc

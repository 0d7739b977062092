// How bottleneck adapters and prompts are asked for, how they begin, and what of them is trained.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "distill/finetune_stage.h"
#include "distill/vocabulary.h"
#include "formats/adapter.h"
#include "formats/bottleneck.h"

namespace slmc {

/// What the options train beside the weights; none: the weights themselves.
std::optional<AdapterKind> tuned_beside(const FinetuneOptions& options);
/// Throws Error(kUsage) or Error(kUnsupported) for options that do not go with such an adapter.
void check_side_adapter(const FinetuneOptions& options, AdapterKind kind, const Architecture& arch);

/// "reduction=16,kind=pfeiffer,activation=relu,dropout=0": missing keys keep their defaults (swish
/// for kind houlsby). Throws Error(kUsage) naming the nearest key.
BottleneckSettings parse_bottleneck(const std::string& text, int64_t first_layer);

/// The adapter that the options ask for, or that of --init-adapter. With `vocabulary` it has its
/// first values. Of bottlenecks: down uniform within 1 / sqrt(hidden), the rest 0, so that the
/// model begins as it is. Of prompts, as PEFT: rows of the embedding that are drawn or that a text
/// has, repeated or cut to their number, or normal random values.
SideAdapter side_adapter(const FinetuneOptions& options, const WeightSource& base,
                         const Vocabulary* vocabulary, uint64_t seed);

/// Every tensor of the adapter; bottlenecks' matrices may decay.
ParameterLayout side_layout(const SideAdapter& adapter);

}  // namespace slmc

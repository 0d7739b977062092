// Prompt tuning (Lester et al. 2021): what N virtual tokens enter a model with is learned, the
// model stays as it is. Files are PEFT's: adapter_config.json with peft_type PROMPT_TUNING and
// adapter_model.safetensors with "prompt_embeddings" [N, hidden].
#pragma once

#include <string>

#include "formats/adapter.h"

namespace slmc {

/// Of `tokens` virtual tokens, without values: "prompt_embd.weight" [tokens, hidden], in place of
/// rows of the embedding, after the family's factor for them. Throws Error(kUnsupported) for an
/// encoder, Error(kUsage) for more than the model has positions for.
SideAdapter make_prompt(const Architecture& arch, int64_t tokens);
/// Throws Error(kBadInput) for files that are damaged or of a model of another width.
SideAdapter read_prompt(const std::string& path, const Architecture& arch);

}  // namespace slmc

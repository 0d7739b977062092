// Re-reading a whole checkpoint: structure, every value, the hashes that came with it.
#pragma once

#include <string>

#include "compress/core/stage.h"

namespace slmc {

/// Reads all of `path` (a folder, a GGUF, or one .safetensors file). Returns {"path", "tensors",
/// "size_bytes", "finite": true, "hashes": "equal" | "none", "content_hash", "tokenizer": bool,
/// "not_decoded": types}. Throws Error(kBadInput) naming tensor, row and column of the first value
/// that is not finite, or the tensor whose bytes do not have the hash they were written with.
Json verify_checkpoint(const std::string& path, Context& context);

}  // namespace slmc

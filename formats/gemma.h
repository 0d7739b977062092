// What the Gemma families share: norms of 1 + weight, a scaled embedding, norms of what each branch
// gives, windows in some of the layers, a query scale of its own.
#pragma once

#include "formats/decoder_family.h"

namespace slmc {

/// Gemma 2 alternates; Gemma 3 has five windowed layers to a full one and a rotary embedding for
/// each kind, and norms queries and keys in place of capping their products.
enum class Gemma { kTwo, kThree };

/// Of a text model's configuration. Throws as Family::from_config does.
Architecture gemma_from_config(Gemma version, const Json& config, const std::string& where);
Json gemma_to_config(Gemma version, const Architecture& arch, const Json& original);
Architecture gemma_from_gguf(Gemma version, const GgufFile& file, const std::string& where);
void gemma_to_gguf(Gemma version, const Architecture& arch, GgufKeys& keys);
/// The scale that llama.cpp uses: by head_dim, but by hidden / heads in the 27B models, which it
/// knows by their number of layers.
double gemma_gguf_query_scale(Gemma version, const Architecture& arch);
/// Names in a text model's folder.
const DecoderNames& gemma_names();

}  // namespace slmc

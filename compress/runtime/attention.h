// Attention over a cache, in blocks of 64 absolute positions.
#pragma once

#include <cstdint>

#include "compress/runtime/kv_cache.h"

namespace slmc {

/// Causal, within the layer's window where it has one; an encoder's tokens (of which the cache then
/// holds start + tokens) see all. `query` [tokens][heads*head_dim], rotated, of positions start,
/// start+1, ...; their keys and values are in the cache. `out` [tokens][heads*head_dim]. Every
/// query's arithmetic depends on its own position only, never on its neighbours.
void attend(const Architecture& arch, const SequenceCache& cache, int64_t layer, const float* query,
            int64_t tokens, int64_t start, float* out);

}  // namespace slmc

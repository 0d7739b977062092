// Random numbers of a tensor: the same however many others there are, and in whatever order they
// are drawn.
#pragma once

#include <cstdint>
#include <string>

#include "compress/core/hash.h"
#include "compress/core/random.h"

namespace slmc {

/// The stream of tensor `name` under `seed`.
inline Random random_stream(uint64_t seed, const std::string& name) {
  return Random(seed * 0x9e3779b97f4a7c15ull ^
                std::stoull(hash_bytes(name.data(), name.size()).substr(0, 16), nullptr, 16));
}

}  // namespace slmc

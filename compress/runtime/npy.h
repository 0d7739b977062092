// NumPy's .npy files, version 1.0: the form in which logits leave slmc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace slmc {

/// Writes little-endian float32 of `shape` in C order, atomically.
void write_npy(const std::string& path, const std::vector<int64_t>& shape, const float* data);

}  // namespace slmc

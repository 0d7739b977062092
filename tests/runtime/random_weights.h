// Random weights in memory for decoder tests, of any architecture and storage type.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/random.h"
#include "formats/block_codec.h"
#include "formats/family.h"
#include "formats/model.h"

namespace slmc::testing {

inline Architecture small_architecture() {
  Architecture arch;
  arch.family = "llama";
  arch.layers = 2;
  arch.hidden = 64;
  arch.ffn = 96;
  arch.heads = 4;
  arch.kv_heads = 2;
  arch.head_dim = 16;
  arch.vocab = 101;
  arch.context = 1024;
  arch.rope.dims = 16;
  return arch;
}

/// Matrices in `type`, vectors in f32; the values before rounding to `type` are the same for every
/// type.
inline MemoryWeights random_weights(const Architecture& arch, DType type, uint64_t seed = 1) {
  MemoryWeights weights(arch);
  Random random(seed);
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch)) {
    const bool matrix = spec.shape.size() == 2, norm = spec.name.find("norm") != std::string::npos;
    const int64_t count = element_count(spec.shape);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values)
      value = static_cast<float>(random.normal()) * 0.2f + (norm ? 1.0f : 0.0f);
    TensorView view;
    view.dtype = matrix ? type : DType::kF32;
    view.shape = spec.shape;
    const auto bytes = std::make_shared<std::vector<std::byte>>(view.bytes());
    block_codec(view.dtype).encode(values.data(), count, bytes->data());
    view.data = bytes->data();
    view.owner = bytes;
    weights.add(spec.name, view);
  }
  return weights;
}

}  // namespace slmc::testing

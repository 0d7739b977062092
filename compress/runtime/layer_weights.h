// The weights of a block as the runtime uses them: matrices repacked, norms and biases in f32.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/runtime/packed_matrix.h"
#include "formats/adapter.h"

namespace slmc {

struct Linear {
  std::string name;  ///< Of the weight.
  PackedMatrix weight;
  std::vector<float> bias;  ///< Empty: none.
  uint64_t bytes() const { return weight.bytes() + bias.size() * sizeof(float); }
};

struct Norm {
  std::vector<float> weight;  ///< With the architecture's norm_offset; empty: no norm here.
  std::vector<float> bias;    ///< LayerNorm
  uint64_t bytes() const { return (weight.size() + bias.size()) * sizeof(float); }
};

/// A bottleneck adapter; empty where the branch has none.
struct BranchAdapter {
  Linear down, up;
};

/// A decoder's norms precede its branches (attention, ffn) or follow them before the addition
/// (after_attention, after_ffn); an encoder's follow the addition (attention, ffn).
struct Layer {
  Norm attention, query_norm, key_norm, after_attention, ffn_norm, after_ffn;
  Linear query, key, value, output, gate, up, down;
  BranchAdapter attention_adapter, ffn_adapter;
};

/// The decoder's matrix that gives logits: a tied embedding is that too.
std::string logits_weight_name(const Architecture& arch);

/// Each drops the source's pages behind it.
std::vector<float> read_vector(const WeightSource& source, const std::string& name);
PackedMatrix read_matrix(const WeightSource& source, const std::string& name);
/// "<name>.weight", and "<name>.bias" with `bias`.
Linear read_linear(const WeightSource& source, const std::string& name, bool bias);
Norm read_norm(const WeightSource& source, const std::string& name);
/// Block `index`, or one branch of it.
Layer read_layer(const WeightSource& source, int64_t index, Branch branch = Branch::kBoth);

}  // namespace slmc

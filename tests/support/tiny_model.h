// Small random checkpoints in the Hugging Face layout for tests. Written byte by byte here, without
// slmc's own writer, so that the readers are tested against an independent source.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/tensor.h"
#include "tests/support/run_program.h"

namespace slmc::test {

struct TinyModel {
  std::string family = "llama";  ///< "llama" or "qwen2".
  int64_t layers = 2, hidden = 64, ffn = 96, heads = 4, kv_heads = 2, vocab = 320, context = 256;
  int64_t head_dim = 0;  ///< 0: hidden / heads.
  double theta = 10000.0;
  bool tied = true;
  bool attention_bias = false, mlp_bias = false;  ///< llama only; qwen2 has its own.
  std::string rope_type{};  ///< "", "linear" (factor 4), "llama3" (factor 8, low 1, high 4,
                            ///< original context 64).
  bool newer_rope_spelling = false;  ///< rope_parameters in place of rope_theta and rope_scaling.
  DType dtype = DType::kF32;         ///< f32, f16 or bf16.
  uint64_t seed = 1;
  bool tokenizer = true;   ///< Byte-level BPE with 256 bytes, 2 special tokens (ids 0 and 1) and a
                           ///< few merges; needs vocab >= 270.
  bool unaligned = false;  ///< Tensor data begins at an odd byte.
  int shards = 1;          ///< More than 1: sharded with an index.
};

/// Weights are uniform with a spread that keeps activations near 1, biases and norms are random
/// too, so logits vary by some units. `folder` is created. Returns config.json.
Json write_tiny_model(const std::string& folder, const TinyModel& options = {});

using TemporaryFolder = ScratchFolder;

/// The text of the tiny tokenizer.json.
std::string tiny_tokenizer_json();

/// Whole files, without slmc's own functions.
std::string slurp(const std::string& path);
void spit(const std::string& path, const std::string& bytes);

/// What a callable's Error says; "" when nothing was thrown. Other exceptions pass.
std::string error_of(const std::function<void()>& action);

}  // namespace slmc::test

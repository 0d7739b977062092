// The blocks of a transformer, as the architecture describes them: what the decoder and the encoder
// share.
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "compress/runtime/kv_cache.h"
#include "compress/runtime/layer_weights.h"

namespace slmc {

class Network {
 public:
  /// What is loaded: `layer` kAll for all blocks, kNone for none, or the one.
  static constexpr int64_t kAll = -2, kNone = -1;
  struct Part {
    bool embedding = true;
    int64_t layer = kAll;
    Branch branch = Branch::kBoth;  ///< Of each layer; a decoder's.
  };
  /// Repacks embeddings and blocks, dropping the source's pages behind.
  Network(const WeightSource& source, Activations mode) : Network(source, mode, {true, kAll}) {}
  Network(const WeightSource& source, Activations mode, Part part);

  const Architecture& arch() const { return arch_; }
  Activations mode() const { return mode_; }
  const SideShape& side() const { return side_; }
  const PackedMatrix& embedding() const { return embedding_; }
  uint64_t block_bytes() const;

  /// Throws Error(kBadInput) for an id outside the vocabulary, or a token type that is none of the
  /// model's.
  void check(std::span<const int32_t> ids, std::span<const int32_t> types = {}) const;
  void reserve(Workspace& space, int64_t tokens) const;
  /// Tokens of a chunk that keeps scratch memory to some tens of MB; results do not depend on it.
  int64_t chunk() const;
  /// The residual stream's start for ids from `position` on: x [ids][hidden]. `types` empty: all 0.
  void embed(std::span<const int32_t> ids, int64_t position, float* x,
             std::span<const int32_t> types = {}) const;
  /// The same for virtual tokens [first, first + count) of the tuned prompt, which stand
  /// at these positions.
  void embed_prompt(int64_t first, int64_t count, float* x) const;
  /// `tokens` tokens in the cache's workspace.x through one block, or the branch that is
  /// loaded, at the cache's end.
  void run_layer(int64_t index, SequenceCache& cache, int64_t tokens) const;
  /// out may be x.
  void norm(const float* x, const Norm& weights, int64_t tokens, float* out) const;
  /// Products of the same rows x [tokens][k], of which the workspace's observer is told.
  void linears(Workspace& space, const float* x, int64_t tokens,
               std::initializer_list<std::pair<const Linear*, float*>> products) const;
  void project(Workspace& space, const float* x, int64_t width, int64_t tokens,
               std::span<const Product> products) const;

 private:
  void attention_branch(int64_t index, SequenceCache& cache, int64_t tokens, const float* x) const;
  void place_keys(int64_t index, SequenceCache& cache, int64_t tokens) const;
  void add_branch(float* x, float* branch, int64_t tokens, Workspace& space,
                  const BranchAdapter& adapter) const;
  void ffn_branch(int64_t index, Workspace& space, int64_t tokens, const float* x) const;

  Architecture arch_;
  SideShape side_;
  Activations mode_;
  Branch branch_;
  PackedMatrix embedding_, positions_;
  std::vector<float> prompt_;       // [prompt_tokens][hidden]
  std::vector<float> token_types_;  // [arch_.token_types][hidden]
  Norm embedding_norm_;
  std::vector<Layer> layers_;
};

/// Calls body(begin, end) for ranges of tokens, in several threads where the work is worth it.
void for_tokens(int64_t tokens, int64_t width, const std::function<void(int64_t, int64_t)>& body);

}  // namespace slmc

// The reference inference engine: one decoder that reads the architecture as data. Its results are
// the same bits for every instruction set, thread count and batch size (docs/arithmetic.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/model.h"

namespace slmc {

class Fields;

/// kF32 judges weights: decoded weights, f32 activations. kQ8 is deployment: int8 activations for
/// quantized weights.
enum class Activations { kF32, kQ8 };
std::string_view activations_name(Activations mode);
Activations activations_from_name(std::string_view name);

/// In what a cache keeps keys and values. kAuto: int8 where the checkpoint fixes their scales, else
/// f32 with f32 activations, f16 with q8. kInt8: codes of 8 bits with the checkpoint's scales, or
/// one for each token and head.
enum class KvType { kAuto, kF32, kF16, kInt8 };
/// What kAuto comes to; other types as they are.
KvType resolve_kv_type(KvType type, Activations mode, const Architecture& arch);
/// "f32", "f16", "int8" of the resolved type.
std::string_view kv_type_name(KvType type, Activations mode, const Architecture& arch);
/// "" is kAuto. Throws Error(kUsage) for another name.
KvType kv_type_from_name(std::string_view name);
/// The option "kv_type", the same wherever a decoder is made.
void visit_kv_type(std::string& kv_type, Fields& fields);

/// Keys and values of one sequence.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int64_t length() const = 0;
  virtual int64_t capacity() const = 0;
  /// Forgets positions from `length` on.
  virtual void truncate(int64_t length) = 0;
  virtual uint64_t bytes() const = 0;
};

/// Throws Error(kUnsupported) for an encoder.
void check_decodes(const Architecture& arch);

class Decoder {
 public:
  /// Repacks the weights for the chosen instruction set, dropping the source's pages behind.
  /// `source` is not used after this.
  static std::unique_ptr<Decoder> create(const WeightSource& source, Activations mode,
                                         KvType kv = KvType::kAuto);
  virtual ~Decoder() = default;

  virtual const Architecture& arch() const = 0;
  virtual Activations activations() const = 0;
  /// Keys and values in the type the decoder was made with.
  virtual std::unique_ptr<KvCache> new_cache(int64_t capacity) const = 0;

  /// Runs `ids` [n] at the cache's end and appends them. `logits`: [n, vocab], or [1, vocab] of the
  /// last token if `last_only`, or null. Throws Error(kUsage) if the cache is too short; an id
  /// outside the vocabulary is Error(kBadInput).
  virtual void forward(KvCache& cache, std::span<const int32_t> ids, float* logits,
                       bool last_only) const = 0;
  /// Final hidden states after the output norm, [n, hidden]; as forward otherwise.
  virtual void hidden(KvCache& cache, std::span<const int32_t> ids, float* out) const = 0;
  /// Bytes of weights read for one decoded token.
  virtual uint64_t bytes_per_token() const = 0;
};

/// Told of the inputs of linear layers as they are used: `x` [tokens][width] goes into each of the
/// weights `names`, which share it ("blk.3.attn_q.weight", ...). May throw to stop the run.
using LinearObserver = std::function<void(std::span<const std::string> names, const float* x,
                                          int64_t width, int64_t tokens)>;

/// A model by its pieces, for running it block by block with one block's weights resident. The
/// arithmetic is that of Decoder.
class PartialDecoder {
 public:
  /// Loads what is named and no more. `layer` -1: no block.
  struct Part {
    bool embedding = false;
    int64_t layer = -1;
    Branch branch = Branch::kBoth;  ///< Of the layer.
    bool output_norm = false;       ///< Enough for run_head without logits.
    bool head = false;              ///< With its norm.
  };
  static std::unique_ptr<PartialDecoder> create(const WeightSource& source, Part part,
                                                Activations mode = Activations::kF32,
                                                KvType kv = KvType::kAuto);
  virtual ~PartialDecoder() = default;

  virtual std::unique_ptr<KvCache> new_cache(int64_t capacity) const = 0;
  /// What enters the first block, [n][hidden].
  virtual void embed(std::span<const int32_t> ids, float* x) const = 0;
  /// The block, or its branch, over a whole sequence of `tokens` from position 0: `x`
  /// [tokens][hidden] is the residual stream before, and becomes the one after. `cache` is emptied
  /// first. `observe` may be empty.
  virtual void run_block(KvCache& cache, float* x, int64_t tokens,
                         const LinearObserver& observe) const = 0;
  /// Output norm and head on the stream behind the last block; `logits` [tokens][vocab] may be null
  /// when only the observer is wanted.
  virtual void run_head(KvCache& cache, const float* x, int64_t tokens, float* logits,
                        const LinearObserver& observe) const = 0;
  /// What run_block left in an f32 cache, [tokens][kv_heads * head_dim] each.
  virtual void read_cache(const KvCache& cache, std::vector<float>& keys,
                          std::vector<float>& values) const = 0;
};

/// The instruction set in use: "scalar", "avx2", "avx512", ...; chosen once, `force` (from
/// SLMC_ISA, read by the program) overrides it before the first use. Throws Error(kUsage) for a
/// name that is unknown or that this processor lacks.
std::string_view isa_in_use();
void force_isa(std::string_view name);

}  // namespace slmc

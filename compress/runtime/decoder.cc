#include "compress/runtime/decoder.h"

#include <algorithm>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/fields.h"
#include "compress/core/text.h"
#include "compress/runtime/elementwise.h"
#include "compress/runtime/network.h"

namespace slmc {

std::string_view activations_name(Activations mode) {
  return mode == Activations::kF32 ? "f32" : "q8";
}

Activations activations_from_name(std::string_view name) {
  if (name == "f32") return Activations::kF32;
  if (name == "q8") return Activations::kQ8;
  throw_usage(cat("activations: expected f32 or q8, found '", name, "'"));
}

KvType resolve_kv_type(KvType type, Activations mode, const Architecture& arch) {
  if (type != KvType::kAuto) return type;
  if (!arch.kv_scales.empty()) return KvType::kInt8;
  return mode == Activations::kQ8 ? KvType::kF16 : KvType::kF32;
}

std::string_view kv_type_name(KvType type, Activations mode, const Architecture& arch) {
  type = resolve_kv_type(type, mode, arch);
  return type == KvType::kF32 ? "f32" : type == KvType::kF16 ? "f16" : "int8";
}

KvType kv_type_from_name(std::string_view name) {
  if (name.empty()) return KvType::kAuto;
  if (name == "f32") return KvType::kF32;
  if (name == "f16") return KvType::kF16;
  if (name == "int8") return KvType::kInt8;
  throw_usage(cat("kv_type: expected f32, f16 or int8, found '", name, "'"));
}

void visit_kv_type(std::string& kv_type, Fields& fields) {
  fields.visit({.name = "kv_type",
                .help = "In what keys and values are kept: f32, f16 or int8. Without it int8 where "
                        "the checkpoint fixes their scales, else f32 with f32 activations, f16 "
                        "with q8.",
                .choices = {"f32", "f16", "int8"}},
               kv_type);
}

namespace {

class ArchitectureDecoder final : public Decoder, public PartialDecoder {
 public:
  ArchitectureDecoder(const WeightSource& source, Activations mode, KvType kv)
      : network_(source, mode), kv_(kv) {
    output_norm_ = read_norm(source, "output_norm");
    read_head(source);
  }
  ArchitectureDecoder(const WeightSource& source, Activations mode, PartialDecoder::Part part,
                      KvType kv)
      : network_(source, mode,
                 {part.embedding || (part.head && source.arch().tied), part.layer, part.branch}),
        kv_(kv),
        block_(part.layer) {
    if (part.output_norm || part.head) output_norm_ = read_norm(source, "output_norm");
    if (part.head) read_head(source);
  }

  const Architecture& arch() const override { return network_.arch(); }
  Activations activations() const override { return network_.mode(); }
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override;
  void forward(KvCache& cache, std::span<const int32_t> ids, float* logits,
               bool last_only) const override;
  void hidden(KvCache& cache, std::span<const int32_t> ids, float* out) const override;
  uint64_t bytes_per_token() const override;

  void embed(std::span<const int32_t> ids, float* x) const override {
    network_.check(ids);
    network_.embed(ids, 0, x);
  }
  void run_block(KvCache& cache, float* x, int64_t tokens,
                 const LinearObserver& observe) const override;
  void run_head(KvCache& cache, const float* x, int64_t tokens, float* logits,
                const LinearObserver& observe) const override;
  void read_cache(const KvCache& cache, std::vector<float>& keys,
                  std::vector<float>& values) const override;

 private:
  void read_head(const WeightSource& source) {
    if (arch().tied) return;
    head_ = PackedMatrix(source.view("output.weight"), "output.weight");
    source.release("output.weight");
  }
  /// Calls `each(first, count, workspace)` after every chunk has gone through all layers; the
  /// residual stream is in workspace.x.
  template <typename Each>
  void run(KvCache& cache, std::span<const int32_t> ids, const Each& each) const;
  void check(const SequenceCache& cache, std::span<const int32_t> ids) const;
  void apply_head(Workspace& space, const float* normed, int64_t tokens, float* logits) const;
  const PackedMatrix& head() const { return arch().tied ? network_.embedding() : head_; }

  Network network_;
  PackedMatrix head_;
  Norm output_norm_;
  KvType kv_ = KvType::kAuto;
  int64_t block_ = -1;  ///< The one block of a partial decoder.
};

/// A cache that holds the tuned prompt already, if there is one. (A partial decoder has none.)
std::unique_ptr<KvCache> ArchitectureDecoder::new_cache(int64_t capacity) const {
  const int64_t total = network_.side().prompt_tokens, chunk = network_.chunk();
  auto cache = std::make_unique<SequenceCache>(arch(), capacity, kv_, activations(), total);
  if (total == 0) return cache;
  network_.reserve(cache->workspace, std::min(total, chunk));
  cache->extend_rotation(total);
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    network_.embed_prompt(first, count, cache->workspace.x.data());
    for (int64_t i = 0; i < arch().layers; ++i) network_.run_layer(i, *cache, count);
    cache->append(count);
  }
  return cache;
}

void ArchitectureDecoder::check(const SequenceCache& cache, std::span<const int32_t> ids) const {
  const int64_t length = cache.length() + static_cast<int64_t>(ids.size());
  const int64_t most =
      arch().learned_positions
          ? std::min(cache.capacity(), arch().context - network_.side().prompt_tokens)
          : cache.capacity();
  if (length > most) {
    throw_usage(cat("context: expected at most ", most, " tokens, found ", length,
                    "; shorten the prompt or raise the context"));
  }
  network_.check(ids);
}

template <typename Each>
void ArchitectureDecoder::run(KvCache& cache, std::span<const int32_t> ids,
                              const Each& each) const {
  auto& sequence = dynamic_cast<SequenceCache&>(cache);
  check(sequence, ids);
  const auto total = static_cast<int64_t>(ids.size());
  const int64_t chunk = network_.chunk();
  network_.reserve(sequence.workspace, std::min(total, chunk));
  sequence.extend_rotation(sequence.end() + total);
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    network_.embed(ids.subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
                   sequence.end(), sequence.workspace.x.data());
    for (int64_t i = 0; i < arch().layers; ++i) network_.run_layer(i, sequence, count);
    sequence.append(count);
    each(first, count, sequence.workspace);
  }
}

void ArchitectureDecoder::apply_head(Workspace& space, const float* normed, int64_t tokens,
                                     float* logits) const {
  const int64_t vocab = arch().vocab;
  const Product product{&head(), nullptr, logits, vocab};
  network_.project(space, normed, arch().hidden, tokens, {&product, 1});
  if (arch().final_cap <= 0) return;
  for_tokens(tokens, vocab, [&](int64_t begin, int64_t end) {
    soft_cap(logits + begin * vocab, (end - begin) * vocab, 1.0f,
             static_cast<float>(arch().final_cap));
  });
}

void ArchitectureDecoder::forward(KvCache& cache, std::span<const int32_t> ids, float* logits,
                                  bool last_only) const {
  const auto total = static_cast<int64_t>(ids.size());
  run(cache, ids, [&](int64_t first, int64_t count, Workspace& space) {
    if (!logits || (last_only && first + count < total)) return;
    const int64_t skip = last_only ? count - 1 : 0;
    network_.norm(space.x.data() + skip * arch().hidden, output_norm_, count - skip,
                  space.normed.data());
    apply_head(space, space.normed.data(), count - skip,
               logits + (last_only ? 0 : first * arch().vocab));
  });
}

void ArchitectureDecoder::hidden(KvCache& cache, std::span<const int32_t> ids, float* out) const {
  run(cache, ids, [&](int64_t first, int64_t count, Workspace& space) {
    network_.norm(space.x.data(), output_norm_, count, out + first * arch().hidden);
  });
}

/// Has the cache's observer set while it lives.
class Watch {
 public:
  Watch(Workspace& space, const LinearObserver& observer) : space_(space) {
    space_.observer = observer ? &observer : nullptr;
  }
  ~Watch() { space_.observer = nullptr; }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Workspace& space_;
};

void ArchitectureDecoder::run_block(KvCache& cache, float* x, int64_t tokens,
                                    const LinearObserver& observe) const {
  SLMC_CHECK(block_ >= 0, "this decoder has no block of its own");
  auto& sequence = dynamic_cast<SequenceCache&>(cache);
  SLMC_CHECK(tokens <= sequence.capacity(), "the cache is too short for the sequence");
  Workspace& space = sequence.workspace;
  const Watch watch(space, observe);
  const int64_t chunk = network_.chunk(), hidden = arch().hidden;
  sequence.truncate(0);
  sequence.extend_rotation(tokens);
  network_.reserve(space, std::min(tokens, chunk));
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    float* rows = x + first * hidden;
    std::copy_n(rows, count * hidden, space.x.data());
    network_.run_layer(block_, sequence, count);
    sequence.append(count);
    std::copy_n(space.x.data(), count * hidden, rows);
  }
}

void ArchitectureDecoder::run_head(KvCache& cache, const float* x, int64_t tokens, float* logits,
                                   const LinearObserver& observe) const {
  Workspace& space = dynamic_cast<SequenceCache&>(cache).workspace;
  const int64_t chunk = network_.chunk(), hidden = arch().hidden;
  network_.reserve(space, std::min(tokens, chunk));
  const std::string name = logits_weight_name(arch());
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    network_.norm(x + first * hidden, output_norm_, count, space.normed.data());
    if (observe) observe({&name, 1}, space.normed.data(), hidden, count);
    if (logits) apply_head(space, space.normed.data(), count, logits + first * arch().vocab);
  }
}

void ArchitectureDecoder::read_cache(const KvCache& cache, std::vector<float>& keys,
                                     std::vector<float>& values) const {
  SLMC_CHECK(block_ >= 0, "this decoder has no block of its own");
  const auto& sequence = dynamic_cast<const SequenceCache&>(cache);
  const int64_t head_dim = arch().head_dim, heads = arch().kv_heads;
  keys.resize(static_cast<size_t>(sequence.length() * heads * head_dim));
  values.resize(keys.size());
  for (int64_t i = 0; i < sequence.length() * heads; ++i)
    sequence.load(block_, i % heads, i / heads, keys.data() + i * head_dim,
                  values.data() + i * head_dim);
}

uint64_t ArchitectureDecoder::bytes_per_token() const {
  uint64_t bytes = head().bytes() + output_norm_.bytes() + network_.block_bytes();
  if (!arch().tied)
    bytes += network_.embedding().bytes() /
             static_cast<uint64_t>(std::max<int64_t>(arch().vocab, 1));  // One row.
  return bytes;
}

}  // namespace

void check_decodes(const Architecture& arch) {
  if (arch.head == Head::kLanguage) return;
  throw_unsupported(cat(
      arch.family,
      ": an encoder gives no next token; logits, inspect, convert, quantize, prune, finetune and "
      "distill take it, and eval where it has a head"));
}

std::unique_ptr<Decoder> Decoder::create(const WeightSource& source, Activations mode, KvType kv) {
  check_decodes(source.arch());
  return std::make_unique<ArchitectureDecoder>(source, mode, kv);
}

std::unique_ptr<PartialDecoder> PartialDecoder::create(const WeightSource& source, Part part,
                                                       Activations mode, KvType kv) {
  return std::make_unique<ArchitectureDecoder>(source, mode, part, kv);
}

}  // namespace slmc

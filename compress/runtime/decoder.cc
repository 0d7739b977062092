#include "compress/runtime/decoder.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/attention.h"
#include "compress/runtime/isa.h"
#include "compress/runtime/kv_cache.h"
#include "compress/runtime/packed_matrix.h"

namespace slmc {

std::string_view activations_name(Activations mode) {
  return mode == Activations::kF32 ? "f32" : "q8";
}

Activations activations_from_name(std::string_view name) {
  if (name == "f32") return Activations::kF32;
  if (name == "q8") return Activations::kQ8;
  throw_usage(cat("activations: expected f32 or q8, found '", name, "'"));
}

namespace {

struct Linear {
  std::string name;  ///< Of the weight.
  PackedMatrix weight;
  std::vector<float> bias;  ///< Empty: none.
};

struct Layer {
  std::vector<float> attention_norm, ffn_norm;
  Linear query, key, value, output, gate, up, down;
};

std::vector<float> read_vector(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  source.release(name);
  return values;
}

Linear read_linear(const WeightSource& source, const std::string& name, bool bias) {
  Linear linear;
  linear.name = name + ".weight";
  linear.weight = PackedMatrix(source.view(name + ".weight"), name + ".weight");
  source.release(name + ".weight");
  if (bias) linear.bias = read_vector(source, name + ".bias");
  return linear;
}

Layer read_layer(const WeightSource& source, int64_t index) {
  const Architecture& arch = source.arch();
  const std::string prefix = cat("blk.", index, ".");
  Layer layer;
  layer.attention_norm = read_vector(source, prefix + "attn_norm.weight");
  layer.query = read_linear(source, prefix + "attn_q", arch.qkv_bias);
  layer.key = read_linear(source, prefix + "attn_k", arch.qkv_bias);
  layer.value = read_linear(source, prefix + "attn_v", arch.qkv_bias);
  layer.output = read_linear(source, prefix + "attn_output", arch.output_bias);
  layer.ffn_norm = read_vector(source, prefix + "ffn_norm.weight");
  layer.gate = read_linear(source, prefix + "ffn_gate", arch.mlp_bias);
  layer.up = read_linear(source, prefix + "ffn_up", arch.mlp_bias);
  layer.down = read_linear(source, prefix + "ffn_down", arch.mlp_bias);
  return layer;
}

class ArchitectureDecoder final : public Decoder, public PartialDecoder {
 public:
  ArchitectureDecoder(const WeightSource& source, Activations mode)
      : arch_(source.arch()), mode_(mode) {
    read_embedding(source);
    for (int64_t i = 0; i < arch_.layers; ++i) layers_.push_back(read_layer(source, i));
    read_head(source);
  }
  ArchitectureDecoder(const WeightSource& source, Activations mode, PartialDecoder::Part part)
      : arch_(source.arch()), mode_(mode), block_(part.layer) {
    if (part.embedding || (part.head && arch_.tied)) read_embedding(source);
    layers_.resize(static_cast<size_t>(arch_.layers));
    if (block_ >= 0) layers_[static_cast<size_t>(block_)] = read_layer(source, block_);
    if (part.head) {
      read_head(source);
    } else if (part.output_norm) {
      output_norm_ = read_vector(source, "output_norm.weight");
    }
  }

  const Architecture& arch() const override { return arch_; }
  Activations activations() const override { return mode_; }
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override {
    return std::make_unique<SequenceCache>(arch_, capacity, mode_ == Activations::kQ8);
  }
  void forward(KvCache& cache, std::span<const int32_t> ids, float* logits,
               bool last_only) const override;
  void hidden(KvCache& cache, std::span<const int32_t> ids, float* out) const override;
  uint64_t bytes_per_token() const override;

  void embed(std::span<const int32_t> ids, float* x) const override;
  void run_block(KvCache& cache, float* x, int64_t tokens,
                 const LinearObserver& observe) const override;
  void run_head(KvCache& cache, const float* x, int64_t tokens, float* logits,
                const LinearObserver& observe) const override;

 private:
  void read_embedding(const WeightSource& source) {
    embedding_ = PackedMatrix(source.view("token_embd.weight"), "token_embd.weight");
    source.release("token_embd.weight");
  }
  void read_head(const WeightSource& source) {
    output_norm_ = read_vector(source, "output_norm.weight");
    if (arch_.tied) return;
    head_ = PackedMatrix(source.view("output.weight"), "output.weight");
    source.release("output.weight");
  }
  /// Calls `each(first, count, cache)` after every chunk has gone through all layers; the residual
  /// stream is in workspace.x.
  template <typename Each>
  void run(KvCache& cache, std::span<const int32_t> ids, const Each& each) const;
  void check(const SequenceCache& cache, std::span<const int32_t> ids) const;
  void reserve(Workspace& space, int64_t tokens) const;
  void run_layer(int64_t index, SequenceCache& cache, int64_t tokens) const;
  void norm(const float* x, const std::vector<float>& weight, int64_t tokens, float* out) const;
  void linears(Workspace& space, const float* x, int64_t tokens,
               std::initializer_list<std::pair<const Linear*, float*>> products) const;
  void apply_head(Workspace& space, const float* normed, int64_t tokens, float* logits) const;
  void project(Workspace& space, const float* x, int64_t width, int64_t tokens,
               std::span<const Product> products) const;
  const PackedMatrix& head() const { return arch_.tied ? embedding_ : head_; }

  Architecture arch_;
  Activations mode_;
  PackedMatrix embedding_, head_;
  std::vector<Layer> layers_;
  std::vector<float> output_norm_;
  int64_t block_ = -1;  ///< The one block of a partial decoder.
};

/// Rows of about 64 floats a cache line times 16: enough for one thread to be worth its wake-up.
void for_tokens(int64_t tokens, int64_t width, const std::function<void(int64_t, int64_t)>& body) {
  if (tokens * width < 32768) {
    body(0, tokens);
  } else {
    parallel_ranges(tokens, 16, body);
  }
}

int64_t chunk_of(const Architecture& arch) {
  // Bounds scratch memory to some tens of MB; results do not depend on it.
  const int64_t row = 4 * (arch.hidden * 3 + arch.heads * arch.head_dim * 2 + arch.ffn * 2);
  return std::clamp<int64_t>((int64_t{64} << 20) / std::max<int64_t>(row, 1) / 64 * 64, 64, 512);
}

void ArchitectureDecoder::check(const SequenceCache& cache, std::span<const int32_t> ids) const {
  const auto count = static_cast<int64_t>(ids.size());
  if (cache.length() + count > cache.capacity()) {
    throw_usage(cat("context: expected at most ", cache.capacity(), " tokens, found ",
                    cache.length() + count, "; shorten the prompt or raise the context"));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= arch_.vocab) {
      throw_bad_input(cat("token ", i, ": expected an id below ", arch_.vocab, ", found ", ids[i],
                          "; is this the model's own tokenizer?"));
    }
  }
}

void ArchitectureDecoder::reserve(Workspace& space, int64_t tokens) const {
  const auto size = [tokens](int64_t width) { return static_cast<size_t>(tokens * width); };
  const int64_t inner = arch_.heads * arch_.head_dim, kv = arch_.kv_heads * arch_.head_dim;
  if (space.x.size() >= size(arch_.hidden)) return;
  space.x.resize(size(arch_.hidden));
  space.normed.resize(size(arch_.hidden));
  space.query.resize(size(inner));
  space.mixed.resize(size(inner));
  space.key.resize(size(kv));
  space.value.resize(size(kv));
  space.gate.resize(size(arch_.ffn));
  space.up.resize(size(arch_.ffn));
  if (mode_ != Activations::kQ8) return;
  const int64_t widest = std::max({arch_.hidden, inner, arch_.ffn});
  space.codes.resize(size(widest));
  space.scales.resize(size(widest / kernels::kBlock + 1));
  space.sums.resize(size(widest / 16 + 1));
}

void ArchitectureDecoder::embed(std::span<const int32_t> ids, float* x) const {
  for_tokens(static_cast<int64_t>(ids.size()), arch_.hidden, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      embedding_.decode_row(ids[static_cast<size_t>(t)], x + t * arch_.hidden);
  });
}

void ArchitectureDecoder::norm(const float* x, const std::vector<float>& weight, int64_t tokens,
                               float* out) const {
  const int64_t n = arch_.hidden;
  const auto eps = static_cast<float>(arch_.norm_eps);
  for_tokens(tokens, n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      kernel_set().rms_norm(x + t * n, weight.data(), n, eps, out + t * n);
  });
}

void ArchitectureDecoder::project(Workspace& space, const float* x, int64_t width, int64_t tokens,
                                  std::span<const Product> products) const {
  ActivationRows rows{x, width, tokens, nullptr};
  const bool integers = mode_ == Activations::kQ8 &&
                        std::any_of(products.begin(), products.end(),
                                    [](const Product& p) { return p.matrix->quantized(); });
  kernels::QuantizedRows quantized{space.codes.data(), space.scales.data(), space.sums.data()};
  if (integers) {
    const int64_t blocks = width / kernels::kBlock;
    for_tokens(tokens, width, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        kernel_set().quantize_row(x + t * width, width, space.codes.data() + t * width,
                                  space.scales.data() + t * blocks,
                                  space.sums.data() + t * 2 * blocks);
      }
    });
    rows.quantized = &quantized;
  }
  multiply(rows, products);
}

void ArchitectureDecoder::linears(
    Workspace& space, const float* x, int64_t tokens,
    std::initializer_list<std::pair<const Linear*, float*>> products) const {
  if (space.observer != nullptr) {
    std::vector<std::string> names;
    for (const auto& [linear, out] : products) names.push_back(linear->name);
    (*space.observer)(names, x, products.begin()->first->weight.k(), tokens);
  }
  std::vector<Product> list;
  for (const auto& [linear, out] : products) {
    list.push_back({&linear->weight, linear->bias.empty() ? nullptr : linear->bias.data(), out,
                    linear->weight.rows()});
  }
  project(space, x, list.front().matrix->k(), tokens, list);
}

void add_to(float* x, const float* y, int64_t tokens, int64_t width) {
  for_tokens(tokens, width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * width; i < end * width; ++i) x[i] += y[i];
  });
}

void ArchitectureDecoder::run_layer(int64_t index, SequenceCache& cache, int64_t tokens) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  Workspace& space = cache.workspace;
  const int64_t start = cache.length(), head_dim = arch_.head_dim,
                kv_width = arch_.kv_heads * head_dim;
  norm(space.x.data(), layer.attention_norm, tokens, space.normed.data());
  linears(space, space.normed.data(), tokens,
          {{&layer.query, space.query.data()},
           {&layer.key, space.key.data()},
           {&layer.value, space.value.data()}});
  for_tokens(tokens, arch_.heads * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      cache.rotary.rotate(space.query.data() + t * arch_.heads * head_dim, arch_.heads, head_dim,
                          start + t);
      cache.rotary.rotate(space.key.data() + t * kv_width, arch_.kv_heads, head_dim, start + t);
      for (int64_t h = 0; h < arch_.kv_heads; ++h) {
        cache.store(index, h, start + t, space.key.data() + t * kv_width + h * head_dim,
                    space.value.data() + t * kv_width + h * head_dim);
      }
    }
  });
  attend(arch_, cache, index, space.query.data(), tokens, start, space.mixed.data());
  linears(space, space.mixed.data(), tokens, {{&layer.output, space.normed.data()}});
  add_to(space.x.data(), space.normed.data(), tokens, arch_.hidden);

  norm(space.x.data(), layer.ffn_norm, tokens, space.normed.data());
  linears(space, space.normed.data(), tokens,
          {{&layer.gate, space.gate.data()}, {&layer.up, space.up.data()}});
  for_tokens(tokens, arch_.ffn, [&](int64_t begin, int64_t end) {
    kernel_set().silu_multiply(space.gate.data() + begin * arch_.ffn,
                               space.up.data() + begin * arch_.ffn, (end - begin) * arch_.ffn);
  });
  linears(space, space.gate.data(), tokens, {{&layer.down, space.normed.data()}});
  add_to(space.x.data(), space.normed.data(), tokens, arch_.hidden);
}

template <typename Each>
void ArchitectureDecoder::run(KvCache& cache, std::span<const int32_t> ids,
                              const Each& each) const {
  auto& sequence = dynamic_cast<SequenceCache&>(cache);
  check(sequence, ids);
  const auto total = static_cast<int64_t>(ids.size());
  const int64_t chunk = chunk_of(arch_);
  reserve(sequence.workspace, std::min(total, chunk));
  sequence.rotary.extend(sequence.length() + total);
  for (int64_t first = 0; first < total; first += chunk) {
    const int64_t count = std::min(chunk, total - first);
    embed(ids.subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
          sequence.workspace.x.data());
    for (int64_t i = 0; i < arch_.layers; ++i) run_layer(i, sequence, count);
    sequence.append(count);
    each(first, count, sequence.workspace);
  }
}

void ArchitectureDecoder::apply_head(Workspace& space, const float* normed, int64_t tokens,
                                     float* logits) const {
  const Product product{&head(), nullptr, logits, arch_.vocab};
  project(space, normed, arch_.hidden, tokens, {&product, 1});
}

void ArchitectureDecoder::forward(KvCache& cache, std::span<const int32_t> ids, float* logits,
                                  bool last_only) const {
  const auto total = static_cast<int64_t>(ids.size());
  run(cache, ids, [&](int64_t first, int64_t count, Workspace& space) {
    if (!logits || (last_only && first + count < total)) return;
    const int64_t skip = last_only ? count - 1 : 0;
    norm(space.x.data() + skip * arch_.hidden, output_norm_, count - skip, space.normed.data());
    apply_head(space, space.normed.data(), count - skip,
               logits + (last_only ? 0 : first * arch_.vocab));
  });
}

void ArchitectureDecoder::hidden(KvCache& cache, std::span<const int32_t> ids, float* out) const {
  run(cache, ids, [&](int64_t first, int64_t count, Workspace& space) {
    norm(space.x.data(), output_norm_, count, out + first * arch_.hidden);
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
  sequence.truncate(0);
  sequence.rotary.extend(tokens);
  const int64_t chunk = chunk_of(arch_);
  reserve(space, std::min(tokens, chunk));
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    float* rows = x + first * arch_.hidden;
    std::copy_n(rows, count * arch_.hidden, space.x.data());
    run_layer(block_, sequence, count);
    sequence.append(count);
    std::copy_n(space.x.data(), count * arch_.hidden, rows);
  }
}

void ArchitectureDecoder::run_head(KvCache& cache, const float* x, int64_t tokens, float* logits,
                                   const LinearObserver& observe) const {
  Workspace& space = dynamic_cast<SequenceCache&>(cache).workspace;
  const int64_t chunk = chunk_of(arch_);
  reserve(space, std::min(tokens, chunk));
  const std::string name = arch_.tied ? "token_embd.weight" : "output.weight";
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    norm(x + first * arch_.hidden, output_norm_, count, space.normed.data());
    if (observe) observe({&name, 1}, space.normed.data(), arch_.hidden, count);
    if (logits) apply_head(space, space.normed.data(), count, logits + first * arch_.vocab);
  }
}

uint64_t ArchitectureDecoder::bytes_per_token() const {
  uint64_t bytes = head().bytes() + output_norm_.size() * sizeof(float);
  if (!arch_.tied)
    bytes +=
        embedding_.bytes() / static_cast<uint64_t>(std::max<int64_t>(arch_.vocab, 1));  // One row.
  for (const Layer& layer : layers_) {
    bytes += (layer.attention_norm.size() + layer.ffn_norm.size()) * sizeof(float);
    for (const Linear* linear : {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate,
                                 &layer.up, &layer.down}) {
      bytes += linear->weight.bytes() + linear->bias.size() * sizeof(float);
    }
  }
  return bytes;
}

}  // namespace

std::unique_ptr<Decoder> Decoder::create(const WeightSource& source, Activations mode) {
  return std::make_unique<ArchitectureDecoder>(source, mode);
}

std::unique_ptr<PartialDecoder> PartialDecoder::create(const WeightSource& source, Part part,
                                                       Activations mode) {
  return std::make_unique<ArchitectureDecoder>(source, mode, part);
}

}  // namespace slmc

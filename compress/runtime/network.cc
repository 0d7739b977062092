#include "compress/runtime/network.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/attention.h"
#include "compress/runtime/elementwise.h"
#include "compress/runtime/isa.h"

namespace slmc {
namespace {

void add_to(float* x, const float* y, int64_t tokens, int64_t width) {
  for_tokens(tokens, width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * width; i < end * width; ++i) x[i] += y[i];
  });
}

/// Norms each head of a token's queries or keys.
void norm_heads(float* x, const Norm& norm, int64_t heads, int64_t head_dim, float eps) {
  for (int64_t h = 0; h < heads; ++h) {
    float* head = x + h * head_dim;
    kernel_set().rms_norm(head, norm.weight.data(), head_dim, eps, head);
  }
}

}  // namespace

/// Rows of about 64 floats a cache line times 16: enough for one thread to be worth its wake-up.
void for_tokens(int64_t tokens, int64_t width, const std::function<void(int64_t, int64_t)>& body) {
  if (tokens * width < 32768) {
    body(0, tokens);
  } else {
    parallel_ranges(tokens, 16, body);
  }
}

Network::Network(const WeightSource& source, Activations mode, Part part)
    : arch_(source.arch()), side_(side_shape(source)), mode_(mode), branch_(part.branch) {
  SLMC_CHECK(!arch_.encoder || branch_ == Branch::kBoth, "an encoder's blocks are not divided");
  if (part.embedding) {
    embedding_ = read_matrix(source, "token_embd.weight");
    if (arch_.learned_positions) positions_ = read_matrix(source, "position_embd.weight");
    if (arch_.token_types > 0) {
      const PackedMatrix types = read_matrix(source, "token_types.weight");
      token_types_.resize(static_cast<size_t>(arch_.token_types * arch_.hidden));
      for (int64_t i = 0; i < arch_.token_types; ++i)
        types.decode_row(i, token_types_.data() + i * arch_.hidden);
    }
    if (side_.prompt_tokens > 0) prompt_ = read_vector(source, "prompt_embd.weight");
    if (arch_.encoder) embedding_norm_ = read_norm(source, "token_embd_norm");
  }
  layers_.resize(static_cast<size_t>(arch_.layers));
  for (int64_t i = 0; i < arch_.layers; ++i) {
    if (part.layer == kAll || part.layer == i)
      layers_[static_cast<size_t>(i)] = read_layer(source, i, branch_);
  }
}

uint64_t Network::block_bytes() const {
  uint64_t bytes = 0;
  for (const Layer& layer : layers_) {
    for (const Norm* norm : {&layer.attention, &layer.query_norm, &layer.key_norm,
                             &layer.after_attention, &layer.ffn_norm, &layer.after_ffn})
      bytes += norm->bytes();
    for (const Linear* linear :
         {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up,
          &layer.down, &layer.attention_adapter.down, &layer.attention_adapter.up,
          &layer.ffn_adapter.down, &layer.ffn_adapter.up})
      bytes += linear->bytes();
  }
  return bytes;
}

void Network::check(std::span<const int32_t> ids, std::span<const int32_t> types) const {
  SLMC_CHECK(types.empty() || types.size() == ids.size(), "a token type an id");
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= arch_.vocab) {
      throw_bad_input(cat("token ", i, ": expected an id below ", arch_.vocab, ", found ", ids[i],
                          "; is this the model's own tokenizer?"));
    }
  }
  if (arch_.token_types < 2) return;
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < 0 || types[i] >= arch_.token_types)
      throw_bad_input(cat("token ", i, ": expected a token type below ", arch_.token_types,
                          ", found ", types[i], "; is this the model's own tokenizer?"));
  }
}

int64_t Network::chunk() const {
  const int64_t row = 4 * (arch_.hidden * 3 + arch_.heads * arch_.head_dim * 2 + arch_.ffn * 2);
  return std::clamp<int64_t>((int64_t{64} << 20) / std::max<int64_t>(row, 1) / 64 * 64, 64, 512);
}

void Network::reserve(Workspace& space, int64_t tokens) const {
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
  if (arch_.gated) space.up.resize(size(arch_.ffn));
  if (side_.bottleneck.width > 0) {
    space.narrow.resize(size(side_.bottleneck.width));
    space.added.resize(size(arch_.hidden));
  }
  if (mode_ != Activations::kQ8) return;
  const int64_t widest = std::max({arch_.hidden, inner, arch_.ffn});
  space.codes.resize(size(widest));
  space.scales.resize(size(widest / kernels::kBlock + 1));
  space.sums.resize(size(widest / 16 + 1));
}

void Network::embed(std::span<const int32_t> ids, int64_t position, float* x,
                    std::span<const int32_t> types) const {
  const int64_t n = arch_.hidden, tokens = static_cast<int64_t>(ids.size());
  if (arch_.token_types < 2) types = {};
  const auto scale = static_cast<float>(arch_.embedding_scale);
  for_tokens(tokens, n, [&](int64_t begin, int64_t end) {
    std::vector<float> added(static_cast<size_t>(arch_.learned_positions ? n : 0));
    for (int64_t t = begin; t < end; ++t) {
      float* row = x + t * n;
      embedding_.decode_row(ids[static_cast<size_t>(t)], row);
      if (scale != 1.0f) {
        for (int64_t i = 0; i < n; ++i) row[i] *= scale;
      }
      if (!token_types_.empty()) {
        const int64_t type = types.empty() ? 0 : types[static_cast<size_t>(t)];
        for (int64_t i = 0; i < n; ++i) row[i] += token_types_[static_cast<size_t>(type * n + i)];
      }
      if (added.empty()) continue;
      positions_.decode_row(position + t, added.data());
      for (int64_t i = 0; i < n; ++i) row[i] += added[static_cast<size_t>(i)];
    }
  });
  if (arch_.encoder) norm(x, embedding_norm_, tokens, x);
}

void Network::embed_prompt(int64_t first, int64_t count, float* x) const {
  const int64_t n = arch_.hidden;
  std::copy_n(prompt_.data() + first * n, count * n, x);
  if (!arch_.learned_positions) return;
  std::vector<float> added(static_cast<size_t>(n));
  for (int64_t t = 0; t < count; ++t) {
    positions_.decode_row(first + t, added.data());
    for (int64_t i = 0; i < n; ++i) x[t * n + i] += added[static_cast<size_t>(i)];
  }
}

void Network::norm(const float* x, const Norm& weights, int64_t tokens, float* out) const {
  const int64_t n = arch_.hidden;
  const auto eps = static_cast<float>(arch_.norm_eps);
  for_tokens(tokens, n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (arch_.norm == NormKind::kLayer) {
        layer_norm(x + t * n, weights.weight.data(), weights.bias.data(), n, eps, out + t * n);
      } else {
        kernel_set().rms_norm(x + t * n, weights.weight.data(), n, eps, out + t * n);
      }
    }
  });
}

namespace {

/// Each row to 8 bits and back, as compressed-tensors has it: scale 0 stands for a dynamic one,
/// max|x| / 127.5 of the row; codes are -128 to 127.
void round_rows(float* x, int64_t width, int64_t tokens, float scale) {
  for_tokens(tokens, width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = x + t * width;
      float step = scale;
      if (step == 0) {
        float largest = 0;
        for (int64_t i = 0; i < width; ++i) largest = std::max(largest, std::fabs(row[i]));
        step = largest / 127.5f;
        if (!(step > 0)) continue;
      }
      for (int64_t i = 0; i < width; ++i)
        row[i] = std::clamp(std::nearbyint(row[i] / step), -128.0f, 127.0f) * step;
    }
  });
}

/// Whether two matrices are given the same rounding of the same rows.
bool round_alike(const PackedMatrix& a, const PackedMatrix& b) {
  return a.rounds_inputs() == b.rounds_inputs() && a.input_scale() == b.input_scale();
}

/// What a matrix is given of the rows x: the rows themselves, or rounded to 8 bits where it wants
/// that.
const float* rounded_inputs(Workspace& space, const float* x, int64_t width, int64_t tokens,
                            const PackedMatrix& matrix) {
  if (!matrix.rounds_inputs()) return x;
  space.rounded.assign(x, x + width * tokens);
  round_rows(space.rounded.data(), width, tokens, matrix.input_scale());
  return space.rounded.data();
}

}  // namespace

void Network::project(Workspace& space, const float* x, int64_t width, int64_t tokens,
                      std::span<const Product> products) const {
  const PackedMatrix& first = *products.front().matrix;
  std::vector<Product> alike, others;
  for (const Product& product : products)
    (round_alike(*product.matrix, first) ? alike : others).push_back(product);
  if (!others.empty()) {
    project(space, x, width, tokens, alike);
    return project(space, x, width, tokens, others);
  }
  x = rounded_inputs(space, x, width, tokens, first);
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

void Network::linears(Workspace& space, const float* x, int64_t tokens,
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

void Network::place_keys(int64_t index, SequenceCache& cache, int64_t tokens) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  Workspace& space = cache.workspace;
  const RotaryTable& rotation = cache.rotation(index);
  const int64_t start = cache.end(), head_dim = arch_.head_dim, width = arch_.heads * head_dim,
                kv_width = arch_.kv_heads * head_dim;
  const auto eps = static_cast<float>(arch_.norm_eps);
  for_tokens(tokens, width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* query = space.query.data() + t * width;
      float* key = space.key.data() + t * kv_width;
      if (arch_.qk_norm) {
        norm_heads(query, layer.query_norm, arch_.heads, head_dim, eps);
        norm_heads(key, layer.key_norm, arch_.kv_heads, head_dim, eps);
      }
      rotation.rotate(query, arch_.heads, head_dim, start + t);
      rotation.rotate(key, arch_.kv_heads, head_dim, start + t);
      for (int64_t h = 0; h < arch_.kv_heads; ++h) {
        cache.store(index, h, start + t, key + h * head_dim,
                    space.value.data() + t * kv_width + h * head_dim);
      }
    }
  });
}

/// Leaves the branch in workspace.normed; `x` may be that.
void Network::attention_branch(int64_t index, SequenceCache& cache, int64_t tokens,
                               const float* x) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  Workspace& space = cache.workspace;
  linears(space, x, tokens,
          {{&layer.query, space.query.data()},
           {&layer.key, space.key.data()},
           {&layer.value, space.value.data()}});
  place_keys(index, cache, tokens);
  attend(arch_, cache, index, space.query.data(), tokens, cache.end(), space.mixed.data());
  linears(space, space.mixed.data(), tokens, {{&layer.output, space.normed.data()}});
}

void Network::ffn_branch(int64_t index, Workspace& space, int64_t tokens, const float* x) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  float* inner = space.gate.data();
  const float* up = arch_.gated ? space.up.data() : nullptr;
  if (arch_.gated) {
    linears(space, x, tokens, {{&layer.gate, inner}, {&layer.up, space.up.data()}});
  } else {
    linears(space, x, tokens, {{&layer.up, inner}});
  }
  for_tokens(tokens, arch_.ffn, [&](int64_t begin, int64_t end) {
    activate(arch_.activation, inner + begin * arch_.ffn,
             up == nullptr ? nullptr : up + begin * arch_.ffn, (end - begin) * arch_.ffn);
  });
  linears(space, inner, tokens, {{&layer.down, space.normed.data()}});
}

/// x += branch, and what its adapter makes of it.
void Network::add_branch(float* x, float* branch, int64_t tokens, Workspace& space,
                         const BranchAdapter& adapter) const {
  add_to(x, branch, tokens, arch_.hidden);
  if (adapter.down.weight.rows() == 0) return;
  float* narrow = space.narrow.data();
  const int64_t width = side_.bottleneck.width;
  linears(space, side_.bottleneck.reads_stream ? x : branch, tokens, {{&adapter.down, narrow}});
  for_tokens(tokens, width, [&](int64_t begin, int64_t end) {
    activate(side_.bottleneck.activation, narrow + begin * width, nullptr, (end - begin) * width);
  });
  linears(space, narrow, tokens, {{&adapter.up, space.added.data()}});
  add_to(x, space.added.data(), tokens, arch_.hidden);
}

void Network::run_layer(int64_t index, SequenceCache& cache, int64_t tokens) const {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  Workspace& space = cache.workspace;
  float* x = space.x.data();
  float* branch = space.normed.data();
  if (arch_.encoder) {
    attention_branch(index, cache, tokens, x);
    add_to(x, branch, tokens, arch_.hidden);
    norm(x, layer.attention, tokens, x);
    ffn_branch(index, space, tokens, x);
    add_to(x, branch, tokens, arch_.hidden);
    norm(x, layer.ffn_norm, tokens, x);
    return;
  }
  if (branch_ != Branch::kFfn) {
    norm(x, layer.attention, tokens, branch);
    attention_branch(index, cache, tokens, branch);
    if (arch_.branch_norms) norm(branch, layer.after_attention, tokens, branch);
    add_branch(x, branch, tokens, space, layer.attention_adapter);
  }
  if (branch_ != Branch::kAttention) {
    norm(x, layer.ffn_norm, tokens, branch);
    ffn_branch(index, space, tokens, branch);
    if (arch_.branch_norms) norm(branch, layer.after_ffn, tokens, branch);
    add_branch(x, branch, tokens, space, layer.ffn_adapter);
  }
}

}  // namespace slmc

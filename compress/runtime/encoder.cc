#include "compress/runtime/encoder.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/elementwise.h"
#include "compress/runtime/network.h"

namespace slmc {
namespace {

class ArchitectureEncoder final : public Encoder {
 public:
  ArchitectureEncoder(const WeightSource& source, Activations mode) : network_(source, mode) {
    if (arch().head == Head::kMasked) {
      dense_ = read_linear(source, "mlm", true);
      dense_norm_ = read_norm(source, "mlm_norm");
      if (!arch().tied) head_ = read_linear(source, "output", false);
      head_.bias = read_vector(source, "output.bias");
    }
    if (arch().head == Head::kClassifier) {
      dense_ = read_linear(source, "cls", true);
      head_ = read_linear(source, "cls.output", true);
    }
  }

  const Architecture& arch() const override { return network_.arch(); }
  int64_t columns() const override {
    switch (arch().head) {
      case Head::kMasked:
        return arch().vocab;
      case Head::kClassifier:
        return arch().classes;
      default:
        return arch().hidden;
    }
  }
  int64_t rows(int64_t tokens) const override { return arch().head == Head::kMasked ? tokens : 1; }

  std::vector<float> encode(std::span<const int32_t> ids,
                            std::span<const int32_t> types) const override {
    const auto tokens = static_cast<int64_t>(ids.size());
    return with_states(ids, types, [&](Workspace& space) {
      std::vector<float> out(static_cast<size_t>(rows(tokens) * columns()));
      if (arch().head == Head::kStates) {
        pool(space.x.data(), tokens, out.data());
      } else {
        apply_head(space, rows(tokens), out.data());
      }
      return out;
    });
  }

  std::vector<float> encode_rows(std::span<const int32_t> ids,
                                 std::span<const int64_t> rows) const override {
    SLMC_CHECK(arch().head == Head::kMasked, "rows of a masked head");
    return with_states(ids, {}, [&](Workspace& space) {
      const int64_t width = arch().hidden;
      float* to = space.x.data();
      for (const int64_t row : rows) {
        if (space.x.data() + row * width != to)
          std::copy_n(space.x.data() + row * width, width, to);
        to += width;
      }
      std::vector<float> out(rows.size() * static_cast<size_t>(columns()));
      if (!rows.empty()) apply_head(space, static_cast<int64_t>(rows.size()), out.data());
      return out;
    });
  }

 private:
  /// What `use` makes of the final states of a sequence, in the workspace's x.
  template <typename Use>
  std::vector<float> with_states(std::span<const int32_t> ids, std::span<const int32_t> types,
                                 const Use& use) const {
    const auto tokens = static_cast<int64_t>(ids.size());
    if (tokens == 0 || tokens > arch().context)
      throw_usage(cat("context: expected 1 to ", arch().context, " tokens, found ", tokens));
    network_.check(ids, types);
    SequenceCache cache(arch(), tokens, KvType::kAuto, network_.mode());
    network_.reserve(cache.workspace, tokens);
    network_.embed(ids, 0, cache.workspace.x.data(), types);
    for (int64_t i = 0; i < arch().layers; ++i) network_.run_layer(i, cache, tokens);
    return use(cache.workspace);
  }

  void pool(const float* x, int64_t tokens, float* out) const {
    const int64_t width = arch().hidden;
    std::copy_n(x, width, out);
    if (arch().pooling == Pooling::kFirst) return;
    for (int64_t t = 1; t < tokens; ++t) {
      for (int64_t i = 0; i < width; ++i) out[i] += x[t * width + i];
    }
    for (int64_t i = 0; i < width; ++i) out[i] /= static_cast<float>(tokens);
  }

  /// Of the first `tokens` tokens: dense, activation, norm where there is one, head.
  void apply_head(Workspace& space, int64_t tokens, float* out) const {
    float* dense = space.normed.data();
    network_.linears(space, space.x.data(), tokens, {{&dense_, dense}});
    activate(arch().head_activation, dense, nullptr, tokens * arch().hidden);
    if (arch().head == Head::kMasked) network_.norm(dense, dense_norm_, tokens, dense);
    const bool tied = arch().head == Head::kMasked && arch().tied;
    const Product product{tied ? &network_.embedding() : &head_.weight, head_.bias.data(), out,
                          columns()};
    network_.project(space, dense, arch().hidden, tokens, {&product, 1});
  }

  Network network_;
  Linear dense_, head_;  // The masked head's or the classifier's; a tied head has its bias alone.
  Norm dense_norm_;
};

}  // namespace

std::unique_ptr<Encoder> Encoder::create(const WeightSource& source, Activations mode) {
  SLMC_CHECK(source.arch().encoder, "an encoder's weights");
  return std::make_unique<ArchitectureEncoder>(source, mode);
}

}  // namespace slmc

#include "compress/torch/device_block.h"

#include <algorithm>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/group_types.h"

namespace slmc::libtorch {
namespace {

/// Tensors whose rows follow each other; undefined if the model lacks them.
at::Tensor load(const WeightSource& source, const Names& names) {
  if (!source.has(names.front())) return {};
  std::vector<TensorView> views;
  std::vector<int64_t> shape;
  for (const std::string& name : names) {
    views.push_back(source.view(name));
    if (shape.empty()) {
      shape = views.back().shape;
    } else {
      shape[0] += views.back().shape[0];
    }
  }
  at::Tensor out = at::empty(shape, at::kFloat);
  auto* to = out.data_ptr<float>();
  for (size_t i = 0; i < views.size(); ++i) {
    decode_all(views[i], to);
    to += views[i].elements();
    source.release(names[i]);
  }
  return out;
}

RoundedInputs inputs_of(const TensorView& weight) {
  if (!is_group_type(weight.dtype)) return {};
  const InputRounding rounding = group_facts(weight.dtype).inputs;
  if (rounding == InputRounding::kNone) return {};
  return {true, rounding == InputRounding::kStatic ? double{input_scale(weight)} : 0.0};
}

class Loader {
 public:
  Loader(const WeightSource& source, const ForwardPlace& place, std::string until,
         std::string skipped = "")
      : source_(source), place_(place), until_(std::move(until)), skipped_(std::move(skipped)) {}

  BlockSource block_source() {
    return {[this](const Names& names) { return vector(names); },
            [this](const Names& names) { return matrix(names); }};
  }

 private:
  at::Tensor vector(const Names& names) const {
    const at::Tensor values = load(source_, names);
    return values.defined() ? values.to(place_.device) : values;
  }

  Matrix matrix(const Names& names) {
    Matrix matrix{.names = names};
    stopped_ = stopped_ || names.front() == until_;
    if (stopped_ || (!skipped_.empty() && names.front().starts_with(skipped_))) return matrix;
    std::vector<RoundedInputs> inputs;
    for (const std::string& name : names) inputs.push_back(inputs_of(source_.view(name)));
    const auto alike = [&](const RoundedInputs& other) {
      return other.rounds == inputs[0].rounds && other.scale == inputs[0].scale;
    };
    if (std::all_of(inputs.begin(), inputs.end(), alike)) {
      matrix.inputs = inputs.front();
      matrix.leaf =
          load(source_, names).to(place_.device, place_.bf16 ? at::kBFloat16 : at::kFloat);
    } else {
      for (const std::string& name : names) matrix.parts.push_back(this->matrix({name}));
    }
    return matrix;
  }

  const WeightSource& source_;
  ForwardPlace place_;
  std::string until_, skipped_;  ///< Where it stops, and what the names begin with of others.
  bool stopped_ = false;
};

}  // namespace

DeviceBlock::DeviceBlock(const WeightSource& source, int64_t layer, Branch branch,
                         const ForwardPlace& place, int64_t context, const std::string& until)
    : arithmetic_(source.arch(), Operators::kLibTorch), branch_(branch) {
  const Architecture& arch = source.arch();
  arithmetic_.use().bf16 = place.bf16;
  const std::string block = cat("blk.", layer, ".");
  Loader loader(source, place, until,
                branch == Branch::kBoth ? "" : block + (branch == Branch::kFfn ? "attn_" : "ffn_"));
  weights_ = block_weights(arch, layer, loader.block_source());
  const auto at = static_cast<size_t>(layer);
  shape_ = arithmetic_.shapes(context, place.device)[at];
  shape_.windows = 1;
  if (!arch.kv_scales.empty()) {
    shape_.key_scale = double{arch.kv_scales[2 * at]};
    shape_.value_scale = double{arch.kv_scales[2 * at + 1]};
  }
}

at::Tensor DeviceBlock::run(const at::Tensor& x, BlockObserver* observer) const {
  AttentionShape shape = shape_;
  shape.context = x.size(0);
  if (branch_ == Branch::kAttention) return arithmetic_.run_attention(x, weights_, shape, observer);
  if (branch_ == Branch::kFfn) return arithmetic_.run_ffn(x, weights_, observer);
  return arithmetic_.run(x, weights_, shape, observer);
}

DeviceEmbedding::DeviceEmbedding(const WeightSource& source)
    : arithmetic_(source.arch(), Operators::kLibTorch), table_(source.view("token_embd.weight")) {
  Loader loader(source, {}, "");
  const BlockSource tensors = loader.block_source();
  entry_ = {tensors.vector({"position_embd.weight"}), tensors.vector({"token_types.weight"}),
            norm_weights("token_embd_norm", tensors)};
}

at::Tensor DeviceEmbedding::run(const std::vector<int32_t>& ids) const {
  const Architecture& arch = arithmetic_.arch();
  at::Tensor rows = at::empty({std::ssize(ids), arch.hidden}, at::kFloat);
  auto* out = rows.data_ptr<float>();
  for (const int32_t id : ids) {
    if (id < 0 || id >= arch.vocab)
      throw_bad_input(cat("token id ", id, ": expected 0 to ", arch.vocab - 1));
    decode_rows(table_, id, 1, out);
    out += arch.hidden;
  }
  return arithmetic_.enter(rows, entry_, {.windows = 1, .context = std::ssize(ids)});
}

DeviceOutputNorm::DeviceOutputNorm(const WeightSource& source, const ForwardPlace& place)
    : arithmetic_(source.arch(), Operators::kLibTorch) {
  Loader loader(source, place, "");
  weights_ = norm_weights("output_norm", loader.block_source());
}

}  // namespace slmc::libtorch

#include "formats/lora.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/family.h"

namespace slmc {
namespace {

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

/// "attn_q" of "blk.3.attn_q.weight".
std::string short_name(const std::string& tensor) {
  const size_t begin = tensor.find('.', 4) + 1;
  return tensor.substr(begin, tensor.rfind('.') - begin);
}

std::vector<LoraTarget> all_targets(const Architecture& arch) {
  std::vector<LoraTarget> targets;
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch)) {
    if (!spec.name.starts_with("blk.") || spec.shape.size() != 2) continue;
    const std::string module = spec.hf.name.substr(0, spec.hf.name.rfind('.'));
    if (targets.empty() || targets.back().module != module)
      targets.push_back({.module = module,
                         .tensors = {},
                         .rows = {},
                         .columns = spec.shape[1],
                         .transposed = spec.hf.transposed});
    targets.back().tensors.push_back(spec.name);
    targets.back().rows.push_back(spec.shape[0]);
  }
  return targets;
}

bool means(const std::string& name, const LoraTarget& target) {
  return name == target.module || name == last_part(target.module) ||
         target.module.ends_with("." + name) ||
         std::any_of(target.tensors.begin(), target.tensors.end(),
                     [&](const std::string& tensor) { return short_name(tensor) == name; });
}

}  // namespace

int64_t LoraTarget::all_rows() const {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

double Lora::scale() const {
  const auto r = static_cast<double>(rank);
  return alpha / (root_scale ? std::sqrt(r) : r);
}

std::vector<LoraTarget> lora_targets(const Architecture& arch,
                                     const std::vector<std::string>& names) {
  std::vector<LoraTarget> all = all_targets(arch);
  if (names.empty()) return all;
  std::vector<LoraTarget> chosen;
  for (const LoraTarget& target : all)
    if (std::any_of(names.begin(), names.end(),
                    [&](const std::string& name) { return means(name, target); }))
      chosen.push_back(target);
  for (const std::string& name : names) {
    if (std::any_of(all.begin(), all.end(),
                    [&](const LoraTarget& target) { return means(name, target); }))
      continue;
    std::set<std::string> known;
    for (const LoraTarget& target : all) known.insert(last_part(target.module));
    const std::vector<std::string> list(known.begin(), known.end());
    throw_usage(cat("targets: the model has no matrix '", name, "' (known: ", join(list, ", "), ")",
                    did_you_mean(name, list)));
  }
  return chosen;
}

MergedWeights::MergedWeights(std::shared_ptr<const WeightSource> base, LoraAdapter adapter,
                             bool keep_zeros)
    : base_(std::move(base)), adapter_(std::move(adapter)), keep_zeros_(keep_zeros) {}

bool LoraAdapter::adapts(const std::string& tensor) const {
  return std::any_of(lora.targets.begin(), lora.targets.end(), [&](const LoraTarget& target) {
    return std::find(target.tensors.begin(), target.tensors.end(), tensor) != target.tensors.end();
  });
}

TensorView MergedWeights::view(const std::string& name) const {
  const TensorView plain = base_->view(name);
  for (const LoraTarget& target : adapter_.lora.targets) {
    const auto found = std::find(target.tensors.begin(), target.tensors.end(), name);
    if (found == target.tensors.end()) continue;
    const int64_t first_row = std::accumulate(
        target.rows.begin(), target.rows.begin() + (found - target.tensors.begin()), int64_t{0});
    const int64_t rank = adapter_.lora.rank, columns = plain.columns();
    const auto decoded = [&](const std::string& value) {
      const TensorView view = adapter_.values->view(value);
      std::vector<float> values(static_cast<size_t>(view.elements()));
      decode_rows(view, 0, view.rows(), values.data());
      return values;
    };
    const std::vector<float> a = decoded(target.a()), b = decoded(target.b());
    const double scale = adapter_.lora.scale();
    auto merged = std::make_shared<std::vector<float>>(static_cast<size_t>(plain.elements()));
    parallel_for(plain.rows(), [&](int64_t row) {
      float* const out = merged->data() + row * columns;
      decode_rows(plain, row, 1, out);
      std::vector<double> sum(static_cast<size_t>(columns), 0.0);
      for (int64_t k = 0; k < rank; ++k) {
        const auto factor =
            static_cast<double>(b[static_cast<size_t>((first_row + row) * rank + k)]);
        const float* const from = a.data() + k * columns;
        // A product of two floats is exact in double, so a fused addition gives the same.
        for (int64_t j = 0; j < columns; ++j)
          sum[static_cast<size_t>(j)] += factor * static_cast<double>(from[j]);
      }
      for (int64_t j = 0; j < columns; ++j)
        if (!keep_zeros_ || out[j] != 0.0f)
          out[j] =
              static_cast<float>(static_cast<double>(out[j]) + scale * sum[static_cast<size_t>(j)]);
    });
    return {.data = reinterpret_cast<const std::byte*>(merged->data()),
            .dtype = DType::kF32,
            .shape = plain.shape,
            .owner = merged};
  }
  return plain;
}

}  // namespace slmc

#include "prune/structure.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr int64_t kReadElements = int64_t{1} << 16;

std::string after_layer(const std::string& name) { return name.substr(name.find('.', 4) + 1); }

/// Adds to sums[neuron] the squared scores of one weight whose rows or columns are neurons.
void add_squares(const Model& model, const Metric& metric, const std::string& name,
                 std::vector<double>& sums) {
  if (!model.has(name)) return;  // A family without a gate.
  const std::vector<int64_t> shape = model.info(name).shape;
  const int64_t out = shape[0], in = shape[1];
  const bool by_row = neuron_axis(name) == NeuronAxis::kRows;
  SLMC_CHECK((by_row ? out : in) == static_cast<int64_t>(sums.size()), name);
  const std::vector<float> weight = read_weight(model, name);
  model.release(name);
  std::vector<float> scores(weight.size());
  metric.score({.weight = weight.data(), .out = out, .in = in}, scores.data());
  // Neurons are divided among threads and each sum runs in index order, so it does not depend on
  // their number.
  parallel_ranges(static_cast<int64_t>(sums.size()), 64, [&](int64_t begin, int64_t end) {
    if (by_row) {
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t i = 0; i < in; ++i)
          sums[static_cast<size_t>(n)] +=
              std::pow(static_cast<double>(scores[static_cast<size_t>(n * in + i)]), 2);
      }
      return;
    }
    for (int64_t row = 0; row < out; ++row) {
      for (int64_t n = begin; n < end; ++n)
        sums[static_cast<size_t>(n)] +=
            std::pow(static_cast<double>(scores[static_cast<size_t>(row * in + n)]), 2);
    }
  });
}

}  // namespace

int64_t width_multiple(const Architecture& arch, int64_t multiple) {
  if (multiple > 0) return multiple;
  if (arch.hidden % 256 == 0 && arch.ffn % 256 == 0) return 256;
  return arch.ffn % 32 == 0 ? 32 : 1;
}

int64_t reduced_width(const Architecture& arch, double ratio, int64_t multiple) {
  const int64_t step = width_multiple(arch, multiple);
  const double steps =
      std::floor(ratio * static_cast<double>(arch.ffn) / static_cast<double>(step) + 0.5);
  return std::min(arch.ffn, std::max<int64_t>(1, static_cast<int64_t>(steps)) * step);
}

Architecture reduced_architecture(const Architecture& arch, const Structure& structure) {
  Architecture reduced = keep_layers(arch, structure.layers);
  reduced.ffn = structure.ffn;
  return reduced;
}

Json reduced_config(const Json& config, const Architecture& arch, const Structure& structure) {
  Json reduced = config;
  for (auto& [key, value] : reduced.items()) {
    if (!value.is_array() || static_cast<int64_t>(value.size()) != arch.layers ||
        key.find("layer") == std::string::npos)
      continue;
    Json kept = Json::array();
    for (const int64_t layer : structure.layers) kept.push_back(value[static_cast<size_t>(layer)]);
    value = std::move(kept);
  }
  return reduced;
}

int64_t layer_of(const std::string& name) {
  int64_t layer = -1;
  if (name.rfind("blk.", 0) != 0) return -1;
  const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return error == std::errc() && end != name.data() + name.size() && *end == '.' ? layer : -1;
}

NeuronAxis neuron_axis(const std::string& name) {
  if (layer_of(name) < 0) return NeuronAxis::kNone;
  const std::string part = after_layer(name);
  if (part == "ffn_gate.weight" || part == "ffn_up.weight" || part == "ffn_gate.bias" ||
      part == "ffn_up.bias")
    return NeuronAxis::kRows;
  return part == "ffn_down.weight" ? NeuronAxis::kColumns : NeuronAxis::kNone;
}

std::string reduced_name(const std::string& name, const Structure& structure) {
  const int64_t layer = layer_of(name);
  if (layer < 0) return name;
  const auto at = std::lower_bound(structure.layers.begin(), structure.layers.end(), layer);
  if (at == structure.layers.end() || *at != layer) return "";
  return cat("blk.", at - structure.layers.begin(), ".", after_layer(name));
}

std::vector<int64_t> choose_neurons(const Model& model, const Metric& metric, int64_t layer,
                                    int64_t width, double& share) {
  std::vector<double> sums(static_cast<size_t>(model.arch().ffn), 0.0);
  for (const char* part : {"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"})
    add_squares(model, metric, cat("blk.", layer, ".", part), sums);
  std::vector<int64_t> order(sums.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return sums[static_cast<size_t>(a)] > sums[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(width));
  double kept = 0, all = 0;
  for (const double sum : sums) all += sum;
  for (const int64_t neuron : order) kept += sums[static_cast<size_t>(neuron)];
  share = all > 0 ? kept / all : 1.0;
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<float> read_weight(const Model& model, const std::string& name) {
  const std::vector<int64_t> shape = model.info(name).shape;
  const int64_t columns = shape.back(), rows = element_count(shape) / columns;
  std::vector<float> weight(static_cast<size_t>(rows * columns));
  parallel_ranges(rows, std::max<int64_t>(1, kReadElements / columns),
                  [&](int64_t begin, int64_t end) {
                    model.read_rows(name, begin, end - begin, weight.data() + begin * columns);
                    for (int64_t i = begin * columns; i < end * columns; ++i) {
                      if (std::isfinite(weight[static_cast<size_t>(i)])) continue;
                      throw_bad_input(cat(model.path(), ": ", name, "[", i / columns, ", ",
                                          i % columns, "] is ", weight[static_cast<size_t>(i)],
                                          "; expected finite weights; the checkpoint is damaged or "
                                          "was saved from a run that diverged"));
                    }
                  });
  return weight;
}

}  // namespace slmc

#include "distill/learned_scales.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/half.h"
#include "compress/core/parallel.h"
#include "distill/training.h"
#include "formats/block_codec.h"
#include "formats/group_types.h"
#include "formats/model_writer.h"

namespace slmc {
namespace {

/// How the columns of a type fall into units.
struct Units {
  const BlockCodec* codec = nullptr;
  int64_t columns = 0;  ///< Of one unit.
  int64_t count = 0;    ///< In a row.
  float extreme = 1;    ///< The magnitude of the extreme code.

  const BlockLayout& layout() const { return *codec->layout; }
  int64_t unit(int64_t column) const { return column / columns; }
};

Units units_of(DType type, int64_t columns) {
  Units units{.codec = &block_codec(type)};
  const BlockLayout& layout = units.layout();
  const bool whole_row = is_group_type(type) && group_facts(type).group == 0;
  units.columns = whole_row ? columns : layout.sub;
  units.count = columns / units.columns;
  units.extreme = layout.table != nullptr ? std::abs(static_cast<float>(layout.table[0]))
                                          : static_cast<float>(std::max(-layout.low, layout.high));
  return units;
}

bool in_blocks(DType type) { return !dtype_is_float(type); }

/// The scale d and integers in [low, high] whose products are nearest to `wanted` [n], of those
/// that make the lowest integer, or one from half the highest on, stand for the extreme value: f16
/// bits of d.
uint16_t fit_products(const float* wanted, int64_t n, int low, int high, int* integers) {
  float extreme = 0;
  for (int64_t i = 0; i < n; ++i)
    if (std::fabs(wanted[i]) > std::fabs(extreme)) extreme = wanted[i];
  uint16_t best = 0;
  double least = -1;
  const auto attempt = [&](int top) {
    const uint16_t bits = float_to_f16(extreme / static_cast<float>(top));
    const float d = f16_to_float(bits);
    if (d == 0 || !std::isfinite(d)) return;
    const float inverse = 1.0f / d;
    double error = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float code = std::clamp(std::nearbyint(wanted[i] * inverse), static_cast<float>(low),
                                    static_cast<float>(high));
      const auto lost = static_cast<double>(wanted[i] - code * d);
      error += lost * lost;
    }
    if (least < 0 || error < least) least = error, best = bits;
  };
  if (extreme != 0) {
    if (low < 0) attempt(low);
    for (int top = high; top >= std::max(1, high / 2); --top) attempt(top);
  }
  const float d = f16_to_float(best), inverse = d != 0 ? 1.0f / d : 0.0f;
  for (int64_t i = 0; i < n; ++i)
    integers[i] = static_cast<int>(std::clamp(std::nearbyint(wanted[i] * inverse),
                                              static_cast<float>(low), static_cast<float>(high)));
  return best;
}

/// Scales and minimums of one block, as the type holds them.
void put_group(DType type, float scale, float minimum, BlockParts& parts) {
  const float held = storable_scale(scale);
  parts.d = float_to_f16(held);
  parts.scales[0] = 1;
  if (!group_facts(type).zero_point) return;
  parts.dmin = parts.d;
  const int codes = (1 << group_facts(type).bits) - 1;
  parts.minimums[0] = static_cast<uint8_t>(
      std::clamp(std::nearbyint(minimum / held), 0.0f, static_cast<float>(codes)));
}

void put_single(const BlockLayout& layout, float scale, float minimum, BlockParts& parts) {
  parts.d = float_to_f16(scale);
  parts.scales[0] = 1;
  if (!layout.minimum) return;
  parts.dmin = float_to_f16(minimum);
  parts.minimums[0] = 1;
}

void put_super(const BlockLayout& layout, const float* scales, const float* minimums,
               BlockParts& parts) {
  int integers[16] = {};
  float positive[16] = {};
  const float* wanted = scales;
  if (layout.minimum) {
    for (int64_t j = 0; j < layout.subs; ++j) positive[j] = std::max(scales[j], 0.0f);
    wanted = positive;
  }
  parts.d = fit_products(wanted, layout.subs, layout.minimum ? 0 : layout.scale_low,
                         layout.scale_high, integers);
  for (int64_t j = 0; j < layout.subs; ++j) parts.scales[j] = static_cast<int8_t>(integers[j]);
  if (!layout.minimum) return;
  for (int64_t j = 0; j < layout.subs; ++j) positive[j] = std::max(minimums[j], 0.0f);
  parts.dmin = fit_products(positive, layout.subs, 0, layout.scale_high, integers);
  for (int64_t j = 0; j < layout.subs; ++j) parts.minimums[j] = static_cast<uint8_t>(integers[j]);
}

/// The block at `column` of a row, with nearest codes. `scales` and `minimums` are the row's.
void make_block(const Units& units, const ScaledRows& rows, int64_t row, int64_t column,
                BlockParts& parts) {
  const BlockLayout& layout = units.layout();
  float scales[16] = {}, minimums[16] = {};
  for (int64_t j = 0; j < layout.subs; ++j) {
    const int64_t at = row * units.count + units.unit(column + j * layout.sub);
    scales[j] = rows.scales[at] / units.extreme;
    if (rows.minimums != nullptr) minimums[j] = rows.minimums[at];
  }
  if (is_group_type(rows.type))
    put_group(rows.type, scales[0], minimums[0], parts);
  else if (layout.subs == 1)
    put_single(layout, scales[0], minimums[0], parts);
  else
    put_super(layout, scales, minimums, parts);
  round_codes(layout, rows.weights + row * rows.columns + column, parts);
}

/// Where the gradients of some rows go.
struct RowGradients {
  float *weights, *scales, *minimums;
};

/// One block's: with v = (w + m) / s and its code c, dL/ds is (c - v) dL/dw inside the range of
/// codes and c dL/dw outside, where dL/dw itself ends and dL/dm = -dL/dw.
void block_gradients(const Units& units, const ScaledRows& rows, int64_t row, int64_t column,
                     const BlockParts& parts, const RowGradients& g) {
  const BlockLayout& layout = units.layout();
  const auto low = static_cast<float>(layout.table ? layout.table[0] : layout.low);
  const auto high = static_cast<float>(layout.table ? layout.table[15] : layout.high);
  for (int64_t j = 0; j < layout.subs; ++j) {
    const int64_t from = j * layout.sub, unit = row * units.count + units.unit(column + from);
    const float scale = sub_scale(parts, j), minimum = sub_minimum(layout, parts, j);
    if (scale == 0) continue;
    const float inverse = 1.0f / scale;
    const float* const w = rows.weights + row * rows.columns + column + from;
    float* const dw = g.weights + row * rows.columns + column + from;
    float scale_sum = 0, minimum_sum = 0;
    for (int64_t i = 0; i < layout.sub; ++i) {
      const float value = (w[i] + minimum) * inverse;
      const auto code = static_cast<float>(parts.codes[from + i]);
      if (value < low || value > high) {
        scale_sum += dw[i] * code;
        minimum_sum -= dw[i];
        dw[i] = 0;
      } else {
        scale_sum += dw[i] * (code - value);
      }
    }
    g.scales[unit] += scale_sum / units.extreme;
    if (g.minimums != nullptr) g.minimums[unit] += minimum_sum;
  }
}

}  // namespace

std::string scale_name(const std::string& weight) { return weight + ".scale"; }
std::string minimum_name(const std::string& weight) { return weight + ".minimum"; }

void add_scales(const StoredTypes& types, ParameterLayout& layout) {
  const size_t slots = layout.slots.size();
  for (size_t i = 0; i < slots; ++i) {
    const ParameterSlot slot = layout.slots[i];
    const auto found = types.find(slot.name);
    if (found == types.end() || !in_blocks(found->second)) continue;
    const Units units = units_of(found->second, slot.shape.back());
    const int64_t rows = slot.size / slot.shape.back();
    const auto add = [&](const std::string& name) {
      layout.slots.push_back({.name = name,
                              .shape = {rows, units.count},
                              .offset = layout.total,
                              .size = rows * units.count,
                              .decay = false});
      layout.total += rows * units.count;
    };
    add(scale_name(slot.name));
    if (units.layout().minimum) add(minimum_name(slot.name));
  }
}

std::shared_ptr<const WeightSource> initial_scales(const StoredTypes& types,
                                                   const ParameterLayout& layout,
                                                   const WeightSource& start) {
  auto weights = std::make_shared<MemoryWeights>(start.arch());
  const auto add = [&](const ParameterSlot& slot, std::shared_ptr<std::vector<float>> values) {
    weights->add(slot.name, {.data = reinterpret_cast<const std::byte*>(values->data()),
                             .dtype = DType::kF32,
                             .shape = slot.shape,
                             .owner = std::move(values)});
  };
  for (const auto& [name, type] : types) {
    if (!in_blocks(type) || !layout.has(name)) continue;
    const TensorView view = start.view(name);
    const int64_t columns = view.shape.back(), rows = view.rows();
    const Units units = units_of(type, columns);
    const auto scales =
        std::make_shared<std::vector<float>>(static_cast<size_t>(rows * units.count));
    const auto minimums = std::make_shared<std::vector<float>>(scales->size());
    parallel_for(rows, [&](int64_t row) {
      const uint64_t bytes = dtype_row_bytes(type, columns);
      std::vector<std::byte> encoded(bytes);
      const std::byte* blocks = view.data + bytes * static_cast<uint64_t>(row);
      if (view.dtype != type) {
        std::vector<float> values(static_cast<size_t>(columns));
        decode_rows(view, row, 1, values.data());
        encode_nearest(type, values.data(), 1, columns, encoded.data());
        blocks = encoded.data();
      }
      BlockParts parts;
      for (int64_t column = 0; column < columns; column += units.layout().block) {
        units.layout().unpack(blocks + column / units.layout().block * units.codec->block_bytes,
                              parts);
        for (int64_t j = 0; j < units.layout().subs; ++j) {
          const auto at =
              static_cast<size_t>(row * units.count + units.unit(column + j * units.layout().sub));
          (*scales)[at] = sub_scale(parts, j) * units.extreme;
          (*minimums)[at] = sub_minimum(units.layout(), parts, j);
        }
      }
    });
    start.release(name);
    add(layout.find(scale_name(name)), scales);
    if (units.layout().minimum) add(layout.find(minimum_name(name)), minimums);
  }
  return weights;
}

ScaledRows ScaledTensor::rows(int64_t begin, int64_t count) const {
  const int64_t units = units_of(type_, columns_).count;
  return {.type = type_,
          .weights = weights_.data() + begin * columns_,
          .scales = scales_.data() + begin * units,
          .minimums = minimums_.empty() ? nullptr : minimums_.data() + begin * units,
          .rows = count,
          .columns = columns_};
}

std::unique_ptr<ScaledTensor> scaled_tensor(const WeightSource& network, const std::string& name,
                                            DType type) {
  if (!in_blocks(type) || !network.has(scale_name(name))) return nullptr;
  const auto floats = [&network](const std::string& tensor) {
    const TensorView view = network.view(tensor);
    std::vector<float> values(static_cast<size_t>(view.elements()));
    decode_rows(view, 0, view.rows(), values.data());
    network.release(tensor);
    return values;
  };
  return std::make_unique<ScaledTensor>(
      type, floats(name), floats(scale_name(name)),
      block_codec(type).layout->minimum ? floats(minimum_name(name)) : std::vector<float>(),
      network.view(name).shape.back());
}

void encode_scaled(const ScaledRows& rows, std::byte* out) {
  const Units units = units_of(rows.type, rows.columns);
  BlockParts parts;
  for (int64_t row = 0; row < rows.rows; ++row) {
    for (int64_t column = 0; column < rows.columns; column += units.layout().block) {
      make_block(units, rows, row, column, parts);
      units.layout().pack(parts, out);
      out += units.codec->block_bytes;
    }
  }
}

void round_scaled(const ScaledRows& rows, float* out) {
  std::vector<std::byte> encoded(dtype_row_bytes(rows.type, rows.columns) *
                                 static_cast<uint64_t>(rows.rows));
  encode_scaled(rows, encoded.data());
  block_codec(rows.type).decode(encoded.data(), rows.rows * rows.columns, out);
}

bool has_scales(const ParameterLayout& layout, const ParameterSlot& slot, DType type) {
  return in_blocks(type) && layout.has(scale_name(slot.name));
}

ScaledRows scaled_rows(const ParameterLayout& layout, const ParameterSlot& slot, DType type,
                       int64_t row, int64_t rows, const float* weights) {
  const int64_t columns = slot.shape.back(), units = units_of(type, columns).count;
  const auto part = [&](const std::string& name) {
    return weights + layout.find(name).offset + row * units;
  };
  return {.type = type,
          .weights = weights + slot.offset + row * columns,
          .scales = part(scale_name(slot.name)),
          .minimums = block_codec(type).layout->minimum ? part(minimum_name(slot.name)) : nullptr,
          .rows = rows,
          .columns = columns};
}

void scale_gradients(const ParameterLayout& layout, const StoredTypes& types, const float* weights,
                     float* gradients) {
  for_stored_rows(
      layout, types, [&](const ParameterSlot& slot, DType type, int64_t row, int64_t rows) {
        if (!has_scales(layout, slot, type)) return;
        const ScaledRows scaled = scaled_rows(layout, slot, type, row, rows, weights);
        const Units units = units_of(type, scaled.columns);
        // Gradients lie as the weights do.
        const auto beside = [&](const float* p) {
          return p != nullptr ? gradients + (p - weights) : nullptr;
        };
        const RowGradients g{beside(scaled.weights), beside(scaled.scales),
                             beside(scaled.minimums)};
        std::fill_n(g.scales, rows * units.count, 0.0f);
        if (g.minimums != nullptr) std::fill_n(g.minimums, rows * units.count, 0.0f);
        BlockParts parts;
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t column = 0; column < scaled.columns; column += units.layout().block) {
            make_block(units, scaled, r, column, parts);
            block_gradients(units, scaled, r, column, parts, g);
          }
        }
      });
}

}  // namespace slmc

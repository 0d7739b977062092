#include "distill/rounding.h"

#include <algorithm>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "distill/learned_scales.h"
#include "distill/training.h"
#include "formats/block_codec.h"
#include "formats/family.h"
#include "formats/model_writer.h"
#include "quantize/method.h"
#include "quantize/rules.h"

namespace slmc {
namespace {

/// Elements that are encoded at a time: small enough for the second-level cache.
constexpr int64_t kTileElements = int64_t{1} << 14;

std::vector<float> floats_of(const WeightSource& source, const std::string& name) {
  const TensorView view = source.view(name);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  return values;
}

}  // namespace

StoredTypes written_types(const Architecture& arch, const std::string& scheme, DType kept) {
  std::vector<TensorInfo> tensors;
  for (const TensorSpec& spec : family_by_name(arch.family).tensors(arch))
    tensors.push_back(
        {.name = spec.name, .file_name = spec.hf.name, .dtype = kept, .shape = spec.shape});
  StoredTypes types;
  for (const TensorInfo& tensor : tensors) types[tensor.name] = kept;
  if (scheme.empty()) return types;
  const std::vector<TypeChoice> choices =
      choose_types(arch, tensors, scheme_by_name(scheme), false);
  for (size_t i = 0; i < tensors.size(); ++i) types[tensors[i].name] = choices[i].type;
  return types;
}

StoredTypes stored_types(const Architecture& arch, const std::string& scheme, DType kept,
                         const std::string& path) {
  const double missing = query_scale(arch) / implied_query_scale(arch);
  if (path.ends_with(".gguf") && !arch.qk_norm && static_cast<float>(missing) != 1.0f)
    throw_unsupported(
        cat("qat: a GGUF of this ", arch.family,
            " holds its query weights scaled, which are not those that are trained; quantize the "
            "trained model instead (slmc quantize)"));
  return written_types(arch, scheme, kept);
}

void encode_nearest(DType type, const float* in, int64_t rows, int64_t columns, std::byte* out) {
  Distortion lost{};
  method_by_name("nearest").encode({.weight = in,
                                    .rows = rows,
                                    .columns = columns,
                                    .grid = &block_codec(type),
                                    .kernels = &encode_kernels()},
                                   out, &lost);
}

void round_rows(DType type, const float* in, int64_t rows, int64_t columns, float* out) {
  const BlockCodec& codec = block_codec(type);
  const int64_t step = std::max<int64_t>(1, kTileElements / columns);
  const uint64_t row_bytes = dtype_row_bytes(type, columns);
  std::vector<std::byte> encoded(row_bytes * static_cast<uint64_t>(std::min(step, rows)));
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    encode_nearest(type, in + row * columns, count, columns, encoded.data());
    for (int64_t r = 0; r < count; ++r)
      codec.decode(encoded.data() + row_bytes * static_cast<uint64_t>(r), columns,
                   out + (row + r) * columns);
  }
}

void for_stored_rows(
    const ParameterLayout& layout, const StoredTypes& types,
    const std::function<void(const ParameterSlot&, DType, int64_t, int64_t)>& work) {
  struct Piece {
    const ParameterSlot* slot;
    DType type;
    int64_t row, rows;
  };
  constexpr int64_t kPieceElements = 8 * kTileElements;
  std::vector<Piece> pieces;
  for (const ParameterSlot& slot : layout.slots) {
    const auto found = types.find(slot.name);
    const DType type = found != types.end() ? found->second : DType::kF32;
    const int64_t columns = slot.shape.back(), rows = slot.size / columns;
    const int64_t step = std::max<int64_t>(1, kPieceElements / columns);
    for (int64_t row = 0; row < rows; row += step)
      pieces.push_back({&slot, type, row, std::min(step, rows - row)});
  }
  parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    work(*piece.slot, piece.type, piece.row, piece.rows);
  });
}

void round_layout(const ParameterLayout& layout, const StoredTypes& types, const float* weights,
                  float* rounded) {
  for_stored_rows(
      layout, types, [&](const ParameterSlot& slot, DType type, int64_t row, int64_t rows) {
        const int64_t columns = slot.shape.back(), at = slot.offset + row * columns;
        if (type == DType::kF32)
          std::copy_n(weights + at, rows * columns, rounded + at);
        else if (has_scales(layout, slot, type))
          round_scaled(scaled_rows(layout, slot, type, row, rows, weights), rounded + at);
        else
          round_rows(type, weights + at, rows, columns, rounded + at);
      });
}

void check_stored(const Model& written, const WeightSource& network, const StoredTypes& types) {
  for (const auto& [name, type] : types) {
    if (written.info(name).shape.size() < 2) continue;  // Vectors pass through the file's own form.
    std::vector<float> expected = floats_of(network, name);
    const std::vector<float> held = floats_of(written, name);
    SLMC_CHECK(written.info(name).dtype == type && held.size() == expected.size(),
               cat(written.path(), ": tensor ", name, " is not of the type that was trained"));
    const int64_t columns = written.info(name).shape.back();
    const auto rows = static_cast<int64_t>(expected.size()) / columns;
    const auto scaled = scaled_tensor(network, name, type);
    parallel_ranges(
        rows, std::max<int64_t>(1, kTileElements / columns), [&](int64_t begin, int64_t end) {
          std::vector<float> out(static_cast<size_t>((end - begin) * columns));
          if (scaled != nullptr) {
            std::vector<std::byte> blocks(dtype_row_bytes(type, columns) *
                                          static_cast<uint64_t>(end - begin));
            encode_scaled(scaled->rows(begin, end - begin), blocks.data());
            block_codec(type).decode(blocks.data(), (end - begin) * columns, out.data());
          } else {
            round_rows(type, expected.data() + begin * columns, end - begin, columns, out.data());
          }
          std::copy(out.begin(), out.end(), expected.begin() + begin * columns);
        });
    SLMC_CHECK(expected == held, cat(written.path(), ": tensor ", name,
                                     " does not hold the values that were trained"));
  }
}

}  // namespace slmc

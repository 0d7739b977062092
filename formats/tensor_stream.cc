#include "formats/tensor_stream.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"

namespace slmc {
namespace {

constexpr int64_t kPieceElements = 4 << 20;  // 16 MB as float.
// The narrowest scale there is, f16, holds anything up to this whatever the block type; only larger
// values need a look at the result.
constexpr float kSurelyFits = 60000.0f;

/// Largest magnitude of a row; throws for NaN and infinity.
float check_finite(const float* row, int64_t columns, const std::string& where, int64_t index) {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < columns; ++i) {
    const float magnitude = std::fabs(row[i]);
    finite = finite && magnitude <= 3.402823466e38f;
    largest = std::max(largest, magnitude);
  }
  if (finite) return largest;
  for (int64_t i = 0; i < columns; ++i) {
    if (!std::isfinite(row[i]))
      throw_bad_input(
          cat(where, ": row ", index, ", column ", i, " is ", row[i], "; expected finite weights"));
  }
  return largest;
}

void encode_row(const BlockCodec& codec, const float* row, int64_t columns, std::byte* out,
                const std::string& where, int64_t index) {
  const float largest = check_finite(row, columns, where, index);
  codec.encode(row, columns, out);
  if (largest <= kSurelyFits) return;
  std::vector<float> decoded(static_cast<size_t>(columns));
  codec.decode(out, columns, decoded.data());
  for (int64_t i = 0; i < columns; ++i) {
    if (!std::isfinite(decoded[static_cast<size_t>(i)])) {
      throw_unsupported(cat(where, ": row ", index, ", column ", i, ": ", row[i],
                            " is too large for ", codec.name, "; use bf16 or f32"));
    }
  }
}

}  // namespace

void encode_rows(DType dtype, const float* in, int64_t count, int64_t columns, std::byte* out,
                 const std::string& where, int64_t first_row) {
  const BlockCodec& codec = block_codec(dtype);
  const auto row_bytes = static_cast<int64_t>(dtype_row_bytes(dtype, columns));
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, columns));
  parallel_ranges(count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      encode_row(codec, in + row * columns, columns, out + row * row_bytes, where, first_row + row);
  });
}

void write_view(const TensorView& view, const std::string& name, DType dtype, ModelWriter& writer) {
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode_rows(view, 0, view.rows(), values.data());
  std::vector<std::byte> bytes(dtype_row_bytes(dtype, view.columns()) *
                               static_cast<uint64_t>(view.rows()));
  encode_rows(dtype, values.data(), view.rows(), view.columns(), bytes.data(),
              cat("tensor ", name));
  writer.write_rows(name, 0, view.rows(), bytes.data());
}

void write_converted(const Model& model, const std::string& name, DType dtype,
                     ModelWriter& writer) {
  const TensorInfo& info = model.info(name);
  const int64_t columns = info.shape.back();
  const int64_t rows = element_count(info.shape) / columns;
  const int64_t step = std::clamp<int64_t>(kPieceElements / columns, 1, rows);
  if (info.dtype == dtype) {
    const TensorView view = model.view(name);
    for (int64_t row = 0; row < rows; row += step) {
      writer.write_rows(name, row, std::min(step, rows - row), view.row(row));
      model.release(name);
    }
    return;
  }
  std::vector<float> values(static_cast<size_t>(step * columns));
  std::vector<std::byte> bytes(dtype_row_bytes(dtype, columns) * static_cast<uint64_t>(step));
  const std::string where = cat(model.path(), ": tensor ", name);
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t count = std::min(step, rows - row);
    model.read_rows(name, row, count, values.data());
    model.release(name);
    encode_rows(dtype, values.data(), count, columns, bytes.data(), where, row);
    writer.write_rows(name, row, count, bytes.data());
  }
}

}  // namespace slmc

#include "quantize/stream.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/ordered.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

// A chunk is what one thread encodes before it writes: large enough that handing over costs
// nothing. A tile is what is decoded to floats at a time: small enough for the second-level cache.
// Both follow from shapes alone.
constexpr int64_t kChunkElements = int64_t{1} << 20;
constexpr int64_t kTileElements = int64_t{1} << 14;
// The source's pages are dropped each time this much has been read.
constexpr uint64_t kDropBytes = uint64_t{32} << 20;

struct Chunk {
  size_t tensor;
  int64_t row, count;
};

/// What one thread owns.
struct Slot {
  std::vector<std::byte> encoded;
  std::vector<float> tile;
  Distortion distortion{};
};

int64_t rows_of(const std::vector<int64_t>& shape) {
  return element_count(shape) / std::max<int64_t>(1, shape.back());
}

std::vector<Chunk> divide(const std::vector<OutputTensor>& targets, const ModelWriter& writer) {
  std::vector<Chunk> chunks;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (writer.done(targets[t].name)) continue;
    const int64_t rows = rows_of(targets[t].shape),
                  step = std::max<int64_t>(1, kChunkElements / targets[t].shape.back());
    for (int64_t row = 0; row < rows; row += step)
      chunks.push_back({t, row, std::min(step, rows - row)});
  }
  return chunks;
}

std::string element_text(const std::string& name, const std::vector<int64_t>& shape, int64_t row,
                         int64_t column) {
  return shape.size() < 2 ? cat(name, "[", column, "]") : cat(name, "[", row, ", ", column, "]");
}

[[noreturn]] void throw_not_finite(const Model& model, const OutputTensor& target,
                                   const float* tile, int64_t first_row) {
  const int64_t columns = target.shape.back();
  int64_t i = 0;
  while (std::isfinite(tile[i])) ++i;
  throw_bad_input(cat(model.path(), ": ",
                      element_text(target.name, target.shape, first_row + i / columns, i % columns),
                      " is ", tile[i],
                      "; expected finite weights; the checkpoint is damaged or was saved from a "
                      "run that diverged"));
}

/// The sums in f32 overflowed, or a decoded value did. The first is only a matter of measuring; the
/// second is an error.
Distortion distortion_in_double(const Model& model, const OutputTensor& target,
                                const BlockCodec& grid, const EncodeRequest& request,
                                const std::byte* encoded, int64_t first_row) {
  Distortion sum{};
  std::vector<float> decoded(static_cast<size_t>(request.columns));
  for (int64_t row = 0; row < request.rows; ++row) {
    grid.decode(encoded + static_cast<size_t>(row) * dtype_row_bytes(grid.dtype, request.columns),
                request.columns, decoded.data());
    for (int64_t i = 0; i < request.columns; ++i) {
      const double exact = request.weight[row * request.columns + i],
                   value = decoded[static_cast<size_t>(i)];
      if (!std::isfinite(value)) {
        throw_unsupported(
            cat(model.path(), ": ", element_text(target.name, target.shape, first_row + row, i),
                " is ", exact, ", beyond what ", grid.name,
                " can hold (its f16 reaches 65504); give this tensor bf16 by --rule"));
      }
      sum.squared_error += (exact - value) * (exact - value);
      sum.squared_weight += exact * exact;
      sum.max_error = std::max(sum.max_error, static_cast<float>(std::fabs(exact - value)));
    }
  }
  return sum;
}

class Encoder {
 public:
  Encoder(const Model& model, const std::vector<OutputTensor>& targets, const Method& method)
      : model_(model), targets_(targets), method_(method), kernels_(encode_kernels()) {}

  void encode(const Chunk& chunk, Slot& slot) const {
    const OutputTensor& target = targets_[chunk.tensor];
    const int64_t columns = target.shape.back();
    const BlockCodec& grid = block_codec(target.dtype);
    const uint64_t row_bytes = dtype_row_bytes(target.dtype, columns);
    const int64_t tile_rows = std::max<int64_t>(1, kTileElements / columns);
    slot.encoded.resize(row_bytes * static_cast<uint64_t>(chunk.count));
    slot.tile.resize(static_cast<size_t>(tile_rows * columns));
    slot.distortion = {};
    for (int64_t done = 0; done < chunk.count; done += tile_rows) {
      const EncodeRequest request{.weight = slot.tile.data(),
                                  .rows = std::min(tile_rows, chunk.count - done),
                                  .columns = columns,
                                  .grid = &grid,
                                  .statistics = nullptr,
                                  .kernels = &kernels_};
      const int64_t first_row = chunk.row + done;
      std::byte* out = slot.encoded.data() + row_bytes * static_cast<uint64_t>(done);
      read_tile(target.name, first_row, request.rows, columns, slot.tile.data());
      encode_checked(model_, target, method_, request, first_row, out, &slot.distortion);
    }
  }

  /// As Model::read_rows. A folder's bf16 rows lie in canonical order, so they can be widened by
  /// the kernel.
  void read_tile(const std::string& name, int64_t row, int64_t count, int64_t columns,
                 float* out) const {
    const TensorInfo& info = model_.info(name);
    if (info.dtype == DType::kBF16 && model_.container() != "gguf") {
      kernels_.widen_bf16(model_.view(name).row(row), count * columns, out);
    } else {
      model_.read_rows(name, row, count, out);
    }
  }

 private:
  const Model& model_;
  const std::vector<OutputTensor>& targets_;
  const Method& method_;
  const EncodeKernels& kernels_;
};

}  // namespace

void add_distortion(const Distortion& part, Distortion& sum) {
  sum.squared_error += part.squared_error;
  sum.squared_weight += part.squared_weight;
  sum.max_error = std::max(sum.max_error, part.max_error);
}

void encode_checked(const Model& model, const OutputTensor& target, const Method& method,
                    const EncodeRequest& request, int64_t first_row, std::byte* out,
                    Distortion* sum) {
  if (!request.kernels->all_finite(request.weight, request.rows * request.columns))
    throw_not_finite(model, target, request.weight, first_row);
  Distortion distortion{};
  method.encode(request, out, &distortion);
  if (!std::isfinite(distortion.squared_error) || !std::isfinite(distortion.squared_weight))
    distortion = distortion_in_double(model, target, *request.grid, request, out, first_row);
  add_distortion(distortion, *sum);
}

std::vector<Distortion> encode_model(const Model& model, const std::vector<OutputTensor>& targets,
                                     const Method& method, ModelWriter& writer, Context& context) {
  const std::vector<Chunk> chunks = divide(targets, writer);
  std::vector<Distortion> distortions(targets.size(), Distortion{});
  uint64_t total = 0, read = 0, kept = 0;
  for (size_t t = 0; t < targets.size(); ++t) {
    if (writer.done(targets[t].name)) distortions[t].squared_weight = -1;
  }
  for (const Chunk& chunk : chunks)
    total += static_cast<uint64_t>(chunk.count * targets[chunk.tensor].shape.back());

  const Encoder encoder(model, targets, method);
  std::vector<Slot> slots(static_cast<size_t>(threads()));
  Progress& progress = progress_of(context);
  progress.begin("quantize", total, "weights");
  ordered_pipeline(
      static_cast<int64_t>(chunks.size()),
      [&](int64_t item, int slot) {
        encoder.encode(chunks[static_cast<size_t>(item)], slots[static_cast<size_t>(slot)]);
      },
      [&](int64_t item, int slot_index) {
        const Chunk& chunk = chunks[static_cast<size_t>(item)];
        const OutputTensor& target = targets[chunk.tensor];
        const Slot& slot = slots[static_cast<size_t>(slot_index)];
        writer.write_rows(target.name, chunk.row, chunk.count, slot.encoded.data());
        add_distortion(slot.distortion, distortions[chunk.tensor]);
        const TensorInfo& info = model.info(target.name);
        const uint64_t bytes = info.bytes / static_cast<uint64_t>(rows_of(info.shape)) *
                               static_cast<uint64_t>(chunk.count);
        kept += bytes;
        if (kept >= kDropBytes || chunk.row + chunk.count == rows_of(target.shape)) {
          model.release(target.name);
          context.check_ram(target.name);
          context.check_interrupt();
          kept = kept >= kDropBytes ? 0 : kept;
        }
        read += static_cast<uint64_t>(chunk.count * target.shape.back());
        progress.update(read, target.name);
      });
  progress.end();
  return distortions;
}

WeightedError weighted_error(const EncodeRequest& request, const LinearStatistics& statistics,
                             const std::byte* encoded) {
  WeightedError sum;
  std::vector<float> decoded(static_cast<size_t>(request.columns));
  const uint64_t row_bytes = dtype_row_bytes(request.grid->dtype, request.columns);
  for (int64_t row = 0; row < request.rows; ++row) {
    request.grid->decode(encoded + static_cast<uint64_t>(row) * row_bytes, request.columns,
                         decoded.data());
    const float* exact = request.weight + row * request.columns;
    for (int64_t i = 0; i < request.columns; ++i) {
      const double square = statistics.input_squares[static_cast<size_t>(i)];
      const double lost =
          static_cast<double>(exact[i]) - static_cast<double>(decoded[static_cast<size_t>(i)]);
      sum.error += square * lost * lost;
      sum.weight += square * static_cast<double>(exact[i]) * static_cast<double>(exact[i]);
    }
  }
  return sum;
}

Distortion measure_tensor(const Model& model, const Model& written, const std::string& name) {
  const TensorInfo& info = model.info(name);
  const int64_t columns = info.shape.back(), rows = rows_of(info.shape);
  const int64_t step = std::max<int64_t>(1, kTileElements / columns),
                chunk = std::max<int64_t>(1, kChunkElements / columns);
  std::vector<float> exact(static_cast<size_t>(step * columns)), decoded(exact.size());
  const EncodeKernels& kernels = encode_kernels();
  Distortion sum{};
  for (int64_t chunk_row = 0; chunk_row < rows; chunk_row += chunk) {
    Distortion part{};
    const int64_t chunk_end = std::min(rows, chunk_row + chunk);
    for (int64_t row = chunk_row; row < chunk_end; row += step) {
      const int64_t count = std::min(step, chunk_end - row);
      model.read_rows(name, row, count, exact.data());
      written.read_rows(name, row, count, decoded.data());
      Distortion tile{};
      for (int64_t r = 0; r < count; ++r)
        kernels.distortion_f32(exact.data() + r * columns, decoded.data() + r * columns, columns,
                               &tile);
      add_distortion(tile, part);
    }
    add_distortion(part, sum);
  }
  model.release(name);
  written.release(name);
  return sum;
}

uint64_t encode_peak_bytes(const Model& model, const std::vector<OutputTensor>& targets,
                           int thread_count) {
  uint64_t largest = 0;
  for (const OutputTensor& target : targets) {
    const int64_t columns = target.shape.back();
    const auto chunk_rows = static_cast<uint64_t>(
        std::min(rows_of(target.shape), std::max<int64_t>(1, kChunkElements / columns)));
    const auto tile_rows = static_cast<uint64_t>(std::max<int64_t>(1, kTileElements / columns));
    const TensorInfo& info = model.info(target.name);
    const uint64_t source_row = info.bytes / static_cast<uint64_t>(rows_of(info.shape));
    largest = std::max(largest, chunk_rows * (dtype_row_bytes(target.dtype, columns) + source_row) +
                                    tile_rows * 4 * static_cast<uint64_t>(columns));
  }
  return largest * static_cast<uint64_t>(thread_count) + 2 * kDropBytes;
}

}  // namespace slmc

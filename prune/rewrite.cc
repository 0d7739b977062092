#include "prune/rewrite.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/model_writer.h"

namespace slmc {
namespace {

// Rows are read, encoded and written in pieces of about this many elements; the source's pages are
// dropped each time.
constexpr int64_t kPieceElements = int64_t{4} << 20;
constexpr int64_t kGrainElements = int64_t{1} << 16;

int64_t rows_of(const std::vector<int64_t>& shape) { return element_count(shape) / shape.back(); }

/// Writes rows that `fill` provides as floats: fill(begin, end, out) for rows [begin, end), called
/// from several threads.
template <typename Fill>
void write_tensor(const Model& model, const OutputTensor& target, const std::string& source,
                  const Fill& fill, ModelWriter& writer, Context& context) {
  const BlockCodec& codec = block_codec(target.dtype);
  const int64_t columns = target.shape.back(), rows = rows_of(target.shape);
  const uint64_t row_bytes = dtype_row_bytes(target.dtype, columns);
  const int64_t piece = std::max<int64_t>(1, kPieceElements / columns),
                grain = std::max<int64_t>(1, kGrainElements / columns);
  std::vector<std::byte> encoded(row_bytes * static_cast<uint64_t>(std::min(piece, rows)));
  for (int64_t first = 0; first < rows; first += piece) {
    const int64_t count = std::min(piece, rows - first);
    parallel_ranges(count, grain, [&](int64_t begin, int64_t end) {
      std::vector<float> floats(static_cast<size_t>((end - begin) * columns));
      fill(first + begin, first + end, floats.data());
      codec.encode(floats.data(), (end - begin) * columns,
                   encoded.data() + row_bytes * static_cast<uint64_t>(begin));
    });
    writer.write_rows(target.name, first, count, encoded.data());
    model.release(source);
  }
  context.check_ram(target.name);
  context.check_interrupt();
}

void check_finite(const Model& model, const std::string& name, int64_t first_row,
                  const float* values, int64_t count, int64_t columns) {
  for (int64_t i = 0; i < count; ++i) {
    if (std::isfinite(values[i])) continue;
    throw_bad_input(cat(model.path(), ": ", name, "[", first_row + i / columns, ", ", i % columns,
                        "] is ", values[i],
                        "; expected finite weights; the checkpoint is damaged or was saved from a "
                        "run that diverged"));
  }
}

void copy_tensor(const Model& model, const OutputTensor& target, const std::string& source,
                 ModelWriter& writer, Context& context) {
  const int64_t columns = target.shape.back();
  write_tensor(
      model, target, source,
      [&](int64_t begin, int64_t end, float* out) {
        model.read_rows(source, begin, end - begin, out);
        check_finite(model, source, begin, out, (end - begin) * columns, columns);
      },
      writer, context);
}

void mask_tensor(const Model& model, const OutputTensor& target, const Metric& metric,
                 const Sparsity& sparsity, MaskScope scope, ModelWriter& writer, Context& context) {
  const int64_t out = target.shape[0], in = target.shape[1];
  const std::vector<float> weight = read_weight(model, target.name);
  model.release(target.name);
  std::vector<uint8_t> kept(weight.size());
  {
    std::vector<float> scores(weight.size());
    metric.score({.weight = weight.data(), .out = out, .in = in}, scores.data());
    make_mask(sparsity, scope, out, in, scores, kept);
  }
  write_tensor(
      model, target, target.name,
      [&](int64_t begin, int64_t end, float* rows) {
        for (int64_t i = begin * in; i < end * in; ++i)
          rows[i - begin * in] =
              kept[static_cast<size_t>(i)] != 0 ? weight[static_cast<size_t>(i)] : 0.0f;
      },
      writer, context);
}

void gather_tensor(const Model& model, const OutputTensor& target, const std::string& source,
                   const std::vector<int64_t>& neurons, ModelWriter& writer, Context& context) {
  const std::vector<int64_t> shape = model.info(source).shape;
  const bool vector = shape.size() < 2;
  const bool by_row = neuron_axis(source) == NeuronAxis::kRows && !vector;
  const int64_t columns = shape.back(), kept = static_cast<int64_t>(neurons.size());
  const auto fill = [&](int64_t begin, int64_t end, float* out) {
    if (by_row) {
      for (int64_t row = begin; row < end; ++row)
        model.read_rows(source, neurons[static_cast<size_t>(row)], 1,
                        out + (row - begin) * columns);
      return;
    }
    std::vector<float> whole(static_cast<size_t>(columns));
    for (int64_t row = begin; row < end; ++row) {
      model.read_rows(source, row, 1, whole.data());
      for (int64_t i = 0; i < kept; ++i)
        out[(row - begin) * kept + i] = whole[static_cast<size_t>(neurons[static_cast<size_t>(i)])];
    }
  };
  write_tensor(model, target, source, fill, writer, context);
}

}  // namespace

bool is_maskable(const TensorInfo& info) {
  const std::string suffix = ".weight";
  return info.shape.size() == 2 && layer_of(info.name) >= 0 && info.name.ends_with(suffix) &&
         !info.name.ends_with("norm.weight");
}

DType pruned_type(const TensorInfo& info, bool gguf) {
  if (gguf && gguf_keeps_f32(info.name, info.shape)) return DType::kF32;
  return dtype_is_float(info.dtype) ? info.dtype : DType::kF16;
}

void write_masked(const Model& model, const std::vector<OutputTensor>& targets,
                  const Metric& metric, const Sparsity& sparsity, MaskScope scope,
                  ModelWriter& writer, Context& context) {
  Progress& progress = progress_of(context);
  progress.begin("prune", targets.size(), "tensors");
  uint64_t done = 0;
  for (const OutputTensor& target : targets) {
    if (!writer.done(target.name)) {
      if (is_maskable(model.info(target.name))) {
        mask_tensor(model, target, metric, sparsity, scope, writer, context);
      } else {
        copy_tensor(model, target, target.name, writer, context);
      }
    }
    progress.update(++done, target.name);
  }
  progress.end();
}

Json write_reduced(const Model& model, const std::vector<OutputTensor>& targets,
                   const Metric& metric, const Structure& structure, ModelWriter& writer,
                   Context& context) {
  std::map<std::string, const OutputTensor*> by_name;
  for (const OutputTensor& target : targets) by_name[target.name] = &target;
  Progress& progress = progress_of(context);
  progress.begin("prune", targets.size(), "tensors");
  Json layers = Json::array();
  std::vector<int64_t> neurons;
  int64_t scored_layer = -1;
  uint64_t done = 0;
  for (const TensorInfo& info : model.tensors()) {
    const std::string name = reduced_name(info.name, structure);
    if (name.empty()) continue;
    const OutputTensor& target = *by_name.at(name);
    const int64_t layer = layer_of(info.name);
    const bool narrowed =
        structure.ffn != model.arch().ffn && neuron_axis(info.name) != NeuronAxis::kNone;
    if (narrowed && layer != scored_layer) {
      double share = 0;
      neurons = choose_neurons(model, metric, layer, structure.ffn, share);
      scored_layer = layer;
      layers.push_back({{"layer", layer_of(name)},
                        {"from_layer", layer},
                        {"neurons", structure.ffn},
                        {"kept_score_share", share}});
    }
    if (!writer.done(name)) {
      if (narrowed) {
        gather_tensor(model, target, info.name, neurons, writer, context);
      } else {
        copy_tensor(model, target, info.name, writer, context);
      }
    }
    progress.update(++done, name);
  }
  progress.end();
  return layers;
}

uint64_t masked_peak_bytes(const Model& model) {
  uint64_t largest = 0;
  for (const TensorInfo& info : model.tensors()) {
    // Floats, scores, mask, and the mapped source.
    if (is_maskable(info))
      largest =
          std::max(largest, 9 * static_cast<uint64_t>(element_count(info.shape)) + info.bytes);
  }
  return largest + kPieceElements * 12;
}

uint64_t reduced_peak_bytes(const Model& model, const Structure& structure) {
  uint64_t largest = 0;
  for (const TensorInfo& info : model.tensors()) {
    if (structure.ffn == model.arch().ffn || neuron_axis(info.name) == NeuronAxis::kNone) continue;
    largest = std::max(largest, 8 * static_cast<uint64_t>(element_count(info.shape)) + info.bytes);
  }
  return largest + kPieceElements * 12;
}

}  // namespace slmc

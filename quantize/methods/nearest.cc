// Rounding to nearest with searched scales: of the scales (and minimums) that a block can store,
// those whose nearest codes leave the least squared error (formats/block_search.h). With
// statistics, squares count in proportion to the mean square of the input they multiply, which is
// what the layer's output feels where inputs are uncorrelated.
#include <algorithm>
#include <vector>

#include "formats/group_types.h"
#include "quantize/method.h"

namespace slmc {
namespace {

constexpr int64_t kBlocksAtOnce = 64;

/// Inputs that were never seen get a little weight, so that no block is without any.
std::vector<float> error_weights(const LinearStatistics* statistics) {
  if (statistics == nullptr || statistics->input_squares.empty()) return {};
  std::vector<float> weights = statistics->input_squares;
  double sum = 0;
  for (const float weight : weights) sum += static_cast<double>(weight);
  const double mean = sum / static_cast<double>(weights.size());
  if (!(mean > 0)) return {};
  for (float& weight : weights)
    weight = static_cast<float>(static_cast<double>(weight) / mean + 1e-4);
  return weights;
}

void search_and_pack(const EncodeRequest& request, std::byte* out) {
  const BlockCodec& codec = *request.grid;
  const int64_t blocks = request.rows * request.columns / codec.block;
  const std::vector<float> weights = error_weights(request.statistics);
  std::vector<BlockParts> parts(static_cast<size_t>(std::min(blocks, kBlocksAtOnce)));
  for (int64_t first = 0; first < blocks; first += kBlocksAtOnce) {
    const int64_t count = std::min(kBlocksAtOnce, blocks - first);
    request.kernels->search({.layout = codec.layout,
                             .x = request.weight + first * codec.block,
                             .weights = weights.empty() ? nullptr : weights.data(),
                             .period = request.columns,
                             .phase = first * codec.block % request.columns,
                             .blocks = count,
                             .parts = parts.data()});
    for (int64_t b = 0; b < count; ++b)
      codec.layout->pack(parts[static_cast<size_t>(b)], out + (first + b) * codec.block_bytes);
  }
}

void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  const size_t row_bytes = dtype_row_bytes(request.grid->dtype, request.columns);
  const bool group = is_group_type(request.grid->dtype);
  const std::vector<float> weights =
      group ? error_weights(request.statistics) : std::vector<float>();
  if (request.grid->layout != nullptr && !group) search_and_pack(request, out);
  std::vector<float> scratch(static_cast<size_t>(request.columns));
  for (int64_t row = 0; row < request.rows; ++row) {
    const float* weight = request.weight + row * request.columns;
    std::byte* encoded = out + static_cast<size_t>(row) * row_bytes;
    if (group) {
      plan_group_row(request.grid->dtype, weight, weights.empty() ? nullptr : weights.data(),
                     request.columns, encoded);
    } else if (request.grid->layout == nullptr) {
      encode_row(*request.kernels, *request.grid, weight, request.columns, encoded);
    }
    add_distortion(*request.kernels, *request.grid, weight, encoded, request.columns,
                   scratch.data(), error);
  }
}

}  // namespace

const Method& method_nearest();
const Method& method_nearest() {
  static const Method method = {
      .name = "nearest",
      .summary = "nearest codes for the scales that a search finds best for each block",
      .needs = {},
      .encode = &encode};
  return method;
}

}  // namespace slmc

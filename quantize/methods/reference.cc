// Each block by its codec's own rounding. For the types of blocks of 32 with even steps that is
// ggml's reference, byte for byte, which is what this method is for: to compare with other
// programs, and to see what a search gains.
#include <vector>

#include "quantize/method.h"

namespace slmc {
namespace {

void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  const size_t row_bytes = dtype_row_bytes(request.grid->dtype, request.columns);
  std::vector<float> scratch(static_cast<size_t>(request.columns));
  for (int64_t row = 0; row < request.rows; ++row) {
    const float* weight = request.weight + row * request.columns;
    std::byte* encoded = out + static_cast<size_t>(row) * row_bytes;
    encode_row(*request.kernels, *request.grid, weight, request.columns, encoded);
    add_distortion(*request.kernels, *request.grid, weight, encoded, request.columns,
                   scratch.data(), error);
  }
}

}  // namespace

const Method& method_reference();
const Method& method_reference() {
  static const Method method = {
      .name = "reference",
      .summary = "each block by the plain rounding of its type, without a search",
      .needs = {},
      .encode = &encode};
  return method;
}

}  // namespace slmc

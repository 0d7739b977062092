// Rounding to nearest: each block by the reference rounding of its codec, so the bytes equal those
// of ggml's own quantizer.
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

const Method& method_nearest();
const Method& method_nearest() {
  static const Method method = {
      "nearest", "each block to the nearest values of its grid, as ggml rounds", {}, &encode};
  return method;
}

}  // namespace slmc

// Importance-weighted rounding: `nearest`, with every weight's error counted by the mean square of
// the input it multiplies, the diagonal of the layer's Hessian. This is what an importance matrix
// stands for in llama.cpp.
#include "quantize/method.h"

namespace slmc {
namespace {

std::shared_ptr<const void> prepare(const LinearStatistics& statistics, int64_t,
                                    const MethodOptions&, Json& facts) {
  int64_t dead = 0;
  for (const float square : statistics.input_squares) dead += square == 0.0f;
  facts["dead_columns"] = dead;
  return nullptr;
}

void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  method_by_name("nearest").encode(request, out, error);
}

}  // namespace

const Method& method_imatrix();
const Method& method_imatrix() {
  static const Method method = {
      .name = "imatrix",
      .summary = "scales searched with errors weighted by the mean square of each input",
      .needs = {Statistic::kInputSquares},
      .needs_grid = true,
      .by_importance = true,
      .prepare = &prepare,
      .encode = &encode};
  return method;
}

}  // namespace slmc

// |w|: the baseline of the field, without data. Compared within each layer's weight, at the same
// sparsity in all of them (Han et al. 2015; the uniform layer-wise form that Wanda and SparseGPT
// report as "magnitude").
#include <cmath>

#include "compress/core/parallel.h"
#include "prune/metric.h"

namespace slmc {
namespace {

void score(const MetricRequest& request, float* scores) {
  parallel_ranges(request.out * request.in, int64_t{1} << 18, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) scores[i] = std::fabs(request.weight[i]);
  });
}

}  // namespace

const Metric& metric_magnitude();
const Metric& metric_magnitude() {
  static const Metric metric = {
      "magnitude", "the absolute weight; needs no data", {}, MaskScope::kTensor, &score};
  return metric;
}

}  // namespace slmc

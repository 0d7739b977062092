// A prune metric of one's own, used by name as the shipped ones are: prune-metric MODEL OUT. It
// keeps the FFN neurons whose weights are large beside the others of their column, so that an input
// with large weights everywhere decides nothing by itself.
#include <cmath>
#include <iostream>
#include <vector>

#include "compress/core/error.h"
#include "prune/metric.h"
#include "prune/stage.h"

namespace {

// scores[o, i] = |w[o, i]| / root mean square of column i.
void relative_magnitude(const slmc::MetricRequest& layer, float* scores) {
  std::vector<double> squares(static_cast<size_t>(layer.in), 0.0);
  for (int64_t k = 0; k < layer.out * layer.in; ++k)
    squares[static_cast<size_t>(k % layer.in)] +=
        static_cast<double>(layer.weight[k]) * layer.weight[k];
  for (int64_t k = 0; k < layer.out * layer.in; ++k) {
    const double norm =
        std::sqrt(squares[static_cast<size_t>(k % layer.in)] / static_cast<double>(layer.out));
    scores[k] = norm > 0 ? static_cast<float>(std::abs(layer.weight[k]) / norm) : 0.0f;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: prune-metric MODEL OUT\n";
    return 2;
  }
  try {
    slmc::add_metric({.name = "relative_magnitude",
                      .summary = "magnitude beside the rest of its column",
                      .needs = {},
                      .score = relative_magnitude});

    const auto progress = slmc::make_progress(0);
    slmc::Context context;
    context.progress = progress.get();
    slmc::PruneStage prune;
    prune.options.model = arguments[1];
    prune.options.output = arguments[2];
    prune.options.metric = "relative_magnitude";
    prune.options.ffn_ratio = 0.67;
    const slmc::Report report = prune.run(prune.plan({}), context);
    std::cout << report.at("output") << "\n";
    return 0;
  } catch (const slmc::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}

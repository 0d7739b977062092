// A prune metric: what a weight is worth. One file under prune/metrics/ defines `const Metric&
// slmc::metric_<file>()`; the build finds it. Programs that link the libraries add their own with
// add_metric.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "compress/core/linear_statistics.h"

namespace slmc {

/// One linear layer. All weights are finite.
struct MetricRequest {
  const float* weight = nullptr;  ///< [out, in]
  int64_t out = 0;
  int64_t in = 0;
  const LinearStatistics* statistics = nullptr;  ///< Null unless the metric declared some.
};

/// Over what the lowest scores of an unstructured mask are looked for.
enum class MaskScope { kTensor, kRow };

struct Metric {
  std::string name;  ///< "magnitude": the value of --metric.
  std::string summary;
  std::vector<Statistic> needs;
  /// The scope that the metric's literature compares in; --scope overrides it.
  MaskScope scope = MaskScope::kTensor;
  /// Fills scores [out, in], finite, of which the larger stay. A structure (an FFN neuron) is worth
  /// the root of the sum of its squared scores.
  std::function<void(const MetricRequest& request, float* scores)> score;
};

/// The shipped metrics in order of name, then the added ones.
std::vector<const Metric*> metrics();
/// Throws Error(kUsage) naming the nearest known metric.
const Metric& metric_by_name(const std::string& name);
std::vector<std::string> metric_names();
/// Adds a metric of the caller's for this process. Call before stages run. Throws Error(kUsage) if
/// the name is taken or empty.
void add_metric(Metric metric);

}  // namespace slmc

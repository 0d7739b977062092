// How long quantization with calibration takes.
#include <algorithm>

#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "quantize/block_runner.h"
#include "quantize/calibrated.h"

namespace slmc {
namespace {

struct BlockSeconds {
  double observed = 0;  ///< Statistics of all groups, and the passes to them.
  double passed = 0;    ///< One pass through the whole block.
};

/// What the first block takes of encode_calibrated, without the rounding.
BlockSeconds first_block(const WeightSource& model, const Method& method, bool correct,
                         const CalibrationData& data) {
  const std::unique_ptr<BlockRunner> runner = BlockRunner::create(model, data, "");
  const bool hessian = needs_statistic(method, Statistic::kHessian);
  runner->embed(model);
  if (correct) runner->embed_original(model);
  BlockSeconds seconds;
  double start = now_seconds();
  for (const std::vector<std::string>& group : runner->groups(model, 0)) {
    const std::string& first = group.front();
    const int64_t width = model.view(first).columns();
    InputStatistics statistics(first, width, hessian), stream(first, width, false);
    if (correct) {
      runner->observe_beside(model, model, 0, group, first.ends_with("ffn_down.weight"), statistics,
                             stream);
    } else {
      runner->observe_group(model, 0, group, statistics);
    }
  }
  seconds.observed = now_seconds() - start;
  start = now_seconds();
  runner->run_block(model, 0);
  seconds.passed = now_seconds() - start;
  return seconds;
}

/// Some of the windows; `tokens` of the first alone, if not 0.
CalibrationData some_of(const CalibrationData& data, size_t windows, size_t tokens) {
  CalibrationData some;
  some.context = data.context;
  some.forward = data.forward;
  for (size_t w = 0; w < std::min(windows, data.windows.size()); ++w) {
    some.windows.push_back(data.windows[w]);
    if (tokens > 0 && some.windows[w].size() > tokens) some.windows[w].resize(tokens);
    some.tokens += std::ssize(some.windows[w]);
  }
  return some;
}

}  // namespace

// At the rates of docs/arithmetic.md.
double forward_seconds(const Model& model, int64_t tokens) {
  constexpr double kFlopsPerCore = 5e10;
  return 2 * static_cast<double>(model.arch().parameters) * static_cast<double>(tokens) /
         (kFlopsPerCore * threads());
}

// About seven passes over the blocks (two models), and solving.
double calibrated_seconds(const Model& model, int64_t tokens) {
  return 7.0 * forward_seconds(model, tokens);
}

double probed_seconds(const Model& model, const Method& method, const MethodOptions& options,
                      const CalibrationData& data) {
  const bool correct = method.heeds_shortfall && options.correction > 0;
  const auto together = static_cast<size_t>(std::max(2, threads()));
  const CalibrationData one = some_of(data, 1, 8), some = some_of(data, together, 0);
  // Decoding the block's weights takes the same for few tokens and for many.
  const BlockSeconds fixed = first_block(model, method, correct, one),
                     with = first_block(model, method, correct, some);
  const auto of_all = [&](double few, double many) {
    return few + std::max(0.0, many - few) * static_cast<double>(data.tokens) /
                     static_cast<double>(some.tokens);
  };
  const Architecture& arch = model.arch();
  const double pass = of_all(fixed.passed, with.passed);
  const double passes = (correct ? 2 : 1) + (arch.tied ? 1 : 0);
  return static_cast<double>(arch.layers) * (of_all(fixed.observed, with.observed) + passes * pass);
}

}  // namespace slmc

// How long quantization with calibration takes.
#include <algorithm>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/runtime/layer_weights.h"
#include "quantize/block_runner.h"
#include "quantize/calibrated.h"

namespace slmc {
namespace {

struct BlockSeconds {
  double observed = 0;  ///< Statistics of all groups, and the passes to them.
  double passed = 0;    ///< One pass through the whole block.
  double prepared = 0;  ///< What the method makes of the statistics.
  double rounded = 0;   ///< Rounding of its weights.
  double head = 0;      ///< Of the head's.
};

/// What a run would do, of which a probe does some.
struct Work {
  const std::vector<OutputTensor>* targets;
  const Method* method;
  const MethodOptions* options;
  bool correct;
};

/// The rounding of weights that share these inputs: of a batch of rows on each thread.
class RoundingProbe {
 public:
  RoundingProbe(const WeightSource& model, const Work& work) : model_(model), work_(work) {}

  void take(const std::vector<std::string>& group, const LinearStatistics& statistics) {
    const auto width = static_cast<int64_t>(statistics.input_squares.size());
    Json facts = Json::object();
    double start = now_seconds();
    const auto prepared = work_.method->prepare == nullptr
                              ? nullptr
                              : work_.method->prepare(statistics, width, *work_.options, facts);
    prepared_ += now_seconds() - start;
    for (const OutputTensor& target : *work_.targets) {
      if (std::find(group.begin(), group.end(), target.name) == group.end()) continue;
      const BlockCodec& codec = block_codec(target.dtype);
      if (dtype_is_float(target.dtype) || (work_.method->needs_grid && codec.grid == nullptr))
        continue;
      constexpr int64_t kBatch = 32;
      const TensorView view = model_.view(target.name);
      const int64_t batches = std::min<int64_t>(threads(), view.rows() / kBatch);
      start = now_seconds();
      parallel_for(batches, [&](int64_t b) {
        std::vector<float> values(static_cast<size_t>(kBatch * width));
        decode_rows(view, b * kBatch, kBatch, values.data());
        const std::vector<float> missing(work_.correct ? values.size() : 0);
        const EncodeRequest request{.weight = values.data(),
                                    .rows = kBatch,
                                    .columns = width,
                                    .grid = &codec,
                                    .statistics = &statistics,
                                    .prepared = prepared.get(),
                                    .shortfall = work_.correct ? missing.data() : nullptr,
                                    .kernels = &encode_kernels()};
        std::vector<std::byte> encoded(dtype_row_bytes(target.dtype, width) * kBatch);
        Distortion lost{};
        work_.method->encode(request, encoded.data(), &lost);
      });
      if (batches == 0) continue;
      const double each = (now_seconds() - start) / static_cast<double>(batches * kBatch);
      rounded_ += each * static_cast<double>(view.rows());
      if (width == model_.arch().hidden) row_ = each;
    }
  }

  double prepared() const { return prepared_; }
  double rounded() const { return rounded_; }
  /// A row as wide as the residual stream.
  double row() const { return row_; }

 private:
  const WeightSource& model_;
  const Work& work_;
  double prepared_ = 0, rounded_ = 0, row_ = 0;
};

/// What the first block takes of encode_calibrated; with `round` the rounding too.
BlockSeconds first_block(const WeightSource& model, const Work& work, const CalibrationData& data,
                         bool round) {
  const std::unique_ptr<BlockRunner> runner = BlockRunner::create(model, data, "");
  const bool hessian = needs_statistic(*work.method, Statistic::kHessian);
  runner->embed(model);
  if (work.correct) runner->embed_original(model);
  RoundingProbe rounding(model, work);
  BlockSeconds seconds;
  for (const auto& [branch, groups] : runner->groups(model, 0)) {
    for (const std::vector<std::string>& group : groups) {
      const std::string& first = group.front();
      const int64_t width = model.view(first).columns();
      InputStatistics statistics(first, width, hessian), stream(first, width, false);
      const double start = now_seconds();
      if (work.correct) {
        const bool last = &group == &groups.back(), behind = last && branch == Branch::kFfn;
        runner->observe_beside(model, model, 0, branch, group,
                               {.inputs = !behind,
                                .stream = last ? &stream : nullptr,
                                .behind = behind,
                                .moves = last},
                               statistics);
      } else {
        runner->observe_group(model, 0, branch, group, statistics);
      }
      const LinearStatistics found = std::move(statistics).finish();
      seconds.observed += now_seconds() - start;
      if (round) rounding.take(group, found);
    }
    const double start = now_seconds();
    runner->run_block(model, 0, branch);
    seconds.passed += now_seconds() - start;
  }
  seconds.prepared = rounding.prepared();
  seconds.rounded = rounding.rounded();
  const std::string head = logits_weight_name(model.arch());
  for (const OutputTensor& target : *work.targets)
    if (target.name == head && !dtype_is_float(target.dtype))
      seconds.head = rounding.row() * static_cast<double>(target.shape[0]);
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

// About four passes over the blocks (two models), and solving.
double calibrated_seconds(const Model& model, int64_t tokens, bool smoothed) {
  return (smoothed ? 8.0 : 5.0) * forward_seconds(model, tokens);
}

double probed_seconds(const Model& model, const std::vector<OutputTensor>& targets,
                      const Method& method, const MethodOptions& options,
                      const CalibrationData& data, bool smoothed) {
  const Work work{.targets = &targets,
                  .method = &method,
                  .options = &options,
                  .correct = method.heeds_shortfall && options.correction > 0};
  const auto together = static_cast<size_t>(std::max(2, threads()));
  const CalibrationData one = some_of(data, 1, 8), some = some_of(data, together, 0);
  // Decoding the block's weights takes the same for few tokens and for many.
  const BlockSeconds fixed = first_block(model, work, one, false),
                     with = first_block(model, work, some, true);
  const auto of_all = [&](double few, double many) {
    return few + std::max(0.0, many - few) * static_cast<double>(data.tokens) /
                     static_cast<double>(some.tokens);
  };
  const Architecture& arch = model.arch();
  const double pass = of_all(fixed.passed, with.passed);
  const double passes = arch.tied ? 2 : 1;
  const double passing = of_all(fixed.observed, with.observed) + passes * pass;
  return static_cast<double>(arch.layers) *
             ((smoothed ? 2 : 1) * passing + with.prepared + with.rounded) +
         with.head;
}

}  // namespace slmc

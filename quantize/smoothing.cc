#include "quantize/smoothing.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "quantize/block_runner.h"

namespace slmc {
namespace {

/// Where the inputs of a group can be divided.
struct Fold {
  std::string norm;    ///< "blk.0.attn_norm", or
  std::string linear;  ///< "blk.0.attn_v", whose rows they are.
  /// Input channel -> row of `linear`. Query heads that share a value head share its rows.
  std::vector<int64_t> row;
};

class Smoother {
 public:
  Smoother(const SmoothingJob& job, ScaledWeights& weights, Context& context)
      : job_(job), weights_(weights), context_(context), arch_(weights.arch()) {
    for (const OutputTensor& target : *job.targets) targets_[target.name] = &target;
  }

  std::map<std::string, Json> run() {
    const std::unique_ptr<BlockRunner> running =
        BlockRunner::create(weights_, *job_.data, job_.spill_folder);
    BlockRunner& runner = *running;
    runner.embed(weights_);
    Progress& progress = progress_of(context_);
    progress.begin(job_.smoother->name, static_cast<uint64_t>(arch_.layers), "blocks");
    for (int64_t layer = 0; layer < arch_.layers; ++layer) {
      for (const auto& [branch, groups] : runner.groups(weights_, layer)) {
        for (const std::vector<std::string>& group : groups) {
          Fold fold;
          if (!find_fold(layer, group, fold)) continue;
          InputStatistics statistics(join(group, ", "),
                                     weights_.model().info(group.front()).shape.back(),
                                     smooth_needs(*job_.smoother, Statistic::kHessian));
          runner.observe_group(weights_, layer, branch, group, statistics);
          smooth(group, fold, std::move(statistics).finish());
          context_.check_interrupt();
          context_.check_ram(cat("block ", layer));
        }
        runner.run_block(weights_, layer, branch);
      }
      progress.update(static_cast<uint64_t>(layer) + 1, cat("block ", layer));
    }
    progress.end();
    return std::move(facts_);
  }

 private:
  bool quantized(const std::string& name) const {
    return !dtype_is_float(targets_.at(name)->dtype);
  }

  /// False where nothing of the group is quantized or nothing before it can take the scales.
  bool find_fold(int64_t layer, const std::vector<std::string>& group, Fold& fold) const {
    if (std::none_of(group.begin(), group.end(),
                     [this](const std::string& name) { return quantized(name); }))
      return false;
    const std::string prefix = cat("blk.", layer, ".");
    const auto among = [&](const char* name) {
      return std::find(group.begin(), group.end(), prefix + name) != group.end();
    };
    const bool linear = job_.smoother->smooths_linear;
    if (among("attn_q.weight")) {
      fold.norm = prefix + "attn_norm";
    } else if (among("ffn_up.weight")) {
      fold.norm = prefix + "ffn_norm";
    } else if (linear && among("attn_output.weight")) {
      fold.linear = prefix + "attn_v";
      const int64_t dim = arch_.head_dim, shared = arch_.heads / arch_.kv_heads;
      for (int64_t i = 0; i < arch_.heads * dim; ++i)
        fold.row.push_back(i / dim / shared * dim + i % dim);
    } else if (linear && arch_.gated && among("ffn_down.weight")) {
      fold.linear = prefix + "ffn_up";
      for (int64_t i = 0; i < arch_.ffn; ++i) fold.row.push_back(i);
    } else {
      return false;
    }
    return fold.norm.empty() || weights_.has(fold.norm + ".weight");
  }

  void smooth(const std::vector<std::string>& group, const Fold& fold,
              const LinearStatistics& statistics) {
    const int64_t columns = weights_.model().info(group.front()).shape.back();
    std::vector<std::vector<float>> values;
    SmoothRequest request{.columns = columns,
                          .tied = fold.row,
                          .statistics = &statistics,
                          .options = &job_.method_options,
                          .kernels = &encode_kernels()};
    for (const std::string& name : group) {
      const int64_t rows = weights_.model().info(name).shape[0];
      values.emplace_back(static_cast<size_t>(rows * columns));
      weights_.read_rows(name, 0, rows, values.back().data());
      request.layers.push_back(
          {values.back().data(), rows, &block_codec(targets_.at(name)->dtype)});
    }
    Json facts = {{"smoothing", job_.smoother->name}};
    const std::vector<float> scales = job_.smoother->smooth(request, facts);
    std::vector<float> inverse(scales.size());
    for (size_t i = 0; i < scales.size(); ++i) inverse[i] = 1.0f / scales[i];
    if (!fold.norm.empty()) {
      weights_.scale_rows(fold.norm + ".weight", inverse, static_cast<float>(arch_.norm_offset));
      if (weights_.has(fold.norm + ".bias")) weights_.scale_rows(fold.norm + ".bias", inverse);
    } else {
      const int64_t rows = weights_.model().info(fold.linear + ".weight").shape[0];
      std::vector<float> by_row(static_cast<size_t>(rows), 1.0f);
      for (size_t i = 0; i < inverse.size(); ++i)
        by_row[static_cast<size_t>(fold.row[i])] = inverse[i];
      weights_.scale_rows(fold.linear + ".weight", by_row);
      if (weights_.has(fold.linear + ".bias")) weights_.scale_rows(fold.linear + ".bias", by_row);
    }
    for (const std::string& name : group) {
      weights_.scale_columns(name, scales);
      facts_[name] = facts;
    }
  }

  const SmoothingJob& job_;
  ScaledWeights& weights_;
  Context& context_;
  const Architecture& arch_;
  std::map<std::string, const OutputTensor*> targets_;
  std::map<std::string, Json> facts_;
};

}  // namespace

std::map<std::string, Json> smooth_model(const SmoothingJob& job, ScaledWeights& weights,
                                         Context& context) {
  SLMC_CHECK(job.smoother->smooth != nullptr, "a method that smooths");
  if (weights.arch().encoder) {
    throw_unsupported(
        cat(job.smoother->name, ": the norms of ", weights.arch().family,
            " follow the addition, so no scale can be folded into them; leave it out"));
  }
  return Smoother(job, weights, context).run();
}

}  // namespace slmc

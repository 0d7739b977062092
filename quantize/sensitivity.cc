#include "quantize/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_vocabulary.h"
#include "compress/runtime/isa.h"
#include "compress/runtime/layer_weights.h"
#include "quantize/block_runner.h"
#include "quantize/divergence.h"
#include "quantize/error_feedback.h"
#include "quantize/sensitivity_journal.h"

namespace slmc {
namespace {

using kernels::kLanes;

constexpr int64_t kSampledRows = 64, kRowsAtOnce = 16;

/// Output errors of types on some of a weight's rows.
class RowSample {
 public:
  RowSample(const Model& model, const std::string& name)
      : columns_(model.info(name).shape.back()),
        all_(element_count(model.info(name).shape) / columns_),
        rows_(std::min(kSampledRows, all_)) {
    values_.resize(static_cast<size_t>(rows_ * columns_));
    for (int64_t r = 0; r < rows_; ++r)
      model.read_rows(name, r * all_ / rows_, 1, values_.data() + r * columns_);
    model.release(name);
  }

  /// What the error of a row is weighed by: the statistics' Hessian as column_panels, if they have
  /// one, else their mean squares, else 1.
  struct Weights {
    const LinearStatistics* statistics = nullptr;
    std::vector<float> panels{};
  };

  /// For each type; `given` is what the method sees of the statistics.
  std::vector<double> errors(const std::vector<DType>& types, const Method& method,
                             const Weights& weights, const LinearStatistics* given,
                             const void* prepared) const {
    const int64_t parts = (rows_ + kRowsAtOnce - 1) / kRowsAtOnce;
    std::vector<double> sums(types.size() * static_cast<size_t>(parts));
    parallel_for(static_cast<int64_t>(sums.size()), [&](int64_t task) {
      const int64_t row = task % parts * kRowsAtOnce;
      sums[static_cast<size_t>(task)] =
          error(types[static_cast<size_t>(task / parts)], method, weights, given, prepared, row,
                std::min(kRowsAtOnce, rows_ - row));
    });
    std::vector<double> errors(types.size(), 0.0);
    for (size_t i = 0; i < sums.size(); ++i) errors[i / static_cast<size_t>(parts)] += sums[i];
    for (double& sum : errors) sum *= static_cast<double>(all_) / static_cast<double>(rows_);
    return errors;
  }

 private:
  double error(DType type, const Method& asked, const Weights& weights,
               const LinearStatistics* given, const void* prepared, int64_t row,
               int64_t count) const {
    const BlockCodec& codec = block_codec(type);
    const Method& method =
        asked.needs_grid && codec.grid == nullptr ? method_by_name("nearest") : asked;
    const uint64_t row_bytes = dtype_row_bytes(type, columns_);
    std::vector<std::byte> encoded(row_bytes * static_cast<uint64_t>(count));
    const EncodeRequest request{.weight = values_.data() + row * columns_,
                                .rows = count,
                                .columns = columns_,
                                .grid = &codec,
                                .statistics = given,
                                .prepared = prepared,
                                .kernels = &encode_kernels()};
    Distortion ignored{};
    method.encode(request, encoded.data(), &ignored);
    std::vector<float> lost(static_cast<size_t>(count * columns_));
    for (int64_t r = 0; r < count; ++r)
      codec.decode(encoded.data() + static_cast<uint64_t>(r) * row_bytes, columns_,
                   lost.data() + r * columns_);
    for (size_t i = 0; i < lost.size(); ++i) lost[i] = request.weight[i] - lost[i];
    return weighed(lost, count, weights);
  }

  /// lost H lost^T, summed over rows.
  double weighed(const std::vector<float>& lost, int64_t count, const Weights& weights) const {
    double sum = 0;
    if (!weights.panels.empty()) {
      std::vector<float> pull(lost.size(), 0.0f);
      kernel_set().tile({weights.panels.data(), kLanes, columns_ * kLanes, columns_ / kLanes,
                         columns_, lost.data(), columns_, count, pull.data(), columns_, true});
      for (size_t i = 0; i < lost.size(); ++i)
        sum += static_cast<double>(lost[i]) * static_cast<double>(pull[i]);
      return std::max(0.0, sum);
    }
    for (size_t i = 0; i < lost.size(); ++i) {
      const size_t column = i % static_cast<size_t>(columns_);
      const double weight = weights.statistics == nullptr
                                ? 1.0
                                : static_cast<double>(weights.statistics->input_squares[column]);
      sum += weight * static_cast<double>(lost[i]) * static_cast<double>(lost[i]);
    }
    return sum;
  }

  int64_t columns_, all_, rows_;
  std::vector<float> values_;
};

class SensitivityRun {
 public:
  SensitivityRun(const SensitivityJob& job, Context& context)
      : job_(job),
        model_(*job.model),
        context_(context),
        nearest_(method_by_name("nearest")),
        journal_(job.journal, binding(), context.resume) {
    for (size_t g = 0; g < job.groups.size(); ++g)
      for (const std::string& name : job.groups[g].tensors) group_[name] = g;
    for (const BudgetGroup& group : job.groups) {
      by_method_.emplace_back(group.types.size(), 0.0);
      by_rounding_.emplace_back(group.types.size(), 0.0);
      measured_.emplace_back(group.anchors.size(), 0.0);
    }
  }

  Sensitivity run() {
    Progress& progress = progress_of(context_);
    const auto layers = static_cast<uint64_t>(model_.arch().layers);
    progress.begin("output errors", layers + 1, "blocks");
    gather_errors(progress);
    progress.end();
    gather_divergences();
    return conclude();
  }

 private:
  /// Of everything that the figures follow from.
  std::string binding() const {
    Hasher hasher;
    const auto add = [&hasher](const std::string& text) { hasher.add(text.data(), text.size()); };
    add(model_.content_hash() + job_.data->hash + job_.method->name);
    add(cat(" ", job_.tokens, " ", job_.method_options.damping, " ", job_.method_options.act_order,
            " ", job_.method_options.sweeps));
    if (job_.imatrix != nullptr) {
      for (const auto& [name, entry] : job_.imatrix->entries)
        hasher.add(entry.mean_squares.data(), entry.mean_squares.size() * sizeof(float));
    }
    for (const BudgetGroup& group : job_.groups) {
      for (const std::string& name : group.tensors) add(" " + name);
      for (const DType type : group.types) add(cat(" ", dtype_name(type)));
      for (const size_t anchor : group.anchors) add(cat(" ", anchor));
    }
    return hasher.digest();
  }

  bool decided(const std::string& name) const {
    const auto found = group_.find(name);
    return found == group_.end() || job_.groups[found->second].anchors.empty();
  }

  void gather_errors(Progress& progress) {
    const Architecture& arch = model_.arch();
    const std::unique_ptr<BlockRunner> running =
        BlockRunner::create(model_, *job_.data, job_.spill_folder);
    BlockRunner& runner = *running;
    const bool hessian = needs_statistic(*job_.method, Statistic::kHessian);
    if (!arch.tied) add_errors({"token_embd.weight"}, nullptr);
    const auto of_group = [&](const std::vector<std::string>& names, const auto& observe) {
      if (std::all_of(names.begin(), names.end(), [&](const std::string& name) {
            return decided(name) || journal_.errors(name) != nullptr;
          })) {
        add_errors(names, nullptr);
        return;
      }
      InputStatistics statistics(join(names, ", "), model_.info(names.front()).shape.back(),
                                 hessian);
      observe(statistics);
      const LinearStatistics known = std::move(statistics).finish();
      add_errors(names, &known);
      context_.check_interrupt();
      context_.check_ram("output errors");
    };
    runner.embed(model_);
    for (int64_t layer = 0; layer < arch.layers; ++layer) {
      std::map<std::string, InputStatistics> seen;
      const std::vector<BranchGroups> branches = runner.groups(model_, layer);
      if (!hessian) runner.run_block(model_, layer, seen);
      for (const auto& [branch, groups] : branches) {
        for (const std::vector<std::string>& names : groups) {
          of_group(names, [&, branch = branch](InputStatistics& statistics) {
            if (hessian) {  // Too large to gather all of a block's at once.
              runner.observe_group(model_, layer, branch, names, statistics);
            } else {
              statistics = std::move(seen.at(names.front()));
            }
          });
        }
        if (hessian) runner.run_block(model_, layer, branch);
      }
      progress.update(static_cast<uint64_t>(layer) + 1, cat("block ", layer));
    }
    of_group({logits_weight_name(arch)},
             [&](InputStatistics& statistics) { runner.observe_head(model_, statistics); });
  }

  /// Of weights that share their inputs; `known` null: a lookup, or the journal has them.
  void add_errors(const std::vector<std::string>& names, const LinearStatistics* known) {
    std::shared_ptr<const void> prepared;
    RowSample::Weights weights{.statistics = known};
    Json facts = Json::object();
    LinearStatistics imported;
    const LinearStatistics* given = job_.method->needs.empty() ? nullptr : known;
    for (const std::string& name : names) {
      if (decided(name)) continue;
      const size_t g = group_.at(name);
      const std::vector<DType>& types = job_.groups[g].types;
      const Json* kept = journal_.errors(name);
      std::vector<double> method, rounding;
      if (kept != nullptr) {
        method = kept->at("method").get<std::vector<double>>();
        rounding = kept->at("rounding").get<std::vector<double>>();
      } else {
        const bool seen = known != nullptr && known->tokens > 0;
        const int64_t columns = model_.info(name).shape.back();
        if (seen && !known->hessian.empty() && weights.panels.empty() && columns % kLanes == 0)
          weights.panels = column_panels(known->hessian, columns);
        if (seen && given != nullptr && prepared == nullptr && job_.method->prepare != nullptr)
          prepared = job_.method->prepare(*known, columns, job_.method_options, facts);
        if (job_.imatrix != nullptr && job_.imatrix->entries.count(name) > 0) {
          imported.tokens = job_.imatrix->entries.at(name).tokens;
          imported.input_squares = job_.imatrix->entries.at(name).mean_squares;
          given = &imported;
        }
        const RowSample sample(model_, name);
        const Method& used = seen ? *job_.method : nearest_;
        method = sample.errors(types, used, weights, seen ? given : nullptr, prepared.get());
        rounding =
            &used == &nearest_ ? method : sample.errors(types, nearest_, weights, nullptr, nullptr);
        journal_.add({{"errors", name}, {"method", method}, {"rounding", rounding}});
      }
      for (size_t t = 0; t < types.size(); ++t) {
        by_method_[g][t] += method[t];
        by_rounding_[g][t] += rounding[t];
      }
    }
  }

  /// A model in which one group is rounded to nearest.
  struct Variant {
    size_t group, anchor;
    std::unique_ptr<ReplacedWeights> weights;
  };

  void gather_divergences() {
    const int64_t layers = model_.arch().layers;
    std::map<int64_t, std::vector<std::pair<size_t, size_t>>> stages;
    for (size_t g = 0; g < job_.groups.size(); ++g) {
      for (size_t a = 0; a < job_.groups[g].anchors.size(); ++a)
        stages[stage_of(job_.groups[g].tensors.front(), layers)].emplace_back(g, a);
    }
    DivergenceMeter meter(model_, real_vocabulary(model_),
                          measuring_windows(*job_.data, job_.tokens));
    Progress& progress = progress_of(context_);
    const uint64_t total = static_cast<uint64_t>(meter.windows()) * stages.size();
    uint64_t known = 0;
    for (int64_t window = 0; window < meter.windows(); ++window)
      for (const auto& [stage, members] : stages)
        known += journal_.divergences(window, stage) != nullptr ? 1 : 0;
    progress.begin("divergence of single tensors", total, "pieces", known);
    uint64_t done = 0;
    for (int64_t window = 0; window < meter.windows(); ++window) {
      bool started = false;
      for (const auto& [stage, members] : stages) {
        std::vector<double> sums;
        if (const Json* kept = journal_.divergences(window, stage)) {
          sums = kept->get<std::vector<double>>();
        } else {
          if (!started) meter.start(window);
          started = true;
          sums = divergences(meter, stage, members);
          journal_.add({{"window", window}, {"stage", stage}, {"divergences", sums}});
        }
        for (size_t i = 0; i < members.size(); ++i)
          measured_[members[i].first][members[i].second] +=
              sums[i] / static_cast<double>(meter.tokens());
        progress.update(++done, cat("window ", window));
        context_.check_interrupt();
        context_.check_ram("divergence of single tensors");
      }
    }
    progress.end();
  }

  std::vector<double> divergences(DivergenceMeter& meter, int64_t stage,
                                  const std::vector<std::pair<size_t, size_t>>& members) const {
    std::vector<std::unique_ptr<ReplacedWeights>> variants;
    std::vector<const WeightSource*> sources;
    for (const auto& [g, a] : members) {
      variants.push_back(std::make_unique<ReplacedWeights>(model_));
      const BudgetGroup& group = job_.groups[g];
      for (const std::string& name : group.tensors)
        variants.back()->replace(name, rounded(name, group.types[group.anchors[a]]));
      sources.push_back(variants.back().get());
    }
    return meter.measure(stage, sources);
  }

  TensorView rounded(const std::string& name, DType type) const {
    TensorView view;
    view.dtype = type;
    view.shape = model_.info(name).shape;
    const auto bytes = std::make_shared<std::vector<std::byte>>(view.bytes());
    view.data = bytes->data();
    view.owner = bytes;
    const BlockCodec& codec = block_codec(type);
    const int64_t columns = view.columns(), batch = 32;
    parallel_for((view.rows() + batch - 1) / batch, [&](int64_t b) {
      const int64_t row = b * batch, count = std::min(batch, view.rows() - row);
      std::vector<float> values(static_cast<size_t>(count * columns));
      model_.read_rows(name, row, count, values.data());
      Distortion ignored{};
      nearest_.encode({.weight = values.data(),
                       .rows = count,
                       .columns = columns,
                       .grid = &codec,
                       .kernels = &encode_kernels()},
                      bytes->data() + view.row_bytes() * static_cast<uint64_t>(row), &ignored);
    });
    model_.release(name);
    return view;
  }

  Sensitivity conclude() const {
    Sensitivity result;
    for (size_t g = 0; g < job_.groups.size(); ++g) {
      const BudgetGroup& group = job_.groups[g];
      std::vector<double> nats(group.types.size(), 0.0);
      for (size_t t = 0; t < nats.size() && !group.anchors.empty(); ++t)
        nats[t] = by_method_[g][t] * ratio_near(g, by_method_[g][t]);
      result.divergence.push_back(std::move(nats));
      result.error.push_back(by_method_[g]);
    }
    return result;
  }

  /// Nats for an output error, from the anchor whose error is nearest in proportion.
  double ratio_near(size_t g, double error) const {
    const std::vector<size_t>& anchors = job_.groups[g].anchors;
    double best = INFINITY, ratio = 0;
    for (size_t a = 0; a < anchors.size(); ++a) {
      const double at = by_rounding_[g][anchors[a]];
      if (!(at > 0)) continue;
      const double distance = error > 0 ? std::fabs(std::log(error / at)) : 0;
      if (distance >= best) continue;
      best = distance;
      ratio = std::max(0.0, measured_[g][a]) / at;
    }
    return ratio;
  }

  const SensitivityJob& job_;
  const Model& model_;
  Context& context_;
  const Method& nearest_;
  SensitivityJournal journal_;
  std::map<std::string, size_t> group_;
  std::vector<std::vector<double>> by_method_, by_rounding_;  // [group][type]: output errors.
  std::vector<std::vector<double>> measured_;                 // [group][anchor]: nats.
};

}  // namespace

Sensitivity measure_sensitivity(const SensitivityJob& job, Context& context) {
  return SensitivityRun(job, context).run();
}

}  // namespace slmc

#include "quantize/calibrated.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/hidden_states.h"
#include "formats/group_types.h"
#include "quantize/block_runner.h"
#include "quantize/correction.h"
#include "quantize/stream.h"

namespace slmc {
namespace {

constexpr int64_t kRows = 32;  // Encoded together by one thread.

class CalibratedEncoder {
 public:
  CalibratedEncoder(const CalibratedJob& job, ModelWriter& writer, Context& context)
      : job_(job),
        model_(*job.model),
        weights_(*job.weights),
        writer_(writer),
        context_(context),
        kernels_(encode_kernels()),
        nearest_(method_by_name("nearest")),
        written_(weights_),
        outcomes_(job.targets->size()) {
    for (size_t i = 0; i < job.targets->size(); ++i) index_[(*job.targets)[i].name] = i;
    recall();
  }

  std::vector<TensorOutcome> run() {
    const auto blocks = static_cast<uint64_t>(model_.arch().layers);
    Progress& progress = progress_of(context_);
    progress.begin("quantize", blocks + 2, "blocks");
    if (job_.imatrix != nullptr) {
      run_imatrix();
    } else {
      run_blocks(progress);
    }
    progress.end();
    return std::move(outcomes_);
  }

 private:
  /// What a killed run had found out about the tensors it finished.
  void recall() {
    std::string kept;
    if (std::ifstream in(job_.facts_path); in) {
      for (std::string line; std::getline(in, line);) {
        const Json json = Json::parse(line, nullptr, false);
        const std::string name = json.is_object() ? json.value("tensor", "") : "";
        if (index_.count(name) == 0 || !writer_.done(name)) continue;
        TensorOutcome& known = outcome(name);
        known.method_used = json.value("method_used", "");
        known.facts = json.value("facts", Json::object());
        known.distortion = {json.value("squared_error", 0.0), json.value("squared_weight", -1.0),
                            json.value("max_error", 0.0f)};
        kept += line + "\n";
      }
    }
    for (const auto& [name, i] : index_) {
      if (writer_.done(name) && outcomes_[i].method_used.empty())
        outcomes_[i].method_used = "not recorded by the killed run";
    }
    if (job_.facts_path.empty()) return;
    facts_.open(job_.facts_path, std::ios::trunc);
    facts_ << kept << std::flush;
  }

  /// Before the writer journals the tensor: what is done is also recorded.
  void record(const std::string& name) {
    if (!facts_.is_open()) return;
    const TensorOutcome& known = outcomes_[index_.at(name)];
    facts_ << Json{{"tensor", name},
                   {"method_used", known.method_used},
                   {"facts", known.facts},
                   {"squared_error", known.distortion.squared_error},
                   {"squared_weight", known.distortion.squared_weight},
                   {"max_error", known.distortion.max_error}}
                  .dump()
           << "\n"
           << std::flush;
    if (!facts_) throw_resources(cat(job_.facts_path, ": cannot be written; is the disk full?"));
  }

  const OutputTensor& target(const std::string& name) const {
    return (*job_.targets)[index_.at(name)];
  }
  TensorOutcome& outcome(const std::string& name) { return outcomes_[index_.at(name)]; }
  bool is_matrix(const std::string& name) const { return target(name).shape.size() >= 2; }

  void run_imatrix() {
    for (const OutputTensor& wanted : *job_.targets) {
      if (writer_.done(wanted.name)) continue;
      const auto entry = job_.imatrix->entries.find(wanted.name);
      if (entry == job_.imatrix->entries.end()) {
        encode_unseen(wanted.name, "the importance matrix does not have it");
        continue;
      }
      LinearStatistics statistics;
      statistics.tokens = entry->second.tokens;
      statistics.input_squares = entry->second.mean_squares;
      encode_group({wanted.name}, statistics);
      context_.check_interrupt();
    }
  }

  void run_blocks(Progress& progress) {
    const Architecture& arch = model_.arch();
    const std::unique_ptr<BlockRunner> running =
        BlockRunner::create(weights_, *job_.data, job_.spill_folder);
    BlockRunner& runner = *running;
    const bool hessian = needs_statistic(*job_.method, Statistic::kHessian);
    const bool fixed = std::any_of(job_.targets->begin(), job_.targets->end(),
                                   [](const auto& one) { return one.dtype == kI8S8_Row; });
    const auto gather = [&](const std::vector<std::string>& names) {
      InputStatistics statistics(join(names, ", "), model_.info(names.front()).shape.back(),
                                 hessian);
      if (fixed) statistics.count_magnitudes();
      return statistics;
    };
    if (arch.tied) {
      // What goes into the head is known only at the end, and its weight is needed at the start: it
      // is fitted to the inputs that the model itself gives.
      const std::vector<std::string> head = {"token_embd.weight"};
      if (!all_done(head)) {
        InputStatistics statistics = gather(head);
        runner.embed(weights_);
        for (int64_t layer = 0; layer < arch.layers; ++layer) {
          runner.run_block(weights_, layer);
          stop_check(cat("block ", layer));
        }
        runner.observe_head(model_, statistics);
        encode_observed(head, std::move(statistics));
      }
    } else {
      encode_unseen("token_embd.weight", "a lookup has no inputs");
    }
    adopt({"token_embd.weight"});
    progress.update(1, "token_embd.weight");
    runner.embed(written_);
    const bool correct = job_.method->heeds_shortfall && job_.method_options.correction > 0;
    if (correct) runner.embed_original(weights_);
    for (int64_t layer = 0; layer < arch.layers; ++layer) {
      for (const auto& [branch, groups] : runner.groups(written_, layer)) {
        for (const std::vector<std::string>& group : groups) {
          const bool last = &group == &groups.back();
          if (!all_done(group)) {
            InputStatistics statistics = gather(group);
            if (correct) {
              correction_ = gather_correction(runner, layer, branch, group, last, statistics);
            } else {
              runner.observe_group(written_, layer, branch, group, statistics);
            }
            encode_observed(group, std::move(statistics));
            correction_ = Correction();
            stop_check(cat("block ", layer));
          } else if (correct && last) {
            runner.run_original(weights_, layer, branch);
          }
          adopt(group);
        }
        runner.run_block(written_, layer, branch);
      }
      written_.clear();
      progress.update(static_cast<uint64_t>(layer) + 2, cat("block ", layer));
    }
    const std::vector<std::string> head = {"output.weight"};
    if (!arch.tied && !all_done(head)) {
      InputStatistics statistics = gather(head);
      runner.observe_head(written_, statistics);
      encode_observed(head, std::move(statistics));
    }
    for (const OutputTensor& rest : *job_.targets) {
      if (!writer_.done(rest.name)) encode_unseen(rest.name, "nothing is multiplied by it");
    }
  }

  /// Statistics of a group beside the original model, and what the group should make good; the
  /// `last` of its branch takes the original's windows along.
  Correction gather_correction(BlockRunner& runner, int64_t layer, Branch branch,
                               const std::vector<std::string>& group, bool last,
                               InputStatistics& statistics) {
    const std::string prefix = cat("blk.", layer, ".");
    const bool down = group.front() == prefix + "ffn_down.weight";
    const bool writes = (down || group.front() == prefix + "attn_output.weight") &&
                        runner.adds_to_stream(weights_, layer, branch, group.front());
    const bool behind = down && writes;
    InputStatistics stream(group.front(), statistics.width(), false);
    runner.observe_beside(
        weights_, written_, layer, branch, group,
        {.inputs = !behind, .stream = writes ? &stream : nullptr, .behind = behind, .moves = last},
        statistics);
    return Correction(behind ? std::vector<float>() : statistics.finish_cross(),
                      writes ? stream.finish_cross() : std::vector<float>(), statistics.width(),
                      static_cast<float>(job_.method_options.correction));
  }

  void stop_check(const std::string& where) {
    context_.check_interrupt();
    context_.check_ram(where);
  }

  bool all_done(const std::vector<std::string>& names) const {
    return std::all_of(names.begin(), names.end(),
                       [&](const std::string& name) { return writer_.done(name); });
  }

  /// From here on the written tensors take the place of the model's own.
  void adopt(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const OutputTensor& wanted = target(name);
      TensorView view;
      view.dtype = wanted.dtype;
      view.shape = wanted.shape;
      const auto bytes = std::make_shared<std::vector<std::byte>>(view.bytes());
      writer_.read_back(name, 0, view.rows(), bytes->data());
      view.data = bytes->data();
      view.owner = bytes;
      written_.replace(name, view);
    }
  }

  /// The method, or rounding where it has nothing to do; `reason` says why. An error where it has
  /// something to do and cannot.
  const Method& method_for(const std::string& name, std::string& reason) const {
    const OutputTensor& wanted = target(name);
    if (dtype_is_float(wanted.dtype)) {
      reason = "a float type keeps every value";
      return nearest_;
    }
    if (!job_.method->needs_grid || block_codec(wanted.dtype).grid != nullptr) return *job_.method;
    return fallback(name, cat(dtype_name(wanted.dtype), " has no grid to choose codes on"), reason);
  }

  const Method& fallback(const std::string& name, const std::string& why,
                         std::string& reason) const {
    if (!job_.allow_fallback) {
      throw_unsupported(cat(name, ": method ", job_.method->name, " cannot be used: ", why,
                            "; --allow-fallback rounds it to nearest instead"));
    }
    reason = "fallback: " + why;
    return nearest_;
  }

  /// A tensor whose inputs are not known.
  void encode_unseen(const std::string& name, const std::string& why) {
    if (writer_.done(name)) return;
    TensorOutcome& result = outcome(name);
    std::string reason = why;
    // A lookup (embedding, positions) and a vector lose nothing by it; any other matrix does.
    const bool lookup =
        name.find("embd") != std::string::npos || name.find("embed") != std::string::npos;
    if (is_matrix(name) && !lookup && !dtype_is_float(target(name).dtype))
      fallback(name, why, reason);
    if (is_matrix(name)) result.facts["note"] = reason;
    encode_tensor(name, nearest_, nullptr, nullptr);
  }

  void encode_observed(const std::vector<std::string>& names, InputStatistics&& statistics) {
    const auto fixed = [this](const std::string& name) { return target(name).dtype == kI8S8_Row; };
    if (std::any_of(names.begin(), names.end(), fixed)) {
      SLMC_CHECK(job_.observer != nullptr, "fixed input scales come from an observer");
      input_scale_ =
          observed_scale(*job_.observer, statistics.magnitudes(), "inputs of " + join(names, ", "));
    }
    encode_group(names, std::move(statistics).finish());
    input_scale_ = 0;
  }

  /// Weights that share their inputs.
  void encode_group(const std::vector<std::string>& names, const LinearStatistics& statistics) {
    if (statistics.tokens == 0) {
      for (const std::string& name : names) encode_unseen(name, "no token reached it");
      return;
    }
    Json facts = Json::object();
    std::shared_ptr<const void> prepared;
    const auto quantized = [&](const std::string& name) {
      return !writer_.done(name) && !dtype_is_float(target(name).dtype);
    };
    if (job_.method->prepare != nullptr && std::any_of(names.begin(), names.end(), quantized)) {
      prepared =
          job_.method->prepare(statistics, static_cast<int64_t>(statistics.input_squares.size()),
                               job_.method_options, facts);
    }
    for (const std::string& name : names) {
      if (writer_.done(name)) continue;
      TensorOutcome& result = outcome(name);
      std::string note;
      const Method& method = method_for(name, note);
      if (&method == job_.method) result.facts = facts;
      if (!note.empty()) result.facts["note"] = note;
      result.facts["tokens"] = statistics.tokens;
      if (job_.known.count(name) > 0) result.facts.update(job_.known.at(name));
      if (target(name).dtype == kI8S8_Row) result.facts["input_scale"] = input_scale_;
      encode_tensor(name, method, &statistics, prepared.get());
    }
  }

  void encode_tensor(const std::string& name, const Method& method,
                     const LinearStatistics* statistics, const void* prepared) {
    const OutputTensor& wanted = target(name);
    const int64_t columns = wanted.shape.back(), rows = element_count(wanted.shape) / columns;
    const BlockCodec& codec = block_codec(wanted.dtype);
    const uint64_t row_bytes = dtype_row_bytes(wanted.dtype, columns);
    const int64_t batch = wanted.shape.size() < 2 ? 1 : kRows;
    // Some batches at a time, so that a large head needs no second copy of itself.
    const int64_t together = batch * 4 * threads();
    std::vector<std::byte> encoded(row_bytes * static_cast<uint64_t>(std::min(rows, together)));
    Distortion sum{};
    WeightedError weighted{};
    for (int64_t first = 0; first < rows; first += together) {
      const int64_t count = std::min(together, rows - first);
      const int64_t batches = (count + batch - 1) / batch;
      std::vector<Distortion> parts(static_cast<size_t>(batches), Distortion{});
      std::vector<WeightedError> weights(static_cast<size_t>(batches));
      parallel_for(batches, [&](int64_t b) {
        const int64_t row = first + b * batch, size = std::min(batch, first + count - row);
        std::vector<float> values(static_cast<size_t>(size * columns));
        weights_.read_rows(name, row, size, values.data());
        std::vector<float> missing;
        if (prepared != nullptr && !correction_.empty())
          missing = correction_.shortfall(row, size, values.data());
        const EncodeRequest request{.weight = values.data(),
                                    .rows = size,
                                    .columns = columns,
                                    .grid = &codec,
                                    .statistics = method.needs.empty() ? nullptr : statistics,
                                    .prepared = prepared,
                                    .shortfall = missing.empty() ? nullptr : missing.data(),
                                    .kernels = &kernels_};
        std::byte* out = encoded.data() + row_bytes * static_cast<uint64_t>(row - first);
        encode_checked(model_, wanted, method, request, row, out, &parts[static_cast<size_t>(b)]);
        if (wanted.dtype == kI8S8_Row)
          set_input_scale(input_scale_, out, row_bytes * static_cast<uint64_t>(size));
        if (statistics != nullptr)
          weights[static_cast<size_t>(b)] = weighted_error(request, *statistics, out);
      });
      for (int64_t b = 0; b < batches; ++b) {
        add_distortion(parts[static_cast<size_t>(b)], sum);
        weighted.error += weights[static_cast<size_t>(b)].error;
        weighted.weight += weights[static_cast<size_t>(b)].weight;
      }
      if (first + count == rows) conclude(name, method, sum, weighted);
      writer_.write_rows(name, first, count, encoded.data());
    }
    model_.release(name);
  }

  void conclude(const std::string& name, const Method& method, const Distortion& sum,
                const WeightedError& weighted) {
    TensorOutcome& result = outcome(name);
    result.distortion = sum;
    result.method_used = method.name;
    if (weighted.weight > 0)
      result.facts["weighted_error"] = std::sqrt(weighted.error / weighted.weight);
    record(name);
  }

  const CalibratedJob& job_;
  const Model& model_;
  const ScaledWeights& weights_;
  ModelWriter& writer_;
  Context& context_;
  const EncodeKernels& kernels_;
  const Method& nearest_;
  float input_scale_ = 0;    ///< Of the group at hand, where its type has one.
  Correction correction_;    ///< Of the group at hand; empty without one.
  ReplacedWeights written_;  ///< The model with what is quantized in its place.
  std::map<std::string, size_t> index_;
  std::ofstream facts_;
  std::vector<TensorOutcome> outcomes_;
};

}  // namespace

std::vector<TensorOutcome> encode_calibrated(const CalibratedJob& job, ModelWriter& writer,
                                             Context& context) {
  SLMC_CHECK((job.data != nullptr) != (job.imatrix != nullptr), "one source of statistics");
  return CalibratedEncoder(job, writer, context).run();
}

}  // namespace slmc

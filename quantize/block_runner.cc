#include "quantize/block_runner.h"

#include <algorithm>
#include <set>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"

namespace slmc {
namespace {

/// Thrown by an observer that has seen what it came for.
struct Enough {};

std::vector<int64_t> lengths(const CalibrationData& data) {
  std::vector<int64_t> all;
  for (const auto& window : data.windows) all.push_back(static_cast<int64_t>(window.size()));
  return all;
}

/// Runs a block or a branch of it over one sequence `x` and keeps what goes into `group`; stops
/// there unless `whole`.
void capture(const PartialDecoder& decoder, KvCache& cache, std::vector<float>& x, int64_t tokens,
             const std::string& group, bool whole, std::vector<float>& input) {
  input.clear();
  const LinearObserver observe = [&](std::span<const std::string> names, const float* rows,
                                     int64_t width, int64_t count) {
    if (names.front() != group) return;
    input.insert(input.end(), rows, rows + count * width);
    if (!whole && static_cast<int64_t>(input.size()) >= tokens * width) throw Enough{};
  };
  try {
    decoder.run_block(cache, x.data(), tokens, observe);
  } catch (const Enough&) {
  }
}

void subtract(std::vector<float>& from, const std::vector<float>& what) {
  SLMC_CHECK(from.size() == what.size(), "both models saw the same tokens");
  for (size_t i = 0; i < from.size(); ++i) from[i] -= what[i];
}

TensorView zeros(const TensorView& like) {
  TensorView view;
  view.dtype = DType::kF32;
  view.shape = like.shape;
  const auto bytes = std::make_shared<std::vector<std::byte>>(view.bytes());
  view.data = bytes->data();
  view.owner = bytes;
  return view;
}

/// On the torch-free runtime: the same bits for any number of threads.
class RuntimeBlockRunner final : public BlockRunner {
 public:
  RuntimeBlockRunner(const WeightSource& model, const CalibrationData& data,
                     const std::string& spill_folder)
      : BlockRunner(model, data, spill_folder) {}

  std::vector<BranchGroups> groups(const WeightSource& weights, int64_t layer) override;
  void observe_group(const WeightSource& weights, int64_t layer, Branch branch,
                     const std::vector<std::string>& group, InputStatistics& statistics) override;
  void observe_beside(const WeightSource& original, const WeightSource& weights, int64_t layer,
                      Branch branch, const std::vector<std::string>& group, const Beside& wanted,
                      InputStatistics& statistics) override;
  void observe_head(const WeightSource& weights, InputStatistics& statistics) override;

 protected:
  void embed(const WeightSource& weights, HiddenStates& states) override;
  void run_block(const WeightSource& weights, int64_t layer, Branch branch, HiddenStates& states,
                 const Watch& watch) override;
};

void RuntimeBlockRunner::embed(const WeightSource& weights, HiddenStates& states) {
  const auto decoder = PartialDecoder::create(weights, {.embedding = true});
  std::vector<float> x;
  for (int64_t w = 0; w < states.windows(); ++w) {
    x.resize(static_cast<size_t>(states.tokens(w) * states.hidden()));
    decoder->embed(data_.windows[static_cast<size_t>(w)], x.data());
    states.write(w, x);
  }
}

void RuntimeBlockRunner::run_block(const WeightSource& weights, int64_t layer, Branch branch,
                                   HiddenStates& states, const Watch& watch) {
  const auto decoder = PartialDecoder::create(weights, {.layer = layer, .branch = branch});
  const auto cache = decoder->new_cache(data_.context);
  std::vector<float> x, key, value;
  LinearObserver observe;
  if (watch.seen != nullptr) {
    observe = [&](std::span<const std::string> names, const float* input, int64_t width,
                  int64_t tokens) {
      for (const std::string& name : names)
        watch.seen->try_emplace(name, name, width, false).first->second.add(input, tokens);
    };
  }
  for (int64_t w = 0; w < states.windows(); ++w) {
    states.read(w, x);
    decoder->run_block(*cache, x.data(), states.tokens(w), observe);
    states.write(w, x);
    if (watch.keys == nullptr) continue;
    decoder->read_cache(*cache, key, value);
    watch.keys->add(key.data(), std::ssize(key));
    watch.values->add(value.data(), std::ssize(value));
  }
}

std::vector<BranchGroups> RuntimeBlockRunner::groups(const WeightSource& weights, int64_t layer) {
  std::vector<BranchGroups> branches;
  std::set<std::string> known;
  const LinearObserver observe = [&](std::span<const std::string> names, const float*, int64_t,
                                     int64_t) {
    if (known.count(names.front()) > 0) return;
    branches.back().groups.emplace_back(names.begin(), names.end());
    known.insert(names.begin(), names.end());
  };
  std::vector<float> x;
  states_.read(0, x);
  for (const Branch branch : {Branch::kAttention, Branch::kFfn}) {
    branches.push_back({.branch = branch, .groups = {}});
    const auto decoder = PartialDecoder::create(weights, {.layer = layer, .branch = branch});
    decoder->run_block(*decoder->new_cache(data_.context), x.data(), states_.tokens(0), observe);
  }
  return branches;
}

void RuntimeBlockRunner::observe_group(const WeightSource& weights, int64_t layer, Branch branch,
                                       const std::vector<std::string>& group,
                                       InputStatistics& statistics) {
  const auto decoder = PartialDecoder::create(weights, {.layer = layer, .branch = branch});
  const auto cache = decoder->new_cache(data_.context);
  std::vector<float> x, input;
  for (int64_t w = 0; w < states_.windows(); ++w) {
    states_.read(w, x);
    capture(*decoder, *cache, x, states_.tokens(w), group.front(), false, input);
    statistics.add(input.data(), states_.tokens(w));
  }
}

void RuntimeBlockRunner::observe_beside(const WeightSource& original, const WeightSource& weights,
                                        int64_t layer, Branch branch,
                                        const std::vector<std::string>& group, const Beside& wanted,
                                        InputStatistics& statistics) {
  const auto here = PartialDecoder::create(weights, {.layer = layer, .branch = branch});
  const auto there = PartialDecoder::create(original, {.layer = layer, .branch = branch});
  const auto cache = here->new_cache(data_.context);
  const bool before = wanted.stream != nullptr && !wanted.behind;
  std::vector<float> x, y, lost, input, aim;
  const auto lose = [&] {
    lost = y;
    subtract(lost, x);
  };
  for (int64_t w = 0; w < states_.windows(); ++w) {
    const int64_t tokens = states_.tokens(w);
    states_.read(w, x);
    original_->read(w, y);
    if (before) lose();
    capture(*there, *cache, y, tokens, group.front(), wanted.behind || wanted.moves, aim);
    capture(*here, *cache, x, tokens, group.front(), wanted.behind, input);
    if (wanted.moves) original_->write(w, y);
    statistics.add(input.data(), tokens);
    if (wanted.inputs) {
      subtract(aim, input);
      statistics.add_cross(aim.data(), statistics.width(), input.data(), tokens);
    }
    if (wanted.behind) lose();
    if (wanted.stream != nullptr)
      wanted.stream->add_cross(lost.data(), states_.hidden(), input.data(), tokens);
  }
}

void RuntimeBlockRunner::observe_head(const WeightSource& weights, InputStatistics& statistics) {
  const auto decoder = PartialDecoder::create(weights, {.output_norm = true});
  const auto cache = decoder->new_cache(data_.context);
  const LinearObserver observe = [&](std::span<const std::string>, const float* input, int64_t,
                                     int64_t tokens) { statistics.add(input, tokens); };
  std::vector<float> x;
  for (int64_t w = 0; w < states_.windows(); ++w) {
    states_.read(w, x);
    decoder->run_head(*cache, x.data(), states_.tokens(w), nullptr, observe);
  }
}

}  // namespace

BlockRunner::BlockRunner(const WeightSource& model, const CalibrationData& data,
                         const std::string& spill_folder)
    : data_(data),
      spill_folder_(spill_folder),
      states_(lengths(data), model.arch().hidden, spill_folder) {}

std::unique_ptr<BlockRunner> BlockRunner::create(const WeightSource& model,
                                                 const CalibrationData& data,
                                                 const std::string& spill_folder) {
  if (data.forward.module != nullptr)
    return data.forward.module->block_runner(model, data, spill_folder);
  return std::make_unique<RuntimeBlockRunner>(model, data, spill_folder);
}

void BlockRunner::embed_original(const WeightSource& original) {
  original_ = std::make_unique<HiddenStates>(lengths(data_), states_.hidden(), spill_folder_);
  embed(original, *original_);
}

bool BlockRunner::adds_to_stream(const WeightSource& weights, int64_t layer, Branch branch,
                                 const std::string& name) const {
  const int64_t tokens = std::min<int64_t>(16, states_.tokens(0)), hidden = states_.hidden();
  ReplacedWeights without(weights);
  without.replace(name, zeros(weights.view(name)));
  std::vector<float> x, y, input;
  states_.read(0, x);
  x.resize(static_cast<size_t>(tokens * hidden));
  y = x;
  const auto run = [&](const WeightSource& source, std::vector<float>& rows) {
    const auto decoder = PartialDecoder::create(source, {.layer = layer, .branch = branch});
    capture(*decoder, *decoder->new_cache(tokens), rows, tokens, name, true, input);
  };
  run(without, y);
  run(weights, x);
  const TensorView weight = weights.view(name);
  const int64_t columns = weight.columns();
  if (weight.rows() != hidden || static_cast<int64_t>(input.size()) != tokens * columns)
    return false;
  std::vector<float> row(static_cast<size_t>(columns));
  double difference = 0, size = 0;
  for (int64_t r = 0; r < hidden; ++r) {
    decode_rows(weight, r, 1, row.data());
    for (int64_t t = 0; t < tokens; ++t) {
      double expected = 0;
      for (int64_t k = 0; k < columns; ++k)
        expected += static_cast<double>(row[static_cast<size_t>(k)]) *
                    static_cast<double>(input[static_cast<size_t>(t * columns + k)]);
      const auto at = static_cast<size_t>(t * hidden + r);
      const double given = static_cast<double>(x[at]) - static_cast<double>(y[at]);
      difference += (given - expected) * (given - expected);
      size += expected * expected;
    }
  }
  return difference <= 1e-6 * size;
}

}  // namespace slmc

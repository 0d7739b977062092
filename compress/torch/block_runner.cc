// Windows pass through a block one by one: on a GPU one after another, on the CPU as many at once
// as there are threads, each in one thread. What they leave is added in their order, so the
// statistics are the same bits for any number of threads. Hidden states wait in host memory.
#include "compress/torch/block_runner.h"

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/torch/device.h"
#include "compress/torch/device_block.h"
#include "compress/torch/device_sums.h"

namespace slmc::libtorch {
namespace {

/// Thrown by an observer that has seen what it came for.
struct Enough {};

/// Keeps what goes into one matrix, and stops the run there unless `whole`.
class Capture : public BlockObserver {
 public:
  Capture(const std::string& group, bool whole) : group_(group), whole_(whole) {}
  void inputs(const Matrix& matrix, const at::Tensor& x) override {
    if (matrix.names.front() != group_) return;
    input = x;
    if (!whole_) throw Enough{};
  }
  void keys_and_values(const at::Tensor&, const at::Tensor&) override {}
  at::Tensor input;

 private:
  const std::string& group_;
  bool whole_;
};

/// Keeps all inputs, keys and values of a block.
class Recorder : public BlockObserver {
 public:
  Recorder(bool inputs, bool cache) : inputs_(inputs), cache_(cache) {}
  void inputs(const Matrix& matrix, const at::Tensor& x) override {
    if (inputs_) seen.emplace_back(matrix.names, x);
  }
  void keys_and_values(const at::Tensor& k, const at::Tensor& v) override {
    if (cache_) keys = k, values = v;
  }
  std::vector<std::pair<Names, at::Tensor>> seen;
  at::Tensor keys, values;

 private:
  bool inputs_, cache_;
};

/// Runs the block over x; undefined if `capture` stopped it.
at::Tensor run(const DeviceBlock& block, const at::Tensor& x, Capture& capture) {
  try {
    return block.run(x, &capture);
  } catch (const Enough&) {
    return {};
  }
}

void add(InputHistogram& histogram, const at::Tensor& x) {
  const at::Tensor rows = x.to(at::kCPU).contiguous();
  histogram.add(rows.data_ptr<float>(), rows.numel());
}

class DeviceBlockRunner final : public BlockRunner {
 public:
  DeviceBlockRunner(const WeightSource& model, const CalibrationData& data,
                    const std::string& spill_folder)
      : BlockRunner(model, data, spill_folder),
        place_{device_from_name(data.forward.device), data.forward.dtype == "bf16"} {
    if (place_.device.is_cpu()) at::set_num_threads(1);  // Windows are what threads share.
  }

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

 private:
  at::Tensor read(const HiddenStates& states, int64_t window) const {
    std::vector<float> x;
    states.read(window, x);
    return at::from_blob(x.data(), {states.tokens(window), states.hidden()}, at::kFloat)
        .to(place_.device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }
  static void write(HiddenStates& states, int64_t window, const at::Tensor& x) {
    const at::Tensor rows = x.to(at::kCPU).contiguous();
    const float* values = rows.data_ptr<float>();
    states.write(window, {values, values + rows.numel()});
  }
  template <typename Body>
  auto within_memory(const Body& body) const {
    return libtorch::within_memory(
        data_.forward.device,
        "give a shorter --calibration-context, --forward-dtype bf16 or another device", body);
  }

  DeviceBlock load(const WeightSource& weights, int64_t layer, Branch branch,
                   const std::string& until) const {
    return within_memory(
        [&] { return DeviceBlock(weights, layer, branch, place_, data_.context, until); });
  }

  /// `take(window, pass(window))` in the windows' order.
  template <typename Pass, typename Take>
  void for_windows(const Pass& pass, const Take& take) const;

  ForwardPlace place_;
};

template <typename Pass, typename Take>
void DeviceBlockRunner::for_windows(const Pass& pass, const Take& take) const {
  const at::NoGradGuard no_grad;
  const int64_t at_once = place_.device.is_cpu() ? threads() : 1;
  within_memory([&] {
    for (int64_t first = 0; first < states_.windows(); first += at_once) {
      const int64_t count = std::min(at_once, states_.windows() - first);
      std::vector<decltype(pass(first))> results(static_cast<size_t>(count));
      parallel_for(count, [&](int64_t i) {
        const at::NoGradGuard none_here;
        results[static_cast<size_t>(i)] = pass(first + i);
      });
      for (int64_t i = 0; i < count; ++i) take(first + i, results[static_cast<size_t>(i)]);
    }
  });
}

void DeviceBlockRunner::embed(const WeightSource& weights, HiddenStates& states) {
  const DeviceEmbedding embedding(weights);
  for_windows([&](int64_t w) { return embedding.run(data_.windows[static_cast<size_t>(w)]); },
              [&](int64_t w, const at::Tensor& x) { write(states, w, x); });
}

void DeviceBlockRunner::run_block(const WeightSource& weights, int64_t layer, Branch branch,
                                  HiddenStates& states, const Watch& watch) {
  const DeviceBlock block = load(weights, layer, branch, "");
  struct Passed {
    Recorder recorder{false, false};
    at::Tensor out;
  };
  std::map<std::string, DeviceSums> sums;  // Of the first tensor of those that share their inputs.
  std::map<std::string, Names> sharing;
  for_windows(
      [&](int64_t w) {
        Passed passed{.recorder = {watch.seen != nullptr, watch.keys != nullptr}, .out = {}};
        passed.out = block.run(read(states, w), &passed.recorder);
        return passed;
      },
      [&](int64_t w, const Passed& passed) {
        write(states, w, passed.out);
        for (const auto& [names, x] : passed.recorder.seen) {
          const std::string& first = names.front();
          if (sums.count(first) == 0) {
            InputStatistics& statistics =
                watch.seen->try_emplace(first, first, x.size(1), false).first->second;
            sums.try_emplace(first, statistics, 0, place_.device);
            sharing[first] = names;
          }
          sums.at(first).add(x);
        }
        if (watch.keys == nullptr) return;
        add(*watch.keys, passed.recorder.keys);
        add(*watch.values, passed.recorder.values);
      });
  for (auto& [first, gathered] : sums) {
    gathered.finish();
    for (const std::string& name : sharing.at(first))
      watch.seen->try_emplace(name, watch.seen->at(first));
  }
}

std::vector<BranchGroups> DeviceBlockRunner::groups(const WeightSource& weights, int64_t layer) {
  std::vector<BranchGroups> branches = {{Branch::kAttention, {}}, {Branch::kFfn, {}}};
  const std::string ffn = cat("blk.", layer, ".ffn_");
  block_weights(weights.arch(), layer,
                {[](const Names&) { return at::Tensor(); },
                 [&](const Names& names) {
                   branches[names.front().starts_with(ffn) ? 1 : 0].groups.push_back(names);
                   return Matrix();
                 }});
  return branches;
}

void DeviceBlockRunner::observe_group(const WeightSource& weights, int64_t layer, Branch branch,
                                      const std::vector<std::string>& group,
                                      InputStatistics& statistics) {
  const DeviceBlock block = load(weights, layer, branch, group.front());
  DeviceSums sums(statistics, 0, place_.device);
  for_windows(
      [&](int64_t w) {
        Capture capture(group.front(), false);
        run(block, read(states_, w), capture);
        return capture.input;
      },
      [&](int64_t, const at::Tensor& input) { sums.add(input); });
  sums.finish();
}

void DeviceBlockRunner::observe_beside(const WeightSource& original, const WeightSource& weights,
                                       int64_t layer, Branch branch,
                                       const std::vector<std::string>& group, const Beside& wanted,
                                       InputStatistics& statistics) {
  const bool through = wanted.behind || wanted.moves;
  const DeviceBlock here = load(weights, layer, branch, wanted.behind ? "" : group.front()),
                    there = load(original, layer, branch, through ? "" : group.front());
  struct Pair {
    at::Tensor input, missing, lost, moved;  ///< What the inputs lack, and the stream.
  };
  DeviceSums sums(statistics, wanted.inputs ? statistics.width() : 0, place_.device);
  std::optional<DeviceSums> stream;
  if (wanted.stream != nullptr) stream.emplace(*wanted.stream, states_.hidden(), place_.device);
  for_windows(
      [&](int64_t w) {
        Capture aim(group.front(), through), given(group.front(), wanted.behind);
        const at::Tensor x = read(states_, w), y = read(*original_, w);
        const at::Tensor after_y = run(there, y, aim), after_x = run(here, x, given);
        Pair pair{.input = given.input, .missing = {}, .lost = {}, .moved = {}};
        if (wanted.inputs) pair.missing = aim.input - given.input;
        if (stream) pair.lost = wanted.behind ? after_y - after_x : y - x;
        if (wanted.moves) pair.moved = after_y;
        return pair;
      },
      [&](int64_t w, const Pair& pair) {
        sums.add(pair.input);
        if (wanted.inputs) sums.add_cross(pair.missing, pair.input);
        if (stream) stream->add_cross(pair.lost, pair.input);
        if (wanted.moves) write(*original_, w, pair.moved);
      });
  sums.finish();
  if (stream) stream->finish();
}

void DeviceBlockRunner::observe_head(const WeightSource& weights, InputStatistics& statistics) {
  const DeviceOutputNorm norm(weights, place_);
  DeviceSums sums(statistics, 0, place_.device);
  for_windows([&](int64_t w) { return norm.run(read(states_, w)); },
              [&](int64_t, const at::Tensor& x) { sums.add(x); });
  sums.finish();
}

}  // namespace

std::unique_ptr<BlockRunner> make_block_runner(const WeightSource& model,
                                               const CalibrationData& data,
                                               const std::string& spill_folder) {
  return std::make_unique<DeviceBlockRunner>(model, data, spill_folder);
}

}  // namespace slmc::libtorch

#include "quantize/divergence.h"

#include <algorithm>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_score.h"

namespace slmc {

int64_t windows_for(int64_t tokens, int64_t window) {
  return std::max<int64_t>(1, (tokens + window - 1) / std::max<int64_t>(1, window));
}

std::vector<std::vector<int32_t>> measuring_windows(const CalibrationData& data, int64_t tokens) {
  const auto all = static_cast<int64_t>(data.windows.size());
  const int64_t count = std::min(all, windows_for(tokens, data.context));
  std::vector<std::vector<int32_t>> windows;
  for (int64_t i = 0; i < count; ++i)
    windows.push_back(data.windows[static_cast<size_t>((2 * i + 1) * all / (2 * count))]);
  return windows;
}

int64_t count_tokens(const std::vector<std::vector<int32_t>>& windows) {
  int64_t sum = 0;
  for (const auto& window : windows) sum += std::ssize(window);
  return sum;
}

DivergenceMeter::DivergenceMeter(const WeightSource& model, int64_t vocab,
                                 std::vector<std::vector<int32_t>> windows)
    : model_(model), vocab_(vocab), windows_(std::move(windows)) {
  for (const auto& window : windows_)
    context_ = std::max(context_, static_cast<int64_t>(window.size()));
  SLMC_CHECK(context_ > 0, "no windows to measure on");
  head_ = PartialDecoder::create(model, {.head = true});
  cache_ = head_->new_cache(context_);
}

DivergenceMeter::~DivergenceMeter() = default;

int64_t DivergenceMeter::tokens() const { return count_tokens(windows_); }

std::vector<float> DivergenceMeter::embed(const WeightSource& weights) const {
  const std::vector<int32_t>& ids = windows_[static_cast<size_t>(window_)];
  std::vector<float> x(ids.size() * static_cast<size_t>(model_.arch().hidden));
  PartialDecoder::create(weights, {.embedding = true})->embed(ids, x.data());
  return x;
}

void DivergenceMeter::run_block(const WeightSource& weights, int64_t layer,
                                std::vector<float>& x) const {
  stop_if_interrupted();  // All blocks, for all variants, take minutes with a large model.
  const auto tokens = static_cast<int64_t>(windows_[static_cast<size_t>(window_)].size());
  PartialDecoder::create(weights, {.layer = layer})->run_block(*cache_, x.data(), tokens, {});
}

void DivergenceMeter::start(int64_t window) {
  window_ = window;
  stage_ = -1;
  final_ = embed(model_);
  for (int64_t layer = 0; layer < model_.arch().layers; ++layer) run_block(model_, layer, final_);
}

std::vector<double> DivergenceMeter::measure(int64_t stage,
                                             const std::vector<const WeightSource*>& variants) {
  const int64_t layers = model_.arch().layers;
  SLMC_CHECK(window_ >= 0 && stage >= stage_ && stage <= layers, "stages go up within a window");
  if (stage_ < 0 && stage >= 0) x_ = embed(model_), stage_ = 0;
  for (; stage_ < stage; ++stage_) run_block(model_, stage_, x_);
  std::vector<std::vector<float>> states;
  for (const WeightSource* variant : variants) {
    states.push_back(stage < 0 ? embed(*variant) : x_);
    if (stage >= 0 && stage < layers) run_block(*variant, stage, states.back());
  }
  for (int64_t layer = std::max<int64_t>(0, stage + 1); layer < layers; ++layer) {
    const auto decoder = PartialDecoder::create(model_, {.layer = layer});
    stop_if_interrupted();
    for (std::vector<float>& x : states)
      decoder->run_block(*cache_, x.data(),
                         static_cast<int64_t>(windows_[static_cast<size_t>(window_)].size()), {});
  }
  const bool own_head = stage == layers || (stage < 0 && model_.arch().tied);
  return compare(states, own_head ? variants : std::vector<const WeightSource*>());
}

double DivergenceMeter::measure_whole(const WeightSource& other) {
  std::vector<std::vector<float>> states = {embed(other)};
  for (int64_t layer = 0; layer < model_.arch().layers; ++layer) run_block(other, layer, states[0]);
  return compare(states, {&other})[0];
}

// Positions go in pieces; each position's divergence is a sum of its own, and they are added in
// order.
std::vector<double> DivergenceMeter::compare(const std::vector<std::vector<float>>& states,
                                             const std::vector<const WeightSource*>& heads) const {
  const int64_t rows = model_.arch().vocab, hidden = model_.arch().hidden;
  const auto tokens = static_cast<int64_t>(windows_[static_cast<size_t>(window_)].size());
  std::vector<double> sums(states.size(), 0.0);
  std::vector<float> logits(static_cast<size_t>(kPositions * rows)), other(logits.size());
  const auto each = [&](const PartialDecoder* head, size_t first, size_t last) {
    for (int64_t begin = 0; begin < tokens; begin += kPositions) {
      const int64_t count = std::min(kPositions, tokens - begin);
      head_->run_head(*cache_, final_.data() + begin * hidden, count, logits.data(), {});
      std::vector<TeacherRow> teachers(static_cast<size_t>(count));
      parallel_for(count, [&](int64_t t) {
        score_teacher(logits.data() + t * rows, rows, vocab_, 0, teachers[static_cast<size_t>(t)]);
      });
      for (size_t v = first; v < last; ++v) {
        head->run_head(*cache_, states[v].data() + begin * hidden, count, other.data(), {});
        std::vector<double> found(static_cast<size_t>(count));
        parallel_for(count, [&](int64_t t) {
          found[static_cast<size_t>(t)] = score_student(other.data() + t * rows, rows, vocab_, 0,
                                                        &teachers[static_cast<size_t>(t)])
                                              .kld;
        });
        for (const double nats : found) sums[v] += nats;
      }
    }
  };
  if (heads.empty()) {
    each(head_.get(), 0, states.size());
  } else {
    for (size_t v = 0; v < states.size(); ++v)
      each(PartialDecoder::create(*heads[v], {.head = true}).get(), v, v + 1);
  }
  return sums;
}

double mean_divergence(DivergenceMeter& meter, const WeightSource& other, Context& context) {
  double sum = 0;
  for (int64_t window = 0; window < meter.windows(); ++window) {
    context.check_interrupt();
    meter.start(window);
    sum += meter.measure_whole(other);
  }
  return sum / static_cast<double>(meter.tokens());
}

}  // namespace slmc

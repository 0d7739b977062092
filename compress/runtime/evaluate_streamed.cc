// Windows of text block by block: what a model needs of memory does not grow with its depth.
#include <algorithm>
#include <functional>

#include "compress/core/parallel.h"
#include "compress/runtime/evaluate_windows.h"

namespace slmc {
namespace {

class StreamedWindows {
 public:
  StreamedWindows(std::vector<StreamedModel> models, bool teacher, const std::vector<int32_t>& ids,
                  int64_t vocab, const WindowProtocol& protocol, Context& context,
                  WindowScores& scores)
      : models_(std::move(models)),
        teacher_(teacher),
        ids_(ids),
        vocab_(vocab),
        protocol_(protocol),
        context_(context),
        scores_(scores) {}

  void run(uint64_t state_bytes) {
    int64_t window_bytes = 0, blocks = 0;
    for (const StreamedModel& model : models_) {
      window_bytes += protocol_.context * model.weights->arch().hidden * int64_t{sizeof(float)};
      blocks += model.weights->arch().layers + 1;
    }
    const int64_t together = std::max<int64_t>(
        1, static_cast<int64_t>(state_bytes) / std::max<int64_t>(1, window_bytes));
    const int64_t rounds = (scores_.windows + together - 1) / together;
    Progress& progress = progress_of(context_);
    progress.begin("evaluating", static_cast<uint64_t>(rounds * blocks), "blocks");
    for (int64_t first = 0; first < scores_.windows; first += together) {
      first_ = first;
      count_ = std::min(together, scores_.windows - first);
      std::vector<std::vector<float>> states;
      for (const StreamedModel& model : models_) states.push_back(through_blocks(model, progress));
      score(states);
      progress.update(done_ += models_.size());
    }
    progress.end();
  }

 private:
  /// Where there are windows enough, threads have some each; else they share in each.
  void each_window(const std::function<void(int64_t)>& work) const {
    const auto one = [&](int64_t window) {
      context_.check_interrupt();
      work(window);
    };
    if (windows_in_flight(count_) > 1) {
      parallel_for(count_, one);
    } else {
      for (int64_t window = 0; window < count_; ++window) one(window);
    }
  }

  /// The windows' hidden states behind the last block, [count][context][hidden].
  std::vector<float> through_blocks(const StreamedModel& model, Progress& progress) {
    const Architecture& arch = model.weights->arch();
    const int64_t size = protocol_.context * arch.hidden;
    std::vector<float> states(static_cast<size_t>(count_ * size));
    {
      const auto embedding =
          PartialDecoder::create(*model.weights, {.embedding = true}, model.mode);
      each_window([&](int64_t window) {
        embedding->embed(protocol_.tokens(ids_, first_ + window), states.data() + window * size);
      });
    }
    for (int64_t layer = 0; layer < arch.layers; ++layer) {
      const auto block =
          PartialDecoder::create(*model.weights, {.layer = layer}, model.mode, model.kv);
      each_window([&](int64_t window) {
        const auto cache = block->new_cache(protocol_.context);
        block->run_block(*cache, states.data() + window * size, protocol_.context, {});
      });
      context_.check_ram("evaluation");
      progress.update(++done_);
    }
    return states;
  }

  void score(const std::vector<std::vector<float>>& states) const {
    std::vector<std::unique_ptr<PartialDecoder>> heads;
    int64_t widest = 1;
    for (const StreamedModel& model : models_) {
      heads.push_back(PartialDecoder::create(*model.weights, {.head = true}, model.mode));
      widest = std::max(widest, model.weights->arch().vocab);
    }
    context_.check_ram("evaluation");
    const int64_t chunk = std::min(positions_at_once(widest), protocol_.scored_per_window());
    const int64_t silent = protocol_.first_scored - 1;  // Positions whose prediction is not scored.
    each_window([&](int64_t window) {
      const std::vector<int32_t> ids = protocol_.tokens(ids_, first_ + window);
      std::vector<std::unique_ptr<KvCache>> caches;
      std::vector<std::vector<float>> logits;
      std::vector<LogitRows> rows;
      for (size_t m = 0; m < models_.size(); ++m) {
        const int64_t width = models_[m].weights->arch().vocab;
        caches.push_back(heads[m]->new_cache(1));
        logits.emplace_back(static_cast<size_t>(chunk * width));
        rows.push_back({logits.back().data(), width});
      }
      std::optional<LogitRows> beside;
      if (teacher_) beside = rows.back(), rows.pop_back();
      for (int64_t at = silent; at + 1 < protocol_.context; at += chunk) {
        const int64_t count = std::min(chunk, protocol_.context - 1 - at);
        for (size_t m = 0; m < models_.size(); ++m) {
          const int64_t hidden = models_[m].weights->arch().hidden;
          heads[m]->run_head(*caches[m],
                             states[m].data() + (window * protocol_.context + at) * hidden, count,
                             logits[m].data(), {});
        }
        score_positions(
            rows, beside,
            std::span(ids).subspan(static_cast<size_t>(at + 1), static_cast<size_t>(count)), vocab_,
            (first_ + window) * protocol_.scored_per_window() + at - silent, scores_);
      }
    });
    context_.check_ram("evaluation");
  }

  std::vector<StreamedModel> models_;  // The teacher last.
  bool teacher_;
  const std::vector<int32_t>& ids_;
  int64_t vocab_;
  const WindowProtocol& protocol_;
  Context& context_;
  WindowScores& scores_;
  int64_t first_ = 0, count_ = 0;  // Windows that are on their way together.
  uint64_t done_ = 0;
};

}  // namespace

int64_t windows_in_flight(int64_t windows) { return windows >= 2 * threads() ? threads() : 1; }

WindowScores score_streamed(const std::vector<StreamedModel>& models, const WeightSource* teacher,
                            const std::vector<int32_t>& ids, int64_t vocab,
                            const WindowProtocol& protocol, Context& context,
                            uint64_t state_bytes) {
  WindowScores scores = empty_scores(models.size(), teacher != nullptr, std::ssize(ids), protocol);
  std::vector<StreamedModel> all = models;
  if (teacher != nullptr) all.push_back({.weights = teacher});
  for (const StreamedModel& model : all) check_decodes(model.weights->arch());
  StreamedWindows(std::move(all), teacher != nullptr, ids, vocab, protocol, context, scores)
      .run(state_bytes);
  check_scores(scores, protocol);
  return scores;
}

}  // namespace slmc

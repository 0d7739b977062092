#include "compress/runtime/evaluate_windows.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_score.h"
#include "compress/runtime/not_finite.h"
#include "compress/runtime/statistics.h"

namespace slmc {
namespace {

constexpr uint64_t kParallelBytes = 512ull << 20;  // Caches and logits of all windows in flight.
constexpr int64_t kChunkTokens = 128;              // Tokens whose logits are held at a time...
constexpr int64_t kChunkFloats =
    4 << 20;  // ...unless the vocabulary makes them more floats than this.

// Runs one window after another through its models; each call of `run` uses its own caches.
class WindowRunner {
 public:
  WindowRunner(const std::vector<const Decoder*>& models, const Decoder* teacher,
               const std::vector<int32_t>& ids, int64_t vocab, const WindowProtocol& protocol,
               WindowScores& scores)
      : models_(models),
        teacher_(teacher),
        ids_(ids),
        vocab_(vocab),
        protocol_(protocol),
        scores_(scores) {
    int64_t widest = teacher ? teacher->arch().vocab : 1;
    for (const Decoder* model : models) widest = std::max(widest, model->arch().vocab);
    chunk_ = positions_at_once(widest);
    floats_ = std::min(chunk_, protocol.scored_per_window()) * widest;
  }

  uint64_t bytes_per_window() const {
    uint64_t bytes =
        (models_.size() + (teacher_ ? 1 : 0)) * sizeof(float) * static_cast<uint64_t>(floats_);
    if (teacher_) bytes += teacher_->new_cache(protocol_.context)->bytes();
    for (const Decoder* model : models_) bytes += model->new_cache(protocol_.context)->bytes();
    return bytes;
  }

  void run(int64_t window) const {
    const std::vector<int32_t> tokens = protocol_.tokens(ids_, window);
    std::vector<std::unique_ptr<KvCache>> caches;
    for (const Decoder* model : models_) caches.push_back(model->new_cache(protocol_.context));
    std::unique_ptr<KvCache> teacher_cache =
        teacher_ ? teacher_->new_cache(protocol_.context) : nullptr;

    const int64_t silent = protocol_.first_scored - 1;  // Positions whose prediction is not scored.
    if (silent > 0) {
      const std::span<const int32_t> head(tokens.data(), static_cast<size_t>(silent));
      if (teacher_) teacher_->forward(*teacher_cache, head, nullptr, false);
      for (size_t m = 0; m < models_.size(); ++m)
        models_[m]->forward(*caches[m], head, nullptr, false);
    }
    std::vector<std::vector<float>> logits(models_.size() + (teacher_ ? 1 : 0),
                                           std::vector<float>(static_cast<size_t>(floats_)));
    for (int64_t at = silent; at + 1 < protocol_.context; at += chunk_) {
      const int64_t count = std::min(chunk_, protocol_.context - 1 - at);
      const std::span<const int32_t> piece(tokens.data() + at, static_cast<size_t>(count));
      for (size_t m = 0; m < models_.size(); ++m)
        models_[m]->forward(*caches[m], piece, logits[m].data(), false);
      if (teacher_) teacher_->forward(*teacher_cache, piece, logits.back().data(), false);
      std::vector<LogitRows> rows;
      for (size_t m = 0; m < models_.size(); ++m)
        rows.push_back({logits[m].data(), models_[m]->arch().vocab});
      std::optional<LogitRows> beside;
      if (teacher_) beside = {logits.back().data(), teacher_->arch().vocab};
      score_positions(rows, beside, {tokens.data() + at + 1, static_cast<size_t>(count)}, vocab_,
                      window * protocol_.scored_per_window() + at - silent, scores_);
    }
  }

 private:
  const std::vector<const Decoder*>& models_;
  const Decoder* teacher_;
  const std::vector<int32_t>& ids_;
  int64_t vocab_;
  const WindowProtocol& protocol_;
  WindowScores& scores_;
  int64_t chunk_ = 1, floats_ = 1;
};

void check_finite(const std::vector<double>& values, const WindowProtocol& protocol,
                  const std::string& what) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    const int64_t per_window = protocol.scored_per_window(), at = static_cast<int64_t>(i);
    throw_not_finite(cat(what, " gives logits that are not finite at token ",
                         at % per_window + protocol.first_scored, " of window ", at / per_window));
  }
}

}  // namespace

int64_t positions_at_once(int64_t widest) {
  return std::clamp<int64_t>(kChunkFloats / widest, 1, kChunkTokens);
}

WindowScores empty_scores(size_t models, bool teacher, int64_t tokens,
                          const WindowProtocol& protocol) {
  WindowScores scores;
  scores.windows = protocol.windows(tokens);
  if (scores.windows == 0)
    throw_usage(cat("the text has ", tokens, " tokens, less than one window of ", protocol.context,
                    "; give more text or a smaller --context"));
  scores.scored = scores.windows * protocol.scored_per_window();
  const size_t count = static_cast<size_t>(scores.scored);
  scores.models.resize(models);
  for (ModelScores& model : scores.models) {
    model.nll.resize(count);
    if (teacher) model.kld.resize(count), model.same_top.resize(count);
  }
  if (teacher) scores.teacher_nll.resize(count);
  return scores;
}

void score_positions(const std::vector<LogitRows>& models, const std::optional<LogitRows>& teacher,
                     std::span<const int32_t> targets, int64_t vocab, int64_t out,
                     WindowScores& scores) {
  parallel_ranges(std::ssize(targets), 16, [&](int64_t begin, int64_t end) {
    TeacherRow row;
    for (int64_t i = begin; i < end; ++i) {
      const size_t at = static_cast<size_t>(out + i);
      const int32_t target = targets[static_cast<size_t>(i)];
      if (teacher) {
        const int64_t width = teacher->width;
        score_teacher(teacher->values + i * width, width, vocab, target, row);
        scores.teacher_nll[at] = row.nll;
      }
      for (size_t m = 0; m < models.size(); ++m) {
        const int64_t width = models[m].width;
        const StudentScore score = score_student(models[m].values + i * width, width, vocab, target,
                                                 teacher ? &row : nullptr);
        scores.models[m].nll[at] = score.nll;
        if (!teacher) continue;
        scores.models[m].kld[at] = score.kld;
        scores.models[m].same_top[at] = score.same_top ? 1 : 0;
      }
    }
  });
}

void check_scores(const WindowScores& scores, const WindowProtocol& protocol) {
  check_finite(scores.teacher_nll, protocol, "the teacher");
  for (const ModelScores& model : scores.models) {
    check_finite(model.nll, protocol, "the model");
    check_finite(model.kld, protocol, "the model");
  }
}

std::vector<int32_t> WindowProtocol::tokens(const std::vector<int32_t>& ids, int64_t window) const {
  const auto begin = ids.begin() + window * context;
  std::vector<int32_t> some(begin, begin + context);
  if (first_token >= 0) some[0] = first_token;
  return some;
}

WindowProtocol make_protocol(const std::string& name, int64_t context, int32_t bos, bool adds_bos) {
  WindowProtocol protocol;
  protocol.name = name;
  protocol.context = context;
  const bool llama = name == "llama.cpp";
  if (!llama && name != "window")
    throw_usage(cat("--protocol is window or llama.cpp, not '", name, "'"));
  if (context < (llama ? 4 : 2))
    throw_usage(cat("--context ", context, " leaves nothing to score under protocol ", name,
                    "; give at least ", llama ? 4 : 2));
  if (llama) {
    protocol.first_scored = context / 2 + 1;
    protocol.first_token = adds_bos ? bos : -1;
  }
  return protocol;
}

WindowScores score_windows(const std::vector<const Decoder*>& models, const Decoder* teacher,
                           const std::vector<int32_t>& ids, int64_t vocab,
                           const WindowProtocol& protocol, Context& context) {
  WindowScores scores = empty_scores(models.size(), teacher != nullptr, std::ssize(ids), protocol);
  const WindowRunner runner(models, teacher, ids, vocab, protocol, scores);
  Progress& progress = progress_of(context);
  progress.begin("evaluating", static_cast<uint64_t>(scores.windows * protocol.context), "tokens");
  std::mutex mutex;
  int64_t done = 0;
  const auto one = [&](int64_t window) {
    context.check_interrupt();
    runner.run(window);
    const std::lock_guard<std::mutex> lock(mutex);
    progress.update(static_cast<uint64_t>(++done * protocol.context));
  };
  const bool parallel =
      runner.bytes_per_window() * static_cast<uint64_t>(threads()) <= kParallelBytes &&
      scores.windows >= threads();
  if (parallel) {
    parallel_for(scores.windows, one);
  } else {
    for (int64_t window = 0; window < scores.windows; ++window) {
      one(window);
      context.check_ram("evaluation");
    }
  }
  progress.end();

  check_scores(scores, protocol);
  return scores;
}

Json summarize_scores(const WindowScores& scores, size_t model,
                      const std::vector<int32_t>& document) {
  const ModelScores& own = scores.models[model];
  const bool by_document = !document.empty() && document.front() != document.back();
  const auto put_perplexity = [&](Json& json, const std::vector<double>& nll) {
    const double perplexity = stable_exp(mean(nll));
    json["perplexity"] = perplexity;
    // d exp(x) = exp(x) dx
    json["perplexity_se"] = perplexity * standard_error(nll);
    if (by_document)
      json["perplexity_se_documents"] = perplexity * cluster_standard_error(nll, document);
  };
  Json json = Json::object();
  put_perplexity(json, own.nll);
  if (own.kld.empty()) return json;
  Json against = Json::object();
  put_perplexity(against, scores.teacher_nll);
  against["kld_mean"] = mean(own.kld);
  against["kld_se"] = standard_error(own.kld);
  if (by_document) against["kld_se_documents"] = cluster_standard_error(own.kld, document);
  against["kld_median"] = quantile(own.kld, 0.5);
  against["kld_p99"] = quantile(own.kld, 0.99);
  against["kld_max"] = *std::max_element(own.kld.begin(), own.kld.end());
  int64_t same = 0;
  for (uint8_t flag : own.same_top) same += flag;
  put_proportion(against, "top1_agreement", same, scores.scored);
  json["against"] = std::move(against);
  return json;
}

}  // namespace slmc

#include "compress/runtime/evaluate_masked.h"

#include <cmath>
#include <mutex>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_score.h"
#include "compress/runtime/not_finite.h"

namespace slmc {
namespace {

/// A document's part of a window, masked.
struct MaskedText {
  std::vector<int32_t> ids;
  std::vector<int64_t> rows;  ///< Positions to guess.
  int64_t begin = 0;          ///< Place of the first token among all.
  int64_t first = 0;          ///< Number of the first scored token among all.
};

double finite(double value, const char* whose) {
  if (!std::isfinite(value)) throw_not_finite(cat(whose, " gives logits that are not finite"));
  return value;
}

/// Every model over one text; `ids`: of all, as they were before masking.
void score_piece(const std::vector<const Encoder*>& models, const Encoder* teacher,
                 const MaskedText& text, const std::vector<int32_t>& ids, int64_t vocab,
                 WindowScores& scores) {
  std::vector<float> theirs;
  if (teacher != nullptr) theirs = teacher->encode_rows(text.ids, text.rows);
  for (size_t m = 0; m < models.size(); ++m) {
    const std::vector<float> logits = models[m]->encode_rows(text.ids, text.rows);
    const int64_t width = models[m]->columns();
    TeacherRow row;
    for (size_t i = 0; i < text.rows.size(); ++i) {
      const size_t at = static_cast<size_t>(text.first) + i;
      const int32_t target = ids[static_cast<size_t>(text.begin + text.rows[i])];
      if (teacher != nullptr) {
        score_teacher(theirs.data() + static_cast<int64_t>(i) * teacher->columns(),
                      teacher->columns(), vocab, target, row);
        scores.teacher_nll[at] = finite(row.nll, "the teacher");
      }
      const StudentScore score =
          score_student(logits.data() + static_cast<int64_t>(i) * width, width, vocab, target,
                        teacher != nullptr ? &row : nullptr);
      scores.models[m].nll[at] = finite(score.nll, "the model");
      if (teacher == nullptr) continue;
      scores.models[m].kld[at] = score.kld;
      scores.models[m].same_top[at] = score.same_top ? 1 : 0;
    }
  }
}

}  // namespace

MaskedScores score_masked(const std::vector<const Encoder*>& models, const Encoder* teacher,
                          const std::vector<int32_t>& ids, const std::vector<int32_t>& document,
                          int64_t vocab, int64_t length, const Masking& masking, Context& context) {
  MaskedScores out;
  WindowScores& scores = out.scores;
  scores.windows = static_cast<int64_t>(ids.size()) / length;
  if (scores.windows == 0)
    throw_usage(cat("the text has ", ids.size(), " tokens, less than one window of ", length,
                    "; give more text or a smaller --context"));
  std::vector<MaskedText> texts;
  std::vector<uint8_t> chosen(static_cast<size_t>(length));
  for (int64_t w = 0; w < scores.windows; ++w) {
    std::vector<int32_t> window(ids.begin() + w * length, ids.begin() + (w + 1) * length);
    mask_tokens(masking, static_cast<uint64_t>(w), window, nullptr, chosen.data());
    const int32_t* const owner = document.data() + w * length;
    for (int64_t i = 0; i < length; ++i) {
      if (i == 0 || owner[i] != owner[i - 1])
        texts.push_back({.ids = {}, .rows = {}, .begin = w * length + i, .first = scores.scored});
      MaskedText& text = texts.back();
      text.ids.push_back(window[static_cast<size_t>(i)]);
      if (chosen[static_cast<size_t>(i)] == 0) continue;
      text.rows.push_back(w * length + i - text.begin);
      out.positions.push_back(w * length + i);
      ++scores.scored;
    }
  }
  std::erase_if(texts, [](const MaskedText& text) { return text.rows.empty(); });
  if (scores.scored == 0) throw_usage("the text is too short: no token of it was masked");
  const auto count = static_cast<size_t>(scores.scored);
  scores.models.resize(models.size());
  for (ModelScores& model : scores.models) {
    model.nll.resize(count);
    if (teacher != nullptr) model.kld.resize(count), model.same_top.resize(count);
  }
  if (teacher != nullptr) scores.teacher_nll.resize(count);

  Progress& progress = progress_of(context);
  progress.begin("evaluating", texts.size(), "texts");
  std::mutex mutex;
  uint64_t done = 0;
  parallel_for(std::ssize(texts), [&](int64_t i) {
    context.check_interrupt();
    score_piece(models, teacher, texts[static_cast<size_t>(i)], ids, vocab, scores);
    const std::lock_guard<std::mutex> lock(mutex);
    progress.update(++done);
  });
  progress.end();
  context.check_ram("evaluation");
  return out;
}

}  // namespace slmc

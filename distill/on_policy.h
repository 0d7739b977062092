// On-policy distillation (GKD, Agarwal et al. 2023, algorithm 1): some steps learn from what the
// student itself says, which the teacher judges, so that it learns where its own words lead it. The
// runtime writes the samples, with a cache of keys and values, several at once.
#pragma once

#include <cstdint>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/ranks.h"
#include "distill/data.h"
#include "formats/model.h"

namespace slmc {

class Fields;
struct TrainingJob;

struct OnPolicyOptions {
  double share = 0;          ///< Probability that a step learns from own samples (GKD's lambda).
  double temperature = 1.0;  ///< Of the sampling; 0 takes the likeliest token.
  int64_t tokens = 0;        ///< That a sample adds to its prompt at most; 0: half a window.
  int64_t every = 1;         ///< Steps that share the samples of one state of the student.
};
void visit_on_policy(Fields& fields, OnPolicyOptions& options);
Json result_options(const OnPolicyOptions& options);

/// How samples are made.
struct OnPolicy : OnPolicyOptions {
  std::vector<int32_t> stops;  ///< End a sample; the one that comes belongs to it.
  int64_t vocab = 0;           ///< Ids from here on are padding and never said; 0: none are.
};

/// Ids [begin, end) of a window that are kept as a prompt: the latest beginning of a response that
/// leaves room for `tokens` (of instruction data: where at least two ids that are not learned are
/// followed by one that is), else the first, else all but the last `tokens` ids. Where documents
/// are kept apart it begins with its own.
struct Prompt {
  int64_t begin = 0, end = 0;
};
Prompt prompt_of(const PackedData& data, int64_t window, int64_t tokens);

/// For each of `windows` of `data` one window: its prompt, what `student` says after it (learned),
/// and padding. Float32 arithmetic; a sample depends on weights, prompt, `seed` and its place in
/// the list alone. Only the samples of `place`'s share of the list are made; the others stay empty.
PackedData sample_windows(const WeightSource& student, const PackedData& data,
                          const std::vector<int64_t>& windows, const OnPolicy& how, uint64_t seed,
                          const RankPlace& place = {});

/// Which steps of a run learn from own samples, and those samples. Steps [k * every, (k + 1) *
/// every) share a refresh, made at the first of them that wants it: by every rank its share, which
/// all of them then have.
class OwnSamples {
 public:
  OwnSamples(const TrainingJob& job, RankGroup& group) : job_(job), group_(group) {}
  bool wanted(int64_t step) const;
  /// Windows of data() for a step that wants them; `trained`: tensors of the job's layout. Called
  /// by all ranks.
  std::vector<int64_t> prepare(int64_t step, WindowOrder& order, const WeightSource& trained);
  const PackedData& data() const { return samples_; }
  /// What a checkpoint before `step` needs beside the weights; null if nothing.
  Json state(int64_t step) const;
  void restore(const Json& state);
  double seconds() const { return seconds_; }  ///< Spent in sampling.
  int64_t tokens() const { return tokens_; }   ///< That all ranks sampled.

 private:
  void exchange();

  const TrainingJob& job_;
  RankGroup& group_;
  PackedData samples_;
  int64_t refresh_ = -1;
  double seconds_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace slmc

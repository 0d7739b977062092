// What the trainers of all ranks tell each other: that they do the same, what their lanes gave, and
// the state that a checkpoint holds.
#include <optional>

#include "compress/core/conditions.h"
#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/trainer.h"

namespace slmc::libtorch {

/// Before anything is learned: all ranks were given the same to do.
void Trainer::agree() {
  if (group_.size() == 1) return;
  Json mine = conditions_;
  mine["checkpoint_every"] = job_.checkpoint_every;
  mine["eval_every"] = job_.eval_every;
  mine["patience"] = job_.patience;
  if (context_.allow_drift)
    for (const char* key : {"libtorch", "processor"}) mine.erase(key);
  const Json first = Json::parse(group_.from_first(mine.dump()));
  if (const std::string difference = conditions_difference(first, mine); !difference.empty())
    throw_usage(cat("it was started with other options, data or machines than rank 0: there ",
                    difference, " here; start all ranks alike, or accept other machines with ",
                    "--allow-drift"));
  group_.gather(std::vector<double>{1});  // Nobody goes on before all have compared.
  progress_of(context_).note(cat(group_.size(), " ranks, connected by ", group_.carrier()));
}

/// Whether there is a checkpoint to go on from. Without `measured` its held-out figures, and the
/// best file, are of something else than this run writes and measures.
bool Trainer::may_resume(bool& measured) {
  if (!has_checkpoint(job_.checkpoint_folder)) return false;
  if (!context_.resume) {
    progress_of(context_).note(cat("the checkpoint of an earlier run in ", job_.checkpoint_folder,
                                   " will be replaced (--resume goes on with it)"));
    return false;
  }
  const Json then = checkpoint_conditions(job_.checkpoint_folder);
  Json now = conditions_;
  if (!then.contains("product")) now.erase("product");  // Nothing has been measured yet.
  const std::string difference = conditions_difference(then, now);
  if (!difference.empty() && !context_.allow_drift)
    throw_usage(cat(job_.checkpoint_folder,
                    ": the run cannot be continued to the same bits: ", difference,
                    "; start again without --resume, or accept other results with --allow-drift"));
  if (!difference.empty()) progress_of(context_).note("resuming with drift: " + difference);
  measured = then.value("product", Json()) == now.value("product", Json());
  return true;
}

/// Rank 0 reads the checkpoint, which the others need not see.
void Trainer::resume() {
  std::optional<CheckpointReader> reader;
  Json start = nullptr;
  bool measured = true;
  if (group_.first() && may_resume(measured)) {
    reader.emplace(job_.checkpoint_folder, job_.layout);
    candidates_.restore(measured ? reader->state().measured : Json::array());
    start = {{"step", reader->state().step},
             {"measured", candidates_.measured()},
             {"samples", reader->state().samples},
             {"last", reader->state().last},
             {"exhausted", candidates_.exhausted()}};
  }
  start = Json::parse(group_.from_first(start.dump()));
  if (start.is_null()) return;
  state_ = {.step = start["step"].get<int64_t>(),
            .measured = start["measured"],
            .samples = start["samples"],
            .last = start["last"]};
  own_samples_.restore(state_.samples);
  exhausted_ = start["exhausted"].get<bool>();
  if (!group_.first())
    for (const Json& entry : state_.measured) candidates_.follow(entry);
  const std::span<float> weights{weights_.data_ptr<float>(),
                                 static_cast<size_t>(job_.layout.total)};
  if (reader) reader->read(StateBuffer::kWeights, 0, weights);
  group_.from_first(weights);
  optimizer_.load([&](int moment, int64_t begin, std::span<float> values) {
    reader->read(moment == 0 ? StateBuffer::kFirstMoments : StateBuffer::kSecondMoments, begin,
                 values);
  });
  has_own_checkpoint_ = true;
  progress_of(context_).note(cat("resumed at step ", state_.step, " of ", job_.steps));
}

/// Rank 0 writes it, of all ranks' moments, so that it can be gone on from on any number of ranks.
void Trainer::checkpoint() {
  state_.measured = candidates_.measured();
  state_.samples = own_samples_.state(state_.step);
  std::optional<CheckpointWriter> writer;
  if (group_.first()) {
    Json kept = conditions_;
    if (state_.measured.empty()) kept.erase("product");
    writer.emplace(job_.checkpoint_folder, job_.layout, state_, kept);
    writer->write(StateBuffer::kWeights, 0,
                  {weights_.data_ptr<float>(), static_cast<size_t>(job_.layout.total)});
  }
  optimizer_.save([&](int moment, int64_t begin, std::span<const float> values) {
    writer->write(moment == 0 ? StateBuffer::kFirstMoments : StateBuffer::kSecondMoments, begin,
                  values);
  });
  if (writer) writer->commit();
  if (group_.size() > 1) group_.gather(std::vector<double>{1});  // Nobody ends before it is there.
  has_own_checkpoint_ = true;
}

/// Of all ranks, in the order of lanes. Every rank also learns whether one was interrupted.
LossSums Trainer::sum_of_lanes(const std::vector<LossSums>& mine) {
  const size_t width = 7 + losses_.size();
  const auto rows = static_cast<size_t>((job_.lanes + group_.size() - 1) / group_.size());
  std::vector<double> packed;
  for (const LossSums& each : mine) {
    for (const double value :
         {each.total, each.distill, each.cross_entropy, static_cast<double>(each.agree),
          static_cast<double>(each.tokens), static_cast<double>(each.spoilt_window),
          static_cast<double>(each.terms.size())})
      packed.push_back(value);
    packed.insert(packed.end(), each.terms.begin(), each.terms.end());
    packed.resize(static_cast<size_t>(&each - mine.data() + 1) * width);
  }
  packed.resize(rows * width);
  packed.push_back(interrupted() ? 1 : 0);
  const std::vector<double> all = group_.gather(packed);
  LossSums sums;
  for (int rank = 0; rank < group_.size(); ++rank) {
    const double* row = all.data() + static_cast<size_t>(rank) * packed.size();
    stop_asked_ = stop_asked_ || row[packed.size() - 1] != 0;
    const int64_t lanes = share_of_rank(job_.lanes, rank, group_.size()).count();
    for (int64_t lane = 0; lane < lanes; ++lane, row += width) {
      LossSums each{.total = row[0],
                    .distill = row[1],
                    .cross_entropy = row[2],
                    .agree = static_cast<int64_t>(row[3]),
                    .tokens = static_cast<int64_t>(row[4]),
                    .terms = {row + 7, row + 7 + static_cast<size_t>(row[6])}};
      if (row[5] >= 0) sums.spoilt_window = static_cast<int64_t>(row[5]);
      sums.add(each);
    }
  }
  return sums;
}

}  // namespace slmc::libtorch

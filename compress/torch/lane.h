// One lane of training: a decoder with its own gradients that works through micro-batches in one
// thread. Which lane gets which micro-batch depends on options alone, so gradients are the same
// bits for any number of threads.
#pragma once

#include <memory>

#include "compress/torch/decoder.h"
#include "compress/torch/frozen_states.h"
#include "distill/hidden_pairs.h"

namespace slmc::libtorch {

class Lane {
 public:
  /// `frozen`, `frozen_states` and the job's teacher may be null. Weights, all on `place.device`,
  /// are shared with the other lanes.
  Lane(const TrainingJob& job, const ForwardPlace& place, const at::Tensor& weights,
       std::shared_ptr<const Frozen> frozen, const at::Tensor& teacher_weights,
       const ParameterLayout& teacher_layout, const LossMixture& losses,
       std::shared_ptr<FrozenStates> frozen_states);

  /// In host memory: a device's are fetched, and it is waited for.
  float* gradients();
  void clear_gradients() { gradients_.zero_(); }
  /// Adds scale * d(sum of the losses of `mix`) of these draws of `data` to the gradients. `pass`
  /// numbers the passes of a run, for dropout. Returns the sums.
  LossSums learn(const LossMix& mix, const PackedData& data, const std::vector<int64_t>& draws,
                 double scale, int64_t pass);
  /// The sums alone, without losses over hidden states.
  LossSums measure(const LossMix& mix, const PackedData& data, const std::vector<int64_t>& draws);

 private:
  using Blocks = std::map<int64_t, at::Tensor>;  ///< What blocks give, by their numbers.
  LossSums head_and_loss(const LossMix& mix, const at::Tensor& features,
                         const at::Tensor& teacher_features, double scale, at::Tensor* gradient);
  /// The losses of a chunk of positions from `begin` on, whose logits become their gradients. The
  /// losses are the CPU's; a device's logits pass through host memory.
  LossSums losses(const LossMix& mix, int64_t begin, at::Tensor& logits, const TeacherRows& teacher,
                  double scale, bool want_gradient);
  /// out = a b, or out += a b.
  void multiply(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool add = false) const;
  /// Adds the losses over hidden states to `sums`, and to `roots` and `gradients` what the
  /// backward pass is to start from for them.
  void compare_hidden(const LossMix& mix, const Blocks& ours, const Blocks& theirs, double scale,
                      LossSums& sums, std::vector<at::Tensor>& roots,
                      std::vector<at::Tensor>& gradients) const;
  void gather(const PackedData& data, const std::vector<int64_t>& draws);
  /// Where an encoder's head is wanted, and labels_ and learned_ of these positions alone.
  void choose_rows();
  /// What the frozen blocks give of the windows, [tokens, hidden]: each window run by itself, so
  /// that its bits are the same whenever that is done.
  at::Tensor below_trained(const PackedData& data, const std::vector<int64_t>& draws);
  /// The cached states of some windows for those blocks.
  void read_states(const PackedData& data, const std::vector<int64_t>& draws, Blocks& blocks) const;
  /// What the cache has of windows first + w.
  void gather_teacher(const LossMix& mix, const PackedData& data, const std::vector<int64_t>& draws,
                      int64_t first);

  const TrainingJob& job_;
  at::Device device_;
  std::vector<std::vector<HiddenPair>> pairs_;  ///< Of each term of the mixture.
  at::Tensor gradients_, host_gradients_;       ///< Fetched from a device.
  Decoder student_;
  std::unique_ptr<Decoder> teacher_;
  std::shared_ptr<FrozenStates> frozen_states_;
  bool alone_;    ///< The only lane: its work is divided among the threads ...
  bool striped_;  ///< ... its products too.
  Batch batch_;
  Reading reading_;
  at::Tensor rows_;                     ///< See choose_rows.
  std::vector<int32_t> labels_;         ///< Of the head's rows ...
  std::vector<uint8_t> learned_;        ///< ... and whether they count.
  at::Tensor logits_, teacher_logits_;  ///< [head_rows, vocab], reused.
  std::vector<int32_t> best_ids_;       ///< [rows, k] of a cache.
  std::vector<float> best_log_p_;
  std::vector<LossScratch> scratch_;
};

}  // namespace slmc::libtorch

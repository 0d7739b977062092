// What a training run is, torch-free: training_stage.cc fills a TrainingJob and LibTorch's module
// carries it out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/json.h"
#include "compress/core/stage.h"
#include "distill/data.h"
#include "distill/on_policy.h"
#include "distill/rounding.h"
#include "distill/schedule.h"
#include "distill/teacher_cache.h"
#include "formats/lora.h"
#include "formats/model.h"

namespace slmc {

/// AdamW (Loshchilov & Hutter 2019, algorithm 2) with decoupled decay of matrices only, never of
/// norms and biases.
struct AdamOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;  ///< Bound of the gradient's global L2 norm; 0: none.
};

/// One step's loss: weight * the losses of the mixture (times T^2 where they compare
/// distributions) + ce_weight * cross-entropy, averaged over the step's learned tokens.
struct LossOptions {
  std::string loss = "cross_entropy";  ///< What parse_losses takes.
  double weight = 1.0;
  double ce_weight = 0.0;
  double temperature = 1.0;
};

/// Tensors that are trained, in the order in which the trainer keeps them: matrices first, so that
/// decay has one boundary.
struct ParameterSlot {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  ///< In elements, in the flat buffer.
  int64_t size = 0;
  bool decay = false;
};
struct ParameterLayout {
  std::vector<ParameterSlot> slots;
  int64_t total = 0;
  int64_t decayed = 0;  ///< Elements [0, decayed) are matrices.
  bool has(const std::string& name) const;
  const ParameterSlot& find(const std::string& name) const;
};
/// q, k, v lie together, as do gate and up, so that each group is one matrix for LibTorch.
ParameterLayout parameter_layout(const Architecture& arch);
/// Of the blocks from `first_layer` on, the output norm and an untied head; the rest is frozen.
ParameterLayout upper_layout(const Architecture& arch, int64_t first_layer);
/// A and B of every target.
ParameterLayout lora_layout(const Lora& lora);

/// How a run ends up as files, and what those are worth. Filled by the stage, called by the
/// trainer.
struct TrainingProduct {
  /// Writes what the tensors of the layout, `trained`, give as `path`, whole or not at all,
  /// replacing what is there.
  std::function<void(const WeightSource& trained, const std::string& path)> write;
  /// Held-out figures of what was written as `path`, by the runtime: an object with "perplexity"
  /// and perhaps "against", or of a classifier with "accuracy". Empty: nothing is measured.
  std::function<Json(const std::string& path)> measure;
  std::string path;  ///< The run's output. Candidates for it are written beside it.
};

/// Positions whose logits a lane holds at once: 32 MB of them, but no fewer than keep the head's
/// product efficient; on a device, whose products want more, 8 times as many.
constexpr int64_t head_rows(int64_t vocab, bool on_cpu) {
  return std::clamp<int64_t>((int64_t{8} << 20) / vocab / 16 * 16, 48, 256) * (on_cpu ? 1 : 8);
}

struct TrainingJob {
  LossOptions loss;
  AdamOptions adam;
  LearningRate rate;
  int64_t steps = 0;
  int64_t windows_per_step = 0;  ///< Windows of one optimizer step, all accumulation included.
  int64_t micro_windows = 1;     ///< Windows of one forward pass; bounds memory.
  int64_t lanes = 1;  ///< Gradient buffers; at most this many threads train at once. Results depend
                      ///< on it, not on threads.
  int64_t head_rows = 256;  ///< Positions whose logits are in memory at once, a lane.
  bool recompute = false;   ///< Blocks run again in the backward pass.
  bool bf16 = false;  ///< Matrix products of the blocks round both sides to bf16; weights, their
                      ///< moments, sums and everything else stay f32 (Micikevicius et al. 2018).
  bool plain_operators = false;  ///< LibTorch's operators on the cpu too, in place of our kernels,
                                 ///< as on other devices.
  int64_t checkpoint_every = 0;  ///< Steps; 0: only on interruption.
  int64_t eval_every = 0;        ///< Steps; 0: only at the end, if there is text.
  int64_t patience = 0;          ///< Measurements without a better one that end the run; 0: never.
  bool keep_sparsity = false;    ///< Weights that are zero at the start stay zero.

  /// Not empty: the network runs on what these types hold of the trained weights (rounding.h).
  StoredTypes stored;
  bool learned_scales = false;  ///< Their scales are slots of `layout` (learned_scales.h).

  ParameterLayout layout;                       ///< What is trained.
  std::shared_ptr<const WeightSource> start;    ///< Its first values.
  std::shared_ptr<const WeightSource> student;  ///< The network; what `layout` has not is frozen.
  /// Not empty: what blocks below all that is trained give of a window is kept in a file there
  /// after the first pass; no loss may compare hidden states.
  std::string frozen_states_folder;
  std::shared_ptr<const Lora> lora;             ///< Adapters, whose values `layout` has; or null.
  std::shared_ptr<const WeightSource> teacher;  ///< Null: none in memory.
  std::shared_ptr<const TeacherCache> cache;    ///< In its place, if `data` is its text.
  int64_t real_vocab =
      0;  ///< Tokens that exist; rows beyond are padding and left out of the distillation loss.
  PackedData data;
  OnPolicy on_policy;  ///< Steps that learn from the student's own samples; needs `teacher`.
  /// Windows of the cache held back from training, from `first_eval_window`.
  PackedData eval_data;
  int64_t first_eval_window = 0;
  uint64_t seed = 0;

  TrainingProduct product;
  std::string checkpoint_folder;  ///< Kept when a run ends early, removed when it succeeds.
  std::string metrics_path;       ///< A JSON line a step that is logged.
  Json conditions;  ///< What must be the same on resuming: options, hashes of data and weights.
};

/// What a few passes foretell of a run, evaluations and writing apart.
struct TrainingForecast {
  int64_t tokens = 0;  ///< That were probed.
  double seconds = 0;  ///< Of all steps.
  uint64_t peak_bytes = 0;
};
/// "12 min and 1.20 GB of memory, by a probe of 2.0k tokens".
std::string forecast_text(const TrainingForecast& forecast);
/// The plan's time and memory become what was measured.
void take_forecast(const TrainingForecast& forecast, Plan& plan);

}  // namespace slmc

// What a training run is, torch-free: the distill stage fills a TrainingJob and LibTorch's module
// carries it out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/json.h"
#include "distill/data.h"
#include "distill/schedule.h"
#include "distill/teacher_cache.h"
#include "formats/model.h"
#include "formats/model_writer.h"

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

/// One step's loss: weight * T^2 * distillation(teacher_T, student_T) + ce_weight * cross-entropy,
/// averaged over the step's learned tokens.
struct LossOptions {
  std::string loss = "forward_kl";  ///< A file of distill/losses/.
  double weight = 1.0;
  double ce_weight = 0.0;
  double temperature = 1.0;
};

struct TrainingJob {
  LossOptions loss;
  AdamOptions adam;
  LearningRate rate;
  int64_t steps = 0;
  int64_t windows_per_step = 0;  ///< Windows of one optimizer step, all accumulation included.
  int64_t micro_windows = 1;     ///< Windows of one forward pass; bounds memory.
  int64_t lanes = 1;  ///< Gradient buffers; at most this many threads train at once. Results depend
                      ///< on it, not on threads.
  int64_t head_rows = 256;       ///< Positions whose logits are in memory at once, a lane.
  int64_t checkpoint_every = 0;  ///< Steps; 0: only on interruption.
  int64_t eval_every = 0;        ///< Steps; 0: only at the end, if there is text.
  bool keep_sparsity = false;    ///< Weights that are zero at the start stay zero.
  DType save_dtype = DType::kBF16;

  std::shared_ptr<const WeightSource> student;
  std::shared_ptr<const WeightSource> teacher;  ///< Null: none in memory.
  std::shared_ptr<const TeacherCache> cache;    ///< In its place, if `data` is its text.
  int64_t real_vocab =
      0;  ///< Tokens that exist; rows beyond are padding and left out of the distillation loss.
  PackedData data;
  PackedData
      eval_data;  ///< Empty: no held-out loss. With a cache: its windows from `first_eval_window`.
  int64_t first_eval_window = 0;
  uint64_t seed = 0;

  OutputSpec output;              ///< path, config, assets; the module adds the tensors.
  std::string checkpoint_folder;  ///< Kept when a run ends early, removed when it succeeds.
  std::string metrics_path;       ///< A JSON line a step that is logged.
  Json conditions;  ///< What must be the same on resuming: options, hashes of data and weights.
};

/// Tensors of the student in the order in which the trainer keeps them: matrices first, so that
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
  const ParameterSlot& find(const std::string& name) const;
};
/// q, k, v lie together, as do gate and up, so that each group is one matrix for LibTorch.
ParameterLayout parameter_layout(const Architecture& arch);

}  // namespace slmc

// Where a student's first weights come from: layers of the teacher, a checkpoint, or a
// configuration with seeded random weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/json.h"
#include "formats/family.h"
#include "formats/model.h"

namespace slmc {

struct Student {
  std::shared_ptr<const WeightSource> weights;
  Architecture arch;
  Json config;                           ///< Starting point of the output's config.json.
  std::string origin;                    ///< "layers 0, 2, 5, 7 of T", for plan and report.
  std::vector<int64_t> layers;           ///< Of the teacher, when it was built from it.
  std::shared_ptr<const Model> model{};  ///< The checkpoint that it is, or null.
  bool new_head = false;                 ///< Its head was made anew: `with_classes`.
};

/// The teacher's tensors with `layers` renumbered 0, 1, ...; nothing is copied.
Student student_from_layers(std::shared_ptr<const Model> teacher,
                            const std::vector<int64_t>& layers);
/// Random weights: matrices normal with deviation initializer_range (0.02 if absent), attn_output
/// and ffn_down divided by sqrt(2 * layers) (GPT-2's rule), norms 1, biases 0; each tensor has its
/// own stream of `seed` and its name. With `allocate` false the tensors are left out, for a plan.
Student student_from_config(const std::string& config_path, uint64_t seed, bool allocate);
Student student_from_checkpoint(const std::string& path);

/// Of the architecture's tensors, into `parameters`.
void count_parameters(Architecture& arch);
/// f32: normal with this deviation, from the tensor's own stream of `seed`; or, where that is 0,
/// `constant`.
TensorView random_tensor(const TensorSpec& spec, double deviation, uint64_t seed,
                         float constant = 0);

}  // namespace slmc

// Which blocks a loss over hidden states compares, and the projections that it learns along where a
// student is not as wide as its teacher: trained and resumed as weights are, never exported.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distill/loss_mixture.h"
#include "formats/model.h"

namespace slmc {

struct ParameterLayout;

/// Blocks counted from 0; what is compared is what they give.
struct HiddenPair {
  int64_t student = 0, teacher = 0;
  std::string projection;  ///< [teacher's width, student's width]; empty: the widths are the same.
};

/// The pairs of term `term` of a mixture; none if that is no loss over hidden states. Throws
/// Error(kUsage) for a block that is not there.
std::vector<HiddenPair> hidden_pairs(const LossMixture& losses, size_t term,
                                     const Architecture& student, const Architecture& teacher);

/// Adds the projections to what is trained, without weight decay.
void add_projections(const LossMixture& losses, const Architecture& student,
                     const Architecture& teacher, ParameterLayout& layout);
/// Their first values: normal, deviation 1 / sqrt(student's width), each from its own stream of
/// `seed`.
std::shared_ptr<const WeightSource> initial_projections(const LossMixture& losses,
                                                        const Architecture& student,
                                                        const Architecture& teacher, uint64_t seed);

}  // namespace slmc

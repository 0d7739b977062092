// What a run learns (the next token, masked tokens, classes of texts) follows from its data and the
// student's head.
#pragma once

#include "distill/sources.h"

namespace slmc {

/// Sets `sources`' objective and, for labelled data, its texts and classes, for which the student
/// gets a head (from `seed`) if it has another. Throws Error for data that the student cannot
/// learn.
void choose_objective(const DistillOptions& options, uint64_t seed, Sources& sources);
/// Throws Error for a teacher that says something else than the student is to say, held-out texts
/// with other labels, or an output that cannot hold the student's head.
void check_objective(const DistillOptions& options, const Sources& sources);

}  // namespace slmc

// Classification heads: which classes a run is about, and a head for them where an encoder has
// none.
#pragma once

#include <string>
#include <vector>

#include "distill/student.h"
#include "distill/training.h"

namespace slmc {

/// The names of a classifier's classes; none of a model with another head.
std::vector<std::string> classes_of(const Architecture& arch, const Json& config);

/// The student, which must be an encoder, with a head for these classes: its own if it has that,
/// else a new one as transformers makes it (matrices normal with deviation initializer_range, from
/// `seed`, biases 0), for which a pooler that the checkpoint carries is used. The configuration
/// says the class names. Throws Error(kUnsupported) if the family has no classifier.
Student with_classes(Student student, const std::vector<std::string>& names, uint64_t seed);

/// Adds the classification head to what is trained.
void add_head(const Architecture& arch, ParameterLayout& layout);

}  // namespace slmc

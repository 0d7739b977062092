// What a distillation starts from: the teacher (a model, or what it said, from a cache) and the
// student.
#pragma once

#include <memory>

#include "distill/stage.h"
#include "distill/student.h"
#include "distill/teacher_cache.h"
#include "formats/model.h"

namespace slmc {

struct Sources {
  std::shared_ptr<const Model> teacher;       ///< Null: none given, or a cache.
  std::shared_ptr<const TeacherCache> cache;  ///< Null: none given, or a model.
  Student student;
  bool uses_teacher = false;  ///< Whether its distributions are the target.
};

/// Opens them. `allocate`: random weights of a student from a config.json are made, from `seed`.
/// Throws Error as Model::open and TeacherCache::open do, and Error(kUsage) for a student that
/// cannot be built from this teacher.
Sources open_sources(const DistillOptions& options, uint64_t seed, bool allocate);
/// Throws Error(kUsage) or Error(kBadInput) for options that contradict each other or the sources.
void check_options(const DistillOptions& options, const Sources& sources);

}  // namespace slmc

// What a distillation starts from: the teacher (a model, or what it said, from a cache) and the
// student.
#pragma once

#include <memory>

#include "distill/classes.h"
#include "distill/stage.h"
#include "distill/student.h"
#include "distill/teacher_cache.h"
#include "distill/training.h"
#include "distill/vocabulary.h"
#include "formats/model.h"

namespace slmc {

struct Sources {
  std::shared_ptr<const Model> teacher;       ///< Null: none given, or a cache.
  std::shared_ptr<const TeacherCache> cache;  ///< Null: none given, or a model.
  Student student;
  bool uses_teacher = false;  ///< Whether its distributions are the target.
  Objective objective = Objective::kNextToken;
  std::vector<LabelledText> labelled{};  ///< kClass: the training texts ...
  std::vector<std::string> classes{};    ///< ... and the names of their classes.
};

/// Opens them. `allocate`: random weights of a student from a config.json are made, from `seed`.
/// Throws Error as Model::open and TeacherCache::open do, and Error(kUsage) for a student that
/// cannot be built from this teacher.
Sources open_sources(const DistillOptions& options, uint64_t seed, bool allocate);
/// Tokens of a window: --context, or of texts with labels their mean, about.
int64_t window_tokens(const DistillOptions& options, const Sources& sources);
/// "windows of 256 tokens".
std::string window_text(const DistillOptions& options, const Sources& sources);
/// Throws Error(kUnsupported) for a student whose weights are quantized.
void require_float_weights(const DistillOptions& options, const Sources& sources);
/// Throws Error(kUsage) or Error(kBadInput) for options that contradict each other or the sources.
void check_options(const DistillOptions& options, const Sources& sources);
/// What the teacher gives, in a sentence for the plan.
std::string teacher_note(const DistillOptions& options, const Sources& sources);
/// Windows of `context` tokens that there will be to train on; from a text's bytes a rough figure.
int64_t expected_windows(const DistillOptions& options, const Sources& sources);
/// A job's loss, models and seed; layout, start, data and product are left to the caller.
TrainingJob begin_job(const DistillOptions& options, const Sources& sources,
                      const Vocabulary& vocabulary, const Context& context);
/// With losses over hidden states: adds their projections to what `job` trains and starts from.
void add_hidden_states(const DistillOptions& options, const Sources& sources,
                       const Context& context, TrainingJob& job);
/// With --qat and learned scales: adds those to what `job` trains and starts from.
void add_learned_scales(const DistillOptions& options, TrainingJob& job);
/// Floats a position that those losses hold: states of the teacher, of the student through its
/// projection, and a gradient.
int64_t compared_floats(const DistillOptions& options, const Sources& sources);
/// What must be the same when a run is resumed.
Json run_conditions(const DistillOptions& options, const Sources& sources, const TrainingJob& job,
                    const Context& context);
/// A cache's text is packed already: its context and ends of documents hold.
void take_from_cache(DistillOptions& options, const Sources& sources);
/// The run's tokenizer: the cache's, or what student and teacher share.
Vocabulary vocabulary_of(const DistillOptions& options, const Sources& sources);
/// Fills `job`'s text, from files or the cache, of which windows may be held out. Throws
/// Error(kBadInput) for other text than the cache was captured from.
void load_data(const DistillOptions& options, const Sources& sources, const Vocabulary& vocabulary,
               Context& context, TrainingJob& job);

}  // namespace slmc

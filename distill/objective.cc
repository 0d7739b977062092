#include "distill/objective.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "distill/classes.h"
#include "formats/family.h"
#include "formats/labels.h"

namespace slmc {
namespace {

/// The classes of labelled data: as asked for, or the student's or the teacher's own, or what the
/// data has.
std::vector<std::string> choose_classes(const DistillOptions& o, const Sources& sources) {
  std::vector<std::string> names = o.labels;
  if (names.empty()) names = classes_of(sources.student.arch, sources.student.config);
  if (names.empty() && sources.teacher != nullptr)
    names = classes_of(sources.teacher->arch(), sources.teacher->config());
  if (names.empty()) names = distinct_labels(sources.labelled);
  if (names.size() < 2)
    throw_bad_input(cat("labels: expected at least two different ones, found ", names.size()));
  for (size_t i = 0; i < names.size(); ++i)
    if (class_of(names, names[i]) != static_cast<int64_t>(i))
      throw_usage(cat("labels: '", names[i], "' is named twice"));
  return names;
}

/// Throws for a teacher that says something else than the student is to say.
void check_teacher(const DistillOptions& o, const Sources& sources) {
  if (sources.teacher == nullptr) return;
  const auto kind = [](Head head) {
    return head == Head::kLanguage ? "gives the next token"
           : head == Head::kMasked ? "guesses masked tokens"
           : head == Head::kStates ? "has no head"
                                   : "classifies texts";
  };
  const Architecture &student = sources.student.arch, &teacher = sources.teacher->arch();
  if (teacher.head != student.head)
    throw_unsupported(cat(o.teacher, ": the teacher ", kind(teacher.head), ", the student ",
                          kind(student.head), "; both must do the same"));
  const std::vector<std::string> theirs = classes_of(teacher, sources.teacher->config());
  if (theirs == sources.classes) return;
  size_t i = 0;
  while (i < std::min(theirs.size(), sources.classes.size()) && theirs[i] == sources.classes[i])
    ++i;
  const auto name = [&](const auto& names) { return i < names.size() ? names[i] : "none"; };
  throw_unsupported(cat(o.teacher, ": class ", i, " is '", name(theirs), "' of the teacher and '",
                        name(sources.classes),
                        "' of the student; give the labels in the teacher's "
                        "order, or leave out --labels"));
}

/// Held-out texts whose labels are known.
void check_held_out(const DistillOptions& o, const Sources& sources) {
  if (sources.objective != Objective::kClass || o.eval_text.empty()) return;
  for (const LabelledText& text : read_labelled({o.eval_text}))
    if (class_of(sources.classes, text.label) < 0)
      throw_bad_input(cat(text.source, ": label '", text.label, "' is none of the ",
                          sources.classes.size(), " classes",
                          did_you_mean(text.label, sources.classes)));
}

/// A masked head has no GGUF, and a run must not find that out at its end.
void check_container(const DistillOptions& o, const Sources& sources) {
  if (!o.output.ends_with(".gguf") || !sources.student.arch.encoder) return;
  GgufKeys keys;
  family_by_name(sources.student.arch.family).to_gguf(sources.student.arch, keys);
}

}  // namespace

void choose_objective(const DistillOptions& o, uint64_t seed, Sources& sources) {
  Student& student = sources.student;
  const bool labelled = sources.cache == nullptr && is_labelled(o.data);
  if (!labelled && !o.labels.empty())
    throw_usage("labels: names classes, and --data has none; give lines {\"text\", \"label\"}");
  if (labelled) {
    if (!student.arch.encoder)
      throw_unsupported(cat(o.data.front(), ": texts with labels are for encoders, and ",
                            student.origin,
                            " is a decoder; give lines {\"prompt\", \"response\"} "
                            "whose response is the label"));
    sources.objective = Objective::kClass;
    sources.labelled = read_labelled(o.data);
    sources.classes = choose_classes(o, sources);
    student = with_classes(std::move(student), sources.classes, seed);
  } else if (student.arch.head == Head::kMasked) {
    sources.objective = Objective::kMaskedToken;
  } else if (student.arch.encoder) {
    throw_unsupported(
        cat(student.origin,
            ": an encoder without a masked-language head learns from labels; give lines "
            "{\"text\", \"label\"}, or a checkpoint whose architecture is ...ForMaskedLM"));
  }
}

void check_objective(const DistillOptions& o, const Sources& sources) {
  check_teacher(o, sources);
  check_held_out(o, sources);
  check_container(o, sources);
}

}  // namespace slmc

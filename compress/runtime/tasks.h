// Task files: JSON lines that say what a model should answer. Reading them, judging answers, and
// the figures that come of it; the part that runs a model is tasks_run.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/json.h"

namespace slmc {

enum class TaskKind { kMultipleChoice, kExactMatch, kClassification, kFields };
/// "multiple_choice", "exact_match", "classification", "fields".
std::string_view task_kind_name(TaskKind kind);

/// Name and value pairs in order.
using FieldValues = std::vector<std::pair<std::string, std::string>>;

struct TaskExample {
  std::string prompt{};                ///< "query", "prompt" or "text".
  std::string pair{};                  ///< "text_pair", of labels; empty: none.
  std::vector<std::string> choices{};  ///< Multiple choice.
  int64_t gold = 0;                    ///< Index among the choices, or among the task's labels.
  std::string answer{};                ///< Exact match.
  FieldValues fields{};                ///< Field extraction; empty values are left out.
  std::string label_field{};           ///< The field whose accuracy is reported.
  std::string group{};
};

struct Task {
  std::string name;  ///< File name without folder and ending.
  std::string file;
  TaskKind kind = TaskKind::kMultipleChoice;
  std::vector<std::string> labels;  ///< Classification: all labels of the file, sorted.
  bool by_head = false;             ///< Judged by a classification head, not by likelihoods.
  std::vector<TaskExample> examples;
};

/// Reads one file; all lines must be of one kind. Blank lines are skipped. `limit`: only the first
/// examples (labels come from the whole file); 0: all. Throws Error(kBadInput) naming file and
/// line.
Task read_task(const std::string& file, int64_t limit);
/// The kind of the file's first line; reads no further. Throws as read_task.
TaskKind peek_task_kind(const std::string& file);

/// What the model made of one example. Which members count follows from the task's kind.
struct TaskOutcome {
  bool correct = false;             ///< For fields: the label field is right.
  bool correct_normalised = false;  ///< By log-likelihood per byte of the choice.
  int32_t slots_gold = 0, slots_predicted = 0, slots_correct = 0;  ///< All fields but the label.
  bool truncated = false;  ///< The prompt lost its beginning (for a classification head its end),
                           ///< because it was longer than the model's context.
  int64_t gold_class = -1, predicted_class = -1;  ///< Classification, in one numbering.
  double nll = 0;                                 ///< Of the right class, by a head, in nats.
};

/// The lines "name: value" of an output, trimmed, in order; ends at the first blank line after a
/// line with text. Other lines are skipped.
FieldValues parse_fields(std::string_view output);
/// Compares a prediction with `example.fields`. A predicted field counts if name and value are
/// equal; of a name that comes twice the first counts and the others are wrong.
TaskOutcome judge_fields(const TaskExample& example, const FieldValues& predicted);
/// `text` without white space at both ends.
std::string_view trimmed(std::string_view text);

/// "kind, n, accuracy, accuracy_low, accuracy_high" (Wilson), for labels "macro_f1" (the mean over
/// the classes that are right or were chosen anywhere) and by a head "cross_entropy", for choices
/// and for labels by likelihood "accuracy_normalised" with its ends, for fields "precision, recall,
/// f1, f1_low, f1_high" (bootstrap over examples), "truncated" if any prompt was, and "groups" if
/// there are any. Sizes of both are equal.
Json summarize_task(const Task& task, std::span<const TaskOutcome> outcomes, uint64_t seed);

}  // namespace slmc

#include "compress/runtime/tasks.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "compress/core/error.h"
#include "compress/core/lines.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "compress/runtime/statistics.h"
#include "formats/labels.h"

namespace slmc {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";
constexpr int kResamples = 2000;

// One line of a task file with accessors whose errors name it.
class TaskLine {
 public:
  TaskLine(std::string_view text, const std::string& where)
      : where_(where), json_(parse_line(text, where)) {}
  bool has(const char* key) const { return json_.contains(key); }
  std::string text(const char* key) const {
    if (!has(key) || !json_[key].is_string()) fail(key, "a string");
    return json_[key].get<std::string>();
  }
  const Json& value(const char* key) const { return json_[key]; }
  std::string label() const {
    const std::string label = label_of(json_);
    if (label.empty()) fail("label", "a non-empty string or an integer");
    return label;
  }
  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    throw_bad_input(cat(where_, ": \"", key, "\": expected ", expected, ", found ",
                        has(key) ? json_[key].type_name() : "nothing"));
  }
  TaskKind kind() const {
    if (has("choices")) return TaskKind::kMultipleChoice;
    if (has("fields")) return TaskKind::kFields;
    if (has("answer")) return TaskKind::kExactMatch;
    if (has("label")) return TaskKind::kClassification;
    throw_bad_input(cat(where_,
                        ": not a task: expected \"choices\" (with query, gold), \"answer\" (with "
                        "prompt), \"fields\" (with prompt, label) or \"label\" (with text)"));
  }
  const std::string& where() const { return where_; }

 private:
  std::string where_;
  Json json_;
};

void read_choices(const TaskLine& line, TaskExample& example) {
  example.prompt = line.text("query");
  if (!line.value("choices").is_array() || line.value("choices").size() < 2)
    line.fail("choices", "an array of at least two strings");
  for (const Json& choice : line.value("choices")) {
    if (!choice.is_string() || choice.get<std::string>().empty())
      line.fail("choices", "non-empty strings");
    example.choices.push_back(choice.get<std::string>());
  }
  const int64_t count = static_cast<int64_t>(example.choices.size());
  if (!line.has("gold") || !line.value("gold").is_number_integer())
    line.fail("gold", "the index of the right choice");
  example.gold = line.value("gold").get<int64_t>();
  if (example.gold < 0 || example.gold >= count)
    throw_bad_input(cat(line.where(), ": \"gold\": expected an index from 0 to ", count - 1,
                        ", found ", example.gold));
}

void read_fields(const TaskLine& line, TaskExample& example) {
  example.prompt = line.text("prompt");
  example.label_field = line.text("label");
  if (!line.value("fields").is_object()) line.fail("fields", "an object of strings");
  bool labelled = false;
  for (const auto& [name, value] : line.value("fields").items()) {
    if (!value.is_string()) line.fail("fields", "an object of strings");
    const std::string text(trimmed(value.get_ref<const std::string&>()));
    if (!text.empty()) example.fields.emplace_back(trimmed(name), text);
    labelled |= name == example.label_field && !text.empty();
  }
  if (!labelled)
    throw_bad_input(cat(line.where(), ": \"label\" names the field '", example.label_field,
                        "', which \"fields\" does not have"));
}

TaskExample read_example(const TaskLine& line, TaskKind kind) {
  TaskExample example;
  if (line.has("group")) example.group = line.text("group");
  switch (kind) {
    case TaskKind::kMultipleChoice:
      read_choices(line, example);
      break;
    case TaskKind::kFields:
      read_fields(line, example);
      break;
    case TaskKind::kExactMatch:
      example.prompt = line.text("prompt");
      example.answer = std::string(trimmed(line.text("answer")));
      if (example.answer.empty()) line.fail("answer", "a string with more than white space");
      break;
    case TaskKind::kClassification:
      example.prompt = line.text("text");
      if (line.has("text_pair")) example.pair = line.text("text_pair");
      if (line.has("text_pair") && example.pair.empty()) line.fail("text_pair", "a text");
      example.answer = line.label();
      break;
  }
  if (example.prompt.empty()) throw_bad_input(cat(line.where(), ": the prompt is empty"));
  return example;
}

// Calls visit(TaskLine) for each line until it returns false.
void for_each_example(const std::string& file, const std::function<bool(const TaskLine&)>& visit) {
  for_each_line(read_text(file), file, [&](std::string_view line, const std::string& where) {
    return visit(TaskLine(line, where));
  });
}

std::string stem_of(const std::string& file) {
  const size_t slash = file.find_last_of('/');
  const std::string name = slash == std::string::npos ? file : file.substr(slash + 1);
  const size_t dot = name.find_last_of('.');
  return dot == std::string::npos || dot == 0 ? name : name.substr(0, dot);
}

struct SlotCounts {
  int64_t gold = 0, predicted = 0, correct = 0;
  void add(const TaskOutcome& outcome) {
    gold += outcome.slots_gold, predicted += outcome.slots_predicted,
        correct += outcome.slots_correct;
  }
  // Nothing to find and nothing found is perfect.
  static double ratio(int64_t part, int64_t whole) {
    return whole == 0 ? 1.0 : static_cast<double>(part) / static_cast<double>(whole);
  }
  double precision() const { return ratio(correct, predicted); }
  double recall() const { return ratio(correct, gold); }
  double f1() const { return ratio(2 * correct, gold + predicted); }
};

// The mean of each class's F1, as scikit-learn's average="macro".
double macro_f1(const std::vector<TaskOutcome>& outcomes) {
  struct Counts {
    int64_t right = 0, gold = 0, predicted = 0;
  };
  std::map<int64_t, Counts> classes;
  for (const TaskOutcome& outcome : outcomes) {
    ++classes[outcome.gold_class].gold;
    ++classes[outcome.predicted_class].predicted;
    if (outcome.gold_class == outcome.predicted_class) ++classes[outcome.gold_class].right;
  }
  double sum = 0;
  for (const auto& [number, counts] : classes)
    sum += 2.0 * static_cast<double>(counts.right) /
           static_cast<double>(counts.gold + counts.predicted);
  return sum / static_cast<double>(std::max<size_t>(1, classes.size()));
}

Json figures(const Task& task, const std::vector<TaskOutcome>& outcomes, uint64_t seed) {
  const TaskKind kind = task.kind;
  const int64_t n = static_cast<int64_t>(outcomes.size());
  int64_t correct = 0, normalised = 0, truncated = 0;
  SlotCounts slots;
  for (const TaskOutcome& outcome : outcomes) {
    correct += outcome.correct ? 1 : 0;
    normalised += outcome.correct_normalised ? 1 : 0;
    truncated += outcome.truncated ? 1 : 0;
    slots.add(outcome);
  }
  Json json = {{"n", n}};
  if (truncated > 0) json["truncated"] = truncated;
  put_proportion(json, "accuracy", correct, n);
  if (kind == TaskKind::kClassification) json["macro_f1"] = macro_f1(outcomes);
  if (task.by_head) {
    double nll = 0;
    for (const TaskOutcome& outcome : outcomes) nll += outcome.nll;
    json["cross_entropy"] = nll / static_cast<double>(std::max<int64_t>(1, n));
  } else if (kind == TaskKind::kMultipleChoice || kind == TaskKind::kClassification) {
    put_proportion(json, "accuracy_normalised", normalised, n);
  }
  if (kind != TaskKind::kFields) return json;
  const Interval interval =
      bootstrap_interval(n, seed, kResamples, [&](std::span<const int64_t> draw) {
        SlotCounts drawn;
        for (int64_t index : draw) drawn.add(outcomes[static_cast<size_t>(index)]);
        return drawn.f1();
      });
  json["f1"] = slots.f1();
  json["f1_low"] = interval.low;
  json["f1_high"] = interval.high;
  json["precision"] = slots.precision();
  json["recall"] = slots.recall();
  return json;
}

}  // namespace

std::string_view task_kind_name(TaskKind kind) {
  switch (kind) {
    case TaskKind::kMultipleChoice:
      return "multiple_choice";
    case TaskKind::kExactMatch:
      return "exact_match";
    case TaskKind::kClassification:
      return "classification";
    case TaskKind::kFields:
      return "fields";
  }
  return "";
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos
             ? std::string_view()
             : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

Task read_task(const std::string& file, int64_t limit) {
  Task task;
  task.name = stem_of(file);
  task.file = file;
  std::set<std::string> labels;
  bool first = true;
  for_each_example(file, [&](const TaskLine& line) {
    if (first) task.kind = line.kind();
    if (line.kind() != task.kind)
      throw_bad_input(cat(line.where(), ": expected a task of kind ", task_kind_name(task.kind),
                          " as in the lines before, found ", task_kind_name(line.kind())));
    first = false;
    const bool full = limit > 0 && static_cast<int64_t>(task.examples.size()) >= limit;
    if (full && task.kind != TaskKind::kClassification) return false;
    TaskExample example = read_example(line, task.kind);
    if (task.kind == TaskKind::kClassification) labels.insert(example.answer);
    if (!full) task.examples.push_back(std::move(example));
    return true;
  });
  if (task.examples.empty()) throw_bad_input(cat(file, ": expected a task a line, found none"));
  task.labels.assign(labels.begin(), labels.end());
  if (task.kind == TaskKind::kClassification && task.labels.size() < 2)
    throw_bad_input(
        cat(file, ": expected at least two different labels, found only '", task.labels[0], "'"));
  for (TaskExample& example : task.examples) {
    if (task.kind == TaskKind::kClassification)
      example.gold = std::lower_bound(task.labels.begin(), task.labels.end(), example.answer) -
                     task.labels.begin();
  }
  return task;
}

TaskKind peek_task_kind(const std::string& file) {
  TaskKind kind = TaskKind::kMultipleChoice;
  bool found = false;
  for_each_example(file, [&](const TaskLine& line) {
    kind = line.kind();
    static_cast<void>(read_example(line, kind));
    found = true;
    return false;
  });
  if (!found) throw_bad_input(cat(file, ": expected a task a line, found none"));
  return kind;
}

FieldValues parse_fields(std::string_view output) {
  FieldValues fields;
  bool started = false;
  while (!output.empty()) {
    const size_t end = std::min(output.find('\n'), output.size());
    const std::string_view line = trimmed(output.substr(0, end));
    output.remove_prefix(std::min(end + 1, output.size()));
    if (line.empty() && started) break;
    started |= !line.empty();
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view name = trimmed(line.substr(0, colon)),
                           value = trimmed(line.substr(colon + 1));
    if (!name.empty() && !value.empty()) fields.emplace_back(name, value);
  }
  return fields;
}

TaskOutcome judge_fields(const TaskExample& example, const FieldValues& predicted) {
  TaskOutcome outcome;
  std::map<std::string, std::string> gold(example.fields.begin(), example.fields.end());
  for (const auto& [name, value] : example.fields)
    outcome.slots_gold += name == example.label_field ? 0 : 1;
  std::set<std::string> seen;
  for (const auto& [name, value] : predicted) {
    const bool first = seen.insert(name).second;
    const auto found = gold.find(name);
    const bool right = first && found != gold.end() && found->second == value;
    if (name == example.label_field) {
      outcome.correct |= right;
    } else {
      ++outcome.slots_predicted;
      outcome.slots_correct += right ? 1 : 0;
    }
  }
  return outcome;
}

Json summarize_task(const Task& task, std::span<const TaskOutcome> outcomes, uint64_t seed) {
  SLMC_CHECK(outcomes.size() == task.examples.size(), "one outcome an example");
  Json json = {{"kind", task_kind_name(task.kind)}};
  json.update(figures(task, {outcomes.begin(), outcomes.end()}, seed));
  std::map<std::string, std::vector<TaskOutcome>> groups;
  for (size_t i = 0; i < outcomes.size(); ++i)
    groups[task.examples[i].group].push_back(outcomes[i]);
  if (groups.size() == 1 && groups.begin()->first.empty()) return json;
  json["groups"] = Json::object();
  for (const auto& [name, members] : groups)
    json["groups"][name.empty() ? "(none)" : name] = figures(task, members, seed);
  return json;
}

}  // namespace slmc

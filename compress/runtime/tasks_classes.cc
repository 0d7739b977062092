// Classification by an encoder's head: the text goes in, the best of its classes comes out.
#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/runtime/evaluate_score.h"
#include "compress/runtime/not_finite.h"
#include "compress/runtime/tasks_run.h"
#include "formats/labels.h"

namespace slmc {

std::vector<TaskOutcome> run_classes(const Task& task, const Encoder& encoder,
                                     const Tokenizer& tokenizer,
                                     const std::vector<std::string>& names, Context& context) {
  if (task.kind != TaskKind::kClassification)
    throw_unsupported(
        cat(task.file, ": a task of kind ", task_kind_name(task.kind),
            "; a classification head answers texts, or pairs of them, with a \"label\""));
  for (const std::string& label : task.labels)
    if (class_of(names, label) < 0)
      throw_bad_input(cat(task.file, ": label '", label, "' is none of the model's ", names.size(),
                          " classes", did_you_mean(label, names)));
  const int64_t classes = encoder.columns();
  const auto run = [&](const TaskExample& example) {
    TaskOutcome outcome;
    const Encoding text = encode_within(tokenizer, example.prompt, example.pair,
                                        encoder.arch().context, &outcome.truncated);
    const std::vector<float> logits = encoder.encode(text.ids, text.types);
    outcome.gold_class = class_of(names, example.answer);
    outcome.predicted_class = argmax(logits.data(), classes);
    outcome.correct = outcome.gold_class == outcome.predicted_class;
    outcome.nll = -log_likelihood(logits.data(), classes, static_cast<int32_t>(outcome.gold_class));
    if (!std::isfinite(outcome.nll))
      throw_not_finite(
          cat("the model gives logits that are not finite for an example of ", task.file));
    return outcome;
  };
  return run_examples(task, run, context);
}

}  // namespace slmc

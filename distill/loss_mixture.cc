#include "distill/loss_mixture.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"
#include "distill/training.h"

namespace slmc {
namespace {

double number(const std::string& text, const std::string& where, double most) {
  double value = 0;
  set_field_text({.name = "weight", .help = "", .min = 0, .max = most}, where, text, value);
  return value;
}

/// "0.7", "0..1", "1..0@0.5".
Ramp parse_ramp(const std::string& text, const std::string& loss) {
  constexpr double kMost = 1e6;
  const std::string where = cat("loss: ", loss, ": weight");
  Ramp ramp;
  const size_t at = text.find('@');
  const std::string weights = text.substr(0, at);
  const size_t dots = weights.find("..");
  ramp.first = number(weights.substr(0, dots), where, kMost);
  ramp.last =
      dots == std::string::npos ? ramp.first : number(weights.substr(dots + 2), where, kMost);
  if (at != std::string::npos)
    ramp.part = number(text.substr(at + 1), cat("loss: ", loss, ": part of the steps"), 1.0);
  return ramp;
}

LossTerm parse_term(const std::string& text) {
  LossTerm term;
  // A colon inside the parentheses belongs to the loss.
  const size_t close = text.rfind(')');
  const size_t colon = text.find(':', close == std::string::npos ? 0 : close);
  term.text = text.substr(0, colon);
  term.loss = loss_by_name(term.text);
  if (colon != std::string::npos) term.weight = parse_ramp(text.substr(colon + 1), term.text);
  return term;
}

}  // namespace

double Ramp::at(int64_t step, int64_t steps) const {
  const double length = part * static_cast<double>(std::max<int64_t>(1, steps - 1));
  const double t = length > 0 ? std::min(1.0, static_cast<double>(step) / length) : 1.0;
  return first + (last - first) * t;
}

LossMixture parse_losses(const std::string& given) {
  std::string text = given;
  std::erase(text, ' ');
  LossMixture losses;
  int depth = 0;
  for (size_t begin = 0, i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] == '(') ++depth;
    if (i < text.size() && text[i] == ')') --depth;
    if (i < text.size() && (text[i] != ',' || depth > 0)) continue;
    losses.push_back(parse_term(text.substr(begin, i - begin)));
    begin = i + 1;
  }
  for (size_t i = 0; i < losses.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      if (losses[i].text == losses[j].text)
        throw_usage(cat("loss: ", losses[i].text, " is named twice in '", given, "'"));
  return losses;
}

bool needs_teacher(const LossMixture& losses) {
  return std::any_of(losses.begin(), losses.end(),
                     [](const LossTerm& term) { return term.loss->needs_teacher(); });
}

bool weighs_unlikely(const LossMixture& losses) {
  return std::any_of(losses.begin(), losses.end(), [](const LossTerm& term) {
    return term.distribution() != nullptr && term.distribution()->weighs_unlikely();
  });
}

bool compares_hidden(const LossMixture& losses) {
  return std::any_of(losses.begin(), losses.end(),
                     [](const LossTerm& term) { return term.hidden() != nullptr; });
}

bool names_cross_entropy(const LossMixture& losses) {
  return std::any_of(losses.begin(), losses.end(),
                     [](const LossTerm& term) { return term.cross_entropy(); });
}

LossMix mix_at(const LossMixture& losses, const LossOptions& options, int64_t real_vocab,
               int64_t step, int64_t steps) {
  LossMix mix{.weight = options.weight,
              .ce_weight = options.ce_weight,
              .temperature = options.temperature,
              .real_vocab = real_vocab};
  for (size_t i = 0; i < losses.size(); ++i) {
    const double weight = losses[i].weight.at(step, steps);
    if (losses[i].cross_entropy())
      mix.ce_weight += options.weight * weight;
    else if (const HiddenLoss* hidden = losses[i].hidden())
      mix.hidden.push_back({hidden, weight, i});
    else
      mix.distill.push_back({losses[i].distribution(), weight, i});
  }
  return mix;
}

}  // namespace slmc

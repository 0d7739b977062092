#include "distill/loss.h"

#include <algorithm>
#include <sstream>
#include <string>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::vector<std::unique_ptr<Loss> (*)()>& added() {
  static std::vector<std::unique_ptr<Loss> (*)()> losses;
  return losses;
}

std::string without_spaces(std::string_view text) {
  std::string out(text);
  std::erase(out, ' ');
  return out;
}

/// "(a=1,b=2)" into the loss.
void set_parameters(Loss& loss, const std::string& text) {
  if (text.back() != ')')
    throw_usage(cat("loss: expected ')' at the end of '", loss.name(), text, "'"));
  std::vector<LossParameter> known = loss.parameters();
  std::vector<std::string> names;
  for (const LossParameter& parameter : known) names.emplace_back(parameter.name);
  std::istringstream items(text.substr(1, text.size() - 2));
  for (std::string item; std::getline(items, item, ',');) {
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const auto found = std::find(names.begin(), names.end(), key);
    if (found == names.end())
      throw_usage(cat("loss: ", loss.name(), " has no parameter '", key, "'",
                      names.empty() ? "" : cat(" (known: ", join(names, ", "), ")"),
                      did_you_mean(key, names)));
    const LossParameter& parameter = known[static_cast<size_t>(found - names.begin())];
    if (parameter.text != nullptr) {
      *parameter.text = equals == std::string::npos ? "" : item.substr(equals + 1);
      continue;
    }
    set_field_text({.name = key, .help = "", .min = parameter.min, .max = parameter.max},
                   cat("loss: ", loss.name(), ": ", key),
                   equals == std::string::npos ? "" : item.substr(equals + 1), *parameter.value);
  }
}

}  // namespace

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const auto& table : {loss_table(), added()})
    for (const auto create : table) names.emplace_back(create()->name());
  return names;
}

std::unique_ptr<Loss> loss_by_name(std::string_view text) {
  const std::string bare = without_spaces(text);
  const size_t open = bare.find('(');
  const std::string name = bare.substr(0, open);
  for (const auto& table : {loss_table(), added()})
    for (const auto create : table)
      if (auto loss = create(); loss->name() == name) {
        if (open != std::string::npos) set_parameters(*loss, bare.substr(open));
        return loss;
      }
  throw_usage(cat("loss: no loss named '", name, "' (known: ", join(loss_names(), ", "), ")",
                  did_you_mean(name, loss_names())));
}

std::string loss_list() {
  std::vector<std::string> all;
  for (const auto& table : {loss_table(), added()})
    for (const auto create : table) {
      const auto loss = create();
      std::string entry(loss->name());
      for (const LossParameter& parameter : loss->parameters())
        entry += parameter.text != nullptr ? cat("(", parameter.name, "=S:T+S:T)")
                                           : cat("(", parameter.name, "=", *parameter.value, ")");
      all.push_back(std::move(entry));
    }
  return join(all, ", ");
}

void add_loss(std::unique_ptr<Loss> (*create)()) { added().push_back(create); }

}  // namespace slmc

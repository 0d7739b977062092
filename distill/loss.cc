#include "distill/loss.h"

#include <string>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::vector<std::unique_ptr<Loss> (*)()>& added() {
  static std::vector<std::unique_ptr<Loss> (*)()> losses;
  return losses;
}

}  // namespace

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const auto& table : {loss_table(), added()})
    for (const auto create : table) names.emplace_back(create()->name());
  return names;
}

std::unique_ptr<Loss> loss_by_name(std::string_view name) {
  for (const auto& table : {loss_table(), added()})
    for (const auto create : table)
      if (auto loss = create(); loss->name() == name) return loss;
  throw_usage(cat("loss: no loss named '", name, "' (known: ", join(loss_names(), ", "), ")",
                  did_you_mean(name, loss_names())));
}

void add_loss(std::unique_ptr<Loss> (*create)()) { added().push_back(create); }

}  // namespace slmc

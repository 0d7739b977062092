// A recipe file: an ordered list of stages with the same keys as the command line's flags,
// variables, and thresholds. The format is in recipes/README.md. Reading checks everything that
// needs no file but the recipe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "recipes/expect.h"
#include "recipes/node.h"

namespace slmc {

/// The stages a recipe may name.
class StageTable {
 public:
  using Factory = std::function<std::unique_ptr<Stage>()>;
  void add(const std::string& name, Factory factory) {
    entries_.emplace_back(name, std::move(factory));
  }
  std::vector<std::string> names() const;
  /// Null for a name that is not there.
  std::unique_ptr<Stage> make(const std::string& name) const;

 private:
  std::vector<std::pair<std::string, Factory>> entries_;
};

struct RecipeStage {
  std::string verb;  ///< "quantize".
  std::string
      name;  ///< Other stages say @name; the verb unless `name:` is given ("eval", "eval-2").
  RecipeNode options;  ///< A map, variables already replaced.
  std::vector<Expectation> expectations;
  bool allow_failure =
      false;  ///< A missed threshold is shown, and the recipe goes on and may pass.
  int line = 0, column = 0;
};

struct Recipe {
  std::string file;  ///< As given; "" never.
  std::string name;
  std::string output;  ///< Folder of all results, relative to the working folder.
  std::vector<std::pair<std::string, RecipeNode>> variables;
  std::vector<RecipeStage> stages;
};

/// Reads a recipe. `settings` are "key=value" of --set: a variable, or "stage.option". Throws
/// Error(kBadInput) for what is not YAML, Error(kUsage) with file:line:column for unknown keys,
/// verbs, variables and bad conditions.
Recipe read_recipe(const std::string& path, const StageTable& table,
                   const std::vector<std::string>& settings);
/// The same from text; `path` is for messages.
Recipe parse_recipe(const std::string& text, const std::string& path, const StageTable& table,
                    const std::vector<std::string>& settings);

/// Sets `stage`'s options from `spec.options`. A value may be a scalar, a list for list options,
/// and a map for grouped ones: {r: 8, alpha: 16} becomes "r=8,alpha=16", and for a list option one
/// "key=value" a member. `resolve` turns a text of `option` into the text the stage gets:
/// references and paths. Throws Error(kUsage) naming file:line:column and the nearest key.
using ValueResolver = std::function<std::string(const FieldInfo& option, const RecipeNode& node)>;
void bind_options(const Recipe& recipe, const RecipeStage& spec, const ValueResolver& resolve,
                  Stage& stage);

}  // namespace slmc

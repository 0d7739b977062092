// A recipe's stages with all paths and references settled, ready to plan.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace slmc {

struct BoundStage {
  const RecipeStage* spec = nullptr;
  std::unique_ptr<Stage> stage;
  std::string output;  ///< Relative to the working folder or absolute; empty for a stage that
                       ///< writes nothing.
  std::vector<std::string> after;  ///< Names of the stages whose outputs it reads.
};

/// Binds all stages. In options whose value_name says that they are paths, a relative path is taken
/// from the recipe's folder (from the working folder when it came by --set); `output` from the
/// recipe's output folder; "@name" and "@name/file" are an earlier stage's output; "@@" begins a
/// text with one @. Throws Error(kUsage) with positions.
std::vector<BoundStage> bind_recipe(const Recipe& recipe, const StageTable& table);

/// True for "FILE", "MODEL", "TEACHER|CACHE"...: names that stand for something on disk.
bool names_a_path(const std::string& value_name);

}  // namespace slmc

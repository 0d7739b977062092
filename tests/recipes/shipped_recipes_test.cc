// Every shipped recipe can be read and bound: its stages, options, variables, references and gates
// exist.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "compress/core/text.h"
#include "recipes/bound.h"
#include "recipes/stages.h"

namespace slmc {
namespace {

std::vector<std::string> shipped_recipes() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(cat(SLMC_SOURCE_DIR, "/recipes")))
    if (entry.path().extension() == ".yaml") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

TEST(ShippedRecipes, BindAgainstTheStages) {
  const std::vector<std::string> paths = shipped_recipes();
  ASSERT_GE(paths.size(), 3u);
  for (const std::string& path : paths) {
    SCOPED_TRACE(path);
    const Recipe recipe = read_recipe(path, recipe_stages(), {});
    EXPECT_EQ(bind_recipe(recipe, recipe_stages()).size(), recipe.stages.size());
  }
}

// What examples/helpdesk/demo.cc looks for.
TEST(ShippedRecipes, DemoHasTheRowsOfItsTable) {
  const Recipe recipe =
      read_recipe(cat(SLMC_SOURCE_DIR, "/recipes/demo.yaml"), recipe_stages(), {});
  for (const char* name : {"teacher", "naive", "text-alone", "helpdesk"}) {
    const auto stage = std::find_if(recipe.stages.begin(), recipe.stages.end(),
                                    [&](const RecipeStage& each) { return each.name == name; });
    ASSERT_NE(stage, recipe.stages.end()) << name;
    EXPECT_EQ(stage->verb, "eval") << name;
  }
}

}  // namespace
}  // namespace slmc

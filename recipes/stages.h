// The stages that recipes may name.
#pragma once

#include "recipes/recipe.h"

namespace slmc {

const StageTable& recipe_stages();

}  // namespace slmc

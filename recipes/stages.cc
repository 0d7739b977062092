#include "recipes/stages.h"

namespace slmc {

const StageTable& recipe_stages() {
  static const StageTable table = [] {
    StageTable stages;
    return stages;
  }();
  return table;
}

}  // namespace slmc

#include "compress/cli/stage_command.h"
#include "prune/stage.h"

namespace slmc {

std::unique_ptr<Command> command_prune();
std::unique_ptr<Command> command_prune() {
  return make_stage_command(std::make_unique<PruneStage>());
}

}  // namespace slmc

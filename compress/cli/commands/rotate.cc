// `slmc rotate`: the rotation stage as a verb.
#include "compress/cli/stage_command.h"
#include "quantize/rotate_stage.h"

namespace slmc {

std::unique_ptr<Command> command_rotate();
std::unique_ptr<Command> command_rotate() {
  return make_stage_command(std::make_unique<RotateStage>());
}

}  // namespace slmc

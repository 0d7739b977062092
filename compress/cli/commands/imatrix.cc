#include "compress/cli/stage_command.h"
#include "quantize/imatrix_stage.h"

namespace slmc {

std::unique_ptr<Command> command_imatrix();
std::unique_ptr<Command> command_imatrix() {
  return make_stage_command(std::make_unique<ImatrixStage>());
}

}  // namespace slmc

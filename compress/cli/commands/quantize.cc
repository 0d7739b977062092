#include "compress/cli/stage_command.h"
#include "quantize/stage.h"

namespace slmc {

std::unique_ptr<Command> command_quantize();
std::unique_ptr<Command> command_quantize() {
  return make_stage_command(std::make_unique<QuantizeStage>());
}

}  // namespace slmc

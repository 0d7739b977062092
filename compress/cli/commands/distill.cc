// `slmc distill`: the distill stage as a verb.
#include "compress/cli/stage_command.h"
#include "distill/stage.h"

namespace slmc {

std::unique_ptr<Command> command_distill();
std::unique_ptr<Command> command_distill() { return make_stage_command(make_distill_stage()); }

}  // namespace slmc

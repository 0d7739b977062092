// `slmc capture`: the capture stage as a verb.
#include "compress/cli/stage_command.h"
#include "distill/capture_stage.h"

namespace slmc {

std::unique_ptr<Command> command_capture();
std::unique_ptr<Command> command_capture() { return make_stage_command(make_capture_stage()); }

}  // namespace slmc

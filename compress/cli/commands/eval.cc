// `slmc eval`: the evaluation stage as a verb; slmc-run has it too.
#include "compress/cli/stage_command.h"
#include "compress/runtime/eval_stage.h"

namespace slmc {

std::unique_ptr<Command> command_eval();
std::unique_ptr<Command> command_eval() { return make_stage_command(make_eval_stage(), true); }

}  // namespace slmc

// `slmc finetune`: the finetune stage as a verb.
#include "compress/cli/stage_command.h"
#include "distill/finetune_stage.h"

namespace slmc {

std::unique_ptr<Command> command_finetune();
std::unique_ptr<Command> command_finetune() { return make_stage_command(make_finetune_stage()); }

}  // namespace slmc

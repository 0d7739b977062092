// `slmc convert`: the conversion stage as a verb.
#include "compress/cli/stage_command.h"
#include "formats/convert_stage.h"

namespace slmc {

std::unique_ptr<Command> command_convert();
std::unique_ptr<Command> command_convert() { return make_stage_command(make_convert_stage()); }

}  // namespace slmc

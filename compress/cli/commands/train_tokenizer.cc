// `slmc train-tokenizer`: the stage of that name as a verb.
#include "compress/cli/stage_command.h"
#include "formats/tokenizer/train_stage.h"

namespace slmc {

std::unique_ptr<Command> command_train_tokenizer();
std::unique_ptr<Command> command_train_tokenizer() {
  return make_stage_command(make_train_tokenizer_stage());
}

}  // namespace slmc

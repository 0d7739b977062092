// What the tests of training have in common: a text to learn, a command line, a kill on the way.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/support/run_program.h"

namespace slmc::test {

/// Words that follow each other by a rule, so that there is something to learn; `line` > 0: so many
/// to a line.
std::string text_by_rule(int words, int line = 0);

/// Option to value; "" stands for a flag without one.
using Options = std::map<std::string, std::string>;
/// `head`, and `options` with some changed.
std::vector<std::string> command_line(std::vector<std::string> head, Options options,
                                      const Options& changes = {});

/// A short distillation into `out` of two layers of the model "teacher" on "text.txt", all in
/// `folder`, with some options changed.
std::vector<std::string> distill_command(const ScratchFolder& folder, const std::string& out,
                                         const Options& changes);

/// Trains `output` with a checkpoint every 3 steps, killed once there is one, and goes on: the
/// result of the second run. Expects that nothing is written between the two, and no checkpoint
/// left.
ProgramResult kill_and_resume(std::vector<std::string> arguments, const std::string& output);

}  // namespace slmc::test

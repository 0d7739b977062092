// Shell completion scripts, made from the verbs and their options.
#pragma once

#include <string>

#include "compress/cli/help.h"

namespace slmc {

/// `shell`: "bash", "zsh" or "fish".
std::string completion_script(const std::string& shell, const CommandList& commands);

}  // namespace slmc

// Texts made from options: the overview, a verb's --help, docs/cli.md.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/cli/options.h"
#include "compress/core/command.h"

namespace slmc {

using CommandList = std::vector<std::unique_ptr<Command>>;

/// What the program says without arguments: verbs by group, one line each, and an example.
std::string overview_text(const CommandList& commands, const std::string& program);
/// "slmc quantize MODEL --output OUT --scheme S [options]".
std::string usage_line(const std::string& program, const std::string& verb,
                       const std::vector<Option>& options);
std::string help_text(const std::string& program, const Command& command,
                      const std::vector<Option>& options);
/// All verbs as Markdown; docs/cli.md is this text.
std::string markdown_docs(const CommandList& commands);

}  // namespace slmc

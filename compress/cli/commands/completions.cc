// `slmc completions bash|zsh|fish`.
#include "compress/cli/completions.h"

#include <ostream>

#include "compress/cli/program.h"

namespace slmc {
namespace {

class CompletionsCommand : public Command {
 public:
  std::string_view name() const override { return "completions"; }
  std::string_view summary() const override { return "Print a completion script for a shell"; }
  void visit(Fields& fields) override {
    fields.visit({.name = "shell",
                  .help = "Which shell.",
                  .choices = {"bash", "zsh", "fish"},
                  .required = true,
                  .positional = true,
                  .value_name = "SHELL"},
                 shell_);
  }
  Json run(Context&, std::ostream& out, ExitCode&) override {
    const std::string script = completion_script(shell_, all_commands(false));
    out << script;
    return {{"shell", shell_}, {"script", script}};
  }

 private:
  std::string shell_;
};

}  // namespace

std::unique_ptr<Command> command_completions();
std::unique_ptr<Command> command_completions() { return std::make_unique<CompletionsCommand>(); }

}  // namespace slmc

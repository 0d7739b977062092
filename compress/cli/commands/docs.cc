// `slmc docs`: the text of docs/cli.md, from the options themselves.
#include <ostream>

#include "compress/cli/program.h"

namespace slmc {
namespace {

class DocsCommand : public Command {
 public:
  std::string_view name() const override { return "docs"; }
  std::string_view summary() const override { return "Print docs/cli.md from the options"; }
  bool hidden() const override { return true; }
  void visit(Fields&) override {}
  Json run(Context&, std::ostream& out, ExitCode&) override {
    const std::string text = markdown_docs(all_commands(false));
    out << text;
    return {{"markdown", text}};
  }
};

}  // namespace

std::unique_ptr<Command> command_docs();
std::unique_ptr<Command> command_docs() { return std::make_unique<DocsCommand>(); }

}  // namespace slmc

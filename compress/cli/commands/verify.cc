// `slmc verify`: reads a checkpoint from the first byte to the last.
#include "formats/verify.h"

#include <ostream>

#include "compress/core/command.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

class VerifyCommand : public Command {
 public:
  std::string_view name() const override { return "verify"; }
  std::string_view summary() const override {
    return "Read a whole checkpoint: structure, finite values, stored hashes, tokenizer";
  }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    fields.visit({.name = "file",
                  .help = "A GGUF, a Hugging Face folder, or one .safetensors file.",
                  .required = true,
                  .positional = true,
                  .value_name = "FILE"},
                 file_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    const Json result = verify_checkpoint(file_, context);
    out << cat(file_, ": ", result["tensors"].get<size_t>(), " tensors, ",
               human_bytes(result["size_bytes"].get<uint64_t>()),
               ", structure sound, all values finite");
    out << (result["hashes"] == "equal" ? ", hashes as written" : ", no hashes stored");
    if (result.value("tokenizer", false)) out << ", tokenizer sound";
    out << "\n";
    if (result.contains("not_decoded") && !result["not_decoded"].empty())
      out << "not decoded (types without a codec): " << result["not_decoded"].dump() << "\n";
    return result;
  }

 private:
  std::string file_;
};

}  // namespace

std::unique_ptr<Command> command_verify();
std::unique_ptr<Command> command_verify() { return std::make_unique<VerifyCommand>(); }

}  // namespace slmc

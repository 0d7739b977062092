// `slmc chat MODEL`: a conversation, at a terminal or through a pipe.
#include <unistd.h>

#include <iostream>

#include "compress/cli/model_options.h"
#include "compress/core/command.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/chat_session.h"
#include "formats/adapter.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

class ChatCommand : public Command {
 public:
  ChatCommand() { options_.sampling = {.temperature = 0.7, .top_p = 0.95}; }
  std::string_view name() const override { return "chat"; }
  std::string_view summary() const override {
    return "Talk to a model: /reset begins anew, /exit or Ctrl-D ends, Ctrl-C stops an answer";
  }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    fields.visit({.name = "model",
                  .help = "Hugging Face folder or GGUF file, with a chat template.",
                  .required = true,
                  .positional = true,
                  .value_name = "MODEL"},
                 model_);
    fields.visit({.name = "system", .help = "The system message.", .value_name = "TEXT"},
                 options_.system);
    fields.visit({.name = "count",
                  .help = "Tokens of an answer at most.",
                  .min = 1,
                  .max = 1e9,
                  .short_flag = "n",
                  .value_name = "N"},
                 options_.most_tokens);
    fields.visit(
        {.name = "context",
         .help = "Tokens of the whole conversation at most; the model's context bounds it too.",
         .min = 2,
         .max = 1e9,
         .value_name = "N"},
        options_.context);
    visit_adapter(fields, adapter_);
    visit_sampling(fields, options_.sampling);
    visit_activations(fields, activations_);
    visit_kv_type(kv_type_, fields);
    visit_template_options(fields, template_options_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    options_.template_options = parse_template_options(template_options_);
    options_.seed = context.seed;
    const std::shared_ptr<const Model> model = Model::open(model_);
    const auto weights = with_adapter(model, adapter_);
    const auto decoder =
        Decoder::create(*weights, activations_from_name(activations_), kv_type_from_name(kv_type_));
    ChatSession session(*model, *decoder, options_);
    const bool terminal = isatty(STDIN_FILENO) != 0;
    Json turns = Json::array();
    std::string line;
    while (read_line(terminal, out, line)) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (line.empty()) continue;
      if (line == "/exit" || line == "/quit") break;
      if (line == "/reset") {
        session.reset();
        if (terminal) out << "(a new conversation)\n";
      } else if (line[0] == '/' && terminal) {
        out << "(commands: /reset, /exit)\n";
      } else {
        say(session, line, terminal, out, turns);
      }
    }
    if (interrupted()) context.check_interrupt();
    return {{"turns", turns},
            {"activations", activations_},
            {"kv_type", kv_type_name(kv_type_from_name(kv_type_),
                                     activations_from_name(activations_), model->arch())},
            {"isa", isa_in_use()},
            {"seed", context.seed}};
  }

 private:
  static bool read_line(bool terminal, std::ostream& out, std::string& line) {
    if (interrupted()) return false;
    if (terminal) out << "> " << std::flush;
    if (std::getline(std::cin, line)) return true;
    if (terminal) out << "\n";
    return false;
  }

  void say(ChatSession& session, const std::string& line, bool terminal, std::ostream& out,
           Json& turns) {
    ChatSession::Answer answer;
    try {
      answer = session.say(line, [&](const std::string& text) {
        out << text << std::flush;
        return !interrupted();
      });
    } catch (const Error& error) {
      // At a terminal the conversation goes on: after /reset, or with another message.
      const bool mine = error.code() == ExitCode::kUsage || error.code() == ExitCode::kBadInput;
      if (!terminal || !mine) throw;
      out << "(" << error.what() << ")\n";
      return;
    }
    out << "\n" << std::flush;
    if (terminal) clear_interrupt();
    turns.push_back({{"message", line},
                     {"answer", answer.text},
                     {"prompt_tokens", answer.prompt_tokens},
                     {"reused_tokens", answer.reused_tokens},
                     {"tokens", answer.tokens},
                     {"stopped", answer.stopped},
                     {"prefill_seconds", answer.prefill_seconds},
                     {"decode_seconds", answer.decode_seconds}});
  }

  std::string model_, adapter_, activations_ = "q8", kv_type_;
  std::vector<std::string> template_options_;
  ChatOptions options_;
};

}  // namespace

std::unique_ptr<Command> command_chat();
std::unique_ptr<Command> command_chat() { return std::make_unique<ChatCommand>(); }

}  // namespace slmc

// `slmc generate MODEL -p PROMPT`: continues a text, printing it as it comes.
#include <algorithm>
#include <ostream>

#include "compress/cli/model_options.h"
#include "compress/core/command.h"
#include "compress/core/text.h"
#include "compress/runtime/chat_session.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/sampler.h"
#include "compress/runtime/tasks_run.h"
#include "formats/adapter.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

class GenerateCommand : public Command {
 public:
  std::string_view name() const override { return "generate"; }
  std::string_view summary() const override { return "Continue a prompt"; }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    visit_model(fields, model_);
    fields.visit({.name = "prompt",
                  .help = "Text to continue.",
                  .required = true,
                  .short_flag = "p",
                  .value_name = "TEXT"},
                 prompt_);
    fields.visit({.name = "count",
                  .help = "Tokens to generate at most.",
                  .min = 1,
                  .max = 1e9,
                  .short_flag = "n",
                  .value_name = "N"},
                 count_);
    fields.visit({.name = "chat",
                  .help = "The prompt is a message: render it with the model's chat template."},
                 chat_);
    fields.visit(
        {.name = "system", .help = "With --chat: the system message.", .value_name = "TEXT"},
        system_);
    visit_adapter(fields, adapter_);
    visit_sampling(fields, sampling_);
    visit_activations(fields, activations_);
    visit_kv_type(kv_type_, fields);
    visit_template_options(fields, template_options_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    if (!chat_ && (!system_.empty() || !template_options_.empty()))
      throw_usage("--system and --template-option are for the chat template; give --chat too");
    const std::shared_ptr<const Model> model = Model::open(model_);
    const auto weights = with_adapter(model, adapter_);
    const auto decoder =
        Decoder::create(*weights, activations_from_name(activations_), kv_type_from_name(kv_type_));
    if (chat_) return answer(*model, *decoder, context, out);
    const Tokenizer& tokenizer = model->tokenizer();
    const std::vector<int32_t> prompt = tokenizer.encode(prompt_);
    if (prompt.empty())
      throw_usage(
          "--prompt: expected text, found none, and the model has no token that begins a text");
    const int64_t length = static_cast<int64_t>(prompt.size());
    if (length >= model->arch().context) {
      throw_usage(cat("--prompt: expected fewer than ", model->arch().context,
                      " tokens, the model's context, found ", length));
    }
    const int64_t count = std::min(count_, model->arch().context - length);
    StreamDecoder stream(tokenizer);
    std::string text;
    const auto show = [&](const std::string& piece) {
      text += piece;
      out << piece << std::flush;
    };
    const std::vector<int32_t> stops = stop_ids(*model);
    const GenerationResult result =
        generate(*decoder, prompt, count, stops, sampling_, context.seed, [&](int32_t id) {
          context.check_interrupt();
          show(stream.add(id));
          return true;
        });
    show(stream.finish());
    out << "\n";
    const auto made = static_cast<int64_t>(result.ids.size());
    if (!result.stopped && made == count && count < count_) {
      progress_of(context).note(
          cat("stopped at the model's context of ", model->arch().context, " tokens"));
    }
    return {{"prompt_ids", prompt},
            {"ids", result.ids},
            {"text", text},
            {"stopped", result.stopped},
            {"activations", activations_},
            {"kv_type", kv_type_name(kv_type_from_name(kv_type_),
                                     activations_from_name(activations_), model->arch())},
            {"prefill_seconds", result.prefill_seconds},
            {"decode_seconds", result.decode_seconds},
            {"isa", isa_in_use()},
            {"seed", context.seed}};
  }

 private:
  Json answer(const Model& model, const Decoder& decoder, Context& context,
              std::ostream& out) const {
    ChatSession session(model, decoder,
                        {.system = system_,
                         .context = model.arch().context,
                         .most_tokens = count_,
                         .one_answer = true,
                         .sampling = sampling_,
                         .seed = context.seed,
                         .template_options = parse_template_options(template_options_)});
    const ChatSession::Answer answer = session.say(prompt_, [&](const std::string& text) {
      context.check_interrupt();
      out << text << std::flush;
      return true;
    });
    out << "\n";
    return {{"text", answer.text},
            {"prompt_tokens", answer.prompt_tokens},
            {"tokens", answer.tokens},
            {"stopped", answer.stopped},
            {"activations", activations_},
            {"kv_type", kv_type_name(kv_type_from_name(kv_type_),
                                     activations_from_name(activations_), model.arch())},
            {"prefill_seconds", answer.prefill_seconds},
            {"decode_seconds", answer.decode_seconds},
            {"isa", isa_in_use()},
            {"seed", context.seed}};
  }

  std::string model_, adapter_, prompt_, system_, activations_ = "q8", kv_type_;
  std::vector<std::string> template_options_;
  bool chat_ = false;
  int64_t count_ = 128;
  SamplingOptions sampling_;
};

}  // namespace

std::unique_ptr<Command> command_generate();
std::unique_ptr<Command> command_generate() { return std::make_unique<GenerateCommand>(); }

}  // namespace slmc

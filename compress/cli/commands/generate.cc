// `slmc generate MODEL -p PROMPT`: continues a text, printing it as it comes.
#include <algorithm>
#include <ostream>

#include "compress/core/command.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/sampler.h"
#include "formats/tokenizer.h"

namespace slmc {
namespace {

/// The tokens that end a text: the tokenizer's, the architecture's, and generation_config.json's,
/// which may list several.
std::vector<int32_t> stop_ids(const Model& model) {
  std::vector<int32_t> stops = {model.tokenizer().eos(), static_cast<int32_t>(model.arch().eos)};
  const std::string& text = model.assets().generation_config_json;
  if (!text.empty()) {
    const Json config = parse_json(text, model.path() + "/generation_config.json");
    const Json eos =
        config.is_object() && config.contains("eos_token_id") ? config["eos_token_id"] : Json();
    for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
      if (id.is_number_integer()) stops.push_back(id.get<int32_t>());
    }
  }
  std::sort(stops.begin(), stops.end());
  stops.erase(std::unique(stops.begin(), stops.end()), stops.end());
  stops.erase(std::remove_if(stops.begin(), stops.end(), [](int32_t id) { return id < 0; }),
              stops.end());
  return stops;
}

class GenerateCommand : public Command {
 public:
  std::string_view name() const override { return "generate"; }
  std::string_view summary() const override { return "Continue a prompt."; }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    fields.visit({.name = "model",
                  .help = "Hugging Face folder or GGUF file.",
                  .required = true,
                  .positional = true,
                  .value_name = "MODEL"},
                 model_);
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
    fields.visit({.name = "temperature",
                  .help = "0 takes the likeliest token; 1 samples the model's distribution.",
                  .min = 0,
                  .max = 100},
                 sampling_.temperature);
    fields.visit({.name = "top_k",
                  .help = "Sample among the N likeliest tokens; 0 is all.",
                  .min = 0,
                  .value_name = "N"},
                 sampling_.top_k);
    fields.visit({.name = "top_p",
                  .help = "Sample among the likeliest tokens that together have this probability.",
                  .min = 1e-9,
                  .max = 1},
                 sampling_.top_p);
    fields.visit({.name = "min_p",
                  .help = "Leave out tokens below this share of the likeliest one's probability.",
                  .min = 0,
                  .max = 1},
                 sampling_.min_p);
    fields.visit({.name = "repeat_penalty",
                  .help = "Above 1 makes tokens of the text so far less likely.",
                  .min = 1e-3,
                  .max = 1e3},
                 sampling_.repeat_penalty);
    fields.visit({.name = "activations",
                  .help = "int8 activations for quantized weights, or f32.",
                  .choices = {"f32", "q8"}},
                 activations_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    const auto model = Model::open(model_);
    const Tokenizer& tokenizer = model->tokenizer();
    const std::vector<int32_t> prompt = tokenizer.encode(prompt_);
    const auto decoder = Decoder::create(*model, activations_from_name(activations_));
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
            {"prefill_seconds", result.prefill_seconds},
            {"decode_seconds", result.decode_seconds},
            {"isa", isa_in_use()},
            {"seed", context.seed}};
  }

 private:
  std::string model_, prompt_, activations_ = "q8";
  int64_t count_ = 128;
  SamplingOptions sampling_;
};

}  // namespace

std::unique_ptr<Command> command_generate();
std::unique_ptr<Command> command_generate() { return std::make_unique<GenerateCommand>(); }

}  // namespace slmc

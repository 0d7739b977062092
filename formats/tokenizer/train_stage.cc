#include "formats/tokenizer/train_stage.h"

#include <utility>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "formats/documents.h"
#include "formats/tokenizer/train.h"

namespace slmc {
namespace {

class TrainTokenizerStage : public Stage {
 public:
  explicit TrainTokenizerStage(TrainTokenizerOptions options) : options_(std::move(options)) {}

  std::string_view name() const override { return "train-tokenizer"; }
  std::string_view summary() const override { return "Train a byte-level BPE tokenizer on text"; }

  void visit(Fields& fields) override {
    fields.visit({.name = "data",
                  .help = "Training text: .txt, or .jsonl with a document a line.",
                  .required = true,
                  .value_name = "FILE"},
                 options_.data);
    fields.visit({.name = "output",
                  .help = "Folder for tokenizer.json and tokenizer_config.json.",
                  .required = true,
                  .short_flag = "o",
                  .value_name = "FOLDER"},
                 options_.output);
    fields.visit({.name = "vocab",
                  .help = "Tokens in all, the 256 bytes and special tokens included.",
                  .min = 256,
                  .max = 1 << 20,
                  .value_name = "N"},
                 options_.vocab);
    fields.visit({.name = "pattern",
                  .help = "How text is split into words before merging; llama.cpp knows these.",
                  .choices = {"llama-bpe", "qwen2", "gpt-2"}},
                 options_.pattern);
    fields.visit({.name = "special_token",
                  .help = "Special tokens, in order of their ids from 0: first BOS, then EOS; "
                          "without add_bos the first is EOS.",
                  .value_name = "TEXT"},
                 options_.special_token);
    fields.visit({.name = "add_bos", .help = "Begin every encoded text with BOS."},
                 options_.add_bos);
    fields.visit({.name = "min_frequency",
                  .help = "Pairs seen less often are not merged.",
                  .min = 1,
                  .value_name = "N"},
                 options_.min_frequency);
    fields.visit({.name = "chat_template",
                  .help = "Jinja template for {\"messages\"} lines, stored with the tokenizer.",
                  .value_name = "FILE"},
                 options_.chat_template);
  }

  Plan plan(const Inputs& inputs) const override {
    static_cast<void>(inputs);
    if (options_.data.empty()) throw_usage("train-tokenizer: no training text; give --data FILE");
    const auto least = static_cast<int64_t>(256 + options_.special_token.size());
    if (options_.vocab < least)
      throw_usage(cat("train-tokenizer: vocab is ", options_.vocab, "; expected at least ", least,
                      " (256 bytes and the special tokens)"));
    if (options_.add_bos && options_.special_token.empty())
      throw_usage("train-tokenizer: add_bos needs a special token for BOS");
    Plan plan;
    plan.stage = name();
    plan.output = options_.output;
    uint64_t bytes = 0;
    for (const std::string& file : options_.data) bytes += MappedFile::open(file)->size();
    plan.notes.push_back(cat("training text: ", human_bytes(bytes), " in ", options_.data.size(),
                             options_.data.size() == 1 ? " file" : " files"));
    plan.notes.push_back(cat(options_.vocab, " tokens, pattern ", options_.pattern));
    plan.predicted_peak_bytes =
        bytes * 4 + (64ull << 20);  // The text, once more as documents, words and their pairs.
    return plan;
  }

  Report run(const Plan& plan, Context& context) override {
    const double start = now_seconds();
    AtomicFolder folder(options_.output, context.force);
    const std::string chat_template =
        options_.chat_template.empty() ? "" : read_text(options_.chat_template);
    progress_of(context).begin("train-tokenizer", static_cast<uint64_t>(options_.vocab), "tokens");
    std::vector<std::string> texts;
    uint64_t bytes = 0;
    for (const Document& document : read_documents(options_.data, ChatTemplate(chat_template))) {
      std::string text;
      for (const Segment& segment : document.segments) text += segment.text;
      bytes += text.size();
      texts.push_back(std::move(text));
    }
    const auto watch = [&](int64_t tokens) {
      context.check_interrupt();
      progress_of(context).update(static_cast<uint64_t>(tokens));
    };
    const std::string json = train_bpe(texts,
                                       {.vocab = options_.vocab,
                                        .pattern = options_.pattern,
                                        .min_frequency = options_.min_frequency,
                                        .special_tokens = options_.special_token,
                                        .add_bos = options_.add_bos},
                                       watch);
    const Json config = make_config(chat_template);
    write_text(folder.partial_path() + "/tokenizer.json", json);
    write_text(folder.partial_path() + "/tokenizer_config.json", config.dump(2) + "\n");
    const auto tokenizer =
        Tokenizer::open(folder.partial_path());  // Written = meant: the ordinary reader takes it.
    folder.commit();
    progress_of(context).end(cat(tokenizer->vocab_size(), " tokens"));
    return report(plan, *tokenizer, texts, bytes, now_seconds() - start, context);
  }

 private:
  Json make_config(const std::string& chat_template) const {
    Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
    const auto& specials = options_.special_token;
    const size_t eos = options_.add_bos ? 1 : 0;
    if (options_.add_bos) config["bos_token"] = specials[0];
    if (specials.size() > eos) config["eos_token"] = specials[eos];
    config["clean_up_tokenization_spaces"] = false;
    if (!chat_template.empty()) config["chat_template"] = chat_template;
    return config;
  }

  Report report(const Plan& plan, const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                uint64_t bytes, double seconds, const Context& context) {
    // Bytes a token on at most the first megabyte of what it was trained on.
    uint64_t sample_bytes = 0, sample_tokens = 0;
    for (const std::string& text : texts) {
      const std::string_view piece = std::string_view(text).substr(0, (1u << 20) - sample_bytes);
      sample_tokens += tokenizer.encode(piece, false).size();
      sample_bytes += piece.size();
      if (sample_bytes >= 1u << 20) break;
    }
    Report result = make_report(*this, plan, seconds, context);
    result["tokens"] = tokenizer.vocab_size();
    result["text_bytes"] = bytes;
    result["bytes_per_token"] =
        sample_tokens == 0 ? 0.0
                           : static_cast<double>(sample_bytes) / static_cast<double>(sample_tokens);
    result["tokenizer_hash"] = tokenizer.hash();
    std::string line =
        cat(options_.output, ": ", tokenizer.vocab_size(), " tokens from ", human_bytes(bytes),
            " of text, ", fixed(result["bytes_per_token"].get<double>(), 2),
            " bytes a token on the training text");
    if (tokenizer.vocab_size() < options_.vocab) {
      line += cat("; fewer than the ", options_.vocab, " asked for, as no other pair occurs ",
                  options_.min_frequency, " times");
    }
    result["summary"] = line;
    return result;
  }

  TrainTokenizerOptions options_;
};

}  // namespace

std::unique_ptr<Stage> make_train_tokenizer_stage(TrainTokenizerOptions options) {
  return std::make_unique<TrainTokenizerStage>(std::move(options));
}

}  // namespace slmc

// `slmc tokenize`: text to token ids and back. The model may be a folder that holds only a
// tokenizer.
#include <algorithm>
#include <filesystem>
#include <ostream>

#include "compress/core/command.h"
#include "compress/core/lines.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "formats/documents.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

using Ids = std::vector<int32_t>;

/// "1,2,3" or "1 2 3" or "[1, 2, 3]".
Ids parse_ids(const std::string& text, const std::string& where) {
  Ids ids;
  std::string number;
  const auto finish = [&] {
    if (number.empty()) return;
    if (number.size() > 9) throw_bad_input(cat(where, ": '", number, "' is not a token id"));
    ids.push_back(static_cast<int32_t>(std::stol(number)));
    number.clear();
  };
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      number += c;
      continue;
    }
    if (std::string_view(", \t\r\n[]").find(c) == std::string_view::npos) {
      throw_bad_input(
          cat(where, ": expected token ids separated by commas or spaces, found '", c, "'"));
    }
    finish();
  }
  finish();
  return ids;
}

class TokenizeCommand : public Command {
 public:
  std::string_view name() const override { return "tokenize"; }
  std::string_view summary() const override {
    return "Turn text into token ids, or ids back into text";
  }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    fields.visit({.name = "model",
                  .help = "A model, or a folder that holds only a tokenizer.",
                  .required = true,
                  .positional = true,
                  .value_name = "MODEL"},
                 model_);
    fields.visit({.name = "text", .help = "The text to tokenize.", .value_name = "TEXT"}, text_);
    fields.visit({.name = "pair",
                  .help = "With --text: a second text, joined to the first as encoders take them.",
                  .value_name = "TEXT"},
                 pair_);
    fields.visit(
        {.name = "file",
         .help =
             "A file to tokenize as one text; .jsonl: {\"text\"} or {\"messages\"} a line, a list "
             "of ids each.",
         .value_name = "FILE"},
        file_);
    fields.visit({.name = "no_special",
                  .help = "Do not add what the tokenizer puts around a text (BOS, EOS)."},
                 no_special_);
    fields.visit(
        {.name = "decode",
         .help =
             "Ids to turn into text: a list such as 1,2,3, or a file; .jsonl: {\"ids\"} a line.",
         .value_name = "IDS"},
        decode_);
    fields.visit({.name = "skip_special", .help = "With --decode: leave out special tokens."},
                 skip_special_);
  }

  Json run(Context&, std::ostream& out, ExitCode&) override {
    const int given = !text_.empty() + !file_.empty() + !decode_.empty();
    if (given > 1) throw_usage("tokenize: give one of --text, --file and --decode");
    if (!pair_.empty() && text_.empty()) throw_usage("tokenize: --pair needs --text");
    const auto tokenizer = Tokenizer::open(model_);
    if (!pair_.empty()) {
      const Encoding encoding = tokenizer->encode_pair(text_, pair_, !no_special_);
      print(encoding.ids, out);
      return {{"ids", encoding.ids}, {"types", encoding.types}, {"tokens", encoding.ids.size()}};
    }
    if (!decode_.empty()) return decode(*tokenizer, out);
    if (is_lines(file_))
      return encode_lines(*tokenizer, ChatTemplate::from_assets(tokenizer_assets(model_)), out);
    const Ids ids = tokenizer->encode(file_.empty() ? text_ : read_text(file_), !no_special_);
    print(ids, out);
    return {{"ids", ids}, {"tokens", ids.size()}};
  }

 private:
  static bool is_lines(const std::string& path) {
    return path.size() > 6 && path.ends_with(".jsonl");
  }

  static void print(const Ids& ids, std::ostream& out) {
    for (size_t i = 0; i < ids.size(); ++i) out << (i == 0 ? "" : " ") << ids[i];
    out << '\n';
  }

  Json encode_lines(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                    std::ostream& out) const {
    Json all = Json::array();
    size_t tokens = 0;
    for (const Document& document : read_documents({file_}, chat_template)) {
      std::string text;
      for (const Segment& segment : document.segments) text += segment.text;
      const Ids ids = tokenizer.encode(text, !no_special_ && !document.rendered);
      print(ids, out);
      tokens += ids.size();
      all.push_back(ids);
    }
    return {{"ids", all}, {"tokens", tokens}};
  }

  static void check_known(const Ids& ids, const Tokenizer& tokenizer, const std::string& where) {
    for (const int32_t id : ids) {
      if (id >= tokenizer.vocab_size())
        throw_bad_input(
            cat(where, "id ", id, " is not in the vocabulary of ", tokenizer.vocab_size()));
    }
  }

  Json decode(const Tokenizer& tokenizer, std::ostream& out) const {
    std::error_code error;
    const bool is_file = std::filesystem::is_regular_file(decode_, error);
    if (is_file && is_lines(decode_)) {
      Json all = Json::array();
      for_each_line(read_text(decode_), decode_, [&](std::string_view text, const auto& where) {
        const Json line = parse_line(text, where);
        if (!line.contains("ids")) throw_bad_input(cat(where, ": expected an object with 'ids'"));
        const Ids ids = parse_ids(line["ids"].dump(), where);
        check_known(ids, tokenizer, cat(where, ": "));
        all.push_back(tokenizer.decode(ids, skip_special_));
        out << all.back().get_ref<const std::string&>() << '\n';
        return true;
      });
      return {{"text", all}};
    }
    const Ids ids =
        parse_ids(is_file ? read_text(decode_) : decode_, is_file ? decode_ : "--decode");
    check_known(ids, tokenizer, "");
    const std::string text = tokenizer.decode(ids, skip_special_);
    out << text << '\n';
    return {{"text", text}};
  }

  std::string model_, text_, pair_, file_, decode_;
  bool no_special_ = false, skip_special_ = false;
};

}  // namespace

std::unique_ptr<Command> command_tokenize();
std::unique_ptr<Command> command_tokenize() { return std::make_unique<TokenizeCommand>(); }

}  // namespace slmc

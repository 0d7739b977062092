// Which kind of model a tokenizer.json holds.
#include "formats/tokenizer/model.h"

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/fields.h"

namespace slmc::tokenization {

std::unique_ptr<TokenModel> make_token_model(TokenizerFile& file, const std::string& where) {
  const Fields model(file.shell["model"], cat(where, ": model"));
  // Files from before `type` was written are told by what only one kind has.
  const bool pieces = model.find("max_input_chars_per_word") != nullptr;
  const char* guess = file.has_merges   ? "BPE"
                      : file.has_scores ? "Unigram"
                      : pieces          ? "WordPiece"
                                        : "";
  const std::string type = model.string_or("type", guess);
  if (type.empty()) throw_bad_input(cat(where, ": the model has no type"));
  if (file.has_scores != (type == "Unigram"))
    throw_bad_input(cat(where, ": a model of type ", type, " needs a vocab that is ",
                        type == "Unigram" ? "a list of [token, score]" : "an object"));
  if (type == "BPE") return make_bpe(file, where);
  if (type == "Unigram") return make_unigram(file, where);
  if (type == "WordPiece") return make_wordpiece(file, where);
  if (type == "WordLevel") return make_wordlevel(file, where);
  throw_unsupported(cat(where, ": tokenizer model ", type,
                        " is not supported; supported: BPE, Unigram, WordPiece, WordLevel"));
}

uint64_t& merge_steps() {
  thread_local uint64_t steps = 0;
  return steps;
}

}  // namespace slmc::tokenization

#include "compress/runtime/evaluate_vocabulary.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

// Converters to GGUF name the rows beyond the tokenizer "[PAD151936]".
bool is_padding(const Tokenizer& tokenizer, int32_t id) {
  const std::string text = tokenizer.token_text(id);
  return text.empty() || text == cat("[PAD", id, "]");
}

std::string quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace

int64_t real_vocabulary(const Model& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  int64_t size = std::min<int64_t>(tokenizer.vocab_size(), model.arch().vocab);
  while (size > 1 && is_padding(tokenizer, static_cast<int32_t>(size - 1))) --size;
  return size;
}

int64_t common_vocabulary(const Model& model, const Model& against) {
  const int64_t ours = real_vocabulary(model), theirs = real_vocabulary(against);
  const Tokenizer &a = model.tokenizer(), &b = against.tokenizer();
  const std::string pair = cat(model.path(), " and ", against.path(), " cannot be compared: ");
  if (a.hash() != b.hash()) {
    for (int32_t id = 0; id < std::min(ours, theirs); ++id) {
      const std::string left = a.token_text(id), right = b.token_text(id);
      if (left != right)
        throw_bad_input(cat(pair, "token ", id, " is ", quoted(left), " in one and ", quoted(right),
                            " in the other; a teacher must share the model's vocabulary"));
    }
  }
  if (ours != theirs)
    throw_bad_input(cat(pair, "their vocabularies have ", ours, " and ", theirs,
                        " tokens; a teacher must share the model's vocabulary"));
  return ours;
}

}  // namespace slmc

// Texts with labels, as an encoder's classification head learns and is judged by, and the names of
// a model's classes in its config.json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/json.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

struct LabelledText {
  std::string text, label;
  std::string source;  ///< "file:line", for errors.
};

/// Whether the first line of the first of `files` is {"text", "label"}; reads no further, and a
/// file that cannot be read is none.
bool is_labelled(const std::vector<std::string>& files);
/// JSON lines {"text", "label"}; a label is a text or an integer, which counts as its digits.
/// Throws Error(kBadInput) naming file and line, Error(kUnsupported) for pairs of texts.
std::vector<LabelledText> read_labelled(const std::vector<std::string>& files);
/// The label of a line, "" if it has none that is a text or an integer.
std::string label_of(const Json& line);
/// The different labels in order: of numbers if all are, else of bytes.
std::vector<std::string> distinct_labels(const std::vector<LabelledText>& texts);

/// config.json's id2label, "LABEL_n" where it names none.
std::vector<std::string> class_names(const Json& config, int64_t classes);
void set_class_names(const std::vector<std::string>& names, Json& config);
/// The class of a name; -1 if there is none.
int64_t class_of(const std::vector<std::string>& names, std::string_view label);

/// One text with its special tokens in at most `longest` ids: what is too much is cut at the text's
/// end, before the special tokens behind it. `cut`: whether any was.
std::vector<int32_t> encode_within(const Tokenizer& tokenizer, std::string_view text,
                                   int64_t longest, bool* cut = nullptr);

}  // namespace slmc

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
  std::string text;
  std::string pair;  ///< Empty: none.
  std::string label;
  std::string source;  ///< "file:line", for errors.
};

/// Whether the first line of the first of `files` is {"text", "label"}; reads no further, and a
/// file that cannot be read is none.
bool is_labelled(const std::vector<std::string>& files);
/// JSON lines {"text", "label"} or {"text", "text_pair", "label"}; a label is a text or an integer,
/// which counts as its digits. Throws Error(kBadInput) naming file and line.
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

/// A text, or a pair of them (`pair` not empty), with its special tokens in at most `longest` ids.
/// What is too much is cut at a text's end, before the special tokens behind it; of a pair "longest
/// first", as Hugging Face's tokenizers: at the end of the longer one, and where that would make it
/// the shorter, both keep half of the room, the longer (of equal ones the second) what is odd.
/// `cut`: whether any was. `types` is empty if all are 0.
Encoding encode_within(const Tokenizer& tokenizer, std::string_view text, std::string_view pair,
                       int64_t longest, bool* cut = nullptr);

}  // namespace slmc

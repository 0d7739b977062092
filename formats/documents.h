// Training, calibration and evaluation text: .txt (one document) and .jsonl (one a line).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/chat/chat.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {

struct Document {
  std::vector<Segment> segments;
  std::string source;     ///< "file:line", for errors; never the text.
  bool rendered = false;  ///< By a chat template, which puts in the special tokens itself.
};

/// `.txt`: one document. `.jsonl`: {"text"} | {"prompt","response"} |
/// {"messages":[{"role","content"}]} per line. `chat_template` is needed for messages. Throws
/// Error(kBadInput) naming file and line.
std::vector<Document> read_documents(const std::vector<std::string>& files,
                                     const ChatTemplate& chat_template);

/// ids and, per id, whether it is learned. The tokenizer's own BOS/EOS are added once a document;
/// segments are encoded separately unless both are learned alike. A rendered conversation is
/// encoded as a whole, as transformers does, with nothing added but an EOS if that is asked for; a
/// token is learned if the last of its text is.
struct TokenizedDocument {
  std::vector<int32_t> ids;
  std::vector<uint8_t> learned;
};
TokenizedDocument tokenize_document(const Document& document, const Tokenizer& tokenizer,
                                    bool append_eos);

}  // namespace slmc

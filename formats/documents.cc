// Reading text for training, calibration and evaluation, and turning documents into ids with a mark
// on what is to be learned. Errors name file and line and never quote the text.
#include "formats/documents.h"

#include <algorithm>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/lines.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"
#include "formats/chat/chat.h"
#include "formats/tokenizer/unicode.h"

namespace slmc {
namespace {

/// A string member of a line's object.
std::string text_of(const Json& line, const char* key, const std::string& where) {
  const Json& value = line[key];
  if (!value.is_string())
    throw_bad_input(cat(where, ": '", key, "' must be a string, found ", value.type_name()));
  return value.get<std::string>();
}

std::vector<Segment> conversation(const Json& messages, const ChatTemplate& chat_template,
                                  const std::string& where) {
  if (!messages.is_array() || messages.empty())
    throw_bad_input(cat(where, ": 'messages' must be a list with at least one message"));
  std::vector<ChatMessage> turns;
  for (const Json& message : messages) {
    if (!message.is_object() || !message.contains("role") || !message.contains("content")) {
      throw_bad_input(cat(where, ": message ", turns.size(), " must have 'role' and 'content'"));
    }
    turns.push_back({text_of(message, "role", where), text_of(message, "content", where)});
  }
  try {
    return render_chat(turns, chat_template, false).segments;
  } catch (const Error& error) {
    // What a template says of the messages may quote them.
    if (error.code() == ExitCode::kBadInput)
      throw_bad_input(cat(
          where,
          ": the model's chat template does not take this conversation (roles, or their order)"));
    throw Error(error.code(), cat(where, ": ", error.what()));
  }
}

Document read_line(std::string_view line, const ChatTemplate& chat_template,
                   const std::string& where) {
  const Json json = parse_line(line, where);
  Document document;
  document.source = where;
  if (json.contains("text")) {
    document.segments.push_back({text_of(json, "text", where), true});
  } else if (json.contains("prompt") && json.contains("response")) {
    document.segments.push_back({text_of(json, "prompt", where), false});
    document.segments.push_back({text_of(json, "response", where), true});
  } else if (json.contains("messages")) {
    document.segments = conversation(json["messages"], chat_template, where);
    document.rendered = true;
  } else {
    throw_bad_input(cat(where, ": expected 'text', or 'prompt' and 'response', or 'messages'"));
  }
  return document;
}

/// Marks each id by the place of its text's end, if the ids' texts are the whole text; false if
/// they are not (a normalizer changed it).
bool mark_by_place(const Document& document, const Tokenizer& tokenizer, TokenizedDocument& out) {
  std::string text;
  std::vector<uint8_t> flags;  // By byte.
  for (const Segment& segment : document.segments) {
    text += segment.text;
    flags.resize(text.size(), segment.learned ? 1 : 0);
  }
  const auto space = [&](size_t at) {
    return std::string_view(" \t\n\r").find(text[at]) != std::string_view::npos;
  };
  size_t at = 0;
  out.learned.clear();
  for (const int32_t id : out.ids) {
    std::string bytes = tokenizer.token_bytes(id);
    if (bytes.empty()) return false;
    // A space in front that the tokenizer put there, or spaces that an added token took.
    const auto here = [&] { return text.compare(at, bytes.size(), bytes) == 0; };
    if (!here() && bytes[0] == ' ') bytes.erase(0, 1);
    while (at < text.size() && !here() && space(at)) ++at;
    if (!here()) return false;
    at += bytes.size();
    out.learned.push_back(at > 0 ? flags[at - 1] : 0);
  }
  return std::all_of(text.begin() + static_cast<ptrdiff_t>(at), text.end(), [](char c) {
    return std::string_view(" \t\n\r").find(c) != std::string_view::npos;
  });
}

TokenizedDocument tokenize_rendered(const Document& document, const Tokenizer& tokenizer,
                                    bool append_eos) {
  TokenizedDocument out;
  std::string text;
  for (const Segment& segment : document.segments) text += segment.text;
  out.ids = tokenizer.encode(text, false);
  if (!mark_by_place(document, tokenizer, out)) {
    out = {};
    for (const Segment& segment : document.segments) {
      const std::vector<int32_t> ids = tokenizer.encode(segment.text, false);
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
      out.learned.resize(out.ids.size(), segment.learned ? 1 : 0);
    }
  }
  if (append_eos && tokenizer.eos() >= 0 &&
      (out.ids.empty() || out.ids.back() != tokenizer.eos())) {
    out.ids.push_back(tokenizer.eos());
    out.learned.push_back(!document.segments.empty() && document.segments.back().learned ? 1 : 0);
  }
  return out;
}

bool ends_with(const std::string& text, std::string_view ending) {
  return text.size() >= ending.size() &&
         std::string_view(text).substr(text.size() - ending.size()) == ending;
}

}  // namespace

std::vector<Document> read_documents(const std::vector<std::string>& files,
                                     const ChatTemplate& chat_template) {
  std::vector<Document> documents;
  for (const std::string& file : files) {
    std::string text = read_text(file);
    for (size_t at = 0, line = 1; at < text.size();) {
      const size_t length = unicode::valid_length(text, at);
      if (length == 0)
        throw_bad_input(
            cat(file, ":", line, ": byte ", at, " is not UTF-8; convert the file to UTF-8"));
      if (text[at] == '\n') ++line;
      at += length;
    }
    if (ends_with(file, ".jsonl")) {
      for_each_line(text, file, [&](std::string_view line, const std::string& where) {
        documents.push_back(read_line(line, chat_template, where));
        return true;
      });
    } else {
      constexpr std::string_view kMark = "\xef\xbb\xbf";  // A byte order mark is not text.
      if (text.starts_with(kMark)) text.erase(0, kMark.size());
      if (text.empty()) throw_bad_input(cat(file, ": the file is empty"));
      documents.push_back({{{std::move(text), true}}, cat(file, ":1")});
    }
  }
  return documents;
}

TokenizedDocument tokenize_document(const Document& document, const Tokenizer& tokenizer,
                                    bool append_eos) {
  TokenizedDocument out;
  const auto add = [&](const std::vector<int32_t>& ids, bool learned) {
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.learned.resize(out.ids.size(), learned ? 1 : 0);
  };
  if (document.rendered) return tokenize_rendered(document, tokenizer, append_eos);
  // What the post-processor puts around an empty text goes around the whole document. BOS is given,
  // never predicted.
  std::vector<int32_t> around = tokenizer.encode("", true);
  std::vector<int32_t> behind;
  if (tokenizer.adds_eos() && !around.empty()) {
    behind.push_back(around.back());
    around.pop_back();
  }
  add(around, false);
  bool last_learned = true;
  for (size_t i = 0; i < document.segments.size();) {
    std::string text = document.segments[i].text;
    last_learned = document.segments[i].learned;
    for (++i; i < document.segments.size() && document.segments[i].learned == last_learned; ++i)
      text += document.segments[i].text;
    add(tokenizer.encode(text, false), last_learned);
  }
  if (append_eos && behind.empty() && tokenizer.eos() >= 0) behind.push_back(tokenizer.eos());
  add(behind, last_learned);
  return out;
}

}  // namespace slmc

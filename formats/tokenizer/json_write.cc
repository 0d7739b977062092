// tokenizer.json from its parts.
#include <charconv>
#include <utility>

#include "compress/core/error.h"
#include "formats/tokenizer/json.h"

namespace slmc::tokenization {
namespace {

void write_escaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out.push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      out += "\\u00";
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
      continue;
    }
    if (c == '"' || c == '\\') out.push_back('\\');
    out.push_back(c);
  }
  out.push_back('"');
}

/// The shortest text that reads back as the same value.
std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

}  // namespace

std::string tokenizer_json_text(const TokenizerFile& file) {
  // The shell is written with a mark where vocabulary and merges go, so that its order and values
  // stay as they were.
  Json shell = file.shell;
  constexpr std::string_view kMark = "\"slmc-vocabulary-goes-here\"";
  shell["model"]["vocab"] = Json::parse(kMark);
  const std::string frame = shell.dump();
  const size_t mark = frame.rfind(kMark);
  SLMC_CHECK(mark != std::string::npos, "the vocabulary's place was not written");
  std::string out = frame.substr(0, mark) + (file.has_scores ? "[" : "{");
  bool first = true;
  for (int32_t id = 0; id < file.vocabulary.size(); ++id) {
    if (!file.vocabulary.has(id)) continue;
    if (!std::exchange(first, false)) out += ",";
    if (file.has_scores) out += "[";
    write_escaped(out, file.vocabulary.text(id));
    if (file.has_scores)
      out += "," + number_text(file.scores[static_cast<size_t>(id)]) + "]";
    else
      out += ":" + std::to_string(id);
  }
  out += file.has_scores ? "]" : "}";
  if (file.has_merges) {
    out += ",\"merges\":[";
    first = true;
    for (const auto& [left, right] : file.merges()) {
      if (!std::exchange(first, false)) out += ",";
      out += "[";
      write_escaped(out, left);
      out += ",";
      write_escaped(out, right);
      out += "]";
    }
    out += "]";
  }
  return out + frame.substr(mark + kMark.size());
}

}  // namespace slmc::tokenization

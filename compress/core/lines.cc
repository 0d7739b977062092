#include "compress/core/lines.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

void for_each_line(std::string_view text, const std::string& file,
                   const std::function<bool(std::string_view, const std::string&)>& visit) {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r\f\v") == std::string_view::npos) continue;
    if (!visit(line, cat(file, ":", number))) return;
  }
}

Json parse_line(std::string_view line, const std::string& where) {
  Json json;
  try {
    json = parse_json(line, where);
  } catch (const Error&) {  // Whose message may quote the text.
    throw_bad_input(cat(where, ": the line is not valid JSON; each line must be one object"));
  }
  if (!json.is_object())
    throw_bad_input(cat(where, ": expected an object, found ", json.type_name()));
  return json;
}

}  // namespace slmc

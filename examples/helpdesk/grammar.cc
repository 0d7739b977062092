#include "examples/helpdesk/grammar.h"

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc::helpdesk {
namespace {

// Position of the bracket that closes the one at `open`.
size_t closing(std::string_view pattern, size_t open) {
  int depth = 0;
  for (size_t i = open; i < pattern.size(); ++i) {
    if (pattern[i] == '[') ++depth;
    if (pattern[i] == ']' && --depth == 0) return i;
  }
  SLMC_CHECK(false, cat("unbalanced bracket in '", pattern, "'"));
  return 0;
}

std::vector<std::string_view> alternatives(std::string_view inside) {
  std::vector<std::string_view> parts;
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < inside.size(); ++i) {
    if (inside[i] == '[') ++depth;
    if (inside[i] == ']') --depth;
    if (inside[i] == '|' && depth == 0) {
      parts.push_back(inside.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  parts.push_back(inside.substr(begin));
  return parts;
}

void append_words(Pieces& pieces, std::string_view text) {
  // An alternative left empty would leave two spaces.
  const bool doubled =
      pieces.empty() || pieces.back().text.empty() || pieces.back().text.ends_with(' ');
  if (doubled && text.starts_with(' ')) text.remove_prefix(1);
  if (text.empty()) return;
  if (!pieces.empty() && pieces.back().slot.empty() && !pieces.back().exact) {
    pieces.back().text += text;
  } else {
    pieces.push_back({std::string(text)});
  }
}

void expand_into(std::string_view pattern, Random& random, const Resolve& resolve, Pieces& out) {
  size_t i = 0;
  while (i < pattern.size()) {
    if (pattern[i] == '[') {
      const size_t end = closing(pattern, i);
      const auto parts = alternatives(pattern.substr(i + 1, end - i - 1));
      expand_into(choose(parts, random), random, resolve, out);
      i = end + 1;
    } else if (pattern[i] == '{') {
      const size_t end = pattern.find('}', i);
      SLMC_CHECK(end != std::string_view::npos, cat("unbalanced brace in '", pattern, "'"));
      out.push_back(resolve(pattern.substr(i + 1, end - i - 1)));
      i = end + 1;
    } else {
      const size_t end = std::min(pattern.find_first_of("[{", i), pattern.size());
      append_words(out, pattern.substr(i, end - i));
      i = end;
    }
  }
}

}  // namespace

Pieces expand(std::string_view pattern, Random& random, const Resolve& resolve) {
  Pieces out;
  expand_into(pattern, random, resolve, out);
  return out;
}

std::vector<std::string> names_in(std::string_view pattern) {
  std::vector<std::string> names;
  for (size_t at = pattern.find('{'); at != std::string_view::npos; at = pattern.find('{', at + 1))
    names.emplace_back(pattern.substr(at + 1, pattern.find('}', at) - at - 1));
  return names;
}

bool chance(Random& random, double probability) { return random.uniform() < probability; }

}  // namespace slmc::helpdesk

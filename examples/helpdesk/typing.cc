#include "examples/helpdesk/typing.h"

#include <string_view>

namespace slmc::helpdesk {
namespace {

bool is_small(char c) { return c >= 'a' && c <= 'z'; }
bool is_letter(char c) { return is_small(c) || (c >= 'A' && c <= 'Z'); }

char neighbour(char c, Random& random) {
  static constexpr std::string_view rows[] = {"qwertyuiop", "asdfghjkl", "zxcvbnm"};
  for (const std::string_view row : rows) {
    const size_t at = row.find(c);
    if (at == std::string_view::npos) continue;
    if (at == 0) return row[1];
    if (at + 1 == row.size()) return row[at - 1];
    return random.below(2) == 0 ? row[at - 1] : row[at + 1];
  }
  return c;
}

// `at` is a letter inside a word.
void slip(std::string& text, size_t at, Random& random) {
  switch (random.below(4)) {
    case 0:
      text[at] = neighbour(text[at], random);
      break;
    case 1:
      text.erase(at, 1);
      break;
    case 2:
      text.insert(at, 1, text[at]);
      break;
    default:
      if (at + 1 < text.size() && is_small(text[at + 1])) std::swap(text[at], text[at + 1]);
  }
}

size_t word_length_around(const std::string& text, size_t at) {
  size_t begin = at, end = at;
  while (begin > 0 && is_letter(text[begin - 1])) --begin;
  while (end < text.size() && is_letter(text[end])) ++end;
  return end - begin;
}

void to_lower(std::string& text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
}

// "a oven" -> "an oven", when the article and the noun come from different pieces.
void fix_articles(Pieces& pieces) {
  for (size_t i = 0; i + 1 < pieces.size(); ++i) {
    std::string& text = pieces[i].text;
    const std::string& next = pieces[i + 1].text;
    const bool article = text == "a " || text.ends_with(" a ");
    if (article && !next.empty() &&
        std::string_view("aeioAEIO").find(next[0]) != std::string_view::npos)
      text.replace(text.size() - 1, 1, std::string("n "));
  }
}

std::string sentence_end(const std::string& sentence, bool last, const TypingStyle& style,
                         Random& random) {
  const char final = sentence.empty() ? '.' : sentence.back();
  if (final == ':') return " ";
  if (final == '?' || final == '!') return last ? "" : " ";
  if (style.ellipses && chance(random, 0.6)) return last ? "..." : "... ";
  if (style.full_stops) return last ? "." : ". ";
  return last ? "" : chance(random, 0.5) ? ", " : " ";
}

}  // namespace

TypingStyle random_style(Random& random) {
  TypingStyle style;
  const double kind = random.uniform();
  if (kind < 0.55) return style;
  style.slips = kind < 0.9 ? 0.01 : 0.03;
  style.lower_case = chance(random, 0.2);
  style.capitals = !style.lower_case && chance(random, 0.7);
  style.full_stops = chance(random, 0.7);
  style.ellipses = chance(random, 0.15);
  return style;
}

void make_slips(Pieces& pieces, double per_letter, Random& random) {
  if (per_letter <= 0) return;
  for (Piece& piece : pieces) {
    if (piece.exact) continue;
    for (size_t i = 0; i < piece.text.size(); ++i)
      if (is_small(piece.text[i]) && chance(random, per_letter) &&
          word_length_around(piece.text, i) >= 4)
        slip(piece.text, i, random);
  }
}

std::string write_message(std::vector<Pieces>& sentences, const TypingStyle& style,
                          Random& random) {
  std::string message;
  for (size_t s = 0; s < sentences.size(); ++s) {
    Pieces& pieces = sentences[s];
    fix_articles(pieces);
    make_slips(pieces, style.slips, random);
    // A name at the beginning stays as it is, so that it can be copied.
    const bool keep_first =
        (s > 0 && message.ends_with(": ")) || (!pieces.empty() && pieces[0].exact);
    std::string sentence;
    for (Piece& piece : pieces) {
      if (style.lower_case) to_lower(piece.text);
      sentence += piece.text;
    }
    // An alternative left empty at the end.
    while (sentence.ends_with(' ')) sentence.pop_back();
    if (style.capitals && !keep_first && !sentence.empty() && is_small(sentence[0]))
      sentence[0] = static_cast<char>(sentence[0] - 'a' + 'A');
    message += sentence;
    message += sentence_end(sentence, s + 1 == sentences.size(), style, random);
  }
  return message;
}

}  // namespace slmc::helpdesk

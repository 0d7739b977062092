// Added tokens: found in the text before anything else is done to it, or after normalisation for
// those marked so.
#include <algorithm>
#include <set>

#include "formats/tokenizer/fields.h"
#include "formats/tokenizer/parts.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::tokenization {

std::vector<AddedToken> read_added_tokens(const Json& json, const Vocabulary& vocabulary,
                                          const std::string& where) {
  std::vector<AddedToken> tokens;
  if (json.is_null()) return tokens;
  if (!json.is_array())
    throw_bad_input(cat(where, ": 'added_tokens' must be a list, found ", json.type_name()));
  std::set<std::string> seen;
  int32_t highest = -1;
  for (const Json& entry : json) {
    const Fields fields(entry, cat(where, ": added_tokens[", tokens.size(), "]"));
    AddedToken token;
    token.content = fields.string("content");
    token.special = fields.boolean_or("special", false);
    token.normalized = fields.boolean_or("normalized", !token.special);
    token.single_word = fields.boolean_or("single_word", false);
    token.lstrip = fields.boolean_or("lstrip", false);
    token.rstrip = fields.boolean_or("rstrip", false);
    fields.integer("id");
    if (token.content.empty() || !seen.insert(token.content).second) continue;
    token.id = vocabulary.find(token.content);
    if (token.id < 0) token.id = std::max(highest + 1, static_cast<int32_t>(vocabulary.count()));
    highest = std::max(highest, token.id);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens,
                                   const std::vector<std::string>& contents)
    : tokens_(tokens), nodes_(1) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (contents[i].empty()) continue;
    size_t node = 0;
    for (const char c : contents[i]) {
      const auto byte = static_cast<unsigned char>(c);
      auto& children = nodes_[node].children;
      const auto found = std::find_if(children.begin(), children.end(),
                                      [&](const auto& child) { return child.first == byte; });
      if (found != children.end()) {
        node = static_cast<size_t>(found->second);
        continue;
      }
      children.emplace_back(byte, static_cast<int32_t>(nodes_.size()));
      node = nodes_.size();
      nodes_.emplace_back();
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(i);
    starts_[static_cast<unsigned char>(contents[i].front())] = true;
  }
}

void AddedTokenFinder::split(std::string_view text, std::vector<Part>& out) const {
  const auto property_at = [&](size_t at) { return unicode::properties(unicode::next(text, at)); };
  size_t done = 0;  // Everything before is in `out`.
  for (size_t at = 0; at < text.size();) {
    if (!starts_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    int32_t token = -1;
    size_t end = at;
    size_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
      const auto& children = nodes_[node].children;
      const auto byte = static_cast<unsigned char>(text[i]);
      const auto found = std::find_if(children.begin(), children.end(),
                                      [&](const auto& child) { return child.first == byte; });
      if (found == children.end()) break;
      node = static_cast<size_t>(found->second);
      if (nodes_[node].token >= 0) {
        token = nodes_[node].token;
        end = i + 1;
      }
    }
    if (token < 0) {
      ++at;
      continue;
    }
    const AddedToken& found = tokens_[static_cast<size_t>(token)];
    size_t begin = at;
    at = end;  // The search goes on here even if the match is refused.
    if (found.single_word) {
      const bool before =
          begin > 0 && unicode::is_word(property_at(unicode::previous(text, begin)));
      const bool behind = end < text.size() && unicode::is_word(property_at(end));
      if (before || behind) continue;
    }
    if (found.lstrip) {
      while (begin > done && unicode::is_space(property_at(unicode::previous(text, begin))))
        begin = unicode::previous(text, begin);
      begin = std::max(begin, done);
    }
    if (found.rstrip) {
      while (end < text.size() && unicode::is_space(property_at(end))) unicode::next(text, end);
    }
    if (done < begin) out.push_back({done, begin, -1});
    out.push_back({begin, end, found.id});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), -1});
}

}  // namespace slmc::tokenization

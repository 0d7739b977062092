// Tokens of a Jinja template.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace slmc::jinja {

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kTagBegin,
  kTagEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;
  int line;
};

/// Throws Error(kBadInput) naming the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace slmc::jinja

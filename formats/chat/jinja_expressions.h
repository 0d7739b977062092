// The lower half of the Jinja parser: tokens and expressions. jinja_parser.cc adds the statements.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/chat/jinja_lexer.h"
#include "formats/chat/jinja_parser.h"

namespace slmc::jinja {

class ExpressionParser {
 public:
  static constexpr int kDeepest = 200;  ///< Nesting of expressions and blocks.
  explicit ExpressionParser(std::string_view source) : tokens_(tokenize(source)) {}

 protected:
  struct Deeper {
    explicit Deeper(ExpressionParser& parser) : parser_(parser) {
      if (++parser_.depth_ > kDeepest) parser_.fail("nested too deeply");
    }
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    ExpressionParser& parser_;
  };

  // --- Tokens ---
  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw_bad_input(cat("chat template, line ", peek().line, ": ", what));
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw_unsupported(cat("chat template, line ", peek().line, ": ", what, " is not supported"));
  }
  [[noreturn]] void unexpected() const {
    const Token& t = peek();
    fail(t.kind == TokenKind::kEnd ? "the template ends too early"
         : t.kind == TokenKind::kTagEnd || t.kind == TokenKind::kOutputEnd
             ? "the tag ends too early"
             : cat("unexpected '", t.text, "'"));
  }
  Token take() { return tokens_[at_ < tokens_.size() - 1 ? at_++ : at_]; }
  bool is(TokenKind kind, std::string_view text) const {
    return peek().kind == kind && peek().text == text;
  }
  bool is_operator(std::string_view text) const { return is(TokenKind::kOperator, text); }
  bool is_word(std::string_view text) const { return is(TokenKind::kName, text); }
  bool accept_operator(std::string_view text) { return is_operator(text) && (take(), true); }
  bool accept_word(std::string_view text) { return is_word(text) && (take(), true); }
  void expect_operator(std::string_view text) {
    if (!accept_operator(text)) unexpected();
  }
  void expect_word(std::string_view text) {
    if (!accept_word(text)) unexpected();
  }
  std::string name() {
    if (peek().kind != TokenKind::kName) unexpected();
    return take().text;
  }
  void end_tag() {
    if (peek().kind != TokenKind::kTagEnd) unexpected();
    take();
  }
  NodePointer make(Kind kind) const {
    auto node = std::make_unique<Node>();
    node->kind = kind;
    node->line = peek().line;
    return node;
  }
  NodePointer wrap(Kind kind, NodePointer first) const {
    NodePointer node = make(kind);
    node->parts.push_back(std::move(first));
    return node;
  }

  // --- Expressions, loosest first ---
  NodePointer tuple(bool conditional = true) {
    NodePointer first = conditional ? expression() : either();
    if (!is_operator(",")) return first;
    NodePointer node = wrap(Kind::kTuple, std::move(first));
    while (accept_operator(",")) {
      if (peek().kind == TokenKind::kTagEnd || peek().kind == TokenKind::kOutputEnd ||
          is_operator(")"))
        break;
      node->parts.push_back(conditional ? expression() : either());
    }
    return node;
  }

  NodePointer expression() {
    const Deeper deeper(*this);
    NodePointer value = either();
    while (accept_word("if")) {
      NodePointer node = wrap(Kind::kConditional, std::move(value));
      node->parts.push_back(either());
      node->parts.push_back(accept_word("else") ? expression() : nullptr);
      value = std::move(node);
    }
    return value;
  }
  NodePointer binary(NodePointer left, std::string text, NodePointer right) const {
    NodePointer node = wrap(Kind::kBinary, std::move(left));
    node->text = std::move(text);
    node->parts.push_back(std::move(right));
    return node;
  }
  NodePointer either() {
    NodePointer left = both();
    while (accept_word("or")) left = binary(std::move(left), "or", both());
    return left;
  }
  NodePointer both() {
    NodePointer left = negation();
    while (accept_word("and")) left = binary(std::move(left), "and", negation());
    return left;
  }
  NodePointer negation() {
    if (!accept_word("not")) return comparison();
    const Deeper deeper(*this);
    NodePointer node = wrap(Kind::kUnary, negation());
    node->text = "not";
    return node;
  }
  NodePointer comparison() {
    NodePointer left = sum();
    NodePointer node;
    while (true) {
      std::string text;
      for (const std::string_view compare : {"==", "!=", "<=", ">=", "<", ">"})
        if (is_operator(compare)) text = compare;
      if (is_word("in")) text = "in";
      if (is_word("not") && peek(1).kind == TokenKind::kName && peek(1).text == "in") {
        take();
        text = "not in";
      }
      if (text.empty()) return node ? std::move(node) : std::move(left);
      take();
      if (!node) node = wrap(Kind::kCompare, std::move(left));
      node->names.push_back(text);
      node->parts.push_back(sum());
    }
  }
  NodePointer sum() {
    NodePointer left = joined();
    while (is_operator("+") || is_operator("-")) {
      const std::string text = take().text;
      left = binary(std::move(left), text, joined());
    }
    return left;
  }
  NodePointer joined() {
    NodePointer left = product();
    while (accept_operator("~")) left = binary(std::move(left), "~", product());
    return left;
  }
  NodePointer product() {
    NodePointer left = power();
    while (is_operator("*") || is_operator("/") || is_operator("//") || is_operator("%")) {
      const std::string text = take().text;
      left = binary(std::move(left), text, power());
    }
    return left;
  }
  NodePointer power() {
    NodePointer left = unary(true);
    while (accept_operator("**")) left = binary(std::move(left), "**", unary(true));
    return left;
  }
  NodePointer unary(bool with_filter) {
    const Deeper deeper(*this);
    NodePointer node;
    if (is_operator("-") || is_operator("+")) {
      const std::string text = take().text;
      node = wrap(Kind::kUnary, unary(false));
      node->text = text;
    } else {
      node = primary();
    }
    node = postfix(std::move(node));
    return with_filter ? filters(std::move(node)) : std::move(node);
  }

  NodePointer literal(Value value) {
    NodePointer node = make(Kind::kLiteral);
    node->value = std::move(value);
    take();
    return node;
  }

  NodePointer primary() {
    const Token& token = peek();
    if (token.kind == TokenKind::kString) {
      std::string text;
      NodePointer node = make(Kind::kLiteral);
      while (peek().kind == TokenKind::kString) text += take().text;
      node->value = std::move(text);
      return node;
    }
    if (token.kind == TokenKind::kInteger)
      return literal(static_cast<int64_t>(std::strtoll(token.text.c_str(), nullptr, 10)));
    if (token.kind == TokenKind::kFloat) return literal(std::strtod(token.text.c_str(), nullptr));
    if (token.kind == TokenKind::kName) {
      if (token.text == "true" || token.text == "True") return literal(true);
      if (token.text == "false" || token.text == "False") return literal(false);
      if (token.text == "none" || token.text == "None") return literal(nullptr);
      for (const std::string_view word : {"if", "else", "and", "or", "not", "in", "is", "for"})
        if (token.text == word) unexpected();
      NodePointer node = make(Kind::kName);
      node->text = take().text;
      return node;
    }
    if (accept_operator("(")) {
      if (accept_operator(")")) return make(Kind::kTuple);
      NodePointer inner = tuple();
      expect_operator(")");
      return inner;
    }
    if (is_operator("[")) return list();
    if (is_operator("{")) return dictionary();
    unexpected();
  }

  NodePointer list() {
    NodePointer node = make(Kind::kList);
    take();
    while (!is_operator("]")) {
      node->parts.push_back(expression());
      if (!accept_operator(",")) break;
    }
    expect_operator("]");
    return node;
  }

  NodePointer dictionary() {
    NodePointer node = make(Kind::kDict);
    take();
    while (!is_operator("}")) {
      node->parts.push_back(expression());
      expect_operator(":");
      node->parts.push_back(expression());
      if (!accept_operator(",")) break;
    }
    expect_operator("}");
    return node;
  }

  NodePointer postfix(NodePointer node) {
    while (true) {
      if (accept_operator(".")) {
        const bool number = peek().kind == TokenKind::kInteger;
        node = wrap(number ? Kind::kSubscript : Kind::kAttribute, std::move(node));
        if (number)
          node->parts.push_back(primary());
        else
          node->text = name();
      } else if (accept_operator("[")) {
        node = bracket(std::move(node));
      } else if (is_operator("(")) {
        node = wrap(Kind::kCall, std::move(node));
        arguments(*node);
      } else {
        return node;
      }
    }
  }

  NodePointer bracket(NodePointer items) {
    NodePointer node = wrap(Kind::kSubscript, std::move(items));
    node->parts.push_back(is_operator(":") ? nullptr : tuple());
    if (is_operator(":")) {
      node->kind = Kind::kSlice;
      node->parts.resize(4);
      for (size_t i = 2; i < 4 && accept_operator(":"); ++i)
        if (!is_operator(":") && !is_operator("]")) node->parts[i] = expression();
    }
    expect_operator("]");
    return node;
  }

  /// `(a, b, name=c)` onto a node that has its object already.
  void arguments(Node& node) {
    expect_operator("(");
    while (!is_operator(")")) {
      if (is_operator("*") || is_operator("**")) unsupported("an unpacked argument");
      const bool named = peek().kind == TokenKind::kName && peek(1).kind == TokenKind::kOperator &&
                         peek(1).text == "=";
      node.names.push_back(named ? name() : "");
      if (named) take();
      node.parts.push_back(expression());
      if (!accept_operator(",")) break;
    }
    expect_operator(")");
  }

  NodePointer filters(NodePointer node) {
    while (true) {
      if (is_operator("|")) {
        node = filter(std::move(node));
      } else if (accept_word("is")) {
        node = test(std::move(node));
      } else if (is_operator("(")) {
        node = wrap(Kind::kCall, std::move(node));
        arguments(*node);
      } else {
        return node;
      }
    }
  }
  NodePointer filter(NodePointer input) {
    expect_operator("|");
    return named_filter(std::move(input));
  }
  NodePointer named_filter(NodePointer input) {
    NodePointer node = wrap(Kind::kFilter, std::move(input));
    node->text = name();
    if (!has_filter(node->text)) unsupported(cat("the filter '", node->text, "'"));
    if (is_operator("(")) arguments(*node);
    return node;
  }

  NodePointer test(NodePointer input) {
    NodePointer node = wrap(Kind::kTest, std::move(input));
    node->flag = accept_word("not");
    node->text = name();
    if (!has_test(node->text)) unsupported(cat("the test '", node->text, "'"));
    if (is_operator("(")) {
      arguments(*node);
      return node;
    }
    const Token& next = peek();
    const bool word = next.kind == TokenKind::kName && next.text != "else" && next.text != "or" &&
                      next.text != "and" && next.text != "is" && next.text != "if" &&
                      next.text != "not" && next.text != "in";
    if (word || next.kind == TokenKind::kString || next.kind == TokenKind::kInteger ||
        next.kind == TokenKind::kFloat || is_operator("[") || is_operator("{")) {
      node->names.emplace_back();
      node->parts.push_back(postfix(primary()));
    }
    return node;
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace slmc::jinja

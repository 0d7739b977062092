#include "formats/chat/jinja_parser.h"

#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/chat/jinja_expressions.h"

namespace slmc::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  NodePointer run() {
    NodePointer body = block({});
    if (peek().kind != TokenKind::kEnd) unexpected();
    return body;
  }

 private:
  /// Statements up to a tag whose name is one of `ends`, which is left to be read.
  NodePointer block(const std::vector<std::string_view>& ends) {
    const Deeper deeper(*this);
    NodePointer body = make(Kind::kBlock);
    while (peek().kind != TokenKind::kEnd) {
      if (peek().kind == TokenKind::kText) {
        NodePointer text = make(Kind::kText);
        text->text = take().text;
        body->parts.push_back(std::move(text));
      } else if (peek().kind == TokenKind::kOutputBegin) {
        take();
        body->parts.push_back(wrap(Kind::kOutput, tuple()));
        if (peek().kind != TokenKind::kOutputEnd) unexpected();
        take();
      } else {
        if (peek(1).kind != TokenKind::kName) fail("a tag without a name");
        if (std::find(ends.begin(), ends.end(), peek(1).text) != ends.end()) return body;
        take();
        body->parts.push_back(statement());
      }
    }
    if (!ends.empty()) fail(cat("expected {% ", ends.back(), " %}"));
    return body;
  }

  /// The body of a block and its closing tag.
  NodePointer body_until(std::string_view end) {
    end_tag();
    NodePointer body = block({end});
    take();
    take();
    if (peek().kind == TokenKind::kName) take();  // {% endmacro name %}
    end_tag();
    return body;
  }

  NodePointer statement() {
    const std::string tag = name();
    if (tag == "if") return if_statement();
    if (tag == "for") return for_statement();
    if (tag == "set") return set_statement();
    if (tag == "macro") return macro();
    if (tag == "filter") return filter_block();
    if (tag == "generation") return wrap(Kind::kGeneration, body_until("endgeneration"));
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail(cat(tag, " outside a loop"));
      end_tag();
      return make(tag == "break" ? Kind::kBreak : Kind::kContinue);
    }
    for (const std::string_view known : {"include", "import", "from", "extends", "block", "call",
                                         "with", "autoescape", "do", "trans"})
      if (tag == known) unsupported(cat("{% ", tag, " %}"));
    fail(cat("unknown tag '", tag, "'"));
  }

  NodePointer if_statement() {
    NodePointer node = make(Kind::kIf);
    while (true) {
      node->parts.push_back(tuple());
      end_tag();
      node->parts.push_back(block({"elif", "else", "endif"}));
      take();
      const std::string tag = name();
      if (tag == "elif") continue;
      if (tag == "else") {
        node->parts.push_back(body_until("endif"));
        return node;
      }
      end_tag();
      return node;
    }
  }

  NodePointer for_statement() {
    NodePointer node = make(Kind::kFor);
    const bool brackets = accept_operator("(");
    do node->names.push_back(name());
    while (accept_operator(","));
    if (brackets) expect_operator(")");
    expect_word("in");
    node->parts.push_back(tuple(false));
    node->parts.push_back(accept_word("if") ? expression() : nullptr);
    if (is_word("recursive")) unsupported("a recursive loop");
    end_tag();
    ++loops_;
    node->parts.push_back(block({"else", "endfor"}));
    --loops_;
    take();
    const std::string tag = name();
    if (tag == "else") {
      node->parts.push_back(body_until("endfor"));
    } else {
      end_tag();
      node->parts.push_back(nullptr);
    }
    return node;
  }

  NodePointer set_statement() {
    NodePointer node = make(Kind::kSet);
    const bool brackets = accept_operator("(");
    do {
      std::string target = name();
      if (accept_operator(".")) target += "." + name();
      node->names.push_back(std::move(target));
    } while (accept_operator(","));
    if (brackets) expect_operator(")");
    if (accept_operator("=")) {
      node->parts.push_back(tuple());
      end_tag();
      return node;
    }
    node->kind = Kind::kSetBlock;
    if (node->names.size() != 1) unexpected();
    std::vector<NodePointer> filters;
    while (is_operator("|")) filters.push_back(filter(nullptr));
    node->parts.push_back(body_until("endset"));
    for (auto& f : filters) node->parts.push_back(std::move(f));
    return node;
  }

  NodePointer macro() {
    NodePointer node = make(Kind::kMacro);
    node->text = name();
    expect_operator("(");
    while (!is_operator(")")) {
      node->names.push_back(name());
      node->parts.push_back(accept_operator("=") ? expression() : nullptr);
      if (!accept_operator(",")) break;
    }
    expect_operator(")");
    const int loops = std::exchange(loops_, 0);
    node->parts.push_back(body_until("endmacro"));
    loops_ = loops;
    return node;
  }

  NodePointer filter_block() {
    NodePointer node = make(Kind::kFilterBlock);
    std::vector<NodePointer> filters;
    filters.push_back(named_filter(nullptr));
    while (is_operator("|")) filters.push_back(filter(nullptr));
    node->parts.push_back(body_until("endfilter"));
    for (auto& f : filters) node->parts.push_back(std::move(f));
    return node;
  }

  int loops_ = 0;
};

}  // namespace

NodePointer parse(std::string_view source) { return Parser(source).run(); }

}  // namespace slmc::jinja

#include "formats/chat/jinja.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/chat/jinja_builtins.h"
#include "formats/chat/jinja_parser.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::jinja {
namespace {

constexpr size_t kLongestText = 16u << 20;
constexpr int kDeepestCall = 50;

struct Scope {
  std::shared_ptr<Scope> parent;
  Members names;
  const Value* find(const std::string& name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
      for (const auto& [key, value] : scope->names)
        if (key == name) return &value;
    }
    return nullptr;
  }
  void set(const std::string& name, Value value) {
    for (auto& [key, held] : names) {
      if (key == name) {
        held = std::move(value);
        return;
      }
    }
    names.emplace_back(name, std::move(value));
  }
};
using ScopePointer = std::shared_ptr<Scope>;

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  explicit Interpreter(const RenderOptions& options) : options_(options) {}

  Rendered run(const Node& root, const Json& variables) {
    auto scope = std::make_shared<Scope>();
    for (const auto& [key, value] : variables.items()) scope->set(key, Value::from_json(value));
    scope->set("raise_exception", Function([](const Arguments& a) -> Value {
                 throw Failure{a.get(0, "message", "").text(), true};
               }));
    if (options_.now != kNoClock)
      scope->set("strftime_now", Function([this](const Arguments& a) { return time_text(a); }));
    try {
      execute(root, std::make_shared<Scope>(Scope{scope, {}}));
    } catch (const Failure& failure) {
      if (failure.raised)
        throw_bad_input(
            cat("the chat template refuses these messages: ", one_line(failure.message)));
      throw_bad_input(cat("chat template, line ", line_, ": ", one_line(failure.message)));
    }
    return {std::move(out_), std::move(generation_)};
  }

 private:
  static std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
  }

  void spend(uint64_t steps) {
    steps_ += steps;
    if (steps_ > options_.most_steps)
      fail(cat("the template does not end within ", options_.most_steps, " steps"));
  }
  Value paid(Value value) {
    if (value.is_string())
      spend(value.string()->size() / 64);
    else if (value.list())
      spend(value.list()->size());
    return value;
  }
  void print(std::string_view text) {
    spend(text.size() / 64);
    if (out_.size() + text.size() > kLongestText) fail("the rendered text is too long");
    out_ += text;
  }

  Value time_text(const Arguments& a) const {
    const std::time_t now = options_.now == -1 ? std::time(nullptr) : options_.now;
    std::tm parts{};
    localtime_r(&now, &parts);
    std::array<char, 512> buffer{};
    const std::string format = a.get(0, "format", "").text();
    const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &parts);
    return std::string(buffer.data(), size);
  }

  // --- Statements ---
  Flow execute(const Node& node, const ScopePointer& scope) {
    spend(1);
    if (node.kind != Kind::kBlock) line_ = node.line;
    switch (node.kind) {
      case Kind::kBlock:
        for (const NodePointer& part : node.parts)
          if (const Flow flow = execute(*part, scope); flow != Flow::kNext) return flow;
        return Flow::kNext;
      case Kind::kText:
        print(node.text);
        return Flow::kNext;
      case Kind::kOutput:
        print(evaluate(*node.parts[0], scope).text());
        return Flow::kNext;
      case Kind::kIf:
        return choose(node, scope);
      case Kind::kFor:
        loop(node, scope);
        return Flow::kNext;
      case Kind::kSet:
        assign(node, evaluate(*node.parts[0], scope), scope);
        return Flow::kNext;
      case Kind::kSetBlock:
        assign(node, filtered(node, scope), scope);
        return Flow::kNext;
      case Kind::kFilterBlock:
        print(filtered(node, scope).text());
        return Flow::kNext;
      case Kind::kMacro:
        define(node, scope);
        return Flow::kNext;
      case Kind::kGeneration: {
        const size_t begin = out_.size();
        execute(*node.parts[0], std::make_shared<Scope>(Scope{scope, {}}));
        if (captures_ == 0 && out_.size() > begin) generation_.emplace_back(begin, out_.size());
        return Flow::kNext;
      }
      case Kind::kBreak:
        return Flow::kBreak;
      case Kind::kContinue:
        return Flow::kContinue;
      default:
        fail("an expression where a statement should be");
    }
  }

  Flow choose(const Node& node, const ScopePointer& scope) {
    for (size_t i = 0; i < node.parts.size(); i += 2) {
      const bool otherwise = i + 1 == node.parts.size();
      if (otherwise) return execute(*node.parts[i], scope);
      if (evaluate(*node.parts[i], scope).truthy()) return execute(*node.parts[i + 1], scope);
    }
    return Flow::kNext;
  }

  void unpack(const std::vector<std::string>& names, const Value& value, Scope& scope) {
    if (names.size() == 1) return scope.set(names[0], value);
    const List parts = value.iterate();
    if (parts.size() != names.size())
      fail(cat("expected ", names.size(), " values to unpack, found ", parts.size()));
    for (size_t i = 0; i < parts.size(); ++i) scope.set(names[i], parts[i]);
  }

  void loop(const Node& node, const ScopePointer& scope) {
    List items = evaluate(*node.parts[0], scope).iterate();
    spend(items.size());
    if (node.parts[1]) {
      List kept;
      for (const Value& item : items) {
        const auto inner = std::make_shared<Scope>(Scope{scope, {}});
        unpack(node.names, item, *inner);
        if (evaluate(*node.parts[1], inner).truthy()) kept.push_back(item);
      }
      items = std::move(kept);
    }
    if (items.empty() && node.parts[3]) {
      execute(*node.parts[3], scope);
      return;
    }
    for (size_t i = 0; i < items.size(); ++i) {
      spend(10);  // What `loop` says costs about as much as ten nodes.
      const auto inner = std::make_shared<Scope>(Scope{scope, {}});
      inner->set("loop", loop_facts(items, i));
      unpack(node.names, items[i], *inner);
      if (execute(*node.parts[2], inner) == Flow::kBreak) break;
    }
  }

  static Value loop_facts(const List& items, size_t i) {
    const auto index = static_cast<int64_t>(i), count = static_cast<int64_t>(items.size());
    Dict facts;
    facts.is_namespace = true;
    facts.members = {
        {"index0", index},
        {"index", index + 1},
        {"first", index == 0},
        {"last", index + 1 == count},
        {"length", count},
        {"revindex", count - index},
        {"revindex0", count - index - 1},
        {"depth", 1},
        {"depth0", 0},
        {"previtem", i > 0 ? items[i - 1] : Value::undefined("loop.previtem")},
        {"nextitem", i + 1 < items.size() ? items[i + 1] : Value::undefined("loop.nextitem")}};
    facts.members.emplace_back("cycle", Function([i](const Arguments& a) {
                                 if (a.positional.empty()) fail("cycle: expected values");
                                 return a.positional[i % a.positional.size()];
                               }));
    return facts;
  }

  void assign(const Node& node, const Value& value, const ScopePointer& scope) {
    const auto dot = node.names[0].find('.');
    if (dot == std::string::npos) return unpack(node.names, value, *scope);
    const std::string object = node.names[0].substr(0, dot);
    const Value* held = scope->find(object);
    if (node.names.size() != 1 || held == nullptr || !held->dict() || !held->dict()->is_namespace)
      fail(cat("'", object, "' is no namespace, so its attributes cannot be set"));
    held->dict()->set(node.names[0].substr(dot + 1), value);
  }

  /// What a body prints.
  std::string captured(const Node& body, const ScopePointer& scope) {
    std::string outer;
    outer.swap(out_);
    ++captures_;
    execute(body, scope);
    --captures_;
    outer.swap(out_);
    return outer;
  }

  Value filtered(const Node& node, const ScopePointer& scope) {
    Value value = captured(*node.parts[0], std::make_shared<Scope>(Scope{scope, {}}));
    for (size_t i = 1; i < node.parts.size(); ++i) value = filter(*node.parts[i], value, scope);
    return value;
  }

  void define(const Node& node, const ScopePointer& scope) {
    const std::weak_ptr<Scope> home = scope;  // The scope holds the macro.
    scope->set(node.text, Function([this, &node, home](const Arguments& a) -> Value {
                 const ScopePointer outer = home.lock();
                 if (outer == nullptr)
                   fail(cat("macro '", node.text, "' is used outside its block"));
                 return call_macro(node, a, outer);
               }));
  }

  Value call_macro(const Node& node, const Arguments& a, const ScopePointer& outer) {
    if (depth_ >= kDeepestCall) fail("macros call each other too deeply");
    if (a.positional.size() > node.names.size())
      fail(cat("macro '", node.text, "' takes ", node.names.size(), " arguments"));
    for (const auto& [name, value] : a.named)
      if (std::find(node.names.begin(), node.names.end(), name) == node.names.end())
        fail(cat("macro '", node.text, "' has no parameter '", name, "'"));
    ++depth_;
    const auto inner = std::make_shared<Scope>(Scope{outer, {}});
    for (size_t i = 0; i < node.names.size(); ++i) {
      const std::string& name = node.names[i];
      if (a.has(i, name))
        inner->set(name, a.get(i, name, {}));
      else
        inner->set(name, node.parts[i] ? evaluate(*node.parts[i], inner) : Value::undefined(name));
    }
    std::string text = captured(*node.parts.back(), inner);
    --depth_;
    return text;
  }

  // --- Expressions ---
  Value evaluate(const Node& node, const ScopePointer& scope) {
    spend(1);
    switch (node.kind) {
      case Kind::kLiteral:
        return node.value;
      case Kind::kName: {
        const Value* found = scope->find(node.text);
        return found ? *found : global(node.text);
      }
      case Kind::kList:
      case Kind::kTuple: {
        List list;
        for (const NodePointer& part : node.parts) list.push_back(evaluate(*part, scope));
        return {std::move(list), node.kind == Kind::kTuple};
      }
      case Kind::kDict: {
        Dict dict;
        for (size_t i = 0; i < node.parts.size(); i += 2)
          dict.set(evaluate(*node.parts[i], scope).text(), evaluate(*node.parts[i + 1], scope));
        return dict;
      }
      case Kind::kAttribute:
        return attribute(evaluate(*node.parts[0], scope), node.text);
      case Kind::kSubscript:
        return element(evaluate(*node.parts[0], scope), evaluate(*node.parts[1], scope));
      case Kind::kSlice: {
        const auto bound = [&](size_t i) {
          return node.parts[i] ? evaluate(*node.parts[i], scope) : Value(nullptr);
        };
        return paid(slice(evaluate(*node.parts[0], scope), bound(1), bound(2), bound(3)));
      }
      case Kind::kCall: {
        const Value function = evaluate(*node.parts[0], scope);
        if (function.is_undefined())
          fail(cat("'", function.as<Undefined>()->name, "' is undefined"));
        if (!function.function())
          fail(cat("a value of type ", function.type_name(), " cannot be called"));
        return paid((*function.function())(arguments(node, scope)));
      }
      case Kind::kFilter:
        return filter(node, evaluate(*node.parts[0], scope), scope);
      case Kind::kTest:
        return apply_test(node.text, evaluate(*node.parts[0], scope), arguments(node, scope)) !=
               node.flag;
      case Kind::kUnary:
        return unary(node.text, evaluate(*node.parts[0], scope));
      case Kind::kBinary:
        return binary(node, scope);
      case Kind::kCompare:
        return compare(node, scope);
      case Kind::kConditional:
        if (evaluate(*node.parts[1], scope).truthy()) return evaluate(*node.parts[0], scope);
        return node.parts[2] ? evaluate(*node.parts[2], scope) : Value();
      default:
        fail("a statement where an expression should be");
    }
  }

  Arguments arguments(const Node& node, const ScopePointer& scope) {
    Arguments out;
    for (size_t i = 0; i < node.names.size(); ++i) {
      Value value = evaluate(*node.parts[i + 1], scope);
      if (node.names[i].empty())
        out.positional.push_back(std::move(value));
      else
        out.named.emplace_back(node.names[i], std::move(value));
    }
    return out;
  }

  Value filter(const Node& node, const Value& input, const ScopePointer& scope) {
    return paid(apply_filter(node.text, input, arguments(node, scope)));
  }

  /// `object.name`: Python's attributes (methods) come before a dictionary's keys.
  static Value attribute(const Value& object, const std::string& name) {
    Value method = method_of(object, name);
    return method.is_undefined() ? subscript(object, name) : method;
  }
  /// `object[index]`: the other way round.
  static Value element(const Value& object, const Value& index) {
    Value found = subscript(object, index);
    if (!found.is_undefined() || !index.is_string()) return found;
    Value method = method_of(object, *index.string());
    return method.is_undefined() ? found : method;
  }

  Value binary(const Node& node, const ScopePointer& scope) {
    Value left = evaluate(*node.parts[0], scope);
    if (node.text == "and") return left.truthy() ? evaluate(*node.parts[1], scope) : left;
    if (node.text == "or") return left.truthy() ? left : evaluate(*node.parts[1], scope);
    const Value right = evaluate(*node.parts[1], scope);
    if (node.text == "~") return concatenated(left.text(), right.text());
    for (const Value* value : {static_cast<const Value*>(&left), &right})
      if (value->is_undefined()) fail(cat("'", value->as<Undefined>()->name, "' is undefined"));
    if (node.text == "+" && left.is_string() && right.is_string())
      return concatenated(*left.string(), *right.string());
    if (node.text == "+" && left.list() && right.list()) {
      List both = *left.list();
      both.insert(both.end(), right.list()->begin(), right.list()->end());
      return paid(Value(std::move(both), left.is_tuple()));
    }
    if (node.text == "*" && left.is_string() && right.is_integer())
      return repeated(*left.string(), right.integer());
    if (!left.is_number() || !right.is_number())
      fail(cat("'", node.text, "' of ", left.type_name(), " and ", right.type_name()));
    return arithmetic(node.text, left, right);
  }

  Value concatenated(const std::string& left, const std::string& right) {
    if (left.size() + right.size() > kLongestText) fail("a text is too long");
    return paid(left + right);
  }
  Value repeated(const std::string& text, int64_t times) {
    if (times <= 0 || text.empty()) return "";
    if (static_cast<uint64_t>(times) > kLongestText / text.size()) fail("a text is too long");
    std::string out;
    for (int64_t i = 0; i < times; ++i) out += text;
    return paid(std::move(out));
  }

  Value compare(const Node& node, const ScopePointer& scope) {
    Value left = evaluate(*node.parts[0], scope);
    for (size_t i = 0; i < node.names.size(); ++i) {
      Value right = evaluate(*node.parts[i + 1], scope);
      const std::string& sign = node.names[i];
      const bool holds = sign == "=="   ? equal(left, right)
                         : sign == "!=" ? !equal(left, right)
                         : sign == "<"  ? less(left, right)
                         : sign == ">"  ? less(right, left)
                         : sign == "<=" ? !less(right, left)
                         : sign == ">=" ? !less(left, right)
                         : sign == "in" ? contains(right, left)
                                        : !contains(right, left);
      if (!holds) return false;
      left = std::move(right);
    }
    return true;
  }

  const RenderOptions& options_;
  std::string out_;
  std::vector<std::pair<size_t, size_t>> generation_;
  uint64_t steps_ = 0;
  int line_ = 1, depth_ = 0, captures_ = 0;
};

bool contains_generation(const Node& node) {
  return node.kind == Kind::kGeneration ||
         std::any_of(node.parts.begin(), node.parts.end(),
                     [](const NodePointer& part) { return part && contains_generation(*part); });
}

}  // namespace

Template::Template(std::string_view source) {
  if (!unicode::is_valid(source)) throw_bad_input("chat template: it is not UTF-8");
  root_ = parse(source);
  has_generation_ = contains_generation(*root_);
}

Rendered Template::render(const Json& variables, const RenderOptions& options) const {
  return Interpreter(options).run(*root_, variables);
}

}  // namespace slmc::jinja

// Values of the Jinja interpreter (jinja.h): Python's none, booleans, integers, floats, strings,
// lists and dictionaries, as far as chat templates use them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "compress/core/json.h"

namespace slmc::jinja {

class Value;
using List = std::vector<Value>;
/// Members in order of insertion.
using Members = std::vector<std::pair<std::string, Value>>;

/// Arguments of a call: `f(1, name=2)`.
struct Arguments {
  List positional;
  Members named;
  /// The argument at a place or under a name; `fallback` if neither is given.
  Value get(size_t place, std::string_view name, const Value& fallback) const;
  bool has(size_t place, std::string_view name) const;
};
using Function = std::function<Value(const Arguments&)>;

struct Undefined {
  std::string name;  ///< For the error when it is used.
};
struct Dict {
  Members members;
  bool is_namespace = false;  ///< `namespace()`: its attributes can be set.
  const Value* find(std::string_view key) const;
  void set(const std::string& key, Value value);
};

/// A value; lists, dictionaries and functions are shared, as in Python.
class Value {
 public:
  Value() : held_(Undefined{}) {}
  Value(std::nullptr_t) : held_(nullptr) {}
  Value(bool value) : held_(value) {}
  Value(int value) : held_(int64_t{value}) {}
  Value(int64_t value) : held_(value) {}
  Value(double value) : held_(value) {}
  Value(const char* text) : held_(std::string(text)) {}
  Value(std::string text) : held_(std::move(text)) {}
  Value(List list, bool tuple = false)
      : held_(std::make_shared<List>(std::move(list))), tuple_(tuple) {}
  Value(Dict dict) : held_(std::make_shared<Dict>(std::move(dict))) {}
  Value(Function function) : held_(std::make_shared<Function>(std::move(function))) {}
  static Value undefined(std::string name) {
    Value value;
    value.held_ = Undefined{std::move(name)};
    return value;
  }
  static Value from_json(const Json& json);

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&held_);
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
  bool is_none() const { return as<std::nullptr_t>() != nullptr; }
  bool is_string() const { return as<std::string>() != nullptr; }
  bool is_number() const { return as<int64_t>() || as<double>() || as<bool>(); }
  bool is_integer() const { return as<int64_t>() || as<bool>(); }
  bool is_tuple() const { return tuple_; }
  const std::string* string() const { return as<std::string>(); }
  /// Null if it is not one.
  List* list() const {
    const auto* held = as<std::shared_ptr<List>>();
    return held ? held->get() : nullptr;
  }
  Dict* dict() const {
    const auto* held = as<std::shared_ptr<Dict>>();
    return held ? held->get() : nullptr;
  }
  const Function* function() const {
    const auto* held = as<std::shared_ptr<Function>>();
    return held ? held->get() : nullptr;
  }

  bool truthy() const;
  /// What `{{ value }}` prints: Python's str().
  std::string text() const;
  /// Python's repr().
  std::string repr() const;
  /// Python's json.dumps without ASCII escapes; `indent` below 0: one line.
  std::string json(int indent = -1, int depth = 0, bool sorted = false) const;
  /// "str", "int"...
  std::string type_name() const;
  /// Whole number, or throws Failure.
  int64_t integer() const;
  double number() const;
  /// Elements, characters or keys. Throws Failure for what cannot be iterated.
  List iterate() const;
  size_t length() const;

 private:
  std::variant<Undefined, std::nullptr_t, bool, int64_t, double, std::string, std::shared_ptr<List>,
               std::shared_ptr<Dict>, std::shared_ptr<Function>>
      held_;
  bool tuple_ = false;
};

bool equal(const Value& a, const Value& b);
/// Throws Failure if the two cannot be ordered.
bool less(const Value& a, const Value& b);
/// Python's `needle in haystack`.
bool contains(const Value& haystack, const Value& needle);

/// `not`, `-` and `+` before a value; `+ - * / // % **` between two numbers.
Value unary(const std::string& sign, const Value& value);
Value arithmetic(const std::string& sign, const Value& a, const Value& b);

/// A run-time failure without its place; the interpreter adds the template's line.
struct Failure {
  std::string message;
  bool raised = false;  ///< By the template itself (raise_exception).
};
[[noreturn]] void fail(std::string message);

/// Characters of a text, as Python counts them.
std::vector<std::string> characters(std::string_view text);
/// `items[start:stop:step]`; none for what is left out.
Value slice(const Value& items, const Value& start, const Value& stop, const Value& step);
/// `items[index]` or `items.name`; undefined if it has none.
Value subscript(const Value& items, const Value& index);

}  // namespace slmc::jinja

#include "formats/chat/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "compress/core/text.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::jinja {
namespace {

constexpr int kDeepestList = 100;  // Lists in lists.

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                 plain ? std::chars_format::fixed : std::chars_format::scientific)
                       .ptr;
  std::string text(buffer, end);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {
  const bool doubles = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = doubles ? '"' : '\'';
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out(1, quote);
  for (const char c : text) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (c == quote || c == '\\')
      out += std::string("\\") + c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += std::string("\\x") + kHex[static_cast<unsigned char>(c) >> 4] + kHex[c & 15];
    else
      out += c;
  }
  return out + quote;
}

std::string json_string(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

void fail(std::string message) { throw Failure{std::move(message)}; }

bool Arguments::has(size_t place, std::string_view name) const {
  return place < positional.size() ||
         std::any_of(named.begin(), named.end(), [&](const auto& m) { return m.first == name; });
}

Value Arguments::get(size_t place, std::string_view name, const Value& fallback) const {
  if (place < positional.size()) return positional[place];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return fallback;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : members) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::set(const std::string& key, Value value) {
  for (auto& [name, held] : members) {
    if (name == key) {
      held = std::move(value);
      return;
    }
  }
  members.emplace_back(key, std::move(value));
}

Value Value::from_json(const Json& json) {
  if (json.is_null()) return nullptr;
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return unicode::replace_invalid(json.get_ref<const std::string&>());
  if (json.is_array()) {
    List list;
    for (const Json& item : json) list.push_back(from_json(item));
    return list;
  }
  Dict dict;
  for (const auto& [key, value] : json.items()) dict.members.emplace_back(key, from_json(value));
  return dict;
}

bool Value::truthy() const {
  if (const auto* value = as<bool>()) return *value;
  if (const auto* value = as<int64_t>()) return *value != 0;
  if (const auto* value = as<double>()) return *value != 0;
  if (const auto* value = string()) return !value->empty();
  if (list() != nullptr) return !list()->empty();
  if (dict() != nullptr) return dict()->is_namespace || !dict()->members.empty();
  return function() != nullptr;
}

std::string Value::type_name() const {
  if (is_undefined()) return "undefined";
  if (is_none()) return "none";
  if (as<bool>()) return "bool";
  if (as<int64_t>()) return "int";
  if (as<double>()) return "float";
  if (is_string()) return "str";
  if (list()) return tuple_ ? "tuple" : "list";
  return dict() ? "dict" : "function";
}

std::string Value::text() const {
  if (is_undefined()) return "";
  return is_string() ? *string() : repr();
}

std::string Value::repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (const auto* value = as<bool>()) return *value ? "True" : "False";
  if (const auto* value = as<int64_t>()) return std::to_string(*value);
  if (const auto* value = as<double>()) return float_text(*value);
  if (const auto* value = string()) return quoted(*value);
  thread_local int depth = 0;
  struct Deeper {
    Deeper() {
      if (++depth > kDeepestList) {
        --depth;
        fail("lists are nested too deeply");
      }
    }
    ~Deeper() { --depth; }
  } deeper;
  std::vector<std::string> parts;
  if (list()) {
    for (const Value& item : *list()) parts.push_back(item.repr());
    const std::string inner = join(parts, ", ");
    if (!tuple_) return "[" + inner + "]";
    return "(" + inner + (parts.size() == 1 ? ",)" : ")");
  }
  if (!dict()) return "<function>";
  for (const auto& [key, value] : dict()->members)
    parts.push_back(quoted(key) + ": " + value.repr());
  return "{" + join(parts, ", ") + "}";
}

std::string Value::json(int indent, int depth, bool sorted) const {
  if (depth > kDeepestList) fail("tojson: lists are nested too deeply");
  if (is_none()) return "null";
  if (const auto* value = as<bool>()) return *value ? "true" : "false";
  if (is_number()) return repr();
  if (is_string()) return json_string(*string());
  std::vector<std::string> parts;
  if (list()) {
    for (const Value& item : *list()) parts.push_back(item.json(indent, depth + 1, sorted));
  } else if (dict() && !dict()->is_namespace) {
    Members members = dict()->members;
    if (sorted)
      std::sort(members.begin(), members.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [key, value] : members)
      parts.push_back(json_string(key) + ": " + value.json(indent, depth + 1, sorted));
  } else {
    fail(cat("tojson: a value of type ", type_name(), " is not JSON"));
  }
  const char* brackets = list() ? "[]" : "{}";
  std::string out(1, brackets[0]);
  if (!parts.empty() && indent >= 0) {
    const std::string line = "\n" + std::string(static_cast<size_t>(indent * (depth + 1)), ' ');
    out += line + join(parts, "," + line) + "\n" +
           std::string(static_cast<size_t>(indent * depth), ' ');
  } else {
    out += join(parts, ", ");
  }
  return out + brackets[1];
}

int64_t Value::integer() const {
  if (const auto* value = as<int64_t>()) return *value;
  if (const auto* value = as<bool>()) return *value ? 1 : 0;
  fail(cat("expected an integer, found ", type_name()));
}

double Value::number() const {
  if (const auto* value = as<double>()) return *value;
  if (!is_number()) fail(cat("expected a number, found ", type_name()));
  return static_cast<double>(integer());
}

List Value::iterate() const {
  if (is_undefined()) return {};
  if (list()) return *list();
  List out;
  if (is_string()) {
    for (std::string& c : characters(*string())) out.emplace_back(std::move(c));
  } else if (dict() && !dict()->is_namespace) {
    for (const auto& member : dict()->members) out.emplace_back(member.first);
  } else {
    fail(cat("a value of type ", type_name(), " cannot be iterated"));
  }
  return out;
}

size_t Value::length() const {
  if (is_undefined()) return 0;
  if (list()) return list()->size();
  if (dict() && !dict()->is_namespace) return dict()->members.size();
  if (is_string()) return characters(*string()).size();
  fail(cat("a value of type ", type_name(), " has no length"));
}

bool equal(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.is_string() && b.is_string()) return *a.string() == *b.string();
  if (a.is_none() || a.is_undefined())
    return a.is_none() == b.is_none() && a.is_undefined() == b.is_undefined();
  if (a.list() && b.list()) {
    return a.list() == b.list() ||
           (a.is_tuple() == b.is_tuple() && std::equal(a.list()->begin(), a.list()->end(),
                                                       b.list()->begin(), b.list()->end(), equal));
  }
  if (!a.dict() || !b.dict()) return false;
  if (a.dict() == b.dict()) return true;
  if (a.dict()->members.size() != b.dict()->members.size()) return false;
  for (const auto& [key, value] : a.dict()->members) {
    const Value* other = b.dict()->find(key);
    if (other == nullptr || !equal(value, *other)) return false;
  }
  return true;
}

bool less(const Value& a, const Value& b) {
  if (a.is_integer() && b.is_integer()) return a.integer() < b.integer();
  if (a.is_number() && b.is_number()) return a.number() < b.number();
  if (a.is_string() && b.is_string()) return *a.string() < *b.string();
  if (a.list() && b.list())
    return std::lexicographical_compare(a.list()->begin(), a.list()->end(), b.list()->begin(),
                                        b.list()->end(), less);
  fail(cat("values of types ", a.type_name(), " and ", b.type_name(), " cannot be ordered"));
}

bool contains(const Value& haystack, const Value& needle) {
  if (haystack.is_string()) {
    if (!needle.is_string()) fail(cat("'in' a string needs a string, found ", needle.type_name()));
    return haystack.string()->find(*needle.string()) != std::string::npos;
  }
  if (haystack.dict() && !haystack.dict()->is_namespace)
    return needle.is_string() && haystack.dict()->find(*needle.string()) != nullptr;
  const List items = haystack.iterate();
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return equal(v, needle); });
}

std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    unicode::next(text, at);
    out.emplace_back(text.substr(start, at - start));
  }
  return out;
}

Value slice(const Value& items, const Value& start, const Value& stop, const Value& step) {
  if (!items.list() && !items.is_string())
    fail(cat("a value of type ", items.type_name(), " cannot be sliced"));
  const List all = items.iterate();
  const auto size = static_cast<int64_t>(all.size());
  const int64_t by = step.is_none() ? 1 : step.integer();
  if (by == 0) fail("a slice's step must not be 0");
  const auto bound = [&](const Value& value, int64_t fallback) {
    if (value.is_none()) return fallback;
    const int64_t index = value.integer() < 0 ? value.integer() + size : value.integer();
    return std::clamp<int64_t>(index, by > 0 ? 0 : -1, by > 0 ? size : size - 1);
  };
  const int64_t first = bound(start, by > 0 ? 0 : size - 1);
  const int64_t last = bound(stop, by > 0 ? size : -1);
  List out;
  for (int64_t i = first; by > 0 ? i < last : i > last; i += by) {
    out.push_back(all[static_cast<size_t>(i)]);
    if (by > size || by < -size) break;
  }
  if (!items.is_string()) return {std::move(out), items.is_tuple()};
  std::string text;
  for (const Value& character : out) text += *character.string();
  return text;
}

Value subscript(const Value& items, const Value& index) {
  if (items.is_undefined()) fail(cat("'", items.as<Undefined>()->name, "' is undefined"));
  if (items.dict() && index.is_string()) {
    const Value* found = items.dict()->find(*index.string());
    return found ? *found : Value::undefined(*index.string());
  }
  if (index.is_integer() && (items.list() || items.is_string())) {
    const auto size = static_cast<int64_t>(items.length());
    const int64_t at = index.integer() < 0 ? index.integer() + size : index.integer();
    if (at < 0 || at >= size) return Value::undefined(cat("element ", index.integer()));
    if (items.list()) return (*items.list())[static_cast<size_t>(at)];
    return characters(*items.string())[static_cast<size_t>(at)];
  }
  return Value::undefined(index.text());
}

Value unary(const std::string& sign, const Value& value) {
  if (sign == "not") return !value.truthy();
  if (!value.is_integer()) return sign == "-" ? -value.number() : value.number();
  int64_t out = 0;
  if (__builtin_sub_overflow(int64_t{0}, value.integer(), &out)) fail("a number is too large");
  return sign == "-" ? out : value.integer();
}

Value arithmetic(const std::string& sign, const Value& a, const Value& b) {
  const bool whole = a.is_integer() && b.is_integer() && sign != "/";
  if ((sign == "/" || sign == "//" || sign == "%") && b.number() == 0) fail("division by zero");
  if (!whole) {
    const double x = a.number(), y = b.number();
    if (sign == "+") return x + y;
    if (sign == "-") return x - y;
    if (sign == "*") return x * y;
    if (sign == "/") return x / y;
    if (sign == "//") return std::floor(x / y);
    if (sign == "**") return std::pow(x, y);
    return x - std::floor(x / y) * y;
  }
  const int64_t x = a.integer(), y = b.integer();
  int64_t out = 0;
  bool over = false;
  if (sign == "+") {
    over = __builtin_add_overflow(x, y, &out);
  } else if (sign == "-") {
    over = __builtin_sub_overflow(x, y, &out);
  } else if (sign == "*") {
    over = __builtin_mul_overflow(x, y, &out);
  } else if (sign == "**") {
    if (y < 0) return std::pow(static_cast<double>(x), static_cast<double>(y));
    out = 1;
    for (int64_t i = 0; i < y && !over && (x < -1 || x > 1); ++i)
      over = __builtin_mul_overflow(out, x, &out);
    if (x == 0 && y > 0) out = 0;
    if (x == -1 && y % 2 != 0) out = -1;
  } else if (y == -1) {
    over = sign == "//" && __builtin_sub_overflow(int64_t{0}, x, &out);
  } else {
    const int64_t quotient = x / y - ((x % y != 0 && (x < 0) != (y < 0)) ? 1 : 0);
    out = sign == "//" ? quotient : x - quotient * y;
  }
  if (over) fail("a number is too large");
  return out;
}

}  // namespace slmc::jinja

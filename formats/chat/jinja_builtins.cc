#include "formats/chat/jinja_builtins.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "compress/core/text.h"
#include "formats/chat/jinja_parser.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::jinja {
namespace {

using A = const Arguments&;

/// Calls a string's method on anything, as its text.
Value by_method(const char* method, const Value& input, A a) {
  return (*method_of(input.text(), method).function())(a);
}

/// `attribute` may be "a.b" or a number.
Value attribute_of(Value item, const Value& attribute) {
  if (!attribute.is_string()) return subscript(item, attribute);
  const std::string& path = *attribute.string();
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('.', at), path.size());
    item = subscript(item, path.substr(at, end - at));
    at = end + 1;
  }
  return item;
}

Value join_filter(const Value& input, A a) {
  std::vector<std::string> parts;
  const Value attribute = a.get(1, "attribute", nullptr);
  for (const Value& item : input.iterate())
    parts.push_back((attribute.is_none() ? item : attribute_of(item, attribute)).text());
  return join(parts, a.get(0, "d", "").text());
}

Arguments rest_of(A a, size_t from) {
  Arguments rest;
  for (size_t i = from; i < a.positional.size(); ++i) rest.positional.push_back(a.positional[i]);
  rest.named = a.named;
  return rest;
}

/// select, reject (by test) and selectattr, rejectattr (by an attribute's test).
Value select(const Value& input, A a, bool by_attribute, bool wanted) {
  const size_t first = by_attribute ? 1 : 0;
  if (by_attribute && a.positional.empty()) fail("selectattr: the attribute's name is missing");
  const bool tested = a.positional.size() > first;
  const std::string test = tested ? a.positional[first].text() : "";
  if (tested && !has_test(test)) fail(cat("there is no test '", test, "'"));
  const Arguments rest = rest_of(a, first + 1);
  List out;
  for (const Value& item : input.iterate()) {
    const Value value = by_attribute ? attribute_of(item, a.positional[0]) : item;
    if ((tested ? apply_test(test, value, rest) : value.truthy()) == wanted) out.push_back(item);
  }
  return out;
}

Value map_filter(const Value& input, A a) {
  List out;
  const Value attribute = a.get(99, "attribute", nullptr);
  if (attribute.is_none() && a.positional.empty()) fail("map: expected a filter or an attribute");
  for (const Value& item : input.iterate()) {
    if (!attribute.is_none()) {
      const Value found = attribute_of(item, attribute);
      out.push_back(found.is_undefined() ? a.get(99, "default", found) : found);
      continue;
    }
    const std::string filter = a.positional[0].text();
    if (!has_filter(filter)) fail(cat("there is no filter '", filter, "'"));
    out.push_back(apply_filter(filter, item, rest_of(a, 1)));
  }
  return out;
}

Value sort_key(const Value& item, const Value& attribute, bool exact) {
  const Value key = attribute.is_none() ? item : attribute_of(item, attribute);
  return !exact && key.is_string() ? Value(unicode::lower_case(*key.string())) : key;
}

Value sorted(const Value& input, A a) {
  List items = input.iterate();
  const bool reverse = a.get(0, "reverse", false).truthy();
  const bool exact = a.get(1, "case_sensitive", false).truthy();
  const Value attribute = a.get(2, "attribute", nullptr);
  std::stable_sort(items.begin(), items.end(), [&](const Value& x, const Value& y) {
    const Value a_key = sort_key(x, attribute, exact), b_key = sort_key(y, attribute, exact);
    return reverse ? less(b_key, a_key) : less(a_key, b_key);
  });
  return items;
}

Value sorted_pairs(const Value& input) {
  if (!input.dict()) fail(cat("dictsort: expected a dictionary, found ", input.type_name()));
  Members members = input.dict()->members;
  std::stable_sort(members.begin(), members.end(), [](const auto& x, const auto& y) {
    return unicode::lower_case(x.first) < unicode::lower_case(y.first);
  });
  List out;
  for (const auto& [key, value] : members) out.emplace_back(List{Value(key), value}, true);
  return out;
}

Value extreme(const Value& input, bool largest) {
  const List items = input.iterate();
  if (items.empty()) return Value::undefined("the extreme of an empty list");
  const Value* best = &items[0];
  for (const Value& item : items)
    if (largest ? less(*best, item) : less(item, *best)) best = &item;
  return *best;
}

Value unique(const Value& input) {
  List out;
  for (const Value& item : input.iterate()) {
    const Value key = sort_key(item, nullptr, false);
    if (std::none_of(out.begin(), out.end(),
                     [&](const Value& held) { return equal(sort_key(held, nullptr, false), key); }))
      out.push_back(item);
  }
  return out;
}

Value indent(const Value& input, A a) {
  const Value width = a.get(0, "width", 4);
  const std::string space =
      width.is_string()
          ? *width.string()
          : std::string(static_cast<size_t>(std::clamp<int64_t>(width.integer(), 0, 1000)), ' ');
  const bool first = a.get(1, "first", false).truthy(), blank = a.get(2, "blank", false).truthy();
  const std::string text = input.text();
  std::string out;
  bool opening = true;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (!opening) out += '\n';
    if (opening ? first : (blank || end > at)) out += space;
    out.append(text, at, end - at);
    opening = false;
    at = end + 1;
  }
  return out;
}

Value rounded(const Value& input, A a) {
  const auto digits =
      static_cast<int>(std::clamp<int64_t>(a.get(0, "precision", 0).integer(), -15, 15));
  const std::string method = a.get(1, "method", "common").text();
  const double scale = std::pow(10.0, digits), value = input.number() * scale;
  const double whole = method == "ceil"    ? std::ceil(value)
                       : method == "floor" ? std::floor(value)
                                           : std::nearbyint(value);
  return whole / scale;
}

Value to_integer(const Value& input, A a) {
  if (const auto* value = input.as<double>())
    return static_cast<int64_t>(std::clamp(*value, -9e18, 9e18));
  if (input.is_number()) return input.integer();
  const std::string text = by_method("strip", input, {}).text();
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') return a.get(0, "default", 0);
  return static_cast<int64_t>(std::clamp(value, -9e18, 9e18));
}

Value to_float(const Value& input, A a) {
  if (input.is_number()) return input.number();
  const std::string text = by_method("strip", input, {}).text();
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  return text.empty() || *end != '\0' ? a.get(0, "default", 0.0) : Value(value);
}

Value escaped(const Value& input) {
  std::string out;
  for (const char c : input.text()) {
    const std::string_view from = "&<>'\"";
    constexpr std::string_view kTo[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    const size_t index = from.find(c);
    if (index == std::string_view::npos)
      out += c;
    else
      out += kTo[index];
  }
  return out;
}

Value reversed(const Value& input) {
  return slice(input.is_string() ? input : Value(input.iterate()), nullptr, nullptr, -1);
}

Value end_of(const Value& input, bool last) {
  const List items = input.iterate();
  if (items.empty()) return Value::undefined(last ? "the last element" : "the first element");
  return last ? items.back() : items.front();
}

Value total(const Value& input, A a) {
  const Value attribute = a.get(0, "attribute", nullptr);
  double sum = a.get(1, "start", 0).number();
  bool whole = true;
  for (const Value& item : input.iterate()) {
    const Value value = attribute.is_none() ? item : attribute_of(item, attribute);
    whole = whole && value.is_integer();
    sum += value.number();
  }
  return whole ? Value(static_cast<int64_t>(sum)) : Value(sum);
}

Value tojson(const Value& input, A a) {
  const Value width = a.get(99, "indent", a.get(0, "indent", nullptr));
  return input.json(
      width.is_none() ? -1 : static_cast<int>(std::clamp<int64_t>(width.integer(), 0, 32)), 0,
      a.get(99, "sort_keys", false).truthy());
}

Value pairs_of(const Value& input) {
  if (input.is_undefined()) return List();
  if (!input.dict()) fail(cat("items: expected a dictionary, found ", input.type_name()));
  return (*method_of(input, "items").function())({});
}

using Filter = Value (*)(const Value&, A);
const std::map<std::string, Filter, std::less<>>& filters() {
  using V = const Value&;
  static const Filter length = [](V v, A) -> Value { return static_cast<int64_t>(v.length()); };
  static const Filter fallback = [](V v, A a) {
    const bool missing = v.is_undefined() || (a.get(1, "boolean", false).truthy() && !v.truthy());
    return missing ? a.get(0, "default_value", "") : v;
  };
  static const Filter escape = [](V v, A) { return escaped(v); };
  static const std::map<std::string, Filter, std::less<>> table = {
      {"abs",
       [](V v, A) -> Value {
         return v.is_integer() ? Value(std::abs(v.integer())) : Value(std::fabs(v.number()));
       }},
      {"capitalize", [](V v, A a) { return by_method("capitalize", v, a); }},
      {"count", length},
      {"d", fallback},
      {"default", fallback},
      {"dictsort", [](V v, A) { return sorted_pairs(v); }},
      {"e", escape},
      {"escape", escape},
      {"first", [](V v, A) { return end_of(v, false); }},
      {"float", [](V v, A a) { return to_float(v, a); }},
      {"indent", [](V v, A a) { return indent(v, a); }},
      {"int", [](V v, A a) { return to_integer(v, a); }},
      {"items", [](V v, A) { return pairs_of(v); }},
      {"join", [](V v, A a) { return join_filter(v, a); }},
      {"last", [](V v, A) { return end_of(v, true); }},
      {"length", length},
      {"list", [](V v, A) -> Value { return v.iterate(); }},
      {"lower", [](V v, A a) { return by_method("lower", v, a); }},
      {"map", [](V v, A a) { return map_filter(v, a); }},
      {"max", [](V v, A) { return extreme(v, true); }},
      {"min", [](V v, A) { return extreme(v, false); }},
      {"reject", [](V v, A a) { return select(v, a, false, false); }},
      {"rejectattr", [](V v, A a) { return select(v, a, true, false); }},
      {"replace", [](V v, A a) { return by_method("replace", v, a); }},
      {"reverse", [](V v, A) { return reversed(v); }},
      {"round", [](V v, A a) { return rounded(v, a); }},
      {"safe", [](V v, A) -> Value { return v.text(); }},
      {"select", [](V v, A a) { return select(v, a, false, true); }},
      {"selectattr", [](V v, A a) { return select(v, a, true, true); }},
      {"sort", [](V v, A a) { return sorted(v, a); }},
      {"string", [](V v, A) -> Value { return v.text(); }},
      {"sum", [](V v, A a) { return total(v, a); }},
      {"title", [](V v, A a) { return by_method("title", v, a); }},
      {"tojson", [](V v, A a) { return tojson(v, a); }},
      {"trim", [](V v, A a) { return by_method("strip", v, a); }},
      {"unique", [](V v, A) { return unique(v); }},
      {"upper", [](V v, A a) { return by_method("upper", v, a); }},
  };
  return table;
}

using Test = bool (*)(const Value&, A);
const std::map<std::string, Test, std::less<>>& tests() {
  using V = const Value&;
  static const auto other = [](A a) { return a.get(0, "other", nullptr); };
  static const Test same = [](V v, A a) { return equal(v, other(a)); };
  static const Test differs = [](V v, A a) { return !equal(v, other(a)); };
  static const Test below = [](V v, A a) { return less(v, other(a)); };
  static const Test above = [](V v, A a) { return less(other(a), v); };
  static const std::map<std::string, Test, std::less<>> table = {
      {"boolean", [](V v, A) { return v.as<bool>() != nullptr; }},
      {"callable", [](V v, A) { return v.function() != nullptr; }},
      {"defined", [](V v, A) { return !v.is_undefined(); }},
      {"divisibleby",
       [](V v, A a) { return other(a).integer() != 0 && v.integer() % other(a).integer() == 0; }},
      {"eq", same},
      {"equalto", same},
      {"even", [](V v, A) { return v.integer() % 2 == 0; }},
      {"false", [](V v, A) { return v.as<bool>() && !v.truthy(); }},
      {"float", [](V v, A) { return v.as<double>() != nullptr; }},
      {"ge", [](V v, A a) { return !less(v, other(a)); }},
      {"gt", above},
      {"greaterthan", above},
      {"in", [](V v, A a) { return contains(other(a), v); }},
      {"integer", [](V v, A) { return v.as<int64_t>() != nullptr; }},
      {"iterable",
       [](V v, A) {
         return v.is_undefined() || v.is_string() || v.list() ||
                (v.dict() && !v.dict()->is_namespace);
       }},
      {"le", [](V v, A a) { return !less(other(a), v); }},
      {"lessthan", below},
      {"lower", [](V v, A) { return v.text() == unicode::lower_case(v.text()); }},
      {"lt", below},
      {"mapping", [](V v, A) { return v.dict() != nullptr && !v.dict()->is_namespace; }},
      {"ne", differs},
      {"none", [](V v, A) { return v.is_none(); }},
      {"number", [](V v, A) { return v.is_number(); }},
      {"odd", [](V v, A) { return v.integer() % 2 != 0; }},
      {"sameas",
       [](V v, A a) { return v.type_name() == other(a).type_name() && equal(v, other(a)); }},
      {"sequence",
       [](V v, A) {
         return v.is_undefined() || v.is_string() || v.list() ||
                (v.dict() && !v.dict()->is_namespace);
       }},
      {"string", [](V v, A) { return v.is_string(); }},
      {"true", [](V v, A) { return v.as<bool>() && v.truthy(); }},
      {"undefined", [](V v, A) { return v.is_undefined(); }},
  };
  return table;
}

}  // namespace

bool has_filter(std::string_view name) { return filters().find(name) != filters().end(); }
bool has_test(std::string_view name) { return tests().find(name) != tests().end(); }

Value apply_filter(const std::string& name, const Value& input, const Arguments& arguments) {
  return filters().find(name)->second(input, arguments);
}

bool apply_test(const std::string& name, const Value& input, const Arguments& arguments) {
  return tests().find(name)->second(input, arguments);
}

}  // namespace slmc::jinja

// Methods of strings, lists and dictionaries, and the global functions.
#include <algorithm>
#include <map>

#include "compress/core/text.h"
#include "formats/chat/jinja_builtins.h"
#include "formats/tokenizer/unicode.h"

namespace slmc::jinja {
namespace {

constexpr int64_t kLongestRange = 100'000;

bool is_space(std::string_view text, size_t at) {
  const uint32_t code = unicode::next(text, at);
  return unicode::is_space(unicode::properties(code)) || (code >= 0x1c && code <= 0x1f);
}

/// Python's strip: white space, or any of the characters of `chars`.
std::string stripped(std::string_view text, const Value& chars, bool left, bool right) {
  std::string set;
  if (!chars.is_none()) {
    if (!chars.is_string()) fail(cat("strip: expected a string, found ", chars.type_name()));
    set = *chars.string();
  }
  const std::vector<std::string> wanted = characters(set);
  const auto goes = [&](size_t at) {
    if (chars.is_none()) return is_space(text, at);
    size_t end = at;
    unicode::next(text, end);
    return std::find(wanted.begin(), wanted.end(), text.substr(at, end - at)) != wanted.end();
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end && goes(begin)) unicode::next(text, begin);
  while (right && end > begin && goes(unicode::previous(text, end)))
    end = unicode::previous(text, end);
  return std::string(text.substr(begin, end - begin));
}

const std::string& string_argument(const Value& value, const char* what) {
  if (!value.is_string()) fail(cat(what, ": expected a string, found ", value.type_name()));
  return *value.string();
}

Value split(const std::string& text, const Arguments& a, bool from_right) {
  const Value separator = a.get(0, "sep", nullptr);
  const int64_t most = a.get(1, "maxsplit", -1).integer();
  List out;
  if (separator.is_none()) {
    if (from_right && most >= 0) fail("rsplit: a limit needs a separator");
    for (size_t at = 0; at < text.size();) {
      if (is_space(text, at)) {
        unicode::next(text, at);
        continue;
      }
      if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
        out.emplace_back(stripped(std::string_view(text).substr(at), nullptr, false, true));
        break;
      }
      const size_t begin = at;
      while (at < text.size() && !is_space(text, at)) unicode::next(text, at);
      out.emplace_back(text.substr(begin, at - begin));
    }
    return out;
  }
  const std::string& wanted = string_argument(separator, "split");
  if (wanted.empty()) fail("split: the separator is empty");
  std::vector<size_t> cuts;
  for (size_t at = 0; (at = text.find(wanted, at)) != std::string::npos; at += wanted.size())
    cuts.push_back(at);
  if (most >= 0 && cuts.size() > static_cast<size_t>(most)) {
    if (from_right)
      cuts.erase(cuts.begin(), cuts.end() - most);
    else
      cuts.resize(static_cast<size_t>(most));
  }
  size_t begin = 0;
  for (const size_t cut : cuts) {
    out.emplace_back(text.substr(begin, cut - begin));
    begin = cut + wanted.size();
  }
  out.emplace_back(text.substr(begin));
  return out;
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to,
                     int64_t most) {
  std::string out;
  size_t begin = 0;
  if (from.empty()) fail("replace: the text to replace is empty");
  for (size_t at; most != 0 && (at = text.find(from, begin)) != std::string::npos; --most) {
    out.append(text, begin, at - begin);
    out += to;
    begin = at + from.size();
  }
  return out + text.substr(begin);
}

bool has_affix(const std::string& text, const Value& wanted, bool prefix) {
  if (wanted.list()) {
    const List& all = *wanted.list();
    return std::any_of(all.begin(), all.end(),
                       [&](const Value& v) { return has_affix(text, v, prefix); });
  }
  const std::string& affix = string_argument(wanted, prefix ? "startswith" : "endswith");
  return prefix ? text.starts_with(affix) : text.ends_with(affix);
}

/// Changes the case of ASCII letters; other letters are refused rather than left.
std::string cased(const std::string& text, const std::string& method) {
  std::string out = text;
  bool inside = false;
  for (char& c : out) {
    if (static_cast<unsigned char>(c) >= 0x80)
      fail(cat(method, ": letters outside ASCII are not supported"));
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool up = method == "upper" || !inside;
    if (letter) c = static_cast<char>(up ? c & ~0x20 : c | 0x20);
    inside = method == "capitalize" || letter;
  }
  return out;
}

Value position(const std::string& text, const Arguments& a, bool from_right) {
  const std::string& wanted = string_argument(a.get(0, "sub", nullptr), "find");
  const size_t at = from_right ? text.rfind(wanted) : text.find(wanted);
  if (at == std::string::npos) return -1;
  return static_cast<int64_t>(characters(std::string_view(text).substr(0, at)).size());
}

Value count(const std::string& text, const std::string& wanted) {
  if (wanted.empty()) return static_cast<int64_t>(characters(text).size() + 1);
  int64_t n = 0;
  for (size_t at = 0; (at = text.find(wanted, at)) != std::string::npos; at += wanted.size()) ++n;
  return n;
}

Value split_lines(const std::string& text, bool keep) {
  List out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    size_t behind = std::min(end + 1, text.size());
    if (end + 1 < text.size() && text[end] == '\r' && text[end + 1] == '\n') ++behind;
    out.emplace_back(text.substr(at, (keep ? behind : end) - at));
    at = behind;
  }
  return out;
}

bool all_of_category(const std::string& text, uint32_t mask) {
  for (size_t at = 0; at < text.size();)
    if (!unicode::in_categories(unicode::properties(unicode::next(text, at)), mask)) return false;
  return !text.empty();
}

using Method = Value (*)(const std::string&, const Arguments&);
const std::map<std::string, Method, std::less<>>& string_methods() {
  using S = const std::string&;
  using Given = const Arguments&;
  static const std::map<std::string, Method, std::less<>> methods = {
      {"strip",
       [](S s, Given a) -> Value { return stripped(s, a.get(0, "chars", nullptr), true, true); }},
      {"lstrip",
       [](S s, Given a) -> Value { return stripped(s, a.get(0, "chars", nullptr), true, false); }},
      {"rstrip",
       [](S s, Given a) -> Value { return stripped(s, a.get(0, "chars", nullptr), false, true); }},
      {"split", [](S s, Given a) { return split(s, a, false); }},
      {"rsplit", [](S s, Given a) { return split(s, a, true); }},
      {"splitlines",
       [](S s, Given a) { return split_lines(s, a.get(0, "keepends", false).truthy()); }},
      {"startswith",
       [](S s, Given a) -> Value { return has_affix(s, a.get(0, "prefix", nullptr), true); }},
      {"endswith",
       [](S s, Given a) -> Value { return has_affix(s, a.get(0, "suffix", nullptr), false); }},
      {"removeprefix",
       [](S s, Given a) -> Value {
         const std::string& p = string_argument(a.get(0, "prefix", nullptr), "removeprefix");
         return s.starts_with(p) ? s.substr(p.size()) : s;
       }},
      {"removesuffix",
       [](S s, Given a) -> Value {
         const std::string& p = string_argument(a.get(0, "suffix", nullptr), "removesuffix");
         return s.ends_with(p) ? s.substr(0, s.size() - p.size()) : s;
       }},
      {"replace",
       [](S s, Given a) -> Value {
         return replaced(s, string_argument(a.get(0, "old", nullptr), "replace"),
                         string_argument(a.get(1, "new", nullptr), "replace"),
                         a.get(2, "count", -1).integer());
       }},
      {"lower", [](S s, Given) -> Value { return unicode::lower_case(s); }},
      {"upper", [](S s, Given) -> Value { return cased(s, "upper"); }},
      {"title", [](S s, Given) -> Value { return cased(s, "title"); }},
      {"capitalize", [](S s, Given) -> Value { return cased(s, "capitalize"); }},
      {"find", [](S s, Given a) { return position(s, a, false); }},
      {"rfind", [](S s, Given a) { return position(s, a, true); }},
      {"count",
       [](S s, Given a) { return count(s, string_argument(a.get(0, "sub", nullptr), "count")); }},
      {"join",
       [](S s, Given a) -> Value {
         std::vector<std::string> parts;
         for (const Value& item : a.get(0, "iterable", nullptr).iterate())
           parts.push_back(string_argument(item, "join"));
         return join(parts, s);
       }},
      {"isdigit", [](S s, Given) -> Value { return all_of_category(s, 1u << unicode::kNd); }},
      {"isnumeric", [](S s, Given) -> Value { return all_of_category(s, unicode::kNumbers); }},
      {"isalpha", [](S s, Given) -> Value { return all_of_category(s, unicode::kLetters); }},
      {"isalnum",
       [](S s, Given) -> Value {
         return all_of_category(s, unicode::kLetters | unicode::kNumbers);
       }},
      {"isspace",
       [](S s, Given) -> Value { return !s.empty() && stripped(s, nullptr, true, false).empty(); }},
  };
  return methods;
}

Value pairs(const Members& members) {
  List out;
  for (const auto& [key, value] : members) out.emplace_back(List{Value(key), value}, true);
  return out;
}

Value dict_method(const Value& object, const std::string& name) {
  const auto dict = [object]() -> const Members& { return object.dict()->members; };
  if (name == "items") return Function([dict](const Arguments&) { return pairs(dict()); });
  if (name == "keys")
    return Function([object](const Arguments&) -> Value { return object.iterate(); });
  if (name == "values") {
    return Function([dict](const Arguments&) -> Value {
      List out;
      for (const auto& member : dict()) out.push_back(member.second);
      return out;
    });
  }
  if (name == "get") {
    return Function([object](const Arguments& a) {
      const Value key = a.get(0, "key", nullptr);
      const Value* found = key.is_string() ? object.dict()->find(*key.string()) : nullptr;
      return found ? *found : a.get(1, "default", nullptr);
    });
  }
  return {};
}

Value list_method(const Value& object, const std::string& name) {
  if (name == "count" || name == "index") {
    return Function([object, name](const Arguments& a) -> Value {
      const Value wanted = a.get(0, "value", nullptr);
      int64_t n = 0;
      for (size_t i = 0; i < object.list()->size(); ++i) {
        if (!equal((*object.list())[i], wanted)) continue;
        if (name == "index") return static_cast<int64_t>(i);
        ++n;
      }
      if (name == "index") fail("index: the value is not in the list");
      return n;
    });
  }
  return {};
}

Value range(const Arguments& a) {
  const bool one = a.positional.size() == 1;
  const int64_t start = one ? 0 : a.get(0, "start", 0).integer();
  const int64_t stop = a.get(one ? 0 : 1, "stop", 0).integer(),
                step = a.get(2, "step", 1).integer();
  if (step == 0) fail("range: the step must not be 0");
  List out;
  for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
    if (static_cast<int64_t>(out.size()) >= kLongestRange)
      fail(cat("range: more than ", kLongestRange, " elements"));
    out.emplace_back(i);
  }
  return out;
}

Value make_dict(const Arguments& a, bool is_namespace) {
  Dict dict;
  dict.is_namespace = is_namespace;
  if (!a.positional.empty() && a.positional[0].dict())
    dict.members = a.positional[0].dict()->members;
  for (const auto& [key, value] : a.named) dict.set(key, value);
  return dict;
}

}  // namespace

Value method_of(const Value& object, const std::string& name) {
  static const std::vector<std::string> kChanging = {"append",     "extend",  "insert", "pop",
                                                     "remove",     "reverse", "sort",   "update",
                                                     "setdefault", "clear",   "popitem"};
  const bool changes = std::find(kChanging.begin(), kChanging.end(), name) != kChanging.end();
  if (object.is_string()) {
    const auto found = string_methods().find(name);
    if (found == string_methods().end()) return {};
    return Function([object, method = found->second](const Arguments& a) {
      return method(*object.string(), a);
    });
  }
  if (object.dict() && object.dict()->is_namespace) return {};
  if (object.dict() && changes && object.dict()->find(name)) return {};
  if (changes && (object.list() || object.dict())) {
    // transformers renders in a sandbox that refuses these.
    return Function([name](const Arguments&) -> Value {
      fail(cat("'", name, "' would change a list or dictionary, which chat templates may not"));
    });
  }
  if (object.dict()) return dict_method(object, name);
  return object.list() ? list_method(object, name) : Value();
}

Value global(const std::string& name) {
  if (name == "range") return Function(range);
  if (name == "namespace") return Function([](const Arguments& a) { return make_dict(a, true); });
  if (name == "dict") return Function([](const Arguments& a) { return make_dict(a, false); });
  return Value::undefined(name);
}

}  // namespace slmc::jinja

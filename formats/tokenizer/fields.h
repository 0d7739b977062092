// Typed reading of the small JSON objects that describe a tokenizer's components.
#pragma once

#include <string>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/text.h"

namespace slmc::tokenization {

/// A JSON object and where it stands. `null` and absent are the same. Throws Error(kBadInput)
/// naming the key when a value has another type.
class Fields {
 public:
  Fields(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object())
      throw_bad_input(cat(where_, ": expected an object, found ", json.type_name()));
  }
  const std::string& where() const { return where_; }
  /// Null if absent.
  const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  const Json& at(const char* key) const {
    const Json* found = find(key);
    if (found == nullptr) throw_bad_input(cat(where_, ": '", key, "' is missing"));
    return *found;
  }
  std::string string(const char* key) const {
    const Json& value = at(key);
    if (!value.is_string()) wrong(key, "a string", value);
    return value.get<std::string>();
  }
  std::string string_or(const char* key, const std::string& fallback) const {
    return find(key) == nullptr ? fallback : string(key);
  }
  bool boolean_or(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) wrong(key, "true or false", *value);
    return value->get<bool>();
  }
  double number_or(const char* key, double fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->is_number()) wrong(key, "a number", *value);
    return value->get<double>();
  }
  int64_t integer(const char* key) const {
    const Json& value = at(key);
    if (!value.is_number_integer()) wrong(key, "an integer", value);
    return value.get<int64_t>();
  }
  const Json& array(const char* key) const {
    const Json& value = at(key);
    if (!value.is_array()) wrong(key, "a list", value);
    return value;
  }

 private:
  [[noreturn]] void wrong(const char* key, const char* expected, const Json& found) const {
    throw_bad_input(cat(where_, ": '", key, "' must be ", expected, ", found ", found.type_name()));
  }
  const Json& json_;
  std::string where_;
};

}  // namespace slmc::tokenization

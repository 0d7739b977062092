// Typed access to GGUF keys.
#include <limits>
#include <type_traits>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/gguf.h"

namespace slmc {
namespace {

std::string_view kind_name(const GgufValue& value) {
  static constexpr std::string_view kNames[] = {"u8",  "i8",  "u16",  "i16",    "u32",
                                                "i32", "f32", "bool", "string", "u64",
                                                "i64", "f64", "array"};
  return kNames[value.index()];
}

[[noreturn]] void wrong_kind(const std::string& key, const char* expected, const GgufValue& found,
                             const std::string& where) {
  throw_bad_input(cat(where, ": key ", key, ": expected ", expected, ", found ", kind_name(found)));
}

const GgufValue& required(const GgufKeys& keys, const std::string& key, const std::string& where) {
  const GgufValue* value = keys.find(key);
  if (value == nullptr) throw_bad_input(cat(where, ": key ", key, " is missing"));
  return *value;
}

template <typename T>
constexpr bool is_integer = std::is_integral_v<T> && !std::is_same_v<T, bool>;

int64_t to_integer(const GgufValue& value, const std::string& key, const std::string& where) {
  return std::visit(
      [&](const auto& held) -> int64_t {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, uint64_t>) {
          if (held > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
            wrong_kind(key, "an integer below 2^63", value, where);
          return static_cast<int64_t>(held);
        } else if constexpr (is_integer<T>) {
          return static_cast<int64_t>(held);
        } else {
          wrong_kind(key, "an integer", value, where);
        }
      },
      value);
}

double to_number(const GgufValue& value, const std::string& key, const std::string& where) {
  return std::visit(
      [&](const auto& held) -> double {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
          return static_cast<double>(held);
        } else {
          wrong_kind(key, "a number", value, where);
        }
      },
      value);
}

const GgufArray& to_array(const GgufValue& value, const char* expected, const std::string& key,
                          const std::string& where) {
  const auto* array = std::get_if<GgufArray>(&value);
  if (array == nullptr) wrong_kind(key, expected, value, where);
  return *array;
}

}  // namespace

void GgufKeys::set(const std::string& key, GgufValue value) {
  for (auto& [name, held] : items_) {
    if (name == key) {
      held = std::move(value);
      return;
    }
  }
  items_.emplace_back(key, std::move(value));
}

const GgufValue* GgufKeys::find(const std::string& key) const {
  for (const auto& [name, held] : items_) {
    if (name == key) return &held;
  }
  return nullptr;
}

int64_t GgufKeys::integer(const std::string& key, const std::string& where) const {
  return to_integer(required(*this, key, where), key, where);
}

int64_t GgufKeys::integer_or(const std::string& key, int64_t fallback,
                             const std::string& where) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback : to_integer(*value, key, where);
}

double GgufKeys::number(const std::string& key, const std::string& where) const {
  return to_number(required(*this, key, where), key, where);
}

double GgufKeys::number_or(const std::string& key, double fallback,
                           const std::string& where) const {
  const GgufValue* value = find(key);
  return value == nullptr ? fallback : to_number(*value, key, where);
}

bool GgufKeys::boolean_or(const std::string& key, bool fallback, const std::string& where) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  const bool* held = std::get_if<bool>(value);
  if (held == nullptr) wrong_kind(key, "a bool", *value, where);
  return *held;
}

std::string GgufKeys::string(const std::string& key, const std::string& where) const {
  const GgufValue& value = required(*this, key, where);
  const auto* held = std::get_if<std::string>(&value);
  if (held == nullptr) wrong_kind(key, "a string", value, where);
  return *held;
}

std::string GgufKeys::string_or(const std::string& key, const std::string& fallback,
                                const std::string& where) const {
  return has(key) ? string(key, where) : fallback;
}

std::vector<std::string> GgufKeys::strings(const std::string& key, const std::string& where) const {
  const GgufValue& value = required(*this, key, where);
  const auto* held =
      std::get_if<std::vector<std::string>>(&to_array(value, "an array of strings", key, where));
  if (held == nullptr) wrong_kind(key, "an array of strings", value, where);
  return *held;
}

std::vector<int64_t> GgufKeys::integers(const std::string& key, const std::string& where) const {
  const GgufValue& value = required(*this, key, where);
  return std::visit(
      [&](const auto& held) -> std::vector<int64_t> {
        using T = typename std::decay_t<decltype(held)>::value_type;
        if constexpr (is_integer<T>) {
          std::vector<int64_t> out;
          out.reserve(held.size());
          for (const T item : held) out.push_back(to_integer(GgufValue(item), key, where));
          return out;
        } else {
          wrong_kind(key, "an array of integers", value, where);
        }
      },
      to_array(value, "an array of integers", key, where));
}

std::vector<double> GgufKeys::numbers(const std::string& key, const std::string& where) const {
  const GgufValue& value = required(*this, key, where);
  return std::visit(
      [&](const auto& held) -> std::vector<double> {
        using T = typename std::decay_t<decltype(held)>::value_type;
        if constexpr (std::is_floating_point_v<T>) {
          return std::vector<double>(held.begin(), held.end());
        } else {
          wrong_kind(key, "an array of floats", value, where);
        }
      },
      to_array(value, "an array of floats", key, where));
}

std::vector<float> GgufKeys::floats(const std::string& key, const std::string& where) const {
  const std::vector<double> values = numbers(key, where);
  return std::vector<float>(values.begin(), values.end());
}

}  // namespace slmc

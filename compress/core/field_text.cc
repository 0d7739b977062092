#include "compress/core/field_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::string bound_text(double bound) {
  if (bound == std::floor(bound) && std::abs(bound) < 1e15) return cat(static_cast<int64_t>(bound));
  return cat(bound);
}

[[noreturn]] void refuse(const std::string& label, const std::string& expected,
                         const std::string& found) {
  throw_usage(cat(label, ": expected ", expected, ", found '", found, "'"));
}

std::string number_words(const FieldInfo& info, const char* kind) {
  const std::string range = range_text(info);
  return range.empty() ? kind : cat(kind, " ", range);
}

/// from_chars does not take a leading plus; people write one.
template <typename T>
bool parse_number(const std::string& text, T& value) {
  const char* begin = text.data();
  const char* end = begin + text.size();
  if (begin != end && *begin == '+') ++begin;
  if (begin == end || (begin != text.data() && *begin == '-')) return false;
  const auto [stop, status] = std::from_chars(begin, end, value);
  return status == std::errc() && stop == end;
}

template <typename T>
void set_number(const FieldInfo& info, const std::string& label, const std::string& text, T& value,
                const char* kind) {
  T parsed{};
  if (!parse_number(text, parsed) || std::isnan(static_cast<double>(parsed)) ||
      static_cast<double>(parsed) < info.min || static_cast<double>(parsed) > info.max) {
    refuse(label, number_words(info, kind), text);
  }
  value = parsed;
}

void check_choice(const FieldInfo& info, const std::string& label, const std::string& text) {
  if (info.choices.empty()) return;
  if (std::find(info.choices.begin(), info.choices.end(), text) != info.choices.end()) return;
  throw_usage(cat(label, ": expected ", info.choices.size() == 1 ? "" : "one of ",
                  join(info.choices, ", "), ", found '", text, "'",
                  did_you_mean(text, info.choices)));
}

}  // namespace

std::string flag_name(const FieldInfo& info) {
  std::string flag = "--" + info.name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

std::string field_name(std::string key) {
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

std::string range_text(const FieldInfo& info) {
  const bool low = std::isfinite(info.min);
  const bool high = std::isfinite(info.max);
  if (low && high) return cat("from ", bound_text(info.min), " to ", bound_text(info.max));
  if (low) return cat("at least ", bound_text(info.min));
  if (high) return cat("at most ", bound_text(info.max));
  return "";
}

void set_field_text(const FieldInfo&, const std::string& label, const std::string& text,
                    bool& value) {
  if (text == "true" || text == "yes" || text == "on" || text == "1") {
    value = true;
  } else if (text == "false" || text == "no" || text == "off" || text == "0") {
    value = false;
  } else {
    refuse(label, "true or false", text);
  }
}

void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    int64_t& value) {
  set_number(info, label, text, value, "a whole number");
}

void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    double& value) {
  set_number(info, label, text, value, "a number");
}

void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    std::string& value) {
  check_choice(info, label, text);
  value = text;
}

void set_field_text(const FieldInfo& info, const std::string& label,
                    const std::vector<std::string>& texts, std::vector<std::string>& value) {
  for (const std::string& text : texts) check_choice(info, label, text);
  value = texts;
}

}  // namespace slmc

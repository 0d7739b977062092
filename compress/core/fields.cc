#include "compress/core/fields.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::string underscored(std::string key) {
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

class JsonWriter : public Fields {
 public:
  Json out = Json::object();
  void visit(const FieldInfo& info, bool& value) override { out[info.name] = value; }
  void visit(const FieldInfo& info, int64_t& value) override { out[info.name] = value; }
  void visit(const FieldInfo& info, double& value) override { out[info.name] = value; }
  void visit(const FieldInfo& info, std::string& value) override { out[info.name] = value; }
  void visit(const FieldInfo& info, std::vector<std::string>& value) override {
    out[info.name] = value;
  }
};

class InfoCollector : public Fields {
 public:
  std::vector<FieldInfo> infos;
  void visit(const FieldInfo& info, bool&) override { infos.push_back(info); }
  void visit(const FieldInfo& info, int64_t&) override { infos.push_back(info); }
  void visit(const FieldInfo& info, double&) override { infos.push_back(info); }
  void visit(const FieldInfo& info, std::string&) override { infos.push_back(info); }
  void visit(const FieldInfo& info, std::vector<std::string>&) override { infos.push_back(info); }
};

class Checker : public Fields {
 public:
  explicit Checker(const std::string& where) : where_(where) {}
  void visit(const FieldInfo&, bool&) override {}
  void visit(const FieldInfo& info, int64_t& value) override {
    check_range(info, static_cast<double>(value), cat(value));
  }
  void visit(const FieldInfo& info, double& value) override {
    check_range(info, value, cat(value));
  }
  void visit(const FieldInfo& info, std::string& value) override {
    if (info.required && value.empty()) missing(info);
    if (!value.empty()) check_choice(info, value);
  }
  void visit(const FieldInfo& info, std::vector<std::string>& value) override {
    if (info.required && value.empty()) missing(info);
    for (const std::string& item : value) check_choice(info, item);
  }

 private:
  void check_range(const FieldInfo& info, double value, const std::string& shown) const {
    if (value >= info.min && value <= info.max) return;
    std::string range;
    if (std::isfinite(info.min) && std::isfinite(info.max)) {
      range = cat("between ", info.min, " and ", info.max);
    } else {
      range = std::isfinite(info.min) ? cat("at least ", info.min) : cat("at most ", info.max);
    }
    throw_usage(cat(where_, ": ", info.name, " is ", shown, "; expected ", range));
  }
  void check_choice(const FieldInfo& info, const std::string& value) const {
    if (info.choices.empty() ||
        std::find(info.choices.begin(), info.choices.end(), value) != info.choices.end())
      return;
    throw_usage(cat(where_, ": ", info.name, " is '", value, "'; expected one of ",
                    join(info.choices, ", "), did_you_mean(value, info.choices)));
  }
  [[noreturn]] void missing(const FieldInfo& info) const {
    throw_usage(cat(where_, ": ", info.name, " is missing (", info.help, ")"));
  }
  const std::string& where_;
};

class JsonReader : public Fields {
 public:
  JsonReader(const Json& values, const std::string& where) : where_(where) {
    for (const auto& [key, value] : values.items()) values_[underscored(key)] = value;
  }

  void visit(const FieldInfo& info, bool& value) override {
    if (const Json* found = find(info)) {
      if (!found->is_boolean()) wrong(info, "true or false", *found);
      value = found->get<bool>();
    }
  }
  void visit(const FieldInfo& info, int64_t& value) override {
    if (const Json* found = find(info)) {
      const bool huge =
          found->is_number_unsigned() && found->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
      const bool whole = found->is_number_float() &&
                         std::floor(found->get<double>()) == found->get<double>() &&
                         std::abs(found->get<double>()) < 9e15;
      if (huge || (!found->is_number_integer() && !whole)) wrong(info, "a whole number", *found);
      value = whole ? static_cast<int64_t>(found->get<double>()) : found->get<int64_t>();
    }
  }
  void visit(const FieldInfo& info, double& value) override {
    if (const Json* found = find(info)) {
      if (!found->is_number()) wrong(info, "a number", *found);
      value = found->get<double>();
    }
  }
  void visit(const FieldInfo& info, std::string& value) override {
    if (const Json* found = find(info)) value = text_of(info, *found);
  }
  void visit(const FieldInfo& info, std::vector<std::string>& value) override {
    if (const Json* found = find(info)) {
      value.clear();
      if (!found->is_array()) {
        value.push_back(text_of(info, *found));
        return;
      }
      for (const Json& item : *found) value.push_back(text_of(info, item));
    }
  }

  void check_unknown(const std::vector<FieldInfo>& infos) const {
    std::vector<std::string> names;
    for (const FieldInfo& info : infos) names.push_back(info.name);
    for (const auto& [key, value] : values_.items()) {
      if (std::find(names.begin(), names.end(), key) == names.end()) {
        throw_usage(cat(where_, ": unknown key '", key, "'", did_you_mean(key, names)));
      }
    }
  }

 private:
  const Json* find(const FieldInfo& info) const {
    const auto at = values_.find(info.name);
    return at == values_.end() ? nullptr : &*at;
  }
  // A number given where a text is expected (sparsity: 0.5) is the text it was written as.
  std::string text_of(const FieldInfo& info, const Json& value) const {
    if (value.is_string()) return value.get<std::string>();
    if (value.is_number()) return value.dump();
    wrong(info, "a text", value);
  }
  [[noreturn]] void wrong(const FieldInfo& info, const std::string& expected,
                          const Json& found) const {
    throw_usage(cat(where_, ": ", info.name, " is ", found.dump(), "; expected ", expected));
  }
  const std::string& where_;
  Json values_ = Json::object();
};

}  // namespace

Json fields_to_json(Configurable& subject) {
  JsonWriter writer;
  subject.visit(writer);
  return writer.out;
}

std::vector<FieldInfo> field_infos(Configurable& subject) {
  InfoCollector collector;
  subject.visit(collector);
  return collector.infos;
}

void set_fields(Configurable& subject, const Json& values, const std::string& where) {
  if (!values.is_object() && !values.is_null())
    throw_usage(cat(where, ": expected a map of options, found ", values.dump()));
  JsonReader reader(values, where);
  reader.check_unknown(field_infos(subject));
  subject.visit(reader);
  check_fields(subject, where);
}

void check_fields(Configurable& subject, const std::string& where) {
  Checker checker(where);
  subject.visit(checker);
}

}  // namespace slmc

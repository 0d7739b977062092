#include "recipes/expect.h"

#include <cmath>
#include <cstdlib>
#include <optional>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

std::string trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

std::optional<double> as_number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || std::isnan(value)) return std::nullopt;
  return value;
}

/// "@stage.path * 1.05" -> stage, path, factor.
struct Reference {
  std::string stage, path;
  double factor = 1;
};

std::optional<Reference> as_reference(const std::string& text) {
  if (text.empty() || text[0] != '@') return std::nullopt;
  Reference reference;
  std::string name = text.substr(1);
  if (const size_t star = name.find('*'); star != std::string::npos) {
    const std::optional<double> factor = as_number(trimmed(name.substr(star + 1)));
    if (!factor) return std::nullopt;
    reference.factor = *factor;
    name = trimmed(name.substr(0, star));
  }
  const size_t dot = name.find('.');
  if (dot == std::string::npos || dot == 0 || dot + 1 == name.size()) return std::nullopt;
  for (const char* operation : {" + ", " - ", " / "}) {  // A figure's name may have spaces.
    if (name.find(operation) != std::string::npos) return std::nullopt;
  }
  reference.stage = name.substr(0, dot);
  reference.path = name.substr(dot + 1);
  return reference;
}

void require_number(const std::string& operand, const std::string& where) {
  if (as_number(operand) || as_reference(operand)) return;
  throw_usage(cat(where, ": expected a number or @stage.figure, found '", operand, "'"));
}

Expectation parse_text(const std::string& path, const std::string& condition,
                       const std::string& where) {
  Expectation result{
      .path = path, .condition = condition, .operation = "==", .low = condition, .high = {}};
  for (const char* operation : {"<=", ">=", "==", "!=", "<", ">"}) {
    if (condition.rfind(operation, 0) != 0) continue;
    result.operation = operation;
    result.low = trimmed(condition.substr(result.operation.size()));
    const bool ordered = result.operation != "==" && result.operation != "!=";
    if (ordered || result.low.rfind("@", 0) == 0) require_number(result.low, where);
    if (result.low.empty())
      throw_usage(cat(where, ": '", condition, "' has nothing to compare with"));
    return result;
  }
  if (const size_t dots = condition.find(".."); dots != std::string::npos) {
    result.operation = "..";
    result.low = trimmed(condition.substr(0, dots));
    result.high = trimmed(condition.substr(dots + 2));
    require_number(result.low, where);
    require_number(result.high, where);
  }
  if (condition.empty())
    throw_usage(cat(where, ": expected a condition such as '< 12', found nothing"));
  if (std::string("<>=!").find(condition[0]) != std::string::npos)
    throw_usage(
        cat(where, ": '", condition, "': a condition is <, <=, >, >=, == or != and a value"));
  return result;
}

std::string shown(const Json& value) {
  return value.is_string()         ? value.get<std::string>()
         : value.is_number_float() ? cat(value.get<double>())
                                   : value.dump();
}

}  // namespace

std::vector<std::string> stages_in(const Expectation& expectation) {
  std::vector<std::string> stages;
  for (const std::string& text : {expectation.low, expectation.high}) {
    if (const std::optional<Reference> reference = as_reference(text))
      stages.push_back(reference->stage);
  }
  return stages;
}

namespace {

double operand(const std::string& text, const ReportLookup& reports) {
  if (const std::optional<double> number = as_number(text)) return *number;
  const std::optional<Reference> reference = as_reference(text);
  SLMC_CHECK(reference.has_value(), "an unchecked operand " + text);
  const Json* report = reports(reference->stage);
  const Json* value = report == nullptr ? nullptr : at_path(*report, reference->path);
  if (value == nullptr || !value->is_number()) {
    throw_usage(cat("expect: ", text, " names no figure: ",
                    report == nullptr ? "no stage before is called '" + reference->stage + "'"
                                      : "its report has no number '" + reference->path + "'"));
  }
  return value->get<double>() * reference->factor;
}

bool compare(const Expectation& expectation, const Json& value, const ReportLookup& reports,
             std::string& expected) {
  const std::string& operation = expectation.operation;
  const bool numeric = as_number(expectation.low) || as_reference(expectation.low);
  if (!numeric) {
    const bool equal = shown(value) == expectation.low;
    return operation == "!=" ? !equal : equal;
  }
  if (!value.is_number()) return operation == "!=";
  const double found = value.get<double>();
  const double low = operand(expectation.low, reports);
  if (as_reference(expectation.low)) expected += cat(" = ", low);
  if (operation == "<") return found < low;
  if (operation == "<=") return found <= low;
  if (operation == ">") return found > low;
  if (operation == ">=") return found >= low;
  if (operation == "==") return found == low;
  if (operation == "!=") return found != low;
  return found >= low && found <= operand(expectation.high, reports);
}

void collect_paths(const Json& json, const std::string& prefix, std::vector<std::string>& paths) {
  if (paths.size() > 1000) return;
  for (const auto& [key, value] : json.items()) {
    if (value.is_object()) {
      collect_paths(value, prefix + key + ".", paths);
    } else {
      paths.push_back(prefix + key);
    }
  }
}

std::string absent(const Json& report, const std::string& path) {
  std::vector<std::string> paths;
  if (report.is_object()) collect_paths(report, "", paths);
  return cat("nothing: the report has no such figure", did_you_mean(path, paths));
}

}  // namespace

std::vector<Expectation> parse_expectations(const RecipeNode& node, const std::string& file) {
  if (node.kind != RecipeNode::Kind::kMap) {
    throw_usage(cat(position(file, node),
                    ": expect: expected a map such as {perplexity: \"< 12\"}, found ",
                    describe(node)));
  }
  std::vector<Expectation> result;
  for (const auto& [key, value] : node.entries) {
    const std::string where = cat(position(file, value), ": expect ", key.text);
    std::string condition = trimmed(value.text);
    if (value.kind == RecipeNode::Kind::kList && value.items.size() == 2) {
      condition = cat(value.items[0].text, "..", value.items[1].text);
    } else if (value.kind != RecipeNode::Kind::kText) {
      throw_usage(cat(where, ": expected a condition such as '< 12', found ", describe(value)));
    }
    result.push_back(parse_text(key.text, condition, where));
    result.back().line = value.line;
    result.back().column = value.column;
  }
  return result;
}

ExpectationResult check_expectation(const Expectation& expectation, const Json& report,
                                    const ReportLookup& reports) {
  ExpectationResult result{
      .path = expectation.path, .expected = expectation.condition, .found = {}};
  const Json* value = at_path(report, expectation.path);
  if (value == nullptr) {
    result.found = absent(report, expectation.path);
  } else if (value->is_null()) {
    result.found = "not measured";
  } else {
    result.found = shown(*value);
    result.passed = compare(expectation, *value, reports, result.expected);
  }
  return result;
}

// Keys may hold dots themselves ("tasks.v2.jsonl").
const Json* at_path(const Json& json, const std::string& path) {
  if (json.is_object()) {
    for (size_t end = path.find('.');; end = path.find('.', end + 1)) {
      const auto found = json.find(path.substr(0, end));
      if (found != json.end()) {
        if (end == std::string::npos) return &*found;
        if (const Json* value = at_path(*found, path.substr(end + 1))) return value;
      }
      if (end == std::string::npos) return nullptr;
    }
  }
  const std::string key = path.substr(0, path.find('.'));
  if (!json.is_array() || key.empty() || key.size() > 9 ||
      key.find_first_not_of("0123456789") != std::string::npos)
    return nullptr;
  const size_t index = std::stoul(key);
  if (index >= json.size()) return nullptr;
  return key.size() == path.size() ? &json[index]
                                   : at_path(json[index], path.substr(key.size() + 1));
}

}  // namespace slmc

#include "recipes/node.h"

#include <yaml-cpp/yaml.h>

#include <cctype>

#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr int kMaxDepth = 32;
constexpr int64_t kMaxNodes = 100000;  // An alias is copied where it is used; a file of nested
                                       // aliases must not grow without bound.

/// In {flow, maps} YAML gives braces a meaning, so "${name}" becomes "$<name>", of the same width:
/// columns stay true.
std::string protect_variables(std::string text) {
  for (size_t at = 0; (at = text.find("${", at)) != std::string::npos; at += 2) {
    size_t end = at + 2;
    while (end < text.size() && (std::isalnum(static_cast<unsigned char>(text[end])) ||
                                 text[end] == '_' || text[end] == '-'))
      ++end;
    if (end > at + 2 && end < text.size() && text[end] == '}') text[at + 1] = '<', text[end] = '>';
  }
  return text;
}

/// Short and printable, for messages: a recipe may be any file by mistake.
std::string excerpt(const std::string& text) {
  std::string out;
  for (const char c : text.substr(0, 40))
    out += static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e ? '?' : c;
  return text.size() > 40 ? out + "..." : out;
}

class Converter {
 public:
  explicit Converter(const std::string& file) : file_(file) {}

  RecipeNode convert(const YAML::Node& yaml, int depth) {
    RecipeNode node;
    node.line = yaml.Mark().line + 1;
    node.column = yaml.Mark().column + 1;
    if (depth > kMaxDepth)
      throw_bad_input(cat(position(file_, node), ": nested deeper than ", kMaxDepth, " levels"));
    if (++count_ > kMaxNodes)
      throw_bad_input(cat(position(file_, node), ": more than ", kMaxNodes, " values"));
    switch (yaml.Type()) {
      case YAML::NodeType::Scalar:
        node.kind = RecipeNode::Kind::kText;
        node.text = yaml.Scalar();
        node.quoted = yaml.Tag() == "!";
        break;
      case YAML::NodeType::Sequence:
        node.kind = RecipeNode::Kind::kList;
        for (const auto& item : yaml) node.items.push_back(convert(item, depth + 1));
        break;
      case YAML::NodeType::Map:
        node.kind = RecipeNode::Kind::kMap;
        convert_entries(yaml, node, depth);
        break;
      default:
        break;
    }
    return node;
  }

 private:
  void convert_entries(const YAML::Node& yaml, RecipeNode& node, int depth) {
    for (const auto& entry : yaml) {
      RecipeNode key = convert(entry.first, depth + 1);
      if (key.kind != RecipeNode::Kind::kText) {
        throw_bad_input(cat(position(file_, key), ": a key must be a word, found ", describe(key)));
      }
      if (node.find(key.text) != nullptr)
        throw_bad_input(cat(position(file_, key), ": key '", key.text, "' appears twice"));
      node.entries.emplace_back(std::move(key), convert(entry.second, depth + 1));
    }
  }

  const std::string& file_;
  int64_t count_ = 0;
};

}  // namespace

const RecipeNode* RecipeNode::find(const std::string& key) const {
  for (const auto& [name, value] : entries) {
    if (field_name(name.text) == field_name(key)) return &value;
  }
  return nullptr;
}

std::vector<std::string> RecipeNode::keys() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : entries) names.push_back(name.text);
  return names;
}

std::string describe(const RecipeNode& node) {
  switch (node.kind) {
    case RecipeNode::Kind::kText:
      return cat("'", excerpt(node.text), "'");
    case RecipeNode::Kind::kList:
      return node.items.empty() ? "an empty list" : "a list";
    case RecipeNode::Kind::kMap:
      return "a map";
    default:
      return "nothing";
  }
}

std::string position(const std::string& file, const RecipeNode& node) {
  return node.line > 0 ? cat(file, ":", node.line, ":", node.column) : file;
}

RecipeNode parse_yaml(const std::string& text, const std::string& file) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(protect_variables(text));
    if (documents.empty()) throw_bad_input(cat(file, ": empty; expected a recipe with stages"));
    if (documents.size() > 1)
      throw_bad_input(cat(file, ": holds ", documents.size(), " YAML documents, expected one"));
    return Converter(file).convert(documents[0], 0);
  } catch (const YAML::Exception& error) {
    const bool placed = !error.mark.is_null();
    throw_bad_input(cat(file,
                        placed ? cat(":", error.mark.line + 1, ":", error.mark.column + 1) : "",
                        ": not valid YAML: ", error.msg));
  }
}

}  // namespace slmc

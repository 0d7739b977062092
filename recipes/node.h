// YAML (and so JSON) as a tree that remembers where each value stands, so that every complaint
// names file:line:column.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace slmc {

struct RecipeNode {
  enum class Kind { kNull, kText, kList, kMap };
  Kind kind = Kind::kNull;
  std::string text;     ///< Of kText, as written (numbers too).
  bool quoted = false;  ///< Written in quotes: never a number.
  bool from_command_line =
      false;  ///< Begins with a --set value: a path in it is relative to the working folder.
  std::vector<RecipeNode> items;                           ///< Of kList.
  std::vector<std::pair<RecipeNode, RecipeNode>> entries;  ///< Of kMap, in order; keys are kText.
  int line = 0, column = 0;                                ///< From 1.

  /// The value of `key`, where hyphens and underscores are the same; null when absent.
  const RecipeNode* find(const std::string& key) const;
  std::vector<std::string> keys() const;
};

/// "a map", "a list", "'text'", "nothing"; for messages.
std::string describe(const RecipeNode& node);
/// "recipe.yaml:3:14".
std::string position(const std::string& file, const RecipeNode& node);

/// Parses one document. `${name}` may stand unquoted anywhere, also in {flow, maps}. Throws
/// Error(kBadInput) with the position for bad syntax, duplicate keys, nesting deeper than 32, more
/// than 100,000 values.
RecipeNode parse_yaml(const std::string& text, const std::string& file);

}  // namespace slmc

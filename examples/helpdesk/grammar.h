// Random text from patterns: "[hi|hello], my {product} is broken". Brackets choose one of their
// alternatives (they nest, one may be empty); braces ask the caller for a value.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/random.h"

namespace slmc::helpdesk {

/// A run of text. `slot` is the name of the value it came from, empty for plain words; `exact` text
/// gets no typing errors.
struct Piece {
  std::string text;
  std::string slot{};
  bool exact = false;
};
using Pieces = std::vector<Piece>;
using Resolve = std::function<Piece(std::string_view name)>;

/// Expands `pattern`. Throws Error(kBug) for unbalanced brackets or braces: patterns are part of
/// the program.
Pieces expand(std::string_view pattern, Random& random, const Resolve& resolve);
/// The names in braces of a pattern, all alternatives included.
std::vector<std::string> names_in(std::string_view pattern);

/// One element, uniformly.
template <typename List>
const auto& choose(const List& list, Random& random) {
  return list[random.below(list.size())];
}
bool chance(Random& random, double probability);

}  // namespace slmc::helpdesk

// An interpreter for the part of Jinja that chat templates use, with the settings and functions
// that Hugging Face transformers gives them (trim_blocks, lstrip_blocks, loop controls, tojson
// without escapes, raise_exception, strftime_now, {% generation %}). Templates come from files that
// others wrote: steps, sizes and depths are limited, and nothing outside the given variables is
// reached. Not here: include, import, extends, call blocks, recursive loops, autoescaping.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "compress/core/json.h"

namespace slmc::jinja {

struct Node;

constexpr std::time_t kNoClock = -2;

struct RenderOptions {
  /// For strftime_now, in local time; -1: the clock's; kNoClock: it is not defined.
  std::time_t now = -1;
  uint64_t most_steps = 2'000'000;  ///< Nodes evaluated, and sizes of what they make.
};

struct Rendered {
  std::string text;
  /// Stretches of `text` inside {% generation %}, [begin, end).
  std::vector<std::pair<size_t, size_t>> generation;
};

class Template {
 public:
  /// Throws Error(kBadInput) for a syntax error and Error(kUnsupported) for what is not implemented
  /// (a filter, a statement), naming the line.
  explicit Template(std::string_view source);
  /// `variables`: an object. Throws Error(kBadInput) naming the line when the template fails
  /// (raise_exception, a wrong type) or does not end within the limits.
  Rendered render(const Json& variables, const RenderOptions& options = {}) const;
  /// Whether the template marks what the assistant said.
  bool has_generation() const { return has_generation_; }

 private:
  std::shared_ptr<const Node> root_;
  bool has_generation_ = false;
};

}  // namespace slmc::jinja

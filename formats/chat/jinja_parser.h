// Jinja source to a tree. Lexing follows jinja2 with trim_blocks and lstrip_blocks, as transformers
// sets them for chat templates; what the interpreter does not know is refused here, so that a
// template is judged when it is read.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/chat/jinja_value.h"

namespace slmc::jinja {

enum class Kind {
  // Expressions.
  kLiteral,      // value
  kName,         // text
  kList,         // parts
  kTuple,        // parts
  kDict,         // parts: key, value, key, value...
  kAttribute,    // parts[0].text
  kSubscript,    // parts[0][parts[1]]
  kSlice,        // parts[0][parts[1]:parts[2]:parts[3]]; a part may be null
  kCall,         // parts[0](parts[1...]); names[i] is the name of parts[i + 1], "" for none
  kFilter,       // parts[0]|text(parts[1...])
  kTest,         // parts[0] is text(parts[1...]); `flag`: is not
  kUnary,        // text ("not", "-", "+") parts[0]
  kBinary,       // parts[0] text parts[1]
  kCompare,      // parts[0] names[0] parts[1] names[1] parts[2]...
  kConditional,  // parts[0] if parts[1] else parts[2] (may be null)
  // Statements.
  kBlock,        // parts in order
  kText,         // text
  kOutput,       // parts[0]
  kIf,           // condition, body, condition, body..., [body of else]
  kFor,          // names: targets; parts: items, filter or null, body, else or null
  kSet,          // names: targets ("a", or "ns.a"); parts[0]
  kSetBlock,     // names[0]; parts[0] a body, parts[1...] filters of kFilter around null
  kMacro,        // text: name; names: parameters; parts: defaults (may be null)..., body
  kFilterBlock,  // parts[0] a body, parts[1...] filters
  kGeneration,   // parts[0]: what the assistant said
  kBreak,
  kContinue,
};

struct Node;
using NodePointer = std::unique_ptr<Node>;
struct Node {
  Kind kind = Kind::kBlock;
  int line = 0;
  std::string text;
  Value value;
  std::vector<std::string> names;
  std::vector<NodePointer> parts;
  bool flag = false;
};

/// Throws Error(kBadInput) for a syntax error and Error(kUnsupported) for what is not implemented,
/// naming the line.
NodePointer parse(std::string_view source);

/// Whether the interpreter has a filter, or a test, of this name.
bool has_filter(std::string_view name);
bool has_test(std::string_view name);

}  // namespace slmc::jinja

// The options of one verb: collected from visit(), bound to CLI11, set from the command line. Help,
// completions and docs/cli.md are printed from the same list (help.h).
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "compress/core/fields.h"

namespace slmc {

struct Option {
  FieldInfo info;
  /// Where the value goes; lives as long as the subject that was visited.
  std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*> target;
  std::string default_text;  ///< As shown in help; empty when there is nothing to show.
  bool global = false;

  bool is_flag() const { return std::holds_alternative<bool*>(target); }
  bool is_list() const { return std::holds_alternative<std::vector<std::string>*>(target); }
  /// A flag that is on unless switched off.
  bool on_by_default = false;
  /// As help shows it: "--scheme", "--[no-]merge", "MODEL".
  std::string shown_name() const;
  /// As one types it to change the default: "--scheme", "--no-merge".
  std::string typed_name() const;
  /// "FILE", "N", "TEXT"; empty for flags.
  std::string shown_value() const;
};

/// In order of declaration; `global` marks the options every verb has.
std::vector<Option> collect_options(Configurable& subject, bool global);

/// What a command line asked for besides values.
struct ParseResult {
  bool help = false;
};

/// Sets targets from `arguments` (without program and verb). Throws Error(kUsage) for an unknown
/// option (naming the nearest), a value of the wrong kind, an option given twice, a missing one.
/// `verb` is named in messages.
ParseResult parse_options(const std::vector<Option>& options,
                          const std::vector<std::string>& arguments, const std::string& verb);

}  // namespace slmc

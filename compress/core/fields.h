// The visitor through which a stage or command declares each option once. The command line,
// recipes, --help, docs and the report's option table are all made from the same visit
// (docs/architecture.md).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/json.h"

namespace slmc {

/// One option. `name` is snake_case; the flag is the same with hyphens.
struct FieldInfo {
  std::string name;
  std::string help;                    ///< One sentence, with the unit.
  std::vector<std::string> choices{};  ///< Empty: any value.
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool required = false;
  bool positional = false;      ///< On the command line given without its flag.
  std::string short_flag{};     ///< "o" for -o.
  std::string value_name{};     ///< "FILE", "N"; shown in --help.
  std::string value_without{};  ///< Not empty: on the command line the value may be left out and is
                                ///< then this.
};

class Fields {
 public:
  virtual ~Fields() = default;
  virtual void visit(const FieldInfo& info, bool& value) = 0;
  virtual void visit(const FieldInfo& info, int64_t& value) = 0;
  virtual void visit(const FieldInfo& info, double& value) = 0;
  virtual void visit(const FieldInfo& info, std::string& value) = 0;
  virtual void visit(const FieldInfo& info, std::vector<std::string>& value) = 0;
};

/// Anything with options: stages and commands.
class Configurable {
 public:
  virtual ~Configurable() = default;
  virtual void visit(Fields& fields) = 0;
};

/// All options with their present values, in order of declaration.
Json fields_to_json(Configurable& subject);
std::vector<FieldInfo> field_infos(Configurable& subject);
/// Sets options from a JSON object (recipe keys; hyphens are accepted for underscores). An unknown
/// key, a wrong type, a value out of range or not among the choices throws Error(kUsage) naming
/// `where`, the key, what was expected, and the nearest known key. A required option that was
/// neither set before nor is in `values` is an error too.
void set_fields(Configurable& subject, const Json& values, const std::string& where);
/// Checks range and choices of every option and that required ones are set. Throws Error(kUsage).
void check_fields(Configurable& subject, const std::string& where);

}  // namespace slmc

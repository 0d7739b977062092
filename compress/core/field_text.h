// From text to option values, with the checks of range and choices. The command line and recipes
// both go through here, so an option accepts the same values, with the same words when it refuses,
// wherever it is written.
#pragma once

#include <string>
#include <vector>

#include "compress/core/fields.h"

namespace slmc {

/// "target_size" -> "--target-size".
std::string flag_name(const FieldInfo& info);
/// The reverse of what flags do to names: hyphens become underscores.
std::string field_name(std::string key);

/// Parses the whole of `text` into `value` and checks range and choices. Throws Error(kUsage):
/// "<label>: expected a whole number from 1 to 64, found 'abc'".
void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    bool& value);
void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    int64_t& value);
void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    double& value);
void set_field_text(const FieldInfo& info, const std::string& label, const std::string& text,
                    std::string& value);
/// Sets the whole list; choices hold for each member.
void set_field_text(const FieldInfo& info, const std::string& label,
                    const std::vector<std::string>& texts, std::vector<std::string>& value);

/// "from 0 to 1", "at least 1", "" without bounds.
std::string range_text(const FieldInfo& info);

}  // namespace slmc

// Files of JSON lines, an object a line. Errors name file and line and never quote what stands
// there.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "compress/core/json.h"

namespace slmc {

/// Calls visit(line, "file:number") for each line of `text` with anything in it, behind a byte
/// order mark, until it returns false.
void for_each_line(std::string_view text, const std::string& file,
                   const std::function<bool(std::string_view, const std::string&)>& visit);
/// The object of a line. Throws Error(kBadInput) naming `where`.
Json parse_line(std::string_view line, const std::string& where);

}  // namespace slmc

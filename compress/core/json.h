// JSON as slmc reads and writes it: nlohmann's ordered type, read strictly (duplicate keys are
// refused, errors name file and offset).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace slmc {

using Json = nlohmann::ordered_json;

/// Parses strictly: no duplicate keys, no trailing text, depth at most 64. Throws Error(kBadInput)
/// naming `where` and the byte offset.
Json parse_json(std::string_view text, const std::string& where);
Json read_json(const std::string& path);

}  // namespace slmc

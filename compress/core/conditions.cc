#include "compress/core/conditions.h"

#include "compress/core/text.h"

namespace slmc {

std::string conditions_difference(const Json& then, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    if (then.contains(key) && then[key] == value) continue;
    if (then.contains(key) && then[key].is_object() && value.is_object()) {
      const std::string inside = conditions_difference(then[key], value);
      if (!inside.empty()) return inside;
      continue;
    }
    return cat(key, " was ", then.contains(key) ? then[key].dump() : "absent", " and is ",
               value.dump());
  }
  for (const auto& [key, value] : then.items())
    if (!now.contains(key)) return cat(key, " was ", value.dump(), " and is absent");
  return "";
}

}  // namespace slmc

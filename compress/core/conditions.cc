#include "compress/core/conditions.h"

#include "compress/core/text.h"

namespace slmc {

std::string conditions_difference(const Json& then, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    if (then.contains(key) && then[key] == value) continue;
    if (then.contains(key) && then[key].is_object() && value.is_object())
      return conditions_difference(then[key], value);
    return cat(key, " was ", then.contains(key) ? then[key].dump() : "absent", " and is ",
               value.dump());
  }
  return "";
}

}  // namespace slmc

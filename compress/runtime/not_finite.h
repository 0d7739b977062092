// What is said wherever a model gives values that are not finite.
#pragma once

#include <string>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

/// Throws Error(kBadInput). `what`: "MODEL gives logits that are not finite".
[[noreturn]] inline void throw_not_finite(const std::string& what) {
  throw_bad_input(
      cat(what, "; its weights are damaged or overflow: check them with `slmc verify`"));
}

}  // namespace slmc

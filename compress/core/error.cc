#include "compress/core/error.h"

#include "compress/core/text.h"

namespace slmc {

void throw_usage(const std::string& message) { throw Error(ExitCode::kUsage, message); }
void throw_bad_input(const std::string& message) { throw Error(ExitCode::kBadInput, message); }
void throw_unsupported(const std::string& message) { throw Error(ExitCode::kUnsupported, message); }
void throw_resources(const std::string& message) { throw Error(ExitCode::kResources, message); }

uint64_t checked_multiply(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result))
    throw_bad_input(cat(what, ": ", a, " x ", b, " does not fit 64 bits"));
  return result;
}

uint64_t checked_add(uint64_t a, uint64_t b, const std::string& what) {
  uint64_t result = 0;
  if (__builtin_add_overflow(a, b, &result))
    throw_bad_input(cat(what, ": ", a, " + ", b, " does not fit 64 bits"));
  return result;
}

namespace detail {
void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  const std::string_view path(file);
  const size_t slash = path.rfind('/');
  throw Error(
      ExitCode::kBug,
      cat("bug in slmc (", path.substr(slash == std::string_view::npos ? 0 : slash + 1), ":", line,
          "): ", message, " [", condition, "]; please report it with the command that led here"));
}
}  // namespace detail

}  // namespace slmc

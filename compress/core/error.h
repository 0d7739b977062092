// The one error type of slmc, and the exit code each kind of error maps to. Libraries throw; only
// the programs print and exit.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace slmc {

/// Exit codes of the programs (docs/cli.md). Part of the public contract.
enum class ExitCode : int {
  kOk = 0,
  kGateFailed = 1,
  kUsage = 2,
  kBadInput = 3,
  kUnsupported = 4,
  kResources = 5,
  kBug = 70,
  kInterrupted = 130,
};

/// The caller's fault or a bad file. The message is one line: what, where (file, tensor, byte
/// offset), expected, found, remedy.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

[[noreturn]] void throw_usage(const std::string& message);
[[noreturn]] void throw_bad_input(const std::string& message);
[[noreturn]] void throw_unsupported(const std::string& message);
[[noreturn]] void throw_resources(const std::string& message);

/// `a * b`, or throws Error(kBadInput) naming `what` when it does not fit 64 bits. For sizes that
/// come from files.
uint64_t checked_multiply(uint64_t a, uint64_t b, const std::string& what);
uint64_t checked_add(uint64_t a, uint64_t b, const std::string& what);

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);
}

/// Our own fault: stays live in release builds. Throws Error(kBug), so the program ends with exit
/// code 70.
#define SLMC_CHECK(condition, message)                                                         \
  do {                                                                                         \
    if (!(condition)) ::slmc::detail::check_failed(__FILE__, __LINE__, #condition, (message)); \
  } while (false)

}  // namespace slmc

// Runs a program as a user would and keeps what it said. Also a folder that disappears with the
// test.
#pragma once

#include <string>
#include <vector>

namespace slmc::test {

struct ProgramResult {
  int exit_code = -1;  ///< 128 + signal when it was killed.
  std::string out, err;
};

/// Runs `program` with `arguments`; no shell is between. `environment` holds "NAME=value" added to
/// ours.
ProgramResult run_program(const std::string& program, const std::vector<std::string>& arguments,
                          const std::vector<std::string>& environment = {});
/// The slmc of this build.
ProgramResult run_slmc(const std::vector<std::string>& arguments,
                       const std::vector<std::string>& environment = {});

/// Starts it, waits until `ready` exists (at most 60 s), sends `signal`, and waits for its end.
ProgramResult run_and_signal(const std::string& program, const std::vector<std::string>& arguments,
                             const std::string& ready, int signal);

/// A signal for one of several processes, or with rank -1 for all, once `ready` exists.
struct Disturbance {
  std::string ready;
  int rank = 0, signal = 0;
};
/// Runs slmc once a list of arguments, all at a time, with the variables that torchrun would give
/// them.
std::vector<ProgramResult> run_ranks(const std::vector<std::vector<std::string>>& arguments,
                                     const Disturbance& disturbance = {});

/// A new folder under the system's temporary one, removed with its content at the end.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  /// Writes a file there and returns its path.
  std::string write(const std::string& name, const std::string& text) const;
  /// Names inside, sorted.
  std::vector<std::string> names() const;

 private:
  std::string path_;
};

std::string read_file(const std::string& path);

}  // namespace slmc::test

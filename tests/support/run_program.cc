#include "tests/support/run_program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>

namespace slmc::test {
namespace {

namespace fs = std::filesystem;

/// stdout and stderr go to files, so that neither can fill a pipe and block.
pid_t start(const std::string& program, const std::vector<std::string>& arguments,
            const std::vector<std::string>& environment, const ScratchFolder& folder) {
  const pid_t child = fork();
  if (child != 0) return child;
  const int out = open(folder.file("out").c_str(), O_CREAT | O_WRONLY, 0600);
  const int err = open(folder.file("err").c_str(), O_CREAT | O_WRONLY, 0600);
  const int in = open("/dev/null", O_RDONLY);
  dup2(in, 0), dup2(out, 1), dup2(err, 2);
  for (const std::string& setting : environment) putenv(const_cast<char*>(setting.c_str()));
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  _exit(127);
}

ProgramResult finish(pid_t child, const ScratchFolder& folder) {
  int status = 0;
  waitpid(child, &status, 0);
  ProgramResult result;
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_file(folder.file("out"));
  result.err = read_file(folder.file("err"));
  return result;
}

}  // namespace

ProgramResult run_program(const std::string& program, const std::vector<std::string>& arguments,
                          const std::vector<std::string>& environment) {
  const ScratchFolder folder;
  return finish(start(program, arguments, environment, folder), folder);
}

ProgramResult run_slmc(const std::vector<std::string>& arguments,
                       const std::vector<std::string>& environment) {
  return run_program(SLMC_PROGRAM, arguments, environment);
}

ProgramResult run_and_signal(const std::string& program, const std::vector<std::string>& arguments,
                             const std::string& ready, int signal) {
  const ScratchFolder folder;
  const pid_t child = start(program, arguments, {}, folder);
  for (int i = 0; i < 6000 && !fs::exists(ready); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  kill(child, signal);
  return finish(child, folder);
}

ScratchFolder::ScratchFolder() {
  std::string name = (fs::temp_directory_path() / "slmc-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder: " + name);
  path_ = name;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string ScratchFolder::write(const std::string& name, const std::string& text) const {
  fs::create_directories(fs::path(file(name)).parent_path());
  std::ofstream(file(name), std::ios::binary) << text;
  return file(name);
}

std::vector<std::string> ScratchFolder::names() const {
  std::vector<std::string> result;
  for (const auto& entry : fs::directory_iterator(path_))
    result.push_back(entry.path().filename().string());
  std::sort(result.begin(), result.end());
  return result;
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace slmc::test

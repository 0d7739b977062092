#include "tests/support/run_program.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
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

void wait_for_file(const std::string& path) {
  for (int i = 0; i < 6000 && !fs::exists(path); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

int free_port() {
  const int made = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  bind(made, reinterpret_cast<sockaddr*>(&address), size);
  getsockname(made, reinterpret_cast<sockaddr*>(&address), &size);
  close(made);
  return ntohs(address.sin_port);
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
  wait_for_file(ready);
  kill(child, signal);
  return finish(child, folder);
}

std::vector<ProgramResult> run_ranks(const std::vector<std::vector<std::string>>& arguments,
                                     const Disturbance& disturbance) {
  const std::string size = std::to_string(arguments.size());
  const std::string port = std::to_string(free_port());
  const std::vector<ScratchFolder> folders(arguments.size());
  std::vector<pid_t> children;
  for (size_t rank = 0; rank < arguments.size(); ++rank)
    children.push_back(
        start(SLMC_PROGRAM, arguments[rank],
              {"RANK=" + std::to_string(rank), "WORLD_SIZE=" + size, "LOCAL_WORLD_SIZE=" + size,
               "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + port},
              folders[rank]));
  if (disturbance.signal != 0) {
    wait_for_file(disturbance.ready);
    for (size_t rank = 0; rank < children.size(); ++rank)
      if (disturbance.rank < 0 || disturbance.rank == static_cast<int>(rank))
        kill(children[rank], disturbance.signal);
  }
  std::vector<ProgramResult> results;
  for (size_t rank = 0; rank < children.size(); ++rank)
    results.push_back(finish(children[rank], folders[rank]));
  return results;
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

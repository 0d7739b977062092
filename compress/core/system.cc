#include "compress/core/system.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <fstream>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

extern "C" void on_interrupt(int signal) {
  if (interrupt_seen != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
  interrupt_seen = signal;
}

// A "Name:   1234 kB" line of /proc/self/status, in bytes; 0 where there is none.
uint64_t status_bytes(std::string_view name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(name, 0) == 0 && line.size() > name.size() && line[name.size()] == ':') {
      return std::stoull(line.substr(name.size() + 1)) * 1024;
    }
  }
  return 0;
}

}  // namespace

uint64_t peak_rss_bytes() { return status_bytes("VmHWM"); }
uint64_t current_rss_bytes() { return status_bytes("VmRSS"); }

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

int processor_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
}

std::string compiler_version() {
#ifdef __clang__
  return cat("clang ", __clang_major__, ".", __clang_minor__);
#else
  return cat("gcc ", __GNUC__, ".", __GNUC_MINOR__);
#endif
}

std::string slmc_version() {
  const std::string commit = SLMC_COMMIT;
  return commit.empty() ? SLMC_VERSION : cat(SLMC_VERSION, " (", commit, ")");
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return interrupt_seen != 0; }

void stop_if_interrupted() {
  if (interrupted()) throw Error(ExitCode::kInterrupted, "interrupted");
}

void clear_interrupt() {
  if (interrupt_seen == SIGINT) interrupt_seen = 0;
}

}  // namespace slmc

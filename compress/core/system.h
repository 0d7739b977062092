// What the operating system says of this process and machine.
#pragma once

#include <cstdint>
#include <string>

namespace slmc {

/// VmHWM in bytes: the peak resident set, mapped pages included.
uint64_t peak_rss_bytes();
uint64_t current_rss_bytes();
std::string cpu_model();
int processor_count();
std::string compiler_version();
/// Version of slmc and the commit it was built from.
std::string slmc_version();
/// Seconds on a steady clock.
double now_seconds();
/// Installs handlers for SIGINT and SIGTERM that only set a flag; a second signal ends the process
/// at once.
void install_interrupt_handler();
bool interrupted();
/// Throws Error(kInterrupted) if so.
void stop_if_interrupted();
/// Forgets a SIGINT that has been dealt with; a SIGTERM stays.
void clear_interrupt();

}  // namespace slmc

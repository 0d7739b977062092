#include "compress/cli/ranks.h"

#include <algorithm>
#include <charconv>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

struct Launcher {
  const char *rank, *size, *local_size, *local_rank;
};
constexpr Launcher kLaunchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK"},
    // Not SLURM_NTASKS, which the one process of a batch script sees too.
    {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE", "SLURM_LOCALID"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
};
constexpr int kMostRanks = 4096;

int number(const Environment& environment, const char* name, int min, int max) {
  const std::string text = environment(name);
  int value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < min || value > max)
    throw_usage(cat(name, ": expected a number from ", min, " to ", max, " in the environment, ",
                    text.empty() ? "found none" : cat("found '", text, "'")));
  return value;
}

/// By the job's number, so that jobs on one machine do not meet; below the ports that systems hand
/// out.
int port_of_job(const std::string& job) {
  int port = 0;
  for (const char c : job) port = (port * 10 + (c - '0')) % 10000;
  return 20000 + port;
}

void find_meeting_place(const Environment& environment, bool slurm, RankPlace& place) {
  place.address = environment("MASTER_ADDR");
  if (place.address.empty() && slurm) {
    for (const char* list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"})
      if (place.address.empty()) place.address = first_host(environment(list));
  }
  if (place.address.empty() && place.local_size == place.size) place.address = "127.0.0.1";
  if (place.address.empty())
    throw_usage(cat("MASTER_ADDR: ", place.size,
                    " ranks were started, and nothing says where they meet; set MASTER_ADDR to the "
                    "machine of rank 0 and MASTER_PORT to a free port there"));
  if (!environment("MASTER_PORT").empty())
    place.port = number(environment, "MASTER_PORT", 1, 65535);
  else
    place.port = slurm ? port_of_job(environment("SLURM_JOB_ID")) : 29500;
}

}  // namespace

std::string first_host(const std::string& list) {
  const size_t end = list.find_first_of(",[");
  std::string host = list.substr(0, end);
  if (end == std::string::npos || list[end] != '[') return host;
  const size_t close = list.find(']', end), number_end = list.find_first_of(",-]", end);
  if (close == std::string::npos) return "";
  host += list.substr(end + 1, number_end - end - 1);
  return host + list.substr(close + 1, list.find(',', close) - close - 1);
}

RankPlace find_rank(const Environment& environment) {
  for (const Launcher& launcher : kLaunchers) {
    if (environment(launcher.size).empty()) continue;
    RankPlace place;
    place.size = number(environment, launcher.size, 1, kMostRanks);
    if (place.alone()) return {};
    place.rank = number(environment, launcher.rank, 0, place.size - 1);
    if (!environment(launcher.local_size).empty())
      place.local_size =
          std::min(place.size, number(environment, launcher.local_size, 1, kMostRanks));
    if (!environment(launcher.local_rank).empty())
      place.local_rank = number(environment, launcher.local_rank, 0, place.size - 1);
    else if (place.local_size > 0)
      place.local_rank = place.rank % place.local_size;
    find_meeting_place(environment, launcher.rank == std::string("SLURM_PROCID"), place);
    place.served = environment("TORCHELASTIC_USE_AGENT_STORE") == "True";
    place.session = environment("TORCHELASTIC_RESTART_COUNT");
    place.nccl = environment("SLMC_NCCL");
    return place;
  }
  return {};
}

}  // namespace slmc

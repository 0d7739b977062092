// Stands in for NCCL where there is no GPU: the functions that slmc calls, for float32 in the
// machine's memory, between processes that map one file. As NCCL's, calls return before they are
// done; one is under way at a time.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

enum Code { kSuccess = 0, kInvalidArgument = 4, kInProgress = 7 };
constexpr int kFloat32 = 7, kMostRanks = 8;
constexpr size_t kRoom = size_t{1} << 23;  // Floats that a rank may send at a time.

struct Shared {
  std::atomic<int> arrived, round;
  size_t begin[kMostRanks][kMostRanks];  // Of what rank i sends to j.
  float values[kMostRanks][kRoom];       // Sparse: only what is written takes room.
};

struct Transfer {
  float* values;
  size_t count;
  int peer;
  bool sends;
};

struct Link {
  Shared* shared = nullptr;
  int rank = 0, size = 0;
  std::atomic<bool> busy = false;
  std::thread worker;

  void meet() const {
    const int round = shared->round;
    if (++shared->arrived == size) {
      shared->arrived = 0;
      ++shared->round;
    }
    while (shared->round == round) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  int start(std::function<void()> work) {
    if (worker.joinable()) worker.join();
    busy = true;
    worker = std::thread([this, work = std::move(work)] {
      work();
      busy = false;
    });
    return kSuccess;
  }
};

thread_local std::vector<Transfer> group;
thread_local Link* group_link = nullptr;

using Id = std::array<char, 128>;

}  // namespace

extern "C" {

int slmc_fake_nccl = 1;  // Tells slmc that the cpu's memory will do.

int ncclGetVersion(int* version) {
  *version = 20000;
  return kSuccess;
}

int ncclGetUniqueId(Id* id) {
  const std::string folder = std::filesystem::temp_directory_path().string();
  std::snprintf(id->data(), id->size(), "%s/slmc-fake-nccl-XXXXXX", folder.c_str());
  const int file = mkstemp(id->data());
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) return kInvalidArgument;
  close(file);
  return kSuccess;
}

int ncclCommInitRank(void** out, int size, Id id, int rank) {
  const int file = open(id.data(), O_RDWR);
  if (file < 0 || size > kMostRanks) return kInvalidArgument;
  auto* link = new Link;
  void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return kInvalidArgument;
  link->shared = static_cast<Shared*>(memory);
  link->rank = rank;
  link->size = size;
  link->meet();
  if (rank == 0) unlink(id.data());
  *out = link;
  return kSuccess;
}

int ncclCommDestroy(void* opaque) {
  auto* link = static_cast<Link*>(opaque);
  if (link->worker.joinable()) link->worker.join();
  munmap(link->shared, sizeof(Shared));
  delete link;
  return kSuccess;
}

int ncclCommGetAsyncError(void* opaque, int* code) {
  *code = static_cast<Link*>(opaque)->busy ? kInProgress : kSuccess;
  return kSuccess;
}

const char* ncclGetErrorString(int) { return "the fake refuses"; }

int ncclAllGather(const void* mine, void* all, size_t count, int type, void* opaque, void*) {
  if (type != kFloat32 || count > kRoom) return kInvalidArgument;
  auto* link = static_cast<Link*>(opaque);
  return link->start([=] {
    Shared& shared = *link->shared;
    std::memcpy(shared.values[link->rank], mine, count * sizeof(float));
    link->meet();
    for (int rank = 0; rank < link->size; ++rank)
      std::memcpy(static_cast<float*>(all) + static_cast<size_t>(rank) * count, shared.values[rank],
                  count * sizeof(float));
    link->meet();
  });
}

int ncclBroadcast(const void* from, void* to, size_t count, int type, int root, void* opaque,
                  void*) {
  if (type != kFloat32 || count > kRoom) return kInvalidArgument;
  auto* link = static_cast<Link*>(opaque);
  return link->start([=] {
    Shared& shared = *link->shared;
    if (link->rank == root) std::memcpy(shared.values[root], from, count * sizeof(float));
    link->meet();
    if (link->rank != root) std::memcpy(to, shared.values[root], count * sizeof(float));
    link->meet();
  });
}

int ncclGroupStart() {
  group.clear();
  group_link = nullptr;
  return kSuccess;
}

int ncclSend(const void* values, size_t count, int type, int peer, void* opaque, void*) {
  if (type != kFloat32) return kInvalidArgument;
  group_link = static_cast<Link*>(opaque);
  group.push_back({static_cast<float*>(const_cast<void*>(values)), count, peer, true});
  return kSuccess;
}

int ncclRecv(void* values, size_t count, int type, int peer, void* opaque, void*) {
  if (type != kFloat32) return kInvalidArgument;
  group_link = static_cast<Link*>(opaque);
  group.push_back({static_cast<float*>(values), count, peer, false});
  return kSuccess;
}

int ncclGroupEnd() {
  Link* const link = group_link;
  if (link == nullptr) return kSuccess;  // Nothing to send or to receive.
  return link->start([link, transfers = std::move(group)] {
    Shared& shared = *link->shared;
    size_t sent = 0;
    for (const Transfer& each : transfers)
      if (each.sends) {
        shared.begin[link->rank][each.peer] = sent;
        std::memcpy(shared.values[link->rank] + sent, each.values, each.count * sizeof(float));
        sent += each.count;
      }
    link->meet();
    for (const Transfer& each : transfers)
      if (!each.sends)
        std::memcpy(each.values, shared.values[each.peer] + shared.begin[each.peer][link->rank],
                    each.count * sizeof(float));
    link->meet();
  });
}

}  // extern "C"

#include "compress/torch/nccl_group.h"

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/torch/device.h"
#include "compress/torch/gloo_group.h"
#include "compress/torch/nccl.h"

namespace slmc::libtorch {
namespace {

/// Floats that pass through the device at a time.
constexpr int64_t kPiece = int64_t{1} << 24;
constexpr int kJoinSeconds = 300;

/// What training exchanges is in the machine's memory; its floats go through the device, by NCCL,
/// and the rest stays with Gloo, whose group also knows who is still there.
class NcclGroup : public RankGroup {
 public:
  NcclGroup(std::shared_ptr<WatchedGroup> group, Nccl nccl, at::Device device,
            const Context& context)
      : RankGroup(group->place()),
        group_(std::move(group)),
        device_(device),
        carrier_("NCCL " + nccl.version()) {
    const std::string id = group_->from_first(first() ? nccl.new_id() : "");
    // It waits for the others and cannot be asked how far it is, so it does so in a thread, which
    // stays behind if one of them never comes.
    struct Joining {
      std::unique_ptr<NcclLink> link;
      std::exception_ptr error;
      std::atomic<bool> over = false;
    };
    const auto joining = std::make_shared<Joining>();
    std::thread([joining, nccl = std::move(nccl), id, place = this->place(), device] {
      try {
        joining->link = std::make_unique<NcclLink>(nccl, id, place.rank, place.size, device);
      } catch (...) {
        joining->error = std::current_exception();
      }
      joining->over = true;
    }).detach();
    const double start = now_seconds();
    group_->call([] {},
                 [&] {
                   if (joining->over && joining->error != nullptr)
                     std::rethrow_exception(joining->error);
                   context.check_interrupt();
                   if (now_seconds() - start > kJoinSeconds)
                     throw_resources(cat("NCCL has not connected the ranks within ",
                                         kJoinSeconds / 60, " minutes; NCCL_SOCKET_IFNAME names ",
                                         "the network that they have in common"));
                   return joining->over.load();
                 });
    link_ = std::move(joining->link);
  }
  ~NcclGroup() override {
    if (failed_ || lost()) (void)link_.release();  // To end it takes all ranks.
  }

  void gather(std::span<const float> mine, std::span<float> all) override {
    const auto count = std::ssize(mine);
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      const int64_t some = std::min(kPiece, count - begin);
      const at::Tensor from = tensor_of(mine).narrow(0, begin, some).to(device_);
      const at::Tensor to = at::empty({size() * some}, from.options());
      call([&] { link_->gather(from, to); });
      tensor_of(all).view({size(), count}).narrow(1, begin, some).copy_(to.view({size(), some}));
    }
  }
  std::vector<double> gather(std::span<const double> mine) override { return group_->gather(mine); }
  void exchange(std::span<float> out, const std::vector<int64_t>& out_counts, std::span<float> in,
                const std::vector<int64_t>& in_counts) override {
    const at::Tensor from = tensor_of(out).to(device_);
    const at::Tensor to = at::empty({std::ssize(in)}, from.options());
    call([&] { link_->exchange(from, out_counts, to, in_counts); });
    tensor_of(in).copy_(to);
  }
  void from_first(std::span<float> values) override {
    const at::Tensor host = tensor_of(values);
    for (int64_t begin = 0; begin < host.numel(); begin += kPiece) {
      at::Tensor part = host.narrow(0, begin, std::min(kPiece, host.numel() - begin));
      const at::Tensor there = part.to(device_);
      call([&] { link_->from_first(there); });
      if (!first()) part.copy_(there);
    }
  }
  std::string from_first(const std::string& text) override { return group_->from_first(text); }
  void fail(const Error& error) override {
    failed_ = true;
    group_->fail(error);
  }
  bool lost() const override { return group_->lost(); }
  std::string carrier() const override { return carrier_; }

 private:
  void call(const std::function<void()>& start) {
    group_->call(start, [this] { return link_->done(); });
  }

  const std::shared_ptr<WatchedGroup> group_;
  const at::Device device_;
  const std::string carrier_;
  std::unique_ptr<NcclLink> link_;  ///< Goes before the group.
  bool failed_ = false;
};

/// A number that doubles hold for a GPU of a machine: by its place on the bus, since each process
/// may be shown another as the first.
double gpu_number(at::Device device) {
  std::string name;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> name;
  std::array<char, 64> bus{};
  using BusId = int (*)(char*, int, int);
  const auto bus_id = reinterpret_cast<BusId>(dlsym(RTLD_DEFAULT, "cudaDeviceGetPCIBusId"));
  if (bus_id != nullptr) bus_id(bus.data(), static_cast<int>(bus.size()), device.index());
  name += cat(" ", bus.data(), bus[0] == 0 ? cat(device.index()) : "");
  return static_cast<double>(std::hash<std::string>{}(name) >> 12);
}

/// What each rank tells the others before they decide.
struct Means {
  bool can = false;    ///< Has NCCL for its device.
  bool asked = false;  ///< For it by name.
  double gpu = 0;      ///< 0: none.
};

std::vector<Means> means_of_all(WatchedGroup& group, const Means& mine) {
  const std::vector<double> all =
      group.gather(std::vector<double>{mine.can ? 1.0 : 0.0, mine.asked ? 1.0 : 0.0, mine.gpu});
  std::vector<Means> means;
  for (size_t i = 0; i < all.size(); i += 3)
    means.push_back({.can = all[i] != 0, .asked = all[i + 1] != 0, .gpu = all[i + 2]});
  return means;
}

/// The group around `group`, or itself where NCCL is of no use. Ranks that cannot all use it must
/// find that out together: NCCL itself would wait for ever.
std::shared_ptr<RankGroup> with_nccl(const std::shared_ptr<WatchedGroup>& group,
                                     const Context& context) {
  const std::string& path = context.ranks.nccl;
  const at::Device device = device_of(context);
  std::optional<Nccl> nccl;
  std::string missing;
  try {
    if (!context.on_cpu() || !path.empty()) nccl.emplace(path);
  } catch (const Error& error) {
    missing = error.what();
  }
  // On the cpu it is for tests alone.
  const bool wanted = !context.on_cpu() || !missing.empty() || (nccl && nccl->on_cpu());
  const std::vector<Means> all =
      means_of_all(*group, {.can = wanted && nccl.has_value(),
                            .asked = wanted && !path.empty(),
                            .gpu = device.is_cuda() ? gpu_number(device) : 0});
  bool asked = false;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    asked = asked || all[rank].asked;
    if (missing.empty() && !all[rank].can) missing = cat("rank ", rank, " has no NCCL");
    for (size_t other = 0; missing.empty() && all[rank].gpu != 0 && other < rank; ++other)
      if (all[other].gpu == all[rank].gpu)
        missing = cat("ranks ", other, " and ", rank, " have one GPU");
  }
  if (missing.empty()) return std::make_shared<NcclGroup>(group, *nccl, device, context);
  if (asked) throw_unsupported(missing);
  if (wanted) group->set_remark(missing);
  return group;
}

}  // namespace

std::shared_ptr<RankGroup> join_ranks(const Context& context) {
  const RankPlace& place = context.ranks;
  if (place.alone()) return group_of_one();
  const std::shared_ptr<WatchedGroup> group = join_gloo(place);
  try {
    return with_nccl(group, context);
  } catch (const Error& error) {
    group->fail(error);
    throw Error(error.code(), cat("rank ", place.rank, " of ", place.size, ": ", error.what()));
  }
}

}  // namespace slmc::libtorch

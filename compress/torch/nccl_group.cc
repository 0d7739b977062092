#include "compress/torch/nccl_group.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/torch/device.h"
#include "compress/torch/gloo_group.h"
#include "compress/torch/nccl.h"

namespace slmc::libtorch {
namespace {

/// Floats that pass through the device at a time.
constexpr int64_t kPiece = int64_t{1} << 24;

at::Tensor on_host(std::span<const float> values) {
  return at::from_blob(const_cast<float*>(values.data()), {std::ssize(values)}, at::kFloat);
}

/// What training exchanges is in the machine's memory; its floats go through the device, by NCCL,
/// and the rest stays with Gloo, whose group also knows who is still there.
class NcclGroup : public RankGroup {
 public:
  NcclGroup(std::shared_ptr<WatchedGroup> group, Nccl nccl, at::Device device)
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
    group_->call([] {},
                 [&] {
                   if (!joining->over) return false;
                   if (joining->error != nullptr) std::rethrow_exception(joining->error);
                   return true;
                 });
    link_ = std::move(joining->link);
  }

  void gather(std::span<const float> mine, std::span<float> all) override {
    const auto count = std::ssize(mine);
    for (int64_t begin = 0; begin < count; begin += kPiece) {
      const int64_t some = std::min(kPiece, count - begin);
      const at::Tensor from = on_host(mine).narrow(0, begin, some).to(device_);
      const at::Tensor to = at::empty({size() * some}, from.options());
      call([&] { link_->gather(from, to); });
      on_host(all).view({size(), count}).narrow(1, begin, some).copy_(to.view({size(), some}));
    }
  }
  std::vector<double> gather(std::span<const double> mine) override { return group_->gather(mine); }
  void exchange(std::span<float> out, const std::vector<int64_t>& out_counts, std::span<float> in,
                const std::vector<int64_t>& in_counts) override {
    const at::Tensor from = on_host(out).to(device_);
    const at::Tensor to = at::empty({std::ssize(in)}, from.options());
    call([&] { link_->exchange(from, out_counts, to, in_counts); });
    on_host(in).copy_(to);
  }
  void from_first(std::span<float> values) override {
    const at::Tensor host = on_host(values);
    for (int64_t begin = 0; begin < host.numel(); begin += kPiece) {
      at::Tensor part = host.narrow(0, begin, std::min(kPiece, host.numel() - begin));
      const at::Tensor there = part.to(device_);
      call([&] { link_->from_first(there); });
      if (!first()) part.copy_(there);
    }
  }
  std::string from_first(const std::string& text) override { return group_->from_first(text); }
  void fail(const Error& error) override { group_->fail(error); }
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
};

/// A number for this machine that doubles hold.
double machine_number() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return static_cast<double>(std::hash<std::string>{}(name.data()) >> 12);
}

}  // namespace

std::shared_ptr<RankGroup> join_ranks(const Context& context) {
  const RankPlace& place = context.ranks;
  if (place.alone()) return group_of_one();
  const std::shared_ptr<WatchedGroup> group = join_gloo(place);
  const bool wanted = !context.on_cpu() || !place.nccl.empty();
  const at::Device device = device_of(context);
  std::unique_ptr<Nccl> nccl;
  std::string missing;
  try {
    if (wanted) nccl = std::make_unique<Nccl>(place.nccl);
  } catch (const Error& error) {
    missing = error.what();
  }
  // Ranks that cannot all use it must find that out together: NCCL itself would wait for ever.
  const std::vector<double> mine{nccl == nullptr ? 0.0 : 1.0, machine_number(),
                                 static_cast<double>(device.index())};
  const std::vector<double> all = group->gather(mine);
  for (size_t rank = 0; rank < all.size(); rank += 3) {
    if (missing.empty() && all[rank] == 0) missing = cat("rank ", rank / 3, " has no NCCL");
    for (size_t other = 0; missing.empty() && device.is_cuda() && other < rank; other += 3)
      if (all[other + 1] == all[rank + 1] && all[other + 2] == all[rank + 2])
        missing = cat("ranks ", other / 3, " and ", rank / 3, " have one GPU");
  }
  if (missing.empty()) {
    return std::make_shared<NcclGroup>(group, *nccl, device);
  }
  if (!place.nccl.empty()) throw_unsupported(missing);  // It was asked for.
  if (wanted) group->set_remark(missing);
  return group;
}

}  // namespace slmc::libtorch

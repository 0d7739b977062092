#include "compress/torch/gloo_group.h"

#define USE_C10D_GLOO
#include <ATen/ATen.h>
#include <c10/util/Logging.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/torch/rank_watch.h"

namespace slmc::libtorch {
namespace {

using Store = c10::intrusive_ptr<c10d::Store>;

constexpr std::chrono::minutes kJoin{5};
// Of a call between ranks; that one of them is gone is the watch's to say, however long another
// works or measures.
constexpr std::chrono::hours kCall{24 * 365};

/// The first line, without LibTorch's trace of itself.
std::string reason(const std::exception& error) {
  const std::string what = error.what();
  return what.substr(0, what.find('\n'));
}

Store connect(const RankPlace& place, bool serve) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(place.port);
  options.isServer = serve;
  options.waitWorkers = false;
  options.timeout = kJoin;
  try {
    Store store = c10::make_intrusive<c10d::TCPStore>(place.address, options);
    return c10::make_intrusive<c10d::PrefixStore>("slmc/" + place.session, std::move(store));
  } catch (const std::exception& error) {
    throw_resources(cat("rank ", place.rank, " of ", place.size, ": the ranks cannot meet at ",
                        place.address, ":", place.port, ": ", reason(error),
                        "; MASTER_ADDR and MASTER_PORT must name a free port of rank 0's machine"));
  }
}

/// Until every rank has been there.
void wait_for_all(c10d::Store& store, const RankPlace& place) {
  store.set(cat("here/", place.rank), std::string("1"));
  const double start = now_seconds();
  for (int rank = 0; rank < place.size; ++rank)
    while (!store.check({cat("here/", rank)})) {
      stop_if_interrupted();
      if (now_seconds() - start > std::chrono::duration<double>(kJoin).count())
        throw_resources(cat("rank ", rank, " of ", place.size, " has not come to ", place.address,
                            ":", place.port, " within ", kJoin.count(), " minutes"));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

class GlooGroup : public WatchedGroup {
 public:
  explicit GlooGroup(const RankPlace& place) : WatchedGroup(place) {
    store_ = connect(place, place.first() && !place.served);
    wait_for_all(*store_, place);
    watch_ = std::make_unique<RankWatch>(connect(place, false), place);
    guarded([&] {
      const auto options = this_machine() ? c10d::ProcessGroupGloo::Options::create(kJoin)
                                          : c10d::ProcessGroupGloo::Options::create_default(kJoin);
      if (this_machine())
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
      backend_ =
          c10::make_intrusive<c10d::ProcessGroupGloo>(store_, place.rank, place.size, options);
      backend_->setTimeout(kCall);
    });
  }
  ~GlooGroup() override {
    if (!lost_) return;
    // Both may wait for ever in threads of theirs.
    (void)backend_.release();
    (void)watch_.release();
  }

  void gather(std::span<const float> mine, std::span<float> all) override {
    gather_tensors(tensor_of(mine), tensor_of(std::span<const float>(all)));
  }
  std::vector<double> gather(std::span<const double> mine) override {
    std::vector<double> all(mine.size() * static_cast<size_t>(size()));
    gather_tensors(tensor_of(mine), tensor_of(std::span<const double>(all)));
    return all;
  }
  void exchange(std::span<float> out, const std::vector<int64_t>& out_counts, std::span<float> in,
                const std::vector<int64_t>& in_counts) override {
    at::Tensor to = tensor_of(std::span<const float>(in)),
               from = tensor_of(std::span<const float>(out));
    std::vector<int64_t> to_counts = in_counts, from_counts = out_counts;
    finish([&] { return backend_->alltoall_base(to, from, to_counts, from_counts); });
  }
  void from_first(std::span<float> values) override {
    broadcast(tensor_of(std::span<const float>(values)));
  }
  std::string from_first(const std::string& text) override {
    double length = static_cast<double>(text.size());
    broadcast(tensor_of(std::span<const double>(&length, 1)));
    std::string result = text;
    result.resize(static_cast<size_t>(length));
    if (!result.empty()) broadcast(at::from_blob(result.data(), {std::ssize(result)}, at::kByte));
    return result;
  }
  void fail(const Error& error) override {
    if (!lost_) watch_->report(error);
  }
  bool lost() const override { return lost_; }
  void call(const std::function<void()>& start, const std::function<bool()>& done) override {
    guarded([&] {
      start();
      for (int tries = 0; !done(); ++tries) {
        if (tries % 100 == 99)
          if (const auto failure = watch_->failure()) lose(*failure);
        std::this_thread::sleep_for(std::chrono::microseconds(tries < 100 ? 50 : 1000));
      }
    });
  }

 private:
  bool this_machine() const {
    return place().local_size == size() || place().address == "127.0.0.1" ||
           place().address == "localhost";
  }
  void gather_tensors(at::Tensor mine, at::Tensor all) {
    finish([&] { return backend_->_allgather_base(all, mine); });
  }
  void broadcast(at::Tensor values) {
    std::vector<at::Tensor> list{std::move(values)};
    finish([&] { return backend_->broadcast(list); });
  }

  template <typename Call>
  void guarded(const Call& call) {
    try {
      call();
    } catch (const Error&) {
      throw;
    } catch (const std::exception& error) {  // It may say which socket, the watch which rank.
      if (const auto failure = watch_->find_failure()) lose(*failure);
      const Error own(ExitCode::kResources,
                      cat("the connection to another rank has broken: ", reason(error)));
      watch_->report(own);
      lose(own);
    }
  }
  [[noreturn]] void lose(const Error& error) {
    lost_ = true;
    throw error;
  }
  template <typename Call>
  void finish(const Call& start) {
    c10::intrusive_ptr<c10d::Work> work;
    call([&] { work = start(); }, [&] { return work->isCompleted(); });
    guarded([&] { work->wait(); });
  }

  Store store_;
  std::unique_ptr<RankWatch> watch_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  bool lost_ = false;
};

}  // namespace

at::Tensor tensor_of(std::span<const float> values) {
  if (values.empty()) return at::empty({0}, at::kFloat);
  return at::from_blob(const_cast<float*>(values.data()), {std::ssize(values)}, at::kFloat);
}
at::Tensor tensor_of(std::span<const double> values) {
  return at::from_blob(const_cast<double*>(values.data()), {std::ssize(values)}, at::kDouble);
}

std::string WatchedGroup::carrier() const {
  return remark_.empty() ? "Gloo" : cat("Gloo (", remark_, ")");
}

std::shared_ptr<WatchedGroup> join_gloo(const RankPlace& place) {
  std::signal(SIGPIPE, SIG_IGN);  // A rank that is gone is an error to be told, not this one's end.
  FLAGS_caffe2_log_level = 2;  // Errors only: of broken connections the watch says what they mean.
  return std::make_shared<GlooGroup>(place);
}

}  // namespace slmc::libtorch

#include "compress/torch/rank_watch.h"

#include <chrono>

#include "compress/core/json.h"
#include "compress/core/system.h"
#include "compress/core/text.h"

namespace slmc::libtorch {
namespace {

constexpr double kSilence = 60;         // Seconds after which a rank counts as gone.
constexpr double kSearchedSilence = 5;  // The same once a connection has broken.
constexpr double kSearch = 12;          // Seconds of that search.
constexpr double kFarewell = 5;  // Seconds that rank 0, whose store it is, waits for the others.
constexpr const char* kFailed = "failed";

}  // namespace

RankWatch::RankWatch(c10::intrusive_ptr<c10d::Store> store, const RankPlace& place)
    : store_(std::move(store)),
      place_(place),
      looked_(now_seconds()),
      seen_(static_cast<size_t>(place.size)) {
  for (Seen& each : seen_) each.at = now_seconds();
  thread_ = std::thread([this] { run(); });
}

RankWatch::~RankWatch() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::string RankWatch::name(const char* what, int rank) const { return cat(what, "/", rank); }

double RankWatch::silence() const { return searching_ ? kSearchedSilence : kSilence; }

void RankWatch::set_failure(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::move(error);
  }
  changed_.notify_all();
}

std::optional<Error> RankWatch::failure() const {
  const std::lock_guard lock(mutex_);
  // A machine that vanished leaves the thread in a call that does not return.
  if (!failure_ && now_seconds() - looked_ > kSilence) return store_is_gone();
  return failure_;
}

Error RankWatch::store_is_gone() const {
  return Error(ExitCode::kResources,
               cat(place_.served ? "torchrun's agent" : "rank 0", " at ", place_.address, ":",
                   place_.port, " is gone: it was ended, or cannot be reached"));
}

void RankWatch::run() {
  for (;;) {
    try {
      look();
      looked_ = now_seconds();
    } catch (const std::exception&) {
      set_failure(store_is_gone());
    }
    std::unique_lock lock(mutex_);
    if (failure_) return;
    if (changed_.wait_for(lock, std::chrono::seconds(1), [this] { return ending_; })) return;
  }
}

void RankWatch::look() {
  store_->set(name("count", place_.rank), std::to_string(++count_));
  if (store_->check({kFailed})) {
    const Json why = Json::parse(store_->get_to_str(kFailed));
    store_->set(name("heard", place_.rank), "1");
    set_failure(
        Error(static_cast<ExitCode>(why["code"].get<int>()), why["message"].get<std::string>()));
    return;
  }
  const double now = now_seconds();
  for (int rank = 0; rank < place_.size; ++rank) {
    Seen& seen = seen_[static_cast<size_t>(rank)];
    const std::string key = name("count", rank);
    if (rank == place_.rank || !store_->check({key})) continue;
    if (const std::string value = store_->get_to_str(key); value != seen.value) {
      seen = {.value = value, .at = now};
    } else if (now - seen.at > silence()) {
      set_failure(Error(ExitCode::kResources,
                        cat("rank ", rank, " of ", place_.size,
                            " is gone: it was killed, or its machine does not answer")));
      return;
    }
  }
}

std::optional<Error> RankWatch::find_failure() {
  searching_ = true;
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::duration<double>(kSearch),
                    [this] { return failure_.has_value(); });
  return failure_;
}

void RankWatch::report(const Error& error) {
  try {
    const Json why = {
        {"code", static_cast<int>(error.code())},
        {"message", cat("rank ", place_.rank, " of ", place_.size, " has ended: ", error.what())}};
    // The first reason stands.
    store_->compareSet(kFailed, "", why.dump(-1, ' ', false, Json::error_handler_t::replace));
    store_->set(name("heard", place_.rank), "1");
    if (place_.served || !place_.first()) return;
    const auto heard = [this] {
      for (int rank = 1; rank < place_.size; ++rank)
        if (!store_->check({name("heard", rank)})) return false;
      return true;
    };
    for (const double start = now_seconds(); !heard() && now_seconds() - start < kFarewell;)
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
  } catch (const std::exception&) {
    // They will find out by themselves.
  }
}

}  // namespace slmc::libtorch

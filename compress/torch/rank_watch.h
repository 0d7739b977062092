// Who of the ranks is still there: each counts up in a store of c10d once a second, and one that
// ends says there why. So a rank that waits for another, in whatever call, learns that it waits in
// vain.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "compress/core/ranks.h"

namespace slmc::libtorch {

class RankWatch {
 public:
  /// `store`: a connection of its own, since calls of one wait for each other.
  RankWatch(c10::intrusive_ptr<c10d::Store> store, const RankPlace& place);
  ~RankWatch();
  RankWatch(const RankWatch&) = delete;
  RankWatch& operator=(const RankWatch&) = delete;

  /// Why the job cannot go on, once it cannot. After one this may never end: leave it undestroyed.
  std::optional<Error> failure() const;
  /// The same after a call to another rank has failed: waits some seconds to learn which one.
  std::optional<Error> find_failure();
  /// Tells the others why this rank ends; where they could not read it later, until they have.
  void report(const Error& error);

 private:
  void run();
  void look();
  void set_failure(Error error);
  Error store_is_gone() const;
  double silence() const;
  std::string name(const char* what, int rank) const;

  const c10::intrusive_ptr<c10d::Store> store_;
  const RankPlace place_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Error> failure_;
  bool ending_ = false;
  std::atomic<bool> searching_ = false;
  std::atomic<double> looked_;  ///< When the store last answered.
  int64_t count_ = 0;
  struct Seen {
    std::string value;
    double at = 0;
  };
  std::vector<Seen> seen_;  ///< Of each rank: its last count, and when it changed.
  std::thread thread_;
};

}  // namespace slmc::libtorch

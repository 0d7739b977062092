// Processes that do one piece of work together, on one machine or several: where this one stands
// among them, and what they say to each other. Between torch-free code and LibTorch's process
// groups.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/core/error.h"

namespace slmc {

/// Where this process stands. Programs find it (compress/cli/ranks.h) and libraries are told.
struct RankPlace {
  int rank = 0;
  int size = 1;
  int local_size = 0;     ///< Ranks on this machine; 0: not known.
  int local_rank = 0;     ///< This one's number among them.
  std::string address{};  ///< Host and port where all meet.
  int port = 0;
  bool served = false;    ///< Somebody listens there (torchrun's agent); otherwise rank 0 will.
  std::string session{};  ///< Tells a job from those that met there before.
  std::string nccl{};     ///< NCCL's library, for ranks on GPUs; empty: LibTorch's.
  bool alone() const { return size == 1; }
  bool first() const { return rank == 0; }
};

/// What ranks exchange. Every call is made by all ranks, in one order and with the same sizes; it
/// throws Error when another rank failed, with that rank's code and reason where it is known.
class RankGroup {
 public:
  explicit RankGroup(RankPlace place) : place_(std::move(place)) {}
  virtual ~RankGroup() = default;
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;
  const RankPlace& place() const { return place_; }
  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  bool first() const { return place_.first(); }

  /// `mine` of every rank, [size * mine.size()], in the order of ranks.
  virtual void gather(std::span<const float> mine, std::span<float> all) = 0;
  virtual std::vector<double> gather(std::span<const double> mine) = 0;
  /// Piece r of `out` goes to rank r, piece r of `in` comes from it; the counts are elements.
  virtual void exchange(std::span<float> out, const std::vector<int64_t>& out_counts,
                        std::span<float> in, const std::vector<int64_t>& in_counts) = 0;
  /// Rank 0's values take the place of the others'.
  virtual void from_first(std::span<float> values) = 0;
  /// Rank 0's `text`, at every rank.
  virtual std::string from_first(const std::string& text) = 0;
  /// Tells the others that this rank ends, and why. Does nothing if it ends because another did.
  virtual void fail(const Error& error) = 0;
  /// Whether a call has thrown because of another rank.
  virtual bool lost() const = 0;
  /// What carries floats between ranks, for people to read.
  virtual std::string carrier() const = 0;

 private:
  RankPlace place_;
};

/// Sends nothing: the group of one process, or, for work of rank `place` that needs no other, of
/// one that only knows its place.
std::shared_ptr<RankGroup> group_of_one(RankPlace place = {});

/// [first, last) of `count` things that rank `rank` of `size` has: neighbours, as even as possible.
struct RankShare {
  int64_t first = 0, last = 0;
  int64_t count() const { return last - first; }
};
RankShare share_of_rank(int64_t count, int rank, int size);

}  // namespace slmc

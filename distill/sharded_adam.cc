#include "distill/sharded_adam.h"

#include <algorithm>
#include <cmath>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "distill/optimizer.h"
#include "distill/vector_math.h"

namespace slmc {
namespace {

/// Elements whose squares are summed by themselves; shards begin at multiples of it.
constexpr int64_t kPiece = 1 << 12;

SLMC_CLONES void add_to(float* sum, const float* other, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) sum[i] += other[i];
}

SLMC_CLONES double squares_of(const float* x, int64_t n) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

int64_t pieces_of(int64_t elements) { return (elements + kPiece - 1) / kPiece; }

}  // namespace

ShardedAdam::ShardedAdam(const AdamOptions& options, const ParameterLayout& layout, int64_t lanes,
                         RankGroup& group)
    : options_(options), total_(layout.total), decayed_(layout.decayed), group_(group) {
  SLMC_CHECK(lanes >= group.size(), "every rank has a lane");
  for (int rank = 0; rank < group.size(); ++rank) {
    lane_shares_.push_back(share_of_rank(lanes, rank, group.size()));
    const RankShare pieces = share_of_rank(pieces_of(total_), rank, group.size());
    shards_.push_back({.first = std::min(total_, pieces.first * kPiece),
                       .last = std::min(total_, pieces.last * kPiece)});
    roots_.emplace_back();
  }
  std::vector<bool> absorbed(static_cast<size_t>(lanes), false);
  for (int64_t apart = 1; apart < lanes; apart *= 2)
    for (int64_t to = 0; to + apart < lanes; to += 2 * apart) {
      const Pair pair{.to = to, .from = to + apart, .end = std::min(to + 2 * apart, lanes)};
      const auto within = [&](const RankShare& share) {
        return share.first <= pair.to && pair.end <= share.last;
      };
      if (std::none_of(lane_shares_.begin(), lane_shares_.end(), within)) {
        later_pairs_.push_back(pair);
        continue;
      }
      absorbed[static_cast<size_t>(pair.from)] = true;
      if (within(this->lanes())) own_pairs_.push_back(pair);
    }
  for (size_t rank = 0; rank < roots_.size(); ++rank)
    for (int64_t lane = lane_shares_[rank].first; lane < lane_shares_[rank].last; ++lane)
      if (!absorbed[static_cast<size_t>(lane)]) roots_[rank].push_back(lane);
  for (const RankShare& each : shards_) largest_ = std::max(largest_, each.count());
  const int64_t affordable = (int64_t{1} << 22) / kPiece / group.size() * kPiece;
  piece_ = std::max(kPiece, std::min(pieces_of(largest_) * kPiece, affordable));
  first_.resize(static_cast<size_t>(shard().count()));
  second_.resize(first_.size());
}

int64_t ShardedAdam::part(size_t rank, int64_t at) const {
  return std::clamp<int64_t>(shards_[rank].count() - at, 0, piece_);
}

double ShardedAdam::sum(const std::vector<float*>& mine) {
  const int64_t first_lane = lanes().first;
  std::vector<double> squares(static_cast<size_t>(pieces_of(shard().count())), 0.0);
  parallel_ranges(total_, kPiece, [&](int64_t begin, int64_t end) {
    for (const Pair& pair : own_pairs_)
      add_to(mine[static_cast<size_t>(pair.to - first_lane)] + begin,
             mine[static_cast<size_t>(pair.from - first_lane)] + begin, end - begin);
    if (group_.size() == 1)
      squares[static_cast<size_t>(begin / kPiece)] = squares_of(mine[0] + begin, end - begin);
  });
  if (group_.size() > 1) {
    sum_shard(mine, squares);
    squares = gather_squares(squares);
  }
  double sum = 0.0;
  for (const double value : squares) sum += value;
  return std::sqrt(sum);
}

/// Every rank sends what its lanes gave for the others' shards, a piece at a time, and adds up its
/// own.
void ShardedAdam::sum_shard(const std::vector<float*>& mine, std::vector<double>& squares) {
  const int64_t first_lane = lanes().first;
  const auto me = static_cast<size_t>(group_.rank());
  const auto roots_of = [&](size_t rank) { return static_cast<int64_t>(roots_[rank].size()); };
  std::vector<float*> nodes(static_cast<size_t>(lane_shares_.back().last), nullptr);
  for (int64_t at = 0; at < largest_; at += piece_) {
    std::vector<int64_t> out_counts, in_counts;
    out_.clear();
    int64_t arriving = 0;
    for (size_t rank = 0; rank < shards_.size(); ++rank) {
      const int64_t count = rank == me ? 0 : part(rank, at);
      for (const int64_t lane : roots_[me]) {
        const float* const from =
            mine[static_cast<size_t>(lane - first_lane)] + shards_[rank].first + at;
        out_.insert(out_.end(), from, from + count);
      }
      out_counts.push_back(count * roots_of(me));
      in_counts.push_back(rank == me ? 0 : part(me, at) * roots_of(rank));
      arriving += in_counts.back();
    }
    in_.resize(static_cast<size_t>(arriving));
    group_.exchange(out_, out_counts, in_, in_counts);
    float* arrived = in_.data();
    for (size_t rank = 0; rank < shards_.size(); ++rank)
      for (const int64_t lane : roots_[rank]) {
        float*& node = nodes[static_cast<size_t>(lane)];
        node = rank == me ? mine[static_cast<size_t>(lane - first_lane)] + shard().first + at
                          : arrived;
        if (rank != me) arrived += part(me, at);
      }
    float* const sums = mine[0] + shard().first + at;
    parallel_ranges(part(me, at), kPiece, [&](int64_t begin, int64_t end) {
      for (const Pair& pair : later_pairs_)
        add_to(nodes[static_cast<size_t>(pair.to)] + begin,
               nodes[static_cast<size_t>(pair.from)] + begin, end - begin);
      if (nodes[0] != sums) std::copy(nodes[0] + begin, nodes[0] + end, sums + begin);
      squares[static_cast<size_t>((at + begin) / kPiece)] = squares_of(sums + begin, end - begin);
    });
  }
}

/// In the order of pieces, which is that of ranks.
std::vector<double> ShardedAdam::gather_squares(const std::vector<double>& mine) {
  size_t most = 0;
  for (const RankShare& each : shards_)
    most = std::max(most, static_cast<size_t>(pieces_of(each.count())));
  std::vector<double> padded = mine;
  padded.resize(most, 0.0);
  const std::vector<double> all = group_.gather(padded);
  std::vector<double> squares;
  for (size_t rank = 0; rank < shards_.size(); ++rank) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(rank * most);
    squares.insert(squares.end(), begin, begin + pieces_of(shards_[rank].count()));
  }
  return squares;
}

void ShardedAdam::share(float* values) {
  if (group_.size() == 1) return;
  for (int64_t at = 0; at < largest_; at += piece_) {
    gather_part(values + shard().first, at);
    for (size_t rank = 0; rank < shards_.size(); ++rank)
      if (rank != static_cast<size_t>(group_.rank()))
        std::copy_n(gathered(rank), part(rank, at), values + shards_[rank].first + at);
  }
}

/// `mine`: the values of this rank's shard.
void ShardedAdam::gather_part(const float* mine, int64_t at) {
  out_.assign(static_cast<size_t>(piece_), 0.0f);
  in_.resize(static_cast<size_t>(piece_ * group_.size()));
  std::copy_n(mine + at, part(static_cast<size_t>(group_.rank()), at), out_.begin());
  group_.gather(std::span<const float>(out_), in_);
}

void ShardedAdam::step(int64_t number, double rate, double scale, float* weights,
                       const float* gradient, const uint8_t* mask) {
  const int64_t begin = shard().first, count = shard().count();
  adamw_step(options_, count, std::clamp<int64_t>(decayed_ - begin, 0, count), number, rate, scale,
             weights + begin, first_.data(), second_.data(), gradient + begin,
             mask == nullptr ? nullptr : mask + begin);
  share(weights);
}

void ShardedAdam::save(const GiveMoments& give) {
  if (group_.size() == 1) {
    give(0, 0, first_);
    give(1, 0, second_);
    return;
  }
  for (int moment = 0; moment < 2; ++moment)
    for (int64_t at = 0; at < largest_; at += piece_) {
      gather_part((moment == 0 ? first_ : second_).data(), at);
      for (size_t rank = 0; group_.first() && rank < shards_.size(); ++rank)
        give(moment, shards_[rank].first + at,
             {gathered(rank), static_cast<size_t>(part(rank, at))});
    }
}

void ShardedAdam::load(const TakeMoments& take) {
  for (int moment = 0; moment < 2; ++moment)
    for (int64_t begin = 0; begin < total_; begin += piece_) {
      const int64_t end = std::min(total_, begin + piece_);
      in_.resize(static_cast<size_t>(end - begin));
      if (group_.first()) take(moment, begin, in_);
      group_.from_first(std::span<float>(in_));
      const int64_t from = std::max(begin, shard().first), to = std::min(end, shard().last);
      if (from < to)
        std::copy_n(in_.begin() + (from - begin), to - from,
                    (moment == 0 ? first_ : second_).begin() + (from - shard().first));
    }
  in_ = {};
}

}  // namespace slmc

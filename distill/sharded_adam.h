// AdamW over one or several ranks: gradients are summed, each rank keeps a part of the moments and
// updates that part of the weights, and all get all weights (ZeRO stage 1: Rajbhandari et al. 2020,
// section 5.1). Lanes are summed in pairs, pairs of pairs and so on, by their numbers in the whole
// job: a rank's neighbouring lanes are sums by themselves before anything is sent, and the result
// is the same bits on any number of ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/core/ranks.h"
#include "distill/training.h"

namespace slmc {

class ShardedAdam {
 public:
  /// `lanes`: of all ranks, at least one a rank. `group` must outlive this.
  ShardedAdam(const AdamOptions& options, const ParameterLayout& layout, int64_t lanes,
              RankGroup& group);

  /// The numbers of this rank's lanes.
  RankShare lanes() const { return lane_shares_[static_cast<size_t>(group_.rank())]; }
  /// The elements whose moments are here.
  RankShare shard() const { return shards_[static_cast<size_t>(group_.rank())]; }

  /// Sums the gradients of all lanes of all ranks. `mine`: this rank's, [layout.total] each, which
  /// are overwritten; this rank's shard of the sum is then in mine[0]. Returns the sum's L2 norm.
  double sum(const std::vector<float*>& mine);
  /// Every rank's shard of `values` [layout.total] takes the place of the others' copies of it.
  void share(float* values);
  /// Step number `number` counts from 1. `gradient` [layout.total], of which the shard is read, is
  /// multiplied by `scale`. `mask`: as adamw_step takes it.
  void step(int64_t number, double rate, double scale, float* weights, const float* gradient,
            const uint8_t* mask);

  /// A part of all first (0) or second (1) moments, from element `begin` on.
  using GiveMoments = std::function<void(int moment, int64_t begin, std::span<const float>)>;
  using TakeMoments = std::function<void(int moment, int64_t begin, std::span<float>)>;
  /// Calls `give` until it has had all moments of all ranks; at rank 0 alone.
  void save(const GiveMoments& give);
  /// Fills the moments of all ranks from what `take` writes; it is called at rank 0 alone.
  void load(const TakeMoments& take);

 private:
  /// Lane `to` becomes the sum of lanes [to, end) by adding lane `from`, which is that of
  /// [from, end).
  struct Pair {
    int64_t to, from, end;
  };
  /// Of the shard of `rank`, elements of the piece that begins at `at` in all shards.
  int64_t part(size_t rank, int64_t at) const;
  void gather_part(const float* mine, int64_t at);
  const float* gathered(size_t rank) const {
    return in_.data() + static_cast<int64_t>(rank) * piece_;
  }
  void sum_shard(const std::vector<float*>& mine, std::vector<double>& squares);
  std::vector<double> gather_squares(const std::vector<double>& mine);

  AdamOptions options_;
  int64_t total_, decayed_;
  RankGroup& group_;
  std::vector<RankShare> lane_shares_, shards_;
  std::vector<Pair> own_pairs_, later_pairs_;  ///< Within this rank; between ranks.
  std::vector<std::vector<int64_t>> roots_;    ///< Of each rank: lanes that stay sums of their own.
  int64_t largest_ = 0;                        ///< Shard.
  int64_t piece_ = 0;                          ///< Of a shard: elements that are exchanged at once.
  std::vector<float> first_, second_;          ///< Of the shard.
  std::vector<float> out_, in_;
};

}  // namespace slmc

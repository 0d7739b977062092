// The order in which a long piece's pairs merge: lowest rank first, leftmost first within a rank.
// Places are kept in one list a rank, so that a run of one pair costs a few operations a place and
// only ranks, of which a text has few, go through a heap.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "formats/tokenizer/vocabulary.h"

namespace slmc::tokenization {

class MergeQueue {
 public:
  /// Makes room for ranks below `ranks` and forgets what is left of the last piece.
  void open(size_t ranks) {
    for (const int32_t rank : used_) list_of_[static_cast<size_t>(rank)] = kNoList;
    used_.clear();
    waiting_.clear();
    pushed_ = 0;
    if (list_of_.size() < ranks) list_of_.resize(ranks, kNoList);
  }

  /// The pair whose left half is at `place` merges as `entry` says.
  void push(const Merges::Entry& entry, uint32_t place) {
    uint32_t& index = list_of_[static_cast<size_t>(entry.rank)];
    if (index == kNoList) {
      index = static_cast<uint32_t>(used_.size());
      used_.push_back(entry.rank);
      if (lists_.size() < used_.size()) lists_.emplace_back();
      List& fresh = lists_[index];
      fresh.entry = entry;
      fresh.places.clear();
      fresh.taken = 0;
      fresh.sorted = fresh.in_heap = true;
      wait(entry.rank);
    }
    List& list = lists_[index];
    if (!list.in_heap) {
      list.in_heap = true;
      wait(entry.rank);
    }
    list.sorted = list.sorted && (list.taken == list.places.size() || place > list.places.back());
    list.places.push_back(place);
    ++pushed_;
  }

  /// The next merge, or false when none is left.
  bool pop(Merges::Entry& entry, uint32_t& place) {
    while (!waiting_.empty()) {
      List& list = lists_[list_of_[static_cast<size_t>(waiting_.front())]];
      if (list.taken == list.places.size()) {
        std::pop_heap(waiting_.begin(), waiting_.end(), std::greater<>());
        waiting_.pop_back();
        list.places.clear();
        list.taken = 0;
        list.in_heap = false;
        list.sorted = true;
        continue;
      }
      if (!list.sorted) {
        std::sort(list.places.begin() + static_cast<ptrdiff_t>(list.taken), list.places.end());
        list.sorted = true;
      }
      entry = list.entry;
      place = list.places[list.taken++];
      return true;
    }
    if (pushed_ > kMostKept) std::vector<List>().swap(lists_);
    return false;
  }

 private:
  static constexpr uint32_t kNoList = ~0u;
  static constexpr size_t kMostKept = 1u << 20;  // Places; the room of more is given back.
  struct List {
    Merges::Entry entry;
    std::vector<uint32_t> places;
    size_t taken = 0;      // Places before it have been given out.
    bool sorted = true;    // The rest is ascending.
    bool in_heap = false;  // The rank is in waiting_.
  };
  void wait(int32_t rank) {
    waiting_.push_back(rank);
    std::push_heap(waiting_.begin(), waiting_.end(), std::greater<>());
  }

  std::vector<uint32_t> list_of_;  // By rank: the index of its list.
  std::vector<int32_t> used_;      // Ranks that have a list.
  std::vector<List> lists_;
  size_t pushed_ = 0;
  std::vector<int32_t> waiting_;  // A heap of ranks, the lowest first.
};

}  // namespace slmc::tokenization

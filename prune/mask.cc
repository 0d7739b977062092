#include "prune/mask.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <charconv>
#include <cmath>
#include <mutex>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr int64_t kCountGrain = int64_t{1} << 18;

bool parse_count(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// Floats in the order of unsigned integers; -0 and +0 are the same.
uint32_t sort_key(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value == 0.0f ? 0.0f : value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

/// The bin in which the element of rank `rank` (from 0) falls; `rank` becomes its rank within the
/// bin.
uint32_t find_bin(const std::vector<int64_t>& histogram, int64_t& rank) {
  uint32_t bin = 0;
  while (rank >= histogram[bin]) rank -= histogram[bin++];
  return bin;
}

/// Counts, for each 16-bit value of `part(key)`, the keys that have one (`part` < 0: not counted).
/// Pieces are counted on all threads.
template <typename Part>
std::vector<int64_t> count_parts(std::span<const float> scores, const Part& part) {
  std::vector<int64_t> histogram(1 << 16, 0);
  std::mutex mutex;
  const auto n = static_cast<int64_t>(scores.size());
  parallel_ranges(n, std::max<int64_t>(kCountGrain, n / threads() + 1),
                  [&](int64_t begin, int64_t end) {
                    std::vector<int64_t> mine(1 << 16, 0);
                    for (int64_t i = begin; i < end; ++i) {
                      const int value = part(sort_key(scores[static_cast<size_t>(i)]));
                      if (value >= 0) ++mine[static_cast<size_t>(value)];
                    }
                    const std::lock_guard<std::mutex> lock(mutex);
                    for (size_t bin = 0; bin < histogram.size(); ++bin) histogram[bin] += mine[bin];
                  });
  return histogram;
}

/// The key of rank `rank` by two counting passes over the keys' halves: exact, and without a copy
/// of a large weight.
uint32_t key_of_rank_by_counting(std::span<const float> scores, int64_t rank) {
  const uint32_t high =
      find_bin(count_parts(scores, [](uint32_t key) { return static_cast<int>(key >> 16); }), rank);
  const auto low = count_parts(scores, [high](uint32_t key) {
    return key >> 16 == high ? static_cast<int>(key & 0xffffu) : -1;
  });
  return high << 16 | find_bin(low, rank);
}

uint32_t key_of_rank(std::span<const float> scores, int64_t rank) {
  if (scores.size() >= 1 << 17) return key_of_rank_by_counting(scores, rank);
  std::vector<uint32_t> keys(scores.size());
  std::transform(scores.begin(), scores.end(), keys.begin(), sort_key);
  std::nth_element(keys.begin(), keys.begin() + rank, keys.end());
  return keys[static_cast<size_t>(rank)];
}

void keep_highest_in_group(const float* scores, int64_t group, int64_t remove, uint8_t* kept) {
  std::fill(kept, kept + group, uint8_t{1});
  for (; remove > 0; --remove) {  // Groups are small: take the lowest, again and again.
    int64_t lowest = -1;
    for (int64_t i = 0; i < group; ++i) {
      if (kept[i] != 0 && (lowest < 0 || scores[i] < scores[lowest])) lowest = i;
    }
    kept[lowest] = 0;
  }
}

}  // namespace

Sparsity parse_sparsity(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon != std::string::npos) {
    Sparsity sparsity;
    const std::string_view view = text;
    if (parse_count(view.substr(0, colon), sparsity.keep) &&
        parse_count(view.substr(colon + 1), sparsity.group) && sparsity.keep > 0 &&
        sparsity.keep < sparsity.group && sparsity.group <= 256) {
      sparsity.fraction =
          1.0 - static_cast<double>(sparsity.keep) / static_cast<double>(sparsity.group);
      return sparsity;
    }
  } else {
    double fraction = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fraction);
    if (error == std::errc() && end == text.data() + text.size() && fraction > 0 && fraction < 1)
      return {.fraction = fraction};
  }
  throw_usage(cat("sparsity '", text,
                  "': expected a fraction between 0 and 1 such as 0.5, or N:M such as 2:4 (2 of "
                  "every 4 inputs stay)"));
}

int64_t removed_count(const Sparsity& sparsity, MaskScope scope, int64_t out, int64_t in) {
  if (sparsity.group > 0) return out * (in / sparsity.group) * (sparsity.group - sparsity.keep);
  // The small term keeps 0.3 * 10 at 3 although 0.3 is stored a little below.
  const auto share = [&](int64_t n) {
    return static_cast<int64_t>(
        std::floor(sparsity.fraction * static_cast<double>(n) * (1 + 1e-12)));
  };
  return scope == MaskScope::kRow ? out * share(in) : share(out * in);
}

void keep_highest(std::span<const float> scores, int64_t count, std::span<uint8_t> kept) {
  if (count <= 0) {
    std::fill(kept.begin(), kept.end(), uint8_t{1});
    return;
  }
  const uint32_t threshold = key_of_rank(scores, count - 1);
  constexpr uint8_t kUndecided = 2;
  std::atomic<int64_t> below{0};
  parallel_ranges(static_cast<int64_t>(scores.size()), kCountGrain,
                  [&](int64_t begin, int64_t end) {
                    int64_t mine = 0;
                    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
                      const uint32_t key = sort_key(scores[i]);
                      kept[i] = key > threshold ? 1 : key == threshold ? kUndecided : 0;
                      mine += key < threshold ? 1 : 0;
                    }
                    below += mine;
                  });
  int64_t equal_left = count - below;  // Of those at the threshold, the first so many go.
  for (auto at = std::find(kept.begin(), kept.end(), kUndecided); at != kept.end();
       at = std::find(at, kept.end(), kUndecided)) {
    *at = equal_left-- > 0 ? 0 : 1;
  }
}

void make_mask(const Sparsity& sparsity, MaskScope scope, int64_t out, int64_t in,
               std::span<const float> scores, std::span<uint8_t> kept) {
  const auto n = static_cast<size_t>(in);
  if (sparsity.group > 0) {
    parallel_ranges(out, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * in; i < end * in; i += sparsity.group) {
        keep_highest_in_group(scores.data() + i, sparsity.group, sparsity.group - sparsity.keep,
                              kept.data() + i);
      }
    });
  } else if (scope == MaskScope::kRow) {
    const int64_t count = removed_count(sparsity, scope, 1, in);
    parallel_ranges(out, 64, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        keep_highest(scores.subspan(static_cast<size_t>(row) * n, n), count,
                     kept.subspan(static_cast<size_t>(row) * n, n));
      }
    });
  } else {
    keep_highest(scores, removed_count(sparsity, scope, out, in), kept);
  }
}

}  // namespace slmc

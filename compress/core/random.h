// Seeded random numbers with the same values on every machine and library version (std::
// distributions have no fixed algorithm).
#pragma once

#include <cstdint>

namespace slmc {

/// SplitMix64 (Steele, Lea, Flood 2014): a counter hashed, so a stream is (seed, position) and can
/// be resumed at any point.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  /// Uniform in [0, bound), bound > 0. Bias below 2^-32 for bounds under 2^32.
  uint64_t below(uint64_t bound) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(next()) * bound) >> 64);
  }
  /// Near-normal, mean 0, variance 1: Irwin-Hall of order 12 (support [-6, 6]); no libm, so the
  /// same bits everywhere.
  double normal() {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  uint64_t state() const { return state_; }

 private:
  uint64_t state_;
};

}  // namespace slmc

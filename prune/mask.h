// Unstructured and N:M masks: which elements of a weight go to zero, given scores.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "prune/metric.h"

namespace slmc {

/// "0.5": a fraction of each layer's weights; "2:4": of every 4 consecutive inputs the 2 best stay.
struct Sparsity {
  double fraction = 0;  ///< Of elements removed; for N:M 1 - N/M.
  int64_t keep = 0;     ///< N, or 0.
  int64_t group = 0;    ///< M, or 0.
};

/// Throws Error(kUsage) unless `text` is a fraction in (0, 1) or N:M with 0 < N < M <= 256.
Sparsity parse_sparsity(const std::string& text);

/// Elements that a mask removes from a weight of [out, in]: floor(fraction * elements) in the
/// scope, exactly.
int64_t removed_count(const Sparsity& sparsity, MaskScope scope, int64_t out, int64_t in);

/// Sets kept[i] = 0 for the `count` lowest scores and 1 for the others; among equal scores the
/// lower index goes first.
void keep_highest(std::span<const float> scores, int64_t count, std::span<uint8_t> kept);

/// The mask of a weight [out, in]. For N:M, `in` divides by M.
void make_mask(const Sparsity& sparsity, MaskScope scope, int64_t out, int64_t in,
               std::span<const float> scores, std::span<uint8_t> kept);

}  // namespace slmc

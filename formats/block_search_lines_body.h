// The part of block_search_body.h, which includes this, for types with a minimum: a scale and a
// minimum are a line through the elements of a sub-block.

/// A line through n elements: x = scale * code - minimum, with its share of the squares.
struct Line {
  V scale, minimum, gain;
};

/// The least-squares line for given codes; `constrained`: minimum >= 0.
SLMC_SEARCH Line fit_line(const Sums& sums, V sum_w, V sum_x, bool constrained) {
  const V determinant = sum_w * sums.qq - sums.q * sums.q;
  const I regular = determinant > 0.0f;
  const V safe = regular ? determinant : all(1.0f);
  V scale = regular ? (sum_w * sums.xq - sums.q * sum_x) / safe : all(0.0f);
  V minimum = regular ? (sums.q * sums.xq - sums.qq * sum_x) / safe : ratio(-sum_x, sum_w);
  if (constrained) {
    const I above = minimum < 0.0f;
    scale = above ? ratio(sums.xq, sums.qq) : scale;
    minimum = above ? all(0.0f) : minimum;
  }
  return {scale, minimum, scale * sums.xq - minimum * sum_x};
}

/// The real scale and minimum of n elements.
template <bool kWeighted>
static Line search_line(const EvenSteps& steps, const V* x, const V* w, int64_t n, V sum_w, V sum_x,
                        bool constrained) {
  // Codes that the range covers beyond the highest, and where the least element lies, in codes.
  // The second half is for weighted errors.
  constexpr float kStretch[24] = {0.0f, 0.0f, 0.6f, 0.6f, 0.6f, -0.5f, 1.2f, -0.9f,
                                  1.2f, 1.8f, 1.8f, 2.6f, 2.6f, 2.6f,  3.6f, 3.6f,
                                  3.6f, 5.0f, 5.0f, 5.0f, 0.3f, 0.9f,  1.5f, 1.5f};
  constexpr float kShift[24] = {0.0f,  -0.4f, -0.3f, 0.0f,  -0.6f, 0.25f, -0.6f, 0.45f,
                                -0.2f, -0.9f, -0.4f, -1.3f, -0.4f, -2.2f, -0.4f, -1.8f,
                                -3.2f, -0.6f, -2.5f, -4.4f, -0.1f, -0.9f, 0.0f,  -1.5f};
  V least = constrained ? smaller(x[0], all(0.0f)) : x[0], greatest = x[0];
  for (int64_t i = 1; i < n; ++i) {
    least = smaller(x[i], least);
    greatest = larger(x[i], greatest);
  }
  const V range = greatest - least;
  const V unit = inverse(range > kNothing ? range : all(0.0f));
  // Until a candidate is better: nothing but a minimum.
  Line best{all(0.0f), constrained ? larger(ratio(-sum_x, sum_w), all(0.0f)) : ratio(-sum_x, sum_w),
            all(0.0f)};
  best.gain = -(best.minimum * sum_x);
  const auto take = [&](const Line& line) {
    const I better = line.gain > best.gain;
    best.scale = better ? line.scale : best.scale;
    best.minimum = better ? line.minimum : best.minimum;
    best.gain = better ? line.gain : best.gain;
  };
  for (int first = 0; first < (kWeighted ? 24 : 12); first += 4) {
    V inverses[4], offsets[4];
    Sums sums[4];
    for (int c = 0; c < 4; ++c) {
      inverses[c] = unit * (steps.high + kStretch[first + c]);
      offsets[c] = kShift[first + c] - least * inverses[c];
    }
    sum_codes<4, kWeighted, true>(steps, x, w, n, inverses, offsets, sums);
    for (int c = 0; c < 4; ++c) take(fit_line(sums[c], sum_w, sum_x, constrained));
  }
  const V again = inverse(best.scale), offset = best.minimum * again;
  Sums sums;
  sum_codes<1, kWeighted, true>(steps, x, w, n, &again, &offset, &sums);
  take(fit_line(sums, sum_w, sum_x, constrained));
  return best;
}

/// Tries the integers around a sub-block's scale and minimum; for the codes of each, the integers
/// that fit them best count too.
template <bool kWeighted>
static void try_integers(const EvenSteps& steps, const V* x, const V* w, int64_t n, V sum_w,
                         V sum_x, float top, Chosen& chosen, int64_t j) {
  constexpr float kScaleStep[4] = {0.0f, 1.0f, -1.0f, 0.0f};
  constexpr float kMinimumStep[4] = {0.0f, 0.0f, 0.0f, 1.0f};
  const V d_unit = inverse(chosen.d), dmin_unit = inverse(chosen.dmin);
  V scales[4], minimums[4], inverses[4], offsets[4];
  for (int c = 0; c < 4; ++c) {
    scales[c] = clamped(chosen.scales[j] + kScaleStep[c], 0.0f, top);
    minimums[c] = clamped(chosen.minimums[j] + kMinimumStep[c], 0.0f, top);
    inverses[c] = inverse(scales[c] * chosen.d);
    offsets[c] = minimums[c] * chosen.dmin * inverses[c];
  }
  Sums sums[4];
  sum_codes<4, kWeighted, true>(steps, x, w, n, inverses, offsets, sums);
  V best = all(__builtin_inff());
  for (int c = 0; c < 4; ++c) {
    const auto take = [&](V scale, V minimum) {
      const V s = scale * chosen.d, m = minimum * chosen.dmin;
      const V error = s * (s * sums[c].qq - 2.0f * sums[c].xq - 2.0f * (m * sums[c].q)) +
                      m * (m * sum_w + 2.0f * sum_x);
      const I better = error < best;
      best = better ? error : best;
      chosen.scales[j] = better ? scale : chosen.scales[j];
      chosen.minimums[j] = better ? minimum : chosen.minimums[j];
    };
    take(scales[c], minimums[c]);
    const V s = scales[c] * chosen.d;
    const V minimum = rounded(clamped(ratio(s * sums[c].q - sum_x, sum_w) * dmin_unit, 0.0f, top));
    take(scales[c], minimum);
    const V fitted = ratio(sums[c].xq + minimum * chosen.dmin * sums[c].q, sums[c].qq);
    take(rounded(clamped(fitted * d_unit, 0.0f, top)), minimum);
  }
}

/// Fits d and dmin to all sub-blocks' integers and codes.
template <bool kWeighted>
static void fit_factors(const BlockLayout& layout, const EvenSteps& steps, const Blocks& blocks,
                        const V* sum_w, const V* sum_x, Chosen& chosen) {
  V aa = all(0.0f), ab = aa, bb = aa, ax = aa, bx = aa;
  for (int64_t j = 0; j < layout.subs; ++j) {
    const V again = inverse(chosen.scales[j] * chosen.d);
    const V offset = chosen.minimums[j] * chosen.dmin * again;
    const V scale = chosen.scales[j], minimum = chosen.minimums[j];
    Sums sums;
    sum_codes<1, kWeighted, true>(steps, blocks.x + j * layout.sub, blocks.w + j * layout.sub,
                                  layout.sub, &again, &offset, &sums);
    aa += scale * scale * sums.qq;
    ab += scale * minimum * sums.q;
    bb += minimum * minimum * sum_w[j];
    ax += scale * sums.xq;
    bx += minimum * sum_x[j];
  }
  const auto error = [&](V d, V dmin) {
    return d * (d * aa - 2.0f * (dmin * ab) - 2.0f * ax) + dmin * (dmin * bb + 2.0f * bx);
  };
  const V determinant = aa * bb - ab * ab;
  const V d = as_f16(ratio(ax * bb - bx * ab, determinant));
  const V dmin = as_f16(ratio(ax * ab - bx * aa, determinant));
  const I better = (error(d, dmin) < error(chosen.d, chosen.dmin)) & (d > 0.0f) & (dmin >= 0.0f);
  chosen.d = better ? d : chosen.d;
  chosen.dmin = better ? dmin : chosen.dmin;
}

/// Scales and minimums, of super-blocks or of blocks with one of each.
template <bool kWeighted>
static void choose_lines(const BlockLayout& layout, const Blocks& blocks, Chosen& chosen) {
  const EvenSteps steps{static_cast<float>(layout.low), static_cast<float>(layout.high)};
  const int64_t subs = layout.subs, n = layout.sub;
  const auto top = static_cast<float>(layout.scale_high);
  V sum_w[kMaxSubs], sum_x[kMaxSubs], real[kMaxSubs] = {}, minimum[kMaxSubs] = {};
  for (int64_t j = 0; j < subs; ++j) {
    const V *x = blocks.x + j * n, *w = blocks.w + j * n;
    sum_w[j] = kWeighted ? w[0] : all(static_cast<float>(n));
    sum_x[j] = kWeighted ? w[0] * x[0] : x[0];
    for (int64_t i = 1; i < n; ++i) {
      if (kWeighted) sum_w[j] += w[i];
      sum_x[j] += kWeighted ? w[i] * x[i] : x[i];
    }
    const Line line = search_line<kWeighted>(steps, x, w, n, sum_w[j], sum_x[j], subs > 1);
    real[j] = line.scale;
    minimum[j] = line.minimum;
  }
  if (subs == 1) {
    chosen.d = as_f16(real[0]);
    chosen.dmin = as_f16(minimum[0]);
    chosen.scales[0] = chosen.minimums[0] = all(1.0f);
    return;
  }
  chosen.d = as_f16(extreme_of(real, subs) * (1.0f / top));
  chosen.dmin = as_f16(extreme_of(minimum, subs) * (1.0f / top));
  const V d_unit = inverse(chosen.d), dmin_unit = inverse(chosen.dmin);
  for (int64_t j = 0; j < subs; ++j) {
    chosen.scales[j] = rounded(clamped(real[j] * d_unit, 0.0f, top));
    chosen.minimums[j] = rounded(clamped(minimum[j] * dmin_unit, 0.0f, top));
  }
  for (int round = 0; round < 2; ++round) {
    for (int64_t j = 0; j < subs; ++j) {
      try_integers<kWeighted>(steps, blocks.x + j * n, blocks.w + j * n, n, sum_w[j], sum_x[j], top,
                              chosen, j);
    }
    fit_factors<kWeighted>(layout, steps, blocks, sum_w, sum_x, chosen);
  }
}

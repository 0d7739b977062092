// GPTQ (Frantar et al. 2022) into any block grid: columns are rounded one after another, and what
// rounding one loses is made good by those that follow, as far as the inputs are correlated
// (quantize/error_feedback.h). In natural order a block's scales and minima are chosen, and rounded
// as stored, from the weights as updated when its first column is reached; in order of activation
// they are all chosen from the weights as given, since a block's columns are then not rounded
// together. After that only codes move.
#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/core/text.h"
#include "compress/runtime/isa.h"
#include "formats/group_types.h"
#include "quantize/error_feedback.h"
#include "quantize/method.h"

namespace slmc {
namespace {

using kernels::kLanes;

struct Prepared {
  ErrorFeedback feedback;
  /// [n], by column, for scale search: what a rounding error costs given the columns after it,
  /// which is the pivot, not the diagonal.
  std::vector<float> weights;
  /// The Hessian's column_panels, for sweeps: its rows lie too far apart for a product by columns.
  std::vector<float> panels;
  float added = 0;  ///< To the diagonal, by damping.
  int64_t sweeps = 0;
};

std::shared_ptr<const void> prepare(const LinearStatistics& statistics, int64_t columns,
                                    const MethodOptions& options, Json& facts) {
  auto prepared = std::make_shared<Prepared>();
  prepared->feedback =
      ErrorFeedback::factor(statistics.hessian, columns,
                            {.damping = options.damping, .by_activation = options.act_order});
  prepared->weights.resize(static_cast<size_t>(columns));
  for (size_t k = 0; k < prepared->weights.size(); ++k)
    prepared->weights[static_cast<size_t>(prepared->feedback.order()[k])] =
        prepared->feedback.pivots()[k];
  double pivots = 0, trace = 0;
  for (const float pivot : prepared->weights) pivots += static_cast<double>(pivot);
  for (float& weight : prepared->weights)
    weight =
        static_cast<float>(static_cast<double>(weight) * static_cast<double>(columns) / pivots);
  for (int64_t i = 0; i < columns; ++i)
    trace += static_cast<double>(statistics.hessian[static_cast<size_t>(i * columns + i)]);
  prepared->added =
      static_cast<float>(prepared->feedback.damping() * trace / static_cast<double>(columns));
  prepared->sweeps = options.sweeps;
  if (options.sweeps > 0) prepared->panels = column_panels(statistics.hessian, columns);
  facts["damping"] = prepared->feedback.damping();
  facts["dead_columns"] = prepared->feedback.dead().size();
  facts["order"] = options.act_order ? "activation" : "natural";
  return prepared;
}

/// Rounds single values onto the levels of a grid.
class Rounder {
 public:
  explicit Rounder(const BlockGrid& grid) : grid_(grid) {
    for (int32_t c = 0; c < grid.codes; ++c) {
      even_ = even_ && grid.levels[c] == grid.levels[0] + static_cast<float>(c);
      if (std::fabs(grid.levels[c]) < std::fabs(grid.levels[zero_])) zero_ = c;
    }
    last_ = static_cast<float>(grid.codes - 1);
  }

  uint8_t code(float value, float inverse, float offset) const {
    if (inverse == 0.0f) return static_cast<uint8_t>(zero_);
    const float level = (value - offset) * inverse;
    if (even_) {
      const float index = std::nearbyint(level - grid_.levels[0]);
      return static_cast<uint8_t>(std::min(std::max(index, 0.0f), last_));
    }
    int32_t index = 0;
    while (index + 1 < grid_.codes &&
           level > 0.5f * (grid_.levels[index] + grid_.levels[index + 1]))
      ++index;
    return static_cast<uint8_t>(index);
  }
  float value(uint8_t code, float scale, float offset) const {
    return scale * grid_.levels[code] + offset;
  }

 private:
  const BlockGrid& grid_;
  bool even_ = true;
  int32_t zero_ = 0;
  float last_ = 0;
};

/// A batch of rows on its way through the columns. Everything is in the order of rounding but
/// `encoded` and `codes`.
class Batch {
 public:
  Batch(const EncodeRequest& request, std::byte* out)
      : request_(request),
        prepared_(*static_cast<const Prepared*>(request.prepared)),
        feedback_(prepared_.feedback),
        codec_(*request.grid),
        rounder_(*codec_.grid),
        out_(out),
        n_(request.columns),
        stride_((n_ + kLanes - 1) / kLanes * kLanes) {
    const auto size = static_cast<size_t>(request.rows * stride_);
    exact_.assign(size, 0.0f);
    wanted_.assign(request.weight, request.weight + request.rows * n_);
    if (request.shortfall != nullptr) {
      std::vector<float> more(request.shortfall, request.shortfall + request.rows * n_);
      feedback_.solve(more.data(), request.rows);
      for (size_t i = 0; i < more.size(); ++i) wanted_[i] += more[i];
    }
    for (int64_t r = 0; r < request.rows; ++r) {
      for (int64_t k = 0; k < n_; ++k)
        exact_[at(r, k)] = wanted_[static_cast<size_t>(r * n_ + column(k))];
    }
    target_ = exact_;
    error_.assign(size, 0.0f);
    scale_.resize(size);
    offset_.resize(size);
    codes_.resize(static_cast<size_t>(request.rows * n_));
  }

  void run() {
    // A step is what is planned together: one block, but never less than a panel.
    const bool early = !feedback_.natural() || row_scale();
    const int64_t step = early ? n_ : std::max(codec_.block, kLanes);
    if (early) plan(0, n_, wanted_.data(), n_);
    for (int64_t begin = 0; begin < n_; begin += step) {
      const int64_t end = std::min(n_, begin + step);
      if (!early) {
        carry(begin, end, 0, begin);
        foresee(begin, end);
      }
      const int64_t from = early ? 0 : begin;
      for (int64_t panel = begin; panel < end; panel += kLanes) {
        carry(panel, std::min(end, panel + kLanes), from, panel);
        for (int64_t r = 0; r < request_.rows; ++r) round(r, panel, std::min(end, panel + kLanes));
      }
    }
    for (int64_t sweep = 0; sweep < prepared_.sweeps; ++sweep) descend();
    pack();
  }

 private:
  /// One sweep of coordinate descent: each code in turn becomes the best given all the others.
  void descend() {
    const std::vector<float>& hessian = request_.statistics->hessian;
    std::vector<float> lost(static_cast<size_t>(request_.rows * n_)), pull(lost.size());
    for (int64_t r = 0; r < request_.rows; ++r) {
      for (int64_t c = 0; c < n_; ++c) {
        const auto i = static_cast<size_t>(r * n_ + c);
        lost[i] = wanted_[i] - rounder_.value(codes_[i], scale_[at(r, c)], offset_[at(r, c)]);
        pull[i] = lost[i] * prepared_.added;
      }
    }
    // Half the gradient: (W - Q)(H + damping). Blocks are of 32 columns at least, so panels are
    // whole.
    kernel_set().tile({prepared_.panels.data(), kLanes, n_ * kLanes, n_ / kLanes, n_, lost.data(),
                       n_, request_.rows, pull.data(), n_, true});
    for (int64_t r = 0; r < request_.rows; ++r) {
      float* gradient = pull.data() + r * n_;
      for (int64_t c = 0; c < n_; ++c) {
        const float* row = hessian.data() + c * n_;
        const auto i = static_cast<size_t>(r * n_ + c);
        const float scale = scale_[at(r, c)], offset = offset_[at(r, c)], inverse = 1.0f / scale;
        if (!std::isfinite(inverse)) continue;
        const float value = rounder_.value(codes_[i], scale, offset);
        const float best = value + gradient[c] / (row[c] + prepared_.added);
        const uint8_t code = rounder_.code(best, inverse, offset);
        if (code == codes_[i]) continue;
        const float step = rounder_.value(code, scale, offset) - value;
        codes_[i] = code;
        for (int64_t j = 0; j < n_; ++j) gradient[j] -= step * row[j];
        gradient[c] -= step * prepared_.added;
      }
    }
  }

  /// One scale for the whole row, which has to be chosen before its first column is rounded.
  bool row_scale() const {
    return is_group_type(codec_.dtype) && group_facts(codec_.dtype).group == 0;
  }
  size_t at(int64_t row, int64_t k) const { return static_cast<size_t>(row * stride_ + k); }
  int64_t column(int64_t k) const { return feedback_.order()[static_cast<size_t>(k)]; }
  std::byte* block(int64_t row, int64_t first) const {
    return out_ + static_cast<size_t>(row) * dtype_row_bytes(codec_.dtype, n_) +
           first / codec_.block * codec_.block_bytes;
  }

  /// target[:, begin..end) += error[:, from..to) U[from..to, begin..end).
  void carry(int64_t begin, int64_t end, int64_t from, int64_t to) {
    if (from >= to) return;
    kernel_set().tile({feedback_.panel(begin / kLanes) + from * kLanes, kLanes, n_ * kLanes,
                       (end - begin + kLanes - 1) / kLanes, to - from, error_.data() + from,
                       stride_, request_.rows, target_.data() + begin, stride_, true});
  }

  /// Plans the blocks of [begin, end) from the weights as GPTQ updates them: what the columns will
  /// be asked to be if those of the block before them are met exactly.
  void foresee(int64_t begin, int64_t end) {
    const int64_t width = end - begin;
    std::vector<float> carried(static_cast<size_t>(request_.rows * width));
    for (int64_t r = 0; r < request_.rows; ++r)
      std::copy_n(target_.data() + at(r, begin), width, carried.data() + r * width);
    for (int64_t panel = begin; panel < end; panel += kLanes) {
      const int64_t stop = std::min(end, panel + kLanes);
      carry(panel, stop, begin, panel);
      const float* upper = feedback_.panel(panel / kLanes);
      for (int64_t r = 0; r < request_.rows; ++r) {
        float* target = target_.data() + at(r, panel);
        for (int64_t k = panel; k < stop; ++k) {
          const int64_t lane = k - panel;
          const float moved = exact_[at(r, k)] - target[lane];
          error_[at(r, k)] = moved;
          const float* next = upper + k * kLanes;
          for (int64_t j = lane + 1; j < stop - panel; ++j) target[j] += moved * next[j];
        }
      }
    }
    plan(begin, end, target_.data(), stride_);
    for (int64_t r = 0; r < request_.rows; ++r)
      std::copy_n(carried.data() + r * width, width, target_.data() + at(r, begin));
  }

  /// Chooses the parameters of the blocks of columns [begin, end) from `values`, whose rows are
  /// `stride` apart.
  void plan(int64_t begin, int64_t end, const float* values, int64_t stride) {
    const int64_t size = codec_.block;
    std::vector<float> x(static_cast<size_t>(request_.rows * size)),
        scale(static_cast<size_t>(size)), offset(scale.size());
    const bool group = is_group_type(codec_.dtype), together = codec_.layout != nullptr && !group;
    std::vector<BlockParts> parts(static_cast<size_t>(request_.rows));
    if (group) {
      for (int64_t r = 0; r < request_.rows; ++r)
        plan_group_row(codec_.dtype, values + r * stride + begin, prepared_.weights.data() + begin,
                       end - begin, block(r, begin));
    }
    for (int64_t first = begin; first < end; first += size) {
      const float* weights = prepared_.weights.data() + first;
      for (int64_t r = 0; r < request_.rows; ++r)
        std::copy_n(values + r * stride + first, size, x.data() + r * size);
      if (together) {
        request_.kernels->search({.layout = codec_.layout,
                                  .x = x.data(),
                                  .weights = weights,
                                  .period = size,
                                  .phase = 0,
                                  .blocks = request_.rows,
                                  .parts = parts.data()});
      }
      for (int64_t r = 0; r < request_.rows; ++r) {
        if (together) {
          codec_.layout->pack(parts[static_cast<size_t>(r)], block(r, first));
        } else if (!group) {
          codec_.grid->plan(x.data() + r * size, weights, block(r, first));
        }
        codec_.grid->parameters(block(r, first), scale.data(), offset.data());
        std::copy_n(scale.data(), size, scale_.data() + at(r, first));
        std::copy_n(offset.data(), size, offset_.data() + at(r, first));
      }
    }
  }

  /// Columns [begin, end) of one panel, one after another.
  void round(int64_t row, int64_t begin, int64_t end) {
    const float* upper = feedback_.panel(begin / kLanes);
    float* target = target_.data() + at(row, begin);
    float* error = error_.data() + at(row, begin);
    for (int64_t k = begin; k < end; ++k) {
      const int64_t lane = k - begin;
      const size_t place = at(row, column(k));
      const float scale = scale_[place], offset = offset_[place], inverse = 1.0f / scale;
      const uint8_t code =
          rounder_.code(target[lane], std::isfinite(inverse) ? inverse : 0.0f, offset);
      codes_[static_cast<size_t>(row * n_ + column(k))] = code;
      error[lane] = exact_[at(row, k)] - rounder_.value(code, scale, offset);
      const float* next = upper + k * kLanes;
      for (int64_t j = lane + 1; j < end - begin; ++j) target[j] += error[lane] * next[j];
    }
  }

  void pack() {
    for (int64_t r = 0; r < request_.rows; ++r) {
      for (int64_t first = 0; first < n_; first += codec_.block)
        codec_.grid->pack(codes_.data() + r * n_ + first, block(r, first));
    }
  }

  const EncodeRequest& request_;
  const Prepared& prepared_;
  const ErrorFeedback& feedback_;
  const BlockCodec& codec_;
  Rounder rounder_;
  std::byte* out_;
  int64_t n_, stride_;
  std::vector<float> wanted_;                  // [rows][n], by column.
  std::vector<float> exact_, target_, error_;  // [rows][stride]
  std::vector<float> scale_, offset_;          // [rows][stride], by column.
  std::vector<uint8_t> codes_;                 // [rows][n], by column.
};

void encode(const EncodeRequest& request, std::byte* out, Distortion* error) {
  Batch(request, out).run();
  const size_t row_bytes = dtype_row_bytes(request.grid->dtype, request.columns);
  std::vector<float> scratch(static_cast<size_t>(request.columns));
  for (int64_t row = 0; row < request.rows; ++row)
    add_distortion(*request.kernels, *request.grid, request.weight + row * request.columns,
                   out + static_cast<size_t>(row) * row_bytes, request.columns, scratch.data(),
                   error);
}

}  // namespace

const Method& method_gptq();
const Method& method_gptq() {
  static const Method method = {
      .name = "gptq",
      .summary = "column by column, later columns making good what earlier ones lost",
      .needs = {Statistic::kHessian, Statistic::kInputSquares},
      .needs_grid = true,
      .heeds_shortfall = true,
      .prepare = &prepare,
      .encode = &encode};
  return method;
}

}  // namespace slmc

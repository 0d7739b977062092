#include "compress/runtime/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "compress/core/parallel.h"
#include "compress/runtime/elementwise.h"
#include "compress/runtime/isa.h"

namespace slmc {
namespace {

using kernels::kAttentionBlock;
using kernels::kLanes;

/// Tokens [first, first + count) for one key-value head. A row is one query: row = token * group +
/// head within the group.
struct HeadTask {
  const Architecture& arch;
  const SequenceCache& cache;
  const kernels::Set& set;
  int64_t layer, kv_head, first, count, start, group, width;
  float scale, cap;
  int64_t window;  ///< 0: none.
  int64_t total;   ///< Positions that an encoder's tokens see; 0: causal.

  int64_t position(int64_t token) const { return start + first + token; }
  /// One past the last position that a token sees, and the first.
  int64_t end(int64_t token) const { return total > 0 ? total : position(token) + 1; }
  int64_t begin(int64_t token) const {
    return window > 0 ? std::max<int64_t>(0, position(token) - window + 1) : 0;
  }
};

/// Scratch of one task: queries, scores of a block, outputs, running maximum and sum, and a decoded
/// f16 block.
struct Scratch {
  std::vector<float> query, scores, out, top, sum, keys, values;

  void prepare(const HeadTask& task) {
    const auto rows = static_cast<size_t>(task.count * task.group);
    query.resize(rows * static_cast<size_t>(task.arch.head_dim));
    scores.resize(rows * kAttentionBlock);
    out.assign(rows * static_cast<size_t>(task.width), 0.0f);
    top.assign(rows, -std::numeric_limits<float>::infinity());
    sum.assign(rows, 0.0f);
    keys.resize(static_cast<size_t>(kAttentionBlock * task.arch.head_dim));
    values.resize(static_cast<size_t>(kAttentionBlock * task.width));
  }
};

/// The keys of the block from position `begin` on, as panels of floats: in place, or decoded into
/// `buffer`.
const float* keys_of(const HeadTask& task, int64_t begin, std::vector<float>& buffer) {
  const int64_t head_dim = task.arch.head_dim, at = begin * head_dim;
  const std::byte* base = task.cache.keys(task.layer, task.kv_head);
  if (task.cache.type() == KvType::kF32) return reinterpret_cast<const float*>(base) + at;
  if (task.cache.type() == KvType::kF16) {
    task.set.f16_to_f32(reinterpret_cast<const uint16_t*>(base) + at, kAttentionBlock * head_dim,
                        buffer.data());
    return buffer.data();
  }
  const auto* codes = reinterpret_cast<const int8_t*>(base) + at;
  const float* scales = task.cache.scales(task.layer, task.kv_head) + begin;
  for (int64_t panel = 0; panel < kAttentionBlock; panel += kLanes) {
    for (int64_t d = 0; d < head_dim; ++d) {
      const int64_t row = panel * head_dim + d * kLanes;
      for (int64_t lane = 0; lane < kLanes; ++lane)
        buffer[static_cast<size_t>(row + lane)] =
            static_cast<float>(codes[row + lane]) * scales[panel + lane];
    }
  }
  return buffer.data();
}

/// The same of the values, [64][width].
const float* values_of(const HeadTask& task, int64_t begin, std::vector<float>& buffer) {
  const int64_t width = task.width, at = begin * width;
  const std::byte* base = task.cache.values(task.layer, task.kv_head);
  if (task.cache.type() == KvType::kF32) return reinterpret_cast<const float*>(base) + at;
  if (task.cache.type() == KvType::kF16) {
    task.set.f16_to_f32(reinterpret_cast<const uint16_t*>(base) + at, kAttentionBlock * width,
                        buffer.data());
    return buffer.data();
  }
  const auto* codes = reinterpret_cast<const int8_t*>(base) + at;
  const float* scales =
      task.cache.scales(task.layer, task.kv_head) + task.cache.scale_stride() + begin;
  for (int64_t position = 0; position < kAttentionBlock; ++position) {
    for (int64_t i = position * width; i < (position + 1) * width; ++i)
      buffer[static_cast<size_t>(i)] = static_cast<float>(codes[i]) * scales[position];
  }
  return buffer.data();
}

/// Adds the block's values, weighted by `scores`, to the outputs of tokens [first, last), of which
/// each sees the block up to its own end. Tokens go together as far as they see alike; what is left
/// of each chain follows on its own. Positions before a token's window weigh nothing.
void add_values(const HeadTask& task, const float* values, int64_t begin, int64_t first,
                int64_t last, const float* scores, float* out) {
  constexpr int64_t kTogether = 8;
  const int64_t panels = task.width / kLanes, width = task.width, group = task.group;
  const auto seen = [&](int64_t t) { return std::min(kAttentionBlock, task.end(t) - begin); };
  for (int64_t t = first; t < last;) {
    const int64_t valid = seen(t);
    const int64_t count = valid == seen(last - 1) ? last - t : std::min(kTogether, last - t);
    const float* weights = scores + t * group * kAttentionBlock;
    float* to = out + t * group * width;
    task.set.tile({values, width, kLanes, panels, valid, weights, kAttentionBlock, count * group,
                   to, width, true});
    for (int64_t i = 1; i < count; ++i) {
      const int64_t more = seen(t + i) - valid;
      if (more == 0) continue;
      task.set.tile({values + valid * width, width, kLanes, panels, more,
                     weights + i * group * kAttentionBlock + valid, kAttentionBlock, group,
                     to + i * group * width, width, true});
    }
    t += count;
  }
}

/// Turns one query's scores of a block into weights and rescales what it has accumulated.
void weigh(const HeadTask& task, int64_t begin, int64_t row, Scratch& scratch) {
  const int64_t token = row / task.group;
  const int64_t valid = std::min(kAttentionBlock, task.end(token) - begin);
  const int64_t hidden = std::max<int64_t>(0, task.begin(token) - begin);
  const auto at = static_cast<size_t>(row);
  float* scores = scratch.scores.data() + row * kAttentionBlock;
  float scale = task.scale;
  if (task.cap > 0) {
    soft_cap(scores, valid, scale, task.cap);
    scale = 1.0f;
  }
  std::fill_n(scores, hidden, -std::numeric_limits<float>::infinity());
  const float factor =
      task.set.softmax_block(scores, valid, scale, &scratch.top[at], &scratch.sum[at]);
  std::fill_n(scores, hidden, 0.0f);
  task.set.scale(scratch.out.data() + row * task.width, task.width, factor);
}

void run_block(const HeadTask& task, int64_t block, Scratch& scratch) {
  const int64_t head_dim = task.arch.head_dim, begin = block * kAttentionBlock;
  // Tokens before this block see nothing of it, nor do those whose window begins after it.
  int64_t first = 0, last = task.count;
  while (first < last && task.end(first) <= begin) ++first;
  while (last > first && task.begin(last - 1) >= begin + kAttentionBlock) --last;
  if (first == last) return;
  const float* keys = keys_of(task, begin, scratch.keys);
  const float* values = values_of(task, begin, scratch.values);
  const int64_t first_row = first * task.group, rows = (last - first) * task.group;
  task.set.tile({keys, kLanes, head_dim * kLanes, kAttentionBlock / kLanes, head_dim,
                 scratch.query.data() + first_row * head_dim, head_dim, rows,
                 scratch.scores.data() + first_row * kAttentionBlock, kAttentionBlock, false});
  for (int64_t row = first_row; row < first_row + rows; ++row) weigh(task, begin, row, scratch);
  add_values(task, values, begin, first, last, scratch.scores.data(), scratch.out.data());
}

void run_task(const HeadTask& task, const float* query, float* out) {
  static thread_local Scratch scratch;
  scratch.prepare(task);
  const int64_t head_dim = task.arch.head_dim, stride = task.arch.heads * head_dim;
  const int64_t column = task.kv_head * task.group * head_dim, span = task.group * head_dim;
  for (int64_t t = 0; t < task.count; ++t) {
    std::copy_n(query + (task.first + t) * stride + column, span, scratch.query.data() + t * span);
  }
  const int64_t last = task.end(task.count - 1) - 1;
  for (int64_t block = task.begin(0) / kAttentionBlock; block <= last / kAttentionBlock; ++block)
    run_block(task, block, scratch);
  for (int64_t row = 0; row < task.count * task.group; ++row) {
    const float inverse = 1.0f / scratch.sum[static_cast<size_t>(row)];
    const float* from = scratch.out.data() + row * task.width;
    float* to =
        out + (task.first + row / task.group) * stride + column + row % task.group * head_dim;
    for (int64_t i = 0; i < head_dim; ++i) to[i] = from[i] * inverse;
  }
}

}  // namespace

void attend(const Architecture& arch, const SequenceCache& cache, int64_t layer, const float* query,
            int64_t tokens, int64_t start, float* out) {
  const int64_t group = arch.heads / arch.kv_heads;
  const int64_t span = std::max<int64_t>(1, 64 / group);  // About 64 queries share a block of keys.
  const int64_t spans = (tokens + span - 1) / span;
  const auto scale = static_cast<float>(query_scale(arch));
  const auto body = [&](int64_t index) {
    // Later tokens see more keys: they go first, so that no thread ends with the longest piece.
    const int64_t first = (spans - 1 - index / arch.kv_heads) * span;
    run_task({arch, cache, kernel_set(), layer, index % arch.kv_heads, first,
              std::min(span, tokens - first), start, group, cache.value_width(), scale,
              static_cast<float>(arch.attention_cap), layer_window(arch, layer),
              arch.encoder ? start + tokens : 0},
             query, out);
  };
  const int64_t count = spans * arch.kv_heads;
  if (tokens * (start + tokens) * arch.heads * arch.head_dim <
      65536) {  // Too little to wake threads for.
    for (int64_t i = 0; i < count; ++i) body(i);
  } else {
    parallel_for(count, body);
  }
}

}  // namespace slmc

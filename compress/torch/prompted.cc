// The decoder with a tuned prompt: its virtual tokens stand before every sample of a batch, as they
// do before a text that is generated from.
#include <algorithm>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "compress/torch/decoder.h"
#include "compress/torch/precompiled.h"

namespace slmc::libtorch {

Decoder::Prompted Decoder::with_prompt(const Batch& batch) const {
  const int64_t length = prompt_.size(0), all = batch.windows * batch.context;
  std::vector<Span> spans = batch.spans;
  if (spans.empty())
    for (int64_t w = 0; w < batch.windows; ++w)
      spans.push_back({.window = w, .begin = 0, .length = batch.context});
  std::vector<int64_t> used(static_cast<size_t>(batch.windows), 0);
  for (const Span& span : spans) used[static_cast<size_t>(span.window)] += length + span.length;
  Prompted out;
  out.batch.windows = batch.windows;
  out.batch.context = *std::max_element(used.begin(), used.end());
  // Rows that are too many repeat the first one, apart from all others.
  const auto total = static_cast<size_t>(out.batch.windows * out.batch.context);
  std::vector<int64_t> rows(total, 0), position(total, 0), tokens(static_cast<size_t>(all));
  std::vector<int64_t> next(used.size(), 0);
  for (const Span& span : spans) {
    const auto window = static_cast<size_t>(span.window);
    const int64_t begin = next[window], base = span.window * out.batch.context + begin;
    out.batch.spans.push_back(
        {.window = span.window, .begin = begin, .length = length + span.length});
    next[window] += length + span.length;
    for (int64_t i = 0; i < length + span.length; ++i) {
      const auto at = static_cast<size_t>(base + i);
      const int64_t token = span.window * batch.context + span.begin + i - length;
      rows[at] = i < length ? all + i : token;
      position[at] = i;
      if (i >= length) tokens[static_cast<size_t>(token)] = base + i;
    }
    // The window is full, or its last span leaves room.
    const int64_t left = out.batch.context - next[window];
    if (next[window] == used[window] && left > 0)
      out.batch.spans.push_back({.window = span.window, .begin = next[window], .length = left});
  }
  if (std::ssize(out.batch.spans) == batch.windows) out.batch.spans.clear();  // One a window.
  out.rows = at::tensor(rows, at::kLong).to(device_);
  out.position = at::tensor(position, at::kLong).to(device_);
  out.tokens = at::tensor(tokens, at::kLong).to(device_);
  return out;
}

at::Tensor Decoder::forward_prompted(const at::Tensor& embedded, const Batch& batch,
                                     std::map<int64_t, at::Tensor>* blocks) {
  prompted_ = with_prompt(batch);
  prepare_shapes(prompted_.batch);
  at::Tensor x = arch().embedding_scale == 1.0 ? embedded : embedded * arch().embedding_scale;
  x = at::cat({x, prompt_}).index_select(0, prompted_.rows);
  if (entry_.positions.defined()) {
    const auto last = prompted_.position.max().item<int64_t>();
    if (last >= entry_.positions.size(0))
      throw_usage(cat("context: expected at most ", entry_.positions.size(0) - prompt_.size(0),
                      " tokens behind the prompt, found ", last + 1 - prompt_.size(0)));
    x = x + entry_.positions.index_select(0, prompted_.position);
  }
  x = run_blocks(x, 0, blocks_.size(), blocks);
  if (blocks != nullptr)
    for (auto& [layer, states] : *blocks) states = states.index_select(0, prompted_.tokens);
  return arithmetic_.norm(x.index_select(0, prompted_.tokens), output_norm_);
}

}  // namespace slmc::libtorch

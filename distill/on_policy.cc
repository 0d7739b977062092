#include "distill/on_policy.h"

#include <algorithm>
#include <numeric>

#include "compress/core/error.h"
#include "compress/core/fields.h"
#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/core/system.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/sampler.h"
#include "distill/product.h"
#include "distill/training.h"

namespace slmc {
namespace {

/// A stream of its own for each purpose and number.
uint64_t derived(uint64_t seed, uint64_t purpose, int64_t number) {
  return Random(seed ^ purpose ^ static_cast<uint64_t>(number) * 0xd1342543de82ef95ull).next();
}

constexpr uint64_t kChoice = 0x0b9a57e9c01dull, kSampling = 0x5a3b1e5ull;

}  // namespace

void visit_on_policy(Fields& f, OnPolicyOptions& o) {
  f.visit({.name = "on_policy",
           .help = "Probability that a step learns from what the student itself says after "
                   "prompts of the data, judged by the teacher (GKD's lambda); 0: never.",
           .min = 0,
           .max = 1,
           .value_name = "LAMBDA"},
          o.share);
  f.visit({.name = "sample_temperature",
           .help = "With --on-policy: temperature of the student's samples; 0 takes the likeliest "
                   "token.",
           .min = 0,
           .max = 100},
          o.temperature);
  f.visit({.name = "sample_tokens",
           .help = "With --on-policy: tokens of a sample at most, after its prompt; 0: half a "
                   "window.",
           .min = 0,
           .value_name = "N"},
          o.tokens);
  f.visit({.name = "sample_every",
           .help = "With --on-policy: the student's samples for N steps are made at once, by its "
                   "weights at the first of them; 1: always by the present ones.",
           .min = 1,
           .value_name = "N"},
          o.every);
}

Json result_options(const OnPolicyOptions& o) {
  return {
      {"share", o.share}, {"temperature", o.temperature}, {"tokens", o.tokens}, {"every", o.every}};
}

Prompt prompt_of(const PackedData& data, int64_t window, int64_t tokens) {
  const int64_t base = window * data.context;
  const int64_t real = std::min(data.context, data.tokens - base);  // Without padding.
  const uint8_t* const learned = data.learned.data() + base;
  const int64_t last = std::max<int64_t>(1, real - tokens);
  Prompt prompt;
  for (int64_t t = 2; t < real; ++t)
    if (learned[t] != 0 && learned[t - 1] == 0 && learned[t - 2] == 0 &&
        (prompt.end == 0 || t <= last))
      prompt.end = t;
  if (prompt.end == 0) prompt.end = last;
  if (data.document.empty()) return prompt;
  const int32_t* const document = data.document.data() + base;
  prompt.begin = prompt.end - 1;
  while (prompt.begin > 0 && document[prompt.begin - 1] == document[prompt.end - 1]) --prompt.begin;
  return prompt;
}

PackedData sample_windows(const WeightSource& student, const PackedData& data,
                          const std::vector<int64_t>& windows, const OnPolicy& how, uint64_t seed,
                          const RankPlace& place) {
  const int64_t context = data.context;
  PackedData out;
  out.context = context;
  out.windows = std::ssize(windows);
  out.documents = out.windows;
  out.ids.resize(static_cast<size_t>(out.windows * context + 1), 0);
  out.learned.resize(out.ids.size(), 0);
  const int64_t most = how.tokens > 0 ? how.tokens : std::max<int64_t>(1, context / 2);
  const SamplingOptions sampling{.temperature = how.temperature, .vocab = how.vocab};
  const auto decoder = Decoder::create(student, Activations::kF32);
  const RankShare mine = share_of_rank(out.windows, place.rank, place.size);
  parallel_for(mine.count(), [&](int64_t at) {
    const int64_t i = mine.first + at;
    const int64_t window = windows[static_cast<size_t>(i)];
    const Prompt prompt = prompt_of(data, window, most);
    const int64_t length = prompt.end - prompt.begin;
    int32_t* const ids = out.ids.data() + i * context;
    std::copy_n(data.inputs(window) + prompt.begin, length, ids);
    const GenerationResult said =
        generate(*decoder, {ids, static_cast<size_t>(length)}, std::min(most, context - length),
                 how.stops, sampling, derived(seed, kSampling, i), [](int32_t) { return true; });
    int32_t* end = std::copy(said.ids.begin(), said.ids.end(), ids + length);
    if (said.stopped) *end++ = said.stop;
    std::fill(out.learned.data() + i * context + length,
              out.learned.data() + (end - out.ids.data()), uint8_t{1});
  });
  out.tokens = std::accumulate(out.learned.begin(), out.learned.end(), int64_t{0});
  return out;
}

bool OwnSamples::wanted(int64_t step) const {
  return job_.on_policy.share > 0 &&
         Random(derived(job_.seed, kChoice, step)).uniform() < job_.on_policy.share;
}

std::vector<int64_t> OwnSamples::prepare(int64_t step, WindowOrder& order,
                                         const WeightSource& trained) {
  const int64_t every = job_.on_policy.every, refresh = step / every,
                per_step = job_.windows_per_step;
  const auto wanted_in = [&](int64_t begin, int64_t end) {
    std::vector<int64_t> steps;
    for (int64_t s = begin; s < end; ++s)
      if (wanted(s)) steps.push_back(s);
    return steps;
  };
  if (refresh != refresh_) {
    const double started = now_seconds();
    std::vector<int64_t> windows;
    for (const int64_t s : wanted_in(refresh * every, std::min((refresh + 1) * every, job_.steps)))
      for (int64_t i = 0; i < per_step; ++i) windows.push_back(order.at(s * per_step + i));
    samples_ =
        sample_windows(*overlaid(borrowed(trained), job_.student), job_.data, windows,
                       job_.on_policy, derived(job_.seed, kSampling, refresh), group_.place());
    exchange();
    refresh_ = refresh;
    seconds_ += now_seconds() - started;
    tokens_ += samples_.tokens;
  }
  std::vector<int64_t> windows(static_cast<size_t>(per_step));
  std::iota(windows.begin(), windows.end(),
            std::ssize(wanted_in(refresh * every, step)) * per_step);
  return windows;
}

/// The samples of all ranks at each of them: as many bytes as a few rows of logits, so that any
/// rank's lanes, the counts of a step and the checkpoint find what they need.
void OwnSamples::exchange() {
  const auto context = static_cast<size_t>(samples_.context);
  const auto most = static_cast<size_t>((samples_.windows + group_.size() - 1) / group_.size());
  const auto share = [&](int rank) {
    const RankShare windows = share_of_rank(samples_.windows, rank, group_.size());
    return std::pair(static_cast<size_t>(windows.first) * context,
                     static_cast<size_t>(windows.last) * context);
  };
  // An id and whether it is learned, as one number that a double holds exactly.
  std::vector<double> mine(most * context);
  const auto [begin, end] = share(group_.rank());
  for (size_t i = begin; i < end; ++i)
    mine[i - begin] = 2.0 * samples_.ids[i] + samples_.learned[i];
  const std::vector<double> all = group_.gather(mine);
  for (int rank = 0; rank < group_.size(); ++rank) {
    const auto [first, last] = share(rank);
    const double* value = all.data() + static_cast<size_t>(rank) * mine.size();
    for (size_t i = first; i < last; ++i, ++value) {
      const auto whole = static_cast<int64_t>(*value);
      samples_.ids[i] = static_cast<int32_t>(whole / 2);
      samples_.learned[i] = static_cast<uint8_t>(whole % 2);
    }
  }
  samples_.tokens = std::accumulate(samples_.learned.begin(), samples_.learned.end(), int64_t{0});
}

Json OwnSamples::state(int64_t step) const {
  if (refresh_ < 0 || step / job_.on_policy.every != refresh_) return {};
  return {{"refresh", refresh_},
          {"windows", samples_.windows},
          {"ids", samples_.ids},
          {"learned", samples_.learned}};
}

void OwnSamples::restore(const Json& state) {
  if (state.is_null()) return;
  refresh_ = state["refresh"].get<int64_t>();
  samples_ = {};
  samples_.context = job_.data.context;
  samples_.windows = state["windows"].get<int64_t>();
  samples_.ids = state["ids"].get<std::vector<int32_t>>();
  samples_.learned = state["learned"].get<std::vector<uint8_t>>();
  const auto size = static_cast<size_t>(samples_.windows * samples_.context + 1);
  if (samples_.ids.size() != size || samples_.learned.size() != size)
    throw_bad_input(
        "the checkpoint's samples are not those of this run; start again without --resume");
}

}  // namespace slmc

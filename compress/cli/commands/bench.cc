// `slmc bench MODEL`: tokens a second, beside what the memory allows.
#include <algorithm>
#include <ostream>

#include "compress/cli/model_options.h"
#include "compress/core/command.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/energy.h"
#include "compress/runtime/throughput.h"

namespace slmc {
namespace {

/// Median and the range of the middle half.
struct Spread {
  double low, median, high;
  explicit Spread(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    low = values[n / 4];
    median = n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
    high = values[n - 1 - n / 4];
  }
  Json json() const { return {low, high}; }
};

struct Measures {
  std::vector<double> prefill, decode, ceiling, first, joules;
};

class BenchCommand : public Command {
 public:
  std::string_view name() const override { return "bench"; }
  std::string_view summary() const override {
    return "Measure speed and memory, beside the machine's own read speed";
  }
  bool runtime_only() const override { return true; }

  void visit(Fields& fields) override {
    visit_model(fields, model_);
    fields.visit({.name = "prompt_tokens",
                  .help = "Tokens of the prompt.",
                  .min = 1,
                  .max = 1e7,
                  .short_flag = "p",
                  .value_name = "N"},
                 prompt_);
    fields.visit({.name = "count",
                  .help = "Tokens to generate.",
                  .min = 1,
                  .max = 1e7,
                  .short_flag = "n",
                  .value_name = "N"},
                 count_);
    fields.visit({.name = "repetitions",
                  .help = "Runs that are measured, after one that is not.",
                  .min = 5,
                  .max = 1e5,
                  .value_name = "N"},
                 repetitions_);
    visit_activations(fields, activations_);
    visit_kv_type(kv_type_, fields);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    const auto model = Model::open(model_);
    if (prompt_ + count_ > model->arch().context) {
      throw_usage(cat("--prompt-tokens and --count: expected at most ", model->arch().context,
                      " together, the model's context, found ", prompt_ + count_));
    }
    const auto decoder =
        Decoder::create(*model, activations_from_name(activations_), kv_type_from_name(kv_type_));
    Measures measures;
    measure(*decoder, nullptr, measures);    // Warm-up: pages, clocks, caches.
    const uint64_t peak = peak_rss_bytes();  // Before the memory of the read ceiling joins in.
    // Caches are far below 256 MiB: more memory is not read any slower.
    const ReadCeiling ceiling(std::min<uint64_t>(decoder->bytes_per_token(), uint64_t{256} << 20));
    measures = {};
    Progress& progress = progress_of(context);
    progress.begin("bench", static_cast<uint64_t>(repetitions_), "runs");
    for (int64_t i = 0; i < repetitions_; ++i) {
      context.check_interrupt();
      measure(*decoder, &ceiling, measures);
      progress.update(static_cast<uint64_t>(i + 1));
    }
    progress.end();
    return report(*model, *decoder, measures, peak, out);
  }

 private:
  /// One run: the ceiling between prompt and generation, so that all three see the same clocks and
  /// neighbours.
  void measure(const Decoder& decoder, const ReadCeiling* ceiling, Measures& measures) const {
    const auto vocab = static_cast<uint64_t>(decoder.arch().vocab);
    std::vector<int32_t> prompt(static_cast<size_t>(prompt_));
    for (size_t i = 0; i < prompt.size(); ++i)
      prompt[i] = static_cast<int32_t>(i * 2654435761u % vocab);
    std::vector<float> logits(vocab);
    const auto cache = decoder.new_cache(prompt_ + count_);
    double start = now_seconds();
    decoder.forward(*cache, prompt, logits.data(), true);
    measures.first.push_back(now_seconds() - start);
    measures.prefill.push_back(static_cast<double>(prompt_) / measures.first.back());
    if (ceiling) measures.ceiling.push_back(ceiling->measure());
    EnergyMeter energy;
    start = now_seconds();
    for (int64_t i = 0; i < count_; ++i) {
      const auto id =
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      decoder.forward(*cache, {&id, 1}, logits.data(), true);
    }
    measures.decode.push_back(static_cast<double>(count_) / (now_seconds() - start));
    if (energy.available()) measures.joules.push_back(energy.take() / static_cast<double>(count_));
  }

  Json report(const Model& model, const Decoder& decoder, const Measures& measures, uint64_t peak,
              std::ostream& out) const {
    const Spread prefill(measures.prefill), decode(measures.decode), ceiling(measures.ceiling);
    std::vector<double> ratios;
    for (size_t i = 0; i < measures.decode.size(); ++i) {
      ratios.push_back(measures.decode[i] * static_cast<double>(decoder.bytes_per_token()) /
                       measures.ceiling[i]);
    }
    const double ratio = Spread(ratios).median;
    const Json joules =
        measures.joules.empty() ? Json("unavailable") : Json(Spread(measures.joules).median);
    out << "prefill of " << prompt_ << ":   " << fixed(prefill.median, 1) << " tokens/s ("
        << fixed(prefill.low, 1) << " to " << fixed(prefill.high, 1) << ")\n"
        << "decode of " << count_ << ":    " << fixed(decode.median, 1) << " tokens/s ("
        << fixed(decode.low, 1) << " to " << fixed(decode.high, 1) << "), " << fixed(100 * ratio, 0)
        << "% of what reading the weights allows\n"
        << "read ceiling:     " << human_bytes(static_cast<uint64_t>(ceiling.median)) << "/s\n"
        << "peak memory:      " << human_bytes(peak) << "\n"
        << "energy a token:   "
        << (joules.is_string()
                ? "unavailable"
                : fixed(joules.get<double>(), 3) + " J (processor package, idle included)")
        << "\nactivations " << activations_ << ", " << isa_in_use() << ", " << threads()
        << " threads; median of " << repetitions_ << " runs, middle half in brackets\n";
    return {{"model", model.path()},
            {"prompt_tokens", prompt_},
            {"count", count_},
            {"repetitions", repetitions_},
            {"activations", activations_},
            {"kv_type", kv_type_name(kv_type_from_name(kv_type_),
                                     activations_from_name(activations_), model.arch())},
            {"kv_cache_bytes", decoder.new_cache(prompt_ + count_)->bytes()},
            {"prefill_tokens_per_second", prefill.median},
            {"prefill_range", prefill.json()},
            {"decode_tokens_per_second", decode.median},
            {"decode_range", decode.json()},
            {"first_token_seconds", Spread(measures.first).median},
            {"read_ceiling_bytes_per_second", ceiling.median},
            {"bytes_per_token", decoder.bytes_per_token()},
            {"decode_ceiling_ratio", ratio},
            {"peak_rss_bytes", peak},
            {"energy_joules_per_token", joules},
            {"isa", isa_in_use()},
            {"threads", threads()},
            {"cpu", cpu_model()}};
  }

  std::string model_, activations_ = "q8", kv_type_;
  int64_t prompt_ = 512, count_ = 128, repetitions_ = 5;
};

}  // namespace

std::unique_ptr<Command> command_bench();
std::unique_ptr<Command> command_bench() { return std::make_unique<BenchCommand>(); }

}  // namespace slmc

// `slmc logits MODEL --ids 1,2,3 -o OUT.npy`: what the model says after each token, for comparison
// with other programs.
#include <algorithm>
#include <charconv>
#include <ostream>

#include "compress/cli/model_options.h"
#include "compress/core/atomic_file.h"
#include "compress/core/command.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/encoder.h"
#include "compress/runtime/npy.h"
#include "formats/adapter.h"

namespace slmc {
namespace {

std::vector<int32_t> parse_ids(const char* option, const std::string& text) {
  std::vector<int32_t> ids;
  for (const char *at = text.data(), *end = at + text.size(); at < end;) {
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || (next != end && *next != ',') || next + 1 == end) {
      throw_usage(cat(option, ": expected numbers separated by commas, found '",
                      std::string(at, std::min<ptrdiff_t>(end - at, 20)), "' at character ",
                      at - text.data() + 1));
    }
    ids.push_back(id);
    at = next + 1;
  }
  return ids;
}

/// In pieces, so that an interrupt is heeded; the piece size does not change the result.
std::vector<float> decode(const WeightSource& model, Activations mode,
                          const std::vector<int32_t>& ids, Context& context) {
  constexpr size_t kPiece = 512;
  const auto vocab = static_cast<size_t>(model.arch().vocab);
  std::vector<float> logits(ids.size() * vocab);
  const auto decoder = Decoder::create(model, mode);
  const auto cache = decoder->new_cache(static_cast<int64_t>(ids.size()));
  for (size_t first = 0; first < ids.size(); first += kPiece) {
    context.check_interrupt();
    const size_t count = std::min(kPiece, ids.size() - first);
    decoder->forward(*cache, std::span(ids).subspan(first, count), logits.data() + first * vocab,
                     false);
  }
  return logits;
}

class LogitsCommand : public Command {
 public:
  std::string_view name() const override { return "logits"; }
  std::string_view summary() const override {
    return "Write the model's logits for given token ids as a NumPy array";
  }
  bool runtime_only() const override { return true; }
  bool uses_device() override { return backend_ == "torch"; }

  void visit(Fields& fields) override {
    visit_model(fields, model_);
    fields.visit({.name = "ids",
                  .help = "Token ids, separated by commas.",
                  .required = true,
                  .value_name = "IDS"},
                 ids_);
    fields.visit({.name = "types",
                  .help = "Segments of an encoder's ids (token types), as many, separated by "
                          "commas; none: all 0.",
                  .value_name = "TYPES"},
                 types_);
    fields.visit(
        {.name = "output",
         .help = "File to write: float32 [tokens, vocab]; of an encoder [classes] or [width].",
         .required = true,
         .short_flag = "o",
         .value_name = "OUT.npy"},
        output_);
    visit_adapter(fields, adapter_);
    fields.visit({.name = "activations",
                  .help = "f32 judges weights; q8 is what generation uses.",
                  .choices = {"f32", "q8"}},
                 activations_);
    fields.visit({.name = "backend",
                  .help = "The reference runtime, or LibTorch's decoder in float32.",
                  .choices = {"runtime", "torch"}},
                 backend_);
  }

  Json run(Context& context, std::ostream& out, ExitCode&) override {
    const std::vector<int32_t> ids = parse_ids("--ids", ids_), types = parse_ids("--types", types_);
    if (ids.empty()) throw_usage("--ids: expected token ids separated by commas, found none");
    if (!types.empty() && types.size() != ids.size())
      throw_usage(
          cat("--types: expected one for each of the ", ids.size(), " ids, found ", types.size()));
    check_output(output_, context.force);
    if (backend_ == "torch" && activations_ != "f32")
      throw_usage("--backend torch: expected --activations f32, found q8");
    const auto model = Model::open(model_);
    const auto weights = with_adapter(model, adapter_);
    const auto tokens = static_cast<int64_t>(ids.size()), vocab = model->arch().vocab;
    for (const int32_t id : ids) {
      if (id < 0 || id >= vocab)
        throw_usage(cat("--ids: expected ids from 0 to ", vocab - 1, ", found ", id));
    }
    if (!types.empty() && !model->arch().encoder)
      throw_usage(cat("--types: ", model_, " is a decoder, which knows no segments"));
    const double start = now_seconds();
    const Activations mode = activations_from_name(activations_);
    std::vector<float> logits;
    if (backend_ == "torch") {
      logits = torch_module(context).logits(*weights, ids, types, context.device);
    } else if (model->arch().encoder) {
      logits = Encoder::create(*weights, mode)->encode(ids, types);
    } else {
      logits = decode(*weights, mode, ids, context);
    }
    const bool rows = model->arch().head == Head::kLanguage || model->arch().head == Head::kMasked;
    const auto values = static_cast<int64_t>(logits.size());
    const int64_t width = rows ? vocab : values;
    write_npy(output_, rows ? std::vector<int64_t>{tokens, vocab} : std::vector<int64_t>{values},
              logits.data());
    const float* last = logits.data() + values - width;
    const int64_t best = std::max_element(last, last + width) - last;
    Json report = {{"output", output_},
                   {"tokens", tokens},
                   {"vocab", vocab},
                   {"backend", backend_},
                   {"activations", activations_},
                   {"isa", backend_ == "torch" ? Json(nullptr) : Json(isa_in_use())},
                   {"seconds", now_seconds() - start}};
    out << "wrote " << output_ << ": float32 [";
    if (rows) out << tokens << ", ";
    out << width << "]";
    if (model->arch().head == Head::kLanguage) {
      out << ", best next id " << best;
      report["best_next_id"] = best;
    }
    if (model->arch().head == Head::kClassifier) {
      out << ", best class " << best;
      report["best_class"] = best;
    }
    out << "\n";
    return report;
  }

 private:
  std::string model_, adapter_, ids_, types_, output_, activations_ = "f32", backend_ = "runtime";
};

}  // namespace

std::unique_ptr<Command> command_logits();
std::unique_ptr<Command> command_logits() { return std::make_unique<LogitsCommand>(); }

}  // namespace slmc

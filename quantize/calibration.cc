#include "quantize/calibration.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "formats/documents.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

/// The stream of all documents, BOS and EOS as the tokenizer puts them.
std::vector<int32_t> stream_of(const std::vector<Document>& documents, const Tokenizer& tokenizer,
                               int64_t wanted) {
  std::vector<int32_t> ids;
  for (const Document& document : documents) {
    const TokenizedDocument tokens = tokenize_document(document, tokenizer, documents.size() > 1);
    ids.insert(ids.end(), tokens.ids.begin(), tokens.ids.end());
    if (static_cast<int64_t>(ids.size()) >= wanted) break;
  }
  return ids;
}

/// `adds_bos`: every window begins with BOS, as the model will see text.
std::vector<std::vector<int32_t>> cut(const std::vector<int32_t>& ids, int64_t length,
                                      int64_t wanted, int32_t bos) {
  std::vector<std::vector<int32_t>> windows;
  const auto total = static_cast<int64_t>(ids.size());
  int64_t taken = 0;
  for (int64_t at = 0; at < total && taken < wanted;) {
    std::vector<int32_t> window;
    if (bos >= 0 && ids[static_cast<size_t>(at)] != bos) window.push_back(bos);
    const int64_t room = std::min(length, wanted - taken) - static_cast<int64_t>(window.size());
    const int64_t count = std::min(room, total - at);
    window.insert(window.end(), ids.begin() + at, ids.begin() + at + count);
    at += count;
    const auto size = static_cast<int64_t>(window.size());
    if (size < std::min(length, wanted - taken) && !windows.empty()) break;  // The remainder.
    taken += size;
    windows.push_back(std::move(window));
  }
  return windows;
}

bool is_jsonl(const std::string& file) { return file.ends_with(".jsonl"); }

}  // namespace

void visit_calibration(CalibrationOptions& options, Fields& fields) {
  fields.visit({.name = "calibration",
                .help = "Text that methods learn the layers' inputs from: .txt, or .jsonl of text, "
                        "prompts and responses, or chats.",
                .value_name = "FILE"},
               options.calibration);
  fields.visit({.name = "calibration_tokens",
                .help = "Tokens of it to use; an error if there are fewer. 0: all, up to 65536.",
                .min = 0,
                .value_name = "N"},
               options.calibration_tokens);
  fields.visit({.name = "calibration_context",
                .help = "Tokens of a window. 0: the lesser of 512 and the model's context.",
                .min = 0,
                .value_name = "N"},
               options.calibration_context);
  fields.visit({.name = "backend",
                .help = "What runs the model over the text: the reference runtime, on the cpu, or "
                        "LibTorch, on any --device. Without it LibTorch if --device is not cpu.",
                .choices = {"runtime", "torch"}},
               options.backend);
  fields.visit({.name = "forward_dtype",
                .help = "In what LibTorch multiplies there: bf16 rounds both sides of the blocks' "
                        "matrix products; sums and everything else stay f32. Without it f32.",
                .choices = {"f32", "bf16"}},
               options.forward_dtype);
}

uint64_t CalibrationForward::library_bytes() const {
  return module == nullptr ? 0 : libtorch_bytes(on_cpu());
}

Json CalibrationForward::conditions() const {
  Json facts = {{"backend", backend}, {"device", device}, {"forward_dtype", dtype}};
  if (module == nullptr) return facts;
  facts["libtorch"] = module->version();
  if (on_cpu()) facts["processor"] = cpu_model();
  return facts;
}

std::string CalibrationForward::text() const {
  if (module == nullptr) return "the reference runtime";
  return cat("LibTorch ", module->version(), " on ", device, ", ", dtype, " products");
}

CalibrationForward calibration_forward(const CalibrationOptions& options, const Context* context) {
  const Context defaults;
  const Context& place = context != nullptr ? *context : defaults;
  CalibrationForward forward;
  forward.device = place.device;
  forward.backend = options.backend;
  if (forward.backend.empty()) forward.backend = forward.on_cpu() ? "runtime" : "torch";
  if (!options.forward_dtype.empty()) forward.dtype = options.forward_dtype;
  if (forward.backend == "runtime") {
    if (!forward.on_cpu())
      throw_usage(cat("--backend runtime computes on the cpu only, and --device is ",
                      forward.device, "; leave one of them out"));
    if (forward.dtype != "f32")
      throw_usage(cat("--forward-dtype ", forward.dtype,
                      " needs --backend torch: the runtime calibrates in f32"));
    return forward;
  }
  if (const std::string missing = torch_unavailable_reason(place); !missing.empty())
    throw_unsupported(cat(
        options.backend.empty() ? "--device " + forward.device : "--backend torch", ": ", missing));
  forward.module = &torch_module(place);
  forward.module->check_device(forward.device);
  return forward;
}

int64_t expected_tokens(const CalibrationOptions& options) {
  if (options.calibration_tokens > 0) return options.calibration_tokens;
  uint64_t bytes = 0;
  for (const std::string& file : options.calibration) bytes += std::filesystem::file_size(file);
  return std::min(kCalibrationTokens, static_cast<int64_t>(static_cast<double>(bytes) / 3.5) + 1);
}

int64_t calibration_window(const CalibrationOptions& options, const Model& model) {
  const int64_t longest = model.arch().context, asked = options.calibration_context;
  const int64_t length = asked == 0 ? std::min<int64_t>(512, longest) : asked;
  if (length < 8 || length > longest)
    throw_usage(cat("calibration_context: expected at least 8 and at most the model's ", longest,
                    ", found ", length));
  return length;
}

void refuse_encoder(const Model& model) {
  if (model.arch().encoder)
    throw_unsupported(cat(model.path(), ": calibration is of decoders, and this is an encoder; ",
                          "its weights are rounded without text (--method nearest)"));
}

CalibrationData load_calibration(const CalibrationOptions& options, const Model& model) {
  if (options.calibration.empty())
    throw_usage("calibration is missing: name at least one file with --calibration FILE");
  const int64_t length = calibration_window(options, model);
  const int64_t wanted =
      options.calibration_tokens > 0 ? options.calibration_tokens : kCalibrationTokens;
  const std::vector<Document> documents =
      read_documents(options.calibration, ChatTemplate::from_assets(model.assets()));
  const Tokenizer& tokenizer = model.tokenizer();
  const std::vector<int32_t> ids = stream_of(documents, tokenizer, wanted);

  CalibrationData data;
  data.windows = cut(ids, length, wanted, tokenizer.adds_bos() ? tokenizer.bos() : -1);
  Hasher hasher;
  for (const std::vector<int32_t>& window : data.windows) {
    const auto size = static_cast<int64_t>(window.size());
    data.tokens += size;
    data.context = std::max(data.context, size);
    hasher.add(&size, sizeof size);
    hasher.add(window.data(), window.size() * sizeof(int32_t));
  }
  data.hash = hasher.digest();
  if (data.tokens == 0) throw_bad_input("calibration: the files hold no tokens");
  if (data.tokens < options.calibration_tokens) {
    throw_bad_input(cat("calibration: expected ", options.calibration_tokens,
                        " tokens in whole windows of ", length, ", found ", data.tokens, " in ",
                        join(options.calibration, ", "), "; add text or ask for fewer"));
  }
  const bool chat = std::any_of(options.calibration.begin(), options.calibration.end(), is_jsonl);
  data.findings = lint_calibration(data, model, chat);
  data.facts = {{"files", options.calibration},
                {"documents", documents.size()},
                {"windows", data.windows.size()},
                {"context", data.context},
                {"tokens", data.tokens},
                {"hash", data.hash},
                {"bos_first", tokenizer.adds_bos()},
                {"findings", data.findings}};
  return data;
}

}  // namespace slmc

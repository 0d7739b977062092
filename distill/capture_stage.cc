#include "distill/capture_stage.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/runtime/decoder.h"
#include "compress/runtime/weight_stage.h"
#include "distill/estimate.h"
#include "distill/teacher_cache.h"
#include "distill/vocabulary.h"
#include "formats/layer_choice.h"
#include "formats/model.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRows = 64;  // Positions whose logits are in memory at once.
constexpr int64_t kShardBytes = int64_t{256} << 20;

std::vector<double> parse_temperatures(const std::vector<std::string>& texts) {
  std::vector<double> all;
  for (const std::string& text : texts) {
    double value = 0.0;
    set_field_text({.name = "temperatures", .help = "", .min = 0.01, .max = 100}, "temperatures",
                   text, value);
    if (value != 1.0 && std::find(all.begin(), all.end(), value) == all.end()) all.push_back(value);
  }
  std::sort(all.begin(), all.end());
  return all;
}

class CaptureStage : public Stage {
 public:
  explicit CaptureStage(CaptureOptions options) : options_(std::move(options)) {}
  std::string_view name() const override { return "capture"; }
  std::string_view summary() const override {
    return "Store what a teacher says of a text, to train students without it";
  }
  void visit(Fields& fields) override;
  Plan plan(const Inputs& inputs) const override;
  Report run(const Plan& plan, Context& context) override;

 private:
  TeacherCacheHeader header(const Model& teacher) const;
  CaptureOptions options_;
};

void CaptureStage::visit(Fields& f) {
  CaptureOptions& o = options_;
  f.visit({.name = "teacher",
           .help = "The model to capture: a Hugging Face folder or a GGUF.",
           .required = true,
           .positional = true,
           .value_name = "MODEL"},
          o.teacher);
  f.visit({.name = "data",
           .help = "Training text: .txt (one document) or .jsonl (one a line).",
           .required = true,
           .value_name = "FILE"},
          o.data);
  f.visit({.name = "output",
           .help = "Folder for the cache; slmc distill --teacher takes it.",
           .required = true,
           .short_flag = "o",
           .value_name = "CACHE"},
          o.output);
  f.visit({.name = "top_k",
           .help = "Tokens kept at every position, best first; 0: all.",
           .min = 0,
           .value_name = "K"},
          o.top_k);
  f.visit({.name = "temperatures",
           .help = "Temperatures at which students can be trained, besides 1.",
           .value_name = "T"},
          o.temperatures);
  f.visit({.name = "values", .help = "Type of the log-probabilities.", .choices = {"f16", "f32"}},
          o.values);
  f.visit({.name = "hidden",
           .help = "Blocks whose outputs are kept in float32, for losses over hidden states: their "
                   "numbers from 0, as in 1,3,7, or all. 4 bytes times the model's width each, a "
                   "token.",
           .value_name = "BLOCKS"},
          o.hidden);
  f.visit({.name = "context", .help = "Tokens in a window.", .min = 2, .value_name = "N"},
          o.context);
  f.visit({.name = "isolate_documents",
           .help = "Positions see only their own document, not those packed before it."},
          o.isolate_documents);
  f.visit({.name = "eos", .help = "End each document with the tokenizer's end-of-text token."},
          o.eos);
  f.visit({.name = "max_tokens",
           .help = "Tokens of the text to capture; 0: all.",
           .min = 0,
           .value_name = "N"},
          o.max_tokens);
  f.visit({.name = "shard_tokens",
           .help = "Tokens in one file of the cache, which is what a kill can lose.",
           .min = 1,
           .value_name = "N"},
          o.shard_tokens);
}

TeacherCacheHeader CaptureStage::header(const Model& teacher) const {
  if (teacher.arch().head != Head::kLanguage)
    throw_unsupported(cat(teacher.path(),
                          ": a cache holds what is said of the next token, and this is an encoder; "
                          "train its student with the teacher itself: slmc distill --teacher"));
  TeacherCacheHeader h;
  h.teacher = teacher.path();
  h.vocab = tokens_with_rows(teacher.tokenizer(), teacher.arch().vocab, teacher.path());
  h.k = options_.top_k == 0 ? h.vocab : std::min(options_.top_k, h.vocab);
  h.float32 = options_.values == "f32";
  h.temperatures = parse_temperatures(options_.temperatures);
  h.context = options_.context;
  h.isolate_documents = options_.isolate_documents;
  h.eos = options_.eos;
  const Architecture& arch = teacher.arch();
  if (options_.hidden == "all")
    for (int64_t layer = 0; layer < arch.layers; ++layer) h.hidden_blocks.push_back(layer);
  else if (!options_.hidden.empty())
    h.hidden_blocks = parse_layer_list("hidden", options_.hidden, arch.layers);
  if (!h.hidden_blocks.empty()) h.hidden_width = arch.hidden, h.layers = arch.layers;
  // A shard is in memory until it is whole.
  h.shard_windows = std::max<int64_t>(
      1, std::min(options_.shard_tokens, kShardBytes / h.record_bytes()) / options_.context);
  return h;
}

Plan CaptureStage::plan(const Inputs& inputs) const {
  CaptureOptions o = options_;
  for (const auto& [key, path] : inputs.paths) {
    if (key == "teacher") o.teacher = path;
    if (key == "output") o.output = path;
  }
  if (o.data.empty()) throw_usage("data: no text given; give --data FILE");
  uint64_t bytes = 0;
  for (const std::string& file : o.data) {
    if (!fs::is_regular_file(file)) throw_bad_input(cat(file, ": training text not found"));
    bytes += fs::file_size(file);
  }
  const auto teacher = Model::open(o.teacher);
  const Architecture& arch = teacher->arch();
  if (arch.context > 0 && o.context > arch.context)
    throw_usage(cat("context: expected at most the model's ", arch.context, ", found ", o.context));
  const TeacherCacheHeader h = header(*teacher);
  auto tokens = static_cast<int64_t>(bytes / kBytesPerToken);
  if (o.max_tokens > 0) tokens = std::min(tokens, o.max_tokens);
  Plan plan;
  plan.stage = "capture";
  plan.output = o.output;
  plan.output_bytes = static_cast<uint64_t>(tokens * (h.record_bytes() + 5));
  // Weights, the shard that is being filled, logits, the text as documents and ids.
  plan.predicted_peak_bytes =
      static_cast<uint64_t>(arch.parameters * 4 + h.shard_windows * h.context * h.record_bytes() +
                            kRows * arch.vocab * 12 + static_cast<int64_t>(bytes) * 6 + (64 << 20));
  plan.details = {{"teacher", o.teacher}};
  std::string temperatures = "1";
  for (const double t : h.temperatures) temperatures += cat(", ", t);
  plan.notes.push_back(cat("teacher: ", human_count(static_cast<uint64_t>(arch.parameters)),
                           " parameters, ", o.teacher));
  plan.notes.push_back(cat("about ", human_count(static_cast<uint64_t>(tokens)), " tokens; the ",
                           h.k, " best of ", h.vocab, " tokens in ", o.values, ", ",
                           h.record_bytes() + 5, " bytes a token; temperatures ", temperatures));
  if (!h.hidden_blocks.empty())
    plan.notes.push_back(cat("hidden states of ", h.hidden_blocks.size(), " of ", h.layers,
                             " blocks, ", h.hidden_bytes(), " of those bytes"));
  return plan;
}

/// Runs windows through the teacher and makes their records.
class Reader {
 public:
  Reader(const Model& teacher, const TeacherCacheHeader& header)
      : header_(header),
        hidden_(teacher.arch().hidden),
        logits_(static_cast<size_t>(kRows * teacher.arch().vocab)) {
    ends_ = PartialDecoder::create(teacher, {.embedding = true, .output_norm = true, .head = true});
    for (int64_t layer = 0; layer < teacher.arch().layers; ++layer)
      blocks_.push_back(PartialDecoder::create(teacher, {.layer = layer}));
    cache_ = blocks_.front()->new_cache(header.context);
  }

  /// The window's documents, each as a sequence of its own if they are isolated.
  void read(const PackedData& data, int64_t window, std::byte* out) {
    const int32_t* const document =
        data.document.empty() ? nullptr : data.document.data() + window * data.context;
    for (int64_t begin = 0; begin < data.context;) {
      int64_t end = begin + 1;
      while (end < data.context && (document == nullptr || document[end] == document[begin])) ++end;
      sequence({data.inputs(window) + begin, static_cast<size_t>(end - begin)},
               out + begin * header_.record_bytes());
      begin = end;
    }
  }

 private:
  void sequence(std::span<const int32_t> ids, std::byte* out) {
    const auto tokens = static_cast<int64_t>(ids.size());
    stream_.resize(ids.size() * static_cast<size_t>(hidden_));
    ends_->embed(ids, stream_.data());
    int64_t kept = 0;
    for (size_t layer = 0; layer < blocks_.size(); ++layer) {
      blocks_[layer]->run_block(*cache_, stream_.data(), tokens, {});
      if (header_.has_block(static_cast<int64_t>(layer))) keep_states(kept++, tokens, out);
    }
    for (int64_t begin = 0; begin < tokens; begin += kRows) {
      const int64_t count = std::min(kRows, tokens - begin);
      ends_->run_head(*cache_, stream_.data() + begin * hidden_, count, logits_.data(), {});
      const auto vocab = static_cast<int64_t>(logits_.size()) / kRows;
      parallel_for(count, [&](int64_t i) {
        thread_local std::vector<int32_t> scratch;
        encode_teacher_record(header_, logits_.data() + i * vocab,
                              out + (begin + i) * header_.record_bytes(), scratch);
      });
    }
  }

  /// The stream as the states of the `place`th block that is kept.
  void keep_states(int64_t place, int64_t tokens, std::byte* out) const {
    std::byte* to = out + header_.record_bytes() - header_.hidden_bytes() + place * hidden_ * 4;
    for (int64_t i = 0; i < tokens; ++i, to += header_.record_bytes())
      std::memcpy(to, stream_.data() + i * hidden_, static_cast<size_t>(hidden_) * 4);
  }

  const TeacherCacheHeader& header_;
  int64_t hidden_;
  std::unique_ptr<PartialDecoder> ends_;
  std::vector<std::unique_ptr<PartialDecoder>> blocks_;
  std::unique_ptr<KvCache> cache_;
  std::vector<float> stream_, logits_;
};

Report CaptureStage::run(const Plan& plan, Context& context) {
  const double started = now_seconds();
  check_output(plan.output, context.force);
  const auto teacher = Model::open(plan.details.value("teacher", options_.teacher));
  const Tokenizer& tokenizer = teacher->tokenizer();
  PackedData data =
      load_training_data(options_.data, ChatTemplate::from_assets(teacher->assets()), tokenizer,
                         options_.context, options_.eos, true, context.seed);
  check_ids(data, tokens_with_rows(tokenizer, teacher->arch().vocab, teacher->path()));
  if (options_.max_tokens > 0) {
    data.windows = std::min(data.windows, std::max<int64_t>(1, options_.max_tokens / data.context));
    const auto count = static_cast<size_t>(data.windows * data.context + 1);
    data.ids.resize(count);
    data.learned.resize(count);
    data.document.resize(count);
  }
  TeacherCacheHeader h = header(*teacher);
  h.teacher_hash = teacher->content_hash();
  h.tokenizer_hash = tokenizer.hash();
  h.data_hash = data.hash;
  h.windows = data.windows;
  h.documents = data.documents;
  h.tokens = data.windows * data.context;
  h.seed = context.seed;

  TeacherCacheWriter writer(plan.output, h, data, context.force, context.resume);
  if (!options_.isolate_documents) data.document.clear();
  Reader reader(*teacher, h);
  Progress& progress = progress_of(context);
  if (writer.next_shard() > 0)
    progress.note(cat("resumed: ", writer.next_shard(), " of ", h.shards(), " shards are there"));
  const int64_t known = std::min(h.tokens, writer.next_shard() * h.shard_windows * h.context);
  progress.begin("capturing", static_cast<uint64_t>(h.tokens), "tokens",
                 static_cast<uint64_t>(known));
  try {
    for (int64_t s = writer.next_shard(); s < h.shards(); ++s) {
      const int64_t count = h.windows_in(s);
      std::vector<std::byte> records(static_cast<size_t>(count * h.context * h.record_bytes()));
      for (int64_t w = 0; w < count; ++w) {
        reader.read(data, s * h.shard_windows + w,
                    records.data() + w * h.context * h.record_bytes());
        context.check_interrupt();
        progress.update(static_cast<uint64_t>((s * h.shard_windows + w + 1) * h.context));
      }
      writer.write_shard(records);
      context.check_ram("capturing");
    }
  } catch (const Error&) {
    writer.keep();
    throw;
  }
  const Assets& assets = teacher->assets();
  writer.write_tokenizer_file("tokenizer.json", assets.tokenizer_json);
  writer.write_tokenizer_file("tokenizer_config.json", assets.tokenizer_config_json);
  writer.write_tokenizer_file("generation_config.json", assets.generation_config_json);
  writer.write_tokenizer_file("special_tokens_map.json", assets.special_tokens_map_json);
  writer.write_tokenizer_file("chat_template.jinja", assets.chat_template);
  writer.finish();
  const double seconds = now_seconds() - started;
  progress.end(cat(human_count(static_cast<uint64_t>(h.tokens - known)), " tokens, ",
                   fixed(static_cast<double>(h.tokens - known) / seconds, 0), " tokens/s"));
  TeacherCache::open(plan.output);  // Written = meant: the ordinary reader takes it.
  Report report = make_report(*this, plan, seconds, context);
  report["inputs"] = {
      {"teacher", model_facts(*teacher, h.teacher_hash)},
      {"data", {{"files", options_.data}, {"tokens", h.tokens}, {"hash", h.data_hash}}}};
  report["cache"] = h.to_json();
  report["bytes_per_token"] = h.record_bytes() + 5;
  report["summary"] = cat(h.tokens, " tokens of the teacher, ", h.record_bytes() + 5,
                          " bytes each: the ", h.k, " best of ", h.vocab);
  return report;
}

}  // namespace

std::unique_ptr<Stage> make_capture_stage(CaptureOptions options) {
  return std::make_unique<CaptureStage>(std::move(options));
}

}  // namespace slmc

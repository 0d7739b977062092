#include "distill/sources.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/hash.h"
#include "compress/core/progress.h"
#include "compress/core/text.h"
#include "compress/runtime/tasks_run.h"
#include "distill/estimate.h"
#include "distill/hidden_pairs.h"
#include "distill/learned_scales.h"
#include "distill/loss_mixture.h"
#include "distill/objective.h"
#include "distill/product.h"
#include "formats/family.h"
#include "formats/layer_choice.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

/// "layers:4" or "layers:0,1,3" of a teacher with `layers` layers.
std::vector<int64_t> layers_asked(const std::string& student, int64_t layers) {
  const std::string asked = student.substr(std::string("layers:").size());
  if (asked.find(',') != std::string::npos) return parse_layer_list("student", asked, layers);
  int64_t count = 0;
  const auto [stop, error] = std::from_chars(asked.data(), asked.data() + asked.size(), count);
  if (error != std::errc() || stop != asked.data() + asked.size() || count < 1 || count > layers)
    throw_usage(cat("student: expected layers:N with N from 1 to the teacher's ", layers,
                    ", or layer numbers as in layers:0,2,3; found ", student));
  return evenly_spaced_layers(layers, count);
}

void check_on_policy(const DistillOptions& o, const Sources& sources, const LossMixture& losses) {
  if (o.on_policy.share == 0) return;
  if (sources.student.arch.encoder)
    throw_unsupported("on_policy: an encoder writes no text of its own; leave the option out");
  if (sources.teacher == nullptr)
    throw_usage(
        cat("on_policy: the teacher has to judge what the student says; give --teacher "
            "MODEL",
            sources.cache ? cat(", as ", o.teacher, " knows only its own text") : ""));
  if (std::none_of(losses.begin(), losses.end(), [](const LossTerm& term) {
        return term.distribution() && !term.cross_entropy();
      }))
    throw_usage(
        cat("on_policy: the student's own words are judged by a loss over distributions, "
            "found ",
            o.loss, "; give --loss reverse_kl, jsd or another of them"));
  if (o.on_policy.tokens >= o.context)
    throw_usage(cat("sample_tokens: expected less than the window's ", o.context, ", found ",
                    o.on_policy.tokens));
}

/// What ends an answer of the teacher's, whose vocabulary the student shares.
std::vector<int32_t> sample_stops(const Model& teacher, const Vocabulary& vocabulary) {
  std::vector<int32_t> stops = stop_ids(teacher);
  const std::string marker = ChatTemplate::from_assets(vocabulary.assets).stop();
  if (const int32_t id = vocabulary.tokenizer->token_id(marker); id >= 0) stops.push_back(id);
  if (const int32_t id = vocabulary.tokenizer->eos(); id >= 0) stops.push_back(id);
  return stops;
}

/// The cached windows, the last of them held out.
void load_cached(const DistillOptions& o, const Sources& sources, TrainingJob& job) {
  job.data = sources.cache->data();
  if (o.eval_windows == 0) return;
  job.eval_data = job.data;
  job.data.windows -= o.eval_windows;
  job.first_eval_window = job.data.windows;
  const auto drop = [&](auto& values) {
    if (!values.empty())
      values.erase(values.begin(), values.begin() + job.data.windows * o.context);
  };
  drop(job.eval_data.ids);
  drop(job.eval_data.learned);
  drop(job.eval_data.document);
  job.eval_data.windows = o.eval_windows;
  const auto learns = [](const PackedData& data) {
    const auto first = data.learned.begin() + 1;  // What the first position is asked for.
    const auto end = first + data.windows * data.context;
    return std::find(first, end, uint8_t{1}) != end;
  };
  for (const PackedData* part : {&job.data, &job.eval_data})
    if (!learns(*part))
      throw_usage(cat("eval_windows: of the cache's windows the ",
                      part == &job.data ? "first " : "last ", part->windows,
                      " are prompts alone, of which nothing is learned; hold ",
                      part == &job.data ? "fewer" : "more", " back"));
}

}  // namespace

Sources open_sources(const DistillOptions& o, uint64_t seed, bool allocate) {
  Sources sources;
  if (TeacherCache::is_one(o.teacher))
    sources.cache = TeacherCache::open(o.teacher);
  else if (!o.teacher.empty())
    sources.teacher = Model::open(o.teacher);
  sources.uses_teacher = (sources.teacher || sources.cache) && needs_teacher(parse_losses(o.loss));
  if (o.student.starts_with("layers:")) {
    if (sources.cache != nullptr)
      throw_usage(
          cat("student: ", o.teacher,
              " holds what the teacher says, not its layers; make the student first, with slmc "
              "prune MODEL --layers"));
    if (sources.teacher == nullptr)
      throw_usage("student: layers:N takes the layers from a teacher; give --teacher MODEL");
    sources.student = student_from_layers(sources.teacher,
                                          layers_asked(o.student, sources.teacher->arch().layers));
  } else if (o.student.ends_with(".json")) {
    sources.student = student_from_config(o.student, seed, allocate);
  } else {
    sources.student = student_from_checkpoint(o.student);
  }
  choose_objective(o, seed, sources);
  return sources;
}

void require_float_weights(const DistillOptions& o, const Sources& sources) {
  if (o.qat) return;  // Weights that rounding has found are a good start for more of it.
  const WeightSource& weights = *sources.student.weights;
  for (const TensorSpec& spec : family_by_name(weights.arch().family).tensors(weights.arch())) {
    if (!weights.has(spec.name)) continue;  // A plan makes no random ones.
    if (const DType type = weights.view(spec.name).dtype; !dtype_is_float(type))
      throw_unsupported(cat(sources.student.origin, ": tensor ", spec.name, " is ",
                            dtype_name(type), "; training starts from f32, f16 or bf16 weights"));
  }
}

namespace {

/// The teacher as losses over hidden states see it.
Architecture compared_teacher(const Sources& sources) {
  return sources.teacher != nullptr ? sources.teacher->arch() : sources.cache->teacher_shape();
}

void check_cached_blocks(const LossMixture& losses, const Sources& sources) {
  if (sources.cache == nullptr) return;
  if (sources.cache->header().hidden_blocks.empty())
    throw_usage(cat("loss: ", sources.cache->path(),
                    " holds the teacher's distributions only; capture again with --hidden BLOCKS"));
  for (size_t term = 0; term < losses.size(); ++term)
    for (const HiddenPair& pair :
         hidden_pairs(losses, term, sources.student.arch, compared_teacher(sources)))
      if (!sources.cache->header().has_block(pair.teacher))
        throw_usage(cat("loss: ", losses[term].text, ": ", sources.cache->path(),
                        " has no hidden states of the teacher's block ", pair.teacher,
                        "; capture again with --hidden"));
}

}  // namespace

void check_options(const DistillOptions& o, const Sources& sources) {
  if (o.data.empty() && sources.cache == nullptr)
    throw_usage("data: no training text given; give --data FILE");
  if (sources.cache != nullptr) sources.cache->require_temperature(o.temperature);
  const LossMixture losses = parse_losses(o.loss);
  if (compares_hidden(losses)) {
    if (sources.teacher == nullptr && sources.cache == nullptr)
      throw_usage(cat("loss: ", o.loss,
                      ": hidden states come from a teacher; give --teacher MODEL or a cache with "
                      "hidden states"));
    check_cached_blocks(losses, sources);
    compared_floats(o, sources);  // The blocks are there.
  }
  if (o.qat) {
    if (o.quantize.empty())
      throw_usage("qat: trains through the rounding of what is written; give --quantize SCHEME");
    stored_types(sources.student.arch, o.quantize, dtype_from_name(o.save_dtype), o.output);
  }
  check_on_policy(o, sources, losses);
  if (o.eval_windows > 0 && sources.cache == nullptr)
    throw_usage(
        "eval_windows: holds windows of a teacher cache back; give --eval-text FILE instead");
  if (o.eval_windows > 0 && o.eval_windows >= sources.cache->header().windows)
    throw_usage(cat("eval_windows: expected less than the cache's ",
                    sources.cache->header().windows, " windows, found ", o.eval_windows));
  if (o.eval_every > 0 && o.eval_text.empty() && o.eval_windows == 0)
    throw_usage("eval_every: there is nothing to measure on; give --eval-text FILE");
  std::vector<const Architecture*> networks{&sources.student.arch};
  if (sources.teacher != nullptr) networks.push_back(&sources.teacher->arch());
  check_training(o, sources.cache ? sources.cache->header().context : o.context, networks);
  check_objective(o, sources);
  if (sources.teacher == nullptr && sources.cache == nullptr && o.student.ends_with(".json") &&
      o.tokenizer.empty())
    throw_usage(
        "tokenizer: a student from a config.json without a teacher needs one; give --tokenizer "
        "FOLDER");
}

void take_from_cache(DistillOptions& o, const Sources& sources) {
  if (sources.cache == nullptr) return;
  const TeacherCacheHeader& header = sources.cache->header();
  o.context = header.context;
  o.isolate_documents = header.isolate_documents;
  o.eos = header.eos;
}

Vocabulary vocabulary_of(const DistillOptions& o, const Sources& sources) {
  if (sources.cache == nullptr)
    return shared_vocabulary(o.tokenizer, sources.teacher.get(), sources.student);
  Vocabulary vocabulary =
      shared_vocabulary(sources.cache->tokenizer_path(), nullptr, sources.student);
  const TeacherCacheHeader& header = sources.cache->header();
  if (vocabulary.tokenizer->hash() != header.tokenizer_hash || vocabulary.size != header.vocab)
    throw_bad_input(cat(sources.cache->tokenizer_path(),
                        ": not the tokenizer that the cache was captured with"));
  return vocabulary;
}

void load_data(const DistillOptions& o, const Sources& sources, const Vocabulary& vocabulary,
               Context& context, TrainingJob& job) {
  const auto load = [&](uint64_t seed) {
    if (sources.objective == Objective::kClass) {
      PackedData data =
          pack_labelled(sources.labelled, sources.classes, *vocabulary.tokenizer, o.context, seed);
      check_ids(data, vocabulary.size);
      return data;
    }
    PackedData data = load_training_data(o.data, ChatTemplate::from_assets(vocabulary.assets),
                                         *vocabulary.tokenizer, o.context, o.eos, true, seed);
    check_ids(data, vocabulary.size);
    const bool masked = sources.objective == Objective::kMaskedToken;
    if (masked && vocabulary.tokenizer->vocab_size() > vocabulary.size)
      throw_unsupported(cat(sources.student.origin, ": its tokenizer has ",
                            vocabulary.tokenizer->vocab_size(), " tokens, its embedding ",
                            vocabulary.size, " rows; masks are drawn from all tokens"));
    if (masked)
      mask_documents(
          data, masking_of(*vocabulary.tokenizer, vocabulary.assets, seed, sources.student.origin));
    else if (!o.isolate_documents)
      data.document.clear();
    return data;
  };
  if (!o.data.empty())
    progress_of(context).note(
        cat("reading ", o.data.size(), o.data.size() == 1 ? " file" : " files"));
  if (sources.cache != nullptr) {
    load_cached(o, sources, job);
    if (!o.data.empty() && load(sources.cache->header().seed).hash != job.data.hash)
      throw_bad_input(cat(o.teacher, ": the teacher was captured on other text than --data gives"));
    check_ids(job.data, vocabulary.size);
  } else {
    job.data = load(context.seed);
  }
  if (job.data.cut_documents > 0 && sources.objective == Objective::kClass)
    progress_of(context).note(cat(job.data.cut_documents, " of ", job.data.documents,
                                  " texts are longer than ", o.context,
                                  " tokens and lose their ends; a larger --context keeps them"));
  else if (job.data.cut_documents > 0 && job.data.documents > 1)
    progress_of(context).note(cat(job.data.cut_documents, " of ", job.data.documents,
                                  " documents are longer than a window of ", o.context,
                                  " tokens and are cut; a larger --context keeps them whole"));
}

std::string teacher_note(const DistillOptions& o, const Sources& sources) {
  const LossMixture losses = parse_losses(o.loss);
  const std::string how = cat(
      "; loss ", o.loss, " at T = ", o.temperature,
      names_cross_entropy(losses) ? std::string() : cat(", cross-entropy's share ", o.ce_weight));
  if (sources.cache != nullptr)
    return cat("teacher: ", sources.cache->header().k, " best of ", sources.cache->header().teacher,
               ", from ", o.teacher, ", which also gives the text", how,
               weighs_unlikely(losses)
                   ? "; this loss weighs what the teacher finds unlikely, of which a cache keeps "
                     "only the sum"
                   : "");
  if (sources.uses_teacher)
    return cat("teacher: ", human_count(static_cast<uint64_t>(sources.teacher->arch().parameters)),
               " parameters, ", o.teacher, how,
               o.on_policy.share > 0 ? cat("; of the steps ", fixed(100 * o.on_policy.share, 0),
                                           "% learn from the student's own samples")
                                     : "");
  return sources.objective == Objective::kClass ? "no teacher: the labels alone, cross-entropy"
                                                : "no teacher: the text alone, cross-entropy";
}

int64_t window_tokens(const DistillOptions& o, const Sources& sources) {
  if (sources.objective != Objective::kClass) return o.context;
  const auto texts = static_cast<uint64_t>(sources.labelled.size());
  return std::clamp<int64_t>(static_cast<int64_t>(text_bytes(o) / kBytesPerToken / texts), 1,
                             o.context);
}

std::string window_text(const DistillOptions& o, const Sources& sources) {
  if (sources.objective != Objective::kClass) return cat("windows of ", o.context, " tokens");
  return cat("texts of up to ", o.context, " tokens, each with one of ", sources.classes.size(),
             " labels");
}

int64_t expected_windows(const DistillOptions& o, const Sources& sources) {
  if (sources.cache != nullptr) return sources.cache->header().windows - o.eval_windows;
  if (sources.objective == Objective::kClass) return std::ssize(sources.labelled);
  return static_cast<int64_t>(text_bytes(o) / kBytesPerToken) / o.context;
}

TrainingJob begin_job(const DistillOptions& o, const Sources& sources, const Vocabulary& vocabulary,
                      const Context& context) {
  TrainingJob job;
  const double ce_weight = names_cross_entropy(parse_losses(o.loss)) ? 0.0 : o.ce_weight;
  job.loss = {.loss = o.loss,
              .weight = 1.0 - ce_weight,
              .ce_weight = ce_weight,
              .temperature = o.temperature};
  job.student = sources.student.weights;
  if (sources.uses_teacher) job.teacher = sources.teacher;
  if (sources.uses_teacher) job.cache = sources.cache;
  if (o.qat)
    job.stored =
        stored_types(sources.student.arch, o.quantize, dtype_from_name(o.save_dtype), o.output);
  job.real_vocab =
      sources.objective == Objective::kClass ? std::ssize(sources.classes) : vocabulary.size;
  job.seed = context.seed;
  static_cast<OnPolicyOptions&>(job.on_policy) = o.on_policy;
  if (o.on_policy.share > 0) {
    job.on_policy.stops = sample_stops(*sources.teacher, vocabulary);
    job.on_policy.vocab = vocabulary.size;
  }
  return job;
}

void add_hidden_states(const DistillOptions& o, const Sources& sources, const Context& context,
                       TrainingJob& job) {
  const LossMixture losses = parse_losses(o.loss);
  if (!compares_hidden(losses)) return;
  const Architecture &student = sources.student.arch, teacher = compared_teacher(sources);
  add_projections(losses, student, teacher, job.layout);
  job.start = overlaid(initial_projections(losses, student, teacher, context.seed), job.start);
}

void add_learned_scales(const DistillOptions& o, TrainingJob& job) {
  job.learned_scales = o.qat && o.qat_scales == "learned";
  if (!job.learned_scales) return;
  add_scales(job.stored, job.layout);
  job.start = overlaid(initial_scales(job.stored, job.layout, *job.start), job.start);
}

int64_t compared_floats(const DistillOptions& o, const Sources& sources) {
  const LossMixture losses = parse_losses(o.loss);
  if (!compares_hidden(losses)) return 0;
  const Architecture &student = sources.student.arch, teacher = compared_teacher(sources);
  int64_t pairs = 0;
  for (size_t term = 0; term < losses.size(); ++term)
    pairs += static_cast<int64_t>(hidden_pairs(losses, term, student, teacher).size());
  return pairs * 3 * teacher.hidden;
}

Json run_conditions(const DistillOptions& o, const Sources& sources, const TrainingJob& job,
                    const Context& context) {
  Json options = result_options(o);
  options["student"] = o.student;
  options["loss"] = o.loss;
  options["ce_weight"] = o.ce_weight;
  options["temperature"] = o.temperature;
  if (o.on_policy.share > 0) options["on_policy"] = result_options(o.on_policy);
  options["qat"] = o.qat ? cat(o.quantize, " ", o.save_dtype, " ", o.qat_scales) : "";
  options["labels"] = sources.classes;
  options["eval_windows"] = o.eval_windows;
  const Model* model = sources.student.model.get();
  const TeacherCache* cache = sources.cache.get();
  return {{"options", options},
          {"seed", context.seed},
          {"data", job.data.hash},
          {"steps", job.steps},
          {"teacher", sources.teacher ? sources.teacher->content_hash()
                      : cache         ? cache->header().teacher_hash
                                      : ""},
          {"cache", cache != nullptr ? cache->header().to_json() : Json::object()},
          {"student", model != nullptr ? model->content_hash() : ""},
          // What held-out figures so far, and the best of the files, are of.
          {"product",
           {{"quantize", o.quantize},
            {"save_dtype", o.save_dtype},
            {"eval_text", o.eval_text.empty() ? "" : hash_file(o.eval_text)},
            {"eval_tokens", o.eval_tokens}}}};
}

}  // namespace slmc

#include "distill/sources.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "distill/loss.h"
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

}  // namespace

Sources open_sources(const DistillOptions& o, uint64_t seed, bool allocate) {
  Sources sources;
  if (TeacherCache::is_one(o.teacher))
    sources.cache = TeacherCache::open(o.teacher);
  else if (!o.teacher.empty())
    sources.teacher = Model::open(o.teacher);
  sources.uses_teacher =
      (sources.teacher || sources.cache) && loss_by_name(o.loss)->needs_teacher();
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
  if (!o.student.ends_with(".json"))
    for (const TensorSpec& spec :
         family_by_name(sources.student.arch.family).tensors(sources.student.arch))
      if (const DType type = sources.student.weights->view(spec.name).dtype; !dtype_is_float(type))
        throw_unsupported(cat(sources.student.origin, ": tensor ", spec.name, " is ",
                              dtype_name(type), "; training starts from f32, f16 or bf16 weights"));
  return sources;
}

void check_options(const DistillOptions& o, const Sources& sources) {
  if ((o.steps > 0) + (o.tokens > 0) + (o.epochs > 0) > 1)
    throw_usage("distill: give one of --steps, --tokens and --epochs, found more than one");
  if (o.data.empty() && sources.cache == nullptr)
    throw_usage("data: no training text given; give --data FILE");
  if (sources.cache != nullptr) sources.cache->require_temperature(o.temperature);
  for (const std::string& file : o.data)
    if (!fs::is_regular_file(file)) throw_bad_input(cat(file, ": training text not found"));
  if (!o.eval_text.empty() && !fs::is_regular_file(o.eval_text))
    throw_bad_input(cat(o.eval_text, ": held-out text not found"));
  if (o.eval_windows > 0 && sources.cache == nullptr)
    throw_usage(
        "eval_windows: holds windows of a teacher cache back; give --eval-text FILE instead");
  if (o.eval_windows > 0 && o.eval_windows >= sources.cache->header().windows)
    throw_usage(cat("eval_windows: expected less than the cache's ",
                    sources.cache->header().windows, " windows, found ", o.eval_windows));
  if (o.eval_every > 0 && o.eval_text.empty() && o.eval_windows == 0)
    throw_usage("eval_every: there is nothing to measure on; give --eval-text FILE");
  const int64_t context = sources.cache ? sources.cache->header().context : o.context;
  for (const Architecture* arch :
       {&sources.student.arch, sources.teacher ? &sources.teacher->arch() : nullptr}) {
    if (arch != nullptr && arch->head != Head::kLanguage)
      throw_unsupported(cat(
          arch->family, ": an encoder gives no next token to learn from; decoders are trained"));
    if (arch != nullptr && arch->context > 0 && context > arch->context)
      throw_usage(
          cat("context: expected at most the model's ", arch->context, ", found ", context));
  }
  if (sources.teacher == nullptr && sources.cache == nullptr && o.student.ends_with(".json") &&
      o.tokenizer.empty())
    throw_usage(
        "tokenizer: a student from a config.json without a teacher needs one; give --tokenizer "
        "FOLDER");
  if (o.output.ends_with(".gguf"))
    throw_usage(cat("output: training writes a safetensors folder, found '", o.output,
                    "'; convert it afterwards"));
}

}  // namespace slmc

// What the stages that rewrite weights (quantize, prune) share: opening the source, refusing before
// work what cannot be done, and saying what the written file cost.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compress/core/stage.h"
#include "formats/model.h"

namespace slmc {

/// Options that such stages have in common.
struct WeightStageOptions {
  std::string model;  ///< Source: a folder or a GGUF.
  std::string output;
  std::string eval_text;  ///< Text on which the cost is measured; empty: not measured.
  int64_t eval_tokens = 4096;
  std::string check = "run";  ///< "run": 32 tokens of the written file through the runtime;
                              ///< "bytes": only its bytes.
  bool dequantize = false;    ///< Accept a source that is already quantized.
};

void visit_source(std::string& model, std::string& output,
                  Fields& fields);  ///< First in --help.
void visit_cost(WeightStageOptions& options,
                Fields& fields);  ///< eval_text, eval_tokens, check, dequantize: last.

/// The option, or the source of that name that a recipe gives. Throws Error(kUsage) if there is
/// neither.
std::string source_path(const WeightStageOptions& options, const Inputs& inputs);
/// Opens the source. Throws Error(kUnsupported) if a tensor is quantized and `dequantize` is off;
/// Error(kUsage) if the output is the source or eval_text is not a file.
std::shared_ptr<const Model> open_source(const WeightStageOptions& options, const Inputs& inputs);

/// What the model calls itself, else its file's or folder's name; so that an output's bytes do not
/// depend on where it is written.
std::string source_name(const Model& source);

/// What the program takes by itself: its code, the tokenizer in the shapes it is read and written
/// in.
uint64_t program_bytes(const Model& source);
/// Peak bytes of check and evaluation for the output of a plan, over what the program itself takes.
/// `window`: of the evaluation, in tokens; 0: as it is by default.
uint64_t cost_peak_bytes(const WeightStageOptions& options, const Model& source, const Plan& plan,
                         int64_t window = 0);
/// Seconds of the check and the evaluation; like `work_seconds`, from rates measured on one 2.5 GHz
/// Skylake core.
double cost_seconds(const WeightStageOptions& options, const Model& source);
/// Seconds of streaming the source at `nanoseconds` a weight and core, and of writing
/// `output_bytes`.
double work_seconds(const Model& source, double nanoseconds, uint64_t output_bytes);
/// 32 tokens of a file just written through the runtime, unless `check` says bytes. For
/// ModelWriter::finish.
void check_written(const WeightStageOptions& options, const Model& written, const Context& context);
/// The evaluation against the source; "not measured" without a text.
Json measure_cost(const WeightStageOptions& options, const Model& source, const std::string& output,
                  Context& context);
/// What measure_cost returned, as a line for people.
std::string cost_line(const Json& cost);
/// {"path", "hash", "size_bytes", "parameters"}, for a report's "inputs"; `hash` is content_hash().
Json model_facts(const Model& model, const std::string& hash);

}  // namespace slmc

#include "distill/candidates.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

/// Beside the output and, as its name decides what is written, with its ending.
std::string beside(const std::string& path, const char* what) {
  const std::string ending = ".gguf";
  const bool gguf = path.ends_with(ending);
  return cat(gguf ? path.substr(0, path.size() - ending.size()) : path, ".", what,
             gguf ? ending : "");
}

void replace(const std::string& from, const std::string& to) {
  std::error_code failed;
  fs::remove_all(to, failed);
  if (!failed) fs::rename(from, to, failed);
  if (failed) throw_resources(cat(to, ": cannot be replaced: ", failed.message()));
}

}  // namespace

Candidates::Candidates(const TrainingProduct& product, int64_t patience)
    : product_(product), patience_(patience) {}

double Candidates::figure(const Json& entry) {
  if (entry.contains("accuracy")) return -entry["accuracy"].get<double>();
  const Json& figures = entry.contains("against") ? entry["against"] : entry;
  for (const char* key : {"kld_mean", "distillation", "perplexity"})
    if (figures.contains(key))
      return figures[key].is_number() ? figures[key].get<double>()
                                      : std::numeric_limits<double>::infinity();
  return 0;
}

bool Candidates::is_better(const Json& entry) const {
  return best_step_ < 0 || figure(entry) < best_;
}

void Candidates::note(const Json& entry) {
  const bool better = is_better(entry);
  worse_ = better ? 0 : worse_ + 1;
  if (!better) return;
  best_ = figure(entry);
  best_step_ = entry.value("step", int64_t{0});
}

void Candidates::add(int64_t step, const WeightSource& trained,
                     const std::function<Json()>& instead) {
  const std::string candidate = beside(product_.path, "candidate"),
                    best = beside(product_.path, "best");
  if (!product_.measure && !instead) {
    product_.write(trained, candidate);
    best_step_ = step;
    replace(candidate, best);
    return;
  }
  Json entry{{"step", step}};
  if (instead) entry.update(instead());
  // Without the runtime's figures only the best needs to be written.
  if (product_.measure) {
    product_.write(trained, candidate);
    entry.update(product_.measure(candidate));
  }
  if (is_better(entry)) {
    if (!product_.measure) product_.write(trained, candidate);
    replace(candidate, best);
  } else if (product_.measure) {
    fs::remove_all(candidate);
  }
  // Once its file is there: a run that failed before measures again when it is resumed.
  measured_.push_back(entry);
  note(entry);
}

void Candidates::restore(const Json& measured) {
  measured_ = measured;
  for (const Json& entry : measured_) note(entry);
}

std::string Candidates::last_text() const {
  if (measured_.empty()) return "";
  const Json& last = measured_.back();
  const auto number = [](const Json& json, const char* key, int digits) {
    return json.contains(key) && json[key].is_number() ? fixed(json[key].get<double>(), digits)
                                                       : std::string("not finite");
  };
  if (last.contains("accuracy"))
    return cat("accuracy ", fixed(100.0 * last["accuracy"].get<double>(), 2), "%, F1 ",
               fixed(100.0 * last["macro_f1"].get<double>(), 2), "%, cross-entropy ",
               number(last, "cross_entropy", 4));
  std::string text = cat("perplexity ", number(last, "perplexity", 3));
  if (last.contains("against")) text += cat(", KLD ", number(last["against"], "kld_mean", 4));
  if (last.contains("distillation"))
    text += cat(", distillation ", number(last, "distillation", 4));
  return text;
}

void Candidates::finish() { replace(beside(product_.path, "best"), product_.path); }

}  // namespace slmc

#include "quantize/sensitivity_journal.h"

#include <filesystem>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {

SensitivityJournal::SensitivityJournal(std::string path, const std::string& binding, bool resume)
    : path_(std::move(path)) {
  if (path_.empty()) return;
  const std::string title = cat("slmc sensitivity journal 1 ", binding, "\n");
  std::string kept = title;
  if (resume && std::filesystem::exists(path_)) {
    const std::string text = read_text(path_);
    size_t at = text.starts_with(title) ? title.size() : text.size();
    for (size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
      const Json entry = Json::parse(text.substr(at, end - at), nullptr, false);
      if (!entry.is_object()) break;
      keep(entry);
      kept += entry.dump() + "\n";
    }
  }
  out_.open(path_, std::ios::trunc);
  out_ << kept << std::flush;
  if (!out_) throw_resources(cat(path_, ": cannot be written; is the disk full?"));
}

const Json* SensitivityJournal::errors(const std::string& tensor) const {
  const auto found = errors_.find(tensor);
  return found == errors_.end() ? nullptr : &found->second;
}

const Json* SensitivityJournal::divergences(int64_t window, int64_t stage) const {
  const auto found = divergences_.find({window, stage});
  return found == divergences_.end() ? nullptr : &found->second;
}

void SensitivityJournal::add(const Json& entry) {
  if (path_.empty()) return;
  out_ << entry.dump() << "\n" << std::flush;
  if (!out_) throw_resources(cat(path_, ": cannot be written; is the disk full?"));
}

void SensitivityJournal::keep(const Json& entry) {
  if (entry.contains("errors")) {
    errors_[entry.at("errors").get<std::string>()] = entry;
  } else if (entry.contains("window")) {
    divergences_[{entry.at("window").get<int64_t>(), entry.at("stage").get<int64_t>()}] =
        entry.at("divergences");
  }
}

}  // namespace slmc

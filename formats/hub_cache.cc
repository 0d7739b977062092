#include "formats/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

std::string& cache_folder() {
  static std::string folder;
  return folder;
}

/// "NAME" or "ORG/NAME" in the hub's alphabet, and not a file's name.
bool looks_like_name(const std::string& text) {
  if (text.empty() || std::count(text.begin(), text.end(), '/') > 1) return false;
  if (!std::isalnum(static_cast<unsigned char>(text.front())) || text.back() == '/') return false;
  for (const char* ending : {".gguf", ".safetensors", ".bin", ".json"}) {
    if (text.ends_with(ending)) return false;
  }
  return std::all_of(text.begin(), text.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
           c == '/';
  });
}

/// True for a name that is to be looked up.
bool may_be_name(const std::string& text) {
  std::error_code error;
  return !cache_folder().empty() && !fs::exists(text, error) && looks_like_name(text);
}

std::string trimmed(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  return text;
}

/// The folder of files of one model, or "".
std::string snapshot(const fs::path& model) {
  std::error_code error;
  if (fs::is_regular_file(model / "refs" / "main", error)) {
    const fs::path named =
        model / "snapshots" / trimmed(read_text((model / "refs" / "main").string()));
    if (fs::is_directory(named, error)) return named.string();
  }
  std::vector<std::string> all;
  for (const auto& entry : fs::directory_iterator(model / "snapshots", error))
    if (entry.is_directory(error)) all.push_back(entry.path().string());
  return all.size() == 1 ? all.front() : "";
}

}  // namespace

void set_hub_cache(const std::string& folder) { cache_folder() = folder; }

std::string hub_cache_folder(const char* hub_cache, const char* hf_home, const char* home) {
  if (hub_cache != nullptr && *hub_cache != '\0') return hub_cache;
  if (hf_home != nullptr && *hf_home != '\0') return std::string(hf_home) + "/hub";
  return home != nullptr ? std::string(home) + "/.cache/huggingface/hub" : "";
}

std::string find_in_hub_cache(const std::string& name) {
  if (!may_be_name(name)) return "";
  std::string folder = "models--" + name;
  if (const size_t slash = folder.find('/'); slash != std::string::npos)
    folder.replace(slash, 1, "--");
  return snapshot(fs::path(cache_folder()) / folder);
}

std::string resolve_model_path(const std::string& path) {
  if (!may_be_name(path)) return path;
  const std::string found = find_in_hub_cache(path);
  if (!found.empty()) return found;
  throw_bad_input(cat(path, ": not a file or folder here, nor a model in the Hugging Face cache (",
                      cache_folder(), "); to download it: hf download ", path));
}

}  // namespace slmc

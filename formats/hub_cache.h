// Models by their name on the Hugging Face hub, from the cache that its tools keep on this machine.
#pragma once

#include <string>

namespace slmc {

/// The folder with "models--ORG--NAME" in it. Set by programs before models are opened; empty:
/// names are not looked up.
void set_hub_cache(const std::string& folder);
/// By HF_HUB_CACHE, HF_HOME and HOME, of which null ones are not set.
std::string hub_cache_folder(const char* hub_cache, const char* hf_home, const char* home);

/// The folder of files of the model that the cache has by this name, as resolve_model_path finds
/// it; "" if there is none, or if `name` is a path that exists.
std::string find_in_hub_cache(const std::string& name);

/// `path` if it exists; else, if it looks like "NAME" or "ORG/NAME", the snapshot that the cache's
/// refs/main names, or its only one. Throws Error(kBadInput) with the command that downloads it
/// when it is neither.
std::string resolve_model_path(const std::string& path);

}  // namespace slmc

// What a run leaves on the disk only for as long as it works.
#pragma once

#include <filesystem>
#include <string>
#include <utility>

namespace slmc {

/// A file or folder beside the output that is removed when its scope is left, however, unless it is
/// kept for resuming. A killed run cannot.
class ScratchFile {
 public:
  ScratchFile(std::string path, bool keep) : path_(std::move(path)), keep_(keep) {}
  ~ScratchFile() {
    std::error_code error;
    if (!keep_) std::filesystem::remove_all(path_, error);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  void finished() { keep_ = false; }
  void keep() { keep_ = true; }

 private:
  std::string path_;
  bool keep_;
};

}  // namespace slmc

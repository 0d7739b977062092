// Outputs that appear whole or not at all: written beside their final name with the suffix
// ".partial", synced, renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace slmc {

/// `path` without the slashes at its end ("/" stays): the name beside which partial files lie.
std::string without_trailing_slash(std::string path);

/// One file. The destructor removes the partial file unless `commit` ran or `keep` was called (a
/// resumable writer keeps it).
class AtomicFile {
 public:
  /// Creates "<path>.partial" (or opens it as it is with `reopen`). Throws Error(kResources) when
  /// the disk or permissions do not allow it.
  explicit AtomicFile(std::string path, bool reopen = false);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Reserves disk space, so that a full disk is found before the work. Throws Error(kResources).
  void reserve(uint64_t bytes);
  void write_at(uint64_t offset, const void* data, size_t size);
  void append(const void* data, size_t size);
  uint64_t size() const { return size_; }
  /// fsync.
  void sync();
  /// fsync, rename to the final name, fsync of the folder.
  void commit();
  void keep() { keep_ = true; }
  const std::string& partial_path() const { return partial_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_, partial_;
  int fd_ = -1;
  uint64_t size_ = 0;
  bool keep_ = false;
  bool done_ = false;
};

/// Seconds that this process has waited for disks to make files durable. A report states them
/// apart: they say more about the disk than about the work.
double synced_seconds();

/// Writes `text` atomically.
void write_text(const std::string& path, std::string_view text);

/// A folder written as "<path>.partial/" and renamed as a whole; an old folder of that name is
/// replaced only with `force`.
class AtomicFolder {
 public:
  /// `reopen` keeps what a killed run left in the partial folder.
  AtomicFolder(std::string path, bool force, bool reopen = false);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  const std::string& partial_path() const { return partial_; }
  void keep() { keep_ = true; }
  void commit();

 private:
  /// Puts the new folder in the old one's place; returns where the old one is now.
  std::string replace() const;
  std::string path_, partial_;
  bool force_ = false, keep_ = false, done_ = false;
};

/// Throws Error(kUsage) if `path` exists and `force` is false; Error(kUsage) if its parent folder
/// does not exist.
void check_output(const std::string& path, bool force);

}  // namespace slmc

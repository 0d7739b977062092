#include "compress/core/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/system.h"
#include "compress/core/text.h"

namespace slmc {
namespace fs = std::filesystem;
namespace {

// A rename is durable once its folder is synced.
void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  ::close(fd);
}

std::atomic<double> waited_for_disk{0};

}  // namespace

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

double synced_seconds() { return waited_for_disk; }

AtomicFile::AtomicFile(std::string path, bool reopen)
    : path_(std::move(path)), partial_(path_ + ".partial") {
  fd_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (reopen ? 0 : O_TRUNC), 0644);
  if (fd_ < 0) throw_resources(cat(partial_, ": cannot create: ", std::strerror(errno)));
  struct stat status {};
  if (fstat(fd_, &status) == 0) size_ = static_cast<uint64_t>(status.st_size);
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!done_ && !keep_) unlink(partial_.c_str());
}

void AtomicFile::reserve(uint64_t bytes) {
  if (bytes == 0) return;
  const int error = posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  if (error == ENOSPC || error == EFBIG)
    throw_resources(cat(partial_, ": no room for ", human_bytes(bytes), " on this disk"));
  if (bytes > size_) size_ = bytes;
}

void AtomicFile::write_at(uint64_t offset, const void* data, size_t size) {
  const auto* bytes = static_cast<const char*>(data);
  size_t done = 0;
  while (done < size) {
    const ssize_t count = pwrite(fd_, bytes + done, size - done, static_cast<off_t>(offset + done));
    if (count < 0) {
      if (errno == EINTR) continue;
      throw_resources(
          cat(partial_, ": cannot write at byte ", offset + done, ": ", std::strerror(errno)));
    }
    done += static_cast<size_t>(count);
  }
  if (offset + size > size_) size_ = offset + size;
}

void AtomicFile::append(const void* data, size_t size) { write_at(size_, data, size); }

void AtomicFile::sync() {
  const double start = now_seconds();
  if (fsync(fd_) != 0) throw_resources(cat(partial_, ": cannot sync: ", std::strerror(errno)));
  waited_for_disk += now_seconds() - start;
}

void AtomicFile::commit() {
  sync();
  ::close(fd_);
  fd_ = -1;
  if (rename(partial_.c_str(), path_.c_str()) != 0)
    throw_resources(cat(path_, ": cannot rename to: ", std::strerror(errno)));
  done_ = true;
  sync_folder(fs::path(path_).parent_path());
}

void write_text(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.append(text.data(), text.size());
  file.commit();
}

AtomicFolder::AtomicFolder(std::string path, bool force, bool reopen)
    : path_(without_trailing_slash(std::move(path))), partial_(path_ + ".partial"), force_(force) {
  check_output(path_, force);
  std::error_code error;
  if (!reopen) fs::remove_all(partial_, error);
  fs::create_directories(partial_, error);
  if (error) throw_resources(cat(partial_, ": cannot create: ", error.message()));
}

AtomicFolder::~AtomicFolder() {
  std::error_code error;
  if (!done_ && !keep_) fs::remove_all(partial_, error);
}

void AtomicFolder::commit() {
  sync_folder(partial_);
  std::error_code error;
  std::string old;
  if (fs::exists(path_, error)) {
    if (!force_) throw_usage(cat(path_, ": exists; --force replaces it"));
    old = replace();
  } else {
    fs::rename(partial_, path_, error);
    if (error) throw_resources(cat(path_, ": cannot rename to: ", error.message()));
  }
  done_ = true;
  if (!old.empty()) fs::remove_all(old, error);
  sync_folder(fs::path(path_).parent_path());
}

std::string AtomicFolder::replace() const {
  // One step where the file system can exchange two names, so that a kill in between leaves the old
  // or the new, never none.
  if (renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0)
    return partial_;
  std::error_code error;
  const std::string old = path_ + ".old.partial";
  fs::remove_all(old, error);
  fs::rename(path_, old, error);
  if (error) throw_resources(cat(path_, ": cannot move aside: ", error.message()));
  fs::rename(partial_, path_, error);
  if (error) throw_resources(cat(path_, ": cannot rename to: ", error.message()));
  return old;
}

void check_output(const std::string& path, bool force) {
  std::error_code error;
  const fs::path target = without_trailing_slash(path);
  const fs::path parent = target.parent_path();
  if (!parent.empty() && !fs::is_directory(parent, error)) {
    throw_usage(cat(path, ": the folder ", parent.string(), " does not exist; create it first"));
  }
  if (fs::exists(target, error) && !force)
    throw_usage(cat(path, ": exists; choose another name or give --force to replace it"));
}

}  // namespace slmc

#include "formats/write_journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "compress/core/error.h"
#include "compress/core/mapped_file.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

constexpr const char* kTitle = "slmc writer journal 1 ";

}  // namespace

std::map<std::string, std::string> WriteJournal::read(const std::string& path,
                                                      const std::string& binding) {
  std::map<std::string, std::string> done;
  if (!std::filesystem::exists(path)) return done;
  const std::string text = read_text(path);
  const std::string title = kTitle + binding + "\n";
  if (!text.starts_with(title)) return done;
  for (size_t at = title.size();;) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) return done;
    const size_t space = text.find(' ', at);
    if (space == std::string::npos || end - space != 33) return done;
    done[text.substr(at, space - at)] = text.substr(space + 1, 32);
    at = end + 1;
  }
}

WriteJournal::WriteJournal(std::string path, const std::string& binding,
                           const std::map<std::string, std::string>& done)
    : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0) throw_resources(cat(path_, ": cannot create: ", std::strerror(errno)));
  std::string text = kTitle + binding + "\n";
  for (const auto& [tensor, hash] : done) text += tensor + " " + hash + "\n";
  if (::write(fd_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw_resources(cat(path_, ": cannot write: ", std::strerror(errno)));
}

WriteJournal::~WriteJournal() {
  if (fd_ >= 0) ::close(fd_);
}

void WriteJournal::add(const std::string& tensor, const std::string& hash) {
  const std::string line = tensor + " " + hash + "\n";
  if (::write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size()))
    throw_resources(cat(path_, ": cannot write: ", std::strerror(errno)));
}

void WriteJournal::remove() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  ::unlink(path_.c_str());
}

}  // namespace slmc

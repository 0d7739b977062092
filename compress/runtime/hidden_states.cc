#include "compress/runtime/hidden_states.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

HiddenStates::HiddenStates(std::vector<int64_t> tokens, int64_t hidden, const std::string& folder)
    : tokens_(std::move(tokens)), hidden_(hidden) {
  uint64_t total = 0;
  for (const int64_t count : tokens_) {
    offsets_.push_back(total);
    total += static_cast<uint64_t>(count * hidden);
  }
  if (folder.empty()) {
    memory_.resize(total);
    return;
  }
  std::string path = folder + "/.slmc-hidden-XXXXXX";
  fd_ = mkstemp(path.data());
  if (fd_ < 0)
    throw_resources(
        cat(folder, ": no room for the windows' hidden states: ", std::strerror(errno)));
  unlink(path.c_str());  // Gone with the process, however that ends.
}

HiddenStates::~HiddenStates() {
  if (fd_ >= 0) ::close(fd_);
}

void HiddenStates::read(int64_t window, std::vector<float>& out) const {
  const auto at = static_cast<size_t>(window);
  out.resize(static_cast<size_t>(tokens_[at] * hidden_));
  if (fd_ < 0) {
    std::copy_n(memory_.begin() + static_cast<int64_t>(offsets_[at]), out.size(), out.begin());
    return;
  }
  auto* bytes = reinterpret_cast<char*>(out.data());
  for (size_t done = 0; done < out.size() * sizeof(float);) {
    const ssize_t got = ::pread(fd_, bytes + done, out.size() * sizeof(float) - done,
                                static_cast<off_t>(offsets_[at] * sizeof(float) + done));
    if (got <= 0)
      throw_resources(cat("the windows' hidden states cannot be read back: ",
                          got < 0 ? std::strerror(errno) : "the file is short"));
    done += static_cast<size_t>(got);
  }
}

void HiddenStates::write(int64_t window, const std::vector<float>& x) {
  const auto at = static_cast<size_t>(window);
  SLMC_CHECK(x.size() == static_cast<size_t>(tokens_[at] * hidden_), "a window keeps its size");
  if (fd_ < 0) {
    std::copy(x.begin(), x.end(), memory_.begin() + static_cast<int64_t>(offsets_[at]));
    return;
  }
  const auto* bytes = reinterpret_cast<const char*>(x.data());
  for (size_t done = 0; done < x.size() * sizeof(float);) {
    const ssize_t put = ::pwrite(fd_, bytes + done, x.size() * sizeof(float) - done,
                                 static_cast<off_t>(offsets_[at] * sizeof(float) + done));
    if (put <= 0)
      throw_resources(cat("the windows' hidden states cannot be written: ", std::strerror(errno),
                          "; is the disk full?"));
    done += static_cast<size_t>(put);
  }
}

}  // namespace slmc

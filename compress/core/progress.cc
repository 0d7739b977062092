#include "compress/core/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "compress/core/system.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

class SilentProgress : public Progress {
 public:
  void begin(const std::string&, uint64_t, const std::string&, uint64_t) override {}
  void update(uint64_t, const std::string&) override {}
  void end(const std::string&) override {}
  void note(const std::string&) override {}
};

// Shared by the bar and the log: what a task is, how far it got, and how long it may still take.
class StderrProgress : public Progress {
 public:
  explicit StderrProgress(bool terminal) : terminal_(terminal) {}
  ~StderrProgress() override { clear(); }

  void begin(const std::string& task, uint64_t total, const std::string& unit,
             uint64_t known) override {
    task_ = task, unit_ = unit, total_ = total, done_ = known_ = known;
    start_ = shown_ = now_seconds();
    if (!terminal_) std::fprintf(stderr, "%s\n", task_.c_str());
  }

  void update(uint64_t done, const std::string& detail) override {
    done_ = std::max(done, known_);  // What is known may also come between.
    const double now = now_seconds();
    if (now - shown_ < (terminal_ ? 0.1 : 10.0)) return;
    shown_ = now;
    draw(detail, now);
  }

  void end(const std::string& summary) override {
    clear();
    const double seconds = now_seconds() - start_;
    if (!summary.empty())
      std::fprintf(stderr, "%s: %s (%s)\n", task_.c_str(), summary.c_str(),
                   human_seconds(seconds).c_str());
  }

  void note(const std::string& line) override {
    clear();
    std::fprintf(stderr, "%s\n", line.c_str());
  }

 private:
  void draw(const std::string& detail, double now) {
    std::string text = task_ + " ";
    if (total_ > 0) {
      const double share = std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
      if (terminal_) {
        const auto filled = static_cast<size_t>(share * 20);
        text += "[" + std::string(filled, '#') + std::string(20 - filled, '.') + "] ";
      }
      text += fmt::format("{:.0f}% ", share * 100);
    }
    text += progress_text({total_, done_, known_, now - start_}, unit_);
    if (!detail.empty()) text += ", " + detail;
    if (!terminal_) {
      std::fprintf(stderr, "%s\n", text.c_str());
      return;
    }
    winsize size{};
    const size_t width =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
    if (text.size() > width) text.resize(width);
    std::fprintf(stderr, "\r\033[K%s", text.c_str());
    std::fflush(stderr);
    drawn_ = true;
  }

  void clear() {
    if (drawn_) std::fprintf(stderr, "\r\033[K");
    drawn_ = false;
  }

  bool terminal_;
  bool drawn_ = false;
  std::string task_, unit_;
  uint64_t total_ = 0, done_ = 0, known_ = 0;
  double start_ = 0, shown_ = 0;
};

}  // namespace

std::string progress_text(const ProgressState& state, const std::string& unit) {
  const auto [total, done, known, seconds] = state;
  std::string text = cat(human_count(done), total > 0 ? "/" + human_count(total) : "", " ", unit);
  const double rate = seconds > 0 ? static_cast<double>(done - known) / seconds : 0;
  if (rate > 0)
    text += cat(", ", rate >= 10 ? human_count(static_cast<uint64_t>(rate)) : fixed(rate, 2), "/s");
  if (rate > 0 && total > done)
    text += ", " + human_seconds(static_cast<double>(total - done) / rate) + " left";
  return text;
}

std::unique_ptr<Progress> make_progress(int verbosity) {
  if (verbosity < 0) return make_silent_progress();
  return std::make_unique<StderrProgress>(isatty(STDERR_FILENO) != 0);
}

std::unique_ptr<Progress> make_silent_progress() { return std::make_unique<SilentProgress>(); }

}  // namespace slmc

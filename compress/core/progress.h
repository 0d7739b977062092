// Progress of long work: a bar with rate and time left on a terminal, plain lines in a log, nothing
// when quiet. Libraries report through this interface and never print themselves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace slmc {

class Progress {
 public:
  virtual ~Progress() = default;
  /// Starts a task of `total` units (`unit`: "tensors", "tokens", "steps"), 0: unknown, of which
  /// `known` were done before.
  virtual void begin(const std::string& task, uint64_t total, const std::string& unit,
                     uint64_t known = 0) = 0;
  /// `done` units so far; `detail` is shown behind ("loss 2.31").
  virtual void update(uint64_t done, const std::string& detail = "") = 0;
  virtual void end(const std::string& summary = "") = 0;
  /// A line for the reader, apart from the bar.
  virtual void note(const std::string& line) = 0;
};

/// How far a task is.
struct ProgressState {
  uint64_t total = 0, done = 0;
  uint64_t known = 0;  ///< Of those done, what was there when the task began.
  double seconds = 0;  ///< Since then.
};
/// "4,096/10,240 tokens, 512/s, 12 s left".
std::string progress_text(const ProgressState& state, const std::string& unit);

/// Writes to stderr: a bar when stderr is a terminal, else a line every 10 s; `verbosity` < 0 gives
/// a silent one.
std::unique_ptr<Progress> make_progress(int verbosity);
std::unique_ptr<Progress> make_silent_progress();

}  // namespace slmc

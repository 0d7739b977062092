// The record of what a writer has finished, for going on after a kill: one line a tensor, appended
// once its bytes are written.
#pragma once

#include <map>
#include <string>

namespace slmc {

class WriteJournal {
 public:
  /// What a journal bound to `binding` (a hash of the output's header) says is done: tensor to
  /// hash. Empty when there is no journal, it is bound to something else, or it is damaged; a last
  /// line without its end is passed over.
  static std::map<std::string, std::string> read(const std::string& path,
                                                 const std::string& binding);

  /// Starts a journal anew with `done` in it.
  WriteJournal(std::string path, const std::string& binding,
               const std::map<std::string, std::string>& done);
  ~WriteJournal();
  WriteJournal(const WriteJournal&) = delete;
  WriteJournal& operator=(const WriteJournal&) = delete;
  /// Throws Error(kResources) when it cannot be written.
  void add(const std::string& tensor, const std::string& hash);
  void remove();

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace slmc

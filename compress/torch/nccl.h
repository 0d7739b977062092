// NVIDIA's NCCL, for what ranks exchange that have a GPU each. It comes with a LibTorch that has
// CUDA and is opened at run time by the few functions of its C interface (NCCL's documentation,
// "NCCL API"), so that one build of slmc serves LibTorches with and without it.
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

namespace slmc::libtorch {

struct NcclFunctions;

/// The library: opened once, never closed.
class Nccl {
 public:
  /// `path`: empty for the one that LibTorch has brought. Throws Error(kUnsupported) if there is
  /// none.
  explicit Nccl(const std::string& path);
  const NcclFunctions& operator*() const { return *functions_; }
  /// "2.29.7".
  std::string version() const;
  /// Of a stand-in for tests: its calls take tensors of the cpu.
  bool on_cpu() const { return on_cpu_; }
  /// What all ranks must give to meet; rank 0 makes it.
  std::string new_id() const;

 private:
  std::shared_ptr<const NcclFunctions> functions_;
  bool on_cpu_ = false;
};

/// One rank's connection to the others. Calls only start; they are over when `done` says so, and
/// their tensors must live until then. All throw std::runtime_error when another rank cannot be
/// reached, Error(kResources) when NCCL fails otherwise.
class NcclLink {
 public:
  /// Waits for the others, and lets each kind of call go once, since NCCL connects, and waits, at
  /// the first.
  NcclLink(Nccl nccl, const std::string& id, int rank, int size, at::Device device);
  /// All ranks must end theirs; of a group that is lost, or that this rank leaves alone, it is not
  /// to be destroyed.
  ~NcclLink();
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  /// `mine` of every rank, one behind the other, in `all`; float32 on the device, as below.
  void gather(const at::Tensor& mine, const at::Tensor& all);
  /// Piece r of `out` goes to rank r, piece r of `in` comes from it.
  void exchange(const at::Tensor& out, const std::vector<int64_t>& out_counts, const at::Tensor& in,
                const std::vector<int64_t>& in_counts);
  void from_first(const at::Tensor& values);
  bool done() const;

 private:
  void check(int code, const char* call) const;
  void try_all(int size);

  const Nccl nccl_;
  const at::Device device_;
  void* link_ = nullptr;
};

}  // namespace slmc::libtorch

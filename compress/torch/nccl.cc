#include "compress/torch/nccl.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <array>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc::libtorch {
namespace {

// As nccl.h has them since version 2.
using NcclId = std::array<char, 128>;  // Passed by value, as a struct of 128 bytes is.
enum Code { kSuccess = 0, kSystemError = 2, kRemoteError = 6, kInProgress = 7 };
constexpr int kFloat32 = 7;
/// LibTorch's own stream unless a program takes another, which nothing here does.
constexpr void* kDefaultStream = nullptr;

}  // namespace

struct NcclFunctions {
  int (*ncclGetVersion)(int*);
  int (*ncclGetUniqueId)(NcclId*);
  int (*ncclCommInitRank)(void**, int, NcclId, int);
  int (*ncclCommDestroy)(void*);
  int (*ncclCommGetAsyncError)(void*, int*);
  const char* (*ncclGetErrorString)(int);
  int (*ncclAllGather)(const void*, void*, size_t, int, void*, void*);
  int (*ncclBroadcast)(const void*, void*, size_t, int, int, void*, void*);
  int (*ncclSend)(const void*, size_t, int, int, void*, void*);
  int (*ncclRecv)(void*, size_t, int, int, void*, void*);
  int (*ncclGroupStart)();
  int (*ncclGroupEnd)();
};

Nccl::Nccl(const std::string& path) {
  const char* const name = path.empty() ? "libnccl.so.2" : path.c_str();
  void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL | (path.empty() ? RTLD_NOLOAD : 0));
  if (library == nullptr)
    throw_unsupported(path.empty() ? "this LibTorch has no NCCL"
                                   : cat("SLMC_NCCL: it cannot be opened: ", dlerror()));
  auto functions = std::make_shared<NcclFunctions>();
  const auto find = [&](const char* symbol, auto& function) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
    if (function == nullptr) throw_unsupported(cat(name, " has no ", symbol, ": is it NCCL?"));
  };
#define SLMC_FIND(symbol) find(#symbol, functions->symbol)
  SLMC_FIND(ncclGetVersion);
  SLMC_FIND(ncclGetUniqueId);
  SLMC_FIND(ncclCommInitRank);
  SLMC_FIND(ncclCommDestroy);
  SLMC_FIND(ncclCommGetAsyncError);
  SLMC_FIND(ncclGetErrorString);
  SLMC_FIND(ncclAllGather);
  SLMC_FIND(ncclBroadcast);
  SLMC_FIND(ncclSend);
  SLMC_FIND(ncclRecv);
  SLMC_FIND(ncclGroupStart);
  SLMC_FIND(ncclGroupEnd);
#undef SLMC_FIND
  on_cpu_ = dlsym(library, "slmc_fake_nccl") != nullptr;
  functions_ = std::move(functions);
}

std::string Nccl::version() const {
  int number = 0;
  functions_->ncclGetVersion(&number);
  return cat(number / 10000, ".", number / 100 % 100, ".", number % 100);
}

std::string Nccl::new_id() const {
  NcclId id{};
  if (const int code = functions_->ncclGetUniqueId(&id); code != kSuccess)
    throw_resources(cat("NCCL: ", functions_->ncclGetErrorString(code), " (ncclGetUniqueId)"));
  return {id.begin(), id.end()};
}

NcclLink::NcclLink(Nccl nccl, const std::string& id, int rank, int size, at::Device device)
    : nccl_(std::move(nccl)), device_(device) {
  NcclId same{};
  SLMC_CHECK(id.size() == same.size(), "rank 0 has made the id");
  std::memcpy(same.data(), id.data(), id.size());
  const c10::DeviceGuard here(device_);
  check((*nccl_).ncclCommInitRank(&link_, size, same, rank), "ncclCommInitRank");
  try_all(size);
}

void NcclLink::try_all(int size) {
  const at::Tensor one = at::zeros({1}, at::TensorOptions(device_).dtype(at::kFloat));
  const at::Tensor out = at::zeros({size}, one.options()), in = at::empty({size}, one.options());
  const std::vector<int64_t> counts(static_cast<size_t>(size), 1);
  const auto wait = [this] {
    while (!done()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  from_first(one);
  wait();
  gather(one, in);
  wait();
  exchange(out, counts, in, counts);
  wait();
}

NcclLink::~NcclLink() {
  if (link_ != nullptr) (*nccl_).ncclCommDestroy(link_);
}

void NcclLink::check(int code, const char* call) const {
  if (code == kSuccess || code == kInProgress) return;
  const std::string what = cat("NCCL: ", (*nccl_).ncclGetErrorString(code), " (", call, ")");
  if (code == kRemoteError || code == kSystemError) throw std::runtime_error(what);
  throw_resources(what);
}

void NcclLink::gather(const at::Tensor& mine, const at::Tensor& all) {
  const c10::DeviceGuard here(device_);
  check((*nccl_).ncclAllGather(mine.data_ptr(), all.data_ptr(), static_cast<size_t>(mine.numel()),
                               kFloat32, link_, kDefaultStream),
        "ncclAllGather");
}

void NcclLink::exchange(const at::Tensor& out, const std::vector<int64_t>& out_counts,
                        const at::Tensor& in, const std::vector<int64_t>& in_counts) {
  const c10::DeviceGuard here(device_);
  const float* from = out.data_ptr<float>();
  float* to = in.data_ptr<float>();
  check((*nccl_).ncclGroupStart(), "ncclGroupStart");
  for (size_t rank = 0; rank < out_counts.size(); ++rank) {
    const auto sent = static_cast<size_t>(out_counts[rank]),
               received = static_cast<size_t>(in_counts[rank]);
    const int peer = static_cast<int>(rank);
    if (sent > 0)
      check((*nccl_).ncclSend(from, sent, kFloat32, peer, link_, kDefaultStream), "ncclSend");
    if (received > 0)
      check((*nccl_).ncclRecv(to, received, kFloat32, peer, link_, kDefaultStream), "ncclRecv");
    from += sent;
    to += received;
  }
  check((*nccl_).ncclGroupEnd(), "ncclGroupEnd");
}

void NcclLink::from_first(const at::Tensor& values) {
  const c10::DeviceGuard here(device_);
  check((*nccl_).ncclBroadcast(values.data_ptr(), values.data_ptr(),
                               static_cast<size_t>(values.numel()), kFloat32, 0, link_,
                               kDefaultStream),
        "ncclBroadcast");
}

bool NcclLink::done() const {
  int code = kSuccess;
  check((*nccl_).ncclCommGetAsyncError(link_, &code), "ncclCommGetAsyncError");
  check(code, "of a call under way");
  const c10::impl::VirtualGuardImpl device(device_.type());
  return code != kInProgress && device.queryStream(device.getStream(device_));
}

}  // namespace slmc::libtorch

#include "compress/torch/device_sums.h"

#include <algorithm>
#include <functional>

#include "compress/core/parallel.h"

namespace slmc::libtorch {
namespace {

// Channels that are summed together. On a CPU one thread does a piece, on a GPU all of it does.
constexpr int64_t kCpuPiece = 128, kGpuPiece = 2048;

/// body(first, count) over [0, width) in pieces.
void for_pieces(at::Device device, int64_t width,
                const std::function<void(int64_t, int64_t)>& body) {
  if (device.is_cpu()) {
    parallel_ranges(width, kCpuPiece, [&](int64_t begin, int64_t end) {
      const at::NoGradGuard no_grad;
      body(begin, end - begin);
    });
    return;
  }
  for (int64_t first = 0; first < width; first += kGpuPiece)
    body(first, std::min(kGpuPiece, width - first));
}

}  // namespace

DeviceSums::DeviceSums(InputStatistics& statistics, int64_t height, at::Device device)
    : statistics_(statistics), device_(device) {
  const InputStatistics::Sums sums = statistics.sums(height);
  const int64_t width = statistics.width();
  values_ = buffer(sums.values, {width}, 1, at::kDouble);
  squares_ = buffer(sums.squares, {width}, 1, at::kDouble);
  magnitudes_ = buffer(sums.magnitudes, {width}, 1, at::kDouble);
  peaks_ = buffer(sums.peaks, {width}, 1, at::kFloat);
  if (sums.products != nullptr)
    products_ = buffer(sums.products, {width, width}, sums.stride, at::kFloat);
  if (sums.cross != nullptr) cross_ = buffer(sums.cross, {height, width}, sums.stride, at::kFloat);
}

DeviceSums::Buffer DeviceSums::buffer(void* data, at::IntArrayRef sizes, int64_t stride,
                                      at::ScalarType type) const {
  const at::Tensor host = sizes.size() == 1 ? at::from_blob(data, sizes, type)
                                            : at::from_blob(data, sizes, {stride, 1}, type);
  return {host, host.to(device_)};
}

void DeviceSums::add(const at::Tensor& x) {
  const int64_t tokens = x.size(0), width = x.size(1);
  for_pieces(device_, width, [&](int64_t first, int64_t count) {
    const auto piece = [&](const Buffer& of) { return of.sum.narrow(0, first, count); };
    const at::Tensor part = x.narrow(1, first, count), exact = part.to(at::kDouble);
    piece(values_).add_(exact.sum(0));
    piece(squares_).add_(exact.square().sum(0));
    piece(magnitudes_).add_(exact.abs().sum(0));
    piece(peaks_).copy_(at::maximum(piece(peaks_), part.abs().amax(0)));
    if (!products_.sum.defined()) return;
    // From the diagonal on: the rest is its mirror image.
    piece(products_)
        .narrow(1, first, width - first)
        .addmm_(part.t(), x.narrow(1, first, width - first));
  });
  if (!at::isfinite(magnitudes_.sum).all().item<bool>()) {
    const at::Tensor rows = x.to(at::kCPU).contiguous();
    statistics_.check(rows.data_ptr<float>(), tokens);
  }
  if (statistics_.counts_magnitudes()) {
    const at::Tensor rows = x.to(at::kCPU).contiguous();
    statistics_.count(rows.data_ptr<float>(), tokens);
  }
  statistics_.added(tokens, 0);
}

void DeviceSums::add_cross(const at::Tensor& difference, const at::Tensor& x) {
  for_pieces(device_, difference.size(1), [&](int64_t first, int64_t count) {
    cross_.sum.narrow(0, first, count).addmm_(difference.narrow(1, first, count).t(), x);
  });
  statistics_.added(0, x.size(0));
}

void DeviceSums::finish() {
  if (device_.is_cpu()) return;
  for (const Buffer* buffer : {&values_, &squares_, &magnitudes_, &peaks_, &products_, &cross_})
    if (buffer->sum.defined()) buffer->host.copy_(buffer->sum);
}

}  // namespace slmc::libtorch

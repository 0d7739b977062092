#include "formats/verify.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/text.h"
#include "formats/block_codec.h"
#include "formats/model.h"
#include "formats/safetensors.h"
#include "formats/tokenizer/tokenizer.h"

namespace slmc {
namespace {

constexpr int64_t kPieceElements = 1 << 20;

/// Rows are checked in pieces, so that pages can be dropped behind.
template <typename Release>
void check_values(const TensorView& view, const std::string& where, const Release& release) {
  const int64_t columns = view.columns();
  if (view.elements() == 0) return;
  const int64_t step = std::max<int64_t>(1, kPieceElements / columns);
  for (int64_t start = 0; start < view.rows(); start += 16 * step) {
    const int64_t end = std::min(view.rows(), start + 16 * step);
    parallel_ranges(end - start, step, [&](int64_t from, int64_t to) {
      std::vector<float> values(static_cast<size_t>(columns));
      for (int64_t row = start + from; row < start + to; ++row) {
        decode_rows(view, row, 1, values.data());
        for (int64_t i = 0; i < columns; ++i) {
          const float value = values[static_cast<size_t>(i)];
          if (!std::isfinite(value))
            throw_bad_input(cat(where, ": row ", row, ", column ", i, " is ", value,
                                "; expected a finite number"));
        }
      }
    });
    release();
  }
}

Json verify_one_file(const std::string& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const SafetensorsEntry& entry : file.tensors) {
    if (!dtype_is_float(entry.dtype)) continue;
    const TensorView view{file.file->data() + entry.offset, entry.dtype, entry.shape, file.file};
    check_values(view, cat(path, ": tensor ", entry.name),
                 [&] { file.file->drop(entry.offset, entry.bytes); });
  }
  return {{"path", path},
          {"tensors", file.tensors.size()},
          {"size_bytes", file.file->size()},
          {"finite", true},
          {"hashes", "none"}};
}

std::string check_hashes(const Model& model) {
  const auto stored = model.stored_hashes();
  if (stored.empty()) return "none";
  for (const auto& [name, hash] : stored) {
    if (!model.has(name))
      throw_bad_input(
          cat(model.path(), ": a hash is stored for tensor ", name, ", which is not there"));
    const std::string found = model.tensor_hash(name);
    if (found != hash)
      throw_bad_input(cat(model.path(), ": tensor ", name, ": its bytes have the hash ", found,
                          ", but were written with ", hash, "; the file was damaged or changed"));
  }
  return "equal";
}

}  // namespace

Json verify_checkpoint(const std::string& path, Context& context) {
  if (path.ends_with(".safetensors") && std::filesystem::is_regular_file(path))
    return verify_one_file(path);
  const auto model = Model::open(path);
  Progress& progress = progress_of(context);
  progress.begin("verify", model->tensors().size(), "tensors");
  std::set<std::string> not_decoded;
  uint64_t done = 0;
  for (const TensorInfo& info : model->tensors()) {
    context.check_interrupt();
    if (find_block_codec(info.dtype) == nullptr) {
      not_decoded.insert(std::string(dtype_name(info.dtype)));
    } else {
      check_values(model->view(info.name), cat(path, ": tensor ", info.file_name),
                   [&] { model->release(info.name); });
    }
    progress.update(++done);
  }
  const std::string hashes = check_hashes(*model);
  progress.end();
  const bool has_tokenizer = !model->assets().tokenizer_json.empty();
  if (has_tokenizer) model->tokenizer();
  return {{"path", path},
          {"tensors", model->tensors().size()},
          {"size_bytes", model->size_bytes()},
          {"finite", true},
          {"hashes", hashes},
          {"content_hash", model->content_hash()},
          {"tokenizer", has_tokenizer},
          {"not_decoded", not_decoded}};
}

}  // namespace slmc

#include "quantize/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/family.h"
#include "formats/gguf.h"

namespace slmc {
namespace {

constexpr std::string_view kSquares = ".in_sum2", kCounts = ".counts";

std::vector<float> floats_of(const GgufFile& file, const GgufTensor& tensor,
                             const std::string& path) {
  if (tensor.dtype != DType::kF32)
    throw_bad_input(cat(path, ": ", tensor.name, " is ", dtype_name(tensor.dtype),
                        "; expected f32, as llama.cpp writes importance matrices"));
  std::vector<float> values(static_cast<size_t>(element_count(tensor.shape)));
  std::memcpy(values.data(), file.file->data() + tensor.offset, tensor.bytes);
  return values;
}

/// Sums over tokens [matrices][width] and token counts [matrices], as mean squares over all
/// matrices that saw any.
ImportanceMatrix::Entry entry_of(const std::vector<float>& sums, const std::vector<float>& counts,
                                 const std::string& where) {
  if (counts.empty() || sums.size() % counts.size() != 0)
    throw_bad_input(cat(where, ": ", sums.size(), " sums do not divide by ", counts.size(),
                        " counts; the file is damaged"));
  const size_t width = sums.size() / counts.size();
  std::vector<double> totals(width, 0.0);
  double tokens = 0;
  for (size_t m = 0; m < counts.size(); ++m) {
    tokens += static_cast<double>(counts[m]);
    for (size_t i = 0; i < width; ++i) totals[i] += static_cast<double>(sums[m * width + i]);
  }
  ImportanceMatrix::Entry entry;
  entry.tokens = static_cast<int64_t>(tokens);
  for (size_t i = 0; i < width; ++i) {
    const double mean = tokens > 0 ? totals[i] / tokens : 0.0;
    if (!std::isfinite(mean) || mean < 0)
      throw_bad_input(cat(where, "[", i, "] is ", totals[i],
                          "; expected sums of squares, finite and not negative"));
    entry.mean_squares.push_back(static_cast<float>(mean));
  }
  return entry;
}

}  // namespace

ImportanceMatrix ImportanceMatrix::open(const std::string& path) {
  const GgufFile file = GgufFile::open(path);
  ImportanceMatrix matrix;
  if (file.keys.has("imatrix.datasets"))
    matrix.datasets = file.keys.strings("imatrix.datasets", path);
  matrix.chunk_count = file.keys.integer_or("imatrix.chunk_count", 0, path);
  matrix.chunk_size = file.keys.integer_or("imatrix.chunk_size", 0, path);
  for (const GgufTensor& tensor : file.tensors) {
    if (!tensor.name.ends_with(kSquares)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSquares.size());
    const GgufTensor* counts = file.find(name + std::string(kCounts));
    if (counts == nullptr)
      throw_bad_input(cat(path, ": ", tensor.name, " has no ", name, kCounts,
                          " beside it; the file is damaged"));
    matrix.entries[name] = entry_of(floats_of(file, tensor, path), floats_of(file, *counts, path),
                                    cat(path, ": ", tensor.name));
  }
  if (matrix.entries.empty())
    throw_bad_input(cat(path, ": expected an importance matrix (tensors named '...", kSquares,
                        "'), found a GGUF with ", file.tensors.size(),
                        " other tensors; make one with slmc imatrix"));
  return matrix;
}

void ImportanceMatrix::write(const std::string& path, bool force) const {
  check_output(path, force);
  GgufKeys keys;
  keys.set("general.type", std::string("imatrix"));
  keys.set("imatrix.datasets", GgufArray(datasets));
  keys.set("imatrix.chunk_count", static_cast<uint32_t>(chunk_count));
  keys.set("imatrix.chunk_size", static_cast<uint32_t>(chunk_size));
  std::vector<GgufTensor> tensors;
  uint64_t offset = 0;
  const auto add = [&](const std::string& name, uint64_t count) {
    GgufTensor tensor;
    tensor.name = name;
    tensor.shape = {1, static_cast<int64_t>(count)};
    tensor.offset = offset;
    tensor.bytes = count * sizeof(float);
    offset = (offset + tensor.bytes + 31) / 32 * 32;
    tensors.push_back(std::move(tensor));
  };
  for (const auto& [name, entry] : entries) {
    add(name + std::string(kSquares), entry.mean_squares.size());
    add(name + std::string(kCounts), 1);
  }
  std::string bytes = gguf_header(keys, tensors);
  const auto append = [&bytes](const std::vector<float>& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    bytes.resize((bytes.size() + 31) / 32 * 32, '\0');
  };
  for (const auto& [name, entry] : entries) {
    std::vector<float> sums = entry.mean_squares;
    for (float& sum : sums)
      sum = static_cast<float>(static_cast<double>(sum) * static_cast<double>(entry.tokens));
    append(sums);
    append({static_cast<float>(entry.tokens)});
  }
  write_text(path, bytes);
}

namespace {

/// Names in a GGUF of the model's matrices, where they differ from ours.
std::vector<std::pair<std::string, std::string>> file_names(const Model& model) {
  std::vector<std::pair<std::string, std::string>> names;  // {ours, the file's}
  for (const TensorSpec& spec : family_by_name(model.arch().family).tensors(model.arch()))
    if (spec.shape.size() >= 2 && spec.gguf.name != spec.name && !spec.gguf.name.empty())
      names.emplace_back(spec.name, spec.gguf.name);
  return names;
}

}  // namespace

void ImportanceMatrix::adopt(const Model& model, const std::string& path) {
  std::map<std::string, Entry> parts;
  std::set<std::string> wholes;
  for (const auto& [name, stored] : file_names(model)) {
    const auto whole = entries.find(stored);
    if (whole == entries.end()) continue;
    parts[name] = whole->second;
    if (!model.has(stored)) wholes.insert(stored);  // Phi-3's ffn_up is also one of its parts.
  }
  for (const std::string& whole : wholes) entries.erase(whole);
  for (auto& [name, entry] : parts) entries.insert_or_assign(name, std::move(entry));
  for (const auto& [name, entry] : entries) {
    if (!model.has(name))
      throw_bad_input(cat(path, ": the importance matrix has ", name, ", which ", model.path(),
                          " lacks; it was made for another model"));
    const int64_t width = model.info(name).shape.back();
    if (static_cast<int64_t>(entry.mean_squares.size()) == width) continue;
    throw_bad_input(cat(path, ": ", name, " has ", entry.mean_squares.size(), " inputs, ",
                        model.path(), " has ", width, "; it was made for another model"));
  }
  const std::string last = cat("blk.", model.arch().layers - 1, ".");
  const auto next = entries.lower_bound(last);
  if (next == entries.end() || !next->first.starts_with(last))
    throw_bad_input(cat(path, ": the importance matrix has nothing of block ",
                        model.arch().layers - 1, ", the last of ", model.path(),
                        "; it was made for another model"));
}

void ImportanceMatrix::use_file_names(const Model& model) {
  for (const auto& [name, stored] : file_names(model)) {
    auto part = entries.extract(name);
    if (part.empty()) continue;
    part.key() = stored;
    entries.insert(std::move(part));  // The first part's; the others are the same.
  }
}

}  // namespace slmc

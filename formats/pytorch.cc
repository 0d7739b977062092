#include "formats/pytorch.h"

#include <cstring>
#include <map>

#include "compress/core/error.h"
#include "compress/core/text.h"
#include "formats/pickle.h"
#include "formats/zip.h"

namespace slmc {
namespace {

constexpr uint64_t kLongestPickle = 256u << 20;

void check_is_zip(const MappedFile& file) {
  const auto begins = [&](std::string_view bytes) {
    return file.size() >= bytes.size() && std::memcmp(file.data(), bytes.data(), bytes.size()) == 0;
  };
  if (begins("PK\x03\x04")) return;
  if (begins("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")) {
    throw_unsupported(
        cat(file.path(),
            ": written in the format of PyTorch before 1.6; write it anew: torch.save(torch.load("
            "file, weights_only=True), file)"));
  }
  throw_bad_input(cat(file.path(), ": byte 0: not a file of torch.save (a zip archive)"));
}

bool is_contiguous(const PickledTensor& tensor) {
  uint64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && static_cast<uint64_t>(tensor.strides[i]) != expected) return false;
    expected = checked_multiply(expected, static_cast<uint64_t>(tensor.shape[i]), tensor.name);
  }
  return true;
}

SafetensorsEntry place(const PickledTensor& tensor, const ZipEntry& storage,
                       const std::string& path) {
  const std::string where = cat(path, ": tensor ", tensor.name);
  const auto element = static_cast<uint64_t>(dtype_block_bytes(tensor.dtype));
  uint64_t elements = 1;
  for (const int64_t size : tensor.shape)
    elements = checked_multiply(elements, static_cast<uint64_t>(size), where);
  SafetensorsEntry entry{tensor.name, tensor.dtype, tensor.shape, storage.offset,
                         checked_multiply(elements, element, where)};
  if (elements == 0) return entry;
  if (!is_contiguous(tensor)) {
    throw_unsupported(cat(where, ": its elements are not in the order of its shape ",
                          shape_text(tensor.shape), " (strides ", shape_text(tensor.strides),
                          "); save it with .contiguous()"));
  }
  const uint64_t begin = checked_multiply(tensor.first, element, where);
  if (begin > storage.bytes || entry.bytes > storage.bytes - begin) {
    throw_bad_input(cat(where, ": ", entry.bytes, " bytes from byte ", begin, " do not lie in ",
                        storage.name, ", which has ", storage.bytes));
  }
  entry.offset += begin;
  return entry;
}

}  // namespace

SafetensorsFile open_pytorch_file(const std::string& path) {
  SafetensorsFile result;
  result.file = MappedFile::open(path);
  check_is_zip(*result.file);
  std::map<std::string, ZipEntry> entries;
  std::string root;  // All names begin with the archive's own.
  for (ZipEntry& entry : read_zip_directory(*result.file)) {
    if (entry.name.ends_with("/data.pkl")) root = entry.name.substr(0, entry.name.size() - 8);
    const std::string name = entry.name;
    if (!entries.emplace(name, std::move(entry)).second)
      throw_bad_input(cat(path, ": the entry ", name, " is there twice"));
  }
  if (root.empty())
    throw_bad_input(cat(path, ": a zip archive without data.pkl; expected a file of torch.save"));
  const auto content = [&](const ZipEntry& entry) {
    return std::string_view(reinterpret_cast<const char*>(result.file->data() + entry.offset),
                            entry.bytes);
  };
  if (const auto order = entries.find(root + "byteorder");
      order != entries.end() && content(order->second) != "little")
    throw_unsupported(cat(path, ": written by a big-endian machine"));
  const ZipEntry& pickle = entries.at(root + "data.pkl");
  if (pickle.bytes > kLongestPickle)
    throw_bad_input(cat(path, ": a pickle of ", pickle.bytes, " bytes"));
  for (const PickledTensor& tensor : read_pickled_tensors(content(pickle), path)) {
    const auto storage = entries.find(root + "data/" + tensor.storage);
    if (storage == entries.end())
      throw_bad_input(cat(path, ": tensor ", tensor.name, ": its bytes, ", root, "data/",
                          tensor.storage, ", are missing"));
    result.tensors.push_back(place(tensor, storage->second, path));
  }
  return result;
}

}  // namespace slmc

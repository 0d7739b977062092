#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "compress/core/text.h"
#include "formats/pytorch.h"

namespace slmc {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeader = 100'000'000;

struct TypeName {
  const char* name;
  DType dtype;
};
constexpr TypeName kTypes[] = {{"F32", DType::kF32},  {"F16", DType::kF16}, {"BF16", DType::kBF16},
                               {"F64", DType::kF64},  {"I8", DType::kI8},   {"I16", DType::kI16},
                               {"I32", DType::kI32},  {"I64", DType::kI64}, {"U8", DType::kU8},
                               {"U16", DType::kU16},  {"U32", DType::kU32}, {"U64", DType::kU64},
                               {"BOOL", DType::kBool}};

DType parse_type(const std::string& name, const std::string& where) {
  for (const TypeName& type : kTypes) {
    if (name == type.name) return type.dtype;
  }
  throw_unsupported(
      cat(where, ": element type ", name.substr(0, 20), " is not one that slmc reads"));
}

const char* type_text(DType dtype) {
  for (const TypeName& type : kTypes) {
    if (dtype == type.dtype) return type.name;
  }
  throw_unsupported(
      cat("safetensors cannot hold type ", dtype_name(dtype), "; write a .gguf file"));
}

uint64_t unsigned_number(const Json& value, const std::string& where) {
  if (!value.is_number_unsigned())
    throw_bad_input(cat(where, ": expected a whole number, found ",
                        value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 40)));
  return value.get<uint64_t>();
}

SafetensorsEntry parse_entry(const std::string& name, const Json& value, uint64_t data_start,
                             uint64_t data_size, const std::string& path) {
  const std::string where = cat(path, ": tensor ", name);
  const auto member = [&](const char* key) -> const Json& {
    if (!value.is_object() || !value.contains(key))
      throw_bad_input(cat(where, ": \"", key, "\" is missing from the header"));
    return value[key];
  };
  if (value.is_object() && value.size() != 3)
    throw_bad_input(cat(where, ": expected the keys dtype, shape and data_offsets, found ",
                        value.size(), " keys"));
  SafetensorsEntry entry;
  entry.name = name;
  if (!member("dtype").is_string()) throw_bad_input(cat(where, ": dtype is not a string"));
  entry.dtype = parse_type(member("dtype").get<std::string>(), where);
  if (!member("shape").is_array()) throw_bad_input(cat(where, ": shape is not an array"));
  uint64_t bytes = static_cast<uint64_t>(dtype_block_bytes(entry.dtype));
  for (const Json& size : member("shape")) {
    const uint64_t n = unsigned_number(size, cat(where, ": shape"));
    if (n > (uint64_t{1} << 40)) throw_bad_input(cat(where, ": a dimension of ", n));
    bytes = checked_multiply(bytes, n, where);
    entry.shape.push_back(static_cast<int64_t>(n));
  }
  const Json& offsets = member("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2)
    throw_bad_input(cat(where, ": data_offsets is not a pair"));
  const uint64_t begin = unsigned_number(offsets[0], cat(where, ": data_offsets"));
  const uint64_t end = unsigned_number(offsets[1], cat(where, ": data_offsets"));
  if (begin > end || end > data_size) {
    throw_bad_input(cat(where, ": data_offsets [", begin, ", ", end, "] do not lie in the ",
                        data_size, " bytes of data (from byte ", data_start,
                        "); the file is truncated or corrupt"));
  }
  if (end - begin != bytes) {
    throw_bad_input(cat(where, ": ", type_text(entry.dtype), " ", shape_text(entry.shape),
                        " takes ", bytes, " bytes, data_offsets give ", end - begin));
  }
  entry.offset = data_start + begin;
  entry.bytes = bytes;
  return entry;
}

void check_coverage(const std::vector<SafetensorsEntry>& tensors, uint64_t data_start,
                    uint64_t size, const std::string& path) {
  uint64_t at = data_start;
  for (const SafetensorsEntry& entry : tensors) {
    if (entry.offset != at) {
      throw_bad_input(
          cat(path, ": tensor ", entry.name, ": begins at byte ", entry.offset, ", expected ", at,
              entry.offset < at ? " (overlaps the tensor before it)" : " (a hole in the data)"));
    }
    at += entry.bytes;
  }
  if (at != size)
    throw_bad_input(cat(path, ": ", size - at, " bytes from byte ", at, " belong to no tensor"));
}

/// The file that a shard's name in the index stands for. Names come from a file that others wrote:
/// nothing outside the folder is opened.
std::string shard_path(const std::string& folder, const std::string& name,
                       const std::string& index) {
  const fs::path plain(name);
  if (name.empty() || name == "." || name == ".." || plain.filename() != plain ||
      name.find('\\') != std::string::npos) {
    throw_bad_input(cat(index, ": shard \"", name.substr(0, 100), "\" is not a plain file name"));
  }
  const fs::path path = fs::path(folder) / plain;
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error)
    throw_bad_input(
        cat(path.string(), ": named by ", index, " but cannot be opened: ", error.message()));
  const fs::path home = fs::canonical(folder, error);
  const fs::path blobs = fs::weakly_canonical(home / ".." / ".." / "blobs", error);
  if (real.parent_path() != home && real.parent_path() != blobs) {
    throw_bad_input(
        cat(path.string(), ": a link that leads out of the folder, to ", real.string()));
  }
  return path.string();
}

using OpenFile = SafetensorsFile (*)(const std::string& path);

std::vector<SafetensorsFile> open_shards(const std::string& folder, const std::string& index,
                                         OpenFile open) {
  const Json json = read_json(index);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw_bad_input(cat(index, ": expected an object \"weight_map\""));
  std::map<std::string, std::map<std::string, bool>> shards;  // Shard, tensor, found.
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (!shard.is_string())
      throw_bad_input(cat(index, ": weight_map: ", tensor, ": expected a file name"));
    shards[shard.get<std::string>()][tensor] = false;
  }
  std::vector<SafetensorsFile> files;
  for (auto& [name, tensors] : shards) {
    files.push_back(open(shard_path(folder, name, index)));
    for (const SafetensorsEntry& entry : files.back().tensors) {
      const auto place = tensors.find(entry.name);
      if (place == tensors.end())
        throw_bad_input(
            cat(files.back().file->path(), ": tensor ", entry.name, " is not in ", index));
      place->second = true;
    }
    for (const auto& [tensor, found] : tensors) {
      if (!found)
        throw_bad_input(cat(files.back().file->path(), ": tensor ", tensor, " is missing, though ",
                            index, " says it is here"));
    }
  }
  return files;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile result;
  result.file = MappedFile::open(path);
  const uint64_t size = result.file->size();
  if (size < 8) throw_bad_input(cat(path, ": ", size, " bytes are too few for a safetensors file"));
  uint64_t header = 0;
  std::memcpy(&header, result.file->data(), 8);
  if (header > kMaxHeader || header > size - 8) {
    throw_bad_input(cat(path, ": byte 0: a header of ", header, " bytes; the file has ", size,
                        " and the limit is ", kMaxHeader, "; it is truncated or not safetensors"));
  }
  const std::string_view text(reinterpret_cast<const char*>(result.file->data() + 8), header);
  if (text.empty() || text[0] != '{')
    throw_bad_input(cat(path, ": byte 8: the header does not begin with '{'"));
  const Json json = parse_json(text, cat(path, ": header"));
  const uint64_t start = 8 + header;
  for (const auto& [name, value] : json.items()) {
    if (name != "__metadata__") {
      result.tensors.push_back(parse_entry(name, value, start, size - start, path));
      continue;
    }
    if (!value.is_object()) throw_bad_input(cat(path, ": __metadata__ is not an object"));
    for (const auto& [key, item] : value.items()) {
      if (!item.is_string())
        throw_bad_input(cat(path, ": __metadata__: ", key, " is not a string"));
      result.metadata.emplace_back(key, item.get<std::string>());
    }
  }
  // Empty tensors come before the one that begins where they do.
  std::stable_sort(result.tensors.begin(), result.tensors.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
                   });
  check_coverage(result.tensors, start, size, path);
  return result;
}

std::vector<SafetensorsFile> open_safetensors_folder(const std::string& folder) {
  const std::string whole = folder + "/model.safetensors";
  const std::string index = whole + ".index.json", pickled = folder + "/pytorch_model.bin";
  std::vector<SafetensorsFile> files;
  if (fs::exists(whole)) {
    files.push_back(SafetensorsFile::open(whole));
  } else if (fs::exists(index)) {
    files = open_shards(folder, index, SafetensorsFile::open);
  } else if (fs::exists(pickled)) {
    files.push_back(open_pytorch_file(pickled));
  } else if (fs::exists(pickled + ".index.json")) {
    files = open_shards(folder, pickled + ".index.json", open_pytorch_file);
  } else {
    throw_bad_input(cat(folder,
                        ": neither model.safetensors nor pytorch_model.bin nor an index of their "
                        "shards is there"));
  }
  std::map<std::string, std::string> seen;
  for (const SafetensorsFile& file : files) {
    for (const SafetensorsEntry& entry : file.tensors) {
      const auto [place, fresh] = seen.emplace(entry.name, file.file->path());
      if (!fresh)
        throw_bad_input(
            cat(file.file->path(), ": tensor ", entry.name, " is in ", place->second, " too"));
    }
  }
  return files;
}

std::string safetensors_header(const std::vector<SafetensorsEntry>& tensors,
                               const std::vector<std::pair<std::string, std::string>>& metadata) {
  Json json = Json::object();
  if (!metadata.empty()) {
    Json& texts = json["__metadata__"] = Json::object();
    for (const auto& [key, value] : metadata) texts[key] = value;
  }
  for (const SafetensorsEntry& entry : tensors) {
    json[entry.name] = {{"dtype", type_text(entry.dtype)},
                        {"shape", entry.shape},
                        {"data_offsets", {entry.offset, entry.offset + entry.bytes}}};
  }
  std::string text = json.dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + text;
}

}  // namespace slmc
